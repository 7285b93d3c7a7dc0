"""What CI pipelines call before an upload: audience, mint, burn, discovery (PEP 807), and the broker's public keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from broker import ascii_json, refusals
from broker.exchange import MULTI_USE, MintRequest, parse_request, read_request
from broker.signing import CACHED_SECONDS, key_set
from broker.tokens import LONGEST_TOKEN
from broker.web.answers import Json, read_body
from broker.web.index import Index

MINT_BODY_BYTES: Final = 2 * LONGEST_TOKEN

DISCOVERY_TYPE: Final = "application/vnd.pypi.pytp.v1+json"


def routes(indexes: Sequence[Index]) -> list[Route]:
    """The routes of one host's indexes, all at its root: clients drop the upload URL's path, and find the default one.

    Whoever knows PEP 807 asks for an upload path, and is told the routes of the index that is there.
    """

    async def burn(request: Request) -> Response:
        token = parse_request(await read_body(request.scope, request.receive, MINT_BODY_BYTES))["token"]
        for index in indexes:
            if await index.exchange.burn(token, request.scope["attempt"], request.scope["source"]):
                break
        return Json({}, 202)

    async def discover(request: Request) -> Response:
        _check_accept(request.headers.get("accept", "*/*"))
        asked = _path(request.query_params.get("discover", "")).rstrip("/")
        index = next((one for one in indexes if one.upload_path.rstrip("/") == asked), None)
        if index is None:
            raise refusals.NotFound("there is no index with trusted publishing at this upload path")
        root = index.exchange.minter.issuer + index.base
        document = {
            "audience-endpoint": f"{root}/oidc/audience",
            "token-mint-endpoint": f"{root}/oidc/mint-token",
            "features": list(index.exchange.features),
            "default-features": [MULTI_USE],
        }
        return Json(document, media_type=DISCOVERY_TYPE)

    async def public_keys(_: Request) -> Response:
        exchange = indexes[0].exchange
        keys = key_set(exchange.minter.keys(), exchange.clock())
        return Json(keys, Cache_Control=f"public, max-age={CACHED_SECONDS}")

    return [
        *(Route(path, mint, methods=["POST"]) for path, mint in mints(indexes).items()),
        *(Route(f"{index.base}/oidc/audience", _audience(index), methods=["GET"]) for index in indexes),
        Route("/_/oidc/burn-token", burn, methods=["POST"]),
        Route("/.well-known/pytp", discover, methods=["GET"]),
        Route("/.well-known/jwks.json", public_keys, methods=["GET"]),
    ]


def mints(indexes: Sequence[Index]) -> dict[str, ASGIApp]:
    """Of those, what trades identity tokens: paths that are posted to, and what answers there."""
    told: dict[str, ASGIApp] = {}
    for index in indexes:
        mint = _Mint(index)
        told[f"{index.base}/oidc/mint-token"] = mint
        if index.is_default:
            told["/_/oidc/github/mint-token"] = mint
    return told


def _audience(index: Index) -> Callable[[Request], Awaitable[Response]]:
    async def audience(_: Request) -> Response:
        return Json({"audience": index.exchange.audience})

    return audience


_MINTED: Final = [(name, value) for name, value in Json(None).raw_headers if name != b"content-length"]
"""The headers that every answer with a token has: made once, for exchanges are what is asked most."""


class _Mint:
    """The exchange. An application, and not a handler: what Starlette wraps those in costs, and does nothing here."""

    def __init__(self, index: Index) -> None:
        self.index = index

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def asked() -> MintRequest:
            return read_request(await read_body(scope, receive, MINT_BODY_BYTES))

        attempt = scope["attempt"]
        minted = await self.index.exchange.mint(asked(), attempt, scope["source"])
        told = {"success": True, "token": minted.text, "expires": minted.expires_at, "attempt": attempt}
        body = ascii_json.encode(told).encode()
        headers = [*_MINTED, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


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
