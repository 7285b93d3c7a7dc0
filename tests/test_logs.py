"""The log: which lines are written when, and how many at once."""

from __future__ import annotations

import asyncio
import errno
import io
import json
from contextlib import redirect_stdout
from typing import Any

import pytest

from broker import logs
from broker.audit import Record


class Output(io.StringIO):
    """Notes each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[list[str]] = []

    def write(self, text: str) -> int:
        """Writes."""
        self.writes.append([json.loads(line)["record"]["attempt"] for line in text.splitlines()])
        return super().write(text)


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """None wait from elsewhere."""
    monkeypatch.setattr(logs, "_LINES", logs._Lines())


def log(*names: str) -> None:
    """Logs attempts."""
    for name in names:
        logs.attempt(Record(attempt=name, at=0.0, organization="acme", body=json.dumps({"attempt": name})))


async def turn(*names: str) -> None:
    """Logs attempts in one turn of an event loop."""
    log(*names)


def test_what_one_turn_logs_is_written_together() -> None:
    async def turns() -> None:
        log("a", "b")
        await asyncio.sleep(0)
        assert output.writes == [["a", "b"]]
        log("c")
        assert len(output.writes) == 1

    with redirect_stdout(Output()) as output:
        asyncio.run(turns())
    assert output.writes == [["a", "b"], ["c"]]


def test_lines_are_written_one_by_one_where_others_write_there_too() -> None:
    """A pipe would tear what is written at once and long."""
    logs.configure("info", shared_output=True)
    with redirect_stdout(Output()) as output:
        asyncio.run(turn("a", "b"))
    assert output.writes == [["a"], ["b"]]
    logs.configure("info")
    with redirect_stdout(Output()) as output:
        asyncio.run(turn("a", "b"))
    assert output.writes == [["a", "b"]]


def test_a_line_is_written_at_once_where_no_event_loop_runs() -> None:
    with redirect_stdout(Output()) as output:
        log("a")
        log("b")
    assert output.writes == [["a"], ["b"]]


def log_in_a_last_turn(name: str) -> None:
    """Logs an attempt in an event loop that ends before it wrote."""
    gone = asyncio.new_event_loop()
    gone.call_soon(log, name)
    gone.call_soon(gone.stop)
    gone.run_forever()
    gone.close()


def test_a_loop_that_ended_before_it_wrote_takes_no_line_with_it() -> None:
    with redirect_stdout(Output()) as output:
        log_in_a_last_turn("a")
        assert output.writes == []
        asyncio.run(turn("b"))
    assert output.writes == [["a", "b"]]


def test_what_the_last_turn_logged_can_be_written_after_it() -> None:
    with redirect_stdout(Output()) as output:
        log_in_a_last_turn("a")
        logs.flush()
        logs.flush()
    assert output.writes == [["a"]]


class Cut(io.RawIOBase):
    """Takes what a signal, or a full pipe, lets it."""

    def __init__(self, *takes: int | None) -> None:
        super().__init__()
        self.takes, self.taken = list(takes), b""

    def writable(self) -> bool:
        """It is for that."""
        return True

    def fileno(self) -> int:
        """Of something that can always be written."""
        return 2

    def write(self, text: Any) -> int | None:
        """Takes a part; None where it would have to wait."""
        most = self.takes.pop(0) if self.takes else len(text)
        if most is not None:
            self.taken += bytes(text[:most])
            return min(most, len(text))
        return None


def test_a_write_that_is_cut_short_goes_on() -> None:
    """Unbuffered (`PYTHONUNBUFFERED`), a signal cuts it, and nothing would tell."""
    raw = Cut(10, None, 7)
    with redirect_stdout(io.TextIOWrapper(raw, write_through=True)):  # type: ignore[type-var]  # as -u has it
        asyncio.run(turn("a", "b"))
    told = [json.loads(line)["record"]["attempt"] for line in raw.taken.splitlines()]
    assert told == ["a", "b"]


def test_a_line_that_cannot_be_written_takes_no_other_with_it() -> None:
    class Full(Output):
        def write(self, text: str) -> int:
            if '"b"' in text:
                raise OSError(errno.ENOSPC, "no space")
            return super().write(text)

    logs.configure("info", shared_output=True)
    for name in ("a", "b", "c"):
        logs._LINES._waiting.append(f'{{"record":{{"attempt":"{name}"}}}}\n')
    with redirect_stdout(Full()) as output, pytest.raises(OSError, match="no space"):
        logs.flush()
    assert output.writes == [["a"], ["c"]]
    logs.configure("info")
