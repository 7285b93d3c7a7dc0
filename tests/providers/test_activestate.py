"""ActiveState: what a build's claims become, and the hostile ones."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.providers import Kind
from broker.providers.activestate import ActiveStateIdentity, ActiveStateTrust
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

ALICE = "0b2ad4f2-8e0d-4c5e-9a61-6a5f3c1d7e01"
ORGANIZATION = "5f1c9b1e-2d61-4f7a-8a3e-3f0f5b8a9c10"
PROJECT = "9c3b2a10-7e6d-4c5b-9f8e-2d1c0b9a8f77"
OTHER = "ffffffff-7e6d-4c5b-9f8e-2d1c0b9a8f77"

IDS = {"actor_id", "artifact_id", "organization_id", "project_id"}
REQUIRED = IDS | {"sub", "actor", "builder", "organization", "project"}

RULES = policies(
    organization(members=(member(ids={"activestate": ALICE}),), publishers=(publisher(trusts=trust("activestate")),))
)


def build(**changes: Any) -> ActiveStateIdentity:
    told = identity("activestate", **changes)
    assert isinstance(told, ActiveStateIdentity)
    return told


def test_a_build_in_full() -> None:
    assert build() == ActiveStateIdentity(
        issuer="activestate",
        subject="org:acme:project:widgets",
        actor_id=ALICE,
        actor_name="alice",
        unattended=False,
        run="7d0f4f4e-5a52-4b26-9a0c-1a2b3c4d5e6f",
        project_path="acme/widgets",
        organization_id=ORGANIZATION,
        project_id=PROJECT,
        ingredient="widgets",
    )


def test_exactly_these_claims_must_be_there() -> None:
    without = {name: outcome(identity, "activestate", without=name) for name in CLAIMS["activestate"]()}
    assert without == dict.fromkeys(without, "accepted") | dict.fromkeys(REQUIRED, "missing-claim")
    assert build(ingredient=...).ingredient is None


@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_the_empty_string_are_absent(absent: object) -> None:
    assert outcomes("activestate", REQUIRED, absent) == dict.fromkeys(REQUIRED, "missing-claim")
    assert outcomes("activestate", {"ingredient"}, absent) == {"ingredient": "accepted"}


@pytest.mark.parametrize("wrong", NOT_TEXT, ids=repr)
def test_a_claim_of_another_json_type_is_refused(wrong: object) -> None:
    names = REQUIRED | {"ingredient"}
    assert outcomes("activestate", names, wrong) == dict.fromkeys(names, "invalid-claim")


@pytest.mark.parametrize("wrong", UNREADABLE, ids=lambda it: it[:9])
def test_text_that_nobody_could_read_is_refused(wrong: str) -> None:
    assert set(outcomes("activestate", REQUIRED | {"ingredient"}, wrong).values()) == {"invalid-claim"}


@pytest.mark.parametrize("wrong", NO_UUIDS)
def test_ids_are_uuids_of_one_spelling(wrong: str) -> None:
    assert outcomes("activestate", IDS, wrong) == dict.fromkeys(IDS, "invalid-claim")


@pytest.mark.parametrize("wrong", ["a/b", "/", "acme/"])
def test_a_name_with_a_slash_cannot_pose_as_two(wrong: str) -> None:
    """'a/b' with 'c' would be called as 'a' with 'b/c' is."""
    assert outcomes("activestate", {"organization", "project"}, wrong) == {
        "organization": "invalid-claim",
        "project": "invalid-claim",
    }


@pytest.mark.parametrize("builder", ["wheel-builder", "Pypi-Publisher", "pypi-publisher ", "pypi-publisher-2", "*"])
def test_other_builders_are_forbidden(builder: str) -> None:
    with refused("forbidden-trigger") as caught:
        build(builder=builder)
    assert repr(builder) in caught.value.detail


def test_the_platforms_own_publishes() -> None:
    assert build(builder="pypi-publisher") == build()


def test_the_owner_of_the_build_is_granted() -> None:
    assert granted(RULES, build()).members == ("acme/alice",)


def test_names_that_were_taken_again_are_somebody_else() -> None:
    for changed in ({"organization_id": OTHER}, {"project_id": OTHER}):
        with refused("identity-changed"):
            granted(RULES, build(**changed))


def test_a_renamed_project_or_organization_is_another_name() -> None:
    for changed in ({"project": "gadgets"}, {"organization": "globex"}, {"organization": "Acme"}):
        with refused("no-publisher"):
            granted(RULES, build(**changed))


def test_another_actor_is_no_member() -> None:
    with refused("unknown-actor"):
        granted(RULES, build(actor_id=OTHER))


def test_another_ingredient_does_not_fit_a_publisher_that_names_one() -> None:
    assert trust("activestate", ingredient="widgets").compare(build(), {}) is None
    for told in ({"ingredient": "Widgets"}, {"ingredient": ...}):
        mismatch = trust("activestate", ingredient="widgets").compare(build(**told), {})
        assert mismatch is not None
        assert mismatch.rule.kind is Kind.CONDITION


@pytest.mark.parametrize("path", ["widgets", "/widgets", "acme/", "a/b/c", "/", ""])
def test_a_publisher_names_an_organization_and_a_project(path: str) -> None:
    with pytest.raises(ValidationError):
        trust("activestate", project_path=path)


def test_rules_are_these() -> None:
    assert {rule.field: rule.kind for rule in ActiveStateTrust.rules} == {
        "project_path": Kind.NAME,
        "organization_id": Kind.ID,
        "project_id": Kind.ID,
        "ingredient": Kind.CONDITION,
    }
