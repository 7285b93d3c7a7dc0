"""ActiveState Platform.

Claims: https://docs.pypi.org/trusted-publishers/adding-a-publisher/ and warehouse's `oidc/models/activestate.py` (read
2026-11). There is no `jti`, and no event, ref or environment: what a build may be is said by its builder, and only
`pypi-publisher` publishes. Organizations and projects can be renamed; `organization_id`, `project_id` and `actor_id`
are UUIDs that stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import Field, field_validator

from broker import refusals
from broker.providers import examples
from broker.providers.base import (
    MACHINE,
    Identity,
    Impossible,
    Kind,
    Provider,
    Rule,
    Text,
    Trust,
    UuidId,
    UuidMember,
    exact,
)
from broker.tokens import Claims

BUILDER: Final = "pypi-publisher"
"""The platform's own builder for uploads. Others run what anyone may have written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveStateIdentity(Identity):
    """A build of the ActiveState Platform."""

    project_path: str
    organization_id: str
    project_id: str
    ingredient: str | None

    lookup: ClassVar[str] = "project_path"
    owner: ClassVar[str] = "organization_id"
    source: ClassVar[str] = "project_id"


class ActiveStateTrust(Trust):
    """A publisher on the ActiveState Platform."""

    project_path: Text = Field(description="organization/project; compared to the letter.")
    organization_id: UuidId | None = None
    project_id: UuidId | None = None
    ingredient: Text | None = Field(default=None, description="The ingredient that is built; compared to the letter.")

    identity: ClassVar[type[Identity]] = ActiveStateIdentity
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("project_path", "project_path", Kind.NAME, exact),
        Rule("organization_id", "organization_id", Kind.ID, exact),
        Rule("project_id", "project_id", Kind.ID, exact),
        Rule("ingredient", "ingredient", Kind.CONDITION, exact),
    )
    never: ClassVar[tuple[Impossible, ...]] = (MACHINE,)

    @field_validator("project_path")
    @classmethod
    def _organization_and_project(cls, value: str) -> str:
        if value.count("/") != 1 or value.startswith("/") or value.endswith("/"):
            raise ValueError("write organization/project, as the platform's URLs have them")
        return value


def read(claims: Claims, issuer: str, url: str) -> ActiveStateIdentity:
    """Reads a build's claims.

    Raises:
        MissingClaim, InvalidClaim: a claim is absent, of a wrong type, or a name that cannot be one.
        ForbiddenTrigger: another builder than `BUILDER` runs.
    """
    del url
    builder = claims.text("builder")
    if builder != BUILDER:
        raise refusals.ForbiddenTrigger(f"the builder is {builder!r}; the one that may publish is {BUILDER}")
    return ActiveStateIdentity(
        issuer=issuer,
        subject=claims.text("sub"),
        actor_id=claims.uuid_text("actor_id"),
        actor_name=claims.text("actor"),
        unattended=False,
        run=claims.uuid_text("artifact_id"),
        project_path=f"{_name(claims, 'organization')}/{_name(claims, 'project')}",
        organization_id=claims.uuid_text("organization_id"),
        project_id=claims.uuid_text("project_id"),
        ingredient=claims.optional_text("ingredient"),
    )


def _name(claims: Claims, name: str) -> str:
    """A name that can be joined to another with `/`, and not be taken for two."""
    value = claims.text(name)
    if "/" in value:
        raise refusals.InvalidClaim(f"the claim {name!r} is {value!r}, and no name has a `/`")
    return value


def example(changes: Mapping[str, object]) -> dict[str, Any]:
    """A build of acme/widgets that alice started. Changes: see `examples.py`."""
    told = examples.facts({"organization": "acme", "project": "widgets"}, changes)
    organization, project = told["organization"], told["project"]
    issued_at = examples.issued_at(changes)
    claims: dict[str, Any] = {
        "iss": PROVIDER.issuer,
        "aud": examples.AUDIENCE,
        "sub": f"org:{organization}:project:{project}",
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + 900,
        "actor": "alice",
        "actor_id": "0b2ad4f2-8e0d-4c5e-9a61-6a5f3c1d7e01",
        "artifact_id": "7d0f4f4e-5a52-4b26-9a0c-1a2b3c4d5e6f",
        "builder": BUILDER,
        "ingredient": "widgets",
        "organization": organization,
        "organization_id": "5f1c9b1e-2d61-4f7a-8a3e-3f0f5b8a9c10",
        "project": project,
        "project_id": "9c3b2a10-7e6d-4c5b-9f8e-2d1c0b9a8f77",
        "project_path": f"{organization}/{project}",
        "project_visibility": "private",
    }
    return examples.changed(claims, changes)


PROVIDER = Provider(
    name="activestate",
    issuer="https://platform.activestate.com/api/v1/oauth/oidc",
    trust=ActiveStateTrust,
    read=read,
    example=example,
    longest_token_seconds=3600,
    member_id=UuidMember,
)
