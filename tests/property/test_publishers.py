"""Laws of publishers: one admits the run it was made from, and no run that differs in what it pins."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.playground.ci import IssuerName
from broker.providers import Identity, Kind, Trust
from broker.providers.base import fold
from broker.refusals import Refusal
from tests.fakes import CLAIMS, KINDS, MADE, NOW, identity, outcome, read, trust
from tests.property.strategies import RUNS, json_values, runs

Run = tuple[IssuerName, dict[str, Any]]

LISTS = {"events", "refs", "pipeline_sources", "build_sources"}

ACTORS = {"actor_id", "user_id"}


def made_from(kind: IssuerName, run: Identity) -> Trust:
    """The narrowest publisher for an identity: every field that it can pin."""
    fields = {rule.field: run.told(rule.of) for rule in MADE[kind].trust.rules if rule.field != "declaration"}
    return trust(kind, **{name: (value,) if name in LISTS else value for name, value in fields.items()})


@given(runs())
def test_a_publisher_admits_the_run_it_was_made_from(drawn: Run) -> None:
    kind, changes = drawn
    run = identity(kind, **changes)
    assert made_from(kind, run).compare(run, {}) is None


@given(runs(), st.data())
def test_a_run_that_differs_in_anything_pinned_is_refused(drawn: Run, data: st.DataObject) -> None:
    kind, changes = drawn
    run = identity(kind, **changes)
    publisher = made_from(kind, run)
    (name,) = data.draw(st.sampled_from([(one,) for one in changes if one not in ACTORS]))
    other = identity(kind, **{**changes, **_following(changes, name, data.draw(_others(kind, name)))})
    mismatch = publisher.compare(other, {})
    assert (mismatch is None) == (_pinned(kind, other) == _pinned(kind, run))
    assert (mismatch is None) == (publisher == made_from(kind, other)) or _pinned(kind, other) == _pinned(kind, run)


def _others(kind: IssuerName, name: str) -> st.SearchStrategy[Any]:
    return RUNS[kind].map(lambda changes: changes[name])


def _following(changes: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """GitLab's reference to a file follows the claims that it is made of."""
    told = {name: value}
    if name in {"project_path", "ref_path"}:
        file = changes["ci_config_ref_uri"].removeprefix(f"gitlab.com/{changes['project_path']}//")
        file = file.removesuffix(f"@{changes['ref_path']}")
        path, ref = (value if name == claim else changes[claim] for claim in ("project_path", "ref_path"))
        told["ci_config_ref_uri"] = f"gitlab.com/{path}//{file}@{ref}"
    if name == "ci_config_ref_uri":
        told = {name: f"gitlab.com/{changes['project_path']}//other@{changes['ref_path']}"}
    return told


def _pinned(kind: IssuerName, run: Identity) -> tuple[object, ...]:
    """All that rules compare, in the form in which the provider holds two things to be one."""
    without_case = {
        "github": {"repository", "environment"},
        "gitlab": {"project_path"},
        "google": {"email"},
        "forgejo": {"repository"},
    }.get(kind, set())
    values = ((rule.of, run.told(rule.of)) for rule in MADE[kind].trust.rules)
    return tuple(fold(value) if of in without_case else value for of, value in values)


@given(runs(), st.data())
def test_a_changed_id_under_the_same_name_is_always_a_changed_identity(drawn: Run, data: st.DataObject) -> None:
    kind, changes = drawn
    run = identity(kind, **changes)
    publisher = made_from(kind, run)
    ids = [rule.field for rule in MADE[kind].trust.rules if rule.kind is Kind.ID]
    name = data.draw(st.sampled_from(ids))
    other = str(publisher.stated(name)) + "0"
    bare = name.removeprefix("claims.")
    update = {name: other} if bare == name else {"claims": {**publisher.stated("claims"), bare: other}}
    mismatch = publisher.model_copy(update=update).compare(run, {})
    assert mismatch is not None
    assert (mismatch.rule.field, mismatch.rule.kind) == (name, Kind.ID)


@given(runs())
def test_an_identity_comes_back_from_its_claims(drawn: Run) -> None:
    kind, changes = drawn
    run = identity(kind, **changes)
    assert type(run).from_claims(json.loads(json.dumps(run.as_claims()))) == run


@given(st.sampled_from(KINDS), st.data())
def test_reading_refuses_or_reads_whatever_is_signed(kind: IssuerName, data: st.DataObject) -> None:
    claims = CLAIMS[kind](iat=NOW)
    name = data.draw(st.sampled_from(sorted(claims)))
    try:
        run = read(kind, {**claims, name: data.draw(json_values)})
    except Refusal:
        return
    assert all(isinstance(value, str | bool) for value in run.as_claims().values())


@given(st.sampled_from(KINDS), st.dictionaries(st.text(max_size=5), json_values))
def test_reading_refuses_what_is_no_job(kind: IssuerName, claims: dict[str, Any]) -> None:
    assert outcome(read, kind, claims) in {"missing-claim", "invalid-claim"}
