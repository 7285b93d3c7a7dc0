"""Forward-auth, asked as each kind of proxy asks: whose read may pass, and nothing that is no read."""

from __future__ import annotations

import base64
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from broker.gateway import USER as TOKEN_USER
from broker.settings import ForwardAuth, SettingsError
from broker.web.forward import REFUSAL_HEADER, STATUS_HEADER
from tests.gateway.uploads import WHEEL
from tests.harness import AUDIENCE, PUBLIC_URL, Broker, Setup
from tests.web.test_mint_refusals import check_refusal

pytestmark = pytest.mark.anyio

PROVOKED = {"not-forwarded", "not-a-read", "unscoped-path"}

PAGE = "/simple/acme-widgets/"
FILE = f"/packages/{WHEEL}"


def setup(folder: Path, proxy: ForwardAuth, **settings: Any) -> Setup:
    """A broker whom that proxy asks; no registry is there, for none is asked."""
    return Setup(folder=folder, settings={"reads": "scoped", "forward_auth": proxy, **settings})


async def read_token(broker: Broker, **changes: object) -> str:
    """Alice's, for acme-widgets."""
    answer = await broker.mint(broker.ci.token("github", **changes), scope="read")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


async def ask(
    broker: Broker, proxy: ForwardAuth, target: str, token: str = "", *, method: str = "GET", base: str = "/_"
) -> httpx.Response:
    """What the proxy does when a client asks it for that."""
    headers = {"Authorization": basic(token)} if token else {}
    if proxy == "envoy":
        url = httpx.URL(PUBLIC_URL).copy_with(raw_path=f"{base}/authorize{target}".encode())
        return await broker.client.request(method, url, headers=headers)
    prefix = "X-Original" if proxy == "nginx" else "X-Forwarded"
    # As bytes, so that anything can be told.
    told = {f"{prefix}-Method".encode(): method.encode(), f"{prefix}-URI".encode(): target.encode("latin-1")}
    more = {name.encode(): value.encode() for name, value in headers.items()}
    return await broker.client.get(f"{base}/authorize", headers={**told, **more})


def basic(token: str) -> str:
    """The credentials that an installer shows."""
    return "Basic " + base64.b64encode(f"{TOKEN_USER}:{token}".encode()).decode()


def check_refused(proxy: ForwardAuth, answer: httpx.Response, code: str, status: int) -> None:
    """A refusal as that proxy can relay it."""
    if proxy != "nginx":
        check_refusal(answer, code, status)
        return
    assert answer.status_code == (status if status in {401, 403} else 403)
    assert (answer.headers[STATUS_HEADER], answer.headers[REFUSAL_HEADER]) == (str(status), code)
    body = answer.json()
    assert (body["errors"][0]["code"], body["status"]) == (code, status)
    assert body["attempt"] == answer.headers["attempt-id"]


