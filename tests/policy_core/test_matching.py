"""The two gates: each refusal by one change to a valid run, and what the grant holds where both agree."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from broker import refusals
from broker.policy.matching import (
    candidates,
    consider,
    find_issuer,
    grant,
    pinned_on_first_use,
    require_current,
    rights,
)
from broker.policy.model import Freeze, Member, Organization, Policies, is_past
from tests.fakes import (
    NOW,
    considered,
    granted,
    identity,
    issuer,
    member,
    organization,
    policies,
    projects,
    publisher,
    refused,
    trust,
)

TODAY = datetime.fromtimestamp(NOW, UTC).date()
"""2027-01-15"""
LAST_MOMENT = datetime(2027, 1, 15, 23, 59, 59, 999999, tzinfo=UTC).timestamp()
MIDNIGHT = datetime(2027, 1, 16, tzinfo=UTC).timestamp()

NO_IDS: Any = {"repository_id": ..., "repository_owner_id": ...}


def of(*members: Member, **changes: Any) -> Policies:
    """Acme with these members, and one publisher."""
    return policies(organization(members=members, **changes))


# --- Both gates agree ------------------------------------------------------------------------------------------------


def test_both_gates_open_for_a_bound_run_of_an_owner() -> None:
    earned = granted(policies(), identity())
    assert earned.projects == projects("acme-widgets")
    assert [one.id for one in earned.publishers] == ["acme/widgets-release"]
    assert (earned.members, earned.organizations) == (("acme/alice",), ("acme",))


def test_a_grant_covers_its_projects_alone() -> None:
    earned = granted(of(member(), publishers=(publisher(to=("acme-widgets", "acme-tools-*")),)), identity())
    assert [name for name in ("acme-widgets", "acme-tools-x") if earned.covers(name)] == [
        "acme-widgets",
        "acme-tools-x",
    ]
    assert not any(map(earned.covers, ("acme-widgets-x", "acme-tools", "acme", "other", "")))


# --- The issuer ------------------------------------------------------------------------------------------------------


def test_an_issuer_is_found_by_its_url_while_it_is_not_switched_off() -> None:
    on, off = issuer("github"), issuer("gitlab", disabled=True)
    rules = Policies(generation="g1", issuer_by_url={one.url: one for one in (on, off)})
    assert find_issuer(rules, on.url) is on
    with refused("issuer-disabled") as caught:
        find_issuer(rules, off.url)
    assert caught.value.detail == "the issuer 'gitlab' is switched off"
    with refused("unknown-issuer") as caught:
        find_issuer(rules, f"{on.url}/")
    assert caught.value.detail == f"the issuer '{on.url}/' is none that this index trusts"


# --- The first gate: publishers --------------------------------------------------------------------------------------


def test_with_no_policies_everything_is_denied() -> None:
    with refused("no-publisher"):
        granted(Policies(generation="none"), identity())


def test_a_publisher_of_another_issuer_is_not_even_looked_at() -> None:
    """A self-hosted issuer's token never meets a public publisher of the same name."""
    elsewhere = of(member(), publishers=(publisher(trusts=trust(issuer="github-acme")),))
    assert candidates(elsewhere, identity()) == ()
    with refused("no-publisher"):
        granted(elsewhere, identity())


def test_publishers_are_found_without_case() -> None:
    assert granted(policies(), identity(repository="ACME-Corp/Widgets")).members == ("acme/alice",)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"repository": "acme-corp/gadgets"}, "no-publisher"),
        ({"workflow_file": "ci.yml"}, "no-publisher"),
        ({"environment": "else"}, "no-publisher"),
        ({"ref": "refs/heads/main"}, "no-publisher"),
        ({"event_name": "schedule"}, "no-publisher"),
        ({"job_workflow_ref": "mallory/x/.github/workflows/x.yml@refs/heads/main"}, "no-publisher"),
        ({"repository_id": "9"}, "identity-changed"),
        ({"repository_owner_id": "9"}, "identity-changed"),
        ({"repository_id": "9", "workflow_file": "ci.yml"}, "identity-changed"),
    ],
)
def test_a_run_that_differs_in_one_thing_is_refused(changes: dict[str, Any], code: str) -> None:
    with refused(code):
        granted(policies(), identity(**changes))


