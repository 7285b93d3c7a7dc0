"""The simple index and the files, for installers: pip, uv and whoever reads PEP 503 or PEP 691."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from broker import refusals
from broker.gateway.filenames import METADATA
from broker.gateway.pages import files_html, files_json, projects_html, projects_json
from broker.gateway.reads import Download, Elsewhere, Read, Reads
from broker.web.answers import Json
from broker.web.index import Index

JSON: Final = "application/vnd.pypi.simple.v1+json"
HTML: Final = "application/vnd.pypi.simple.v1+html"
_OFFERED: Final = {
    JSON: JSON,
    "application/vnd.pypi.simple.latest+json": JSON,
    HTML: HTML,
    "application/vnd.pypi.simple.latest+html": HTML,
    "text/html": "text/html",
    "text/*": "text/html",
    "*/*": "text/html",
}
"""What may be accepted -> what is then sent (PEP 691)."""

CHUNK_SECONDS: Final = 60.0
"""How long a reader may take nothing in the middle of a file."""

MOST_RANGES: Final = 20
"""Media ranges of an Accept header that are looked at."""

_FOUND: Final = frozenset({200, 206})
_METHODS: Final = ["GET", "HEAD"]


def routes(index: Index) -> list[Route]:
    """The routes of an index whose reads are served: each with and without its last `/`, as nothing redirects."""
    reads = index.reads
    if reads is None:
        return []

    async def projects(request: Request) -> Response:
        kind = _negotiate(request)
        names = await reads.projects(_read(request))
        return _page(kind, projects_json(names) if kind == JSON else projects_html(names))

    async def files(request: Request) -> Response:
        kind = _negotiate(request)
        found = await reads.files(_read(request), request.path_params["project"])
        if isinstance(found, Elsewhere):
            return RedirectResponse(found.url, 302, {"Cache-Control": "no-store"})
        project, listed = found
        root = f"{request.scope.get('root_path', '')}{index.files_path}{project}/"

        def link(filename: str) -> str:
            return root + quote(filename)

        return _page(kind, files_json(project, listed, link) if kind == JSON else files_html(project, listed, link))

    async def file(request: Request) -> Response:
        name, filename = request.path_params["project"], request.path_params["filename"]
        asked = request.headers.get("range", "")
        return _Streamed(reads, reads.file(_read(request), name, filename, asked), filename)

    simple = index.simple_path
    return [
        *(Route(path, projects, methods=_METHODS) for path in dict.fromkeys((simple, simple.rstrip("/") or "/"))),
        *(Route(simple + path, files, methods=_METHODS) for path in ("{project}/", "{project}")),
        Route(index.files_path + "{project}/{filename}", file, methods=_METHODS),
    ]


def _read(request: Request) -> Read:
    scope = request.scope
    return Read(authorization=request.headers.get("authorization"), attempt=scope["attempt"], source=scope["source"])


def _negotiate(request: Request) -> str:
    """Which kind of page to send: of those that are accepted, the one that is wanted most.

    Raises:
        NotAcceptable: none is.
    """
    wanted: list[tuple[float, str]] = []
    for item in request.headers.get("accept", "*/*").split(",")[:MOST_RANGES]:
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((_quality(part[2:]) for part in parameters if part.startswith("q=")), 1.0)
        if media in _OFFERED and quality > 0:
            wanted.append((quality, _OFFERED[media]))
    if not wanted:
        raise refusals.NotAcceptable
    return max(wanted, key=lambda one: one[0])[1]


def _quality(text: str) -> float:
    try:
        return min(float(text), 1.0)
    except ValueError:
        return 0.0


def _page(kind: str, content: object) -> Response:
    if isinstance(content, str):
        return HTMLResponse(content, 200, {"Cache-Control": "no-store", "Vary": "Accept"}, kind)
    return Json(content, media_type=kind, Vary="Accept")


class _Streamed(Response):
    """A file, sent as the registry gives it, for as long as whoever reads is there and keeps pace."""

    def __init__(self, reads: Reads, opening: AbstractAsyncContextManager[Download], filename: str) -> None:
        self.opening, self.pace = opening, reads.pace
        self.kind = "text/plain; charset=utf-8" if filename.endswith(METADATA) else "application/octet-stream"
        # A file's name is written once. But whoever was removed is not to read it from a shared cache.
        self.cache = "public, max-age=3600" if reads.access == "public" else "private, no-store"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it. What is broken off ends the connection: half a file is never taken for a whole one."""
        async with self.opening as download:
            headers = {
                "content-type": self.kind,
                # No cache answers a range that somebody asked for, and is not there, to whoever asks for the file.
                "cache-control": self.cache if download.status in _FOUND else "no-store",
                "x-content-type-options": "nosniff",
                **download.headers,
            }
            raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": download.status, "headers": raw})
            if scope["method"] == "HEAD" or await self._send_body(download, receive, send):
                await send({"type": "http.response.body", "body": b""})

    async def _send_body(self, download: Download, receive: Receive, send: Send) -> bool:
        """Whether all of it was taken."""
        clock = asyncio.get_running_loop().time
        sent, waited = 0, 0.0
        try:
            async with present(receive):
                async for chunk in download.body:
                    since = clock()
                    async with asyncio.timeout(min(self.pace.patience(sent, waited), CHUNK_SECONDS)):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    waited += clock() - since
                    sent += len(chunk)
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def present(receive: Receive) -> AsyncIterator[None]:
    """Ends with TimeoutError as soon as the client is gone, whatever is waited for: the server itself takes what is
    sent to nobody, and says nothing; and the registry may be silent for long.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        there.reschedule(0)

    async with asyncio.timeout(None) as there:
        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
