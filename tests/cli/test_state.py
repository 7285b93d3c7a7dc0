"""Verbs beside a running broker find its state where its settings say, and tell which one they worked on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from broker.cli import main
from broker.state.opening import open_state, shown
from tests.environment import environment
from tests.harness import Setup, state_url
from tests.redis_server import RedisServer
from tests.state.examples import record

VERBS = [
    ("tokens", "list"),
    ("disable", "everything", "--reason", "x"),
    ("enable", "everything"),
    ("disabled",),
    ("revoke", "everything", "--reason", "x"),
    ("audit", "tail"),
    ("audit", "export"),
    ("audit", "verify"),
]
"""Each works on an empty state, and on no other than the one that is named."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator stands in a folder that has no state."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")


def written(folder: Path) -> str:
    """A state with a record, so that it is there."""

    async def write() -> None:
        state = open_state(state_url(folder), retention_days=30)
        await state.append(record())
        await state.close()

    asyncio.run(write())
    return state_url(folder)


def named_by(how: str, folder: Path, url: str) -> tuple[dict[str, str], list[str]]:
    """The environment and the options of an operator who keeps the state's address in that way."""
    (folder / "url").write_text(f"{url}\n")
    (folder / "broker.env").write_text(f"BROKER_STATE_URL={url}\nBROKER_PUBLIC_URL=https://upload.acme.example\n")
    (folder / "of-file.env").write_text(f"BROKER_STATE_URL_FILE={folder}/url\nBROKER_REGISTRY_PASSWORD_FILE=/nowhere\n")
    return {
        "BROKER_STATE_URL_FILE": ({"BROKER_STATE_URL_FILE": f"{folder}/url"}, []),
        "BROKER_ENV_FILE": ({"BROKER_ENV_FILE": f"{folder}/broker.env"}, []),
        "--env-file": ({"BROKER_ENV_FILE": "/nowhere"}, ["--env-file", f"{folder}/of-file.env"]),
        "--state": ({"BROKER_STATE_URL": "sqlite:////nowhere.db"}, ["--state", url]),
    }[how]


@pytest.mark.parametrize("how", ["BROKER_STATE_URL_FILE", "BROKER_ENV_FILE", "--env-file", "--state"])
def test_the_state_is_found_where_the_brokers_settings_say(tmp_path: Path, how: str) -> None:
    values, options = named_by(how, tmp_path, written(tmp_path))
    for verb in VERBS:
        with environment(**values):
            assert main([*verb, *options]) == 0, verb
    assert not any(Path.cwd().iterdir())


def test_explain_and_keys_and_alerts_read_the_same_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup = Setup(folder=tmp_path)
    policies = setup.write().policies
    (tmp_path / "hook").write_text("http://127.0.0.1:1/hook")
    (tmp_path / "alerts.yaml").write_text(
        "receivers:\n  ops: {kind: slack, url_file: hook, organizations: [acme], index: true}\n"
    )
    (tmp_path / "broker.env").write_text(
        f"BROKER_STATE_URL={written(tmp_path)}\nBROKER_POLICIES={policies}\nBROKER_AUDIENCE=acme-index\n"
        f"BROKER_SIGNING_KEYS={tmp_path}/keys\nBROKER_ALERTS={tmp_path}/alerts.yaml\n"
        "BROKER_ALLOW_LOOPBACK_ISSUERS=true\n"
    )
    with environment(BROKER_ENV_FILE=f"{tmp_path}/broker.env"):
        assert main(["keys", "new", f"{tmp_path}/keys"]) == 0
        assert main(["keys", "rotate"]) == 0
        assert main(["keys", "list"]) == 0
        assert main(["alerts", "list"]) == 0
        assert main(["explain", "--attempt", "no-such", "--allow-loopback-issuers"]) == 2
        told = capsys.readouterr()
        assert main(["audit", "tail", "--kind", "keys"]) == 0
    assert "there is no attempt 'no-such' among" in told.err
    assert "ops  slack" in told.out
    assert '"change":"announced"' in capsys.readouterr().out.replace(" ", "")


