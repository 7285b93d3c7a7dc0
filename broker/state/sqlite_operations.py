"""What waits for a thread: some work on the file, and the caller who wants its result.

Handing over costs more than most work does: the thread is woken, and the two then contend for the interpreter. So what
an event loop is asked in one turn of its own is handed over at once, waits under one timer, and is answered at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from broker.refusals import StateUnavailable
from broker.state.sqlite_settling import Settling, settle

Result = TypeVar("Result")

Work = Callable[[sqlite3.Cursor], Result]
"""Reads and writes within a transaction. It may run twice, the first time being rolled back."""


class GivenUpError(Exception):
    """A caller gave up while its operation was in a transaction."""


class Operation:
    """Some work, and who waits for it."""

    __slots__ = ("answer", "error", "given_up", "loop", "result", "settles", "turn", "work")

    def __init__(self, work: Work[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.work: Any = work
        self.settles = isinstance(work, Settling)
        self.loop = loop
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: Exception | None = None
        self.turn: Turn | None = None
        self.given_up = False
        """Written by the event loop, read by the thread. A lock would not help: the COMMIT after the last look takes
        time, and the caller may give up in it."""

    def expire(self) -> None:
        """Answers the caller that it took too long."""
        self.given_up = True
        if not self.answer.done():
            self.answer.set_exception(StateUnavailable())

    def finish(self) -> None:
        """Answers the caller."""
        turn, self.turn = self.turn, None  # each has the other: together they would wait for the garbage collector
        if turn is not None:
            turn.finish_one()
        if self.answer.done():
            return
        if self.error is None:
            self.answer.set_result(self.result)
        elif isinstance(self.error, sqlite3.Error | OSError):
            refusal = StateUnavailable()
            refusal.__cause__ = self.error
            self.answer.set_exception(refusal)
        else:
            self.answer.set_exception(self.error)


class Turn:
    """What one event loop is asked in one turn of its own, and the timer that all of it waits under."""

    __slots__ = ("_left", "_timer", "operations")

    def __init__(self, operations: Sequence[Operation], loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.operations = operations
        self._left = len(operations)
        self._timer = loop.call_later(seconds, self._expire)
        for operation in operations:
            operation.turn = self

    def finish_one(self) -> None:
        """Ends the timer with the last of them."""
        self._left -= 1
        if self._left == 0:
            self._timer.cancel()

    def _expire(self) -> None:
        for operation in self.operations:
            operation.expire()


def run(operations: Sequence[Operation], cursor: sqlite3.Cursor) -> None:
    """Does the work of operations in their order; settlements that are neighbours, together.

    Raises:
        GivenUpError: a caller gave up meanwhile.
    """
    for together, neighbours in itertools.groupby(operations, key=attrgetter("settles")):
        some = list(neighbours)
        results = settle(cursor, [one.work for one in some]) if together else [one.work(cursor) for one in some]
        for operation, result in zip(some, results, strict=True):
            operation.result = result
    if [one for one in operations if one.given_up]:
        raise GivenUpError


def deliver(batch: Sequence[Operation]) -> None:
    """Wakes each event loop once, for all of its callers."""
    for loop in {operation.loop for operation in batch}:
        with contextlib.suppress(RuntimeError):  # the loop was closed; nobody waits there
            loop.call_soon_threadsafe(_finish, [operation for operation in batch if operation.loop is loop])


def _finish(batch: Sequence[Operation]) -> None:
    for operation in batch:
        operation.finish()
