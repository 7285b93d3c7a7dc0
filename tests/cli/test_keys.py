"""`broker keys`: a rotation can be repeated, cut off and run twice at once, and never takes a key that is needed."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

from broker.cli import main
from broker.signing import KEPT_SECONDS, SigningKey, SigningKeys, moment, parse
from broker.signing_files import Source, parse_each, together
from broker.state.opening import open_state
from tests.environment import environment
from tests.harness import state_url

NOW = 1_800_000_000.0
HOUR = 3600


@pytest.fixture(autouse=True)
def _no_settings() -> Any:
    with environment():
        yield


def keys(at: float, *arguments: str | Path) -> int:
    """`broker keys ...`, at a moment."""
    with freeze_time(moment(at), ignore=["asyncio"]):
        return main(["keys", *map(str, arguments)])


def read(path: Path) -> SigningKeys:
    return together(parse_each(Source(path=path).contents()))


def first(folder: Path, path: str = "keys") -> Path:
    """A folder, or a file, with a first key."""
    assert keys(NOW - 86_400, "new", folder / path) == 0
    return folder / path


def standing(path: Path, at: float) -> Sequence[str]:
    return list(read(path).standings(at).values())


def test_a_key_is_made_for_its_owner_alone_and_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = first(tmp_path)
    [file] = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = file.read_bytes()
    assert keys(NOW, "new", file) == 1
    assert "File exists" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_second_key_is_not_made_as_if_it_were_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would sign at once, at whichever replica saw it first."""
    folder = first(tmp_path)
    assert keys(NOW, "new", folder) == 1
    assert f"broker keys rotate {folder}" in capsys.readouterr().err
    assert len(read(folder).keys) == 1


