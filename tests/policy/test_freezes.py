"""`freezes` in either kind of file: when they hold, and what is no freeze."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from broker.policy.model import Freeze
from tests.policy.example import ACME, FILES, INDEX, write

FILE = "organizations/acme.yaml"
LINE = ACME.count("\n") + 1


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def freezes(folder: Path, *, own: str = "", operator: str = "", of: str = "acme") -> tuple[Freeze, ...]:
    """What an organization's are, with these entries in its file and in the index."""
    files = dict(FILES)
    if own:
        files[FILE] = f"{ACME}freezes: [{own}]\n"
    if operator:
        files["index.yaml"] = f"{INDEX}freezes: [{operator}]\n"
    return load(write(folder, files)).organizations[of].freezes


@pytest.mark.parametrize(
    ("times", "begins", "ends"),
    [
        ("", -math.inf, math.inf),
        ("from: 2026-12-20, ", at("2026-12-20"), math.inf),
        ("until: 2027-01-02, ", -math.inf, at("2027-01-03")),
        ("from: 2026-12-20, until: 2027-01-02, ", at("2026-12-20"), at("2027-01-03")),
        ("from: 2026-12-20, until: 2026-12-20, ", at("2026-12-20"), at("2026-12-21")),
        ("from: 2026-12-31, until: 2026-12-31, ", at("2026-12-31"), at("2027-01-01")),
        ("from: 2026-12-20T18:30:15Z, ", at("2026-12-20T18:30:15"), math.inf),
        ("until: 2026-12-20T18:00:00+01:00, ", -math.inf, at("2026-12-20T17:00:00")),
        ('until: "2026-12-20T18:00:00-05:30", ', -math.inf, at("2026-12-20T23:30:00")),
        ("from: 2026-12-20, until: 2026-12-20T00:00:01Z, ", at("2026-12-20"), at("2026-12-20T00:00:01")),
        ("from: 2000-01-01, until: 2999-12-31, ", at("2000-01-01"), at("2999-12-31") + 86400),
    ],
)
def test_days_count_whole_in_utc_and_moments_to_the_second(
    tmp_path: Path, times: str, begins: float, ends: float
) -> None:
    (freeze,) = freezes(tmp_path, own=f"{{{times}reason: year end}}")
    assert freeze == Freeze(reason="year end", begins=begins, ends=ends)


def test_the_operator_freezes_all_or_some(tmp_path: Path) -> None:
    both = '{reason: all}, {reason: "one", organizations: [globex], until: 2027-01-02}'
    everybody = Freeze(reason="all", by_operator=True)
    one = Freeze(reason="one", by_operator=True, ends=at("2027-01-03"))
    assert freezes(tmp_path, operator=both) == (everybody,)
    assert freezes(tmp_path, operator=both, of="globex") == (everybody, one)
    assert freezes(tmp_path, own="{reason: own}", operator=both) == (Freeze(reason="own"), everybody)


def test_nobody_is_frozen_where_nothing_is_said(tmp_path: Path) -> None:
    assert freezes(tmp_path) == ()


