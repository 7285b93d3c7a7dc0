"""Whom a request is counted against: what a trusted proxy says, and never what a client wrote."""

from __future__ import annotations

import pytest

from broker.addresses import MOST_HOPS, NOWHERE, Source, TrustedProxies

PROXIES = TrustedProxies.parse("10.0.0.0/8, 2001:db8:ffff::5,127.0.0.1")


def alone(name: str) -> Source:
    """A client."""
    return Source(name)


def many(name: str) -> Source:
    """A proxy."""
    return Source(name, stands_for_many=True)


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("192.0.2.1", [], alone("192.0.2.1")),
        ("10.0.0.1", ["192.0.2.1"], alone("192.0.2.1")),
        ("2001:db8:ffff::5", ["192.0.2.1"], alone("192.0.2.1")),
        # What the client wrote stands to the left of what the proxy added.
        ("10.0.0.1", ["203.0.113.9, 192.0.2.1"], alone("192.0.2.1")),
        ("10.0.0.1", ["203.0.113.9", "192.0.2.1"], alone("192.0.2.1")),
        ("10.0.0.1", ["10.9.9.9, 192.0.2.1"], alone("192.0.2.1")),
        # Through several proxies, all of them trusted.
        ("10.0.0.1", ["192.0.2.1, 10.0.0.3,\t10.0.0.2"], alone("192.0.2.1")),
        ("10.0.0.1", ["192.0.2.1", "10.0.0.3", "10.0.0.2"], alone("192.0.2.1")),
        ("10.0.0.1", ["203.0.113.9, 192.0.2.1, 10.0.0.2"], alone("192.0.2.1")),
        # With ports, brackets and zones, as some proxies write them.
        ("10.0.0.1", ["192.0.2.1:4711"], alone("192.0.2.1")),
        ("10.0.0.1", ["[2001:db8:1:2:3::1]:4711"], alone("2001:db8:1:2::/64")),
        ("10.0.0.1", ["[2001:db8:1:2:3::1]"], alone("2001:db8:1:2::/64")),
        ("fe80::1%eth0", [], alone("fe80::/64")),
        # One customer has a /64; IPv4 in IPv6 is IPv4.
        ("2001:db8:1:2:3:4:5:6", [], alone("2001:db8:1:2::/64")),
        ("2001:db8:1:2::ffff", [], alone("2001:db8:1:2::/64")),
        ("::ffff:192.0.2.1", [], alone("192.0.2.1")),
        ("::ffff:10.0.0.1", ["::ffff:192.0.2.1"], alone("192.0.2.1")),
        # Nobody is trusted who is not named.
        ("192.0.2.1", ["203.0.113.9"], many("192.0.2.1")),
        ("2001:db8:ffff::6", ["203.0.113.9"], many("2001:db8:ffff::/64")),
        # What cannot be read ends the reading, at the proxy that said it.
        ("10.0.0.1", ["unknown"], many("10.0.0.1")),
        ("10.0.0.1", [""], many("10.0.0.1")),
        ("10.0.0.1", ["192.0.2.1,"], many("10.0.0.1")),
        ("10.0.0.1", ["192.0.2.1, _hidden, 10.0.0.2"], many("10.0.0.2")),
        ("10.0.0.1", ["192.0.2.1 203.0.113.9"], many("10.0.0.1")),
        ("10.0.0.1", ["192.0.2.1", "\x00"], many("10.0.0.1")),
        ("10.0.0.1", ["0x7f.1"], many("10.0.0.1")),
        ("10.0.0.1", ["192.0.2.01"], many("10.0.0.1")),
        ("10.0.0.1", ["3221225985"], many("10.0.0.1")),
        ("10.0.0.1", ["192.0.2.1" + " " * 60_000 + "x"], many("10.0.0.1")),
        ("10.0.0.1", ["[192.0.2.1" * 20], many("10.0.0.1")),
        # A trusted proxy that says nothing, or names trusted ones alone, is what is known.
        ("10.0.0.1", [], many("10.0.0.1")),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], many("10.0.0.3")),
        # Only so many are read.
        ("10.0.0.1", ["192.0.2.1," + "10.0.0.2," * 60_000 + "10.0.0.3"], many("10.0.0.2")),
        ("10.0.0.1", ["192.0.2.1" + ", 10.0.0.2" * (MOST_HOPS - 1)], alone("192.0.2.1")),
        ("10.0.0.1", ["192.0.2.1" + ", 10.0.0.2" * MOST_HOPS], many("10.0.0.2")),
        # A Unix socket, or a server that does not say.
        ("", ["192.0.2.1"], NOWHERE),
        ("testclient", [], NOWHERE),
    ],
)
def test_whom_a_request_is_counted_against(peer: str, forwarded: list[str], source: Source) -> None:
    assert PROXIES.source(peer, forwarded) == source


def test_without_trusted_proxies_no_header_is_believed() -> None:
    assert TrustedProxies().source("127.0.0.1", ["192.0.2.1"]) == many("127.0.0.1")
    assert TrustedProxies().source("127.0.0.1", []) == alone("127.0.0.1")


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.0/8, ::/0", "10.0.0.1/8", "proxy.example", "10.0.0.0/33", "*"])
def test_what_trusts_everybody_or_names_nobody_is_no_setting(text: str) -> None:
    with pytest.raises(ValueError):
        TrustedProxies.parse(text)


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_none_is_a_setting(text: str) -> None:
    assert TrustedProxies.parse(text) == TrustedProxies()
