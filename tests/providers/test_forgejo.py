"""Forgejo: what a job's claims become, and the hostile ones."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.providers import Kind
from broker.providers.forgejo import DEFAULT_EVENTS, FOLDERS, SAFE_EVENTS, ForgejoIdentity, ForgejoTrust
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
from tests.providers.hostile import NO_NUMBERS, NOT_TEXT, UNREADABLE

SHA = "714a629c0b401fdce83e847fc9589983fc6f46bc"
TAG = "refs/tags/v1.0.0"
FILE = ".forgejo/workflows/release.yml"

IDS = {"actor_id", "repository_id", "repository_owner_id", "run_id"}
REQUIRED = IDS | {"sub", "actor", "event_name", "ref", "repository", "sha", "workflow_ref"}

RULES = policies(
    organization(members=(member(ids={"forgejo": "501"}),), publishers=(publisher(trusts=trust("forgejo")),))
)


def job(**changes: Any) -> ForgejoIdentity:
    told = identity("forgejo", **changes)
    assert isinstance(told, ForgejoIdentity)
    return told


def test_a_job_in_full() -> None:
    assert job() == ForgejoIdentity(
        issuer="forgejo",
        subject=f"repo:acme-815/widgets-4711:ref:{TAG}",
        actor_id="501",
        actor_name="alice",
        unattended=False,
        run="90210",
        repository="acme/widgets",
        repository_id="4711",
        repository_owner_id="815",
        workflow=FILE,
        ref=TAG,
        event="push",
        ref_protected=False,
        sha=SHA,
    )


def test_exactly_these_claims_must_be_there() -> None:
    """The ids too, which older instances do not send: they are refused."""
    without = {name: outcome(identity, "forgejo", without=name) for name in CLAIMS["forgejo"]()}
    assert without == dict.fromkeys(without, "accepted") | dict.fromkeys(REQUIRED, "missing-claim")
    assert job(ref_protected=...).ref_protected is None


@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_the_empty_string_are_absent(absent: object) -> None:
    assert outcomes("forgejo", REQUIRED, absent) == dict.fromkeys(REQUIRED, "missing-claim")
    assert outcomes("forgejo", {"ref_protected"}, absent) == {"ref_protected": "accepted"}


@pytest.mark.parametrize("wrong", NOT_TEXT, ids=repr)
def test_a_claim_of_another_json_type_is_refused(wrong: object) -> None:
    names = REQUIRED | {"ref_protected"}
    assert outcomes("forgejo", names, wrong) == dict.fromkeys(names, "invalid-claim")


@pytest.mark.parametrize("wrong", UNREADABLE, ids=lambda it: it[:9])
def test_text_that_nobody_could_read_is_refused(wrong: str) -> None:
    assert set(outcomes("forgejo", REQUIRED | {"ref_protected"}, wrong).values()) == {"invalid-claim"}


@pytest.mark.parametrize("wrong", [*NO_NUMBERS, "-2"])
def test_ids_are_digits_and_the_instances_own_bots_have_none(wrong: str) -> None:
    assert outcomes("forgejo", IDS, wrong) == dict.fromkeys(IDS, "invalid-claim")


@pytest.mark.parametrize("wrong", ["True", "FALSE", "yes", "1"])
def test_the_protected_flag_is_one_of_two_strings(wrong: str) -> None:
    assert outcomes("forgejo", {"ref_protected"}, wrong) == {"ref_protected": "invalid-claim"}


@pytest.mark.parametrize(
    "event",
    [
        "pull_request",
        "pull_request_target",
        "pull_request_comment",
        "pull_request_review_approved",
        "issues",
        "issue_comment",
        "workflow_run",
        "workflow_call",
        "create",
        "fork",
        "wiki",
        "registry_package",
        "repository_dispatch",
        "something_new",
        "Push",
        "push ",
        "push,pull_request",
        "*",
    ],
)
def test_events_that_outsiders_can_cause_are_forbidden(event: str) -> None:
    with refused("forbidden-trigger") as caught:
        job(event_name=event)
    assert repr(event) in caught.value.detail


def test_safe_events_are_these() -> None:
    assert SAFE_EVENTS == ("push", "release", "workflow_dispatch", "schedule")
    assert DEFAULT_EVENTS == ("push", "release", "workflow_dispatch")
    assert {event: job(event_name=event).unattended for event in SAFE_EVENTS} == {
        "push": False,
        "release": False,
        "workflow_dispatch": False,
        "schedule": True,
    }


# --- The workflow ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "ref"),
    [
        *((f"{folder}release.yml", TAG) for folder in FOLDERS),
        (".forgejo/workflows/release.yaml", TAG),
        (".forgejo/workflows/release.yml@evil.yml", TAG),
        (".forgejo/workflows/release@v1.yml", "refs/heads/main"),
        (".forgejo/workflows/release.yml", "refs/heads/evil@release.yml"),
        (".forgejo/workflows/evil.yml", "refs/heads/release.yml@refs/heads/main"),
        (".forgejo/workflows/evil.yml", "refs/heads/@" + SHA),
    ],
)
def test_the_file_is_what_stands_between_repository_and_ref(file: str, ref: str) -> None:
    assert job(workflow_file=file, ref=ref).workflow == file
    assert job(ref=ref, workflow_ref=f"ACME/Widgets/{file}@{ref}").workflow == file
    assert job(ref=ref, workflow_ref=f"acme/widgets/{file}@{SHA}").workflow == file


@pytest.mark.parametrize(
    "reference",
    [
        "x",
        f"{FILE}@{TAG}",
        f"acme/widgets/{FILE}",
        f"acme/widgets/{FILE}@",
        f"acme/widgets/{FILE}@refs/heads/main",
        f"acme/widgets/{FILE}@{TAG} ",
        f"evil/widgets/{FILE}@{TAG}",
        f"acme/widgets2/{FILE}@{TAG}",
        f"acme/widgetsx{FILE}@{TAG}",
        f"x/acme/widgets/{FILE}@{TAG}",
        f"acme/widgets/.evil/workflows/release.yml@{TAG}",
        f"acme/widgets/.forgejo/release.yml@{TAG}",
        f"acme/widgets/.forgejo/workflows/sub/release.yml@{TAG}",
        f"acme/widgets/x/.forgejo/workflows/release.yml@{TAG}",
        f"acme/widgets/.Forgejo/workflows/release.yml@{TAG}",
        f"acme/widgets/.forgejo/workflows/release.txt@{TAG}",
        f"acme/widgets/.forgejo/workflows/@{TAG}",
        f"acme/widgets/@{TAG}",
        f"@{TAG}",
    ],
)
def test_a_reference_that_does_not_fit_the_other_claims_is_refused(reference: str) -> None:
    with refused("invalid-claim"):
        job(workflow_ref=reference)


# --- Who it is -------------------------------------------------------------------------------------------------------


def test_the_person_who_caused_the_run_is_the_actor() -> None:
    assert granted(RULES, job()).members == ("acme/alice",)
    with refused("unknown-actor"):
        granted(RULES, job(actor_id="666"))
    with refused("no-publisher"):
        granted(RULES, job(event_name="schedule"))


def test_the_event_is_a_condition() -> None:
    releases = trust("forgejo", events=("release",))
    assert releases.compare(job(event_name="release"), {}) is None
    assert releases.compare(job(event_name="push"), {}) is not None


def test_a_schedule_needs_a_machine() -> None:
    often = publisher(trusts=trust("forgejo", events=("schedule",)))
    rules = policies(organization(members=(member(ids={"forgejo": "501"}),), publishers=(often,)))
    with refused("machine-required"):
        granted(rules, job(event_name="schedule"))


def test_names_that_were_taken_again_are_somebody_else() -> None:
    for changed in ({"repository_id": "9"}, {"repository_owner_id": "9"}):
        with refused("identity-changed"):
            granted(RULES, job(**changed))


def test_a_renamed_repository_is_another_name() -> None:
    with refused("no-publisher"):
        granted(RULES, job(repository="acme/gadgets"))


def test_names_have_no_case() -> None:
    assert granted(RULES, job(repository="ACME/widgets")).members == ("acme/alice",)


@pytest.mark.parametrize(
    "changes",
    [
        {"workflow_file": ".forgejo/workflows/Release.yml"},
        {"workflow_file": ".github/workflows/release.yml"},
        {"ref": "refs/heads/v1"},
    ],
    ids=str,
)
def test_conditions_compare_to_the_letter(changes: dict[str, Any]) -> None:
    with refused("no-publisher"):
        granted(RULES, job(**changes))


def test_a_publisher_may_ask_for_protected_refs() -> None:
    asks = trust("forgejo", ref_protected=True)
    assert asks.compare(job(ref_protected="true"), {}) is None
    for told in ("false", ...):
        assert asks.compare(job(ref_protected=told), {}) is not None


@pytest.mark.parametrize(
    "changes",
    [
        *({"repository": text} for text in ("widgets", "/widgets", "acme/", "a/b/c", "/", "")),
        *(
            {"workflow": text}
            for text in ("release.yml", "release", ".forgejo/workflows/", ".forgejo/workflows/a/b.yml", "")
        ),
        {"events": ()},
        {"events": ["push"]},
        {"events": ("pull_request",)},
        {"events": ("push", "other")},
        {"events": "push"},
        {"ref_protected": "true"},
        {"environment": "pypi"},
    ],
    ids=str,
)
def test_what_a_publisher_cannot_say(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        trust("forgejo", **changes)


def test_rules_are_these() -> None:
    assert {rule.field: rule.kind for rule in ForgejoTrust.rules} == {
        "repository": Kind.NAME,
        "repository_id": Kind.ID,
        "repository_owner_id": Kind.ID,
        "workflow": Kind.CONDITION,
        "refs": Kind.CONDITION,
        "events": Kind.CONDITION,
        "ref_protected": Kind.CONDITION,
    }
