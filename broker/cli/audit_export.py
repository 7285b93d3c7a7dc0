"""`broker audit export`: records as lines that can be verified offline, and a last line that says if they are all."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, TextIO

from broker.cli.audit_reading import ReadingError, Source, add_options, pages, reads
from broker.policy.errors import counted
from broker.refusals import StateUnavailable

PROGRESS_SECONDS: Final = 5.0

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the action."""
    export = actions.add_parser(
        "export",
        help="write records that can be verified offline",
        description="Writes records, oldest first: a JSON line each with its sequence and link, and a last line with "
        "`complete`. Without that line, or with `complete` false, it is not the whole. Exit status: 0 where it is.",
    )
    export.add_argument("--output", type=Path, metavar="FILE", help="written whole or not at all (default: stdout)")
    export.add_argument("--cursor", default="", help="go on after an export that had this cursor in its last line")
    add_options(export)
    export.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exports."""

    async def export(source: Source) -> None:
        opened: AbstractContextManager[TextIO] = nullcontext(sys.stdout)
        if args.output is not None:
            opened = _whole(args.output)
        with opened as lines:
            await _write(source, args.cursor, lines, args.output)

    try:
        return reads(args, export)
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"broker audit: {args.output or 'standard output'}: {error.strerror}.", file=sys.stderr)
        return 1


async def _write(source: Source, cursor: str, lines: TextIO, file: Path | None) -> None:
    written, told_at = 0, time.monotonic()
    try:
        async for page in pages(source, cursor):
            lines.writelines(f"{_ENCODE(one)}\n" for one in page.records)
            written, cursor = written + len(page.records), page.cursor
            if time.monotonic() - told_at >= PROGRESS_SECONDS:
                told_at = time.monotonic()
                print(f"{written} records ...", file=sys.stderr)
    except (ReadingError, StateUnavailable):
        told = f"broker audit: the export broke off after {counted(written, 'record')}"
        if file is not None:
            told += f"; {file} is as it was before"
        elif written:
            told += f"; to go on from there, into another file: --cursor {cursor}"
        print(told, file=sys.stderr)
        lines.write(_last(complete=False, records=written, cursor=cursor))
        raise
    lines.write(_last(complete=True, records=written, cursor=cursor))
    lines.flush()  # what cannot be written is to be known before it is said to be
    print(counted(written, "record"), file=sys.stderr)


def _last(**told: Any) -> str:
    return _ENCODE(told) + "\n"


@contextmanager
def _whole(file: Path) -> Iterator[TextIO]:
    """A file to write that takes its name once it is written, and is on the disk. It is for its owner alone."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with open(descriptor, "w", encoding="ascii") as lines:  # noqa: PTH123 - a descriptor
            yield lines
            lines.flush()
            os.fsync(lines.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink()
        raise
