"""What a client gains by holding a request open: nothing. The moment of the decision is the broker's to choose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from broker.state import LONGEST_UPLOAD_SECONDS
from broker.web import answers, uploads
from tests.gateway.uploads import CONTENT_TYPE, upload
from tests.harness import INDEX, Broker, Setup
from tests.registries import PypiServer, pypi_server
from tests.web.test_mint_refusals import check_refusal
from tests.web.test_upload_refusals import basic, send, setup

pytestmark = pytest.mark.anyio

SWEPT_AFTER = 300
"""More writes than `SWEEP_AFTER`: then what may be forgotten is."""


@pytest.fixture(name="registry", scope="module")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    with pypi_server(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


async def halves(body: bytes, go: asyncio.Event) -> AsyncIterator[bytes]:
    """A body whose second half waits."""
    yield body[: len(body) // 2]
    await go.wait()
    yield body[len(body) // 2 :]


async def forget(broker: Broker, ahead_seconds: float) -> None:
    """Lets time pass, and has the state drop what need not be remembered."""
    broker.clock.ahead_seconds = ahead_seconds
    for _ in range(SWEPT_AFTER):
        await broker.mint("x")


async def begin_upload(broker: Broker, token: str, body: bytes, go: asyncio.Event) -> asyncio.Task[httpx.Response]:
    """An upload that has passed the first gate, and waits in the middle of its body."""
    headers = {"Authorization": basic(token), "Content-Type": CONTENT_TYPE, "Content-Length": str(len(body))}
    task = asyncio.create_task(broker.client.post("/legacy/", content=halves(body, go), headers=headers))
    await asyncio.sleep(0.2)
    return task


async def test_a_spent_token_whose_second_exchange_was_begun_in_time_is_not_taken_again(tmp_path: Path) -> None:
    """Were it judged by the clock of the first byte, the token would be good for ever, and its spending forgotten."""
    async with Setup(folder=tmp_path).running() as broker:
        token, go = broker.ci.token(), asyncio.Event()
        body = halves(json.dumps({"token": token}).encode(), go)
        held = asyncio.create_task(broker.client.post("/_/oidc/mint-token", content=body))
        await asyncio.sleep(0.1)
        assert (await broker.mint(token)).status_code == 200
        await forget(broker, ahead_seconds=800)
        go.set()
        check_refusal(await held, "expired-token", 422)


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BODY_SECONDS", 0.2)
    async with Setup(folder=tmp_path).running() as broker:
        for path in ("mint-token", "burn-token"):
            answer = await broker.client.post(f"/_/oidc/{path}", content=halves(b'{"token": "x"}', asyncio.Event()))
            check_refusal(answer, "malformed-request", 422)
        assert [record["code"] for record in await broker.records()] == ["malformed-request"]


async def test_an_upload_does_not_outlive_its_token_s_revocation(tmp_path: Path, registry: PypiServer) -> None:
    before = registry.stored()
    async with setup(tmp_path, registry).running() as broker:
        token, go = await broker.minted(), asyncio.Event()
        held = await begin_upload(broker, token, upload(), go)
        await broker.client.post("/_/oidc/burn-token", json={"token": token})
        await forget(broker, ahead_seconds=3 * 24 * 3600)
        go.set()
        check_refusal(await held, "expired-upload-token", 403)
    assert registry.stored() == before


async def test_a_revocation_is_remembered_for_as_long_as_an_upload_may_take(
    tmp_path: Path, registry: PypiServer
) -> None:
    before = registry.stored()
    async with setup(tmp_path, registry).running() as broker:
        token, go = await broker.minted(), asyncio.Event()
        held = await begin_upload(broker, token, upload(), go)
        await broker.client.post("/_/oidc/burn-token", json={"token": token})
        await forget(broker, ahead_seconds=900 + LONGEST_UPLOAD_SECONDS - 30)
        go.set()
        check_refusal(await held, "revoked-token", 403)
    assert registry.stored() == before


async def test_a_slow_upload_that_was_begun_in_time_is_stored(tmp_path: Path, registry: PypiServer) -> None:
    async with setup(tmp_path, registry).running() as broker:
        go = asyncio.Event()
        held = await begin_upload(broker, await broker.minted(), upload(), go)
        broker.clock.ahead_seconds = 1000
        go.set()
        assert (await held).status_code == 200


async def test_a_client_that_falls_silent_is_not_waited_for(
    tmp_path: Path, registry: PypiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "SILENCE_SECONDS", 0.2)
    async with setup(tmp_path, registry).running() as broker:
        held = await begin_upload(broker, await broker.minted(), upload(), asyncio.Event())
        check_refusal(await held, "truncated-upload", 400)


async def test_an_issuer_that_was_switched_off_since_the_mint_uploads_nothing(
    tmp_path: Path, registry: PypiServer
) -> None:
    before = registry.stored()
    async with setup(tmp_path, registry).running() as broker:
        token = await broker.minted()
    off = setup(tmp_path, registry)
    off.index = INDEX.replace("github: {provider: github", "github: {provider: github, disabled: true")
    async with off.running() as broker:
        check_refusal(await send(broker, upload(), token), "issuer-disabled", 403)
    assert registry.stored() == before


async def test_a_token_that_was_exchanged_before_the_oldest_record_is_refused(tmp_path: Path) -> None:
    """The receipt is kept in the record, and a job's token may live longer than that."""
    index = INDEX.replace("gitlab: {provider: gitlab", "gitlab: {provider: gitlab, longest_token: 72h")
    async with Setup(folder=tmp_path, index=index, settings={"audit_days": 1}).running() as broker:
        claims = broker.ci.claims("gitlab")
        token = broker.ci.sign({**claims, "exp": claims["iat"] + 72 * 3600}, "gitlab")
        assert (await broker.mint(token)).status_code == 200
        await forget(broker, ahead_seconds=25 * 3600)
        check_refusal(await broker.mint(token), "replayed-token", 422)
