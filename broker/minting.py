"""A grant becomes a token for uploads or for reads, and back.

A token is a prefix (`pypi-` by default) and a JWT in the manner of RFC 9068 (`typ: at+jwt`), signed with one of the
broker's own Ed25519 keys. It carries what the CI identity was, so that publisher and membership are asked again when it
is used. Its `scope` is one use: an upload token reads nothing, a read token uploads nothing.

What is stored of a token is its *receipt*: the claims, never the signature. Ed25519 is deterministic (RFC 8032), so the
same receipt signed with the same key is the same token, and state holds nothing that anyone could upload with.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import jwt
from pydantic_core import to_json

from broker import refusals
from broker.patterns import Projects
from broker.policy.matching import Grant
from broker.policy.model import SCOPES, Scope
from broker.policy.subjects import subjects_of
from broker.providers import PROVIDERS, Identity
from broker.signing import ALGORITHM, TYPE, SigningKey, SigningKeys, base64url

LONGEST_UPLOAD_TOKEN: Final = 32 * 1024
"""Characters: a bound on what is looked at, several times what the longest claims make."""

_JWS = jwt.PyJWS()
_encode: Callable[[Any], bytes] = to_json
"""As UTF-8: escaped, the longest identity that may be exchanged would make a token too long to be read. Nothing that
UTF-8 cannot hold comes here: claims that cannot be printed were refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """What a client asks its upload token to be good for at most; by default nothing is asked."""

    project: str = ""
    """Normalised; instead of all that the grant covers."""
    version: str = ""
    """Of the one release, in its normal form."""
    sha256: tuple[str, ...] = ()
    """Of the files, hexadecimal in lower case."""
    uses: int = 0
    """How many files; the same file again is not counted again."""

    def as_claims(self) -> dict[str, Any]:
        """What of it was asked for, as an upload token carries it. The project is in `projects`, too."""
        if self is NOT_NARROWED:
            return {}
        told = {"project": self.project, "version": self.version, "sha256": list(self.sha256), "uses": self.uses}
        return {name: value for name, value in told.items() if value}

    def projects_of(self, grant: Grant) -> frozenset[Projects]:
        """What is left of a grant's projects.

        Raises:
            ProjectNotGranted: the one that is asked for is not in the grant.
        """
        if not self.project:
            return grant.projects
        if not grant.covers(self.project):
            raise refusals.ProjectNotGranted(f"the grant does not cover {self.project[:100]!r}")
        return frozenset({Projects(self.project)})

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Self:
        """The reverse, for claims that the broker signed itself."""
        return cls(
            project=claims.get("project", ""),
            version=claims.get("version", ""),
            sha256=tuple(claims.get("sha256", ())),
            uses=claims.get("uses", 0),
        )


NOT_NARROWED: Final = Narrowing()

