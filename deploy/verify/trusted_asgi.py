"""ASGI middleware: reads pass, uploads pass that the broker's token covers, nothing else does.

    application = TrustedASGI(registry, Guard(tokens=tokens, path="/legacy/"))

The registry finds the verified token in `scope["trusted_upload"]`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from trusted_tokens import Refused
from trusted_uploads import Guard, Head, Upload

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class TrustedASGI:
    """Stands before a registry."""

    def __init__(self, registry: Application, guard: Guard) -> None:
        self._registry = registry
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._registry(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # In threads: keys may have to be fetched, a body is written to disk, and hashed.
            upload = await asyncio.to_thread(self._guard.begin, _head(scope))
            if upload is None:
                await self._registry(scope, receive, send)
                return
            try:
                if await _receive(upload, receive):
                    await self._registry(_handed_on(scope, upload), _replayed(upload, receive), send)
            finally:
                upload.close()
        except Refused as refused:
            headers, body = refused.answer()
            told = [(name.lower().encode(), value.encode()) for name, value in headers]
            await send({"type": "http.response.start", "status": int(refused.status), "headers": told})
            await send({"type": "http.response.body", "body": body})


def _head(scope: Scope) -> Head:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        # Repeated ones are joined, as servers for WSGI do: of those that matter here, no joined one is valid.
        known = name.decode("latin-1").lower()
        headers[known] = f"{headers[known]},{value.decode('latin-1')}" if known in headers else value.decode("latin-1")
    return Head(
        method=scope["method"],
        path=scope["path"].removeprefix(scope.get("root_path", "")),
        query=scope["query_string"].decode("latin-1"),
        authorization=headers.get("authorization"),
        content_type=headers.get("content-type", ""),
        content_length=headers.get("content-length", ""),
        encoded="transfer-encoding" in headers or "content-encoding" in headers,
    )


async def _receive(upload: Upload, receive: Receive) -> bool:
    """Takes the whole body in. False: the client is gone."""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return False
        if piece := message.get("body", b""):
            await asyncio.to_thread(upload.write, piece)
        more = message.get("more_body", False)
    await asyncio.to_thread(upload.finish)
    return True


def _handed_on(scope: Scope, upload: Upload) -> Scope:
    ours = {
        b"content-type": upload.content_type.encode(),
        b"content-length": str(upload.content_length).encode(),
    }
    others = [(name, value) for name, value in scope["headers"] if name.lower() not in ours]
    return {**scope, "headers": [*others, *ours.items()], "trusted_upload": upload.token}


def _replayed(upload: Upload, receive: Receive) -> Receive:
    """Gives the judged form, then what the server says: that the client is gone."""
    chunks = upload.chunks()
    ended = False

    async def replayed() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        chunk = await asyncio.to_thread(next, chunks, b"")
        ended = not chunk
        return {"type": "http.request", "body": chunk, "more_body": not ended}

    return replayed
