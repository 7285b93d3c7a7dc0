"""Asking a registry what it has: a real pypiserver, and indexes that answer in every other way."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from broker import refusals
from broker.gateway import index as index_module
from broker.gateway.credential import Credential
from broker.gateway.index import Listed, SimpleIndex
from broker.gateway.registry import Registry
from tests.gateway.test_registry import response, server_of
from tests.gateway.uploads import SDIST, WHEEL, pack_sdist, pack_wheel
from tests.gateway.wire import JSON
from tests.registries import PASSWORD, USER, pypi_server

pytestmark = pytest.mark.anyio

DIGEST = hashlib.sha256(b"content").hexdigest()
HTML = "Content-Type: text/html; charset=utf-8"


@asynccontextmanager
async def index_at(url: str, *, largest_file_bytes: int = 1000, seconds: float = 20.0) -> AsyncIterator[SimpleIndex]:
    """An index at this URL, as the broker has it."""
    async with httpx.AsyncClient(trust_env=False, timeout=seconds) as client:
        registry = Registry(url=url, credential=Credential(username=USER, secret=SecretStr(PASSWORD)), client=client)
        yield SimpleIndex(url=url, registry=registry, largest_file_bytes=largest_file_bytes)


@dataclass(slots=True)
class Answering:
    """A server that answers each path as it is told, and 404 otherwise."""

    url: str
    paths: dict[str, bytes]
    heads: list[bytes]


@asynccontextmanager
async def answering(**paths: bytes) -> AsyncIterator[Answering]:
    """One with these paths; `__` in a name stands for `/`."""
    told = Answering("", {f"/{path.replace('__', '/')}": answer for path, answer in paths.items()}, [])

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        told.heads.append(head)
        writer.write(told.paths.get(head.split(b" ")[1].decode(), response("404 Not Found")))
        await writer.drain()

    async with server_of(handle) as url:
        told.url = url.removesuffix("legacy/")
        yield told


def page(*files: dict[str, object]) -> bytes:
    """PEP 691."""
    return response("200 OK", json.dumps({"meta": {"api-version": "1.0"}, "files": files}).encode(), JSON)


def html(text: str) -> bytes:
    """PEP 503."""
    return response("200 OK", text.encode(), HTML)


async def listed(*answers: bytes) -> tuple[tuple[Listed, ...], Sequence[bytes]]:
    """What an index says of 'acme' that answers so, and what it was asked; its own URLs begin at 'http://index/'."""
    async with answering(simple__acme__=answers[0]) as server:
        async with index_at(f"{server.url}simple/") as index:
            files = await index.files("acme")
        moved = [
            Listed(
                filename=one.filename,
                url=one.url.replace(server.url, "http://index/"),
                sha256=one.sha256,
                uploaded_at=one.uploaded_at,
            )
            for one in files
        ]
        return tuple(moved), server.heads


# --- A real one ------------------------------------------------------------------------------------------------------


async def test_pypiserver_says_what_it_has_and_with_which_bytes(tmp_path: Path) -> None:
    with pypi_server(tmp_path) as registry:
        async with index_at(f"{registry.url}simple/") as index:
            assert await index.files("acme-widgets") == ()
            files = {WHEEL: pack_wheel(), SDIST: pack_sdist()}
            for name, content in files.items():
                (registry.packages / name).write_bytes(content)
            found = {one.filename: one.sha256 for one in await index.files("acme-widgets")}
            assert found == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        # Its front page leads there too, by a redirect on the same host.
        async with index_at(registry.url) as index:
            assert len(await index.files("acme-widgets")) == 2


# --- Pages -----------------------------------------------------------------------------------------------------------


async def test_json_is_asked_for_with_our_credential_and_read() -> None:
    files, heads = await listed(
        page(
            {
                "filename": "acme-1.0.tar.gz",
                "url": "../../files/acme-1.0.tar.gz",
                "hashes": {"sha256": DIGEST.upper(), "md5": "x"},
                "upload-time": "2026-01-15T08:00:00.5Z",
                "yanked": True,
            },
            {"filename": "acme-2.0.tar.gz", "url": "http://elsewhere/acme-2.0.tar.gz", "hashes": {"sha256": "short"}},
            {"filename": "acme-3.0.tar.gz", "url": "acme-3.0.tar.gz", "upload-time": None},
        )
    )
    assert files == (
        Listed(
            filename="acme-1.0.tar.gz",
            url="http://index/files/acme-1.0.tar.gz",
            sha256=DIGEST,
            uploaded_at=1768464000.5,
        ),
        Listed(filename="acme-2.0.tar.gz", url="http://elsewhere/acme-2.0.tar.gz"),
        Listed(filename="acme-3.0.tar.gz", url="http://index/simple/acme/acme-3.0.tar.gz"),
    )
    assert httpx.BasicAuth(USER, PASSWORD)._auth_header.encode() in heads[0]
    assert b"accept: application/vnd.pypi.simple.v1+json, " in heads[0].lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("<h1>no links", ()),
        (
            f'<A data-x="y" HREF="/f/acme-1.0%2Blocal.tar.gz#sha256={DIGEST}">whatever</a>',
            (Listed(filename="acme-1.0+local.tar.gz", url="http://index/f/acme-1.0%2Blocal.tar.gz", sha256=DIGEST),),
        ),
        (
            '<a href="acme-1.0.tar.gz#md5=00">acme</a><a name="x">no link</a><a href>none</a>',
            (Listed(filename="acme-1.0.tar.gz", url="http://index/simple/acme/acme-1.0.tar.gz"),),
        ),
        (
            '<base href="/files/"><a href="acme-1.0.tar.gz#sha256=no">x</a>',
            (Listed(filename="acme-1.0.tar.gz", url="http://index/files/acme-1.0.tar.gz"),),
        ),
        (
            '<a href="a.whl?x=1&amp;y=2#sha256=' + DIGEST + '">',
            (Listed(filename="a.whl", url="http://index/simple/acme/a.whl?x=1&y=2", sha256=DIGEST),),
        ),
    ],
)
async def test_html_is_read_as_installers_do(text: str, expected: tuple[Listed, ...]) -> None:
    files, _ = await listed(html(text))
    assert files == expected


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
async def test_a_project_that_is_not_there_has_no_files(status: str) -> None:
    assert (await listed(response(status)))[0] == ()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (response("401 No"), "registry-credential"),
        (response("403 No"), "registry-credential"),
        (response("500 Oops"), "registry-index"),
        (response("204 None"), "registry-index"),
        (response("304 Same"), "registry-index"),
        (response("200 OK", b"hello", "Content-Type: text/plain"), "registry-index"),
        (response("200 OK", b"{}", "X: y"), "registry-index"),
        (response("200 OK", b"{}", JSON), "registry-index"),
        (response("200 OK", b"[" * 100_000, JSON), "registry-index"),
        (page({"filename": "acme-1.0.tar.gz"}), "registry-index"),
        (page({"filename": "acme-1.0.tar.gz", "url": "x", "upload-time": "yesterday"}), "registry-index"),
        (page({"filename": "acme-1.0.tar.gz", "url": "http://["}), "registry-index"),
        (html('<a href="http://[">'), "registry-index"),
        (html('<base href="http://[">'), "registry-index"),
        (response("200 OK", b"\xff", HTML), "registry-index"),
        (response("200 OK", b"\x1f\x8b", f"{HTML}\r\nContent-Encoding: gzip"), "registry-index"),
        (response("302 Found", headers="Location: http://["), "registry-index"),
        (response("302 Found", headers="Location: https://login.example/?next=/acme/"), "registry-index"),
        (response("302 Found", headers="Location: http://127.0.0.1:1/simple/acme-other/"), "registry-index"),
        (response("302 Found", headers="Location: /simple/acme/"), "registry-index"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n" + HTML.encode() + b"\r\n\r\ncut", "registry-unavailable"),
        (b"nonsense\r\n\r\n", "registry-unavailable"),
    ],
)
async def test_what_is_no_clear_answer_is_none(answer: bytes, code: str) -> None:
    with pytest.raises(refusals.Refusal) as caught:
        await listed(answer)
    assert caught.value.code == code


@pytest.mark.parametrize("where", ["https://pypi.org/simple/acme/", "http://127.0.0.1:1/simple/acme"])
async def test_an_index_that_sends_on_to_the_project_elsewhere_does_not_have_it(where: str) -> None:
    """pypiserver's fallback and GitLab's forwarding. Nothing is asked there, least of all with our credential."""
    files, heads = await listed(response("303 See Other", headers=f"Location: {where}"))
    assert (files, len(heads)) == ((), 1)


async def test_redirects_within_the_index_are_followed_a_few_times() -> None:
    def to(path: str) -> bytes:
        return response("307 Moved", headers=f"Location: {path}")

    hops = {"simple__acme__": to("/a/"), "a__": to("b/"), "a__b__": to("/c/acme/"), "c__acme__": html('<a href="x">')}
    async with answering(**hops) as server, index_at(f"{server.url}simple/") as index:
        assert [one.url for one in await index.files("acme")] == [f"{server.url}c/acme/x"]
        assert len(server.heads) == 4


async def test_a_page_without_end_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "LARGEST_PAGE", 1000)
    assert (await listed(html(" " * 1000)))[0] == ()
    with pytest.raises(refusals.RegistryIndex, match="more than 1000 bytes"):
        await listed(html(" " * 1001))


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Never answers."""
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(30)