@pytest.mark.parametrize("path", ["keys", "keys.pem"])
def test_a_rotation_announces_then_signs_then_retires_then_removes(
    tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the keys are a folder's files, or stand in one file."""
    told = first(tmp_path, path)
    old = read(told).keys[0]
    capsys.readouterr()
    assert keys(NOW, "rotate", told) == 0
    new = read(told).keys[1]
    assert (new.announced_at, new.signs_from) == (NOW, NOW + HOUR)
    announced, when = capsys.readouterr().out.splitlines()
    assert announced.startswith(f"announced: {new.id}  {told}")
    assert when == f"  signs from {moment(NOW + HOUR)}"
    over = NOW + HOUR + KEPT_SECONDS
    assert standing(told, NOW + HOUR - 1) == ["signing", "announced"]
    assert standing(told, NOW + HOUR) == ["retiring", "signing"]
    assert keys(over - 1, "rotate", told) == 0
    assert old in read(told).keys
    assert standing(told, over - 1) == ["retiring", "signing", "announced"]
    capsys.readouterr()
    assert keys(over, "rotate", told) == 0
    assert old not in read(told).keys
    assert len(read(told).keys) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"removed: {old.id}"
    assert lines[1].startswith("announced before: ")
    assert list(tmp_path.rglob("*.unfinished")) == []


def test_the_list_says_what_each_key_is_and_when_that_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = first(tmp_path)
    capsys.readouterr()

    def listed(at: float) -> list[str]:
        assert keys(at, "list", folder) == 0
        return [line.split("  ", 2)[2] for line in capsys.readouterr().out.splitlines()]

    assert listed(NOW) == ["signing"]
    keys(NOW, "rotate", folder, "--after", "2h")
    capsys.readouterr()
    begins, over = moment(NOW + 2 * HOUR), moment(NOW + 2 * HOUR + KEPT_SECONDS)
    assert listed(NOW) == [f"signing until {begins}", f"announced: signs from {begins}"]
    assert listed(NOW + 2 * HOUR) == [f"retiring: accepted until {over}", f"signing since {begins}"]
    assert listed(NOW + 2 * HOUR + KEPT_SECONDS) == [f"over: accepted until {over}", f"signing since {begins}"]
    min(folder.iterdir()).unlink()
    assert listed(NOW) == ["signing"], "there is no other"
    assert keys(NOW, "new", folder / "zz.pem") == 0
    assert keys(NOW, "new", folder / "zy.pem") == 0
    min(folder.iterdir()).unlink()
    capsys.readouterr()
    assert listed(NOW) == [
        "retiring: no file says when the key after it began, so it is accepted until you remove it",
        "signing",
    ]


def test_a_rotation_that_is_repeated_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = first(tmp_path)
    keys(NOW, "rotate", folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    capsys.readouterr()
    for at in (NOW, NOW + HOUR - 1):
        assert keys(at, "rotate", folder, "--after", "0s") == 0
        assert capsys.readouterr().out.startswith("announced before: ")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert keys(NOW + HOUR, "rotate", folder) == 0
    assert len(read(folder).keys) == 3


def test_of_two_rotations_at_once_one_announces(tmp_path: Path) -> None:
    folder = first(tmp_path)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    threads = [threading.Thread(target=main, args=(["keys", "rotate", str(folder)],)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert len(read(folder).keys) == 1, "somebody else holds the lock"
    os.close(descriptor)
    for thread in threads:
        thread.join()
    assert len(read(folder).keys) == 2


@pytest.mark.parametrize("path", ["keys", "keys.pem"])
@pytest.mark.parametrize("at", ["fsync", "rename"])
def test_what_is_cut_off_is_as_if_it_had_not_begun(
    tmp_path: Path, path: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = first(tmp_path, path)
    before = read(told)

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(*{"fsync": (os, "fsync"), "rename": (Path, "rename")}[at], cut_off)
        assert keys(NOW, "rotate", told) == 130
    assert read(told) == before
    assert len(list(tmp_path.rglob("*.unfinished"))) == 1
    assert keys(NOW, "rotate", told) == 0
    assert list(tmp_path.rglob("*.unfinished")) == []
    assert len(read(told).keys) == 2


def test_a_clock_that_is_behind_rotates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = first(tmp_path)
    keys(NOW, "rotate", folder, "--after", "0s")
    assert keys(NOW - 1, "rotate", folder) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "mend the clock" in told
    assert moment(NOW - 1) in told
    assert len(read(folder).keys) == 2


def test_moments_only_go_forward(tmp_path: Path) -> None:
    folder = first(tmp_path)
    for _ in range(3):
        keys(NOW, "rotate", folder, "--after", "0s")
    assert [key.signs_from for key in read(folder).keys[1:]] == [NOW, NOW + 1]


def test_a_rotation_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = first(tmp_path)
    other = folder / "20270115T090000.000000Z.pem"
    assert keys(NOW, "new", other) == 0
    before = other.read_bytes()
    assert keys(NOW, "rotate", folder) == 1
    assert "File exists" in capsys.readouterr().err
    assert other.read_bytes() == before


def test_a_short_delay_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = first(tmp_path)
    assert keys(NOW, "rotate", folder, "--after", "10m") == 0
    assert capsys.readouterr().err == ""
    assert keys(NOW + HOUR, "rotate", folder, "--after", "599s") == 0
    assert "in less than 10 minutes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("delay", "why"), [("soon", "write a whole number"), ("2161h", "at most 2160h"), ("-1h", "--after")]
)
def test_a_delay_is_a_duration(tmp_path: Path, delay: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "rotate", str(tmp_path), "--after", delay])
    assert why in capsys.readouterr().err


def test_the_path_may_be_the_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = first(tmp_path)
    assert keys(NOW, "list") == 1
    assert keys(NOW, "rotate") == 1
    assert capsys.readouterr().err.count("or set BROKER_SIGNING_KEYS") == 2
    with environment(BROKER_SIGNING_KEYS=str(folder)):
        assert keys(NOW, "rotate") == 0
        assert keys(NOW, "list") == 0
    assert len(read(folder).keys) == 2


@pytest.mark.parametrize("verb", ["list", "rotate"])
def test_what_is_not_there_or_broken_is_explained(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.pem").write_text("hello")
    for path, why in (
        ("nothing/here.pem", "No such file or directory"),
        ("nothing", "No such file or directory"),
        ("empty", "has no *.pem file"),
        ("broken.pem", "no unencrypted private key"),
    ):
        assert keys(NOW, verb, tmp_path / path) == 1
        assert why in capsys.readouterr().err
    assert (tmp_path / "broken.pem").read_text() == "hello"


def test_who_may_read_the_key_before_may_read_the_new_one(tmp_path: Path) -> None:
    folder = first(tmp_path)
    [old] = folder.iterdir()
    for mode, wanted in ((0o640, 0o640), (0o666, 0o640), (0o400, 0o400)):
        old.chmod(mode)
        assert keys(NOW, "rotate", folder) == 0
        [new] = set(folder.iterdir()) - {old}
        assert stat.S_IMODE(new.stat().st_mode) == wanted
        assert new.stat().st_uid == old.stat().st_uid
        new.unlink()


def test_a_file_with_a_key_that_is_needed_keeps_it(tmp_path: Path) -> None:
    """Where one file of a folder holds several."""
    folder = tmp_path / "keys"
    folder.mkdir()
    old, new = SigningKey.new(), SigningKey.new(announced_at=NOW, signs_from=NOW)
    (folder / "both.pem").write_bytes(old.text() + new.text())
    assert keys(NOW + KEPT_SECONDS, "rotate", folder) == 0
    assert parse((folder / "both.pem").read_bytes()) == (new,)


def test_a_link_to_the_keys_stays_one(tmp_path: Path) -> None:
    file = first(tmp_path, "real.pem")
    (tmp_path / "link.pem").symlink_to("real.pem")
    assert keys(NOW, "rotate", tmp_path / "link.pem") == 0
    assert (tmp_path / "link.pem").is_symlink()
    assert len(read(file).keys) == 2


def test_what_is_done_is_recorded_once_where_the_state_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, state = first(tmp_path), state_url(tmp_path)
    old = read(folder).keys[0].id
    assert keys(NOW, "rotate", folder, "--state", f"sqlite:///{tmp_path}/nowhere.db") == 1
    assert "there is no state" in capsys.readouterr().err
    assert asyncio.run(records(state)) == []
    for _ in range(2):
        assert keys(NOW, "rotate", folder, "--state", state) == 0
    with environment(BROKER_STATE_URL=state):
        assert keys(NOW + HOUR + KEPT_SECONDS, "rotate", folder) == 0
    second, third = [key.id for key in read(folder).keys]
    assert [(record["change"], record["key"]) for record in asyncio.run(records(state))] == [
        ("announced", second),
        ("announced", third),
        ("removed", old),
    ]


async def records(url: str) -> list[dict[str, Any]]:
    state = open_state(url, retention_days=400)
    try:
        return [json.loads(body) for body in await state.records(100)]
    finally:
        await state.close()
