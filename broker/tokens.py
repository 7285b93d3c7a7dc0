"""From text to trusted claims: `peek` reads what is needed to find a key, `verify` makes the claims trustworthy.

The only way to `Claims` is through `verify`. Rules, each with its own refusal:

- compact JWS of three base64url segments, an object of strict JSON in UTF-8 as header and as payload, no `crit`
  (malformed-token);
- an asymmetric algorithm from the issuer's configuration, a key of that algorithm, a signature that fits
  (invalid-signature);
- `iss` equal to the *configured* issuer (unknown-issuer);
- `aud` one string equal to ours: a list never passes (wrong-audience);
- `exp`, `iat` whole or fractional numbers, `nbf` too where present (missing-claim, invalid-claim, expired-token,
  token-not-yet-valid), and a bound on `exp - iat` (token-lifetime).

PyJWT's algorithms check the signature. Its claim checks are not used: they coerce types, read a clock of their own and
bound no lifetime (ADR 0002).
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from jwt.algorithms import get_default_algorithms
from pydantic_core import from_json, to_json

from broker import refusals

LEEWAY_SECONDS: Final = 30
"""How far the clocks of an issuer and ours may differ. Replays are remembered for as long, and longer: see below."""

REPLAY_MARGIN_SECONDS: Final = 60
"""On top of the leeway, for which a spent token is remembered. Were a token forgotten before `verify` stops taking it,
it could be exchanged twice, as happened elsewhere; so `Claims.replayable_until` is derived from the same constant."""

LONGEST_TOKEN: Final = 16 * 1024
"""Characters. Real identity tokens have 1,000 to 4,000."""

LONGEST_CLAIM: Final = 1024
"""Characters of one text claim."""

ASYMMETRIC: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""What an operator may configure for an issuer: never `none`, never a shared secret."""

UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
"""Ids compare to the letter, so one has one spelling (RFC 9562 section 4 writes them in lower case)."""

_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/...")
"""To plain base64. What stands for those two there must not stand for them here, nor padding: both become what is none.
"""
_SEGMENTS: Final = 3
_LONGEST_PADDING: Final = 2
_NUMBER: Final = (int, float)
_ALGORITHMS = {name: check for name, check in get_default_algorithms().items() if name in ASYMMETRIC}
"""Whatever an issuer's configuration says: with a shared secret, anyone who knows a public key could sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedToken:
    """A token nobody has verified. It says whose key to look for, and nothing else."""

    issuer: str
    key_id: str
    algorithm: str
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """The hash of the signed text: one for each token, whatever padding its signature was sent with."""
        return hashlib.sha256(self.signing_input).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What an issuer signed. Every reader refuses by the claim's name; none coerces."""

    values: Mapping[str, Any] = field(repr=False)
    issued_at: float
    """When the issuer says it was made, in epoch seconds."""
    expires_at: float
    fingerprint: str

    @property
    def replayable_until(self) -> int:
        """Until when (epoch seconds) this token must be remembered once it is spent."""
        return int(self.expires_at) + 1 + LEEWAY_SECONDS + REPLAY_MARGIN_SECONDS

    def text(self, name: str) -> str:
        """A claim that is a non-empty string of printable characters.

        Raises:
            MissingClaim: it is absent, null or empty.
            InvalidClaim: it is of another type, too long, or has characters that cannot be printed.
        """
        value = self.values.get(name)
        if isinstance(value, str) and 0 < len(value) <= LONGEST_CLAIM and value.isprintable():
            return value
        raise _no_text(name, value)

    def optional_text(self, name: str) -> str | None:
        """The same, or None where the claim is absent, null, or the empty string that providers send for "none".

        Raises:
            InvalidClaim: it is of another type, too long, or has characters that cannot be printed.
        """
        value = self.values.get(name)
        return None if value is None or value == "" else self.text(name)

    def text_or_empty(self, name: str) -> str:
        """A claim that is always there, and may be the empty string.

        Raises:
            MissingClaim: it is absent or null.
            InvalidClaim: as `optional_text`.
        """
        if self.values.get(name) is None:
            raise refusals.MissingClaim(f"the identity token has no claim {name!r}")
        return self.optional_text(name) or ""

    def number_text(self, name: str) -> str:
        """A claim that is an immutable id: a string of decimal digits.

        Raises:
            MissingClaim, InvalidClaim: as `text`; also where it is not of digits.
        """
        value = self.values.get(name)
        if isinstance(value, str) and len(value) <= LONGEST_CLAIM and value.isascii() and value.isdigit():
            return value
        raise refusals.InvalidClaim(f"the claim {name!r} must be a string of digits, and is {self.text(name)!r}")

    def uuid_text(self, name: str) -> str:
        """A claim that is an immutable id: a UUID in its one spelling, lower case with hyphens.

        Raises:
            MissingClaim, InvalidClaim: as `text`; also where it is another text.
        """
        value = self.text(name)
        if not is_uuid(value):
            raise refusals.InvalidClaim(f"the claim {name!r} must be a UUID in lower case, and is {value!r}")
        return value

    def flag_text(self, name: str) -> bool | None:
        """A claim that is the string "true" or "false", as GitHub and GitLab send flags; None where absent.

        Raises:
            InvalidClaim: it is anything else, the JSON booleans included.
        """
        value = self.optional_text(name)
        if value not in {None, "true", "false"}:
            raise refusals.InvalidClaim(f"the claim {name!r} must be the string 'true' or 'false', and is {value!r}")
        return None if value is None else value == "true"

    def truth(self, name: str) -> bool:
        """A claim that is a JSON boolean.

        Raises:
            MissingClaim: it is absent or null.
            InvalidClaim: it is of another type, the strings "true" and "false" included.
        """
        value = self.values.get(name)
        if value is None:
            raise refusals.MissingClaim(f"the identity token has no claim {name!r}")
        if not isinstance(value, bool):
            raise refusals.InvalidClaim(f"the claim {name!r} must be true or false, and is {_kind(value)}")
        return value


