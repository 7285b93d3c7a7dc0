"""Installers through each real proxy with TLS, which asks a real broker before a real pypiserver is read."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import re
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import httpx
import pytest

from broker.gateway import USER as TOKEN_USER
from broker.playground.certificates import Certificates, make_certificates
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.playground.packages import Outcome, Uv
from tests import servers
from tests.devpi import Devpi
from tests.gateway.uploads import CONTENT_TYPE, pack_sdist, upload
from tests.proxies import EACH, Proxy, serving_proxy
from tests.registries import PASSWORD, USER, PypiServer, pypi_server

READER = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SECRET = b"only the victim's readers may see this"
VICTIM = "victim-1.0.tar.gz"
LOCAL = "acme_widgets-0.9+cpu.tar.gz"

TRICKS = (
    *("/", "/simple", "/simple/", "/packages/", "/simple/victim/", f"/packages/{VICTIM}", "/victim/json", "/victim/"),
    *("/simple/acme-widgets/../victim/", "/simple/acme-widgets/%2e%2e/victim/", "/simple/acme-widgets/..%2fvictim/"),
    *("/simple/acme-widgets%2f..%2fvictim/", "/simple/acme-widgets/.%2e/victim/", "/simple/victim/?acme-widgets"),
    *("//simple/victim/", "/simple//victim/", "/simple/./victim/", "/simple/victim/;/acme-widgets/"),
    *("/simple/acme-widgets\\..\\victim/", "/simple/acme-widgets/%5c..%5cvictim/", "/simple/%76ictim/"),
    *(f"/packages/acme-widgets/../{VICTIM}", f"/packages/acme..%2f{VICTIM}", f"/packages/..{VICTIM}"),
    *(f"/packages//{VICTIM}", f"/packages/./{VICTIM}", "/packages/%76ictim-1.0.tar.gz"),
    *("http://127.0.0.1/simple/victim/", f"http://127.0.0.1/packages/{VICTIM}", "*"),
    *("/SIMPLE/victim/", f"/simple/acme-widgets/{VICTIM}"),
    *(f"/simple/acme-widgets/../../packages/{VICTIM}", f"/packages/{VICTIM}?/packages/acme_widgets-1.0.tar.gz"),
    *(f"/packages/{VICTIM}#/acme_widgets-1.0.tar.gz", "/_/authorize", "/_/authorize/simple/acme-widgets/"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What is behind a proxy, and a job that may read one project of it."""

    url: str
    token: str
    folder: Path
    certificates: Certificates
    simple: str = "/simple/"

    @property
    def index(self) -> str:
        """As an installer is told it, credentials and all."""
        return self.url.replace("https://", f"https://{TOKEN_USER}:{self.token}@") + self.simple

    @property
    def environment(self) -> dict[str, str]:
        """An installer's."""
        trusted = str(self.certificates.trusted)
        return {"SSL_CERT_FILE": trusted, "PIP_CERT": trusted, "NO_PROXY": "127.0.0.1", "PIP_CONFIG_FILE": "/dev/null"}

    def send(
        self,
        target: str,
        more: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
        token: str | None = None,
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """A request with that very target."""
        where, shown = urlsplit(self.url), self.token if token is None else token
        context = ssl.create_default_context(cafile=self.certificates.authority)
        connection = http.client.HTTPSConnection(str(where.hostname), where.port, timeout=30, context=context)
        credentials = base64.b64encode(f"{TOKEN_USER}:{shown}".encode()).decode()
        told = {"Authorization": f"Basic {credentials}"} if shown else {}
        with contextlib.closing(connection):
            connection.request(method, target, body=body, headers={**told, **(more or {})})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind(Site):
    """The same, and what is behind it."""

    registry: PypiServer
    stop_broker: Callable[[], None]


@pytest.fixture(name="project", scope="module")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a built wheel and sdist of acme-widgets."""
    folder = tmp_path_factory.mktemp("project")
    Uv.find(folder / "home").build("acme-widgets", "1.0", folder)
    return folder / "dist"


@pytest.fixture(name="site", scope="module", params=EACH)
def _site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, project: Path) -> Iterator[Behind]:
    with serving(request.param, tmp_path_factory.mktemp("site"), project) as site:
        yield site


@contextlib.contextmanager
def serving(proxy: Proxy, folder: Path, project: Path) -> Iterator[Behind]:
    """All of it."""
    with (
        serving_ci() as ci,
        pypi_server(folder / "registry", authenticate="update, download, list") as registry,
        contextlib.ExitStack() as stack,
    ):
        for file in project.iterdir():
            (registry.packages / file.name).write_bytes(file.read_bytes())
        (registry.packages / LOCAL).write_bytes(b"of a local version")
        (registry.packages / VICTIM).write_bytes(SECRET)
        broker = stack.enter_context(asked(folder, ci, registry, proxy))
        certificates = make_certificates(folder)
        behind = serving_proxy(
            proxy, folder / "proxy", certificates, broker=port_of(broker), registry=registry.port, reader=READER
        )
        with behind as url:
            yield Behind(
                url=url,
                token=minted(broker, ci, scope="read"),
                folder=folder,
                certificates=certificates,
                registry=registry,
                stop_broker=stack.close,
            )


def asked(
    folder: Path, ci: FakeCI, registry: PypiServer, proxy: Proxy
) -> contextlib.AbstractContextManager[servers.Served]:
    """The broker that the proxy asks."""
    return servers.broker(
        folder,
        ci,
        reads="scoped",
        forward_auth=proxy,
        registry_url=registry.url,
        registry_username=USER,
        registry_password=PASSWORD,
    )


def port_of(broker: servers.Served) -> int:
    """Where it listens."""
    return int(urlsplit(broker.url).port or 0)


def minted(broker: servers.Served, ci: FakeCI, **more: str) -> str:
    """A token of the job's."""
    url = f"{broker.url}/_/oidc/mint-token"
    answer = httpx.post(url, json={"token": ci.token(), **more}, trust_env=False, timeout=30)
    assert answer.status_code == httpx.codes.OK, answer.text
    return str(answer.json()["token"])


def installed(site: Site, client: str, index: list[str], name: str, into: Path) -> Outcome:
    """Runs pip or uv."""
    uv, into_it = Uv.find(site.folder / "home"), ["--no-deps", "--target", str(into), name]
    if client == "uv":
        return uv.run(["pip", "install", "--no-cache", *index, *into_it], site.folder, site.environment)
    pip = replace(uv, program=Path(sys.executable))
    options = ["--isolated", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]
    return pip.run(["-m", "pip", "install", *options, *index, *into_it], site.folder, site.environment)


@pytest.mark.parametrize("client", ["pip", "uv"])
def test_installers_install_what_the_token_covers(site: Behind, tmp_path: Path, client: str) -> None:
    outcome = installed(site, client, ["--index-url", site.index], "acme-widgets", tmp_path / "into")
    assert outcome.status == 0, outcome.output
    assert (tmp_path / "into" / "acme_widgets" / "__init__.py").is_file()


@pytest.mark.parametrize("client", ["pip", "uv"])
def test_installers_find_nothing_of_another_project(site: Behind, tmp_path: Path, client: str) -> None:
    outcome = installed(site, client, ["--index-url", site.index], "victim", tmp_path / "into")
    assert outcome.status != 0
    assert not list((tmp_path / "into").glob("victim*"))
    assert site.send("/simple/victim/")[0] == httpx.codes.NOT_FOUND


def test_uv_goes_on_to_the_next_index_for_what_the_token_does_not_cover(site: Behind, tmp_path: Path) -> None:
    with pypi_server(tmp_path / "other") as other:
        built = Uv.find(tmp_path / "home").build("left-pad", "1.0", tmp_path / "left-pad")
        for name in built:
            (other.packages / name).write_bytes((tmp_path / "left-pad" / "dist" / name).read_bytes())
        index = ["--index", site.index, "--default-index", f"{other.url}simple/"]
        outcome = installed(site, "uv", index, "left-pad", tmp_path / "into")
    assert outcome.status == 0, outcome.output


def test_a_file_comes_whole_and_a_head_has_no_body(site: Behind) -> None:
    stored = site.registry.stored()
    for name in stored.keys() - {VICTIM}:
        for spelled in {name, quote(name)}:
            status, body, _ = site.send(f"/packages/{spelled}")
            assert (status, hashlib.sha256(body).hexdigest()) == (200, stored[name])
            assert site.send(f"/packages/{spelled}", method="HEAD")[:2] == (200, b"")


def test_a_redirect_of_the_registry_stays_where_the_client_is(site: Behind) -> None:
    for target in ("/simple/Acme_Widgets/", "/simple/acme-widgets"):
        status, _, headers = site.send(target)
        assert (status, urljoin(site.url, headers["location"])) == (301, f"{site.url}/simple/acme-widgets/")


@pytest.mark.parametrize("target", TRICKS)
def test_no_path_reads_what_the_token_does_not_cover(site: Behind, target: str) -> None:
    status, body, headers = site.send(target)
    assert status in {301, 307, 308, 400, 403, 404}, (status, body)
    if status in {301, 307, 308}:  # the proxy's own, to the path cleaned up: that is refused
        where = urlsplit(headers["location"]).path
        assert site.send(where)[0] in {400, 403, 404}, where
    assert SECRET not in body
    assert not re.search(rb"href=.*victim", body)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("target", ["/", "/simple/acme-widgets/", "/legacy/"])
def test_no_upload_passes_and_nothing_is_stored(site: Behind, method: str, target: str) -> None:
    before = site.registry.stored()
    content = pack_sdist()
    for token in (site.token, ""):
        status, body, _ = site.send(
            target, {"Content-Type": CONTENT_TYPE}, method=method, body=upload(content), token=token
        )
        assert (status, b"not-a-read" in body) == (403, True), body
    assert site.registry.stored() == before


def test_without_a_good_token_nothing_is_read(site: Behind) -> None:
    status, body, headers = site.send("/simple/acme-widgets/", token="")
    assert (status, b"acme_widgets" in body) == (401, False)
    assert headers["www-authenticate"].startswith("Basic ")
    status, body, headers = site.send("/simple/acme-widgets/", token="pypi-nonsense")
    assert (status, b"invalid-upload-token" in body, b"acme_widgets" in body) == (403, True, False)
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]{10}", headers["attempt-id"])


