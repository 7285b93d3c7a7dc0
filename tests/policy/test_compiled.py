"""What the files mean once they are loaded: members, uploads, publishers, issuers, and what a run is then granted."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from broker.patterns import Projects, RefGlob
from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from broker.policy.matching import candidates, consider, grant
from broker.policy.members import MOST_RIGHTS
from broker.policy.model import Member, Organization, Policies
from broker.providers import PROVIDERS
from broker.providers.github import GitHubIdentity, GitHubTrust
from broker.refusals import Refusal
from tests.policy.example import FILES, changed, write

EXAMPLES = Path(__file__).parents[2] / "policies"
NOW = datetime(2027, 1, 15, 8, tzinfo=UTC).timestamp()


def projects(*texts: str) -> frozenset[Projects]:
    return frozenset(map(Projects.parse, texts))


def run(
    *, actor_id: str = "1001", repository: str = "acme-corp/widgets", repository_id: str = "424242424"
) -> GitHubIdentity:
    """A run of the example's workflow on a tag."""
    return GitHubIdentity(
        issuer="github",
        subject="repo:acme-corp/widgets:environment:pypi",
        actor_id=actor_id,
        actor_name="somebody",
        unattended=False,
        run="7",
        repository=repository,
        repository_id=repository_id,
        repository_owner_id="65600975",
        workflow="release.yml",
        job_workflow=None,
        ref="refs/tags/v1.0",
        event="push",
        environment="pypi",
        ref_protected=None,
        runner_environment="github-hosted",
        sha="0" * 40,
    )


def outcome(policies: Policies, identity: GitHubIdentity, now: float = NOW) -> frozenset[Projects] | str:
    """What is granted, or the refusal's code."""
    try:
        return grant(policies, identity, consider(candidates(policies, identity), identity, {}), now).projects
    except Refusal as refusal:
        return refusal.code


def acme(policies: Policies) -> Organization:
    return policies.organizations["acme"]


# --- The example -----------------------------------------------------------------------------------------------------


def test_the_members_of_the_example(tmp_path: Path) -> None:
    members = acme(load(write(tmp_path))).members
    widgets = projects("acme-widgets")
    assert members == {
        "alice": Member(name="alice", role="owner", ids={"github": "1001", "gitlab": "77"}, uploads=widgets),
        "bob": Member(name="bob", role="member", ids={"github": "1002"}, until=date(2027, 1, 31), uploads=widgets),
        "carol": Member(name="carol", role="billing-manager", ids={"github": "1003"}),
        "release-bot": Member(
            name="release-bot",
            role="member",
            ids={"google": "112233445566778899"},
            machine=True,
            uploads=projects("acme-*"),
        ),
    }


def test_members_are_found_by_the_id_that_one_issuer_gave_them(tmp_path: Path) -> None:
    """The same number at another issuer is nobody."""
    found = acme(load(write(tmp_path))).member_by_id
    assert {pair: member.name for pair, member in found.items()} == {
        ("github", "1001"): "alice",
        ("gitlab", "77"): "alice",
        ("github", "1002"): "bob",
        ("github", "1003"): "carol",
        ("google", "112233445566778899"): "release-bot",
    }


def test_the_publisher_of_the_example(tmp_path: Path) -> None:
    policies = load(write(tmp_path))
    (publisher,) = acme(policies).publishers.values()
    assert (publisher.id, publisher.until) == ("acme/widgets-release", None)
    assert publisher.projects == projects("acme-widgets")
    assert publisher.trust == GitHubTrust(
        issuer="github",
        repository="acme-corp/widgets",
        repository_id="424242424",
        repository_owner_id="65600975",
        workflow="release.yml",
        environment="pypi",
        refs=(RefGlob("refs/tags/v*"),),
        events=("push", "release", "workflow_dispatch"),
    )
    assert acme(policies).owner_ids == {("github", "65600975")}
    assert policies.publishers_by_name["github", "acme-corp/widgets"] == (publisher,)


