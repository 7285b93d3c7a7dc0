"""Slow clients, many at once, with good tokens, over real sockets: what they can take is bounded, and others get through.

`acme` is the organization that is slow; `bolt` publishes beside it.
"""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from broker.gateway.pace import GRACE_SECONDS
from broker.gateway.places import BEGUN_BYTES, WAIT_SECONDS
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from tests.gateway.uploads import BOUNDARY, CONTENT_TYPE, WHEEL, fields_of, join, pack_wheel, parts_of, upload
from tests.registries import PypiServer, pypi_server
from tests.servers import Served, broker
from tests.web.test_upload_refusals import basic

MANY = 220
AT_ONCE = 4

BOLT = """\
organization: bolt
namespaces: [bolt]
members:
  ann: {role: owner, gitlab: "88"}
publishers:
  release:
    issuer: gitlab
    project_path: bolt/tools
    project_id: "21"
    namespace_id: "73"
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
        claims = {"project_path": "bolt/tools", "project_id": "21", "namespace_id": "73", "user_id": "88"}
        return self._mint(
            self.ci.token(
                "gitlab",
                **claims,
                job_project_id="21",
                job_namespace_id="73",
                namespace_path="bolt",
                job_project_path="bolt/tools",
                ci_config_ref_uri="gitlab.com/bolt/tools//.gitlab-ci.yml@refs/tags/v1.0",
                sub="project_path:bolt/tools:ref_type:tag:ref:v1.0",
            )
        )

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
        time.sleep(0.05)
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


def test_hundreds_that_begin_well_and_then_drip_take_no_more_than_half(
    tmp_path: Path, registry: PypiServer, ci: FakeCI
) -> None:
    """acme's own uploads must wait, and find places again as soon as the slow ones were given up; bolt's need not."""
    with front(tmp_path, registry, ci, uploads_at_once="16") as it, ExitStack() as stack:
        token, of_other = it.token(), it.token_of_bolt()
        slow = [stack.enter_context(it.begin(token, len(LARGE_BODY), BEGUN)) for _ in range(MANY)]
        with dripping(slow) as answers:
            assert eventually(lambda: len(it.spooled()) == 0 and it.refused().total() == 0)
            for number in range(10, 20):
                assert it.post(of_bolt(number), of_other).status_code == 200
            busy = it.post(upload(), token)
            assert (busy.status_code, busy.json()["errors"][0]["code"]) == (503, "uploads-busy")
            assert busy.headers["Retry-After"] == "10"
            assert eventually(lambda: it.refused()["slow-upload"] + it.refused()["uploads-busy"] > MANY, 60)
            assert len(answers) <= MANY
            assert it.post(of_acme(10), token).status_code == 200
        codes = it.refused()
        assert codes["slow-upload"] >= 8
        assert set(codes) - {"None"} == {"slow-upload", "uploads-busy"}
        assert it.spooled() == []


CUTS = [0, 1, 2000, BEGUN_BYTES - 1, len(BEGUN), len(BEGUN) + BEGUN_BYTES, len(LARGE_BODY) - 3]


def test_a_place_is_free_again_whenever_its_client_went(tmp_path: Path, registry: PypiServer, ci: FakeCI) -> None:
    with front(tmp_path, registry, ci, uploads_at_once="1", spool_limit_bytes="1048576", upload_limit_bytes="1048576") as it:
        token, of_other = it.token(), it.token_of_bolt()
        for number, cut in enumerate(CUTS, start=100):
            for reset in (False, True):
                with it.begin(token, len(LARGE_BODY), LARGE_BODY[:cut]) as connection:
                    time.sleep(0.1)
                    if reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            assert it.post(of_bolt(number), of_other).status_code == 200
        # Before it has a place, waiting for one.
        with it.begin(token, len(LARGE_BODY), BEGUN):
            time.sleep(0.1)
            it.begin(token, len(LARGE_BODY), BEGUN).close()
            it.begin(of_other, len(LARGE_BODY), LARGE_BODY).close()
            time.sleep(0.1)
        assert it.post(of_bolt(200), of_other).status_code == 200
        assert eventually(lambda: it.refused()["truncated-upload"] == 2 * len(CUTS) + 2)
        assert it.spooled() == []


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


def test_a_slow_registry_does_not_make_a_client_slow(tmp_path: Path, ci: FakeCI, registry: PypiServer) -> None:
    """At a pace that its own time would break many times over."""
    with front(tmp_path, registry, ci, upload_bytes_per_second=str(1 << 40)) as it:
        registry.process.send_signal  # type: ignore[union-attr]
        assert it.post(of_acme(400), it.token()).status_code == 200
