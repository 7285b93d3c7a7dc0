"""Buildkite: what a job's claims become, and the hostile ones."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.providers import Kind
from broker.providers.buildkite import DEFAULT_SOURCES, SAFE_SOURCES, BuildkiteIdentity, BuildkiteTrust
from tests.fakes import (
    CLAIMS,
    granted,
    identity,
    member,
    organization,
    outcome,
    outcomes,
    policies,
    publisher,
    refused,
    trust,
)
from tests.providers.hostile import NO_UUIDS, NOT_TEXT, UNREADABLE

ORGANIZATION = "0184990a-477b-4fa8-9968-496074483ce1"
PIPELINE = "0184990a-4782-42b5-afc1-16715b10b8f2"
JOB = "0184990a-477b-4fa8-9968-496074483cee"
SHA = "714a629c0b401fdce83e847fc9589983fc6f46bc"

IDS = {"organization_id", "pipeline_id", "job_id"}
REQUIRED = IDS | {"sub", "organization_slug", "pipeline_slug", "build_branch", "build_commit", "build_source"}
OPTIONAL = {"step_key", "runner_environment"}

BOT = member("widgets-pipeline", "member", uploads=("acme-*",), machine=True, ids={"buildkite": PIPELINE})
RULES = policies(organization(members=(BOT,), publishers=(publisher(trusts=trust("buildkite")),)))


def job(**changes: Any) -> BuildkiteIdentity:
    told = identity("buildkite", **changes)
    assert isinstance(told, BuildkiteIdentity)
    return told


def test_a_job_in_full() -> None:
    assert job() == BuildkiteIdentity(
        issuer="buildkite",
        subject=f"organization:acme:pipeline:widgets:ref:refs/tags/v1.0.0:commit:{SHA}:step:publish",
        actor_id=PIPELINE,
        actor_name="acme/widgets",
        unattended=True,
        run=JOB,
        pipeline="acme/widgets",
        organization_id=ORGANIZATION,
        pipeline_id=PIPELINE,
        ref="refs/tags/v1.0.0",
        step_key="publish",
        build_source="webhook",
        runner_environment="buildkite-hosted",
        sha=SHA,
    )


def test_exactly_these_claims_must_be_there() -> None:
    """The ids too, although jobs have to ask for them: a slug alone can change hands."""
    without = {name: outcome(identity, "buildkite", without=name) for name in CLAIMS["buildkite"]()}
    assert without == dict.fromkeys(without, "accepted") | dict.fromkeys(REQUIRED, "missing-claim") | {
        "build_tag": "forbidden-trigger"
    }
    told = job(step_key=None, runner_environment=...)
    assert (told.step_key, told.runner_environment) == (None, None)


@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_the_empty_string_are_absent(absent: object) -> None:
    assert outcomes("buildkite", REQUIRED, absent) == dict.fromkeys(REQUIRED, "missing-claim")
    assert outcomes("buildkite", OPTIONAL, absent) == dict.fromkeys(OPTIONAL, "accepted")
    assert outcomes("buildkite", {"build_tag"}, absent) == {"build_tag": "forbidden-trigger"}


@pytest.mark.parametrize("wrong", NOT_TEXT, ids=repr)
def test_a_claim_of_another_json_type_is_refused(wrong: object) -> None:
    names = REQUIRED | OPTIONAL | {"build_tag"}
    assert outcomes("buildkite", names, wrong) == dict.fromkeys(names, "invalid-claim")


@pytest.mark.parametrize("wrong", UNREADABLE, ids=lambda it: it[:9])
def test_text_that_nobody_could_read_is_refused(wrong: str) -> None:
    assert set(outcomes("buildkite", REQUIRED | OPTIONAL | {"build_tag"}, wrong).values()) == {"invalid-claim"}


@pytest.mark.parametrize("wrong", NO_UUIDS)
def test_ids_are_uuids_of_one_spelling(wrong: str) -> None:
    assert outcomes("buildkite", IDS, wrong) == dict.fromkeys(IDS, "invalid-claim")


@pytest.mark.parametrize("wrong", ["a/b", "/", "acme/"])
def test_a_slug_with_a_slash_cannot_pose_as_two(wrong: str) -> None:
    slugs = {"organization_slug", "pipeline_slug"}
    assert outcomes("buildkite", slugs, wrong) == dict.fromkeys(slugs, "invalid-claim")


# --- What started the build ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["trigger_job", "pull_request", "something_new", "UI", "ui ", "ui,webhook", "*"])
def test_sources_that_outsiders_can_cause_are_forbidden(source: str) -> None:
    with refused("forbidden-trigger") as caught:
        job(build_source=source)
    assert repr(source) in caught.value.detail


def test_a_webhook_for_a_branch_may_be_a_strangers_pull_request_and_is_forbidden() -> None:
    """A fork's `main` is built as the branch `main`, and no claim tells the two apart; only members push tags."""
    for tag in (..., None, ""):
        with refused("forbidden-trigger"):
            job(build_tag=tag, build_branch="main")
    assert job(build_tag="v1").ref == "refs/tags/v1"


