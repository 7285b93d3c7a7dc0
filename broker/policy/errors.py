"""Mistakes in policy files: where each one is, what is wrong, and how to mend it.

Laws:

- Nothing of a broken folder counts, so all mistakes of all files are told at once.
- Values from files are shown as ASCII: a Cyrillic letter that poses as a Latin one is seen for what it is.
- A file is told at most `MOST_MISTAKES`: one within its size bound could hold a million, which nobody reads and which
  would take a gigabyte.
- One mistake is told once: what stands at or below a place that is already broken is not complained about again.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

Place = tuple[str | int, ...]
"""Where in a document: ('publishers', 'widgets-release', 'refs', 0)."""

MOST_MISTAKES: Final = 1000
"""Told of one file."""
_LONGEST_SHOWN: Final = 80
"""Characters of a value or a key, for they share a line with a path."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_*-]{1,80}")
_MOST_SUGGESTIONS: Final = 50
"""For one file. Each compares a word with all that it could have meant, which a hostile file makes quadratic."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PolicyError:
    """One mistake in one file."""

    file: str
    """Relative to the policies' folder: 'organizations/acme.yaml'."""
    line: int
    """From 1; 0 where the file itself is missing or not to be read."""
    path: str
    """'publishers.widgets-release.refs[0]'; empty where the mistake is the whole file's."""
    what: str
    remedy: str

    def __str__(self) -> str:
        """'organizations/acme.yaml:14: publishers.widgets-release.workflow: is missing'."""
        return ": ".join(
            part for part in (f"{self.file}:{self.line}" if self.line else self.file, self.path, self.what) if part
        )


class PolicyErrors(Exception):  # noqa: N818 (many, not one)
    """The policies in a folder cannot be used.

    Not a refusal: no caller is answered with it. Whoever loads policies stops, or keeps the last good ones.
    """

    def __init__(self, folder: Path, errors: Iterable[PolicyError]) -> None:
        super().__init__(folder, errors)
        self.folder = folder
        self.errors = tuple(sorted(errors))

    def located(self, error: PolicyError) -> str:
        """The mistake in a line, with the folder as the reader named it."""
        return f"{shown_path(self.folder)}/{error}" if error.file else f"{shown_path(self.folder)}: {error}"

    def __str__(self) -> str:
        """A line for each mistake."""
        return "\n".join(map(self.located, self.errors))

    def explained(self, most: int | None = None) -> str:
        """Each mistake with how to mend it, and how many there are.

        Args:
            most: How many fit where this is shown; the others are counted.
        """
        told = self.errors[:most]
        lines = [f"{self.located(error)}\n    {error.remedy}" for error in told]
        if len(told) < len(self.errors):
            lines.append(f"... and {len(self.errors) - len(told)} more: `broker check {shown_path(self.folder)}`")
        files = counted(len({error.file for error in self.errors}), "file")
        total = f"{counted(len(self.errors), 'mistake')} in {files}: none of the policies is loaded."
        return "\n".join([*lines, total])


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is found in one file while it is read: its mistakes, and the lines to tell them by."""

    file: str
    lines: dict[Place, int] = field(default_factory=dict)
    errors: list[PolicyError] = field(default_factory=list)
    _broken: set[Place] = field(default_factory=set)
    _at: set[Place] = field(default_factory=set)
    _within: set[Place] = field(default_factory=set)
    _suggestions: int = 0

    def line_of(self, place: Place) -> int:
        """The line of a place, or of the nearest thing around it."""
        return next((self.lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in self.lines), 1)

    def add(self, place: Place, what: str, remedy: str, *, line: int | None = None) -> None:
        """Notes a mistake, unless it follows from a place that is broken; `line` where it is not the place's own."""
        if not self._broken or not any(place[:end] in self._broken for end in range(len(place) + 1)):
            self.add_always(place, what, remedy, line=line)

    def add_always(self, place: Place, what: str, remedy: str, *, line: int | None = None) -> None:
        """Notes a mistake of the text itself, whatever else is wrong with the place."""
        if len(self.errors) >= MOST_MISTAKES:
            self._tell_that_there_are_more()
            return
        self._at.add(place)
        self._within.update(place[:end] for end in range(len(place) + 1))
        line = self.line_of(place) if line is None else line
        self.errors.append(PolicyError(file=self.file, line=line, path=written(place), what=what, remedy=remedy))

    def _tell_that_there_are_more(self) -> None:
        if len(self.errors) == MOST_MISTAKES:
            what = f"has more than {MOST_MISTAKES} mistakes, of which {MOST_MISTAKES} are told"
            remedy = "Mend these first, and check again."
            self.errors.append(PolicyError(file=self.file, line=0, path="", what=what, remedy=remedy))

    def add_broken(self, place: Place, what: str, remedy: str) -> None:
        """Notes a mistake that leaves no value at this place, so that nothing more is said of it."""
        self.add(place, what, remedy)
        self._broken.add(place)

    def at(self, place: Place) -> bool:
        """Whether there is a mistake at this very place."""
        return place in self._at

    def within(self, place: Place) -> bool:
        """Whether there is a mistake at this place or below it."""
        return place in self._within

    def nearest(self, word: object, candidates: Iterable[str]) -> str | None:
        """The candidate that was most probably meant, if any is near."""
        if not isinstance(word, str) or self._suggestions >= _MOST_SUGGESTIONS:
            return None
        self._suggestions += 1
        return next(iter(difflib.get_close_matches(word[:100], candidates, n=1)), None)

    def suggest(self, word: object, candidates: Iterable[str], otherwise: str) -> str:
        """'Did you mean 'alice'?', or another remedy where nothing is near."""
        near = self.nearest(word, candidates)
        return otherwise if near is None else f"Did you mean {near!a}?"


def counted(number: int, noun: str) -> str:
    """1, 'file' -> '1 file'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def written(place: Place) -> str:
    """('publishers', 'a', 'refs', 0) -> 'publishers.a.refs[0]'; odd keys stand in quotes."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if _PLAIN_KEY.fullmatch(step) else json.dumps(_cut(step)))
    return text


def shown(value: object) -> str:
    """A value from a file, in ASCII and not longer than a line."""
    return ascii(_cut(value)) if isinstance(value, str) else _cut(ascii(value))


def shown_path(path: Path | str) -> str:
    """A file's name without anything that a terminal would act on."""
    text = str(path)
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
