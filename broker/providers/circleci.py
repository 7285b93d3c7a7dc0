"""CircleCI.

Claims: https://circleci.com/docs/guides/permissions-authentication/openid-connect-tokens/ (read 2026-11). Each
organization has an issuer of its own, `https://oidc.circleci.com/org/<organization id>`, so the URL tells whose project
it is. There is no `jti`. The person who caused the run is in `sub` alone: what must stand before and behind is known
from the URL and other signed claims, and is taken off exactly.

No claim says what triggered a run. Three kinds are refused or fit nobody all the same: a run that somebody logs into
(`ssh-rerun`), a fork's (its `vcs-origin` is the fork's, or its ref that of a pull request), and a custom webhook's (it
names no `vcs-origin`). A schedule cannot be told from a push: whoever it is attributed to answers for it.
"""

from __future__ import annotations

import re
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
    Refs,
    Rule,
    Text,
    Trust,
    UrlForm,
    UuidId,
    UuidMember,
    any_ref,
    exact,
)
from broker.tokens import UUID, Claims, is_uuid

_OWN: Final = "oidc.circleci.com/"
_UUID_LENGTH: Final = 36
_PULL_REQUEST = re.compile(r"refs/(?:heads/)?pull/")
"""How the ref of a fork's pull request begins, of which `vcs-ref` says `refs/heads/pull/<number>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircleCIIdentity(Identity):
    """A job of CircleCI."""

    vcs_origin: str
    project_id: str
    pipeline_definition_id: str | None
    contexts: str
    """The ids of the contexts that the job uses, a blank between them; empty where it uses none."""
    ref: str

    lookup: ClassVar[str] = "vcs_origin"
    owner: ClassVar[str] = "project_id"
    source: ClassVar[str] = "project_id"


def _among(expected: str, actual: str) -> bool:
    return expected in actual.split(" ")


class CircleCITrust(Trust):
    """A publisher on CircleCI."""

    vcs_origin: Text = Field(description="The repository, such as github.com/owner/name; compared to the letter.")
    project_id: UuidId | None = None
    pipeline_definition_id: UuidId | None = Field(default=None, description="The pipeline's definition: a UUID.")
    context_id: UuidId | None = Field(default=None, description="A context that the job must use: a UUID.")
    refs: Refs | None = None

    identity: ClassVar[type[Identity]] = CircleCIIdentity
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("vcs_origin", "vcs_origin", Kind.NAME, exact),
        Rule("project_id", "project_id", Kind.ID, exact),
        Rule("pipeline_definition_id", "pipeline_definition_id", Kind.CONDITION, exact),
        Rule("context_id", "contexts", Kind.CONDITION, _among),
        Rule("refs", "ref", Kind.CONDITION, any_ref),
    )
    never: ClassVar[tuple[Impossible, ...]] = (MACHINE,)

    @field_validator("vcs_origin")
    @classmethod
    def _host_and_path(cls, value: str) -> str:
        if "://" in value or "/" not in value or value.endswith((".git", "/")):
            raise ValueError("write host/owner/name as the token has it, without https:// and without .git")
        return value


def read(claims: Claims, issuer: str, url: str) -> CircleCIIdentity:
    """Reads a job's claims.

    Raises:
        MissingClaim, InvalidClaim: a claim is absent, of a wrong type, or does not fit the others.
        ForbiddenTrigger: the job is a re-run that somebody logs into.
        ForkedSource: the job is of a pull request from a fork.
    """
    if claims.truth(f"{_OWN}ssh-rerun"):
        raise refusals.ForbiddenTrigger("the job is a re-run with SSH: somebody may be logged into it")
    project_id = claims.uuid_text(f"{_OWN}project-id")
    origin, ref = claims.text(f"{_OWN}vcs-origin"), claims.text(f"{_OWN}vcs-ref")
    if _PULL_REQUEST.match(ref):
        raise refusals.ForkedSource(f"the ref is {ref!r}, that of a pull request")
    subject = claims.text("sub")
    user = _user(
        subject, f"org/{url.rpartition('/')[2]}/project/{project_id}/user/", f"/vcs-origin/{origin}/vcs-ref/{ref}"
    )
    return CircleCIIdentity(
        issuer=issuer,
        subject=subject,
        actor_id=user,
        actor_name=user,
        unattended=False,
        run=claims.optional_text(f"{_OWN}workflow-id") or project_id,
        vcs_origin=origin,
        project_id=project_id,
        pipeline_definition_id=claims.optional_text(f"{_OWN}pipeline-definition-id"),
        contexts=_contexts(claims),
        ref=ref,
    )


def _user(subject: str, before: str, behind: str) -> str:
    """'org/<id>/project/<id>/user/<id>', with or without '/vcs-origin/.../vcs-ref/...' -> the user's id."""
    user, rest = subject.removeprefix(before)[:_UUID_LENGTH], subject.removeprefix(before)[_UUID_LENGTH:]
    if not subject.startswith(before) or not is_uuid(user) or rest not in {"", behind}:
        raise refusals.InvalidClaim(f"'sub' is {subject!r}, which does not fit the issuer and the other claims")
    return user


