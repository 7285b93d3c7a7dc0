"""GitLab CI, gitlab.com and self-managed.

Claims: https://docs.gitlab.com/ci/secrets/id_token_authentication/ (read 2026-11). The issuer is the instance's URL. A
job gets one token, in an environment variable, valid for as long as the job may run; so by default a second exchange
gets the same upload token again. `ref_path` is there since 16.0, `job_project_id` since 18.2.2: instances without them
are refused, for then a fork's job cannot be told from the project's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator

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

SAFE_SOURCES: Final = ("push", "web", "schedule", "api", "trigger", "pipeline", "parent_pipeline")
"""Pipeline sources that need rights in the project. Merge requests, chats, and whatever is new are not among them."""

DEFAULT_SOURCES: Final = ("push", "web")

_BOT = re.compile(r"(?:project|group)_[0-9]+_bot(?:_.*)?|service_account_.*")
"""Logins of access tokens and service accounts. People may take such a login: they are then held to be machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLabIdentity(Identity):
    """A job of GitLab CI."""

    project_path: str
    project_id: str
    namespace_id: str
    ci_config: str
    """The pipeline's top-level file in the project, such as `.gitlab-ci.yml`."""
    ref: str
    pipeline_source: str
    environment: str | None
    ref_protected: bool | None
    environment_protected: bool | None
    deployment_tier: str | None
    sha: str

    lookup: ClassVar[str] = "project_path"
    owner: ClassVar[str] = "namespace_id"
    source: ClassVar[str] = "project_id"


