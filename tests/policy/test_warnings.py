"""What loads and is weak is told: with its code, at its line, and nothing else is."""

# ruff: noqa: E501 (a table: one weakness, one line)

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from broker.policy.files import load
from broker.policy.sources import read_sources
from broker.policy.warnings import UNKNOWN_ORGANIZATION, WEAKNESSES, PolicyWarning, find_warnings
from broker.providers import Trust
from tests.fakes import CLAIMS, identity, trust
from tests.policy.example import write

TODAY = date(2027, 1, 1)

INDEX = """\
issuers:
  github: {provider: github}
  gitlab: {provider: gitlab}
  google: {provider: google}
"""

ACME = """\
organization: acme
namespaces: [acme]
members:
  alice: {role: owner, github: "1001", gitlab: "77"}
  dana: {role: owner, github: "1004", gitlab: "80"}
  bob: {role: member, github: "1002"}
  carol: {role: billing-manager}
  robot: {role: member, machine: true, google: "55"}
projects:
  acme-widgets: {upload: [bob]}
  acme-nightly-*: {upload: [robot]}
publishers:
  release:
    issuer: github
    repository: acme-corp/widgets
    repository_id: "424242424"
    repository_owner_id: "65600975"
    workflow: release.yml
    environment: pypi
    refs: ["refs/tags/v*"]
    projects: [acme-widgets]
  nightly:
    issuer: google
    email: robot@acme.example
    account_id: "55"
    projects: [acme-nightly-*]
"""

REFS = '    refs: ["refs/tags/v*"]\n'
GITLAB = """\
  gitlab-release:
    issuer: gitlab
    project_path: acme/widgets
    pin: first-use
    environment: pypi
    projects: [acme-gadgets]
"""
READS = """\
  build:
    issuer: github
    repository: acme-corp/gadgets
    repository_id: "1"
    repository_owner_id: "65600975"
    workflow: build.yml
    downloads: [acme-lib]
"""
"""Every branch, no environment: a run of it changes nothing."""


def told(folder: Path, text: str, today: date = TODAY) -> list[PolicyWarning]:
    """The warnings of the one organization."""
    write(folder, {"index.yaml": INDEX, "organizations/acme.yaml": text})
    return list(find_warnings(load(folder), read_sources(folder), today))


def brief(warnings: list[PolicyWarning]) -> list[str]:
    return [f"{one.code} {one.path}: {one.what}" for one in warnings]


def test_a_good_policy_has_none(tmp_path: Path) -> None:
    assert told(tmp_path, ACME) == []


