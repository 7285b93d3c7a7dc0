"""The state that a verb works on beside a running broker: how it is named, and what is said where it cannot be used."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from broker.refusals import StateUnavailable
from broker.state import State
from broker.state.opening import open_state, sqlite_file

REMOVES_NOTHING: Final = 36_500
"""Days of retention: records are the server's to sweep, by its own `BROKER_AUDIT_DAYS`."""


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--state`."""
    parser.add_argument(
        "--state", metavar="URL", help="where state is kept (BROKER_STATE_URL; default: sqlite:///state.db)"
    )


def loopback_allowed() -> bool:
    """Whether the environment says so, as for `broker serve`: for development alone."""
    return os.environ.get("BROKER_ALLOW_LOOPBACK_ISSUERS", "").lower() in {"1", "true", "yes", "on", "y", "t"}


def work_on_state(
    verb: str, named: str | None, work: Callable[[State], Awaitable[None]], *, makes: bool = False
) -> bool:
    """Does some work on the state; False where that failed, which is then explained.

    Args:
        verb: Who says so: 'tokens'.
        named: What `--state` says.
        makes: Whether a file that is not there may be made. Whoever forgot to name the state would else be told that
            it is empty.
    """
    url = named or os.environ.get("BROKER_STATE_URL", "sqlite:///state.db")

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
        print(f"broker {verb}: state cannot be used ({why}). Name it by --state or BROKER_STATE_URL.", file=sys.stderr)
    except ValueError as error:
        print(f"broker {verb}: {error}.", file=sys.stderr)
    else:
        return True
    return False