def test_a_client_s_own_words_about_the_path_are_not_heard(site: Behind) -> None:
    for prefix in ("X-Original", "X-Forwarded"):
        told = {f"{prefix}-Method": "GET", f"{prefix}-URI": "/simple/acme-widgets/"}
        # As if those were for the first hop alone, and so not to be sent on.
        hop = {**told, "Connection": ", ".join(("close", *told))}
        for headers in (told, hop):
            status, body, _ = site.send("/simple/victim/", headers)
            assert (status in {403, 404}, SECRET in body) == (True, False)
            status, body, _ = site.send("/", headers, method="POST", body=b"x")
            assert status == httpx.codes.FORBIDDEN


def test_refusals_say_why_and_no_answer_has_a_credential(site: Behind) -> None:
    status, body, headers = site.send("/simple/victim/")
    assert (status, b"not-in-index" in body) == (404, True)
    assert headers["content-type"] == "application/problem+json"
    for target in ("/simple/acme-widgets/", "/simple/victim/", "/simple/", "/_/authorize"):
        _, body, headers = site.send(target)
        for secret in (READER, PASSWORD, site.token):
            assert secret.encode() not in body
            assert secret not in str(headers)


@pytest.mark.parametrize("proxy", EACH)
def test_while_the_broker_is_down_nothing_is_read(tmp_path: Path, project: Path, proxy: Proxy) -> None:
    with serving(proxy, tmp_path, project) as site:
        assert site.send("/simple/acme-widgets/")[0] == httpx.codes.OK
        site.stop_broker()
        for target in ("/simple/acme-widgets/", f"/packages/{VICTIM}", "/simple/"):
            status, body, _ = site.send(target)
            assert (status >= httpx.codes.INTERNAL_SERVER_ERROR, SECRET in body) == (True, False)


