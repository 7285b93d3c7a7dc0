"""`broker audit`: what was recorded."""

from __future__ import annotations

import argparse

from broker.cli import audit_verify
from broker.cli.state import add_option, work_on_state
from broker.state import State


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser("audit", help="read audit records", description="Reads audit records.")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    tail = actions.add_parser(
        "tail", help="print the newest records", description="Prints records, one JSON line each."
    )
    tail.add_argument("-n", type=number, default=20, metavar="MOST", help="how many (default: 20)")
    tail.add_argument("--organization", help="only this organization's")
    add_option(tail)
    tail.set_defaults(run=run_tail)
    audit_verify.register(actions)


def number(text: str) -> int:
    """At least one; argparse calls it by this name when it is none."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def run_tail(args: argparse.Namespace) -> int:
    """Prints the newest records, oldest first."""

    async def tail(state: State) -> None:
        for record in await state.records(args.n, args.organization):
            print(record)

    return 0 if work_on_state("audit", args.state, tail) else 1
