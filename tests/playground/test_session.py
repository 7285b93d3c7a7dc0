"""The playground as a whole: up, looked into, changed, and gone without a trace."""

from __future__ import annotations

import contextlib
import re
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from broker.playground.claims import CAROL
from broker.playground.policies import MEMBERS
from broker.playground.processes import ServerError
from broker.playground.session import FolderError, Playground


@pytest.fixture(scope="module", name="playground")
def _playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    with Playground(tmp_path_factory.mktemp("playground")) as playground:
        yield playground


def processes_of(folder: Path) -> list[str]:
    """The command lines of servers that work in a playground's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            arguments = (process / "cmdline").read_bytes()
            if b"broker.playground.tether" in arguments and (process / "cwd").resolve().is_relative_to(folder):
                found.append(arguments.replace(b"\0", b" ").decode())
    return found


def test_the_broker_answers_over_tls_to_who_trusts_its_authority(playground: Playground) -> None:
    with playground.client() as client:
        assert client.get("/_/oidc/audience").json() == {"audience": "acme-index"}
        assert client.get("/readyz").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(playground.url, trust_env=False, verify=ssl.create_default_context())


def test_a_member_who_is_removed_is_refused_and_state_and_keys_stay(playground: Playground) -> None:
    before = playground.records()
    with playground.client() as client:
        token = playground.ci.token("github", **CAROL.on_github)
        minted = client.post("/_/oidc/mint-token", json={"token": token})
        assert minted.status_code == 200
        keys = client.get("/.well-known/jwks.json").json()
    playground.set_members([login for login in MEMBERS if login != "carol"])
    with playground.client() as client:
        assert client.get("/.well-known/jwks.json").json() == keys
        again = client.post("/_/oidc/mint-token", json={"token": playground.ci.token("github", **CAROL.on_github)})
        assert [error["code"] for error in again.json()["errors"]] == ["unknown-actor"]
    assert len(playground.records()) == len(before) + 2
    assert len(playground.records(most=1)) == 1


def test_what_is_secret_is_its_owner_s_alone(playground: Playground) -> None:
    for path in playground.folder.rglob("*"):
        if path.is_file() and (b"PRIVATE KEY" in path.read_bytes() or path.suffix == ".sh" or path.name == "htpasswd"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_only_the_broker_s_process_has_the_registry_s_password(playground: Playground) -> None:
    password = playground.registry.password.encode()
    assert [path for path in playground.folder.rglob("*") if path.is_file() and password in path.read_bytes()] == []
    assert len(processes_of(playground.folder)) == 2
    assert password.decode() not in "".join(processes_of(playground.folder))


def test_everything_ends_and_a_folder_of_its_own_is_removed() -> None:
    with Playground() as playground:
        folder = playground.folder
        assert len(processes_of(folder)) == 2
    assert processes_of(folder) == []
    assert not folder.exists()


def test_a_folder_that_was_named_stays(tmp_path: Path) -> None:
    said: list[str] = []
    with Playground(tmp_path / "mine", say=said.append) as playground:
        assert playground.folder == tmp_path / "mine"
    assert (tmp_path / "mine" / "broker.log").is_file()
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o700
    assert len(said) >= 4


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FolderError, match="not empty"), Playground(tmp_path):
        pytest.fail("it must not open")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match=re.escape(str(tmp_path / "file" / "below"))):
        Playground(tmp_path / "file" / "below").__enter__()


def test_where_the_broker_does_not_start_nothing_is_left_running(
    playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port is taken: by the other playground."""
    monkeypatch.setattr(Playground, "_is_ready", lambda _: False)
    taken = int(playground.url.rpartition(":")[2])
    with pytest.raises(ServerError, match="the broker ended"), Playground(tmp_path / "second", port=taken):
        pytest.fail("it must not open")
    assert processes_of(tmp_path / "second") == []
