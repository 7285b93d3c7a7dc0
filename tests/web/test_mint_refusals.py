"""Each refusal of the exchange, provoked by changing one thing in a valid one; and what every answer has in common."""

from __future__ import annotations

import contextlib
import gc
import json
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from broker import exchange
from broker.policy.model import SHORTEST_LIFETIME_SECONDS
from tests.devpi import NATIVE
from tests.harness import ACME, AUDIENCE, INDEX, Broker, Setup

pytestmark = pytest.mark.anyio

Ask = Callable[[Broker], Awaitable[httpx.Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One change to a valid exchange, and what it is refused with."""

    code: str
    status: int
    ask: Ask
    acme: str = ACME
    index: str = INDEX
    issuers: httpx.AsyncBaseTransport | None = None
    settings: tuple[tuple[str, object], ...] = ()
    recorded: bool = True


def github(**changes: object) -> Ask:
    """The exchange of a GitHub token with these claims changed."""
    return lambda broker: broker.mint(broker.ci.token("github", **changes))


def posted(body: bytes) -> Ask:
    """The exchange of a body as it is."""
    return lambda broker: broker.client.post("/_/oidc/mint-token", content=body)


def member(name: str, fields: str) -> str:
    """The policy with more fields at a member."""
    return ACME.replace(f"{name}: {{role", f"{name}: {{{fields}, role")


async def twice(broker: Broker) -> httpx.Response:
    token = broker.ci.token()
    assert (await broker.mint(token)).status_code == 200
    return await broker.mint(token)


async def before_the_state(broker: Broker) -> httpx.Response:
    return await broker.mint(broker.ci.token(iat=int(time.time()) - 60))


async def two_runs(broker: Broker) -> httpx.Response:
    assert (await broker.mint(broker.ci.token())).status_code == 200
    return await broker.mint(broker.ci.token())


async def after_burning(broker: Broker) -> httpx.Response:
    token = broker.ci.token("gitlab")
    minted = await broker.mint(token)
    assert minted.status_code == 200
    assert (await broker.client.post("/_/oidc/burn-token", json={"token": minted.json()["token"]})).status_code == 202
    return await broker.mint(token)


async def tampered(broker: Broker) -> httpx.Response:
    header, payload, signature = broker.ci.token().split(".")
    other = broker.ci.token(actor_id="1002").split(".")[1]
    assert other != payload
    return await broker.mint(f"{header}.{other}.{signature}")


async def foreign_key(broker: Broker) -> httpx.Response:
    return await broker.mint(broker.ci.sign(broker.ci.claims("github"), "github", kid="none-of-theirs"))


async def while_state_is_locked(broker: Broker) -> httpx.Response:
    # By another process's long transaction, as far as SQLite can tell.
    assert (await broker.mint(broker.ci.token())).status_code == 200
    with contextlib.closing(sqlite3.connect(broker.folder / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        return await broker.mint(broker.ci.token())


def seconds(**offsets: int) -> Ask:
    """The exchange of a token whose moments are so far from now."""

    def ask(broker: Broker) -> Awaitable[httpx.Response]:
        now = int(time.time())  # and not when the table is made: the test may run many minutes later
        return broker.mint(broker.ci.token("github", **{name: now + at for name, at in offsets.items()}))

    return ask


async def after_policies_broke(broker: Broker) -> httpx.Response:
    await broker.break_policies()
    return await broker.mint(broker.ci.token())


DOWN = httpx.MockTransport(lambda _: httpx.Response(500))

ROWS = [
    Row(code="malformed-request", status=422, ask=posted(b"[]")),
    Row(code="request-too-large", status=413, ask=posted(b'{"token": "' + b"x" * 40_000 + b'"}')),
    Row(code="unsupported-feature", status=422, ask=lambda broker: broker.mint(broker.ci.token(), features=["x"])),
    Row(code="malformed-token", status=422, ask=lambda broker: broker.mint("a.b")),
    Row(code="unknown-issuer", status=422, ask=github(iss="https://evil.example")),
    Row(
        code="issuer-disabled",
        status=403,
        ask=github(),
        index=INDEX.replace("{provider: github}", "{provider: github, disabled: true}"),
    ),
    Row(code="unknown-key", status=422, ask=foreign_key),
    Row(code="keys-unavailable", status=503, ask=github(), issuers=DOWN),
    Row(code="invalid-signature", status=422, ask=tampered),
    Row(code="wrong-audience", status=422, ask=github(aud="pypi")),
    Row(code="expired-token", status=422, ask=seconds(iat=-1000, exp=-100)),
    Row(code="token-not-yet-valid", status=422, ask=seconds(iat=600, exp=900)),
    Row(code="token-lifetime", status=422, ask=seconds(iat=0, exp=7200)),
    Row(code="missing-claim", status=422, ask=github(actor_id=...)),
    Row(code="invalid-claim", status=422, ask=github(actor_id=1001)),
    Row(code="forbidden-trigger", status=403, ask=github(event_name="pull_request_target")),
    Row(code="forked-source", status=403, ask=lambda b: b.mint(b.ci.token("gitlab", job_project_id="21"))),
    Row(code="no-publisher", status=403, ask=github(workflow_file="other.yml")),
    Row(
        code="publisher-reads-only",
        status=403,
        ask=github(),
        acme=ACME.replace("    projects: [acme-widgets, acme-gadgets]", "    downloads: [acme-widgets]"),
    ),
    Row(
        code="publisher-expired",
        status=403,
        ask=github(),
        acme=ACME.replace("    issuer: github\n", "    issuer: github\n    until: 2020-01-31\n"),
    ),
    Row(code="organization-suspended", status=403, ask=github(), acme=ACME + "suspended: true\n"),
    Row(code="organization-frozen", status=403, ask=github(), acme=ACME + "freezes: [{reason: year end}]\n"),
    Row(code="identity-changed", status=403, ask=github(repository_id="1")),
    Row(code="unknown-actor", status=403, ask=github(actor="mallory", actor_id="6666")),
    Row(code="member-suspended", status=403, ask=github(), acme=member("alice", "suspended: true")),
    Row(code="member-expired", status=403, ask=github(), acme=member("alice", "until: 2020-01-31")),
    Row(code="member-not-permitted", status=403, ask=github(actor="carol", actor_id="1003")),
    Row(code="machine-required", status=403, ask=github(actor="deploy[bot]")),
    Row(
        code="prefix-not-expressible",
        status=403,
        ask=github(),
        acme=ACME.replace("[acme-widgets, acme-gadgets]", '["acme-*"]'),
        settings=NATIVE,
    ),
    Row(code="rate-limited", status=429, ask=two_runs, settings=(("exchanges_per_minute", 1),)),
    Row(code="replayed-token", status=422, ask=twice),
    Row(code="state-forgot", status=422, ask=before_the_state),
    Row(code="revoked-token", status=403, ask=after_burning),
    Row(code="policies-stale", status=503, ask=after_policies_broke, settings=(("policies_stale_after_hours", 0),)),
    Row(code="state-unavailable", status=503, ask=while_state_is_locked, recorded=False),
]

UNROUTED = [
    ("not-found", 404, lambda broker: broker.client.get("/simple/")),
    ("method-not-allowed", 405, lambda broker: broker.client.get("/_/oidc/mint-token")),
    (
        "not-acceptable",
        406,
        lambda b: b.client.get("/.well-known/pytp?discover=/legacy/", headers={"Accept": "text/html"}),
    ),
]


async def test_the_exchange_that_every_row_changes_is_allowed(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        for issuer in ("github", "gitlab", "google"):
            answer = await broker.mint(broker.ci.token(issuer))
            assert answer.status_code == 200, answer.text
            assert answer.json()["success"] is True
            assert answer.json()["token"].startswith("pypi-")
            assert answer.json()["expires"] == pytest.approx(time.time() + 900, abs=5)
            assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
async def test_one_change_is_refused_with_its_code_and_recorded_once(tmp_path: Path, row: Row) -> None:
    setup = Setup(folder=tmp_path, acme=row.acme, index=row.index, issuers=row.issuers, settings=dict(row.settings))
    async with setup.running() as broker:
        answer = await row.ask(broker)
        check_refusal(answer, row.code, row.status)
        mine = [record for record in await broker.records() if record["attempt"] == answer.json()["attempt"]]
    assert len(mine) == (1 if row.recorded else 0)
    assert all((record["decision"], record["code"]) == ("refused", row.code) for record in mine)


@pytest.mark.parametrize(("code", "status", "ask"), UNROUTED)
async def test_what_no_route_takes_is_refused_with_its_code(tmp_path: Path, code: str, status: int, ask: Ask) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        check_refusal(await ask(broker), code, status)


def check_refusal(answer: httpx.Response, code: str, status: int) -> None:
    """The shape that serves all clients at once: PyPI's, and RFC 9457's."""
    body = answer.json()
    assert (answer.status_code, body["errors"][0]["code"]) == (status, code), answer.text
    assert body["message"]
    assert body["errors"][0]["description"]
    assert body["type"].endswith(code)
    assert (body["status"], bool(body["title"]), bool(body["detail"])) == (status, True, True)
    assert body["attempt"] == answer.headers["attempt-id"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert ("retry-after" in answer.headers) == (code in {"rate-limited", "upload-in-progress", "reads-busy"})


async def test_a_refused_token_is_not_used_up(tmp_path: Path) -> None:
    setup = Setup(folder=tmp_path, settings={"exchanges_per_minute": 1})
    async with setup.running() as broker:
        first, token = broker.ci.token(), broker.ci.token()
        assert (await broker.mint(first)).status_code == 200
        assert (await broker.mint(token)).status_code == 429
        broker.clock.ahead_seconds = 61
        assert (await broker.mint(token)).status_code == 200


async def test_padding_makes_no_second_token(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        token = broker.ci.token()
        answers = [await broker.mint(token + padding) for padding in ("", "=", "==")]
        assert [answer.status_code for answer in answers] == [200, 422, 422]
        assert {answer.json()["errors"][0]["code"] for answer in answers[1:]} == {"replayed-token"}


async def test_gitlab_s_one_token_gets_the_same_upload_token_until_that_dies(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        token = broker.ci.token("gitlab")
        first, second = await broker.mint(token), await broker.mint(token)
        assert first.json()["token"] == second.json()["token"]
        broker.clock.ahead_seconds = 901
        check_refusal(await broker.mint(token), "replayed-token", 422)
        assert [(r["decision"], r.get("repeated", False)) for r in await broker.records()] == [
            ("allowed", False),
            ("allowed", True),
            ("refused", False),
        ]


async def test_what_was_expected_is_told_to_the_source_s_owner_alone(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        owner = await broker.mint(broker.ci.token(environment="staging"))
        assert "'pypi'" in owner.json()["errors"][0]["description"]
        stranger = await broker.mint(broker.ci.token(environment="staging", repository_owner_id="7"))
        assert "pypi" not in stranger.text
        assert "65600975" in json.dumps((await broker.records())[-1]["considered"])


async def test_the_alias_answers_as_the_mint_does_whatever_the_content_type(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        for path in ("/_/oidc/mint-token", "/_/oidc/github/mint-token?repository=x"):
            body = json.dumps({"token": broker.ci.token()})
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            assert (await broker.client.post(path, content=body, headers=kind)).status_code == 200


async def test_audience_discovery_and_keys_are_answered(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        audience = await broker.client.get("/_/oidc/audience?x=1")
        assert audience.json() == {"audience": AUDIENCE}
        assert audience.headers["cache-control"] == "no-store"
        for path in ("/legacy/", "/legacy", "https://upload.acme.example/legacy/"):
            found = await broker.client.get("/.well-known/pytp", params={"discover": path})
            assert found.headers["content-type"] == "application/vnd.pypi.pytp.v1+json"
            assert found.json() == {
                "audience-endpoint": "https://upload.acme.example/_/oidc/audience",
                "token-mint-endpoint": "https://upload.acme.example/_/oidc/mint-token",
                "features": ["single-use-token", "multi-use-token"],
                "default-features": ["multi-use-token"],
            }
        for path in ("/other/", ""):
            check_refusal(await broker.client.get("/.well-known/pytp", params={"discover": path}), "not-found", 404)
        keys = (await broker.client.get("/.well-known/jwks.json")).json()["keys"]
        assert [sorted(key) for key in keys] == [["alg", "crv", "kid", "kty", "use", "x"]]


async def test_burning_is_blind_and_idempotent(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        token = await broker.minted()
        answers = [
            await broker.client.post("/_/oidc/burn-token", json={"token": text}) for text in (token, token, "x", "")
        ]
        assert {(answer.status_code, answer.content) for answer in answers} == {(202, b"{}")}
        records = await broker.records()
        assert [record["kind"] for record in records] == ["mint", "revocation"], "else a token is good for any number"
        assert {record["token_id"] for record in records} == {records[0]["token_id"]}


async def test_only_so_many_burned_tokens_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_BURNED", 1)
    async with Setup(folder=tmp_path).running() as broker:
        first, second = await broker.minted(), await broker.minted()
        for token in (first, first, second, second, first):
            await broker.client.post("/_/oidc/burn-token", json={"token": token})
        assert [record["kind"] for record in await broker.records()] == ["mint", "mint", *["revocation"] * 3]


async def test_a_burned_token_is_not_remembered_beyond_its_time(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        for later in (0, SHORTEST_LIFETIME_SECONDS):
            broker.clock.ahead_seconds = later
            now = int(broker.clock())
            token = await broker.minted(iat=now, nbf=now, exp=now + 300)
            await broker.client.post("/_/oidc/burn-token", json={"token": token})
        first, second = (record["token_id"] for record in await broker.records() if record["kind"] == "revocation")
        tables = [one for one in gc.get_objects() if isinstance(one, OrderedDict)]
        assert [(first in one, second in one) for one in tables if {first, second} & one.keys()] == [(False, True)]


async def test_readiness_says_why(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        await broker.minted()
        ready = await broker.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert ready.json()["issuers"]["github"]["usable"] is True
        assert (await broker.client.get("/healthz")).json() == {"status": "alive"}
    async with Setup(folder=tmp_path / "b", issuers=DOWN).running() as broker:
        assert (await broker.mint(broker.ci.token())).status_code == 503
        answer = await broker.client.get("/readyz")
        assert (answer.status_code, answer.json()["problems"]) == (503, ["no issuer has usable keys"])
        assert "500" in answer.json()["issuers"]["github"]["problem"]
        assert (await broker.client.get("/healthz")).status_code == 200
