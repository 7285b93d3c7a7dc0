"""Reads through the broker: what a token covers is served from the registry, and nothing else is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker import indexes
from broker.gateway import USER as TOKEN_USER
from broker.gateway.places import Places
from broker.web.downloads import HTML, JSON
from tests.gateway.uploads import CONTENT_TYPE, SDIST, WHEEL, pack_sdist, pack_wheel, upload
from tests.harness import ACME, PUBLIC_URL, Broker, Setup
from tests.registries import PASSWORD, USER, PypiServer, pypi_server
from tests.web.test_mint_refusals import check_refusal
from tests.web.test_upload_refusals import basic

pytestmark = pytest.mark.anyio

READERS = ACME.replace(
    '  acme-widgets: {upload: ["team:core"]}\n',
    '  acme-widgets: {upload: ["team:core"]}\n  acme-lib: {download: [bob]}\n',
).replace("    projects: [acme-widgets, acme-gadgets]\n", "    projects: [acme-widgets]\n    downloads: [acme-lib]\n")
assert READERS.count("acme-lib") == 2

FILES = {
    WHEEL: pack_wheel(),
    SDIST: pack_sdist(),
    "acme_lib-2.0.tar.gz": b"a library",
    "acme_secret-1.0.tar.gz": b"a secret",
    "unheld-1.0.tar.gz": b"nobody's",
}
PROVOKED = {"unsupported-scope", "wrong-scope", "not-in-index", "reads-busy"}


@pytest.fixture(name="registry", scope="module")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    with pypi_server(tmp_path_factory.mktemp("registry"), authenticate="update, download, list") as registry:
        for name, content in FILES.items():
            (registry.packages / name).write_bytes(content)
        yield registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A broker that serves reads, and whoever reads."""

    broker: Broker
    token: str = ""

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> httpx.Response:
        """Asks, with the token where there is one."""
        auth = (TOKEN_USER, self.token) if self.token else None
        return await self.broker.client.request(method, path, headers=headers, auth=auth)

    async def mint(self, scope: object = "read", **changes: object) -> httpx.Response:
        """An exchange for that scope."""
        return await self.broker.mint(self.broker.ci.token("github", **changes), scope=scope)


@contextlib.asynccontextmanager
async def reading(
    folder: Path, registry: PypiServer, *, acme: str = READERS, access: str = "scoped", actor: str = "1002", **more: Any
) -> AsyncIterator[Reader]:
    """A reader with a token of bob's, who may upload to one project and read another."""
    settings: Mapping[str, object] = {
        "registry_url": registry.url,
        "registry_username": USER,
        "registry_password": PASSWORD,
        "reads": access,
        **more,
    }
    async with Setup(folder=folder, acme=acme, settings=dict(settings)).running() as broker:
        reader = Reader(broker=broker)
        if access == "scoped":
            minted = await reader.mint(actor_id=actor)
            assert minted.status_code == 200, minted.text
            reader = Reader(broker=broker, token=minted.json()["token"])
        yield reader


class Anchors(HTMLParser):
    """The links of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Part of the parser."""
        if tag == "a":
            self.found.append(dict(attrs))


async def test_the_list_has_what_the_token_covers_and_is_there(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry) as reader:
        page = await reader.get("/simple/")
        assert page.headers["content-type"].startswith("text/html")
        assert [one["href"] for one in Anchors(page.text).found] == ["acme-lib/", "acme-widgets/"]
        listed = await reader.get("/simple", Accept=JSON)
        assert listed.headers["content-type"] == JSON
        assert listed.json()["projects"] == [{"name": "acme-lib"}, {"name": "acme-widgets"}]
        assert (listed.headers["cache-control"], listed.headers["vary"]) == ("no-store", "Accept")


async def test_a_project_s_links_stay_on_this_host_and_lead_to_its_files(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry) as reader:
        for path in ("/simple/acme-widgets/", "/simple/acme-widgets", "/simple/Acme_Widgets/"):
            page = await reader.get(path)
            links = [one["href"] or "" for one in Anchors(page.text).found]
            assert {link.partition("#")[0] for link in links} == {
                f"/files/acme-widgets/{SDIST}",
                f"/files/acme-widgets/{WHEEL}",
            }
        for link in links:
            target, _, fragment = link.partition("#sha256=")
            got = await reader.get(target)
            assert (got.status_code, hashlib.sha256(got.content).hexdigest()) == (200, fragment)
            assert got.content == FILES[target.rpartition("/")[2]]
            assert got.headers["cache-control"] == "private, no-store"
            assert got.headers["content-type"] == "application/octet-stream"
        told = (await reader.get("/simple/acme-lib/", Accept=JSON)).json()
        assert (told["name"], told["meta"]) == ("acme-lib", {"api-version": "1.0"})
        (file,) = told["files"]
        assert (file["filename"], file["url"]) == ("acme_lib-2.0.tar.gz", "/files/acme-lib/acme_lib-2.0.tar.gz")
        assert file["hashes"] == {"sha256": hashlib.sha256(b"a library").hexdigest()}


