"""`broker audit`: what was recorded."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import deque
from collections.abc import Iterable
from typing import Final

from broker.cli import audit_export, audit_verify
from broker.cli.audit_reading import OfState, Source, add_options, pages, reads
from broker.records import Query

FOLLOW_SECONDS: Final = 1.0
"""Between two questions whether there is more."""


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser("audit", help="read audit records", description="Reads audit records.")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    tail = actions.add_parser(
        "tail",
        help="print the newest records",
        description="Prints the newest records that fit, oldest first, one JSON line each.",
    )
    tail.add_argument("-n", type=number, default=20, metavar="MOST", help="how many (default: 20)")
    tail.add_argument("-f", "--follow", action="store_true", help="then print those that come, until interrupted")
    add_options(tail)
    tail.set_defaults(run=run_tail)
    audit_export.register(actions)
    audit_verify.register(actions)


def number(text: str) -> int:
    """At least one; argparse calls it by this name when it is none."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def run_tail(args: argparse.Namespace) -> int:
    """Prints the newest records, oldest first."""

    async def tail(source: Source) -> None:
        if not args.follow and isinstance(source, OfState) and source.query == Query(organization=args.organization):
            for body in await source.state.records(args.n, args.organization):
                print(body)
            return
        newest: deque[str] = deque(maxlen=args.n)
        cursor = ""
        async for page in pages(source):
            newest += [str(one["record"]) for one in page.records]
            cursor = page.cursor
        _print(newest)
        while args.follow:
            await asyncio.sleep(FOLLOW_SECONDS)
            async for page in pages(source, cursor):
                _print(str(one["record"]) for one in page.records)
                cursor = page.cursor

    return reads(args, tail)


def _print(bodies: Iterable[str]) -> None:
    for body in bodies:
        print(body)
    sys.stdout.flush()  # whoever follows through a pipe waits for each
