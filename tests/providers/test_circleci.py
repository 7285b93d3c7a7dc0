"""CircleCI: what a job's claims become, and the hostile ones."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.providers import Kind
from broker.providers.circleci import CircleCIIdentity, CircleCITrust
from tests.fakes import (
    CI,
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

OWN = "oidc.circleci.com/"
ORG = "3c0a1f9e-6b5d-4e2c-8f7a-1d2e3f4a5b6c"
PROJECT = "8a7b6c5d-4e3f-4a2b-9c1d-0e9f8a7b6c5d"
USER = "2b1a0c9d-8e7f-4a6b-9c5d-4e3f2a1b0c9d"
WORKFLOW = "22e3d4c5-b6a7-4988-97a6-b5c4d3e2f1a2"
DEFINITION = "6f5e4d3c-2b1a-4f9e-8d7c-6b5a4f3e2d1c"
CONTEXT = "44a5f6e7-d8c9-4baa-99c8-d7e6f5a4b3c4"
SHORT = f"org/{ORG}/project/{PROJECT}/user/{USER}"
ORIGIN, TAG = "github.com/acme-corp/widgets", "refs/tags/v1.0.0"
LONG = f"{SHORT}/vcs-origin/{ORIGIN}/vcs-ref/{TAG}"

REQUIRED = {"sub", f"{OWN}project-id", f"{OWN}vcs-origin", f"{OWN}vcs-ref"}
OPTIONAL = {f"{OWN}workflow-id", f"{OWN}pipeline-definition-id"}

RULES = policies(
    organization(members=(member(ids={"circleci": USER}),), publishers=(publisher(trusts=trust("circleci")),))
)


def job(**changes: Any) -> CircleCIIdentity:
    """Changes by the names that stand behind 'oidc.circleci.com/', `_` for `-`; 'sub' as it is."""
    own = {name if name == "sub" else OWN + name.replace("_", "-"): value for name, value in changes.items()}
    told = identity("circleci", **own)
    assert isinstance(told, CircleCIIdentity)
    return told


def test_a_job_in_full() -> None:
    assert job() == CircleCIIdentity(
        issuer="circleci",
        subject=LONG,
        actor_id=USER,
        actor_name=USER,
        unattended=False,
        run=WORKFLOW,
        vcs_origin=ORIGIN,
        project_id=PROJECT,
        pipeline_definition_id=DEFINITION,
        contexts=CONTEXT,
        ref=TAG,
    )


def test_exactly_these_claims_must_be_there() -> None:
    """A custom webhook's run has no `vcs-origin`: nobody could say whose it is."""
    must = dict.fromkeys({*REQUIRED, f"{OWN}ssh-rerun"}, "missing-claim")
    without = {name: outcome(identity, "circleci", without=name) for name in CLAIMS["circleci"]()}
    assert without == dict.fromkeys(without, "accepted") | must
    told = job(workflow_id=..., pipeline_definition_id=..., context_ids=...)
    assert (told.run, told.pipeline_definition_id, told.contexts) == (PROJECT, None, "")


@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_the_empty_string_are_absent(absent: object) -> None:
    assert outcomes("circleci", REQUIRED, absent) == dict.fromkeys(REQUIRED, "missing-claim")
    assert outcomes("circleci", OPTIONAL, absent) == dict.fromkeys(OPTIONAL, "accepted")


@pytest.mark.parametrize("wrong", NOT_TEXT, ids=repr)
def test_a_claim_of_another_json_type_is_refused(wrong: object) -> None:
    assert outcomes("circleci", REQUIRED | OPTIONAL, wrong) == dict.fromkeys(REQUIRED | OPTIONAL, "invalid-claim")


@pytest.mark.parametrize("wrong", UNREADABLE, ids=lambda it: it[:9])
def test_text_that_nobody_could_read_is_refused(wrong: str) -> None:
    assert set(outcomes("circleci", REQUIRED | OPTIONAL, wrong).values()) == {"invalid-claim"}


@pytest.mark.parametrize("wrong", NO_UUIDS)
def test_ids_are_uuids_of_one_spelling(wrong: str) -> None:
    assert outcomes("circleci", {f"{OWN}project-id"}, wrong) == {f"{OWN}project-id": "invalid-claim"}
    assert outcomes("circleci", {f"{OWN}context-ids"}, [CONTEXT, wrong]) == {f"{OWN}context-ids": "invalid-claim"}
    with refused("invalid-claim"):
        job(sub=SHORT.replace(USER, wrong))


@pytest.mark.parametrize(
    "wrong", [1, True, "x", CONTEXT, {}, {"x": 1}, [1], [None], [CONTEXT, 7], [[CONTEXT]]], ids=repr
)
def test_contexts_are_a_list_of_ids(wrong: object) -> None:
    with refused("invalid-claim"):
        job(context_ids=wrong)
    assert job(context_ids=[]).contexts == ""
    assert job(context_ids=[CONTEXT, USER]).contexts == f"{CONTEXT} {USER}"


@pytest.mark.parametrize("wrong", ["true", "false", 1, 0, 1.0, [], [False], {}, ""], ids=repr)
def test_whether_it_is_a_rerun_with_ssh_is_a_json_boolean(wrong: object) -> None:
    with refused("invalid-claim"):
        job(ssh_rerun=wrong)


