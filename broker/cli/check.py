"""`broker check DIR`: whether the policies in a folder load, where they are weak, and whether their test cases pass."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

from broker import registries
from broker.cli.check_report import FORMATS, Report
from broker.policy.cases import read_cases
from broker.policy.errors import PolicyError, PolicyErrors, shown_path
from broker.policy.files import load
from broker.policy.sources import read_sources
from broker.policy.trials import try_case
from broker.policy.warnings import WEAKNESSES, find_warnings


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "check",
        help="check a folder of policies, and try its test cases",
        description="Loads a folder of policies as `broker serve` would, warns of what loads and is weak, and tries "
        "the test cases in its tests/. Nothing is fetched.",
        epilog="Exit status: 0 they load and every case passes, warnings or not; 1 a mistake, a case that fails, or "
        "with --strict a warning; 2 wrong usage.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder with index.yaml and organizations/")
    parser.add_argument(
        "--registries",
        metavar="FILE",
        type=Path,
        help="check this file (BROKER_REGISTRIES) too, and warn of organizations in it that the policies do not have; "
        "no secret that it names is read",
    )
    parser.add_argument(
        "--format",
        choices=sorted(FORMATS),
        default="text",
        help="text for people (the default); json, as docs/reference/check.md has it; github: annotations on the files "
        "of a pull request",
    )
    parser.add_argument("--strict", action="store_true", help="warnings fail too")
    parser.add_argument(
        "--allow",
        metavar="CODE",
        action="append",
        default=[],
        choices=[one.code for one in WEAKNESSES],
        help="pass over warnings with this code; may be repeated. Codes: docs/reference/warnings.md",
    )
    parser.add_argument(
        "--today",
        metavar="DAY",
        type=day,
        help="check as on this day (2027-01-31, UTC): what is expired then, and what cases that name no moment get",
    )
    parser.add_argument(
        "--allow-loopback-issuers",
        action="store_true",
        help="for development: issuers may be http://127.0.0.1:..., as with BROKER_ALLOW_LOOPBACK_ISSUERS",
    )
    parser.set_defaults(run=run)


def day(text: str) -> date:
    """'2027-01-31'; argparse calls it by this name when it is none."""
    return date.fromisoformat(text)


def run(args: argparse.Namespace, clock: Callable[[], float] = time.time) -> int:
    """Checks, prints, and says by the exit status how it went."""
    now = clock()
    if args.today is not None:
        now = datetime(args.today.year, args.today.month, args.today.day, tzinfo=UTC).timestamp()
    report = check(
        args.folder,
        now,
        allow=args.allow,
        allow_loopback_issuers=args.allow_loopback_issuers,
        registries_file=args.registries,
    )
    failed = report.failed or (args.strict and bool(report.warnings))
    print(FORMATS[args.format](report, ok=not failed))
    return 1 if failed else 0


def check(
    folder: Path, now: float, *, allow: list[str], allow_loopback_issuers: bool, registries_file: Path | None = None
) -> Report:
    """All that can be said of a folder.

    Args:
        now: Epoch seconds.
        allow: Codes of warnings to pass over.
    """
    try:
        policies = load(folder, allow_loopback_issuers=allow_loopback_issuers)
    except PolicyErrors as mistakes:
        _, in_cases = read_cases(folder, None)
        return Report(folder=folder, policies=None, errors=mistakes.errors, case_errors=in_cases)
    cases, in_cases = read_cases(folder, policies)
    tried = [try_case(policies, case, now) for case in cases]
    warnings = find_warnings(policies, read_sources(folder), datetime.fromtimestamp(now, UTC).date())
    in_registries: list[PolicyError] = []
    if registries_file is not None:
        file = shown_path(os.path.relpath(registries_file, folder))
        in_registries, unknown = registries.check(registries_file, file, policies.organizations)
        warnings = (*warnings, *unknown)
    return Report(
        folder=folder,
        policies=policies,
        case_errors=in_cases,
        registry_errors=tuple(in_registries),
        warnings=tuple(one for one in warnings if one.code not in allow),
        tried=len(tried),
        failures=tuple(sorted(one for one in tried if one is not None)),
    )
