"""Files to source: each makes a shell look like a step of one CI run, to any client that runs in it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from broker.playground.certificates import write_private
from broker.playground.ci import FakeCI
from broker.playground.claims import BOB, MALLORY

MAIN_FILE: Final = "environment.sh"
"""alice's run of the release workflow: the one that may publish."""

_CI_VARIABLES: Final = (
    *("CI", "GITHUB_ACTIONS", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    *("GITLAB_CI", "ACME_INDEX_ID_TOKEN"),
)
"""All that a CI sets: a file takes away what another one has set."""


def write_environments(folder: Path, ci: FakeCI, shared: Mapping[str, str]) -> None:
    """Writes a file for each of the runs that are worth trying.

    Args:
        folder: Where `environment.sh` is written, and `runs/` with the others.
        ci: Where the runs are started.
        shared: What every one of them has.
    """
    others = folder / "runs"
    others.mkdir()
    runs = {
        folder / MAIN_FILE: ("alice's run of release.yml on GitHub", ci.start_run().environment),
        others / "unknown-actor.sh": (
            "mallory's run of release.yml on GitHub: the right workflow, but mallory is no member",
            ci.start_run(**MALLORY.on_github).environment,
        ),
        others / "no-publisher.sh": (
            "bob's run of tests.yml on GitHub: a member, but another workflow",
            ci.start_run(workflow_file="tests.yml", **BOB.on_github).environment,
        ),
        others / "gitlab.sh": ("alice's job on GitLab, with its one token for an hour", ci.start_job()),
    }
    for path, (title, environment) in runs.items():
        write_private(path, script(title, {**shared, **environment}).encode())


def script(title: str, variables: Mapping[str, str]) -> str:
    """A shell script that sets variables, whatever is in their values, and does nothing else."""
    lines = [f"# {title}. For a shell of its own: . this-file", f"unset {' '.join(_CI_VARIABLES)}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(lines) + "\n"
