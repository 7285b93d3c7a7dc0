"""`broker revoke`: makes tokens worthless that were minted already, at once and at every replica."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker.audit import Attempt, new_attempt_id
from broker.cli.state import add_option, work_on_state
from broker.minting import EVERYTHING
from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from broker.policy.model import LONGEST_LIFETIME_SECONDS, Policies, Publisher
from broker.state import State

LONGEST_REASON: Final = 500

_KINDS: Final = {
    EVERYTHING: ("", "every token there is"),
    "organization": ("NAME", "what an organization's publishers earned"),
    "publisher": ("ORGANIZATION/NAME", "what a publisher earned"),
    "member": ("ORGANIZATION/NAME", "of a member, at each issuer where the policies know an id"),
    "actor": ("ISSUER ID", "of an actor by the issuer's name and the id there, in the policies or not"),
    "issuer": ("NAME", "what an issuer's identity tokens were exchanged for"),
    "run": ("ISSUER RUN", "of one CI run, as records name it in identity.run"),
    "token": ("ID", "one token, as records name it in token_id"),
}


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "revoke",
        help="make minted tokens worthless at once",
        description="Revokes tokens that were minted already: from now on every replica refuses them (revoked-token). "
        "New ones can still be minted: to stop that, change the policies, or freeze the organization.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="what to revoke:\n"
        + "\n".join(f"  {f'{kind} {form}':<30} {meaning}" for kind, (form, meaning) in _KINDS.items())
        + "\n\nISSUER is its name in index.yaml. Only a member is looked up: any other name is taken as it is\n"
        "written, and one that is wrong revokes nothing.",
    )
    parser.add_argument("kind", choices=_KINDS, metavar="KIND", help="one of those below")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which, as shown below")
    parser.add_argument("--reason", type=_reason, required=True, help="why, for the audit record")
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
        help="the folder of policies, for `member` (BROKER_POLICIES; default: policies)",
    )
    add_option(parser)
    parser.set_defaults(run=run)


def _reason(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > LONGEST_REASON:
        raise argparse.ArgumentTypeError(f"write one line, of at most {LONGEST_REASON} characters")
    return text


def _moment(text: str) -> int:
    try:
        told = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("write a moment such as 2026-11-28T02:00:00Z") from error
    if told.tzinfo is None:
        raise argparse.ArgumentTypeError("say the time zone too: 2026-11-28T02:00:00Z")
    if told.timestamp() > time.time():
        raise argparse.ArgumentTypeError("it is still to come: tokens that are not minted yet cannot be revoked")
    return int(told.timestamp())


def run(args: argparse.Namespace) -> int:
    """Revokes, and says what."""
    now = time.time()
    before = int(now) if args.before is None else args.before
    policies = args.policies or Path(os.environ.get("BROKER_POLICIES", "policies"))
    try:
        subjects, organization = _subjects(args.kind, args.names, policies)
    except PolicyErrors as errors:
        print(f"broker revoke: {errors.explained(most=8)}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"broker revoke: {error}.", file=sys.stderr)
        return 2

    async def revoke(state: State) -> None:
        for subject in subjects:
            attempt = Attempt(kind="revocation", id=new_attempt_id(now), started_at=now, owner=organization)
            attempt.revoked, attempt.reason = subject, args.reason
            if args.kind == "token":
                attempt.token_id = args.names[0]
                await state.revoke(attempt.token_id, int(now) + LONGEST_LIFETIME_SECONDS, attempt.record())
            else:
                attempt.minted_until = before
                await state.revoke_subject(subject, before, attempt.record())

    if not work_on_state("revoke", args.state, revoke):
        return 1
    until = f", minted until {datetime.fromtimestamp(before, UTC):%F %T} UTC" if args.kind != "token" else ""
    for subject in subjects:
        print(f"revoked: {subject}{until}")
    _warn(args.kind, args.names, policies)
    return 0


def _warn(kind: str, names: Sequence[str], folder: Path) -> None:
    """Tells of a name that the policies do not have: it may be misspelt, or removed already. The tokens went first."""
    try:
        policies = load(folder)
    except PolicyErrors:
        return
    if kind in {"issuer", "actor", "run"} and names[0] not in policies.issuers:
        what = f"issuer {names[0]!r}"
    elif kind in {"organization", "publisher"} and names[0].split("/")[0] not in policies.organizations:
        what = f"organization {names[0].split('/')[0]!r}"
    elif kind == "publisher" and names[0] not in {one.id for one in _publishers(policies, names[0])}:
        what = f"publisher {names[0]!r}"
    else:
        return
    print(
        f"note: the policies in {folder} have no {what}; what it is the name of was revoked all the same",
        file=sys.stderr,
    )


def _publishers(policies: Policies, publisher: str) -> Iterable[Publisher]:
    return policies.organizations[publisher.split("/", maxsplit=1)[0]].publishers.values()


def _subjects(kind: str, names: Sequence[str], policies: Path) -> tuple[list[str], str]:
    """What revocations call it, and the organization that it concerns.

    Raises:
        ValueError: that names nothing.
        PolicyErrors: a member is looked for, and the policies do not load.
    """
    form = _KINDS[kind][0]
    if len(names) != len(form.split()) or not all(names):
        raise ValueError(f"write: broker revoke {kind} {form}".rstrip())
    if form == "ORGANIZATION/NAME" and names[0].count("/") != 1:
        raise ValueError(f"{names[0]!r} is no {kind}: write ORGANIZATION/NAME, as in the policies")
    organization = names[0].split("/")[0] if kind in {"organization", "publisher", "member"} else ""
    if kind == "member":
        return _actors(load(policies), *names[0].split("/")), organization
    return [" ".join((kind, *names))], organization


def _actors(policies: Policies, organization: str, name: str) -> list[str]:
    found = policies.organizations.get(organization)
    member = None if found is None else found.members.get(name)
    if member is None:
        raise ValueError(
            f"the policies have no member {organization}/{name}: whoever was removed already is "
            "`broker revoke actor ISSUER ID`, with the id from the audit records"
        )
    if not member.ids:
        raise ValueError(f"the member {organization}/{name} has no id at any issuer, and so no token")
    return [f"actor {issuer} {told}" for issuer, told in sorted(member.ids.items())]
