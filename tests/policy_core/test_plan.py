"""What a plan tells of each kind of edit, in its words; that it tells neither more nor less is a property."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from broker.cli.plan_text import MOST_LINES, as_markdown, as_text
from broker.policy.model import Freeze, Member, Policies, Publisher
from broker.policy.plan import plan
from tests.fakes import NOW, issuer, member, organization, policies, projects, publisher, trust

NONE = policies(organization(publishers=()))
PIN: dict[str, Any] = {"repository_id": ..., "pin": "first-use"}
JOB = "x/y/.github/workflows/f.yml@refs/heads/a"
GOOGLE = "112233445566778899"

IT = "from github acme-corp/widgets, workflow release.yml, environment pypi, refs refs/tags/v*"
FIRST, NOBODY = ", whoever has these names first", ", in runs that nobody started"
PUSH, EVENTS = "events push", "events push or schedule"
GAINED = "- alice (owner) can now publish and read acme-widgets"
LOST = "- alice (owner) can no longer publish or read acme-widgets"


def bound(*trusts: Any, **changes: Any) -> Policies:
    """Acme, with a publisher for each of these: p0, p1, ...; valid ones, but for the changes."""
    several = tuple(publisher(f"p{at}", trusts=one, **changes) for at, one in enumerate(trusts or (trust(),)))
    return policies(organization(publishers=several))


def people(
    *members: Member, to: tuple[str, ...] = ("acme-widgets",), downloads: tuple[str, ...] = (), **changes: Any
) -> Policies:
    """Acme with these members and one publisher, that also a schedule may start."""
    return policies(
        organization(
            members=members,
            publishers=(publisher("p0", trusts=trust(events=("push", "schedule")), to=to, downloads=downloads),),
            **changes,
        )
    )


def told(old: Policies, new: Policies) -> list[str]:
    """The lines of the changes."""
    found = replace(plan(old, new, now=NOW), settings=())
    return [line for line in as_text(found).splitlines() if line.startswith("- ")]


def switched(old: Policies, **changes: Any) -> Policies:
    """The same, with GitHub's issuer changed."""
    issuers = {**old.issuers, "github": issuer(**changes)}
    return replace(old, issuers=issuers, issuer_by_url={one.url: one for one in issuers.values()})


@pytest.mark.parametrize(
    ("new", "lines"),
    [
        (bound(), []),
        (NONE, [f"{LOST} {IT} (acme/p0)"]),
        (bound(trust(environment="PyPI", repository="ACME-corp/Widgets")), []),
        (bound(trust(events=("push", "release", "workflow_dispatch"))), []),
        (bound(trust(refs=["refs/tags/v*", "refs/tags/v1"])), []),
        (bound(trust(), trust(workflow="b.yml")), [f"{GAINED} {IT.replace('release', 'b')} (acme/p1)"]),
        (
            bound(trust(environment=...)),
            [f"{GAINED} {IT.replace('environment pypi', 'any environment but pypi')} (acme/p0)"],
        ),
        (
            bound(trust(environment="test")),
            [f"{GAINED} {IT.replace('pypi', 'test')} (acme/p0)", f"{LOST} {IT} (acme/p0)"],
        ),
        (
            bound(trust(refs=["refs/heads/main", "refs/tags/v*"])),
            [f"{GAINED} {IT.replace('refs/tags/v*', 'refs/heads/main')} (acme/p0)"],
        ),
        (
            bound(trust(refs=["refs/tags/*"])),
            [f"{GAINED} {IT.replace('refs/tags/v*', 'refs/tags/* but not refs/tags/v*')} (acme/p0)"],
        ),
        (bound(trust(refs=...)), [f"{GAINED} {IT.replace('refs refs', 'any refs but refs')} (acme/p0)"]),
        (bound(trust(ref_protected=True)), [f"{LOST} {IT}, ref_protected false or absent (acme/p0)"]),
        (
            bound(trust(events=("push",))),
            [f"{LOST} {IT}, events release or workflow_dispatch (acme/p0)"],
        ),
        (
            bound(trust(events=("push", "release", "workflow_dispatch", "repository_dispatch"))),
            [f"{GAINED} {IT}, events repository_dispatch (acme/p0)"],
        ),
        (
            bound(trust(job_workflow=JOB)),
            [
                f"{GAINED} {IT.replace(', env', f', job_workflow {JOB}, env')} (acme/p0)",
                f"{LOST} {IT} (acme/p0)",
            ],
        ),
        (
            bound(trust(repository_id="5")),
            [
                f"{GAINED} {IT.replace(', work', ', repository_id 5, work')} (acme/p0)",
                f"{LOST} {IT.replace(', work', ', repository_id 424242424, work')} (acme/p0)",
            ],
        ),
        (
            bound(trust(**PIN)),
            [
                f"{GAINED} {IT.replace(', work', ', any repository_id but 424242424, work')}{FIRST} (acme/p0)",
            ],
        ),
        (
            bound(to=("acme-*",)),
            [
                f"{GAINED.replace('widgets', '*')} (such as acme-any, without acme-widgets) {IT} (acme/p0)",
            ],
        ),
        (
            bound(to=("acme-widgets", "acme-tools")),
            [f"- alice (owner) can now publish and read acme-tools {IT} (acme/p0)"],
        ),
        (bound(until=date(2027, 1, 20)), [f"{LOST} {IT}; from 2027-01-21 (acme/p0)"]),
        (bound(until=date(2027, 1, 14)), [f"{LOST} {IT} (acme/p0)"]),
        (bound(until=date.max), []),
        (switched(bound(), disabled=True), [f"{LOST} {IT} (acme/p0)"]),
        (switched(bound(), url="https://ci.example"), [f"{GAINED} {IT} (acme/p0)", f"{LOST} {IT} (acme/p0)"]),
        (switched(bound(), algorithms=("ES256",)), []),
    ],
)
def test_publishers_and_issuers(new: Policies, lines: list[str]) -> None:
    assert told(bound(), new) == lines


