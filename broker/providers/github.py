"""GitHub Actions.

Claims: https://docs.github.com/en/actions/reference/security/oidc (read 2026-11). Issuers: github.com's, optionally
with `/<enterprise>`; `https://HOST/_services/token` of an Enterprise Server; `https://token.actions.SUB.ghe.com` with
data residency. `sub` is customizable and has two formats: it is recorded, never parsed. All numeric ids are strings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import Field, ValidationInfo, field_validator

from broker import refusals
from broker.providers import examples
from broker.providers.base import (
    HUMAN,
    DecimalId,
    Identity,
    Impossible,
    Kind,
    Provider,
    Refs,
    Rule,
    Text,
    Triggers,
    Trust,
    any_ref,
    exact,
    fold,
    folded,
    one_of,
    same,
)
from broker.tokens import Claims

SAFE_EVENTS: Final = ("push", "release", "workflow_dispatch", "schedule", "repository_dispatch")
"""Events that need write access to the repository. Pull requests, comments, issues, `workflow_run` and whatever is new
are not among them: outsiders can cause those, and some run with the target's rights."""

DEFAULT_EVENTS: Final = ("push", "release", "workflow_dispatch")

_WORKFLOWS = "/.github/workflows/"


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHubIdentity(Identity):
    """A job of GitHub Actions."""

    repository: str
    repository_id: str
    repository_owner_id: str
    workflow: str
    """The calling workflow's file name, such as `release.yml`."""
    job_workflow: str | None
    """The reusable workflow that runs the job, with its ref; None where the calling file, or one beside it, does."""
    ref: str
    event: str
    environment: str | None
    ref_protected: bool | None
    runner_environment: str | None
    sha: str

    lookup: ClassVar[str] = "repository"
    owner: ClassVar[str] = "repository_owner_id"
    source: ClassVar[str] = "repository_id"


def _same_file(expected: str | None, actual: str | None) -> bool:
    """Owner and name without case, path and ref to the letter. None is the calling repository's own workflow."""
    if expected is None or actual is None:
        return expected is actual
    at = expected.index(_WORKFLOWS)
    return fold(expected[:at]) == fold(actual[:at]) and expected[at:] == actual[at:]


