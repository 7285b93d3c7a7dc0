"""The broker's own keys: what their files say, which signs when, and until when each is accepted."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from broker.playground.ci_keys import signing_key
from broker.policy.model import LONGEST_LIFETIME_SECONDS
from broker.signing import (
    CACHED_SECONDS,
    FOR_EVER,
    KEPT_SECONDS,
    LONGEST_TEXT,
    SINCE_EVER,
    SigningKey,
    SigningKeys,
    Standing,
    changes,
    key_set,
    moment,
    parse,
)
from broker.state import REVOCATION_MARGIN_SECONDS

NOW = 1_800_000_000.0
PRIVATE = ed25519.Ed25519PrivateKey.generate()


def pem(private: Any, *, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    told = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    assert isinstance(told, bytes)
    return told


# --- What files say --------------------------------------------------------------------------------------------------


def test_a_broker_without_keys_does_not_start() -> None:
    with pytest.raises(ValueError, match="no signing key"):
        SigningKeys(keys=())


def test_a_keys_id_is_its_thumbprint() -> None:
    """RFC 8037, appendix A.1 and A.3."""
    seed = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    [key] = parse(pem(ed25519.Ed25519PrivateKey.from_private_bytes(seed)))
    assert key.id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert key.public_jwk() == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        "use": "sig",
        "alg": "EdDSA",
    }


@pytest.mark.parametrize(
    ("what", "content"),
    [
        ("nothing", b""),
        ("text", b"secret"),
        ("an RSA key", pem(signing_key("github"))),
        ("an EC key", pem(ec.generate_private_key(ec.SECP256R1()))),
        ("an encrypted key", pem(ed25519.Ed25519PrivateKey.generate(), password=b"secret")),
        (
            "a public key",
            PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ),
        ("a cut key", pem(PRIVATE)[:80]),
        ("a key of an unknown kind", pem(PRIVATE).replace(b"MC4CAQAwBQYDK2Vw", b"MC4CAQAwBQYDK2V/")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_signing_key_is_said_to_be_none(what: str, content: bytes) -> None:
    with pytest.raises(
        ValueError, match=r"^it is (no unencrypted private key in PEM form|not an Ed25519 key)$"
    ) as caught:
        parse(content)
    assert "secret" not in str(caught.value), what


def test_a_keys_id_does_not_depend_on_the_form_of_its_file() -> None:
    [plain], [commented] = parse(pem(PRIVATE)), parse(b"a comment: of 2026\r\n# Signs-From: never\n" + pem(PRIVATE))
    assert plain == commented
    assert (plain.announced_at, plain.signs_from) == (SINCE_EVER, SINCE_EVER)


def test_what_is_written_is_read_back() -> None:
    keys = (SigningKey.new(), SigningKey.new(signs_from=NOW), SigningKey.new(announced_at=NOW, signs_from=NOW + 1))
    assert parse(b"".join(key.text() for key in keys)) == keys
    assert parse(b"\r\n".join(key.text().replace(b"\n", b"\r\n") for key in keys)) == keys
    assert keys[2].text().startswith(b"Announced: 2027-01-15T08:00:00Z\nSigns-From: 2027-01-15T08:00:01Z\n-----BEGIN")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Sign-From: 2026-11-28T05:00:00Z", "'Sign-From' is said of a key, and that can be Announced and Signs-From"),
        ("signs-from: 2026-11-28T05:00:00Z", "'signs-from' is said"),
        ("Signs-From: 2026-11-28T05:00:00Z\nSigns-From: 2026-11-28T05:00:00Z", "'Signs-From' is said"),
        ("Signs-From: 2026-11-28", "a moment is written"),
        ("Signs-From: 2026-11-28T05:00:00+01:00", "a moment is written"),
        ("Signs-From: 2026-02-30T05:00:00Z", "a moment is written"),
        ("Signs-From: \u0662026-11-28T05:00:00Z", "a moment is written"),
        ("Signs-From: soon", "a moment is written"),
        ("Signs-From: \udcff", "a moment is written"),
    ],
)
def test_what_is_said_of_a_key_is_understood_or_refused(said: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        parse(said.encode(errors="surrogateescape") + b"\n" + pem(PRIVATE))


def test_blanks_behind_what_is_said_are_nothing_and_before_it_make_it_a_comment() -> None:
    [key] = parse(b"  Announced: soon\nSigns-From: 2027-01-15T08:00:00Z \t\n" + pem(PRIVATE))
    assert (key.announced_at, key.signs_from) == (SINCE_EVER, NOW)


def test_what_is_said_behind_the_last_key_is_refused() -> None:
    with pytest.raises(ValueError, match="stands before it"):
        parse(pem(PRIVATE) + b"Signs-From: 2026-11-28T05:00:00Z\n")


def test_of_several_keys_none_may_be_cut() -> None:
    with pytest.raises(ValueError, match="no unencrypted private key"):
        parse(pem(PRIVATE) + SigningKey.new().text()[:80])


def test_the_public_keys_may_be_kept_for_five_minutes() -> None:
    assert CACHED_SECONDS == 5 * 60


def test_a_text_has_an_end() -> None:
    assert LONGEST_TEXT == 65_536
    assert parse(pem(PRIVATE).rjust(LONGEST_TEXT, b"\n"))
    with pytest.raises(ValueError, match="bytes"):
        parse(pem(PRIVATE).rjust(LONGEST_TEXT + 1, b"\n"))


# --- Which one signs -------------------------------------------------------------------------------------------------

EVER, FIRST, SECOND, THIRD = (SigningKey.new(signs_from=at) for at in (SINCE_EVER, NOW, NOW + 100, NOW + 200))


def test_the_last_that_has_begun_signs_whatever_the_order_of_the_files() -> None:
    keys = SigningKeys(keys=(THIRD, FIRST, EVER, SECOND))
    signs = [keys.signing_at(NOW + after) for after in (-1, 0, 99, 100, 199, 200, 1e9)]
    assert signs == [EVER, FIRST, FIRST, SECOND, SECOND, THIRD, THIRD]


def test_of_keys_that_say_nothing_the_last_signs() -> None:
    other = SigningKey.new()
    assert SigningKeys(keys=(other, EVER)).signing_at(NOW) == EVER
    assert SigningKeys(keys=(EVER, other)).signing_at(NOW) == other


def test_where_none_has_begun_the_first_signs() -> None:
    keys = SigningKeys(keys=(THIRD, SECOND))
    assert keys.signing_at(NOW) == SECOND
    assert keys.standings(NOW) == {SECOND.id: "signing", THIRD.id: "announced"}


def test_a_key_is_accepted_before_it_signs_and_until_its_last_token_is_over() -> None:
    keys = SigningKeys(keys=(FIRST, SECOND))
    over = SECOND.signs_from + KEPT_SECONDS
    assert keys.find(SECOND.id, NOW - 1e9) == SECOND
    assert keys.find(FIRST.id, over - 1) == FIRST
    assert keys.find(FIRST.id, over) is None
    assert keys.find(SECOND.id, 1e15) == SECOND
    assert (keys.accepted_until(FIRST), keys.accepted_until(SECOND)) == (over, FOR_EVER)
    published = [[key["kid"] for key in key_set(keys, at)["keys"]] for at in (NOW, over - 1, over)]
    assert published == [[FIRST.id, SECOND.id], [FIRST.id, SECOND.id], [SECOND.id]]


def test_a_key_is_kept_as_long_as_a_revocation_is_of_the_longest_token() -> None:
    assert KEPT_SECONDS == LONGEST_LIFETIME_SECONDS + REVOCATION_MARGIN_SECONDS


def test_where_the_next_one_says_nothing_the_one_after_that_ends_both() -> None:
    other = SigningKey.new()
    keys = SigningKeys(keys=(other, EVER))
    assert {keys.accepted_until(key) for key in keys.keys} == {FOR_EVER}
    keys = SigningKeys(keys=(other, EVER, FIRST))
    assert [keys.accepted_until(key) for key in keys.keys] == [NOW + KEPT_SECONDS, NOW + KEPT_SECONDS, FOR_EVER]


@pytest.mark.parametrize("key_id", ["", "x", None, 7, ["x"], {}])
def test_what_names_no_key_finds_none(key_id: object) -> None:
    assert SigningKeys(keys=(EVER, FIRST)).find(key_id, NOW) is None


def test_a_key_stands_once() -> None:
    with pytest.raises(ValueError, match=f"the key {FIRST.id} stands there twice"):
        SigningKeys(keys=(FIRST, SECOND, FIRST))


@pytest.mark.parametrize(
    ("after", "standings"),
    [
        (-1, ("signing", "announced", "announced")),
        (0, ("retiring", "signing", "announced")),
        (100, ("retiring", "retiring", "signing")),
        (KEPT_SECONDS - 1, ("retiring", "retiring", "signing")),
        (KEPT_SECONDS, ("over", "retiring", "signing")),
        (KEPT_SECONDS + 100, ("over", "over", "signing")),
    ],
)
def test_each_key_stands_somewhere(after: int, standings: tuple[Standing, ...]) -> None:
    keys = SigningKeys(keys=(EVER, FIRST, SECOND))
    assert tuple(keys.standings(NOW + after).values()) == standings


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({}, {}, []),
        ({}, {"a": "signing", "b": "announced"}, [("a", "signing"), ("b", "announced")]),
        ({"a": "signing", "b": "announced"}, {"a": "signing", "b": "announced"}, []),
        ({"a": "signing", "b": "announced"}, {"a": "retiring", "b": "signing"}, [("b", "signing")]),
        ({"a": "retiring", "b": "signing"}, {"a": "over", "b": "signing"}, [("a", "removed")]),
        ({"a": "over", "b": "signing"}, {"b": "signing"}, []),
        ({"a": "retiring", "b": "signing"}, {"b": "signing"}, [("a", "removed")]),
        ({"a": "signing"}, {"b": "signing"}, [("b", "signing"), ("a", "removed")]),
        ({"a": "retiring", "b": "signing"}, {"a": "signing"}, [("a", "signing"), ("b", "removed")]),
        ({}, {"a": "over", "b": "retiring", "c": "signing"}, [("c", "signing")]),
    ],
)
def test_what_happened_is_told_once(
    before: dict[str, Standing], after: dict[str, Standing], told: list[tuple[str, str]]
) -> None:
    assert changes(before, after) == told


def test_a_moment_is_written_in_seconds() -> None:
    assert moment(NOW + 0.9) == "2027-01-15T08:00:00Z"


def test_no_key_is_in_a_repr() -> None:
    shown = repr(SigningKeys(keys=(EVER, FIRST)))
    assert "Ed25519PrivateKey" not in shown
    assert shown.count(f"id='{FIRST.id}'") == 1
