"""uv is the real one, in an environment that holds nothing of the user's."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from broker.playground.packages import Outcome, Uv, UvError


def test_a_package_is_built_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    files = Uv.find(tmp_path / "home").build("acme-widgets", "1.2.3", tmp_path / "package")
    assert sorted(files) == ["acme_widgets-1.2.3-py3-none-any.whl", "acme_widgets-1.2.3.tar.gz"]
    with zipfile.ZipFile(tmp_path / "package" / "dist" / "acme_widgets-1.2.3-py3-none-any.whl") as wheel:
        assert b"Version: 1.2.3" in wheel.read("acme_widgets-1.2.3.dist-info/METADATA")


def test_what_cannot_be_built_is_told_of_with_uv_s_own_words(tmp_path: Path) -> None:
    with pytest.raises(UvError, match=r"(?s)uv build failed:.*not-a-version"):
        Uv.find(tmp_path / "home").build("acme-widgets", "not-a-version", tmp_path / "package")


def test_a_uv_that_hangs_is_given_up(tmp_path: Path) -> None:
    uv = Uv(program=Path(sys.executable), home=tmp_path, seconds=0.5)
    with pytest.raises(UvError, match="did not end"):
        uv.run(["-c", "import time; time.sleep(600)"], tmp_path)


def test_the_user_s_variables_do_not_reach_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_PUBLISH_TOKEN", "the user's")
    shows = "import os; print(os.environ.get('UV_PUBLISH_TOKEN'), os.environ['GIVEN'])"
    outcome = Uv(program=Path(sys.executable), home=tmp_path).run(["-c", shows], tmp_path, {"GIVEN": "yes"})
    assert outcome == Outcome(status=0, output="None yes\n")


def test_without_uv_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UvError, match="make demo"):
        Uv.find(tmp_path)


def test_a_uv_on_the_search_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "uv"
    program.touch(mode=0o755)
    assert Uv.find(tmp_path).program == program


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ('{"errors":[{"code": "no-publisher"}]}', "no-publisher"),
        ("403 Forbidden. Server message: revoked-token: the token", "revoked-token"),
        ("error: 403", ""),
        ("", ""),
    ],
)
def test_a_refusal_s_code_is_read_from_what_uv_printed(output: str, code: str) -> None:
    assert Outcome(status=2, output=output).refusal_code == code


def test_what_a_client_wants_masked_is_not_in_its_output() -> None:
    outcome = Outcome.of(2, "::add-mask::pypi-secret\nerror: pypi-secret is refused\n")
    assert outcome.output == "error: *** is refused\n"
    assert outcome.masked == ("pypi-secret",)
    assert "pypi-secret" not in repr(outcome)


def test_an_empty_mask_hides_nothing() -> None:
    assert Outcome.of(0, "::add-mask::\nall is well\n").output == "all is well\n"
