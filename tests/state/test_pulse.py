"""Whether state answers, asked by many: one question at a time, and an answer stands for a second."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.refusals import StateUnavailable
from broker.state import pulse
from broker.state.pulse import Pulse
from broker.state.sqlite import SQLiteState

pytestmark = pytest.mark.anyio


class Counting(SQLiteState):
    """Counts how often it is asked."""

    asked = 0

    async def ping(self) -> None:
        self.asked += 1
        await super().ping()


async def test_however_many_ask_one_write_answers(tmp_path: Path) -> None:
    state = Counting(tmp_path / "state.db", retention_days=1)
    beating = Pulse(state)
    await asyncio.gather(*(beating.beat() for _ in range(100)))
    await beating.beat()
    assert state.asked == 1
    await state.close()


async def test_an_answer_gets_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "FRESH_SECONDS", 0.0)
    state = Counting(tmp_path / "state.db", retention_days=1)
    beating = Pulse(state)
    await beating.beat()
    await beating.beat()
    assert state.asked == 2
    await state.close()
    with pytest.raises(StateUnavailable):
        await beating.beat()


async def test_a_bad_answer_stands_as_well_and_says_why(tmp_path: Path) -> None:
    state = Counting(tmp_path / "nowhere" / "state.db", retention_days=1)
    beating = Pulse(state)
    for _ in range(3):
        with pytest.raises(StateUnavailable) as caught:
            await beating.beat()
        assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert state.asked == 1
    await state.close()


async def test_who_goes_away_ends_nobody_else_s_question(tmp_path: Path) -> None:
    state = Counting(tmp_path / "state.db", retention_days=1)
    beating = Pulse(state)
    first = asyncio.create_task(beating.beat())
    second = asyncio.create_task(beating.beat())
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert state.asked == 1
    await state.close()
