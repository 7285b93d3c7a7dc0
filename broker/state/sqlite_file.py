"""The SQLite file: its schema, how it is opened, and what is swept out of it.

Texts are stored as BLOBs of their bytes, so that any text is stored as it is (`encoding`). Times are epoch seconds, but
for limits, which count in microseconds. A spent token's row is small on purpose: its key is a hash, so each lands on a
page of its own choosing, and that page is what an exchange costs; the receipt is in the record, which is appended.

`PRAGMA user_version` is the schema's version. To change the schema, raise it, and add the step from the one before: a
file made by a newer broker is refused, an older one is brought up to date in one transaction.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Final

from broker.state.sqlite_records import sweep

SCHEMA_VERSION: Final = 9

APPLICATION_ID: Final = 0x54504272
"""Marks the file as a broker's ("TPBr"), so that the wrong file in a setting is refused and not added to."""

SWEEP_AFTER: Final = 256
"""Writes after which a slice is swept; each slice looks at four times as many rows, so rubbish cannot outgrow it."""

SWEEP_SECONDS: Final = 60
"""The same where writes are rare."""

SLICE: Final = 1024
"""Rows of each table that one slice looks at: well under a millisecond each, for other writers wait for it."""

_SCHEMA = f"""
CREATE TABLE spends (
    key BLOB PRIMARY KEY, until INTEGER NOT NULL, record INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE revocations (key BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE limits (key BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pins (
    publisher BLOB, field BLOB, value BLOB NOT NULL, PRIMARY KEY (publisher, field)
) STRICT, WITHOUT ROWID;
CREATE TABLE issuer_keys (
    issuer BLOB PRIMARY KEY, fetched_at REAL NOT NULL, document BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE records (
    -- AUTOINCREMENT: a number is never given twice, for `spends` point here and outlive records that are swept.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL, organization BLOB NOT NULL, attempt BLOB NOT NULL, receipt BLOB NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX records_of_organization ON records (organization);
CREATE TABLE heartbeat (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
"""

_FILES = """
CREATE TABLE files (
    key BLOB PRIMARY KEY, until INTEGER NOT NULL, attempt BLOB NOT NULL, sha256 BLOB NOT NULL, written REAL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
"""

_API_TOKENS = """
CREATE TABLE api_tokens (
    key BLOB PRIMARY KEY, until INTEGER NOT NULL, created_at INTEGER NOT NULL, name BLOB NOT NULL, role BLOB NOT NULL,
    digest BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE uses (key BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = 3;
"""

_REVOKED_SUBJECTS = """
CREATE TABLE revoked_subjects (
    key BLOB PRIMARY KEY, until INTEGER NOT NULL, before INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 4;
"""

_CHAIN = """
ALTER TABLE records ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE records ADD COLUMN link BLOB NOT NULL DEFAULT X'';
CREATE TABLE heads (
    organization BLOB PRIMARY KEY, sequence INTEGER NOT NULL, link BLOB NOT NULL,
    swept_sequence INTEGER NOT NULL, swept_link BLOB NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 5;
"""

_OWNERS = """
ALTER TABLE api_tokens ADD COLUMN organization BLOB NOT NULL DEFAULT x'';
ALTER TABLE api_tokens ADD COLUMN expires_at INTEGER NOT NULL DEFAULT 0;
-- From here on `until` is when a row goes, which is API_TOKEN_MARGIN_SECONDS later.
UPDATE api_tokens SET expires_at = until, until = until + 2592000;
PRAGMA user_version = 6;
"""

_SWITCHES = """
CREATE TABLE switches (
    subject BLOB, thrower BLOB, at INTEGER NOT NULL, reason BLOB NOT NULL, PRIMARY KEY (subject, thrower)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 7;
"""

_ALERTS = """
CREATE TABLE alert_progress (
    id INTEGER PRIMARY KEY CHECK (id = 1), step INTEGER NOT NULL, position BLOB NOT NULL
) STRICT;
CREATE TABLE alert_memory (key BLOB PRIMARY KEY, until INTEGER NOT NULL, text BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE alert_queue (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver BLOB NOT NULL, alert BLOB NOT NULL, at REAL NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX alerts_of_receiver ON alert_queue (receiver, id);
PRAGMA user_version = 8;
"""