def test_the_issuers_of_the_example(tmp_path: Path) -> None:
    issuers = load(write(tmp_path)).issuers
    assert {name: (issuer.provider.name, issuer.url) for name, issuer in issuers.items()} == {
        "github": ("github", "https://token.actions.githubusercontent.com"),
        "gitlab": ("gitlab", "https://gitlab.com"),
        "google": ("google", "https://accounts.google.com"),
        "gitlab-acme": ("gitlab", "https://gitlab.acme.example"),
    }
    assert issuers["gitlab-acme"].organizations == frozenset({"acme"})
    assert issuers["github"].organizations is None
    for name, issuer in issuers.items():
        assert issuer.name == name
        assert (issuer.replay, issuer.algorithms, issuer.disabled) == (issuer.provider.replay, ("RS256",), False)
        assert issuer.longest_token_seconds == issuer.provider.longest_token_seconds
    assert {url: issuer.name for url, issuer in load(tmp_path).issuer_by_url.items()} == {
        issuer.url: issuer.name for issuer in issuers.values()
    }


def test_the_lifetimes_of_the_example_and_of_none(tmp_path: Path) -> None:
    policies = load(write(tmp_path / "a"))
    assert (policies.default_lifetime_seconds, policies.longest_lifetime_seconds) == (900, 3600)
    files = changed("index.yaml", "lifetime: {default: 15m, longest: 1h}", "lifetime: {longest: 21600s}")
    policies = load(write(tmp_path / "b", files))
    assert (policies.default_lifetime_seconds, policies.longest_lifetime_seconds) == (900, 21600)
    files = changed("index.yaml", "lifetime: {default: 15m, longest: 1h}\n", "")
    policies = load(write(tmp_path / "c", files))
    assert (policies.default_lifetime_seconds, policies.longest_lifetime_seconds) == (900, 3600)


def test_what_an_issuer_says_of_itself_is_kept(tmp_path: Path) -> None:
    files = changed(
        "index.yaml",
        "  google: {provider: google}",
        "  google:\n    {provider: google, disabled: true, replay: same-token, longest_token: 90m,\n"
        "     algorithms: [ES256, RS256]}",
    )
    google = load(write(tmp_path, files)).issuers["google"]
    assert (google.disabled, google.replay, google.algorithms) == (True, "same-token", ("ES256", "RS256"))
    assert google.longest_token_seconds == 5400


def test_publishers_and_members_of_a_disabled_issuer_still_load(tmp_path: Path) -> None:
    """The exchange refuses them by its own code."""
    files = changed("index.yaml", "github: {provider: github}", "github: {provider: github, disabled: true}")
    policies = load(write(tmp_path, files))
    assert policies.issuers["github"].disabled
    assert set(acme(policies).publishers) == {"widgets-release"}


def test_an_issuer_of_a_kind_without_a_public_instance_needs_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of today's kinds is so; Forgejo will be."""
    private = dataclasses.replace(PROVIDERS["gitlab"], issuer=None)
    monkeypatch.setitem(PROVIDERS, "gitlab", private)
    with pytest.raises(PolicyErrors) as caught:
        load(write(tmp_path))
    assert [(error.path, error.what) for error in caught.value.errors] == [("issuers.gitlab.url", "is missing")]


# --- What runs are granted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actor_id", "expected"),
    [
        ("1001", projects("acme-widgets")),
        ("1002", projects("acme-widgets")),
        ("1003", "member-not-permitted"),
        ("77", "unknown-actor"),
        ("9999", "unknown-actor"),
    ],
)
def test_a_run_is_granted_what_its_actor_may(tmp_path: Path, actor_id: str, expected: object) -> None:
    """alice by role, bob by team; carol never; alice's GitLab id is nobody on GitHub."""
    assert outcome(load(write(tmp_path)), run(actor_id=actor_id)) == expected


