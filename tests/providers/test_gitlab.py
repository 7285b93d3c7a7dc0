"""GitLab: what a job's claims become, and the hostile ones."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.playground.claims import gitlab_claims
from broker.providers import Kind
from broker.providers.gitlab import DEFAULT_SOURCES, SAFE_SOURCES, GitLabIdentity, GitLabTrust
from tests.fakes import (
    granted,
    identity,
    organization,
    outcome,
    outcomes,
    policies,
    publisher,
    refused,
    trust,
)

SHA = "714a629c0b401fdce83e847fc9589983fc6f46bc"
TAG = "refs/tags/v1.0.0"
OWN = "gitlab.com/acme/tools/widgets//"

IDS = {"project_id", "namespace_id", "job_project_id", "job_namespace_id", "user_id", "pipeline_id"}
REQUIRED = IDS | {"sub", "user_login", "pipeline_source", "project_path", "ref_path", "sha", "ci_config_ref_uri"}
FLAGS = {"ref_protected", "environment_protected"}
OPTIONAL = FLAGS | {"environment", "deployment_tier"}

RULES = policies(organization(publishers=(publisher(trusts=trust("gitlab")),)))


def job(**changes: Any) -> GitLabIdentity:
    told = identity("gitlab", **changes)
    assert isinstance(told, GitLabIdentity)
    return told


def test_a_job_in_full() -> None:
    assert job() == GitLabIdentity(
        issuer="gitlab",
        subject="project_path:acme/tools/widgets:ref_type:tag:ref:v1.0.0",
        actor_id="77",
        actor_name="alice",
        unattended=False,
        run="574",
        project_path="acme/tools/widgets",
        project_id="20",
        namespace_id="72",
        ci_config=".gitlab-ci.yml",
        ref=TAG,
        pipeline_source="push",
        environment="pypi",
        ref_protected=True,
        environment_protected=True,
        deployment_tier="production",
        sha=SHA,
    )


# --- Every claim, in turn --------------------------------------------------------------------------------------------


def test_exactly_these_claims_must_be_there() -> None:
    """Among them `job_project_id` (18.2.2) and `ref_path` (16.0), without which a fork's job cannot be told apart."""
    without = {name: outcome(identity, "gitlab", without=name) for name in gitlab_claims()}
    assert without == dict.fromkeys(without, "accepted") | dict.fromkeys(REQUIRED, "missing-claim")


@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_the_empty_string_are_absent(absent: object) -> None:
    assert outcomes("gitlab", REQUIRED, absent) == dict.fromkeys(REQUIRED, "missing-claim")
    assert outcomes("gitlab", OPTIONAL, absent) == dict.fromkeys(OPTIONAL, "accepted")


@pytest.mark.parametrize("wrong", [1, 0, 20, 1.5, True, False, [], ["x"], {}, {"x": 1}], ids=repr)
def test_a_claim_of_another_json_type_is_refused(wrong: object) -> None:
    assert outcomes("gitlab", REQUIRED | OPTIONAL, wrong) == dict.fromkeys(REQUIRED | OPTIONAL, "invalid-claim")


@pytest.mark.parametrize(
    "wrong", ["a\x00", "a\n", "\u202ea", "\ud800", "a" * 1025, "a" * 1_000_000], ids=lambda it: it[:9]
)
def test_text_that_nobody_could_read_is_refused(wrong: str) -> None:
    assert set(outcomes("gitlab", REQUIRED | OPTIONAL, wrong).values()) == {"invalid-claim"}


@pytest.mark.parametrize("wrong", ["x", "٢٠", "20 ", "+20", "-20", "20.0", "2e1", "²"])
def test_ids_are_digits(wrong: str) -> None:
    assert outcomes("gitlab", IDS, wrong) == dict.fromkeys(IDS, "invalid-claim")


@pytest.mark.parametrize("wrong", ["True", "FALSE", "yes", "1", "protected"])
def test_flags_are_one_of_two_strings(wrong: str) -> None:
    assert outcomes("gitlab", FLAGS, wrong) == dict.fromkeys(FLAGS, "invalid-claim")


def test_optional_claims_become_none() -> None:
    told = job(**dict.fromkeys(OPTIONAL, ...))
    assert (told.environment, told.deployment_tier, told.ref_protected, told.environment_protected) == (None,) * 4
    told = job(ref_protected="false", environment_protected="false")
    assert (told.ref_protected, told.environment_protected) == (False, False)


