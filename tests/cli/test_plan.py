"""`broker plan`: from folders and git revisions to what is printed, and the exit status."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from broker.cli import main
from broker.cli.revisions import RevisionError, extracted
from broker.policy import globs
from broker.policy.files import load
from tests.policy.example import changed, write

ACME = "organizations/acme.yaml"
FILES = changed(ACME, ", until: 2027-01-31", "")
"""Whatever the day is, these mean the same."""
WIDER = {**FILES, ACME: FILES[ACME].replace("    environment: pypi\n", "")}


def git(folder: Path, *arguments: str, told: str = "") -> str:
    """Runs git as nobody in particular."""
    settings = ("-c", "user.name=a", "-c", "user.email=a@acme.example", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(command, input=told, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose first commit has the example, and whose second, and its working tree, a wider one."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for files in (FILES, WIDER):
        write(tmp_path / "policies", files)
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "--quiet", "-m", "policies")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_widened_is_told_by_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = str(write(tmp_path / "old", FILES)), str(write(tmp_path / "new", WIDER))
    assert main(["plan", old, new]) == 3
    out = capsys.readouterr().out
    assert out.startswith(
        "Access is widened: 1 gained, 0 lost, 0 settings.\nacme\n- alice (owner) and bob (member) can now"
    )
    assert "any environment but pypi" in out
    assert main(["plan", new, old]) == 0
    assert capsys.readouterr().out.startswith("Access is not widened: 0 gained, 1 lost, 0 settings.\n")
    assert main(["plan", old, old]) == 0
    assert capsys.readouterr().out == "No run of any job is decided otherwise.\n"
    assert main(["plan", old, new, "--widening-is-fine"]) == 0


def test_markdown_is_for_a_comment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = FILES["index.yaml"].replace("provider: github}", "provider: github, replay: same-token}")
    new = write(tmp_path / "new", {**FILES, "index.yaml": index})
    assert main(["plan", str(write(tmp_path / "old", FILES)), str(new), "--format", "markdown"]) == 3
    assert capsys.readouterr().out == (
        "### Access is widened: 0 gained, 0 lost, 1 setting.\n\n\n### Settings\n\n"
        "- `index.yaml: issuers.github.replay`: strict → same-token (wider)\n"
    )


def test_json_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = write(tmp_path / "old", FILES), write(tmp_path / "new", WIDER)
    assert main(["plan", str(old), str(new), "--format", "json"]) == 3
    told = json.loads(capsys.readouterr().out)
    (change,) = told["changes"]
    assert (told["version"], told["old"], told["new"]) == (1, load(old).generation, load(new).generation)
    assert (told["widened"], told["settings"]) == (True, [])
    assert (change["scopes"], change["example"]["scope"]) == (["upload", "read"], "upload")
    assert (change["effect"], change["organization"], change["publisher"]) == ("gained", "acme", "widgets-release")
    assert [(one["name"], one["id"]) for one in change["members"]] == [("alice", "1001"), ("bob", "1002")]
    assert {"field": "environment", "any_of": [], "none_of": ["pypi"], "narrowed": True} in change["conditions"]
    assert "environment" not in change["example"]["identity"]
    assert change["periods"] == []
    assert change["example"]["at"].endswith("+00:00")


def test_a_last_day_is_a_period(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Far enough away that it is still to come."""
    limited = {**FILES, ACME: FILES[ACME].replace("role: owner,", "role: owner, until: 9000-01-31,")}
    main(["plan", str(write(tmp_path / "old", FILES)), str(write(tmp_path / "new", limited)), "--format", "json"])
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change["periods"] == [{"from": "9000-02-01T00:00:00+00:00", "until": None}]


def test_policies_that_do_not_load_are_told_as_check_tells_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = write(tmp_path / "new", changed(ACME, "    workflow: release.yml\n", ""))
    assert main(["plan", str(write(tmp_path / "old", FILES)), str(broken)]) == 1
    out = capsys.readouterr().out
    assert f"{broken}/organizations/acme.yaml:14: publishers.widgets-release.workflow: is missing" in out
    assert "1 mistake in 1 file: none of the policies is loaded." in out


