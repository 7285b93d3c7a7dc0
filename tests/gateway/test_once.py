"""Claims in use: what happens to a name when a lease, the state or the upload itself is lost on the way."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from broker import refusals
from broker.audit import Attempt, new_attempt_id
from broker.gateway.credential import Credential
from broker.gateway.index import SimpleIndex
from broker.gateway.once import Once
from broker.gateway.package import check
from broker.gateway.registry import Answer, Registry
from broker.state import Busy, Claim, Claimed, Written
from broker.state.sqlite import SQLiteState
from tests.gateway.test_registry import large_wheel, response
from tests.gateway.uploads import WHEEL, pack_wheel, pieces, reading, upload, wheel_entries
from tests.gateway.wire import Misbehave, WireRegistry, answers, hangs, wire_registry
from tests.registries import PASSWORD, USER, PypiServer, pypi_server

pytestmark = pytest.mark.anyio

FILE = pack_wheel()
OTHER = pack_wheel(wheel_entries(**{"acme_widgets/more.py": b"more = 1\n"}))


async def allowed() -> None:
    """Nobody lost a right."""


class Store(SQLiteState):
    """State of which some operations fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, retention_days=30)
        self.fails: set[str] = set()
        self.claims: list[Claim] = []
        self.renewals = 0

    def _check(self, name: str) -> None:
        if name in self.fails:
            raise refusals.StateUnavailable

    async def claim(self, claim: Claim, *, now: float, seconds: float) -> Claimed | Busy | Written:
        self.claims.append(claim)
        return await super().claim(claim, now=now, seconds=seconds)

    async def renew(self, claim: Claim, *, now: float, seconds: float) -> bool:
        self.renewals += 1
        self._check("renew")
        return await super().renew(claim, now=now, seconds=seconds)

    async def store(self, claim: Claim, *, now: float) -> bool:
        self._check("store")
        return await super().store(claim, now=now)

    async def release(self, claim: Claim) -> None:
        self._check("release")
        await super().release(claim)

    async def take_away(self) -> None:
        """What a lease that ended leaves: another attempt's claim."""
        await super().release(self.claims[-1])
        other = Claim(name=self.claims[-1].name, sha256="other", attempt="another")
        assert await super().claim(other, now=time.time(), seconds=60) == Claimed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One gateway's part that is tested here, and what is around it."""

    once: Once
    state: Store
    registry: WireRegistry
    spool: Path

    async def send(
        self,
        file: bytes = FILE,
        *,
        still_allowed: Callable[[], Awaitable[None]] = allowed,
        while_reading: Callable[[int], None] | None = None,
    ) -> tuple[Answer, Attempt]:
        """Sends one upload on.

        Args:
            while_reading: Told of each place in the file that is read to be sent.
        """
        now = time.time()
        attempt = Attempt(kind="upload", id=new_attempt_id(now), started_at=now)
        async with reading(pieces(upload(file)), self.spool) as form:
            package = await asyncio.to_thread(check, form)
            read_at = form.file.read_at

            def reading_at(offset: int, size: int) -> bytes:
                if while_reading is not None:
                    while_reading(offset)
                return read_at(offset, size)

            form.file.read_at = reading_at  # type: ignore[method-assign]
            return await self.once.send(form, package, attempt, still_allowed), attempt


@pytest.fixture(name="part")
async def _part(tmp_path: Path) -> AsyncIterator[Part]:
    async with made(tmp_path) as part:
        yield part


@asynccontextmanager
async def made(folder: Path, *, real: PypiServer | None = None) -> AsyncIterator[Part]:
    """Leases are short, and rounded up to whole seconds by the store.

    Args:
        real: Takes the place of the one at the wire.
    """
    state, spool = Store(folder / "state.db"), folder / "spool"
    spool.mkdir()
    async with wire_registry() as wire, httpx.AsyncClient(trust_env=False, timeout=20) as client:
        wire.url = wire.url if real is None else real.url
        registry = Registry(
            url=wire.url, credential=Credential(username=USER, secret=SecretStr(PASSWORD)), client=client
        )
        url = wire.url.removesuffix("legacy/") + "simple/"
        once = Once(
            state=state,
            registry=registry,
            index=SimpleIndex(url=url, registry=registry, largest_file_bytes=1000),
            clock=time.time,
            lease_seconds=2.0,
            wait_seconds=0.2,
            poll_seconds=0.05,
        )
        yield Part(once=once, state=state, registry=wire, spool=spool)
        await state.close()


def then(misbehave: Misbehave, do: Callable[[], Awaitable[None]]) -> Misbehave:
    """Something happens while the registry is at work."""

    async def misbehaving(
        registry: WireRegistry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int
    ) -> None:
        if length:
            await do()
        await misbehave(registry, reader, writer, length)

    return misbehaving


async def test_a_lease_is_renewed_for_as_long_as_the_registry_takes(part: Part) -> None:
    async def slowly() -> None:
        await asyncio.sleep(4.5)
        with pytest.raises(refusals.UploadInProgress):
            await part.send(OTHER)

    part.registry.misbehave = then(answers("200 OK", stores=True), slowly)
    answer, _ = await part.send()
    assert answer.status == 200
    assert part.state.renewals > 1
    assert part.registry.stored == {WHEEL: FILE}


async def test_whoever_lost_the_claim_stops_sending_and_the_index_says_what_became_of_the_file(part: Part) -> None:
    for stored, expected in ((None, refusals.StateUnavailable), (OTHER, refusals.FileExists)):

        async def lose(held: bytes | None = stored) -> None:
            await part.state.take_away()
            if held is not None:
                part.registry.stored[WHEEL] = held

        part.registry.misbehave = then(hangs(), lose)
        began = time.monotonic()
        with pytest.raises(expected):
            await part.send()
        assert time.monotonic() - began < 10, "it hangs for longer"
        await SQLiteState.release(part.state, Claim(name=part.state.claims[-1].name, sha256="", attempt="another"))
        part.registry.stored.clear()