ALICE, BOT = member(), member("bot", "member", ids={"github": "7"}, machine=True, uploads=("acme-widgets",))


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (people(ALICE), people(member("alicia")), []),
        (people(ALICE), people(member(ids={"gitlab": "77"})), [f"{LOST} {IT}, events push (acme/p0)"]),
        (
            people(ALICE),
            people(ALICE, BOT),
            [f"- bot (machine, member) can now publish and read acme-widgets {IT}, {EVENTS} (acme/p0)"],
        ),
        (
            people(ALICE),
            people(member(machine=True)),
            [
                f"- alice (machine, owner) can now publish and read acme-widgets {IT}, {EVENTS}{NOBODY} (acme/p0)",
            ],
        ),
        (
            people(member(machine=True)),
            people(),
            [f"- alice (machine, owner) can no longer publish or read acme-widgets {IT}, {EVENTS} (acme/p0)"],
        ),
        (people(ALICE), people(ALICE, suspended=True), [f"{LOST} {IT}, events push (acme/p0)"]),
        (people(ALICE), people(member(role="billing-manager")), [f"{LOST} {IT}, events push (acme/p0)"]),
        (
            people(member(until=date(2027, 1, 20))),
            people(member(until=date(2027, 1, 31))),
            [f"{GAINED} {IT}, events push; from 2027-01-21 until 2027-01-31 (acme/p0)"],
        ),
        (
            people(member(until=date(2027, 1, 20))),
            people(),
            [f"{LOST} {IT}, events push; until 2027-01-20 (acme/p0)"],
        ),
        (
            people(),
            people(ALICE, member("bob", ids={"github": "2"})),
            [f"- alice (owner) and bob (owner) can now publish and read acme-widgets {IT}, events push (acme/p0)"],
        ),
        (
            people(member(role="member", uploads=("acme-x-*",)), to=("acme-*",)),
            people(member(role="member", uploads=("acme-x-*", "acme-y")), to=("acme-*",)),
            [
                f"- alice (member) can now publish and read acme-y {IT}, {PUSH} (acme/p0)",
            ],
        ),
    ],
)
def test_members_and_organizations(old: Policies, new: Policies, lines: list[str]) -> None:
    assert told(old, new) == lines


def test_a_schedule_is_nothing_that_a_person_starts() -> None:
    """Who adds it for members that are no machines has changed nothing."""
    assert told(bound(), bound(trust(events=("push", "release", "workflow_dispatch", "schedule")))) == []


