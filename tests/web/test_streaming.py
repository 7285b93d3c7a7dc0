"""Files through the broker over real sockets: with registries that misbehave, and clients that do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn

from benchmarks.measuring import forget_peak, memory_mb
from broker import indexes
from broker.app import create_app
from broker.gateway import reads
from broker.gateway.pace import Pace
from broker.playground.ci_server import serving_ci
from broker.web import downloads
from tests import servers
from tests.gateway.test_registry import response, server_of
from tests.gateway.uploads import WHEEL, pack_wheel
from tests.gateway.wire import JSON
from tests.harness import Setup
from tests.registries import PASSWORD, USER, PypiServer, pypi_server
from tests.web.test_mint_refusals import check_refusal

pytestmark = pytest.mark.anyio

FILE = "acme_widgets-1.0.tar.gz"
PATH = f"/files/acme-widgets/{FILE}"
CHUNK = b"0123456789abcdef" * 4096
ENDLESS = 1 << 40
"""Bytes that are declared where it matters that they never come."""

Serve = Callable[["WireFiles", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class WireFiles:
    """A registry that lists one file, and gives it as a test tells it to."""

    serve: Serve
    heads: list[str] = field(default_factory=list)
    """Of the requests for the file."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request for the file is over, whoever ended it."""
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if " /simple/acme-widgets/ " in head:
            files = [{"filename": FILE, "url": f"../../f/{FILE}", "hashes": {}}]
            writer.write(response("200 OK", json.dumps({"files": files}).encode(), JSON))
            await writer.drain()
            return
        self.heads.append(head)
        try:
            await self.serve(self, reader, writer)
            await writer.drain()
        finally:
            self.closed.set()