def test_one_changed_identity_among_several_publishers_is_the_news() -> None:
    several = (publisher("a", trusts=trust(workflow="a.yml")), publisher("b", trusts=trust(repository_id="9")))
    with refused("identity-changed") as caught:
        granted(of(member(), publishers=several), identity())
    assert caught.value.expected == "acme/b: repository_id is '424242424', expected '9'"


def test_a_publisher_that_fits_is_enough_whatever_the_others_say() -> None:
    several = (publisher("a", trusts=trust(repository_id="9")), publisher("b"), publisher("c", until=date(2020, 1, 1)))
    assert [one.name for one in granted(of(member(), publishers=several), identity()).publishers] == ["b"]


def test_the_caller_hears_its_own_names_only() -> None:
    with refused("no-publisher") as caught:
        granted(policies(), identity(workflow_file="ci.yml"))
    assert caught.value.detail == "no publisher fits repository 'acme-corp/widgets' of issuer 'github'"
    with refused("identity-changed") as caught:
        granted(policies(), identity(repository_id="9"))
    assert caught.value.detail == "repository 'acme-corp/widgets' of issuer 'github' is not the one that was bound"


def test_what_was_expected_is_told_to_the_owner_whose_id_is_pinned() -> None:
    with refused("no-publisher") as caught:
        granted(policies(), identity(workflow_file="ci.yml"))
    assert caught.value.expected == "acme/widgets-release: workflow is 'ci.yml', expected 'release.yml'"


@pytest.mark.parametrize("changes", [{"repository_owner_id": "9"}, {"repository_owner_id": "9", "repository_id": "9"}])
def test_what_was_expected_is_told_to_nobody_else(changes: dict[str, Any]) -> None:
    with refused("identity-changed") as caught:
        granted(policies(), identity(**changes))
    assert caught.value.expected == ""


def test_each_organization_tells_only_those_whose_owner_it_pinned() -> None:
    ours = organization(publishers=(publisher(trusts=trust(workflow="a.yml")),))
    theirs = organization(
        "zenith",
        publishers=(
            publisher(organization="zenith", trusts=trust(workflow="z.yml", pin="first-use", repository_owner_id=...)),
        ),
    )
    with refused("no-publisher") as caught:
        granted(policies(ours, theirs), identity())
    assert caught.value.expected == "acme/widgets-release: workflow is 'release.yml', expected 'a.yml'"


def test_several_expectations_stand_side_by_side() -> None:
    several = (publisher("a", trusts=trust(workflow="a.yml")), publisher("b", trusts=trust(workflow="b.yml")))
    with refused("no-publisher") as caught:
        granted(of(member(), publishers=several), identity())
    assert caught.value.expected.count("; acme/b: ") == 1


# --- Its standing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "now", "past"),
    [
        (None, NOW, False),
        (TODAY, NOW, False),
        (TODAY, LAST_MOMENT, False),
        (TODAY, MIDNIGHT, True),
        (TODAY - timedelta(days=1), NOW, True),
        (TODAY + timedelta(days=1), MIDNIGHT, False),
    ],
)
def test_the_last_day_counts_whole_in_utc(until: date | None, now: float, past: bool) -> None:
    assert is_past(until, now) is past


def test_a_publisher_expires_at_the_end_of_its_last_day() -> None:
    rules = of(member(), publishers=(publisher(until=TODAY),))
    assert granted(rules, identity(), now=LAST_MOMENT).members == ("acme/alice",)
    with refused("publisher-expired") as caught:
        granted(rules, identity(), now=MIDNIGHT)
    assert caught.value.detail == "the publisher 'acme/widgets-release' was declared until 2027-01-15"


def test_a_suspended_organization_publishes_nothing() -> None:
    with refused("organization-suspended") as caught:
        granted(of(member(), suspended=True), identity())
    assert "'acme'" in caught.value.detail


def test_an_organization_in_standing_is_enough() -> None:
    both = policies(organization(suspended=True), organization("zenith"))
    assert granted(both, identity()).organizations == ("zenith",)


def test_an_expired_publisher_of_one_does_not_hide_the_suspension_of_another() -> None:
    old = publisher(until=date(2020, 1, 1))
    rules = policies(organization(publishers=(old,)), organization("zenith", suspended=True))
    with refused("organization-suspended") as caught:
        granted(rules, identity())
    assert "'zenith'" in caught.value.detail


