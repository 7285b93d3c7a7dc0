"""State in one SQLite file, for any number of processes of one machine.

Two threads: one writes, one reads, so that reading waits neither for a disk nor for another process's write lock
(`sqlite_worker` has the laws of both, `sqlite_settling` the exchange, `sqlite_file` the schema). The functions here run
in those threads, each within a transaction, and may run twice, the first time being rolled back.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from broker.api_tokens import ApiToken
from broker.audit import Record
from broker.chain import Head, Kept
from broker.policy.model import LONGEST_LIFETIME_SECONDS
from broker.state import (
    API_TOKEN_MARGIN_SECONDS,
    REVOCATION_MARGIN_SECONDS,
    THROWERS,
    AlertProgress,
    AlertStep,
    Busy,
    Claim,
    Claimed,
    Limit,
    Objections,
    Outcome,
    OverLimit,
    Settlement,
    StoredKeys,
    Switch,
    Thrower,
    Waiting,
    WaitingAlert,
    Written,
    beginning,
    sqlite_alerts,
    sqlite_claims,
    sqlite_records,
)
from broker.state.encoding import to_bytes, to_text
from broker.state.sqlite_file import Sweeper, connect
from broker.state.sqlite_records import Row, insert, read_position
from broker.state.sqlite_settling import Settling, begin, count, hashed, keyed, subjects_in
from broker.state.sqlite_worker import Worker

_THROWERS = {by.encode(): by for by in THROWERS}
_SWITCH = "subject, thrower, at, reason"
_COLUMNS = "key, until, created_at, expires_at, name, role, digest, organization"


class SQLiteState:
    """The Protocol `State` in a file.

    Args:
        path: The file. It is made when first needed; its folder must be there.
        retention_days: How long records are kept, at least.
    """

    def __init__(self, path: Path, *, retention_days: int) -> None:
        self._path = path
        self._retention_seconds = retention_days * 86400
        self._sweeper = Sweeper(retention_days)
        self._writer = Worker(path, connect, writes=True, chore=self._sweeper)
        self._reader = Worker(path, connect, writes=False)
        self._began = False
        """Whether the file was seen to remember."""

    def __repr__(self) -> str:
        return f"<SQLiteState {self._path}>"

    async def settle(self, settlement: Settlement) -> Outcome:
        """As `State.settle`."""
        since = beginning(settlement.now, began_before=self._began)
        outcome: Outcome = await self._writer.do(Settling(settlement, self._sweeper.note, since))
        self._began = True
        return outcome

    async def append(self, record: Record, limits: Sequence[Limit] = (), *, now: float = 0.0) -> OverLimit | None:
        """As `State.append`."""
        rows, counted = Row.all_of(record), keyed(limits)

        def work(cursor: sqlite3.Cursor) -> OverLimit | None:
            self._sweeper.note(record.at)
            sqlite_records.append(cursor, rows)
            return count(cursor, counted, now) if counted else None

        return await self._writer.do(work)

    async def records(self, most: int, organization: str | None = None) -> Sequence[str]:
        """As `State.records`."""
        return await self._reader.do(lambda cursor: sqlite_records.newest(cursor, most, organization))

    async def records_after(self, position: str, most: int, organization: str | None = None) -> Sequence[Kept]:
        """As `State.records_after`."""
        number = read_position(position)
        return await self._reader.do(lambda cursor: sqlite_records.after(cursor, number, most, organization))

    async def heads(self) -> Mapping[str, Head]:
        """As `State.heads`."""
        return await self._reader.do(sqlite_records.heads)

    async def pins(self, publishers: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """As `State.pins`."""

        def work(cursor: sqlite3.Cursor) -> dict[str, dict[str, str]]:
            found: dict[str, dict[str, str]] = {}
            for publisher in publishers:
                cursor.execute("SELECT field, value FROM pins WHERE publisher = ?", (to_bytes(publisher),))
                if fields := {to_text(field): to_text(value) for field, value in cursor}:
                    found[publisher] = fields
            return found

        return await self._reader.do(work)

    async def revoke(self, token_id: str, until: int, record: Record) -> None:
        """As `State.revoke`."""
        key, rows = to_bytes(token_id), Row.all_of(record)
        kept_until = max(until, int(record.at) + 1) + REVOCATION_MARGIN_SECONDS

        def work(cursor: sqlite3.Cursor) -> None:
            self._sweeper.note(record.at)
            cursor.execute(
                "INSERT INTO revocations (key, until) VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
                (key, kept_until),
            )
            sqlite_records.append(cursor, rows)

        await self._writer.do(work)

    async def revoke_subject(self, subject: str, before: int, record: Record) -> None:
        """As `State.revoke_subject`."""
        key, rows = to_bytes(subject), Row.all_of(record)
        kept_until = max(before, int(record.at) + 1) + LONGEST_LIFETIME_SECONDS + REVOCATION_MARGIN_SECONDS

        def work(cursor: sqlite3.Cursor) -> None:
            self._sweeper.note(record.at)
            cursor.execute(
                "INSERT INTO revoked_subjects (key, until, before) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
                " until = max(until, excluded.until), before = max(before, excluded.before)",
                (key, kept_until, before),
            )
            sqlite_records.append(cursor, rows)

        await self._writer.do(work)

    async def objections(self, token_id: str, subjects: Sequence[str] = (), issued_at: int = 0) -> Objections:
        """As `State.objections`."""
        keys = [*map(to_bytes, subjects)]
        marks = ",".join("?" * len(keys))
        named = f"IN ({marks})"
        query = (  # one row: each that a statement gives hands the interpreter over
            "SELECT EXISTS (SELECT 1 FROM revocations WHERE key = ?)"  # noqa: S608 - ours
            " OR NOT EXISTS (SELECT 1 FROM memory WHERE since <= ?),"
            f" (SELECT group_concat(hex(key) || ',', '') FROM revoked_subjects WHERE key {named} AND before >= ?),"
            f" (SELECT group_concat(hex(subject) || ',', '') FROM switches WHERE subject {named})"
        )
        asked = [to_bytes(token_id), issued_at, *keys, issued_at, *keys]

        def work(cursor: sqlite3.Cursor) -> Objections:
            token, revoked, off = cursor.execute(query, asked).fetchone()
            return Objections(token=bool(token), revoked=subjects_in(revoked), off=subjects_in(off))

        return await self._reader.do(work)

    async def switch_off(self, switch: Switch, record: Record) -> None:
        """As `State.switch_off`."""
        values = (to_bytes(switch.subject), switch.by.encode(), switch.at, to_bytes(switch.reason))
        rows = Row.all_of(record)

        def work(cursor: sqlite3.Cursor) -> None:
            self._sweeper.note(record.at)
            insert(cursor, f"INSERT OR REPLACE INTO switches ({_SWITCH}) VALUES", [values])
            sqlite_records.append(cursor, rows)

        await self._writer.do(work)

    async def switch_on(self, subject: str, by: Thrower, record: Record) -> bool:
        """As `State.switch_on`."""
        key, rows = (to_bytes(subject), by.encode()), Row.all_of(record)

        def work(cursor: sqlite3.Cursor) -> bool:
            self._sweeper.note(record.at)
            found = cursor.execute("DELETE FROM switches WHERE subject = ? AND thrower = ?", key).rowcount == 1
            if found:
                sqlite_records.append(cursor, rows)
            return found

        return await self._writer.do(work)

    async def switches(self, subjects: Sequence[str] | None = None) -> Sequence[Switch]:
        """As `State.switches`."""
        keys = [*map(to_bytes, subjects or ())]
        where = "" if subjects is None else f"WHERE subject IN ({','.join('?' * len(keys))})"

        def work(cursor: sqlite3.Cursor) -> list[Switch]:
            cursor.execute(f"SELECT {_SWITCH} FROM switches {where} ORDER BY subject, thrower", keys)  # noqa: S608 - ours
            return [
                Switch(subject=to_text(subject), by=_THROWERS[by], at=at, reason=to_text(reason))
                for subject, by, at, reason in cursor
            ]

        return await self._reader.do(work)

    async def claim(self, claim: Claim, *, now: float, seconds: float) -> Claimed | Busy | Written:
        """As `State.claim`."""

        def work(cursor: sqlite3.Cursor) -> Claimed | Busy | Written:
            self._sweeper.note(now)
            return sqlite_claims.take(cursor, claim, now, seconds)

        return await self._writer.do(work)

    async def renew(self, claim: Claim, *, now: float, seconds: float) -> bool:
        """As `State.renew`."""
        return await self._writer.do(lambda cursor: sqlite_claims.renew(cursor, claim, now, seconds))

    async def store(self, claim: Claim, *, now: float) -> bool:
        """As `State.store`."""
        until = now + self._retention_seconds
        return await self._writer.do(lambda cursor: sqlite_claims.store(cursor, claim, now, until))

    async def written_at(self, names: Sequence[str], *, now: float) -> Mapping[str, float]:
        """As `State.written_at`."""
        return await self._reader.do(lambda cursor: sqlite_claims.written_at(cursor, names, now))

    async def release(self, claim: Claim) -> None:
        """As `State.release`."""
        await self._writer.do(lambda cursor: sqlite_claims.release(cursor, claim))

    async def leave(self, claim: Claim) -> None:
        """As `State.leave`."""
        await self._writer.do(lambda cursor: sqlite_claims.leave(cursor, claim))

    async def use(self, token_id: str, file: str, *, most: int, now: float, until: int) -> bool:
        """As `State.use`."""
        token, kept_until = hashed(token_id), max(until, int(now) + 1) + REVOCATION_MARGIN_SECONDS
        key = token + hashed(file)

        def work(cursor: sqlite3.Cursor) -> bool:
            self._sweeper.note(now)
            # The hashes of one token's files stand side by side, between two keys that none has.
            cursor.execute("SELECT key FROM uses WHERE key > ? AND key < ?", (token, token + b"\xff" * 33))
            counted = {found for (found,) in cursor}
            if key in counted or len(counted) >= most:
                return key in counted
            cursor.execute("INSERT INTO uses (key, until) VALUES (?, ?)", (key, kept_until))
            return True

        return await self._writer.do(work)

    async def store_api_token(self, token: ApiToken) -> None:
        """As `State.store_api_token`."""
        texts = map(to_bytes, (token.name, token.role, token.digest, token.organization))
        until = token.expires_at + API_TOKEN_MARGIN_SECONDS
        row = (to_bytes(token.id), until, token.created_at, token.expires_at, *texts)

        def work(cursor: sqlite3.Cursor) -> None:
            self._sweeper.note(token.created_at)
            insert(cursor, f"INSERT OR REPLACE INTO api_tokens ({_COLUMNS}) VALUES", [row])

        await self._writer.do(work)

    async def api_token(self, token_id: str) -> ApiToken | None:
        """As `State.api_token`."""
        key = to_bytes(token_id)

        def work(cursor: sqlite3.Cursor) -> ApiToken | None:
            cursor.execute(f"SELECT {_COLUMNS} FROM api_tokens WHERE key = ?", (key,))  # noqa: S608 - ours
            row = cursor.fetchone()
            return None if row is None else _api_token(row)

        return await self._reader.do(work)

    async def api_tokens(self) -> Sequence[ApiToken]:
        """As `State.api_tokens`."""

        def work(cursor: sqlite3.Cursor) -> list[ApiToken]:
            cursor.execute(f"SELECT {_COLUMNS} FROM api_tokens ORDER BY created_at, key")  # noqa: S608 - ours
            return [_api_token(row) for row in cursor]

        return await self._reader.do(work)

    async def remove_api_token(self, token_id: str) -> bool:
        """As `State.remove_api_token`."""
        key = to_bytes(token_id)

        def work(cursor: sqlite3.Cursor) -> bool:
            return cursor.execute("DELETE FROM api_tokens WHERE key = ?", (key,)).rowcount == 1

        return await self._writer.do(work)

    async def store_keys(self, issuer: str, keys: StoredKeys) -> None:
        """As `State.store_keys`."""
        row = (to_bytes(issuer), keys.fetched_at, to_bytes(keys.document))

        def work(cursor: sqlite3.Cursor) -> None:
            cursor.execute(
                "INSERT INTO issuer_keys (issuer, fetched_at, document) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET fetched_at = excluded.fetched_at, document = excluded.document"
                " WHERE excluded.fetched_at >= fetched_at",
                row,
            )

        await self._writer.do(work)

    async def stored_keys(self, issuer: str) -> StoredKeys | None:
        """As `State.stored_keys`."""
        key = to_bytes(issuer)

        def work(cursor: sqlite3.Cursor) -> StoredKeys | None:
            cursor.execute("SELECT fetched_at, document FROM issuer_keys WHERE issuer = ?", (key,))
            row = cursor.fetchone()
            return None if row is None else StoredKeys(fetched_at=row[0], document=to_text(row[1]))

        return await self._reader.do(work)

    async def alert_progress(self) -> AlertProgress:
        """As `State.alert_progress`."""
        return await self._reader.do(sqlite_alerts.progress)

    async def alert_memory(self, keys: Sequence[str]) -> Mapping[str, str]:
        """As `State.alert_memory`."""
        return await self._reader.do(lambda cursor: sqlite_alerts.memory(cursor, keys))

    async def advance_alerts(self, step: AlertStep) -> bool:
        """As `State.advance_alerts`."""

        def work(cursor: sqlite3.Cursor) -> bool:
            self._sweeper.note(step.now)
            return sqlite_alerts.advance(cursor, step)

        return await self._writer.do(work)

    async def waiting_alerts(self, receiver: str, most: int) -> Sequence[WaitingAlert]:
        """As `State.waiting_alerts`."""
        return await self._reader.do(lambda cursor: sqlite_alerts.waiting_alerts(cursor, receiver, most))

    async def remove_alert(self, receiver: str, place: str) -> None:
        """As `State.remove_alert`."""
        await self._writer.do(lambda cursor: sqlite_alerts.remove(cursor, receiver, place))

    async def waiting(self, receivers: Sequence[str]) -> Mapping[str, Waiting]:
        """As `State.waiting`."""
        return await self._reader.do(lambda cursor: sqlite_alerts.waiting(cursor, receivers))

    async def begin(self, now: float) -> Sequence[str]:
        """As `State.begin`. A file is kept as it must be."""
        since = beginning(now, began_before=self._began)
        await self._writer.do(lambda cursor: begin(cursor, since))
        self._began = True
        return ()

    async def ping(self) -> None:
        """As `State.ping`."""

        def work(cursor: sqlite3.Cursor) -> None:
            cursor.execute("INSERT OR REPLACE INTO heartbeat (id, at) VALUES (1, ?)", (time.time(),))

        await self._writer.do(work)

    async def close(self) -> None:
        """As `State.close`."""
        await self._reader.close()
        await self._writer.close()


def _api_token(row: tuple[bytes, int, int, int, bytes, bytes, bytes, bytes]) -> ApiToken:
    key, _, created_at, expires_at, *texts = row
    name, role, digest, organization = map(to_text, texts)
    return ApiToken(
        id=to_text(key),
        name=name,
        role=role,
        digest=digest,
        created_at=created_at,
        expires_at=expires_at,
        organization=organization,
    )