def test_a_service_account_starts_its_own_runs() -> None:
    def world(*members: Member, account: str = GOOGLE) -> Policies:
        one = publisher("bot", trusts=trust("google", account_id=account))
        return policies(organization(members=members, publishers=(one,)))

    machine = member("robot", machine=True)
    assert told(world(), world(member())) == []
    line = "from google release-bot@acme-builds.iam.gserviceaccount.com, in runs that nobody started (acme/bot)"
    assert told(world(), world(machine)) == [f"- robot (machine, owner) can now publish and read acme-widgets {line}"]
    assert told(world(machine, account="5"), world(account="5")) == []


def test_who_gains_by_two_publishers_is_told_of_both() -> None:
    assert len(told(NONE, bound(trust(), trust()))) == 2
    assert told(bound(), bound(trust(), trust())) == []


def test_a_project_that_moves_is_still_who_may_publish_it() -> None:
    """Decisions are compared, whichever organization they come from."""
    moved = policies(organization("zenith", publishers=(publisher("p0", organization="zenith"),)))
    assert told(bound(), moved) == []


def test_publishers_that_admit_nothing_are_nothing() -> None:
    """One without id and pin does not load; the comparison does not lean on that."""
    assert told(NONE, bound(trust(repository_id=...))) == []


def test_nothing_decides_about_runs_that_the_comparison_does_not_know() -> None:
    """A source whose publishers and organizations are unchanged is not looked at: issuers are, and settings are told.

    Whoever adds a field that holds for all organizations decides here where its changes are told. `denied_from` is of
    the files' standing, not of what they say; `holders` decides how a name is refused that was not granted.
    """
    assert {item.name for item in fields(Policies)} - {"denied_from", "holders"} == {
        "generation",
        "issuers",
        "issuer_by_url",
        "organizations",
        "publishers_by_name",
        "default_lifetime_seconds",
        "longest_lifetime_seconds",
    }
    other = bound()
    assert told(bound(), replace(other, organizations={**other.organizations, "zenith": organization("zenith")})) == []


def test_a_period_goes_on_where_something_else_ends() -> None:
    both = tuple(
        publisher(name, trusts=trust(workflow=f"{name}.yml"), until=date(2027, 1, day))
        for name, day in (("a", 20), ("b", 30))
    )
    lines = told(NONE, policies(organization(publishers=both)))
    assert [line.rpartition("; ")[2] for line in lines] == ["until 2027-01-20 (acme/a)", "until 2027-01-30 (acme/b)"]


def test_what_nobody_mentions_is_none_of_what_is_mentioned() -> None:
    (change,) = plan(bound(trust(environment="other")), bound(trust(environment=...)), now=NOW).changes
    assert change.conditions[2].none_of == ("other",)
    assert change.example.identity.as_claims().get("environment") != "other"


@pytest.mark.parametrize(
    ("old", "new", "settings"),
    [
        ({}, {}, []),
        ({"algorithms": ("RS256", "ES256")}, {"algorithms": ("ES256", "RS256")}, []),
        (
            {},
            {"algorithms": ("RS256", "ES256")},
            [("issuers.github.algorithms", "RS256", "ES256, RS256", True)],
        ),
        (
            {"algorithms": ("RS256", "ES256")},
            {"algorithms": ("RS256",)},
            [("issuers.github.algorithms", "ES256, RS256", "RS256", False)],
        ),
        ({}, {"longest_token_seconds": 60}, [("issuers.github.longest_token", "3600 s", "60 s", False)]),
        ({}, {"longest_token_seconds": 7200}, [("issuers.github.longest_token", "3600 s", "7200 s", True)]),
        ({}, {"replay": "same-token"}, [("issuers.github.replay", "strict", "same-token", True)]),
        ({"replay": "same-token"}, {}, [("issuers.github.replay", "same-token", "strict", False)]),
        (
            {},
            {"disabled": True, "replay": "same-token"},
            [("issuers.github", "trusted (github, https://token.actions.githubusercontent.com)", "", False)],
        ),
        (
            {"disabled": True},
            {},
            [("issuers.github", "", "trusted (github, https://token.actions.githubusercontent.com)", False)],
        ),
    ],
)
def test_settings_of_issuers(old: dict[str, Any], new: dict[str, Any], settings: list[tuple[Any, ...]]) -> None:
    found = plan(switched(NONE, **old), switched(NONE, **new), now=NOW)
    assert [
        (one.path.removeprefix("index.yaml: "), one.before, one.after, one.wider) for one in found.settings
    ] == settings
    assert found.widened == any(wider for *_, wider in settings)


