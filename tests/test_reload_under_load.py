"""Policies change fifty times while jobs exchange tokens: each exchange is decided by one good generation."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.policy.files import load
from tests.harness import ACME
from tests.servers import Served, broker

CHANGES: Final = 50
PER_SECOND: Final = 200
PROJECTS: Final = (["acme-a1", "acme-a2"], ["acme-b1", "acme-b2"])
UNASKED: Final = {3, 25, 48}
"""Changes that the broker finds by itself; for the others it gets a SIGHUP."""
BROKEN: Final = {7, 18, 26, 39}


@pytest.fixture(name="ci", scope="module")
def _ci() -> Iterator[FakeCI]:
    with serving_ci() as ci:
        yield ci


def acme(number: int) -> str:
    """The policy of that number: the odd ones grant other projects than the even ones."""
    granted = f"projects: [{', '.join(PROJECTS[number % 2])}]"
    changed = ACME.replace("projects: [acme-widgets, acme-gadgets]", granted)
    return f"# {number}\n" + (changed.replace("role: owner", "role: boss") if number in BROKEN else changed)


def write(folder: Path, number: int) -> None:
    """Puts a policy in place, as an editor does."""
    new = folder / "policies" / ".acme.yaml"
    new.write_text(acme(number))
    new.rename(folder / "policies" / "organizations" / "acme.yaml")


def claims(text: str) -> dict[str, Any]:
    """What an upload token says."""
    payload = text.split(".")[1]
    claimed: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claimed


def wait_until(happened: Callable[[], bool]) -> None:
    """Waits, but not for ever."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def settled(client: httpx.AsyncClient, is_so: Callable[[dict[str, Any]], bool]) -> None:
    """Waits until `/readyz` tells it."""
    async with asyncio.timeout(60):
        while not is_so((await client.get("/readyz")).json()):  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.02)


async def change_policies(served: Served, folder: Path, generations: dict[str, list[str]]) -> None:
    """All changes, each as soon as the one before is in force."""
    async with httpx.AsyncClient(base_url=served.url, timeout=30, trust_env=False) as client:
        for number in range(1, CHANGES + 1):
            write(folder, number)
            if number not in UNASKED:
                os.kill(served.pid, signal.SIGHUP)
            if number in BROKEN:
                await settled(client, lambda ready: not ready["policies"]["current"])
                continue
            generation = load(folder / "policies", allow_loopback_issuers=True).generation
            generations[generation] = PROJECTS[number % 2]
            await settled(client, lambda ready, now=generation: ready["generation"] == now)  # type: ignore[misc]


async def exchange_until(done: asyncio.Event, served: Served, ci: FakeCI) -> list[httpx.Response]:
    """Jobs come at a steady pace, whether or not those before were answered."""
    async with (
        httpx.AsyncClient(base_url=served.url, timeout=30, trust_env=False) as client,
        asyncio.TaskGroup() as jobs,
    ):
        asked = []
        while not done.is_set():
            asked.append(jobs.create_task(client.post("/_/oidc/mint-token", json={"token": ci.token("github")})))
            await asyncio.sleep(1 / PER_SECOND)
    return [job.result() for job in asked]


async def load_and_change(
    served: Served, ci: FakeCI, folder: Path
) -> tuple[list[httpx.Response], dict[str, list[str]]]:
    generations = {load(folder / "policies", allow_loopback_issuers=True).generation: PROJECTS[0]}
    done = asyncio.Event()
    load_task = asyncio.create_task(exchange_until(done, served, ci))
    try:
        await change_policies(served, folder, generations)
    finally:
        done.set()
    return await load_task, generations


def test_under_load_every_exchange_is_decided_by_one_good_generation(tmp_path: Path, ci: FakeCI) -> None:
    with broker(tmp_path, ci) as served:
        write(tmp_path, 0)
        os.kill(served.pid, signal.SIGHUP)
        generation = load(tmp_path / "policies", allow_loopback_issuers=True).generation
        wait_until(lambda: httpx.get(f"{served.url}/readyz", trust_env=False).json()["generation"] == generation)
        answers, generations = asyncio.run(load_and_change(served, ci, tmp_path))
        lines = served.logged()
    assert {answer.status_code for answer in answers} == {200}
    assert len(answers) > 2 * CHANGES
    attempts: list[Any] = [line["record"] for line in lines if line["event"] == "attempt"]
    records = {record["attempt"]: record for record in attempts}
    deciding = []
    for answer in answers:
        record = records[answer.json()["attempt"]]
        assert claims(answer.json()["token"])["projects"] == generations[record["generation"]] == record["projects"]
        deciding.append(record["generation"])
    assert len(generations) == CHANGES + 1 - len(BROKEN)
    assert len(set(deciding)) > len(generations) / 2, "exchanges went on while policies changed"
    failures = [line for line in lines if line["event"] == "policies not reloaded: the last good ones decide"]
    assert len(failures) >= len(BROKEN)
    assert not [line for line in lines if line["level"] == "error" and line not in failures]


def test_a_hangup_has_every_worker_read_again_and_ends_none(tmp_path: Path, ci: FakeCI) -> None:
    with broker(tmp_path, ci, workers="2") as served:

        def heard(event: str) -> list[dict[str, Any]]:
            return [line for line in served.logged() if line["event"] == event]

        wait_until(lambda: len(heard("policies loaded")) == 2)
        os.kill(served.pid, signal.SIGHUP)
        wait_until(lambda: len(heard("policies unchanged")) == 2)
        write(tmp_path, 1)
        wait_until(lambda: len(heard("policies reloaded")) == 2)
        assert len({line["generation"] for line in heard("policies reloaded")}) == 1
        assert len(heard("policies loaded")) == 2
