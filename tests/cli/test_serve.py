"""`broker serve` does not start with anything wrong, and says what, where and how to mend it, in one screen."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from uvicorn.config import STARTUP_FAILURE

from broker.audit import Record
from broker.cli import main, serve
from broker.playground.certificates import make_certificates
from broker.playground.processes import free_port
from broker.state.opening import open_state
from tests.environment import environment
from tests.harness import ACME, Setup

Change = Callable[[Path, dict[str, str]], None]


def write(folder: Path) -> dict[str, str]:
    """All that a broker needs, as `BROKER_*`."""
    written = Setup(folder=folder).write()
    return {
        "BROKER_POLICIES": str(written.policies),
        "BROKER_PUBLIC_URL": written.public_url,
        "BROKER_AUDIENCE": str(written.audience),
        "BROKER_STATE_URL": written.state_address(),
        "BROKER_SIGNING_KEYS": str(written.signing_keys),
        "BROKER_REGISTRY_URL": str(written.registry_url),
    }


def without_audience(_: Path, values: dict[str, str]) -> None:
    del values["BROKER_AUDIENCE"]


def misspelt_field(folder: Path, _: dict[str, str]) -> None:
    (folder / "policies" / "organizations" / "acme.yaml").write_text(ACME.replace("workflow:", "workflows:"))


def two_mistakes(folder: Path, _: dict[str, str]) -> None:
    text = ACME.replace("role: owner", "role: boss").replace("issuer: google", "issuer: gogle")
    (folder / "policies" / "organizations" / "acme.yaml").write_text(text)


def many_mistakes(folder: Path, _: dict[str, str]) -> None:
    members = "".join(f"  m{n}: {{role: boss}}\n" for n in range(50))
    (folder / "policies" / "organizations" / "acme.yaml").write_text(ACME.replace("members:\n", f"members:\n{members}"))


def no_policies(_: Path, values: dict[str, str]) -> None:
    values["BROKER_POLICIES"] += "-elsewhere"


def no_key(folder: Path, _: dict[str, str]) -> None:
    (folder / "signing.pem").unlink()


def empty_key_folder(folder: Path, values: dict[str, str]) -> None:
    (folder / "keys").mkdir()
    values["BROKER_SIGNING_KEYS"] = str(folder / "keys")


def no_pem(folder: Path, _: dict[str, str]) -> None:
    (folder / "signing.pem").write_text("hello")


def rsa_key(folder: Path, _: dict[str, str]) -> None:
    pem = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "signing.pem").write_bytes(pem)


def foreign_state_url(_: Path, values: dict[str, str]) -> None:
    values["BROKER_STATE_URL"] = "postgres://user:hunter2@db"


def no_tls_key(folder: Path, values: dict[str, str]) -> None:
    values["BROKER_TLS_CERTIFICATE"] = str(folder / "signing.pem")


def tls(folder: Path, values: dict[str, str], certificate: str, key: str) -> None:
    for name in ("one", "other"):
        (folder / name).mkdir()
        make_certificates(folder / name)
    values["BROKER_TLS_CERTIFICATE"], values["BROKER_TLS_KEY"] = str(folder / certificate), str(folder / key)


def foreign_tls_key(folder: Path, values: dict[str, str]) -> None:
    tls(folder, values, "one/certificate.pem", "other/certificate.key.pem")


def swapped_tls_files(folder: Path, values: dict[str, str]) -> None:
    tls(folder, values, "one/certificate.key.pem", "one/certificate.pem")


def locked_tls_key(folder: Path, values: dict[str, str]) -> None:
    tls(folder, values, "one/certificate.pem", "locked.pem")
    locked = Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")
    (folder / "locked.pem").write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*locked))


def host_of_somebody_else(_: Path, values: dict[str, str]) -> None:
    values["BROKER_HOST"] = "192.0.2.1"


def no_folder_for_state(folder: Path, values: dict[str, str]) -> None:
    values["BROKER_STATE_URL"] = f"sqlite:///{folder}/nowhere/state.db"


def state_of_something_else(folder: Path, values: dict[str, str]) -> None:
    (folder / "state.db").write_text("hello, this is my diary and no database")
    values["BROKER_STATE_URL"] = f"sqlite:///{folder}/state.db"


def missing_env_file(folder: Path, values: dict[str, str]) -> None:
    values["BROKER_ENV_FILE"] = str(folder / "nowhere.env")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_audience, ["BROKER_AUDIENCE", "is not set"]),
        (misspelt_field, ["organizations/acme.yaml:", "publishers.widgets-release.workflows", "workflow"]),
        (two_mistakes, ["members.alice.role", "publishers.tools-bot.issuer", "google"]),
        (many_mistakes, ["members.m0.role", "and 42 more", "broker check"]),
        (no_policies, ["policies-elsewhere"]),
        (no_key, ["BROKER_SIGNING_KEYS", "signing.pem", "broker keys new"]),
        (empty_key_folder, ["BROKER_SIGNING_KEYS", "no *.pem file", "broker keys new"]),
        (no_pem, ["signing.pem", "PEM"]),
        (rsa_key, ["signing.pem", "not an Ed25519 key"]),
        (foreign_state_url, ["BROKER_STATE_URL", "sqlite:///"]),
        (no_tls_key, ["BROKER_TLS_KEY"]),
        (foreign_tls_key, ["BROKER_TLS_CERTIFICATE", "BROKER_TLS_KEY", "not this certificate's"]),
        (swapped_tls_files, ["BROKER_TLS_CERTIFICATE", "BROKER_TLS_KEY", "in PEM form"]),
        (locked_tls_key, ["BROKER_TLS_KEY", "pass phrase"]),
        (host_of_somebody_else, ["BROKER_HOST", "192.0.2.1", "cannot be listened on"]),
        (no_folder_for_state, ["BROKER_STATE_URL", "nowhere/state.db", "cannot be written"]),
        (state_of_something_else, ["BROKER_STATE_URL", "state.db", "not a database"]),
        (missing_env_file, ["nowhere.env", "does not exist"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_wrong_is_said_in_one_screen_and_nothing_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, words: list[str]
) -> None:
    values = write(tmp_path)
    change(tmp_path, values)
    with environment(**values):
        assert main(["serve"]) == 1
    told = capsys.readouterr().err
    assert all(word in told for word in ["broker serve: not started", *words]), told
    assert len(told.splitlines()) <= 24
    assert "Traceback" not in told
    assert "hunter2" not in told


def test_a_port_that_is_taken_is_said_before_anything_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, environment(**write(tmp_path)):
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    told = capsys.readouterr()
    assert f"127.0.0.1 port {port} cannot be listened on (Address already in use)" in told.err
    assert told.out == ""


def test_the_audit_tail_prints_records_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    asyncio.run(store(state, "a", "b", "c"))
    assert main(["audit", "tail", "-n", "2", "--state", state]) == 0
    assert capsys.readouterr().out.splitlines() == ["b", "c"]
    assert main(["audit", "tail", "--state", "mysql://x:hunter2@y"]) == 1
    assert main(["audit", "tail", "--state", f"sqlite:///{tmp_path}/nowhere.db"]) == 1
    assert not (tmp_path / "nowhere.db").exists()
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE x (y)")
    assert main(["audit", "tail", "--state", f"sqlite:///{tmp_path}/other.db"]) == 1
    assert main(["audit", "tail", "--state", f"redis://:hunter2@127.0.0.1:{free_port()}"]) == 1
    wrong, missing, foreign, unreachable = capsys.readouterr().err.splitlines()
    assert "sqlite:///" in wrong
    assert "there is no state at" in missing
    assert "something else than a broker" in foreign
    assert "connecting to 127.0.0.1" in unreachable
    assert "hunter2" not in wrong + unreachable


@pytest.mark.parametrize("most", ["0", "-3", "x"])
def test_the_audit_tail_prints_at_least_one_record(most: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "tail", "-n", most])
    assert f"invalid number value: '{most}'" in capsys.readouterr().err


async def store(url: str, *bodies: str) -> None:
    state = open_state(url, retention_days=400)
    for body in bodies:
        await state.append(Record(attempt=body, at=1.8e9, organization="acme", body=body))
    await state.close()


@pytest.mark.parametrize(
    "verb", ["", "serve", "check", "keys", "keys new", "keys rotate", "keys list", "audit", "audit tail", "playground"]
)
def test_every_help_says_more_than_its_usage(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*verb.split(), "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 6


def test_an_interrupt_ends_a_verb_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "run", interrupted)
    assert main(["serve"]) == 130, "as shells call what Ctrl-C ended"
    assert capsys.readouterr().err == "\n"


def test_a_reader_who_has_seen_enough_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def piped(_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(serve, "run", piped)
    assert main(["serve"]) == 141, "as shells call what SIGPIPE ended"
    assert capfd.readouterr().err == ""


def test_the_env_file_flag_is_for_workers_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with environment(**write(tmp_path)):
        assert main(["serve", "--env-file", str(tmp_path / "nowhere.env")]) == 1
    assert "nowhere.env" in capsys.readouterr().err


def test_an_empty_env_file_flag_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with environment(**(write(tmp_path) | {"BROKER_PORT": "none"})):
        assert main(["serve", "--env-file", ""]) == 1
    assert "the env file '' does not exist" in capsys.readouterr().err


@pytest.fixture(name="_hangup")
def _keep_hangup() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_hangup")
def test_a_worker_that_finds_broken_policies_ends_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Others may still have good ones. Its status is not the one by which uvicorn would end them all."""
    values = write(tmp_path)
    misspelt_field(tmp_path, values)
    with environment(**values), pytest.raises(SystemExit) as ended:
        serve.worker(tmp_path)
    assert ended.value.code == 1 != STARTUP_FAILURE
    told = capsys.readouterr()
    assert "publishers.widgets-release.workflows" in json.loads(told.out)["explained"]
    assert told.err == ""


