"""How the broker reaches others: issuers, registries, and whoever is told of alerts."""

from __future__ import annotations

import ssl

import httpx


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