@pytest.mark.parametrize(
    "path",
    [
        "/simple/acme-secret/",
        "/simple/unheld/",
        "/simple/acme-nothing/",
        "/simple/requests/",
        "/simple/!/",
        "/simple/%2e%2e/",
        "/files/acme-secret/acme_secret-1.0.tar.gz",
        "/files/acme-widgets/acme_secret-1.0.tar.gz",
        "/files/acme-widgets/acme_widgets-9.0.tar.gz",
        "/files/acme-widgets/..%2fsimple%2f",
        "/files/acme-widgets/.htaccess",
        f"/files/acme-widgets/{WHEEL}.metadata",
        "/files/!/x",
    ],
)
async def test_what_is_not_covered_and_what_is_not_there_are_one_answer(
    tmp_path: Path, registry: PypiServer, path: str
) -> None:
    async with reading(tmp_path, registry) as reader:
        answer = await reader.get(path)
        if "%2f" in path:
            check_refusal(answer, "not-found", 404)
        else:
            check_refusal(answer, "not-in-index", 404)


async def test_a_download_leaves_a_record_and_a_page_none(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry) as reader:
        await reader.get("/simple/acme-widgets/")
        answer = await reader.get(f"/files/acme-widgets/{WHEEL}")
        mint, download = await reader.broker.records()
    assert (mint["kind"], mint["scope"], mint["projects"]) == ("mint", "read", ["acme-lib", "acme-widgets"])
    assert (download["kind"], download["decision"], download["scope"]) == ("download", "allowed", "read")
    assert (download["project"], download["filename"]) == ("acme-widgets", WHEEL)
    assert (download["members"], download["token_id"]) == (["acme/bob"], mint["token_id"])
    assert download["attempt"] == answer.headers["attempt-id"]
    assert "stored" not in download


async def test_an_upload_token_reads_nothing_and_a_read_token_uploads_nothing(
    tmp_path: Path, registry: PypiServer
) -> None:
    before = registry.stored()
    async with reading(tmp_path, registry) as reader:
        sent = await reader.broker.client.post(
            "/legacy/", content=upload(), headers={"Content-Type": CONTENT_TYPE}, auth=(TOKEN_USER, reader.token)
        )
        check_refusal(sent, "wrong-scope", 403)
        uploads = Reader(broker=reader.broker, token=await reader.broker.minted())
        check_refusal(await uploads.get("/simple/acme-widgets/"), "wrong-scope", 403)
        check_refusal(await uploads.get(f"/files/acme-widgets/{WHEEL}"), "wrong-scope", 403)
        kinds = [(one["kind"], one.get("code")) for one in await reader.broker.records()]
    assert kinds == [
        ("mint", None),
        ("upload", "wrong-scope"),
        ("mint", None),
        ("download", "wrong-scope"),
        ("download", "wrong-scope"),
    ]
    assert registry.stored() == before


async def test_without_a_token_nothing_is_told_or_recorded(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry) as reader:
        stranger = Reader(broker=reader.broker)
        for path in ("/simple/", "/simple/acme-widgets/", f"/files/acme-widgets/{WHEEL}", "/simple/requests/"):
            answer = await stranger.get(path)
            check_refusal(answer, "no-credentials", 401)
            assert answer.headers["www-authenticate"].startswith("Basic ")
            check_refusal(await Reader(broker=reader.broker, token="x").get(path), "invalid-upload-token", 403)
        assert len(await reader.broker.records()) == 1


