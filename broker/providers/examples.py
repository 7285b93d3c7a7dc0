"""How providers write examples of their claims: whole, valid, and consistent when one claim is changed.

Each provider's `example` makes the claims of a *valid* run, and takes what is to be different by the claim's name;
`...` leaves a claim out. Claims that follow from a changed one follow (a new `ref` is in `workflow_ref` and `sub` too),
unless they are given themselves. Nothing else is touched, so whoever changes one thing changes one thing. The same
changes always make the same claims: who needs a token of now gives `iat`, and `jti` where the provider has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

AUDIENCE: Final = "acme-index"
"""What examples have in `aud`."""

SHA: Final = "714a629c0b401fdce83e847fc9589983fc6f46bc"
JTI: Final = "5f2f1d2e-0c5b-4c1c-9d0e-8a2f4f1c7b11"

_ISSUED_AT: Final = 1_790_000_000
"""September 2026."""


def facts(defaults: Mapping[str, str], changes: Mapping[str, object]) -> dict[str, str]:
    """What other claims follow from. A change to another type than text has no followers: they keep the default."""
    told = {name: value for name in defaults if isinstance(value := changes.get(name), str)}
    return {**defaults, **told}


def issued_at(changes: Mapping[str, object], otherwise: int = _ISSUED_AT) -> int:
    """The moment (epoch seconds) that the other times follow from: `iat`, where it is told and is one."""
    told = changes.get("iat")
    return int(told) if isinstance(told, int | float) and not isinstance(told, bool) else otherwise


def changed(claims: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """The claims with the changes, and without what is `...`."""
    return {name: value for name, value in {**claims, **changes}.items() if value is not ...}