def test_a_hangup_is_handed_on_to_each_worker() -> None:
    workers = serve.Workers.__new__(serve.Workers)  # its own signal handlers are not for this process
    with subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdout=-1, stdin=-1) as one:
        assert one.stdout is not None
        one.stdout.readline()
        workers.processes = [SimpleNamespace(pid=one.pid)]  # type: ignore[list-item]  # all that is asked of it
        workers.handle_hup()
        assert one.wait(30) == -signal.SIGHUP
    workers.handle_hup()  # it is gone, and that is no error


@pytest.mark.usefixtures("_hangup")
def test_a_worker_serves_what_the_environment_says(tmp_path: Path) -> None:
    before = gc.get_threshold()
    try:
        with environment(**write(tmp_path)):
            assert any(getattr(route, "path", "") == "/legacy/" for route in serve.worker(tmp_path).routes)
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_several_workers_without_a_temporary_folder_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_folder(**_: object) -> None:
        raise FileNotFoundError("no usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", no_folder)
    with environment(**write(tmp_path), BROKER_PORT=str(free_port())):
        assert main(["serve", "--workers", "2"]) == 1
    told = capsys.readouterr().err
    assert "BROKER_WORKERS" in told
    assert "TMPDIR" in told


@pytest.mark.parametrize(
    ("before", "most", "wanted", "files"),
    [
        (1024, 4096, 2000, 2000),
        (1024, 4096, 9000, 4096),
        (4096, 4096, 2000, 4096),
        (1024, -1, 2000, 2000),
        (-1, -1, 2000, sys.maxsize),
    ],
)
def test_as_many_files_are_asked_for_as_there_can_be(before: int, most: int, wanted: int, files: int) -> None:
    assert serve.files_of(before, most, wanted) == files


def test_there_are_no_more_connections_than_files_for_them(tmp_path: Path) -> None:
    chosen = Setup(folder=tmp_path, settings={"connections": 100_000}).write()
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        connections = serve._connections(chosen)
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))
    assert serve.FEWEST_CONNECTIONS <= connections.most < files or connections.most == 100_000
