"""The broker's own signing keys: which of them signs at a moment, and how long each is still accepted.

A key says from when it signs, in the text before its PEM block:

    Announced: 2026-11-28T05:00:00Z
    Signs-From: 2026-11-28T06:00:00Z
    -----BEGIN PRIVATE KEY-----

Laws:

- every key that is there is published, and accepted, before it signs: replicas and registries learn of it in between;
- of those that have begun, the last one signs, so all replicas that have the same keys change at the same moment;
- a key is accepted until the last token that it may have signed is over (`KEPT_SECONDS` after the next one began), and
  from then on by nobody, whether or not its file is still there.

A key that says nothing signs since ever. Of several such, the last in the order of files does.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_pem

from broker.policy.model import LONGEST_LIFETIME_SECONDS

ALGORITHM: Final = "EdDSA"
TYPE: Final = "at+jwt"

KEPT_SECONDS: Final = LONGEST_LIFETIME_SECONDS + 3660
"""How long a key is accepted after it signed last: as long as a token can live, and a revocation of it is remembered
(`state.REVOCATION_MARGIN_SECONDS`: an upload that began in time may end an hour later, and clocks differ)."""

CACHED_SECONDS: Final = 300
"""How long whoever fetched the public keys may keep them."""

SINCE_EVER: Final = float("-inf")
FOR_EVER: Final = float("inf")

Standing = Literal["announced", "signing", "retiring", "over"]
"""What a key is at a moment: over is one that nobody accepts any more."""
Change = Literal["announced", "signing", "removed"]
"""What can happen to a key."""

LONGEST_TEXT: Final = 64 * 1024
"""Bytes of a file, or a setting, with signing keys."""

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
_FIELD = re.compile(rb"([A-Za-z]+(?:-[A-Za-z]+)*):[ \t]*(\S.*)", re.DOTALL)
"""The rest of the line, whatever is in it."""
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_FIELDS: Final = {b"Announced": "announced_at", b"Signs-From": "signs_from"}
_NONE: Final = (None, SINCE_EVER)
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_NO_KEY: Final = "it is no unencrypted private key in PEM form"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One of the broker's own keys."""

    id: str
    """Its RFC 7638 thumbprint: `kid` of what it signs."""
    private: Ed25519PrivateKey = field(repr=False, compare=False)
    announced_at: float = SINCE_EVER
    """When it was made known, epoch seconds."""
    signs_from: float = SINCE_EVER
    """From when it signs, epoch seconds."""
    header: str = field(init=False)
    """The first segment of all that it signs, always the same."""

    def __post_init__(self) -> None:
        """Writes the header once, and not for each token."""
        header = json.dumps({"alg": ALGORITHM, "kid": self.id, "typ": TYPE}, separators=(",", ":")).encode()
        object.__setattr__(self, "header", base64url(header))

    @classmethod
    def new(cls, *, announced_at: float = SINCE_EVER, signs_from: float = SINCE_EVER) -> SigningKey:
        """Makes one."""
        private = Ed25519PrivateKey.generate()
        return cls(id=_thumbprint(_jwk(private)), private=private, announced_at=announced_at, signs_from=signs_from)

    def public_jwk(self) -> dict[str, str]:
        """The public half, for `/.well-known/jwks.json`."""
        return {**_jwk(self.private), "kid": self.id, "use": "sig", "alg": ALGORITHM}

    def text(self) -> bytes:
        """As a file has it, private half and all."""
        told = {"Announced": self.announced_at, "Signs-From": self.signs_from}
        lines = [f"{name}: {moment(at)}\n" for name, at in told.items() if at != SINCE_EVER]
        return "".join(lines).encode() + self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKeys:
    """The broker's keys, in the order in which they sign."""

    keys: tuple[SigningKey, ...]
    _accepted: Mapping[str, tuple[SigningKey, float]] = field(init=False, repr=False)
    """By their ids, each with the moment until which it is."""

    def __post_init__(self) -> None:
        """Puts them in order.

        Raises:
            ValueError: there is none, or one stands twice.
        """
        if not self.keys:
            raise ValueError("there is no signing key")
        ids = [key.id for key in self.keys]
        if twice := [id_ for number, id_ in enumerate(ids) if id_ in ids[:number]]:
            raise ValueError(f"the key {twice[0]} stands there twice")
        ordered = tuple(sorted(self.keys, key=lambda key: key.signs_from))
        object.__setattr__(self, "keys", ordered)
        accepted: dict[str, tuple[SigningKey, float]] = {}
        stops = FOR_EVER  # from when a later one signs for sure: one that says nothing began at a moment nobody knows
        for key in reversed(ordered):
            accepted[key.id] = key, stops + KEPT_SECONDS
            stops = stops if key.signs_from == SINCE_EVER else key.signs_from
        object.__setattr__(self, "_accepted", accepted)

    def signing_at(self, now: float) -> SigningKey:
        """The key that signs: the last that has begun. Where none has, the first one, for there is no other."""
        for key in reversed(self.keys):
            if key.signs_from <= now:
                return key
        return self.keys[0]

    def find(self, key_id: object, now: float) -> SigningKey | None:
        """The key of that id, if it is still accepted."""
        key, until = self._accepted.get(key_id, _NONE) if isinstance(key_id, str) else _NONE
        return key if now < until else None

    def accepted_until(self, key: SigningKey) -> float:
        """When the last token that a key may have signed is over; `FOR_EVER` where no moment is known."""
        return self._accepted[key.id][1]

    def standing(self, key: SigningKey, now: float) -> Standing:
        """What a key is at a moment."""
        place, signing = self.keys.index(key), self.keys.index(self.signing_at(now))
        if place > signing:
            return "announced"
        if place == signing:
            return "signing"
        return "retiring" if now < self.accepted_until(key) else "over"

    def standings(self, now: float) -> dict[str, Standing]:
        """What each is, by its id."""
        return {key.id: self.standing(key, now) for key in self.keys}