# --- Sources of pipelines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "merge_request_event",
        "external_pull_request_event",
        "external",
        "chat",
        "webide",
        "ondemand_dast_scan",
        "ondemand_dast_validation",
        "security_orchestration_policy",
        "container_registry_push",
        "duo_workflow",
        "pipeline_execution_policy_schedule",
        "unknown",
        "something_new",
        "Push",
        "push ",
        "*",
    ],
)
def test_sources_that_outsiders_can_cause_are_forbidden(source: str) -> None:
    with refused("forbidden-trigger") as caught:
        identity("gitlab", pipeline_source=source)
    assert repr(source) in caught.value.detail


def test_a_forbidden_source_is_so_whatever_else_is_wrong() -> None:
    with refused("forbidden-trigger"):
        identity("gitlab", pipeline_source="merge_request_event", job_project_id="21", user_login=7)


def test_safe_sources_are_these() -> None:
    assert SAFE_SOURCES == ("push", "web", "schedule", "api", "trigger", "pipeline", "parent_pipeline")
    assert DEFAULT_SOURCES == ("push", "web")
    assert [job(pipeline_source=source).pipeline_source for source in SAFE_SOURCES] == list(SAFE_SOURCES)


@pytest.mark.parametrize(
    ("changes", "unattended"),
    [
        ({}, False),
        ({"pipeline_source": "web"}, False),
        ({"pipeline_source": "trigger"}, False),
        ({"pipeline_source": "schedule"}, True),
        ({"user_login": "project_20_bot"}, True),
        ({"user_login": "project_20_bot_5ff1b2"}, True),
        ({"user_login": "group_7_bot"}, True),
        ({"user_login": "group_7_bot_5ff1b2"}, True),
        ({"user_login": "service_account_5ff1b2"}, True),
        ({"user_login": "project_20_botanist"}, False),
        ({"user_login": "project_x_bot"}, False),
        ({"user_login": "my_project_20_bot"}, False),
        ({"user_login": "service_account"}, False),
        ({"user_login": "robot"}, False),
    ],
)
def test_nobody_pressed_a_button_for_schedules_and_bots(changes: dict[str, str], unattended: bool) -> None:
    assert job(**changes).unattended is unattended


# --- Forks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"job_project_id": "21"},
        {"job_namespace_id": "73"},
        {"job_project_id": "21", "job_namespace_id": "73"},
        {"job_project_id": "020"},
        {"job_project_id": "72", "job_namespace_id": "20"},
    ],
)
def test_a_job_that_runs_for_a_fork_is_refused(changes: dict[str, str]) -> None:
    """Before 18.2.2, a fork's merge request could run with the token of a protected branch."""
    with refused("forked-source"):
        identity("gitlab", **changes)


def test_a_fork_itself_is_another_project() -> None:
    fork = {"project_path": "mallory/widgets", "project_id": "21", "namespace_id": "73"}
    with refused("no-publisher"):
        granted(RULES, identity("gitlab", **fork))


# --- The pipeline's file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "ref"),
    [
        (".gitlab-ci.yml", TAG),
        ("ci/release.yml", TAG),
        ("release.yml@evil.yml", TAG),
        ("a@b/release@c.yml", TAG),
        ("release", TAG),
        ("..a/b..", TAG),
        (".gitlab-ci.yml", "refs/heads/evil@ci/release.yml"),
        ("evil.yml", "refs/heads/.gitlab-ci.yml@refs/heads/main"),
        ("evil.yml", "refs/heads/@" + SHA),
        (".gitlab-ci.yml", "refs/heads/a..b"),
        (".gitlab-ci.yml", "refs/heads//double"),
        (".gitlab-ci.yml", "refs/heads/acme/tools/widgets//x"),
    ],
)
def test_file_and_ref_are_told_apart_whatever_they_hold(path: str, ref: str) -> None:
    told = job(ref_path=ref, ci_config_ref_uri=f"{OWN}{path}@{ref}")
    assert (told.ci_config, told.ref) == (path, ref)