def _contexts(claims: Claims) -> str:
    found = claims.values.get(f"{_OWN}context-ids")
    listed = [] if found is None else found
    if not isinstance(listed, list) or not all(isinstance(one, str) and is_uuid(one) for one in listed):
        raise refusals.InvalidClaim(f"the claim '{_OWN}context-ids' must be a list of UUIDs in lower case")
    return " ".join(listed)


def example(changes: Mapping[str, object]) -> dict[str, Any]:
    """A job in github.com/acme-corp/widgets, caused by alice's push of the tag v1.0.0. Changes: see `examples.py`."""
    told = examples.facts(
        {
            "iss": "https://oidc.circleci.com/org/3c0a1f9e-6b5d-4e2c-8f7a-1d2e3f4a5b6c",
            f"{_OWN}project-id": "8a7b6c5d-4e3f-4a2b-9c1d-0e9f8a7b6c5d",
            f"{_OWN}vcs-origin": "github.com/acme-corp/widgets",
            f"{_OWN}vcs-ref": "refs/tags/v1.0.0",
        },
        changes,
    )
    organization, project = told["iss"].rpartition("/")[2], told[f"{_OWN}project-id"]
    origin, ref = told[f"{_OWN}vcs-origin"], told[f"{_OWN}vcs-ref"]
    issued_at = examples.issued_at(changes)
    claims: dict[str, Any] = {
        "iss": told["iss"],
        "sub": (
            f"org/{organization}/project/{project}/user/2b1a0c9d-8e7f-4a6b-9c5d-4e3f2a1b0c9d"
            f"/vcs-origin/{origin}/vcs-ref/{ref}"
        ),
        "aud": examples.AUDIENCE,
        "iat": issued_at,
        "exp": issued_at + 3600,
        f"{_OWN}org-id": organization,
        f"{_OWN}project-id": project,
        f"{_OWN}pipeline-definition-id": "6f5e4d3c-2b1a-4f9e-8d7c-6b5a4f3e2d1c",
        f"{_OWN}pipeline-id": "11d2c3b4-a596-4877-8695-a4b3c2d1e0f1",
        f"{_OWN}workflow-id": "22e3d4c5-b6a7-4988-97a6-b5c4d3e2f1a2",
        f"{_OWN}job-id": "33f4e5d6-c7b8-4a99-88b7-c6d5e4f3a2b3",
        f"{_OWN}context-ids": ["44a5f6e7-d8c9-4baa-99c8-d7e6f5a4b3c4"],
        f"{_OWN}vcs-origin": origin,
        f"{_OWN}vcs-ref": ref,
        f"{_OWN}ssh-rerun": False,
    }
    return examples.changed(claims, changes)


PROVIDER = Provider(
    name="circleci",
    issuer=None,
    trust=CircleCITrust,
    read=read,
    example=example,
    longest_token_seconds=3600 + 60,
    member_id=UuidMember,
    url_form=UrlForm(pattern=rf".*/org/{UUID}", example="https://oidc.circleci.com/org/<organization id>"),
)
