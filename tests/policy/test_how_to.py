"""The how-to on writing policies says what is true."""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path

import pytest

from broker.cli.check import register
from broker.policy.files import load
from tests.policy.example import write

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "write-a-policy.md").read_text()
INDEX = "issuers: {github: {provider: github}, gitlab: {provider: gitlab}, google: {provider: google}}\n"
POLICY = "".join(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
"""The page's pieces, one behind the other, are one file."""


OPERATORS = (Path(__file__).parents[2] / "docs" / "how-to" / "run-in-front-of-a-registry.md").read_text()


def checked(folder: str) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(["check", folder, "--today", "2026-12-01"])
    status: int = args.run(args)
    return status


def test_its_policy_loads(tmp_path: Path) -> None:
    policies = load(write(tmp_path, {"index.yaml": INDEX, "organizations/initech.yaml": POLICY}))
    initech = policies.organizations["initech"]
    assert {name: type(one.trust).__name__ for name, one in initech.publishers.items()} == {
        "reports-release": "GitHubTrust",
        "reports-from-gitlab": "GitLabTrust",
        "nightly": "GoogleTrust",
        "reports-tests": "GitHubTrust",
    }


def test_its_mistake_is_told_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = POLICY.replace('"1001"', "1001")
    write(tmp_path / "policies", {"index.yaml": INDEX, "organizations/initech.yaml": policy})
    monkeypatch.chdir(tmp_path)
    assert checked("policies/") == 1
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 3
    assert f"$ broker check policies/\n{told}```" in PAGE


def test_its_answer_for_the_examples_is_what_check_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert checked("policies/") == 0
    told = re.escape(f"$ broker check policies/\n{capsys.readouterr().out}```")
    assert re.search(re.sub("[0-9a-f]{16}", "[0-9a-f]{16}", told), PAGE)


def test_its_defaults_are_the_providers(tmp_path: Path) -> None:
    """What the page says of GitLab where nothing is written."""
    policies = load(write(tmp_path, {"index.yaml": INDEX, "organizations/initech.yaml": POLICY}))
    trust = policies.organizations["initech"].publishers["reports-from-gitlab"].trust.model_dump()
    assert trust["ci_config"] == ".gitlab-ci.yml"
    assert trust["ref_protected"] is True
    assert trust["pipeline_sources"] == ("push", "web")


def test_the_operator_s_index_loads_and_is_what_its_comments_say(tmp_path: Path) -> None:
    [index] = re.findall(r"```yaml\n(.*?)```", OPERATORS, re.DOTALL)
    acme = "organization: acme\nnamespaces: [acme]\n"
    policies = load(write(tmp_path, {"index.yaml": textwrap.dedent(index), "organizations/acme.yaml": acme}))
    assert policies.issuers["google"].organizations is None
    assert policies.issuers["gitlab-acme"].organizations == frozenset({"acme"})
    assert policies.issuers["gitlab-acme"].replay == "strict"
    assert policies.issuers["gitlab-acme"].provider.replay == "same-token"
    more = "disabled: true, longest_token: 1h, algorithms: [RS256]"
    assert all(f"`{one}`" in OPERATORS for one in more.split(", "))
    write(tmp_path, {"index.yaml": f"issuers: {{github: {{provider: github, {more}}}}}\n"})
    assert load(tmp_path).issuers["github"].disabled
