"""`broker audit`: what was recorded."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Final

from broker.refusals import StateUnavailable
from broker.state.opening import open_state, sqlite_file

REMOVES_NOTHING: Final = 36_500
"""Days. Whoever only reads must not sweep: the server's own `BROKER_AUDIT_DAYS` does."""


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser("audit", help="read audit records", description="Reads audit records.")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    tail = actions.add_parser(
        "tail", help="print the newest records", description="Prints records, one JSON line each."
    )
    tail.add_argument("-n", type=number, default=20, metavar="MOST", help="how many (default: 20)")
    tail.add_argument("--organization", help="only this organization's")
    tail.add_argument(
        "--state", metavar="URL", help="where state is kept (BROKER_STATE_URL; default: sqlite:///state.db)"
    )
    tail.set_defaults(run=run_tail)


def number(text: str) -> int:
    """At least one; argparse calls it by this name when it is none."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def run_tail(args: argparse.Namespace) -> int:
    """Prints the newest records, oldest first."""
    url = args.state or os.environ.get("BROKER_STATE_URL", "sqlite:///state.db")
    try:
        records = asyncio.run(_newest(url, args.n, args.organization))
    except StateUnavailable as refusal:
        why = refusal.__cause__ or "no answer in time"
        print(f"broker audit: state cannot be read ({why}). Name it by --state or BROKER_STATE_URL.", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"broker audit: {error}.", file=sys.stderr)
        return 1
    for record in records:
        print(record)
    return 0


async def _newest(url: str, most: int, organization: str | None) -> list[str]:
    if url.startswith("sqlite:") and not sqlite_file(url).exists():
        # To open it would make it; and whoever forgot to name the state would be told that nothing ever happened.
        raise ValueError(f"there is no state at {sqlite_file(url)}: name it by --state or BROKER_STATE_URL")
    state = open_state(url, retention_days=REMOVES_NOTHING)
    try:
        return list(await state.records(most, organization))
    finally:
        await state.close()
