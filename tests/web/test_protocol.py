"""Hostile bytes at the socket: what uvicorn's parser would keep without end is bounded, in bytes and in time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker.playground.ci_server import serving_ci
from broker.sources import PAUSE_SECONDS
from broker.web.connections import MOST_REFUSED_AT_ONCE
from broker.web.protocol import (
    DROP_SECONDS,
    HEAD_SECONDS,
    MOST_DROPPED_BYTES,
    MOST_HEAD_BYTES,
    MOST_HELD_BYTES,
    MOST_PIPELINED,
    Gathering,
)
from tests.servers import Served, broker

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /_/oidc/mint-token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
MALFORMED = "malformed-http"
PLENTY = 8 << 20
"""Bytes that an attack sends at most; a tenth of it would be gigabytes where each small header is kept."""


@pytest.fixture(name="served", scope="module")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with ExitStack() as stack:
        ci = stack.enter_context(serving_ci())
        yield stack.enter_context(broker(tmp_path_factory.mktemp("broker"), ci))


def connect(served: Served) -> socket.socket:
    where = urlsplit(served.url)
    return socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=3 * HEAD_SECONDS)


def memory(served: Served) -> int:
    """What the broker occupies, in bytes."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{served.pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def rest_of(connection: socket.socket) -> bytes:
    """What comes until the other side closes, in whatever way."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /", b"a" * 65536),
        (b"GET /healthz HTTP/1.1\r\nX: ", b"a" * 65536),
        (b"GET /healthz HTTP/1.1\r\n" + b"a" * 10, b"a" * 65536),
        (b"GET /healthz HTTP/1.1\r\n", b"a: b\r\n" * 10_000),
        (CHUNKED + b"0\r\n", b"a: b\r\n" * 10_000),
        (CHUNKED + b"5;", b"a=b;" * 10_000),
        (CHUNKED, b"1\r\n \r\n" * 10_000),
    ],
    ids=["target", "header value", "header name", "headers", "trailers", "chunk extension", "chunks of a byte"],
)
def test_what_is_no_body_is_bounded(served: Served, start: bytes, more: bytes) -> None:
    before, sent = memory(served), 0
    with connect(served) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(start)
        while sent < PLENTY:
            connection.sendall(more)
            sent += len(more)
            time.sleep(0.01)
    assert sent < PLENTY
    assert memory(served) - before < 20 << 20


def test_a_head_that_is_too_long_is_told_so(served: Served) -> None:
    with connect(served) as connection:
        connection.sendall(GET + b"X: " + b"a" * MOST_HEAD_BYTES)
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"request-too-large"' in answer
    assert b"attempt-id: " in answer.lower()


def test_a_head_of_the_size_of_the_longest_credential_is_taken_and_the_next_too(served: Served) -> None:
    with connect(served) as connection:
        for _ in range(3):
            connection.sendall(GET + b"X: " + b"a" * 45_000 + b"\r\n\r\n")
            received = b""
            while not received.endswith(b'{"status":"alive"}'):
                received += connection.recv(65536)
            assert received.startswith(b"HTTP/1.1 200 ")


def test_a_head_that_does_not_come_is_not_waited_for(served: Served) -> None:
    """From the start of the connection, or after an answer, also where nothing but line breaks comes."""
    beginnings = [(b"",), (GET,), (GET + b"\r\n", b"\r\n"), (GET + b"\r\n", GET)]
    with ExitStack() as stack:
        connections = []
        for pieces in beginnings:
            connection = stack.enter_context(connect(served))
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.1)
            connections.append(connection)
        began = time.monotonic()
        for connection in connections:
            assert rest_of(connection).count(b"HTTP/1.1 ") <= 1
        assert time.monotonic() - began < HEAD_SECONDS + 5


@pytest.mark.parametrize("path", [b"/nope", b"/oauth2/token"])
def test_a_body_that_was_answered_already_is_not_read_for_ever(served: Served, path: bytes) -> None:
    with connect(served) as connection:
        connection.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 4")
        connection.sendall(b"a")
        began = time.monotonic()
        rest_of(connection)
        assert time.monotonic() - began < DROP_SECONDS + 5


def test_a_flood_after_the_answer_is_cut(served: Served) -> None:
    sent = 0
    with connect(served) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
        while sent < 4 * MOST_DROPPED_BYTES:
            connection.sendall(b"a" * (1 << 20))
            sent += 1 << 20
    assert sent < 2 * MOST_DROPPED_BYTES


def test_a_body_that_ends_after_its_answer_leaves_the_connection_good(served: Served) -> None:
    with connect(served) as connection:
        connection.sendall(b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"ab")
        connection.sendall(b"cd" + GET + b"Connection: close\r\n\r\n")
        assert b"HTTP/1.1 200 " in rest_of(connection)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HTTP/1.1\r\nContent-Length: 1a\r\n\r\n", MALFORMED),
        (b"GET / HTTP/1.1\r\nContent-Length: 1a\r\n" + b"a" * MOST_HEAD_BYTES, MALFORMED),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MOST_HEAD_BYTES, "request-too-large"),
    ],
    ids=["malformed", "malformed and long", "long"],
)
def test_a_crowd_that_sends_no_http_is_made_to_wait_and_falls_out_of_step(
    served: Served, sent: bytes, code: str
) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(connect(served)) for _ in range(3 * MOST_REFUSED_AT_ONCE)]
        began = time.monotonic()
        for one in crowd:
            one.sendall(sent)
        with ThreadPoolExecutor(len(crowd)) as threads:
            took = list(threads.map(lambda one: (rest_of(one), time.monotonic() - began), crowd))
    # Whoever sent more than was read may get a reset, and no answer.
    assert all(code in answer.decode() for answer, _ in took if answer)
    seconds = sorted(one for _, one in took)
    # Two thirds wait for one second on average; that all of these are done within half of one is as good as impossible.
    assert seconds[MOST_REFUSED_AT_ONCE] < seconds[-1] - 0.5 * PAUSE_SECONDS
    assert seconds[-1] > PAUSE_SECONDS


def test_many_requests_at_once_are_answered_in_their_order(served: Served) -> None:
    with connect(served) as connection:
        connection.sendall((GET + b"\r\n") * MOST_PIPELINED + GET + b"Connection: close\r\n\r\n")
        assert rest_of(connection).count(b"HTTP/1.1 200 ") == MOST_PIPELINED + 1


def test_more_requests_than_may_wait_end_the_connection(served: Served) -> None:
    before = memory(served)
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connect(served))
            with contextlib.suppress(ConnectionError):
                connection.sendall((GET + b"\r\n") * 4000)  # read at once, they would take 26 MB
            assert rest_of(connection).count(b"HTTP/1.1 200 ") <= MOST_PIPELINED
    assert memory(served) - before < 20 << 20


def test_what_is_asked_to_go_on_is_told_so_though_it_ends_there(served: Served) -> None:
    head = b"POST /_/oidc/mint-token HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    for _ in range(20):
        with connect(served) as connection:
            connection.sendall(head)
            connection.shutdown(socket.SHUT_WR)
            assert rest_of(connection).startswith(b"HTTP/1.1 100 Continue\r\n")


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"hello\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n", GET + b": x\r\n\r\n"],
)
def test_what_is_no_http_is_refused_as_everything_is(served: Served, sent: bytes) -> None:
    with connect(served) as connection:
        connection.sendall(sent)
        head, _, body = rest_of(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    refused = json.loads(body)
    assert refused["errors"][0]["code"] == MALFORMED
    assert f"attempt-id: {refused['attempt']}" in head.decode().lower()


def test_an_answer_comes_in_one_piece(served: Served) -> None:
    with connect(served) as connection:
        for _ in range(20):
            connection.sendall(GET + b"\r\n")
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert json.loads(body)


class Recorded(asyncio.Transport):
    """A transport that only notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told.append(bytes(data))

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.told