def test_a_token_is_made_in_no_state_that_nobody_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with environment():
        assert main(["tokens", "new", "devpi"]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == (
        "",
        "broker tokens: there is no state at state.db: name it by --state or BROKER_STATE_URL.\n",
    )
    assert not any(Path.cwd().iterdir())
    with environment(BROKER_STATE_URL=state_url(tmp_path)):
        assert main(["tokens", "new", "devpi"]) == 0
    assert capsys.readouterr().out.startswith("broker_")


def test_the_one_that_is_there_by_default_is_the_brokers_own_default(capsys: pytest.CaptureFixture[str]) -> None:
    with environment():
        assert main(["tokens", "new", "devpi", "--state", "sqlite:///state.db"]) == 0
        assert main(["tokens", "list"]) == 0
    told = capsys.readouterr()
    assert "devpi\n" in told.out
    assert f", in sqlite:///{Path.cwd()}/state.db; it is not shown again" in told.err


def test_what_is_done_says_in_which_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with environment(BROKER_STATE_URL=written(tmp_path)):
        assert main(["disable", "everything", "--reason", "x"]) == 0
        assert main(["enable", "everything"]) == 0
        assert main(["revoke", "everything", "--reason", "x"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.endswith(f", in {state_url(tmp_path)}") for line in lines), lines


@pytest.mark.parametrize("named", ["sqlite:///state.db", "sqlite:///{}/state.db", "sqlite:///%FE.db"])
def test_a_folder_whose_name_is_not_utf8_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written and then not told is a token that nobody has, or a switch that seems not to be thrown."""
    folder = tmp_path / os.fsdecode(b"d\xff")
    folder.mkdir()
    monkeypatch.chdir(folder)
    url = named.format(folder)
    with environment():
        assert main(["tokens", "new", "devpi", "--state", url]) == 0
        told = capsys.readouterr()
        assert told.out.startswith("broker_")
        where = told.err.partition(", in ")[2].partition(";")[0]
        assert where.startswith(f"sqlite:///{tmp_path}/d%FF/")
        assert main(["disable", "everything", "--reason", "x", "--state", where]) == 0
        assert main(["revoke", "everything", "--reason", "x", "--state", url]) == 0
    assert capsys.readouterr().out.count(f", in {where}\n") == 2


def test_what_is_told_is_known_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: str) -> str:
        raise ValueError("cannot be told")

    with environment(BROKER_STATE_URL=written(tmp_path)):
        with monkeypatch.context() as patched:
            patched.setattr("broker.cli.state.shown", fails)
            assert main(["tokens", "new", "devpi"]) == 1
        assert main(["tokens", "list"]) == 0
    assert "broker tokens: there are none" in capsys.readouterr().err


def test_a_folder_that_was_removed_keeps_nothing_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert shown("sqlite:///state.db") == "sqlite:///state.db"


def test_no_password_is_told_with_the_state(capsys: pytest.CaptureFixture[str]) -> None:
    with RedisServer() as server, environment():
        url = f"{server.url}?prefix=%7Bmine%7D"
        assert main(["tokens", "new", "devpi", "--state", url]) == 0
        assert f"in redis://127.0.0.1:{server.port}/0?prefix={{mine}}; it is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://me:hunter2@redis", "redis://redis:6379/0"),
        ("rediss://hunter2@[::1]:7000/3?ca=hunter2", "rediss://[::1]:7000/3"),
        ("redis+cluster://:hunter2@a:1,b:2", "redis+cluster://a:1,b:2/0"),
        (
            "rediss+sentinel://:hunter2@a:1,b/my%2Fmaster/2?sentinel_password=hunter2&prefix=x%7By%7D",
            "rediss+sentinel://a:1,b:26379/my%2Fmaster/2?prefix=x{y}",
        ),
        ("sqlite:////var/lib/bro%20ker/state.db", "sqlite:////var/lib/bro%20ker/state.db"),
    ],
)
def test_a_state_is_told_without_what_lets_one_in(url: str, told: str) -> None:
    assert shown(url) == told


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"BROKER_STATE_ULR": "sqlite:///state.db"}, "Did you mean BROKER_STATE_URL?"),
        ({"BROKER_ENV_FILE": "/nowhere"}, "/nowhere does not exist"),
        ({"BROKER_STATE_URL_FILE": "/nowhere"}, "BROKER_STATE_URL_FILE: '/nowhere' cannot be read"),
        ({"BROKER_STATE_URL_FILE": "/nowhere", "BROKER_STATE_URL": "x"}, "set one of them"),
        ({"BROKER_ENV_FILE": "slip.env"}, "BROKER_STATE_ULR: there is no such setting. Did you mean BROKER_STATE_URL?"),
        ({"BROKER_ENV_FILE": "latin.env"}, "cannot be read (not UTF-8)"),
    ],
)
def test_a_wrong_setting_is_explained_and_nothing_is_done(
    values: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("slip.env").write_text("BROKER_STATE_ULR=sqlite:///state.db\nPATH_OF_ANOTHER=x\n")
    Path("latin.env").write_bytes(b"BROKER_STATE_URL=caf\xe9\n")
    for verb in (("tokens", "new", "devpi"), *VERBS):
        with environment(**values):
            assert main([*verb]) == 2, verb
        told = capsys.readouterr()
        assert words in told.err
        assert told.err.startswith(f"broker {verb[0]}: ")
        assert told.out == ""
    assert not Path("state.db").exists()


def test_an_empty_env_file_option_is_a_mistake_and_an_empty_variable_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--env-file "$FILE"` of a script that forgot to set it would work on another state than was meant."""
    with environment(BROKER_STATE_URL=written(tmp_path), BROKER_ENV_FILE=""):
        for verb in VERBS:
            assert main([*verb, "--env-file", ""]) == 2, verb
            told = capsys.readouterr()
            assert (told.out, told.err) == ("", f"broker {verb[0]}: the env file '' does not exist, or is no file.\n")
        assert main(["tokens", "list"]) == 0


@pytest.mark.parametrize("named", ["file/state.db", "nowhere/state.db"])
def test_a_folder_that_is_none_has_no_state(named: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    with environment():
        assert main(["disable", "everything", "--reason", "x", "--state", f"sqlite:///{named}"]) == 1
    assert f"there is no state at {named}" in capsys.readouterr().err


def test_a_state_that_may_not_be_looked_at_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is too long, for root may look at everything."""
    with environment():
        assert main(["disable", "everything", "--reason", "x", "--state", f"sqlite:///{'x' * 300}/state.db"]) == 1
    told = capsys.readouterr().err
    assert "cannot be looked at (File name too long): it is for the broker's user, so do this as that user" in told
