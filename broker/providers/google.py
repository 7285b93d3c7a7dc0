"""Google: service accounts of Google Cloud, as Cloud Build, Compute and others run them.

Claims: https://developers.google.com/identity/openid-connect/openid-connect (read 2026-11). There is no `jti`. `sub` is
the account's immutable id; `email` is a name that a new account can take. The actor is the account: a machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from broker import refusals
from broker.providers import examples
from broker.providers.base import (
    HUMAN,
    DecimalId,
    Identity,
    Impossible,
    Kind,
    Provider,
    Rule,
    Text,
    Trust,
    exact,
    folded,
)
from broker.tokens import Claims


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleIdentity(Identity):
    """A service account."""

    email: str
    account_id: str
    authorized_party: str | None

    lookup: ClassVar[str] = "email"
    owner: ClassVar[str] = "account_id"
    source: ClassVar[str] = "account_id"


class GoogleTrust(Trust):
    """A publisher that is a Google service account."""

    email: Text = Field(description="The service account's address.", pattern=r"^[^@\s]+@[^@\s]+$")
    account_id: DecimalId | None = Field(default=None, description="The account's unique id: the token's `sub`.")

    identity: ClassVar[type[Identity]] = GoogleIdentity
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("email", "email", Kind.NAME, folded),
        Rule("account_id", "account_id", Kind.ID, exact),
    )
    itself: ClassVar[str | None] = "account_id"
    never: ClassVar[tuple[Impossible, ...]] = (HUMAN,)


def read(claims: Claims, issuer: str, url: str) -> GoogleIdentity:
    """Reads a service account's claims.

    Raises:
        MissingClaim, InvalidClaim: a claim is absent, of a wrong type, or the address is not verified.
    """
    del url
    if not claims.truth("email_verified"):
        raise refusals.InvalidClaim("the claim 'email_verified' must be true")
    account = claims.number_text("sub")
    email = claims.text("email")
    return GoogleIdentity(
        issuer=issuer,
        subject=account,
        actor_id=account,
        actor_name=email,
        unattended=True,
        run=account,
        email=email,
        account_id=account,
        authorized_party=claims.optional_text("azp"),
    )


def example(changes: Mapping[str, object]) -> dict[str, Any]:
    """The release bot of acme, a service account. Changes: see `examples.py`."""
    account = examples.facts({"sub": "112233445566778899"}, changes)["sub"]
    issued_at = examples.issued_at(changes)
    claims: dict[str, Any] = {
        "iss": PROVIDER.issuer,
        "aud": examples.AUDIENCE,
        "azp": account,
        "sub": account,
        "email": "release-bot@acme-builds.iam.gserviceaccount.com",
        "email_verified": True,
        "iat": issued_at,
        "exp": issued_at + 3600,
    }
    return examples.changed(claims, changes)


PROVIDER = Provider(
    name="google",
    issuer="https://accounts.google.com",
    trust=GoogleTrust,
    read=read,
    example=example,
    longest_token_seconds=3600 + 60,
)
