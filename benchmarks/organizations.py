"""Organizations with ten publishers each, and the claims of jobs in each of their repositories; ten, or any number."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from broker.playground.ci import FakeCI

ORGANIZATIONS: Final = 10
PUBLISHERS: Final = 10
"""Of one organization; each has a repository and a project of its own."""

_INDEX = """\
issuers:
  github: {{provider: github, url: "{url}"}}
"""

_ORGANIZATION = """\
organization: {name}
namespaces: [{name}]
members:
  alice: {{role: owner, github: "{alice}"}}
  bob: {{role: member, github: "{bob}"}}
  carol: {{role: billing-manager, github: "{carol}"}}
teams:
  core: [alice, bob]
projects:
  {name}-*: {{upload: ["team:core"]}}
publishers:
"""

_PUBLISHER = """\
  widgets-{number}-release:
    issuer: github
    repository: {name}-corp/widgets-{number}
    repository_id: "{repository}"
    repository_owner_id: "{owner}"
    workflow: release.yml
    environment: pypi
    refs: ["refs/tags/v*"]
    events: [push, release, workflow_dispatch]
    projects: [{name}-widgets-{number}]
"""


def write_policies(folder: Path, ci: FakeCI, organizations: int = ORGANIZATIONS) -> None:
    """Writes the policy files. The first ten organizations are the same however many there are."""
    (folder / "organizations").mkdir(parents=True)
    (folder / "index.yaml").write_text(_INDEX.format(url=ci.urls["github"]), encoding="utf-8")
    for organization in range(organizations):
        name = _name(organization)
        ids = {who: _person(organization, who) for who in ("alice", "bob", "carol")}
        publishers = (
            _PUBLISHER.format(
                name=name, number=number, repository=_repository(organization, number), owner=_owner(organization)
            )
            for number in range(PUBLISHERS)
        )
        text = _ORGANIZATION.format(name=name, **ids) + "".join(publishers)
        file_of(folder, organization).write_text(text, encoding="utf-8")


def file_of(folder: Path, organization: int) -> Path:
    """The organization's policy file."""
    return folder / "organizations" / f"{_name(organization)}.yaml"


def claims_of(index: int, organizations: int = ORGANIZATIONS) -> dict[str, str]:
    """What is particular to the job of that number: the repositories take turns.

    Its actor is a `member`, so that the broker must look at the rights of each, as for most people.
    """
    organization, number = index % organizations, index // organizations % PUBLISHERS
    name = _name(organization)
    return {
        "repository": f"{name}-corp/widgets-{number}",
        "repository_id": _repository(organization, number),
        "repository_owner_id": _owner(organization),
        "actor": "bob",
        "actor_id": _person(organization, "bob"),
    }


def project_of(index: int) -> str:
    """The project that the job of that number may upload to."""
    return f"{_name(index % ORGANIZATIONS)}-widgets-{index // ORGANIZATIONS % PUBLISHERS}"


def _name(organization: int) -> str:
    return f"{'abcdefghij'[organization]}cme" if organization < ORGANIZATIONS else f"org{organization}"


def _person(organization: int, who: str) -> str:
    return str(1000 + 10 * organization + ("alice", "bob", "carol").index(who))


def _owner(organization: int) -> str:
    return str(65600000 + organization)


def _repository(organization: int, number: int) -> str:
    return str(424242000 + 100 * organization + number)
