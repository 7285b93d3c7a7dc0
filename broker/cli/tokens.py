"""`broker tokens`: API tokens for who asks the broker itself: registries that introspect, owners, operators."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker.api_tokens import ROLES, ApiToken
from broker.cli.revoke import missing_in
from broker.cli.state import add_option, beside, work_on_state
from broker.state import State

DAY_SECONDS: Final = 86_400
MOST_DAYS: Final = 3660


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "tokens",
        help="make, list and remove API tokens",
        description="API tokens are for who asks the broker's own API: a registry that introspects upload tokens, an "
        "owner who reads an organization's audit, an operator.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    new = actions.add_parser(
        "new",
        help="make one, and print it",
        description="Makes an API token and prints it, this once: state keeps a hash of it.",
    )
    new.add_argument("name", metavar="NAME", help="what it is for, such as the registry's name")
    new.add_argument(
        "--role",
        choices=ROLES,
        default=ROLES[0],
        help="registry: introspect and revoke (default); owner: what one organization's owners may; operator: all",
    )
    new.add_argument("--organization", default="", metavar="NAME", help="whose owner's it is; with --role owner alone")
    new.add_argument(
        "--policies",
        metavar="DIR",
        type=Path,
        help="the folder of policies, to warn of an organization they do not have (BROKER_POLICIES; default: policies)",
    )
    new.add_argument("--days", type=days, default=365, metavar="DAYS", help="how long it lives (default: 365)")
    listing = actions.add_parser("list", help="show those that live", description="Shows the API tokens, oldest first.")
    remove = actions.add_parser(
        "remove", help="make one worthless at once", description="Removes an API token; whoever has it is refused."
    )
    remove.add_argument("id", metavar="ID", help="as `broker tokens list` shows it")
    for action, run in ((new, run_new), (listing, run_list), (remove, run_remove)):
        add_option(action)
        action.set_defaults(run=run)


def days(text: str) -> int:
    """A whole number; argparse calls it by this name when it is none."""
    if not 1 <= (value := int(text)) <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"write a number from 1 to {MOST_DAYS}")
    return value


def run_new(args: argparse.Namespace) -> int:
    """Prints the token on standard output, and what it is on standard error."""
    try:
        text, kept = ApiToken.make(
            args.name,
            args.role,
            now=time.time(),
            seconds=args.days * DAY_SECONDS,
            organization=args.organization,
        )
    except ValueError as error:
        print(f"broker tokens: {error}.", file=sys.stderr)
        return 2

    chosen = beside(args)

    async def store(state: State) -> None:
        await state.store_api_token(kept)

    if not (where := work_on_state("tokens", args, store, makes=True)):
        return 1
    print(text)
    until = datetime.fromtimestamp(kept.expires_at, UTC).date()
    print(
        f"API token {kept.id} for {kept.name!r} ({_role(kept)}) until {until}, in {where}; it is not shown again.",
        file=sys.stderr,
    )
    if kept.organization and (unknown := missing_in(chosen, args.policies, "organization", [kept.organization])):
        print(f"note: {unknown}; the token was made all the same", file=sys.stderr)
    return 0


def _role(token: ApiToken) -> str:
    return f"{token.role} of {token.organization}" if token.organization else token.role


def run_list(args: argparse.Namespace) -> int:
    """Prints a line for each."""

    async def show(state: State) -> None:
        tokens = await state.api_tokens()
        if not tokens:
            print("broker tokens: there are none; make one with `broker tokens new NAME`.", file=sys.stderr)
        for token in tokens:
            until = datetime.fromtimestamp(token.expires_at, UTC).date()
            over = " (over)" if token.is_over(time.time()) else ""
            print(f"{token.id}  {_role(token):<8}  until {until}{over}  {token.name}")

    return 0 if work_on_state("tokens", args, show) else 1


def run_remove(args: argparse.Namespace) -> int:
    """Removes one."""
    found: list[bool] = []

    async def remove(state: State) -> None:
        found.append(await state.remove_api_token(args.id))

    if not work_on_state("tokens", args, remove):
        return 1
    if found == [True]:
        return 0
    print(f"broker tokens: there is no API token {args.id!r}: `broker tokens list` shows them.", file=sys.stderr)
    return 1
