"""Several processes, one memory: of simultaneous exchanges of one identity token, one earns an upload token."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from tests.harness import Setup
from tests.redis_server import RedisServer
from tests.servers import broker

AT_ONCE = 100


@pytest.fixture(name="ci", scope="module")
def _ci() -> Iterator[FakeCI]:
    with serving_ci() as ci:
        yield ci


@pytest.fixture(name="redis")
def _redis() -> Iterator[RedisServer]:
    server = RedisServer("--appendonly", "yes")  # what was written survives that it is stopped
    server.start()
    yield server
    server.stop()


async def exchange(urls: Sequence[str], token: str) -> list[httpx.Response]:
    """All at once, each over a connection of its own, spread over the replicas."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=30, trust_env=False) as client:
        posts = [client.post(f"{urls[n % len(urls)]}/_/oidc/mint-token", json={"token": token}) for n in range(AT_ONCE)]
        return list(await asyncio.gather(*posts))


def check_strict(answers: list[httpx.Response]) -> None:
    """One success; the others told that it was exchanged."""
    assert Counter(answer.status_code for answer in answers) == {200: 1, 422: AT_ONCE - 1}
    codes = {answer.json()["errors"][0]["code"] for answer in answers if answer.status_code == 422}
    assert codes == {"replayed-token"}


def check_same(answers: list[httpx.Response]) -> None:
    """As many successes, and one token."""
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["token"] for answer in answers}) == 1
    assert len({answer.json()["attempt"] for answer in answers}) == AT_ONCE


def test_of_a_hundred_at_once_one_is_minted_by_four_workers_on_sqlite(tmp_path: Path, ci: FakeCI) -> None:
    with broker(tmp_path, ci, workers="4") as served:
        check_strict(asyncio.run(exchange([served.url], ci.token("github"))))
        check_same(asyncio.run(exchange([served.url], ci.token("gitlab"))))


def test_of_a_hundred_at_once_one_is_minted_by_two_brokers_on_redis(
    tmp_path: Path, ci: FakeCI, redis: RedisServer
) -> None:
    with (
        broker(tmp_path, ci, name="one", state_url=redis.url) as one,
        broker(tmp_path, ci, name="two", state_url=redis.url) as two,
    ):
        check_strict(asyncio.run(exchange([one.url, two.url], ci.token("github"))))
        check_same(asyncio.run(exchange([one.url, two.url], ci.token("gitlab"))))


def test_without_redis_nothing_is_granted_and_with_it_back_all_goes_on(
    tmp_path: Path, ci: FakeCI, redis: RedisServer
) -> None:
    with (
        broker(tmp_path, ci, state_url=redis.url) as served,
        httpx.Client(base_url=served.url, trust_env=False) as client,
    ):

        def mint() -> httpx.Response:
            began = time.monotonic()
            answer = client.post("/_/oidc/mint-token", json={"token": ci.token("github")}, timeout=30)
            assert time.monotonic() - began < 5
            return answer

        assert mint().status_code == 200
        redis.stop()
        for _ in range(3):
            refused = mint()
            assert (refused.status_code, refused.json()["errors"][0]["code"]) == (503, "state-unavailable")
            assert "token" not in refused.json()
        deadline = time.monotonic() + 10
        while (unready := client.get("/readyz")).status_code == 200:  # its answer is up to a second old
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert (unready.status_code, unready.json()["problems"]) == (503, ["state cannot be reached"])
        assert client.get("/healthz").status_code == 200
        redis.start()
        deadline = time.monotonic() + 10
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert mint().status_code == 200


@pytest.mark.anyio
async def test_a_broker_that_starts_before_its_redis_goes_on_with_it_and_tells_how_it_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    redis = RedisServer()
    async with Setup(folder=tmp_path, settings={"state_url": redis.url}).running() as served:
        assert (await served.mint(served.ci.token())).status_code == 503
        with redis:
            deadline = time.monotonic() + 20
            while "appendonly" not in capsys.readouterr().out:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            assert (await served.mint(served.ci.token())).status_code == 200