ROWS = [
    # no-environment
    ("    environment: pypi\n", "", ["no-environment publishers.release: names no environment"]),
    # every-ref
    (REFS, "", ["every-ref publishers.release: publishes from every ref"]),
    (REFS, "    ref_protected: true\n", []),
    (REFS, "    ref_protected: false\n", ["every-ref publishers.release: publishes from every ref"]),
    (
        REFS,
        '    refs: ["refs/heads/main", "refs/heads/*"]\n',
        ["every-ref publishers.release.refs[1]: publishes from every branch: refs/heads/*"],
    ),
    (REFS, '    refs: ["refs/heads/*"]\n    ref_protected: true\n', []),
    (REFS, '    refs: ["refs/*/*"]\n', ["every-ref publishers.release.refs[0]: publishes from every branch: refs/*/*"]),
    (
        REFS,
        '    refs: ["refs/heads/*/*"]\n',
        ["every-ref publishers.release.refs[0]: publishes from every branch: refs/heads/*/*"],
    ),
    (REFS, '    refs: ["refs/tags/*", "refs/heads/release-*", "refs/*", "refs/heads/v/*"]\n', []),
    ("publishers:\n", "publishers:\n" + GITLAB, []),
    (
        "publishers:\n",
        "publishers:\n" + GITLAB + "    ref_protected: false\n",
        ["every-ref publishers.gitlab-release: publishes from every ref"],
    ),
    # owner-alone
    ("dana: {role: owner", "dana: {role: member", ["owner-alone members.alice: is the only owner"]),
    ("dana: {role: owner", "dana: {suspended: true, role: owner", ["owner-alone members.alice: is the only owner"]),
    ("dana: {role: owner", "dana: {machine: true, role: owner", ["owner-alone members.alice: is the only owner"]),
    # member-without-id
    (
        'bob: {role: member, github: "1002"}',
        'bob: {role: member, gitlab: "78"}',
        ["member-without-id members.bob: has no id at 'github', where publishers of their projects are"],
    ),
    (
        'dana: {role: owner, github: "1004", gitlab: "80"}',
        "dana: {role: owner}",
        ["member-without-id members.dana: has no id at 'github', where publishers of their projects are"],
    ),
    ('bob: {role: member, github: "1002"}', "bob: {role: member, suspended: true}", []),
    (
        'bob: {role: member, github: "1002"}',
        "bob: {role: member, machine: true}",
        ["member-without-id members.bob: has no id at 'github', where publishers of their projects are"],
    ),
    ("acme-widgets: {upload: [bob]}", "acme-widgets: {upload: [bob, robot]}", []),
    # publisher-for-nobody
    (
        "    projects: [acme-nightly-*]",
        "    projects: [acme-weekly]",
        [
            "project-for-nobody projects.acme-nightly-*: is published by no publisher",
            "publisher-for-nobody publishers.nightly: is for the account 55 alone, which is no member with a right to its projects",
        ],
    ),
    (
        'google: "55"',
        'google: "56"',
        [
            "project-for-nobody projects.acme-nightly-*: may be uploaded to by no member who can start a run that publishes it",
            "publisher-for-nobody publishers.nightly: is for the account 55 alone, which is no member with a right to its projects",
        ],
    ),
    (
        'machine: true, google: "55"',
        'google: "55"',
        [
            "project-for-nobody projects.acme-nightly-*: may be uploaded to by no member who can start a run that publishes it",
            "publisher-for-nobody publishers.nightly: matches only runs without a human, and no member with a right to its projects is a machine there",
        ],
    ),
    (
        "    workflow: release.yml\n",
        "    workflow: release.yml\n    events: [schedule]\n",
        [
            "project-for-nobody projects.acme-widgets: may be uploaded to by no member who can start a run that publishes it",
            "publisher-for-nobody publishers.release: matches only runs without a human, and no member with a right to its projects is a machine there",
        ],
    ),
    # project-for-nobody
    (
        "projects:\n  acme-widgets",
        "projects:\n  acme-gizmo: {upload: [bob]}\n  acme-widgets",
        ["project-for-nobody projects.acme-gizmo: is published by no publisher"],
    ),
    ("acme-widgets: {upload: [bob]}", "acme-*: {upload: [bob]}", []),
    # what only reads
    ("publishers:\n", "publishers:\n" + READS, []),
    # download-for-nobody
    ("acme-widgets: {upload: [bob]}", "acme-widgets: {upload: [bob], download: [bob]}", []),
    ("acme-nightly-*: {upload", "acme-*: {download: [bob]}\n  acme-nightly-*: {upload", []),
    (
        "acme-nightly-*: {upload",
        "acme-lib: {download: [bob]}\n  acme-nightly-*: {upload",
        ["download-for-nobody projects.acme-lib.download: is of what no publisher publishes or reads"],
    ),
    (
        "acme-widgets: {upload: [bob]}",
        "acme-widgets: {upload: [bob], download: [robot]}",
        [
            "download-for-nobody projects.acme-widgets.download: names nobody who can start a run of a publisher that reads it"
        ],
    ),
    (
        "acme-widgets: {upload: [bob]}",
        "acme-widgets: {upload: [bob], download: [carol]}",
        [
            "download-for-nobody projects.acme-widgets.download: names nobody who can start a run of a publisher that reads it"
        ],
    ),
    (
        "    projects: [acme-nightly-*]",
        "    projects: [acme-nightly-*]\n    downloads: [acme-nightly-x, acme-widgets]",
        [
            "download-for-nobody publishers.nightly.downloads[1]: reads acme-widgets, which no member who can start its runs may read"
        ],
    ),
    # expires-soon, expired
    ('"1002"}', '"1002", until: 2027-01-01}', ["expires-soon members.bob.until: ends today, on 2027-01-01"]),
    ('"1002"}', '"1002", until: 2027-01-02}', ["expires-soon members.bob.until: ends tomorrow, on 2027-01-02"]),
    ('"1002"}', '"1002", until: 2027-01-31}', ["expires-soon members.bob.until: ends in 30 days, on 2027-01-31"]),
    ('"1002"}', '"1002", until: 2027-02-01}', []),
    (
        '"1002"}',
        '"1002", until: 2026-12-31}',
        ["expired members.bob.until: was declared until 2026-12-31, which is past"],
    ),
    (
        "    workflow: release.yml\n",
        "    workflow: release.yml\n    until: 2026-12-31\n",
        [
            "project-for-nobody projects.acme-widgets: is published by no publisher",
            "expired publishers.release.until: was declared until 2026-12-31, which is past",
        ],
    ),
]


