"""The broker's own API, for owners of organizations and for operators, who show an API token as a bearer token."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.api_tokens import ROLES
from broker.web import audit
from broker.web.answers import Json
from broker.web.callers import Callers, bearer


def routes(callers: Callers) -> list[Route]:
    """The routes below `/api`, the same on each host."""

    async def token(request: Request) -> Response:
        async with callers.asks(request, bearer(request), roles=ROLES) as (caller, _):
            return Json(
                {
                    "id": caller.id,
                    "name": caller.name,
                    "role": caller.role,
                    "organization": caller.organization or None,
                    "expires": caller.expires_at,
                }
            )

    return [Route("/api/token", token, methods=["GET"]), *audit.routes(callers)]
