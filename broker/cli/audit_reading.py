"""Where `broker audit` reads records from: the state itself, or a broker's API.

What is read has the form of the API's lines either way, so that an export is the same, wherever it was made.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

import httpx

from broker import refusals
from broker.cli.probe import origin
from broker.cli.state import add_option, work_on_state
from broker.outgoing import failure
from broker.records import FILTERS, MOMENTS, Query
from broker.state import State

AT_A_TIME: Final = 1000

TRIES: Final = 6
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
"""Between tries: doubled each time, or as long as Retry-After says."""

_SAID: Final = {"since": "those that began at this moment or later", "until": "those that began before it"}

_AGAIN: Final = frozenset({429, 502, 503, 504})


class ReadingError(Exception):
    """The records cannot be read; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some records, and where to go on."""

    records: Sequence[dict[str, Any]]
    cursor: str
    ended: bool
    """Whether there are no more, for now."""


class Source(Protocol):
    """Records in the order of appending."""

    async def after(self, cursor: str) -> Page:
        """The next ones.

        Raises:
            ReadingError, StateUnavailable
        """


@dataclass(frozen=True, slots=True)
class OfState:
    """From the state itself."""

    state: State
    query: Query

    async def after(self, cursor: str) -> Page:
        """As `Source.after`."""
        try:
            found = await self.state.records_after(cursor, AT_A_TIME, self.query.organization)
        except ValueError as error:
            raise ReadingError("the cursor is none of this state's") from error
        records = [
            {"sequence": one.sequence, "link": one.link, "organization": one.organization, "record": one.body}
            for one in found
            if self.query.admits(one.organization, one.body)
        ]
        return Page(records=records, cursor=found[-1].position if found else cursor, ended=len(found) < AT_A_TIME)


@dataclass(frozen=True, slots=True)
class OfApi:
    """From a broker, which is asked again where it does not answer well."""

    client: httpx.AsyncClient
    path: str
    filters: Sequence[tuple[str, str]]

    async def after(self, cursor: str) -> Page:
        """As `Source.after`."""
        query = urlencode([*self.filters, ("limit", AT_A_TIME), *([("cursor", cursor)] if cursor else [])])
        pause, problem = FIRST_PAUSE_SECONDS, ""
        for tried in range(TRIES):
            if tried:
                print(f"broker audit: {problem}; asking again", file=sys.stderr)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            try:
                answer = await self.client.get(f"{self.path}?{query}")
            except httpx.HTTPError as error:
                problem = f"no answer ({failure(error)})"
                continue
            if answer.status_code not in _AGAIN:
                return _page(answer)
            problem = f"the broker answered {answer.status_code}"
            if (told := answer.headers.get("retry-after", "")).isdecimal():
                pause = min(float(told), LONGEST_PAUSE_SECONDS)
        raise ReadingError(f"{problem}, {TRIES} times")


def _page(answer: httpx.Response) -> Page:
    try:
        told = answer.json()
        if answer.status_code == httpx.codes.OK:
            return Page(
                records=[dict(one) for one in told["records"]],
                cursor=str(told["cursor"]),
                ended=told["next"] is None,
            )
        error = told["errors"][0]
        message = f"{error['code']}: {error['description']}"
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ReadingError(f"it answered {answer.status_code}, and not as a broker does") from error
    raise ReadingError(message if message.isprintable() else repr(message))


async def pages(source: Source, cursor: str = "") -> AsyncIterator[Page]:
    """All there is, page by page."""
    ended = False
    while not ended:
        page = await source.after(cursor)
        cursor, ended = page.cursor, page.ended
        yield page


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds filters, and where to read from."""
    parser.add_argument("--organization", metavar="NAME", help="only this organization's")
    for name in FILTERS:
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, action="append", metavar="VALUE", help=argparse.SUPPRESS)
    for name in MOMENTS:
        parser.add_argument(f"--{name}", metavar="MOMENT", help=f"only {_SAID[name]}, such as 2026-11-28T02:00:00Z")
    parser.add_argument("--url", type=origin, help="ask this broker's API, and not the state")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="with --url: a file with an API token")
    add_option(parser)
    told = ", ".join(f"--{name.replace('_', '-')}" for name in FILTERS)
    parser.epilog = (
        f"More filters, each with a VALUE; one that stands several times fits any of its values: {told}. What they "
        "mean: docs/how-to/read-the-audit.md. With --url, an owner's token needs --organization."
    )


def reads(args: argparse.Namespace, work: Callable[[Source], Awaitable[None]]) -> int:
    """Does some work with the source that the options name; the exit status."""
    filters = [(name, text) for name in FILTERS for text in getattr(args, name) or ()]
    filters += [(name, text) for name in MOMENTS if (text := getattr(args, name)) is not None]
    try:
        query = Query.parse(args.organization, filters)
        if args.url is None and args.token_file is not None:
            print("broker audit: --token-file is for a broker's API: name that by --url.", file=sys.stderr)
            return 2
        if args.url is None:
            return 0 if work_on_state("audit", args, lambda state: work(OfState(state, query))) else 1
        return asyncio.run(_ask(args, filters, work))
    except refusals.InvalidQuery as refusal:
        print(f"broker audit: {refusal.detail}.", file=sys.stderr)
        return 2
    except ReadingError as error:
        print(f"broker audit: {error}.", file=sys.stderr)
        return 1


async def _ask(
    args: argparse.Namespace, filters: Sequence[tuple[str, str]], work: Callable[[Source], Awaitable[None]]
) -> int:
    path = (
        "/api/audit" if args.organization is None else f"/api/organizations/{quote(args.organization, safe='')}/audit"
    )
    # No proxy and no .netrc from the environment, and nothing redirects: the token is for this one host.
    async with httpx.AsyncClient(
        base_url=args.url,
        headers={"Authorization": f"Bearer {_token(args.token_file)}"},
        timeout=30,
        trust_env=False,
        verify=ssl.create_default_context(),
    ) as client:
        await work(OfApi(client, path, filters))
    return 0


def _token(file: Path | None) -> str:
    if file is None:
        raise ReadingError("--url wants --token-file, a file with an API token: `broker tokens new` makes one")
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ReadingError(f"the token file {file} cannot be read ({type(error).__name__})") from error
    if not text.isprintable() or not text or " " in text:
        raise ReadingError(f"the token file {file} holds no API token")
    return text