@pytest.mark.parametrize("proxy", ["nginx", "traefik", "envoy", "caddy"])
class TestEachProxy:
    """The same decisions, whoever asks."""

    async def test_a_read_that_the_token_covers_passes_and_a_file_leaves_a_record(
        self, tmp_path: Path, proxy: ForwardAuth
    ) -> None:
        async with setup(tmp_path, proxy).running() as broker:
            token = await read_token(broker)
            for target in (PAGE, "/simple/Acme_Widgets", FILE, f"{FILE}.metadata"):
                answer = await ask(broker, proxy, target, token)
                assert (answer.status_code, answer.content) == (200, b"")
                assert set(answer.headers) <= {"cache-control", "content-length", "attempt-id"}, "and no credential"
                assert answer.headers["cache-control"] == "no-store"
            assert (await ask(broker, proxy, PAGE, token, method="HEAD")).status_code == 200
            mint, file, described = await broker.records()
        assert (file["kind"], file["decision"], file["scope"]) == ("download", "allowed", "read")
        assert (file["project"], file["filename"]) == ("acme-widgets", WHEEL)
        assert (file["members"], file["token_id"]) == (["acme/alice"], mint["token_id"])
        assert described["filename"] == f"{WHEEL}.metadata"

    async def test_another_s_project_is_as_one_that_is_not_there(self, tmp_path: Path, proxy: ForwardAuth) -> None:
        async with setup(tmp_path, proxy).running() as broker:
            token = await read_token(broker)
            for target in ("/simple/victim/", "/simple/acme/", "/packages/victim-1.0.tar.gz", "/simple/requests/"):
                check_refused(proxy, await ask(broker, proxy, target, token), "not-in-index", 404)
            assert len(await broker.records()) == 1

    async def test_what_no_project_can_be_told_of_is_refused(self, tmp_path: Path, proxy: ForwardAuth) -> None:
        async with setup(tmp_path, proxy).running() as broker:
            token = await read_token(broker)
            # The client of these tests has no `..` in a URL; the real Envoy has, in tests/clients/test_forward_auth.py.
            dotted = ["/simple/acme-widgets/../victim/"] if proxy != "envoy" else []
            for target in (
                *("/", "/simple/", "/packages/", "//simple/acme-widgets/", "/simple/acme-widgets/%2e%2e/victim/"),
                *("/simple/acme-widgets\\..\\victim/", "/simple/acme%2dwidgets/", f"{PAGE}?x=1", f"{FILE};x"),
                *(f"{PAGE}{WHEEL}", "/simple/acme-widgets/%0a", *dotted),
            ):
                check_refused(proxy, await ask(broker, proxy, target, token), "unscoped-path", 404)

    async def test_no_upload_passes_with_any_token(self, tmp_path: Path, proxy: ForwardAuth) -> None:
        async with setup(tmp_path, proxy).running() as broker:
            for token in (await read_token(broker), await broker.minted(), ""):
                for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
                    for target in ("/", PAGE, FILE):
                        answer = await ask(broker, proxy, target, token, method=method)
                        check_refused(proxy, answer, "not-a-read", 403)

    async def test_the_token_is_judged_as_at_any_read(self, tmp_path: Path, proxy: ForwardAuth) -> None:
        async with setup(tmp_path, proxy).running() as broker:
            token = await read_token(broker)
            stranger = await ask(broker, proxy, PAGE)
            check_refused(proxy, stranger, "no-credentials", 401)
            assert stranger.headers["www-authenticate"].startswith("Basic ")
            check_refused(proxy, await ask(broker, proxy, PAGE, "pypi-x"), "invalid-upload-token", 403)
            check_refused(proxy, await ask(broker, proxy, PAGE, await broker.minted()), "wrong-scope", 403)
            assert (await broker.client.post("/_/oidc/burn-token", json={"token": token})).status_code == 202
            check_refused(proxy, await ask(broker, proxy, FILE, token), "revoked-token", 403)
            told = [(one["kind"], one.get("code")) for one in await broker.records()]
        assert told[-3:] == [("download", "wrong-scope"), ("revocation", None), ("download", "revoked-token")]


