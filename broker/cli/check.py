"""`broker check DIR`: whether the policies in a folder would load, and every mistake if not."""

from __future__ import annotations

import argparse
from pathlib import Path

from broker.policy.errors import PolicyErrors, counted
from broker.policy.files import load


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "check",
        help="check a folder of policies",
        description="Loads a folder of policies as `broker serve` would. Exit status: 0 they load, 1 they do not.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder with index.yaml and organizations/")
    parser.add_argument(
        "--allow-loopback-issuers",
        action="store_true",
        help="for development: issuers may be http://127.0.0.1:..., as with BROKER_ALLOW_LOOPBACK_ISSUERS",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks, prints, and says by the exit status how it went."""
    try:
        policies = load(args.folder, allow_loopback_issuers=args.allow_loopback_issuers)
    except PolicyErrors as mistakes:
        print(mistakes.explained())
        return 1
    publishers = sum(len(organization.publishers) for organization in policies.organizations.values())
    organizations = counted(len(policies.organizations), "organization")
    print(f"policies OK: {organizations}, {counted(publishers, 'publisher')}, generation {policies.generation}")
    return 0
