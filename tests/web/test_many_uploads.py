"""Slow clients, many at once, with good tokens, over real sockets: they take so much and no more, others get through.

A publisher of `acme` is slow; another one, and `bolt`, publish beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import selectors
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from broker import refusals
from broker.gateway.pace import GRACE_SECONDS, Pace
from broker.gateway.places import BEGUN_BYTES
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.web import uploads
from tests.fakes import refused
from tests.gateway.uploads import CONTENT_TYPE, fields_of, join, pack_wheel, parts_of, upload
from tests.registries import PypiServer, pypi_server
from tests.servers import Served, broker
from tests.web.test_upload_refusals import basic

pytestmark = pytest.mark.anyio

MANY = 220

BOLT = """\
organization: bolt
namespaces: [bolt]
members:
  ann: {role: owner, github: "2001"}
publishers:
  release:
    issuer: github
    repository: bolt/tools
    repository_id: "21"
    repository_owner_id: "73"
    workflow: release.yml
    environment: pypi
    projects: [bolt-tools]
"""

PROVOKED = {"slow-upload", "uploads-busy", "upload-quota"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A broker in front of a pypiserver."""

    served: Served
    registry: PypiServer
    ci: FakeCI

    def token(self) -> str:
        """Of acme's."""
        return self._mint(self.ci.token())

    def token_of_bolt(self) -> str:
        """Of the other organization's."""
        repository = {"repository": "bolt/tools", "repository_id": "21", "repository_owner_id": "73"}
        return self._mint(self.ci.token("github", **repository, actor="ann", actor_id="2001"))

    def token_of_another_publisher(self) -> str:
        """Of acme's too."""
        return self._mint(self.ci.token("gitlab"))

    def _mint(self, token: str) -> str:
        answer = httpx.post(f"{self.served.url}/_/oidc/mint-token", json={"token": token}, trust_env=False)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    def post(self, body: bytes, token: str) -> httpx.Response:
        """Uploads as a well-behaved client would."""
        headers = {"Authorization": basic(token), "Content-Type": CONTENT_TYPE}
        return httpx.post(f"{self.served.url}/legacy/", content=body, headers=headers, trust_env=False, timeout=60)

    def begin(self, token: str, declared: int, beginning: bytes = b"") -> socket.socket:
        """An upload of so many bytes, and the first of them."""
        where = urlsplit(self.served.url)
        connection = socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=60)
        head = (
            f"POST /legacy/ HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: {basic(token)}\r\n"
            f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {declared}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode() + beginning)
        return connection

    def refused(self) -> Counter[str]:
        """Code -> how many uploads were refused with it so far."""
        records = [line.get("record") for line in self.served.logged()]
        return Counter(
            str(record.get("code")) for record in records if isinstance(record, dict) and record["kind"] == "upload"
        )

    def spooled(self) -> list[str]:
        """What the broker holds in its spool: files with and without a name."""
        spool = self.served.log.parent / "spool"
        held = [str(path) for path in spool.iterdir()]
        for descriptor in Path(f"/proc/{self.served.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                target = str(descriptor.readlink())
                held += [target] if target.startswith(f"{spool}/") else []
        return held


@contextlib.contextmanager
def front(folder: Path, registry: PypiServer, ci: FakeCI, **settings: str) -> Iterator[Front]:
    """A broker of its own."""
    organizations = folder / "policies" / "organizations"
    organizations.mkdir(parents=True)
    (organizations / "bolt.yaml").write_text(BOLT, encoding="utf-8")
    to = {"registry_url": registry.url, "registry_username": registry.username, "registry_password": registry.password}
    with broker(folder, ci, **to, **settings) as served:
        yield Front(served=served, registry=registry, ci=ci)


@pytest.fixture(name="ci", scope="module")
def _ci() -> Iterator[FakeCI]:
    with serving_ci() as ci:
        yield ci


@pytest.fixture(name="registry", scope="module")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    with pypi_server(tmp_path_factory.mktemp("registry"), "waitress") as registry:
        yield registry


def of_bolt(number: int) -> bytes:
    """A valid upload of bolt's; each number is another file."""
    dist_info = "bolt_tools-1.0.dist-info"
    file = pack_wheel(
        {
            f"{dist_info}/METADATA": b"Metadata-Version: 2.4\nName: bolt-tools\nVersion: 1.0\n",
            f"{dist_info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{dist_info}/RECORD": b"",
        }
    )
    return join(parts_of(fields_of(file, name="bolt-tools"), file, f"bolt_tools-1.0-{number}-py3-none-any.whl"))


def of_acme(number: int) -> bytes:
    """A valid upload of acme's; each number is another file."""
    file = pack_wheel()
    return join(parts_of(fields_of(file), file, f"acme_widgets-1.0-{number}-py3-none-any.whl"))


LARGE = pack_wheel() + bytes(4 * BEGUN_BYTES)
LARGE_BODY = join(parts_of(fields_of(LARGE), LARGE))
BEGUN = LARGE_BODY[: BEGUN_BYTES + 1000]
"""Enough of it to have a place."""


@contextlib.contextmanager
def dripping(connections: list[socket.socket]) -> Iterator[dict[socket.socket, bytes]]:
    """Sends a byte on each, twice a second, for as long as the context is open; and what each was answered."""
    answers: dict[socket.socket, bytes] = {}
    done = threading.Event()

    def drip() -> None:
        with selectors.DefaultSelector() as selector:
            for connection in connections:
                selector.register(connection, selectors.EVENT_READ)
            while not done.wait(0.5):
                for key, _ in selector.select(0):
                    connection = connections[connections.index(key.fileobj)]  # type: ignore[arg-type]
                    with contextlib.suppress(ConnectionError):
                        answers[connection] = answers.get(connection, b"") + connection.recv(65536)
                    selector.unregister(connection)
                for key in list(selector.get_map().values()):
                    with contextlib.suppress(OSError):
                        key.fileobj.send(b"x")  # type: ignore[union-attr]

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield answers
    finally:
        done.set()
        thread.join()


def eventually(happens: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it happens within that time."""
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.25)
    return True


def test_among_hundreds_that_drip_from_the_start_everybody_else_uploads(
    tmp_path: Path, registry: PypiServer, ci: FakeCI
) -> None:
    """They hold no place: also whoever shares an organization, and even the token, with them gets through at once."""
    with front(tmp_path, registry, ci, uploads_at_once="2") as it, ExitStack() as stack:
        token, of_other = it.token(), it.token_of_bolt()
        slow = [stack.enter_context(it.begin(token, len(LARGE_BODY), LARGE_BODY[:2000])) for _ in range(MANY)]
        started = time.monotonic()
        with dripping(slow) as answers:
            for number in range(10):
                assert it.post(of_acme(number), token).status_code == 200
                assert it.post(of_bolt(number), of_other).status_code == 200
            assert time.monotonic() - started < GRACE_SECONDS, "beside them, not after them"
            assert answers == {}
            assert it.spooled() == []
            assert eventually(lambda: it.refused()["slow-upload"] == MANY)
            assert eventually(lambda: len(answers) == MANY)
        assert {answer.split(b"\r\n")[0] for answer in answers.values()} == {b"HTTP/1.1 408 Request Timeout"}
        assert all(b'"code":"slow-upload"' in answer for answer in answers.values())


def test_hundreds_that_begin_well_and_then_drip_take_no_more_than_a_third(
    tmp_path: Path, registry: PypiServer, ci: FakeCI
) -> None:
    """Their own publisher must wait, and finds places again when the slow ones were given up; all others need not."""
    with (
        front(tmp_path, registry, ci, uploads_at_once="16", upload_bytes_per_second="8192") as it,
        ExitStack() as stack,
    ):
        token, of_other, of_bolt_s = it.token(), it.token_of_another_publisher(), it.token_of_bolt()
        slow = [stack.enter_context(it.begin(token, len(LARGE_BODY), BEGUN)) for _ in range(MANY)]
        with dripping(slow) as answers:
            for number in range(10, 20):
                assert it.post(of_acme(number), of_other).status_code == 200
                assert it.post(of_bolt(number), of_bolt_s).status_code == 200
            assert it.refused()["slow-upload"] + it.refused()["uploads-busy"] == 0, "beside them, not after them"
            busy = it.post(upload(), token)
            assert (busy.status_code, busy.json()["errors"][0]["code"]) == (503, "uploads-busy")
            assert busy.headers["Retry-After"] == "10"
            assert eventually(lambda: it.refused()["slow-upload"] + it.refused()["uploads-busy"] == MANY + 1)
            assert it.refused()["slow-upload"] == 6, "those that had places"
            assert it.post(of_acme(20), token).status_code == 200
            assert eventually(lambda: len(answers) == MANY)
        assert it.spooled() == []


CUTS = [0, 1, 2000, BEGUN_BYTES - 1, len(BEGUN), len(BEGUN) + BEGUN_BYTES, len(LARGE_BODY) - 3]


def test_a_place_is_free_again_whenever_its_client_went(tmp_path: Path, registry: PypiServer, ci: FakeCI) -> None:
    with front(
        tmp_path, registry, ci, uploads_at_once="1", spool_limit_bytes="1048576", upload_limit_bytes="1048576"
    ) as it:
        token, of_other = it.token(), it.token_of_bolt()
        for number, cut in enumerate(CUTS, start=100):
            for reset in (False, True):
                with it.begin(token, len(LARGE_BODY), LARGE_BODY[:cut]) as connection:
                    time.sleep(0.1)
                    if reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            assert it.post(of_bolt(number), of_other).status_code == 200
        with it.begin(token, len(LARGE_BODY), BEGUN):
            time.sleep(0.1)
            it.begin(token, len(LARGE_BODY), BEGUN).close()  # while it waits for a place
            time.sleep(0.1)
        assert it.post(of_bolt(200), of_other).status_code == 200
        assert eventually(lambda: it.refused()["truncated-upload"] == 2 * len(CUTS) + 2)
        assert it.spooled() == []


def test_what_is_refused_holds_no_place_while_the_rest_of_it_is_dropped(
    tmp_path: Path, registry: PypiServer, ci: FakeCI
) -> None:
    file = bytes(4 * BEGUN_BYTES)
    body = join(parts_of(fields_of(file, name="victim"), file))
    with front(tmp_path, registry, ci, uploads_at_once="1") as it, it.begin(it.token(), len(body), body[:-1]) as first:
        assert eventually(lambda: it.refused()["project-not-granted"] == 1)
        since = time.monotonic()
        assert it.post(of_acme(250), it.token()).status_code == 200
        assert time.monotonic() - since < uploads.DRAIN_SECONDS / 2
        first.sendall(body[-1:])
        assert first.recv(12) == b"HTTP/1.1 403"


def test_uploads_under_way_share_the_space_that_they_declare(tmp_path: Path, registry: PypiServer, ci: FakeCI) -> None:
    declared = 3 * len(LARGE_BODY)
    limits = {"spool_limit_bytes": str(2 * declared - 1), "upload_limit_bytes": str(declared)}
    with front(tmp_path, registry, ci, **limits) as it:
        token, of_other = it.token(), it.token_of_bolt()
        with it.begin(token, declared, BEGUN):
            time.sleep(0.2)
            full = it.post(upload(), token)
            assert (full.status_code, full.json()["errors"][0]["code"]) == (507, "upload-quota")
            assert full.headers["Retry-After"] == "10"
            assert it.post(of_bolt(300), of_other).status_code == 200
        assert it.post(of_acme(300), token).status_code == 200, "given back with the upload that held it"


@pytest.mark.parametrize("full", ["a disk of a megabyte", "files of a megabyte at most"])
def test_a_full_disk_refuses_and_keeps_nothing(full: str, tmp_path: Path, registry: PypiServer, ci: FakeCI) -> None:
    """A real disk where this process may mount one; and everywhere a limit of the system's on the broker's files."""
    spool = tmp_path / "spool"
    file = pack_wheel() + bytes(3 << 20)
    with ExitStack() as stack:
        if full.startswith("a disk"):
            stack.enter_context(small_disk(spool))
        it = stack.enter_context(front(tmp_path, registry, ci))
        if full.startswith("files"):
            resource.prlimit(it.served.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        token = it.token()
        for _ in range(3):
            answer = it.post(join(parts_of(fields_of(file), file)), token)
            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (507, "upload-storage")
            assert it.spooled() == []
        if full.startswith("a disk"):
            assert shutil.disk_usage(spool).used == 0
        assert it.post(of_acme(500 + len(full)), token).status_code == 200


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of a megabyte, in memory."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"this process may mount nothing, so a limit on files stands in: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


# --- Whose time it is ------------------------------------------------------------------------------------------------


async def taken_in(pieces: list[tuple[float, bytes]], pace: Pace, busy_seconds: float = 0.0) -> bytes:
    """What the broker reads of a body whose pieces each come after so many seconds, and is busy after each itself."""

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.request", "body": b"", "more_body": False}
        seconds, piece = pieces.pop(0)
        if seconds:
            await asyncio.sleep(seconds)
        return {"type": "http.request", "body": piece, "more_body": True}

    read = b""
    async for chunk in uploads._body(Request({"type": "http"}, receive), pace):
        read += chunk
        await asyncio.sleep(busy_seconds)
    return read


QUICK = Pace(bytes_per_second=1000, grace_seconds=0.3, longest_seconds=1.0)


async def test_time_that_the_broker_takes_is_not_the_client_s() -> None:
    assert await taken_in([(0, b"x")] * 10, QUICK, busy_seconds=0.15) == b"x" * 10


async def test_a_client_that_drips_is_given_up_when_its_time_is_over() -> None:
    since = time.monotonic()
    with refused("slow-upload") as caught:
        await taken_in([(0.1, b"x")] * 100, QUICK)
    assert 0.3 <= time.monotonic() - since < 0.8
    assert "1000 a second" in caught.value.detail


async def test_a_client_that_is_fast_enough_but_does_not_end_is_given_up_too() -> None:
    with refused("slow-upload"):
        await taken_in([(0.05, bytes(100_000))] * 100, QUICK)


async def test_a_client_that_earned_time_and_falls_silent_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SILENCE_SECONDS", 0.1)
    with refused("truncated-upload"):
        await taken_in([(0, bytes(100_000)), (5, b"x")], QUICK)


async def test_what_is_dropped_of_a_refused_body_is_given_up_too() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        raise refusals.SlowUpload

    await uploads._drain(body())
