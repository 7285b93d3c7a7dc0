"""A rehearsal decides as a mint would, and tells how far it came."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.playground.claims import ALICE, MALLORY, github_claims
from broker.policy.model import Freeze, Issuer, Policies
from broker.policy.rehearsal import rehearse, rehearse_again
from broker.providers import PROVIDERS
from tests.fakes import NOW, organization, policies

GITHUB = Issuer(
    name="github",
    url="https://token.actions.githubusercontent.com",
    provider=PROVIDERS["github"],
    longest_token_seconds=1,
)


def world(issuer: Issuer = GITHUB) -> Policies:
    return replace(policies(), issuers={issuer.name: issuer}, issuer_by_url={issuer.url: issuer})


def test_a_bound_run_earns_what_a_mint_would_give() -> None:
    found = rehearse(world(), github_claims(), now=NOW)
    assert found.refusal is None
    assert found.issuer is GITHUB
    assert found.identity is not None
    assert found.identity.actor_id == ALICE.github_id
    assert [one.mismatch for one in found.considered] == [None]
    assert found.grant is not None
    assert found.grant.members == ("acme/alice",)


def test_what_is_asked_for_is_asked() -> None:
    """A freeze is of uploads alone."""
    frozen = replace(organization(), freezes=(Freeze(reason="year end"),))
    rules = replace(policies(frozen), issuers={"github": GITHUB}, issuer_by_url={GITHUB.url: GITHUB})
    found = rehearse(rules, github_claims(), now=NOW, scope="read")
    assert (found.scope, found.grant is not None) == ("read", True)
    assert found.identity is not None
    again = rehearse_again(rules, found.identity, now=NOW, scope="read")
    assert (again.scope, again.grant) == ("read", found.grant)
    for refused in (rehearse(rules, github_claims(), now=NOW), rehearse_again(rules, found.identity, now=NOW)):
        assert (refused.scope, refused.grant) == ("upload", None)
        assert refused.refusal is not None
        assert refused.refusal.code == "organization-frozen"
    assert rehearse(rules, {}, now=NOW, scope="read").scope == "read"


@pytest.mark.parametrize(
    ("changes", "code", "came_to"),
    [
        ({"iss": ...}, "missing-claim", ()),
        ({"iss": 7}, "missing-claim", ()),
        ({"iss": "https://ci.example"}, "unknown-issuer", ()),
        ({"event_name": "pull_request_target"}, "forbidden-trigger", ("issuer",)),
        ({"repository_id": 424242424}, "invalid-claim", ("issuer",)),
        ({"repository": "acme-corp/gadgets"}, "no-publisher", ("issuer", "identity")),
        ({"repository_id": "1"}, "identity-changed", ("issuer", "identity", "considered")),
        (MALLORY.on_github, "unknown-actor", ("issuer", "identity", "considered")),
    ],
)
def test_the_first_step_that_fails_ends_it(changes: dict[str, Any], code: str, came_to: tuple[str, ...]) -> None:
    found = rehearse(world(), github_claims(**changes), now=NOW)
    assert found.refusal is not None
    assert found.refusal.code == code
    assert tuple(name for name in ("issuer", "identity", "considered", "grant") if getattr(found, name)) == came_to


def test_an_unknown_issuer_is_shown_in_part() -> None:
    found = rehearse(world(), {"iss": "https://" + "x" * 300}, now=NOW)
    assert found.refusal is not None
    assert found.refusal.detail == f"the issuer {'https://' + 'x' * 192!r} is none that this index trusts"


def test_an_issuer_that_is_switched_off_refuses() -> None:
    found = rehearse(world(replace(GITHUB, disabled=True)), github_claims(), now=NOW)
    assert found.refusal is not None
    assert (found.refusal.code, found.refusal.detail) == ("issuer-disabled", "the issuer 'github' is switched off")


def test_recorded_pins_are_asked() -> None:
    pinned = policies()
    publisher = pinned.organizations["acme"].publishers["widgets-release"]
    trust = publisher.trust.model_copy(update={"repository_id": None, "pin": "first-use"})
    first = replace(publisher, trust=trust)
    told = replace(world(), publishers_by_name={("github", "acme-corp/widgets"): (first,)})
    assert rehearse(told, github_claims(), now=NOW).refusal is None
    found = rehearse(told, github_claims(), now=NOW, pins={publisher.id: {"repository_id": "1"}})
    assert found.refusal is not None
    assert found.refusal.code == "identity-changed"
