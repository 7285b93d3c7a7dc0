"""A grant becomes a token of devpi's own: the operator's devpi token, narrowed offline. Uploads go to devpi itself.

devpi-tokens makes macaroons: a chain of HMACs in which each restriction signs the one before. Whoever holds a token can
add restrictions, and nobody can take one away. So the broker needs neither a library nor a request to devpi: the same
parent and the same restrictions are the same token, to the letter.

Laws:

- what is minted is the parent and four restrictions: uploads, until a time, to one index, of named projects. devpi
  holds each against the request, and the parent's own too;
- devpi knows projects by name alone: a grant that holds a prefix is refused, and not narrowed to what can be said;
- nothing of the parent is in a repr, a receipt or a refusal.

Sources, read November 2026: devpi_tokens/server.py 1.1.0 (which restrictions, as `key=value`; devpi answers 500 to
others), libmacaroons doc/format.txt (version 2).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from broker import refusals
from broker.minting import NARROWED_OTHERWISE, NOT_NARROWED, MintedToken, Narrowing
from broker.policy.matching import Grant
from broker.policy.model import Scope
from broker.providers import Identity

USER: Final = "__token__"
"""Clients send this name with an upload token, and devpi-tokens compares it with the token's owner."""

_PREFIX: Final = "devpi-"
_VERSION: Final = b"\x02"
_EOS, _IDENTIFIER, _SIGNATURE = 0, 2, 6
_SHAPE: Final = re.compile(rb"\x01?\x02\x00(?:\x02\x00)*\x00\x06")
"""The kinds of a macaroon's fields, in order: location, identifier, restrictions, signature. No third party's."""

