"""The real clients through a real nginx with TLS, as deploy/nginx.conf has it; the broker itself speaks plain HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket
import ssl
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker.playground.packages import Uv
from broker.playground.processes import free_port
from broker.playground.session import Playground
from tests.clients.conftest import Bench, Release
from tests.clients.test_installs import INSTALLERS, index_url, install
from tests.clients.test_maturin import upload as maturin_upload
from tests.clients.test_pdm import QUIET
from tests.clients.test_twine import UPLOAD, credentials, files
from tests.clients.test_uv import PUBLISH
from tests.gateway.uploads import CONTENT_TYPE, WHEEL, pack_wheel, upload, wheel_entries
from tests.nginx import Nginx, serving_nginx
from tests.web.test_upload_refusals import basic

LARGE = 3_000_000


class BehindNginx(Playground):
    """A playground whose URL is nginx's."""

    nginx: Nginx

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.spool = folder / "spool"
        self._broker_port = str(free_port())

    def _start_broker(self) -> None:
        names = {
            "PUBLIC_NAME": "127.0.0.1",
            "BROKER": f"127.0.0.1:{self._broker_port}",
            "CERTIFICATE": str(self.certificates.certificate),
            "CERTIFICATE_KEY": str(self.certificates.key),
        }
        self.spool.mkdir()
        port = urlsplit(self.url).port
        assert port is not None
        self.nginx = self._broker.enter_context(serving_nginx(self.folder / "nginx", port, names))
        super()._start_broker()

    def _broker_settings(self) -> Mapping[str, str]:
        kept = {name: told for name, told in super()._broker_settings().items() if not name.startswith("BROKER_TLS_")}
        more = {"BROKER_PORT": self._broker_port, "BROKER_SPOOL": str(self.spool), "BROKER_READS": "scoped"}
        return {**kept, **more}


@pytest.fixture(name="behind", scope="module")
def _behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BehindNginx]:
    with BehindNginx(tmp_path_factory.mktemp("playground")) as playground:
        yield playground


@pytest.fixture(name="bench", scope="module")
def _bench(behind: BehindNginx) -> Bench:
    return Bench(playground=behind, uv=Uv.find(behind.folder / "home"))


def enlarged(release: Release) -> Release:
    """The same with a wheel of more than nginx's own limit."""
    (wheel,) = release.folder.rglob("*.whl")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("acme_widgets/noise.bin", secrets.token_bytes(LARGE))
    release.files[wheel.name] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return release


def test_uv_exchanges_uploads_and_burns(bench: Bench, behind: BehindNginx) -> None:
    release, before, asked = bench.release(), behind.records(), len(behind.nginx.requests())
    outcome = bench.run("uv", PUBLISH, release, dict(behind.ci.start_run().environment))
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == release.files
    kinds = [record["kind"] for record in bench.new_records(before)]
    assert kinds == ["mint", "upload", "upload", "revocation"]
    assert behind.nginx.requests()[asked:] == [
        "GET /_/oidc/audience 200",
        "POST /_/oidc/mint-token 200",
        "POST /legacy/ 200",
        "POST /legacy/ 200",
        "POST /_/oidc/burn-token 202",
    ]


@pytest.mark.parametrize("client", ["pdm", "maturin"])
def test_others_find_their_routes_too(bench: Bench, behind: BehindNginx, client: str) -> None:
    release, asked = bench.release(), len(behind.nginx.requests())
    arguments = {"pdm": ["publish", "--no-build"], "maturin": maturin_upload(bench, release)}[client]
    outcome = bench.run(client, arguments, release, {**QUIET, **behind.ci.start_run().environment})
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == release.files
    mint = {"pdm": "/_/oidc/mint-token", "maturin": "/_/oidc/github/mint-token"}[client]
    assert behind.nginx.requests()[asked:] == [
        "GET /_/oidc/audience 200",
        f"POST {mint} 200",
        "POST /legacy/ 200",
        "POST /legacy/ 200",
    ]


def test_twine_uploads_more_than_nginx_takes_by_itself(bench: Bench) -> None:
    release = enlarged(bench.release())
    outcome = bench.run("twine", [*UPLOAD, *files(release)], release, credentials(bench.mint()))
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == release.files


def test_a_refusal_before_the_body_is_seen_by_a_client_that_sends_it_all(bench: Bench, behind: BehindNginx) -> None:
    release, token = enlarged(bench.release()), bench.mint()
    with behind.client() as client:
        client.post("/_/oidc/burn-token", json={"token": token})
    asked = len(behind.nginx.requests())
    outcome = bench.run("uv", ["publish"], release, {"UV_PUBLISH_TOKEN": token})
    assert outcome.status != 0
    assert outcome.refusal_code == "revoked-token", outcome.output
    assert behind.nginx.requests()[asked:] == ["POST /legacy/ 403"], "once, and not again"
    assert bench.stored(release) == {}


def test_a_refusal_comes_before_the_body_does(behind: BehindNginx) -> None:
    """Were the body held until it is whole, a refused client would send all of it for nothing."""
    already = refused(behind, "invalid-upload-token")
    with begun(behind, 100, "pypi-nonsense") as connection:
        wait_for(lambda: refused(behind, "invalid-upload-token") == already + 1)
        connection.sendall(b"x" * 100)
        assert connection.recv(12) == b"HTTP/1.1 403"


def test_an_upload_token_as_long_as_the_broker_takes_passes(behind: BehindNginx) -> None:
    with behind.client() as client:
        told = {"Authorization": basic("pypi-" + "x" * 32_000), "Content-Type": CONTENT_TYPE}
        answer = client.post("/legacy/", content=upload(), headers=told)
    assert answer.status_code == 403
    assert answer.json()["errors"][0]["code"] == "invalid-upload-token"


