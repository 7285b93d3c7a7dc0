"""What an identity token with given claims would get, without network, state or signature: the exchange's own core.

`broker explain`, test cases and `broker plan` ask here. Steps 2 and 5 to 8 of the exchange (design §3) are the
very functions that a mint calls; what only a real token or the store can tell (signature, times, replay, limits) is
not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from broker import refusals
from broker.policy import matching
from broker.policy.matching import Considered, Grant, Pins
from broker.policy.model import Issuer, Policies, Scope
from broker.providers import Identity
from broker.tokens import Claims

_NO_PINS: Final[Pins] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What was found, as far as it went: a step that refuses leaves those behind it empty."""

    scope: Scope = "upload"
    """What was asked for."""
    issuer: Issuer | None = None
    identity: Identity | None = None
    considered: tuple[Considered, ...] = ()
    grant: Grant | None = None
    refusal: refusals.Refusal | None = None
    """None exactly where there is a grant."""


def rehearse(
    policies: Policies, claims: Mapping[str, Any], *, now: float, pins: Pins = _NO_PINS, scope: Scope = "upload"
) -> Rehearsal:
    """Decides as a mint would for a token that is signed, in time, and new.

    Args:
        claims: The payload of an identity token; `iss` says whose.
        now: Epoch seconds.
        pins: What first uses recorded; by default nothing, so that `pin: first-use` fits any ids.
        scope: Of the token that is asked for.
    """
    issuer: Issuer | None = None
    try:
        issuer = matching.find_issuer(policies, _url(claims))
        values = Claims(values=claims, issued_at=now, expires_at=now, fingerprint="")
        identity = issuer.provider.read(values, issuer.name, issuer.url)
    except refusals.Refusal as refusal:
        return Rehearsal(scope=scope, issuer=issuer, refusal=refusal)
    return _both_gates(policies, Rehearsal(scope=scope, issuer=issuer), identity, now, pins)


def rehearse_again(
    policies: Policies, identity: Identity, *, now: float, pins: Pins = _NO_PINS, scope: Scope = "upload"
) -> Rehearsal:
    """Decides anew for an identity that was read before, as it is recorded of an attempt.

    Args:
        now, pins, scope: As above.
    """
    issuer = policies.issuers.get(identity.issuer)
    begun = Rehearsal(scope=scope, issuer=issuer)
    try:
        matching.find_issuer(policies, issuer.url if issuer is not None else identity.issuer)
    except refusals.Refusal as refusal:
        return replace(begun, identity=identity, refusal=refusal)
    return _both_gates(policies, begun, identity, now, pins)


def _both_gates(policies: Policies, begun: Rehearsal, identity: Identity, now: float, pins: Pins) -> Rehearsal:
    considered = matching.consider(matching.candidates(policies, identity), identity, pins)
    found = replace(begun, identity=identity, considered=considered)
    try:
        return replace(found, grant=matching.grant(policies, identity, considered, now, begun.scope))
    except refusals.Refusal as refusal:
        return replace(found, refusal=refusal)


def _url(claims: Mapping[str, Any]) -> str:
    url = claims.get("iss")
    if not isinstance(url, str):
        raise refusals.MissingClaim("the identity token has no claim 'iss'")
    return url