def test_a_rerun_with_ssh_is_forbidden() -> None:
    with refused("forbidden-trigger"):
        job(ssh_rerun=True)


@pytest.mark.parametrize("ref", ["refs/heads/pull/7", "refs/pull/7/head", "refs/heads/pull/7/merge"])
def test_a_pull_request_from_a_fork_is_refused(ref: str) -> None:
    with refused("forked-source"):
        job(vcs_ref=ref)


def test_a_branch_that_only_looks_so_is_none() -> None:
    for ref in ("refs/heads/pulling/7", "refs/heads/fix/pull/7", "refs/tags/pull"):
        assert job(vcs_ref=ref).ref == ref


# --- The person, who stands in `sub` alone ---------------------------------------------------------------------------


@pytest.mark.parametrize("subject", [SHORT, LONG])
def test_both_formats_of_the_subject_name_the_person(subject: str) -> None:
    told = job(sub=subject)
    assert (told.actor_id, told.subject) == (USER, subject)


@pytest.mark.parametrize(
    "subject",
    [
        USER,
        f"user/{USER}",
        SHORT.replace(ORG, PROJECT),
        SHORT.replace(PROJECT, ORG),
        SHORT.upper(),
        SHORT.replace("/user/", "/users/"),
        SHORT[:-1],
        f"{SHORT}0",
        f"{SHORT}/",
        f"/{SHORT}",
        f"x{SHORT}",
        f"org/{ORG}/project/{PROJECT}/user/",
        f"{SHORT}/user/{ORG}",
        f"org/{ORG}/project/{PROJECT}/user/{ORG}/user/{USER}",
        f"{SHORT}/vcs-origin/{ORIGIN}",
        f"{SHORT}/vcs-origin/{ORIGIN}/vcs-ref/refs/heads/main",
        f"{SHORT}/vcs-origin/github.com/evil/widgets/vcs-ref/{TAG}",
        f"{LONG}/",
        f"{LONG}/vcs-ref/{TAG}",
        f"{SHORT}{LONG}",
    ],
)
def test_a_subject_that_does_not_fit_the_other_claims_is_refused(subject: str) -> None:
    with refused("invalid-claim"):
        job(sub=subject)


def test_an_origin_or_ref_that_poses_as_the_rest_of_a_subject_does_not_move_the_person() -> None:
    ref = f"refs/heads/x/user/{ORG}"
    assert job(vcs_ref=ref).actor_id == USER
    assert job(vcs_origin=f"github.com/acme-corp/widgets/user/{ORG}").actor_id == USER


def test_a_subject_of_another_organizations_issuer_is_refused() -> None:
    """Each organization has an issuer of its own, and its id is the end of the URL."""
    with refused("invalid-claim"):
        identity("circleci", url=CI.urls["circleci"].replace(ORG, PROJECT))


# --- Who it is -------------------------------------------------------------------------------------------------------


def test_the_person_who_caused_the_run_is_the_actor() -> None:
    assert granted(RULES, job()).members == ("acme/alice",)
    with refused("unknown-actor"):
        granted(RULES, job(sub=SHORT.replace(USER, CONTEXT)))


def test_a_name_that_was_taken_again_is_somebody_else() -> None:
    with refused("identity-changed"):
        granted(RULES, job(project_id=CONTEXT))


@pytest.mark.parametrize(
    "origin", ["github.com/evil/widgets", "github.com/Acme-Corp/widgets", "gitlab.com/acme-corp/widgets"]
)
def test_a_fork_or_a_renamed_repository_is_another_name(origin: str) -> None:
    with refused("no-publisher"):
        granted(RULES, job(vcs_origin=origin))


def test_conditions_compare_to_the_letter() -> None:
    assert trust("circleci", context_id=CONTEXT, pipeline_definition_id=DEFINITION).compare(job(), {}) is None
    narrow = trust("circleci", context_id=CONTEXT)
    assert narrow.compare(job(context_ids=[USER, CONTEXT]), {}) is None
    for listed in ([], [USER], ...):
        assert narrow.compare(job(context_ids=listed), {}) is not None
    for told in (USER, ...):
        mismatch = trust("circleci", pipeline_definition_id=DEFINITION).compare(job(pipeline_definition_id=told), {})
        assert mismatch is not None
    assert trust("circleci").compare(job(vcs_ref="refs/heads/main"), {}) is not None


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"vcs_origin": text}
            for text in ("widgets", "https://github.com/acme-corp/widgets", f"{ORIGIN}.git", f"{ORIGIN}/", "")
        ),
        {"context_id": "x"},
        {"pipeline_definition_id": 7},
    ],
    ids=str,
)
def test_what_a_publisher_cannot_say(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        trust("circleci", **changes)


def test_rules_are_these() -> None:
    assert {rule.field: rule.kind for rule in CircleCITrust.rules} == {
        "vcs_origin": Kind.NAME,
        "project_id": Kind.ID,
        "pipeline_definition_id": Kind.CONDITION,
        "context_id": Kind.CONDITION,
        "refs": Kind.CONDITION,
    }
