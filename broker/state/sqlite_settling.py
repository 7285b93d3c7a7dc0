"""Settling the exchanges that wait, many at once, each as if it were alone and in its turn.

Each step of a statement, and each row that it gives is one, hands the interpreter over and takes it back, with the
event loop busy on the other side: that costs more than what SQLite does meanwhile. So what all of them ask about is
read at once, as one row, each is decided by what was read and what those before it changed, and the changes are written
at once. All of it is in one transaction that holds the file's write lock, so nothing changes in between.
"""

from __future__ import annotations

import functools
import hashlib
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence

from broker.state import Forgotten, Limit, Outcome, OverLimit, Pin, PinTaken, Settled, Settlement, Spent, SwitchedOff
from broker.state.encoding import to_bytes, to_text
from broker.state.sqlite_records import Ends, Row, bound, insert, marks, one_row


class Settling:
    """A settlement in the file's own terms, made by the event loop and done by the thread.

    Args:
        note: Told of the settlement's `now` by the thread.
        since: Since when the file remembers, if it is found empty.
    """

    __slots__ = ("limits", "note", "now", "others", "pins", "row", "settlement", "since", "spend")

    def __init__(self, settlement: Settlement, note: Callable[[float], None], since: int) -> None:
        self.settlement = settlement
        self.note = note
        self.since = since
        self.now = settlement.now
        self.spend = hashed(settlement.spend)
        self.limits = keyed(settlement.limits)
        self.pins = [(to_bytes(pin.publisher), to_bytes(pin.field), to_bytes(pin.value)) for pin in settlement.pins]
        self.row = Row.of(settlement.record, settlement.receipt)
        self.others = [Row.of(one) for one in settlement.record.others]

    def __call__(self, cursor: sqlite3.Cursor) -> Outcome:
        """Settles this one alone."""
        (outcome,) = settle(cursor, [self])
        return outcome


def settle(cursor: sqlite3.Cursor, settlings: Sequence[Settling]) -> Sequence[Outcome]:
    """Settles in the order given, as `State.settle` promises for each."""
    batch = _Batch(cursor, settlings)
    outcomes = [batch.settle(one) for one in settlings]
    batch.write()
    return outcomes


