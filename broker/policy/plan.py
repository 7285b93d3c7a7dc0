"""What a change of policies means: who can publish or read what that could not before, and who no longer can.

The difference of two `Policies` is one of decisions, not of text. For every source that either binds, all runs that
the two can tell apart are compared (`space.py`): a change is there exactly where, at some moment from now on, some run
of some actor may upload to some project, or read it, under one and not under the other. What is compared is what is
granted, not the code of a refusal. What first uses recorded is not known here, so `pin: first-use` counts as any ids.

What is no decision and yet widens or narrows (how long upload tokens live, which algorithms count) is a `Setting`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from broker.policy.model import Issuer, Member, Organization, Policies, Publisher, Scope
from broker.policy.plan_settings import Setting, settings_between
from broker.policy.plan_words import Condition, conditions_of, patterns_of, periods_of
from broker.policy.regions import Box, outside
from broker.policy.space import ACTOR, PROJECT, SCOPE, UNATTENDED, WHEN, Dimension, Given, Side, Space, space_of
from broker.policy.values import telling
from broker.providers import Identity

Effect = Literal["gained", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One run that is decided otherwise."""

    identity: Identity
    scope: Scope
    project: str
    at: float
    """Epoch seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Some members can now publish or read some projects from some runs of one publisher, or no longer can."""

    effect: Effect
    scopes: tuple[Scope, ...]
    """To publish, to read, or both."""
    publisher: Publisher
    """Of the new policies for what is gained, else of the old."""
    issuer: Issuer
    members: tuple[Member, ...]
    projects: tuple[str, ...]
    """Names and prefixes as policies write them: 'acme-*', or 'acme-* without acme-widgets'."""
    conditions: tuple[Condition, ...]
    periods: tuple[tuple[float | None, float | None], ...]
    """From when (None: now) until when (None: without end), epoch seconds; empty where it is always."""
    unattended: bool | None
    """Only in runs that nobody started, or (False) only in those that somebody did; None where it is both."""
    example: Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a change of policies means."""

    old: str
    new: str
    """The generations that were compared."""
    changes: tuple[Change, ...]
    settings: tuple[Setting, ...]

    @property
    def widened(self) -> bool:
        """Whether anybody can do more than before."""
        return any(one.effect == "gained" for one in self.changes) or any(one.wider for one in self.settings)


_Source = tuple[str, type[Identity], str]
"""The issuer's URL, the kind of its runs, and the name that publishers are found by."""


def plan(old: Policies, new: Policies, *, now: float) -> Plan:
    """Compares two policies from `now` (epoch seconds) on.

    Raises:
        TooComplexError: the publishers of one source overlap in more ways than can be told apart within bounds.
    """
    before, after = _sources(old), _sources(new)
    unchanged = _unchanged(old, new)
    changes: list[Change] = []
    for source in sorted({*before, *after}, key=lambda one: (one[0], one[1].__name__, one[2])):
        one, other = before.get(source, Side(policies=old)), after.get(source, Side(policies=new))
        if one.publishers == other.publishers and unchanged.issuperset(each.organization for each in one.publishers):
            continue
        space = space_of(one, other, now)
        changes += _differences("gained", other, space, space.new, space.old)
        changes += _differences("lost", one, space, space.old, space.new)
    return Plan(
        old=old.generation, new=new.generation, changes=tuple(changes), settings=tuple(settings_between(old, new))
    )


def _sources(policies: Policies) -> dict[_Source, Side]:
    return {
        (issuer.url, publishers[0].trust.identity, name): Side(policies=policies, issuer=issuer, publishers=publishers)
        for (issuer_name, name), publishers in policies.publishers_by_name.items()
        if not (issuer := policies.issuers[issuer_name]).disabled
    }


def _unchanged(old: Policies, new: Policies) -> set[str]:
    """The organizations in which nothing but publishers has changed. Nothing else decides about their runs."""
    return {
        name
        for name, one in old.organizations.items()
        if name in new.organizations and _but_publishers(one) == _but_publishers(new.organizations[name])
    }


def _but_publishers(organization: Organization) -> Organization:
    return dataclasses.replace(organization, publishers={}, owner_ids=frozenset())


def _differences(
    effect: Effect, side: Side, space: Space, given: Iterable[Given], others: Iterable[Given]
) -> Iterator[Change]:
    """What `given` holds and none of the others does, with members together where all else is alike."""
    boxes = [other.box for other in others]
    actors = next((at for at, one in enumerate(space.dimensions) if one.name == ACTOR), None)
    together: dict[tuple[str, Box], tuple[Given, Box, dict[str, Member]]] = {}
    for one in given:
        for piece in outside(one.box, boxes, void=space.impossible):
            alike = piece if actors is None else (*piece[:actors], *piece[actors + 1 :])
            _, so_far, members = together.get((one.publisher.id, alike), (one, piece, {}))
            both = tuple(mine | its for mine, its in zip(piece, so_far, strict=True))
            together[one.publisher.id, alike] = (one, both, {**members, **one.members})
    for one, piece, members in together.values():
        yield _change(effect, side, space, dataclasses.replace(one, members=members), piece)


def _change(effect: Effect, side: Side, space: Space, given: Given, piece: Box) -> Change:
    at: dict[str, tuple[Dimension, int]] = {
        one.name: (one, mask) for one, mask in zip(space.dimensions, piece, strict=True)
    }
    whole = dict(zip(at, given.box, strict=True))
    actors, mask = at[given.publisher.trust.itself or ACTOR]
    members = [given.members[actor] for actor in actors.values(mask) if actor in given.members]
    _, attended = at[UNATTENDED]
    when, moments = at[WHEN]
    projects, names = at[PROJECT]
    purposes, scopes = at[SCOPE]
    publisher = given.publisher
    issuer = side.policies.issuers[publisher.trust.issuer]
    return Change(
        effect=effect,
        scopes=tuple(purposes.values(scopes)),
        publisher=publisher,
        issuer=issuer,
        members=tuple(members),
        projects=patterns_of(given.projects, projects, names),
        conditions=tuple(conditions_of(publisher.trust, at, whole)),
        periods=periods_of(when, moments),
        unattended=None if attended == at[UNATTENDED][0].everything else attended != 1,
        example=_example(given, space, piece),
    )


def _example(given: Given, space: Space, piece: Box) -> Example:
    """One possible point of a piece: of each dimension its first value that is mentioned, where one is."""
    possible, *_ = outside(piece, space.impossible)
    first = {}
    for dimension, mask in zip(space.dimensions, possible, strict=True):
        values = dimension.values(mask)
        first[dimension.name] = next((value for value in values if value not in dimension.unmentioned), values[0])
    moment, project, scope = first.pop(WHEN), first.pop(PROJECT), first.pop(SCOPE)
    actor = first.setdefault(ACTOR, first.get(given.publisher.trust.itself or ACTOR))
    run = {**first, "actor_name": f"id {actor}", "subject": "example", "run": "1"}
    return Example(identity=telling(given.home, run), scope=scope, project=project, at=moment)