class GitLabTrust(Trust):
    """A publisher on GitLab CI."""

    project_path: Text = Field(description="group/subgroup/project; compared without case.")
    project_id: DecimalId | None = None
    namespace_id: DecimalId | None = None
    ci_config: Text = Field(default=".gitlab-ci.yml", description="The pipeline's file, its path in the project.")
    environment: Text | None = Field(default=None, description="The job's environment; compared to the letter.")
    refs: Refs | None = None
    ref_protected: bool = Field(default=True, description="Only from protected branches and tags, unless false.")
    environment_protected: bool | None = Field(
        default=None, description="Whether the environment must be protected, or must not be."
    )
    deployment_tier: Text | None = Field(default=None, description="The environment's tier, such as production.")
    pipeline_sources: tuple[Text, ...] = Field(
        default=DEFAULT_SOURCES, min_length=1, description="What may have started the pipeline."
    )

    identity: ClassVar[type[Identity]] = GitLabIdentity
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("project_path", "project_path", Kind.NAME, folded),
        Rule("project_id", "project_id", Kind.ID, exact),
        Rule("namespace_id", "namespace_id", Kind.ID, exact),
        Rule("ci_config", "ci_config", Kind.CONDITION, exact),
        Rule("environment", "environment", Kind.CONDITION, exact),
        Rule("refs", "ref", Kind.CONDITION, any_ref),
        Rule("ref_protected", "ref_protected", Kind.CONDITION, lambda expected, actual: not expected or actual is True),
        Rule("environment_protected", "environment_protected", Kind.CONDITION, same),
        Rule("deployment_tier", "deployment_tier", Kind.CONDITION, exact),
        Rule("pipeline_sources", "pipeline_source", Kind.CONDITION, one_of),
    )
    triggers: ClassVar[Triggers | None] = Triggers("pipeline_sources", SAFE_SOURCES)
    never: ClassVar[tuple[Impossible, ...]] = ({**HUMAN, "pipeline_source": frozenset({"schedule"})},)

    @field_validator("project_path")
    @classmethod
    def _whole_path(cls, value: str) -> str:
        if "/" not in value or value.startswith("/") or value.endswith("/") or "//" in value:
            raise ValueError("write group/project, with all subgroups, without the host")
        return value

    @field_validator("pipeline_sources")
    @classmethod
    def _safe_sources(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unsafe := sorted(set(value) - set(SAFE_SOURCES)):
            raise ValueError(f"outsiders can cause {', '.join(unsafe)}; safe are {', '.join(SAFE_SOURCES)}")
        return value


def read(claims: Claims, issuer: str, url: str) -> GitLabIdentity:
    """Reads a job's claims.

    Raises:
        MissingClaim, InvalidClaim: a claim is absent, of a wrong type, or does not fit the others.
        ForbiddenTrigger: the pipeline's source is none of `SAFE_SOURCES`.
        ForkedSource: the job runs for another project than the one whose pipeline this is.
    """
    source = claims.text("pipeline_source")
    if source not in SAFE_SOURCES:
        raise refusals.ForbiddenTrigger(
            f"the pipeline's source is {source!r}; those that may publish are {', '.join(SAFE_SOURCES)}"
        )
    project_id, namespace_id = claims.number_text("project_id"), claims.number_text("namespace_id")
    if (claims.number_text("job_project_id"), claims.number_text("job_namespace_id")) != (project_id, namespace_id):
        raise refusals.ForkedSource("the job runs for another project or group than its pipeline belongs to")
    project_path, ref, sha = claims.text("project_path"), claims.text("ref_path"), claims.text("sha")
    login = claims.text("user_login")
    return GitLabIdentity(
        issuer=issuer,
        subject=claims.text("sub"),
        actor_id=claims.number_text("user_id"),
        actor_name=login,
        unattended=source == "schedule" or _BOT.fullmatch(login) is not None,
        run=claims.number_text("pipeline_id"),
        project_path=project_path,
        project_id=project_id,
        namespace_id=namespace_id,
        ci_config=_config_file(claims.text("ci_config_ref_uri"), f"{_place(url)}/{project_path}", ref, sha),
        ref=ref,
        pipeline_source=source,
        environment=claims.optional_text("environment"),
        ref_protected=claims.flag_text("ref_protected"),
        environment_protected=claims.flag_text("environment_protected"),
        deployment_tier=claims.optional_text("deployment_tier"),
        sha=sha,
    )


def _place(url: str) -> str:
    """'https://gitlab.acme.example:8443/git' -> 'gitlab.acme.example:8443/git', as references begin."""
    parts = urlsplit(url)
    return parts.netloc + parts.path.rstrip("/")


def _config_file(reference: str, project: str, ref: str, sha: str) -> str:
    """'gitlab.com/acme/widgets//.gitlab-ci.yml@refs/heads/main' -> '.gitlab-ci.yml'.

    Files, branches and directories may hold `@` and (a file's path) `//`, so nothing is cut at one: what must stand
    before and behind the file is known from other signed claims, and is taken off exactly.
    """
    start = f"{project}//"
    end = next((end for end in (f"@{ref}", f"@{sha}") if reference.endswith(end)), None)
    if end is None or fold(reference[: len(start)]) != fold(start):
        raise refusals.InvalidClaim(
            f"'ci_config_ref_uri' is {reference!r}, which fits neither 'project_path' nor 'ref_path'"
        )
    path = reference[len(start) : -len(end)]
    if any(step in {"", ".", ".."} for step in path.split("/")):
        raise refusals.InvalidClaim(f"'ci_config_ref_uri' names {path!r}, which is no plain path in the project")
    return path


def example(changes: Mapping[str, object]) -> dict[str, Any]:
    """A job in acme/tools/widgets, started by alice's push of the protected tag v1.0.0. Changes: see `examples.py`."""
    told = examples.facts(
        {
            "iss": "https://gitlab.com",
            "project_path": "acme/tools/widgets",
            "project_id": "20",
            "namespace_id": "72",
            "ref": "v1.0.0",
            "ref_type": "tag",
            "sha": examples.SHA,
        },
        changes,
    )
    path, ref, sha, kind = told["project_path"], told["ref"], told["sha"], told["ref_type"]
    namespace = path.rpartition("/")[0]
    told = examples.facts({**told, "ref_path": f"refs/{'heads' if kind == 'branch' else 'tags'}/{ref}"}, changes)
    issued_at = examples.issued_at(changes)
    claims: dict[str, Any] = {
        "namespace_id": told["namespace_id"],
        "namespace_path": namespace,
        "project_id": told["project_id"],
        "project_path": path,
        "project_visibility": "private",
        "job_project_id": told["project_id"],
        "job_project_path": path,
        "job_namespace_id": told["namespace_id"],
        "job_namespace_path": namespace,
        "user_login": "alice",
        "user_id": "77",
        "user_email": "alice@acme.example",
        "user_access_level": "maintainer",
        "user_identities": [{"provider": "github", "extern_uid": "1001"}],
        "groups_direct": ["acme/tools"],
        "pipeline_id": "574",
        "pipeline_source": "push",
        "job_id": "302",
        "job_source": "push",
        "ref": ref,
        "ref_type": kind,
        "ref_path": told["ref_path"],
        "ref_protected": "true",
        "environment": "pypi",
        "environment_protected": "true",
        "environment_action": "start",
        "deployment_tier": "production",
        "runner_id": 12270835,
        "runner_environment": "gitlab-hosted",
        "sha": sha,
        "ci_config_ref_uri": f"{_place(told['iss'])}/{path}//.gitlab-ci.yml@{told['ref_path']}",
        "ci_config_sha": sha,
        "jti": examples.JTI,
        "iss": told["iss"],
        "iat": issued_at,
        "nbf": issued_at - 5,
        "exp": issued_at + 3600,
        "sub": f"project_path:{path}:ref_type:{kind}:ref:{ref}",
        "aud": examples.AUDIENCE,
    }
    return examples.changed(claims, changes)


PROVIDER = Provider(
    name="gitlab",
    issuer="https://gitlab.com",
    trust=GitLabTrust,
    read=read,
    example=example,
    longest_token_seconds=24 * 3600,
    replay="same-token",
)