@pytest.mark.parametrize(
    "reference",
    [
        TAG,
        f"@{TAG}",
        OWN,
        f"{OWN}@{TAG}",
        f"{OWN}.gitlab-ci.yml",
        f"{OWN}.gitlab-ci.yml@",
        f"{OWN}.gitlab-ci.yml@v1.0.0",
        f"{OWN}.gitlab-ci.yml@{TAG}x",
        f"{OWN}.gitlab-ci.yml@{TAG.upper()}",
        f"{OWN}.gitlab-ci.yml@refs/heads/main",
        f"{OWN}.gitlab-ci.yml{TAG}",
        f"{OWN}.gitlab-ci.yml@{SHA[:-1]}",
        f"{OWN}/.gitlab-ci.yml@{TAG}",
        f"{OWN}ci//release.yml@{TAG}",
        f"{OWN}ci/@{TAG}",
        f"{OWN}./.gitlab-ci.yml@{TAG}",
        f"{OWN}../.gitlab-ci.yml@{TAG}",
        f"{OWN}ci/../.gitlab-ci.yml@{TAG}",
        f"{OWN}..@{TAG}",
        f"{OWN}.@{TAG}",
        f"{OWN}{OWN}.gitlab-ci.yml@{TAG}",
        f"gitlab.com/acme/tools/widgets/.gitlab-ci.yml@{TAG}",
        f"gitlab.com/acme/tools/widgets///.gitlab-ci.yml@{TAG}",
        f"gitlab.com/acme/tools/widgets-evil//.gitlab-ci.yml@{TAG}",
        f"gitlab.com/acme/widgets//.gitlab-ci.yml@{TAG}",
        f"gitlab.com/mallory/widgets//.gitlab-ci.yml@{TAG}",
        f"gitlab.com/acme/tools/gadgets//.gitlab-ci.yml@{TAG}",
        f"gitlab.com:443/acme/tools/widgets//.gitlab-ci.yml@{TAG}",
        f"evil.example/acme/tools/widgets//.gitlab-ci.yml@{TAG}",
        f"https://{OWN}.gitlab-ci.yml@{TAG}",
        f"x{OWN}.gitlab-ci.yml@{TAG}",
        f"acme/tools/widgets//.gitlab-ci.yml@{TAG}",
        ".gitlab-ci.yml",
    ],
)
def test_a_reference_that_does_not_fit_the_other_claims_is_refused(reference: str) -> None:
    with refused("invalid-claim") as caught:
        identity("gitlab", ci_config_ref_uri=reference)
    assert "ci_config_ref_uri" in caught.value.detail


def test_start_and_end_of_a_reference_do_not_share_characters() -> None:
    with refused("invalid-claim"):
        identity("gitlab", project_path="a/b@x", ref_path="x//", ci_config_ref_uri="gitlab.com/a/b@x//")


def test_a_reference_may_end_in_the_commit() -> None:
    assert job(ci_config_ref_uri=f"{OWN}.gitlab-ci.yml@{SHA}").ci_config == ".gitlab-ci.yml"


def test_host_and_project_of_a_reference_have_no_case_and_the_file_has() -> None:
    assert job(ci_config_ref_uri=f"GitLab.com/Acme/Tools/WIDGETS//.gitlab-ci.yml@{TAG}").ci_config == ".gitlab-ci.yml"
    assert job(ci_config_ref_uri=f"{OWN}.GitLab-ci.yml@{TAG}").ci_config == ".GitLab-ci.yml"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://gitlab.acme.example", "gitlab.acme.example"),
        ("https://gitlab.acme.example/", "gitlab.acme.example"),
        ("https://gitlab.acme.example:8443/git", "gitlab.acme.example:8443/git"),
        ("https://gitlab.acme.example:8443/git/", "gitlab.acme.example:8443/git"),
        ("http://127.0.0.1:8123/gitlab", "127.0.0.1:8123/gitlab"),
        ("https://acme.example/gitlabX", "acme.example/gitlabX"),
    ],
)
def test_a_self_managed_instance_refers_to_itself(url: str, place: str) -> None:
    own = f"{place}/acme/tools/widgets//.gitlab-ci.yml@{TAG}"
    told = identity("gitlab", url=url, ci_config_ref_uri=own)
    assert isinstance(told, GitLabIdentity)
    assert told.ci_config == ".gitlab-ci.yml"
    with refused("invalid-claim"):
        identity("gitlab", url=url, ci_config_ref_uri=f"{OWN}.gitlab-ci.yml@{TAG}")
    with refused("invalid-claim"):
        identity("gitlab", ci_config_ref_uri=own)


# --- Comparing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"project_path": "acme/tools/gadgets"}, "project_path"),
        ({"project_path": "acme/widgets"}, "project_path"),
        ({"project_id": "21"}, "project_id"),
        ({"namespace_id": "73"}, "namespace_id"),
        ({"ci_config_ref_uri": f"{OWN}ci.yml@{TAG}"}, "ci_config"),
        ({"ci_config_ref_uri": f"{OWN}.GitLab-CI.yml@{TAG}"}, "ci_config"),
        ({"environment": ...}, "environment"),
        ({"environment": "PyPI"}, "environment"),
        ({"environment": "pypi/test"}, "environment"),
        ({"ref": "main", "ref_type": "branch"}, "refs"),
        ({"ref": "x1"}, "refs"),
        ({"ref_protected": "false"}, "ref_protected"),
        ({"ref_protected": ...}, "ref_protected"),
        ({"environment_protected": "false"}, "environment_protected"),
        ({"environment_protected": ...}, "environment_protected"),
        ({"deployment_tier": "staging"}, "deployment_tier"),
        ({"deployment_tier": "Production"}, "deployment_tier"),
        ({"deployment_tier": ...}, "deployment_tier"),
        ({"pipeline_source": "schedule"}, "pipeline_sources"),
        ({"pipeline_source": "parent_pipeline"}, "pipeline_sources"),
    ],
)
def test_each_pinned_thing_is_asked(changes: dict[str, Any], field: str) -> None:
    pinned = trust("gitlab", environment_protected=True, deployment_tier="production")
    assert pinned.compare(identity("gitlab"), {}) is None
    mismatch = pinned.compare(identity("gitlab", **changes), {})
    assert mismatch is not None
    assert mismatch.rule.field == field


