"""The runs that two policies can tell apart, as a finite space, and what each policy gives in it, as boxes.

All runs of one source (an issuer's URL and a name that publishers are found by) are points: who started them, attended
or not, what they run in, for which project, to upload to it or to read it, and when. A publisher's rules
and a member's rights ask each dimension by itself. So values that no rule of either policy tells apart are one value,
and one of them stands for all.

No rule is written here a second time: what a publisher admits is asked of `Trust.compare`, and what its members may
upload or read of `matching.grant`, each value by itself.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker import refusals
from broker.patterns import Projects, RefGlob
from broker.policy import matching
from broker.policy.matching import Considered
from broker.policy.model import SCOPES, Issuer, Member, Organization, Policies, Publisher, Scope
from broker.policy.moments import moments
from broker.policy.regions import Box
from broker.policy.values import Value, Values, admits, home, values_of
from broker.providers import Identity

WHEN: Final = "when"
PROJECT: Final = "project"
SCOPE: Final = "scope"
UNATTENDED: Final = "unattended"
ACTOR: Final = "actor_id"

_NO_FIELDS: Final = frozenset({WHEN, PROJECT, SCOPE, UNATTENDED, ACTOR})

Test = Callable[[Value], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One source, as one of the two policies sees it."""

    policies: Policies
    issuer: Issuer | None = None
    """None where the policies do not trust it, or name no publisher of this source."""
    publishers: tuple[Publisher, ...] = ()

    def organizations(self) -> list[Organization]:
        """Those that have a publisher for the source."""
        return [
            self.policies.organizations[name] for name in dict.fromkeys(one.organization for one in self.publishers)
        ]

    def members(self, organization: Organization) -> dict[str, Member]:
        """Who of an organization has an id at the issuer, by that id."""
        name = "" if self.issuer is None else self.issuer.name
        return {one.ids[name]: one for one in organization.members.values() if name in one.ids}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """What runs can differ in, in one respect."""

    name: str
    atoms: tuple[tuple[Value, ...], ...]
    """Values that no rule tells apart stand together, and the first stands for them."""
    unmentioned: frozenset[Value] = frozenset()
    """The one that stands for all that no policy mentions."""
    globs: tuple[RefGlob, ...] = ()
    """Those that policies mention here."""

    @property
    def everything(self) -> int:
        """The mask of all values."""
        return (1 << len(self.atoms)) - 1

    def mask(self, test: Test) -> int:
        """The values that pass."""
        return sum(1 << at for at, atom in enumerate(self.atoms) if test(atom[0]))

    def values(self, mask: int) -> list[Value]:
        """All values of a mask."""
        return [value for at, atom in enumerate(self.atoms) if mask >> at & 1 for value in atom]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one publisher gives to members whom policies treat alike: every point of the box."""

    box: Box
    publisher: Publisher
    home: Identity
    """A run that the publisher admits."""
    members: Mapping[str, Member]
    """By the id of the actor."""
    projects: frozenset[Projects]
    """What the box has of these, as patterns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The dimensions of one source, and what either policy gives."""

    dimensions: tuple[Dimension, ...]
    old: tuple[Given, ...]
    new: tuple[Given, ...]
    impossible: tuple[Box, ...]
    """Runs that no provider signs."""


@dataclass(frozen=True, slots=True)
class _Right:
    """Members whom policies treat alike, and what one publisher gives them."""

    members: Mapping[str, Member]
    projects: frozenset[Projects]
    scopes: frozenset[Scope]
    when: frozenset[float]
    unattended: frozenset[bool]


@dataclass(frozen=True, slots=True)
class _Part:
    """A publisher that admits some run, and what it gives to whom."""

    publisher: Publisher
    home: Identity
    rights: tuple[_Right, ...]


def space_of(old: Side, new: Side, now: float) -> Space:
    """Lays out the runs of one source.

    Args:
        old, new: With publishers of one kind of provider between them, at least one in all.
        now: Epoch seconds; what was before does not count.

    Raises:
        TooComplexError: their globs make too many kinds of refs.
    """
    sides = (old, new)
    publishers = [one for side in sides for one in side.publishers]
    organizations = [(side, one) for side in sides for one in side.organizations()]
    actors = [actor for side, one in organizations for actor in side.members(one)]
    values = values_of([one.trust for one in publishers], actors)
    turns = moments((one for _, one in organizations), publishers, now)
    parts = [tuple(_parts(side, values, turns)) for side in sides]
    never = [one for publisher in publishers for one in publisher.trust.never]
    actor = publishers[0].trust.itself or ACTOR
    dimensions = _dimensions(actor, values, turns, [part for found in parts for part in found], never)
    before, after = (tuple(_given(actor, dimensions, found)) for found in parts)
    impossible = tuple(_box(dimensions, _tests(one)) for one in never)
    return Space(dimensions=dimensions, old=before, new=after, impossible=impossible)


def _parts(side: Side, values: Mapping[str, Values], turns: Sequence[float]) -> Iterator[_Part]:
    alike = {one.name: list(_alike(side.members(one))) for one in side.organizations()}
    for publisher in side.publishers:
        run = home(publisher.trust, values)
        if run is not None:
            found = (_rights(side.policies, publisher, run, some, turns) for some in alike[publisher.organization])
            yield _Part(publisher, run, tuple(right for rights in found for right in rights))


def _alike(members: Mapping[str, Member]) -> Iterable[dict[str, Member]]:
    """Members by their actors' ids, those together who differ in their names and ids alone."""
    names = [item.name for item in dataclasses.fields(Member) if item.name not in {"name", "ids"}]
    found: dict[tuple[Any, ...], dict[str, Member]] = defaultdict(dict)
    for actor, member in members.items():
        found[tuple(getattr(member, name) for name in names)][actor] = member
    return found.values()


