"""`broker plan OLD NEW`: what a change of policies means for who can publish and read what."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from broker.cli.plan_text import as_json, as_markdown, as_text
from broker.cli.revisions import RevisionError, extracted
from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from broker.policy.globs import TooComplexError
from broker.policy.model import Policies
from broker.policy.plan import plan

WIDENED = 3
"""The exit status where somebody can do more than before; 1 and 2 are taken by errors and usage."""

_FORMATS = {"text": as_text, "markdown": as_markdown, "json": as_json}


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "plan",
        help="tell what a change of policies means",
        usage="broker plan [options] OLD NEW\n       broker plan [options] --git REV1 [REV2] FOLDER",
        description="Compares two folders of policies, and tells who can publish or read what that could not before, "
        "and who no longer can. Both are decided as the broker decides: where no run of a job is decided otherwise, "
        "there is no change, whatever was edited.",
        epilog="Exit status: 0 nothing was widened, 1 the policies cannot be compared, 2 wrong usage, 3 access was "
        "widened (0 with --widening-is-fine). In a pull request: broker plan --git origin/main policies",
    )
    parser.add_argument(
        "what",
        nargs="+",
        metavar="FOLDER",
        help="two folders, each also as REVISION:FOLDER; with --git: REV1 [REV2] FOLDER, as it is in these git "
        "revisions (default for REV2: the folder as it lies there)",
    )
    parser.add_argument("--git", action="store_true", help="compare git revisions of one folder")
    parser.add_argument("--format", choices=_FORMATS, default="text", help="markdown is for a comment (default: text)")
    parser.add_argument(
        "--widening-is-fine", action="store_true", help="exit with 0 also where access was widened: for reports alone"
    )
    parser.add_argument(
        "--allow-loopback-issuers",
        action="store_true",
        help="for development: issuers may be http://127.0.0.1:..., as with BROKER_ALLOW_LOOPBACK_ISSUERS",
    )
    parser.set_defaults(run=run, wrong_usage=parser.error)


def run(args: argparse.Namespace) -> int:
    """Compares, prints, and says by the exit status whether access was widened."""
    *revisions, folder = args.what
    if len(revisions) not in ({1, 2} if args.git else {1}):
        args.wrong_usage("name two folders, or with --git one or two revisions and a folder")
    sides = [f"{revision}:{folder}" for revision in revisions] if args.git else revisions
    try:
        old, new = (_loaded(side, allow_loopback=args.allow_loopback_issuers) for side in [*sides, folder][:2])
        found = plan(old, new, now=time.time())
    except PolicyErrors as mistakes:
        print(mistakes.explained())
        return 1
    except (RevisionError, TooComplexError) as error:
        print(f"broker plan: {error}.", file=sys.stderr)
        return 1
    print(_FORMATS[args.format](found))
    return WIDENED if found.widened and not args.widening_is_fine else 0


def _loaded(side: str, *, allow_loopback: bool) -> Policies:
    revision, _, folder = side.partition(":")
    if not folder or Path(side).is_dir():
        return load(Path(side), allow_loopback_issuers=allow_loopback)
    with tempfile.TemporaryDirectory(prefix="broker-plan-") as temporary:
        path = extracted(revision, folder, Path(temporary))
        try:
            return load(path, allow_loopback_issuers=allow_loopback)
        except PolicyErrors as mistakes:
            raise PolicyErrors(Path(side), mistakes.errors) from mistakes