async def test_an_index_that_hangs_is_unavailable_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "PAGE_SECONDS", 0.2)
    monkeypatch.setattr(index_module, "FILE_SECONDS", 0.2)
    async with server_of(hang) as url, index_at(url) as index:
        with pytest.raises(refusals.RegistryUnavailable, match="in time"):
            await index.files("acme")
        with pytest.raises(refusals.RegistryUnavailable, match="too long"):
            await index.sha256(Listed(filename="x", url=f"{url}x"))


async def test_an_index_that_is_not_there_is_unavailable() -> None:
    async with index_at("http://127.0.0.1:9/simple/") as index:
        with pytest.raises(refusals.RegistryUnavailable):
            await index.files("acme")


# --- Files -----------------------------------------------------------------------------------------------------------


async def test_a_digest_that_is_told_is_taken_and_one_that_is_not_is_made_from_the_file() -> None:
    async with answering(files__x=response("200 OK", b"content")) as server, index_at(f"{server.url}simple/") as index:
        assert await index.sha256(Listed(filename="x", url=f"{server.url}files/x", sha256="told")) == "told"
        assert server.heads == []
        assert await index.sha256(Listed(filename="x", url=f"{server.url}files/x")) == DIGEST


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (response("404 Not Found"), "registry-index"),
        (response("302 Found", headers="Location: /files/y"), "registry-index"),
        (response("403 No"), "registry-credential"),
        (response("200 OK", b"x" * 1001), "registry-index"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut", "registry-unavailable"),
    ],
)
async def test_a_file_that_cannot_be_hashed_is_no_answer(answer: bytes, code: str) -> None:
    async with answering(files__x=answer) as server, index_at(f"{server.url}simple/") as index:
        with pytest.raises(refusals.Refusal) as caught:
            await index.sha256(Listed(filename="x", url=f"{server.url}files/x"))
        assert caught.value.code == code