class _Batch:
    """What was read for some settlements, and what is to be written for those that were decided."""

    def __init__(self, cursor: sqlite3.Cursor, settlings: Sequence[Settling]) -> None:
        self._cursor = cursor
        self._spends, self._limits, self._ends, since, any_off = _known(
            cursor,
            {one.spend for one in settlings},
            {key for one in settlings for key, _ in one.limits},
            {to_bytes(row.organization) for one in settlings for row in (one.row, *one.others)},
        )
        self._since = begin(cursor, settlings[0].since) if since is None else since
        # Hardly ever is anything off: subjects are looked for where something is.
        self._off = _off(cursor, settlings) if any_off else frozenset()
        self._settled: list[Settling] = []
        self._spent: dict[bytes, Settling] = {}
        self._counted: dict[bytes, int] = {}

    def settle(self, one: Settling) -> Outcome:  # noqa: PLR0911 - one for each outcome
        """Decides one, after those before it."""
        one.note(one.now)
        known = one.spend in self._spent or one.spend in self._spends
        before = self._before(one) if known else None
        if before is not None and before[0] == one.row.attempt:
            return Settled()
        if self._off and (off := self._off.intersection(one.settlement.switches)):
            return SwitchedOff(off=off)
        counted, over = room(one.limits if before is None else self._again(one), self._limits, one.now)
        if over is not None:
            return over
        self._limits.update(counted)
        self._counted.update(counted)
        if before is not None:
            return Spent(receipt=to_text(before[1]))
        if one.settlement.issued_at < self._since:
            return Forgotten()
        if one.pins and (taken := _pin(self._cursor, one.pins, one.settlement.pins)) is not None:
            return PinTaken(pin=taken)
        self._settled.append(one)
        self._spent[one.spend] = one
        return Settled()

    def write(self) -> None:
        """Writes what was counted and settled. Pins are written already: others of the batch look at them there."""
        if self._counted:
            insert(self._cursor, "INSERT OR REPLACE INTO limits (key, until) VALUES", list(self._counted.items()))
        if self._settled:
            others = [row for one in self._settled for row in one.others]  # behind all that spent tokens point to
            first = self._ends.append(self._cursor, [*(one.row for one in self._settled), *others])
            rows = [(one.spend, one.settlement.spend_until, first + at) for at, one in enumerate(self._settled)]
            insert(self._cursor, "INSERT OR REPLACE INTO spends (key, until, record) VALUES", rows)

    def _before(self, one: Settling) -> tuple[bytes, bytes] | None:
        """Who spent the token (attempt, receipt); None where nobody did, empty where the record is gone."""
        earlier = self._spent.get(one.spend)
        if earlier is not None and earlier.settlement.spend_until > one.now:
            return earlier.row.attempt, earlier.row.receipt
        until, record = self._spends.get(one.spend, (0, 0))
        if until <= one.now:
            return None
        self._cursor.execute("SELECT attempt, receipt FROM records WHERE id = ?", (record,))
        found: tuple[bytes, bytes] | None = self._cursor.fetchone()
        return found or (b"", b"")

    def _again(self, one: Settling) -> Sequence[tuple[bytes, Limit]]:
        """The limit of a token that was spent before. Few were, so it is read when one is found."""
        if (again := one.settlement.again) is None:
            return ()
        key = hashed(again.key)
        if key not in self._limits:
            self._cursor.execute("SELECT key, until FROM limits WHERE key = ?", (key,))
            self._limits.update(self._cursor.fetchall())
        return [(key, again)]


