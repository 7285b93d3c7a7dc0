"""The state that a verb works on beside a running broker: how it is named, and what is said where it cannot be used.

It is named as for the broker itself: by `--state`, by the environment, or by the env file.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from broker import settings
from broker.refusals import StateUnavailable
from broker.settings import Beside, BesideState
from broker.state import State
from broker.state.opening import open_state, shown, sqlite_file

REMOVES_NOTHING: Final = 36_500
"""Days of retention: records are the server's to sweep, by its own `BROKER_AUDIT_DAYS`."""

_DEFAULT: Final[str] = BesideState.model_fields["state_url"].default.get_secret_value()

_NAME_IT: Final = "name it by --state or BROKER_STATE_URL"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--state` and `--env-file`."""
    parser.add_argument(
        "--state", metavar="URL", help="where state is kept (BROKER_STATE_URL; default: sqlite:///state.db)"
    )
    add_env_file(parser)


def add_env_file(parser: argparse.ArgumentParser) -> None:
    """Adds `--env-file`."""
    parser.add_argument(
        "--env-file", metavar="FILE", help="read BROKER_* settings from this file too, as the broker (BROKER_ENV_FILE)"
    )


def beside(args: argparse.Namespace) -> Beside:
    """What the broker's settings say, but for its state.

    Raises:
        SettingsError
    """
    return settings.read(Beside, args.env_file)


def is_named(args: argparse.Namespace) -> bool:
    """Whether a state is named, or it is where it is by default.

    Raises:
        SettingsError
    """
    return _named(args) is not None


def address(args: argparse.Namespace) -> str:
    """The state's URL, password and all.

    Raises:
        SettingsError
    """
    named = _named(args)
    return _DEFAULT if named is None else named


def _named(args: argparse.Namespace) -> str | None:
    if args.state is not None:
        return str(args.state)
    told = settings.read(BesideState, args.env_file)
    return told.state_url.get_secret_value() if "state_url" in told.model_fields_set else None


def open_existing(url: str) -> State:
    """Opens a state that is there: to open a file makes it, and whoever forgot to name it would be told it is empty.

    Raises:
        ValueError: there is none; the message says how to name it.
    """
    if url.startswith("sqlite:"):
        file = sqlite_file(url)
        try:
            file.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ValueError(f"there is no state at {file}: {_NAME_IT}") from error
        except OSError as error:
            raise ValueError(
                f"the state at {file} cannot be looked at ({error.strerror}): it is for the broker's user, so do this "
                f"as that user, or {_NAME_IT}"
            ) from error
    return open_state(url, retention_days=REMOVES_NOTHING)


def work_on_state(
    verb: str, args: argparse.Namespace, work: Callable[[State], Awaitable[None]], *, makes: bool = False
) -> str:
    """Does some work on the state, and answers its URL as it may be shown; '' where that failed, which is explained.

    Args:
        verb: Who says so: 'tokens'.
        args: What `add_option` added is in it.
        makes: Whether a file that is not there may be made, where one is named. Nobody meant the one that would be
            made where somebody just stands.

    Raises:
        SettingsError
    """
    named = _named(args)
    url = _DEFAULT if named is None else named

    async def opened() -> str:
        makes_it = makes and named is not None
        state = open_state(url, retention_days=REMOVES_NOTHING) if makes_it else open_existing(url)
        try:
            where = shown(url)  # before the work: once that is done, nothing may keep it from being told
            await work(state)
            return where
        finally:
            await state.close()

    try:
        return asyncio.run(opened())
    except StateUnavailable as refusal:
        why = refusal.__cause__ or "no answer in time"
        print(f"broker {verb}: state cannot be used ({why}). N{_NAME_IT[1:]}.", file=sys.stderr)
    except ValueError as error:
        print(f"broker {verb}: {error}.", file=sys.stderr)
    return ""
