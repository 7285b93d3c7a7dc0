"""Places for uploads: how many are under way in this process, on how much of the disk, and none takes them all.

Laws:

- an upload takes a place, and as much of the space as it declared, when its credential was judged good and the first
  `BEGUN_BYTES` of its body are there. So neither strangers hold any, nor who sends nothing;
- a publisher gets a place as long as it holds fewer than are free beyond as many as its organization holds, and space
  likewise. One publisher alone has a third, one organization alone half, and however many organizations want all there
  is, a part is left for the next;
- who finds none waits for it, in the order of coming, and not for long (uploads-busy, upload-quota);
- however an upload ends, both are given back at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

from broker import refusals

BEGUN_BYTES: Final = 64 * 1024
"""Of a body that has no place yet: as much as the server takes in by itself, before anybody asks it for the body."""

WAIT_SECONDS: Final = 10.0
"""How long an upload waits for a place. Some clients give up after 15 s of silence (pdm), so they hear why."""

RETRY_AFTER_SECONDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of what there is."""

    places: int
    space_bytes: int

    def __add__(self, other: Share) -> Self:
        return type(self)(places=self.places + other.places, space_bytes=self.space_bytes + other.space_bytes)

    def __sub__(self, other: Share) -> Self:
        return type(self)(places=self.places - other.places, space_bytes=self.space_bytes - other.space_bytes)


NOTHING: Final = Share(places=0, space_bytes=0)


def lack(wanted: Share, *, publisher: Share, organization: Share, free: Share) -> type[refusals.Refusal] | None:
    """What a publisher is refused with that wants more, when it and its organization hold so much; or None."""
    beyond = free - organization
    if publisher.places >= beyond.places:
        return refusals.UploadsBusy
    if publisher.space_bytes >= beyond.space_bytes or wanted.space_bytes > free.space_bytes:
        return refusals.UploadQuota
    return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Claim:
    """An upload that has a place, or waits for one."""

    publisher: str
    """Its id, 'acme/widgets-release'."""
    wanted: Share
    granted: asyncio.Future[None]

    @property
    def organization(self) -> str:
        """Whose publisher it is; no publisher's id is an organization's name."""
        return self.publisher.partition("/")[0]


class Places:
    """The places of one process."""

    def __init__(self, *, most: int, most_bytes: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self.everything = self.free = Share(places=most, space_bytes=most_bytes)
        self.wait_seconds = wait_seconds
        self._held: dict[str, Share] = {}
        """By publisher, and by organization; those that hold something."""
        self._waiting: dict[_Claim, type[refusals.Refusal]] = {}
        """In the order of coming, with what each lacks."""

    @property
    def held(self) -> Share:
        """What uploads under way have."""
        return self.everything - self.free

    @property
    def waiting(self) -> int:
        """How many uploads wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def taken(self, publisher: str, size_bytes: int) -> AsyncIterator[None]:
        """A place for as long as the context is open, waited for where there is none.

        Raises:
            UploadsBusy, UploadQuota: the wait was in vain.
        """
        claim = _Claim(
            publisher=publisher,
            wanted=Share(places=1, space_bytes=size_bytes),
            granted=asyncio.get_running_loop().create_future(),
        )
        self._seat(claim)
        try:
            if claim in self._waiting:
                await asyncio.wait({claim.granted}, timeout=self.wait_seconds)
            if claim in self._waiting:
                raise self._waiting[claim](
                    f"the uploads under way leave no room for another one of {publisher!r}",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            yield
        finally:
            if self._waiting.pop(claim, None) is None:
                self._give_back(claim)

    def _seat(self, claim: _Claim) -> None:
        """Gives a place, or notes what is lacking."""
        publisher, organization = (self._held.get(name, NOTHING) for name in (claim.publisher, claim.organization))
        lacking = lack(claim.wanted, publisher=publisher, organization=organization, free=self.free)
        if lacking is not None:
            self._waiting[claim] = lacking
            return
        self._waiting.pop(claim, None)
        self.free -= claim.wanted
        self._held[claim.publisher] = publisher + claim.wanted
        self._held[claim.organization] = organization + claim.wanted
        claim.granted.set_result(None)

    def _give_back(self, claim: _Claim) -> None:
        self.free += claim.wanted
        for name in (claim.publisher, claim.organization):
            left = self._held.pop(name) - claim.wanted
            if left != NOTHING:
                self._held[name] = left
        for waiting in [*self._waiting]:
            self._seat(waiting)


async def begun(body: AsyncIterator[bytes], enough_bytes: int = BEGUN_BYTES) -> AsyncIterator[bytes]:
    """The same body, once so much of it is there, or all."""
    first = bytearray()
    async for chunk in body:
        first += chunk
        if len(first) >= enough_bytes:
            break

    async def whole() -> AsyncIterator[bytes]:
        yield bytes(first)
        first.clear()
        async for chunk in body:
            yield chunk

    return whole()