def test_what_cannot_be_told_apart_within_bounds_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never a plan that says nothing."""
    monkeypatch.setattr(globs, "MOST_STATES", 0)
    assert main(["plan", str(write(tmp_path / "old", FILES)), str(write(tmp_path / "new", WIDER))]) == 1
    assert capsys.readouterr().err == "broker plan: the refs of one repository have too many globs: 1.\n"


@pytest.mark.parametrize(
    "arguments",
    [["a"], ["a", "b", "c"], ["--git", "a"], ["--git", "a", "b", "c", "d"], [], ["a", "b", "--format", "x"]],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", *arguments])
    assert caught.value.code == 2
    assert "usage: broker plan" in capsys.readouterr().err


# --- Git -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--git", "HEAD~1", "HEAD", "policies"],
        ["--git", "HEAD~1", "policies"],
        ["--git", "HEAD~1", "main", "./policies/"],
        ["HEAD~1:policies", "policies"],
        ["HEAD~1:policies", "HEAD:policies"],
    ],
)
def test_revisions_of_a_folder_are_compared(repository: Path, arguments: list[str]) -> None:
    assert (repository / "policies").is_dir()
    assert main(["plan", *arguments]) == 3
    assert main(["plan", "--git", "HEAD", "policies"]) == 0


def test_a_folder_is_found_from_within_the_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "policies")
    assert main(["plan", "--git", "HEAD~1", "."]) == 3
    monkeypatch.chdir(repository / "policies" / "organizations")
    assert main(["plan", "--git", "HEAD~1", ".."]) == 3
    assert main(["plan", "--git", "HEAD~1", str(repository / "policies")]) == 3


def test_a_folder_that_was_moved_is_found_in_its_old_revision(repository: Path) -> None:
    (repository / "policies").rename(repository / "rules")
    assert main(["plan", "HEAD~1:policies", "rules"]) == 3


def test_policies_may_be_the_whole_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(write(tmp_path, FILES), "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "policies")
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--git", "HEAD", "."]) == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--git", "nowhere", "policies"], "'nowhere' is no revision here"),
        (["--git", "HEAD", "nothing"], "'HEAD' has no folder 'nothing'"),
        (["--git", "--", "-x", "policies"], "'-x' is no revision"),
        (["--git", "", "policies"], "'' is no revision"),
    ],
)
@pytest.mark.usefixtures("repository")
def test_what_git_does_not_have_is_explained(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) == 1
    assert capsys.readouterr().err == f"broker plan: {why}.\n"


def test_mistakes_in_a_revision_are_told_by_its_name(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "policies" / ACME).write_text("organization: acme\nx: 1\n", encoding="utf-8")
    git(repository, "commit", "--quiet", "-a", "-m", "broken")
    assert main(["plan", "--git", "HEAD", "policies"]) == 1
    assert capsys.readouterr().out.startswith("HEAD:policies/organizations/acme.yaml:2: x: is no field here")


def test_without_a_repository_or_git_it_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert main(["plan", "--git", "HEAD", "policies"]) == 1
    assert "git says: " in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert main(["plan", "--git", "HEAD", "policies"]) == 1
    assert "there is no git here" in capsys.readouterr().err


def test_attributes_in_the_tree_hide_nothing(repository: Path) -> None:
    """`git archive` would leave the file out, and the organization would seem to be gone, or never to have come."""
    (repository / "policies" / ".gitattributes").write_text("*.yaml export-ignore\n", encoding="utf-8")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "hide")
    assert main(["plan", "--git", "HEAD~2", "HEAD", "policies"]) == 3


def test_links_are_links_again(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = repository / "policies" / "organizations"
    (folder / "acme.yaml").rename(folder / ".acme")
    (folder / "acme.yaml").symlink_to(".acme")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "links")
    assert main(["plan", "--git", "HEAD~1", "HEAD", "policies"]) == 0
    into = extracted("HEAD", "policies", tmp_path_factory.mktemp("into"))
    assert (into / ACME).is_symlink()


def test_a_hostile_tree_writes_nothing_outside(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Git itself makes no such trees; whoever writes objects by hand can."""
    blob = git(repository, "hash-object", "-w", "--stdin", told="x")
    inner = git(repository, "mktree", told=f"100644 blob {blob}\tescaped\n")
    for name in ("..", "fine"):
        tree = git(repository, "mktree", told=f"040000 tree {inner}\t{name}\n")
        outer = git(repository, "mktree", told=f"040000 tree {tree}\tpolicies\n")
        commit = git(repository, "commit-tree", outer, "-m", "hostile")
        into = tmp_path_factory.mktemp("into") / "inside"
        into.mkdir()
        assert extracted(commit, "policies", into) == into
        assert [path.name for path in into.rglob("escaped")] == (["escaped"] if name == "fine" else [])
        assert not (into.parent / "escaped").exists()


def test_a_revision_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RevisionError):
        extracted("--output=x", "policies", tmp_path)