@pytest.mark.parametrize("source", ["ui", "api", "schedule"])
def test_other_safe_sources_may_build_branches(source: str) -> None:
    told = job(build_source=source, build_tag=..., build_branch="main")
    assert (told.ref, told.build_source) == ("refs/heads/main", source)


def test_safe_sources_are_these() -> None:
    assert SAFE_SOURCES == ("ui", "api", "schedule", "webhook")
    assert DEFAULT_SOURCES == ("ui", "webhook")


def test_a_branch_cannot_pose_as_a_tag() -> None:
    told = job(build_source="ui", build_tag=..., build_branch="refs/tags/v1.0.0")
    assert told.ref == "refs/heads/refs/tags/v1.0.0"
    assert trust("buildkite").compare(told, {}) is not None


def test_the_source_is_a_condition() -> None:
    for source, fits in (("ui", True), ("webhook", True), ("api", False), ("schedule", False)):
        assert (trust("buildkite").compare(job(build_source=source), {}) is None) is fits
    by_api = trust("buildkite", build_sources=("api",))
    assert by_api.compare(job(build_source="api"), {}) is None
    assert by_api.compare(job(build_source="ui"), {}) is not None


# --- Who it is -------------------------------------------------------------------------------------------------------


def test_the_pipeline_is_the_actor_and_a_machine() -> None:
    assert granted(RULES, job()).members == ("acme/widgets-pipeline",)
    person = member("alice", ids={"buildkite": PIPELINE})
    with refused("machine-required"):
        granted(
            policies(organization(members=(person,), publishers=(publisher(trusts=trust("buildkite")),))),
            job(build_source="ui"),
        )


def test_slugs_that_were_taken_again_are_somebody_else() -> None:
    for changed in ({"organization_id": JOB}, {"pipeline_id": JOB}):
        with refused("identity-changed"):
            granted(RULES, job(**changed))


def test_a_renamed_pipeline_or_organization_is_another_name() -> None:
    for changed in ({"pipeline_slug": "gadgets"}, {"organization_slug": "globex"}, {"organization_slug": "Acme"}):
        with refused("no-publisher"):
            granted(RULES, job(**changed))


@pytest.mark.parametrize(
    "changes",
    [{"step_key": "Publish"}, {"step_key": None}, {"build_tag": "x1"}, {"build_source": "api"}],
    ids=str,
)
def test_conditions_compare_to_the_letter(changes: dict[str, Any]) -> None:
    with refused("no-publisher"):
        granted(RULES, job(**changes))


def test_the_place_it_runs_on_is_a_condition() -> None:
    assert trust("buildkite", runner_environment="buildkite-hosted").compare(job(), {}) is None
    assert trust("buildkite", runner_environment="self-hosted").compare(job(), {}) is not None


@pytest.mark.parametrize(
    "changes",
    [
        *({"pipeline": text} for text in ("widgets", "/widgets", "acme/", "a/b/c", "/", "")),
        {"build_sources": ()},
        {"build_sources": ["ui"]},
        {"build_sources": ("trigger_job",)},
        {"build_sources": ("ui", "other")},
        {"build_sources": "ui"},
    ],
    ids=str,
)
def test_what_a_publisher_cannot_say(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        trust("buildkite", **changes)


def test_rules_are_these() -> None:
    assert {rule.field: rule.kind for rule in BuildkiteTrust.rules} == {
        "pipeline": Kind.NAME,
        "organization_id": Kind.ID,
        "pipeline_id": Kind.ID,
        "step_key": Kind.CONDITION,
        "refs": Kind.CONDITION,
        "build_sources": Kind.CONDITION,
        "runner_environment": Kind.CONDITION,
    }
