"""The playground's policies: one organization, bound on all three of the fake CI's issuers.

They are written as people write them, so that a newcomer can read and change them. The ids are those of `claims`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from broker.playground.ci import FakeCI
from broker.playground.claims import ALICE, BOB, CAROL, Person

ORGANIZATION: Final = "acme"
PROJECT: Final = "acme-widgets"

_ROLES: Final[dict[str, tuple[Person, str]]] = {
    ALICE.login: (ALICE, "owner"),
    BOB.login: (BOB, "member"),
    CAROL.login: (CAROL, "member"),
}
MEMBERS: Final = tuple(_ROLES)
"""Everybody in the organization; in the team `core`, all but its owner."""

_INDEX = """\
# The index operator's file. In production the URLs are left out: each provider has its public one.
issuers:
  github: {{provider: github, url: "{github}"}}
  gitlab: {{provider: gitlab, url: "{gitlab}"}}
  google: {{provider: google, url: "{google}"}}
lifetime: {{default: 15m, longest: 1h}}
organizations:
  acme: {{namespaces: [acme]}}
"""

_ORGANIZATION = """\
# The file of the organization's admins: who belongs to it, who may upload what, and which CI jobs it trusts.
organization: acme
namespaces: [acme]
members:
{members}
  release-bot: {{role: member, machine: true, google: "112233445566778899"}}
teams:
  core: [{core}]
projects:
  acme-widgets: {{upload: ["team:core"]}}
  acme-*: {{upload: [release-bot]}}
publishers:
  widgets-release:
    issuer: github
    repository: acme-corp/widgets
    repository_id: "424242424"
    repository_owner_id: "65600975"
    workflow: release.yml
    environment: pypi
    refs: ["refs/tags/v*"]
    projects: [acme-widgets]
  widgets-gitlab:
    issuer: gitlab
    project_path: acme/tools/widgets
    project_id: "20"
    namespace_id: "72"
    environment: pypi
    refs: ["refs/tags/v*"]
    projects: [acme-widgets]
  nightly-builds:
    issuer: google
    email: release-bot@acme-builds.iam.gserviceaccount.com
    account_id: "112233445566778899"
    projects: [acme-*]
"""


def write_policies(folder: Path, ci: FakeCI, members: Collection[str] = MEMBERS) -> None:
    """Writes the policy files, or writes them anew with other members.

    Args:
        folder: The folder of policies; made where it is missing.
        ci: Whose issuers are trusted.
        members: Who of `MEMBERS` belongs to the organization.
    """
    organizations = folder / "organizations"
    organizations.mkdir(parents=True, exist_ok=True)
    staying = {login: _ROLES[login] for login in MEMBERS if login in members}
    lines = (
        f'  {login}: {{role: {role}, github: "{person.github_id}", gitlab: "{person.gitlab_id}"}}'
        for login, (person, role) in staying.items()
    )
    core = ", ".join(login for login, (_, role) in staying.items() if role == "member")
    index = _INDEX.format(github=ci.urls["github"], gitlab=ci.urls["gitlab"], google=ci.urls["google"])
    (folder / "index.yaml").write_text(index, encoding="utf-8")
    (organizations / f"{ORGANIZATION}.yaml").write_text(
        _ORGANIZATION.format(members="\n".join(lines), core=core), encoding="utf-8"
    )