async def test_whoever_was_removed_since_the_mint_reads_nothing(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry) as reader:
        token = reader.token
        assert (await reader.broker.client.post("/_/oidc/burn-token", json={"token": token})).status_code == 202
        check_refusal(await reader.get("/simple/acme-widgets/"), "revoked-token", 403)
        assert [(one["kind"], one.get("code")) for one in await reader.broker.records()][-1] == (
            "download",
            "revoked-token",
        )
    async with reading(tmp_path, registry) as reader:
        reader.broker.clock.ahead_seconds = 901
        check_refusal(await reader.get("/simple/acme-widgets/"), "expired-upload-token", 403)
        check_refusal(await reader.get(f"/files/acme-widgets/{WHEEL}"), "expired-upload-token", 403)
    acme = READERS.replace("acme-lib: {download: [bob]}", "acme-lib: {download: [alice]}")
    async with reading(tmp_path, registry, acme=acme) as reader:
        assert (await reader.get("/simple/acme-widgets/")).status_code == 200
        check_refusal(await reader.get("/simple/acme-lib/"), "not-in-index", 404)
        check_refusal(await reader.get("/files/acme-lib/acme_lib-2.0.tar.gz"), "not-in-index", 404)
    async with reading(tmp_path, registry) as reader:
        before = reader.token
    gone = READERS.replace('  bob: {role: member, github: "1002"}\n', "").replace("[bob]", "[alice]")
    async with reading(tmp_path, registry, acme=gone, actor="1001") as reader:
        check_refusal(await Reader(broker=reader.broker, token=before).get("/simple/"), "unknown-actor", 403)


async def test_while_nothing_can_be_recorded_no_file_is_read(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry) as reader:
        with contextlib.closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            answer = await reader.get(f"/files/acme-widgets/{WHEEL}")
        check_refusal(answer, "state-unavailable", 503)
        assert (await reader.get(f"/files/acme-widgets/{WHEEL}")).status_code == 200


