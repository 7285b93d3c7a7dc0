"""Each verification rule, broken alone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

from broker import tokens
from broker.playground.claims import AUDIENCE, github_claims
from broker.tokens import LEEWAY_SECONDS, LONGEST_CLAIM, LONGEST_TOKEN, REPLAY_MARGIN_SECONDS
from tests.fakes import (
    CI,
    NOW,
    header_of,
    issuer_key,
    outcome,
    refused,
    segment,
    sign,
    signed,
    trusted,
    verified,
)
from tests.providers.hostile import NO_UUIDS


def claims(**changes: Any) -> dict[str, Any]:
    return github_claims(**{"iat": NOW - 10, **changes})


def outcome_of(text: str, **changes: Any) -> str:
    return outcome(verified, text, **changes)


# --- What is trusted -------------------------------------------------------------------------------------------------


def test_a_good_token_becomes_its_claims() -> None:
    told = claims()
    read = verified(sign(told))
    assert read.values == told
    assert (read.issued_at, read.expires_at) == (NOW - 10, NOW + 290)
    assert read.replayable_until == NOW + 290 + 1 + LEEWAY_SECONDS + REPLAY_MARGIN_SECONDS


def test_peek_says_whose_key_to_look_for() -> None:
    unverified = tokens.peek(sign(claims()))
    assert unverified.issuer == "https://token.actions.githubusercontent.com"
    assert (unverified.key_id, unverified.algorithm) == (CI.key_id("github"), "RS256")


def test_neither_signature_nor_claims_are_in_a_repr() -> None:
    text = sign(claims())
    shown = repr(tokens.peek(text)) + repr(verified(text))
    assert "acme-corp" not in shown
    assert not any(part in shown for part in text.split("."))
    assert "signature" not in shown


def test_the_clock_constants_are_what_the_documentation_says() -> None:
    assert (LEEWAY_SECONDS, REPLAY_MARGIN_SECONDS, LONGEST_TOKEN, LONGEST_CLAIM) == (30, 60, 16384, 1024)


# --- Form ------------------------------------------------------------------------------------------------------------

GOOD = sign(claims())
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


MALFORMED: Mapping[str, str] = {
    "nothing": "",
    "one dot": ".",
    "two dots": "..",
    "three dots": "...",
    "a header": HEADER,
    "no third part": f"{HEADER}.{PAYLOAD}",
    "an empty signature": f"{HEADER}.{PAYLOAD}.",
    "an empty header": f".{PAYLOAD}.{SIGNATURE}",
    "an empty payload": f"{HEADER}..{SIGNATURE}",
    "four parts": f"{GOOD}.{SIGNATURE}",
    "five parts, as encrypted ones have": f"{HEADER}.{PAYLOAD}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",
    "a space before": f" {GOOD}",
    "a line's end behind": f"{GOOD}\n",
    "too much padding": f"{GOOD}===",
    "padding of the header": f"{HEADER}=.{PAYLOAD}.{SIGNATURE}",
    "padding of the payload": f"{HEADER}.{PAYLOAD}=.{SIGNATURE}",
    "base64 that is not for URLs": f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-2]}+/",
    "a space inside": f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-2]} A",
    "padding inside": f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-2]}=A",
    "a signature of six bits": f"{HEADER}.{PAYLOAD}.A",
    "a header of six bits": f"A.{PAYLOAD}.{SIGNATURE}",
    "a payload of six bits": f"{HEADER}.A.{SIGNATURE}",
    "another alphabet": f"{HEADER}.{PAYLOAD}.é",
    "a lone surrogate": f"{HEADER}.{PAYLOAD}.\ud800",
    "an Authorization header": f"Bearer {GOOD}",
    "another prefix": f"pypi-{HEADER}",
    "JSON serialization": json.dumps({"protected": HEADER, "payload": PAYLOAD, "signature": SIGNATURE}),
    "a megabyte of nothing": "x" * 1_000_000,
    "a megabyte of signature": f"{HEADER}.{PAYLOAD}.{'A' * 1_000_000}",
    "a megabyte of token": ".".join(["A" * 400_000] * 3),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_no_compact_jws_is_malformed(what: str) -> None:
    with refused("malformed-token") as caught:
        tokens.peek(MALFORMED[what])
    assert len(caught.value.detail) < 100


def test_a_token_may_be_as_long_as_the_bound_and_no_longer() -> None:
    # One character more than whole groups of four would be no base64.
    signed_texts = (sign(claims(actor="a" * length)).rsplit(".", 1)[0] + "." for length in range(1, 9))
    longest = next(text for text in signed_texts if (LONGEST_TOKEN - len(text)) % 4 == 2).ljust(LONGEST_TOKEN, "A")
    assert outcome(tokens.peek, longest) == "accepted"
    with refused("malformed-token"):
        tokens.peek(longest + "A")


@pytest.mark.parametrize("place", ["header", "payload"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"[]",
        b'"text"',
        b"7",
        b"null",
        b"{",
        b"{}{}",
        b"{'alg':'RS256'}",
        b'{"a":1,}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":01}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        '{"alg":"RS256","kid":"k","iss":"i"}'.encode("utf-16"),
        '{"alg":"RS256","kid":"k","iss":"i"}'.encode("utf-16-le"),
        '{"alg":"RS256","kid":"k","iss":"i"}'.encode("utf-32-be"),
        b"[" * 4500 + b"]" * 4500,
        b"[" * 9000,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_is_no_strict_json_object_is_malformed(place: str, content: bytes) -> None:
    parts: dict[str, bytes | Mapping[str, Any]] = {"header": header_of(), "payload": claims(), place: content}
    with refused("malformed-token") as caught:
        tokens.peek(signed(parts["header"], parts["payload"]))
    assert content == b"" or caught.value.detail.startswith(f"the token's {place} is not ")


def test_a_refusal_says_which_part_is_no_base64() -> None:
    for name, text in {"signature": "A", "payload": "A", "header": "A"}.items():
        told = {"header": HEADER, "payload": PAYLOAD, "signature": SIGNATURE, name: text}
        with refused("malformed-token") as caught:
            tokens.peek(".".join(told.values()))
        assert caught.value.detail == f"the token's {name} is not base64url"


@pytest.mark.parametrize("name", ["iss", "aud", "exp", "repository_id"])
def test_a_claim_that_stands_twice_is_malformed(name: str) -> None:
    told = claims()
    payload = json.dumps(told)[:-1] + f", {json.dumps(name)}: {json.dumps(told[name])}}}"
    with refused("malformed-token"):
        tokens.peek(signed(header_of(), payload.encode()))


def test_deep_json_is_no_crash() -> None:
    deep = b'{"iss":"' + CI.urls["github"].encode() + b'","x":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}"
    assert outcome_of(signed(header_of(), deep)) in {"malformed-token", "missing-claim"}
    deeper = b'{"iss":"i","x":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert outcome_of(signed(header_of(), deeper)) in {"malformed-token", "unknown-issuer"}


def test_whatever_the_header_adds_is_ignored_unless_it_is_critical() -> None:
    assert outcome_of(sign(claims(), typ=..., jku="https://evil.example/keys", x5u="x", cty="JWT")) == "accepted"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": ...},
        {"alg": None},
        {"alg": 256},
        {"alg": ["RS256"]},
        {"kid": ...},
        {"kid": None},
        {"kid": 7},
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": None},
        {"b64": False},
        {"b64": True},
        {"crit": ["b64"], "b64": False},
    ],
    ids=str,
)
def test_a_header_without_names_or_with_extensions_is_malformed(header: dict[str, object]) -> None:
    with refused("malformed-token"):
        tokens.peek(sign(claims(), **header))


@pytest.mark.parametrize("issuer", [..., None, 7, True, ["https://token.actions.githubusercontent.com"], {}])
def test_a_payload_without_a_text_issuer_is_malformed(issuer: object) -> None:
    with refused("malformed-token"):
        tokens.peek(sign(claims(iss=issuer)))


def test_lone_surrogates_are_never_text() -> None:
    """JSON can escape them; nothing that stores or prints text can hold them."""
    told = verified(sign(claims(actor="ali\ud800ce")))
    with refused("invalid-claim") as caught:
        told.text("actor")
    caught.value.detail.encode()
    with refused("unknown-issuer"):
        verified(sign(claims(iss="\udfff")))


# --- Signature -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["", "=", "=="])
def test_padding_of_the_signature_makes_no_second_token(padding: str) -> None:
    assert verified(GOOD + padding).fingerprint == verified(GOOD).fingerprint


def test_spare_bits_of_the_signature_make_no_second_token() -> None:
    """256 bytes are 342 characters, of which the last has four bits that mean nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = GOOD[:-1] + alphabet[alphabet.index(GOOD[-1]) ^ 1]
    assert other != GOOD
    assert outcome_of(other) in {"malformed-token", "accepted"}
    assert tokens.peek(other).fingerprint == tokens.peek(GOOD).fingerprint