@pytest.mark.parametrize("installer", INSTALLERS)
def test_pip_and_uv_install_through_it(bench: Bench, behind: BehindNginx, installer: str, tmp_path: Path) -> None:
    release, asked = bench.release(), len(behind.nginx.requests())
    outcome = bench.run("twine", [*UPLOAD, *files(release)], release, credentials(bench.mint()))
    assert outcome.status == 0, outcome.output
    url = index_url(bench, bench.mint(scope="read"))
    outcome = install(bench, installer, tmp_path / "it", "--index-url", url, f"acme-widgets=={release.version}")
    assert outcome.status == 0, outcome.output
    assert (
        tmp_path / "it" / "acme_widgets" / "__init__.py"
    ).read_text().strip() == f'__version__ = "{release.version}"'
    (wheel,) = (name for name in release.files if name.endswith(".whl"))
    # Where there is no metadata file, uv reads it out of the wheel by a range; pip fetches the wheel.
    told = {"uv": ["HEAD {} 200", "GET {} 206", "GET {} 200"], "pip": ["GET {} 200"]}[installer]
    assert behind.nginx.requests()[asked:][4:] == [
        "GET /simple/acme-widgets/ 200",
        *(one.format(f"/files/acme-widgets/{wheel}") for one in told),
    ]


def test_a_reader_that_vanishes_is_seen_through_it(bench: Bench, behind: BehindNginx) -> None:
    (behind.registry.packages / "acme_widgets-0.1.tar.gz").write_bytes(bytes(50 << 20))
    path = "/files/acme-widgets/acme_widgets-0.1.tar.gz"
    with connected(behind) as connection:
        told = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {basic(bench.mint(scope='read'))}\r\n\r\n"
        connection.sendall(told.encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert to_registry(behind) == 1
    wait_for(lambda: to_registry(behind) == 0)


def test_a_client_that_vanishes_leaves_nothing(bench: Bench, behind: BehindNginx) -> None:
    file = pack_wheel(wheel_entries(**{"acme_widgets/noise.bin": secrets.token_bytes(LARGE)}))
    body = upload(file)
    before, already = behind.registry.stored(), refused(behind, "truncated-upload")
    with begun(behind, len(body), bench.mint()) as connection:
        connection.sendall(body[: len(body) * 6 // 10])
        # One that vanishes sooner may be gone before nginx has said a word to the broker.
        wait_for(lambda: spooled(behind) != [])
    wait_for(lambda: refused(behind, "truncated-upload") == already + 1)
    assert behind.registry.stored() == before
    assert spooled(behind) == []
    with behind.client() as client:
        told = {"Authorization": basic(bench.mint()), "Content-Type": CONTENT_TYPE}
        again = client.post("/legacy/", content=body, headers=told)
    assert again.status_code == 200, again.text
    assert behind.registry.stored() == {**before, WHEEL: hashlib.sha256(file).hexdigest()}


@pytest.mark.parametrize(
    "path",
    [
        *("/_/oidc/audience", "/_/oidc/burn-token", "/oauth2/token", "/healthz", "/readyz"),
        *("/.well-known/pytp", "/.well-known/jwks.json", "/legacy", "/legacy/", "/legacy/%2Bsimple/acme-widgets/"),
        *("/simple", "/simple/", "/simple/acme-widgets", "/simple/acme-widgets/", "/files/acme-widgets/x.whl"),
        *("/api/token", "/api/organizations/acme/audit?limit=1", "/api/switches/publisher/acme/widgets-release"),
    ],
)
def test_what_clients_ask_is_handed_on(behind: BehindNginx, path: str) -> None:
    with behind.client() as client:
        assert "attempt-id" in client.get(path).headers, "the broker says so with each of its answers"


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/",
        "/legacy/../metrics",
        "/_/%2e%2e/metrics",
        "/files/../metrics",
        "/simple/%2e%2e/",
        "/simplex",
        "/apis",
        "/files",
    ],
)
def test_nothing_else_is_handed_on(behind: BehindNginx, path: str) -> None:
    with connected(behind) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"attempt-id" not in answer.lower()


def connected(behind: BehindNginx) -> ssl.SSLSocket:
    """A connection that clients of any manners can be made of."""
    where = urlsplit(behind.url)
    context = ssl.create_default_context(cafile=behind.certificates.authority)
    connection = socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=30)
    return context.wrap_socket(connection, server_hostname=where.hostname)


def begun(behind: BehindNginx, declared: int, token: str) -> ssl.SSLSocket:
    """The head of an upload is sent."""
    connection = connected(behind)
    connection.sendall(
        f"POST /legacy/ HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {basic(token)}\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {declared}\r\n\r\n".encode()
    )
    return connection


def refused(behind: BehindNginx, code: str) -> int:
    """How many uploads were, so far."""
    return sum(record.get("code") == code for record in behind.records())


def spooled(behind: BehindNginx) -> list[str]:
    """What any process of ours holds in the broker's spool: files with and without a name."""
    held = [str(path) for path in behind.spool.iterdir()]
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it was closed meanwhile, or is another user's
            held += [str(target) for target in [descriptor.readlink()] if behind.spool in target.parents]
    return held


def to_registry(behind: BehindNginx) -> int:
    """Connections to the registry that are open."""
    port = f":{urlsplit(behind.registry.url).port:04X} 01 "
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    return sum(" ".join(line.split()[2:4]).endswith(port.strip()) for line in lines)


def wait_for(condition: Callable[[], bool]) -> None:
    """Returns once it holds."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.02)
