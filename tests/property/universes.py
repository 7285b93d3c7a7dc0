"""Small worlds in which everything can be tried: a few organizations, members and publishers, and every run there is.

Runs are made of claims and read by the providers, so that only those are tried that an issuer can sign.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from hypothesis import strategies as st

from broker.playground.ci import IssuerName
from broker.policy.model import Freeze, Member, Organization, Policies, Publisher
from broker.providers import PROVIDERS, Identity
from tests.fakes import NOW, identity, issuer, member, organization, policies, publisher, trust

NAMES: Final = ("acme-w", "acme-x-y", "acme-x-z", "acme-q", "zenith-w")
"""Every project that the patterns here can tell apart."""

PATTERNS: Final = ("acme-w", "acme-*", "acme-x-*", "acme-x-y", "zenith-w")

TODAY: Final = datetime.fromtimestamp(NOW, UTC).date()
DAYS: Final[tuple[date | None, ...]] = (
    None,
    TODAY - timedelta(days=1),
    TODAY,
    TODAY + timedelta(days=3),
    date(9999, 12, 31),
)
MOMENTS: Final = (
    float(NOW),
    *(datetime.combine(TODAY + timedelta(days=ahead), time(), UTC).timestamp() for ahead in (1, 3, 4, 400)),
)

FREEZES: Final = (
    (Freeze(reason="all"),),
    (Freeze(reason="now", ends=MOMENTS[1]),),
    (Freeze(reason="later", begins=MOMENTS[1], ends=MOMENTS[3]),),
    (Freeze(reason="later", begins=MOMENTS[2]),),
    (Freeze(reason="before", ends=MOMENTS[0]),),
)

REFS: Final = tuple(
    f"refs/{'/'.join(parts)}"
    for parts in (
        *((part,) for part in ("", "a", "b", "x", "ab", "ba", "aa", "bb", "ax", "aab", "aba", "abab")),
        ("a", "b"),
        ("x", "a"),
    )
)
GLOBS: Final = ("refs/a", "refs/*", "refs/a*", "refs/*b", "refs/a*b", "refs/*/a", "refs/*a*", "refs/a/*")

FOREIGN: Final = ("x/y/.github/workflows/f.yml@refs/heads/a", "X/y/.github/workflows/f.yml@refs/heads/a")

Choices = Mapping[str, Sequence[Any]]

RUNS: Final[Mapping[IssuerName, Choices]] = {
    "github": {
        "repository": ("a/w", "A/W", "a/q"),
        "repository_id": ("1", "2", "3"),
        "repository_owner_id": ("1", "2"),
        "workflow_file": ("r.yml", "c.yml", "d.yml"),
        "environment": ("pypi", "PyPI", "test", "else", ...),
        "ref": REFS,
        "event_name": ("push", "release", "schedule"),
        "ref_protected": ("true", "false", ...),
        "job_workflow_ref": (..., *FOREIGN, "x/y/.github/workflows/g.yml@refs/heads/a"),
    },
    "gitlab": {
        "project_path": ("a/w", "a/q"),
        "project_id": ("1", "2", "3"),
        "namespace_id": ("1", "2"),
        "environment": ("pypi", "PyPI", "else", ...),
        "ref_path": REFS,
        "pipeline_source": ("push", "web", "schedule"),
        "ref_protected": ("true", "false", ...),
        "deployment_tier": ("production", "staging", ...),
    },
    "google": {"email": ("b@x.example", "B@x.example", "c@x.example"), "sub": ("1", "2", "3", "4")},
}
"""Claim -> what it can be; the first is what it is where it does not vary."""

TRUSTS: Final[Mapping[IssuerName, Choices]] = {
    "github": {
        "repository": ("a/w", "A/w", "a/q"),
        "repository_id": ("1", "2", ...),
        "repository_owner_id": ("1", ...),
        "workflow": ("r.yml", "c.yml"),
        "environment": (..., "pypi", "PYPI", "test"),
        "refs": (..., *((glob,) for glob in GLOBS), ("refs/a", "refs/*b"), ("refs/a*", "refs/b")),
        "events": (("push", "release"), ("push",), ("push", "schedule"), ("schedule",)),
        "ref_protected": (..., True, False),
        "job_workflow": (..., *FOREIGN),
    },
    "gitlab": {
        "project_path": ("a/w", "A/w", "a/q"),
        "project_id": ("1", "2", ...),
        "namespace_id": ("1", ...),
        "environment": (..., "pypi", "PyPI"),
        "refs": (..., ("refs/a",), ("refs/*",), ("refs/*b", "refs/a")),
        "pipeline_sources": (("push", "web"), ("web",), ("web", "schedule")),
        "ref_protected": (True, False),
        "deployment_tier": (..., "production"),
    },
    "google": {"email": ("b@x.example", "B@X.example", "c@x.example"), "account_id": ("1", "2", ...)},
}
"""Field -> what a publisher may say, `...` for nothing; the first where it does not vary."""

CLAIM_OF: Final = {
    "workflow": "workflow_file",
    "refs": "ref",
    "events": "event_name",
    "job_workflow": "job_workflow_ref",
    "pipeline_sources": "pipeline_source",
    "account_id": "sub",
}
"""What claim a field compares, where it is called otherwise."""

ACTORS: Final = ("1", "2", "3")


def every_run(kind: IssuerName, fields: Sequence[str]) -> tuple[Identity, ...]:
    """Every run of a small world in which these fields of publishers vary."""
    return _every_run(kind, frozenset(_claim_of(kind, field) for field in fields))


def _claim_of(kind: IssuerName, field: str) -> str:
    return "ref_path" if (kind, field) == ("gitlab", "refs") else CLAIM_OF.get(field, field)


@functools.cache
def _every_run(kind: IssuerName, varied: frozenset[str]) -> tuple[Identity, ...]:
    choices = {claim: found if claim in varied else found[:1] for claim, found in RUNS[kind].items()}
    return tuple(
        run
        for values in itertools.product(*choices.values())
        for run in _started(kind, dict(zip(choices, values, strict=True)))
    )


def _started(kind: IssuerName, claims: dict[str, Any]) -> Iterator[Identity]:
    if claims.get("job_workflow_ref") is ...:
        del claims["job_workflow_ref"]
    if kind == "google":
        yield identity(kind, **claims)
        return
    for actor in (*ACTORS, "4"):
        for by_machine in (False, True):
            yield identity(kind, **claims, **_who(kind, actor, by_machine=by_machine))


def signed(kind: IssuerName, run: Identity) -> Identity:
    """The same run, made of claims and read again: a plan's example must be one that an issuer can sign."""
    claims: dict[str, Any] = {}
    for rule in PROVIDERS[kind].trust.rules:
        if rule.field in TRUSTS[kind]:
            value = getattr(run, rule.of)
            claims[_claim_of(kind, rule.field)] = str(value).lower() if isinstance(value, bool) else value
    claims = {name: ... if value is None else value for name, value in claims.items()}
    if claims.get("job_workflow_ref") is ...:
        del claims["job_workflow_ref"]
    if kind != "google":
        claims |= _who(kind, run.actor_id, by_machine=run.unattended)
    found = identity(kind, **claims)
    names = {rule.of for rule in PROVIDERS[kind].trust.rules if rule.field in TRUSTS[kind]} | {"actor_id", "unattended"}
    assert {name: getattr(found, name) for name in names} == {name: getattr(run, name) for name in names}
    return found