# --- The second gate: membership -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"actor_id": "6666", "actor": "alice"},
        {"actor_id": "77"},
        {"actor_id": "01001"},
        {"actor_id": "10010"},
    ],
    ids=["another's id under a member's name", "a member's id elsewhere", "leading zero", "longer"],
)
def test_an_actor_is_known_by_the_immutable_id_at_that_issuer(changes: dict[str, Any]) -> None:
    with refused("unknown-actor"):
        granted(policies(), identity(**changes))


def test_a_renamed_member_is_the_same_member() -> None:
    assert granted(policies(), identity(actor="alice-renamed")).members == ("acme/alice",)


def test_a_members_id_counts_at_its_own_issuer_only() -> None:
    with refused("unknown-actor"):
        granted(of(member(ids={"github-acme": "1001"})), identity())


def test_a_member_of_another_organization_is_no_member() -> None:
    strangers = organization(members=(member("bob", ids={"github": "1002"}),))
    with refused("unknown-actor") as caught:
        granted(policies(strangers, organization("zenith", publishers=())), identity())
    assert caught.value.detail == "the actor 'alice' (github id 1001) is no member of 'acme'"


def test_an_organization_without_members_publishes_nothing() -> None:
    with refused("unknown-actor"):
        granted(of(), identity())


def test_a_suspended_member_publishes_nothing() -> None:
    with refused("member-suspended"):
        granted(of(member(suspended=True)), identity())


def test_a_membership_ends_at_the_end_of_its_last_day() -> None:
    rules = of(member(until=TODAY))
    assert granted(rules, identity(), now=LAST_MOMENT).members == ("acme/alice",)
    with refused("member-expired") as caught:
        granted(rules, identity(), now=MIDNIGHT)
    assert caught.value.detail.endswith("in 'acme' ended on 2027-01-15")


@pytest.mark.parametrize("changes", [{"event_name": "schedule"}, {"actor": "acme-release[bot]"}])
def test_a_run_without_a_human_needs_a_machine(changes: dict[str, Any]) -> None:
    publishers = (publisher(trusts=trust(events=("push", "schedule"))),)
    with refused("machine-required"):
        granted(of(member(), publishers=publishers), identity(**changes))
    assert granted(of(member(machine=True), publishers=publishers), identity(**changes)).members == ("acme/alice",)


def test_a_machine_may_also_press_buttons() -> None:
    assert granted(of(member(machine=True)), identity()).members == ("acme/alice",)


def test_what_is_wrong_with_a_member_is_told_in_this_order() -> None:
    publishers = (publisher(trusts=trust(events=("schedule",))),)
    worst: dict[str, Any] = {"suspended": True, "until": date(2020, 1, 1), "machine": False, "role": "member"}
    heard = []
    for mended in ({}, {"suspended": False}, {"until": None}, {"machine": True}):
        worst |= mended
        with pytest.raises(refusals.Refusal) as caught:
            granted(of(member(**worst), publishers=publishers), identity(event_name="schedule"))
        heard.append(caught.value.code)
    assert heard == ["member-suspended", "member-expired", "machine-required", "member-not-permitted"]


# --- Roles and rights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "uploads", "to", "earned"),
    [
        ("owner", (), ("acme-widgets",), ("acme-widgets",)),
        ("owner", ("acme-gadgets",), ("acme-widgets", "acme-x-*"), ("acme-widgets", "acme-x-*")),
        ("member", ("acme-widgets",), ("acme-widgets",), ("acme-widgets",)),
        ("member", ("acme-*",), ("acme-widgets",), ("acme-widgets",)),
        ("member", ("acme-widgets",), ("acme-*",), ("acme-widgets",)),
        ("member", ("acme-tools-*",), ("acme-*",), ("acme-tools-*",)),
        ("member", ("acme-*",), ("acme-tools-*",), ("acme-tools-*",)),
        ("member", ("acme-*",), ("acme-*",), ("acme-*",)),
        ("member", ("acme-a", "acme-b"), ("acme-b", "acme-c"), ("acme-b",)),
        ("member", (), ("acme-widgets",), None),
        ("member", ("acme-gadgets",), ("acme-widgets",), None),
        ("member", ("acme-widgets",), ("acme-widgets-*",), None),
        ("member", ("acme-widgets-*",), ("acme-widgets",), None),
        ("billing-manager", ("acme-*",), ("acme-widgets",), None),
        ("billing-manager", (), ("acme-widgets",), None),
    ],
)
def test_a_grant_is_what_publisher_and_member_both_have(
    role: Any, uploads: tuple[str, ...], to: tuple[str, ...], earned: tuple[str, ...] | None
) -> None:
    rules = of(member(role=role, uploads=uploads), publishers=(publisher(to=to),))
    if earned is None:
        with refused("member-not-permitted") as caught:
            granted(rules, identity())
        assert f"'alice' ({role})" in caught.value.detail
        assert "'acme/widgets-release'" in caught.value.detail
    else:
        assert granted(rules, identity()).projects == projects(*earned)


