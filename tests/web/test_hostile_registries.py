"""Registries whose operators mean harm: their answers reach readers within bounds, and cost nobody else anything."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.gateway.index import Listed
from tests.gateway.test_registry import response
from tests.gateway.wire import JSON, WireRegistry, wire_registry
from tests.harness import Broker, Setup
from tests.web.test_mint_refusals import check_refusal

pytestmark = pytest.mark.anyio

FALLBACK = {"fallback_index_url": "https://pypi.example/simple"}
SECRET = "s3cret-of-the-registry"


def listing(*files: dict[str, object]) -> bytes:
    """A project's page."""
    return response("200 OK", json.dumps({"files": files}).encode(), JSON)


@asynccontextmanager
async def before(folder: Path, registry: WireRegistry, **settings: Any) -> AsyncIterator[Broker]:
    """A broker that lets everybody read this registry."""
    told = {
        "registry_url": registry.url,
        "registry_username": "",
        "registry_password": "",
        "registry_bearer_token": SECRET,
        "reads": "public",
        **settings,
    }
    async with Setup(folder=folder, settings=told).running() as broker:
        yield broker


async def test_a_project_whose_files_cannot_be_served_is_still_no_other_index_s(tmp_path: Path) -> None:
    async with wire_registry() as registry, before(tmp_path, registry, **FALLBACK) as broker:
        registry.index = lambda _: listing({"filename": "x-1.tar.gz", "url": "https://files.example/x-1.tar.gz"})
        check_refusal(await broker.client.get("/simple/x/"), "not-in-index", 404)
        registry.index = lambda _: listing()
        assert (await broker.client.get("/simple/x/")).status_code == 302


async def test_a_range_that_is_not_there_tells_its_length_alone_and_no_cache_keeps_it(tmp_path: Path) -> None:
    """A page that shows the request back would tell the credential; a cache would answer it to whoever asks next."""

    def answer(path: str) -> bytes:
        if path.startswith("/simple/"):
            return listing({"filename": "x-1.tar.gz", "url": "/x-1.tar.gz"})
        return response("416 Range Not Satisfiable", SECRET.encode(), "Content-Range: bytes */7")

    async with wire_registry() as registry, before(tmp_path, registry) as broker:
        registry.index = answer
        got = await broker.client.get("/files/x/x-1.tar.gz", headers={"Range": "bytes=99-"})
        assert (got.status_code, got.content, got.headers["content-range"]) == (416, b"", "bytes */7")
        assert got.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("told", ['ETag: "\u20ac"', "ETag: a\x01b", "ETag: \xe9"])
async def test_a_header_that_is_no_plain_text_is_not_relayed(tmp_path: Path, told: str) -> None:
    def answer(path: str) -> bytes:
        if path.startswith("/simple/"):
            return listing({"filename": "x-1.tar.gz", "url": "/x-1.tar.gz"})
        return response("200 OK", b"content", told)

    async with wire_registry() as registry, before(tmp_path, registry) as broker:
        registry.index = answer
        got = await broker.client.get("/files/x/x-1.tar.gz")
        assert (got.status_code, got.content, "etag" in got.headers) == (200, b"content", False)


@pytest.mark.parametrize(
    "told", ["0001-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1e11"]
)
async def test_a_time_that_no_clock_shows_is_no_answer(tmp_path: Path, told: str) -> None:
    async with wire_registry() as registry, before(tmp_path, registry) as broker:
        registry.index = lambda _: listing({"filename": "x-1.tar.gz", "url": "/x", "upload-time": told})
        check_refusal(await broker.client.get("/simple/x/", headers={"Accept": "*/*"}), "registry-index", 502)
        kind = JSON.partition(": ")[2]
        check_refusal(await broker.client.get("/simple/x/", headers={"Accept": kind}), "registry-index", 502)


@pytest.mark.parametrize("told", ["<![x[ a ]]>", "<![ ["])
async def test_a_page_that_the_parser_chokes_on_is_no_answer(tmp_path: Path, told: str) -> None:
    async with wire_registry() as registry, before(tmp_path, registry) as broker:
        registry.index = lambda _: response("200 OK", told.encode(), "Content-Type: text/html")
        check_refusal(await broker.client.get("/simple/x/"), "registry-index", 502)


@pytest.mark.parametrize(
    "told", [f"{SECRET}\n{SECRET}", f"{SECRET} ", f"{SECRET}\0", f"\ufeff{SECRET}", f"{SECRET}\u20ac"]
)
async def test_a_bearer_token_that_no_header_holds_is_told_to_nobody(
    tmp_path: Path, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with wire_registry() as registry, before(tmp_path, registry, registry_bearer_token=told) as broker:
        answer = await broker.client.get("/simple/x/")
        check_refusal(answer, "registry-credential", 502)
        assert SECRET not in answer.text
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err


async def test_a_length_that_the_encoding_overrides_is_not_relayed(tmp_path: Path) -> None:
    def answer(path: str) -> bytes:
        if path.startswith("/simple/"):
            return listing({"filename": "x-1.tar.gz", "url": "/x-1.tar.gz"})
        return b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    async with wire_registry() as registry, before(tmp_path, registry) as broker:
        registry.index = answer
        got = await broker.client.get("/files/x/x-1.tar.gz")
        assert (got.content, "content-length" in got.headers) == (b"abc", False)


async def test_nobody_is_sent_elsewhere_by_policies_that_are_too_old_to_decide(tmp_path: Path) -> None:
    async with (
        wire_registry() as registry,
        before(tmp_path, registry, policies_stale_after_hours=0, **FALLBACK) as broker,
    ):
        assert (await broker.client.get("/simple/x/")).status_code == 302
        await broker.break_policies()
        check_refusal(await broker.client.get("/simple/x/"), "policies-stale", 503)
        check_refusal(await broker.client.get("/simple/acme-x/"), "not-in-index", 404)


async def test_what_is_remembered_of_a_file_is_short(tmp_path: Path) -> None:
    long = "y" * 100_000
    file: dict[str, object] = {
        "filename": "x-1.tar.gz",
        "url": "/x-1.tar.gz",
        "requires-python": "x" * 100_000,
        "yanked": "y" * 100_000,
    }
    async with wire_registry() as registry, before(tmp_path, registry) as broker:
        registry.index = lambda _: listing(file)
        assert long in (await broker.client.get("/simple/x/")).text
        registry.index = lambda _: listing({"filename": "y-1.tar.gz", "url": "/y-1.tar.gz"})
        assert (await broker.client.get("/simple/y/")).status_code == 200
        gc.collect()
        kept = [one for one in gc.get_objects() if isinstance(one, Listed) and one.filename == "x-1.tar.gz"]
        assert kept
        assert all(len(repr(one)) < 1000 for one in kept)
