"""`broker audit verify`: whether the records are those that were written, and all of them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from broker.chain import Kept, Verification
from broker.cli.state import add_option, work_on_state
from broker.policy.errors import counted
from broker.state import State

PAGE: Final = 1000
"""Records that are read at once."""

PROGRESS_EVERY: Final = 50_000

LAST_SEQUENCE: Final = 2**63 - 1
"""No store counts further."""

_NOT_SO: Final = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What JSON of another form raises: the last two where a number is infinite, or brackets are nested too deep."""

_LINK: Final = re.compile(r"(?:[0-9a-f]{64})?")


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the action."""
    verify = actions.add_parser(
        "verify",
        help="find records that were removed, altered or swapped",
        description="Follows each organization's chain of records, and names what does not fit: a record that is "
        "missing, altered, swapped or put in. Exit status: 0 where all is as it was written, 1 where something was "
        "found, 2 where not all could be looked at.",
        epilog="Whoever can write the whole store can make a new chain. So note the heads now and then where they "
        "cannot write, and compare: broker audit verify --noted heads.json --note heads.json",
    )
    verify.add_argument("export", nargs="?", type=Path, metavar="FILE", help="an export, instead of the state")
    verify.add_argument(
        "--noted", type=Path, metavar="FILE", help="heads that --note wrote before: they must still be there"
    )
    verify.add_argument(
        "--note",
        type=Path,
        metavar="FILE",
        help="write the heads (each organization's newest link), where nothing was found and all that was noted could "
        "be checked",
    )
    add_option(verify)
    verify.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verifies all chains, and says what was found."""
    try:
        noted = {} if args.noted is None else _read_heads(args.noted)
        verification, whole = _of_export(args.export, noted) if args.export else (_of_state(args, noted), True)
        if verification is None:
            return 2
        for finding in verification.findings:
            print(finding)
        begun_unseen = {} if args.noted is None else _begun_unseen(verification, noted)
        print(_summary(verification, in_full=whole and not verification.gaps and not begun_unseen), file=sys.stderr)
        if verification.findings:
            return 1
        if not whole:
            print(
                f"broker audit: {args.export} has no last line that says it is complete: it was cut off, and more may "
                "be missing. Export it again.",
                file=sys.stderr,
            )
        if verification.gaps:
            _tell_gaps(verification.gaps, args.note)
        _tell_begun_unseen(begun_unseen)
        if not whole or verification.gaps:
            return 2
        if args.note is not None:
            # A noted head of an organization that has no records any more is still where its chain ends.
            ends = {name: end for name, end in verification.ends.items() if name not in begun_unseen}
            _write_heads(args.note, {**noted, **ends})
    except OSError as error:
        print(f"broker audit: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"broker audit: {error}.", file=sys.stderr)
        return 2
    return 2 if begun_unseen else 0


def _begun_unseen(verification: Verification, noted: Mapping[str, tuple[int, str]]) -> dict[str, int]:
    """Organizations that nothing ties to what was noted, nor to a chain's beginning, and where they begin.

    Anybody can write such records, with any link: once noted, they would make the true ones look false.
    """
    return {name: first for name, first in verification.begins.items() if first > 1 and name not in noted}


def _tell_begun_unseen(begun: Mapping[str, int]) -> None:
    for organization, first in begun.items():
        print(
            f"broker audit: {_whose(organization)}: it was not noted before, and what is there begins at record "
            f"{first}: it is not taken up. Verify an export that begins at its record 1. Where there is none any more, "
            "and you trust what is there: --note without --noted begins anew.",
            file=sys.stderr,
        )


def _whose(organization: str) -> str:
    return f"organization {organization!r}" if organization else "no organization"


def _tell_gaps(gaps: Mapping[str, tuple[int, int]], note: Path | None) -> None:
    for organization, (noted, first) in sorted(gaps.items()):
        print(
            f"broker audit: {_whose(organization)}: record {noted} was noted, and what is there begins at record "
            f"{first}: whether it follows from what was noted cannot be checked.",
            file=sys.stderr,
        )
    kept = "" if note is None else f"{note} was not written. "
    print(
        f"broker audit: {kept}Verify an export that begins at what was noted, or right behind it. Where there is none "
        "any more, and you trust what is there: --note without --noted begins anew.",
        file=sys.stderr,
    )


def _summary(verification: Verification, *, in_full: bool) -> str:
    chains, found = len(verification.ends), len(verification.findings)
    records = counted(verification.records, "record")
    told = f"{records} in {counted(chains, 'chain')}"
    if verification.unchained:
        told += f"; {verification.unchained} are from before there was one, and could not be verified"
    if verification.in_part:
        told += f"; {verification.in_part} are withheld in part, and what is told of them could not be verified"
    if found:
        return f"{told}: {counted(found, 'finding')}"
    return f"{told}: " + ("all fit" if in_full else "not all could be checked")


def _of_state(args: argparse.Namespace, noted: Mapping[str, tuple[int, str]]) -> Verification | None:
    made: list[Verification] = []

    async def verify(state: State) -> None:
        verification = Verification(await state.heads(), noted)
        async for page in pages(state):
            verification.follow(page)
            if verification.records % PROGRESS_EVERY < len(page):
                print(f"{verification.records} records ...", file=sys.stderr)
        verification.finish(await state.heads())
        made.append(verification)

    return made[0] if work_on_state("audit", args, verify) else None


async def pages(state: State, organization: str | None = None) -> AsyncIterator[Sequence[Kept]]:
    """All that is kept, a page at a time."""
    position = ""
    while page := await state.records_after(position, PAGE, organization):
        yield page
        position = page[-1].position


def _of_export(file: Path, noted: Mapping[str, tuple[int, str]]) -> tuple[Verification, bool]:
    """What became of it, and whether it says that it is whole."""
    verification = Verification(noted=noted)
    last: dict[str, Any] = {}
    with file.open(encoding="utf-8") as lines:
        verification.follow(_exported(file, lines, last))
    verification.finish()
    for organization, first in verification.begins.items():
        if first > 1:
            # Its text is linked to the record before, of which only a noted head tells.
            told = "" if noted.get(organization, (0, ""))[0] == first - 1 else "; what that one says cannot be verified"
            print(
                f"note: {file} has the records of {_whose(organization)} from {first} on alone{told}", file=sys.stderr
            )
    return verification, last.get("complete") is True


def _exported(file: Path, lines: Iterable[str], last: dict[str, Any]) -> Iterator[Kept]:
    """The records of an export, one JSON object a line; what has no `record` is no record, and becomes the last line.

    Raises:
        ValueError: a line is none that an export has, or stands behind the last one.
    """
    ended = 0
    for number, line in enumerate(lines, start=1):
        if ended:
            # What a last line says is of the lines before it: one in front, or in between, would hide a cut.
            raise ValueError(
                f"{file}, line {number}: line {ended} says that the export ends there, and more follows: it is not "
                "one whole export. Export it again; where it is several, one behind the other, verify each by itself"
            )
        try:
            told = json.loads(line)
            if "record" not in told:
                last["complete"], ended = told["complete"], number
                continue
            yield _record(told, number)
        except _NOT_SO as error:
            raise ValueError(f"{file}, line {number}: no record of an export") from error


def _record(told: Mapping[str, Any], number: int) -> Kept:
    """What a line says, in the very types that an export has: what is nearly a number may not pass for one.

    Raises:
        ValueError, TypeError, KeyError, RecursionError
    """
    body, link, sequence = told["record"], told["link"], told["sequence"]
    # Whose chain it is need not be believed: another one's chain begins, and goes on, otherwise.
    organization = told["organization"] if "organization" in told else json.loads(body)["organization"]
    if not all(isinstance(text, str) for text in (body, link, organization)) or type(sequence) is not int:
        raise TypeError("another type")
    # From before there was a chain: number 0, and no link.
    if not 0 <= sequence <= LAST_SEQUENCE or not _LINK.fullmatch(link) or (not link and sequence):
        raise ValueError("no sequence, or no link")
    return Kept(
        position=str(number),
        organization=organization,
        sequence=sequence,
        link=link,
        body=body,
        told_digest=str(told["digest"]) if told.get("withheld") else "",
    )


def _read_heads(file: Path) -> dict[str, tuple[int, str]]:
    try:
        told: dict[str, Any] = json.loads(file.read_bytes())
        return {name: (int(head["sequence"]), str(head["link"])) for name, head in told.items()}
    except _NOT_SO as error:
        raise ValueError(f"{file}: not what `broker audit verify --note` writes") from error


def _write_heads(file: Path, ends: Mapping[str, tuple[int, str]]) -> None:
    told = {name: {"sequence": sequence, "link": link} for name, (sequence, link) in ends.items()}
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