async def test_one_publisher_s_readers_leave_places_for_others(
    tmp_path: Path, registry: PypiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three places, a publisher has one; pages need none."""
    monkeypatch.setattr(indexes, "MOST_FILES", 3)
    monkeypatch.setattr(indexes, "Places", functools.partial(Places, wait_seconds=0.2))
    path = f"/files/acme-widgets/{WHEEL}"
    async with reading(tmp_path, registry) as reader:
        open_one = asyncio.Event()

        async def slow_reader() -> None:
            async def send(message: Any) -> None:
                if message.get("body"):
                    open_one.set()
                    await asyncio.sleep(30)

            async def receive() -> dict[str, str]:
                await asyncio.sleep(30)
                return {"type": "http.disconnect"}

            scope = {
                "type": "http",
                "method": "GET",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": [(b"host", b"upload.acme.example"), (b"authorization", basic(reader.token).encode())],
            }
            await reader.broker.app(scope, receive, send)

        slow = asyncio.create_task(slow_reader())
        await asyncio.wait_for(open_one.wait(), 5)
        busy = await reader.get(path)
        check_refusal(busy, "reads-busy", 503)
        assert busy.headers["retry-after"]
        assert (await reader.get("/simple/acme-widgets/")).status_code == 200
        slow.cancel()
        await asyncio.wait({slow})
        assert (await reader.get(path)).status_code == 200


async def test_a_freeze_stops_no_reads(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry, acme=READERS + "freezes: [{reason: year end}]\n") as reader:
        assert (await reader.get(f"/files/acme-widgets/{WHEEL}")).status_code == 200


async def test_public_reads_need_no_token_and_leave_no_record(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry, access="public") as reader:
        listed = (await reader.get("/simple/", Accept=JSON)).json()["projects"]
        assert [one["name"] for one in listed] == ["acme-lib", "acme-secret", "acme-widgets", "unheld"]
        got = await reader.get("/files/acme-secret/acme_secret-1.0.tar.gz")
        assert (got.content, got.headers["cache-control"]) == (b"a secret", "public, max-age=3600")
        check_refusal(await reader.get("/simple/nothing/"), "not-in-index", 404)
        assert await reader.broker.records() == []
        check_refusal(await reader.mint(), "unsupported-scope", 422)


async def test_where_reads_are_off_there_are_none(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry, access="off") as reader:
        for path in ("/simple/", "/simple/acme-widgets/", f"/files/acme-widgets/{WHEEL}"):
            check_refusal(await reader.get(path), "not-found", 404)
        check_refusal(await reader.mint(), "unsupported-scope", 422)


@pytest.mark.parametrize("scope", ["READ", "upload read", "", None, 1, ["read"]])
async def test_a_scope_that_is_none_is_refused(tmp_path: Path, registry: PypiServer, scope: object) -> None:
    async with reading(tmp_path, registry) as reader:
        check_refusal(await reader.mint(scope), "unsupported-scope", 422)


async def test_a_single_use_is_an_upload_s(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry) as reader:
        broker = reader.broker
        answer = await broker.mint(broker.ci.token(), scope="read", features=["single-use-token"])
        check_refusal(answer, "unsupported-feature", 422)


async def test_the_same_identity_token_is_not_exchanged_for_both(tmp_path: Path, registry: PypiServer) -> None:
    """Where it may be exchanged again, it is for the same token."""
    async with reading(tmp_path, registry) as reader:
        broker, token = reader.broker, reader.broker.ci.token("gitlab")
        first = await broker.mint(token, scope="read")
        assert (first.status_code, (await broker.mint(token, scope="read")).json()["token"]) == (
            200,
            first.json()["token"],
        )
        check_refusal(await broker.mint(token), "replayed-token", 422)


async def test_a_read_is_a_first_use(tmp_path: Path, registry: PypiServer) -> None:
    acme = READERS.replace(
        '    repository_id: "424242424"\n    repository_owner_id: "65600975"\n', "    pin: first-use\n"
    )
    assert acme != READERS
    async with reading(tmp_path, registry, acme=acme) as reader:
        taken_over = await reader.mint("upload", repository_id="1")
        check_refusal(taken_over, "identity-changed", 403)
        assert (await reader.mint("upload")).status_code == 200


async def test_the_name_of_another_is_never_looked_for_elsewhere(tmp_path: Path, registry: PypiServer) -> None:
    public = {"fallback_index_url": "https://pypi.example/simple"}
    for access in ("scoped", "public"):
        async with reading(tmp_path / access, registry, access=access, **public) as reader:
            sent_on = await reader.get("/simple/Left_Pad/")
            assert (sent_on.status_code, sent_on.headers["location"]) == (302, "https://pypi.example/simple/left-pad/")
            assert sent_on.headers["cache-control"] == "no-store"
            for held in ("acme", "acme-nothing", "Acme.Evil"):
                check_refusal(await reader.get(f"/simple/{held}/"), "not-in-index", 404)
            check_refusal(await reader.get("/files/left-pad/left_pad-1.0.tar.gz"), "not-in-index", 404)
            unheld = await reader.get("/simple/unheld/")
            if access == "public":
                assert unheld.status_code == 200
            else:
                check_refusal(unheld, "not-in-index", 404)


async def test_kinds_of_pages_are_negotiated(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry) as reader:
        for accept, kind in (
            (f"{JSON}, {HTML};q=0.2, text/html;q=0.01", JSON),
            (f"{JSON};q=0.1, {HTML};q=0.2", HTML),
            ("application/vnd.pypi.simple.latest+json", JSON),
            ("text/html, application/xhtml+xml, */*;q=0.8", "text/html; charset=utf-8"),
            ("*/*", "text/html; charset=utf-8"),
            (f"{JSON};q=nonsense, */*;q=0.1", "text/html; charset=utf-8"),
            (f"image/png, {JSON};q=0.5;x=1", JSON),
        ):
            page = await reader.get("/simple/acme-lib/", Accept=accept)
            assert page.headers["content-type"].split(";")[0] == kind.split(";")[0], accept
        for accept in ("image/png", f"{JSON};q=0", ""):
            check_refusal(await reader.get("/simple/acme-lib/", Accept=accept), "not-acceptable", 406)


async def test_a_head_is_the_head_of_a_get(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry) as reader:
        head = await reader.get(f"/files/acme-widgets/{WHEEL}", method="HEAD")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(FILES[WHEEL]))
        assert (await reader.get("/simple/acme-lib/", method="HEAD")).content == b""


async def test_the_oauth_exchange_gives_read_tokens_too(tmp_path: Path, registry: PypiServer) -> None:
    async with reading(tmp_path, registry) as reader:
        broker = reader.broker

        async def exchange(**more: str) -> httpx.Response:
            form = {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token": broker.ci.token(),
                "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
                "scope": "read",
            }
            return await broker.client.post("/oauth2/token", data=form | more)

        answer = (await exchange(project="acme-lib")).json()
        assert answer["scope"] == "read"
        narrowed = Reader(broker=broker, token=answer["access_token"])
        assert (await narrowed.get("/simple/acme-lib/")).status_code == 200
        check_refusal(await narrowed.get("/simple/acme-widgets/"), "not-in-index", 404)
        for more in ({"version": "1.0"}, {"uses": "1"}, {"sha256": "0" * 64}):
            assert (await exchange(**more)).json()["error"] == "invalid_request"
        assert (await exchange(scope="write")).json()["error"] == "invalid_scope"
        metadata = (await broker.client.get("/.well-known/oauth-authorization-server")).json()
        assert metadata["scopes_supported"] == ["upload", "read"]
        assert metadata["issuer"] == PUBLIC_URL
