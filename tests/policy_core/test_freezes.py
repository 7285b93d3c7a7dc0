"""A frozen organization publishes nothing meanwhile; and how long what it publishes with may live."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from broker.policy.model import Freeze, Organization, Policies
from tests.fakes import NOW, granted, identity, member, organization, policies, publisher, refused

LATER = datetime(2027, 1, 16, tzinfo=UTC).timestamp()


def frozen(*freezes: Freeze, name: str = "acme") -> Organization:
    return replace(organization(name), freezes=freezes)


def freeze(reason: str = "year end", begins: float = NOW - 10, ends: float = LATER, **changes: bool) -> Freeze:
    return Freeze(reason=reason, begins=begins, ends=ends, **changes)


@pytest.mark.parametrize(
    ("begins", "ends", "holds"),
    [
        (-math.inf, math.inf, True),
        (NOW, math.inf, True),
        (NOW + 0.5, math.inf, False),
        (-math.inf, NOW, False),
        (-math.inf, NOW + 0.5, True),
        (NOW, NOW + 0.5, True),
        (NOW - 2, NOW - 1, False),
        (NOW + 1, NOW + 2, False),
    ],
)
def test_a_freeze_holds_from_its_first_moment_to_the_one_before_its_end(
    begins: float, ends: float, holds: bool
) -> None:
    assert freeze(begins=begins, ends=ends).holds(NOW) is holds


def test_a_freeze_without_times_holds_always() -> None:
    assert [Freeze(reason="x").holds(now) for now in (0, NOW, 1e12)] == [True] * 3
    assert Freeze(reason="x").by_operator is False


def test_of_several_freezes_the_one_that_ends_last_is_told() -> None:
    short, long, over = freeze("short"), freeze("long", ends=LATER + 1), freeze("over", ends=NOW)
    for several in ((short, long, over), (over, long, short)):
        assert frozen(*several).freeze(NOW) == long
        assert frozen(*several).freeze(LATER) == long
        assert frozen(*several).freeze(LATER + 1) is None
    assert organization().freeze(NOW) is None


@pytest.mark.parametrize(
    ("declared", "detail"),
    [
        (freeze(), "is frozen by its admins until 2027-01-16 00:00:00 UTC: year end"),
        (freeze(ends=LATER + 3661), "is frozen by its admins until 2027-01-16 01:01:01 UTC: year end"),
        (freeze(ends=math.inf), "is frozen by its admins until further notice: year end"),
        (freeze(by_operator=True), "is frozen by the index operator until 2027-01-16 00:00:00 UTC: year end"),
    ],
)
def test_a_frozen_organization_says_by_whom_until_when_and_why(declared: Freeze, detail: str) -> None:
    with refused("organization-frozen") as caught:
        granted(policies(frozen(declared)), identity())
    assert caught.value.detail == f"the organization 'acme' {detail}"
    assert caught.value.expected == ""


def test_before_and_after_it_publishes_as_ever() -> None:
    rules = policies(frozen(freeze(begins=NOW, ends=LATER)))
    for now in (NOW - 1, LATER):
        assert granted(rules, identity(), now=now) == granted(policies(), identity(), now=now)


def test_one_that_is_not_frozen_is_enough() -> None:
    """A run that fits publishers of two organizations still gets the other's grant."""
    both = policies(frozen(freeze()), organization("zenith"))
    assert granted(both, identity()).organizations == ("zenith",)


def test_the_first_of_several_that_are_frozen_is_told() -> None:
    with refused("organization-frozen") as caught:
        granted(policies(frozen(freeze("a")), frozen(freeze("z"), name="zenith")), identity())
    assert caught.value.detail.startswith("the organization 'acme'")


def test_a_run_that_fits_no_publisher_does_not_hear_of_it() -> None:
    """Why an organization pauses is for its own runs."""
    for changes, code in (({"workflow_file": "ci.yml"}, "no-publisher"), ({"repository_id": "9"}, "identity-changed")):
        with refused(code) as caught:
            granted(policies(frozen(freeze())), identity(**changes))
        assert "year end" not in caught.value.detail + caught.value.expected


def test_it_is_asked_behind_the_publisher_s_time_and_the_suspension_and_before_membership() -> None:
    old = organization(publishers=(publisher(until=date(2020, 1, 1)),))
    stranger = organization(members=(member(ids={"github": "5"}),))
    for one, code in (
        (old, "publisher-expired"),
        (organization(suspended=True), "organization-suspended"),
        (stranger, "organization-frozen"),
    ):
        with refused(code):
            granted(policies(replace(one, freezes=(freeze(),))), identity())


def test_a_suspension_elsewhere_does_not_hide_a_freeze() -> None:
    with refused("organization-frozen") as caught:
        granted(policies(organization(suspended=True), frozen(freeze(), name="zenith")), identity())
    assert "'zenith'" in caught.value.detail


# --- How long a token lives ------------------------------------------------------------------------------------------


def lasting(default: int, **seconds: int) -> Policies:
    """Organizations that let their tokens live so long."""
    rules = policies(*(replace(organization(name), lifetime_seconds=most) for name, most in seconds.items()))
    return replace(rules, default_lifetime_seconds=default)


@pytest.mark.parametrize(
    ("default", "seconds", "lives"),
    [
        (900, {"acme": 900}, 900),
        (3600, {"acme": 21600}, 3600),
        (3600, {"acme": 1800}, 1800),
        (3600, {"acme": 1800, "zenith": 900}, 900),
        (3600, {"acme": 900, "zenith": 1800}, 900),
        (1200, {"acme": 1800, "zenith": 2400}, 1200),
    ],
)
def test_the_shortest_of_the_index_s_and_of_all_organizations_in_the_grant_counts(
    default: int, seconds: dict[str, int], lives: int
) -> None:
    assert granted(lasting(default, **seconds), identity()).lifetime_seconds == lives


def test_an_organization_that_gives_nothing_does_not_shorten_it() -> None:
    rules = lasting(3600, acme=1800, zenith=900)
    closed = replace(rules.organizations["zenith"], freezes=(freeze(),))
    rules = replace(rules, organizations={**rules.organizations, "zenith": closed})
    assert granted(rules, identity()).lifetime_seconds == 1800


def test_an_organization_that_says_nothing_lets_tokens_live_as_long_as_any_may() -> None:
    assert organization().lifetime_seconds == 6 * 3600
    assert organization().freezes == ()
