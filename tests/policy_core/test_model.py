"""What policies mean where they say nothing: the safe thing."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.patterns import Projects, normalise
from broker.policy.model import (
    LONGEST_LIFETIME_SECONDS,
    SCOPES,
    SHORTEST_LIFETIME_SECONDS,
    Issuer,
    Member,
    Organization,
    Policies,
    Replay,
    Role,
)
from broker.providers import PROVIDERS
from tests.fakes import NOW, publisher
from tests.property.strategies import project_texts


def test_tokens_live_as_long_as_pep_807_lets_them() -> None:
    assert (SHORTEST_LIFETIME_SECONDS, LONGEST_LIFETIME_SECONDS) == (15 * 60, 21_600)


def test_the_words_of_the_contract() -> None:
    assert get_args(Role) == ("owner", "member", "billing-manager")
    assert get_args(Replay) == ("strict", "same-token")
    assert SCOPES == ("upload", "read")


def test_an_issuer_is_enabled_strict_and_signs_with_rs256_alone() -> None:
    issuer = Issuer(name="ci", url="https://ci.example", provider=PROVIDERS["github"], longest_token_seconds=3600)
    assert (issuer.disabled, issuer.replay, issuer.algorithms, issuer.organizations) == (
        False,
        "strict",
        ("RS256",),
        None,
    )


def test_a_member_is_a_person_in_standing_without_rights() -> None:
    member = Member(name="alice", role="member", ids={"github": "1001"})
    assert (member.machine, member.suspended, member.until) == (False, False, None)
    assert (member.uploads, member.downloads) == (frozenset(), frozenset())


def test_an_organization_is_in_standing() -> None:
    organization = Organization(name="acme", members={}, member_by_id={}, publishers={}, owner_ids=frozenset())
    assert organization.suspended is False
    assert organization.freezes == ()
    assert organization.lifetime_seconds == LONGEST_LIFETIME_SECONDS
    assert organization.freeze(NOW) is None


def test_policies_without_files_know_nothing() -> None:
    nothing = Policies(generation="none")
    assert not nothing.issuers
    assert not nothing.issuer_by_url
    assert not nothing.organizations
    assert not nothing.publishers_by_name
    assert nothing.holder("acme-widgets") is None
    assert (nothing.default_lifetime_seconds, nothing.longest_lifetime_seconds) == (900, 3600)
    assert nothing.denied_from is None


@given(st.lists(project_texts.map(Projects.parse), max_size=6), project_texts.filter(lambda text: "*" not in text))
def test_a_name_belongs_to_whoever_holds_a_pattern_that_covers_it(held: list[Projects], text: str) -> None:
    name = normalise(text)
    rules = Policies(generation="g1", holders={pattern.stem: str(pattern) for pattern in held})
    covering: set[str | None] = {str(pattern) for pattern in held if pattern.covers(name)}
    assert rules.holder(name) in (covering or {None})


def test_a_publisher_is_called_by_its_organization_and_name() -> None:
    assert publisher().id == "acme/widgets-release"
    assert publisher().until is None
    assert publisher().downloads == frozenset()


@pytest.mark.parametrize(
    ("project", "holder"),
    [
        ("acme", "the name"),
        ("acme-tools", "the prefix"),
        ("acme-tools-x", "the longer name"),
        ("acme-tools-xy", "the prefix"),
        ("acm", None),
        ("bacme-tools", None),
        ("bolt-a-b", "the longer prefix"),
        ("bolt-b", None),
    ],
)
def test_a_name_is_looked_up_whole_and_at_each_dash(project: str, holder: str | None) -> None:
    holders = {
        "acme": "the name",
        "acme-": "the prefix",
        "acme-tools-x": "the longer name",
        "bolt-a-": "the longer prefix",
    }
    assert Policies(generation="g1", holders=holders).holder(project) == holder
