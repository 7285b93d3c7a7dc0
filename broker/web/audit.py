"""The audit records, for who may read them: pages of JSON, or a stream of NDJSON that says whether it is whole.

Every answer has its organization and its filters from the request, never from a cursor: that says where to go on, and
is refused with any other query. Bounded are the records that a page looks at, the time that a stream takes, and how
many of either a caller has under way.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from cryptography.exceptions import InvalidSignature
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from broker import ascii_json, refusals
from broker.api_tokens import ApiToken, Role
from broker.chain import Kept, digest
from broker.policy.shapes import is_name
from broker.records import Query, seen_by_owner
from broker.signing import SigningKeys
from broker.state import State
from broker.state.encoding import to_bytes
from broker.web.answers import Json
from broker.web.callers import Callers, bearer
from broker.web.downloads import present

DEFAULT_LIMIT: Final = 100
MOST_RECORDS: Final = 1000
"""Of one page."""

AT_A_TIME: Final = 100
"""Records that are asked of state at once: what an export holds in memory, and for how long others wait meanwhile."""

MOST_LOOKED_AT: Final = 10_000
"""Records that one page looks at, for as many as it has; then it ends, with a cursor, however few fitted."""

EXPORT_SECONDS: Final = 600.0
"""For one export; then it ends, with a cursor, and says that it is not the whole."""

CHUNK_SECONDS: Final = 30.0
"""How long a reader may take nothing in the middle of an export."""

MOST_OF_ONE: Final = 2
MOST_OF_ALL: Final = 8
"""Queries under way at once in one process, of one API token and of all."""

READ_EVERY_SECONDS: Final = 3600.0
"""How often it is recorded that a token reads, by one process: whoever follows the audit must not fill it."""

MOST_READERS: Final = 64
"""Records of that in that time for one token and organization: one for each address that it reads from, so that a copy
of it is seen, and few whatever addresses there are."""

LONGEST_CURSOR: Final = 1000

NDJSON: Final = "application/x-ndjson"

Line = Mapping[str, Any]
"""A record as it is told: where it stands in its chain, and its text."""

_OPERATORS: Final[tuple[Role, ...]] = ("operator",)
_OWNERS: Final[tuple[Role, ...]] = ("owner", "operator")


def routes(callers: Callers) -> list[Route]:
    """`/api/audit`, for operators; and each organization's, for its owners and for operators."""
    places = Places()

    async def answer(request: Request, roles: tuple[Role, ...], organization: str | None) -> Response:
        async with callers.asks(request, bearer(request), roles=roles, organization=organization) as (caller, attempt):
            if organization is not None and not is_name(organization):
                raise refusals.InvalidQuery("no organization is called so: small letters, digits and - between them")
            cursors = Cursors(callers.exchange.minter.keys(), callers.exchange.clock())
            asked = Asked.read(request, organization, cursors)
            attempt.owner = organization or ""
            # Before anything is answered; where it cannot be written, nothing is.
            key = ("read", caller.id, attempt.owner, reader(attempt.source.name))
            await callers.record(attempt, *key, every_seconds=READ_EVERY_SECONDS)
        reading = Reading(asked=asked, caller=caller, state=callers.exchange.state, cursors=cursors)
        if asked.streams:
            return Export(reading, places)
        with places.taken(caller.id):
            return await _page(reading, request)

    async def everything(request: Request) -> Response:
        return await answer(request, _OPERATORS, None)

    async def of_organization(request: Request) -> Response:
        return await answer(request, _OWNERS, request.path_params["name"])

    return [
        Route("/api/audit", everything, methods=["GET"]),
        Route("/api/organizations/{name}/audit", of_organization, methods=["GET"]),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query, where to go on with it, and how it is to be answered."""

    query: Query
    position: str
    limit: int
    streams: bool

    @classmethod
    def read(cls, request: Request, organization: str | None, cursors: Cursors) -> Self:
        """Reads a request's query string.

        Raises:
            InvalidQuery, InvalidCursor
        """
        filters: list[tuple[str, str]] = []
        told: dict[str, str] = {}
        for name, text in request.query_params.multi_items():
            if name not in {"limit", "cursor", "format"}:
                filters.append((name, text))
            elif told.setdefault(name, text) is not text:
                raise refusals.InvalidQuery(f"{name!r} stands twice")
        query = Query.parse(organization, filters)
        streams = _streams(told.get("format"), request.headers.get("accept", ""))
        if streams and "limit" in told:
            raise refusals.InvalidQuery("'limit' is for pages: a stream has all that there is")
        return cls(
            query=query,
            position=cursors.read(told["cursor"], query) if "cursor" in told else "",
            limit=_limit(told.get("limit", str(DEFAULT_LIMIT))),
            streams=streams,
        )


def reader(source: str) -> str:
    """One of so many, by where a request comes from; nobody outside can tell which."""
    return str(hash(source) % MOST_READERS)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_RECORDS))) or not (
        1 <= int(text) <= MOST_RECORDS
    ):
        raise refusals.InvalidQuery(f"'limit' is a number from 1 to {MOST_RECORDS}")
    return int(text)


def _streams(told: str | None, accept: str) -> bool:
    if told not in {None, "json", "ndjson"}:
        raise refusals.InvalidQuery("'format' is 'json' or 'ndjson'")
    return told == "ndjson" if told else any(part.split(";")[0].strip() == NDJSON for part in accept.split(","))


@dataclass(frozen=True, slots=True)
class Cursors:
    """Positions as callers are given them: bound to a query, and signed with the broker's own key.

    What is signed begins with a text that no JWT can begin with, so neither passes for the other.
    """

    keys: SigningKeys
    now: float

    def make(self, position: str, query: Query) -> str:
        """Where to go on with a query."""
        key = self.keys.signing_at(self.now)
        payload = json.dumps([key.id, query.fingerprint, position]).encode()
        return _base64(payload) + "." + _base64(key.private.sign(_signed(payload)))

    def read(self, cursor: str, query: Query) -> str:
        """The position.

        Raises:
            InvalidCursor: it was altered, is of another query, or its key is gone.
        """
        try:
            payload, signature = map(_bytes, cursor[:LONGEST_CURSOR].split("."))
            key_id, fingerprint, position = json.loads(payload)
        except (ValueError, TypeError, RecursionError) as error:
            raise refusals.InvalidCursor from error
        key = self.keys.find(key_id, self.now)
        if key is None or fingerprint != query.fingerprint:
            raise refusals.InvalidCursor
        try:
            key.private.public_key().verify(signature, _signed(payload))
        except InvalidSignature as error:
            raise refusals.InvalidCursor from error
        return str(position)


def _signed(payload: bytes) -> bytes:
    return b"audit cursor\0" + payload


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    """The reverse, of one spelling alone."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if _base64(data) != text:
        raise ValueError
    return data


class Places:
    """Who has how many queries under way."""

    def __init__(self) -> None:
        """Nobody has any."""
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, token_id: str) -> Iterator[None]:
        """Holds a place.

        Raises:
            ApiBusy: there is none.
        """
        if self._taken[token_id] >= MOST_OF_ONE or self._taken.total() >= MOST_OF_ALL:
            raise refusals.ApiBusy(retry_after_seconds=2)
        self._taken[token_id] += 1
        try:
            yield
        finally:
            self._taken[token_id] -= 1
            if not self._taken[token_id]:
                del self._taken[token_id]


