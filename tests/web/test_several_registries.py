"""One broker in front of several registries: each index has its audience, tokens, organizations and routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.api_tokens import ApiToken
from broker.gateway import USER as TOKEN_USER
from broker.state.opening import open_state
from tests.gateway.uploads import CONTENT_TYPE, WHEEL, upload
from tests.harness import ACME, AUDIENCE, PUBLIC_URL, Broker, Setup, state_url
from tests.registries import PASSWORD, USER, PypiServer, pypi_server
from tests.web.test_mint_refusals import check_refusal
from tests.web.test_oauth import EXCHANGE, ID_TOKEN

pytestmark = pytest.mark.anyio

TEAM_HOST = "https://team-b.acme.example"
NOT_ADMITTED = "organization-not-admitted"

BOLT = """\
organization: bolt
namespaces: [bolt]
members: {dora: {role: owner, github: "1001"}}
publishers:
  bolts:
    issuer: github
    repository: acme-corp/widgets
    repository_id: "424242424"
    repository_owner_id: "65600975"
    workflow: release.yml
    projects: [bolt-nuts]
"""

REGISTRIES = """\
registries:
  main:
    path: /legacy/
    audience: acme-index
    url: {0}
    username: broker
    password_file: password
  team-a:
    path: /team-a/legacy/
    audience: acme-team-a
    url: {1}
    username: broker
    password_file: password
    drop_fields: [attestations]
  bolts:
    path: /bolts/
    audience: acme-bolts
    url: {1}
    username: broker
    password_file: password
    organizations: [bolt]
  team-b:
    public_url: https://team-b.acme.example
    path: /legacy/
    audience: acme-team-b
    url: {1}
    username: broker
    password_file: password
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexes:
    """A broker with four indexes on two hosts, before two registries."""

    broker: Broker
    main: PypiServer
    team: PypiServer

    async def mint(self, path: str, audience: str, host: str = PUBLIC_URL) -> httpx.Response:
        """An exchange at a route."""
        return await self.broker.client.post(f"{host}{path}", json={"token": self.broker.ci.token(aud=audience)})

    async def minted(self, path: str, audience: str, host: str = PUBLIC_URL) -> str:
        """An upload token."""
        answer = await self.mint(path, audience, host)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    async def upload(self, path: str, token: str, host: str = PUBLIC_URL) -> httpx.Response:
        """An upload to a path."""
        return await self.broker.client.post(
            f"{host}{path}",
            content=upload(),
            headers={"Content-Type": CONTENT_TYPE},
            auth=(TOKEN_USER, token),
        )


@pytest.fixture(name="servers", scope="module")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PypiServer, PypiServer]]:
    with (
        pypi_server(tmp_path_factory.mktemp("main")) as main,
        pypi_server(tmp_path_factory.mktemp("team")) as team,
    ):
        yield main, team


@contextlib.asynccontextmanager
async def serving(
    folder: Path, servers: tuple[PypiServer, PypiServer], registries: str = REGISTRIES
) -> AsyncIterator[Indexes]:
    """The broker; both registries are empty."""
    for server in servers:
        for path in server.packages.iterdir():
            path.unlink()
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "registries.yaml").write_text(registries.format(*(server.url for server in servers)))
    settings: dict[str, Any] = {"registries": folder / "registries.yaml", "audience": None, "registry_url": None}
    (folder / "policies" / "organizations").mkdir(parents=True)
    (folder / "policies" / "organizations" / "bolt.yaml").write_text(BOLT)
    async with Setup(folder=folder, settings=settings).running() as broker:
        yield Indexes(broker=broker, main=servers[0], team=servers[1])


TEAM_A = ("/_/registries/team-a/oidc/mint-token", "acme-team-a")
MAIN = ("/_/oidc/mint-token", AUDIENCE)
BOLTS = ("/_/registries/bolts/oidc/mint-token", "acme-bolts")


async def test_each_host_s_default_index_is_at_the_old_routes(
    tmp_path: Path, servers: tuple[PypiServer, PypiServer]
) -> None:
    async with serving(tmp_path, servers) as indexes:
        ask = indexes.broker.client.get
        for host, audience in ((PUBLIC_URL, AUDIENCE), (TEAM_HOST, "acme-team-b"), ("https://10.0.0.1", AUDIENCE)):
            assert (await ask(f"{host}/_/oidc/audience")).json() == {"audience": audience}
            assert (await ask(f"{host}/healthz")).json() == {"status": "alive"}
        assert (await ask("/_/registries/team-a/oidc/audience")).json() == {"audience": "acme-team-a"}
        check_refusal(await ask(f"{TEAM_HOST}/_/registries/team-a/oidc/audience"), "not-found", 404)
        check_refusal(await ask("/_/registries/main/oidc/audience"), "not-found", 404)
        check_refusal(await ask(f"{TEAM_HOST}/legacy/"), "method-not-allowed", 405)
        check_refusal(await ask(f"{TEAM_HOST}/legacy//"), "not-found", 404)


