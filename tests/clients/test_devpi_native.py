"""Straight to a real devpi with tokens of its own, that the broker narrowed: what they open, and what they do not."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import httpx
import pymacaroons  # type: ignore[import-untyped]  # it has no types
import pytest

from broker.devpi import ParentToken
from broker.playground.packages import Uv
from broker.playground.processes import Command, free_port, running
from tests.clients.conftest import Bench
from tests.clients.test_devpi import WithDevpi, arrived
from tests.clients.test_twine import UPLOAD, credentials, files
from tests.clients.test_uv import PUBLISH
from tests.devpi import TOKEN_USER, Devpi, DevpiIndex
from tests.gateway.uploads import CONTENT_TYPE, WHEEL, fields_of, join, pack_wheel, parts_of, upload
from tests.servers import variables
from tests.test_mounting import APPLICATION

FILE = pack_wheel()
VICTIM = "victim-1.0-py3-none-any.whl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """Two indexes of a devpi that take its tokens, and the parent that the broker narrows for the first."""

    index: DevpiIndex
    other: DevpiIndex
    parent: str

    def ask(self, token: str, body: bytes, *, method: str = "POST", path: str = "", kind: str = CONTENT_TYPE) -> int:
        """The status that devpi answers to one request below the index, or to another path."""
        return httpx.request(
            method,
            path if path.startswith("http") else self.index.url + path,
            content=body,
            headers={"Content-Type": kind},
            auth=(TOKEN_USER, token),
            trust_env=False,
        ).status_code


@pytest.fixture(name="native", scope="module")
def _native(devpi: Devpi) -> Native:
    index, other = devpi.index(), devpi.index()
    planted = httpx.post(
        index.url,
        content=victim(version="1.0"),
        headers={"Content-Type": CONTENT_TYPE},
        auth=(index.username, index.password),
        trust_env=False,
    )
    assert planted.status_code == 200, planted.text
    # As broad as devpi makes them by itself: nothing below is the parent's merit.
    return Native(index=index, other=other, parent=devpi.parent_token())


@pytest.fixture(name="bench", scope="module")
def _bench(tmp_path_factory: pytest.TempPathFactory, native: Native) -> Iterator[Bench]:
    settings = {
        "BROKER_UPLOAD_TOKENS": "devpi",
        "BROKER_DEVPI_TOKEN": native.parent,
        "BROKER_REGISTRY_URL": native.index.url,
    }
    with WithDevpi(tmp_path_factory.mktemp("playground"), settings) as playground:
        yield Bench(playground=playground, uv=Uv.find(playground.folder / "home"))


def victim(**changes: str | list[str] | None) -> bytes:
    """An upload of another project."""
    told: dict[str, str | Sequence[str] | None] = {"name": "victim", "version": "1.1", **changes}
    fields = fields_of(FILE, WHEEL, **told)
    return join(parts_of(fields, FILE, f"victim-{changes.get('version') or '1.1'}-py3-none-any.whl"))


def without_the_last(token: str) -> str:
    """A token whose last restriction, its projects, was cut out."""
    macaroon = pymacaroons.Macaroon.deserialize(token.removeprefix("devpi-"))
    assert macaroon.caveats.pop().caveat_id == b"projects=acme-widgets"
    return f"devpi-{macaroon.serialize()}"


@pytest.mark.parametrize("client", ["uv", "twine"])
def test_a_client_uploads_straight_to_devpi_with_a_token_of_the_broker_s(
    bench: Bench, native: Native, client: str
) -> None:
    release, token, before = bench.release(), bench.mint(), bench.playground.records()
    url = native.index.url
    arguments, environment = {
        "uv": (["publish"], {"UV_PUBLISH_TOKEN": token, "UV_PUBLISH_URL": url}),
        "twine": ([*UPLOAD, *files(release)], {**credentials(token), "TWINE_REPOSITORY_URL": url}),
    }[client]
    outcome = bench.run(client, arguments, release, environment)
    assert outcome.status == 0, outcome.output
    assert arrived(native.index, release) == release.files
    assert bench.new_records(before) == [], "no upload passes the broker"


def test_a_client_uploads_no_other_project(bench: Bench, native: Native) -> None:
    release, token = bench.release("acme-gadgets"), bench.mint()
    environment = {"UV_PUBLISH_TOKEN": token, "UV_PUBLISH_URL": native.index.url}
    outcome = bench.run("uv", ["publish"], release, environment)
    assert outcome.status != 0
    assert "403" in outcome.output
    assert arrived(native.index, release) == {}


def test_an_expired_token_uploads_nothing(native: Native) -> None:
    parent = ParentToken.parse(native.parent, native.index.name)
    before = native.index.stored()
    for expires, status in ((int(time.time()) - 1, 403), (int(time.time()) + 900, 200)):
        narrowed = ("allowed=upload", f"expires={expires}", f"indexes={native.index.name}", "projects=acme-widgets")
        assert native.ask(parent.narrow(narrowed), upload()) == status
        assert (native.index.stored() == before) == (status == 403)


PROXY = """
import os

