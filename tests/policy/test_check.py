"""`broker check`: what it prints, and its exit status."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from broker.cli.check import register
from broker.cli.check_report import _escaped
from broker.policy.errors import Findings, PolicyErrors
from broker.policy.files import load
from tests.fakes import NOW
from tests.policy.example import FILES, changed, write


def checked(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="broker")
    register(parser.add_subparsers(required=True))
    args = parser.parse_args(["check", *arguments])
    status: int = args.run(args, lambda: NOW)
    return status


def test_policies_that_load_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(str(write(tmp_path))) == 0
    generation = load(tmp_path).generation
    summary = f"policies OK: 2 organizations, 2 publishers, generation {generation}\n5 warnings\n"
    assert capsys.readouterr().out.endswith(summary)


def test_one_is_not_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {name: text for name, text in FILES.items() if "globex" not in name})
    assert checked(str(tmp_path)) == 0
    assert "\npolicies OK: 1 organization, 1 publisher, " in capsys.readouterr().out


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


REGISTRIES = """\
registries:
  main: {path: /legacy/, audience: acme-index, url: "http://127.0.0.1:8080/", password_file: nowhere, username: x}
  team:
    path: /team/legacy/
    audience: acme-team
    url: http://127.0.0.1:8081/
    organizations: [globex, acmee, nobody]
"""


def test_an_organization_of_a_registry_that_the_policies_do_not_have_is_told_at_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = write(tmp_path / "policies"), tmp_path / "registries.yaml"
    file.write_text(REGISTRIES)
    assert checked(str(folder), "--registries", str(file)) == 0
    told = capsys.readouterr().out.replace(str(tmp_path), "TOP")
    place = "registries.team.organizations"
    assert (
        f"""\
TOP/registries.yaml:7: {place}[1]: names an organization that the policies do not have: 'acmee' (unknown-organization)
    Did you mean 'acme'?
TOP/registries.yaml:7: {place}[2]: names an organization that the policies do not have: 'nobody' (unknown-organization)
    Correct the name, or add the organization's file.
policies OK: """
        in told
    )
    assert told.endswith("\n7 warnings\n")
    allowed = [word for code in json_codes(folder, capsys) - {"unknown-organization"} for word in ("--allow", code)]
    assert checked(str(folder), "--registries", str(file), "--strict", *allowed) == 1
    assert checked(str(folder), "--registries", str(file), "--strict", *allowed, "--allow", "unknown-organization") == 0


def json_codes(folder: Path, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Of the warnings that the policies have."""
    capsys.readouterr()
    checked(str(folder), "--format", "json")
    return {one["code"] for one in json.loads(capsys.readouterr().out)["warnings"]}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[globex, ", "[Globex, ", ":7: registries.team.organizations[0]: has a name that is none here: 'Globex'"),
        ("registries:", "registry:", ":1: registries: is missing"),
        ("registries:", "registries: [", ":3: is not YAML"),
    ],
)
def test_a_mistake_in_the_registries_file_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, told: str
) -> None:
    folder, file = write(tmp_path / "policies"), tmp_path / "registries.yaml"
    file.write_text(REGISTRIES.replace(old, new))
    assert checked(str(folder), "--registries", str(file)) == 1
    text = capsys.readouterr().out
    assert f"{file}{told}" in text
    assert " in the registries' file.\n" in text
    assert "policies OK" in text
    assert checked(str(folder), "--registries", str(file), "--format", "json") == 1
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert {(tmp_path / "policies" / one["file"]).name for one in errors} == {"registries.yaml"}


def test_a_registries_file_that_is_not_there_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path)
    assert checked(str(folder), "--registries", str(folder / "no.yaml")) == 1
    assert f"{folder}/no.yaml: cannot be read (No such file or directory)\n    Name the" in capsys.readouterr().out


def test_loopback_issuers_are_checked_as_in_development(tmp_path: Path) -> None:
    files = changed("index.yaml", "url: https://gitlab.acme.example", "url: http://127.0.0.1:8080")
    folder = str(write(tmp_path, files))
    assert checked(folder) == 1
    assert checked(folder, "--allow-loopback-issuers") == 0


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("--what", "a"), ("a", "--today", "x"), ("a", "--allow", "x")])
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


