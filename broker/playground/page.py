"""What the playground shows: plain lines, coloured on a terminal only, never so that colour alone says something."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TextIO

import httpx

_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32"}


class Page:
    """Writes to a stream, standard output by default."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        # https://no-color.org
        self._coloured = self._stream.isatty() and not os.environ.get("NO_COLOR")

    def line(self, text: str = "") -> None:
        """One line."""
        print(text, file=self._stream, flush=True)

    def heading(self, text: str) -> None:
        """What comes next."""
        self.line()
        self.line(self.styled(text, "bold"))

    def step(self, text: str) -> None:
        """Something under way that takes a moment."""
        self.line(self.styled(f"  ... {text}", "dim"))

    def good(self, text: str) -> None:
        """Something that went as it should."""
        self.line(f"  {self.styled('ok', 'green')}   {text}")

    def refused(self, code: str, text: str) -> None:
        """Something that was refused, as it should be."""
        self.line(f"  {self.styled('no', 'red')}   {text}: {self.styled(code, 'bold')}")

    def note(self, text: str) -> None:
        """A sentence about the line before."""
        self.line(f"       {self.styled(text, 'dim')}")

    def styled(self, text: str, style: str) -> str:
        """The text in a style, where the stream can show it."""
        return f"\033[{_CODES[style]}m{text}\033[0m" if self._coloured else text


def audit_line(record: dict[str, Any]) -> str:
    """An audit record in one line: when, what, who, what of, decided how."""
    at = datetime.fromisoformat(record["at"]).astimezone().strftime("%H:%M:%S")
    actor = str(record.get("identity", {}).get("actor_name", ""))
    subject = record.get("filename") or ", ".join(record.get("projects", ())) or record.get("project", "")
    decision = record["decision"] + (f": {record['code']}" if record["decision"] == "refused" else "")
    if record.get("registry_status", 0) >= httpx.codes.BAD_REQUEST:
        decision += f", and the registry answered {record['registry_status']}"
    return f"  {at}  {record['kind']:<10}  {actor[:20]:<8}  {subject:<36}  {decision}"


def audit_table(records: Sequence[dict[str, Any]]) -> list[str]:
    """Records as lines under a head."""
    return [f"  {'at':<8}  {'what':<10}  {'who':<8}  {'of':<36}  decision", *map(audit_line, records)]