def _rights(
    policies: Policies, publisher: Publisher, run: Identity, members: Mapping[str, Member], turns: Sequence[float]
) -> Iterator[_Right]:
    """What is the same to upload and to read, or attended and not, is one right."""
    alike: dict[tuple[frozenset[Projects], frozenset[float], frozenset[bool]], set[Scope]] = defaultdict(set)
    for scope in SCOPES:
        found: dict[tuple[frozenset[Projects], frozenset[float]], set[bool]] = defaultdict(set)
        for unattended in (False, True):
            started = dataclasses.replace(run, actor_id=next(iter(members)), unattended=unattended)
            when: dict[frozenset[Projects], set[float]] = defaultdict(set)
            for moment in turns:
                when[_granted(policies, publisher, started, moment, scope)].add(moment)
            for projects, moments_of in when.items():
                found[projects, frozenset(moments_of)].add(unattended)
        for (projects, always), either in found.items():
            if projects:
                alike[projects, always, frozenset(either)].add(scope)
    for (projects, always, attended), scopes in alike.items():
        yield _Right(members, projects, frozenset(scopes), always, attended)


def _granted(
    policies: Policies, publisher: Publisher, run: Identity, moment: float, scope: Scope
) -> frozenset[Projects]:
    try:
        return matching.grant(policies, run, (Considered(publisher=publisher, mismatch=None),), moment, scope).projects
    except refusals.Refusal:
        return frozenset()


def _dimensions(
    actor: str,
    values: Mapping[str, Values],
    turns: Sequence[float],
    parts: Sequence[_Part],
    never: Iterable[Mapping[str, frozenset[object]]],
) -> tuple[Dimension, ...]:
    rights = [right for part in parts for right in part.rights]
    patterns = sorted({pattern for right in rights for pattern in right.projects})
    known: list[Test] = [found.__contains__ for found in dict.fromkeys(frozenset(right.members) for right in rights)]
    fields = []
    for field, one in values.items():
        tests: list[Test] = [admits(part.publisher.trust, part.home, field) for part in parts]
        tests += [found[field].__contains__ for found in never if field in found]
        atoms = _atoms(one.found, tests + known if field == actor else tests)
        fields.append(Dimension(name=field, atoms=atoms, unmentioned=one.unmentioned, globs=one.globs))
    if actor == ACTOR:
        actors = dict.fromkeys(actor for right in rights for actor in right.members)
        fields.insert(0, Dimension(name=ACTOR, atoms=_atoms(actors, known)))
    return (
        Dimension(name=WHEN, atoms=tuple((moment,) for moment in turns)),
        Dimension(name=PROJECT, atoms=_atoms(_names(patterns), [pattern.covers for pattern in patterns])),
        Dimension(name=SCOPE, atoms=tuple((scope,) for scope in SCOPES)),
        Dimension(name=UNATTENDED, atoms=((False,), (True,))),
        *fields,
    )


def _atoms(values: Iterable[Value], tests: Sequence[Test]) -> tuple[tuple[Value, ...], ...]:
    atoms: dict[tuple[bool, ...], list[Value]] = defaultdict(list)
    for value in values:
        atoms[tuple(test(value) for test in tests)].append(value)
    return tuple(map(tuple, atoms.values()))


def _names(patterns: Sequence[Projects]) -> Iterator[str]:
    """Each project that is named, and for each prefix one that only it and wider ones mean."""
    for one in patterns:
        within = [other for other in patterns if other != one and other.within(one)]
        # Without another `-`, none of these is within a narrower prefix; so only names can be taken.
        names = (f"{one.stem}any{more or ''}" for more in range(len(within) + 1)) if one.is_prefix else (one.stem,)
        yield next(name for name in names if not any(other.covers(name) for other in within))


def _given(actor: str, dimensions: Sequence[Dimension], parts: Iterable[_Part]) -> Iterator[Given]:
    for part in parts:
        trust, run = part.publisher.trust, part.home
        admitted = [
            one.everything if one.name in _NO_FIELDS else one.mask(admits(trust, run, one.name)) for one in dimensions
        ]
        for right in part.rights:
            held = _held(actor, dimensions, right)
            box = tuple(mine & its for mine, its in zip(admitted, held, strict=True))
            if all(box):  # a source that is its own actor fits no member but itself
                yield Given(box=box, publisher=part.publisher, home=run, members=right.members, projects=right.projects)


def _held(actor: str, dimensions: Sequence[Dimension], right: _Right) -> Box:
    def covers(name: Value) -> bool:
        return any(pattern.covers(name) for pattern in right.projects)

    tests: dict[str, Test] = {
        WHEN: right.when.__contains__,
        PROJECT: covers,
        SCOPE: right.scopes.__contains__,
        UNATTENDED: right.unattended.__contains__,
        actor: right.members.__contains__,
    }
    return _box(dimensions, tests)


def _tests(values: Mapping[str, frozenset[object]]) -> dict[str, Test]:
    return {field: found.__contains__ for field, found in values.items()}


def _box(dimensions: Sequence[Dimension], tests: Mapping[str, Test]) -> Box:
    return tuple(one.mask(tests[one.name]) if one.name in tests else one.everything for one in dimensions)
