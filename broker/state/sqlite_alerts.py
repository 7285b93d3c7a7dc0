"""Alerts in the SQLite file: how far records were looked at, what the rules remember, and what waits for receivers.

Each function is done as a whole within a transaction; those that write, in one that holds the file's write lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from broker.state import ALERTS_KEPT_SECONDS, AlertProgress, AlertStep, AlertToSend, Waiting, WaitingAlert
from broker.state.encoding import to_bytes, to_text
from broker.state.sqlite_settling import hashed


def progress(cursor: sqlite3.Cursor) -> AlertProgress:
    """As `State.alert_progress`."""
    row = cursor.execute("SELECT step, position FROM alert_progress").fetchone()
    return AlertProgress() if row is None else AlertProgress(step=row[0], position=to_text(row[1]))


def memory(cursor: sqlite3.Cursor, keys: Sequence[str]) -> dict[str, str]:
    """As `State.alert_memory`."""
    found: dict[str, str] = {}
    for key in keys:
        row = cursor.execute("SELECT text FROM alert_memory WHERE key = ?", (hashed(key),)).fetchone()
        if row is not None:
            found[key] = to_text(row[0])
    return found


def advance(cursor: sqlite3.Cursor, step: AlertStep) -> bool:
    """As `State.advance_alerts`."""
    if progress(cursor) != step.since:
        return False
    cursor.execute(
        "INSERT OR REPLACE INTO alert_progress (id, step, position) VALUES (1, ?, ?)",
        (step.since.step + 1, to_bytes(step.position)),
    )
    cursor.executemany(
        "INSERT OR REPLACE INTO alert_memory (key, until, text) VALUES (?, ?, ?)",
        [(hashed(key), one.until, to_bytes(one.text)) for key, one in step.memory.items()],
    )
    if step.queue:
        # A queue is in the order of time, so this looks at no more rows than it deletes.
        cursor.execute(
            "DELETE FROM alert_queue WHERE id <"
            " coalesce((SELECT min(id) FROM alert_queue WHERE at > ?), 9223372036854775807)",
            (step.now - ALERTS_KEPT_SECONDS,),
        )
        cursor.executemany(
            "INSERT INTO alert_queue (receiver, alert, at, body) VALUES (?, ?, ?, ?)",
            [(to_bytes(one.receiver), to_bytes(one.id), one.at, to_bytes(one.body)) for one in step.queue],
        )
    return True


def waiting_alerts(cursor: sqlite3.Cursor, receiver: str, most: int) -> list[WaitingAlert]:
    """As `State.waiting_alerts`."""
    cursor.execute(
        "SELECT id, alert, at, body FROM alert_queue WHERE receiver = ? ORDER BY id LIMIT ?",
        (to_bytes(receiver), most),
    )
    return [
        WaitingAlert(
            place=str(place), alert=AlertToSend(receiver=receiver, id=to_text(alert), at=at, body=to_text(body))
        )
        for place, alert, at, body in cursor
    ]


def remove(cursor: sqlite3.Cursor, receiver: str, place: str) -> None:
    """As `State.remove_alert`."""
    cursor.execute("DELETE FROM alert_queue WHERE id = ? AND receiver = ?", (int(place), to_bytes(receiver)))


def waiting(cursor: sqlite3.Cursor, receivers: Sequence[str]) -> dict[str, Waiting]:
    """As `State.waiting`."""
    found: dict[str, Waiting] = {}
    for receiver in receivers:
        cursor.execute("SELECT count(*), min(at) FROM alert_queue WHERE receiver = ?", (to_bytes(receiver),))
        alerts, oldest_at = cursor.fetchone()
        found[receiver] = Waiting(alerts=alerts, oldest_at=oldest_at)
    return found
