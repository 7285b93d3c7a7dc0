"""What of SQLite's parts no whole operation reaches."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from broker.state import Limit, OverLimit, Settled, Spent
from broker.state import sqlite_file as file
from broker.state.sqlite_operations import Operation
from broker.state.sqlite_settling import Settling, settle
from broker.state.sqlite_worker import Worker, _inode
from tests.state.examples import settlement


def test_whoever_comes_second_leaves_the_schema_alone_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as connection:
        connection.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_CREATE_TABLE else sqlite3.SQLITE_OK
        )
        with pytest.raises(sqlite3.DatabaseError):
            file._bring_up_to_date(connection)
        assert not connection.in_transaction
        connection.set_authorizer(None)
        file._bring_up_to_date(connection)
        file._bring_up_to_date(connection)
        assert file._version(connection) == file.SCHEMA_VERSION


def test_a_settlement_alone_is_settled_as_among_others(tmp_path: Path) -> None:
    with contextlib.closing(file.connect(tmp_path / "a.db")) as connection:
        cursor = connection.cursor()
        assert Settling(settlement(spend="t", receipt="first"), lambda _: None, 0)(cursor) == Settled()
        assert Settling(settlement(spend="t"), lambda _: None, 0)(cursor) == Spent(receipt="first")


def test_replays_in_one_batch_count_for_their_token_one_after_the_other(tmp_path: Path) -> None:
    two = Limit(key="again", burst=2, per_seconds=60)
    with contextlib.closing(file.connect(tmp_path / "a.db")) as connection:
        asked = [settlement(now=1_790_000_000.0, spend="t", again=two, receipt=str(number)) for number in range(4)]
        outcomes = settle(connection.cursor(), [Settling(one, lambda _: None, 0) for one in asked])
    first, *replayed, over = outcomes
    assert (first, replayed) == (Settled(), [Spent(receipt="0")] * 2)
    assert isinstance(over, OverLimit)
    assert over.key == "again"


def test_numbers_go_on_though_somebody_emptied_their_count(tmp_path: Path) -> None:
    with contextlib.closing(file.connect(tmp_path / "a.db")) as connection:
        cursor = connection.cursor()
        assert Settling(settlement(spend="t", receipt="first"), lambda _: None, 0)(cursor) == Settled()
        connection.execute("DELETE FROM sqlite_sequence")
        assert Settling(settlement(spend="u", receipt="second"), lambda _: None, 0)(cursor) == Settled()
        assert Settling(settlement(spend="u"), lambda _: None, 0)(cursor) == Spent(receipt="second")
        connection.execute("DELETE FROM records")
        assert Settling(settlement(spend="v", receipt="third"), lambda _: None, 0)(cursor) == Settled()
        assert connection.execute("SELECT id FROM records").fetchall() == [(3,)]


def test_an_answer_is_given_once() -> None:
    async def twice() -> None:
        operation = Operation(lambda _: None, asyncio.get_running_loop())
        operation.result = "done"
        operation.finish()
        operation.expire()
        operation.finish()
        assert await operation.answer == "done"

    asyncio.run(twice())


def test_a_connection_that_cannot_roll_back_is_not_used_again(tmp_path: Path) -> None:
    class Broken:
        in_transaction = True
        closed = False

        def execute(self, _: str) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        def close(self) -> None:
            self.closed = True

    worker, broken = Worker(tmp_path / "a.db", file.connect, writes=True), Broken()
    worker._connection = cast("sqlite3.Connection", broken)
    worker._roll_back(ValueError())
    assert broken.closed
    assert worker._connection is None


def test_what_an_open_transaction_wrote_is_not_kept(tmp_path: Path) -> None:
    def insert(cursor: sqlite3.Cursor, key: bytes = b"kept") -> None:
        cursor.execute("INSERT INTO limits (key, until) VALUES (?, 1)", (key,))

    worker = Worker(tmp_path / "a.db", file.connect, writes=True)
    worker._transact(insert)
    assert worker._cursor is not None
    worker._cursor.execute("BEGIN IMMEDIATE")
    insert(worker._cursor, b"left open")
    worker._transact(partial(insert, key=b"kept too"))
    worker._discard()
    with contextlib.closing(file.connect(tmp_path / "a.db")) as connection:
        assert connection.execute("SELECT key FROM limits ORDER BY key").fetchall() == [(b"kept",), (b"kept too",)]


def test_a_file_that_is_gone_is_no_file(tmp_path: Path) -> None:
    assert _inode(tmp_path / "nothing") is None