async def test_discovery_answers_for_each(tmp_path: Path, servers: tuple[PypiServer, PypiServer]) -> None:
    async with serving(tmp_path, servers) as indexes:
        found = [
            (await indexes.broker.client.get(f"{host}/.well-known/pytp", params={"discover": host + path})).json()
            for host, path in ((PUBLIC_URL, "/legacy/"), (PUBLIC_URL, "/team-a/legacy"), (TEAM_HOST, "/legacy/"))
        ]
        assert [one["token-mint-endpoint"] for one in found] == [
            f"{PUBLIC_URL}/_/oidc/mint-token",
            f"{PUBLIC_URL}/_/registries/team-a/oidc/mint-token",
            f"{TEAM_HOST}/_/oidc/mint-token",
        ]
        assert found[1]["audience-endpoint"] == f"{PUBLIC_URL}/_/registries/team-a/oidc/audience"
        unknown = await indexes.broker.client.get("/.well-known/pytp", params={"discover": "/team-b/legacy/"})
        check_refusal(unknown, "not-found", 404)


async def test_a_token_uploads_to_its_own_index_alone(tmp_path: Path, servers: tuple[PypiServer, PypiServer]) -> None:
    async with serving(tmp_path, servers) as indexes:
        token = await indexes.minted(*TEAM_A)
        for host, path in ((PUBLIC_URL, "/legacy/"), (TEAM_HOST, "/legacy/")):
            check_refusal(await indexes.upload(path, token, host), "invalid-upload-token", 403)
        assert (indexes.main.stored(), indexes.team.stored()) == ({}, {})
        assert (await indexes.upload("/team-a/legacy/", token)).status_code == 200
        assert (list(indexes.main.stored()), list(indexes.team.stored())) == ([], [WHEEL])
        assert (await indexes.upload("/legacy/", await indexes.minted(*MAIN))).status_code == 200
        assert list(indexes.main.stored()) == [WHEEL]
        records = [one for one in await indexes.broker.records() if one["organization"] != "bolt"]
    assert [(one["kind"], one["index"], one["decision"]) for one in records] == [
        ("mint", "team-a", "allowed"),
        ("upload", "main", "refused"),
        ("upload", "team-b", "refused"),
        ("upload", "team-a", "allowed"),
        ("mint", "main", "allowed"),
        ("upload", "main", "allowed"),
    ]


async def test_an_identity_token_is_for_the_index_of_its_audience(
    tmp_path: Path, servers: tuple[PypiServer, PypiServer]
) -> None:
    async with serving(tmp_path, servers) as indexes:
        check_refusal(await indexes.mint(MAIN[0], "acme-team-a"), "wrong-audience", 422)
        check_refusal(await indexes.mint(TEAM_A[0], AUDIENCE), "wrong-audience", 422)
        check_refusal(await indexes.mint(MAIN[0], AUDIENCE, TEAM_HOST), "wrong-audience", 422)