NARROWED_OTHERWISE: Final = "the identity token was exchanged before, for a token that is narrowed otherwise"


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedToken:
    """An upload token, and what is kept of it."""

    text: str = field(repr=False)
    id: str
    issued_at: int
    expires_at: int
    """Epoch seconds, both."""
    receipt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadToken:
    """What a verified upload token says."""

    id: str
    subject: str
    publishers: tuple[str, ...]
    """Those that earned it; at use, only these count."""
    projects: frozenset[Projects]
    identity: Identity
    issued_at: int
    expires_at: int
    narrowing: Narrowing = NOT_NARROWED
    scope: Scope

    @property
    def subjects(self) -> tuple[str, ...]:
        """All by which it can be revoked with others."""
        return subjects_of(self.id, self.identity, self.publishers)

    def require(self, scope: Scope) -> None:
        """Lets a token pass that is for this use.

        Raises:
            WrongScope
        """
        if self.scope != scope:
            raise refusals.WrongScope(f"the token is for {self.scope!r}, and this asks for {scope!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Minter:
    """Mints and reads the upload tokens of one index.

    Args:
        keys: The broker's, as they are at this moment.
        issuer: The broker's public URL: `iss`.
        audience: The index's upload URL: `aud`.
        prefix: What tokens begin with.
    """

    keys: Callable[[], SigningKeys]
    issuer: str
    audience: str
    prefix: str = "pypi-"

    def mint(
        self,
        grant: Grant,
        identity: Identity,
        provider: str,
        *,
        now: float,
        lifetime_seconds: int,
        narrowing: Narrowing = NOT_NARROWED,
        scope: Scope = "upload",
    ) -> MintedToken:
        """Makes the token that a grant earned, or a narrower one.

        Args:
            scope: What the grant is for.

        Raises:
            ProjectNotGranted: the project that it is to be narrowed to is not in the grant.
        """
        issued_at = int(now)
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": grant.publisher_ids[0],
            "jti": secrets.token_hex(16),  # such as begins with "-" could not be said to `broker revoke token`
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + lifetime_seconds,
            "scope": scope,
            "projects": sorted(map(str, narrowing.projects_of(grant))),
            "publishers": grant.publisher_ids,
            "provider": provider,
            "identity": identity.as_claims(),
            **narrowing.as_claims(),
        }
        return self._sign(claims, self.keys().signing_at(now))

    def repeat(
        self, receipt: str, now: float, narrowing: Narrowing = NOT_NARROWED, scope: Scope = "upload"
    ) -> MintedToken:
        """The same token again.

        Raises:
            ReplayedToken: its time is over, the key that signed it is gone, it was narrowed otherwise, or it is for
                another index or use.
        """
        stored = json.loads(receipt)
        if Narrowing.from_claims(stored["claims"]) != narrowing:
            raise refusals.ReplayedToken(NARROWED_OTHERWISE)
        key = self.keys().find(stored["kid"], now)
        if key is None or now >= stored["claims"]["exp"]:
            raise refusals.ReplayedToken("the identity token was exchanged before, and its upload token has expired")
        if (stored["claims"]["aud"], stored["claims"]["scope"]) != (self.audience, scope):
            raise refusals.ReplayedToken("the identity token was exchanged before, for another index or use")
        return self._sign(stored["claims"], key)

    def read(self, text: str, now: float) -> UploadToken:
        """Verifies an upload token.

        Raises:
            InvalidUploadToken: it is none of ours, or for another index.
            ExpiredUploadToken: its time is over. There is no leeway: the broker compares with its own clock.
        """
        claims = self._verified(text, now)
        if (claims.get("iss"), claims.get("aud")) != (self.issuer, self.audience):
            raise refusals.InvalidUploadToken("the token was minted for another index")
        try:
            token = UploadToken(
                id=claims["jti"],
                subject=claims["sub"],
                publishers=tuple(claims["publishers"]),
                projects=frozenset(map(Projects.parse, claims["projects"])),
                identity=PROVIDERS[claims["provider"]].trust.identity.from_claims(claims["identity"]),
                issued_at=claims["iat"],
                expires_at=claims["exp"],
                narrowing=Narrowing.from_claims(claims),
                scope=_scope(claims["scope"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise refusals.InvalidUploadToken(
                "another version of the broker minted this token: mint a new one"
            ) from error
        if now >= token.expires_at:
            raise refusals.ExpiredUploadToken
        return token

    def _verified(self, text: str, now: float) -> Mapping[str, Any]:
        if not text.startswith(self.prefix) or len(text) > LONGEST_UPLOAD_TOKEN:
            raise refusals.InvalidUploadToken
        compact = text.removeprefix(self.prefix)
        try:
            header = jwt.get_unverified_header(compact)
            key = self.keys().find(header.get("kid"), now) if header.get("typ") == TYPE else None
            claims = json.loads(_JWS.decode(compact, key.private.public_key(), [ALGORITHM])) if key else None
        except Exception as error:  # whatever the libraries raise at hostile text, they did not accept it
            raise refusals.InvalidUploadToken from error
        if not isinstance(claims, dict):
            raise refusals.InvalidUploadToken("none of the broker's keys signed this token")
        return claims

    def _sign(self, claims: Mapping[str, Any], key: SigningKey) -> MintedToken:
        payload = _encode(claims)
        signed = f"{key.header}.{base64url(payload)}"
        return MintedToken(
            text=f"{self.prefix}{signed}.{base64url(key.private.sign(signed.encode()))}",
            id=claims["jti"],
            issued_at=claims["iat"],
            expires_at=claims["exp"],
            receipt=f'{{"kid":"{key.id}","claims":{payload.decode()}}}',
        )


def _scope(text: str) -> Scope:
    """Raises ValueError for what is none."""
    for scope in SCOPES:
        if text == scope:
            return scope
    raise ValueError("it is no scope")