def says(answer: bytes) -> Serve:
    """This answer, and closes."""

    async def serve(_: WireFiles, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return serve


def begins(declared: int, sent: int = 0) -> Serve:
    """Declares so many bytes, sends so many, and then nothing more until it is left."""

    async def serve(_: WireFiles, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {declared}\r\n\r\n".encode() + CHUNK[:sent])
        await writer.drain()
        await reader.read()

    return serve


async def pours(_: WireFiles, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As much as is taken."""
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n".encode())
    while True:
        writer.write(CHUNK)
        await writer.drain()


async def hangs(_: WireFiles, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Never answers."""
    await reader.read()


@contextlib.asynccontextmanager
async def through(folder: Path, registry_url: str, **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a broker that listens, in front of that registry."""
    told = {"registry_url": registry_url, "reads": "public", "registry_username": USER, "registry_password": PASSWORD}
    app = create_app(Setup(folder=folder, settings={**told, **settings}).write())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def wire(folder: Path, serve: Serve) -> AsyncIterator[tuple[WireFiles, httpx.AsyncClient]]:
    """The same in front of a registry that behaves so."""
    files = WireFiles(serve)
    async with server_of(files.handle) as files.url, through(folder, files.url) as client:
        yield files, client


# --- Registries that misbehave ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nnonsense\r\n",
    ],
)
async def test_half_a_file_is_never_taken_for_a_whole_one(tmp_path: Path, answer: bytes) -> None:
    async with wire(tmp_path, says(answer)) as (_, client):
        got = b""
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - it breaks off within
            async with client.stream("GET", PATH) as response:
                assert response.status_code == 200
                async for chunk in response.aiter_raw():
                    got += chunk
        assert got in {b"", b"half"}
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        (response("401 No"), "registry-credential", 502),
        (response("403 No"), "registry-credential", 502),
        (response("404 Not Found"), "not-in-index", 404),
        (response("500 Oops", b"<script>"), "registry-index", 502),
        (response("302 Found", headers="Location: http://127.0.0.1:1/file"), "registry-index", 502),
        (response("302 Found", headers="Location: /simple/acme-widgets/"), "registry-index", 502),
        (response("200 OK", b"\x1f\x8b", "Content-Encoding: gzip"), "registry-index", 502),
        (response("206 Partial", b"half", "Content-Range: bytes 0-3/8"), "registry-index", 502),
        (response("204 None"), "registry-index", 502),
        (response("416 No"), "registry-index", 502),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end of the connection", "registry-index", 502),
        (b"nonsense\r\n\r\n", "registry-unavailable", 502),
        (b"", "registry-unavailable", 502),
    ],
)
async def test_what_is_no_file_is_refused(tmp_path: Path, answer: bytes, code: str, status: int) -> None:
    async with wire(tmp_path, says(answer)) as (registry, client):
        got = await client.get(PATH)
        check_refusal(got, code, status)
        assert PASSWORD not in got.text
        assert len(registry.heads) == 1, "no redirect is followed"


async def test_a_file_whose_length_comes_with_its_pieces_is_passed_on(tmp_path: Path) -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"
    async with wire(tmp_path, says(whole)) as (_, client):
        answer = await client.get(PATH)
        assert (answer.status_code, answer.content) == (200, b"whole")


async def test_nothing_that_the_registry_says_beside_the_file_passes(tmp_path: Path) -> None:
    headers = 'Content-Type: text/html\r\nSet-Cookie: a=b\r\nETag: "x"\r\nContent-Disposition: inline\r\nLink: <x>'
    async with wire(tmp_path, says(response("200 OK", b"<script>", headers))) as (registry, client):
        answer = await client.get(PATH, headers={"Cookie": "c=d", "X-Forwarded-For": "1.2.3.4", "User-Agent": "me"})
        assert answer.content == b"<script>"
        assert set(answer.headers) - {"date"} == {
            *("attempt-id", "cache-control", "content-length", "content-type", "etag", "server"),
            "x-content-type-options",
        }
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
        asked = registry.heads[0].lower()
        assert "authorization: basic " in asked
        assert all(word not in asked for word in ("cookie", "forwarded", "user-agent: me", "range"))


async def test_a_header_that_is_no_ascii_is_left_out(tmp_path: Path) -> None:
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: "\xe2\x82\xac"\r\nLast-Modified: never\r\n\r\nx'
    async with wire(tmp_path, says(answer)) as (_, client):
        got = await client.get(PATH)
        assert (got.content, got.headers["last-modified"], "etag" in got.headers) == (b"x", "never", False)


@pytest.mark.parametrize("serve", [hangs, begins(1000, 10)])
async def test_a_registry_that_falls_silent_is_given_up(tmp_path: Path, serve: Serve) -> None:
    files = WireFiles(serve)
    async with (
        server_of(files.handle) as files.url,
        through(tmp_path, files.url, registry_timeout_seconds=1) as client,
    ):
        since = time.monotonic()
        with contextlib.suppress(httpx.RemoteProtocolError):
            check_refusal(await client.get(PATH), "registry-unavailable", 502)
            assert serve is hangs
        assert time.monotonic() - since < 5
        await asyncio.wait_for(files.closed.wait(), 5)


# --- Clients that misbehave ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def asked(client: httpx.AsyncClient) -> AsyncIterator[asyncio.StreamReader]:
    """A connection over which the file was asked for, and its head has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port, limit=4096)
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    try:
        yield reader
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("serve", [begins(1000, 10), begins(1000), pours])
async def test_when_a_client_vanishes_the_registry_is_left_at_once(tmp_path: Path, serve: Serve) -> None:
    """Also while the registry is silent, and whatever time it is given to be."""
    async with wire(tmp_path, serve) as (registry, client):
        async with asked(client):
            assert not registry.closed.is_set()
        await asyncio.wait_for(registry.closed.wait(), 3)


@pytest.mark.parametrize("bound", ["chunk", "pace"])
async def test_a_client_that_does_not_read_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    if bound == "chunk":
        monkeypatch.setattr(downloads, "CHUNK_SECONDS", 0.5)
    else:
        quick = functools.partial(Pace, grace_seconds=0.5)
        monkeypatch.setattr(indexes, "Pace", lambda **_: quick(bytes_per_second=1 << 40))
    async with wire(tmp_path, pours) as (registry, client), asked(client) as reader:
        await asyncio.wait_for(registry.closed.wait(), 10)
        got = 0
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(reader.read(1 << 20), 5):
                got += len(piece)
        assert 0 < got < ENDLESS, "what was on its way still comes, and then the end"


async def test_a_client_that_reads_in_its_own_time_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds in which the registry is waited for are not the client's."""
    quick = functools.partial(Pace, grace_seconds=0.2)
    monkeypatch.setattr(indexes, "Pace", lambda **_: quick(bytes_per_second=1 << 40))

    async def slowly(_: WireFiles, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for letter in b"whole":
            await asyncio.sleep(0.1)
            writer.write(bytes([letter]))

    async with wire(tmp_path, slowly) as (_, client):
        assert (await client.get(PATH)).content == b"whole"


# --- Where files are -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Listing:
    """A registry whose page of any project lists these files; each is its own name."""

    files: list[dict[str, object]]
    asked: list[str] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        path = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1]
        self.asked.append(path)
        if path.startswith("/simple/"):
            writer.write(response("200 OK", json.dumps({"files": self.files}).encode(), JSON))
        elif path.startswith("/gone/"):
            writer.write(response("404 Not Found"))
        else:
            writer.write(response("200 OK", path.rpartition("/")[2].encode()))
        await writer.drain()


async def test_where_a_file_is_is_remembered_and_forgotten_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "MOST_REMEMBERED", 2)
    listing = Listing([{"filename": f"{name}.whl", "url": f"/f/{name}.whl"} for name in "abc"])
    async with server_of(listing.handle) as url, through(tmp_path, url) as client:
        for name in "bcb":
            assert (await client.get(f"/files/acme-widgets/{name}.whl")).text == f"{name}.whl"
        assert listing.asked == ["/simple/acme-widgets/", "/f/b.whl", "/f/c.whl", "/f/b.whl"]
        # The oldest was forgotten as soon as it was read: it is found, but its page is asked each time.
        for _ in range(2):
            assert (await client.get("/files/acme-widgets/a.whl")).text == "a.whl"
        assert listing.asked[4:] == ["/simple/acme-widgets/", "/f/a.whl"] * 2
        await client.get("/files/acme-lib/b.whl")
        assert listing.asked[8:] == ["/simple/acme-lib/", "/f/b.whl"], "of one project is not of another"


async def test_a_file_that_is_gone_is_looked_for_anew(tmp_path: Path) -> None:
    listing = Listing([{"filename": "a.whl", "url": "/gone/a.whl", "core-metadata": True}])
    async with server_of(listing.handle) as url, through(tmp_path, url) as client:
        for name in ("a.whl", "a.whl.metadata"):
            check_refusal(await client.get(f"/files/acme-widgets/{name}"), "not-in-index", 404)
            listing.files[0]["url"] = "/f/a.whl"
            assert (await client.get(f"/files/acme-widgets/{name}")).text == name
            listing.files[0]["url"] = "/gone/a.whl"
            await client.get("/simple/acme-widgets/")
    assert listing.asked[:4] == ["/simple/acme-widgets/", "/gone/a.whl", "/simple/acme-widgets/", "/f/a.whl"]


async def test_metadata_is_served_where_the_page_says_that_it_is_there(tmp_path: Path) -> None:
    listing = Listing(
        [
            {"filename": "a.whl", "url": "/f/a.whl?x=1", "core-metadata": {"sha256": "ab" * 32}},
            {"filename": "b.whl", "url": "/f/b.whl"},
        ]
    )
    async with server_of(listing.handle) as url, through(tmp_path, url) as client:
        answer = await client.get("/files/acme-widgets/a.whl.metadata")
        assert (answer.text, answer.headers["content-type"]) == ("a.whl.metadata?x=1", "text/plain; charset=utf-8")
        check_refusal(await client.get("/files/acme-widgets/b.whl.metadata"), "not-in-index", 404)
        told = (await client.get("/simple/acme-widgets/", headers={"Accept": downloads.JSON})).json()["files"]
        assert [one.get("core-metadata") for one in told] == [{"sha256": "ab" * 32}, None]


@pytest.mark.parametrize(
    ("filename", "url"),
    [
        ("a.whl", "http://127.0.0.1:1/f/a.whl"),
        ("a.whl", "//elsewhere.example/f/a.whl"),
        ("a.whl", "https://127.0.0.1/f/a.whl"),
        (".a.whl", "/f/a.whl"),
        ("../a.whl", "/f/a.whl"),
        ("a\n.whl", "/f/a.whl"),
        ("á.whl", "/f/a.whl"),
        ("a" * 256, "/f/a.whl"),
        ("", "/f/a.whl"),
    ],
)
async def test_what_cannot_be_served_is_not_listed(tmp_path: Path, filename: str, url: str) -> None:
    """A file at another host among them: our credential does not go there, and no link leads past the broker."""
    listing = Listing([{"filename": filename, "url": url}, {"filename": "b.whl", "url": "/f/b.whl"}])
    async with server_of(listing.handle) as registry, through(tmp_path, registry) as client:
        told = (await client.get("/simple/acme-widgets/", headers={"Accept": downloads.JSON})).json()
        assert [one["filename"] for one in told["files"]] == ["b.whl"]
        listing.files.pop()
        check_refusal(await client.get("/simple/acme-widgets/"), "not-in-index", 404)


@pytest.mark.parametrize("name", ["unheld", "acme-widgets"])
async def test_what_the_registry_has_is_looked_for_nowhere_else_though_it_cannot_be_served(
    tmp_path: Path, name: str
) -> None:
    listing = Listing([{"filename": "a.whl", "url": "http://127.0.0.1:1/f/a.whl"}])
    public = "http://127.0.0.1:1/simple/"
    async with server_of(listing.handle) as url, through(tmp_path, url, fallback_index_url=public) as client:
        check_refusal(await client.get(f"/simple/{name}/"), "not-in-index", 404)
        listing.files.clear()
        answer = await client.get(f"/simple/{name}/")
        assert answer.headers.get("location") == ("http://127.0.0.1:1/simple/unheld/" if name == "unheld" else None)


async def test_names_of_files_are_quoted_in_links(tmp_path: Path) -> None:
    name = 'a b?c#d%41"<>&+.whl'
    listing = Listing([{"filename": name, "url": "/f/a.whl"}])
    async with server_of(listing.handle) as url, through(tmp_path, url) as client:
        (file,) = (await client.get("/simple/acme-widgets/", headers={"Accept": downloads.JSON})).json()["files"]
        assert file["filename"] == name
        assert (await client.get(file["url"])).text == "a.whl"


# --- Parts of a file -------------------------------------------------------------------------------------------------

CONTENT = pack_wheel()


@pytest.fixture(name="pypiserver", scope="module")
def _pypiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    with pypi_server(tmp_path_factory.mktemp("registry")) as registry:
        (registry.packages / WHEEL).write_bytes(CONTENT)
        yield registry


@pytest.mark.parametrize(
    ("asked_for", "status", "content"),
    [
        ("bytes=0-3", 206, CONTENT[:4]),
        ("bytes=-10", 206, CONTENT[-10:]),
        ("bytes=5-", 206, CONTENT[5:]),
        (f"bytes={len(CONTENT)}-", 416, None),
        ("bytes=", 200, CONTENT),
        ("bytes=-", 200, CONTENT),
        ("bytes=0-1,5-6", 200, CONTENT),
        ("bytes=\N{ARABIC-INDIC DIGIT ONE}-".encode().decode("latin-1"), 200, CONTENT),
        (f"bytes=0-{'9' * 16}", 200, CONTENT),
        ("lines=0-3", 200, CONTENT),
        ("", 200, CONTENT),
    ],
)
async def test_a_range_is_the_registry_s_to_answer_and_nonsense_is_none(
    tmp_path: Path, pypiserver: PypiServer, asked_for: str, status: int, content: bytes | None
) -> None:
    path = f"/files/acme-widgets/{WHEEL}"
    async with through(tmp_path, pypiserver.url) as client:
        answer = await client.get(path, headers={b"Range": asked_for.encode("latin-1")})
        assert answer.status_code == status
        assert content is None or answer.content == content
        if status == 206:
            assert answer.headers["content-range"].endswith(f"/{len(CONTENT)}")
        head = await client.head(path, headers={b"Range": asked_for.encode("latin-1")})
        assert (head.status_code, head.content) == (status, b"")
        assert head.headers["content-length"] == answer.headers["content-length"]


# --- Size ------------------------------------------------------------------------------------------------------------

LARGE_MB = 200
OVER_IDLE_MB = 30


async def test_a_large_file_takes_no_memory(tmp_path: Path) -> None:
    pieces = LARGE_MB * (1 << 20) // len(CHUNK)
    digest = hashlib.sha256()
    for _ in range(pieces):
        digest.update(CHUNK)

    async def serve(_: WireFiles, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {pieces * len(CHUNK)}\r\n\r\n".encode())
        for _piece in range(pieces):
            writer.write(CHUNK)
            await writer.drain()

    files = WireFiles(serve)
    async with server_of(files.handle) as url:
        with (
            serving_ci() as ci,
            servers.broker(tmp_path, ci, registry_url=url, reads="public") as served,
        ):
            async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=60) as client:
                await client.get("/simple/acme-widgets/")
                forget_peak(served.pid)
                idle, got = memory_mb(served.pid), hashlib.sha256()
                async with client.stream("GET", PATH) as answer:
                    # Slower than the registry, which then must wait: nothing is kept meanwhile.
                    async for chunk in answer.aiter_raw(1 << 20):
                        got.update(chunk)
                        await asyncio.sleep(0.001)
                assert got.digest() == digest.digest()
                assert memory_mb(served.pid, "VmHWM") - idle < OVER_IDLE_MB