def is_uuid(text: str) -> bool:
    """Whether this is a UUID in its one spelling."""
    return re.fullmatch(UUID, text) is not None


def peek(text: str) -> UnverifiedToken:
    """Reads whose key to look for.

    Raises:
        MalformedToken: the text is no compact JWS of a JSON object with an `iss`, or its header has a `crit` (RFC 7515
            section 4.1.11: what is critical and not understood must be refused, and we understand none).
    """
    header, claims, signature = _segments(text)
    key_id, algorithm = _read_header(header)
    payload = _json_object(claims, "payload")
    issuer = payload.get("iss")
    if not isinstance(issuer, str):
        raise refusals.MalformedToken("a token's payload names its issuer as `iss`, a string")
    return UnverifiedToken(
        issuer=issuer,
        key_id=key_id,
        algorithm=algorithm,
        signing_input=b"%b.%b" % (header, claims),
        signature=_decode(signature, "signature"),
        payload=payload,
    )


def _segments(text: str) -> list[bytes]:
    """Padding of the signature is let pass and dropped: some libraries send it, and it is no part of what is signed."""
    if len(text) <= LONGEST_TOKEN and text.isascii():
        whole = text.encode()
        unpadded = whole.rstrip(b"=")
        segments = unpadded.split(b".")
        if len(whole) - len(unpadded) <= _LONGEST_PADDING and len(segments) == _SEGMENTS and all(segments):
            return segments
    raise refusals.MalformedToken("a token is three base64url segments with dots between them")


@functools.lru_cache(maxsize=64)  # an issuer's tokens all have the same header, until it rotates its keys
def _read_header(segment: bytes) -> tuple[str, str]:
    header = _json_object(segment, "header")
    key_id, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(key_id, str) or not isinstance(algorithm, str):
        raise refusals.MalformedToken("a token's header names `alg` and `kid`, both strings")
    if "crit" in header or "b64" in header:
        raise refusals.MalformedToken("the token's header has critical extensions, and the broker understands none")
    return key_id, algorithm