async def gathered(*said: bytes | str) -> list[bytes | str]:
    """What a transport is told when all this is said in one turn, and what after it, behind a "|"."""
    transport = Recorded()
    gathering = Gathering(transport, asyncio.get_running_loop())
    for one in said:
        gathering.write(one) if isinstance(one, bytes) else getattr(gathering, one)()
    transport.told.append("|")
    await asyncio.sleep(0)
    return transport.told


@pytest.mark.anyio
async def test_what_is_written_in_one_turn_is_written_together() -> None:
    assert await gathered(b"head", b"body") == [b"headbody", "|"]
    assert await gathered(b"head", b"") == [b"head", "|"]
    assert await gathered(b"head") == ["|", b"head"]
    assert await gathered(b"head", b"body", b"more") == [b"headbody", "|", b"more"]


@pytest.mark.anyio
async def test_what_is_long_is_not_held_back() -> None:
    long = b"x" * (MOST_HELD_BYTES + 1)
    assert await gathered(long) == [long, "|"]
    assert await gathered(long[1:]) == ["|", long[1:]]
    assert await gathered(b"head", long, long) == [b"head" + long, long, "|"]


@pytest.mark.anyio
async def test_what_is_held_is_written_before_the_end_and_dropped_where_all_is() -> None:
    assert await gathered(b"head", "close") == [b"head", "close", "|"]
    assert await gathered(b"head", "abort") == ["abort", "|"]


@pytest.mark.anyio
async def test_what_is_held_for_a_client_that_is_gone_is_dropped() -> None:
    transport = Recorded()
    Gathering(transport, asyncio.get_running_loop()).write(b"head")
    transport.close()
    await asyncio.sleep(0)
    assert transport.told == ["close"]
