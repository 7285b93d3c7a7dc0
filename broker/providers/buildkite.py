"""Buildkite Pipelines.

Claims: https://buildkite.com/docs/agent/v3/cli-oidc (read 2026-11). Slugs can be renamed and taken again;
`organization_id` and `pipeline_id` are UUIDs that stay, and are in a token only where the job asked for them, with
`buildkite-agent oidc request-token --claim organization_id,pipeline_id`: without them it is refused. There is no `jti`.

A token names no person: neither who pushed nor who pressed the button. So the actor is the pipeline, by `pipeline_id`,
and every run is unattended: an organization names the pipeline among its members, as a machine.
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
    Identity,
    Impossible,
    Kind,
    Provider,
    Refs,
    Rule,
    Text,
    Triggers,
    Trust,
    UuidId,
    UuidMember,
    any_ref,
    exact,
    one_of,
)
from broker.tokens import Claims

SAFE_SOURCES: Final = ("ui", "api", "schedule", "webhook")
"""What starts a build and needs rights: a `webhook` with a tag alone, see `read`. `trigger_job` is not among them: it
is another pipeline's build, which may itself be of a stranger's pull request. Nor is whatever is new."""

DEFAULT_SOURCES: Final = ("ui", "webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildkiteIdentity(Identity):
    """A job of Buildkite Pipelines."""

    pipeline: str
    organization_id: str
    pipeline_id: str
    ref: str
    step_key: str | None
    build_source: str
    runner_environment: str | None
    sha: str

    lookup: ClassVar[str] = "pipeline"
    owner: ClassVar[str] = "organization_id"
    source: ClassVar[str] = "pipeline_id"


class BuildkiteTrust(Trust):
    """A publisher on Buildkite Pipelines."""

    pipeline: Text = Field(description="organization/pipeline, both as slugs; compared to the letter.")
    organization_id: UuidId | None = None
    pipeline_id: UuidId | None = None
    step_key: Text | None = Field(default=None, description="The `key` of the step; compared to the letter.")
    refs: Refs | None = None
    build_sources: tuple[Text, ...] = Field(
        default=DEFAULT_SOURCES, min_length=1, description="What may start a build that publishes."
    )
    runner_environment: Text | None = Field(default=None, description="buildkite-hosted or self-hosted.")

    identity: ClassVar[type[Identity]] = BuildkiteIdentity
    triggers: ClassVar[Triggers | None] = Triggers("build_sources", SAFE_SOURCES)
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("pipeline", "pipeline", Kind.NAME, exact),
        Rule("organization_id", "organization_id", Kind.ID, exact),
        Rule("pipeline_id", "pipeline_id", Kind.ID, exact),
        Rule("step_key", "step_key", Kind.CONDITION, exact),
        Rule("refs", "ref", Kind.CONDITION, any_ref),
        Rule("build_sources", "build_source", Kind.CONDITION, one_of),
        Rule("runner_environment", "runner_environment", Kind.CONDITION, exact),
    )
    itself: ClassVar[str | None] = "pipeline_id"
    never: ClassVar[tuple[Impossible, ...]] = (HUMAN,)

    @field_validator("pipeline")
    @classmethod
    def _two_slugs(cls, value: str) -> str:
        if value.count("/") != 1 or value.startswith("/") or value.endswith("/"):
            raise ValueError("write organization/pipeline, as in the pipeline's URL")
        return value

    @field_validator("build_sources")
    @classmethod
    def _safe_sources(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unsafe := sorted(set(value) - set(SAFE_SOURCES)):
            raise ValueError(f"outsiders can cause {', '.join(unsafe)}; safe are {', '.join(SAFE_SOURCES)}")
        return value


def read(claims: Claims, issuer: str, url: str) -> BuildkiteIdentity:
    """Reads a job's claims.

    Raises:
        MissingClaim, InvalidClaim: a claim is absent, of a wrong type, or a slug that cannot be one.
        ForbiddenTrigger: the build's source is none of `SAFE_SOURCES`, or a webhook for something else than a tag.
    """
    del url
    source, tag, branch = claims.text("build_source"), claims.optional_text("build_tag"), claims.text("build_branch")
    if source not in SAFE_SOURCES:
        raise refusals.ForbiddenTrigger(
            f"the build's source is {source!r}; those that may publish are {', '.join(SAFE_SOURCES)}"
        )
    # A pull request from a fork is built with the fork's branch name, which may be `main`, and no claim says that it is
    # one. Only members push tags.
    if source == "webhook" and tag is None:
        raise refusals.ForbiddenTrigger(
            "the build was started by a webhook for a branch, which may be a stranger's pull request: push a tag"
        )
    pipeline, pipeline_id = (
        f"{_slug(claims, 'organization')}/{_slug(claims, 'pipeline')}",
        claims.uuid_text("pipeline_id"),
    )
    return BuildkiteIdentity(
        issuer=issuer,
        subject=claims.text("sub"),
        actor_id=pipeline_id,
        actor_name=pipeline,
        unattended=True,
        run=claims.uuid_text("job_id"),
        pipeline=pipeline,
        organization_id=claims.uuid_text("organization_id"),
        pipeline_id=pipeline_id,
        ref=f"refs/heads/{branch}" if tag is None else f"refs/tags/{tag}",
        step_key=claims.optional_text("step_key"),
        build_source=source,
        runner_environment=claims.optional_text("runner_environment"),
        sha=claims.text("build_commit"),
    )


def _slug(claims: Claims, of: str) -> str:
    """A slug that can be joined to another with `/`, and not be taken for two."""
    slug = claims.text(f"{of}_slug")
    if "/" in slug:
        raise refusals.InvalidClaim(f"the claim '{of}_slug' is {slug!r}, and no slug has a `/`")
    return slug


def example(changes: Mapping[str, object]) -> dict[str, Any]:
    """A job of the pipeline acme/widgets, started by the push of the tag v1.0.0. Changes: see `examples.py`."""
    told = examples.facts(
        {
            "organization_slug": "acme",
            "pipeline_slug": "widgets",
            "build_branch": "v1.0.0",
            "build_tag": "v1.0.0",
            "build_commit": examples.SHA,
            "step_key": "publish",
        },
        changes,
    )
    has_tag = changes.get("build_tag", "v1.0.0") not in (..., None, "")
    ref = f"refs/tags/{told['build_tag']}" if has_tag else f"refs/heads/{told['build_branch']}"
    issued_at = examples.issued_at(changes)
    claims: dict[str, Any] = {
        "iss": PROVIDER.issuer,
        "sub": (
            f"organization:{told['organization_slug']}:pipeline:{told['pipeline_slug']}:ref:{ref}"
            f":commit:{told['build_commit']}:step:{told['step_key']}"
        ),
        "aud": examples.AUDIENCE,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + 300,
        "organization_slug": told["organization_slug"],
        "organization_id": "0184990a-477b-4fa8-9968-496074483ce1",
        "pipeline_slug": told["pipeline_slug"],
        "pipeline_id": "0184990a-4782-42b5-afc1-16715b10b8f2",
        "build_number": 42,
        "build_branch": told["build_branch"],
        "build_tag": told["build_tag"],
        "build_commit": told["build_commit"],
        "step_key": told["step_key"],
        "job_id": "0184990a-477b-4fa8-9968-496074483cee",
        "agent_id": "0184990a-4782-42b5-afc1-16715b10b8ff",
        "build_source": "webhook",
        "runner_environment": "buildkite-hosted",
    }
    return examples.changed(claims, changes)


PROVIDER = Provider(
    name="buildkite",
    issuer="https://agent.buildkite.com",
    trust=BuildkiteTrust,
    read=read,
    example=example,
    longest_token_seconds=3600,
    member_id=UuidMember,
)
