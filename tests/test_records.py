"""Queries admit what they ask for and nothing else, and owners see nothing of another organization."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import refusals
from broker.records import FILTERS, KNOWN, LONGEST_VALUE, MOST_CONDITIONS, Query, parse, seen_by_owner


def body(**fields: Any) -> str:
    return json.dumps({"version": 1, "at": "2026-11-28T02:00:00.500+00:00", "organization": "acme", **fields})


FULL = body(
    kind="mint",
    decision="refused",
    code="no-publisher",
    issuer="github",
    attempt="019aa1c2f3d4-8f2c61d0a9",
    token_id="jti-1",
    filename="acme_widgets-1.0-py3-none-any.whl",
    sha256="0123456789abcdef" * 4,
    publishers=["acme/release"],
    considered=["acme/nightly: ref is 'a: b', expected 'c'"],
    project="acme-widgets",
    projects=["acme-gadgets", "acme-tools-*"],
    members=["acme/alice"],
    identity={"actor_id": "1001", "actor_name": "alice-gh"},
    caller={"token": "0123456789abcdef", "name": "exports", "role": "owner"},
)


@pytest.mark.parametrize(
    ("name", "text", "known"),
    [("kind", "Mint", "mint, upload, download"), ("kind", "min", "policies"), ("decision", "yes", "allowed, refused")],
)
def test_what_no_record_can_have_is_told_so(name: str, text: str, known: str) -> None:
    with pytest.raises(refusals.InvalidQuery, match=known):
        Query.parse("acme", [(name, text)])


@pytest.mark.parametrize(
    ("name", "fitting", "others"),
    [
        ("kind", ["mint"], ["upload"]),
        ("decision", ["refused"], ["allowed"]),
        ("code", ["no-publisher"], ["no-publishers"]),
        ("issuer", ["github"], ["gitlab"]),
        ("attempt", ["019aa1c2f3d4-8f2c61d0a9"], ["019aa1c2f3d4"]),
        ("token_id", ["jti-1"], ["jti-2"]),
        ("filename", ["acme_widgets-1.0-py3-none-any.whl"], ["acme_widgets-1.0", "Acme_widgets-1.0-py3-none-any.whl"]),
        ("sha256", ["0123456789abcdef" * 4, "0123456789ABCDEF" * 4], ["f123456789abcdef" * 4]),
        ("publisher", ["acme/release", "acme/nightly"], ["release", "acme", "acme/nightly: ref is 'a"]),
        ("project", ["acme-widgets", "Acme_Gadgets", "acme-tools-x"], ["acme", "acme-tools", "acme-tool", "acme-x"]),
        ("member", ["acme/alice"], ["alice", "acme/bob"]),
        ("actor", ["1001", "alice-gh"], ["1002", "github"]),
        ("caller", ["0123456789abcdef"], ["exports"]),
    ],
)
def test_each_filter_admits_what_it_names(name: str, fitting: list[str], others: list[str]) -> None:
    for text in fitting:
        assert Query.parse("acme", [(name, text)]).admits("acme", FULL), text
        assert not Query.parse("acme", [(name, text)]).admits("acme", body()), text
    for text in others:
        assert not Query.parse("acme", [(name, text)]).admits("acme", FULL), text
    assert Query.parse("acme", [(name, others[0]), (name, fitting[0])]).admits("acme", FULL), "any of them"
    assert not Query.parse("acme", [(name, fitting[0]), ("until", "2000-01-01T00:00:00Z")]).admits("acme", FULL), "all"


def test_every_filter_is_tried_above() -> None:
    tried = {row[0] for row in test_each_filter_admits_what_it_names.pytestmark[0].args[1]}  # type: ignore[attr-defined]
    assert tried == set(FILTERS)


@pytest.mark.parametrize(
    ("asked", "admitted"),
    [
        ([("since", "2026-11-28T02:00:00.5Z")], True),
        ([("since", "2026-11-28T02:00:00.500001Z")], False),
        ([("since", "2026-11-28t03:00:00+01:00"), ("until", "2026-11-28T02:00:01Z")], True),
        ([("until", "2026-11-28T02:00:00.500Z")], False),
        ([("until", "2026-11-28T02:00:00.500001z")], True),
    ],
)
def test_since_is_in_and_until_is_out(asked: list[tuple[str, str]], admitted: bool) -> None:
    assert Query.parse(None, asked).admits("acme", FULL) is admitted


@pytest.mark.parametrize(
    "asked",
    [
        [("kinds", "mint")],
        [("organization", "zenith")],
        [("kind", "")],
        [("kind", "x" * (LONGEST_VALUE + 1))],
        [("kind", str(number)) for number in range(MOST_CONDITIONS + 1)],
        [("project", "a b")],
        [("sha256", "0123456789abcdef" * 3)],
        [("sha256", "g" * 64)],
        [("since", "2026-11-28")],
        [("since", "2026-11-28T02:00:00")],
        [("since", "2026-11-28T02:00:00 01:00")],
        [("since", "2026-13-28T02:00:00Z")],
        [("since", "2026-11-28T02:00:00.1234567Z")],
        [("until", "2026-11-28T02:00:00Z"), ("until", "2026-11-28T02:00:00Z")],
        [("\r\nSet-Cookie: x", "1")],
    ],
)
def test_what_is_no_filter_is_refused_and_never_passed_over(asked: list[tuple[str, str]]) -> None:
    with pytest.raises(refusals.InvalidQuery) as caught:
        Query.parse("acme", asked)
    assert caught.value.detail.isprintable()


def test_another_organization_s_record_is_never_admitted() -> None:
    assert not Query.parse("acme", []).admits("zenith", FULL)
    assert not Query.parse("acme", []).admits("", FULL)
    assert Query.parse(None, []).admits("zenith", FULL)


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "null", "1", "[" * 100_000, body(at=1), body(at="x"), body(at="2026-11-28T02:00:00")],
)
def test_what_somebody_made_of_a_record_is_told_to_who_asks_for_all_and_fits_no_filter(text: str) -> None:
    assert Query.parse("acme", []).admits("acme", text)
    assert not Query.parse("acme", [("code", "x")]).admits("acme", text)
    assert not Query.parse("acme", [("since", "2000-01-01T00:00:00Z")]).admits("acme", text)


@pytest.mark.parametrize("value", [1, None, {}, [1], [["x"]], "x"])
def test_fields_of_wrong_types_fit_nothing(value: object) -> None:
    for name in FILTERS:
        fields = ("publishers", "considered", "projects", "members", "identity", "caller", "project", "kind", "code")
        text = body(**dict.fromkeys(fields, value))
        assert not Query.parse("acme", [(name, KNOWN.get(name, ["y"])[0] if name != "sha256" else "a" * 64)]).admits(
            "acme", text
        )


def test_a_record_with_lone_surrogates_is_read() -> None:
    assert parse('{"issuer":"\\ud800","code":"x"}') == {"issuer": "\ud800", "code": "x"}


def test_a_query_is_told_from_any_other() -> None:
    queries = [
        Query.parse(organization, asked)
        for organization in (None, "", "acme", "zenith")
        for asked in (
            [],
            [("kind", "mint")],
            [("kind", "upload")],
            [("kind", "mint"), ("kind", "upload")],
            [("code", "mint")],
            [("since", "2026-11-28T02:00:00Z")],
            [("until", "2026-11-28T02:00:00Z")],
        )
    ]
    assert len({query.fingerprint for query in queries}) == len(queries)
    turned = [("kind", "upload"), ("code", "x"), ("kind", "mint")]
    assert Query.parse("acme", turned).fingerprint == Query.parse("acme", turned[::-1]).fingerprint


def test_an_owner_sees_the_exact_text_of_what_is_the_organization_s_own() -> None:
    for text in (FULL, " " + FULL, "no JSON"):
        assert seen_by_owner("acme", text) == (text, ())


def test_an_owner_sees_nothing_of_another_organization() -> None:
    text = body(
        code="no-publisher",
        detail="no publisher fits; zenith's secret",
        expected="zenith/x: environment is 'a', expected 'secret'",
        considered=["acme/release: matches", "zenith/x: environment is 'a', expected 'secret'"],
        publishers=["zenith/x"],
        members=["acme/alice"],
        projects=["acme-widgets", "zenith-secret"],
        identity={"actor_name": "alice"},
    )
    seen, withheld = seen_by_owner("acme", text)
    assert "zenith" not in seen
    assert "secret" not in seen
    assert set(withheld) == {"considered", "publishers", "projects", "expected", "detail"}
    told = json.loads(seen)
    assert told["considered"] == ["acme/release: matches"]
    assert "publishers" not in told
    assert (told["members"], told["identity"], told["code"]) == (
        ["acme/alice"],
        {"actor_name": "alice"},
        "no-publisher",
    )


def test_an_owner_sees_the_own_projects_of_what_several_have_a_record_of_and_not_what_it_was_narrowed_to() -> None:
    text = body(
        shared_with=1,
        publishers=["acme/release", "zenith/x"],
        projects=["acme-widgets"],
        narrowed_to={"project": "zenith-secret"},
        nonce="ab" * 16,
    )
    seen, withheld = seen_by_owner("acme", text)
    assert set(withheld) == {"publishers", "narrowed_to", "nonce"}
    assert "nonce" not in json.loads(seen), "with it, names could be tried until the digest of the whole fits"
    told = json.loads(seen)
    assert (told["shared_with"], told["publishers"], told["projects"]) == (1, ["acme/release"], ["acme-widgets"])
    assert "zenith" not in seen


# --- Against a list that is looked through one by one -----------------------------------------------------------------

KINDS = ["mint", "upload", "api"]
CODES = ["", "no-publisher", "replayed-token"]
PROJECTS = ["acme-a", "acme-b"]
facts = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "code": st.sampled_from(CODES),
        "project": st.sampled_from(PROJECTS),
        "second": st.integers(0, 9),
    }
)


@given(
    st.lists(st.tuples(st.sampled_from(["acme", "zenith", ""]), facts), max_size=12),
    st.sampled_from([None, "acme", "zenith"]),
    st.fixed_dictionaries(
        {
            "kind": st.lists(st.sampled_from(KINDS), max_size=2),
            "code": st.lists(st.sampled_from(CODES[1:]), max_size=2),
            "project": st.lists(st.sampled_from(PROJECTS), max_size=1),
        }
    ),
    st.fixed_dictionaries({}, optional={"since": st.integers(0, 9), "until": st.integers(0, 9)}),
)
def test_a_query_admits_what_all_of_its_conditions_say(
    records: list[tuple[str, dict[str, Any]]],
    organization: str | None,
    values: dict[str, list[str]],
    moments: dict[str, int],
) -> None:
    def at(second: int) -> str:
        return datetime(2026, 11, 28, 2, 0, second, tzinfo=UTC).isoformat(timespec="milliseconds")

    asked = [(name, one) for name, some in values.items() for one in some]
    asked += [(name, at(second)) for name, second in moments.items()]
    query = Query.parse(organization, asked)
    for whose, told in records:
        expected = (
            (organization is None or whose == organization)
            and all(not some or told[name] in some for name, some in values.items())
            and moments.get("since", 0) <= told["second"] < moments.get("until", 10)
        )
        text = json.dumps({**told, "at": at(told["second"]), "organization": whose})
        assert query.admits(whose, text) is expected