def test_settings_of_lifetimes() -> None:
    longer = replace(NONE, default_lifetime_seconds=1800, longest_lifetime_seconds=1800)
    assert [str(one.path) for one in plan(NONE, longer, now=NOW).settings if one.wider] == [
        "index.yaml: lifetime.default"
    ]
    assert [one.after for one in plan(NONE, longer, now=NOW).settings] == ["1800 s", "1800 s"]


def test_a_pin_that_is_open_again_is_a_setting_that_is_wider() -> None:
    """Of the same runs as before; but what the first use recorded was kept by the old name."""
    pinned = trust(**PIN)
    one, other = (policies(organization(publishers=(publisher(name, trusts=pinned),))) for name in ("a", "b"))
    found = plan(one, other, now=NOW)
    assert found.changes == ()
    assert [(setting.path, setting.after) for setting in found.settings] == [
        ("organizations/acme.yaml: publishers.b.pin", "the first use decides repository_id")
    ]
    assert found.widened
    assert plan(one, one, now=NOW).settings == ()


def test_moments_are_told_to_the_minute_where_they_are_no_midnights() -> None:
    found = plan(NONE, bound(until=date(2027, 1, 20)), now=NOW)
    change = found.changes[0]
    noon = datetime(2027, 1, 20, 12, tzinfo=UTC).timestamp()
    half = replace(found, changes=(replace(change, periods=((noon, noon + 60), (None, noon))),))
    assert "; from 2027-01-20T12:00Z until 2027-01-20T12:01Z and until 2027-01-20T12:00Z (" in as_text(half)


def test_nothing_is_said_so() -> None:
    assert as_text(plan(NONE, NONE, now=NOW)) == "No run of any job is decided otherwise."


def test_a_long_plan_ends_with_a_count() -> None:
    several = [trust(workflow=f"w{at}.yml") for at in range(MOST_LINES + 1)]
    text = as_markdown(replace(plan(NONE, bound(), now=NOW), changes=plan(NONE, bound(*several), now=NOW).changes))
    assert text.count("can now publish and read") == MOST_LINES
    assert text.endswith("... and 1 change more: `broker plan --format json` lists all.")


def test_a_policy_writes_no_markdown_of_its_own() -> None:
    text = as_markdown(plan(NONE, bound(trust(environment="`</code>**x**``")), now=NOW))
    assert "environment ``` `</code>**x**`` ```," in text
    assert "from github `acme-corp/widgets`" in text


def test_an_example_is_of_what_policies_mention_where_it_can_be() -> None:
    (change,) = plan(NONE, bound(), now=NOW).changes
    run = change.example.identity
    assert trust().compare(run, {}) is None
    assert (change.example.project, change.example.at, run.actor_id) == ("acme-widgets", NOW, "1001")


def test_names_under_a_prefix_are_found_beside_those_that_are_mentioned() -> None:
    taken = ("acme-*", "acme-any", "acme-any-*", "acme-any1")
    (change,) = plan(bound(to=taken[1:]), bound(to=taken), now=NOW).changes
    assert change.example.project == "acme-any2"
    assert isinstance(change.publisher, Publisher)
    assert change.publisher.projects == projects(*taken)