class GitHubTrust(Trust):
    """A publisher on GitHub Actions."""

    repository: Text = Field(description="owner/name; compared without case.")
    repository_id: DecimalId | None = None
    repository_owner_id: DecimalId | None = None
    workflow: Text = Field(description="The file name in .github/workflows, such as release.yml.")
    job_workflow: Text | None = Field(
        default=None,
        description="A foreign reusable workflow that runs the job: owner/name/.github/workflows/file.yml@ref.",
    )
    environment: Text | None = Field(default=None, description="The job's environment; compared without case.")
    refs: Refs | None = None
    events: tuple[Text, ...] = Field(default=DEFAULT_EVENTS, min_length=1, description="Events that may publish.")
    ref_protected: bool | None = Field(default=None, description="Whether the ref must be protected, or must not be.")
    runner_environment: Text | None = Field(default=None, description="github-hosted or self-hosted.")

    identity: ClassVar[type[Identity]] = GitHubIdentity
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("repository", "repository", Kind.NAME, folded),
        Rule("repository_id", "repository_id", Kind.ID, exact),
        Rule("repository_owner_id", "repository_owner_id", Kind.ID, exact),
        Rule("workflow", "workflow", Kind.CONDITION, exact),
        Rule("job_workflow", "job_workflow", Kind.CONDITION, _same_file, always=True),
        Rule("environment", "environment", Kind.CONDITION, folded),
        Rule("refs", "ref", Kind.CONDITION, any_ref),
        Rule("events", "event", Kind.CONDITION, one_of),
        Rule("ref_protected", "ref_protected", Kind.CONDITION, same),
        Rule("runner_environment", "runner_environment", Kind.CONDITION, exact),
    )
    triggers: ClassVar[Triggers | None] = Triggers("events", SAFE_EVENTS)
    never: ClassVar[tuple[Impossible, ...]] = ({**HUMAN, "event": frozenset({"schedule"})},)

    @field_validator("repository")
    @classmethod
    def _owner_and_name(cls, value: str) -> str:
        if value.count("/") != 1 or value.startswith("/") or value.endswith("/"):
            raise ValueError("write owner/name, without a host and without .git")
        return value

    @field_validator("workflow")
    @classmethod
    def _file_name(cls, value: str) -> str:
        if "/" in value or not value.endswith((".yml", ".yaml")):
            raise ValueError("write the file's name alone, such as release.yml; it stands in .github/workflows")
        return value

    @field_validator("events", mode="after")
    @classmethod
    def _safe_events(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unsafe := sorted(set(value) - set(SAFE_EVENTS)):
            raise ValueError(f"outsiders can cause {', '.join(unsafe)}; safe are {', '.join(SAFE_EVENTS)}")
        return value

    @field_validator("job_workflow")
    @classmethod
    def _whole_reference(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if not re.fullmatch(r"[^/@]+/[^/@]+/\.github/workflows/[^/]+\.ya?ml@.+", value):
            raise ValueError("write owner/name/.github/workflows/file.yml@refs/..., or @ and the commit's full SHA")
        if _foreign(value, info.data.get("repository", "")) is None:
            raise ValueError("leave it out for a workflow of the same repository: there, the calling one decides")
        return value


def read(claims: Claims, issuer: str, url: str) -> GitHubIdentity:
    """Reads a job's claims.

    Raises:
        MissingClaim, InvalidClaim: a claim is absent, of a wrong type, or does not fit the others.
        ForbiddenTrigger: the event is none of `SAFE_EVENTS`.
    """
    del url
    event = claims.text("event_name")
    if event not in SAFE_EVENTS:
        raise refusals.ForbiddenTrigger(f"the event is {event!r}; those that may publish are {', '.join(SAFE_EVENTS)}")
    repository, sha = claims.text("repository"), claims.text("sha")
    # `ref` is empty when a bare commit is deployed; workflow references then end in the commit.
    ref = claims.text_or_empty("ref") or sha
    actor_name = claims.text("actor")
    return GitHubIdentity(
        issuer=issuer,
        subject=claims.text("sub"),
        actor_id=claims.number_text("actor_id"),
        actor_name=actor_name,
        # GitHub keeps `[` and `]` out of people's logins; a schedule runs as whoever last edited its file.
        unattended=event == "schedule" or actor_name.endswith("[bot]"),
        run=claims.number_text("run_id"),
        repository=repository,
        repository_id=claims.number_text("repository_id"),
        repository_owner_id=claims.number_text("repository_owner_id"),
        workflow=_calling_file(claims.text("workflow_ref"), repository, ref, sha),
        job_workflow=_foreign(claims.text("job_workflow_ref"), repository),
        ref=ref,
        event=event,
        environment=claims.optional_text("environment"),
        ref_protected=claims.flag_text("ref_protected"),
        runner_environment=claims.optional_text("runner_environment"),
        sha=sha,
    )


def _calling_file(reference: str, repository: str, ref: str, sha: str) -> str:
    """'acme/widgets/.github/workflows/release.yml@refs/heads/main' -> 'release.yml'.

    Files and branches may hold `@`, so nothing is cut at one: what must stand before and behind the file's name is
    known from other signed claims, and is taken off exactly.
    """
    own = _own(reference, repository) or ""
    end = next((end for end in (f"@{ref}", f"@{sha}") if own.endswith(end)), None)
    if end is None:
        raise refusals.InvalidClaim(f"'workflow_ref' is {reference!r}, which does not fit 'repository' and 'ref'")
    name = own[: -len(end)]
    if "/" in name or not name.endswith((".yml", ".yaml")):
        raise refusals.InvalidClaim(f"'workflow_ref' names {name!r}, which is no file of .github/workflows")
    return name


def _foreign(reference: str, repository: str) -> str | None:
    """The reference of a reusable workflow, or None where it is of the same repository: then the caller decides."""
    return reference if _own(reference, repository) is None else None


def _own(reference: str, repository: str) -> str | None:
    """'Acme/widgets/.github/workflows/a.yml@ref' -> 'a.yml@ref' for 'acme/widgets', None for any other repository."""
    name, path = reference[: len(repository)], reference[len(repository) :]
    same_name = name == repository or fold(name) == fold(repository)
    return path.removeprefix(_WORKFLOWS) if same_name and path.startswith(_WORKFLOWS) else None


def example(changes: Mapping[str, object]) -> dict[str, Any]:
    """A job in acme-corp/widgets, started by alice's push of the tag v1.0.0, in the environment `pypi`.

    Args:
        changes: As `examples.py` has them; also `workflow_file`, which is no claim: the name of the calling file.
    """
    told = examples.facts(
        {
            "repository": "acme-corp/widgets",
            "repository_id": "424242424",
            "repository_owner_id": "65600975",
            "ref": "refs/tags/v1.0.0",
            "sha": examples.SHA,
            "environment": "pypi",
            "workflow_file": "release.yml",
        },
        changes,
    )
    repository, sha = told["repository"], told["sha"]
    owner, _, name = repository.partition("/")
    # `ref` is empty when a bare commit is deployed; references then end in the commit.
    reference = f"{repository}{_WORKFLOWS}{told['workflow_file']}@{told['ref'] or sha}"
    has_environment = changes.get("environment") is not ...
    context = f"environment:{told['environment']}" if has_environment else f"ref:{told['ref']}"
    issued_at = examples.issued_at(changes)
    claims: dict[str, Any] = {
        "jti": examples.JTI,
        "iss": PROVIDER.issuer,
        "aud": examples.AUDIENCE,
        # The immutable form, which repositories have since July 2026.
        "sub": f"repo:{owner}@{told['repository_owner_id']}/{name}@{told['repository_id']}:{context}",
        "iat": issued_at,
        "nbf": issued_at - 600,
        "exp": issued_at + 300,
        "repository": repository,
        "repository_id": told["repository_id"],
        "repository_owner": owner,
        "repository_owner_id": told["repository_owner_id"],
        "repository_visibility": "private",
        "enterprise": "acme",
        "enterprise_id": "8151",
        "actor": "alice",
        "actor_id": "1001",
        "workflow": "Release",
        "workflow_ref": reference,
        "workflow_sha": sha,
        "job_workflow_ref": reference,
        "job_workflow_sha": sha,
        "event_name": "push",
        "ref": told["ref"],
        "ref_type": "branch" if told["ref"].startswith("refs/heads/") else "tag",
        "ref_protected": "true",
        "sha": sha,
        "base_ref": "",
        "head_ref": "",
        "environment": told["environment"],
        "environment_node_id": "EN_kwDOGUmgms7KAQ5T" if has_environment else ...,
        "run_id": "17423456789",
        "run_number": "42",
        "run_attempt": "1",
        "check_run_id": "49466334455",
        "runner_environment": "github-hosted",
    }
    return examples.changed(claims, {**changes, "workflow_file": ...})


PROVIDER = Provider(
    name="github",
    issuer="https://token.actions.githubusercontent.com",
    trust=GitHubTrust,
    read=read,
    example=example,
    longest_token_seconds=3600,
)
