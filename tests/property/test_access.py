"""Laws of access: what is pinned is asked, whatever the provider, and nothing that is added takes any away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.playground.ci import IssuerName
from broker.policy.plan import plan
from broker.policy.values import telling
from broker.providers import PROVIDERS
from tests.fakes import NOW, identity, organization, policies
from tests.property.test_publishers import made_from
from tests.property.universes import worlds


@pytest.mark.parametrize("kind", list(PROVIDERS))
def test_changing_any_one_thing_that_is_pinned_refuses(kind: IssuerName) -> None:
    run = identity(kind)
    publisher = made_from(kind, run)
    assert publisher.compare(run, {}) is None
    for rule in publisher.rules:
        value = run.told(rule.of)
        if value is None:  # nothing is pinned then
            continue
        others: tuple[Any, ...] = (f"{value}0", f"0{value}", "")
        for other in (not value, None) if isinstance(value, bool) else others:
            mismatch = publisher.compare(telling(run, {rule.of: other}), {})
            assert mismatch is not None, (rule.field, other)
            assert mismatch.rule is rule


@pytest.mark.parametrize("kind", ["github", "gitlab", "google"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_adding_a_publisher_or_a_member_never_removes_access(kind: IssuerName, data: st.DataObject) -> None:
    """Asked of the plan, which is held to trying everything by its own law."""
    _, one, other = data.draw(worlds(kind))
    more = {
        name: organization(
            name,
            members=tuple({**other.organizations[name].members, **mine.members}.values()),
            publishers=tuple({**other.organizations[name].publishers, **mine.publishers}.values()),
            suspended=mine.suspended,
        )
        for name, mine in one.organizations.items()
    }
    found = plan(one, replace(policies(*more.values()), issuers=one.issuers, issuer_by_url=one.issuer_by_url), now=NOW)
    assert [change for change in found.changes if change.effect == "lost"] == []
