"""The `broker` command: a file a verb. Each file registers its parser; `run(args)` gives the exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from broker import __version__
from broker.cli import (
    alerts,
    audit,
    check,
    explain,
    keys,
    plan,
    playground,
    probe,
    revoke,
    schema,
    serve,
    switch,
    tokens,
)
from broker.settings import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; 0 is success, 1 a refusal that was explained, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="broker",
        description="Trusted publishing for any private Python package index.",
        epilog="Start with `broker playground --demo`. Settings: docs/reference/settings.md.",
    )
    parser.add_argument("--version", action="version", version=f"broker {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", required=True, metavar="VERB")
    for verb in (
        serve,
        check,
        plan,
        explain,
        schema,
        keys,
        tokens,
        revoke,
        switch,
        audit,
        alerts,
        probe,
        playground,
    ):
        verb.register(verbs)
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except SettingsError as error:  # which a verb need not tell in its own way
        print(f"broker {parsed.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads, such as `head`, has seen enough
        # The interpreter flushes standard output once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
