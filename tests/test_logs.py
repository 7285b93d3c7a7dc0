"""The log: which lines are written when, and how many at once."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import redirect_stdout

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


def test_a_loop_that_ended_before_it_wrote_takes_no_line_with_it() -> None:
    gone = asyncio.new_event_loop()
    gone.call_soon(log, "a")
    gone.call_soon(gone.stop)
    with redirect_stdout(Output()) as output:
        gone.run_forever()
        gone.close()
        assert output.writes == []
        asyncio.run(turn("b"))
    assert output.writes == [["a", "b"]]


def test_what_the_last_turn_logged_can_be_written_after_it() -> None:
    gone = asyncio.new_event_loop()
    gone.call_soon(log, "a")
    gone.call_soon(gone.stop)
    with redirect_stdout(Output()) as output:
        gone.run_forever()
        gone.close()
        logs.flush()
        logs.flush()
    assert output.writes == [["a"]]
