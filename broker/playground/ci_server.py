"""The fake CI on a port of its own: issuers' documents, and the route where a GitHub job asks for its token."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.playground.ci import FakeCI

_START_SECONDS: Final = 10.0


@contextlib.contextmanager
def serving_ci() -> Iterator[FakeCI]:
    """Serves a CI on a free loopback port for as long as the context is open.

    Raises:
        RuntimeError: it did not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ci = FakeCI.at(f"http://127.0.0.1:{listener.getsockname()[1]}")
        config = uvicorn.Config(_application(ci), loop="asyncio", lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        # A thread, so that it ends with this process, however that ends.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="fake CI", daemon=True)
        thread.start()
        try:
            _wait_for(server, thread)
            yield ci
        finally:
            server.should_exit = True
            thread.join(_START_SECONDS)


def _wait_for(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the fake CI did not start")
        time.sleep(0.01)


def _application(ci: FakeCI) -> Starlette:
    documents = {urlsplit(url).path: body for url, body in ci.documents().items()}

    async def document(request: Request) -> Response:
        return Response(documents[request.url.path], media_type="application/json")

    async def token_request(request: Request) -> Response:
        scheme, _, request_token = request.headers.get("Authorization", "").partition(" ")
        # Without an audience, GitHub makes it the owner's page.
        audience = request.query_params.get("audience", "https://github.com/acme-corp")
        answer = ci.answer_token_request(request_token, audience) if scheme.lower() == "bearer" else None
        if answer is None:
            return JSONResponse({"message": "no run has this request token"}, status_code=401)
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})

    routes = [Route(path, document) for path in documents]
    return Starlette(routes=[*routes, Route(f"{urlsplit(ci.urls['github']).path}/token-request", token_request)])
