"""The keys of the CI that signs: one for each issuer, made once for each process, and nowhere kept.

Apart from `ci.py`, so that they can be made before the broker's own modules are loaded.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric import rsa


@functools.cache
def signing_key(issuer: str) -> rsa.RSAPrivateKey:
    """The key of the issuer of that name."""
    del issuer
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def public_jwk(issuer: str) -> dict[str, str]:
    """Its public half, as the issuer publishes it."""
    numbers = signing_key(issuer).public_key().public_numbers()
    members = {"e": _integer(numbers.e), "kty": "RSA", "n": _integer(numbers.n)}
    # RFC 7638 section 3: the required members in order, without white space.
    thumbprint = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    return {**members, "kid": base64url(thumbprint), "use": "sig", "alg": "RS256"}


def base64url(data: bytes) -> str:
    """As RFC 7515 section 2 has it: without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _integer(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8))
