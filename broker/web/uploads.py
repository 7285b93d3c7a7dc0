"""The upload route: what package clients POST files to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker import refusals
from broker.gateway import Upload
from broker.gateway.pace import Pace
from broker.web.answers import declared_bytes
from broker.web.index import Index

DRAIN_BYTES: Final = 64 * 1024 * 1024
DRAIN_SECONDS: Final = 10.0
"""What is still read, and dropped, of a refused upload: clients that send first and read later then see the refusal
instead of a broken pipe. Beyond it the connection ends."""

SILENCE_SECONDS: Final = 60.0
"""How long a client may send nothing in the middle of an upload."""


def routes(index: Index) -> list[Route]:
    """The upload path, with and without its last `/`: a redirect would lose the body."""
    gateway = index.gateway
    if gateway is None:
        return []

    async def upload(request: Request) -> Response:
        body = _body(request, gateway.pace)
        try:
            answer = await gateway.publish(_upload(request, body), request.scope["attempt"])
        except refusals.Refusal:
            await _drain(body)
            raise
        return PlainTextResponse(answer.text, answer.status, {"Cache-Control": "no-store"})

    paths = dict.fromkeys((index.upload_path, index.upload_path.rstrip("/") or "/"))
    return [Route(path, upload, methods=["POST"]) for path in paths]


def _upload(request: Request, body: AsyncIterator[bytes]) -> Upload:
    headers = request.headers
    encoding = headers.get("content-encoding", "identity").strip().lower()
    return Upload(
        authorization=headers.get("authorization"),
        content_type=headers.get("content-type", ""),
        content_length=declared_bytes(request.headers),
        encoded=encoding != "identity" or "transfer-encoding" in headers,
        body=body,
        user_agent=headers.get("user-agent", ""),
        source=request.scope["source"],
    )


async def _body(request: Request, pace: Pace) -> AsyncIterator[bytes]:
    stream, clock = aiter(request.stream()), asyncio.get_running_loop().time
    received, waited = 0, 0.0
    while True:
        patience, since = pace.patience(received, waited), clock()
        try:
            async with asyncio.timeout(min(patience, SILENCE_SECONDS)):
                chunk = await anext(stream, None)
        except ClientDisconnect as error:
            raise refusals.TruncatedUpload("the client went away before the form was complete") from error
        except TimeoutError as error:
            if patience > SILENCE_SECONDS:
                raise refusals.TruncatedUpload(f"the client sent nothing for {SILENCE_SECONDS:.0f} s") from error
            raise refusals.SlowUpload(
                f"{received} bytes came in {waited + clock() - since:.0f} s, and an upload has "
                f"{pace.bytes_per_second} a second at least, and {pace.longest_seconds:.0f} s at most"
            ) from error
        if chunk is None:
            return
        waited += clock() - since
        received += len(chunk)
        yield chunk


async def _drain(body: AsyncIterator[bytes]) -> None:
    dropped = 0
    with contextlib.suppress(TimeoutError, refusals.TruncatedUpload, refusals.SlowUpload):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for chunk in body:
                dropped += len(chunk)
                if dropped > DRAIN_BYTES:
                    return
