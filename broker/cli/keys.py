"""`broker keys`: the broker's own signing keys."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker.audit import Attempt
from broker.cli.key_files import KeyFiles, any_in, locked, write_new
from broker.cli.state import add_env_file, beside, is_named, work_on_state
from broker.policy.shapes import seconds
from broker.settings import SettingsError
from broker.signing import CACHED_SECONDS, FOR_EVER, KEPT_SECONDS, SINCE_EVER, SigningKey, moment
from broker.signing_files import REMEMBERED_SECONDS, attempt_of, name_of
from broker.state import State
from broker.state.once import record_once

DEFAULT_DELAY: Final = "1h"
SHORTEST_DELAY_SECONDS: Final = CACHED_SECONDS + 300
"""Five minutes for a mounted secret to come to all replicas, and as long as registries keep the public keys."""
LONGEST_DELAY_SECONDS: Final = 90 * 86_400


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "keys", help="make, rotate and list signing keys", description="The broker's own signing keys."
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    new = actions.add_parser(
        "new",
        help="make the first key",
        description="Makes an Ed25519 key: a PEM file that only its owner may read. Nothing is ever overwritten.",
    )
    new.add_argument("path", type=Path, help="the new file (*.pem), or a folder: the file is then named for the moment")
    new.set_defaults(run=run_new)
    rotate = actions.add_parser(
        "rotate",
        help="make the next key, and remove those that are over",
        description="Makes the next key, which every broker accepts and publishes at once, and signs with later. "
        "Removes keys whose last token is over. Where a key waits for its turn already, none is made: it may be "
        "repeated at will.",
        epilog="The delay must be longer than all replicas take to see the new file (a mounted secret: some minutes), "
        f"and registries keep the public keys ({CACHED_SECONDS // 60} minutes). The key before is accepted for "
        f"{KEPT_SECONDS // 60} minutes after its last signature. Brokers read changed keys by themselves; each change "
        "is one audit record. How to: docs/how-to/rotate-signing-keys.md.",
    )
    _add_path(rotate)
    rotate.add_argument(
        "--after",
        type=_delay,
        default=DEFAULT_DELAY,
        metavar="DURATION",
        help=f"when the new key begins to sign, from now, such as 30m (default: {DEFAULT_DELAY})",
    )
    rotate.add_argument(
        "--state",
        metavar="URL",
        help="record it there (BROKER_STATE_URL); where none is named, the first broker that sees it does",
    )
    rotate.set_defaults(run=run_rotate)
    listing = actions.add_parser(
        "list",
        help="list keys",
        description="Lists the keys in the order in which they sign, with what each is now, and when that changes: "
        "announced, signing, retiring (still accepted), over (accepted by nobody; the next rotation removes it).",
    )
    _add_path(listing)
    listing.set_defaults(run=run_list)


def _add_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", type=Path, nargs="?", help="a PEM file or a folder of them (default: BROKER_SIGNING_KEYS)"
    )
    add_env_file(parser)


def _delay(text: str) -> int:
    try:
        told = 0 if text == "0s" else seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if told > LONGEST_DELAY_SECONDS:
        raise argparse.ArgumentTypeError(f"at most {LONGEST_DELAY_SECONDS // 3600}h")
    return told


def run_new(args: argparse.Namespace) -> int:
    """Writes a new key."""
    path: Path = args.path
    if path.suffix != ".pem":
        if any_in(path):
            return _failed(f"{path} has keys already. Make the next one with: broker keys rotate {path}")
        path = path / _name(time.time())
    key = SigningKey.new()
    try:
        write_new(path, key)
    except OSError as error:
        return _failed(
            f"{path} was not written ({error.strerror}). Name a folder, or a file that is not there yet and ends in "
            ".pem."
        )
    print(f"{path}: {key.id}")
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Prints the keys, and what each is."""
    try:
        kept = KeyFiles.read(_path(args))
    except SettingsError as error:
        return _failed(str(error))
    now = time.time()
    for key in kept.keys.keys:
        print(f"{key.id}  {kept.file_of(key)}  {_told(kept, key, now)}")
    return 0


