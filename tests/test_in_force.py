"""Whatever is kept current of files: what it takes up, what it leaves, and what it says of that."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from broker import in_force, logs
from broker.in_force import REMIND_SECONDS, Failing, InForce, Look
from tests.harness import Clock
from tests.in_force import kept_current, logged, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_looks")]


class NumbersInForce(InForce[tuple[int, ...], str, ValueError]):
    """The numbers of a file, in a tuple that is another for each reading."""

    def __init__(self, file: Path, clock: Callable[[], float] | None = None) -> None:
        logs.configure("info")
        self.file, self.sure, self.read = file, True, 0
        self.cost_seconds = 0.0
        super().__init__("numbers", ValueError, clock or Clock())

    def put(self, text: str) -> None:
        """Writes the file."""
        self.file.write_text(text)

    def _look(self) -> Look[str]:
        until_then = time.thread_time() + self.cost_seconds
        while time.thread_time() < until_then:
            pass
        return Look(seen=self.file.read_text(), sure=self.sure)

    def _load(self, seen: str) -> tuple[int, ...]:
        self.read += 1
        if seen == "bug":
            raise ZeroDivisionError
        loaded = tuple(map(int, seen.split()))
        return self.current if self.read > 1 and loaded == self.current else loaded

    def _mistake(self, what: str, remedy: str) -> ValueError:
        return ValueError(f"the file {what}. {remedy}")

    def _explained(self, error: ValueError) -> str:
        return str(error)

    def _summary(self) -> Mapping[str, object]:
        return {"numbers": list(self.current)}

    def _keep_the_last(self, failing: Failing[ValueError], now: float) -> tuple[str, Mapping[str, object]]:
        return "numbers not reloaded", {"lasts_seconds": round(now - failing.since)}


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    file = tmp_path / "numbers"
    file.write_text("1 2")
    return file


def events(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Of the lines since this was asked last."""
    return [line["event"] for line in logged(capsys)]


# --- What is taken up ------------------------------------------------------------------------------------------------


async def test_what_changed_is_taken_up_and_told_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    numbers = NumbersInForce(file, clock)
    clock.ahead_seconds = 100
    await numbers.refresh()
    assert (numbers.current, numbers.read, logged(capsys)) == ((1, 2), 1, [])
    assert clock() - numbers.loaded_at >= 100
    numbers.put("3")
    await numbers.refresh()
    await numbers.refresh()
    assert (numbers.current, numbers.read) == ((3,), 2)
    assert clock() - numbers.loaded_at < 50
    [line] = logged(capsys)
    assert (line["event"], line["level"], line["numbers"]) == ("numbers reloaded", "info", [3])
    assert line["milliseconds"] >= 0