def test_devpi_is_read_through_nginx(tmp_path: Path, project: Path, devpi: Devpi) -> None:
    index = devpi.index()
    root, where = urlsplit(index.url).path, urlsplit(index.url).port
    files, uv = sorted(map(str, project.iterdir())), Uv.find(tmp_path / "home")
    told = ["--publish-url", index.url, "--username", index.username, "--password", index.password]
    published = uv.run(["publish", "--trusted-publishing", "never", *told, *files], tmp_path)
    assert published.status == 0, published.output
    assert where is not None
    certificates, reader = make_certificates(tmp_path), f"{index.username}:{index.password}"
    registry = {"registry_url": index.url, "registry_index_url": f"{index.url}+simple/"}
    with (
        serving_ci() as ci,
        servers.broker(tmp_path, ci, reads="scoped", forward_auth="nginx", **registry) as broker,
        serving_proxy(
            "nginx",
            tmp_path / "proxy",
            certificates,
            broker=port_of(broker),
            registry=where,
            reader=base64.b64encode(reader.encode()).decode(),
        ) as url,
    ):
        token = minted(broker, ci, scope="read")
        site = Site(url=url, token=token, folder=tmp_path, certificates=certificates, simple=f"{root}+simple/")
        for client in ("pip", "uv"):
            outcome = installed(site, client, ["--index-url", site.index], "acme-widgets", tmp_path / client)
            assert outcome.status == 0, outcome.output
        for target in (
            root,
            f"{root}+simple/",
            f"{root}acme-widgets",
            "/",
            "/+api",
            f"{root}+api",
            f"{root}+simple/victim/",
        ):
            assert site.send(target)[0] == httpx.codes.NOT_FOUND, target
        assert site.send("/+login", method="POST", body=b"{}")[0] == httpx.codes.FORBIDDEN