def test_the_fingerprint_is_the_hash_of_the_signed_text() -> None:
    expected = hashlib.sha256(f"{HEADER}.{PAYLOAD}".encode()).hexdigest()
    assert tokens.peek(GOOD).fingerprint == verified(GOOD).fingerprint == expected
    assert verified(sign(claims())).fingerprint != expected, "another jti"


ALTERED: Mapping[str, str] = {
    "cut at the end": f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-4]}",
    "cut at the start": f"{HEADER}.{PAYLOAD}.{SIGNATURE[4:]}",
    "longer": f"{HEADER}.{PAYLOAD}.{segment(base64.urlsafe_b64decode(SIGNATURE + '==') + bytes(3))}",
    "three bytes": f"{HEADER}.{PAYLOAD}.AAAA",
    "zeros": f"{HEADER}.{PAYLOAD}.{segment(bytes(256))}",
    "one letter": f"{HEADER}.{PAYLOAD}.{'B' if SIGNATURE[0] == 'A' else 'A'}{SIGNATURE[1:]}",
    "another payload": f"{HEADER}.{segment(claims(actor_id='1002'))}.{SIGNATURE}",
    "another header": f"{segment(header_of(typ='jwt'))}.{PAYLOAD}.{SIGNATURE}",
    "another token's": f"{HEADER}.{PAYLOAD}.{sign(claims()).split('.')[2]}",
}


