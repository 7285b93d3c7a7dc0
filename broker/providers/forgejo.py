"""Forgejo Actions: Codeberg and every other instance.

Claims: https://forgejo.org/docs/latest/user/actions/security-openid-connect/ (read 2026-11). The issuer is the
instance's URL with `/api/actions`; OpenID Connect is there since Forgejo 15. The claims are named as GitHub's, and
fewer: there is no environment, no `job_workflow_ref` (a reusable workflow of another repository cannot be told from the
calling one) and no `jti`. `actor_id`, `repository_id` and `repository_owner_id` are in newer releases only: instances
without them are refused. `sub` has two formats: it is recorded, never parsed. All ids are strings of digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import Field, field_validator

from broker import refusals
from broker.providers import examples
from broker.providers.base import (
    HUMAN,
    MACHINE,
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
    UrlForm,
    any_ref,
    exact,
    fold,
    folded,
    one_of,
    same,
)
from broker.tokens import Claims

SAFE_EVENTS: Final = ("push", "release", "workflow_dispatch", "schedule")
"""Events that need write access to the repository. Pull requests, comments, issues, `workflow_run` and whatever is new
are not among them: outsiders can cause those, and some run with the target's rights."""

DEFAULT_EVENTS: Final = ("push", "release", "workflow_dispatch")

FOLDERS: Final = (".forgejo/workflows/", ".gitea/workflows/", ".github/workflows/")
"""Where an instance looks for workflows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgejoIdentity(Identity):
    """A job of Forgejo Actions."""

    repository: str
    repository_id: str
    repository_owner_id: str
    workflow: str
    """The workflow's path in the repository, such as `.forgejo/workflows/release.yml`."""
    ref: str
    event: str
    ref_protected: bool | None
    sha: str

    lookup: ClassVar[str] = "repository"
    owner: ClassVar[str] = "repository_owner_id"
    source: ClassVar[str] = "repository_id"


