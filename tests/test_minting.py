"""Upload tokens: minted, read back, given again, and nobody else's taken for one."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)
from jwt.algorithms import get_default_algorithms

from broker.minting import (
    LONGEST_UPLOAD_TOKEN,
    NOT_NARROWED,
    MintedToken,
    Minter,
    Narrowing,
)
from broker.playground.claims import github_claims
from broker.policy.matching import Grant
from broker.policy.model import LONGEST_LIFETIME_SECONDS, Scope
from broker.policy.subjects import subjects_of
from broker.providers import Identity
from broker.signing import KEPT_SECONDS, SigningKey, SigningKeys, key_set
from broker.tokens import LONGEST_TOKEN
from tests.fakes import (
    CI,
    KINDS,
    NOW,
    granted,
    header_of,
    identity,
    organization,
    outcome,
    policies,
    projects,
    publisher,
    refused,
    segment,
    signed,
    trust,
    verified,
)

ISSUER, INDEX = "https://upload.acme.example", "https://upload.acme.example/legacy/"


def new_key() -> SigningKey:
    return SigningKey.new()


OLD, KEY, STRANGER = new_key(), new_key(), new_key()


def minter(*keys: SigningKey, **changes: str) -> Minter:
    told: dict[str, Any] = {"issuer": ISSUER, "audience": INDEX, **changes}
    return Minter(keys=lambda: SigningKeys(keys=keys or (OLD, KEY)), **told)


def minted(by: Minter | None = None, who: Identity | None = None, *, now: float = NOW, **told: Any) -> MintedToken:
    who = who or identity()
    fields = {"grant": granted(policies(), identity()), "provider": "github", "lifetime_seconds": 900, **told}
    return (by or minter()).mint(identity=who, now=now, **fields)


def parts(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = text.removeprefix("pypi-").split(".")
    first, second = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, payload))
    return first, second


def forged(header: dict[str, Any], claims: Any, key: SigningKey = KEY) -> str:
    """Any header and claims (or bytes), with the broker's own good signature."""
    told = {name: value for name, value in header.items() if value is not ...}
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    text = f"{segment(told)}.{segment(payload)}"
    return f"pypi-{text}.{segment(key.private.sign(text.encode()))}"


# --- Minting and reading ---------------------------------------------------------------------------------------------


def test_an_upload_token_says_what_the_contract_says() -> None:
    who = identity()
    token = minted(who=who, now=NOW + 0.9)
    header, claims = parts(token.text)
    assert header == {"alg": "EdDSA", "typ": "at+jwt", "kid": KEY.id}
    assert claims.pop("jti") == token.id
    assert claims == {
        "iss": ISSUER,
        "aud": INDEX,
        "sub": "acme/widgets-release",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 900,
        "scope": "upload",
        "projects": ["acme-widgets"],
        "publishers": ["acme/widgets-release"],
        "provider": "github",
        "identity": who.as_claims(),
    }
    assert token.expires_at == NOW + 900
    assert token.text.startswith("pypi-")


def test_what_was_minted_is_read_back() -> None:
    who = identity()
    token = minted(who=who)
    read = minter().read(token.text, NOW)
    assert (read.id, read.subject, read.expires_at) == (token.id, "acme/widgets-release", NOW + 900)
    assert (read.publishers, read.projects) == (("acme/widgets-release",), projects("acme-widgets"))
    assert read.identity == who
    assert read.subjects == subjects_of(token.id, who, ("acme/widgets-release",))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_identity_is_read_back(kind: Any) -> None:
    who = identity(kind)
    assert minter().read(minted(who=who, provider=kind).text, NOW).identity == who


def test_a_grant_of_many_is_read_back() -> None:
    many = (publisher("a", to=("acme-z", "acme-*")), publisher("b", to=("acme-b",)))
    grant: Grant = granted(policies(organization(publishers=many)), identity())
    token = minted(grant=grant)
    read = minter().read(token.text, NOW)
    assert read.projects == grant.projects
    assert (read.subject, read.publishers) == ("acme/a", ("acme/a", "acme/b"))
    assert parts(token.text)[1]["projects"] == ["acme-*", "acme-b", "acme-z"]