@pytest.mark.parametrize("what", ALTERED)
def test_a_signature_that_does_not_fit(what: str) -> None:
    with refused("invalid-signature"):
        verified(ALTERED[what])


def test_a_key_of_another_issuer_does_not_fit() -> None:
    with refused("invalid-signature"):
        verified(GOOD, key=issuer_key("gitlab"))
    with refused("invalid-signature"):
        verified(CI.sign(claims(), "gitlab", kid=CI.key_id("github")))


def test_claims_of_a_token_with_a_bad_signature_are_not_looked_at() -> None:
    bad = f"{HEADER}.{segment(claims(aud='else', exp=1, iss='https://evil.example'))}.{SIGNATURE}"
    with refused("invalid-signature"):
        verified(bad)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "rs256", "HS256", "RS512", "PS256", "ES256", "x" * 99]
)
def test_the_token_does_not_choose_its_algorithm(algorithm: str) -> None:
    with refused("invalid-signature") as caught:
        verified(sign(claims(), alg=algorithm))
    assert len(caught.value.detail) < 90


def test_a_shared_secret_never_verifies_whatever_is_configured() -> None:
    """The oldest trick: the public key, which all know, as the secret of an HMAC."""
    public = issuer_key().key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = f"{segment(header_of(alg='HS256'))}.{segment(claims())}"
    hmac = get_default_algorithms()["HS256"]
    forged = f"{text}.{segment(hmac.sign(text.encode(), public))}"
    with refused("invalid-signature"):
        verified(forged)
    with refused("invalid-signature"):
        verified(forged, algorithms=("HS256", "RS256"))
    secret = jwt.PyJWK({"kty": "oct", "k": base64.urlsafe_b64encode(public).decode().rstrip("=")}, "HS256")
    with refused("invalid-signature") as caught:
        verified(forged, algorithms=("HS256",), key=secret)
    assert "'HS256'" in caught.value.detail, "and not for another reason"


def test_no_signature_never_verifies_whatever_is_configured() -> None:
    text = f"{segment(header_of(alg='none'))}.{segment(claims())}.AAAA"
    with refused("invalid-signature"):
        verified(text, algorithms=("none",))


KEYS: Mapping[str, Any] = {
    **dict.fromkeys(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], rsa.generate_private_key(65537, 2048)),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def with_algorithm(algorithm: str) -> tuple[str, jwt.PyJWK]:
    """A token of that algorithm, and the key that verifies it."""
    signer, private = get_default_algorithms()[algorithm], KEYS[algorithm]
    text = f"{segment(header_of(alg=algorithm))}.{segment(claims())}"
    public = type(signer).to_jwk(private.public_key(), as_dict=True)
    return f"{text}.{segment(signer.sign(text.encode(), private))}", jwt.PyJWK(public, algorithm)


