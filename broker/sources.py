"""What is refused too often, by where it comes from: what that costs whoever sends it, and what it cannot cost others.

Laws:

- only what is refused counts, in shared state and with the record that it leaves: a good exchange asks nothing of this,
  and waits for nothing here;
- it counts for its source *and* the organization that it concerns. So a flood that concerns none hides nothing of what
  is tried at an organization;
- a source that is over its limit is held: what of it is refused leaves no record of its own, and is answered 429 after
  `PAUSE_SECONDS`, so that a connection is good for one attempt in that time. What of it is good still passes;
- while `MOST_JUDGED` of a source wait for their answer, no more of it are judged: they are refused at the door, before
  their body is read. Not where the source is a proxy, for others come from there too;
- what left no record of its own is counted, and told by one record for each source and organization a minute;
- every table here is bounded, whatever is sent from wherever.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker import refusals
from broker.addresses import Source
from broker.audit import MOST_CONSIDERED, Attempt, Record, new_attempt_id
from broker.state import Limit, OverLimit, State

HOLD_SECONDS: Final = 10
"""How long a source is held at least: between two looks at the shared count, as many attempts are recorded as it has
connections."""

PAUSE_SECONDS: Final = 1.0
"""Clients give up after 5 s, and have to hear why."""

MOST_JUDGED: Final = 100
MOST_PAUSED: Final = 1000
"""Of all sources; beyond, a refusal is answered at once."""
MOST_HELD: Final = 10_000
MOST_UNTOLD: Final = 1000
"""Sources and organizations of which a record is still to tell; beyond, all further ones share one."""

TELL_SECONDS: Final = 60
LOOK_SECONDS: Final = 1.0
"""Between two looks at whether it is time to tell."""

OURS: Final = 500
"""Statuses from here on are not the caller's fault: they are not counted against it."""

EVERYBODY: Final = ("", "")


def spread(seconds: float) -> float:
    """That, or up to a quarter less: what hundreds of clients began at one moment is not to end at one moment."""
    return seconds * random.uniform(0.75, 1.0)  # noqa: S311 - no secret


@dataclass(slots=True)
class _Untold:
    """What left no record of its own since a moment, by code."""

    since: float
    codes: Counter[str] = field(default_factory=Counter)


