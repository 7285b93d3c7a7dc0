"""Valid things, each made with the one change that a test is about: claims, tokens, identities, policies.

Claims and the issuers' keys are the playground's, so that tests and demonstration believe in the same CI. Everything
is from the year 2027 (`NOW`); no test reads a clock.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any, Final, get_args

import jwt
import pytest
from jwt.algorithms import get_default_algorithms

from broker import tokens
from broker.patterns import Projects
from broker.playground.ci import FakeCI, IssuerName
from broker.playground.ci_keys import signing_key
from broker.playground.claims import AUDIENCE
from broker.policy.matching import Considered, Grant, Pins, candidates, consider, grant
from broker.policy.model import Issuer, Member, Organization, Policies, Publisher, Role, Scope
from broker.policy.publishers import owner_id
from broker.providers import PROVIDERS, Identity, Provider, Trust
from broker.providers.generic import GenericDeclaration
from broker.refusals import Refusal
from broker.tokens import Claims

NOW: Final = 1_800_000_000
"""2027-01-15T08:00:00Z"""

KINDS: Final[tuple[IssuerName, ...]] = get_args(IssuerName)

MADE: Final[Mapping[str, Provider]] = {
    **PROVIDERS,
    "generic": GenericDeclaration(
        name="repository", ids=("repository_id",), conditions=("ref",), actor="actor_id", actor_name="actor"
    ).provider(),
}
"""Each kind as an issuer has it: generic ones are declared."""

CI: Final = FakeCI(more={kind: MADE[kind].example({})["iss"] for kind in KINDS[3:]})

CLAIMS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    kind: functools.partial(CI.claims, kind) for kind in KINDS
}


@contextmanager
def refused(code: str) -> Iterator[pytest.ExceptionInfo[Refusal]]:
    """Expects a refusal with that code."""
    with pytest.raises(Refusal) as caught:
        yield caught
    assert caught.value.code == code


def outcome(attempt: Callable[..., object], *told: object, **named: Any) -> str:
    """'accepted', or the refusal's code; for tables."""
    try:
        attempt(*told, **named)
    except Refusal as refusal:
        return refusal.code
    return "accepted"


# --- Tokens ----------------------------------------------------------------------------------------------------------


def segment(content: bytes | Mapping[str, Any]) -> str:
    """One part of a token: bytes as they are, a mapping as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any]) -> str:
    """A token of any bytes at all, with GitHub's own good signature."""
    text = f"{segment(header)}.{segment(payload)}"
    return f"{text}.{segment(get_default_algorithms()['RS256'].sign(text.encode(), signing_key('github')))}"


def sign(claims: Mapping[str, Any], **header: object) -> str:
    """A token with GitHub's own good signature, whatever its header says."""
    return signed(header_of(**header), claims)


def header_of(**changes: object) -> dict[str, object]:
    """The header of GitHub's tokens; `...` leaves a field out."""
    fields = {"alg": "RS256", "kid": CI.key_id("github"), "typ": "JWT", **changes}
    return {name: value for name, value in fields.items() if value is not ...}


@functools.cache
def issuer_key(name: IssuerName = "github") -> jwt.PyJWK:
    """The key that an issuer publishes."""
    sets = [json.loads(document) for document in CI.documents().values()]
    (entry,) = [key for one in sets for key in one.get("keys", ()) if key["kid"] == CI.key_id(name)]
    return jwt.PyJWK(entry, "RS256")


def verified(text: str, **changes: Any) -> Claims:
    """What `peek` and `verify` make of a token of GitHub's, with changed arguments of `verify`."""
    arguments = {
        "key": issuer_key(),
        "issuer": CI.urls["github"],
        "audience": AUDIENCE,
        "algorithms": ("RS256",),
        "longest_seconds": 3600,
        "now": NOW,
    }
    return tokens.verify(tokens.peek(text), **{**arguments, **changes})


def trusted(claims: Mapping[str, Any]) -> Claims:
    """Claims as `verify` would make them, of any size and type."""
    return Claims(values=dict(claims), issued_at=NOW, expires_at=NOW + 300.0, fingerprint="0" * 64)


def identity(kind: IssuerName = "github", /, *, url: str | None = None, without: str = "", **changes: Any) -> Identity:
    """The identity of a valid run, with changes to its claims.

    Args:
        url: The issuer's, where it is not the public one.
        without: A claim to be left out.
    """
    claims = CLAIMS[kind](**{"iat": NOW - 10, **changes})
    claims.pop(without, None)
    return read(kind, claims, url)


def read(kind: IssuerName, claims: Mapping[str, Any], url: str | None = None) -> Identity:
    """What a provider makes of claims."""
    return MADE[kind].read(trusted(claims), kind, url or CI.urls[kind])


def outcomes(kind: IssuerName, names: Iterable[str], value: object) -> dict[str, str]:
    """Claim -> the outcome where it alone has that value, and nothing that follows from it is changed."""
    claims = CLAIMS[kind](iat=NOW - 10)
    return {name: outcome(read, kind, {**claims, name: value}) for name in sorted(names)}


# --- Policies --------------------------------------------------------------------------------------------------------


def issuer(kind: IssuerName = "github", /, **changes: Any) -> Issuer:
    """An issuer as `index.yaml` names it."""
    provider = MADE[kind]
    fields = {
        "name": kind,
        "url": CI.urls[kind],
        "provider": provider,
        "replay": provider.replay,
        "longest_token_seconds": provider.longest_token_seconds,
    }
    return Issuer(**{**fields, **changes})


_TRUSTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "github": {
        "issuer": "github",
        "repository": "acme-corp/widgets",
        "repository_id": "424242424",
        "repository_owner_id": "65600975",
        "workflow": "release.yml",
        "environment": "pypi",
        "refs": ["refs/tags/v*"],
    },
    "gitlab": {
        "issuer": "gitlab",
        "project_path": "acme/tools/widgets",
        "project_id": "20",
        "namespace_id": "72",
        "environment": "pypi",
        "refs": ["refs/tags/v*"],
    },
    "google": {
        "issuer": "google",
        "email": "release-bot@acme-builds.iam.gserviceaccount.com",
        "account_id": "112233445566778899",
    },
    "activestate": {
        "issuer": "activestate",
        "project_path": "acme/widgets",
        "organization_id": "5f1c9b1e-2d61-4f7a-8a3e-3f0f5b8a9c10",
        "project_id": "9c3b2a10-7e6d-4c5b-9f8e-2d1c0b9a8f77",
    },
    "buildkite": {
        "issuer": "buildkite",
        "pipeline": "acme/widgets",
        "organization_id": "0184990a-477b-4fa8-9968-496074483ce1",
        "pipeline_id": "0184990a-4782-42b5-afc1-16715b10b8f2",
        "step_key": "publish",
        "refs": ["refs/tags/v*"],
    },
    "circleci": {
        "issuer": "circleci",
        "vcs_origin": "github.com/acme-corp/widgets",
        "project_id": "8a7b6c5d-4e3f-4a2b-9c1d-0e9f8a7b6c5d",
        "refs": ["refs/tags/v*"],
    },
    "forgejo": {
        "issuer": "forgejo",
        "repository": "acme/widgets",
        "repository_id": "4711",
        "repository_owner_id": "815",
        "workflow": ".forgejo/workflows/release.yml",
        "refs": ["refs/tags/v*"],
    },
    "generic": {
        "issuer": "generic",
        "claims.repository": "repository-example",
        "claims.repository_id": "repository_id-example",
        "claims.ref": "ref-example",
    },
}


def trust(kind: IssuerName = "github", /, **changes: Any) -> Trust:
    """What a publisher pins of the valid run; `...` leaves a field out. 'claims.ref' is `ref` in `claims`."""
    fields = {name: value for name, value in {**_TRUSTS[kind], **changes}.items() if value is not ...}
    nested = {name: fields.pop(name) for name in [*fields] if name.startswith("claims.")}
    if kind == "generic":
        fields["claims"] = {name.removeprefix("claims."): value for name, value in nested.items()}
    return MADE[kind].trust.model_validate(fields)


def projects(*texts: str) -> frozenset[Projects]:
    """'acme-widgets', 'acme-*'."""
    return frozenset(map(Projects.parse, texts))


def publisher(
    name: str = "widgets-release",
    *,
    trusts: Trust | None = None,
    to: tuple[str, ...] = ("acme-widgets",),
    downloads: tuple[str, ...] = (),
    until: date | None = None,
    organization: str = "acme",
) -> Publisher:
    """A publisher of acme's."""
    return Publisher(
        organization=organization,
        name=name,
        trust=trusts or trust(),
        projects=projects(*to),
        downloads=projects(*downloads),
        until=until,
    )


def member(
    name: str = "alice",
    role: Role = "owner",
    *,
    uploads: tuple[str, ...] = (),
    downloads: tuple[str, ...] = (),
    **changes: Any,
) -> Member:
    """A member of acme's; alice, an owner."""
    fields = {"ids": {"github": "1001", "gitlab": "77", "google": "112233445566778899"}}
    rights = {"uploads": projects(*uploads), "downloads": projects(*downloads)}
    return Member(name=name, role=role, **{**fields, **rights, **changes})


def organization(
    name: str = "acme",
    *,
    members: tuple[Member, ...] | None = None,
    publishers: tuple[Publisher, ...] | None = None,
    suspended: bool = False,
) -> Organization:
    """An organization with one owner, alice, and one publisher."""
    members = (member(),) if members is None else members
    publishers = (publisher(organization=name),) if publishers is None else publishers
    owners = (owner_id(one) for one in publishers)
    return Organization(
        name=name,
        suspended=suspended,
        members={one.name: one for one in members},
        member_by_id={(issuer, told): one for one in members for issuer, told in one.ids.items()},
        publishers={one.name: one for one in publishers},
        owner_ids=frozenset(owner for owner in owners if owner is not None),
    )


def policies(*organizations: Organization) -> Policies:
    """The policies of these organizations; of acme alone, where none are given."""
    organizations = organizations or (organization(),)
    issuers: dict[str, Issuer] = {name: issuer(name) for name in CI.urls}
    found: dict[tuple[str, str], tuple[Publisher, ...]] = {}
    for one in organizations:
        for declared in one.publishers.values():
            place = (declared.trust.issuer, declared.trust.lookup())
            found[place] = (*found.get(place, ()), declared)
    return Policies(
        generation="g1",
        issuers=issuers,
        issuer_by_url={one.url: one for one in issuers.values()},
        organizations={one.name: one for one in organizations},
        publishers_by_name=found,
    )


def considered(rules: Policies, who: Identity, pins: Pins | None = None) -> tuple[Considered, ...]:
    """What was looked at for an identity."""
    return consider(candidates(rules, who), who, pins or {})


def granted(
    rules: Policies,
    who: Identity,
    pins: Pins | None = None,
    *,
    now: float = NOW,
    scope: Scope = "upload",
    off: frozenset[str] = frozenset(),
) -> Grant:
    """What an identity earns, or the refusal."""
    return grant(rules, who, considered(rules, who, pins), now, scope, off=off)