@pytest.mark.parametrize(("old", "new", "warnings"), ROWS)
def test_a_weakness_is_told_where_it_is(tmp_path: Path, old: str, new: str, warnings: list[str]) -> None:
    assert ACME.count(old) == 1
    assert brief(told(tmp_path, ACME.replace(old, new))) == warnings


def without(text: str, *lines: str) -> str:
    for line in lines:
        assert text.count(line) == 1
        text = text.replace(line, "")
    return text


def test_what_no_member_may_upload_to_is_told(tmp_path: Path) -> None:
    """With an owner there is always somebody."""
    text = without(
        ACME,
        '  alice: {role: owner, github: "1001", gitlab: "77"}\n',
        '  dana: {role: owner, github: "1004", gitlab: "80"}\n',
    )
    assert brief(told(tmp_path, text.replace("upload: [bob]", "upload: []"))) == [
        "project-for-nobody projects.acme-widgets: may be uploaded to by no member who can start a run that publishes it",
        "publisher-for-nobody publishers.release: publishes what no member may upload to",
    ]


OWNERLESS = without(
    ACME,
    '  alice: {role: owner, github: "1001", gitlab: "77"}\n',
    '  dana: {role: owner, github: "1004", gitlab: "80"}\n',
)
READ = OWNERLESS.replace("projects:\n  acme-w", "projects:\n  acme-lib: {download: [bob]}\n  acme-w")
READ = READ.replace("publishers:\n", "publishers:\n" + READS)


@pytest.mark.parametrize(
    ("old", "new", "warnings"),
    [
        ("acme-widgets", "acme-widgets", []),
        (
            "acme-lib: {download: [bob]}",
            "acme-lib: {download: []}",
            [
                "download-for-nobody projects.acme-lib.download: names nobody who can start a run of a publisher that reads it",
                "publisher-for-nobody publishers.build: reads what no member may read",
            ],
        ),
        (
            "acme-lib: {download: [bob]}",
            "acme-lib: {upload: [bob]}",
            ["project-for-nobody projects.acme-lib: is published by no publisher"],
        ),
        (
            'bob: {role: member, github: "1002"}',
            'bob: {role: member, github: "1002"}\n  eve: {role: member}',
            [],
        ),
        (
            "acme-lib: {download: [bob]}",
            "acme-lib: {download: [bob, robot]}",
            [],
        ),
        (
            "    downloads: [acme-lib]\n",
            "    downloads: [acme-lib, acme-other]\n",
            [
                "download-for-nobody publishers.build.downloads[1]: reads acme-other, which no member who can start its runs may read"
            ],
        ),
    ],
)
def test_what_nobody_can_read_is_told(tmp_path: Path, old: str, new: str, warnings: list[str]) -> None:
    assert brief(told(tmp_path, READ.replace(old, new))) == warnings


def test_a_reader_without_an_id_where_runs_read_is_told(tmp_path: Path) -> None:
    """But not one who could read by a publisher that is there to publish."""
    text = READ.replace("  robot: {", "  eve: {role: member}\n  robot: {")
    (one,) = told(tmp_path, text.replace("download: [bob]", "download: [bob, eve]"))
    assert (one.code, one.path) == ("member-without-id", "members.eve")
    assert (
        told(
            tmp_path,
            text.replace("acme-widgets: {upload: [bob]}", "acme-widgets: {upload: [bob], download: [bob, eve]}"),
        )
        == []
    )


