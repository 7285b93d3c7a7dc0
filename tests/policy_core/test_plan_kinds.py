"""What holds of a plan for every kind of provider."""

from __future__ import annotations

from typing import Any

import pytest

from broker.playground.ci import IssuerName
from broker.policy.model import Member, Policies
from broker.policy.plan import Plan, plan
from broker.providers import Kind
from broker.providers.generic import GenericDeclaration
from tests.fakes import KINDS, NOW, identity, issuer, member, organization, policies, publisher, trust, trusted

every_kind = pytest.mark.parametrize("kind", KINDS)


def world(kind: IssuerName, *members: Member, **changes: Any) -> Policies:
    """Acme with these members, and a publisher of that kind."""
    return policies(organization(members=members, publishers=(publisher(trusts=trust(kind, **changes)),)))


def who(kind: IssuerName, **changes: Any) -> Member:
    """Whoever started the valid run."""
    return member(ids={kind: identity(kind).actor_id}, **changes)


def told(old: Policies, new: Policies) -> Plan:
    return plan(old, new, now=NOW)


@every_kind
def test_a_member_is_told_with_a_run_that_the_publisher_admits(kind: IssuerName) -> None:
    (change,) = told(world(kind), world(kind, who(kind, machine=True))).changes
    run = change.example.identity
    assert trust(kind).compare(run, {}) is None
    assert (run.actor_id, change.effect) == (identity(kind).actor_id, "gained")
    assert change.unattended in {None, run.unattended}


@every_kind
def test_what_runs_are_never_is_no_change(kind: IssuerName) -> None:
    """A member who becomes a machine may start runs that nobody started: where there are such runs."""
    unattended = {identity(kind).unattended}
    possible = {value for value in (False, True) if {"unattended": frozenset({value})} not in trust(kind).never}
    assert unattended <= possible
    changes = told(world(kind, who(kind)), world(kind, who(kind, machine=True))).changes
    assert (changes == ()) == (kind in {"activestate", "circleci", "forgejo"})


@every_kind
def test_each_condition_that_is_left_out_is_a_gain_and_back_a_loss(kind: IssuerName) -> None:
    one = who(kind, machine=True)
    for rule in trust(kind).rules:
        left_out = world(kind, one, **{rule.field: ...}) if _may_be_left_out(kind, rule.field, rule.kind) else None
        if left_out is None:
            continue
        stated = world(kind, one)
        assert {change.effect for change in told(stated, left_out).changes} == {"gained"}, rule.field
        lost = told(left_out, stated).changes
        assert {change.effect for change in lost} == {"lost"}, rule.field
        assert all(any(one.narrowed for one in change.conditions) for change in lost)


def _may_be_left_out(kind: IssuerName, field: str, of: Kind) -> bool:
    publisher = trust(kind)
    if of is not Kind.CONDITION or field == "declaration" or publisher.stated(field) is None:
        return False
    bare = type(publisher).model_fields.get(field)
    return bare is None or (not bare.is_required() and bare.default is None)


def test_a_source_that_declares_itself_its_actor_is_one() -> None:
    declaration = GenericDeclaration(name="repository", ids=("repository_id",), actor="repository_id", unattended=True)
    provider = declaration.provider()
    ids = {"repository": "a", "repository_id": "5"}
    run = provider.read(trusted({**ids, "sub": "x"}), "generic", "https://ci.example")
    assert run.actor_id == "5"
    fields = {"issuer": "generic", "claims": ids}
    own = publisher(trusts=provider.trust.model_validate(fields))

    def of(*members: Member) -> Policies:
        found = policies(organization(members=members, publishers=(own,)))
        found.issuers["generic"] = issuer("generic", provider=provider)  # type: ignore[index] # a dict, of this test alone
        return found

    other, itself = (member(ids={"generic": told}, machine=True) for told in ("6", "5"))
    assert told(of(), of(other)).changes == ()
    (change,) = told(of(), of(itself)).changes
    assert (change.example.identity.actor_id, change.unattended) == ("5", True)
    assert told(of(), of(member(ids={"generic": "5"}))).changes == ()


def test_declared_claims_are_conditions() -> None:
    """They stand in `claims`, and are told by their own names."""
    kind: IssuerName = "generic"
    (change,) = told(world(kind), world(kind, who(kind, machine=True))).changes
    assert [(one.field, one.any_of) for one in change.conditions] == [
        ("claims.repository", ("repository-example",)),
        ("claims.ref", ("ref-example",)),
    ]
    one = who(kind, machine=True)
    wider = {"claims.ref": ...}
    (change,) = told(world(kind, one), world(kind, one, **wider)).changes
    assert change.conditions[1].none_of == ("ref-example",)
    assert dict(change.example.identity.as_claims()).get("claims.ref") != "ref-example"
