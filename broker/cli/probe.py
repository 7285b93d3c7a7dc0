"""`broker probe`: asks a broker, again and again, for an exchange that must pass and for one that must fail."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args
from urllib.parse import urlsplit

from broker.cli.probe_checks import Prober, Result, is_identity_token
from broker.metrics.catalogue import PROBE_METRICS, Check
from broker.metrics.page import page
from broker.metrics.sheets import Sheet

COMMAND_SECONDS: Final = 30.0

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "probe",
        help="keep asking a broker for what must pass, and what must fail",
        description="Exchanges an identity token, which must pass, and the same token with a broken signature, which "
        "must be refused with invalid-signature. Upload tokens are burned at once. Prints a JSON line for each.",
        epilog="With --once, the exit status is 0 where both went as they must. More: docs/how-to/watch-it.md.",
    )
    parser.add_argument("--url", required=True, type=origin, help="the broker, such as https://upload.acme.example")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--token-command", metavar="COMMAND", help="a shell command that prints an identity token")
    source.add_argument("--token-file", metavar="FILE", type=Path, help="a file with one that something else renews")
    parser.add_argument("--every", metavar="SECONDS", type=seconds, default=60.0, help="how often (default: 60)")
    parser.add_argument("--once", action="store_true", help="ask once, for cron")
    parser.add_argument(
        "--patience", metavar="SECONDS", type=seconds, default=5.0, help="how long an answer may take (default: 5)"
    )
    parser.add_argument("--metrics-file", metavar="FILE", type=Path, help="for node_exporter's textfile collector")
    parser.set_defaults(run=run)


def origin(text: str) -> str:
    """https, or http to this very machine: an identity token is sent there."""
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise argparse.ArgumentTypeError("write an origin such as https://upload.acme.example")
    if parts.scheme != "https" and (parts.scheme != "http" or host not in LOOPBACK):
        raise argparse.ArgumentTypeError("tokens are sent there: it must be https, or http on this machine")
    return text.rstrip("/")


def seconds(text: str) -> float:
    """Some time; argparse calls it by this name when it is none."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def run(args: argparse.Namespace) -> int:
    """Probes once, or until a signal ends it; 1 where the last round did not go as it must."""
    return asyncio.run(_probe(args))


async def _probe(args: argparse.Namespace) -> int:
    prober = Prober(url=args.url, patience_seconds=args.patience)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # A round is gone through with, so that its token is burned.
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    while True:
        good = await _round(prober, args)
        if args.once or stop.is_set():
            break
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), args.every)
            break
    return 0 if good else 1


async def _round(prober: Prober, args: argparse.Namespace) -> bool:
    """Whether all went as it must, and could be told."""
    try:
        token = await _token(args)
    except _NoTokenError as error:
        results = [Result(check=check, ok=False, problem=str(error)) for check in get_args(Check)]
    else:
        results = await prober.check(token)
    now = time.time()
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    for result in results:
        print(json.dumps({"at": at, **result.as_line()}), flush=True)
    return _write(args.metrics_file, results, now) and all(result.ok for result in results)


class _NoTokenError(Exception):
    """There is no identity token to ask with; the message says why, and nothing of what there is."""


async def _token(args: argparse.Namespace) -> str:
    if args.token_command is not None:
        text = await _output(args.token_command)
    else:
        try:
            text = args.token_file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise _NoTokenError(f"the token file cannot be read: {type(error).__name__}") from error
    if not is_identity_token(text.strip()):
        raise _NoTokenError("what there is in place of an identity token has not the form of one")
    return str(text.strip())


async def _output(command: str) -> str:
    """What a shell command prints; what it says of its errors goes where ours go."""
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError as error:
        os.killpg(process.pid, signal.SIGKILL)  # the shell, and whatever it started
        await process.wait()
        raise _NoTokenError(f"the token command did not end within {COMMAND_SECONDS:.0f} s") from error
    if process.returncode != 0:
        raise _NoTokenError(f"the token command ended with status {process.returncode}")
    return output.decode(errors="replace")


def _write(path: Path | None, results: Sequence[Result], now: float) -> bool:
    """Whether the metrics could be written, if they are to be. A reader never finds half of them."""
    if path is None:
        return True
    sheet = Sheet()
    for result in results:
        sheet.values["broker_probe_success", result.check] = int(result.ok)
        sheet.values["broker_probe_seconds", result.check] = result.seconds
    sheet.values["broker_probe_token_left",] = int(any(result.token_left for result in results))
    sheet.values["broker_probe_last_run_timestamp_seconds",] = now
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(page(sheet, PROBE_METRICS))
        new.replace(path)
    except OSError as error:
        print(f"broker probe: the metrics file {path} cannot be written ({error.strerror}).", file=sys.stderr)
        return False
    return True