async def test_who_starts_it_is_told_of_organizations_that_the_policies_do_not_have(
    tmp_path: Path, servers: tuple[PypiServer, PypiServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """It serves all the same: policies come and go, and nobody uses an index by a name that nobody has."""
    registries = REGISTRIES.replace("[bolt]", "[bolt, blot, atlas]")
    async with serving(tmp_path, servers, registries) as indexes:
        assert (await indexes.mint(*BOLTS)).status_code == 200
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [told] = [
        line for line in lines if line["event"] == "a registry is for organizations that the policies do not have"
    ]
    assert (told["level"], told["registry"], told["organizations"]) == ("warning", "bolts", ["atlas", "blot"])


async def test_an_index_is_for_the_organizations_that_the_operator_names(
    tmp_path: Path, servers: tuple[PypiServer, PypiServer]
) -> None:
    async with serving(tmp_path, servers) as indexes:
        token = await indexes.minted(*BOLTS)
        check_refusal(await indexes.upload("/bolts/", token), "namespace-reserved", 409)
        acme = await indexes.minted(*MAIN)
        assert (await indexes.upload("/legacy/", acme)).status_code == 200
        records = await indexes.broker.records()
    assert records[0]["projects"] == ["bolt-nuts"], "acme's publisher matches too, and does not count here"
    shared = [(one["organization"], one["projects"]) for one in records if "shared_with" in one]
    assert shared == [("acme", ["acme-gadgets", "acme-widgets"]), ("bolt", ["bolt-nuts"])]


async def test_whose_organization_is_not_admitted_earns_nothing(
    tmp_path: Path, servers: tuple[PypiServer, PypiServer]
) -> None:
    async with serving(tmp_path, servers) as indexes:
        bolt = tmp_path / "policies" / "organizations" / "bolt.yaml"
        bolt.write_text(BOLT.replace("workflow: release.yml", "workflow: other.yml"))
        last = await indexes.mint(*BOLTS)
        for _ in range(100):  # until the broker has read it
            if last.status_code != 200:
                break
            await asyncio.sleep(0.1)
            last = await indexes.mint(*BOLTS)
        check_refusal(last, NOT_ADMITTED, 403)


async def test_a_token_is_refused_once_its_organization_is_no_more_admitted(
    tmp_path: Path, servers: tuple[PypiServer, PypiServer]
) -> None:
    async with serving(tmp_path, servers) as indexes:
        token = await indexes.minted(*TEAM_A)
    text = (tmp_path / "registries.yaml").read_text()
    closed = text.replace("drop_fields: [attestations]", "organizations: [bolt]")
    assert closed != text
    (tmp_path / "registries.yaml").write_text(closed)
    settings: dict[str, Any] = {"registries": tmp_path / "registries.yaml", "audience": None, "registry_url": None}
    async with Setup(folder=tmp_path, settings=settings, acme=ACME).running() as broker:
        indexes = Indexes(broker=broker, main=servers[0], team=servers[1])
        # Only bolt's publisher counts by now, and it gives nothing of acme's.
        check_refusal(await indexes.upload("/team-a/legacy/", token), "namespace-reserved", 409)
    assert indexes.team.stored() == {}


async def test_burning_finds_the_token_s_index(tmp_path: Path, servers: tuple[PypiServer, PypiServer]) -> None:
    async with serving(tmp_path, servers) as indexes:
        token = await indexes.minted(*TEAM_A)
        assert (await indexes.broker.client.post("/_/oidc/burn-token", json={"token": "x"})).status_code == 202
        assert (await indexes.broker.client.post("/_/oidc/burn-token", json={"token": token})).status_code == 202
        check_refusal(await indexes.upload("/team-a/legacy/", token), "revoked-token", 403)


async def test_the_oauth_exchange_finds_the_index_by_its_url_or_audience(
    tmp_path: Path, servers: tuple[PypiServer, PypiServer]
) -> None:
    async with serving(tmp_path, servers) as indexes:

        async def exchange(aud: str, **target: str) -> httpx.Response:
            form = {
                "grant_type": EXCHANGE,
                "subject_token": indexes.broker.ci.token(aud=aud),
                "subject_token_type": ID_TOKEN,
            }
            return await indexes.broker.client.post("/oauth2/token", data=form | target)

        url = f"{PUBLIC_URL}/team-a/legacy/"
        for target in (
            {"resource": url},
            {"audience": "acme-team-a"},
            {"resource": url[:-1], "audience": "acme-team-a"},
        ):
            answer = await exchange("acme-team-a", **target)
            assert answer.status_code == 200, answer.text
            token = answer.json()["access_token"]
        assert (await indexes.upload("/team-a/legacy/", token)).status_code == 200
        assert (await exchange(AUDIENCE)).status_code == 200
        both = await exchange("acme-team-a", resource=url, audience=AUDIENCE)
        assert (both.status_code, both.json()["error"]) == (400, "invalid_target")
        elsewhere = await exchange("acme-team-b", audience="acme-team-b")
        assert (elsewhere.status_code, elsewhere.json()["error"]) == (400, "invalid_target")
        record = (await indexes.broker.records())[-1]
    assert (record["kind"], record["code"], record["index"]) == ("mint", "invalid-target", "main")


async def test_a_registry_is_told_of_its_own_index_s_tokens_alone(
    tmp_path: Path, servers: tuple[PypiServer, PypiServer]
) -> None:
    async with serving(tmp_path, servers) as indexes:
        shown, kept = ApiToken.make("pypiserver", "registry", now=time.time(), seconds=3600)
        state = open_state(state_url(tmp_path), retention_days=400)
        await state.store_api_token(kept)
        await state.close()
        token = await indexes.minted(*TEAM_A)

        async def ask(path: str) -> dict[str, Any]:
            answer = await indexes.broker.client.post(
                path, data={"token": token}, headers={"Authorization": f"Bearer {shown}"}
            )
            assert answer.status_code == 200, answer.text
            told: dict[str, Any] = answer.json()
            return told

        assert (await ask("/oauth2/introspect")) == {"active": False}
        assert (await ask("/_/registries/bolts/introspect")) == {"active": False}
        told = await ask("/_/registries/team-a/introspect")
        assert (told["active"], told["aud"]) == (True, f"{PUBLIC_URL}/team-a/legacy/")
        revoked = await indexes.broker.client.post(
            "/oauth2/revoke", data={"token": token}, headers={"Authorization": f"Bearer {shown}"}
        )
        assert revoked.status_code == 200
        assert (await ask("/_/registries/team-a/introspect")) == {"active": False}


async def test_a_rotated_password_is_shown_at_the_next_upload(
    tmp_path: Path, servers: tuple[PypiServer, PypiServer]
) -> None:
    assert USER == "broker"
    async with serving(tmp_path, servers) as indexes:
        (tmp_path / "password").write_text("wrong\n")
        token = await indexes.minted(*MAIN)
        check_refusal(await indexes.upload("/legacy/", token), "registry-credential", 502)
        (tmp_path / "password").write_text(PASSWORD + "\n")
        assert (await indexes.upload("/legacy/", token)).status_code == 200