def _who(kind: IssuerName, actor: str, *, by_machine: bool) -> dict[str, str]:
    if kind == "github":
        return {"actor_id": actor, "actor": "some[bot]" if by_machine else "someone"}
    return {"user_id": actor, "user_login": "project_1_bot" if by_machine else "someone"}


@st.composite
def worlds(draw: st.DrawFn, kind: IssuerName) -> tuple[tuple[str, ...], Policies, Policies]:
    """The fields in which publishers vary, and two policies, mostly alike."""
    fields = tuple(draw(st.lists(st.sampled_from(sorted(TRUSTS[kind])), max_size=3, unique=True)))
    old = tuple(draw(_organizations(kind, fields)))
    old = tuple(draw(_frozen(one)) for one in old)
    new = draw(st.one_of(_edited(kind, fields, old), _edited(kind, fields, old), _organizations(kind, fields)))
    switched_off = draw(st.sampled_from([(False, False)] * 20 + [(True, False), (False, True), (True, True)]))
    freezes = draw(st.sampled_from([*(one.freezes for one in old), ()]))
    new = tuple(replace(one, freezes=freezes) for one in new)
    both = [_policies(kind, some, off) for some, off in zip((old, new), switched_off, strict=True)]
    return fields, both[0], both[1]


@st.composite
def _frozen(draw: st.DrawFn, one: Organization) -> Organization:
    return replace(one, freezes=draw(st.sampled_from([(), (), (), *FREEZES])))