def test_an_unknown_role_earns_nothing() -> None:
    unknown: Any = "root"
    with refused("member-not-permitted"):
        granted(of(member(role=unknown, uploads=("acme-*",))), identity())


# --- To read ---------------------------------------------------------------------------------------------------------

LIB, WIDGETS = ("acme-lib",), ("acme-widgets",)


@pytest.mark.parametrize(
    ("role", "member_has", "publisher_has", "earned"),
    [
        ("owner", ((), ()), (WIDGETS, ()), WIDGETS),
        ("owner", ((), ()), (WIDGETS, LIB), ("acme-widgets", "acme-lib")),
        ("owner", ((), ()), ((), LIB), LIB),
        ("member", ((), WIDGETS), (WIDGETS, ()), WIDGETS),
        ("member", (WIDGETS, ()), (WIDGETS, ()), WIDGETS),
        ("member", (WIDGETS, ()), ((), WIDGETS), WIDGETS),
        ("member", (WIDGETS, LIB), (WIDGETS, LIB), ("acme-widgets", "acme-lib")),
        ("member", ((), ("acme-*",)), (WIDGETS, ("acme-lib-*",)), ("acme-widgets", "acme-lib-*")),
        ("member", ((), LIB), ((), ("acme-*",)), LIB),
        ("member", ((), LIB), (WIDGETS, ()), None),
        ("member", ((), ()), (WIDGETS, LIB), None),
        ("billing-manager", (("acme-*",), ("acme-*",)), (WIDGETS, LIB), None),
    ],
)
def test_a_grant_to_read_is_what_publisher_and_member_both_may_read(
    role: Any,
    member_has: tuple[tuple[str, ...], tuple[str, ...]],
    publisher_has: tuple[tuple[str, ...], tuple[str, ...]],
    earned: tuple[str, ...] | None,
) -> None:
    """Each has what it may upload to, and what it may read beside that."""
    uploads, downloads = member_has
    to, beside = publisher_has
    rules = of(
        member(role=role, uploads=uploads, downloads=downloads), publishers=(publisher(to=to, downloads=beside),)
    )
    if earned is None:
        with refused("member-not-permitted") as caught:
            granted(rules, identity(), scope="read")
        assert caught.value.detail == (
            f"the member 'alice' ({role}) may read none of the projects of 'acme/widgets-release'"
        )
    else:
        assert granted(rules, identity(), scope="read").projects == projects(*earned)


def test_what_may_be_read_may_not_be_uploaded_to() -> None:
    reader = member(role="member", uploads=LIB, downloads=WIDGETS)
    with refused("member-not-permitted") as caught:
        granted(of(reader, publishers=(publisher(downloads=LIB),)), identity())
    assert caught.value.detail == (
        "the member 'alice' (member) may upload to none of the projects of 'acme/widgets-release'"
    )
    owned = of(member(), publishers=(publisher(downloads=LIB),))
    assert granted(owned, identity()).projects == projects("acme-widgets")


def test_a_publisher_that_only_reads_publishes_nothing() -> None:
    reads = publisher("build", to=(), downloads=LIB)
    with refused("publisher-reads-only") as caught:
        granted(of(member(), publishers=(reads,)), identity())
    assert caught.value.detail == "the publisher 'acme/build' may read, and publishes nothing"


