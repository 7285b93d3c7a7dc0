"""Claims on files' names in the SQLite file: one row a name, held by an attempt until a moment, or written at one.

Each function is done as a whole within a transaction that holds the file's write lock. A row whose time is over counts
for nothing, whether it is swept yet or not. Times are epoch seconds, rounded up: a lease is never shorter than asked.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence

from broker.state import Busy, Claim, Claimed, Written
from broker.state.encoding import to_bytes, to_text
from broker.state.sqlite_settling import hashed

_MINE = "key = ? AND attempt = ? AND written IS NULL"


def take(cursor: sqlite3.Cursor, claim: Claim, now: float, seconds: float) -> Claimed | Busy | Written:
    """As `State.claim`."""
    key, attempt, sha256 = hashed(claim.name), to_bytes(claim.attempt), to_bytes(claim.sha256)
    cursor.execute("SELECT attempt, sha256, written FROM files WHERE key = ? AND until > ?", (key, now))
    found = cursor.fetchone()
    left = False
    if found is not None:
        holder, bytes_held, written = found
        if written is not None:
            return Written(sha256=to_text(bytes_held))
        if holder != attempt and (holder, bytes_held) != (b"", sha256):
            return Busy()
        left = holder == b""
    cursor.execute(
        "INSERT OR REPLACE INTO files (key, until, attempt, sha256, written) VALUES (?, ?, ?, ?, NULL)",
        (key, math.ceil(now + seconds), attempt, sha256),
    )
    return Claimed(left=left)


def renew(cursor: sqlite3.Cursor, claim: Claim, now: float, seconds: float) -> bool:
    """As `State.renew`."""
    cursor.execute(
        f"UPDATE files SET until = ? WHERE {_MINE} AND until > ?",  # noqa: S608 - ours
        (math.ceil(now + seconds), *_of(claim), now),
    )
    return cursor.rowcount == 1


def store(cursor: sqlite3.Cursor, claim: Claim, now: float, until: float) -> bool:
    """As `State.store`; remembered until then."""
    cursor.execute(
        "UPDATE files SET until = ?, written = coalesce(written, ?) WHERE key = ? AND attempt = ? AND until > ?",
        (math.ceil(until), now, *_of(claim), now),
    )
    return cursor.rowcount == 1


def written_at(cursor: sqlite3.Cursor, names: Sequence[str], now: float) -> dict[str, float]:
    """As `State.written_at`."""
    found: dict[str, float] = {}
    for name in names:
        cursor.execute("SELECT written FROM files WHERE key = ? AND until > ?", (hashed(name), now))
        row = cursor.fetchone()
        if row is not None and row[0] is not None:
            found[name] = row[0]
    return found


def release(cursor: sqlite3.Cursor, claim: Claim) -> None:
    """As `State.release`."""
    cursor.execute(f"DELETE FROM files WHERE {_MINE}", _of(claim))  # noqa: S608 - ours


def leave(cursor: sqlite3.Cursor, claim: Claim) -> None:
    """As `State.leave`."""
    cursor.execute(f"UPDATE files SET attempt = x'' WHERE {_MINE}", _of(claim))  # noqa: S608 - ours


def _of(claim: Claim) -> tuple[bytes, bytes]:
    return hashed(claim.name), to_bytes(claim.attempt)
