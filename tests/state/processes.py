"""What other processes do to a store in tests. Each function runs in a process of its own, started with `spawn`."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from broker.state import Settled, Spent
from broker.state.opening import open_state
from tests.state.examples import record, settlement

SPAWN = multiprocessing.get_context("spawn")


@contextlib.contextmanager
def running(work: Callable[..., None], *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that does `work(connection, *arguments)`; it is killed at the end, if it still runs."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def hold_lock(connection: Connection, path: Path) -> None:
    """Holds the file's write lock until told to let go."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as database:
        database.execute("BEGIN EXCLUSIVE")
        connection.send("locked")
        connection.recv()
        database.execute("ROLLBACK")
    connection.send("free")


def settle_one_token(connection: Connection, url: str, together: Barrier, times: int) -> None:
    """Tries to spend one token, many times at once, in the same moment as other processes; sends how often it could."""

    async def work() -> list[object]:
        state = open_state(url, retention_days=30)
        together.wait(timeout=30)
        try:
            return list(await asyncio.gather(*(state.settle(settlement(spend="token")) for _ in range(times))))
        finally:
            await state.close()

    outcomes = asyncio.run(work())
    connection.send((outcomes.count(Settled()), sum(isinstance(outcome, Spent) for outcome in outcomes)))


def settle_without_end(connection: Connection, url: str) -> None:
    """Spends tokens, 32 at a time, and tells each one that is spent, until it is killed.

    Each leaves a record with two organizations.
    """

    async def spend(state: Any, caller: int) -> None:
        number = 0
        while True:
            token = f"token-{caller}-{number}"
            other = record(attempt=token, body=token, organization="bolt")
            kept = record(attempt=token, body=token, others=(other,))
            if await state.settle(settlement(spend=token, record=kept)) == Settled():
                connection.send(token)
            number += 1

    async def work() -> None:
        state = open_state(url, retention_days=30)
        await asyncio.gather(*(spend(state, caller) for caller in range(32)))

    asyncio.run(work())