def test_no_two_tokens_are_alike() -> None:
    tokens = [minted() for _ in range(100)]
    assert len({token.id for token in tokens}) == len({token.text for token in tokens}) == 100
    assert {len(token.id) for token in tokens} == {32}, "128 bits"


@pytest.mark.parametrize("letter", ["a", "é", "漢", "🚀"])
def test_the_longest_identity_that_passes_makes_a_token_that_passes(letter: str) -> None:
    """What a mint answers, an upload must take, in whatever script the claims were written."""
    long: dict[str, Any] = {"sub": letter * 1024, "environment": letter * 1024, "actor": letter * 400}
    claims = github_claims(iat=NOW, **long)
    text = signed(header_of(), json.dumps(claims, ensure_ascii=False).encode())
    if letter == "🚀":
        assert LONGEST_TOKEN - 1500 < len(text) < LONGEST_TOKEN
    assert verified(text).values == claims
    who = identity(**long)
    token = minted(who=who)
    assert minter().read(token.text, NOW).identity == who
    assert minter().repeat(token.receipt, NOW).text == token.text


# --- Refusing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "code"),
    [
        (-1, "accepted"),
        (0, "accepted"),
        (899.999, "accepted"),
        (900, "expired-upload-token"),
        (10**6, "expired-upload-token"),
    ],
)
def test_an_upload_token_ends_at_exp_and_has_no_leeway(since: float, code: str) -> None:
    text = minted().text
    assert outcome(minter().read, text, NOW + since) == code


@pytest.mark.parametrize(
    "other",
    [
        {"issuer": "https://other.example"},
        {"audience": "https://upload.acme.example/other/"},
        {"audience": INDEX[:-1]},
        {"prefix": "acme-"},
        {"prefix": "pypi-x"},
    ],
    ids=str,
)
def test_a_token_of_another_index_is_none(other: dict[str, str]) -> None:
    with refused("invalid-upload-token"):
        minter().read(minted(minter(**other)).text, NOW)
    with refused("invalid-upload-token"):
        minter(**other).read(minted().text, NOW)


def test_a_token_that_another_key_signed_is_none() -> None:
    with refused("invalid-upload-token"):
        minter().read(minted(minter(STRANGER)).text, NOW)
    header, claims = parts(minted().text)
    with refused("invalid-upload-token"):
        minter().read(forged(header, claims, STRANGER), NOW)
    with refused("invalid-upload-token"):
        minter().read(forged({**header, "kid": OLD.id}, claims, KEY), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"typ": "JWT"},
        {"typ": ...},
        {"typ": "AT+JWT"},
        {"typ": None},
        {"kid": ...},
        {"kid": None},
        {"kid": 7},
        {"kid": ["x"]},
        {"kid": ""},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS256"},
        {"alg": ...},
        {"crit": ["exp"]},
        {"b64": False},
    ],
    ids=str,
)
def test_a_header_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    header, claims = parts(minted().text)
    assert minter().read(forged(header, claims), NOW).subject == "acme/widgets-release"
    with refused("invalid-upload-token"):
        minter().read(forged({**header, **changes}, claims), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": ...},
        {"iss": ISSUER + "/"},
        {"aud": ...},
        {"aud": [INDEX]},
        {"scope": ...},
        {"scope": "write"},
        {"scope": ["read"]},
        {"scope": "upload read"},
        {"jti": ...},
        {"sub": ...},
        {"exp": ...},
        {"publishers": ...},
        {"publishers": 7},
        {"projects": ...},
        {"projects": ["*"]},
        {"projects": [""]},
        {"projects": [7]},
        {"provider": ...},
        {"provider": "else"},
        {"provider": "gitlab"},
        {"provider": []},
        {"identity": ...},
        {"identity": {}},
        {"identity": {"issuer": "github"}},
        {"identity": "alice"},
    ],
    ids=str,
)
def test_claims_of_another_version_are_refused_and_crash_nothing(changes: dict[str, Any]) -> None:
    header, claims = parts(minted().text)
    told = {name: value for name, value in {**claims, **changes}.items() if value is not ...}
    with refused("invalid-upload-token"):
        minter().read(forged(header, told), NOW)


