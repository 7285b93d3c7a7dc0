"""devpi's tokens, narrowed as devpi-tokens' own library narrows them; and what is refused before that."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import pymacaroons  # type: ignore[import-untyped]  # it has no types
import pytest
from devpi_tokens.restrictions import get_restrictions_from_token  # type: ignore[import-untyped]  # nor has it
from hypothesis import given
from hypothesis import strategies as st

from broker.devpi import DevpiTokens, ParentToken, index_of, token_id
from broker.minting import NOT_NARROWED, MintedToken, Narrowing
from tests.devpi import parent_of
from tests.fakes import NOW, granted, identity, organization, policies, publisher, refused
from tests.test_minting import minted as minted_of_our_own
from tests.test_minting import minter

INDEX = "acme/prod"
PARENT = parent_of("allowed=upload", f"expires={NOW + 3000}", f"indexes={INDEX}")


def tokens(parent: str = PARENT, index: str = INDEX) -> DevpiTokens:
    return DevpiTokens(parent=ParentToken.parse(parent, index), index=index)


def mint(
    *projects: str, by: DevpiTokens | None = None, now: float = NOW, seconds: int = 900, **told: Any
) -> MintedToken:
    owned = policies(organization(publishers=(publisher(to=projects or ("acme-widgets",)),)))
    grant = granted(owned, identity())
    return (by or tokens()).mint(grant, identity(), "github", now=now, lifetime_seconds=seconds, **told)


def macaroon(text: str) -> Any:
    return pymacaroons.Macaroon.deserialize(text.removeprefix("devpi-"))


def restrictions(text: str) -> list[str]:
    return [caveat.caveat_id.decode() for caveat in macaroon(text).caveats]


def test_a_grant_becomes_the_parent_and_four_restrictions() -> None:
    token = mint("acme-widgets", "acme-gadgets")
    assert token.text.startswith("devpi-")
    assert restrictions(token.text) == [
        *restrictions(PARENT),
        "allowed=upload",
        f"expires={NOW + 900}",
        f"indexes={INDEX}",
        "projects=acme-gadgets,acme-widgets",
    ]
    assert (token.expires_at, token.id) == (NOW + 900, token_id(token.text))
    read = get_restrictions_from_token(token.text)
    assert read["projects"][0].value == ["acme-gadgets", "acme-widgets"]


@given(st.lists(st.text(max_size=300), max_size=4), st.lists(st.text(max_size=300), max_size=4))
def test_narrowing_is_what_the_macaroon_library_does_to_the_letter(parents: list[str], added: list[str]) -> None:
    """Whatever the texts, longer than a one-byte length included."""
    parent = parent_of(*(f"projects={one}" for one in parents))
    expected = macaroon(parent)
    for one in added:
        expected.add_first_party_caveat(one)
    assert ParentToken.parse(parent, INDEX).narrow(added) == f"devpi-{expected.serialize()}"


@pytest.mark.parametrize("length", [0, 1, 117, 118, 119, 120, 126, 127, 128, 129, 255, 256, 5000])
def test_a_restriction_may_be_of_any_length(length: int) -> None:
    """Up to 127 bytes, its length is one byte; with `projects=`, that is 118 letters."""
    one = f"projects={'x' * length}"
    parent = parent_of(one)
    expected = macaroon(parent)
    expected.add_first_party_caveat(one)
    assert ParentToken.parse(parent, INDEX).narrow([one]) == f"devpi-{expected.serialize()}"


def test_a_token_is_found_in_the_record_by_its_digest() -> None:
    """As `printf %s "$TOKEN" | sha256sum | cut -c1-32` says it."""
    token = mint()
    assert token.id == hashlib.sha256(token.text.encode()).hexdigest()[:32]


def test_a_token_is_the_same_again_from_its_receipt_which_holds_no_secret() -> None:
    token = mint("acme-widgets")
    assert tokens().repeat(token.receipt, NOW + 899.9) == token
    parent = ParentToken.parse(PARENT, INDEX)
    for secret in (token.text, PARENT, parent.signature.hex(), base64.b64encode(parent.signature).decode()):
        assert secret not in token.receipt
        assert secret not in repr(tokens())
        assert secret not in repr(token)
    assert {"signature", "body", str(parent.body)} & set(repr(parent).replace("=", " ").split()) == set()


@pytest.mark.parametrize(
    ("by", "now"),
    [
        (tokens(), NOW + 900),
        (tokens(parent_of(key="another")), NOW),
        (tokens(parent_of(), "acme/other"), NOW),
    ],
    ids=["its time is over", "another parent", "another index"],
)
def test_a_receipt_is_of_no_use_later_or_elsewhere(by: DevpiTokens, now: float) -> None:
    with refused("replayed-token"):
        by.repeat(mint().receipt, now)


def test_a_receipt_of_the_broker_s_own_tokens_is_none_of_these_and_the_other_way_round() -> None:
    """Whoever switches the mode leaves receipts behind."""
    with refused("replayed-token"):
        tokens().repeat(minted_of_our_own().receipt, NOW)
    with refused("replayed-token"):
        minter().repeat(mint().receipt, NOW)


def test_a_token_does_not_outlive_its_parent() -> None:
    assert mint(now=NOW + 2900).expires_at == NOW + 3000
    assert mint(now=NOW + 2999).expires_at == NOW + 3000
    assert mint(by=tokens(parent_of("expires=never")), seconds=86400).expires_at == NOW + 86400
    for late in (3000, 3000.5, 9999):
        with refused("registry-credential"):
            mint(now=NOW + late)


def test_the_earliest_end_of_the_parent_counts() -> None:
    parent = parent_of("expires=never", f"expires={NOW + 60}", f"expires={NOW + 120}")
    assert mint(by=tokens(parent)).expires_at == NOW + 60


@pytest.mark.parametrize("projects", [("acme-*",), ("acme-widgets", "acme-tools-*")])
def test_a_prefix_is_refused_and_not_left_out(projects: tuple[str, ...]) -> None:
    with refused("prefix-not-expressible") as caught:
        mint(*projects)
    assert projects[-1] in caught.value.detail


@pytest.mark.parametrize(
    "narrowing",
    [Narrowing(version="1.0"), Narrowing(sha256=("0" * 64,)), Narrowing(project="acme-widgets", uses=1)],
)
def test_a_token_that_can_be_narrowed_to_no_release_is_refused_and_not_wider(narrowing: Narrowing) -> None:
    with refused("unsupported-feature"):
        mint(narrowing=narrowing)


def test_a_token_for_one_project_is_given_again_to_who_asks_for_it_again() -> None:
    to_one = Narrowing(project="acme-tools-x")
    token = mint("acme-widgets", "acme-tools-*", narrowing=to_one)
    assert restrictions(token.text)[-1] == "projects=acme-tools-x"
    assert tokens().repeat(token.receipt, NOW, to_one) == token
    for other in (NOT_NARROWED, Narrowing(project="acme-widgets")):
        with refused("replayed-token") as caught:
            tokens().repeat(token.receipt, NOW, other)
        assert "narrowed otherwise" in caught.value.detail


def test_a_receipt_that_does_not_say_when_still_gives_the_token() -> None:
    """Versions that wrote none left such behind."""
    token = mint()
    stored = json.loads(token.receipt)
    del stored["claims"]["iat"]
    again = tokens().repeat(json.dumps(stored), NOW)
    assert (again.text, again.issued_at) == (token.text, 0)


# --- The parent ------------------------------------------------------------------------------------------------------


def test_any_devpi_token_for_uploads_to_the_index_will_do() -> None:
    for parent in (
        parent_of(),
        parent_of().removeprefix("devpi-"),
        parent_of("allowed=pkg_read,upload", "allowed=upload", "indexes=acme/dev, acme/prod", "not_before=1"),
        parent_of(location="https://devpi.acme.example"),
        parent_of("projects=acme=widgets"),
    ):
        assert mint(by=tokens(parent)).text.startswith("devpi-")


WRONG = {
    "nothing": ("", "no devpi token"),
    "a password": ("hunter2-hunter2", "no devpi token"),
    "letters beyond ASCII": ("dévpi-hunter2", "no devpi token"),
    "a JWT": (minted_of_our_own().text, "no devpi token"),
    "an old macaroon": (parent_of(version=pymacaroons.MACAROON_V1), "no devpi token"),
    "cut": (PARENT[:-8], "no devpi token"),
    "cut in a length": ("devpi-" + base64.urlsafe_b64encode(b"\x02\x02").decode(), "no devpi token"),
    "cut in a long length": ("devpi-" + base64.urlsafe_b64encode(b"\x02\x02\x80").decode(), "no devpi token"),
    "a short signature": (
        "devpi-" + base64.urlsafe_b64encode(b"\x02\x02\x0b__token__-a\x00\x00\x06\x01x").decode(),
        "no devpi token",
    ),
    "something behind": (
        "devpi-" + base64.urlsafe_b64encode(base64.urlsafe_b64decode(parent_of()[6:] + "==") + b"\x00").decode(),
        "no devpi token",
    ),
    "of a user in no encoding": (
        "devpi-" + base64.urlsafe_b64encode(b"\x02\x02\x01\xff\x00\x00\x06\x20" + b"x" * 32).decode(),
        "another devpi user",
    ),
    "two signatures": (
        "devpi-"
        + base64.urlsafe_b64encode(base64.urlsafe_b64decode(parent_of()[6:] + "==") + b"\x06\x20" + b"x" * 32).decode(),
        "no devpi token",
    ),
    "broken over two lines": (f"{PARENT[:40]}\n{PARENT[40:]}", "no devpi token"),
    "another user's": (parent_of(user="bob"), "another devpi user"),
    "another user's whose name begins alike": (parent_of(user="__token__-x"), "another devpi user"),
    "nobody's": (parent_of(user=""), "another devpi user"),
    "without an id": (parent_of(identifier="__token__"), "another devpi user"),
    "without an id behind the sign": (parent_of(identifier="__token__-"), "another devpi user"),
    "not for uploads": (parent_of("allowed=upload", "allowed=pkg_read"), "without upload"),
    "for another index": (parent_of("indexes=acme/production,acme/dev"), "without acme/prod"),
    "restricted in JSON": (parent_of('{"version": 1, "permissions": "user"}'), "does not know"),
    "restricted otherwise": (parent_of("color=red"), "does not know"),
    "restricted to nothing": (parent_of("expires"), "does not know"),
    "with an end that cannot be read": (parent_of("expires=12soon"), "expires=12soon"),
    "without an end that can be read": (parent_of("expires=soon"), "expires=soon"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_parent_that_would_make_useless_tokens_is_refused_without_being_quoted(case: str) -> None:
    text, words = WRONG[case]
    with pytest.raises(ValueError, match="it ") as caught:
        ParentToken.parse(text, INDEX)
    assert words in str(caught.value)
    assert not text or text[6:] not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_token_or_a_value_error(raw: bytes) -> None:
    text = base64.urlsafe_b64encode(b"\x02" + raw).decode()
    with pytest.raises(ValueError, match="it "):
        ParentToken.parse(text, INDEX)


# --- The index -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "index"),
    [
        ("https://devpi.acme.example/acme/prod/", "acme/prod"),
        ("http://127.0.0.1:3141/acme/prod", "acme/prod"),
        ("https://acme.example/devpi/acme/prod/", "acme/prod"),
    ],
)
def test_an_index_is_read_from_its_upload_url(url: str, index: str) -> None:
    assert index_of(url) == index


@pytest.mark.parametrize(
    "url",
    [
        "https://devpi.acme.example/",
        "https://devpi.acme.example/acme/",
        "https://devpi.acme.example/acme/prod/+simple/",
        "https://devpi.acme.example/acme,other/prod/",
        "https://devpi.acme.example/acme/prod,dev/",
        "https://devpi.acme.example/acme//",
    ],
)
def test_what_is_no_index_s_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL of a devpi index"):
        index_of(url)


def test_a_receipt_names_its_projects_and_times() -> None:
    """What is read back is what is written: the format is the state's, and outlives a version."""
    stored = json.loads(mint("acme-widgets").receipt)
    assert re.fullmatch("devpi:[0-9a-f]{32}:acme/prod", stored["kid"])
    assert stored["claims"] == {"iat": NOW, "exp": NOW + 900, "projects": ["acme-widgets"]}