async def test_our_credential_goes_to_no_other_host() -> None:
    async with answering(x=response("200 OK", b"content")) as server, index_at("http://index.example/simple/") as index:
        with pytest.raises(refusals.RegistryIndex, match="another host"):
            await index.sha256(Listed(filename="x", url=f"{server.url}x"))
        assert server.heads == []


async def test_a_url_that_no_client_takes_is_no_answer() -> None:
    async with index_at("http://index.example/simple/") as index:
        with pytest.raises(refusals.RegistryIndex, match="URL"):
            await index.sha256(Listed(filename="x", url="http://index.example/\x00"))


# --- What readers are told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, {}),
        ({"size": 5}, {"size_bytes": 5}),
        ({"size": None, "requires-python": None}, {}),
        ({"requires-python": ">=3.11"}, {"requires_python": ">=3.11"}),
        ({"yanked": False}, {}),
        ({"yanked": True}, {"yanked": ""}),
        ({"yanked": "broken"}, {"yanked": "broken"}),
        ({"core-metadata": True}, {"metadata_sha256": ""}),
        ({"core-metadata": False}, {}),
        ({"core-metadata": {"sha256": DIGEST.upper()}}, {"metadata_sha256": DIGEST}),
        ({"core-metadata": {"md5": "x"}}, {"metadata_sha256": ""}),
        ({"dist-info-metadata": {"sha256": DIGEST}}, {"metadata_sha256": DIGEST}),
        ({"core-metadata": True, "dist-info-metadata": {"sha256": DIGEST}}, {"metadata_sha256": ""}),
    ],
)
async def test_what_json_says_of_a_file_is_read(told: dict[str, object], expected: dict[str, object]) -> None:
    (file,) = await told_of(page({"filename": "a.whl", "url": "a.whl", **told}))
    assert file == Listed(filename="a.whl", url="a.whl", **expected)  # type: ignore[arg-type]  # as the table has it


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("", {}),
        ('data-requires-python="&gt;=3.11"', {"requires_python": ">=3.11"}),
        ("data-yanked", {"yanked": ""}),
        ('data-yanked="broken &amp; gone"', {"yanked": "broken & gone"}),
        ('data-core-metadata="true"', {"metadata_sha256": ""}),
        ("data-core-metadata", {"metadata_sha256": ""}),
        ('data-core-metadata="false"', {}),
        (f'data-core-metadata="sha256={DIGEST}"', {"metadata_sha256": DIGEST}),
        (f'data-dist-info-metadata="sha256={DIGEST}"', {"metadata_sha256": DIGEST}),
        (f'data-core-metadata="true" data-dist-info-metadata="sha256={DIGEST}"', {"metadata_sha256": ""}),
    ],
)
async def test_what_a_link_says_of_a_file_is_read(told: str, expected: dict[str, object]) -> None:
    (file,) = await told_of(html(f'<a href="a.whl" {told}>a</a>'))
    assert file == Listed(filename="a.whl", url="a.whl", **expected)  # type: ignore[arg-type]  # as the table has it


