"""Project names in policies: reading them, and who holds which.

Each question costs the length of one name, however many organizations there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from broker.patterns import Projects, normalise
from broker.policy.errors import Findings, Place
from broker.policy.shapes import LONGEST_PROJECT, pattern
from broker.policy.validation import reason

Holder = TypeVar("Holder")


@dataclass(slots=True)
class Holdings(Generic[Holder]):
    """Patterns and their holders. Patterns either contain each other or have nothing in common; so two overlap exactly
    where one of them covers the other."""

    _holders: dict[str, Holder] = field(default_factory=dict)
    """By stem: a prefix's ends in `-`, which a name's never does."""

    def record(self, pattern: Projects, holder: Holder) -> None:
        """Remembers a holder; the first of a pattern stays."""
        self._holders.setdefault(pattern.stem, holder)

    def covering(self, pattern: Projects) -> Iterator[Holder]:
        """The holders of the pattern itself and of what contains it, the widest last.

        'acme-widgets-*' asks for 'acme-widgets-*' and 'acme-*'; neither 'acme-widgets' nor 'acme' contains it.
        """
        for stem in containing(pattern.stem):
            if stem in self._holders:
                yield self._holders[stem]


def containing(stem: str) -> Iterator[str]:
    """The stems of a pattern and of all that could contain it: 'acme-widgets-' -> 'acme-widgets-', 'acme-'."""
    at = len(stem)
    while at > 0:
        yield stem[:at]
        at = stem.rfind("-", 0, at - 1) + 1


def namespace(name: str) -> tuple[Projects, Projects]:
    """What a namespace holds: 'acme' -> 'acme' and 'acme-*' (PEP 752).

    Raises:
        ValueError: no project name, or a pattern.
    """
    if len(name) > LONGEST_PROJECT:
        raise ValueError(f"a name is longer than {LONGEST_PROJECT} characters")
    if "*" in name:
        raise ValueError(f"{name!r} is no namespace: write it without the `*`; 'acme' means 'acme' and 'acme-*'")
    stem = normalise(name)
    return Projects(stem), Projects(f"{stem}-", is_prefix=True)


def read_namespaces(fields: Mapping[str, Any], place: Place, findings: Findings) -> list[tuple[Projects, Place]]:
    """What the `namespaces` of an entry mean, each with where it stands; mistakes are noted and left out."""
    found: list[tuple[Projects, Place]] = []
    first: dict[Projects, Place] = {}
    for where, text in texts(fields, "namespaces", place):
        try:
            both = namespace(text)
        except ValueError as error:
            findings.add(where, *reason(error, text, "Correct the name."))
            continue
        _refuse_repeated(both[0], where, first, findings)
        found += [(one, where) for one in both]
    return found


def read_patterns(
    fields: Mapping[str, Any], section: str, place: Place, findings: Findings
) -> list[tuple[Projects, Place]]:
    """The projects that a list, or the keys of a mapping, name, each with where it stands, likewise."""
    found: list[tuple[Projects, Place]] = []
    first: dict[Projects, Place] = {}
    for where, text in texts(fields, section, place):
        try:
            projects = pattern(text)
        except ValueError as error:
            findings.add(where, *reason(error, text, "Correct the name."))
            continue
        _refuse_repeated(projects, where, first, findings)
        found.append((projects, where))
    return found


def _refuse_repeated(projects: Projects, place: Place, first: dict[Projects, Place], findings: Findings) -> None:
    if (other := first.setdefault(projects, place)) != place:
        what = f"means {projects}, as line {findings.line_of(other)} does"
        findings.add(place, what, "Remove one of the two: names compare without case, and - _ . are one.")


def texts(fields: Mapping[str, Any], section: str, place: Place) -> list[tuple[Place, str]]:
    """The texts of a list, or the keys of a mapping, each with where it stands; the models complain about all else."""
    found = fields.get(section)
    if isinstance(found, dict):
        return [((*place, section, key), key) for key in found]
    items = found if isinstance(found, tuple) else ()
    return [((*place, section, at), text) for at, text in enumerate(items) if isinstance(text, str)]


def entries(values: Mapping[str, Any], section: str) -> dict[str, dict[str, Any]]:
    """The entries of a section that are mappings; the models complain about all else."""
    found = values.get(section)
    items = found.items() if isinstance(found, dict) else ()
    return {name: fields for name, fields in items if isinstance(fields, dict)}


def declared_names(values: Mapping[str, Any], section: str, findings: Findings) -> frozenset[str] | None:
    """What may be referred to in a section, entries with mistakes included; None where the section cannot be read.

    So a mistake in an entry is told once, and not again by all that refer to it.
    """
    found = values.get(section, {})
    return frozenset(found) if isinstance(found, dict) and not findings.at((section,)) else None