def test_an_identity_with_a_field_more_is_of_another_version() -> None:
    header, claims = parts(minted().text)
    with refused("invalid-upload-token") as caught:
        minter().read(forged(header, {**claims, "identity": {**claims["identity"], "more": "x"}}), NOW)
    assert "mint a new one" in caught.value.detail


@pytest.mark.parametrize(
    "claims", [[], "text", 7, None, True, b"", b"{", b"\xff", b"[" * 9000], ids=lambda claims: repr(claims)[:9]
)
def test_a_payload_that_is_no_object_is_refused(claims: Any) -> None:
    with refused("invalid-upload-token"):
        minter().read(forged(parts(minted().text)[0], claims), NOW)


TEXT = minted().text
BARE = TEXT.removeprefix("pypi-")
START, _, SIGNATURE = TEXT.rpartition(".")

NO_TOKENS = {
    "nothing": "",
    "the prefix": "pypi-",
    "dots": "pypi-..",
    "no prefix": BARE,
    "the prefix twice": f"pypi-{TEXT}",
    "another prefix": f"PYPI-{BARE}",
    "a space before": f" {TEXT}",
    "a space behind": f"{TEXT} ",
    "cut": TEXT[:-4],
    "no signature": f"{START}.",
    "two parts": START,
    "zeros": f"{START}.{segment(bytes(64))}",
    "one letter": f"{START}.{'B' if SIGNATURE[0] == 'A' else 'A'}{SIGNATURE[1:]}",
    "no ASCII": f"{TEXT}é",
    "a lone surrogate": f"{TEXT}\ud800",
    "a real token of PyPI's": "pypi-AgEIcHlwaS5vcmc" + "A" * 160,
    "a megabyte": "pypi-" + "A" * 1_000_000,
    "a megabyte of parts": "pypi-" + ".".join(["A" * 400_000] * 3),
    "deep JSON": "pypi-" + segment(b"[" * 10_000) + ".e30.AAAA",
    "an identity token": CI.token("github", iat=NOW),
    "an identity token with the prefix": "pypi-" + CI.token("github", iat=NOW),
}


@pytest.mark.parametrize("what", NO_TOKENS)
def test_what_is_no_upload_token_is_refused(what: str) -> None:
    with refused("invalid-upload-token") as caught:
        minter().read(NO_TOKENS[what], NOW)
    assert NO_TOKENS[what][5:] not in caught.value.detail or not NO_TOKENS[what][5:]


