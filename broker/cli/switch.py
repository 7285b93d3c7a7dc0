"""`broker disable`, `broker enable`, `broker disabled`: kill switches beside the policies, at once at every replica."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker.audit import Attempt, new_attempt_id
from broker.cli.revoke import missing_in, reason
from broker.cli.state import add_option, beside, work_on_state
from broker.policy.subjects import EVERYTHING, FORMS, switch_of
from broker.recall import switch_off, switch_on
from broker.state import State, Switch, Thrower

_MEANINGS: Final = {
    "issuer": "identity tokens of an issuer, by its name in index.yaml",
    "organization": "all publishers of an organization",
    "publisher": "one publisher",
    EVERYTHING: "the whole index",
}


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the three verbs."""
    whatever = "what to switch:\n" + "\n".join(
        f"  {f'{kind} {FORMS[kind]}':<30} {meaning}" for kind, meaning in _MEANINGS.items()
    )
    disable = verbs.add_parser(
        "disable",
        help="switch an issuer, organization or publisher off at once",
        description="Switches something off, without a change of the policies: from now on every replica refuses its "
        "exchanges, and the uploads and reads of tokens that were minted before (switched-off). It holds until "
        "`broker enable`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=whatever,
    )
    enable = verbs.add_parser(
        "enable",
        help="lift a switch",
        description="Lifts the operator's switch. Tokens that were minted before it are good again, while they live.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=whatever,
    )
    for verb in (disable, enable):
        verb.add_argument("kind", choices=_MEANINGS, metavar="KIND", help="one of those below")
        verb.add_argument("names", nargs="*", metavar="NAME", help="which, as shown below")
        verb.add_argument("--reason", type=reason, required=verb is disable, help="why, for the record")
    disable.add_argument(
        "--policies",
        metavar="DIR",
        type=Path,
        help="the folder of policies, to warn of a name they do not have (BROKER_POLICIES; default: policies)",
    )
    enable.add_argument("--owners-too", action="store_true", help="lift also what an owner of the organization threw")
    disabled = verbs.add_parser("disabled", help="show what is switched off", description="Shows the switches.")
    for verb, run in ((disable, run_disable), (enable, run_enable), (disabled, run_disabled)):
        add_option(verb)
        verb.set_defaults(run=run)


def run_disable(args: argparse.Namespace) -> int:
    """Throws the operator's switch."""
    if not (subject := _subject("disable", args)):
        return 2

    async def work(state: State) -> None:
        await switch_off(state, _attempt(args.reason), subject, "operator")

    chosen = beside(args)
    if not (where := work_on_state("disable", args, work)):
        return 1
    print(f"switched off: {subject}, in {where}")
    if unknown := missing_in(chosen, args.policies, args.kind, args.names):
        print(f"note: {unknown}; what it is the name of is switched off all the same", file=sys.stderr)
    return 0


def run_enable(args: argparse.Namespace) -> int:
    """Lifts the operator's switch, and an owner's where that is asked for; says what still holds it off."""
    if not (subject := _subject("enable", args)):
        return 2
    lifted: list[Thrower] = []
    left: list[Switch] = []

    async def work(state: State) -> None:
        throwers: tuple[Thrower, ...] = ("operator", "owner") if args.owners_too else ("operator",)
        lifted.extend([by for by in throwers if await switch_on(state, _attempt(args.reason), subject, by)])
        left.extend(await state.switches([subject]))

    if not (where := work_on_state("enable", args, work)):
        return 1
    for by in lifted:
        print(f"lifted: the {by}'s switch of {subject}, in {where}")
    for switch in left:
        print(f"still switched off: {_told(switch)} (--owners-too lifts that)", file=sys.stderr)
    if not lifted:
        whose = "nobody has" if args.owners_too else "the operator has not"
        print(f"broker enable: {whose} switched off {subject}. See `broker disabled`.", file=sys.stderr)
    return 0 if lifted and not left else 1


def run_disabled(args: argparse.Namespace) -> int:
    """Prints a line for each switch."""

    async def show(state: State) -> None:
        switches = await state.switches()
        for switch in switches:
            print(_told(switch))
        if not switches:
            print("broker disabled: nothing is switched off.", file=sys.stderr)

    return 0 if work_on_state("disabled", args, show) else 1


def _subject(verb: str, args: argparse.Namespace) -> str:
    """What is meant; empty where it is nothing, which is then explained."""
    try:
        return switch_of(args.kind, args.names)
    except ValueError as error:
        print(f"broker {verb}: {error}.", file=sys.stderr)
        return ""


def _attempt(why: str | None) -> Attempt:
    now = time.time()
    return Attempt(kind="switch", id=new_attempt_id(now), started_at=now, reason=why or "")


def _told(switch: Switch) -> str:
    since = datetime.fromtimestamp(switch.at, UTC)
    return f"{switch.subject}, by the {switch.by} since {since:%F %T} UTC: {switch.reason}"
