"""Which releases are too old to take a new file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker import refusals
from broker.gateway.filenames import read_filename
from broker.gateway.index import Listed
from broker.gateway.releases import Releases
from broker.state import Claim
from broker.state.sqlite import SQLiteState

pytestmark = pytest.mark.anyio

DAY = 86400
NOW = 1_800_000_000.0
NEW = read_filename("acme_widgets-1.0-py3-none-any.whl")


@pytest.fixture(name="state")
async def _state(tmp_path: Path) -> AsyncIterator[SQLiteState]:
    state = SQLiteState(tmp_path / "state.db", retention_days=30)
    yield state
    await state.close()


def rule(state: SQLiteState, open_days: int | None = 14) -> Releases:
    """The rule, which does not wait for what is not known."""
    return Releases(state=state, clock=lambda: NOW, name=str, open_days=open_days, pause_seconds=0.0)


def file(filename: str = "acme_widgets-1.0.tar.gz", days: float | None = None) -> Listed:
    """A file that the index lists, so many days old."""
    return Listed(filename=filename, url="x", uploaded_at=None if days is None else NOW - days * DAY)


async def remember(state: SQLiteState, filename: str, days: float) -> None:
    """A file that came through the broker, so many days ago."""
    claim = Claim(name=str(read_filename(filename)), sha256="x", attempt=filename)
    await state.claim(claim, now=NOW - days * DAY, seconds=60)
    assert await state.store(claim, now=NOW - days * DAY)


async def outcome(releases: Releases, *files: Listed) -> str:
    """Why a new file is refused; empty where it is not."""
    try:
        await releases.check_open(files, NEW)
    except refusals.ReleaseClosed as refusal:
        return refusal.detail
    return ""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), ""),
        ((file(days=13.99),), ""),
        ((file(days=14.0),), "more than 14 days"),
        ((file(days=1), file("acme_widgets-1.0.0-1-py3-none-any.whl", days=20)), "more than 14 days"),
        ((file("acme_widgets-0.9.tar.gz", days=100), file("acme_widgets-1.0.post1.tar.gz")), ""),
        ((file("acme_gadgets-1.0.tar.gz", days=100),), ""),
        ((file("nonsense", days=100),), ""),
        ((file(),), "not known"),
        ((file(days=1), file("acme_widgets-1.0-2-py3-none-any.whl")), "not known"),
    ],
)
async def test_a_release_begins_with_its_first_file(
    state: SQLiteState, files: tuple[Listed, ...], expected: str
) -> None:
    told = await outcome(rule(state), *files)
    assert expected in told
    assert bool(expected) == bool(told)
    assert await outcome(rule(state, None), *files) == "", "there is no rule unless the operator wants one"


@pytest.mark.parametrize(("days", "expected"), [(13.99, ""), (14.01, "more than 14 days"), (31, "not known")])
async def test_what_the_index_does_not_say_is_remembered(state: SQLiteState, days: float, expected: str) -> None:
    await remember(state, "Acme.Widgets-1.0.tar.gz", days)
    assert expected in await outcome(rule(state), file(), file("acme_widgets-1.0-2-py3-none-any.whl", days=1))


async def test_a_file_that_comes_at_the_same_time_is_waited_for(state: SQLiteState) -> None:
    """It is in the index a moment before it is remembered."""
    releases = Releases(state=state, clock=time.time, name=str, open_days=14, tries=100, pause_seconds=0.05)
    asked = asyncio.create_task(outcome(releases, file()))
    await asyncio.sleep(0.1)
    assert not asked.done()
    claim = Claim(name=str(read_filename(file().filename)), sha256="x", attempt="a")
    await state.claim(claim, now=time.time(), seconds=60)
    await state.store(claim, now=time.time())
    assert await asked == ""
