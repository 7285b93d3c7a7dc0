"""`broker schema KIND`: the JSON Schema of a kind of policy file, for editors."""

from __future__ import annotations

import argparse
import json

from broker.policy.schemas import SCHEMAS


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "schema",
        help="print the JSON Schema of policy files",
        description="Prints the JSON Schema (2020-12) of one kind of file, so that an editor completes and checks it.",
        epilog="Save it beside the policies, and let the file's first line name it: "
        "`# yaml-language-server: $schema=../organization.schema.json`. "
        "What a schema cannot know, such as who is a member, `broker check` tells.",
    )
    parser.add_argument("kind", metavar="KIND", choices=sorted(SCHEMAS), help=f"one of {', '.join(sorted(SCHEMAS))}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the schema."""
    print(json.dumps(SCHEMAS[args.kind](), indent=2))
    return 0
