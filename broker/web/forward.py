"""Forward-auth: what a proxy in front of the registry asks before it sends a read on.

Where it is served, one kind of proxy is named, and only what that kind sends is looked at: another's headers may be the
client's own. An answer lets pass or does not; it carries no credential, for the proxy has the registry's itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker import refusals
from broker.gateway.reads import Read
from broker.web.answers import REFUSAL, answer
from broker.web.index import Index

_HEADERS: Final = {
    "nginx": ("x-original-method", "x-original-uri"),
    "traefik": ("x-forwarded-method", "x-forwarded-uri"),
    "caddy": ("x-forwarded-method", "x-forwarded-uri"),
}
"""Where a proxy tells the client's method and path. Envoy asks with that method, and below our path."""

_ANY: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
"""Methods with which Envoy may ask; any other is answered 405, which Envoy takes for a no as well."""

_NGINX_RELAYS: Final = frozenset({401, 403})
"""Of all refusals: any other status nginx makes a 500 of."""

STATUS_HEADER: Final = "Broker-Status"
REFUSAL_HEADER: Final = "Broker-Refusal"
"""How nginx is told the status that the client should see, and the code: it drops the body."""


def routes(index: Index) -> list[Route]:
    """The route that the proxy asks; none where forward-auth is off."""
    reads, paths = index.reads, index.registry_paths
    if reads is None or paths is None:
        return []
    root = f"{index.base}/authorize"
    told = _by_path(root) if index.proxy == "envoy" else _by_headers(*_HEADERS[index.proxy])

    async def authorize(request: Request) -> Response:
        # The path first: that an upload cannot be decided here is so with any token, and with none.
        asked = paths.asked(*told(request))
        scope = request.scope
        read = Read(
            authorization=request.headers.get("authorization"), attempt=scope["attempt"], source=scope["source"]
        )
        await reads.permit(read, asked)
        return Response(headers={"Cache-Control": "no-store"})

    async def authorize_for_nginx(request: Request) -> Response:
        try:
            return await authorize(request)
        except refusals.Refusal as refusal:
            response = answer(refusal, request.scope, request.scope["attempt"])
            request.scope[REFUSAL] = refusal
            response.headers[STATUS_HEADER], response.headers[REFUSAL_HEADER] = str(refusal.status), refusal.code
            if refusal.status not in _NGINX_RELAYS:
                response.status_code = refusals.NotForwarded.status
            return response

    if index.proxy == "envoy":
        return [Route(root + "{target:path}", authorize, methods=_ANY)]
    return [Route(root, authorize_for_nginx if index.proxy == "nginx" else authorize, methods=["GET"])]


def _by_headers(method: str, target: str) -> Callable[[Request], tuple[str, str]]:
    def told(request: Request) -> tuple[str, str]:
        # Twice would be the proxy's word and a client's, and nobody knows which is which.
        methods, targets = request.headers.getlist(method), request.headers.getlist(target)
        if len(methods) != 1 or len(targets) != 1:
            raise refusals.NotForwarded
        return methods[0], targets[0]

    return told


def _by_path(root: str) -> Callable[[Request], tuple[str, str]]:
    def told(request: Request) -> tuple[str, str]:
        path, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"].decode("latin-1")
        before = request.scope.get("root_path", "") + root
        # The router has looked at the path unescaped.
        if not path.startswith(before):
            raise refusals.NotForwarded
        return request.method, path.removeprefix(before) + ("?" + query if query else "")

    return told
