"""Audit records in the SQLite file: appended with their links, read in order, and swept from the oldest on."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from broker import chain
from broker.audit import Record
from broker.chain import Head, Kept
from broker.state.encoding import to_bytes, to_text

MOST_ROWS: Final = 1000
"""Of one statement: SQLite takes 32,766 values in all."""

_LONGEST_POSITION: Final = 18
"""Digits; SQLite's largest number has one more."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record in the file's own terms, made by the event loop."""

    at: float
    organization: str
    attempt: bytes
    receipt: bytes
    body: bytes
    digest: bytes

    @classmethod
    def of(cls, record: Record, receipt: str = "") -> Row:
        """Of a record, and maybe the receipt of its exchange."""
        body = to_bytes(record.body)
        return cls(
            record.at, record.organization, to_bytes(record.attempt), to_bytes(receipt), body, chain.digest(body)
        )

    @classmethod
    def all_of(cls, record: Record) -> list[Row]:
        """Of a record, and those that are kept with it."""
        return [cls.of(one) for one in (record, *record.others)]


class Ends:
    """The number of the last record of all, where the chains of some organizations end, and what is appended there."""

    def __init__(self, last: str, heads: str) -> None:
        """As `columns` reads them."""
        self._last = int(last)
        fields = (item.split(" ") for item in heads.split(";")) if heads else ()
        self._heads = {bytes.fromhex(name): (int(sequence), bytes.fromhex(link)) for name, sequence, link in fields}

    @staticmethod
    def columns(organizations: int) -> tuple[str, str]:
        """What `one_row` is to read, with a mark for each of so many organizations."""
        last = "(SELECT seq FROM sqlite_sequence WHERE name = 'records')"
        newest = "(SELECT max(id) FROM records)"  # should somebody have emptied the other
        head = "hex(organization) || ' ' || sequence || ' ' || hex(link)"
        return (
            f"max(ifnull({last}, 0), ifnull({newest}, 0))",
            f"(SELECT group_concat({head}, ';') FROM heads WHERE organization IN ({marks(organizations)}))",  # noqa: S608 - ours
        )

    def append(self, cursor: sqlite3.Cursor, rows: Sequence[Row]) -> int:
        """Appends records, at least one, each linked to its organization's last; answers the number of the first."""
        ends, first = self._heads, self._last + 1
        begun: dict[bytes, bytes] = {}
        moved: dict[bytes, None] = {}
        values: list[tuple[Any, ...]] = []
        # AUTOINCREMENT's own count follows the numbers that are given; the write lock is held.
        for number, row in enumerate(rows, first):
            organization = to_bytes(row.organization)
            if organization not in ends:
                begun[organization] = genesis = bytes.fromhex(chain.genesis(row.organization))
                ends[organization] = 0, genesis
            sequence, link = ends[organization]
            ends[organization] = sequence, link = sequence + 1, chain.raw_link(link, row.digest)
            moved[organization] = None
            values.append((number, row.at, organization, row.attempt, row.receipt, row.body, sequence, link))
        self._last += len(rows)
        columns = "id, at, organization, attempt, receipt, body, sequence, link"
        insert(cursor, f"INSERT INTO records ({columns}) VALUES", values)
        insert(
            cursor,
            "INSERT INTO heads (organization, sequence, link, swept_sequence, swept_link) VALUES",
            # Where nothing was swept, what was swept ends where the chain begins. Of a head that is there, it stays.
            [(name, *ends[name], 0, begun.get(name, b"")) for name in moved],
            "ON CONFLICT DO UPDATE SET sequence = excluded.sequence, link = excluded.link",
        )
        return first


def append(cursor: sqlite3.Cursor, rows: Sequence[Row]) -> None:
    """Appends records, at least one, each linked to its organization's last."""
    organizations = list({to_bytes(row.organization) for row in rows})
    Ends(*one_row(cursor, Ends.columns(len(organizations)), organizations)).append(cursor, rows)


def newest(cursor: sqlite3.Cursor, most: int, organization: str | None) -> list[str]:
    """As `State.records`."""
    where, values = _only(organization)
    cursor.execute(
        f"SELECT body FROM records WHERE {where} ORDER BY id DESC LIMIT ?",  # noqa: S608 - one of two texts below
        (*values, max(most, 0)),
    )
    return [to_text(body) for (body,) in cursor][::-1]


