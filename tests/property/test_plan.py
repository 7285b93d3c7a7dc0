"""The law of `broker plan`: it tells a difference exactly where some run is decided otherwise, found by trying all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import product
from typing import Final, get_args

import pytest
from hypothesis import HealthCheck, given, settings

from broker.patterns import Projects
from broker.playground.ci import IssuerName
from broker.policy.matching import grant
from broker.policy.model import Policies, Scope
from broker.policy.plan import Change, Plan, plan
from broker.providers import Identity
from broker.refusals import Refusal
from tests.fakes import NOW, considered, granted
from tests.property.universes import MOMENTS, NAMES, every_run, signed, worlds

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

some = settings(
    max_examples=5000 if NIGHTLY else 20,  # each tries some thousand runs
    deadline=None,
    derandomize=not NIGHTLY,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


def allowed(rules: Policies, run: Identity) -> Iterator[frozenset[str]]:
    """At each moment, to upload and to read: the projects of a small world that the exchange's own core grants."""
    found = considered(rules, run)
    for now, scope in product(MOMENTS, SCOPES):
        try:
            earned = grant(rules, run, found, now, scope)
        except Refusal:
            yield frozenset()
        else:
            yield frozenset() if rules.issuers[run.issuer].disabled else frozenset(filter(earned.covers, NAMES))


Difference = tuple[str, int, Scope, str]
"""'gained' or 'lost', which run, to do what, with which project."""


def differences(old: Policies, new: Policies, runs: tuple[Identity, ...]) -> set[Difference]:
    """Every decision that differs at some moment."""
    found: set[Difference] = set()
    for at, run in enumerate(runs):
        decided = zip(product(MOMENTS, SCOPES), allowed(old, run), allowed(new, run), strict=True)
        for (_, scope), before, after in decided:
            if before != after:
                found |= {("gained", at, scope, name) for name in after - before}
                found |= {("lost", at, scope, name) for name in before - after}
    return found


def tells(change: Change, effect: str, run: Identity, scope: Scope, project: str) -> bool:
    publisher = change.publisher
    return (
        change.effect == effect
        and scope in change.scopes
        and publisher.trust.compare(run, {}) is None
        and any(
            pattern.covers(project)
            for pattern in (publisher.projects | publisher.downloads if scope == "read" else publisher.projects)
        )
        and run.actor_id in {told for member in change.members for told in member.ids.values()}
    )


def confirm(found: Plan, kind: IssuerName, old: Policies, new: Policies) -> None:
    """Each change has a run that an issuer can sign, and that is decided otherwise for all projects that are told."""
    for change in found.changes:
        example = change.example
        run = signed(kind, example.identity)
        for scope in change.scopes:
            for project in {example.project, *filter(told_whole(change), NAMES)}:
                before, after = (covers(rules, run, example.at, scope, project) for rules in (old, new))
                assert (before, after) == ((False, True) if change.effect == "gained" else (True, False))
        assert example.scope in change.scopes


def told_whole(change: Change) -> Callable[[str], bool]:
    """Whether a name is among the projects that a change tells; those that it tells a part of are left out."""
    patterns = [Projects.parse(told) for told in change.projects if "(" not in told]
    return lambda name: any(one.covers(name) for one in patterns)


def covers(rules: Policies, run: Identity, now: float, scope: Scope, project: str) -> bool:
    if rules.issuers[run.issuer].disabled:
        return False
    try:
        return granted(rules, run, now=now, scope=scope).covers(project)
    except Refusal:
        return False


@pytest.mark.parametrize("kind", ["github", "gitlab", "google"])
def test_a_plan_tells_a_difference_exactly_where_some_run_is_decided_otherwise(kind: IssuerName) -> None:
    seen: list[tuple[bool, bool]] = []
    alone: set[tuple[Scope, ...]] = set()

    @some
    @given(worlds(kind))
    def hold(world: tuple[tuple[str, ...], Policies, Policies]) -> None:
        fields, old, new = world
        found = plan(old, new, now=NOW)
        runs = every_run(kind, fields)
        differing = differences(old, new, runs)
        for effect, at, scope, project in differing:
            told = (tells(change, effect, runs[at], scope, project) for change in found.changes)
            assert any(told), (effect, runs[at], scope)
        confirm(found, kind, old, new)
        seen.append((bool(found.changes), bool(differing)))
        alone.update(change.scopes for change in found.changes)

    hold()
    assert {(True, True), (False, False)} <= set(seen)
    assert alone == {("upload",), ("read",), ("upload", "read")}, "each is met by itself, and both together"