@pytest.mark.parametrize("algorithm", KEYS)
def test_each_configured_algorithm_verifies_with_a_key_of_its_own(algorithm: str) -> None:
    text, key = with_algorithm(algorithm)
    assert outcome_of(text, key=key, algorithms=(algorithm,)) == "accepted"
    assert outcome_of(text, key=key, algorithms=("RS256",) if algorithm != "RS256" else ("RS384",)) == (
        "invalid-signature"
    )
    assert outcome_of(f"{text[:-8]}AAAAAAAA", key=key, algorithms=(algorithm,)) == "invalid-signature"


def test_the_list_of_algorithms_is_asymmetric_and_whole() -> None:
    assert sorted(tokens.ASYMMETRIC) == sorted(KEYS)


def test_an_algorithm_that_the_key_is_not_for_is_refused() -> None:
    text, _ = with_algorithm("ES256")
    with refused("invalid-signature"):
        verified(text, algorithms=("RS256", "ES256"))
    text, key = with_algorithm("RS384")
    with refused("invalid-signature"):
        verified(text, algorithms=("RS256", "RS384"), key=jwt.PyJWK(key._jwk_data, "RS256"))


@pytest.mark.parametrize("wrong", ["ES256", "EdDSA"])
def test_a_key_of_another_kind_under_the_algorithm_refuses(wrong: str) -> None:
    """A library that is handed a key of the wrong kind may raise anything at all."""
    _, key = with_algorithm(wrong)
    key.algorithm_name = "RS256"
    assert outcome(verified, GOOD, key=key) == "invalid-signature"


def test_an_ed448_key_is_refused_or_right_but_no_crash() -> None:
    private = ed448.Ed448PrivateKey.generate()
    signer = get_default_algorithms()["EdDSA"]
    public = type(signer).to_jwk(private.public_key(), as_dict=True)
    key = jwt.PyJWK(public, "EdDSA")
    text = f"{segment(header_of(alg='EdDSA'))}.{segment(claims())}"
    assert outcome_of(f"{text}.{segment(private.sign(text.encode()))}", key=key, algorithms=("EdDSA",)) == "accepted"
    assert outcome_of(f"{text}.AAAA", key=key, algorithms=("EdDSA",)) == "invalid-signature"


# --- Issuer and audience ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "issuer",
    [
        "https://token.actions.githubusercontent.com/",
        "https://token.actions.githubusercontent.com/acme",
        "https://TOKEN.actions.githubusercontent.com",
        "http://token.actions.githubusercontent.com",
        "https://gitlab.com",
        "",
    ],
)
def test_the_issuer_equals_the_configured_one(issuer: str) -> None:
    with refused("unknown-issuer"):
        verified(sign(claims(iss=issuer)))


@pytest.mark.parametrize(
    ("audience", "code"),
    [
        (AUDIENCE, "accepted"),
        ([AUDIENCE], "wrong-audience"),
        ([AUDIENCE, "else"], "wrong-audience"),
        ([], "wrong-audience"),
        ({AUDIENCE: AUDIENCE}, "wrong-audience"),
        (AUDIENCE.upper(), "wrong-audience"),
        (AUDIENCE + " ", "wrong-audience"),
        (AUDIENCE[:-1], "wrong-audience"),
        (AUDIENCE + "x", "wrong-audience"),
        (f"{AUDIENCE},else", "wrong-audience"),
        ("", "wrong-audience"),
        ("pypi", "wrong-audience"),
        (7, "wrong-audience"),
        (True, "wrong-audience"),
        (..., "missing-claim"),
        (None, "missing-claim"),
    ],
)
def test_the_audience_is_one_string_equal_to_ours(audience: object, code: str) -> None:
    assert outcome_of(sign(claims(aud=audience))) == code


# --- Time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    ("value", "code"),
    [
        (True, "invalid-claim"),
        (False, "invalid-claim"),
        (str(NOW), "invalid-claim"),
        ("", "invalid-claim"),
        ([NOW], "invalid-claim"),
        ({}, "invalid-claim"),
        (0, "invalid-claim"),
        (-1, "invalid-claim"),
        (-0.5, "invalid-claim"),
        (1 << 40, "invalid-claim"),
        (10**300, "invalid-claim"),
        (None, "missing-claim"),
    ],
)
def test_times_are_numbers_of_a_clock(name: str, value: object, code: str) -> None:
    told = claims()
    told[name] = value
    assert outcome_of(sign(told)) == code


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1e400", "invalid-claim"),
        ("-1e400", "invalid-claim"),
        ("1e12", "accepted or out of time"),
        ("1" + "0" * 4000, "invalid-claim"),
        ("NaN", "malformed-token"),
        ("Infinity", "malformed-token"),
        ("-Infinity", "malformed-token"),
    ],
)
def test_times_beyond_numbers_are_refused(name: str, text: str, code: str) -> None:
    told = claims()
    told[name] = "TIME"
    payload = json.dumps(told).replace('"TIME"', text)
    out_of_time = {"token-lifetime", "token-not-yet-valid"}
    assert outcome_of(signed(header_of(), payload.encode())) in (out_of_time if code.startswith("acc") else {code})