class ForgejoTrust(Trust):
    """A publisher on Forgejo Actions."""

    repository: Text = Field(description="owner/name; compared without case.")
    repository_id: DecimalId | None = None
    repository_owner_id: DecimalId | None = None
    workflow: Text = Field(description="The workflow's path, such as .forgejo/workflows/release.yml.")
    refs: Refs | None = None
    events: tuple[Text, ...] = Field(default=DEFAULT_EVENTS, min_length=1, description="Events that may publish.")
    ref_protected: bool | None = Field(default=None, description="Only from protected branches and tags, where true.")

    identity: ClassVar[type[Identity]] = ForgejoIdentity
    triggers: ClassVar[Triggers | None] = Triggers("events", SAFE_EVENTS)
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("repository", "repository", Kind.NAME, folded),
        Rule("repository_id", "repository_id", Kind.ID, exact),
        Rule("repository_owner_id", "repository_owner_id", Kind.ID, exact),
        Rule("workflow", "workflow", Kind.CONDITION, exact),
        Rule("refs", "ref", Kind.CONDITION, any_ref),
        Rule("events", "event", Kind.CONDITION, one_of),
        Rule("ref_protected", "ref_protected", Kind.CONDITION, same),
    )
    never: ClassVar[tuple[Impossible, ...]] = (
        {**HUMAN, "event": frozenset({"schedule"})},
        {**MACHINE, "event": frozenset(SAFE_EVENTS) - {"schedule"}},
    )

    @field_validator("repository")
    @classmethod
    def _owner_and_name(cls, value: str) -> str:
        if value.count("/") != 1 or value.startswith("/") or value.endswith("/"):
            raise ValueError("write owner/name, without a host and without .git")
        return value

    @field_validator("workflow")
    @classmethod
    def _path(cls, value: str) -> str:
        if not _is_workflow(value):
            raise ValueError("write the file with its folder, such as .forgejo/workflows/release.yml")
        return value

    @field_validator("events")
    @classmethod
    def _safe_events(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unsafe := sorted(set(value) - set(SAFE_EVENTS)):
            raise ValueError(f"outsiders can cause {', '.join(unsafe)}; safe are {', '.join(SAFE_EVENTS)}")
        return value


def read(claims: Claims, issuer: str, url: str) -> ForgejoIdentity:
    """Reads a job's claims.

    Raises:
        MissingClaim, InvalidClaim: a claim is absent, of a wrong type, or does not fit the others.
        ForbiddenTrigger: the event is none of `SAFE_EVENTS`.
    """
    del url
    event = claims.text("event_name")
    if event not in SAFE_EVENTS:
        raise refusals.ForbiddenTrigger(f"the event is {event!r}; those that may publish are {', '.join(SAFE_EVENTS)}")
    repository, ref, sha = claims.text("repository"), claims.text("ref"), claims.text("sha")
    return ForgejoIdentity(
        issuer=issuer,
        subject=claims.text("sub"),
        # The instance's own bots have negative numbers, which are none here.
        actor_id=claims.number_text("actor_id"),
        actor_name=claims.text("actor"),
        unattended=event == "schedule",
        run=claims.number_text("run_id"),
        repository=repository,
        repository_id=claims.number_text("repository_id"),
        repository_owner_id=claims.number_text("repository_owner_id"),
        workflow=_workflow(claims.text("workflow_ref"), repository, (f"@{ref}", f"@{sha}")),
        ref=ref,
        event=event,
        ref_protected=claims.flag_text("ref_protected"),
        sha=sha,
    )


def _workflow(reference: str, repository: str, ends: tuple[str, str]) -> str:
    """'acme/widgets/.forgejo/workflows/release.yml@refs/heads/main' -> '.forgejo/workflows/release.yml'.

    Files and branches may hold `@`, so nothing is cut at one: what must stand before and behind the path is known from
    other signed claims, and is taken off exactly.
    """
    start = f"{repository}/"
    end = next((end for end in ends if reference.endswith(end)), None)
    if end is None or fold(reference[: len(start)]) != fold(start):
        raise refusals.InvalidClaim(f"'workflow_ref' is {reference!r}, which does not fit 'repository' and 'ref'")
    path = reference[len(start) : -len(end)]
    if not _is_workflow(path):
        raise refusals.InvalidClaim(f"'workflow_ref' names {path!r}, which is no file of a folder for workflows")
    return path


def _is_workflow(path: str) -> bool:
    folder = next((one for one in FOLDERS if path.startswith(one)), None)
    return folder is not None and "/" not in path[len(folder) :] and path.endswith((".yml", ".yaml"))


def example(changes: Mapping[str, object]) -> dict[str, Any]:
    """A job in acme/widgets, started by alice's push of the tag v1.0.0.

    Args:
        changes: As `examples.py` has them; also `workflow_file`, which is no claim: the path of the calling file.
    """
    told = examples.facts(
        {
            "repository": "acme/widgets",
            "repository_id": "4711",
            "repository_owner_id": "815",
            "ref": "refs/tags/v1.0.0",
            "sha": examples.SHA,
            "workflow_file": f"{FOLDERS[0]}release.yml",
        },
        changes,
    )
    repository, ref = told["repository"], told["ref"]
    owner, _, name = repository.partition("/")
    issued_at = examples.issued_at(changes)
    claims: dict[str, Any] = {
        "iss": "https://codeberg.org/api/actions",
        "aud": examples.AUDIENCE,
        # The form with ids, which repositories have that are newer than they are.
        "sub": f"repo:{owner}-{told['repository_owner_id']}/{name}-{told['repository_id']}:ref:{ref}",
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + 3600,
        "actor": "alice",
        "actor_id": "501",
        "base_ref": "",
        "event_name": "push",
        "head_ref": "",
        "ref": ref,
        "ref_protected": "false",
        "ref_type": "branch" if ref.startswith("refs/heads/") else "tag",
        "repository": repository,
        "repository_id": told["repository_id"],
        "repository_owner": owner,
        "repository_owner_id": told["repository_owner_id"],
        "run_attempt": "1",
        "run_id": "90210",
        "run_number": "42",
        "sha": told["sha"],
        "workflow": "release.yml",
        "workflow_ref": f"{repository}/{told['workflow_file']}@{ref}",
    }
    return examples.changed(claims, {**changes, "workflow_file": ...})


PROVIDER = Provider(
    name="forgejo",
    issuer=None,
    trust=ForgejoTrust,
    read=read,
    example=example,
    longest_token_seconds=3600,
    url_form=UrlForm(pattern=r".*/api/actions", example="https://codeberg.org/api/actions"),
)
