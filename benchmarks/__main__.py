"""`make bench`: measures, and says of each target whether it was met."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks import exchange, policies, report, upload
from benchmarks.measuring import BenchmarkError
from broker.playground.processes import ServerError


def main() -> int:
    """Exit status 0: measured, whatever the figures are; 1: there are none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=("exchange", "upload", "policies"), help="one of them (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="of each benchmark (default: 5)")
    parser.add_argument("--seconds", type=int, default=4, help="of load on a server in a round (default: 4)")
    parser.add_argument("--connections", type=int, default=64, help="that load a server at once (default: 64)")
    parser.add_argument("--megabytes", type=int, default=200, help="of the uploaded wheel (default: 200)")
    parser.add_argument("--organizations", type=int, default=10_000, help="with policies (default: 10000)")
    args = parser.parse_args()
    if sys.platform != "linux":
        print("The benchmarks read Linux's /proc: run them there.", file=sys.stderr)
        return 1
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load before {os.getloadavg()[0]:.1f}\n")
    try:
        if args.only in {None, "exchange"}:
            with tempfile.TemporaryDirectory(prefix="broker-bench-") as folder:
                print("Exchanges", file=sys.stderr)
                exchanges = exchange.measure(
                    Path(folder), rounds=args.rounds, seconds=args.seconds, connections=args.connections
                )
            print(report.exchanges(exchanges))
        if args.only in {None, "upload"}:
            with tempfile.TemporaryDirectory(prefix="broker-bench-") as folder:
                print("Uploads", file=sys.stderr)
                uploads = upload.measure(Path(folder), rounds=args.rounds, megabytes=args.megabytes)
            print(report.uploads(uploads))
        if args.only in {None, "policies"}:
            with tempfile.TemporaryDirectory(prefix="broker-bench-") as folder:
                print("Policies", file=sys.stderr)
                many = policies.measure(
                    Path(folder), rounds=args.rounds, seconds=args.seconds, organizations=args.organizations
                )
            print(report.policies(many))
    except (BenchmarkError, ServerError) as error:
        print(f"\nNot measured. {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
