"""Who gets a place for an upload, who waits, and that all come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import refusals
from broker.gateway.places import BEGUN_BYTES, NOTHING, RETRY_AFTER_SECONDS, WAIT_SECONDS, Places, Share, begun, lack
from tests.fakes import refused

pytestmark = pytest.mark.anyio

ALL = Share(places=4, space_bytes=400)
SOON = 0.05


def places(most: int = 4, most_bytes: int = 400, wait_seconds: float = SOON) -> Places:
    """Four, on 400 bytes."""
    return Places(most=most, most_bytes=most_bytes, wait_seconds=wait_seconds)


async def code_of(all_places: Places, publisher: str, size_bytes: int = 1) -> str:
    """What becomes of one more upload: 'granted', or a refusal's code."""
    try:
        async with all_places.taken(publisher, size_bytes):
            return "granted"
    except refusals.Refusal as refusal:
        return refusal.code if refusal.retry_after_seconds == RETRY_AFTER_SECONDS else "without Retry-After"


# --- The decision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "publisher", "organization", "free", "lacking"),
    [
        (1, (0, 0), (0, 0), (1, 1), None),
        (1, (0, 0), (0, 0), (0, 1), "uploads-busy"),
        (1, (1, 0), (1, 0), (2, 1), "uploads-busy"),
        (1, (1, 0), (1, 0), (3, 1), None),
        (1, (0, 0), (1, 0), (1, 1), "uploads-busy"),
        (1, (0, 0), (1, 0), (2, 1), None),
        (1, (2, 0), (5, 0), (7, 1), "uploads-busy"),
        (1, (2, 0), (5, 0), (8, 1), None),
        (1, (0, 0), (0, 0), (1, 0), "upload-quota"),
        (0, (0, 0), (0, 0), (1, 0), "upload-quota"),
        (2, (0, 0), (0, 0), (1, 1), "upload-quota"),
        (2, (0, 0), (0, 0), (1, 2), None),
        (2, (1, 3), (1, 3), (9, 6), "upload-quota"),
        (2, (1, 3), (1, 3), (9, 7), None),
        (2, (1, 3), (2, 4), (9, 7), "upload-quota"),
        (2, (1, 3), (2, 4), (9, 8), None),
        (9, (1, 9), (1, 9), (1, 0), "uploads-busy"),
    ],
)
def test_a_publisher_gets_as_long_as_it_holds_less_than_is_free_beyond_what_its_organization_holds(
    wanted: int, publisher: tuple[int, int], organization: tuple[int, int], free: tuple[int, int], lacking: str | None
) -> None:
    refusal = lack(
        Share(places=1, space_bytes=wanted),
        publisher=Share(places=publisher[0], space_bytes=publisher[1]),
        organization=Share(places=organization[0], space_bytes=organization[1]),
        free=Share(places=free[0], space_bytes=free[1]),
    )
    assert (refusal and refusal.code) == lacking


def test_the_bounds_are_what_the_documentation_says() -> None:
    assert (BEGUN_BYTES, WAIT_SECONDS, RETRY_AFTER_SECONDS) == (65536, 10, 10)
    assert Places(most=1, most_bytes=1).wait_seconds == WAIT_SECONDS


@pytest.mark.parametrize(
    ("organizations", "publishers", "least", "most"),
    [(1, 1, 22, 22), (1, 2, 13, 13), (1, 100, 0, 1), (2, 1, 16, 16), (3, 1, 13, 13), (5, 3, 3, 4), (63, 1, 1, 1)],
)
async def test_however_many_want_all_a_new_organization_finds_a_place(
    organizations: int, publishers: int, least: int, most: int
) -> None:
    held = {f"{one}/{other}": 0 for one in range(organizations) for other in range(publishers)}
    all_places = places(64, 10**9, wait_seconds=0)
    async with AsyncExitStack() as stack:
        for _ in range(64):
            for publisher in held:
                try:
                    await stack.enter_async_context(all_places.taken(publisher, 1))
                except refusals.UploadsBusy:
                    continue
                held[publisher] += 1
        assert (min(held.values()), max(held.values())) == (least, most)
        assert sum(held.values()) <= 64 * organizations // (organizations + 1)
        assert await code_of(all_places, "new/one") == "granted"


async def test_one_publisher_does_not_take_the_places_of_its_own_organization() -> None:
    all_places = places(64, 10**9, wait_seconds=0)
    async with AsyncExitStack() as stack:
        with refused("uploads-busy"):
            while True:
                await stack.enter_async_context(all_places.taken("acme/greedy", 1))
        assert await code_of(all_places, "acme/other") == "granted"


@given(st.lists(st.tuples(st.sampled_from(["a/x", "a/y", "b/x"]), st.integers(0, 300), st.booleans()), max_size=40))
def test_what_is_held_and_what_is_free_is_always_all(steps: Sequence[tuple[str, int, bool]]) -> None:
    async def story() -> None:
        all_places = places(wait_seconds=0)
        open_uploads: list[AsyncExitStack] = []
        for publisher, size, ends in steps:
            if ends and open_uploads:
                await open_uploads.pop(0).aclose()
            stack = AsyncExitStack()
            try:
                await stack.enter_async_context(all_places.taken(publisher, size))
                open_uploads.append(stack)
            except refusals.Refusal:
                pass
            held = [share for name, share in all_places._held.items() if "/" not in name]
            by_publisher = [share for name, share in all_places._held.items() if "/" in name]
            assert sum(by_publisher, NOTHING) == sum(held, NOTHING)
            assert sum(share.places for share in held) == len(open_uploads) == 4 - all_places.free.places
            assert sum(share.space_bytes for share in held) == 400 - all_places.free.space_bytes
            assert min(all_places.free.places, all_places.free.space_bytes) >= 0
        for stack in open_uploads:
            await stack.aclose()
        assert (all_places.free, all_places._held) == (ALL, {})

    asyncio.run(story())


