"""The indexes, each made of the settings of one registry: what mints for it, takes its uploads and serves its reads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from broker import registries
from broker.audit import Attempt, Record
from broker.devpi import DevpiTokens, ParentToken, index_of
from broker.exchange import Exchange, Rates
from broker.gateway import Gateway
from broker.gateway.index import SimpleIndex
from broker.gateway.once import LEASE_MARGIN_SECONDS, WAIT_SECONDS, Once
from broker.gateway.pace import Pace
from broker.gateway.paths import RegistryPaths
from broker.gateway.places import Places
from broker.gateway.reads import Reads
from broker.gateway.registry import Registry
from broker.keys import IssuerKeys
from broker.minting import Minter
from broker.outgoing import client
from broker.policy.model import Policies
from broker.registries import RegistrySettings
from broker.settings import Settings, SettingsError
from broker.signing import SigningKeys
from broker.sources import Sources
from broker.state import State
from broker.web.index import Index

MOST_READERS: Final = 256
"""Pages and files that a process reads from one registry at once."""
MOST_FILES: Final = 192
"""Of those, files: what is left is for pages, which come and go."""


class Indexes:
    """All indexes of the settings, and the connections to their registries."""

    def __init__(
        self,
        chosen: Settings,
        *,
        policies: Callable[[], Policies],
        signing: Callable[[], SigningKeys],
        keys: IssuerKeys,
        state: State,
        sources: Sources,
        clock: Callable[[], float],
        publish_record: Callable[[Attempt, Record], None],
        user_agent: str,
    ) -> None:
        """Makes them.

        Raises:
            SettingsError
        """
        self._chosen = chosen
        self._policies = policies
        self._signing = signing
        self._keys = keys
        self._state = state
        self._sources = sources
        self._clock = clock
        self._publish_record = publish_record
        self._user_agent = user_agent
        self._rates = Rates(
            per_repository=chosen.exchanges_per_minute,
            per_organization=chosen.exchanges_per_minute_per_organization,
            per_issuer=chosen.exchanges_per_minute_per_issuer,
        )
        most = max(100, chosen.uploads_at_once)
        self._uploaders = client(httpx.Timeout(120.0, connect=5.0, pool=30.0), user_agent=user_agent, most=most)
        self._readers: list[httpx.AsyncClient] = []
        told = registries.of(chosen)
        self.places = Places(most=chosen.uploads_at_once, most_bytes=registries.spool_bytes(chosen, told))
        """Of uploads, which all share."""
        self.all = tuple(self._index(one) for one in told)
        """In the order of their settings."""

    async def close(self) -> None:
        """Ends the connections."""
        for one in (self._uploaders, *self._readers):
            await one.aclose()

    def _index(self, one: RegistrySettings) -> Index:
        exchange = self._exchange(one)
        pace = Pace(bytes_per_second=self._chosen.upload_bytes_per_second)
        gateway = Gateway(
            exchange=exchange,
            once=self._once(one),
            spool=self._chosen.spool or Path(tempfile.gettempdir()),
            upload_limit_bytes=one.upload_limit_bytes,
            places=self.places,
            pace=pace,
        )
        # devpi's own tokens are for devpi: no upload comes here.
        return Index(
            base=one.base,
            upload_path=one.upload_path,
            exchange=exchange,
            gateway=None if exchange.devpi else gateway,
            reads=self._reads(one, exchange, pace),
            simple_path=one.simple_path,
            files_path=one.files_path,
            proxy=one.forward_auth,
            registry_paths=_registry_paths(one),
        )

    def _exchange(self, one: RegistrySettings) -> Exchange:
        minter = Minter(
            keys=self._signing,
            issuer=one.public_url,
            audience=one.upload_url,
            prefix=self._chosen.token_prefix,
        )
        return Exchange(
            index="" if self._chosen.registries is None else one.name,
            audience=one.audience,
            rates=self._rates,
            sources=self._sources,
            policies=self._policies,
            keys=self._keys,
            minter=minter,
            state=self._state,
            clock=self._clock,
            publish_record=self._publish_record,
            organizations=one.organizations,
            scopes=("upload", "read") if one.reads == "scoped" else ("upload",),
            devpi=_read_devpi(one),
        )

    def _reads(self, one: RegistrySettings, exchange: Exchange, pace: Pace) -> Reads | None:
        if one.reads == "off":
            return None
        # Of its own: readers are many, and must keep neither uploads nor another registry's readers from theirs.
        readers = client(httpx.Timeout(60.0, connect=5.0, pool=10.0), user_agent=self._user_agent, most=MOST_READERS)
        self._readers.append(readers)
        return Reads(
            exchange=exchange,
            index=_simple_index(one, readers),
            access=one.reads,
            places=Places(most=MOST_FILES, most_bytes=1),
            pace=pace,
            fallback=one.fallback_index,
        )

    def _once(self, one: RegistrySettings) -> Once:
        index = _simple_index(one, self._uploaders)
        return Once(
            state=self._state,
            registry=index.registry,
            index=index,
            open_days=one.release_days,
            clock=self._clock,
            lease_seconds=one.timeout_seconds + LEASE_MARGIN_SECONDS,
            wait_seconds=WAIT_SECONDS,
        )


def _simple_index(one: RegistrySettings, sender: httpx.AsyncClient) -> SimpleIndex:
    registry = Registry(
        url=one.url,
        credential=one.credential,
        client=sender,
        timeout_seconds=one.timeout_seconds,
        drop=one.drop,
        pass_user_agent=one.pass_user_agent,
    )
    return SimpleIndex(url=one.index_url, registry=registry, largest_file_bytes=one.upload_limit_bytes)


def _read_devpi(one: RegistrySettings) -> DevpiTokens | None:
    if one.upload_tokens != "devpi":
        return None
    try:
        index = index_of(one.url)
    except ValueError as error:
        raise SettingsError(f"BROKER_REGISTRY_URL, with BROKER_UPLOAD_TOKENS=devpi: {error}.") from error
    try:
        parent = ParentToken.parse(one.devpi_token.get_secret_value(), index)
    except ValueError as error:
        raise SettingsError(
            f"BROKER_DEVPI_TOKEN: {error}. Make one as the devpi user __token__: "
            f"devpi token-create --allowed upload --indexes {index}"
        ) from error
    return DevpiTokens(parent=parent, index=index)


def _registry_paths(one: RegistrySettings) -> RegistryPaths | None:
    if one.forward_auth == "off":
        return None
    try:
        return RegistryPaths.beside(one.index_url)
    except ValueError as error:
        raise SettingsError(
            f"BROKER_FORWARD_AUTH={one.forward_auth}: of the registry {one.name!r}, {error}. "
            "Correct its index URL, or switch forward-auth off."
        ) from error
