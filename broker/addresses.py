"""Where a request comes from, as far as somebody says so who is trusted with it.

Laws:

- what a header says of addresses counts only where a trusted proxy sent it, and of it only what was added by trusted
  proxies: the header is read from the right, through those, to the first address that is none of theirs;
- what cannot be read ends the reading: the source is then the proxy that said it, and never what a client wrote;
- one header is read, `X-Forwarded-For`. Of two, a proxy that sets one hands the other on as the client wrote it;
- an IPv6 source is its /64, for one customer has as many addresses in it as it likes. IPv4 in IPv6 is IPv4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MOST_HOPS: Final = 16
"""Addresses of a header that are read; the proxies in front of a broker are few."""
LONGEST_ADDRESS: Final = 64
"""Characters, with brackets, a zone and a port."""
CUSTOMER_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Source:
    """Whom a request is counted against."""

    name: str
    """An IPv4 address, or an IPv6 network; empty where the server does not say, as with a Unix socket."""
    stands_for_many: bool = False
    """It is a proxy: one that is trusted and says nobody's address, or one that is not, and says one."""


NOWHERE: Final = Source("")


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The proxies whose word on addresses counts."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> TrustedProxies:
        """'10.0.0.0/8, 2001:db8::5' -> those networks; an address alone is one of its own.

        Raises:
            ValueError: one is none, or is everybody.
        """
        networks = tuple(_network(one.strip()) for one in text.split(",") if one.strip())
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("everybody cannot be trusted: anybody could then claim any address")
        return cls(networks)

    def source(self, peer: str, forwarded: Sequence[str]) -> Source:
        """The source of a request.

        Args:
            peer: The address that the connection is from.
            forwarded: The values of `X-Forwarded-For`, in their order.
        """
        found = _read(peer)
        if found is None:
            return NOWHERE
        if not self._trusts(found):
            return Source(_name(found), stands_for_many=bool(forwarded))
        for text in _hops(forwarded):
            told = _read(text)
            if told is None:
                break
            found = told
            if not self._trusts(found):
                return Source(_name(found))
        return Source(_name(found), stands_for_many=True)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no address, and no network such as 10.0.0.0/8") from error
    return network


def _hops(forwarded: Sequence[str]) -> list[str]:
    """The last addresses that were told, latest first: 'a, b' and 'c' -> c, b, a."""
    told = ",".join(forwarded).rsplit(",", MOST_HOPS) if forwarded else []
    return [hop.strip(" \t") for hop in reversed(told[-MOST_HOPS:])]


@lru_cache(maxsize=4096)
def _read(text: str) -> Address | None:
    """'192.0.2.1', '192.0.2.1:4711', '2001:db8::1', '[2001:db8::1]:4711', 'fe80::1%eth0' -> the address."""
    if len(text) > LONGEST_ADDRESS:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(maxsize=4096)
def _name(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, CUSTOMER_BITS), strict=False))
