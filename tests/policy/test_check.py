"""`broker check`: what it prints, and its exit status."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from broker.cli.check import register
from broker.policy.errors import Findings, PolicyErrors
from broker.policy.files import load
from tests.policy.example import FILES, changed, write


def checked(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="broker")
    register(parser.add_subparsers(required=True))
    args = parser.parse_args(["check", *arguments])
    status: int = args.run(args)
    return status


def test_policies_that_load_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(str(write(tmp_path))) == 0
    generation = load(tmp_path).generation
    assert capsys.readouterr().out == f"policies OK: 2 organizations, 2 publishers, generation {generation}\n"


def test_one_is_not_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {name: text for name, text in FILES.items() if "globex" not in name})
    assert checked(str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith("policies OK: 1 organization, 1 publisher, ")


def test_mistakes_are_told_with_their_remedies_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = changed("organizations/acme.yaml", "    workflow: release.yml\n", "")
    files["organizations/acme.yaml"] = files["organizations/acme.yaml"].replace("alice, bob]", "alice, bobb]")
    files["index.yaml"] = files["index.yaml"].replace("google:", "gogle:", 1)
    del files["organizations/globex.yaml"]
    assert checked(str(write(tmp_path, files))) == 1
    assert (
        capsys.readouterr().out.replace(str(tmp_path), "DIR")
        == """\
DIR/organizations/acme.yaml:7: members.release-bot.google: is no field here, and no issuer in index.yaml: 'google'
    Did you mean 'gogle'?
DIR/organizations/acme.yaml:9: teams.core[1]: names a member that is not there: 'bobb'
    Did you mean 'bob'?
DIR/organizations/acme.yaml:14: publishers.widgets-release.workflow: is missing
    Add it. The file name in .github/workflows, such as release.yml.
3 mistakes in 1 file: none of the policies is loaded.
"""
    )


def test_loopback_issuers_are_checked_as_in_development(tmp_path: Path) -> None:
    files = changed("index.yaml", "url: https://gitlab.acme.example", "url: http://127.0.0.1:8080")
    folder = str(write(tmp_path, files))
    assert checked(folder) == 1
    assert checked(folder, "--allow-loopback-issuers") == 0


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("--what", "a")])
def test_wrong_usage_is_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        checked(*arguments)
    assert caught.value.code == 2
    assert "usage: broker" in capsys.readouterr().err


def test_a_folder_is_named_as_the_reader_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that a terminal or an editor can open it."""
    write(tmp_path / "policies", changed("organizations/acme.yaml", "workflow: release.yml", "workflow: 5"))
    monkeypatch.chdir(tmp_path)
    assert checked("policies/") == 1
    assert capsys.readouterr().out.startswith(
        "policies/organizations/acme.yaml:19: publishers.widgets-release.workflow: "
    )


def test_where_little_fits_the_others_are_counted(tmp_path: Path) -> None:
    """As when `serve` cannot start."""
    findings = Findings(file="index.yaml")
    for number in range(30):
        findings.add((f"f{number}",), "is no field here", "Remove it.", line=number + 1)
    mistakes = PolicyErrors(tmp_path, findings.errors)
    lines = mistakes.explained(most=3).splitlines()
    assert len(lines) == 8
    assert lines[-2:] == [
        f"... and 27 more: `broker check {tmp_path}`",
        "30 mistakes in 1 file: none of the policies is loaded.",
    ]
    assert len(mistakes.explained().splitlines()) == 61


def test_nothing_in_a_file_name_reaches_the_terminal_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    (tmp_path / "organizations" / "a\x1b[2J\n\udcff.yaml").write_bytes(b"organization: x\n")
    assert checked(str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"organizations/a\x1b[2J\n\udcff.yaml: is not called as an organization can be" in out


def test_suggestions_end_where_a_file_has_nothing_but_mistakes(tmp_path: Path) -> None:
    """Each is a search through all names: a hostile file would make it slow."""
    members = "".join(f"  m{n}: {{role: member}}\n" for n in range(200))
    text = f"organization: acme\nmembers:\n{members}teams:\n  core: [{', '.join(f'mm{n}' for n in range(200))}]\n"
    with pytest.raises(PolicyErrors) as caught:
        load(write(tmp_path, {**FILES, "organizations/acme.yaml": text}))
    assert len(caught.value.errors) == 200
    assert sum("Did you mean" in error.remedy for error in caught.value.errors) == 50
