"""Laws of freezes and ceilings: both only ever take access away, and a freeze exactly within its time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.playground.ci import IssuerName
from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from broker.policy.matching import Grant
from broker.policy.model import Freeze, Policies
from broker.refusals import Refusal
from tests.fakes import NOW, granted, identity, organization, policies
from tests.harness import ACME, INDEX
from tests.policy.example import write

moments = st.integers(int(NOW) - 3, int(NOW) + 3).map(float)
ends = st.one_of(moments, st.just(float("inf")), st.just(float("-inf")))
freezes = st.builds(Freeze, reason=st.just("year end"), begins=ends, ends=ends, by_operator=st.booleans())


def decided(rules: Policies, kind: IssuerName = "github", now: float = NOW, **changes: Any) -> Grant | str:
    """What is granted, or the refusal's code."""
    try:
        return granted(rules, identity(kind, **changes), now=now)
    except Refusal as refusal:
        return refusal.code


@given(st.lists(freezes, max_size=3), moments)
def test_a_frozen_organization_grants_nothing_within_and_the_same_without(several: list[Freeze], now: float) -> None:
    rules = policies(replace(organization(), freezes=tuple(several)))
    frozen = any(one.begins <= now < one.ends for one in several)
    assert decided(rules, now=now) == ("organization-frozen" if frozen else decided(policies(), now=now))


@given(st.lists(freezes, max_size=3), freezes, moments)
def test_another_freeze_never_adds_access(several: list[Freeze], another: Freeze, now: float) -> None:
    fewer = policies(replace(organization(), freezes=tuple(several)))
    more = policies(replace(organization(), freezes=(another, *several)))
    assert decided(more, now=now) in {"organization-frozen", decided(fewer, now=now)}


days = st.dates(date(2027, 1, 10), date(2027, 1, 20))


@given(days, days, st.integers(0, 12 * 24), st.booleans())
def test_days_in_a_file_freeze_from_midnight_to_midnight(
    first: date, last: date, hours: int, by_operator: bool
) -> None:
    assume(first <= last)
    line = f"freezes: [{{from: {first}, until: {last}, reason: year end}}]\n"
    index, acme = (INDEX + line, ACME) if by_operator else (INDEX, ACME + line)
    now = datetime(2027, 1, 9, tzinfo=UTC) + timedelta(hours=hours)
    told = decided(loaded(index, acme), now=now.timestamp())
    assert (told == "organization-frozen") == (first <= now.date() <= last)


# --- Ceilings --------------------------------------------------------------------------------------------------------

RUNS: list[tuple[IssuerName, dict[str, Any]]] = [
    *(("github", {"event_name": event}) for event in ("push", "release", "workflow_dispatch")),
    ("github", {"environment": "staging"}),
    ("github", {"repository_id": "9"}),
    *(("gitlab", {"pipeline_source": source}) for source in ("push", "web", "api")),
    ("google", {}),
]

LEVEL: dict[str, st.SearchStrategy[Any]] = {
    "lifetime": st.sampled_from(["15m", "20m", "30m", "1h"]),
    "issuers": st.lists(st.sampled_from(["github", "gitlab", "google"]), min_size=1, max_size=3, unique=True),
    "events": st.lists(st.sampled_from(["push", "release", "workflow_dispatch", "schedule"]), min_size=1, unique=True),
    "pipeline_sources": st.lists(st.sampled_from(["push", "web", "api"]), min_size=1, unique=True),
    "required": st.lists(st.sampled_from(["ids", "environment", "refs", "until", "ref_protected"]), unique=True),
}
levels = st.fixed_dictionaries({}, optional=LEVEL)
ceilings = st.builds(lambda every, own: {**every, "organizations": {"acme": own}}, levels, levels)


def loaded(index: str, acme: str) -> Policies:
    with TemporaryDirectory() as place:
        return load(write(Path(place), {"index.yaml": index, "organizations/acme.yaml": acme}))


def outcome(ceilings: dict[str, Any]) -> Policies | PolicyErrors:
    """The policies with these ceilings, or why there are none."""
    try:
        return loaded(LONG + yaml.safe_dump({"ceilings": ceilings}), ACME)
    except PolicyErrors as mistakes:
        return mistakes


LONG = INDEX + "lifetime: {default: 30m, longest: 2h}\n"
BEFORE = loaded(LONG, ACME)
UNBOUND = [decided(BEFORE, kind, **changes) for kind, changes in RUNS]


def test_the_runs_are_not_all_refused() -> None:
    """Or the law below would say nothing."""
    assert sum(isinstance(one, Grant) for one in UNBOUND) == 6


@given(ceilings)
def test_a_ceiling_never_adds_access(said: dict[str, Any]) -> None:
    """It is a mistake of somebody's, or each run gets what it got, or less, for as long, or shorter."""
    after = outcome(said)
    if isinstance(after, PolicyErrors):
        assert all("index.yaml" in one.what for one in after.errors)  # each names what stands above it
        return
    for (kind, changes), unbound in zip(RUNS, UNBOUND, strict=True):
        bound = decided(after, kind, **changes)
        if isinstance(unbound, str):
            assert bound == unbound
        elif isinstance(bound, Grant):
            assert bound.projects <= unbound.projects
            assert 900 <= bound.lifetime_seconds <= unbound.lifetime_seconds
        else:
            assert bound == "no-publisher"


@given(levels, levels)
def test_with_a_narrower_level_below_no_more_is_allowed(every: dict[str, Any], own: dict[str, Any]) -> None:
    """What loads below two levels loads below the first alone, and gets no less there."""
    first, both = outcome(every), outcome({**every, "organizations": {"acme": own}})
    if isinstance(both, PolicyErrors):
        return
    assert isinstance(first, Policies)
    for kind, changes in RUNS:
        wide, narrow = (decided(rules, kind, **changes) for rules in (first, both))
        if isinstance(narrow, Grant):
            assert isinstance(wide, Grant)
            assert narrow.projects <= wide.projects
            assert narrow.lifetime_seconds <= wide.lifetime_seconds