_MEMORY = """
CREATE TABLE memory (id INTEGER PRIMARY KEY CHECK (id = 1), since INTEGER NOT NULL) STRICT;
-- A file that was in use has remembered all along; an empty one begins when it is first used.
INSERT INTO memory (id, since) SELECT 1, 0 WHERE EXISTS (SELECT 1 FROM heartbeat) OR EXISTS (SELECT 1 FROM records)
    OR EXISTS (SELECT 1 FROM revocations) OR EXISTS (SELECT 1 FROM pins);
PRAGMA user_version = 9;
"""

STEPS: Final = (_SCHEMA, _FILES, _API_TOKENS, _REVOKED_SUBJECTS, _CHAIN, _OWNERS, _SWITCHES, _ALERTS, _MEMORY)
"""What brings a file of each version to the next, from an empty one on."""


def connect(path: Path) -> sqlite3.Connection:
    """Opens the file, and makes it where there is none, for its owner alone.

    Any number of processes may do so at once. SQLite gives its companion files the mode of the file itself.

    Raises:
        sqlite3.Error, OSError: it cannot be opened, is no broker's state, is a newer broker's, or (busy) is being
            made by somebody else right now.
    """
    _make(path)
    # No timeout: whoever runs transactions waits for locks, in steps that suit them.
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: a token whose spending is forgotten in a power failure could be spent again.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN")  # asked as of one moment: another process may be making the file right now
        version = _version(connection)
        connection.execute("ROLLBACK")
        if version != SCHEMA_VERSION:
            _bring_up_to_date(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make(path: Path) -> None:
    # Only a file that is not there is opened here. Closing a descriptor of one that SQLite has open drops all locks of
    # this process on it; then another process that closes the file believes itself the last, and deletes the log that
    # this one still writes to (https://sqlite.org/howtocorrupt.html, section 2.2). The lock keeps other threads from
    # opening the new file before its first descriptor is closed.
    with _making, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


_making = threading.Lock()


def _version(connection: sqlite3.Connection) -> int:
    """The schema's version; 0 for a file with nothing in it.

    Raises:
        sqlite3.DatabaseError: it is something else.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if (application, version) == (0, 0) and tables == 0:
        return 0
    if application != APPLICATION_ID:
        raise sqlite3.DatabaseError("the file is a database of something else than a broker")
    if version > SCHEMA_VERSION:
        raise sqlite3.DatabaseError("the file was made by a newer broker")
    return int(version)


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Asked again: another process may have been first.
        for step in STEPS[_version(connection) :]:
            for statement in step.split(";\n"):
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


class Sweeper:
    """Takes out what need not be remembered any more, a slice at a time.

    It has no clock of its own but for when to work: what is over is decided by the latest `now` of a caller.
    """

    _UNITS = (
        ("spends", 1),
        ("revocations", 1),
        ("revoked_subjects", 1),
        ("limits", 1_000_000),
        ("files", 1),
        ("api_tokens", 1),
        ("uses", 1),
        ("alert_memory", 1),
    )

    def __init__(self, retention_days: int) -> None:
        self._retention_seconds = retention_days * 86400
        self._now = 0.0
        self._writes = 0
        self._next_at = 0.0
        self._reached = {table: b"" for table, _ in self._UNITS}

    def note(self, now: float) -> None:
        """Counts a write, made at `now`."""
        self._writes += 1
        self._now = max(self._now, now)

    def is_due(self) -> bool:
        """Whether there was enough to do since the last slice, or anything a while ago."""
        return self._writes >= SWEEP_AFTER or (self._writes > 0 and time.monotonic() >= self._next_at)

    def __call__(self, cursor: sqlite3.Cursor) -> None:
        """Sweeps one slice of each table."""
        self._writes, self._next_at = 0, time.monotonic() + SWEEP_SECONDS
        for table, unit in self._UNITS:
            self._sweep(cursor, table, int(self._now * unit))
        sweep(cursor, SLICE, self._now - self._retention_seconds)

    def _sweep(self, cursor: sqlite3.Cursor, table: str, now: int) -> None:
        # Keys in order, from where the last slice ended: no second index, which each exchange would have to write.
        low = self._reached[table]
        cursor.execute(
            f"SELECT max(key), count(*) FROM (SELECT key FROM {table} WHERE key > ? ORDER BY key LIMIT ?)",  # noqa: S608 - ours
            (low, SLICE),
        )
        high, looked_at = cursor.fetchone()
        if looked_at:
            cursor.execute(
                f"DELETE FROM {table} WHERE key > ? AND key <= ? AND until <= ?",  # noqa: S608 - ours
                (low, high, now),
            )
        self._reached[table] = high if looked_at == SLICE else b""
