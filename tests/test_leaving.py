"""A broker that is ended says so, takes whoever still comes, and finishes what was begun."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn

from broker import leaving
from broker.cli import serve
from broker.leaving import Leaving, turn_away
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.playground.processes import free_port
from broker.state.opening import open_state
from tests.gateway.uploads import CONTENT_TYPE, WHEEL, upload
from tests.harness import state_url
from tests.registries import PASSWORD, USER, PypiServer, pypi_server
from tests.servers import Served, broker
from tests.web.test_upload_refusals import basic

PATIENCE_SECONDS = 60.0

CUT_OFF = "broker-ending"

BODY = upload()


@pytest.fixture(name="ci", scope="module")
def _ci() -> Iterator[FakeCI]:
    with serving_ci() as ci:
        yield ci


@pytest.fixture(name="registry", scope="module")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    with pypi_server(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.02)


# --- Whole brokers ---------------------------------------------------------------------------------------------------


def begin(served: Served, token: str, body: bytes) -> socket.socket:
    """An upload that is not whole yet."""
    port = served.url.rpartition(":")[2]
    connection = socket.create_connection(("127.0.0.1", int(port)), timeout=PATIENCE_SECONDS)
    head = f"POST /legacy/ HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(token)}\r\nContent-Type: {CONTENT_TYPE}\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:200])
    return connection


def ready(served: Served) -> httpx.Response | None:
    """None where nobody listens."""
    with contextlib.suppress(httpx.ConnectError, httpx.TimeoutException):
        return httpx.get(f"{served.url}/readyz", timeout=3, trust_env=False)
    return None


def test_uploads_under_way_are_finished_and_those_that_hang_are_cut_off(
    tmp_path: Path, ci: FakeCI, registry: PypiServer
) -> None:
    """Of one process; `tests.trials.rotation --workers 2` has several."""
    settings = {
        "drain_seconds": "1.5",
        "shutdown_seconds": "3",
        "registry_url": registry.url,
        "registry_username": USER,
        "registry_password": PASSWORD,
    }
    with broker(tmp_path, ci, **settings) as served:

        def mint() -> httpx.Response:
            return httpx.post(f"{served.url}/_/oidc/mint-token", json={"token": ci.token()}, trust_env=False)

        token = mint().json()["token"]
        with begin(served, token, BODY) as whole, begin(served, token, BODY) as hanging:
            time.sleep(0.3)
            os.kill(served.pid, signal.SIGTERM)
            wait_until(lambda: (told := ready(served)) is not None and told.status_code == 503)
            answer = mint()
            assert answer.status_code == 200, "whoever comes now is still served"
            assert answer.headers["connection"] == "close"
            wait_until(lambda: ready(served) is None)
            assert served.process.poll() is None
            whole.sendall(BODY[200:])
            assert whole.recv(12) == b"HTTP/1.1 200"
            assert served.process.wait(PATIENCE_SECONDS) == 0
            answered = b"".join(iter(lambda: hanging.recv(65536), b""))
            assert answered.startswith(b"HTTP/1.1 503")
            assert CUT_OFF.encode() in answered
        assert WHEEL in registry.stored()
        uploads = [record for record in asyncio.run(records(tmp_path)) if record["kind"] == "upload"]
        assert {record.get("code", record["decision"]) for record in uploads} == {"allowed", CUT_OFF}


async def records(folder: Path) -> list[dict[str, Any]]:
    state = open_state(state_url(folder), retention_days=400)
    try:
        return [json.loads(body) for body in await state.records(100)]
    finally:
        await state.close()


@pytest.mark.anyio
async def test_the_last_requests_are_waited_for_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "CUT_OFF_SECONDS", 0.05)
    told = Leaving(0)
    await told.last_requests()
    told.under_way = 1
    await told.last_requests()


# --- The socket ------------------------------------------------------------------------------------------------------


def test_who_was_there_before_is_taken_and_who_comes_after_finds_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as before:
            before.sendall(b"a request")
            turn_away(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            taken, _ = listener.accept()
            with taken:
                assert taken.recv(100) == b"a request"
                taken.sendall(b"an answer")
                assert before.recv(100) == b"an answer"
                before.sendall(b"another")
                assert taken.recv(100) == b"another"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10)


def test_where_the_kernel_cannot_nothing_is_wrong() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.close()
    turn_away(listener)


# --- The signals -----------------------------------------------------------------------------------------------------


@pytest.fixture(name="ended")
def _ended() -> Iterator[list[int]]:
    """What the server was told, whose handler stood there first."""
    told: list[int] = []

    def handler(number: int, _: object) -> None:
        told.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    yield told
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.signal(signal.SIGTERM, before)


@pytest.mark.anyio
async def test_the_server_is_ended_after_a_while(ended: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "LINGER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = Leaving(0.05, listener)
        with told.at_sigterm():
            assert not told.begun
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: told.begun)
            assert ended == []
            await until(lambda: bool(ended))
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), timeout=0.1)


@pytest.mark.anyio
async def test_a_second_signal_ends_it_at_once(ended: list[int]) -> None:
    told = Leaving(3600)
    with told.at_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: told.begun)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: bool(ended))


@pytest.mark.anyio
async def test_without_a_while_the_signal_is_the_server_s_alone(ended: list[int]) -> None:
    told = Leaving(0)
    with told.at_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: bool(ended))
    assert not told.begun


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - a signal is waited for
            await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_where_another_process_has_the_socket_it_is_left_to_that(
    ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "LINGER_SECONDS", 0.01)
    told = Leaving(0.01)
    with told.at_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: bool(ended))


@pytest.mark.anyio
async def test_who_is_not_ended_leaves_nothing_behind(ended: list[int]) -> None:
    with Leaving(1).at_sigterm():
        pass
    assert ended == []


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.usefixtures("ended")
def test_a_signal_is_a_good_end() -> None:
    """In this process, for what comes after the event loop's end."""

    async def application(_: object, __: object, ___: object) -> None:
        raise NotImplementedError

    port = free_port()
    before = signal.getsignal(signal.SIGTERM)

    def end() -> None:
        wait_until(lambda: listens(port))
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end)
    thread.start()
    config = uvicorn.Config(application, port=port, loop="asyncio", lifespan="off", log_config=None)
    try:
        assert serve._serve_alone(config, Leaving(0)) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
        thread.join()


