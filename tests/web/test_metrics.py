"""`/metrics` tells what happened and how things stand, to those who may know."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from operator import ge
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route

from broker import metrics as metrics_room
from broker.playground.ci_server import serving_ci
from broker.playground.registry import serving_registry
from broker.settings import SettingsError, load
from tests import servers
from tests.environment import environment
from tests.gateway.uploads import upload
from tests.harness import ACME, Broker, Setup
from tests.metrics.reading import read, value
from tests.web.test_upload_refusals import send

pytestmark = pytest.mark.anyio

TOKEN = "a-metrics-token-of-some-length"


@pytest.fixture(name="broker")
async def _broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with Setup(folder=tmp_path, settings={"metrics": "open"}).running() as broker:
        yield broker


async def told(broker: Broker) -> str:
    answer = await broker.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert answer.headers["cache-control"] == "no-store"
    return answer.text


# --- Who may read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "shown", "status"),
    [
        ({}, None, 404),
        ({}, "Bearer ", 404),
        ({"metrics_token": TOKEN}, None, 404),
        ({"metrics_token": TOKEN}, "Bearer another-token-of-some-length", 404),
        ({"metrics_token": TOKEN}, f"Basic {TOKEN}", 404),
        ({"metrics_token": TOKEN}, "Bearer é", 404),
        ({"metrics_token": TOKEN}, f"Bearer {TOKEN}", 200),
        ({"metrics_token": TOKEN}, f"bearer  {TOKEN}", 200),
        ({"metrics": "open"}, None, 200),
        ({"metrics": "open"}, "Bearer whatever", 200),
    ],
)
async def test_metrics_are_for_whoever_shows_the_token(
    tmp_path: Path, settings: dict[str, str], shown: str | None, status: int
) -> None:
    async with Setup(folder=tmp_path, settings=settings).running() as broker:
        headers = [] if shown is None else [(b"Authorization", shown.encode())]
        answer = await broker.client.get("/metrics", headers=headers)
    assert answer.status_code == status
    assert TOKEN not in answer.text
    if status == 404:
        assert answer.json()["errors"][0]["code"] == "not-found"
        assert "BROKER_METRICS_TOKEN" in answer.text


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"BROKER_METRICS_TOKEN": "short"}, "16 letters, digits and signs at least"),
        ({"BROKER_METRICS_TOKEN": "with white space in its middle"}, "no white space"),
        ({"BROKER_METRICS_TOKEN": TOKEN, "BROKER_METRICS": "open"}, "asks nobody for it"),
        ({"BROKER_METRICS": "everybody"}, "BROKER_METRICS: "),
    ],
)
def test_settings_that_would_surprise_are_refused(tmp_path: Path, more: dict[str, str], line: str) -> None:
    written = Setup(folder=tmp_path).write()
    values = {
        "BROKER_POLICIES": str(written.policies),
        "BROKER_PUBLIC_URL": written.public_url,
        "BROKER_AUDIENCE": str(written.audience),
        "BROKER_SIGNING_KEYS": str(written.signing_keys),
        "BROKER_REGISTRY_URL": str(written.registry_url),
    }
    with environment(**values, **more), pytest.raises(SettingsError, match=line) as error:
        load()
    assert more.get("BROKER_METRICS_TOKEN", "nothing") not in str(error.value)


# --- What they tell --------------------------------------------------------------------------------------------------


async def test_attempts_are_counted_by_kind_decision_code_and_issuer(broker: Broker) -> None:
    await broker.minted("github")
    await broker.mint(broker.ci.token("gitlab", aud="another"))
    await broker.client.post("/_/oidc/burn-token", json={"token": await broker.minted("gitlab")})
    text = await told(broker)

    def attempts(kind: str, decision: str, code: str, issuer: str) -> float:
        return value(text, "broker_attempts_total", kind=kind, decision=decision, code=code, issuer=issuer)

    assert attempts("mint", "allowed", "none", "github") == 1
    assert attempts("mint", "refused", "wrong-audience", "gitlab") == 1
    assert attempts("revocation", "allowed", "none", "gitlab") == 1
    assert value(text, "broker_refusals_total", code="wrong-audience") == 1
    assert value(text, "broker_attempt_seconds_count", kind="mint", decision="allowed") == 2
    for step, count in {"body": 3, "keys": 3, "verify": 2, "gates": 2, "mint": 2, "state": 2}.items():
        assert value(text, "broker_step_seconds_count", kind="mint", step=step) == count, step


async def test_uploads_are_counted_with_their_steps_and_bytes(tmp_path: Path) -> None:
    with serving_registry(tmp_path) as registry:
        settings = {
            "metrics": "open",
            "registry_url": f"{registry.url}/",
            "registry_username": registry.username,
            "registry_password": registry.password,
        }
        async with Setup(folder=tmp_path, settings=settings).running() as broker:
            for _ in range(2):
                answer = await send(broker, upload())
                assert answer.status_code == 200, answer.text
            text = await told(broker)
    assert value(text, "broker_uploads_total", outcome="stored") == 1
    assert value(text, "broker_uploads_total", outcome="already-stored") == 1
    assert value(text, "broker_uploaded_bytes_total") > 100
    for step in ("verify", "body", "package", "registry", "state"):
        assert value(text, "broker_step_seconds_count", kind="upload", step=step) == 2, step
    assert value(text, "broker_step_seconds_count", kind="upload", step="gates") == 4
    assert value(text, "broker_upload_places") == 64
    assert value(text, "broker_upload_places_held") == 0


async def test_refusals_in_oauth_s_form_and_of_no_attempt_are_counted_too(broker: Broker) -> None:
    await broker.client.post("/oauth2/token", data={"grant_type": "password"})
    await broker.client.get("/nowhere")
    text = await told(broker)
    assert value(text, "broker_refusals_total", code="unsupported-grant") == 1
    assert value(text, "broker_refusals_total", code="not-found") == 1


async def test_a_bug_is_counted(broker: Broker) -> None:
    async def broken(_: object) -> None:
        raise RuntimeError

    broker.app.router.routes.insert(0, Route("/broken", broken))
    assert (await broker.client.get("/broken")).status_code == 500
    assert value(await told(broker), "broker_internal_errors_total") == 1


async def test_state_that_is_gone_is_told_and_metrics_are_still_there(tmp_path: Path) -> None:
    settings = {"metrics": "open", "state_url": f"sqlite:///{tmp_path}"}  # a folder, and no file
    async with Setup(folder=tmp_path, settings=settings).running() as broker:
        assert (await broker.mint(broker.ci.token())).status_code == 503
        text = await told(broker)
    assert value(text, "broker_state_reachable") == 0
    assert value(text, "broker_refusals_total", code="state-unavailable") == 1


async def test_keys_and_policies_tell_their_age_and_whether_they_fail(broker: Broker) -> None:
    await broker.minted()
    text = await told(broker)
    assert value(text, "broker_state_reachable") == 1
    assert value(text, "broker_issuer_keys_usable", issuer="github") == 1
    assert value(text, "broker_policies_failing_seconds") == 0
    assert value(text, "broker_policies_denying") == 0
    broker.clock.ahead_seconds = 100
    assert value(await told(broker), "broker_issuer_keys_age_seconds", issuer="github") in range(99, 130)
    await broker.break_policies()
    broker.clock.ahead_seconds = 200
    text = await told(broker)
    assert 100 <= value(text, "broker_policies_failing_seconds") < 130
    assert value(text, "broker_policies_age_seconds") >= 200
    broker.clock.ahead_seconds = 25 * 3600
    assert value(await told(broker), "broker_policies_denying") == 1


async def test_policies_that_were_loaded_anew_are_young(broker: Broker) -> None:
    broker.clock.ahead_seconds = 1000
    assert value(await told(broker), "broker_policies_age_seconds") >= 1000
    acme = broker.folder / "policies" / "organizations" / "acme.yaml"
    acme.write_text(ACME.replace("role: member, github", "role: owner, github"), encoding="utf-8")
    until = time.monotonic() + 20
    young = False
    while not young:
        assert time.monotonic() < until
        await asyncio.sleep(0.1)
        young = value(await told(broker), "broker_policies_age_seconds") < 1000


async def test_a_disabled_issuer_and_one_without_keys_have_no_age(tmp_path: Path) -> None:
    index = (
        "issuers:\n  github: {provider: github}\n  gitlab: {provider: gitlab, disabled: true}\n"
        "  google: {provider: google}\n"
    )
    nothing = httpx.MockTransport(lambda _: httpx.Response(503))
    setup = Setup(folder=tmp_path, index=index, issuers=nothing, settings={"metrics": "open"})
    async with setup.running() as broker:
        series = read(await told(broker))
    assert {name for name, labels in series if ("issuer", "gitlab") in labels} == set()
    assert series["broker_issuer_keys_usable", frozenset({("issuer", "github")})] == 0
    assert "broker_issuer_keys_age_seconds" not in {name for name, _ in series}


# --- Several workers -------------------------------------------------------------------------------------------------


def test_any_worker_tells_what_all_have_counted(tmp_path: Path) -> None:
    wanted = [10, 10, 2, 2 * 64]
    with (
        serving_ci() as ci,
        servers.broker(tmp_path, ci, workers="2", metrics="open") as served,
        # A connection each, so that all workers get some.
        httpx.Client(base_url=served.url, trust_env=False, headers={"Connection": "close"}) as client,
    ):
        for number in range(20):
            client.post("/_/oidc/mint-token", json={"token": ci.token() if number % 2 else "x"})
        until, seen, before = time.monotonic() + 20, 0, [0.0] * 2
        while seen < 10:
            text = client.get("/metrics").text
            counted = [
                value(text, "broker_attempts_total", kind="mint", decision="allowed", code="none", issuer="github"),
                value(text, "broker_refusals_total", code="malformed-token"),
                value(text, "broker_workers"),
                value(text, "broker_upload_places"),
            ]
            seen += counted == wanted
            assert all(map(ge, counted, before)), "a counter went back"
            assert time.monotonic() < until, counted
            before = counted[:2]
            time.sleep(0.05)


async def test_sheets_that_cannot_be_written_are_one_warning_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_room, "WRITE_SECONDS", 0.01)
    sheets = tmp_path / "sheets"
    sheets.mkdir()
    setup = Setup(folder=tmp_path, settings={"metrics": "open"}, sheets=sheets)

    async def written() -> None:
        until = time.monotonic() + 20
        there = False
        while not there:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
            there = any(sheets.glob("*.json"))

    async with setup.running() as broker:
        await written()
        for _ in range(2):
            shutil.rmtree(sheets)
            await asyncio.sleep(0.1)
            assert value(await told(broker), "broker_workers") == 1
            sheets.mkdir()
            await written()
    warned = [line for line in capsys.readouterr().out.splitlines() if "metrics cannot be shared" in line]
    assert len(warned) == 2
    assert len(list(sheets.glob("*.json"))) == 1


async def test_a_broker_that_ends_while_its_sheets_cannot_be_written_ends_well(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path, sheets=tmp_path / "gone").running():
        await asyncio.sleep(0.05)
