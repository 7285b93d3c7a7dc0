"""pypiserver that takes the broker's upload tokens by itself.

    waitress-serve --listen=127.0.0.1:8080 --call pypiserver_app:create
    gunicorn --bind=127.0.0.1:8080 --threads=8 'pypiserver_app:create()'

Settings are environment variables: see docs/how-to/verify-tokens-yourself.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pypiserver  # type: ignore[import-untyped]  # it has no types

from trusted_tokens import Introspection, Keys, TrustedTokens
from trusted_uploads import Guard
from trusted_wsgi import Auther, TrustedWSGI


def create(environ: Mapping[str, str] = os.environ) -> TrustedWSGI:
    """The registry, behind the middleware."""
    issuer = environ["TRUSTED_ISSUER"].rstrip("/")
    keys = Keys(environ.get("TRUSTED_KEYS_URL") or f"{issuer}/.well-known/jwks.json")
    introspection = None
    if url := environ.get("TRUSTED_INTROSPECTION_URL"):
        secret = Path(environ["TRUSTED_CLIENT_SECRET_FILE"]).read_text(encoding="utf-8").strip()
        introspection = Introspection(url=url, client_id=environ["TRUSTED_CLIENT_ID"], client_secret=secret)
    tokens = TrustedTokens(issuer=issuer, audience=environ["TRUSTED_AUDIENCE"], keys=keys, introspection=introspection)
    registry = pypiserver.app(
        roots=[Path(environ["PACKAGES"]).resolve()],
        authenticate=["update"],
        auther=Auther(tokens),
        disable_fallback=True,
        overwrite=False,
    )
    spool = environ.get("SPOOL")
    return TrustedWSGI(registry, Guard(tokens=tokens, path="/", spool=Path(spool) if spool else None))
