"""`broker alerts`: who is told, what waits for them, and whether they can be reached."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from broker.alerts.kinds import TEST, Alert
from broker.alerts.receivers import Receiver, named_by_none, read, unknown_to
from broker.alerts.webhooks import DeliveryError, Webhooks
from broker.app import USER_AGENT
from broker.cli.state import add_env_file, add_option, beside, work_on_state
from broker.outgoing import webhook_transport
from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from broker.settings import Beside, SettingsError
from broker.state import AlertToSend, State


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "alerts",
        help="show and test who is told of alerts",
        description="Alerts are delivered to the receivers that the file of BROKER_ALERTS names.",
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser(
        "list", help="show the receivers and what waits", description="Shows each receiver, and what waits for it."
    )
    add_option(listing)
    listing.add_argument(
        "--policies",
        metavar="DIR",
        type=Path,
        help="the folder of policies, to compare organizations with (BROKER_POLICIES; default: policies)",
    )
    listing.set_defaults(run=run_list)
    test = actions.add_parser(
        "test",
        help="send a test alert",
        description="Sends one alert of the type `test` to a receiver, at once and once, beside what waits for it.",
    )
    test.add_argument("receiver", metavar="RECEIVER", help="its name in the file")
    add_env_file(test)
    test.set_defaults(run=run_test)
    for action in (listing, test):
        action.add_argument("--file", type=Path, metavar="FILE", help="the file of receivers (BROKER_ALERTS)")


def _receivers(args: argparse.Namespace, chosen: Beside) -> dict[str, Receiver]:
    file = args.file or chosen.alerts
    if file is None:
        raise SettingsError("BROKER_ALERTS: is not set. Name the file of receivers by it, or by --file.")
    return {one.name: one for one in read(file, allow_loopback=chosen.allow_loopback_issuers)}


def run_list(args: argparse.Namespace) -> int:
    """Prints a line for each."""
    chosen = beside(args)
    receivers = _receivers(args, chosen)

    async def show(state: State) -> None:
        waiting = await state.waiting([*receivers])
        for name, one in receivers.items():
            told = ", ".join([*sorted(one.organizations), *(["the index"] if one.index else [])])
            waits = waiting[name]
            since = (
                "" if waits.oldest_at is None else f", since {datetime.fromtimestamp(waits.oldest_at, UTC):%F %T} UTC"
            )
            print(f"{name}  {one.kind}  of {told}  {len(one.kinds)} kinds  waiting: {waits.alerts}{since}")

    if not work_on_state("alerts", args, show):
        return 1
    for note in _slips(args.policies or chosen.policies, receivers.values(), chosen):
        print(f"note: {note}", file=sys.stderr)
    return 0


def _slips(folder: Path, receivers: Collection[Receiver], chosen: Beside) -> Iterator[str]:
    """What the receivers have otherwise than the policies in a folder."""
    try:
        known = load(folder, allow_loopback_issuers=chosen.allow_loopback_issuers).organizations
    except PolicyErrors:
        yield (
            f"no policies load from {folder} (--policies, BROKER_POLICIES), so nothing says whether the organizations "
            "are right"
        )
        return
    for receiver, unknown in unknown_to(known, receivers).items():
        yield f"{receiver} is for organizations that the policies in {folder} do not have: {', '.join(unknown)}"
    if unnamed := named_by_none(known, receivers):
        yield f"no receiver is for organizations that the policies in {folder} have: {', '.join(unnamed)}"


def run_test(args: argparse.Namespace) -> int:
    """Says whether the receiver took it."""
    receivers = _receivers(args, beside(args))
    receiver = receivers.get(args.receiver)
    if receiver is None:
        names = ", ".join(receivers)
        print(f"broker alerts: there is no receiver {args.receiver!r}; the file has {names}.", file=sys.stderr)
        return 2
    return asyncio.run(_send_test(receiver))


async def _send_test(receiver: Receiver) -> int:
    now = time.time()
    test = Alert(kind=TEST, organization="", subject="", at=now, cause=secrets.token_hex(8), data={})
    alert = AlertToSend(receiver=receiver.name, id=test.id, at=now, body=test.body())
    async with webhook_transport() as transport:
        try:
            await Webhooks(transport=transport, clock=time.time, user_agent=USER_AGENT).send(receiver, alert)
        except DeliveryError as error:
            print(f"broker alerts: {receiver.name} did not take it: {error}.", file=sys.stderr)
            return 1
    print(f"delivered: {test.id} to {receiver.name}")
    return 0