_KNOWN: Final = frozenset({"allowed", "expires", "indexes", "not_before", "projects"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentToken:
    """The operator's devpi token: what it may be used for, and how to narrow it."""

    restrictions: tuple[tuple[str, str], ...]
    """Its own, such as ('indexes', 'acme/prod')."""
    expires_at: int | None
    """Epoch seconds; None where it has no end."""
    fingerprint: str
    """Names it, and tells nothing of it."""
    body: bytes = field(repr=False)
    """All but the end of the last section and the signature."""
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str, index: str) -> Self:
        """Reads a token as devpi gave it.

        Args:
            index: What is uploaded to, such as 'acme/prod'.

        Raises:
            ValueError: it is none, or none that uploads to that index; the message says why, without the token.
        """
        fields = _read(text)
        texts = [data.decode(errors="replace") for kind, data in fields if kind == _IDENTIFIER]
        owner, _, token_id = texts[0].rpartition("-")
        if owner != USER or not token_id:
            raise ValueError(f"it is a token of another devpi user than {USER!r}, and clients log in with that name")
        restrictions = tuple(_restriction(text) for text in texts[1:])
        for name, wanted in (("allowed", "upload"), ("indexes", index)):
            for told in (values for key, values in restrictions if key == name):
                if wanted not in (one.strip() for one in told.split(",")):
                    raise ValueError(f"it is restricted to {name}={told}, without {wanted}")
        signature = fields[-1][1]
        return cls(
            restrictions=restrictions,
            expires_at=min(
                (int(told) for key, told in restrictions if key == "expires" and told != "never"), default=None
            ),
            fingerprint=hashlib.sha256(_decode(text)).hexdigest()[:32],
            body=_decode(text)[: -len(signature) - 3],
            signature=signature,
        )

    def narrow(self, restrictions: Iterable[str]) -> str:
        """The token with more restrictions, each as 'key=value'."""
        body, signature = self.body, self.signature
        for restriction in restrictions:
            data = restriction.encode()
            body += bytes([_IDENTIFIER]) + _uvarint(len(data)) + data + bytes([_EOS])
            signature = hmac.digest(signature, data, "sha256")
        whole = body + bytes([_EOS, _SIGNATURE, len(signature)]) + signature
        return _PREFIX + base64.urlsafe_b64encode(whole).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class DevpiTokens:
    """Mints tokens for one index of a devpi-server."""

    parent: ParentToken
    index: str
    """Such as 'acme/prod'."""

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
        """Makes the upload token that a grant earned. It does not outlive the parent.

        Raises:
            UnsupportedFeature: it is to be narrowed to what devpi's tokens cannot say.
            ProjectNotGranted: the project that it is to be narrowed to is not in the grant.
            PrefixNotExpressible: the grant holds more than names.
            RegistryCredential: the parent's own time is over.
        """
        del identity, provider, scope  # devpi asks for no more than what the token says, and it says uploads
        if narrowing != Narrowing(project=narrowing.project):
            raise refusals.UnsupportedFeature("devpi's tokens can be narrowed to a project, and to nothing else")
        granted = narrowing.projects_of(grant)
        prefixes = sorted(str(projects) for projects in granted if projects.is_prefix)
        if prefixes:
            raise refusals.PrefixNotExpressible(f"the grant holds {prefixes[0]!r}, and devpi's tokens know only names")
        expires_at = int(now) + lifetime_seconds
        if self.parent.expires_at is not None:
            expires_at = min(expires_at, self.parent.expires_at)
        if expires_at <= now:
            raise refusals.RegistryCredential("the devpi token that the broker narrows has expired")
        return self._minted(int(now), expires_at, sorted(map(str, granted)), narrowing)

    def repeat(
        self, receipt: str, now: float, narrowing: Narrowing = NOT_NARROWED, scope: Scope = "upload"
    ) -> MintedToken:
        """The same token again.

        Raises:
            ReplayedToken: its time is over, it was no token of this parent's for this index, or narrowed otherwise.
        """
        del scope
        stored = json.loads(receipt)
        if Narrowing.from_claims(stored["claims"]) != narrowing:
            raise refusals.ReplayedToken(NARROWED_OTHERWISE)
        if stored["kid"] != self._key() or now >= stored["claims"]["exp"]:
            raise refusals.ReplayedToken("the identity token was exchanged before, and its upload token has expired")
        told = stored["claims"]
        return self._minted(told.get("iat", 0), told["exp"], told["projects"], narrowing)

    def _minted(self, issued_at: int, expires_at: int, projects: list[str], narrowing: Narrowing) -> MintedToken:
        text = self.parent.narrow(
            ("allowed=upload", f"expires={expires_at}", f"indexes={self.index}", f"projects={','.join(projects)}")
        )
        claims = {"iat": issued_at, "exp": expires_at, "projects": projects, **narrowing.as_claims()}
        return MintedToken(
            text=text,
            id=token_id(text),
            issued_at=issued_at,
            expires_at=expires_at,
            receipt=json.dumps({"kid": self._key(), "claims": claims}),
        )

    def _key(self) -> str:
        # Beside the key ids of `minting.py`, which have neither sign: a receipt of one is none of the other's.
        return f"devpi:{self.parent.fingerprint}:{self.index}"


def token_id(text: str) -> str:
    """What a devpi token is called in the audit record, for it has no room for a name: of its SHA-256, 32 digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def index_of(url: str) -> str:
    """'https://devpi.acme.example/acme/prod/' -> 'acme/prod'.

    Raises:
        ValueError: that is no index's upload URL.
    """
    found = re.fullmatch(r"https?://[^/]+(?:/[^/]+)*?/([^/,]+/[^/,+]+)/?", url)
    if found is None:
        raise ValueError("write the URL of a devpi index, such as https://devpi.acme.example/acme/prod/")
    return found[1]


def _read(text: str) -> list[tuple[int, bytes]]:
    try:
        raw = _decode(text)
        fields = list(_fields(raw)) if raw[:1] == _VERSION else []
    except (IndexError, ValueError) as error:
        raise ValueError("it is no devpi token") from error
    if not _SHAPE.fullmatch(bytes(kind for kind, _ in fields)) or len(fields[-1][1]) != hashlib.sha256().digest_size:
        raise ValueError("it is no devpi token")
    return fields


def _decode(text: str) -> bytes:
    encoded = text.removeprefix(_PREFIX)
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)


def _fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each field; the last one may be cut short.

    Raises:
        IndexError: the bytes end before a field's content.
    Source: libmacaroons, doc/format.txt.
    """
    at = len(_VERSION)
    while at < len(raw):
        kind, at = raw[at], at + 1
        if kind == _EOS:
            yield kind, b""
            continue
        length, shift = 0, 0
        while True:
            digit, at = raw[at], at + 1
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:  # noqa: PLR2004 - the last digit of a varint has its high bit clear
                break
        yield kind, raw[at : at + length]
        at += length


def _uvarint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits to a digit
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def _restriction(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or name not in _KNOWN:
        raise ValueError("it has a restriction that devpi-tokens does not know, and answers with an error")
    if name == "expires" and value != "never" and not re.fullmatch(r"[0-9]{1,12}", value):
        raise ValueError(f"it has a restriction that cannot be read: expires={value[:40]}")
    return name, value
