"""Connections: who opens hundreds displaces itself, and a request that is there is never broken off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from uvicorn.server import ServerState

from broker.playground.ci_server import serving_ci
from broker.web.connections import Awaits, Connections
from broker.web.protocol import BoundedProtocol
from tests.servers import Served, broker

MOST = 20
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
BODY = b"POST /_/oidc/mint-token HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"


@dataclass(slots=True, eq=False)
class Line:
    """A connection that waits for something."""

    waits_for: Awaits = "head"
    gone: list[str] = field(default_factory=list)

    def awaits(self) -> Awaits:
        return self.waits_for

    def give_way(self) -> None:
        self.gone.append("gone")


def test_the_oldest_of_the_address_that_has_most_gives_way() -> None:
    all_of_them, few, many = Connections(4), Line(), [Line(), Line(), Line()]
    for address, line in (("few", few), *(("many", line) for line in many)):
        assert all_of_them.enter(line, address)
    assert all_of_them.enter(Line(), "another")
    assert [bool(line.gone) for line in (few, *many)] == [False, True, False, False]
    all_of_them.leave(many[0], "many")  # as its end is told later: it is forgotten already
    assert all_of_them.enter(Line(), "another")
    assert [bool(line.gone) for line in (few, *many)] == [False, True, True, False]


def test_who_waits_for_a_head_gives_way_before_who_waits_for_a_body() -> None:
    all_of_them, body, head = Connections(2), Line("body"), Line("head")
    assert all_of_them.enter(body, "a")
    assert all_of_them.enter(head, "a")
    assert all_of_them.enter(Line("nothing"), "b")
    assert (body.gone, head.gone) == ([], ["gone"])
    assert all_of_them.enter(Line("nothing"), "b")
    assert body.gone == ["gone"]


def test_a_request_that_is_there_gives_way_to_nobody() -> None:
    all_of_them, served, other = Connections(3), [Line("nothing"), Line("nothing")], Line()
    for line in served:
        assert all_of_them.enter(line, "many")
    assert all_of_them.enter(other, "one")
    assert all_of_them.enter(Line("nothing"), "new")
    assert (other.gone, [line.gone for line in served]) == (["gone"], [[], []])
    assert not all_of_them.enter(Line(), "newer")
    all_of_them.leave(served[0], "many")
    assert all_of_them.enter(Line(), "newer")


# --- A real broker ---------------------------------------------------------------------------------------------------


@pytest.fixture(name="served", scope="module")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with ExitStack() as stack:
        ci = stack.enter_context(serving_ci())
        yield stack.enter_context(broker(tmp_path_factory.mktemp("broker"), ci, connections=str(MOST)))


def connect(served: Served, address: str) -> socket.socket:
    """From an address of loopback."""
    where = urlsplit(served.url)
    return socket.create_connection(
        (str(where.hostname), int(where.port or 0)), timeout=30, source_address=(address, 0)
    )


@pytest.mark.parametrize("begun", [GET, BODY, b""], ids=["in the head", "in the body", "at once"])
def test_slow_connections_by_the_hundred_keep_nobody_out(served: Served, begun: bytes) -> None:
    with ExitStack() as stack, httpx.Client(base_url=served.url, trust_env=False, timeout=30) as client:
        assert client.get("/healthz").status_code == 200
        slow = [stack.enter_context(connect(served, "127.0.0.2")) for _ in range(5 * MOST)]
        for connection in slow:
            with contextlib.suppress(ConnectionError):
                connection.sendall(begun)
        for _ in range(5):
            assert httpx.get(f"{served.url}/healthz", trust_env=False, timeout=30).status_code == 200
        # Nor is a client displaced that has fewer open.
        assert client.get("/healthz").status_code == 200


def test_what_is_closed_makes_room(served: Served) -> None:
    for _ in range(3 * MOST):
        with connect(served, "127.0.0.1") as connection:
            connection.sendall(GET + b"Connection: close\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.anyio
async def test_where_there_is_no_room_a_connection_is_closed_at_once() -> None:
    config = uvicorn.Config(Starlette(), lifespan="off", log_config=None)
    state, loop = ServerState(), asyncio.get_running_loop()

    def made() -> BoundedProtocol:
        return BoundedProtocol(config=config, server_state=state, app_state={}, all_connections=Connections(0))

    async with await loop.create_server(made, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            assert await reader.read() == b""
