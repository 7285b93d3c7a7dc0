"""Measures, and says of each target whether it was met. Progress goes to stderr, the report (Markdown) to stdout."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks import exchange, policies, report, upload
from benchmarks.measuring import BenchmarkError
from broker.playground.processes import ServerError

EPILOG: Final = """\
examples:
  python -m benchmarks                                all, a quarter of an hour; keep the machine quiet
  python -m benchmarks --only upload                  the table of uploads, some 6 minutes, 7 GB of disk
  python -m benchmarks --only upload --sizes 1 50     its small sizes alone, a minute or two
  python -m benchmarks --only upload --sizes 1000     1000 MB alone, and 8 at once: 33 GB of disk
  python -m benchmarks --only exchange --rounds 1     a first look

Uploads lie where TMPDIR points; a load that finds no room there is skipped, and the report says so.
Exit status 0: measured, whatever the figures are; 1: there are none. How to read them: benchmarks/README.md.
"""


def _exchange(folder: Path, args: argparse.Namespace) -> str:
    return report.exchanges(
        exchange.measure(folder, rounds=args.rounds, seconds=args.seconds, connections=args.connections)
    )


def _upload(folder: Path, args: argparse.Namespace) -> str:
    return report.uploads(upload.measure(folder, rounds=args.rounds, sizes=args.sizes))


def _policies(folder: Path, args: argparse.Namespace) -> str:
    return report.policies(
        policies.measure(folder, rounds=args.rounds, seconds=args.seconds, organizations=args.organizations)
    )


BENCHMARKS: Final[Mapping[str, Callable[[Path, argparse.Namespace], str]]] = {
    "exchange": _exchange,
    "upload": _upload,
    "policies": _policies,
}


def main() -> int:
    """Runs what was asked for."""
    args = _parser().parse_args()
    if sys.platform != "linux":
        print("The benchmarks read Linux's /proc: run them there.", file=sys.stderr)
        return 1
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load before {os.getloadavg()[0]:.1f}\n")
    try:
        for name in [args.only] if args.only else BENCHMARKS:
            print(name, file=sys.stderr)
            with tempfile.TemporaryDirectory(prefix="broker-bench-") as folder:
                print(BENCHMARKS[name](Path(folder), args), flush=True)
    except (BenchmarkError, ServerError) as error:
        print(f"\nNot measured. {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=BENCHMARKS, help="one of them (default: all)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each; large uploads: fewer (default: 5)")
    load = parser.add_argument_group("exchange and policies")
    load.add_argument("--seconds", type=int, default=4, metavar="N", help="of load on a server in a round (default: 4)")
    load.add_argument("--connections", type=int, default=64, metavar="N", help="exchange: at once (default: 64)")
    load.add_argument("--organizations", type=int, default=10_000, metavar="N", help="policies: many (default: 10000)")
    uploads = parser.add_argument_group("upload")
    uploads.add_argument(
        "--sizes",
        type=_size,
        nargs="+",
        metavar="MB",
        help=f"of the wheels, 1 to {upload.LARGEST_MB} (default: {' '.join(map(str, upload.SIZES))}, "
        f"without what sends more than {upload.UNASKED_MB:,} MB at once)",
    )
    return parser


def _size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= upload.LARGEST_MB:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {upload.LARGEST_MB}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
