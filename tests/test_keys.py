"""What of an issuer's key set is taken, and which addresses are asked: entry by entry, and nothing on trust."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from broker import keys
from broker.keys import FetchError
from broker.policy.model import Issuer
from broker.providers import PROVIDERS


def issuer(url: str = "https://gitlab.acme.example") -> Issuer:
    return Issuer(name="gitlab", url=url, provider=PROVIDERS["gitlab"], longest_token_seconds=3600)


def jwk(bits: int = 2048, **changes: object) -> dict[str, Any]:
    """A key that is taken, with changes; `...` leaves a member out."""
    numbers = generate_private_key(65537, bits).public_key().public_numbers()
    members = {"kty": "RSA", "kid": "k", "use": "sig", "alg": "RS256", "n": _number(numbers.n), "e": _number(numbers.e)}
    return {name: value for name, value in {**members, **changes}.items() if value is not ...}


def _number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "entry", [jwk(), jwk(use=...), jwk(alg=...), jwk(key_ops=["verify"])], ids=["whole", "no use", "no alg", "verify"]
)
def test_a_key_that_verifies_is_taken(entry: dict[str, Any]) -> None:
    assert list(keys._parse({"keys": [entry]}, ("RS256",))) == ["k"]


@pytest.mark.parametrize(
    "entry",
    [
        jwk(use="enc"),
        jwk(key_ops=["encrypt"]),
        jwk(key_ops="verify"),
        jwk(alg="RS512"),
        jwk(alg="HS256"),
        jwk(bits=1024),
        jwk(kid=...),
        jwk(kid=7),
        jwk(n="!"),
        {"kid": "k", "kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {"kid": "k", "kty": "EC"},
        "k",
    ],
)
def test_an_odd_entry_is_left_out_and_takes_no_other_with_it(entry: object) -> None:
    other = jwk(kid="other")
    assert list(keys._parse({"keys": [entry, other]}, ("RS256",))) == ["other"]
    with pytest.raises(FetchError):
        keys._parse({"keys": [entry]}, ("RS256",))


@pytest.mark.parametrize("document", [{}, {"keys": {}}, {"keys": None}, {"keys": [jwk()] * (keys.MOST_KEYS + 1)}])
def test_a_set_that_is_none_or_endless_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(FetchError):
        keys._parse(document, ("RS256",))


@pytest.mark.parametrize(
    ("address", "of", "may"),
    [
        ("https://keys.elsewhere.example/jwks", "https://gitlab.acme.example", True),
        ("http://gitlab.acme.example/jwks", "https://gitlab.acme.example", False),
        ("https:///jwks", "https://gitlab.acme.example", False),
        ("http://[", "https://gitlab.acme.example", False),
        ("file:///etc/passwd", "https://gitlab.acme.example", False),
        ("http://127.0.0.1:1/jwks", "http://127.0.0.1:1", True),
        ("http://127.0.0.1:2/jwks", "http://127.0.0.1:1", False),
    ],
)
def test_keys_are_asked_for_over_https_or_where_the_issuer_itself_is(address: str, of: str, may: bool) -> None:
    assert keys._may_be_asked(address, issuer(of)) is may