def verify(
    token: UnverifiedToken,
    key: jwt.PyJWK,
    *,
    issuer: str,
    audience: str,
    algorithms: Sequence[str],
    longest_seconds: int,
    now: float,
) -> Claims:
    """Makes claims of a token, or refuses it by the rules at the top of this file.

    Args:
        key: The issuer's key of the token's `kid`; it carries the algorithm it is for.
        issuer: The URL of the *configured* issuer. The token's own would be compared with itself.
        algorithms: What the operator trusts this issuer with.
        longest_seconds: The bound on `exp - iat`.
        now: Epoch seconds, read once for the whole exchange.
    """
    _check_signature(token, key, algorithms)
    claims = token.payload
    if claims["iss"] != issuer:
        raise refusals.UnknownIssuer("the token's issuer is not the one it was verified for")
    told = claims.get("aud")
    if told is None:
        raise refusals.MissingClaim("the identity token has no claim 'aud'")
    if told != audience:
        raise refusals.WrongAudience(f"the token's audience must be the string {audience!r}, and nothing beside it")
    expires_at, issued_at = _moment(claims, "exp"), _moment(claims, "iat")
    if now >= expires_at + LEEWAY_SECONDS:
        raise refusals.ExpiredToken
    starts_at = max(issued_at, _moment(claims, "nbf")) if "nbf" in claims else issued_at
    if now < starts_at - LEEWAY_SECONDS:
        raise refusals.TokenNotYetValid
    if not 0 < expires_at - issued_at <= longest_seconds:
        raise refusals.TokenLifetime(f"the token may live {longest_seconds} s, from 'iat' to 'exp'")
    return Claims(values=claims, issued_at=issued_at, expires_at=expires_at, fingerprint=token.fingerprint)


def _check_signature(token: UnverifiedToken, key: jwt.PyJWK, algorithms: Sequence[str]) -> None:
    # The key's own algorithm decides, so that a token cannot choose how it is checked (RFC 8725 section 3.1).
    algorithm = _ALGORITHMS.get(token.algorithm)
    if algorithm is None or token.algorithm not in algorithms or token.algorithm != key.algorithm_name:
        raise refusals.InvalidSignature(f"the issuer does not sign with the algorithm {token.algorithm[:20]!r}")
    try:
        fits = algorithm.verify(token.signing_input, key.key, token.signature)
    except Exception:  # noqa: BLE001 - whatever the libraries raise at hostile bytes, they did not say that it fits
        fits = False
    if not fits:
        raise refusals.InvalidSignature


def _decode(segment: bytes, name: str) -> bytes:
    try:
        decoded = binascii.a2b_base64(segment.translate(_FROM_URL) + b"=" * (-len(segment) % 4), strict_mode=True)
    except ValueError as error:
        raise refusals.MalformedToken(f"the token's {name} is not base64url") from error
    return decoded


def _json_object(segment: bytes, name: str) -> dict[str, Any]:
    text = _decode(segment, name)
    try:
        value = _json(text)
    except (ValueError, RecursionError) as error:
        raise refusals.MalformedToken(f"the token's {name} is not JSON without repeated names") from error
    if not isinstance(value, dict):
        raise refusals.MalformedToken(f"the token's {name} is not a JSON object")
    return value


def _json(text: bytes) -> Any:
    """Strict JSON: in UTF-8 (RFC 7519 section 7.2), and no name twice."""
    try:
        value = from_json(text, allow_inf_nan=False, cache_strings="none")
        # What is written as it was read has no name twice: the value has not. That is how most issuers write, and takes
        # a third of the time.
        if to_json(value) == text:
            return value
    except ValueError:
        pass
    # Decoded here: `json` takes bytes of any UTF, and lone surrogates in them.
    return _JSON.decode(text.decode())


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers of one document must not see different values (RFC 8725 section 3.12 in spirit, RFC 7519 section 4).
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_no_constant)


def _moment(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate (RFC 7519 section 2): a JSON number, and neither `true` nor beyond what a clock shows."""
    value = claims.get(name)
    if value is None:
        raise refusals.MissingClaim(f"the identity token has no claim {name!r}")
    if isinstance(value, bool) or not isinstance(value, _NUMBER) or not 0 < value < 1 << 40:
        raise refusals.InvalidClaim(f"the claim {name!r} must be a number of seconds since 1970")
    return float(value)


def _no_text(name: str, value: object) -> refusals.Refusal:
    if value is None or value == "":
        return refusals.MissingClaim(f"the identity token has no claim {name!r}")
    if not isinstance(value, str):
        return refusals.InvalidClaim(f"the claim {name!r} must be a string, and is {_kind(value)}")
    return refusals.InvalidClaim(f"the claim {name!r} is longer than {LONGEST_CLAIM} characters or not printable")


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "of another type")