def test_the_last_moment_of_a_clock_is_a_time() -> None:
    """One below the bound is read, and refused for what it means."""
    assert outcome_of(sign(claims(exp=(1 << 40) - 1))) == "token-lifetime"
    assert outcome_of(sign(claims(iat=0.5, exp=1.5))) == "expired-token"


@pytest.mark.parametrize(("name", "code"), [("exp", "missing-claim"), ("iat", "missing-claim"), ("nbf", "accepted")])
def test_when_a_token_began_and_ends_must_be_said(name: str, code: str) -> None:
    told = claims()
    del told[name]
    assert outcome_of(sign(told)) == code


@pytest.mark.parametrize(
    ("since_exp", "code"),
    [
        (-1, "accepted"),
        (0, "accepted"),
        (LEEWAY_SECONDS - 1, "accepted"),
        (LEEWAY_SECONDS - 0.001, "accepted"),
        (LEEWAY_SECONDS, "expired-token"),
        (LEEWAY_SECONDS + 1, "expired-token"),
        (10**9, "expired-token"),
    ],
)
def test_a_token_ends_at_exp_and_the_leeway(since_exp: float, code: str) -> None:
    assert outcome_of(sign(claims(exp=NOW + 100)), now=NOW + 100 + since_exp) == code


@pytest.mark.parametrize("name", ["iat", "nbf"])
@pytest.mark.parametrize(
    ("before", "code"),
    [
        (0, "accepted"),
        (LEEWAY_SECONDS, "accepted"),
        (LEEWAY_SECONDS + 0.001, "token-not-yet-valid"),
        (LEEWAY_SECONDS + 1, "token-not-yet-valid"),
        (10**6, "token-not-yet-valid"),
    ],
)
def test_a_token_begins_at_iat_and_nbf_less_the_leeway(name: str, before: float, code: str) -> None:
    told = claims(iat=NOW - 500, nbf=NOW - 500, exp=NOW + 600)
    told[name] = NOW
    assert outcome_of(sign(told), now=NOW - before) == code


@pytest.mark.parametrize(
    ("lifetime", "code"),
    [
        (-1, "token-lifetime"),
        (0, "token-lifetime"),
        (1, "accepted"),
        (3600, "accepted"),
        (3600.5, "token-lifetime"),
        (3601, "token-lifetime"),
        (10**9, "token-lifetime"),
    ],
)
def test_a_token_lives_no_longer_than_its_issuers_tokens_may(lifetime: float, code: str) -> None:
    assert outcome_of(sign(claims(iat=NOW, exp=NOW + lifetime))) == code


def test_fractions_of_a_second_count() -> None:
    told = claims(exp=NOW + 0.5)
    assert outcome_of(sign(told), now=NOW + LEEWAY_SECONDS + 0.4) == "accepted"
    assert outcome_of(sign(told), now=NOW + LEEWAY_SECONDS + 0.5) == "expired-token"
    assert verified(sign(told)).replayable_until == NOW + 91


# --- Reading claims --------------------------------------------------------------------------------------------------

WRONG_TYPES: Mapping[str, object] = {
    "a number": 1,
    "a fraction": 1.5,
    "true": True,
    "false": False,
    "a list": ["x"],
    "an empty list": [],
    "an object": {"x": "y"},
    "an empty object": {},
}


@pytest.mark.parametrize("value", WRONG_TYPES.values(), ids=WRONG_TYPES)
@pytest.mark.parametrize("reader", ["text", "optional_text", "text_or_empty", "number_text", "uuid_text", "flag_text"])
def test_no_reader_of_text_coerces(reader: str, value: object) -> None:
    with refused("invalid-claim") as caught:
        getattr(trusted({"x": value}), reader)("x")
    assert "'x'" in caught.value.detail


def test_a_refusal_names_the_kind_that_was_sent() -> None:
    kinds = {
        "a boolean": True,
        "a number": 7,
        "a list": [],
        "an object": {},
    }
    for kind, value in {**kinds, "a number ": 1.5}.items():
        with refused("invalid-claim") as caught:
            trusted({"x": value}).text("x")
        assert caught.value.detail.endswith(f"is {kind.strip()}")
    with refused("invalid-claim") as caught:
        trusted({"x": "true"}).truth("x")
    assert caught.value.detail.endswith("is of another type")