class Sources:
    """The refused attempts of one process."""

    def __init__(
        self,
        *,
        state: State,
        per_minute: int,
        in_all_per_minute: int,
        clock: Callable[[], float],
        publish_record: Callable[[Attempt, Record], None],
    ) -> None:
        """Nobody is held yet.

        Args:
            per_minute: Refused attempts of one source, for each organization; 0 for any number.
            in_all_per_minute: Those at which no organization was found, of all sources together; 0 for any number.
            publish_record: Told of each record that was stored.
        """
        self.unrecorded = 0
        """Attempts that left no record of their own, so far."""
        self._state, self._clock, self._publish_record = state, clock, publish_record
        self._per_minute, self._in_all_per_minute = per_minute, in_all_per_minute
        self._held: OrderedDict[str, float] = OrderedDict()
        """The limits that are over, by their keys, and until when that is believed without asking."""
        self._untold: dict[tuple[str, str], _Untold] = {}
        self._judged: Counter[str] = Counter()
        """By source: those that were judged, and wait for their answer."""
        self._paused = 0

    @property
    def held(self) -> int:
        """How many limits are over."""
        now = self._clock()
        return sum(until > now for until in self._held.values())

    async def admit(self, source: Source) -> None:
        """Lets a request come in to be judged.

        Raises:
            RateLimited: too many of its source wait for the answer that they are refused.
        """
        if self._judged[source.name] >= MOST_JUDGED and not source.stands_for_many:
            self._note(source.name, ("",), refusals.RateLimited.code)
            await self._pause()
            raise refusals.RateLimited(
                f"too many requests of {source.name} are being refused to look at another one",
                retry_after_seconds=HOLD_SECONDS,
            )

    async def record(self, attempt: Attempt, refusal: refusals.Refusal) -> None:
        """Records an attempt that was refused, and counts it; or, where the count is over, makes its sender wait.

        Raises:
            RateLimited: in place of the refusal, which left no record of its own.
            StateUnavailable
        """
        limits = self._limits(attempt, refusal)
        held = [until for limit in limits if (until := self._until(limit.key)) > 0]
        if not held:
            record = attempt.record()
            over = await self._state.append(record, limits, now=self._clock())
            if over is not None:
                self._hold(over)
            self._publish_record(attempt, record)
            return
        name = attempt.source.name
        self._note(name, attempt.concerned, refusal.code)
        self._judged[name] += 1
        try:
            await self._pause()
        finally:
            self._judged[name] -= 1
            if not self._judged[name]:
                del self._judged[name]
        if refusal.status < OURS:
            raise refusals.RateLimited(
                f"too many attempts were refused lately; so was this one ({refusal.code}), and it left no record",
                retry_after_seconds=max(1, math.ceil(max(held) - self._clock())),
            ) from refusal

    async def keep_told(self) -> None:
        """Writes what is to be told, as long as it runs."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._clock()
            with contextlib.suppress(refusals.StateUnavailable):
                await self.tell([key for key, one in self._untold.items() if now - one.since >= TELL_SECONDS])

    async def tell(self, which: Sequence[tuple[str, str]] | None = None) -> None:
        """Writes a record for each source and organization of which some left none; of all that there are, or of some.

        Raises:
            StateUnavailable: the rest is kept for later.
        """
        for key in list(self._untold) if which is None else which:
            untold = self._untold.pop(key)
            name, organization = key
            attempt = Attempt(
                kind="limit",
                id=new_attempt_id(self._clock()),
                started_at=untold.since,
                source=Source(name),
                owner=organization,
                unrecorded=dict(untold.codes),
                refusal=refusals.RateLimited(f"{untold.codes.total()} refused attempts left no record of their own"),
            )
            record = attempt.record()
            try:
                await self._state.append(record)
            except (refusals.StateUnavailable, asyncio.CancelledError):  # told twice is better than not at all
                later = self._untold.setdefault(key, _Untold(untold.since))
                later.since = untold.since
                later.codes += untold.codes
                raise
            self._publish_record(attempt, record)

    def _limits(self, attempt: Attempt, refusal: refusals.Refusal) -> Sequence[Limit]:
        limits = []
        if self._per_minute and attempt.source.name and refusal.status < OURS:
            key = f"refused {attempt.source.name} {attempt.concerns}"
            limits.append(Limit(key=key, burst=self._per_minute, per_seconds=60))
        if self._in_all_per_minute and not attempt.concerns:
            limits.append(Limit(key="refused", burst=self._in_all_per_minute, per_seconds=60))
        return limits

    def _until(self, key: str) -> float:
        """Until when a limit is over; 0 where it is not known to be."""
        until = self._held.get(key, 0.0)
        return until if until > self._clock() else 0.0

    def _hold(self, over: OverLimit) -> None:
        self._held[over.key] = self._clock() + max(HOLD_SECONDS, over.retry_after_seconds)
        self._held.move_to_end(over.key)
        if len(self._held) > MOST_HELD:
            self._held.popitem(last=False)

    def _note(self, name: str, concerned: Sequence[str], code: str) -> None:
        self.unrecorded += 1
        first, *others = [(name, organization) for organization in concerned[:MOST_CONSIDERED]]
        self._add(first if self._has_room(first, MOST_UNTOLD) else EVERYBODY, code)
        for key in others:
            # Half of the table is for those that are concerned first: who binds a repository with many fills the other.
            if self._has_room(key, MOST_UNTOLD // 2):
                self._add(key, code)

    def _add(self, key: tuple[str, str], code: str) -> None:
        self._untold.setdefault(key, _Untold(self._clock())).codes[code] += 1

    def _has_room(self, key: tuple[str, str], most: int) -> bool:
        return key in self._untold or len(self._untold) < most

    async def _pause(self) -> None:
        """Keeps whoever is refused waiting; the client may be gone, and its next connection waits as well."""
        if self._paused >= MOST_PAUSED:
            return
        self._paused += 1
        try:
            await asyncio.sleep(spread(PAUSE_SECONDS))
        finally:
            self._paused -= 1