def _policies(kind: IssuerName, organizations: Sequence[Organization], off: bool) -> Policies:
    found = policies(*organizations)
    issuers = {**found.issuers, kind: issuer(kind, disabled=off)}
    return replace(found, issuers=issuers, issuer_by_url={one.url: one for one in issuers.values()})


def _organizations(kind: IssuerName, fields: Sequence[str]) -> st.SearchStrategy[tuple[Organization, ...]]:
    return st.tuples(*(_organization(name, kind, fields) for name in ("acme", "zenith")))


@st.composite
def _organization(draw: st.DrawFn, name: str, kind: IssuerName, fields: Sequence[str]) -> Organization:
    return organization(
        name,
        members=tuple(draw(_member(who, kind)) for who in draw(_some("alice", "bob", "bot"))),
        publishers=tuple(draw(_publisher(which, name, kind, fields)) for which in draw(_some("p", "q"))),
        suspended=draw(_seldom()),
    )


def _seldom() -> st.SearchStrategy[bool]:
    return st.sampled_from([False] * 9 + [True])


def _some(*names: str) -> st.SearchStrategy[list[str]]:
    return st.sets(st.sampled_from(names), min_size=1).map(sorted)


@st.composite
def _member(draw: st.DrawFn, name: str, kind: IssuerName) -> Member:
    at = ("alice", "bob", "bot").index(name)
    return member(
        name,
        draw(st.sampled_from(["owner", "owner", "member", "billing-manager"])),
        ids={"elsewhere" if draw(_seldom()) else kind: ACTORS[at]},
        machine=draw(st.booleans()),
        suspended=draw(_seldom()),
        until=draw(st.sampled_from((None, None, *DAYS))),
        uploads=tuple(draw(st.lists(st.sampled_from(PATTERNS), max_size=2))),
        downloads=tuple(draw(st.lists(st.sampled_from(PATTERNS), max_size=2))),
    )


@st.composite
def _publisher(draw: st.DrawFn, name: str, owner: str, kind: IssuerName, fields: Sequence[str]) -> Publisher:
    told = {
        field: draw(st.sampled_from(found)) if field in fields else found[0] for field, found in TRUSTS[kind].items()
    }
    ids = [field for field in told if field.endswith("_id")]
    if any(told[field] is ... for field in ids):
        told["pin"] = "first-use"
    to = tuple(draw(st.lists(st.sampled_from(PATTERNS), min_size=0 if draw(_seldom()) else 1, max_size=2)))
    return publisher(
        name,
        trusts=trust(kind, **told),
        to=to,
        downloads=tuple(draw(st.lists(st.sampled_from(PATTERNS), min_size=0 if to else 1, max_size=2))),
        until=draw(st.sampled_from((None, None, *DAYS))),
        organization=owner,
    )


@st.composite
def _edited(
    draw: st.DrawFn, kind: IssuerName, fields: Sequence[str], old: tuple[Organization, ...]
) -> tuple[Organization, ...]:
    """Some things changed: a field of a member or of a publisher, or a whole one, or nothing at all."""
    changed = {one.name: one for one in old}
    for _ in range(draw(st.integers(0, 2))):
        one = changed[draw(st.sampled_from(sorted(changed)))]
        fresh = draw(_organization(one.name, kind, fields))
        members, publishers = dict(one.members), dict(one.publishers)
        what = draw(st.sampled_from(["member", "publisher", "trust", "members", "publishers", "suspended"]))
        if what == "member":
            name = draw(st.sampled_from(["role", "ids", "machine", "suspended", "until", "uploads", "downloads"]))
            for who in members.keys() & fresh.members.keys():
                members[who] = replace(members[who], **{name: getattr(fresh.members[who], name)})
        elif what == "publisher":
            name = draw(st.sampled_from(["until", "projects", "downloads"]))
            for who in publishers.keys() & fresh.publishers.keys():
                publishers[who] = replace(publishers[who], **{name: getattr(fresh.publishers[who], name)})
        elif what == "trust":
            publishers |= {
                who: replace(publishers[who], trust=fresh.publishers[who].trust)
                for who in publishers.keys() & fresh.publishers.keys()
            }
        elif what == "members":
            members = dict(fresh.members)
        elif what == "publishers":
            publishers = dict(fresh.publishers)
        changed[one.name] = organization(
            one.name,
            members=tuple(members.values()),
            publishers=tuple(publishers.values()),
            suspended=fresh.suspended if what == "suspended" else one.suspended,
        )
    return tuple(changed.values())


__all__ = ["MOMENTS", "NAMES", "RUNS", "TRUSTS", "every_run", "signed", "worlds"]
