"""GitHub: what a job's claims become, and the hostile ones."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.playground.claims import github_claims
from broker.providers import Kind
from broker.providers.github import DEFAULT_EVENTS, SAFE_EVENTS, GitHubIdentity, GitHubTrust
from tests.fakes import granted, identity, outcome, outcomes, policies, refused, trust

SHA = "714a629c0b401fdce83e847fc9589983fc6f46bc"
TAG = "refs/tags/v1.0.0"
OWN = "acme-corp/widgets/.github/workflows/"
FOREIGN = "acme-corp/ci/.github/workflows/build.yml@refs/heads/main"

IDS = {"actor_id", "repository_id", "repository_owner_id", "run_id"}
REQUIRED = IDS | {"sub", "actor", "event_name", "job_workflow_ref", "ref", "repository", "sha", "workflow_ref"}
OPTIONAL = {"environment", "ref_protected", "runner_environment"}


def job(**changes: Any) -> GitHubIdentity:
    told = identity("github", **changes)
    assert isinstance(told, GitHubIdentity)
    return told


def test_a_job_in_full() -> None:
    assert job() == GitHubIdentity(
        issuer="github",
        subject="repo:acme-corp@65600975/widgets@424242424:environment:pypi",
        actor_id="1001",
        actor_name="alice",
        unattended=False,
        run="17423456789",
        repository="acme-corp/widgets",
        repository_id="424242424",
        repository_owner_id="65600975",
        workflow="release.yml",
        job_workflow=None,
        ref=TAG,
        event="push",
        environment="pypi",
        ref_protected=True,
        runner_environment="github-hosted",
        sha=SHA,
    )


# --- Every claim, in turn --------------------------------------------------------------------------------------------


def test_exactly_these_claims_must_be_there() -> None:
    without = {name: outcome(identity, without=name) for name in github_claims()}
    assert without == dict.fromkeys(without, "accepted") | dict.fromkeys(REQUIRED, "missing-claim")


def test_null_is_absent() -> None:
    assert outcomes("github", REQUIRED, None) == dict.fromkeys(REQUIRED, "missing-claim")
    assert outcomes("github", OPTIONAL, None) == dict.fromkeys(OPTIONAL, "accepted")


def test_the_empty_string_is_absent_but_for_the_ref_of_a_bare_commit() -> None:
    """Then the references must end in the commit, and those of the valid job do not."""
    expected = {**dict.fromkeys(REQUIRED, "missing-claim"), "ref": "invalid-claim"}
    assert outcomes("github", REQUIRED, "") == expected
    assert outcomes("github", OPTIONAL, "") == dict.fromkeys(OPTIONAL, "accepted")


@pytest.mark.parametrize("wrong", [1, 0, 1.5, True, False, [], ["x"], {}, {"x": 1}], ids=repr)
def test_a_claim_of_another_json_type_is_refused(wrong: object) -> None:
    assert outcomes("github", REQUIRED | OPTIONAL, wrong) == dict.fromkeys(REQUIRED | OPTIONAL, "invalid-claim")


@pytest.mark.parametrize(
    "wrong", ["a\x00", "a\n", "\u202ea", "\ud800", "a" * 1025, "a" * 1_000_000], ids=lambda it: it[:9]
)
def test_text_that_nobody_could_read_is_refused(wrong: str) -> None:
    assert set(outcomes("github", REQUIRED | OPTIONAL, wrong).values()) == {"invalid-claim"}


@pytest.mark.parametrize("wrong", ["x", "١٠٠١", "1 ", "+1", "-1", "1.0", "1e3", "²"])
def test_ids_are_digits(wrong: str) -> None:
    assert outcomes("github", IDS, wrong) == dict.fromkeys(IDS, "invalid-claim")


@pytest.mark.parametrize("wrong", ["True", "FALSE", "yes", "1", "protected"])
def test_the_protected_flag_is_one_of_two_strings(wrong: str) -> None:
    assert outcomes("github", {"ref_protected"}, wrong) == {"ref_protected": "invalid-claim"}


def test_optional_claims_become_none() -> None:
    told = job(environment=..., ref_protected=..., runner_environment=...)
    assert (told.environment, told.ref_protected, told.runner_environment) == (None, None, None)
    assert job(ref_protected="false").ref_protected is False


# --- Events ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        "pull_request",
        "pull_request_target",
        "pull_request_review",
        "pull_request_review_comment",
        "pull_request_comment",
        "workflow_run",
        "workflow_call",
        "issue_comment",
        "issues",
        "discussion",
        "discussion_comment",
        "fork",
        "watch",
        "create",
        "delete",
        "deployment",
        "deployment_status",
        "merge_group",
        "check_run",
        "check_suite",
        "status",
        "page_build",
        "gollum",
        "label",
        "milestone",
        "public",
        "registry_package",
        "branch_protection_rule",
        "dynamic",
        "something_new",
        "Push",
        "PUSH",
        "push ",
        "push,pull_request",
        "*",
    ],
)
def test_events_that_outsiders_can_cause_are_forbidden(event: str) -> None:
    with refused("forbidden-trigger") as caught:
        identity(event_name=event)
    assert repr(event) in caught.value.detail


def test_a_forbidden_event_is_so_whatever_else_is_wrong() -> None:
    with refused("forbidden-trigger"):
        identity(event_name="pull_request", ref="refs/pull/7/merge", workflow_ref="x", actor=7)


def test_safe_events_are_these() -> None:
    assert SAFE_EVENTS == ("push", "release", "workflow_dispatch", "schedule", "repository_dispatch")
    assert DEFAULT_EVENTS == ("push", "release", "workflow_dispatch")
    assert [job(event_name=event).event for event in SAFE_EVENTS] == list(SAFE_EVENTS)


@pytest.mark.parametrize(
    ("changes", "unattended"),
    [
        ({}, False),
        ({"event_name": "workflow_dispatch"}, False),
        ({"event_name": "repository_dispatch"}, False),
        ({"event_name": "schedule"}, True),
        ({"actor": "dependabot[bot]"}, True),
        ({"actor": "acme-release[bot]", "event_name": "release"}, True),
        ({"actor": "robot"}, False),
        ({"actor": "[bot]x"}, False),
    ],
)
def test_nobody_pressed_a_button_for_schedules_and_bots(changes: dict[str, Any], unattended: bool) -> None:
    assert job(**changes).unattended is unattended


# --- The calling workflow --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "ref"),
    [
        ("release.yml", TAG),
        ("release.yaml", TAG),
        ("release.yml@evil.yml", TAG),
        ("release@v1.yml", "refs/heads/main"),
        ("..yml", "refs/heads/main"),
        ("release .yml", "refs/heads/main"),
        ("Release.yml", "refs/heads/main"),
        ("release.yml", "refs/heads/evil@release.yml"),
        ("evil.yml", "refs/heads/release.yml@refs/heads/main"),
        ("evil.yml", "refs/heads/acme-corp/widgets/.github/workflows/release.yml"),
        ("evil.yml", "refs/heads/@" + SHA),
        ("release.yml", "refs/heads/a..b"),
        ("release.yml", "refs/heads//double"),
        ("release.yml", "refs/tags/@"),
        ("release.yml", "refs/tags/é"),
    ],
)
def test_file_and_ref_are_told_apart_whatever_they_hold(file: str, ref: str) -> None:
    told = job(workflow_file=file, ref=ref)
    assert (told.workflow, told.ref) == (file, ref)


@pytest.mark.parametrize(
    "reference",
    [
        f"@{TAG}",
        TAG,
        OWN,
        OWN[:-1],
        f"{OWN}release.yml",
        f"{OWN}release.yml@",
        f"{OWN}@{TAG}",
        f"{OWN}release.yml@{TAG}x",
        f"{OWN}release.yml@{TAG.upper()}",
        f"{OWN}release.yml@refs/tags/v1.0.1",
        f"{OWN}release.yml@v1.0.0",
        f"{OWN}release.yml{TAG}",
        f"{OWN}release.yml@{SHA[:-1]}",
        f"{OWN}release.yml@{SHA.upper()}",
        f"{OWN}release.sh@{TAG}",
        f"{OWN}release.YML@{TAG}",
        f"{OWN}releaseyml@{TAG}",
        f"{OWN}yml@{TAG}",
        f"{OWN}release.yml/@{TAG}",
        f"{OWN}release.yml.txt@{TAG}",
        f"{OWN}release.yml@refs@{TAG}",
        f"{OWN}sub/release.yml@{TAG}",
        f"{OWN}/release.yml@{TAG}",
        f"{OWN}../release.yml@{TAG}",
        f"{OWN}../../evil/release.yml@{TAG}",
        f"{OWN}release.yml@refs/heads/x@{TAG}",
        f"acme-corp/widgets//.github/workflows/release.yml@{TAG}",
        f"/acme-corp/widgets/.github/workflows/release.yml@{TAG}",
        f"acme-corp/widgets/.github/workflow/release.yml@{TAG}",
        f"acme-corp/widgets/.GitHub/workflows/release.yml@{TAG}",
        f"acme-corp/widgets-evil/.github/workflows/release.yml@{TAG}",
        f"acme-corp/other/.github/workflows/release.yml@{TAG}",
        f"mallory/widgets/.github/workflows/release.yml@{TAG}",
        f"acme-corq/widgets/.github/workflows/release.yml@{TAG}",
        f"widgets/.github/workflows/release.yml@{TAG}",
        f"x/{OWN}release.yml@{TAG}",
        "release.yml",
    ],
)
def test_a_reference_that_does_not_fit_the_other_claims_is_refused(reference: str) -> None:
    with refused("invalid-claim") as caught:
        identity(workflow_ref=reference)
    assert "workflow_ref" in caught.value.detail


def test_start_and_end_of_a_reference_do_not_share_characters() -> None:
    """'.github/workflows/@refs/...' has no file between them, and one that overlaps has less."""
    with refused("invalid-claim"):
        identity(repository="a/b", ref="/.github/workflows/.yml", workflow_ref="a/b/.github/workflows/.yml")
    with refused("invalid-claim"):
        identity(repository="a/b@", ref="/.github/workflows/", workflow_ref="a/b@/.github/workflows/")


def test_a_bare_commit_stands_in_for_the_ref() -> None:
    told = job(ref="")
    assert (told.ref, told.workflow) == (SHA, "release.yml")
    assert trust(refs=["refs/tags/v*", "refs/heads/*"]).compare(told, {}) is not None, "no glob of refs fits a commit"
    assert trust(refs=...).compare(told, {}) is None


def test_a_reference_may_end_in_the_commit_beside_a_ref() -> None:
    assert job(workflow_ref=f"{OWN}release.yml@{SHA}").workflow == "release.yml"
    with refused("invalid-claim"):
        identity(workflow_ref=f"{OWN}evil.yml@refs/heads/release.yml@{SHA}")


def test_owner_and_repository_of_a_reference_have_no_case_and_the_file_has() -> None:
    assert job(workflow_ref=f"Acme-Corp/WIDGETS/.github/workflows/release.yml@{TAG}").workflow == "release.yml"
    assert job(workflow_ref=f"{OWN}Release.yml@{TAG}").workflow == "Release.yml"


# --- The executing workflow ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "foreign"),
    [
        (f"{OWN}release.yml@{TAG}", False),
        (f"{OWN}build.yml@{TAG}", False),
        (f"{OWN}build.yml@refs/heads/other", False),
        (f"Acme-Corp/Widgets/.github/workflows/build.yml@{TAG}", False),
        (FOREIGN, True),
        (f"acme-corp/widgets-evil/.github/workflows/release.yml@{TAG}", True),
        (f"acme-corp/widgets/else/release.yml@{TAG}", True),
        (f"acme-corp/widgets/.GitHub/workflows/release.yml@{TAG}", True),
        (f"mallory/widgets/.github/workflows/release.yml@{TAG}", True),
        (f"acme-corq/widgets/.github/workflows/release.yml@{TAG}", True),
        (f"x/{OWN}release.yml@{TAG}", True),
    ],
)
def test_whose_workflow_runs_the_job(reference: str, foreign: bool) -> None:
    assert job(job_workflow_ref=reference).job_workflow == (reference if foreign else None)


@pytest.mark.parametrize(
    ("named", "running", "fits"),
    [
        (..., f"{OWN}build.yml@{TAG}", True),
        (..., FOREIGN, False),
        (FOREIGN, FOREIGN, True),
        (FOREIGN, FOREIGN.replace("acme-corp/ci", "Acme-Corp/CI"), True),
        (FOREIGN.replace("acme-corp/ci", "Acme-Corp/CI"), FOREIGN, True),
        (FOREIGN, FOREIGN.replace("build.yml", "Build.yml"), False),
        (FOREIGN, FOREIGN.replace("main", "Main"), False),
        (FOREIGN, FOREIGN.replace("main", "evil"), False),
        (FOREIGN, FOREIGN.replace("@refs/heads/main", f"@{SHA}"), False),
        (FOREIGN, FOREIGN.replace("build.yml", "evil.yml"), False),
        (FOREIGN, FOREIGN.replace("acme-corp/ci", "mallory/ci"), False),
        (FOREIGN, FOREIGN.replace("acme-corp/ci", "acme-corq/ci"), False),
        (FOREIGN, FOREIGN + "x", False),
        (FOREIGN, "x", False),
        (FOREIGN, f"{OWN}release.yml@{TAG}", False),
    ],
)
def test_a_foreign_reusable_workflow_fits_only_a_publisher_that_names_it(
    named: object, running: str, fits: bool
) -> None:
    mismatch = trust(job_workflow=named).compare(identity(job_workflow_ref=running), {})
    assert (mismatch is None) is fits
    assert mismatch is None or mismatch.rule.field == "job_workflow"


# --- Comparing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"repository": "acme-corp/gadgets"}, "repository"),
        ({"repository": "mallory/widgets"}, "repository"),
        ({"repository_id": "424242425"}, "repository_id"),
        ({"repository_id": "0424242424"}, "repository_id"),
        ({"repository_owner_id": "6666"}, "repository_owner_id"),
        ({"workflow_file": "ci.yml"}, "workflow"),
        ({"workflow_file": "Release.yml"}, "workflow"),
        ({"workflow_file": "release.yaml"}, "workflow"),
        ({"environment": ...}, "environment"),
        ({"environment": "pypi-test"}, "environment"),
        ({"ref": "refs/heads/main"}, "refs"),
        ({"ref": "refs/tags/x1"}, "refs"),
        ({"ref": ""}, "refs"),
        ({"event_name": "schedule"}, "events"),
        ({"event_name": "repository_dispatch"}, "events"),
        ({"ref_protected": "false"}, "ref_protected"),
        ({"ref_protected": ...}, "ref_protected"),
        ({"runner_environment": "self-hosted"}, "runner_environment"),
        ({"runner_environment": "GitHub-hosted"}, "runner_environment"),
        ({"runner_environment": ...}, "runner_environment"),
    ],
)
def test_each_pinned_thing_is_asked(changes: dict[str, Any], field: str) -> None:
    pinned = trust(ref_protected=True, runner_environment="github-hosted")
    assert pinned.compare(identity(), {}) is None
    mismatch = pinned.compare(identity(**changes), {})
    assert mismatch is not None
    assert mismatch.rule.field == field


def test_names_and_environments_have_no_case() -> None:
    told = identity(repository="ACME-Corp/Widgets", environment="PyPI")
    assert trust().compare(told, {}) is None
    assert trust(environment="PYPI", repository="Acme-Corp/widgets").compare(identity(), {}) is None


def test_the_events_of_a_policy_stand_in_for_the_default_ones() -> None:
    pinned = trust(events=("push", "schedule"))
    assert [pinned.compare(identity(event_name=event), {}) is None for event in SAFE_EVENTS] == [
        event in {"push", "schedule"} for event in SAFE_EVENTS
    ]


def test_what_is_not_pinned_is_not_asked() -> None:
    loose = trust(environment=..., refs=...)
    for changes in ({"environment": ...}, {"environment": "x"}, {"ref": "refs/heads/x"}, {"runner_environment": "x"}):
        assert loose.compare(identity(**changes), {}) is None


def test_a_display_name_or_a_subject_earns_nothing() -> None:
    """`workflow` is what a file calls itself, and `sub` is customizable: anyone may write there what they like."""
    told = {"workflow": "release.yml", "sub": "repo:acme-corp/widgets:environment:pypi"}
    with refused("no-publisher"):
        granted(policies(), identity(**told, repository="mallory/widgets"))
    with refused("no-publisher"):
        granted(policies(), identity(**told, workflow_file="ci.yml"))


# --- Names that change hands -----------------------------------------------------------------------------------------


def test_a_renamed_owner_or_repository_is_another_name() -> None:
    """The ids are the same and would fit; an admin writes down the new name first."""
    with refused("no-publisher"):
        granted(policies(), identity(repository="acme-inc/widgets"))
    with refused("no-publisher"):
        granted(policies(), identity(repository="acme-corp/gadgets"))


@pytest.mark.parametrize(
    "changes",
    [
        {"repository_id": "999", "repository_owner_id": "998"},
        {"repository_id": "999"},
        {"repository_owner_id": "998"},
        {"repository_id": "65600975", "repository_owner_id": "424242424"},
    ],
    ids=["owner re-created", "repository re-created", "transferred", "swapped"],
)
def test_a_name_that_was_taken_again_is_somebody_else(changes: dict[str, Any]) -> None:
    with refused("identity-changed"):
        granted(policies(), identity(**changes))


# --- What policies may say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"repository": "widgets"},
        {"repository": "acme-corp/widgets/x"},
        {"repository": "/widgets"},
        {"repository": "acme-corp/"},
        {"repository": "https://github.com/acme-corp/widgets"},
        {"workflow": "release"},
        {"workflow": "release.sh"},
        {"workflow": ".github/workflows/release.yml"},
        {"workflow": "release.yml@refs/heads/main"},
        {"workflow": ...},
        {"events": ()},
        {"events": ("pull_request",)},
        {"events": ("push", "pull_request_target")},
        {"events": ("push", "*")},
        {"events": ("Push",)},
        {"job_workflow": "build.yml"},
        {"job_workflow": "acme-corp/ci/.github/workflows/build.yml"},
        {"job_workflow": "acme-corp/ci/.github/workflows/build.yml@"},
        {"job_workflow": "acme-corp/ci/.github/workflows/build.yml@refs/heads/main\n"},
        {"job_workflow": "acme-corp/ci/.github/workflows/sub/build.yml@refs/heads/main"},
        {"job_workflow": "acme-corp/ci/.github/workflows/build.sh@refs/heads/main"},
        {"job_workflow": "ci/.github/workflows/build.yml@refs/heads/main"},
        {"job_workflow": "a/b/c/.github/workflows/build.yml@refs/heads/main"},
        {"job_workflow": "acme-corp/ci/xgithub/workflows/build.yml@refs/heads/main"},
        {"job_workflow": f"{OWN}build.yml@refs/heads/main"},
        {"job_workflow": "Acme-Corp/Widgets/.github/workflows/build.yml@refs/heads/main"},
        {"ref_protected": "true"},
        {"ref_protected": 1},
        {"refs": []},
    ],
    ids=str,
)
def test_a_publisher_that_could_never_be_meant_so_does_not_load(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        trust(**changes)


def test_what_loads() -> None:
    for changes in (
        {"workflow": "release.yaml"},
        {"events": SAFE_EVENTS},
        {"job_workflow": FOREIGN},
        {"job_workflow": None},
        {"job_workflow": FOREIGN.replace(".yml", ".yaml")},
        {"job_workflow": f"acme-corp/ci/.github/workflows/build.yml@{SHA}"},
    ):
        assert trust(**changes).issuer == "github"


def test_a_mistake_in_the_repository_is_told_as_such() -> None:
    with pytest.raises(ValidationError) as caught:
        trust(repository="widgets", job_workflow=FOREIGN)
    assert [error["loc"] for error in caught.value.errors()] == [("repository",)]


def test_rules_are_these() -> None:
    assert {rule.field: rule.kind for rule in GitHubTrust.rules} == {
        "repository": Kind.NAME,
        "repository_id": Kind.ID,
        "repository_owner_id": Kind.ID,
        "workflow": Kind.CONDITION,
        "job_workflow": Kind.CONDITION,
        "environment": Kind.CONDITION,
        "refs": Kind.CONDITION,
        "events": Kind.CONDITION,
        "ref_protected": Kind.CONDITION,
        "runner_environment": Kind.CONDITION,
    }