def test_a_freeze_is_a_loss_for_as_long_as_it_holds() -> None:
    def frozen(*freezes: Freeze) -> Policies:
        return policies(replace(organization(publishers=(publisher("p0"),)), freezes=freezes))

    noon = datetime(2027, 1, 20, 12, tzinfo=UTC).timestamp()
    freeze = Freeze(reason="holidays", begins=noon, ends=noon + 3600)
    lost = LOST.replace("publish or read", "publish")
    assert told(frozen(), frozen(freeze)) == [f"{lost} {IT}; from 2027-01-20T12:00Z until 2027-01-20T13:00Z (acme/p0)"]
    assert told(frozen(freeze), frozen(replace(freeze, reason="other", by_operator=True))) == []
    gained = GAINED.replace("publish and read", "publish")
    assert told(frozen(Freeze(reason="for good")), frozen()) == [f"{gained} {IT} (acme/p0)"]


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({}, {"downloads": ("acme-lib",)}, [f"- alice (owner) can now read acme-lib {IT} (acme/p0)"]),
        ({"downloads": ("acme-lib",)}, {}, [f"- alice (owner) can no longer read acme-lib {IT} (acme/p0)"]),
        ({}, {"downloads": ("acme-widgets",)}, []),
        (
            {},
            {"downloads": ("acme-*",)},
            [f"- alice (owner) can now read acme-* (such as acme-any, without acme-widgets) {IT} (acme/p0)"],
        ),
        (
            {"to": (), "downloads": ("acme-widgets",)},
            {},
            [f"- alice (owner) can now publish acme-widgets {IT} (acme/p0)"],
        ),
        (
            {},
            {"to": (), "downloads": ("acme-widgets",)},
            [f"- alice (owner) can no longer publish acme-widgets {IT} (acme/p0)"],
        ),
    ],
)
def test_what_a_publisher_reads(old: dict[str, Any], new: dict[str, Any], lines: list[str]) -> None:
    assert told(bound(**old), bound(**new)) == lines


def test_what_a_member_reads() -> None:
    def readers(*downloads: str, uploads: tuple[str, ...] = ()) -> Policies:
        return people(member("bob", "member", uploads=uploads, downloads=downloads), downloads=("acme-*",))

    may, both = (f"- bob (member) can now {what}" for what in ("read", "publish and read"))
    assert told(readers(), readers("acme-lib")) == [f"{may} acme-lib {IT}, {PUSH} (acme/p0)"]
    assert told(readers(), readers("acme-widgets")) == [f"{may} acme-widgets {IT}, {PUSH} (acme/p0)"]
    assert told(readers(), readers("acme-widgets", "acme-*")) == [f"{may} acme-* {IT}, {PUSH} (acme/p0)"]
    assert told(readers(), readers("acme-*")) == [f"{may} acme-* {IT}, {PUSH} (acme/p0)"]
    assert told(readers(), readers(uploads=("acme-widgets",))) == [f"{both} acme-widgets {IT}, {PUSH} (acme/p0)"]
    assert told(readers("acme-*"), readers("acme-*", uploads=("acme-widgets",))) == [
        f"{may.replace('read', 'publish')} acme-widgets {IT}, {PUSH} (acme/p0)"
    ]


def test_an_example_says_what_it_is_an_example_of() -> None:
    (change,) = plan(bound(), bound(downloads=("acme-lib",)), now=NOW).changes
    assert (change.scopes, change.example.scope, change.example.project) == (("read",), "read", "acme-lib")
    (change,) = plan(NONE, bound(), now=NOW).changes
    assert (change.scopes, change.example.scope) == (("upload", "read"), "upload")


def test_a_lifetime_that_another_bound_is_tighter_than_is_no_setting_of_anybody_s() -> None:
    longer, shorter = (policies(replace(organization(), lifetime_seconds=seconds)) for seconds in (1800, 900))
    assert plan(shorter, longer, now=NOW).settings == ()
    raised = replace(shorter, default_lifetime_seconds=3600)
    (setting,) = plan(shorter, raised, now=NOW).settings
    assert (setting.path, setting.wider) == ("index.yaml: lifetime.default", False)


def test_how_long_an_organizations_tokens_live_is_a_setting() -> None:
    longer, shorter = (
        replace(policies(replace(organization(), lifetime_seconds=seconds)), default_lifetime_seconds=3600)
        for seconds in (1800, 900)
    )
    for old, new, wider in ((shorter, longer, True), (longer, shorter, False)):
        found = plan(old, new, now=NOW)
        assert found.changes == ()
        assert [(one.path, one.wider) for one in found.settings] == [("acme: lifetime of upload tokens", wider)]