HEADERS = {
    "nginx": {"X-Original-Method": "GET", "X-Original-URI": PAGE},
    "traefik": {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": PAGE},
    "caddy": {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": PAGE},
}


@pytest.mark.parametrize("proxy", ["nginx", "caddy"])
async def test_while_nothing_can_be_recorded_no_file_passes(
    tmp_path: Path, proxy: ForwardAuth, capsys: pytest.CaptureFixture[str]
) -> None:
    async with setup(tmp_path, proxy).running() as broker:
        token = await read_token(broker)
        with contextlib.closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            check_refused(proxy, await ask(broker, proxy, FILE, token), "state-unavailable", 503)
        assert (await ask(broker, proxy, FILE, token)).status_code == 200
    printed = capsys.readouterr()
    assert "state-unavailable" in printed.out + printed.err, "the operator is told"


@pytest.mark.parametrize("proxy", HEADERS)
async def test_only_what_the_named_proxy_sends_is_looked_at(tmp_path: Path, proxy: ForwardAuth) -> None:
    async with setup(tmp_path, proxy).running() as broker:
        own, auth = HEADERS[proxy], {"Authorization": basic(await read_token(broker))}
        others = HEADERS["caddy" if proxy == "nginx" else "nginx"]
        assert (await broker.client.get("/_/authorize", headers={**auth, **own})).status_code == 200
        for headers in ({}, others, *({name: told} for name, told in own.items())):
            answer = await broker.client.get("/_/authorize", headers={**auth, **headers})
            check_refused(proxy, answer, "not-forwarded", 403)
        for name in own:  # the client's beside the proxy's
            twice = [*auth.items(), *own.items(), (name, own[name])]
            answer = await broker.client.get("/_/authorize", headers=twice)
            check_refused(proxy, answer, "not-forwarded", 403)
        check_refusal(await broker.client.get(f"/_/authorize{PAGE}", headers={**auth, **own}), "not-found", 404)


async def test_of_envoy_no_header_is_looked_at(tmp_path: Path) -> None:
    async with setup(tmp_path, "envoy").running() as broker:
        auth = {"Authorization": basic(await read_token(broker))}
        for headers in HEADERS.values():
            answer = await broker.client.get("/_/authorize", headers={**auth, **headers})
            check_refusal(answer, "unscoped-path", 404)
            answer = await broker.client.post(f"/_/authorize{PAGE}", headers={**auth, **headers})
            check_refusal(answer, "not-a-read", 403)
        for path in (f"/%5F/authorize{PAGE}", f"/_/%61uthorize{PAGE}"):
            url = httpx.URL(PUBLIC_URL).copy_with(raw_path=path.encode())
            check_refusal(await broker.client.get(url, headers=auth), "not-forwarded", 403)
        check_refusal(await broker.client.get(f"/_/authorized{PAGE}", headers=auth), "unscoped-path", 404)


async def test_below_another_application_s_path_envoy_s_is_found_too(tmp_path: Path) -> None:
    async with setup(tmp_path, "envoy").running() as broker:
        outer = Starlette(routes=[Mount("/broker", broker.app)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url=PUBLIC_URL) as client:
            auth = {"Authorization": basic(await read_token(broker))}
            assert (await client.get(f"/broker/_/authorize{PAGE}", headers=auth)).status_code == 200
            check_refusal(await client.get("/broker/_/authorize/simple/", headers=auth), "unscoped-path", 404)


async def test_where_it_is_off_there_is_none(tmp_path: Path) -> None:
    async with setup(tmp_path, "off").running() as broker:
        auth = {"Authorization": basic(await read_token(broker))}
        for headers in HEADERS.values():
            check_refusal(await broker.client.get("/_/authorize", headers={**auth, **headers}), "not-found", 404)


async def test_each_registry_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "registries.yaml").write_text(
        f"registries:\n"
        f"  main: {{path: /legacy/, audience: {AUDIENCE}, url: 'http://127.0.0.1:9/', reads: scoped}}\n"
        f"  team-a: {{path: /team-a/legacy/, audience: acme-team-a, url: 'http://127.0.0.1:9/team-a/prod/',\n"
        f"    index_url: 'http://127.0.0.1:9/team-a/prod/+simple', reads: scoped, forward_auth: traefik}}\n",
        encoding="utf-8",
    )
    several = {"registries": tmp_path / "registries.yaml", "audience": None, "registry_url": None}
    async with Setup(folder=tmp_path, settings=several).running() as broker:
        base = "/_/registries/team-a"
        minted = await broker.client.post(
            f"{base}/oidc/mint-token", json={"token": broker.ci.token(aud="acme-team-a"), "scope": "read"}
        )
        token, page = minted.json()["token"], "/team-a/prod/+simple/acme-widgets/"
        assert (await ask(broker, "traefik", page, token, base=base)).status_code == 200
        answer = await ask(broker, "traefik", page, await read_token(broker), base=base)
        check_refusal(answer, "invalid-upload-token", 403)
        check_refusal(await ask(broker, "traefik", PAGE, token, base=base), "unscoped-path", 404)
        check_refusal(await ask(broker, "traefik", page, token), "not-found", 404)


async def test_beside_an_index_of_no_known_form_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"BROKER_FORWARD_AUTH=nginx: .*'default'.*'/all/' is of no form that is known"
    ):
        async with setup(tmp_path, "nginx", registry_index_url="http://127.0.0.1:9/all/").running():
            raise AssertionError
