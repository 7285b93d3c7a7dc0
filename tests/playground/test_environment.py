"""Files to source set what they say, whatever is in the values, and run nothing."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from broker.playground.ci import FakeCI
from broker.playground.environment import script, write_environments


def sourced(path: Path, *names: str, before: str = ":") -> list[str]:
    """The values of variables after sourcing a file."""
    shown = "; ".join(f'printf "%s\\0" "${{{name}-unset}}"' for name in names)
    done = subprocess.run(
        ["sh", "-ec", f". {path}; {shown}" if before == ":" else f"{before}; . {path}; {shown}"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize(
    "value", ["plain", "two words", "$(touch evil)", "`touch evil`", "it's", '"', "a\nb", "; exit"]
)
def test_any_value_survives_and_none_is_run(tmp_path: Path, value: str) -> None:
    path = tmp_path / "environment.sh"
    path.write_text(script("a title", {"VALUE": value}), encoding="utf-8")
    assert sourced(path, "VALUE") == [value]
    assert [entry.name for entry in tmp_path.iterdir()] == ["environment.sh"]


def test_each_file_is_one_run_and_takes_another_one_s_variables_away(tmp_path: Path) -> None:
    write_environments(tmp_path, FakeCI(), {"UV_PUBLISH_URL": "https://127.0.0.1:1/legacy/"})
    names = ("UV_PUBLISH_URL", "GITHUB_ACTIONS", "GITLAB_CI", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    first = f". {tmp_path}/environment.sh"
    url, github, gitlab, _ = sourced(tmp_path / "environment.sh", *names)
    assert (url, github, gitlab) == ("https://127.0.0.1:1/legacy/", "true", "unset")
    after = sourced(tmp_path / "runs" / "gitlab.sh", *names, before=first)
    assert after == ["https://127.0.0.1:1/legacy/", "unset", "true", "unset"]


def test_the_files_hold_tokens_and_are_their_owner_s_alone(tmp_path: Path) -> None:
    write_environments(tmp_path, FakeCI(), {})
    files = list(tmp_path.rglob("*.sh"))
    assert len(files) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