@pytest.mark.parametrize(
    ("reader", "absent", "null", "empty"),
    [
        ("text", "missing-claim", "missing-claim", "missing-claim"),
        ("optional_text", "accepted", "accepted", "accepted"),
        ("text_or_empty", "missing-claim", "missing-claim", "accepted"),
        ("number_text", "missing-claim", "missing-claim", "missing-claim"),
        ("uuid_text", "missing-claim", "missing-claim", "missing-claim"),
        ("flag_text", "accepted", "accepted", "accepted"),
        ("truth", "missing-claim", "missing-claim", "invalid-claim"),
    ],
)
def test_absent_null_and_empty(reader: str, absent: str, null: str, empty: str) -> None:
    told = [trusted({}), trusted({"x": None}), trusted({"x": ""})]
    assert [outcome(getattr(one, reader), "x") for one in told] == [absent, null, empty]


def test_optional_claims_that_are_absent_are_none() -> None:
    told = trusted({"null": None, "empty": ""})
    assert [told.optional_text(name) for name in ("null", "empty", "absent")] == [None, None, None]
    assert [told.flag_text(name) for name in ("null", "empty", "absent")] == [None, None, None]
    assert told.text_or_empty("empty") == ""


@pytest.mark.parametrize(
    "text", ["a\x00b", "a\nb", "\r", "\t", "\x1b[31m", "\x7f", "\u202e", "\u2028", "\ud800", "\ufeff"]
)
def test_text_that_cannot_be_printed_is_refused(text: str) -> None:
    with refused("invalid-claim") as caught:
        trusted({"x": text}).text("x")
    assert caught.value.detail.isprintable()


def test_a_text_claim_has_a_length() -> None:
    assert trusted({"x": "a" * LONGEST_CLAIM}).text("x") == "a" * LONGEST_CLAIM
    assert trusted({"x": "7" * LONGEST_CLAIM}).number_text("x") == "7" * LONGEST_CLAIM
    assert trusted({"x": "a"}).text("x") == "a"
    assert outcome(lambda: trusted({"x": "7" * (LONGEST_CLAIM + 1)}).number_text("x")) == "invalid-claim"
    for length in (LONGEST_CLAIM + 1, 1_000_000):
        with refused("invalid-claim") as caught:
            trusted({"x": "a" * length}).text("x")
        assert len(caught.value.detail) < 200


@pytest.mark.parametrize("text", ["0", "1001", "0001001", "9" * 30])
def test_ids_are_digits_as_they_were_signed(text: str) -> None:
    assert trusted({"x": text}).number_text("x") == text


@pytest.mark.parametrize(
    "text", ["١٠٠١", "²", "1 ", " 1", "+1", "-1", "1.0", "1e3", "0x1", "1_000", "1,1", "１", "one"]
)
def test_ids_of_anything_but_ascii_digits_are_refused(text: str) -> None:
    with refused("invalid-claim"):
        trusted({"x": text}).number_text("x")


def test_ids_are_uuids_as_they_were_signed() -> None:
    text = "0184990a-477b-4fa8-9968-496074483ce1"
    assert trusted({"x": text}).uuid_text("x") == text


@pytest.mark.parametrize("text", NO_UUIDS)
def test_ids_have_one_spelling_as_uuids(text: str) -> None:
    with refused("invalid-claim"):
        trusted({"x": text}).uuid_text("x")


@pytest.mark.parametrize(("text", "flag"), [("true", True), ("false", False)])
def test_flags_are_two_strings(text: str, flag: bool) -> None:
    assert trusted({"x": text}).flag_text("x") is flag


@pytest.mark.parametrize("text", ["True", "TRUE", "FALSE", "yes", "no", "1", "0", "null", " true"])
def test_no_other_string_is_a_flag(text: str) -> None:
    with refused("invalid-claim"):
        trusted({"x": text}).flag_text("x")


@pytest.mark.parametrize("flag", [True, False])
def test_truth_is_a_json_boolean(flag: bool) -> None:
    assert trusted({"x": flag}).truth("x") is flag


@pytest.mark.parametrize("value", ["true", "false", "yes", 1, 0, 1.0, [], [True], {}])
def test_nothing_else_is_truth(value: object) -> None:
    with refused("invalid-claim"):
        trusted({"x": value}).truth("x")
