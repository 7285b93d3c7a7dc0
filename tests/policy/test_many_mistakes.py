"""All mistakes of all files are told at once, each on its own line."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from tests.policy.example import write

INDEX = """\
issuers:
  github: {provider: github}
  gitlab: {provider: gitlab, replay: loose}               # 1
  Google: {provider: google}                              # 2
  gitlab-acme:
    provider: gitlab
    url: http://gitlab.acme.example                       # 3
    algorithms: [HS512]                                   # 4
    organizations: [acmee]                                # 5
    longest_tokens: 3h                                    # 6
lifetime:
  default: 5m                                             # 7
  longest: 9h                                             # 8
colour: blue                                              # 9
"""

ACME = """\
organization: acne                                        # 10
suspended: 1                                              # 11
namespaces:
  - acme
  - ACME                                                  # 12
  - acme_*                                                # 13
members:
  alice: {role: owner, github: 1001}                      # 14
  bob: {role: boss, github: "1002"}                       # 15
  carol: {role: member, githup: "1003"}                   # 16
  alice: {role: owner, github: "1004"}                    # 17
  yes: {role: member}                                     # 18
  dan_x: {role: member, github: "1005"}                   # 19
  erin: {role: member, github: "x"}                       # 20
  frank:
    role: member
    machine: on                                           # 21
    until: 31.01.2027                                     # 22
    github: *frank                                        # 23
teams:
  core: [alice, bbo]                                      # 24
projects:
  acme-widgets: {upload: ["team:cor"]}                    # 25
  Acme.Widgets: {upload: [alice]}                         # 26
  acme*: {upload: [alice]}                                # 27
  acme-gadgets: {uploads: [alice], upload: []}            # 28
publishers:
  release:
    issuer: github
    repository: acme                                      # 29
    repository_id: 42                                     # 30
    repository_owner_id: "43"
    workflow: release.txt                                 # 31
    workflow: release.yml                                 # 32
    refs:
      - refs/tags/v*
      - v*                                                # 33
    events: [pull_request]                                # 34
    projects:
      - acme-widgets
      - evil*                                             # 35
  no-ids:                                                 # 36
    issuer: github
    repository: acme-corp/other
    workflow: release.yml
    projects: [acme-other]
  elsewhere:
    issuer: githug                                        # 37
    projects: [acme-widgets]
  incomplete:                                             # 38
    issuer: github
    repository: acme-corp/widgets
    pin: first-use
    projects: [acme-widgets]
"""

GLOBEX = """\
organization: globex
namespaces: [acme-globex]                                 # 39
members: {}
projects:
  acme-widgets: {upload: []}                              # 40
publishers:
  one:
    issuer: github
    repository: globex/one
    pin: second-use                                       # 41
    workflow: a.yml
    projects: [acme-globex-one]
  two:
    issuer: github
    repository: globex/two
    pin: first-use
    workflow: b.yml
    projects: [globex-two]                                # 42
"""

BROKEN = """\
organization: broken
namespaces: [broken
members: {}                                               # 43
"""

PATHS = {
    1: "issuers.gitlab.replay",
    2: "issuers.Google",
    3: "issuers.gitlab-acme.url",
    4: "issuers.gitlab-acme.algorithms",
    5: "issuers.gitlab-acme.organizations[0]",
    6: "issuers.gitlab-acme.longest_tokens",
    7: "lifetime.default",
    8: "lifetime.longest",
    9: "colour",
    10: "organization",
    11: "suspended",
    12: "namespaces[1]",
    13: "namespaces[2]",
    14: "members.alice.github",
    15: "members.bob.role",
    16: "members.carol.githup",
    17: "members.alice",
    18: "members.yes",
    19: "members.dan_x",
    20: "members.erin.github",
    21: "members.frank.machine",
    22: "members.frank.until",
    23: "members.frank.github",
    24: "teams.core[1]",
    25: "projects.acme-widgets.upload[0]",
    26: 'projects."Acme.Widgets"',
    27: "projects.acme*",
    28: "projects.acme-gadgets.uploads",
    29: "publishers.release.repository",
    30: "publishers.release.repository_id",
    31: "publishers.release.workflow",
    32: "publishers.release.workflow",
    33: "publishers.release.refs[1]",
    34: "publishers.release.events",
    35: "publishers.release.projects[1]",
    36: "publishers.no-ids",
    37: "publishers.elsewhere.issuer",
    38: "publishers.incomplete.workflow",
    39: "namespaces[0]",
    40: "projects.acme-widgets",
    41: "publishers.one.pin",
    42: "publishers.two.projects[0]",
    43: "",
}


def test_forty_mistakes_in_four_files_are_all_told_at_once(tmp_path: Path) -> None:
    """Each once, with its line and path; none follows from another."""
    files = {
        "index.yaml": INDEX,
        "organizations/acme.yaml": ACME,
        "organizations/broken.yaml": BROKEN,
        "organizations/globex.yaml": GLOBEX,
    }
    expected = {
        (file, line, PATHS[int(mark)])
        for file, text in files.items()
        for line, (_, found, mark) in enumerate((row.partition(" # ") for row in text.splitlines()), start=1)
        if found
    }
    with pytest.raises(PolicyErrors) as caught:
        load(write(tmp_path, files))
    told = [(error.file, error.line, error.path) for error in caught.value.errors]
    assert set(told) == expected
    assert len(told) == len(PATHS)
    assert all(error.what and error.remedy for error in caught.value.errors)
    assert len(str(caught.value).splitlines()) == len(PATHS)
