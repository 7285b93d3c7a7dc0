"""A generic issuer: what the operator declares, what a run's claims become by it, and the hostile ones."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.providers import PROVIDERS, Identity, Kind, Provider, Trust
from broker.providers.generic import MOST_CLAIMS, GenericDeclaration, GenericIdentity, GenericTrust
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
    trusted,
)
from tests.providers.hostile import NOT_TEXT, UNREADABLE

REQUIRED = {"sub", "repository", "repository_id", "actor_id", "actor"}

BOT = member("bot", "member", uploads=("acme-*",), machine=True, ids={"generic": "actor_id-example"})
RULES = policies(organization(members=(BOT,), publishers=(publisher(trusts=trust("generic")),)))

JENKINS: dict[str, Any] = {
    "name": "job",
    "ids": ("job_id", "folder_id"),
    "conditions": ("branch", "cause"),
    "actor": "user_id",
    "run": "build",
}
RUN = {
    "sub": "s",
    "job": "acme/widgets",
    "job_id": "17",
    "folder_id": "4",
    "branch": "main",
    "user_id": "alice@acme.example",
    "build": "job-17-42",
}
BOUND = {"job": "acme/widgets", "job_id": "17", "folder_id": "4"}


def declared(**changes: Any) -> Provider:
    """The provider of a Jenkins, declared with changes; `...` leaves a field out."""
    fields = {name: value for name, value in {**JENKINS, **changes}.items() if value is not ...}
    return GenericDeclaration.model_validate(fields).provider()


def run(provider: Provider | None = None, /, **changes: Any) -> Identity:
    claims = {name: value for name, value in {**RUN, **changes}.items() if value is not ...}
    return (provider or declared()).read(trusted(claims), "jenkins", "https://jenkins.acme.example")


def bound(provider: Provider | None = None, /, **changes: Any) -> Trust:
    """A publisher of the Jenkins; changes are its claims, `...` leaves one out."""
    claims = {name: value for name, value in {**BOUND, **changes}.items() if value is not ...}
    return (provider or declared()).trust.model_validate({"issuer": "jenkins", "claims": claims})


# --- What a run's claims become --------------------------------------------------------------------------------------


def test_a_run_in_full() -> None:
    told = run()
    assert told == GenericIdentity(
        issuer="jenkins",
        subject="s",
        actor_id="alice@acme.example",
        actor_name="alice@acme.example",
        unattended=True,
        run="job-17-42",
        name="acme/widgets",
        source_id="17",
        declaration=told.told("declaration"),
        claims=(("folder_id", "4"), ("branch", "main")),
    )


def test_in_tokens_and_records_it_is_flat_text() -> None:
    told = run().as_claims()
    assert len(str(told.pop("declaration"))) == 16
    assert told == {
        "issuer": "jenkins",
        "subject": "s",
        "actor_id": "alice@acme.example",
        "actor_name": "alice@acme.example",
        "unattended": True,
        "run": "job-17-42",
        "name": "acme/widgets",
        "source_id": "17",
        "claims.folder_id": "4",
        "claims.branch": "main",
    }


def test_a_claim_that_is_called_as_a_field_of_ours_is_not_taken_for_it() -> None:
    """An issuer may sign a claim `unattended`, `actor_id` or `issuer`: it is one claim more."""
    odd = declared(conditions=("unattended", "actor_id", "issuer", "declaration", "claims.branch"))
    told = run(odd, unattended="no", actor_id="1001", issuer="github", declaration="x", **{"claims.branch": "main"})
    assert (told.unattended, told.actor_id, told.issuer) == (True, "alice@acme.example", "jenkins")
    assert GenericIdentity.from_claims(told.as_claims()) == told
    assert bound(odd, issuer="github", **{"claims.branch": "main"}).compare(told, {}) is None
    assert bound(odd, issuer="gitlab").compare(told, {}) is not None


def test_without_a_claim_for_them_a_run_is_its_subject_and_an_actor_their_id() -> None:
    told = run(declared(run=..., actor_name="user"), user="Alice")
    assert (told.run, told.actor_name) == ("s", "Alice")


def test_runs_are_unattended_unless_the_operator_says_otherwise() -> None:
    assert run().unattended is True
    assert run(declared(unattended=False)).unattended is False


def test_exactly_these_claims_must_be_there() -> None:
    without = {name: outcome(identity, "generic", without=name) for name in CLAIMS["generic"]()}
    assert without == dict.fromkeys(without, "accepted") | dict.fromkeys(REQUIRED, "missing-claim")
    for name in ("folder_id", "user_id", "build"):
        with refused("missing-claim"):
            run(**{name: ...})


@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_the_empty_string_are_absent(absent: object) -> None:
    assert outcomes("generic", REQUIRED, absent) == dict.fromkeys(REQUIRED, "missing-claim")
    assert outcomes("generic", {"ref"}, absent) == {"ref": "accepted"}
    assert run(branch=absent).told("claims.branch") is None


@pytest.mark.parametrize("wrong", NOT_TEXT, ids=repr)
def test_a_claim_of_another_json_type_is_refused(wrong: object) -> None:
    """Also numbers, which many issuers send for ids: text and number are never taken for each other."""
    names = REQUIRED | {"ref"}
    assert outcomes("generic", names, wrong) == dict.fromkeys(names, "invalid-claim")
    with refused("invalid-claim"):
        run(folder_id=wrong)


@pytest.mark.parametrize("wrong", UNREADABLE, ids=lambda it: it[:9])
def test_text_that_nobody_could_read_is_refused(wrong: str) -> None:
    assert set(outcomes("generic", REQUIRED | {"ref"}, wrong).values()) == {"invalid-claim"}


# --- How it compares -------------------------------------------------------------------------------------------------


def test_a_publisher_admits_what_it_binds() -> None:
    assert bound().compare(run(), {}) is None
    assert bound(branch="main").compare(run(), {}) is None


@pytest.mark.parametrize(
    ("claims", "kind"),
    [
        ({"job": "acme/Widgets"}, Kind.NAME),
        ({"job": "acme/widgets "}, Kind.NAME),
        ({"job_id": "017"}, Kind.ID),
        ({"folder_id": "5"}, Kind.ID),
        ({"branch": "Main"}, Kind.CONDITION),
        ({"branch": "*"}, Kind.CONDITION),
        ({"branch": "mai*"}, Kind.CONDITION),
        ({"cause": "push"}, Kind.CONDITION),
    ],
    ids=str,
)
def test_claims_compare_to_the_letter(claims: dict[str, str], kind: Kind) -> None:
    mismatch = bound(**claims).compare(run(), {})
    assert mismatch is not None
    assert mismatch.rule.kind is kind
    ((name, value),) = claims.items()
    found = repr(RUN[name]) if name in RUN else "absent"
    assert str(mismatch) == f"claims.{name} is {found}, expected {value!r}"


def test_a_name_that_was_taken_again_is_somebody_else() -> None:
    assert granted(RULES, identity("generic")).members == ("acme/bot",)
    with refused("identity-changed"):
        granted(RULES, identity("generic", repository_id="other"))
    with refused("no-publisher"):
        granted(RULES, identity("generic", repository="other"))
    with refused("unknown-actor"):
        granted(RULES, identity("generic", actor_id="other"))


def test_without_a_human_a_member_must_be_a_machine() -> None:
    person = member(ids={"generic": "actor_id-example"})
    with refused("machine-required"):
        granted(
            policies(organization(members=(person,), publishers=(publisher(trusts=trust("generic")),))),
            identity("generic"),
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "folder"},
        {"ids": ("job_id",)},
        {"ids": ("folder_id", "job_id")},
        {"conditions": ("branch",)},
        {"actor": "user"},
        {"unattended": False},
        {"run": ...},
    ],
    ids=str,
)
def test_what_was_read_by_another_declaration_fits_no_publisher(changes: dict[str, Any]) -> None:
    """An upload token carries what its run was. Where the claims mean something else since, it must not be believed."""
    now = declared(**changes)
    old = GenericIdentity.from_claims(run().as_claims())
    names = {rule.field.removeprefix("claims.") for rule in now.trust.rules} - {"declaration"}
    claims = {name: value for name, value in {**BOUND, "folder": "acme/widgets"}.items() if name in names}
    assert now.trust.model_validate({"issuer": "jenkins", "claims": claims}).compare(old, {}) is not None
    assert bound().compare(old, {}) is None


def test_an_undeclared_publisher_fits_nobody() -> None:
    """What stands in the list of providers is the kind; each issuer has a provider of its own."""
    kind = PROVIDERS["generic"]
    assert kind.declaration is GenericDeclaration
    anybody = kind.trust.model_validate({"issuer": "jenkins", "claims": {}})
    read = kind.read(trusted(kind.example({})), "jenkins", "https://jenkins.acme.example")
    for told in (read, run()):
        assert anybody.compare(told, {}) is not None


def test_the_same_declaration_has_the_same_provider() -> None:
    """A reload must not make publishers of an unchanged file unequal."""
    assert declared() is declared()
    assert (declared().declaration, declared().trust.__name__) == (None, "DeclaredTrust")
    assert bound() == bound()
    assert len({bound(), bound(), bound(branch="main")}) == 2


# --- What may be declared, and bound ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ...},
        {"ids": ...},
        {"actor": ...},
        {"ids": ()},
        {"ids": "job_id"},
        {"ids": ["job_id"]},
        {"ids": ("",)},
        {"ids": ("job_id", "job_id")},
        {"conditions": ("job",)},
        {"conditions": ("job_id",)},
        {"conditions": ("branch", "branch")},
        {"conditions": ("x" * 201,)},
        {"conditions": tuple(f"c{number}" for number in range(MOST_CLAIMS - 2))},
        {"unattended": "no"},
        {"unattended": 0},
        {"more": "x"},
        *({"name": name} for name in ("iss", "aud", "exp", "nbf", "iat", "jti")),
        {"ids": ("job_id", "jti")},
        {"conditions": ("aud",)},
        {"actor": "iss"},
        {"run": "exp"},
        {"actor_name": 7},
    ],
    ids=str,
)
def test_what_cannot_be_declared(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        declared(**changes)


def test_what_can_be_declared() -> None:
    assert declared(conditions=()).trust.rules[-1].field == "declaration"
    odd = declared(name="sub", ids=("oidc.ci.example/project-id",), actor="sub", run="sub")
    assert run(odd, **{"oidc.ci.example/project-id": "17"}).told("source_id") == "17"
    most = declared(conditions=tuple(f"c{number}" for number in range(MOST_CLAIMS - 3)))
    assert len(most.trust.rules) == MOST_CLAIMS + 1 == 17
    assert len(declared(conditions=("x", "x" * 200)).trust.rules) == 6


def test_where_the_name_itself_stays_it_is_the_id_too() -> None:
    only = declared(name="job_id", ids=("job_id",), conditions=())
    trusts = only.trust.model_validate({"issuer": "jenkins", "claims": {"job_id": "17"}})
    assert trusts.missing_ids() == ()
    assert trusts.compare(run(only), {}) is None
    assert trusts.compare(run(only, job_id="18"), {}) is not None


@pytest.mark.parametrize(
    "claims",
    [
        {"brunch": "main"},
        {"user_id": "alice"},
        {"claims.branch": "main"},
        {"job": ...},
        {"job": ""},
        {"job": 7},
        {"job_id": 17},
        {"branch": None},
        {"branch": True},
        {"branch": ["main"]},
        {"branch": "x" * 501},
    ],
    ids=str,
)
def test_what_a_publisher_cannot_bind(claims: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        bound(**claims)


def test_ids_that_a_publisher_leaves_out_are_named() -> None:
    trusts = declared().trust
    assert trusts.unstated_ids({}) == ("claims.job_id", "claims.folder_id")
    assert trusts.unstated_ids({"claims": "x"}) == ("claims.job_id", "claims.folder_id")
    assert trusts.unstated_ids({"claims": {"job_id": "17"}}) == ("claims.folder_id",)
    assert trusts.unstated_ids({"claims": dict(BOUND)}) == ()
    assert bound(folder_id=...).missing_ids() == ("claims.folder_id",)


def test_rules_are_these() -> None:
    assert {rule.field: rule.kind for rule in declared().trust.rules} == {
        "claims.job": Kind.NAME,
        "claims.job_id": Kind.ID,
        "claims.folder_id": Kind.ID,
        "claims.branch": Kind.CONDITION,
        "claims.cause": Kind.CONDITION,
        "declaration": Kind.CONDITION,
    }
    assert [rule.field for rule in GenericTrust.rules] == ["declaration"]
