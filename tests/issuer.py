"""An issuer's server on loopback that can misbehave at the wire in every way a server can."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from broker.playground.ci import FakeCI

Behaviour = Callable[["Issuer", str, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Issuer:
    """One server for all three issuers of a CI; `behaviour` may be changed while it runs."""

    port: int
    ci: FakeCI
    behaviour: Behaviour
    asked: list[str] = field(default_factory=list)
    """The paths of all requests so far."""
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection, one request; to its end, or until the server ends."""
        task = asyncio.create_task(self._answer(reader, writer))
        self.serving.add(task)
        await asyncio.gather(task, return_exceptions=True)
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            self.asked.append(path)
            await self.behaviour(self, path, writer)
            writer.close()
            await writer.wait_closed()


async def well(issuer: Issuer, path: str, writer: asyncio.StreamWriter) -> None:
    """As an issuer should."""
    documents = {
        url.removeprefix(f"http://127.0.0.1:{issuer.port}"): body for url, body in issuer.ci.documents().items()
    }
    await reply(writer, documents.get(path, b""), status=200 if path in documents else 404)


async def reply(
    writer: asyncio.StreamWriter, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None
) -> None:
    """Writes an answer and closes."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"} | (
        headers or {}
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body)
    await writer.drain()


async def slow(issuer: Issuer, path: str, writer: asyncio.StreamWriter) -> None:
    """Answers well, after ten seconds."""
    await asyncio.sleep(10)
    await well(issuer, path, writer)


async def hanging(_: Issuer, __: str, ___: asyncio.StreamWriter) -> None:
    """Takes the request and says nothing."""
    await asyncio.sleep(60)


async def dripping(_: Issuer, __: str, writer: asyncio.StreamWriter) -> None:
    """A byte now and then: no single read ever times out."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    for _drop in range(600):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.1)


async def huge(_: Issuer, __: str, writer: asyncio.StreamWriter) -> None:
    """50 MB of what might become JSON."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"keys": [')
    for _megabyte in range(50):
        writer.write(b" " * 1_000_000)
        await writer.drain()


async def compressed(_: Issuer, __: str, writer: asyncio.StreamWriter) -> None:
    """A small body that would become a large one."""
    await reply(writer, b"\x1f\x8b", headers={"Content-Encoding": "gzip"})


async def html(_: Issuer, __: str, writer: asyncio.StreamWriter) -> None:
    """A captive portal, or an error page with the wrong status."""
    await reply(writer, b"<html>It works!</html>", headers={"Content-Type": "text/html"})


async def elsewhere(_: Issuer, __: str, writer: asyncio.StreamWriter) -> None:
    """Sends whoever asks to another host."""
    await reply(writer, b"", status=302, headers={"Location": "http://127.0.0.2/"})


async def impostor(issuer: Issuer, path: str, writer: asyncio.StreamWriter) -> None:
    """Its discovery document is of another issuer."""
    del path
    await reply(writer, json.dumps({"issuer": "https://evil.example", "jwks_uri": issuer.ci.urls["github"]}).encode())


async def plain_key_address(issuer: Issuer, path: str, writer: asyncio.StreamWriter) -> None:
    """Its keys are said to be on another host, in the clear."""
    del path
    body = {"issuer": issuer.ci.urls["github"], "jwks_uri": "http://127.0.0.2:1/keys"}
    await reply(writer, json.dumps(body).encode())


async def secret_key_address(issuer: Issuer, path: str, writer: asyncio.StreamWriter) -> None:
    """Its keys are where nobody is to read, nor anything bounded."""
    del path
    address = f"https://user:hunter2@127.0.0.1:1/{'a' * 100_000}?key=hunter2"
    await reply(writer, json.dumps({"issuer": issuer.ci.urls["github"], "jwks_uri": address}).encode())


async def no_object(_: Issuer, __: str, writer: asyncio.StreamWriter) -> None:
    """JSON, but a list."""
    await reply(writer, b"[]")


async def without_keys(issuer: Issuer, path: str, writer: asyncio.StreamWriter) -> None:
    """Publishes keys, but none that verifies anything."""
    if path.endswith("openid-configuration"):
        await well(issuer, path, writer)
    else:
        await reply(writer, json.dumps({"keys": [{"kid": "x", "kty": "oct", "k": "c2VjcmV0"}, 7, {}]}).encode())


@contextlib.asynccontextmanager
async def serving(behaviour: Behaviour = well, port: int = 0) -> AsyncIterator[Issuer]:
    """A server for as long as the context is open; on a free port, unless one is given."""
    issuer = Issuer(0, FakeCI(), behaviour)
    server = await asyncio.start_server(issuer.answer, "127.0.0.1", port)
    issuer.port = server.sockets[0].getsockname()[1]
    issuer.ci = FakeCI.at(f"http://127.0.0.1:{issuer.port}")
    try:
        yield issuer
    finally:
        server.close()
        for task in issuer.serving:
            task.cancel()
        await asyncio.gather(*issuer.serving, return_exceptions=True)
        await asyncio.sleep(0.01)  # for the transports to close


def index(issuer: Issuer) -> str:
    """An index.yaml that trusts it."""
    lines = [f"  {name}: {{provider: {name}, url: '{url}'}}" for name, url in issuer.ci.urls.items()]
    return "\n".join(["issuers:", *lines, ""])
