"""What properties are tried with."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from broker.patterns import Projects
from broker.playground.ci import IssuerName
from tests.fakes import KINDS

numbers = st.from_regex(r"[1-9][0-9]{0,15}", fullmatch=True)

uuids = st.uuids().map(str)

words = st.text("abcXYZ019._-", min_size=1, max_size=12)

printable = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12).filter(str.isprintable)
"""Any script, emoji among them."""

stems = st.text("ab-", min_size=1, max_size=4)
"""Few letters, so that prefixes meet."""

patterns = st.builds(Projects, stems, is_prefix=st.booleans())

project_texts = st.from_regex(r"[aAb]([-_.]{0,2}[aAb0]){0,3}([-_.]{1,2}\*)?", fullmatch=True)

refs = st.lists(st.text("ab", max_size=3), min_size=1, max_size=4).map("/".join)

globs = st.lists(st.text("ab*", max_size=4).filter(lambda part: "**" not in part), min_size=1, max_size=4).map("/".join)

files = st.builds("{}{}".format, st.text("ab@.:-", min_size=1, max_size=8), st.sampled_from([".yml", ".yaml"]))

branches = st.builds("refs/heads/{}".format, st.text("ab@./:-", min_size=1, max_size=16))

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def github_runs(draw: st.DrawFn) -> dict[str, str]:
    """Changes to the claims of a GitHub job that leave it valid."""
    return {
        "repository": f"{draw(words)}/{draw(words)}",
        "repository_id": draw(numbers),
        "repository_owner_id": draw(numbers),
        "workflow_file": draw(files),
        "environment": draw(printable),
        "ref": draw(branches),
        "event_name": draw(st.sampled_from(["push", "release", "workflow_dispatch"])),
        "actor_id": draw(numbers),
    }


@st.composite
def gitlab_runs(draw: st.DrawFn) -> dict[str, str]:
    """Changes to the claims of a GitLab job that leave it valid."""
    path, ref = f"{draw(words)}/{draw(words)}/{draw(words)}", draw(branches)
    steps = draw(st.lists(st.text("ab@:-", min_size=1, max_size=5), min_size=1, max_size=3))
    return {
        "project_path": path,
        "project_id": draw(numbers),
        "namespace_id": draw(numbers),
        "ref_path": ref,
        "ci_config_ref_uri": f"gitlab.com/{path}//{'/'.join(steps)}@{ref}",
        "environment": draw(printable),
        "pipeline_source": draw(st.sampled_from(["push", "web"])),
        "user_id": draw(numbers),
    }


@st.composite
def google_runs(draw: st.DrawFn) -> dict[str, str]:
    """Changes to the claims of a service account that leave it valid."""
    return {"sub": draw(numbers), "email": f"{draw(words)}@{draw(words)}.iam.gserviceaccount.com"}


@st.composite
def activestate_runs(draw: st.DrawFn) -> dict[str, Any]:
    """Changes to the claims of an ActiveState build that leave it valid."""
    return {
        "organization": draw(words),
        "organization_id": draw(uuids),
        "project": draw(words),
        "project_id": draw(uuids),
        "ingredient": draw(printable),
        "actor_id": draw(uuids),
    }


@st.composite
def buildkite_runs(draw: st.DrawFn) -> dict[str, Any]:
    """Changes to the claims of a Buildkite job that leave it valid."""
    return {
        "organization_slug": draw(words),
        "organization_id": draw(uuids),
        "pipeline_slug": draw(words),
        "pipeline_id": draw(uuids),
        "build_tag": draw(st.text("ab@./:-", min_size=1, max_size=16)),
        "build_source": draw(st.sampled_from(["ui", "api", "schedule", "webhook"])),
        "step_key": draw(printable),
    }


@st.composite
def circleci_runs(draw: st.DrawFn) -> dict[str, Any]:
    """Changes to the claims of a CircleCI job that leave it valid."""
    return {
        "oidc.circleci.com/project-id": draw(uuids),
        "oidc.circleci.com/pipeline-definition-id": draw(uuids),
        "oidc.circleci.com/context-ids": [draw(uuids)],
        "oidc.circleci.com/vcs-origin": f"github.com/{draw(words)}/{draw(words)}",
        "oidc.circleci.com/vcs-ref": draw(branches),
    }


@st.composite
def forgejo_runs(draw: st.DrawFn) -> dict[str, Any]:
    """Changes to the claims of a Forgejo job that leave it valid."""
    folder = draw(st.sampled_from([".forgejo", ".gitea", ".github"]))
    return {
        "repository": f"{draw(words)}/{draw(words)}",
        "repository_id": draw(numbers),
        "repository_owner_id": draw(numbers),
        "workflow_file": f"{folder}/workflows/{draw(files)}",
        "ref": draw(branches),
        "event_name": draw(st.sampled_from(["push", "release", "workflow_dispatch"])),
        "actor_id": draw(numbers),
    }


@st.composite
def generic_runs(draw: st.DrawFn) -> dict[str, Any]:
    """Changes to the claims of a run of the tests' declared issuer that leave it valid."""
    return {name: draw(printable) for name in ("repository", "repository_id", "ref", "actor_id")}


RUNS: dict[IssuerName, st.SearchStrategy[dict[str, Any]]] = {
    "github": github_runs(),
    "gitlab": gitlab_runs(),
    "google": google_runs(),
    "activestate": activestate_runs(),
    "buildkite": buildkite_runs(),
    "circleci": circleci_runs(),
    "forgejo": forgejo_runs(),
    "generic": generic_runs(),
}


@st.composite
def runs(draw: st.DrawFn) -> tuple[IssuerName, dict[str, Any]]:
    """A valid run of any provider: its kind, and the changes to its claims."""
    kind = draw(st.sampled_from(KINDS))
    return kind, draw(RUNS[kind])
