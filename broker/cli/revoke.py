"""`broker revoke`: makes tokens worthless that were minted already, at once and at every replica."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker.audit import Attempt, new_attempt_id
from broker.cli.state import add_option, beside, work_on_state
from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from broker.policy.model import Policies
from broker.policy.subjects import EVERYTHING, FORMS, subject_of, unknown_in
from broker.recall import read_moment, read_reason, revoke, revoke_token, subjects_for
from broker.settings import Beside
from broker.state import State

_MEANINGS: Final = {
    EVERYTHING: "every token there is",
    "organization": "what an organization's publishers earned",
    "publisher": "what a publisher earned",
    "member": "what a member earned, at each issuer where the policies have an id",
    "actor": "what an actor earned, by the issuer's name and the id there, in the policies or not",
    "issuer": "what an issuer's identity tokens were exchanged for",
    "run": "what one CI run earned, as records name it in identity.run",
    "token": "one token, as records name it in token_id",
}

_IN_NO_POLICIES: Final = {EVERYTHING, "token"}


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "revoke",
        help="make minted tokens worthless at once",
        description="Revokes tokens that were minted already: from now on every replica refuses them (revoked-token). "
        "New ones can still be minted: `broker disable` stops that, or a change of the policies.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="what to revoke:\n"
        + "\n".join(f"  {f'{kind} {FORMS[kind]}':<30} {meaning}" for kind, meaning in _MEANINGS.items())
        + "\n\nISSUER is its name in index.yaml. Only a member is looked up: any other name is taken as it is\n"
        "written, and one that is wrong revokes nothing.",
    )
    parser.add_argument("kind", choices=_MEANINGS, metavar="KIND", help="one of those below")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which, as shown below")
    parser.add_argument("--reason", type=reason, required=True, help="why, for the audit record")
    parser.add_argument(
        "--before",
        type=_moment,
        metavar="MOMENT",
        help="only tokens minted until then, such as 2026-11-28T02:00:00Z (default: now)",
    )
    parser.add_argument(
        "--policies",
        metavar="DIR",
        type=Path,
        help="the folder of policies, where a member is looked up, and other names are compared (BROKER_POLICIES; "
        "default: policies)",
    )
    add_option(parser)
    parser.set_defaults(run=run)


def reason(text: str) -> str:
    """One line; argparse says why it is none."""
    try:
        return read_reason(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _moment(text: str) -> int:
    try:
        return read_moment(text, time.time())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(args: argparse.Namespace) -> int:
    """Revokes, and says what."""
    now = time.time()
    before = int(now) if args.before is None else args.before
    chosen = beside(args)
    try:
        subject_of(args.kind, args.names)
        known = _loaded(chosen, args.policies) if args.kind == "member" else Policies(generation="")
        subjects = subjects_for(known, args.kind, args.names)
    except PolicyErrors as errors:
        print(f"broker revoke: {errors.explained(most=8)}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"broker revoke: {error}.", file=sys.stderr)
        return 2
    # A member's tokens are an actor's, and an actor is in no organization.
    organization = args.names[0].split("/")[0] if args.kind == "member" else ""

    async def work(state: State) -> None:
        for subject in subjects:
            attempt = Attempt(kind="revocation", id=new_attempt_id(now), started_at=now, owner=organization)
            attempt.reason = args.reason
            if args.kind == "token":
                await revoke_token(state, attempt, args.names[0])
            else:
                await revoke(state, attempt, subject, before)

    if not (where := work_on_state("revoke", args, work)):
        return 1
    until = f", minted until {datetime.fromtimestamp(before, UTC):%F %T} UTC" if args.kind != "token" else ""
    for subject in subjects:
        print(f"revoked: {subject}{until}, in {where}")
    if unknown := missing_in(chosen, args.policies, args.kind, args.names):
        print(f"note: {unknown}; what it is the name of was revoked all the same", file=sys.stderr)
    return 0


def missing_in(chosen: Beside, named: Path | None, kind: str, names: Sequence[str]) -> str:
    """What of a subject the policies do not have: a slip, or removed already. Asked when all is done."""
    if kind in _IN_NO_POLICIES:
        return ""
    folder = named or chosen.policies
    try:
        unknown = unknown_in(_loaded(chosen, named), kind, names)
    except PolicyErrors:
        return (
            f"no policies load from {folder} (--policies, BROKER_POLICIES), so nothing says whether the name is right"
        )
    return f"the policies in {folder} have no {unknown}" if unknown else ""


def _loaded(chosen: Beside, named: Path | None) -> Policies:
    return load(named or chosen.policies, allow_loopback_issuers=chosen.allow_loopback_issuers)