@pytest.mark.parametrize(
    ("entry", "path", "what", "remedy"),
    [
        ("{until: 2027-01-02}", "freezes[0].reason", "is missing", "Say why"),
        ('{reason: ""}', "freezes[0].reason", "must not be empty", "Say why"),
        (f"{{reason: {'x' * 201}}}", "freezes[0].reason", "longer than 200", "Say why"),
        ("{reason: true}", "freezes[0].reason", "must be text", '"true"'),
        ("{reason: x, untill: 2027-01-02}", "freezes[0].untill", "is no field here", "'until'"),
        ("{reason: x, form: 2027-01-02}", "freezes[0].form", "is no field here", "'from'"),
        ("{reason: x, from_: 2027-01-02}", "freezes[0].from_", "is no field here", "'from'"),
        ("{reason: x, organizations: [acme]}", "freezes[0].organizations", "is no field here", "reason"),
        ("{reason: x, until: soon}", "freezes[0].until", "not the right form: the text 'soon'", "2026-12-20T18"),
        ("{reason: x, until: 7}", "freezes[0].until", "not the right form: a number (7)", "2026-12-20T18"),
        ("{reason: x, until: true}", "freezes[0].until", "not the right form: a boolean", "2026-12-20T18"),
        ("{reason: x, until: [2027-01-02]}", "freezes[0].until", "not the right form: a list", "2026-12-20T18"),
        ('{reason: x, until: "2027-01-02"}', "freezes[0].until", "not the right form: the text", "2026-12-20T18"),
        ("{reason: x, until: 2027-02-30}", "freezes[0].until", "not the right form: the text", "2026-12-20T18"),
        ("{reason: x, until: 2027-01-02T18:00:00}", "freezes[0].until", "not the right form", "with its zone"),
        ("{reason: x, until: 2027-01-02T18:00Z}", "freezes[0].until", "not the right form", "with its zone"),
        ("{reason: x, until: 2027-01-02 18:00:00Z}", "freezes[0].until", "not the right form", "with its zone"),
        ("{reason: x, until: 2027-01-02T25:00:00Z}", "freezes[0].until", "not the right form", "with its zone"),
        ("{reason: x, until: 2027-01-02T18:00:00.5Z}", "freezes[0].until", "not the right form", "with its zone"),
        ("{reason: x, until: 9999-12-31}", "freezes[0].until", "not the right form", "a day"),
        ("{reason: x, from: 0001-01-01}", "freezes[0].from", "not the right form", "a day"),
        ("{reason: x, from: 0001-01-01T00:00:00+23:59}", "freezes[0].from", "not the right form", "a day"),
        ("{reason: x, from: 2027-01-03, until: 2027-01-02}", "freezes[0].until", "is not after `from`", "Correct"),
        (
            "{reason: x, from: 2027-01-03T00:00:00Z, until: 2027-01-03T01:00:00+01:00}",
            "freezes[0].until",
            "is not after `from`",
            "Correct",
        ),
        ("year end", "freezes[0]", "must be a mapping", "indented"),
        (", ".join(["{reason: x}"] * 101), "freezes", "has more than 100 entries", "at most 100"),
    ],
)
def test_what_is_no_freeze_is_a_mistake_at_its_place(
    tmp_path: Path, entry: str, path: str, what: str, remedy: str
) -> None:
    with pytest.raises(PolicyErrors) as caught:
        freezes(tmp_path, own=entry)
    (error,) = caught.value.errors
    assert (error.file, error.line, error.path) == (FILE, LINE, path)
    assert what in error.what
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        ("freezes: {reason: x}", "must be a list", "["),
        ("frozen: true", "is no field here", "'freezes'"),
    ],
)
def test_a_freeze_in_another_form_says_how_to_write_it(tmp_path: Path, line: str, what: str, remedy: str) -> None:
    for file in (FILE, "index.yaml"):
        with pytest.raises(PolicyErrors) as caught:
            load(write(tmp_path, {**FILES, file: f"{FILES[file]}{line}\n"}))
        (error,) = caught.value.errors
        assert what in error.what
        assert remedy in error.remedy


@pytest.mark.parametrize(
    ("entry", "path", "what", "remedy"),
    [
        ("{reason: x, organizations: [acmee]}", "freezes[0].organizations[0]", "is not there: 'acmee'", "'acme'"),
        ("{reason: x, organizations: []}", "freezes[0].organizations", "must not be empty", "only ones"),
        ("{reason: x, organizations: acme}", "freezes[0].organizations", "must be a list", "["),
    ],
)
def test_an_operator_s_freeze_names_organizations_that_are_there(
    tmp_path: Path, entry: str, path: str, what: str, remedy: str
) -> None:
    """An empty list would freeze nobody, and look as if it did."""
    with pytest.raises(PolicyErrors) as caught:
        freezes(tmp_path, operator=entry)
    (error,) = caught.value.errors
    assert (error.file, error.line, error.path) == ("index.yaml", INDEX.count("\n") + 1, path)
    assert what in error.what
    assert remedy in error.remedy
