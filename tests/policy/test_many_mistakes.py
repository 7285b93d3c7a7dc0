"""All mistakes of all files are told at once, each on its own line."""

from __future__ import annotations

import re
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
freezes:
  - {until: 2027-01-02}                                   # 44
  - {reason: x, from: 2027-01-03, until: 2027-01-02}      # 45
  - {reason: x, organizations: [acmee]}                   # 46
ceilings:
  lifetime: 5m                                            # 47
  issuers: [github, gogle]                                # 48
  events: [push, pull_request]                            # 49
  pipeline_sources: [push]
  organizations:
    globexx: {issuers: [github]}                          # 50
    acme: {events: []}                                    # 51
    globex:
      pipeline_sources:
        - push
        - web                                             # 52
      issuers: [github]
      events: [release]
      required:
        - ids
        - until
        - enviroment                                      # 53
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
lifetime: 7h                                              # 54
freezes:
  - {reason: x, until: tomorrow}                          # 55
  - {reason: x, form: 2027-01-02}                         # 56
frozen: true                                              # 57
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
    until: 2027-12-31
    projects: [acme-globex-one]
  two:
    issuer: github
    repository: globex/two
    pin: first-use                                        # 62
    until: 2027-12-31
    workflow: b.yml
    projects: [globex-two]                                # 42
  three:                                                  # 58
    issuer: github
    repository: globex/three
    repository_id: "3"
    repository_owner_id: "4"
    workflow: c.yml
    projects: [acme-globex-three]
  four:
    issuer: gitlab                                        # 59
    project_path: globex/four
    project_id: "3"
    namespace_id: "4"
    until: 2027-12-31
    projects: [acme-globex-four]
  five:
    issuer: github
    repository: globex/five
    repository_id: "5"
    repository_owner_id: "4"
    workflow: c.yml
    until: 2027-12-31
    events:
      - release
      - push                                              # 60
    projects: [acme-globex-five]
lifetime: 14m                                             # 61
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
    44: "freezes[0].reason",
    45: "freezes[1].until",
    46: "freezes[2].organizations[0]",
    47: "ceilings.lifetime",
    48: "ceilings.issuers[1]",
    49: "ceilings.events[1]",
    50: "ceilings.organizations.globexx",
    51: "ceilings.organizations.acme.events",
    52: "ceilings.organizations.globex.pipeline_sources[1]",
    53: "ceilings.organizations.globex.required[2]",
    54: "lifetime",
    55: "freezes[0].until",
    56: "freezes[1].form",
    57: "frozen",
    58: "publishers.three",
    59: "publishers.four.issuer",
    60: "publishers.five.events[1]",
    61: "lifetime",
    62: "publishers.two.pin",
}


def test_sixty_mistakes_in_four_files_are_all_told_at_once(tmp_path: Path) -> None:
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
    kinds = {re.sub(r"'[^']*'|[0-9]+", "", error.what) for error in caught.value.errors}
    assert len(kinds) >= 40  # not one mistake sixty times
    assert all(error.what and error.remedy for error in caught.value.errors)
    assert len(str(caught.value).splitlines()) == len(PATHS)
