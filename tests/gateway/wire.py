"""A registry at the wire that keeps files, lists them, and misbehaves as a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP

from tests.gateway.test_registry import response, server_of

Misbehave = Callable[["WireRegistry", asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
"""Told of the length of an upload's body, of which nothing was read."""

JSON = "Content-Type: application/vnd.pypi.simple.v1+json"


@dataclass(slots=True)
class WireRegistry:
    """What it holds, what was asked of it, and how it takes the next uploads."""

    url: str = ""
    stored: dict[str, bytes] = field(default_factory=dict)
    uploaded_at: dict[str, float] = field(default_factory=dict)
    """What the index says of when files came; it says nothing of others."""
    posts: int = 0
    posted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first upload."""
    gets: list[str] = field(default_factory=list)
    """Paths."""
    misbehave: Misbehave | None = None
    index: Callable[[str], bytes] | None = None
    """Answers instead of the index, whatever the path."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        if method == "GET":
            self.gets.append(path)
            writer.write((self.index or self.listing)(path))
        else:
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if length:  # else it is the question whether our credential is taken
                self.posts += 1
                self.posted.set()
            if self.misbehave is not None:
                await self.misbehave(self, reader, writer, length)
            else:
                await self.take(reader, length)
                writer.write(response("200 OK"))
        await writer.drain()

    async def take(self, reader: asyncio.StreamReader, length: int) -> None:
        """Reads an upload and keeps its file."""
        body = await reader.readexactly(length)
        boundary = body.partition(b"\r\n")[0][2:]
        told = b"Content-Type: multipart/form-data; boundary=" + boundary + b"\r\n\r\n" + body
        for one in BytesParser(policy=HTTP).parsebytes(told).iter_parts():
            if filename := one.get_filename():
                content = one.get_payload(decode=True)
                assert isinstance(content, bytes)
                self.stored[filename] = content

    def listing(self, path: str) -> bytes:
        """The simple index, with all files under each project."""
        if not re.fullmatch(r"/simple/[a-z-]+/", path) or not self.stored:
            return response("404 Not Found")
        files = []
        for name, content in self.stored.items():
            file: dict[str, object] = {"filename": name, "url": f"../../files/{name}"}
            file["hashes"] = {"sha256": hashlib.sha256(content).hexdigest()}
            if name in self.uploaded_at:
                file["upload-time"] = datetime.fromtimestamp(self.uploaded_at[name], UTC).isoformat()
            files.append(file)
        return response("200 OK", json.dumps({"meta": {"api-version": "1.1"}, "files": files}).encode(), JSON)


@contextlib.asynccontextmanager
async def wire_registry() -> AsyncIterator[WireRegistry]:
    """One that behaves until it is told otherwise."""
    registry = WireRegistry()
    async with server_of(registry.handle) as url:
        registry.url = url
        yield registry


# --- Ways to misbehave -----------------------------------------------------------------------------------------------


def answers(status: str, text: bytes = b"", *, stores: bool = False, early: bool = False) -> Misbehave:
    """Says this, having kept the file or not; early: without having read it."""

    async def misbehave(
        registry: WireRegistry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int
    ) -> None:
        if stores:
            await registry.take(reader, length)
        elif not early:
            await reader.readexactly(length)
        writer.write(response(status, text))
        await writer.drain()
        while early and await reader.read(1 << 16):
            pass

    return misbehave


def breaks_off(*, stores: bool = False, alters: bool = False) -> Misbehave:
    """Closes the connection without an answer, having kept the file, half of it, or nothing."""

    async def misbehave(
        registry: WireRegistry, reader: asyncio.StreamReader, _: asyncio.StreamWriter, length: int
    ) -> None:
        if not stores:
            await reader.readexactly(length // 2)
            return
        await registry.take(reader, length)
        if alters:
            registry.stored = {name: content[: len(content) // 2] for name, content in registry.stored.items()}

    return misbehave


def hangs(*, stores: bool = False) -> Misbehave:
    """Never answers, having kept the file or not."""

    async def misbehave(
        registry: WireRegistry, reader: asyncio.StreamReader, _: asyncio.StreamWriter, length: int
    ) -> None:
        if stores:
            await registry.take(reader, length)
        await asyncio.sleep(30)

    return misbehave