def _told(kept: KeyFiles, key: SigningKey, now: float) -> str:
    standing, until = kept.keys.standing(key, now), kept.keys.accepted_until(key)
    if standing == "announced":
        return f"announced: signs from {moment(key.signs_from)}"
    if standing == "signing":
        since = "" if key.signs_from == SINCE_EVER or key.signs_from > now else f" since {moment(key.signs_from)}"
        until_then = "" if until == FOR_EVER else f" until {moment(until - KEPT_SECONDS)}"
        return f"signing{since}{until_then}"
    if until == FOR_EVER:
        return "retiring: no file says when the key after it began, so it is accepted until you remove it"
    return f"{standing}: accepted until {moment(until)}"


def run_rotate(args: argparse.Namespace) -> int:
    """Announces the next key, and removes those that are over."""
    now = time.time()
    try:
        path, recorded = _path(args).resolve(), is_named(args)
        with locked(path):
            kept = KeyFiles.read(path)
            made, over = _rotate(kept, now, args.after)
            kept = KeyFiles.read(path)
    except SettingsError as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{path} cannot be changed ({error.strerror}). Nothing is half done: mend that, and repeat it.")
    for key in over:
        print(f"removed: {key.id}")
    waiting = [key for key in kept.keys.keys if key.signs_from > now or key in made]
    for key in waiting:
        print(f"{'announced' if key in made else 'announced before'}: {key.id}  {kept.file_of(key)}")
        print(f"  signs from {moment(key.signs_from)}")
    if made and args.after < SHORTEST_DELAY_SECONDS:
        print(
            f"note: in less than {SHORTEST_DELAY_SECONDS // 60} minutes, not every replica and registry may have seen "
            "the new key; one that has not refuses its tokens",
            file=sys.stderr,
        )
    # Where no state is named, the first broker records it that sees it.
    return _record(args, [*_attempts(waiting, over, now)]) if recorded else 0


def _rotate(kept: KeyFiles, now: float, after: int) -> tuple[list[SigningKey], list[SigningKey]]:
    """The key that was made, if one was, and those that were removed.

    Raises:
        SettingsError: this machine's clock is behind.
        OSError
    """
    latest = max(kept.keys.keys, key=lambda key: key.announced_at)
    if latest.announced_at > now:
        raise SettingsError(
            f"{kept.file_of(latest)} was announced at {moment(latest.announced_at)}, and this machine's clock says "
            f"{moment(now)}: mend the clock"
        )
    over = [key for key in kept.keys.keys if kept.keys.standing(key, now) == "over"]
    last, made = kept.keys.keys[-1], []
    if last.signs_from <= now:
        # Later than every other, to the second that files can say.
        made = [SigningKey.new(announced_at=int(now), signs_from=max(math.ceil(now) + after, last.signs_from + 1))]
        kept.add(made[0], _name(made[0].signs_from))  # later than every other, too
        kept = KeyFiles.read(kept.path)
    kept.remove(over)
    return made, over


def _attempts(waiting: Sequence[SigningKey], over: Sequence[SigningKey], now: float) -> Sequence[Attempt]:
    return [
        *(attempt_of("announced", key.id, now, signs_from=key.signs_from) for key in waiting),
        *(attempt_of("removed", key.id, now) for key in over),
    ]


def _record(args: argparse.Namespace, attempts: Sequence[Attempt]) -> int:
    """Records what was done."""

    async def record(state: State) -> None:
        for attempt in attempts:
            await record_once(state, attempt, what=name_of(attempt), seconds=REMEMBERED_SECONDS)

    return 0 if work_on_state("keys", args, record) else 1


def _path(args: argparse.Namespace) -> Path:
    """Raises SettingsError where nothing is named."""
    path: Path | None = args.path or beside(args).signing_keys
    if path is None:
        raise SettingsError("name a PEM file or a folder of them, or set BROKER_SIGNING_KEYS")
    return path


def _name(now: float) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S.%fZ}.pem"


def _failed(why: str) -> int:
    print(f"broker keys: {why}", file=sys.stderr)
    return 1
