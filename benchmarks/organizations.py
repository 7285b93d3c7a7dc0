"""Ten organizations with ten publishers each, and the claims of jobs in each of their hundred repositories."""

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


def write_policies(folder: Path, ci: FakeCI) -> None:
    """Writes the policy files."""
    (folder / "organizations").mkdir(parents=True)
    (folder / "index.yaml").write_text(_INDEX.format(url=ci.urls["github"]), encoding="utf-8")
    for organization in range(ORGANIZATIONS):
        name = _name(organization)
        ids = {who: _person(organization, who) for who in ("alice", "bob", "carol")}
        publishers = (
            _PUBLISHER.format(
                name=name, number=number, repository=_repository(organization, number), owner=_owner(name)
            )
            for number in range(PUBLISHERS)
        )
        text = _ORGANIZATION.format(name=name, **ids) + "".join(publishers)
        (folder / "organizations" / f"{name}.yaml").write_text(text, encoding="utf-8")


def claims_of(index: int) -> dict[str, str]:
    """What is particular to the job of that number: the hundred repositories take turns.

    Its actor is a `member`, so that the broker must look at the rights of each, as for most people.
    """
    organization, number = index % ORGANIZATIONS, index // ORGANIZATIONS % PUBLISHERS
    name = _name(organization)
    return {
        "repository": f"{name}-corp/widgets-{number}",
        "repository_id": _repository(organization, number),
        "repository_owner_id": _owner(name),
        "actor": "bob",
        "actor_id": _person(organization, "bob"),
    }


def project_of(index: int) -> str:
    """The project that the job of that number may upload to."""
    return f"{_name(index % ORGANIZATIONS)}-widgets-{index // ORGANIZATIONS % PUBLISHERS}"


def _name(organization: int) -> str:
    return f"{'abcdefghij'[organization]}cme"


def _person(organization: int, who: str) -> str:
    return str(1000 + 10 * organization + ("alice", "bob", "carol").index(who))


def _owner(name: str) -> str:
    return str(65600000 + ord(name[0]))


def _repository(organization: int, number: int) -> str:
    return str(424242000 + 100 * organization + number)
