"""Names and the two kinds of patterns that policies may hold: globs on refs, prefixes on projects. No regexes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

_PROJECT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_SEPARATORS = re.compile(r"[-_.]+")


def normalise(name: str) -> str:
    """A project's name as registries compare it: 'Acme._Widgets' -> 'acme-widgets'.

    Raises:
        ValueError: the name is none by the core metadata's grammar.
    Source: PEP 503, and the name grammar of the core metadata specification.
    """
    if not _PROJECT.fullmatch(name):
        raise ValueError(f"{name!r} is no project name: letters, digits, and . _ - between them")
    return _SEPARATORS.sub("-", name).lower()


@dataclass(frozen=True, slots=True, order=True)
class Projects:
    """One normalised project name, or all names that begin with a prefix: 'acme-widgets', 'acme-*'."""

    stem: str
    is_prefix: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads 'Acme_Widgets' or 'acme-*'.

        Raises:
            ValueError: no name, or a `*` anywhere but at the end of a prefix that ends in a separator. 'acme*' would
                take in 'acmeevil', and '*' the whole index.
        """
        if "*" not in text:
            return cls(normalise(text))
        parts = re.fullmatch(r"([^*]+?)[-_.]+\*", text)
        if parts is None:
            raise ValueError(
                f"{text!r}: a `*` may stand only at the end of a prefix, after a separator, as in 'acme-*'"
            )
        return cls(normalise(parts[1]) + "-", is_prefix=True)

    def __str__(self) -> str:
        """As it is written in policies and tokens."""
        return self.stem + "*" if self.is_prefix else self.stem

    def covers(self, name: str) -> bool:
        """Whether a *normalised* name is meant."""
        return name.startswith(self.stem) and len(name) > len(self.stem) if self.is_prefix else name == self.stem

    def intersect(self, other: Projects) -> Projects | None:
        """What both mean, or None."""
        if self == other:
            return self
        for inner, outer in ((self, other), (other, self)):
            if outer.is_prefix and outer.covers(inner.stem):
                return inner
        return None

    def within(self, other: Projects) -> bool:
        """Whether all that this means, the other means too."""
        return self.intersect(other) == self


def intersect(some: Iterable[Projects], others: Iterable[Projects]) -> frozenset[Projects]:
    """What both sets mean."""
    others = tuple(others)
    return frozenset(both for one in some for other in others if (both := one.intersect(other)) is not None)


@dataclass(frozen=True, slots=True)
class RefGlob:
    """A glob on a full git ref, where `*` stops at `/`: 'refs/tags/v*'."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a pattern.

        Raises:
            ValueError: no full ref, or a wildcard other than a single `*`.
        """
        if not text.startswith("refs/"):
            raise ValueError(f"{text!r} is no full ref: write 'refs/tags/...' or 'refs/heads/...'")
        if "**" in text or any(wild in text for wild in "?[]{}\\"):
            raise ValueError(f"{text!r}: the only wildcard in refs is a single `*`, which stops at `/`")
        return cls(text)

    def __str__(self) -> str:
        """As it is written in policies."""
        return self.text

    def matches(self, ref: str) -> bool:
        """Whether the whole ref fits."""
        patterns, parts = self.text.split("/"), ref.split("/")
        return len(patterns) == len(parts) and all(map(_segment_fits, patterns, parts))


def _segment_fits(pattern: str, text: str) -> bool:
    """'v*.*' fits 'v1.2'. Linear: each piece is looked for once, left to right."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == first
    *middle, last = rest
    if not text.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(text) - len(last) >= at and text.endswith(last)
