"""`broker explain`: what a run gets, and why, by the exchange's own core, without network."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

from broker.cli.explain_inputs import InputError, Told, of_attempt, of_claims, of_token
from broker.cli.explain_run import FACTS, of_github
from broker.cli.explain_text import as_json, as_text
from broker.cli.state import add_env_file, address, beside
from broker.policy.errors import PolicyErrors
from broker.policy.explanation import explain
from broker.policy.files import load
from broker.policy.model import Policies, Scope


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "explain",
        help="tell what a run gets, and why",
        description="Decides for one run as the broker would, and tells every publisher that was considered, the "
        "nearest first, with the first thing that does not fit; who the actor is; and the grant or the refusal. Asks "
        "no network, and verifies no signature.",
        epilog="Exit status: 0 allowed, 1 refused, 2 wrong usage, or policies or input that cannot be read.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--token", metavar="FILE", help="a file with an identity token, - for standard input")
    source.add_argument("--claims", metavar="FILE", help="a JSON file with a token's claims, - for standard input")
    source.add_argument("--github", metavar="OWNER/REPO", help="a run of this repository; see below for the rest of it")
    source.add_argument("--attempt", metavar="ID", help="what was recorded of an attempt, and what would be said today")
    run = parser.add_argument_group("with --github", "What is not given is assumed, and the answer says so.")
    run.add_argument("--issuer", metavar="NAME", help="the issuer in index.yaml (default: the first of GitHub's kind)")
    for fact in FACTS:
        run.add_argument(f"--{fact.replace('_', '-')}", metavar="TEXT")
    parser.add_argument(
        "--policies", metavar="DIR", type=Path, help="the folder of policies (BROKER_POLICIES; default: policies)"
    )
    parser.add_argument(
        "--scope",
        choices=get_args(Scope),
        help="what the token is to be for: to upload, or to read (default: what the attempt's was for; upload)",
    )
    parser.add_argument("--audience", help="what `aud` must be (BROKER_AUDIENCE)")
    parser.add_argument(
        "--state",
        metavar="URL",
        help="with --attempt: where state is kept (BROKER_STATE_URL; default: sqlite:///state.db)",
    )
    add_env_file(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.add_argument(
        "--allow-loopback-issuers",
        action="store_true",
        help="for development: issuers may be http://127.0.0.1:..., as with BROKER_ALLOW_LOOPBACK_ISSUERS",
    )
    # Taken here, so that argparse does not repeat on the screen what may be a token.
    parser.add_argument("stray", nargs="*", help=argparse.SUPPRESS)
    parser.set_defaults(run=run_explain, wrong_usage=parser.error)


def run_explain(args: argparse.Namespace) -> int:
    """Decides, tells, and says by the exit status whether the run is allowed."""
    if args.stray:
        args.wrong_usage("name what to explain: --token FILE, --claims FILE, --github OWNER/REPO or --attempt ID")
    if not args.github and (given := [f"--{one}" for one in ("issuer", *FACTS) if getattr(args, one) is not None]):
        args.wrong_usage(f"{given[0].replace('_', '-')} goes with --github")
    now = time.time()
    chosen = beside(args)
    try:
        policies = load(args.policies or chosen.policies, allow_loopback_issuers=args.allow_loopback_issuers)
        told = _told(args, policies, args.audience or chosen.audience, now)
    except PolicyErrors as mistakes:
        print(mistakes.explained(), file=sys.stderr)
        return 2
    except InputError as error:
        print(f"broker explain: {error}.", file=sys.stderr)
        return 2
    explanation = explain(policies, told.rehearsal, now=now)
    print((as_json if args.format == "json" else as_text)(explanation, policies, told))
    return 0 if told.rehearsal.refusal is None else 1


def _told(args: argparse.Namespace, policies: Policies, audience: str, now: float) -> Told:
    scope: Scope = args.scope or "upload"
    if args.token is not None:
        return of_token(args.token, policies, audience, now, scope=scope)
    if args.claims is not None:
        return of_claims(args.claims, policies, audience, now, scope=scope)
    if args.github is not None:
        facts = {fact: given for fact in FACTS if (given := getattr(args, fact)) is not None}
        return of_github(args.github, facts, args.issuer, policies, now, scope=scope)
    return of_attempt(args.attempt, address(args), policies, now, scope=args.scope)