async def test_whoever_lost_the_claim_before_the_first_byte_sends_nothing(part: Part) -> None:
    with pytest.raises(refusals.StateUnavailable, match="claim"):
        await part.send(still_allowed=part.state.take_away)
    assert part.registry.posts == 0


async def test_a_success_without_a_claim_is_one_only_where_the_index_has_our_bytes(part: Part) -> None:
    part.registry.misbehave = then(answers("200 OK", stores=True), part.state.take_away)
    answer, attempt = await part.send()
    assert (answer.status, attempt.registry_status, attempt.confirmed) == (200, 200, True)
    await SQLiteState.release(part.state, Claim(name=part.state.claims[-1].name, sha256="", attempt="another"))
    part.registry.stored.clear()
    part.registry.misbehave = then(answers("200 OK"), part.state.take_away)
    with pytest.raises(refusals.StateUnavailable, match="claim"):
        await part.send()


async def test_a_store_that_is_gone_while_the_registry_is_at_work_ends_the_upload_with_the_lease(part: Part) -> None:
    async def fail() -> None:
        part.state.fails = {"renew"}

    part.registry.misbehave = then(hangs(), fail)
    began = time.monotonic()
    with pytest.raises(refusals.StateUnavailable, match="claim"):
        await part.send()
    assert 1.9 < time.monotonic() - began < 10
    assert part.state.renewals > 1


async def test_a_success_that_cannot_be_noted_is_one_and_found_again_after_the_lease(part: Part) -> None:
    part.state.fails = {"store"}
    answer, _ = await part.send()
    assert answer.status == 200
    with pytest.raises(refusals.UploadInProgress):
        await part.send()
    await asyncio.sleep(3.1)
    _, attempt = await part.send()
    assert attempt.already_stored
    assert part.registry.posts == 1


async def test_who_finds_another_file_there_does_not_block_those_who_have_its_bytes(part: Part) -> None:
    async def meanwhile() -> None:
        part.registry.stored[WHEEL] = OTHER

    part.registry.misbehave = then(answers("409 Conflict"), meanwhile)
    with pytest.raises(refusals.FileExists):
        await part.send()
    _, attempt = await part.send(OTHER)
    assert attempt.already_stored


async def test_a_crash_in_the_middle_blocks_the_name_for_a_lease_and_then_the_index_decides(part: Part) -> None:
    """The next broker finds what the last one's upload left."""
    dead = Claim(name=f"{part.registry.url} acme-widgets 1 py3-none-any.whl", sha256="crashed", attempt="dead")
    await part.state.claim(dead, now=time.time(), seconds=1)
    part.registry.stored[WHEEL] = FILE
    with pytest.raises(refusals.UploadInProgress):
        await part.send()
    await asyncio.sleep(2.1)
    with pytest.raises(refusals.FileExists):
        await part.send(OTHER)
    _, attempt = await part.send()
    assert (attempt.already_stored, part.registry.posts) == (True, 0)


async def test_whoever_loses_the_right_while_waiting_uploads_nothing_and_gives_the_name_back(part: Part) -> None:
    async def revoked() -> None:
        raise refusals.RevokedToken

    with pytest.raises(refusals.RevokedToken):
        await part.send(still_allowed=revoked)
    assert part.registry.posts == 0
    assert (await part.send(OTHER))[0].status == 200


async def test_what_cannot_be_given_back_hides_nothing(part: Part) -> None:
    part.registry.index = lambda _: response("500 Oops")
    part.state.fails = {"release"}
    with pytest.raises(refusals.RegistryIndex):
        await part.send()


async def test_an_upload_that_is_cut_short_leaves_the_name_to_the_same_bytes(part: Part) -> None:
    part.registry.misbehave = hangs()
    task = asyncio.create_task(part.send())
    await part.registry.posted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held = part.state.claims[-1]
    other = Claim(name=held.name, sha256="other", attempt="other")
    assert await part.state.claim(other, now=time.time(), seconds=60) == Busy()
    part.registry.misbehave = None
    assert (await part.send())[0].status == 200


async def test_a_registry_that_is_killed_in_the_middle_and_comes_back_takes_the_file_whole(tmp_path: Path) -> None:
    file = large_wheel(40)
    with pypi_server(tmp_path / "registry", "gunicorn") as real:

        def kill(offset: int) -> None:
            if offset == 20 << 20:
                real.stop(signal.SIGKILL)

        async with made(tmp_path, real=real) as part:
            with pytest.raises(refusals.RegistryUnavailable):
                await part.send(file, while_reading=kill)
            with pytest.raises(refusals.RegistryUnavailable):
                await part.send(file)
            real.start()
            answer, attempt = await part.send(file)
            assert (answer.status, attempt.registry_status) == (200, 200)
            assert real.stored() == {WHEEL: hashlib.sha256(file).hexdigest()}


async def test_of_several_spellings_at_the_registry_one_with_our_bytes_is_enough(part: Part) -> None:
    part.registry.stored = {"Acme.Widgets-1.0-py3-none-any.whl": OTHER, WHEEL: FILE}
    _, attempt = await part.send()
    assert attempt.already_stored
    part.registry.stored = {"Acme.Widgets-1.0-py3-none-any.whl": OTHER}
    with pytest.raises(refusals.FileExists):
        await part.send()
    assert part.registry.posts == 0