def test_a_membership_holds_to_the_end_of_its_last_day(tmp_path: Path) -> None:
    policies = load(write(tmp_path))
    last, after = datetime(2027, 1, 31, 23, 59, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC)
    assert outcome(policies, run(actor_id="1002"), last.timestamp()) == projects("acme-widgets")
    assert outcome(policies, run(actor_id="1002"), after.timestamp()) == "member-expired"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("organization: acme\n", "organization: acme\nsuspended: true\n", "organization-suspended"),
        ("role: owner", "role: owner, suspended: true", "member-suspended"),
        ("role: owner", "role: owner, until: 2027-01-14", "member-expired"),
        ("issuer: github", "until: 2027-01-14\n    issuer: github", "publisher-expired"),
        ("environment: pypi", "environment: other", "no-publisher"),
        ('repository_id: "424242424"', 'repository_id: "1"', "identity-changed"),
        ("role: owner", "role: billing-manager", "member-not-permitted"),
    ],
)
def test_each_field_reaches_its_gate(tmp_path: Path, old: str, new: str, code: str) -> None:
    """One change to the file, and alice's run is refused by that name."""
    assert outcome(load(write(tmp_path / "before")), run()) == projects("acme-widgets")
    files = changed("organizations/acme.yaml", old, new)
    assert outcome(load(write(tmp_path / "after", files)), run()) == code


def test_first_use_pins_need_no_ids_and_know_no_owner(tmp_path: Path) -> None:
    globex = load(write(tmp_path)).organizations["globex"]
    assert globex.publishers["engine-release"].trust.missing_ids() == ("project_id", "namespace_id")
    assert globex.owner_ids == frozenset()


def test_a_stated_id_beside_a_pin_is_kept(tmp_path: Path) -> None:
    files = changed("organizations/globex.yaml", "pin: first-use", 'pin: first-use\n    namespace_id: "5"')
    globex = load(write(tmp_path, files)).organizations["globex"]
    assert globex.publishers["engine-release"].trust.missing_ids() == ("project_id",)
    assert globex.owner_ids == {("gitlab", "5")}


# --- Rights ----------------------------------------------------------------------------------------------------------


def test_rights_are_the_union_of_all_that_name_a_member_or_their_team(tmp_path: Path) -> None:
    text = """\
organization: acme
namespaces: [acme]
members:
  alice: {role: member, github: "1"}
  bob: {role: member, github: "2"}
  carol: {role: member, github: "3"}
teams:
  core: [alice, bob]
  docs: [alice]
  empty: []
projects:
  acme-a: {upload: ["team:core"]}
  acme-b: {upload: ["team:docs", bob]}
  Acme_C-*: {upload: [alice, "team:core", "team:empty"]}
  acme-d: {upload: []}
"""
    index = "issuers: {github: {provider: github}}\n"
    members = acme(load(write(tmp_path, {"index.yaml": index, "organizations/acme.yaml": text}))).members
    assert members["alice"].uploads == projects("acme-a", "acme-b", "acme-c-*")
    assert members["bob"].uploads == projects("acme-a", "acme-b", "acme-c-*")
    assert members["carol"].uploads == frozenset()


def test_rights_to_read_stand_beside_those_to_upload(tmp_path: Path) -> None:
    files = changed(
        "organizations/acme.yaml",
        '  acme-widgets: {upload: ["team:core"]}\n',
        '  acme-widgets: {upload: [alice], download: ["team:core"]}\n  acme-lib-*: {download: [bob, carol]}\n',
    )
    members = acme(load(write(tmp_path, files))).members
    assert {name: (one.uploads, one.downloads) for name, one in members.items()} == {
        "alice": (projects("acme-widgets"), projects("acme-widgets")),
        "bob": (projects(), projects("acme-widgets", "acme-lib-*")),
        "carol": (projects(), projects("acme-lib-*")),
        "release-bot": (projects("acme-*"), projects()),
    }


