"""Issuers of the kinds that need more than a name: a URL of a certain form, or claims that the operator declares."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.policy.errors import PolicyError, PolicyErrors
from broker.policy.files import load
from broker.policy.model import Policies
from broker.providers import PROVIDERS
from broker.providers.generic import GenericTrust
from tests.policy.example import line_of, write

UUID = "0184990a-4782-42b5-afc1-16715b10b8f2"

INDEX = """\
issuers:
  github: {provider: github}
  buildkite: {provider: buildkite}
  circleci: {provider: circleci, url: "https://oidc.circleci.com/org/3c0a1f9e-6b5d-4e2c-8f7a-1d2e3f4a5b6c"}
  codeberg: {provider: forgejo, url: https://codeberg.org/api/actions}
  jenkins:
    provider: generic
    url: https://jenkins.acme.example/oidc
    claims:
      name: job
      ids: [job_id]
      conditions: [branch]
      actor: user_id
"""

ACME = f"""\
organization: acme
namespaces: [acme]
members:
  alice: {{role: owner, github: "1001", codeberg: "501"}}
  bot: {{role: member, machine: true, buildkite: {UUID}, jenkins: release-bot@acme.example}}
publishers:
  widgets:
    issuer: jenkins
    claims: {{job: acme/widgets, job_id: "17", branch: main}}
    projects: [acme-widgets]
"""


def loaded(folder: Path, index: str = INDEX, acme: str = ACME) -> Policies:
    return load(write(folder, {"index.yaml": index, "organizations/acme.yaml": acme}))


def mistakes(folder: Path, index: str = INDEX, acme: str = ACME) -> tuple[PolicyError, ...]:
    with pytest.raises(PolicyErrors) as caught:
        loaded(folder, index, acme)
    return tuple(caught.value.errors)


def test_they_load(tmp_path: Path) -> None:
    policies = loaded(tmp_path)
    acme = policies.organizations["acme"]
    trust = acme.publishers["widgets"].trust
    assert isinstance(trust, GenericTrust)
    assert trust.claims == {"job": "acme/widgets", "job_id": "17", "branch": "main"}
    assert policies.publishers_by_name["jenkins", "acme/widgets"] == (acme.publishers["widgets"],)
    assert acme.owner_ids == {("jenkins", "17")}
    assert acme.member_by_id["jenkins", "release-bot@acme.example"] is acme.member_by_id["buildkite", UUID]
    jenkins = policies.issuers["jenkins"]
    assert jenkins.provider.name == "generic"
    assert (jenkins.provider.trust, jenkins.provider is PROVIDERS["generic"]) == (type(trust), False)


IN_INDEX = [
    (
        "url: https://codeberg.org/api/actions",
        "url: https://codeberg.org",
        "issuers.codeberg.url",
        "no forgejo issuer's URL: 'https://codeberg.org'",
        "https://codeberg.org/api/actions",
    ),
    (
        "url: https://codeberg.org/api/actions",
        "url: https://codeberg.org/api/actions/",
        "issuers.codeberg.url",
        "cannot be an issuer's URL",
        "without the `/` at the end",
    ),
    (
        "url: https://codeberg.org/api/actions",
        "disabled: false",
        "issuers.codeberg.url",
        "is missing",
        "https://codeberg.org/api/actions",
    ),
    ("3c0a1f9e-6b5d", "3C0A1F9E-6B5D", "issuers.circleci.url", "no circleci issuer's URL", "org/<organization id>"),
    (
        "https://oidc.circleci.com/org/3c0a1f9e-6b5d-4e2c-8f7a-1d2e3f4a5b6c",
        "https://oidc.circleci.com",
        "issuers.circleci.url",
        "no circleci issuer's URL",
        "org/<organization id>",
    ),
    (
        'url: "https://oidc.circleci.com/org/3c0a1f9e-6b5d-4e2c-8f7a-1d2e3f4a5b6c"',
        "disabled: true",
        "issuers.circleci.url",
        "is missing",
        "https://oidc.circleci.com/org/<organization id>.",
    ),
    (
        "    url: https://jenkins.acme.example/oidc\n",
        "",
        "issuers.jenkins.url",
        "is missing",
        "Each operator has their own generic: write its URL.",
    ),
    (
        "provider: buildkite",
        "provider: buildkite, claims: {name: x}",
        "issuers.buildkite.claims",
        "nothing to declare",
        "Remove it",
    ),
    ("      ids: [job_id]\n", "", "issuers.jenkins.claims.ids", "is missing", "stay what they are"),
    ("ids: [job_id]", "ids: []", "issuers.jenkins.claims.ids", "must not be empty", "stay what they are"),
    ("ids: [job_id]", "ids: job_id", "issuers.jenkins.claims.ids", "must be a list", "[ before it"),
    ("ids: [job_id]", "ids: [17]", "issuers.jenkins.claims.ids[0]", "must be text", '"17"'),
    (
        "conditions: [branch]",
        "conditions: [branch, job]",
        "issuers.jenkins.claims",
        "declares a claim twice",
        "each once",
    ),
    ("ids: [job_id]", "ids: [jti]", "issuers.jenkins.claims.ids", "jti says nothing of the run", "a claim that does"),
    (
        "      actor: user_id\n",
        "      actor: user_id\n      attended: true\n",
        "issuers.jenkins.claims.attended",
        "is no field here",
        "'unattended'",
    ),
]


@pytest.mark.parametrize("row", IN_INDEX, ids=lambda row: f"{row[2]}-{row[3]}"[:80])
def test_a_mistake_in_the_index_is_told_once(tmp_path: Path, row: tuple[str, ...]) -> None:
    """And nothing is told of the organization's publishers of that issuer, which may well be right."""
    old, new, path, what, remedy = row
    assert INDEX.count(old) == 1
    (error,) = mistakes(tmp_path, index=INDEX.replace(old, new))
    assert (error.file, error.path) == ("index.yaml", path)
    assert what in error.what
    assert remedy in error.remedy


def test_a_generic_issuer_declares_its_claims(tmp_path: Path) -> None:
    (error,) = mistakes(tmp_path, index=INDEX[: INDEX.index("    claims:")])
    assert (error.path, error.what) == ("issuers.jenkins.claims", "is missing")
    assert "does not know the claims of generic" in error.remedy


IN_ACME = [
    (
        "branch: main",
        "brunch: main",
        "brunch",
        "publishers.widgets.claims.brunch",
        "'job', 'job_id' or 'branch', and is the text 'brunch'",
        "one of these",
    ),
    ("job: acme/widgets, ", "", "claims:", "publishers.widgets.claims", "does not bind 'job'", "Add it"),
    (
        'job_id: "17"',
        "job_id: 17",
        "job_id: 17",
        "publishers.widgets.claims.job_id",
        "must be text, and is a number (17)",
        '"17" in quotes',
    ),
    (
        "branch: main",
        "branch: [main]",
        "branch: [main]",
        "publishers.widgets.claims.branch",
        "must be text, and is a list",
        "compared to the letter",
    ),
    (
        ', job_id: "17"',
        "",
        "  widgets:",
        "publishers.widgets",
        "does not state claims.job_id, and a name alone can change hands",
        "pin: first-use",
    ),
    (
        "    projects: [acme-widgets]",
        "    branch: main\n    projects: [acme-widgets]",
        "    branch: main",
        "publishers.widgets.branch",
        "is no field here",
        "claims",
    ),
    (
        f"buildkite: {UUID}",
        f"buildkite: {UUID.upper()}",
        "  bot:",
        "members.bot.buildkite",
        "not the right form",
        "a UUID, in lower case",
    ),
    (
        f"buildkite: {UUID}",
        'buildkite: "1001"',
        "  bot:",
        "members.bot.buildkite",
        "not the right form: the text '1001'",
        "a UUID",
    ),
    (
        'codeberg: "501"',
        f"codeberg: {UUID}",
        "  alice:",
        "members.alice.codeberg",
        "not the right form",
        "a number, in quotes",
    ),
    (
        "jenkins: release-bot@acme.example",
        "jenkins: 7",
        "  bot:",
        "members.bot.jenkins",
        "must be text, and is a number (7)",
        '"7" in quotes',
    ),
    (
        "jenkins: release-bot@acme.example",
        'jenkins: ""',
        "  bot:",
        "members.bot.jenkins",
        "must not be empty",
        "what the issuer's tokens say",
    ),
]


@pytest.mark.parametrize("row", IN_ACME, ids=lambda row: f"{row[3]}-{row[4]}"[:80])
def test_a_mistake_in_an_organization_is_told_with_its_line(tmp_path: Path, row: tuple[str, ...]) -> None:
    old, new, at, path, what, remedy = row
    assert ACME.count(old) == 1
    acme = ACME.replace(old, new)
    (error,) = mistakes(tmp_path, acme=acme)
    assert (error.file, error.path) == ("organizations/acme.yaml", path)
    assert error.line == line_of(acme, at)
    assert what in error.what
    assert remedy in error.remedy


def test_a_claim_is_bound_to_text_as_it_stands(tmp_path: Path) -> None:
    """`yes` is text in these files, and `true` is not."""
    publishers = loaded(tmp_path, acme=ACME.replace("branch: main", "branch: yes")).organizations["acme"].publishers
    assert publishers["widgets"].trust.stated("claims.branch") == "yes"
    (error,) = mistakes(tmp_path, acme=ACME.replace("branch: main", "branch: true"))
    assert error.what == "must be text, and is a boolean (true)"


def test_ids_may_be_pinned_by_the_first_use(tmp_path: Path) -> None:
    acme = ACME.replace(', job_id: "17"', "").replace("    projects:", "    pin: first-use\n    projects:")
    trust = loaded(tmp_path, acme=acme).organizations["acme"].publishers["widgets"].trust
    assert trust.missing_ids() == ("claims.job_id",)


def test_of_an_issuer_that_cannot_be_read_any_id_may_be_a_members(tmp_path: Path) -> None:
    """What form it has is not known then, and only the mistake itself is told."""
    (error,) = mistakes(tmp_path, index=INDEX.replace("provider: buildkite", "provider: buildkit"))
    assert (error.path, error.remedy) == ("issuers.buildkite.provider", "Did you mean 'buildkite'?")
