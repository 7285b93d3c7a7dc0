"""API tokens: what a registry, an owner or an operator shows to the broker's own API. Made by `broker tokens new`.

An API token is `broker_`, its id and a secret of 256 bits. State holds a hash of the secret alone, and a plain one is
enough: nobody guesses such a secret, whatever a hash costs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final, Literal, Self, get_args

from broker.policy.shapes import is_name

PREFIX: Final = "broker_"

Role = Literal["registry", "owner", "operator"]
"""`registry` may introspect and revoke upload tokens; `owner` works for one organization, `operator` for the whole
index.
"""

ROLES: Final[tuple[Role, ...]] = get_args(Role)

_FORM = re.compile(PREFIX + r"([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """What is kept of an API token."""

    id: str
    name: str
    """For people: what it is used by."""
    role: str
    digest: str
    """SHA-256 of the secret, hexadecimal."""
    created_at: int
    expires_at: int
    """Epoch seconds."""
    organization: str = ""
    """The one that an owner's token is for; empty is the whole index, which is never an owner's."""

    @classmethod
    def make(cls, name: str, role: str, *, now: float, seconds: int, organization: str = "") -> tuple[str, Self]:
        """A new token: its text, shown once and never kept, and what is kept of it.

        Raises:
            ValueError: the name or the role is none, it would have no time to live, or its role and its organization
                do not go together.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(
                "a name has letters, digits, spaces and . _ -, at most 63, and begins with one of the first two"
            )
        if role not in ROLES:
            raise ValueError(f"a role is one of {', '.join(ROLES)}")
        if role == "owner" and not is_name(organization):
            raise ValueError("a token of the role owner is for one organization: name it, as the policies do")
        if role != "owner" and organization:
            raise ValueError(
                f"a token of the role {role} is for the whole index: name no organization, or take the role owner"
            )
        if seconds < 1:
            raise ValueError("a token lives for a second at least")
        token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        kept = cls(
            id=token_id,
            name=name,
            role=role,
            digest=_digest(secret),
            created_at=int(now),
            expires_at=int(now) + seconds,
            organization=organization,
        )
        return f"{PREFIX}{token_id}_{secret}", kept

    def is_opened_by(self, shown: ShownToken) -> bool:
        """Whether the shown text is this token, whose time may be over."""
        return hmac.compare_digest(self.digest, _digest(shown.secret)) and self.id == shown.id

    def is_over(self, now: float) -> bool:
        """Whether its time is."""
        return now >= self.expires_at


@dataclass(frozen=True, slots=True)
class ShownToken:
    """What a caller shows: nobody has compared it with anything."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"<ShownToken {self.id}>"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Takes a text apart; None where it has not the form of an API token."""
        parts = _FORM.fullmatch(text)
        return None if parts is None else cls(parts[1], parts[2])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
