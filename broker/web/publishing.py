"""What CI pipelines call before an upload: audience, mint, burn, discovery (PEP 807), and the broker's public keys."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker import refusals
from broker.exchange import MULTI_USE, Exchange, MintRequest, parse_request, read_request
from broker.minting import key_set
from broker.tokens import LONGEST_TOKEN
from broker.web.answers import Json, read_body

MINT_BODY_BYTES: Final = 2 * LONGEST_TOKEN

DISCOVERY_TYPE: Final = "application/vnd.pypi.pytp.v1+json"


def routes(exchange: Exchange, upload_path: str) -> list[Route]:
    """The routes, all at the host's root: clients drop the upload URL's path."""

    async def audience(_: Request) -> Response:
        return Json({"audience": exchange.audience})

    async def mint(request: Request) -> Response:
        async def asked() -> MintRequest:
            return read_request(await read_body(request, MINT_BODY_BYTES))

        attempt = request.scope["attempt"]
        minted = await exchange.mint(asked(), attempt)
        return Json({"success": True, "token": minted.text, "expires": minted.expires_at, "attempt": attempt})

    async def burn(request: Request) -> Response:
        token = parse_request(await read_body(request, MINT_BODY_BYTES))["token"]
        await exchange.burn(token, request.scope["attempt"])
        return Json({}, 202)

    async def discover(request: Request) -> Response:
        _check_accept(request.headers.get("accept", "*/*"))
        if _path(request.query_params.get("discover", "")).rstrip("/") != upload_path.rstrip("/"):
            raise refusals.NotFound("there is no index with trusted publishing at this upload path")
        root = exchange.minter.issuer
        document = {
            "audience-endpoint": f"{root}/_/oidc/audience",
            "token-mint-endpoint": f"{root}/_/oidc/mint-token",
            "features": list(exchange.features),
            "default-features": [MULTI_USE],
        }
        return Json(document, media_type=DISCOVERY_TYPE)

    async def public_keys(_: Request) -> Response:
        return Json(key_set(exchange.minter.keys))

    return [
        Route("/_/oidc/audience", audience, methods=["GET"]),
        Route("/_/oidc/mint-token", mint, methods=["POST"]),
        Route("/_/oidc/github/mint-token", mint, methods=["POST"]),
        Route("/_/oidc/burn-token", burn, methods=["POST"]),
        Route("/.well-known/pytp", discover, methods=["GET"]),
        Route("/.well-known/jwks.json", public_keys, methods=["GET"]),
    ]


def _path(url: str) -> str:
    """'https://upload.acme.example/legacy/' -> '/legacy/'; empty for what is no URL."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _check_accept(accept: str) -> None:
    offered = {"*/*", "application/*", "application/json", DISCOVERY_TYPE}
    wanted = {item.split(";")[0].strip().lower() for item in accept.split(",")}
    if not wanted & offered:
        raise refusals.NotAcceptable
