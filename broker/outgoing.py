"""How the broker reaches others: issuers, registries, and whoever is told of alerts."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Final
from urllib.parse import urlsplit

import httpx

LONGEST_SHOWN: Final = 200
"""Characters of a URL."""


def client(
    timeout: httpx.Timeout, *, user_agent: str, transport: httpx.AsyncBaseTransport | None = None, most: int = 100
) -> httpx.AsyncClient:
    """For issuers and registries; `most` connections at once."""
    # No proxy and no .netrc from the environment; certificates from the system's store, or SSL_CERT_FILE.
    return httpx.AsyncClient(
        timeout=timeout,
        limits=httpx.Limits(max_connections=most, max_keepalive_connections=20),
        transport=transport,
        verify=ssl.create_default_context(),
        trust_env=False,
        follow_redirects=False,
        headers={"User-Agent": user_agent},
    )


def webhook_transport() -> httpx.AsyncHTTPTransport:
    """How alerts' receivers are reached: as `client` reaches others, but that nothing logs the URLs.

    A slow receiver keeps its connection to itself: there are as many as receivers.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    return httpx.AsyncHTTPTransport(verify=ssl.create_default_context(), limits=limits, trust_env=False)


def failure(error: BaseException) -> str:
    """What failed, with the system's own word for why where there is one: 'ConnectError: Connection refused'.

    What an exception says of itself is not told: some quote a header, and so a credential, and some what was answered.
    """
    why = ""
    one: BaseException | None = error
    seen: set[int] = set()  # exceptions can be each other's causes
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        why = _systems_word(one) or why
        # Of several addresses that were tried, the first speaks for all.
        one = one.exceptions[0] if isinstance(one, BaseExceptionGroup) else one.__cause__ or one.__context__
    return f"{type(error).__name__}: {why}" if why else type(error).__name__


def _systems_word(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {getattr(error, 'verify_message', '')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'reason', '')}"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    # By its number, for some write the address that they tried into the text.
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else ""


def shown(url: str) -> str:
    """A URL as logs and the operator's pages show it: without user, query and fragment, and of bounded length.

    An issuer may have told it, and whoever made it may have put into it what lets one in.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    text = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