def parse(text: bytes) -> tuple[SigningKey, ...]:
    """Reads unencrypted PKCS 8 PEM blocks, at least one, each with what is said of it in the text before.

    Raises:
        ValueError: something is no Ed25519 key, or what is said is not understood; without any of the text.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"it has more than {LONGEST_TEXT} bytes")
    keys, begins = [], 0
    for block in _BLOCK.finditer(text):
        private, told = _private(block[0]), _told(text[begins : block.start()])
        keys.append(SigningKey(id=_thumbprint(_jwk(private)), private=private, **told))
        begins = block.end()
    rest = text[begins:]
    if not keys or b"-----BEGIN" in rest:
        raise ValueError(_NO_KEY)
    if _told(rest):
        raise ValueError("what is said of a key stands before it, and here it stands behind the last one")
    return tuple(keys)


def changes(before: Mapping[str, Standing], after: Mapping[str, Standing]) -> list[tuple[str, Change]]:
    """What happened to keys in between, by their ids."""
    told: list[tuple[str, Change]] = [
        (id_, standing)
        for id_, standing in after.items()
        if standing in ("announced", "signing") and before.get(id_) != standing
    ]
    gone = [id_ for id_, standing in before.items() if standing != "over" and after.get(id_, "over") == "over"]
    return [*told, *((id_, "removed") for id_ in gone)]


def key_set(keys: SigningKeys, now: float) -> dict[str, Sequence[Mapping[str, str]]]:
    """The public keys of those that are accepted, as a JWK set (RFC 7517 section 5)."""
    return {"keys": [key.public_jwk() for key in keys.keys if now < keys.accepted_until(key)]}


def moment(at: float) -> str:
    """'2026-11-28T05:00:00Z'"""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def base64url(data: bytes) -> str:
    """Without padding, as JOSE has it."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode()


def _private(block: bytes) -> Ed25519PrivateKey:
    try:
        private = load_pem(block, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(_NO_KEY) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError("it is not an Ed25519 key")  # noqa: TRY004 - a wrong file, not a wrong type
    return private


def _told(text: bytes) -> dict[str, float]:
    """What the lines say. Any other text is a comment, as RFC 7468 has it, if it does not look like a field."""
    told: dict[str, float] = {}
    for line in text.splitlines():
        found = _FIELD.match(line.rstrip())
        if found is None:
            continue
        name = _FIELDS.get(found[1])
        if name is None or name in told:
            known = " and ".join(one.decode() for one in _FIELDS)
            raise ValueError(f"{found[1].decode()[:40]!r} is said of a key, and that can be {known}, each once")
        told[name] = _epoch(found[2].decode(errors="replace"))
    return told


def _epoch(text: str) -> float:
    try:
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text).timestamp()
    except ValueError:  # such as a 30th of February
        pass
    raise ValueError("a moment is written 2026-11-28T05:00:00Z")


def _jwk(private: Ed25519PrivateKey) -> dict[str, str]:
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"crv": "Ed25519", "kty": "OKP", "x": base64url(raw)}


def _thumbprint(jwk: Mapping[str, str]) -> str:
    """RFC 7638 section 3: the required members in order, without white space."""
    return base64url(hashlib.sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()).digest())