import httpx
from starlette.responses import Response


async def devpi(request):
    headers = {name: request.headers[name] for name in ("authorization", "content-type")}
    async with httpx.AsyncClient(base_url=os.environ["DEVPI"], trust_env=False) as client:
        answer = await client.post(request.url.path, content=await request.body(), headers=headers)
    return Response(answer.content, answer.status_code)


app.routes.insert(0, Route("/acme/{rest:path}", devpi, methods=["POST"]))
"""
"""One host for both, as nginx would make it: tokens from the broker, all below /acme/ from devpi."""


def test_uv_s_own_trusted_publishing_goes_to_devpi_where_both_share_a_host(bench: Bench, native: Native) -> None:
    """And the broker is mounted in an application that serves something else too."""
    folder, port = bench.playground.folder / "shared", free_port()
    folder.mkdir()
    (folder / "application.py").write_text(APPLICATION + PROXY, encoding="utf-8")
    settings = {
        "upload_tokens": "devpi",
        "devpi_token": native.parent,
        "registry_url": native.index.url,
        "public_url": f"https://127.0.0.1:{port}",
        "upload_path": f"/{native.index.name}/",
    }
    certificates = bench.playground.certificates
    command = Command(
        name="devpi and the broker on one host",
        module="uvicorn",
        arguments=(
            *("application:app", "--port", str(port)),
            *("--ssl-certfile", str(certificates.certificate), "--ssl-keyfile", str(certificates.key)),
        ),
        environment={**variables(folder, bench.playground.ci, **settings), "DEVPI": native.index.devpi.url},
        folder=folder,
        log=folder / "log",
    )
    context = ssl.create_default_context(cafile=str(certificates.authority))
    root = f"https://127.0.0.1:{port}"

    def is_there() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{root}/hello", verify=context, trust_env=False).is_success
        return False

    release, run = bench.release(), bench.playground.ci.start_run()
    with running(command, is_there):
        environment = {**run.environment, "UV_PUBLISH_URL": f"{root}/{native.index.name}/"}
        outcome = bench.run("uv", PUBLISH, release, environment)
    assert outcome.status == 0, outcome.output
    assert [masked[:6] for masked in outcome.masked] == ["devpi-"]
    assert arrived(native.index, release) == release.files


TRICKS: dict[str, Callable[[Native, str], int]] = {
    "another project": lambda native, token: native.ask(token, victim()),
    "another project, named last": lambda native, token: native.ask(token, victim(name=["acme-widgets", "victim"])),
    "another project, named first": lambda native, token: native.ask(token, victim(name=["victim", "acme-widgets"])),
    "a file of another project": lambda native, token: native.ask(token, victim(name="acme-widgets")),
    "no name": lambda native, token: native.ask(token, victim(name=None)),
    "no action": lambda native, token: native.ask(token, victim(action=None)),
    "an empty action": lambda native, token: native.ask(token, victim(action="")),
    "the action in the query": lambda native, token: native.ask(
        token, victim(action=None), path="?:action=file_upload&name=acme-widgets"
    ),
    "another's metadata": lambda native, token: native.ask(token, victim(action="submit")),
    "another's documentation": lambda native, token: native.ask(token, victim(action="doc_upload")),
    "another index": lambda native, token: native.ask(token, upload(), path=native.other.url),
    "pushing another project to another index": lambda native, token: native.ask(
        token,
        json.dumps({"name": "victim", "version": "1.0", "targetindex": native.other.name}).encode(),
        kind="application/json",
    ),
    "removing a project": lambda native, token: native.ask(token, b"", method="DELETE", path="victim"),
    "removing its own project": lambda native, token: native.ask(token, b"", method="DELETE", path="acme-widgets"),
    "removing the index": lambda native, token: native.ask(token, b"", method="DELETE"),
    "opening the index": lambda native, token: native.ask(
        token, b'{"acl_upload": [":ANONYMOUS:"]}', method="PATCH", kind="application/json"
    ),
    "making a token": lambda native, token: native.ask(
        token, b"{}", path=f"{native.index.devpi.url}/{TOKEN_USER}/+token-create", kind="application/json"
    ),
    "taking the last restriction away": lambda native, token: native.ask(without_the_last(token), victim()),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_token_opens_nothing_but_uploads_of_its_projects(bench: Bench, native: Native, trick: str) -> None:
    before, token = (native.index.stored(), native.other.stored()), bench.mint()
    assert TRICKS[trick](native, token) in {400, 401, 403}
    assert (native.index.stored(), native.other.stored()) == before


def test_devpi_does_not_hold_the_file_against_its_digest(bench: Bench, native: Native) -> None:
    """Why the gateway is the better way where it can stand: the how-to says so, for as long as this passes."""
    body = upload(
        pack_wheel() + b"more",
        "acme_widgets-1.0-7-py3-none-any.whl",
        sha256_digest="0" * 64,
        blake2_256_digest="0" * 64,
    )
    assert native.ask(bench.mint(), body) == 200