def test_one_that_only_reads_does_not_hide_what_is_wrong_with_one_that_publishes() -> None:
    reads = publisher("build", to=(), downloads=LIB)
    old = publisher(until=date(2020, 1, 1))
    with refused("publisher-expired") as caught:
        granted(of(member(), publishers=(reads, old)), identity())
    assert "'acme/widgets-release'" in caught.value.detail
    with refused("member-not-permitted"):
        granted(of(member(role="member"), publishers=(reads, publisher())), identity())
    assert [one.name for one in granted(of(member(), publishers=(reads, publisher())), identity()).publishers] == [
        "widgets-release"
    ]


def test_that_it_only_reads_is_told_before_its_time_is_asked() -> None:
    reads = publisher(to=(), downloads=LIB, until=date(2020, 1, 1))
    with refused("publisher-reads-only"):
        granted(of(member(), publishers=(reads,)), identity())
    with refused("publisher-expired"):
        granted(of(member(), publishers=(reads,)), identity(), scope="read")


def test_a_freeze_does_not_stop_reads() -> None:
    frozen = replace(organization(), freezes=(Freeze(reason="year end"),))
    assert granted(policies(frozen), identity(), scope="read").projects == projects("acme-widgets")
    with refused("organization-frozen"):
        granted(policies(frozen), identity())


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        (of(member(), publishers=()), "no-publisher"),
        (of(member(), publishers=(publisher(trusts=trust(repository_id="9")),)), "identity-changed"),
        (of(member(), publishers=(publisher(until=date(2020, 1, 1)),)), "publisher-expired"),
        (of(member(), suspended=True), "organization-suspended"),
        (of(member(ids={"github": "5"})), "unknown-actor"),
        (of(member(suspended=True)), "member-suspended"),
        (of(member(until=date(2020, 1, 1))), "member-expired"),
    ],
)
def test_all_else_that_stops_uploads_stops_reads(rules: Policies, code: str) -> None:
    with refused(code):
        granted(rules, identity(), scope="read")
    with refused(code):
        granted(rules, identity())


def test_a_run_without_a_human_needs_a_machine_to_read_too() -> None:
    publishers = (publisher(trusts=trust(events=("schedule",))),)
    with refused("machine-required"):
        granted(of(member(), publishers=publishers), identity(event_name="schedule"), scope="read")


def test_who_asks_for_nothing_else_asks_to_upload() -> None:
    who, rules = identity(), of(member(), publishers=(publisher(downloads=LIB),))
    found = considered(rules, who)
    assert grant(rules, who, found, NOW) == grant(rules, who, found, NOW, "upload")
    alice, bound = member(), publisher(downloads=LIB)
    assert rights(alice, bound) == rights(alice, bound, "upload") == projects("acme-widgets")
    assert rights(alice, bound, "read") == projects("acme-widgets", "acme-lib")


# --- Several publishers, several organizations -----------------------------------------------------------------------


def test_a_grant_is_the_union_over_publishers() -> None:
    several = (publisher("a", to=("acme-a",)), publisher("b", to=("acme-b", "acme-a")), publisher("c", to=("acme-c",)))
    bob = member("bob", "member", uploads=("acme-a", "acme-b"))
    earned = granted(of(bob, publishers=several), identity())
    assert earned.projects == projects("acme-a", "acme-b")
    assert [one.name for one in earned.publishers] == ["a", "b"], "c gave nothing"
    assert earned.members == ("acme/bob",)


def zenith(*members: Member, **changes: Any) -> Organization:
    return organization(
        "zenith", members=members, publishers=(publisher(organization="zenith", to=("zenith-x",)),), **changes
    )


def test_two_organizations_each_give_what_is_theirs() -> None:
    earned = granted(policies(organization(), zenith(member("alicia"))), identity())
    assert earned.projects == projects("acme-widgets", "zenith-x")
    assert earned.members == ("acme/alice", "zenith/alicia")
    assert earned.organizations == ("acme", "zenith")
    assert earned.given_by("acme") == projects("acme-widgets")
    assert earned.given_by("zenith") == projects("zenith-x")
    assert earned.given_by("bolt") == frozenset()


def test_what_several_publishers_of_one_organization_gave_is_told_together() -> None:
    several = (publisher("a", to=("acme-a",)), publisher("b", to=("acme-b",)))
    earned = granted(of(member(), publishers=several), identity())
    assert earned.given == (projects("acme-a"), projects("acme-b"))
    assert earned.given_by("acme") == projects("acme-a", "acme-b")