@dataclass(slots=True, kw_only=True)
class Reading:
    """A walk through the records that a query admits, oldest first. It knows where it is."""

    asked: Asked
    caller: ApiToken
    state: State
    cursors: Cursors
    ended: bool = False
    """Whether all that there is was looked at."""
    looked_at: int = 0
    position: str = ""
    """Of the last record that was."""

    async def some(self, room: int) -> Sequence[Line]:
        """The next records, at most so many; none where those that were looked at are not asked for.

        Raises:
            InvalidCursor: it is of another store.
            StateUnavailable: the reading is where it was.
        """
        query, told = self.asked.query, list[Line]()
        try:
            found = await self.state.records_after(self._after, AT_A_TIME, query.organization)
        except ValueError as error:
            raise refusals.InvalidCursor from error
        for kept in found:
            if len(told) == room:
                return told
            self.position = kept.position
            self.looked_at += 1
            if query.admits(kept.organization, kept.body):
                line = self._told(kept)
                # What is withheld must not be found by asking for it either.
                if "withheld" not in line or query.admits(kept.organization, line["record"]):
                    told.append(line)
        self.ended = len(found) < AT_A_TIME
        return told

    @property
    def cursor(self) -> str:
        """Where to go on."""
        return self.cursors.make(self._after, self.asked.query)

    @property
    def _after(self) -> str:
        return self.position or self.asked.position

    def _told(self, kept: Kept) -> Line:
        told: dict[str, Any] = {"sequence": kept.sequence, "link": kept.link, "organization": kept.organization}
        if self.caller.role == "operator":
            return {**told, "record": kept.body}
        body, withheld = seen_by_owner(kept.organization, kept.body)
        if not withheld:
            return {**told, "record": body}
        # What is linked is the digest of the whole body: with it, the chain can be followed past this one.
        return {**told, "record": body, "withheld": withheld, "digest": digest(to_bytes(kept.body)).hex()}