def folder_with(folder: Path, old: str = "", new: str = "", **files: str) -> Path:
    """The example under `policies/`, with one text of acme's changed, and files of test cases."""
    text = FILES["organizations/acme.yaml"]
    assert not old or text.count(old) == 1
    cases = {f"tests/{name}.yaml": content for name, content in files.items()}
    return write(folder / "policies", {**FILES, "organizations/acme.yaml": text.replace(old, new), **cases})


CASE = "cases:\n  good: {template: github, allow: [acme-widgets]}\n"
FAILING = CASE + '  "is 100%: new, or\xe9": {template: github, changes: {environment: x}, allow: [acme-widgets]}\n'


@pytest.fixture(name="here")
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_warnings_are_told_with_code_and_remedy_and_do_not_fail(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_with(here, "    environment: pypi\n", "")
    assert checked("policies") == 0
    out = capsys.readouterr().out
    assert (
        """\
policies/organizations/acme.yaml:14: publishers.widgets-release: names no environment (no-environment)
    Add `environment`, and protect it at the provider.
"""
        in out
    )
    assert out.endswith("\n6 warnings\n")


def test_strict_makes_warnings_fail_but_for_those_that_are_allowed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with(here)
    assert checked("policies", "--strict") == 1
    codes = {line.rpartition("(")[2][:-1] for line in capsys.readouterr().out.splitlines() if line.endswith(")")}
    allowed = [argument for code in codes for argument in ("--allow", code)]
    assert codes == {"owner-alone", "member-without-id", "no-environment", "expires-soon"}
    assert checked("policies", "--strict", *allowed) == 0
    assert checked("policies", "--strict", *allowed[2:]) == 1


def test_the_day_can_be_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = CASE.replace("{template: github,", '{template: github, changes: {actor_id: "1002"},')
    folder_with(here, acme=cases)
    assert checked("policies", "--today", "2027-01-31") == 0
    assert "ends today" in capsys.readouterr().out
    assert checked("policies", "--today", "2027-02-01") == 1
    out = capsys.readouterr().out
    assert "which is past (expired)" in out
    assert "came member-expired" in out


def test_cases_are_counted_and_those_that_fail_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_with(here, acme=CASE)
    assert checked("policies") == 0
    assert "\ncases OK: 1\n" in capsys.readouterr().out
    folder_with(here, acme=FAILING)
    assert checked("policies") == 1
    out = capsys.readouterr().out
    assert out.startswith(
        """\
policies/tests/acme.yaml:3: cases."is 100%: new, or\\u00e9": expected the grant acme-widgets, came no-publisher: \
no publisher fits repository 'acme-corp/widgets' of issuer 'github'
    Nearest is acme/widgets-release: environment is 'x', expected 'pypi'.
"""
    )
    assert "\ncases FAILED: 1 of 2\n" in out


def test_mistakes_in_cases_fail_though_the_policies_load(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_with(here, acme=CASE.replace("allow", "allows"), globex=CASE)
    assert checked("policies") == 1
    out = capsys.readouterr().out
    assert "policies/tests/acme.yaml:2: cases.good.allows: is no field here\n    Did you mean 'allow'?\n" in out
    assert "\npolicies OK: 2 organizations" in out
    assert "\n2 mistakes in 1 file of test cases: not tried.\ncases OK: 1\n" in out


def test_mistakes_in_policies_and_in_cases_are_told_together(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_with(here, "workflow: release.yml", "workflow: 5", acme=CASE.replace("allow", "allows"))
    assert checked("policies") == 1
    out = capsys.readouterr().out
    assert "policies/organizations/acme.yaml:19: publishers.widgets-release.workflow: must be text" in out
    assert "policies/tests/acme.yaml:2: cases.good.allows: is no field here" in out
    assert out.endswith("3 mistakes in 2 files: none of the policies is loaded.\n")


def test_json_says_it_all(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_with(here, acme=FAILING, broken="cases: {}\n")
    assert checked(str(here / "policies"), "--format", "json") == 1
    told = json.loads(capsys.readouterr().out)
    assert {name: told[name] for name in ("version", "ok", "folder", "organizations", "publishers")} == {
        "version": 1,
        "ok": False,
        "folder": "policies",
        "organizations": 2,
        "publishers": 2,
    }
    assert told["generation"] == load(here / "policies").generation
    assert told["errors"] == [
        {
            "file": "policies/tests/broken.yaml",
            "line": 1,
            "path": "cases",
            "what": "must not be empty",
            "remedy": "Each named by a sentence that says what it promises.",
        }
    ]
    assert told["warnings"][0] == {
        "file": "policies/organizations/acme.yaml",
        "line": 4,
        "path": "members.alice",
        "code": "owner-alone",
        "what": "is the only owner",
        "remedy": "Make a second member an owner.",
    }
    assert told["cases"] == {
        "passed": 1,
        "failed": [
            {
                "file": "policies/tests/acme.yaml",
                "line": 3,
                "path": 'cases."is 100%: new, or\\u00e9"',
                "case": "is 100%: new, or\xe9",
                "expected": "the grant acme-widgets",
                "came": "no-publisher",
                "detail": "no publisher fits repository 'acme-corp/widgets' of issuer 'github'",
                "nearest": "acme/widgets-release: environment is 'x', expected 'pypi'",
            }
        ],
    }


@pytest.mark.usefixtures("here")
def test_json_of_what_does_not_load_has_no_generation(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked("nothing", "--format", "json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["generation"], told["organizations"], told["publishers"]) == (False, None, 0, 0)
    assert [(one["file"], one["line"], one["what"]) for one in told["errors"]] == [("nothing", 0, "is no folder")]


def test_json_of_warnings_under_strict_is_not_ok(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_with(here)
    assert checked("policies", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert checked("policies", "--format", "json", "--strict") == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_github_s_annotations_land_on_the_file_from_the_working_directory(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with(here, acme=FAILING)
    assert checked(str(here / "policies"), "--format", "github") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "::error file=policies/tests/acme.yaml,line=3,title=Test case%3A 'is 100%25%3A new%2C or\\xe9'::"
        'cases."is 100%25: new, or\\u00e9": expected the grant acme-widgets, came no-publisher: no publisher fits '
        "repository 'acme-corp/widgets' of issuer 'github'. Nearest is acme/widgets-release: environment is 'x', "
        "expected 'pypi'."
    )
    assert lines[1] == (
        "::warning file=policies/organizations/acme.yaml,line=4,title=Weak policy%3A owner-alone::"
        "members.alice: is the only owner. Make a second member an owner."
    )
    assert [line[:9] for line in lines[1:-3]] == ["::warning"] * 5
    assert [line.split(":")[0] for line in lines[-3:]] == ["policies OK", "cases FAILED", "5 warnings"]


def test_github_s_annotations_of_mistakes_have_a_line_always(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_with(here, "workflow: release.yml", "workflow: 5")
    (here / "policies" / "organizations" / "a,b:100%.yml").write_text("")
    assert checked("policies", "--format", "github") == 1
    yml, acme, summary = capsys.readouterr().out.splitlines()
    assert yml == (
        "::error file=policies/organizations/a%2Cb%3A100%25.yml,line=1,title=Policy mistake::"
        "is not read: its name does not end in .yaml. Rename it, or remove it."
    )
    assert acme == (
        "::error file=policies/organizations/acme.yaml,line=19,title=Policy mistake::"
        'publishers.widgets-release.workflow: must be text, and is a number (5). Write "5" in quotes.'
    )
    assert summary == "2 mistakes: the policies do not load."


def test_nothing_can_pose_as_a_workflow_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that begins with `::` would be one, whoever wrote it."""
    name = "a\n::warning::x\r\n.yml"
    folder_with(here)
    (here / "policies" / "organizations" / name).write_text("")
    for form in ("github", "text"):
        assert checked("policies", "--format", form) == 1
        out = capsys.readouterr().out
        assert [line for line in out.splitlines() if line.startswith("::warning")] == []
    assert _escaped("a\r\n%,:", ",", ":") == "a%0D%0A%25%2C%3A"
