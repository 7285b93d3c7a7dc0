"""Issuers' public keys: found by discovery, cached, refreshed before they age, and never older than a hard age.

Laws:

- Only configured issuers are ever asked; nothing in a token chooses an address.
- One fetch at a time for each issuer, whoever waits for it; a waiting exchange gives up after `PATIENCE_SECONDS`.
- After any fetch, failed or not, the issuer is left alone for `COOL_DOWN_SECONDS`: a flood of random key ids makes no
  flood of fetches.
- A fetched set replaces the one before, so a removed key stops working; a failed fetch changes nothing.
- Keys older than `HARD_AGE_SECONDS` are not used.
- No redirects, no proxy from the environment, https only (or loopback for development), bounded bytes and total time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from broker import refusals
from broker.outgoing import failure, shown
from broker.policy.model import Issuer
from broker.state import State, StoredKeys

PATIENCE_SECONDS: Final = 3.0
"""How long an exchange waits for keys. Clients give up on the broker after 5 s."""
FETCH_SECONDS: Final = 10.0
"""How long a fetch may take as a whole; it goes on for the next exchange when one has lost patience."""
COOL_DOWN_SECONDS: Final = 30.0
SOFT_AGE_SECONDS: Final = 15 * 60
"""From when keys are refreshed in the background."""
HARD_AGE_SECONDS: Final = 24 * 3600
MOST_BYTES: Final = 512 * 1024
MOST_KEYS: Final = 100
SMALLEST_RSA_BITS: Final = 2048


class FetchError(Exception):
    """An issuer's keys could not be fetched; the message says why, for the operator."""


@dataclass(frozen=True, slots=True)
class _KeySet:
    fetched_at: float
    keys: Mapping[str, jwt.PyJWK] = field(repr=False)


@dataclass(slots=True)
class _Cached:
    """What is known of one issuer's keys."""

    key_set: _KeySet | None = None
    attempted_at: float = float("-inf")
    """When the last fetch began."""
    problem: str = ""
    """Why the last fetch failed; empty when it did not."""
    fetching: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How an issuer's keys stand."""

    usable: bool
    age_seconds: int | None
    problem: str


