"""What properties are tried with."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from broker.patterns import Projects
from broker.playground.ci import IssuerName

KINDS: tuple[IssuerName, ...] = ("github", "gitlab", "google")

numbers = st.from_regex(r"[1-9][0-9]{0,15}", fullmatch=True)

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


RUNS = {"github": github_runs(), "gitlab": gitlab_runs(), "google": google_runs()}


@st.composite
def runs(draw: st.DrawFn) -> tuple[IssuerName, dict[str, str]]:
    """A valid run of any provider: its kind, and the changes to its claims."""
    kind = draw(st.sampled_from(KINDS))
    return kind, draw(RUNS[kind])
