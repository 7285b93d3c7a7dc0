"""The law of `broker plan`: it tells a difference exactly where some run is decided otherwise, found by trying all."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings

from broker.playground.ci import IssuerName
from broker.policy.model import Policies
from broker.policy.plan import Change, Plan, plan
from broker.providers import Identity
from broker.refusals import Refusal
from tests.fakes import NOW, granted
from tests.property.universes import MOMENTS, NAMES, every_run, signed, worlds

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

some = settings(
    max_examples=5000 if NIGHTLY else 100,  # each tries some thousand runs
    deadline=None,
    derandomize=not NIGHTLY,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def allowed(rules: Policies, run: Identity, now: float) -> frozenset[str]:
    """The projects of a small world that the exchange's own core grants."""
    if rules.issuers[run.issuer].disabled:
        return frozenset()
    try:
        return frozenset(filter(granted(rules, run, now=now).covers, NAMES))
    except Refusal:
        return frozenset()


def differences(old: Policies, new: Policies, runs: tuple[Identity, ...]) -> set[tuple[str, int, str]]:
    """('gained' or 'lost', which run, project) of every decision that differs at some moment."""
    found = set()
    for at, run in enumerate(runs):
        for now in MOMENTS:
            before, after = allowed(old, run, now), allowed(new, run, now)
            if before != after:
                found |= {("gained", at, name) for name in after - before}
                found |= {("lost", at, name) for name in before - after}
    return found


def tells(change: Change, effect: str, run: Identity, project: str) -> bool:
    return (
        change.effect == effect
        and change.publisher.trust.compare(run, {}) is None
        and any(pattern.covers(project) for pattern in change.publisher.projects)
        and run.actor_id in {told for member in change.members for told in member.ids.values()}
    )


def confirm(found: Plan, kind: IssuerName, old: Policies, new: Policies) -> None:
    """Each change that is told has a run that an issuer can sign, and that is decided otherwise."""
    for change in found.changes:
        example = change.example
        run = signed(kind, example.identity)
        before, after = (covers(rules, run, example.at, example.project) for rules in (old, new))
        assert (before, after) == ((False, True) if change.effect == "gained" else (True, False))


def covers(rules: Policies, run: Identity, now: float, project: str) -> bool:
    if rules.issuers[run.issuer].disabled:
        return False
    try:
        return granted(rules, run, now=now).covers(project)
    except Refusal:
        return False


@pytest.mark.parametrize("kind", ["github", "gitlab", "google"])
def test_a_plan_tells_a_difference_exactly_where_some_run_is_decided_otherwise(kind: IssuerName) -> None:
    seen = []

    @some
    @given(worlds(kind))
    def hold(world: tuple[tuple[str, ...], Policies, Policies]) -> None:
        fields, old, new = world
        found = plan(old, new, now=NOW)
        runs = every_run(kind, fields)
        differing = differences(old, new, runs)
        for effect, at, project in differing:
            assert any(tells(change, effect, runs[at], project) for change in found.changes), (effect, runs[at])
        confirm(found, kind, old, new)
        seen.append((bool(found.changes), bool(differing)))

    hold()
    assert {(True, True), (False, False)} <= set(seen)
