"""`organizations/<name>.yaml`: members, teams, projects and publishers of one organization, compiled together.

Each file is compiled by itself, beside the index alone, so that a change to one costs one. What only all files together
can get wrong, names that overlap, is asked in `files.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.patterns import Projects
from broker.policy.ceilings import refuse_lifetime
from broker.policy.errors import Findings, Place, shown, written
from broker.policy.freezes import read_freezes
from broker.policy.holdings import Holdings, declared_names, read_namespaces, read_patterns
from broker.policy.index import Index
from broker.policy.members import compile_members
from broker.policy.model import LONGEST_LIFETIME_SECONDS, Organization
from broker.policy.publishers import compile_publishers, owner_id
from broker.policy.shapes import FreezeShape, OrganizationShape, seconds
from broker.policy.validation import validate


@dataclass(frozen=True, slots=True)
class Held:
    """One pattern of names that an organization holds, and where it says so."""

    pattern: Projects
    organization: str
    file: str
    line: int
    path: str


@dataclass(frozen=True, slots=True)
class Compiled:
    """An organization, and the names it holds."""

    organization: Organization
    held: tuple[Held, ...]


def compile_organization(name: str, values: Mapping[str, Any], findings: Findings, index: Index) -> Compiled:
    """Compiles the file's values, and notes every mistake in them: with one, the result must not be used.

    Args:
        name: The file's, without `.yaml`.
    """
    validate(OrganizationShape, values, (), findings)
    stated = values.get("organization")
    if isinstance(stated, str) and stated != name:
        what = f"is {shown(stated)}, and the file is called {shown(name)[1:-1]}.yaml"
        findings.add(("organization",), what, "Make both the same.")
    held = [*read_namespaces(values, (), findings), *read_patterns(values, "projects", (), findings)]
    _refuse_not_allotted(name, held, findings, index)
    patterns = {str(place[1]): pattern for pattern, place in held if place[0] == "projects"}
    members = compile_members(name, values, patterns, findings, index)
    publishers = compile_publishers(name, values, findings, index, _own(name, values, held, findings))
    organization = Organization(
        name=name,
        suspended=values.get("suspended") is True,
        members=members,
        member_by_id={pair: member for member in members.values() for pair in member.ids.items()},
        publishers=publishers,
        owner_ids=frozenset(pair for one in publishers.values() if (pair := owner_id(one)) is not None),
        freezes=(*(freeze for freeze, _, _ in read_freezes(FreezeShape, values, findings)), *index.freezes_of(name)),
        lifetime_seconds=_lifetime(name, values, findings, index),
    )
    return Compiled(
        organization,
        tuple(Held(pattern, name, findings.file, findings.line_of(place), written(place)) for pattern, place in held),
    )


def _lifetime(name: str, values: Mapping[str, Any], findings: Findings, index: Index) -> int:
    """How long its upload tokens may live, in seconds: by the file itself, or else by the ceiling alone."""
    above = [bound for bound in (index.lifetime, index.ceilings_of(name).lifetime) if bound is not None]
    narrowest = min(above, key=lambda bound: bound.value, default=None)
    ceiling = above[-1].value if above else LONGEST_LIFETIME_SECONDS
    try:
        own = seconds(values.get("lifetime"))
    except ValueError:  # told by the model, unless there is none
        return ceiling
    refuse_lifetime(own, narrowest, ("lifetime",), findings)
    return min(own, ceiling)


def _own(
    name: str, values: Mapping[str, Any], held: list[tuple[Projects, Place]], findings: Findings
) -> Holdings[str] | None:
    """What the organization holds; None where some of it could not be read."""
    keys = declared_names(values, "projects", findings)
    named = sum(place[0] == "projects" for _, place in held)
    if findings.within(("namespaces",)) or keys is None or named < len(keys):
        return None
    own: Holdings[str] = Holdings()
    for pattern, _ in held:
        own.record(pattern, name)
    return own


def _refuse_not_allotted(name: str, held: list[tuple[Projects, Place]], findings: Findings, index: Index) -> None:
    if index.allotments is None:
        return
    allotted = index.allotments.get(name, Holdings())
    if allotted is None:
        return
    told: set[Place] = set()
    for pattern, place in held:
        if place not in told and next(allotted.covering(pattern), None) is None:
            told.add(place)  # a namespace holds two patterns at one place
            what = f"holds {pattern}, which index.yaml does not allot to {name!a}"
            findings.add(place, what, "Ask the index operator to allot it, or correct the name.")