# --- Waiting ---------------------------------------------------------------------------------------------------------


async def test_whoever_finds_no_place_is_refused_after_a_while_and_leaves_no_trace() -> None:
    all_places = places()
    async with all_places.taken("acme/release", 1), all_places.taken("acme/release", 1):
        assert await code_of(all_places, "acme/release") == "uploads-busy"
        assert await code_of(all_places, "bolt/release") == "granted"
        assert all_places.free.places == 2
    assert (all_places.free, all_places._held, all_places._waiting) == (ALL, {}, {})


async def test_whoever_finds_no_space_is_refused_after_a_while() -> None:
    all_places = places()
    async with all_places.taken("acme/release", 200):
        assert await code_of(all_places, "acme/release") == "upload-quota"
        assert await code_of(all_places, "bolt/release", 201) == "upload-quota"
        assert await code_of(all_places, "bolt/release", 200) == "granted"
    assert await code_of(all_places, "bolt/release", 400) == "granted", "one upload may take all that there is"
    assert await code_of(all_places, "bolt/release", 401) == "upload-quota"


async def test_the_refusal_names_what_is_lacking_at_the_end_of_the_wait() -> None:
    all_places = places(2, wait_seconds=0.2)
    async with AsyncExitStack() as stack:
        first = AsyncExitStack()
        await first.enter_async_context(all_places.taken("acme/release", 1))
        await stack.enter_async_context(all_places.taken("bolt/release", 250))
        late = asyncio.create_task(code_of(all_places, "acme/release", 200))
        await asyncio.sleep(SOON)
        await first.aclose()
        assert await late == "upload-quota"


async def test_a_place_that_is_given_back_goes_to_who_waited_longest_and_may_have_it() -> None:
    all_places, order = places(wait_seconds=5), list[str]()

    async def upload(name: str, publisher: str, size: int) -> None:
        async with all_places.taken(publisher, size):
            order.append(name)

    async with asyncio.TaskGroup() as group:
        async with all_places.taken("acme/release", 350):
            group.create_task(upload("too large", "crew/release", 300))
            group.create_task(upload("of one that has more than is free", "acme/release", 1))
            group.create_task(upload("first", "crew/release", 1))
            group.create_task(upload("second", "crew/release", 1))
            await asyncio.sleep(SOON)
            assert order == ["first", "second"]
        await asyncio.sleep(0)
    assert order == ["first", "second", "too large", "of one that has more than is free"]
    assert all_places.free == ALL


async def test_a_client_that_goes_while_it_waits_holds_nothing() -> None:
    all_places = places(1, wait_seconds=5)
    async with all_places.taken("acme/release", 1):
        waiting = asyncio.create_task(code_of(all_places, "bolt/release"))
        await asyncio.sleep(SOON)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert all_places._waiting == {}
    assert all_places.free.places == 1


async def test_a_client_that_goes_in_the_moment_it_gets_a_place_gives_it_back() -> None:
    all_places = places(1, wait_seconds=5)
    async with all_places.taken("acme/release", 1):
        waiting = asyncio.create_task(code_of(all_places, "bolt/release"))
        await asyncio.sleep(SOON)
    assert all_places.free.places == 0, "granted, and the task has not run yet"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert all_places.free.places == 1


@pytest.mark.parametrize("error", [refusals.TruncatedUpload, ConnectionResetError, asyncio.CancelledError])
async def test_a_place_is_given_back_however_the_upload_ends(error: type[BaseException]) -> None:
    all_places = places()
    with pytest.raises(error):
        async with all_places.taken("acme/release", 1):
            raise error
    assert (all_places.free, all_places._held) == (ALL, {})


# --- The body's beginning --------------------------------------------------------------------------------------------


async def pieces(*sizes: int) -> AsyncIterator[bytes]:
    """Pieces of these sizes, all different."""
    for number, size in enumerate(sizes):
        yield bytes([number]) * size


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (9, 9), (10,), (5, 5), (5, 5, 5), (9, 20, 3, 4), (30, 1)])
async def test_a_body_that_has_begun_is_the_same_body(sizes: tuple[int, ...]) -> None:
    body = await begun(pieces(*sizes), 10)
    assert b"".join([chunk async for chunk in body]) == b"".join([chunk async for chunk in pieces(*sizes)])


async def test_of_a_body_that_has_begun_no_more_is_taken_than_was_to_be_there() -> None:
    taken = list[int]()

    async def body() -> AsyncIterator[bytes]:
        for size in (4, 5, 1, 7):
            taken.append(size)
            yield b"x" * size

    rest = await begun(body(), 10)
    assert taken == [4, 5, 1]
    assert [len(chunk) async for chunk in rest] == [10, 7]


async def test_what_the_body_raises_passes_through() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise refusals.TruncatedUpload

    with refused("truncated-upload"):
        await begun(body(), 10)
    with refused("truncated-upload"):
        async for _ in await begun(body(), 1):
            pass
