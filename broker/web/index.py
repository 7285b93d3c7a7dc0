"""One index as clients see it: what stands in front of one registry, and where its routes are."""

from __future__ import annotations

from dataclasses import dataclass

from broker.exchange import Exchange
from broker.gateway import Gateway
from broker.gateway.paths import RegistryPaths
from broker.gateway.reads import Reads
from broker.settings import ForwardAuth


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What clients upload to. Of a host's indexes, the first is its default, which stock clients find."""

    base: str
    """Below which its own routes are: '/_' for a host's default, '/_/registries/team-a' for another."""
    upload_path: str
    exchange: Exchange
    gateway: Gateway | None
    """None where uploads go straight to the registry."""
    reads: Reads | None = None
    """None where installers ask the registry itself."""
    simple_path: str = "/simple/"
    files_path: str = "/files/"
    """Where reads are served."""
    proxy: ForwardAuth = "off"
    """Which kind of proxy asks whether a read of the registry itself may pass."""
    registry_paths: RegistryPaths | None = None
    """By which that is decided; None where no proxy asks."""

    @property
    def is_default(self) -> bool:
        """Whether it is its host's default."""
        return self.base == "/_"

    @property
    def url(self) -> str:
        """As clients name it; `aud` of its upload tokens."""
        return self.exchange.minter.audience
