"""`broker tokens`: API tokens for what asks the broker itself, such as a registry that introspects upload tokens."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from broker.api_tokens import ROLES, ApiToken
from broker.refusals import StateUnavailable
from broker.state import State
from broker.state.opening import open_state, sqlite_file

DAY_SECONDS: Final = 86_400
MOST_DAYS: Final = 3660

REMOVES_NOTHING: Final = 36_500
"""Days of retention: records are the server's to sweep."""


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "tokens",
        help="make, list and remove API tokens",
        description="API tokens are for what asks the broker's own API: a registry that introspects upload tokens.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    new = actions.add_parser(
        "new",
        help="make one, and print it",
        description="Makes an API token and prints it, this once: state keeps a hash of it.",
    )
    new.add_argument("name", metavar="NAME", help="what it is for, such as the registry's name")
    new.add_argument("--role", choices=ROLES, default=ROLES[0], help="registry: introspect and revoke (default)")
    new.add_argument("--days", type=days, default=365, metavar="DAYS", help="how long it lives (default: 365)")
    listing = actions.add_parser("list", help="show those that live", description="Shows the API tokens, oldest first.")
    remove = actions.add_parser(
        "remove", help="make one worthless at once", description="Removes an API token; whoever has it is refused."
    )
    remove.add_argument("id", metavar="ID", help="as `broker tokens list` shows it")
    for action, run in ((new, run_new), (listing, run_list), (remove, run_remove)):
        action.add_argument(
            "--state", metavar="URL", help="where state is kept (BROKER_STATE_URL; default: sqlite:///state.db)"
        )
        action.set_defaults(run=run)


def days(text: str) -> int:
    """A whole number; argparse calls it by this name when it is none."""
    if not 1 <= (value := int(text)) <= MOST_DAYS:
        raise ValueError
    return value


def run_new(args: argparse.Namespace) -> int:
    """Prints the token on standard output, and what it is on standard error."""
    try:
        text, kept = ApiToken.make(args.name, args.role, now=time.time(), seconds=args.days * DAY_SECONDS)
    except ValueError as error:
        print(f"broker tokens: {error}.", file=sys.stderr)
        return 2

    async def store(state: State) -> None:
        await state.store_api_token(kept)

    if not _with_state(args, store, makes=True):
        return 1
    print(text)
    until = datetime.fromtimestamp(kept.expires_at, UTC).date()
    print(f"API token {kept.id} for {kept.name!r} ({kept.role}) until {until}; it is not shown again.", file=sys.stderr)
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Prints a line for each."""

    async def show(state: State) -> None:
        tokens = await state.api_tokens()
        if not tokens:
            print("broker tokens: there are none; make one with `broker tokens new NAME`.", file=sys.stderr)
        for token in tokens:
            until = datetime.fromtimestamp(token.expires_at, UTC).date()
            over = " (over)" if token.expires_at <= time.time() else ""
            print(f"{token.id}  {token.role:<8}  until {until}{over}  {token.name}")

    return 0 if _with_state(args, show, makes=False) else 1


def run_remove(args: argparse.Namespace) -> int:
    """Removes one."""
    found: list[bool] = []

    async def remove(state: State) -> None:
        found.append(await state.remove_api_token(args.id))

    if not _with_state(args, remove, makes=False):
        return 1
    if found == [True]:
        return 0
    print(f"broker tokens: there is no API token {args.id!r}: `broker tokens list` shows them.", file=sys.stderr)
    return 1


def _with_state(args: argparse.Namespace, work: Callable[[State], Awaitable[None]], *, makes: bool) -> bool:
    """Does some work on the state; False where that failed, which is then explained.

    Args:
        makes: Whether a file that is not there may be made.
    """
    url = args.state or os.environ.get("BROKER_STATE_URL", "sqlite:///state.db")

    async def opened() -> None:
        if not makes and url.startswith("sqlite:") and not sqlite_file(url).exists():
            raise ValueError(f"there is no state at {sqlite_file(url)}: name it by --state or BROKER_STATE_URL")
        state = open_state(url, retention_days=REMOVES_NOTHING)
        try:
            await work(state)
        finally:
            await state.close()

    try:
        asyncio.run(opened())
    except StateUnavailable as refusal:
        why = refusal.__cause__ or "no answer in time"
        print(f"broker tokens: state cannot be used ({why}). Name it by --state or BROKER_STATE_URL.", file=sys.stderr)
    except ValueError as error:
        print(f"broker tokens: {error}.", file=sys.stderr)
    else:
        return True
    return False