async def _page(reading: Reading, request: Request) -> Response:
    limit, records = reading.asked.limit, list[Line]()
    while not reading.ended and len(records) < limit and reading.looked_at < MOST_LOOKED_AT:
        records += await reading.some(limit - len(records))
    cursor = reading.cursor
    body = {"records": records, "next": None if reading.ended else cursor, "cursor": cursor}
    if reading.ended:
        return Json(body, Vary="Accept")
    others = [(name, text) for name, text in request.query_params.multi_items() if name != "cursor"]
    query = urlencode([*others, ("cursor", cursor)])
    return Json(body, Link=f'<{quote(request.url.path)}?{query}>; rel="next"', Vary="Accept")


class Export(Response):
    """All that a query admits, a line each, then a line that says whether that was all."""

    def __init__(self, reading: Reading, places: Places) -> None:
        self.reading, self.places = reading, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it. A reader that is gone, or takes nothing for long, ends it; then there is no last line."""
        with self.places.taken(self.reading.caller.id):
            await self._send(scope, receive, send)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = await self.reading.some(AT_A_TIME)  # whatever is wrong is still answered as a refusal
        headers = [(b"content-type", NDJSON.encode()), (b"cache-control", b"no-store"), (b"vary", b"accept")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD" or await self._send_lines(first, receive, send):
            await send({"type": "http.response.body", "body": b""})

    async def _send_lines(self, first: Sequence[Line], receive: Receive, send: Send) -> bool:
        try:
            async with present(receive):
                async for chunk in self._chunks(first):
                    async with asyncio.timeout(CHUNK_SECONDS):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            return False
        return True

    async def _chunks(self, first: Sequence[Line]) -> AsyncIterator[bytes]:
        reading, sent, until = self.reading, len(first), monotonic() + EXPORT_SECONDS
        end: dict[str, Any] = {}
        yield _lines(first)
        while not reading.ended and monotonic() < until:
            try:
                records = await reading.some(AT_A_TIME)
            except refusals.StateUnavailable as refusal:
                end = {"code": refusal.code}
                break
            sent += len(records)
            yield _lines(records)
        yield _lines([{"complete": reading.ended, "records": sent, "cursor": reading.cursor, **end}])


def _lines(values: Sequence[Line]) -> bytes:
    return "".join(f"{ascii_json.encode(value)}\n" for value in values).encode()
