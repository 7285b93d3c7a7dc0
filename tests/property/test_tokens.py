"""Laws of tokens."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.minting import Minter
from broker.playground.claims import github_claims
from broker.refusals import Refusal
from broker.signing import SigningKey, SigningKeys
from broker.tokens import Claims, peek
from tests.fakes import NOW, header_of, outcome, refused, segment, sign, trusted, verified
from tests.property.strategies import json_values

segments = st.text("AZaz09-_=", max_size=12)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")) | st.lists(segments).map(".".join))
def test_peek_refuses_or_reads_whatever_it_is_given(text: str) -> None:
    with contextlib.suppress(Refusal):
        peek(text)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=8))
def test_peek_refuses_or_reads_any_bytes_in_base64(header: bytes, payload: bytes, signature: bytes) -> None:
    with contextlib.suppress(Refusal):
        peek(f"{segment(header)}.{segment(payload)}.{segment(signature)}")


@given(json_values, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_however_an_issuer_writes_its_claims_they_are_read_as_they_are(
    value: Any, separators: Any, escaped: bool
) -> None:
    told = {"iss": "i", "x": value}
    text = json.dumps(told, separators=separators, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    with contextlib.suppress(Refusal):
        read = peek(f"{segment(header_of())}.{segment(text)}.AAAA").payload
        assert (repr(read), read) == (repr(json.loads(text.decode())), told)


@given(json_values, json_values, st.sampled_from([(",", ":"), (", ", ": ")]))
def test_a_name_that_stands_twice_is_refused_however_deep(first: Any, second: Any, separators: Any) -> None:
    comma, colon = separators
    one, other = (json.dumps(value, separators=separators) for value in (first, second))
    text = f'{{"iss"{colon}"i"{comma}"x"{colon}[{{"y"{colon}{one}{comma}"y"{colon}{other}}}]}}'
    with refused("malformed-token"):
        peek(f"{segment(header_of())}.{segment(text.encode())}.AAAA")


@given(st.dictionaries(st.sampled_from(["alg", "kid", "crit", "x"]), json_values), json_values)
def test_verify_refuses_or_accepts_any_json(header: dict[str, Any], claims: Any) -> None:
    told = claims if isinstance(claims, dict) else {"iss": claims, "aud": claims, "exp": claims}
    with contextlib.suppress(Refusal):
        verified(f"{segment(header_of(**header))}.{segment({**github_claims(iat=NOW), **told})}.AAAA")


@given(st.sampled_from(["iss", "aud", "exp", "iat", "nbf"]), json_values)
def test_a_signed_claim_of_any_value_is_refused_or_right(name: str, value: Any) -> None:
    told = {**github_claims(iat=NOW), name: value}
    with contextlib.suppress(Refusal):
        assert verified(sign(told)).values == told


@given(st.sampled_from(["text", "optional_text", "text_or_empty", "number_text", "flag_text", "truth"]), json_values)
def test_readers_refuse_or_give_what_was_signed(reader: str, value: Any) -> None:
    with contextlib.suppress(Refusal):
        read = getattr(trusted({"x": value}), reader)("x")
        expected = json.loads(value) if reader == "flag_text" and isinstance(value, str) and value else value
        assert read == (None if expected == "" and reader in {"optional_text", "flag_text"} else expected)


moments = st.integers(NOW - 4000, NOW + 4000) | st.floats(NOW - 4000.0, NOW + 4000.0)


@given(issued=moments, ends=moments, now=moments)
def test_a_token_is_remembered_for_as_long_as_it_passes(issued: float, ends: float, now: float) -> None:
    """Were it forgotten a moment before, it could be exchanged twice."""
    try:
        claims: Claims = verified(sign(github_claims() | {"iat": issued, "nbf": issued, "exp": ends}), now=now)
    except Refusal:
        return
    assert now < claims.replayable_until


@given(ends=st.integers(NOW, NOW + 3000) | st.floats(NOW, NOW + 3000.0), margin=st.floats(0, 31, exclude_min=True))
def test_the_last_moment_at_which_a_token_passes_is_remembered(ends: float, margin: float) -> None:
    told = github_claims() | {"iat": NOW - 100, "nbf": NOW - 100, "exp": ends}
    assert verified(sign(told), now=ends).replayable_until > ends + 30
    with contextlib.suppress(Refusal):
        assert verified(sign(told), now=ends + margin).replayable_until > ends + margin + 30


@given(st.sampled_from(["", "=", "=="]))
def test_padding_makes_no_second_fingerprint(padding: str) -> None:
    text = sign(github_claims(iat=NOW))
    assert peek(text + padding).fingerprint == peek(text).fingerprint


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_different_payloads_have_different_fingerprints(one: str, other: str) -> None:
    claims = github_claims(iat=NOW)
    first, second = (peek(sign({**claims, "actor": actor})).fingerprint for actor in (one, other))
    assert (first == second) == (one == other)


KEYS = SigningKeys(keys=(SigningKey.new(),))
MINTER = Minter(
    keys=lambda: KEYS,
    issuer="https://upload.acme.example",
    audience="https://upload.acme.example/legacy/",
)

upload_segments = segments | json_values.map(lambda value: segment(json.dumps(value).encode()))


@given(st.text() | st.lists(upload_segments, max_size=4).map(".".join))
def test_what_is_no_upload_token_is_refused(text: str) -> None:
    for told in (text, f"pypi-{text}", f"pypi-{KEYS.keys[0].header}.{text}"):
        assert outcome(MINTER.read, told, NOW) == "invalid-upload-token"