async def test_what_is_half_written_does_not_count(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = NumbersInForce(file)
    for half, whole in (("3", "3 4"), ("5 -", "5 6")):
        numbers.put(half)
        monkeypatch.setattr(time, "sleep", lambda _, whole=whole: numbers.put(whole))
        await numbers.refresh()
        assert numbers.current == tuple(map(int, whole.split()))
    assert numbers.failing is None
    assert events(capsys) == ["numbers reloaded"] * 2


@pytest.mark.parametrize("last", ["", " -"], ids=["readable", "not"])
async def test_what_never_holds_still_is_not_taken_up(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    numbers = NumbersInForce(file)
    monkeypatch.setattr(time, "sleep", lambda _: numbers.put(f"{time.perf_counter_ns()}{last}"))
    numbers.put("3")
    await numbers.refresh()
    assert numbers.current == (1, 2)
    assert "changes faster than it can be read" in logged(capsys)[-1]["explained"]


async def test_what_proves_nothing_is_read_again_until_it_does(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = NumbersInForce(file)
    numbers.sure = False
    numbers.put("3")
    for times in (2, 3, 4):
        await numbers.refresh()
        assert numbers.read == times
    numbers.sure = True
    for _ in range(3):
        await numbers.refresh()
        assert numbers.read == 5
    assert events(capsys) == ["numbers reloaded"]


# --- What cannot be read ---------------------------------------------------------------------------------------------


def test_nothing_begins_with_what_cannot_be_read(file: Path) -> None:
    file.write_text("one")
    with pytest.raises(ValueError, match="invalid literal"):
        NumbersInForce(file)


async def test_a_failure_leaves_the_last_good_and_is_told_once_and_then_now_and_then(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    numbers = NumbersInForce(file, clock)
    began = clock()
    numbers.put("one")
    for _ in range(3):
        await numbers.refresh()
        assert numbers.current == (1, 2)
    [line] = logged(capsys)
    assert (line["level"], line["event"], line["lasts_seconds"]) == ("error", "numbers not reloaded", 0)
    assert "'one'" in line["explained"]
    clock.ahead_seconds = REMIND_SECONDS + 1
    await numbers.refresh()
    await numbers.refresh()
    [line] = logged(capsys)
    assert line["failing_seconds"] == pytest.approx(REMIND_SECONDS, abs=5)
    numbers.put("two")
    await numbers.refresh()
    [line] = logged(capsys)
    assert "'two'" in line["explained"], "another mistake is told too"
    await numbers.refresh(anew=True)
    assert len(logged(capsys)) == 1, "whoever asks is told"
    assert numbers.failing is not None
    assert numbers.failing.since == pytest.approx(began, abs=5), "another mistake is no new failure"


@pytest.mark.parametrize(("mended", "news"), [("1 2", "unchanged"), ("3", "reloaded")])
async def test_what_is_mended_is_told_and_a_new_failure_is_a_new_one(
    file: Path, capsys: pytest.CaptureFixture[str], mended: str, news: str
) -> None:
    clock = Clock()
    numbers = NumbersInForce(file, clock)
    for text in ("one", mended, "one"):
        numbers.put(text)
        await numbers.refresh()
        clock.ahead_seconds += 60
    assert events(capsys) == ["numbers not reloaded", f"numbers {news}", "numbers not reloaded"]
    assert numbers.failing is not None
    assert clock() - numbers.failing.since == pytest.approx(60, abs=5)


async def test_a_bug_is_a_failure_like_another(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = NumbersInForce(file)
    numbers.put("bug")
    await numbers.refresh()
    assert numbers.current == (1, 2)
    bug, told = logged(capsys)
    assert bug["event"] == "numbers could not be read: a bug of the broker"
    assert "ZeroDivisionError" in bug["exception"]
    assert told["explained"] == "the file could not be read. The broker has a bug: report its log."
    numbers.put("3")
    await numbers.refresh()
    assert numbers.failing is None
    assert [*numbers.current] == [3]


# --- While it runs ---------------------------------------------------------------------------------------------------


async def test_changes_are_found_without_anybody_asking(file: Path) -> None:
    numbers = NumbersInForce(file)
    async with kept_current(numbers):
        numbers.put("3")
        await until(lambda: numbers.current == (3,))
        numbers.put("one")
        await until(lambda: numbers.failing is not None)
        numbers.put("4")
        await until(lambda: numbers.failing is None)
    assert numbers.current == (4,)


async def test_who_asks_does_not_wait_for_a_look_and_is_answered(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_force, "LOOK_SECONDS", 3600.0)
    numbers = NumbersInForce(file)
    lines: list[dict[str, Any]] = []

    def told(event: str) -> bool:
        lines.extend(logged(capsys))
        return [line["event"] for line in lines[-1:]] == [event]

    async with kept_current(numbers):
        numbers.read_again()
        await until(lambda: told("numbers unchanged"))
        assert numbers.read == 2, "though it seemed unchanged"
        for _ in range(2):
            lines.clear()
            numbers.put("one")
            numbers.read_again()
            await until(lambda: told("numbers not reloaded"))


async def test_looks_that_cost_much_are_further_apart(file: Path) -> None:
    """Of a processor they have a fiftieth at the most."""
    numbers = NumbersInForce(file)
    assert numbers._pause_seconds == in_force.LOOK_SECONDS
    numbers.cost_seconds = 0.01
    await numbers.refresh()
    assert 0.5 <= numbers._pause_seconds < 20
    numbers.cost_seconds = 0.0
    await numbers.refresh()
    assert numbers._pause_seconds == in_force.LOOK_SECONDS