def test_rights_in_one_organization_are_none_in_another() -> None:
    """An owner of zenith who is only a member of acme gets nothing of acme by it."""
    acme = organization(members=(member("alice", "member", uploads=("zenith-x",)),))
    earned = granted(policies(acme, zenith(member())), identity())
    assert earned.projects == projects("zenith-x")
    assert earned.organizations == ("zenith",)


@pytest.mark.parametrize(
    ("other", "code"),
    [
        (zenith(), "unknown-actor"),
        (zenith(member(until=date(2020, 1, 1))), "member-expired"),
        (zenith(member(suspended=True)), "member-suspended"),
        (zenith(member(role="member")), "member-not-permitted"),
    ],
    ids=["unknown", "expired", "suspended", "no rights"],
)
def test_the_refusal_that_came_nearest_to_a_yes_is_told(other: Organization, code: str) -> None:
    stranger = organization(members=())
    for rules in (policies(stranger, other), policies(other, stranger)):
        with refused(code):
            granted(rules, identity())


def test_refusals_by_how_near_they_came() -> None:
    members = {
        "unknown-actor": (),
        "member-expired": (member(until=date(2020, 1, 1), machine=True),),
        "member-suspended": (member(suspended=True, machine=True),),
        "machine-required": (member(),),
        "member-not-permitted": (member(role="member", machine=True),),
    }
    schedule = trust(events=("schedule",))
    organizations = [
        organization(f"o{place}", members=some, publishers=(publisher(organization=f"o{place}", trusts=schedule),))
        for place, some in enumerate(members.values())
    ]
    for place, code in enumerate(members):
        for first in range(place + 1):
            for pair in ((first, place), (place, first)):
                with refused(code):
                    granted(
                        policies(*(organizations[one] for one in dict.fromkeys(pair))), identity(event_name="schedule")
                    )


# --- Pins ------------------------------------------------------------------------------------------------------------

PINNED = of(member(), publishers=(publisher(trusts=trust(pin="first-use", **NO_IDS)), publisher("second")))
PINS = {"acme/widgets-release": {"repository_id": "424242424", "repository_owner_id": "65600975"}}


def test_pins_are_looked_up_only_for_publishers_that_pin() -> None:
    assert pinned_on_first_use(candidates(PINNED, identity())) == ("acme/widgets-release",)
    assert pinned_on_first_use(candidates(policies(), identity())) == ()


def test_the_first_use_fits_any_id_and_later_ones_the_first() -> None:
    anyone = identity(repository_id="9", repository_owner_id="8")
    assert [one.name for one in granted(PINNED, anyone).publishers] == ["widgets-release"]
    assert [one.name for one in granted(PINNED, identity(), PINS).publishers] == ["widgets-release", "second"]
    with refused("identity-changed"):
        granted(PINNED, anyone, PINS)


def test_pins_of_another_publisher_do_not_count() -> None:
    pins = {"zenith/widgets-release": {"repository_id": "9", "repository_owner_id": "9"}}
    assert [one.name for one in granted(PINNED, identity(), pins).publishers] == ["widgets-release", "second"]


# --- What is recorded ------------------------------------------------------------------------------------------------


def test_each_candidate_is_looked_at_and_says_why_not() -> None:
    several = (publisher("a"), publisher("b", trusts=trust(environment="prod")))
    seen = considered(of(member(), publishers=several), identity())
    assert list(map(str, seen)) == ["acme/a: matches", "acme/b: environment is 'pypi', expected 'prod'"]


def test_what_was_considered_decides_and_nothing_else() -> None:
    """`grant` does not look publishers up again."""
    who = identity()
    with refused("no-publisher"):
        grant(policies(), who, (), NOW)
    assert grant(policies(), who, consider(candidates(policies(), who), who, {}), NOW).organizations == ("acme",)


# --- Policies that nobody could load any more ------------------------------------------------------------------------


@pytest.mark.parametrize(("denied_from", "stale"), [(None, False), (NOW + 0.5, False), (NOW, True), (NOW - 1, True)])
def test_policies_decide_until_the_moment_from_which_they_deny(denied_from: float | None, stale: bool) -> None:
    stood = replace(policies(), denied_from=denied_from)
    if not stale:
        require_current(stood, NOW)
        return
    with refused("policies-stale"):
        require_current(stood, NOW)