def test_an_issuer_where_nobody_has_an_id_is_told(tmp_path: Path) -> None:
    text = without(ACME, ', gitlab: "77"', ', gitlab: "80"').replace("publishers:\n", "publishers:\n" + GITLAB)
    assert brief(told(tmp_path, text)) == [
        "member-without-id members.alice: has no id at 'gitlab', where publishers of their projects are",
        "member-without-id members.dana: has no id at 'gitlab', where publishers of their projects are",
        "publisher-for-nobody publishers.gitlab-release: asks for a member with an id at 'gitlab', and none with a right to its projects has one",
    ]


def test_a_schedule_of_a_gitlab_pipeline_asks_for_a_machine(tmp_path: Path) -> None:
    scheduled = GITLAB.replace("    pin:", "    pipeline_sources: [schedule]\n    pin:")
    text = ACME.replace("publishers:\n", "publishers:\n" + scheduled)
    (one,) = told(tmp_path, text)
    assert (one.code, one.path) == ("publisher-for-nobody", "publishers.gitlab-release")
    assert one.what.startswith("matches only runs without a human")


def test_a_machine_that_has_no_id_anywhere_is_told_all_places(tmp_path: Path) -> None:
    text = ACME.replace(', google: "55"', "").replace("upload: [bob]", "upload: [bob, robot]")
    (first,) = [one for one in told(tmp_path, text) if one.code == "member-without-id"]
    assert (first.path, first.what) == (
        "members.robot",
        "has no id at 'github' or 'google', where publishers of their projects are",
    )


def test_each_has_its_line_and_the_remedy_of_its_kind(tmp_path: Path) -> None:
    text = ACME.replace('"1002"}', '"1002", until: 2027-01-02}').replace("    environment: pypi\n", "")
    found = told(tmp_path, text)
    lines = text.splitlines()
    assert [(one.file, lines[one.line - 1].strip()[:8]) for one in found] == [
        ("organizations/acme.yaml", "bob: {ro"),
        ("organizations/acme.yaml", "release:"),
    ]
    assert {one.remedy for one in found} <= {weakness.remedy for weakness in WEAKNESSES}
    assert str(found[1]) == "organizations/acme.yaml:13: publishers.release: names no environment (no-environment)"


def test_a_file_that_went_meanwhile_costs_only_the_lines(tmp_path: Path) -> None:
    write(tmp_path, {"index.yaml": INDEX, "organizations/acme.yaml": ACME.replace("    environment: pypi\n", "")})
    policies = load(tmp_path)
    (tmp_path / "organizations" / "acme.yaml").unlink()
    (one,) = find_warnings(policies, read_sources(tmp_path), TODAY)
    assert (one.code, one.line) == ("no-environment", 1)


def test_a_file_that_is_broken_meanwhile_is_no_source(tmp_path: Path) -> None:
    write(tmp_path, {"index.yaml": INDEX, "organizations/acme.yaml": "- a\n"})
    (tmp_path / "organizations" / "globex.yaml").symlink_to("nowhere")
    assert read_sources(tmp_path).keys() == {"index.yaml"}


@pytest.mark.parametrize("kind", CLAIMS)
def test_every_provider_says_for_whom_its_publishers_are(kind: Any) -> None:
    """Else a publisher that only machines satisfy would be told of nobody."""
    run = identity(kind)
    assert trust(kind).machines_only() is run.unattended
    assert trust(kind).only_actor() in {None, run.actor_id}


class Silent(Trust):
    """Of a provider that says nothing of who starts runs."""

    rules = ()


def test_a_provider_that_says_nothing_is_for_people_and_for_any_actor() -> None:
    assert Silent(issuer="x").machines_only() is False
    assert Silent(issuer="x").only_actor() is None


def test_codes_are_stable_words_and_each_kind_is_described() -> None:
    codes = [weakness.code for weakness in WEAKNESSES]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code for code in codes)
    assert all(weakness.about.endswith(".") and weakness.remedy.endswith(".") for weakness in WEAKNESSES)
    in_policies = set(codes) - {UNKNOWN_ORGANIZATION.code}
    assert {code for _, _, warnings in ROWS for code in (one.split(" ")[0] for one in warnings)} == in_policies


def test_a_schedule_of_forgejo_asks_for_a_machine() -> None:
    assert trust("forgejo", events=("schedule",)).machines_only()