# --- Several workers -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def workers(drain_seconds: float) -> Iterator[tuple[serve.Workers, subprocess.Popen[bytes]]]:
    """One worker that is somebody else's program, and a parent without its own signal handlers."""
    parent: Any = serve.Workers.__new__(serve.Workers)
    listener = socket.create_server(("127.0.0.1", 0))
    with subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdout=-1, stdin=-1) as one:
        assert one.stdout is not None
        one.stdout.readline()
        parent.processes = [SimpleNamespace(pid=one.pid, terminate=lambda: None)]
        parent.sockets, parent.signal_queue, parent._drain_seconds = [listener], [], drain_seconds
        parent.should_exit = SimpleNamespace(set=lambda: None)
        try:
            yield parent, one
        finally:
            one.kill()
    assert listener.fileno() == -1, "whoever connects would wait for nobody"


@pytest.mark.parametrize("drain_seconds", [0, 0.1])
def test_the_parent_keeps_no_socket_open(drain_seconds: float) -> None:
    with workers(drain_seconds) as (parent, one):
        parent.terminate_all()
        assert one.poll() is None, "a signal a worker"


def test_a_second_signal_is_handed_on_to_workers() -> None:
    with workers(3600) as (parent, one):
        parent.signal_queue.append(signal.SIGTERM)
        parent.terminate_all()
        assert one.wait(PATIENCE_SECONDS) == -signal.SIGTERM


def test_an_interrupt_ends_workers_without_a_while() -> None:
    with workers(3600) as (parent, one):
        parent.handle_int()
        assert one.wait(PATIENCE_SECONDS) != 0
        parent.terminate_all()
