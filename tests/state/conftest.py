"""States to test, each on a store of its own. They run on uvloop, as the broker does."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from broker.playground.processes import free_port
from broker.state import State
from broker.state.opening import open_state
from tests.redis_server import RedisServer, has_replicas, wait_until

RETENTION_DAYS = 30

Opening = Callable[[], State]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop that the broker runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis that all tests share, each with a prefix of its own."""
    with RedisServer("--repl-diskless-sync-delay", "0") as server:
        yield server


@contextlib.contextmanager
def one_node_cluster(*options: str) -> Iterator[RedisServer]:
    """A Redis Cluster of one node, which refuses what reaches across slots as a large one does."""
    with RedisServer("--cluster-enabled", "yes", "--cluster-port", str(free_port()), *options) as server:
        with Redis(port=server.port) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "no cluster comes up")
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisServer]:
    """A Cluster that all tests share."""
    with one_node_cluster() as server:
        yield server


@pytest.fixture(scope="session")
def redis_replica(redis_server: RedisServer) -> Iterator[RedisServer]:
    """Has all that the shared Redis has."""
    with RedisServer("--replicaof", "127.0.0.1", str(redis_server.port)) as replica:
        wait_until(lambda: has_replicas(redis_server, 1), "the replica does not come up")
        yield replica


@pytest.fixture(params=["sqlite", "redis", "redis+cluster"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    server: RedisServer = request.getfixturevalue("redis_server" if request.param == "redis" else "redis_cluster")
    replicas = 1 if request.param == "redis" and request.getfixturevalue("redis_replica") else 0
    return f"{request.param}://127.0.0.1:{server.port}/0?prefix={{{uuid.uuid4().hex}}}&replicas={replicas}"


@pytest.fixture
async def opening(url: str) -> AsyncIterator[Opening]:
    """Opens the store; as often as there are replicas."""
    closing: list[Callable[[], Awaitable[None]]] = []

    def open_one() -> State:
        opened = open_state(url, retention_days=RETENTION_DAYS)
        closing.append(opened.close)
        return opened

    yield open_one
    for close in closing:
        await close()


@pytest.fixture
async def state(opening: Opening) -> State:
    """One replica's state, which has remembered for long."""
    state = opening()
    await state.begin(0)
    return state