def test_only_protected_refs_publish_unless_a_policy_says_otherwise() -> None:
    for flag in ("false", ...):
        told = identity("gitlab", ref_protected=flag)
        assert trust("gitlab").compare(told, {}) is not None
        assert trust("gitlab", ref_protected=False).compare(told, {}) is None
    assert trust("gitlab", ref_protected=False).compare(identity("gitlab"), {}) is None


def test_an_unprotected_environment_can_be_asked_for() -> None:
    pinned = trust("gitlab", environment_protected=False)
    assert pinned.compare(identity("gitlab", environment_protected="false"), {}) is None
    assert pinned.compare(identity("gitlab"), {}) is not None
    assert pinned.compare(identity("gitlab", environment_protected=...), {}) is not None


def test_paths_have_no_case() -> None:
    assert trust("gitlab").compare(identity("gitlab", project_path="Acme/Tools/Widgets"), {}) is None


def test_the_sources_of_a_policy_stand_in_for_the_default_ones() -> None:
    pinned = trust("gitlab", pipeline_sources=("push", "api"))
    assert [pinned.compare(identity("gitlab", pipeline_source=source), {}) is None for source in SAFE_SOURCES] == [
        source in {"push", "api"} for source in SAFE_SOURCES
    ]


def test_what_is_not_pinned_is_not_asked() -> None:
    loose = trust("gitlab", environment=..., refs=...)
    for changes in ({"environment": ...}, {"ref": "main", "ref_type": "branch"}, {"deployment_tier": ...}):
        assert loose.compare(identity("gitlab", **changes), {}) is None


# --- Names that change hands -----------------------------------------------------------------------------------------


def test_a_renamed_group_or_project_is_another_name() -> None:
    with refused("no-publisher"):
        granted(RULES, identity("gitlab", project_path="acme/instruments/widgets"))


@pytest.mark.parametrize(
    "changes",
    [
        {"project_id": "21", "namespace_id": "73"},
        {"project_id": "21"},
        {"namespace_id": "73"},
        {"project_id": "72", "namespace_id": "20"},
    ],
    ids=["group re-created", "project re-created", "transferred", "swapped"],
)
def test_a_name_that_was_taken_again_is_somebody_else(changes: dict[str, str]) -> None:
    with refused("identity-changed"):
        granted(RULES, identity("gitlab", **changes))


# --- What policies may say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"project_path": "widgets"},
        {"project_path": "/acme/widgets"},
        {"project_path": "acme/widgets/"},
        {"project_path": "acme//widgets"},
        {"project_path": "https://gitlab.com/acme/widgets"},
        {"pipeline_sources": ()},
        {"pipeline_sources": ("merge_request_event",)},
        {"pipeline_sources": ("push", "chat")},
        {"pipeline_sources": ("*",)},
        {"ref_protected": "true"},
        {"ref_protected": None},
        {"environment_protected": "true"},
        {"ci_config": ""},
        {"refs": []},
    ],
    ids=str,
)
def test_a_publisher_that_could_never_be_meant_so_does_not_load(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        trust("gitlab", **changes)


def test_what_a_publisher_leaves_out() -> None:
    told = trust("gitlab", pipeline_sources=SAFE_SOURCES)
    assert isinstance(told, GitLabTrust)
    assert (told.ci_config, told.ref_protected, told.pipeline_sources) == (".gitlab-ci.yml", True, SAFE_SOURCES)


def test_rules_are_these() -> None:
    assert {rule.field: rule.kind for rule in GitLabTrust.rules} == {
        "project_path": Kind.NAME,
        "project_id": Kind.ID,
        "namespace_id": Kind.ID,
        "ci_config": Kind.CONDITION,
        "environment": Kind.CONDITION,
        "refs": Kind.CONDITION,
        "ref_protected": Kind.CONDITION,
        "environment_protected": Kind.CONDITION,
        "deployment_tier": Kind.CONDITION,
        "pipeline_sources": Kind.CONDITION,
    }
