"""A thread that runs operations on one SQLite connection: many at a time, each as a whole.

- **Group commit.** Whatever waits when the thread is free runs in one transaction: with 64 callers, some 30 share one
  fsync, which is why `synchronous=FULL` is affordable.
- **One bad operation fails alone.** Where a batch raises, it is rolled back, and each operation runs again in a
  transaction of its own.
- **Nobody waits for long.** A caller is answered `StateUnavailable` after `DEADLINE_SECONDS`, by a timer of its event
  loop, whatever the thread is doing. A lock of another process is waited for in small steps, never in SQLite.
- **Given up means not done.** What a caller has given up (deadline, or cancelled) is looked at before it is begun and
  again right before COMMIT; then the batch is rolled back and run again without it. Only who gives up during the
  COMMIT itself can have had it done: a token is then spent that nobody was given anything for.
- **Nothing is trusted after an error.** The connection is closed and opened again, so that a store that comes back is
  used again without a restart. So is one whose file was replaced: all processes must see the same file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from broker.refusals import StateUnavailable
from broker.state import DEADLINE_SECONDS
from broker.state.sqlite_operations import GivenUpError, Operation, Result, Turn, Work, deliver, run

MOST_AT_ONCE: Final = 256
"""Operations in one transaction, from which on no more are added: the first of them, and other processes, would wait
for the last."""

MOST_WAITING: Final = 8192
"""Operations waiting for the thread. When a disk hangs, callers are answered and go, but what they asked stays here."""

BUSY_PAUSE_SECONDS: Final = 0.001
"""Between attempts at a lock that another process holds. SQLite's own waiting grows to 100 ms steps: a lock that is
held for 3 ms at a time, by four workers, would be slept through."""


class Chore(Protocol):
    """Something that the thread does now and then when nobody is waiting for an answer."""

    def is_due(self) -> bool:
        """Whether it is time."""

    def __call__(self, cursor: sqlite3.Cursor) -> None:
        """Does a small slice, in a transaction of its own."""


class Worker:
    """A thread, its connection, and what waits for it.

    Args:
        path: The file; `connect` opens it.
        writes: Whether operations write; then each batch takes the file's one write lock before its first read.
        chore: Run between batches.
    """

    def __init__(
        self, path: Path, connect: Callable[[Path], sqlite3.Connection], *, writes: bool, chore: Chore | None = None
    ) -> None:
        self._path, self._connect, self._chore = path, connect, chore
        self._begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
        self._waiting: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        self._turns: dict[asyncio.AbstractEventLoop, list[Operation]] = {}
        """What was asked in this turn of a loop, and is handed over at its end."""
        self._asked, self._taken = 0, 0
        """Operations, each counted on one side only: the difference waits."""
        self._connection: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None
        self._inode: tuple[int, int] | None = None
        self._closed = False
        self._thread = threading.Thread(
            target=self._run, name="state-writer" if writes else "state-reader", daemon=True
        )
        """Runs from the first operation on: a state that is opened and never used needs no closing."""
        self._starting = threading.Lock()

    async def do(self, work: Work[Result]) -> Result:
        """What `work` returns, once it is committed.

        Raises:
            StateUnavailable: the file cannot be read or written, not in time, or not any more.
        """
        if self._closed or self._asked - self._taken >= MOST_WAITING:
            raise StateUnavailable
        operation = Operation(work, asyncio.get_running_loop())
        self._asked += 1
        if (asked := self._turns.get(operation.loop)) is None:
            asked = self._turns[operation.loop] = []
            operation.loop.call_soon(self._hand_over, operation.loop)
        asked.append(operation)
        try:
            result: Result = await operation.answer
        finally:
            operation.given_up = True
        return result

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        asked = self._turns.pop(loop, [])
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()
        for start in range(0, len(asked), MOST_AT_ONCE):
            self._waiting.put(Turn(asked[start : start + MOST_AT_ONCE], loop, DEADLINE_SECONDS))

    async def close(self) -> None:
        """Runs what waits already, then ends the thread and closes the connection."""
        if not self._closed:
            self._closed = True
            for loop in list(self._turns):
                self._hand_over(loop)
            self._waiting.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._take()
            self._perform(batch)
            deliver(batch)
            if going and self._chore is not None and self._chore.is_due():
                # What goes wrong here goes wrong for the next operation too, which says so. A lock is not waited for.
                with contextlib.suppress(sqlite3.Error, OSError):
                    self._transact(self._chore)
        self._discard()

    def _take(self) -> tuple[list[Operation], bool]:
        """Waits for an operation, then takes what is there; and whether more can follow."""
        batch: list[Operation] = []
        following = self._waiting.get()
        with contextlib.suppress(queue.Empty):
            while following is not None:
                batch += following.operations
                if len(batch) >= MOST_AT_ONCE:
                    break
                following = self._waiting.get_nowait()
        self._taken += len(batch)
        return batch, following is not None

    def _perform(self, batch: Sequence[Operation]) -> None:
        error = self._try(batch)
        if error is not None and len(batch) == 1:
            batch[0].error = error
        elif error is not None:
            for operation in batch:
                operation.error = self._try([operation])

    def _try(self, batch: Sequence[Operation]) -> Exception | None:
        try:
            self._together(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes to the callers; the thread must live
            return error
        return None

    def _together(self, batch: Sequence[Operation]) -> None:
        """Runs a batch in one transaction, patiently while another process holds the file."""
        until = time.monotonic() + DEADLINE_SECONDS
        while wanted := [operation for operation in batch if not operation.given_up]:
            try:
                self._transact(partial(run, wanted))
            except GivenUpError:
                continue
            except sqlite3.OperationalError as error:
                # Each of a batch would wait as long again; by now, all of them have been answered.
                if not _is_busy(error) or time.monotonic() >= until:
                    raise
                time.sleep(BUSY_PAUSE_SECONDS)
            else:
                return

    def _transact(self, work: Work[None]) -> None:
        """Does some work in one transaction, or nothing of it.

        Raises:
            GivenUpError: a caller gave up meanwhile.
        """
        try:
            cursor = self._open()
            cursor.executescript(self._begin)  # which hands over once, and `execute` five times
            work(cursor)
            cursor.connection.commit()
        except BaseException as error:
            self._roll_back(error)
            raise

    def _open(self) -> sqlite3.Cursor:
        cursor = self._cursor
        # Nothing leaves a transaction open; and were one open, the script that begins another would commit it.
        if cursor is not None and self._inode == _inode(self._path) and not cursor.connection.in_transaction:
            return cursor
        self._discard()
        # The file may be replaced in the middle of this: what was opened is the one of that name only if the name stood
        # for the same before and after. Where there was none before, it is opened once more.
        before = _inode(self._path)
        self._connection = self._connect(self._path)
        if before != _inode(self._path):
            self._discard()
            before = _inode(self._path)
            self._connection = self._connect(self._path)
            if before != _inode(self._path):
                raise sqlite3.OperationalError("the file was replaced while it was opened")
        self._inode = before
        self._cursor = self._connection.cursor()
        return self._cursor

    def _roll_back(self, error: BaseException) -> None:
        if self._connection is None:
            return
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._discard()
        if isinstance(error, sqlite3.Error) and not _is_busy(error):
            self._discard()

    def _discard(self) -> None:
        """Closes the connection; the last one of all processes takes the write-ahead log into the file."""
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection is in the way for the moment. Extended codes keep the plain one in their low byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - on the hot path, and `Path.stat` is another call around it
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
