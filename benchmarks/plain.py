"""What an afternoon's exchange looks like: PyJWT in and out, a claim or two, no policies, no state, no records."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.floor import read_key, serve


def application(verifying: RSAPublicKey, signing: Ed25519PrivateKey, issuer: str, audience: str) -> Starlette:
    """The one route."""

    async def exchange(request: Request) -> Response:
        token = (await request.json())["token"]
        claims = jwt.decode(token, verifying, algorithms=["RS256"], audience=audience, issuer=issuer)
        expires = int(time.time()) + 900
        minted = jwt.encode({"sub": claims["repository"], "exp": expires, "scope": "upload"}, signing, "EdDSA")
        return JSONResponse({"success": True, "token": minted, "expires": expires})

    return Starlette(routes=[Route("/exchange", exchange, methods=["POST"])])


def main() -> None:
    """`python -m benchmarks.plain --port PORT --key JWK --issuer URL --audience TEXT`"""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain", description="A plain PyJWT exchange.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", type=Path, required=True, help="a file with the issuer's public key, a JWK")
    parser.add_argument("--issuer", required=True)
    parser.add_argument("--audience", required=True)
    args = parser.parse_args()
    app = application(read_key(args.key), Ed25519PrivateKey.generate(), args.issuer, args.audience)
    serve(app, args.port)


if __name__ == "__main__":
    main()