async def told_of(answer: bytes) -> tuple[Listed, ...]:
    """What an index says of 'acme', with URLs from its page."""
    async with answering(simple__acme__=answer) as server, index_at(f"{server.url}simple/") as index:
        files = await index.files("acme")
    return tuple(dataclasses.replace(one, url=one.url.rpartition("/")[2]) for one in files)


async def test_an_index_that_sends_its_whole_list_elsewhere_gives_no_answer() -> None:
    away = response("302 Found", headers="Location: https://pypi.org/simple/")
    async with answering(simple__=away) as server, index_at(f"{server.url}simple/") as index:
        with pytest.raises(refusals.RegistryIndex):
            await index.projects()


@pytest.mark.parametrize("answer", [b"{}", b'{"projects": [{}]}', b'{"projects": ["x"]}'])
async def test_a_list_that_is_none_is_no_answer(answer: bytes) -> None:
    told = response("200 OK", answer, JSON)
    async with answering(simple__=told) as server, index_at(f"{server.url}simple/") as index:
        with pytest.raises(refusals.RegistryIndex):
            await index.projects()


async def test_links_are_bounded_in_number_and_in_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of some megabytes would else take some gigabytes: each link has its page's base in front."""
    base = "x" * index_module.LONGEST_URL
    for answer in (html(f"<base href='/{base}/'><a href='a'>a</a>"), page({"filename": "a", "url": f"/{base}"})):
        with pytest.raises(refusals.RegistryIndex, match="characters"):
            await listed(answer)
    monkeypatch.setattr(index_module, "MOST_LINKS", 2)
    assert len((await listed(html("<a href='a'>a</a>" * 2)))[0]) == 2
    with pytest.raises(refusals.RegistryIndex, match="links"):
        await listed(html("<a href='a'>a</a>" * 3))


async def test_a_json_page_s_files_are_bounded_in_number() -> None:
    file = b'{"filename":"a","url":"a"}'
    content = b'{"files":[' + b",".join([file] * (index_module.MOST_LINKS + 1)) + b"]}"
    with pytest.raises(refusals.RegistryIndex, match="PEP 691"):
        await listed(response("200 OK", content, JSON))
