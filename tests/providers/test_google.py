"""Google: what a service account's claims become, and the hostile ones."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.playground.claims import google_claims
from broker.providers import Kind
from broker.providers.google import GoogleIdentity, GoogleTrust
from tests.fakes import (
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

EMAIL = "release-bot@acme-builds.iam.gserviceaccount.com"
ACCOUNT = "112233445566778899"
REQUIRED = {"sub", "email", "email_verified"}

BOT = member("release-bot", "member", uploads=("acme-*",), machine=True)
RULES = policies(organization(members=(BOT,), publishers=(publisher(trusts=trust("google")),)))


def account(**changes: Any) -> GoogleIdentity:
    told = identity("google", **changes)
    assert isinstance(told, GoogleIdentity)
    return told


def test_an_account_in_full() -> None:
    assert account() == GoogleIdentity(
        issuer="google",
        subject=ACCOUNT,
        actor_id=ACCOUNT,
        actor_name=EMAIL,
        unattended=True,
        run=ACCOUNT,
        email=EMAIL,
        account_id=ACCOUNT,
        authorized_party=ACCOUNT,
    )


def test_exactly_these_claims_must_be_there() -> None:
    without = {name: outcome(identity, "google", without=name) for name in google_claims()}
    assert without == dict.fromkeys(without, "accepted") | dict.fromkeys(REQUIRED, "missing-claim")
    assert account(azp=...).authorized_party is None


def test_null_and_the_empty_string() -> None:
    assert outcomes("google", REQUIRED, None) == dict.fromkeys(REQUIRED, "missing-claim")
    assert outcomes("google", {"sub", "email"}, "") == dict.fromkeys({"sub", "email"}, "missing-claim")
    for absent in (None, ""):
        assert outcomes("google", {"azp"}, absent) == {"azp": "accepted"}


@pytest.mark.parametrize("wrong", [1, 0, 1.5, True, False, [], ["x"], {}, {"x": 1}], ids=repr)
def test_a_claim_of_another_json_type_is_refused(wrong: object) -> None:
    names = {"sub", "email", "azp"}
    assert outcomes("google", names, wrong) == dict.fromkeys(names, "invalid-claim")


@pytest.mark.parametrize("wrong", [False, "true", "false", "yes", 1, 0, 1.0, [], [True], {}, ""], ids=repr)
def test_the_address_is_verified_and_that_is_the_json_boolean_true(wrong: object) -> None:
    assert outcomes("google", {"email_verified"}, wrong) == {"email_verified": "invalid-claim"}


@pytest.mark.parametrize(
    "wrong", ["a\x00", "a\n", "\u202ea", "\ud800", "a" * 1025, "a" * 1_000_000], ids=lambda it: it[:9]
)
def test_text_that_nobody_could_read_is_refused(wrong: str) -> None:
    assert set(outcomes("google", {"sub", "email", "azp"}, wrong).values()) == {"invalid-claim"}


@pytest.mark.parametrize("wrong", ["x", "١١٢", "1 ", "+1", "-1", "1.0", "1e3", "²", EMAIL])
def test_the_account_is_a_number(wrong: str) -> None:
    assert outcomes("google", {"sub"}, wrong) == {"sub": "invalid-claim"}


def test_the_actor_is_a_machine() -> None:
    """Nobody presses a button for a service account: its member must be marked so."""
    assert granted(RULES, identity("google")).members == ("acme/release-bot",)
    alice = organization(members=(member(),), publishers=(publisher(trusts=trust("google")),))
    with refused("machine-required"):
        granted(policies(alice), identity("google"))


def test_an_address_that_was_taken_again_is_somebody_else() -> None:
    with refused("identity-changed"):
        granted(RULES, identity("google", sub="998877665544332211"))


def test_another_address_of_the_same_account_is_another_name() -> None:
    with refused("no-publisher"):
        granted(RULES, identity("google", email="other@acme-builds.iam.gserviceaccount.com"))


def test_addresses_have_no_case() -> None:
    assert trust("google", email=EMAIL.upper()).compare(identity("google"), {}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"email": "release-bot"},
        {"email": "@acme.example"},
        {"email": "release-bot@"},
        {"email": "release bot@acme.example"},
        {"email": "a@b@c"},
        {"email": f"{EMAIL}\n"},
    ],
    ids=str,
)
def test_a_publisher_without_an_address_does_not_load(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        trust("google", **changes)


def test_rules_are_these() -> None:
    assert {rule.field: rule.kind for rule in GoogleTrust.rules} == {"email": Kind.NAME, "account_id": Kind.ID}