def test_a_token_may_be_as_long_as_the_bound_and_no_longer() -> None:
    assert LONGEST_UPLOAD_TOKEN == 32768
    header, claims = parts(TEXT)
    for length in range(LONGEST_UPLOAD_TOKEN):
        text = forged(header, {**claims, "x": "x" * (LONGEST_UPLOAD_TOKEN * 3 // 4 - 1400 + length)})
        if len(text) >= LONGEST_UPLOAD_TOKEN:
            break
        last = text
    assert minter().read(last, NOW).subject == "acme/widgets-release"
    assert LONGEST_UPLOAD_TOKEN - len(last) < 4
    if len(text) == LONGEST_UPLOAD_TOKEN:
        assert minter().read(text, NOW).subject == "acme/widgets-release"
        text = forged(header, {**claims, "x": "x" * (LONGEST_UPLOAD_TOKEN * 3 // 4 - 1400 + length + 3)})
    with refused("invalid-upload-token"):
        minter().read(text, NOW)


def test_a_shared_secret_never_verifies() -> None:
    """The public key, which all know, as the secret of an HMAC."""
    public = KEY.private.public_key()
    header, claims = parts(TEXT)
    text = f"{segment({**header, 'alg': 'HS256'})}.{segment(claims)}"
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.Raw, PublicFormat.Raw),
    ):
        signature = get_default_algorithms()["HS256"].sign(text.encode(), secret)
        with refused("invalid-upload-token"):
            minter().read(f"pypi-{text}.{segment(signature)}", NOW)


def test_an_upload_token_is_no_identity_token() -> None:
    key = jwt.PyJWK({**KEY.public_jwk()}, "EdDSA")
    with refused("invalid-signature"):
        verified(BARE, key=key)
    with refused("unknown-issuer"):
        verified(BARE, key=key, algorithms=("EdDSA",))


# --- The same token again --------------------------------------------------------------------------------------------


def test_a_receipt_gives_the_same_token_again() -> None:
    token = minted()
    again = minter().repeat(token.receipt, NOW + 899)
    assert again == token
    assert again.text == token.text


def test_a_receipt_gives_nothing_once_the_token_has_expired() -> None:
    token = minted()
    assert minter().repeat(token.receipt, NOW + 899.999).text == token.text
    with refused("replayed-token"):
        minter().repeat(token.receipt, NOW + 900)


def test_a_receipt_gives_nothing_once_its_key_is_gone() -> None:
    token = minted(minter(OLD))
    assert minter(OLD, KEY).repeat(token.receipt, NOW).text == token.text
    with refused("replayed-token"):
        minter(KEY).repeat(token.receipt, NOW)


def test_a_receipt_gives_nothing_at_another_index_or_for_another_use() -> None:
    token, reads = minted(), minted(scope="read")
    with refused("replayed-token"):
        minter(audience="https://upload.acme.example/team-a/legacy/").repeat(token.receipt, NOW)
    with refused("replayed-token"):
        minter().repeat(token.receipt, NOW, scope="read")
    with refused("replayed-token"):
        minter().repeat(reads.receipt, NOW)
    assert minter().repeat(reads.receipt, NOW, scope="read").text == reads.text


@pytest.mark.parametrize(("scope", "other"), [("upload", "read"), ("read", "upload")])
def test_a_token_is_for_one_use(scope: Scope, other: Scope) -> None:
    token = minter().read(minted(scope=scope).text, NOW)
    assert token.scope == scope
    token.require(scope)
    with refused("wrong-scope"):
        token.require(other)


def test_with_a_receipt_alone_nobody_can_upload() -> None:
    token = minted()
    assert token.text.rpartition(".")[2] not in token.receipt
    assert not any(part in token.receipt for part in token.text.removeprefix("pypi-").split("."))
    assert json.loads(token.receipt) == {"kid": KEY.id, "claims": parts(token.text)[1]}


# --- Signing keys ----------------------------------------------------------------------------------------------------


def test_the_last_key_signs_and_all_verify() -> None:
    before, after = minted(minter(OLD)), minted(minter(OLD, KEY))
    assert parts(before.text)[0]["kid"] == OLD.id
    assert parts(after.text)[0]["kid"] == KEY.id
    assert minter(OLD, KEY).read(before.text, NOW).id == before.id
    assert minter(KEY, OLD).read(after.text, NOW).id == after.id
    with refused("invalid-upload-token"):
        minter(KEY).read(before.text, NOW)


def test_the_key_set_is_public_and_verifies_what_was_minted() -> None:
    published = json.loads(json.dumps(key_set(SigningKeys(keys=(OLD, KEY)), NOW)))
    assert [key["kid"] for key in published["keys"]] == [OLD.id, KEY.id]
    assert all("d" not in key for key in published["keys"])
    claims = jwt.decode(
        BARE,
        jwt.PyJWKSet.from_dict(published)[KEY.id],
        algorithms=["EdDSA"],
        audience=INDEX,
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )
    assert claims["sub"] == "acme/widgets-release"


def test_a_key_signs_from_its_moment_and_is_accepted_until_its_last_token_is_over() -> None:
    next_key = SigningKey.new(announced_at=NOW, signs_from=NOW + 600)
    told = minter(OLD, next_key)
    assert parts(minted(told, now=NOW + 599).text)[0]["kid"] == OLD.id
    assert parts(minted(told, now=NOW + 600).text)[0]["kid"] == next_key.id
    last = minted(told, now=NOW + 599, lifetime_seconds=LONGEST_LIFETIME_SECONDS)
    assert told.read(last.text, last.expires_at - 1).id == last.id
    assert told.repeat(last.receipt, last.expires_at - 1).text == last.text
    with refused("expired-upload-token"):
        told.read(last.text, NOW + 599 + KEPT_SECONDS)
    with refused("invalid-upload-token"):
        told.read(last.text, NOW + 600 + KEPT_SECONDS)


def test_the_keys_are_asked_for_each_time() -> None:
    keys = [SigningKeys(keys=(OLD,))]
    told = Minter(keys=lambda: keys[0], issuer=ISSUER, audience=INDEX)
    before = minted(told)
    keys[0] = SigningKeys(keys=(KEY,))
    assert parts(minted(told).text)[0]["kid"] == KEY.id
    with refused("invalid-upload-token"):
        told.read(before.text, NOW)
    with refused("replayed-token"):
        told.repeat(before.receipt, NOW)


def test_neither_keys_nor_tokens_are_in_a_repr() -> None:
    token, by = minted(), minter()
    shown = repr(token) + repr(by) + repr(by.read(token.text, NOW)) + str(by)
    assert not any(part in shown for part in token.text.split("."))
    assert "Ed25519PrivateKey" not in shown
    assert "private" not in shown


def test_pinned_publishers_mint_like_the_others() -> None:
    pinned = publisher(trusts=trust(pin="first-use", repository_id=..., repository_owner_id=...))
    grant = granted(policies(organization(publishers=(pinned,))), identity())
    assert minter().read(minted(grant=grant).text, NOW).publishers == ("acme/widgets-release",)


# --- Narrowed --------------------------------------------------------------------------------------------------------

TO_A_FILE = Narrowing(project="acme-widgets", version="1.0", sha256=("0" * 64, "1" * 64), uses=2)


def test_a_token_that_was_narrowed_says_so_and_is_read_back_so() -> None:
    token = minted(narrowing=TO_A_FILE)
    _, claims = parts(token.text)
    told = {name: claims[name] for name in ("project", "version", "sha256", "uses", "projects")}
    assert told == {
        "project": "acme-widgets",
        "version": "1.0",
        "sha256": ["0" * 64, "1" * 64],
        "uses": 2,
        "projects": ["acme-widgets"],
    }
    assert minter().read(token.text, NOW).narrowing == TO_A_FILE


def test_a_token_that_was_not_says_nothing_of_it() -> None:
    token = minted()
    assert not {"project", "version", "sha256", "uses"} & parts(token.text)[1].keys()
    assert minter().read(token.text, NOW).narrowing == NOT_NARROWED == Narrowing()


def test_one_project_of_a_prefix_can_be_asked_for_and_none_beside_the_grant() -> None:
    grant = granted(policies(organization(publishers=(publisher(to=("acme-tools-*", "acme-widgets")),))), identity())
    token = minted(grant=grant, narrowing=Narrowing(project="acme-tools-x"))
    assert minter().read(token.text, NOW).projects == projects("acme-tools-x")
    with refused("project-not-granted") as caught:
        minted(grant=grant, narrowing=Narrowing(project="acme-tools"))
    assert caught.value.detail == "the grant does not cover 'acme-tools'"


@pytest.mark.parametrize(
    "other", [NOT_NARROWED, replace(TO_A_FILE, uses=3), replace(TO_A_FILE, sha256=("0" * 64,)), Narrowing(uses=2)]
)
def test_the_same_token_again_is_for_who_asks_the_same_again(other: Narrowing) -> None:
    token = minted(narrowing=TO_A_FILE)
    assert minter().repeat(token.receipt, NOW, TO_A_FILE) == token
    with refused("replayed-token") as caught:
        minter().repeat(token.receipt, NOW, other)
    assert caught.value.detail == "the identity token was exchanged before, for a token that is narrowed otherwise"
