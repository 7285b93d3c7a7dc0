"""The floor server: what any exchange must do at the least, and nothing else.

Two routes: `/exchange` reads a JSON body, verifies RS256 and signs Ed25519 by `cryptography` itself, and answers
JSON; `/empty` does nothing at all. Neither knows claims, policies, replays, limits or records.
"""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import RSAAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def application(verifying: RSAPublicKey, signing: Ed25519PrivateKey) -> Starlette:
    """The two routes."""

    async def exchange(request: Request) -> Response:
        token = json.loads(await request.body())["token"]
        signed, _, signature = token.rpartition(".")
        verifying.verify(_decoded(signature), signed.encode(), PKCS1v15(), SHA256())
        ours = base64.urlsafe_b64encode(signing.sign(signed.encode())).rstrip(b"=").decode()
        return JSONResponse({"success": True, "token": f"{signed}.{ours}"})

    async def empty(_: Request) -> Response:
        return Response()

    return Starlette(
        routes=[Route("/exchange", exchange, methods=["POST"]), Route("/empty", empty, methods=["GET", "POST"])]
    )


def _decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def read_key(path: Path) -> RSAPublicKey:
    """The issuer's public key, from a file with one JWK.

    Raises:
        TypeError: it is no public RSA key.
    """
    key = RSAAlgorithm.from_jwk(path.read_text(encoding="utf-8"))
    if not isinstance(key, RSAPublicKey):
        raise TypeError(f"{path} holds no public RSA key")
    return key


def serve(app: Starlette, port: int) -> None:
    """Serves as the broker is served: uvicorn, uvloop, httptools, one process, no access log."""
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


def main() -> None:
    """`python -m benchmarks.floor --port PORT --key JWK`"""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description="The floor server.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", type=Path, required=True, help="a file with the issuer's public key, a JWK")
    args = parser.parse_args()
    serve(application(read_key(args.key), Ed25519PrivateKey.generate()), args.port)


if __name__ == "__main__":
    main()