def test_a_publisher_may_read_beside_what_it_publishes_or_alone(tmp_path: Path) -> None:
    for at, (text, expected) in enumerate(
        (
            (
                "projects: [acme-widgets]\n    downloads: [acme-lib, Acme.X-*]",
                ({"acme-widgets"}, {"acme-lib", "acme-x-*"}),
            ),
            ("downloads: [acme-lib]", (set(), {"acme-lib"})),
            ("projects: [acme-widgets]", ({"acme-widgets"}, set())),
        )
    ):
        files = changed("organizations/acme.yaml", "projects: [acme-widgets]", text)
        (one,) = acme(load(write(tmp_path / str(at), files))).publishers.values()
        assert ({*map(str, one.projects)}, {*map(str, one.downloads)}) == expected


def test_a_member_and_a_team_of_one_name_are_not_confused(tmp_path: Path) -> None:
    files = changed("organizations/acme.yaml", "core: [alice, bob]", "core: [alice]\n  bob: [carol]")
    files["organizations/acme.yaml"] = files["organizations/acme.yaml"].replace("[release-bot]", "[bob]")
    members = acme(load(write(tmp_path, files))).members
    assert members["bob"].uploads == projects("acme-*")
    assert members["carol"].uploads == frozenset()
    files["organizations/acme.yaml"] = files["organizations/acme.yaml"].replace("[bob]}", '["team:bob"]}')
    members = acme(load(write(tmp_path, files))).members
    assert members["bob"].uploads == frozenset()
    assert members["carol"].uploads == projects("acme-*")


@pytest.mark.parametrize(
    ("count", "entry", "rights"),
    [
        (501, '{upload: ["team:all"]}', 501 * 501),
        (501, '{download: ["team:all"]}', 501 * 501),
        (251, '{upload: ["team:all"], download: ["team:all"]}', 2 * 251 * 501),
    ],
)
def test_more_rights_than_memory_are_refused_before_they_are_made(
    tmp_path: Path, count: int, entry: str, rights: int
) -> None:
    """A large team and many projects in a small file would be 75 million pairs."""
    people = range(501)
    text = "organization: acme\nnamespaces: [acme]\nmembers:\n"
    text += "".join(f'  m{n}: {{role: member, github: "{n}"}}\n' for n in people)
    text += f"teams:\n  all: [{', '.join(f'm{n}' for n in people)}]\nprojects:\n"
    text += "".join(f"  acme-{n}: {entry}\n" for n in range(count))
    index = "issuers: {github: {provider: github}}\n"
    with pytest.raises(PolicyErrors) as caught:
        load(write(tmp_path, {"index.yaml": index, "organizations/acme.yaml": text}))
    (error,) = caught.value.errors
    assert (error.line, error.path) == (507, "projects")
    assert f"{rights} rights" in error.what
    assert str(MOST_RIGHTS) in error.what


# --- Several organizations -------------------------------------------------------------------------------------------


def test_publishers_of_one_repository_are_found_together_in_a_stable_order(tmp_path: Path) -> None:
    globex = FILES["organizations/globex.yaml"].replace("alice: {", 'bob: {role: member, github: "1001"}\n  alice: {')
    globex += """\
  a-release:
    issuer: github
    repository: Acme-Corp/Widgets
    pin: first-use
    workflow: release.yml
    projects: [globex-widgets]
"""
    policies = load(write(tmp_path, {**FILES, "organizations/globex.yaml": globex}))
    found = candidates(policies, run(repository="ACME-CORP/widgets"))
    assert [publisher.id for publisher in found] == ["acme/widgets-release", "globex/a-release"]
    assert outcome(policies, run()) == projects("acme-widgets")  # bob may upload to nothing in globex


def test_the_examples_of_the_repository_load() -> None:
    policies = load(EXAMPLES)
    assert set(policies.organizations) == {"acme", "globex"}
    kinds = {type(one.trust).__name__ for each in policies.organizations.values() for one in each.publishers.values()}
    assert kinds == {"GitHubTrust", "GitLabTrust", "GoogleTrust"}
    assert outcome(policies, run(actor_id="1002")) == projects("acme-widgets")