class IssuerKeys:
    """The keys of all configured issuers."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        state: State,
        clock: Callable[[], float],
        tell: Callable[[Issuer, str], None],
    ) -> None:
        """Knows no keys yet.

        Args:
            tell: Called when fetches of an issuer's keys begin to fail, fail otherwise, or succeed again ('').
        """
        self._client = client
        self._state = state
        self._clock = clock
        self._tell = tell
        self._cached: dict[str, _Cached] = {}

    async def find(self, issuer: Issuer, key_id: str) -> jwt.PyJWK:
        """The issuer's key of that id.

        Raises:
            UnknownKey: the issuer does not publish it.
            KeysUnavailable: its keys cannot be had, or are too old.
        """
        cached = self._of(issuer)
        if (key := self._usable(cached).get(key_id)) is not None:
            return key
        await self._refresh(issuer, cached)
        keys = self._usable(cached)
        if (key := keys.get(key_id)) is not None:
            return key
        if not keys or cached.problem or cached.fetching is not None:
            why = FetchError(cached.problem) if cached.problem else None
            raise refusals.KeysUnavailable(f"the keys of issuer {issuer.name!r} cannot be had at the moment") from why
        raise refusals.UnknownKey(f"issuer {issuer.name!r} does not publish the key that the token names")

    async def keep_fresh(self, issuers: Callable[[], Mapping[str, Issuer]], pause_seconds: float = 5.0) -> None:
        """Refreshes ageing keys for as long as it runs; the first round is at once."""
        while True:
            for issuer in issuers().values():
                if not issuer.disabled and self._age(self._of(issuer)) >= SOFT_AGE_SECONDS:
                    self._begin(issuer, self._of(issuer))
            await asyncio.sleep(pause_seconds)

    def freshness(self, issuer: Issuer) -> Freshness:
        """How the issuer's keys stand, for `/readyz`."""
        cached = self._of(issuer)
        age = self._age(cached)
        return Freshness(
            usable=bool(self._usable(cached)),
            age_seconds=None if cached.key_set is None else int(age),
            problem=cached.problem,
        )

    async def close(self) -> None:
        """Ends what is being fetched."""
        tasks = [cached.fetching for cached in self._cached.values() if cached.fetching is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _of(self, issuer: Issuer) -> _Cached:
        if (cached := self._cached.get(issuer.url)) is None:
            cached = self._cached[issuer.url] = _Cached()
        return cached

    def _age(self, cached: _Cached) -> float:
        return float("inf") if cached.key_set is None else self._clock() - cached.key_set.fetched_at

    def _usable(self, cached: _Cached) -> Mapping[str, jwt.PyJWK]:
        if cached.key_set is None or self._age(cached) >= HARD_AGE_SECONDS:
            return {}
        return cached.key_set.keys

    async def _refresh(self, issuer: Issuer, cached: _Cached) -> None:
        """Waits, but not forever, for the fetch that is under way, or for a new one if the cool-down is over."""
        self._begin(issuer, cached)
        if cached.fetching is not None:
            # Shielded: the fetch belongs to all who wait, and one that gives up must not end it.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(cached.fetching), PATIENCE_SECONDS)

    def _begin(self, issuer: Issuer, cached: _Cached) -> None:
        now = self._clock()
        if cached.fetching is None and now - cached.attempted_at >= COOL_DOWN_SECONDS:
            cached.attempted_at = now
            cached.fetching = asyncio.create_task(self._fetch(issuer, cached))

    async def _fetch(self, issuer: Issuer, cached: _Cached) -> None:
        try:
            if cached.key_set is None:
                await self._recall(issuer, cached)
            async with asyncio.timeout(FETCH_SECONDS):
                document = await self._key_document(issuer)
            cached.key_set = _KeySet(self._clock(), _parse(document, issuer.algorithms))
            self._note(issuer, cached, "")
        except (FetchError, TimeoutError) as error:
            self._note(issuer, cached, str(error) or f"no answer within {FETCH_SECONDS:.0f} s")
            return
        finally:
            cached.fetching = None
        # Kept for a restart during the issuer's outage; without it, only that comfort is lost.
        with contextlib.suppress(refusals.StateUnavailable):
            await self._state.store_keys(
                issuer.url, StoredKeys(fetched_at=cached.key_set.fetched_at, document=json.dumps(document))
            )

    def _note(self, issuer: Issuer, cached: _Cached, problem: str) -> None:
        """Tells of a problem once, and not with each try, until it is another or passes."""
        if problem != cached.problem:
            cached.problem = problem
            self._tell(issuer, problem)

    async def _recall(self, issuer: Issuer, cached: _Cached) -> None:
        """Takes up the keys that were stored before a restart, at the age they have."""
        with contextlib.suppress(refusals.StateUnavailable, FetchError, ValueError):
            stored = await self._state.stored_keys(issuer.url)
            if stored is not None:
                keys = _parse(json.loads(stored.document), issuer.algorithms)
                cached.key_set = _KeySet(stored.fetched_at, keys)

    async def _key_document(self, issuer: Issuer) -> dict[str, Any]:
        configuration = await self._get(f"{issuer.url.rstrip('/')}/.well-known/openid-configuration")
        # OpenID Connect Discovery 1.0 section 4.3: it must be the very issuer that was asked.
        if configuration.get("issuer") != issuer.url:
            raise FetchError("the discovery document is of another issuer")
        address = configuration.get("jwks_uri")
        if not isinstance(address, str) or not _may_be_asked(address, issuer):
            raise FetchError("the discovery document has no 'jwks_uri' that is https")
        return await self._get(address)

    async def _get(self, url: str) -> dict[str, Any]:
        # Compressed bodies are refused: the cap below counts bytes as they come over the wire.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            async with self._client.stream("GET", url, headers=headers, follow_redirects=False) as answer:
                if answer.status_code != httpx.codes.OK or "content-encoding" in answer.headers:
                    raise FetchError(f"{shown(url)} answered {answer.status_code}, wanted a plain 200")
                body = bytearray()
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise FetchError(f"{shown(url)} answered more than {MOST_BYTES} bytes")
            document = json.loads(body)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            raise FetchError(f"{shown(url)}: {failure(error)}") from error
        if not isinstance(document, dict):
            raise FetchError(f"{shown(url)} answered no JSON object")
        return document


def _may_be_asked(address: str, issuer: Issuer) -> bool:
    """https; plain http only where the operator configured the issuer so (loopback, for development)."""
    try:
        parts, ours = urlsplit(address), urlsplit(issuer.url)
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(parts.hostname)
    return ours.scheme == "http" and (parts.scheme, parts.netloc) == (ours.scheme, ours.netloc)


def _parse(document: Mapping[str, Any], algorithms: tuple[str, ...]) -> dict[str, jwt.PyJWK]:
    """The keys that can verify: one by one, so that an odd entry does not take the others with it."""
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MOST_KEYS:
        raise FetchError("the key set has no list of keys, or an endless one")
    keys = {}
    for entry in entries:
        if isinstance(entry, dict) and isinstance(key_id := entry.get("kid"), str):
            key = _parse_key(entry, algorithms)
            if key is not None:
                keys[key_id] = key
    if not keys:
        raise FetchError("the key set has no key that verifies the issuer's algorithms")
    return keys


def _parse_key(entry: dict[str, Any], algorithms: tuple[str, ...]) -> jwt.PyJWK | None:
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    stated = entry.get("alg")
    for algorithm in algorithms if stated is None else (stated,):
        if algorithm not in algorithms:
            continue
        try:
            key = jwt.PyJWK(entry, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key.key, RSAPublicKey) and key.key.key_size < SMALLEST_RSA_BITS:
            continue
        return key
    return None