def after(cursor: sqlite3.Cursor, position: int, most: int, organization: str | None) -> list[Kept]:
    """As `State.records_after`."""
    where, values = _only(organization)
    cursor.execute(
        "SELECT id, organization, sequence, link, body FROM records"  # noqa: S608 - one of two texts below
        f" WHERE id > ? AND {where} ORDER BY id LIMIT ?",
        (position, *values, max(most, 0)),
    )
    return [
        Kept(
            position=str(number),
            organization=to_text(name),
            sequence=sequence,
            link=link.hex(),
            body=to_text(body),
        )
        for number, name, sequence, link, body in cursor
    ]


def _only(organization: str | None) -> tuple[str, tuple[bytes, ...]]:
    return ("TRUE", ()) if organization is None else ("organization = ?", (to_bytes(organization),))


def read_position(position: str) -> int:
    """The number that a position stands for.

    Raises:
        ValueError: it is none.
    """
    if position == "":
        return 0
    if not (position.isascii() and position.isdigit() and len(position) <= _LONGEST_POSITION):
        raise ValueError("no position of a record")
    return int(position)


def heads(cursor: sqlite3.Cursor) -> Mapping[str, Head]:
    """As `State.heads`."""
    cursor.execute("SELECT organization, sequence, link, swept_sequence, swept_link FROM heads")
    return {
        to_text(name): Head(sequence=sequence, link=link.hex(), swept_sequence=swept, swept_link=swept_link.hex())
        for name, sequence, link, swept, swept_link in cursor
    }


def sweep(cursor: sqlite3.Cursor, most: int, before: float) -> None:
    """Deletes the oldest records, at most so many: up to the first that is not from before a moment.

    An upload that took an hour is appended long after it began. Were each judged by its own moment alone, records would
    go missing in the middle of a chain.
    """
    cursor.execute(
        "SELECT min(CASE WHEN at >= ? THEN id END), max(id) FROM (SELECT id, at FROM records ORDER BY id LIMIT ?)",
        (before, most),
    )
    kept, last = cursor.fetchone()
    if last is None:
        return
    end = last + 1 if kept is None else kept
    cursor.execute(
        # SQLite takes the other columns from the row of the maximum (https://sqlite.org/lang_select.html, 2.5).
        "UPDATE heads SET swept_sequence = gone.sequence, swept_link = gone.link FROM ("
        "SELECT organization, link, max(sequence) AS sequence FROM records WHERE id < ? AND sequence > 0"
        " GROUP BY organization) AS gone WHERE heads.organization = gone.organization",
        (end,),
    )
    cursor.execute("DELETE FROM records WHERE id < ?", (end,))


def one_row(cursor: sqlite3.Cursor, columns: tuple[str, ...], values: Sequence[Any]) -> list[str]:
    """Reads one row of numbers, and of texts without `|`, all as texts; what is NULL is empty.

    As one column, for each row and each column of one hands over.
    """
    cursor.execute(_asking(columns), bound(values))
    text: str = cursor.fetchone()[0]
    return text.split("|")


@lru_cache(maxsize=128)
def _asking(columns: tuple[str, ...]) -> str:
    joined = " || '|' || ".join(f"ifnull({column}, '')" for column in columns)
    return f"SELECT {joined}"


def insert(cursor: sqlite3.Cursor, statement: str, rows: Sequence[tuple[Any, ...]], otherwise: str = "") -> None:
    """Writes rows, at least one, `MOST_ROWS` with one statement: 'INSERT INTO x (a, b) VALUES' and pairs."""
    for start in range(0, len(rows), MOST_ROWS):
        some = rows[start : start + MOST_ROWS]
        # `executemany` of one, for `execute` asks for the last row's number afterwards, and hands over once more.
        text = _inserting(statement, len(some), len(rows[0]), otherwise)
        cursor.executemany(text, [bound([value for values in some for value in values])])


@lru_cache(maxsize=128)
def _inserting(statement: str, rows: int, columns: int, otherwise: str) -> str:
    return f"{statement} {','.join([f'({marks(columns)})'] * rows)} {otherwise}"


def bound(values: Sequence[Any]) -> list[Any]:
    """Values as a statement is to have them: `sqlite3` takes a bytearray as it is, and first asks three protocols
    whether there is another form of bytes, which takes six times as long.
    """
    return [bytearray(value) if type(value) is bytes else value for value in values]


def marks(number: int) -> str:
    """3 -> '?,?,?'"""
    return ",".join("?" * number)