def room(
    limits: Sequence[tuple[bytes, Limit]], before: Mapping[bytes, int], now: float
) -> tuple[dict[bytes, int], OverLimit | None]:
    """What is to be written where each limit has room for one; or nothing, and the one that is over by most.

    Args:
        before: What is written, by the limits' keys.
    """
    moment, longest, over = int(now * 1_000_000), 0, ""
    counted: dict[bytes, int] = {}
    for key, limit in limits:
        # No further ahead than a limit can be: what a clock that was wrong for a while wrote holds for one window.
        last = moment + limit.window
        free_at = before.get(key, moment)
        if not moment <= free_at <= last:
            free_at = moment if free_at < moment else last
        counted[key] = taken = free_at + limit.interval
        if taken - last > longest:
            longest, over = taken - last, limit.key
    if longest == 0:
        return counted, None
    return {}, OverLimit(retry_after_seconds=-(-longest // 1_000_000), key=over)


def count(cursor: sqlite3.Cursor, limits: Sequence[tuple[bytes, Limit]], now: float) -> OverLimit | None:
    """Counts one for each limit, of which there are some; where one has no room, for none, and answers that one."""
    keys = [key for key, _ in limits]
    cursor.execute(f"SELECT key, until FROM limits WHERE key IN ({marks(len(keys))})", bound(keys))  # noqa: S608 - marks
    counted, over = room(limits, dict(cursor.fetchall()), now)
    if counted:
        insert(cursor, "INSERT OR REPLACE INTO limits (key, until) VALUES", list(counted.items()))
    return over


def keyed(limits: Sequence[Limit]) -> list[tuple[bytes, Limit]]:
    """Limits beside the keys that the file has for them."""
    return [(_hashed_often(limit.key), limit) for limit in limits]


@functools.lru_cache(maxsize=4096)
def _hashed_often(key: str) -> bytes:
    """Limits are of a few thousand things, and of the same ones all the time."""
    return hashed(key)


def hashed(key: str) -> bytes:
    """A key of known size, whatever callers put into it."""
    return hashlib.sha256(to_bytes(key)).digest()


def _known(
    cursor: sqlite3.Cursor, spends: Collection[bytes], limits: Collection[bytes], organizations: Collection[bytes]
) -> tuple[dict[bytes, tuple[int, int]], dict[bytes, int], Ends, int | None, bool]:
    """What the file says: of spent tokens, until when and the record's id; of limits, the moment; of organizations,
    where their records end; since when it remembers; and whether anything is switched off.
    """
    asked_spends, asked_limits, asked_ends = _padded(spends), _padded(limits), _padded(organizations)
    columns = _columns(len(asked_spends), len(asked_limits), len(asked_ends))
    spent, counted, since, any_off, *ends = one_row(cursor, columns, [*asked_spends, *asked_limits, *asked_ends])
    return (
        {bytes.fromhex(key): (int(until), int(record)) for key, until, record in _fields(spent)},
        {bytes.fromhex(key): int(until) for key, until in _fields(counted)},
        Ends(*ends),
        int(since) if since else None,
        any_off == "1",
    )


@functools.lru_cache(maxsize=128)
def _columns(spends: int, limits: int, organizations: int) -> tuple[str, ...]:
    spent = "SELECT group_concat(hex(key) || ' ' || until || ' ' || record, ';') FROM spends WHERE key IN"
    counted = "SELECT group_concat(hex(key) || ' ' || until, ';') FROM limits WHERE key IN"
    return (
        f"({spent} ({marks(spends)}))",
        f"({counted} ({marks(limits)}))",
        "(SELECT since FROM memory)",
        "EXISTS (SELECT 1 FROM switches)",
        *Ends.columns(organizations),
    )


def _off(cursor: sqlite3.Cursor, settlings: Sequence[Settling]) -> frozenset[str]:
    """Of all their switches, those that are off."""
    asked = _padded({to_bytes(subject) for one in settlings for subject in one.settlement.switches})
    query = f"SELECT group_concat(hex(subject) || ',', '') FROM switches WHERE subject IN ({marks(len(asked))})"  # noqa: S608 - marks
    return subjects_in(cursor.execute(query, bound(asked)).fetchone()[0])


def begin(cursor: sqlite3.Cursor, since: int) -> int:
    """Since when the file remembers: what it says, or else this moment, which it says from now on."""
    cursor.execute("INSERT OR IGNORE INTO memory (id, since) VALUES (1, ?)", (since,))
    cursor.execute("SELECT since FROM memory")
    (since,) = cursor.fetchone()
    return since


def subjects_in(text: str | None) -> frozenset[str]:
    """'6131,6132,' -> 'a1', 'a2'; None -> nothing"""
    return frozenset(to_text(bytes.fromhex(one)) for one in text.split(",")[:-1]) if text else frozenset()


def _padded(keys: Collection[bytes]) -> list[bytes | int]:
    """With what no key is, so that there are few statements to prepare, and the connection's own cache holds them."""
    size = 1 << (len(keys) - 1).bit_length() if keys else 0
    return [*keys, *[0] * (size - len(keys))]


def _fields(text: str) -> list[list[str]]:
    """'a 1;b 2' -> [['a', '1'], ['b', '2']]"""
    return [item.split(" ") for item in text.split(";")] if text else []


def _pin(cursor: sqlite3.Cursor, rows: Sequence[tuple[bytes, bytes, bytes]], pins: Sequence[Pin]) -> Pin | None:
    """Records pins; where one stands with another value, none, and answers that one."""
    for (publisher, field, value), pin in zip(rows, pins, strict=True):
        cursor.execute("SELECT value FROM pins WHERE publisher = ? AND field = ?", (publisher, field))
        found = cursor.fetchone()
        if found is not None and found[0] != value:
            return pin
    cursor.executemany("INSERT OR IGNORE INTO pins (publisher, field, value) VALUES (?, ?, ?)", rows)
    return None
