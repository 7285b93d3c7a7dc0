"""The last line before the caller: what is no refusal is our bug, logged with its attempt, and says nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker import logs
from broker.addresses import TrustedProxies
from broker.leaving import Leaving
from broker.metrics.counting import Counts
from broker.refusals import RequestTooLarge
from broker.sources import Sources
from broker.state.opening import open_state
from broker.web import connections, uploads
from broker.web.answers import WHOLE, Attempts, read_body
from broker.web.connections import Connections
from tests.harness import Setup
from tests.web.test_connections import Line

pytestmark = pytest.mark.anyio


def attempts(app: ASGIApp, leaving: Leaving | None = None) -> Attempts:
    """The middleware around something that asks state for nothing."""
    sources = Sources(
        state=open_state("sqlite:///nowhere.db", retention_days=1),
        per_minute=0,
        in_all_per_minute=0,
        clock=lambda: 1.0,
        publish_record=lambda _, __: None,
    )
    return Attempts(
        app,
        clock=lambda: 1.0,
        counts=Counts(tuple),
        sources=sources,
        leaving=leaving or Leaving(0),
        proxies=TrustedProxies(),
    )


async def test_a_bug_is_a_500_without_detail_and_an_error_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret of ours")

    logs.configure("info")
    transport = httpx.ASGITransport(attempts(broken))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.json()["message"]) == (500, "internal error")
    assert "secret" not in answer.text
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["level"], told["attempt"]) == ("error", answer.headers["attempt-id"])


async def test_what_is_cut_off_after_the_answer_began_adds_nothing_to_it() -> None:
    sent: list[str] = []

    async def answers(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise asyncio.CancelledError

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message["type"])

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    leaving = Leaving(0)
    served = attempts(answers, leaving)
    with pytest.raises(asyncio.CancelledError):
        await served({"type": "http", "path": "/", "headers": []}, receive, send)
    assert (sent, leaving.under_way) == (["http.response.start"], 0)


async def test_a_bug_after_the_answer_began_adds_nothing_to_it() -> None:
    async def broken(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    logs.configure("info")
    sent: list[str] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message["type"])

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    await attempts(broken)({"type": "http", "path": "/", "headers": []}, receive, send)
    assert sent == ["http.response.start"]


async def test_a_refused_body_is_not_drained_without_end() -> None:
    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1 << 20)

    await uploads._drain(body())
    assert taken == (uploads.DRAIN_BYTES >> 20) + 1


async def test_a_public_url_without_tls_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Setup(folder=tmp_path, settings={"public_url": "http://127.0.0.1:8000"}).running():
        assert "BROKER_PUBLIC_URL is http" in capsys.readouterr().out


@pytest.mark.parametrize("whole", [True, False])
async def test_a_body_is_bounded_whether_it_had_come_whole_or_not(whole: bool) -> None:
    async def read(*chunks: bytes) -> bytes:
        messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        waiting = iter([*messages, {"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Message:
            return next(waiting)

        scope: Scope = {"type": "http", "headers": []} | ({WHOLE: True} if whole else {})
        return await read_body(scope, receive, 4)

    assert await read(b"ab", b"cd") == b"abcd"
    with pytest.raises(RequestTooLarge):
        await read(b"ab", b"cde")


def test_that_connections_are_too_many_is_told_but_not_each_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure("info")
    all_of_them = Connections(1)
    for _ in range(5):
        all_of_them.enter(Line(), "a")
    assert capsys.readouterr().out.count("too many connections") == 1
    monkeypatch.setattr(connections, "TELL_SECONDS", 0.0)
    all_of_them.enter(Line(), "a")
    assert capsys.readouterr().out.count("too many connections") == 1
