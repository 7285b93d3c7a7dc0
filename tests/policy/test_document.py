"""The small part of YAML that policies are written in: what it reads, what it refuses, and what cannot hurt it."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from broker.policy import document
from broker.policy.document import DEEPEST, LONGEST_FILE_BYTES, LONGEST_KEY, MOST_VALUES, read
from broker.policy.errors import Findings
from tests.policy.example import FILES, changed
from tests.policy.test_mistakes import ROWS


def findings() -> Findings:
    return Findings(file="x.yaml")


def value_of(text: str) -> Any:
    """What `a: <text>` reads as; no mistakes."""
    found = findings()
    values = read(f"a: {text}\n".encode(), found)
    assert found.errors == []
    assert values is not None
    return values["a"]


def mistakes(content: str | bytes) -> list[tuple[int, str, str]]:
    found = findings()
    read(content if isinstance(content, bytes) else content.encode(), found)
    return [(error.line, error.path, error.what) for error in found.errors]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("7", 7),
        ("-7", -7),
        ("007", 7),  # a number, so that text must be quoted whatever its digits are
        ("2027-01-31", date(2027, 1, 31)),
        ("[a, [b], 7]", ("a", ("b",), 7)),
        ("{b: {c: d}}", {"b": {"c": "d"}}),
        ("[]", ()),
        ("{}", {}),
    ],
)
def test_a_scalar_is_a_boolean_a_whole_number_or_a_day_only_where_it_looks_like_one(text: str, value: object) -> None:
    read_value = value_of(text)
    assert read_value == value
    assert type(read_value) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "Yes",
        "NO",
        "On",
        "True",
        "TRUE",
        "False",
        "0o17",
        "0x1F",
        "1_000",
        "1e3",
        "1.5",
        ".inf",
        ".nan",
        "12:30",
        "12:30:45",
        "=",
        "release.yml",
        "2027-02-30",
        "2027-1-31",
        "2027-01-31T00:00:00Z",
        "+1e3",
        "refs/tags/v*",
        "acme-*",
        "nullable",
        "None",
    ],
)
def test_everything_else_is_text(text: str) -> None:
    """YAML 1.1 would make booleans, numbers and times of most of these."""
    assert value_of(text) == text
    assert value_of(f'"{text}"') == text


@pytest.mark.parametrize("text", ["true", "7", "2027-01-31", "~", "null", "", "<<"])
def test_what_is_quoted_is_text(text: str) -> None:
    assert value_of(f'"{text}"') == text
    assert value_of(f"'{text}'") == text


def test_a_number_longer_than_any_id_stays_text() -> None:
    """Python refuses to read numbers of 5,000 digits; a field that wants a number would refuse the text."""
    assert value_of("9" * 5000) == "9" * 5000
    assert value_of("9" * 40) == int("9" * 40)


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_an_empty_value_is_a_mistake(text: str) -> None:
    """A forgotten day behind `until:` must not mean "for ever"."""
    assert mistakes(f"a:\n  until: {text}\n") == [(2, "a.until", "has no value")]
    assert mistakes(f"a:\n- x\n- {text}\n") == [(3, "a[1]", "has no value")]


@pytest.mark.parametrize("content", ["", "\n", "# only a comment\n", "---\n", "--- ~\n", "null\n"])
def test_an_empty_file_is_a_mistake(content: str) -> None:
    ((_, path, what),) = mistakes(content)
    assert (path, what) == ("", "is empty")


@pytest.mark.parametrize("content", ["a", "- a\n", "7", "[a]", "'~'", "\n\n  text\n", "*a"])
def test_a_file_is_a_mapping(content: str) -> None:
    ((line, path, what),) = mistakes(content)
    assert (line, path, what) == (1 + content.rstrip().count("\n"), "", "must be a mapping of fields")


@pytest.mark.parametrize("key", ["", "a\\nb", "a\\u202eb", "x" * (LONGEST_KEY + 1)])
def test_a_key_is_short_and_seen(key: str) -> None:
    assert mistakes(f'a:\n  "{key}": b\n') == [
        (2, "a", "has a key that is empty, longer than 200 characters, or not seen")
    ]


@pytest.mark.parametrize("key", ["yes", "NO", "on", "Off", "y", "N", "True", "false", "7", "2027-01-31", "~", "null"])
def test_a_key_that_readers_of_yaml_disagree_on_must_be_quoted(key: str) -> None:
    ((line, _, what),) = mistakes(f"a:\n  {key}: b\n")
    assert (line, what) == (2, "has a name that not all readers of YAML take for text")
    assert mistakes(f'a:\n  "{key}": b\n') == []


def test_a_mistake_leaves_the_rest_readable() -> None:
    """So that all mistakes of a file are told at once."""
    found = findings()
    text = "a: &x [1]\nb: *x\na: {deep: {deeper: 1}}\n? [c]\n: {d: 1}\n<<: {e: f}\nyes: g\nh: i\n"
    assert read(text.encode(), found) == {"a": (1,), "b": "", "yes": "g", "h": "i"}
    told = [(error.line, error.path) for error in found.errors]
    assert told == [(1, "a"), (2, "b"), (3, "a"), (4, ""), (6, ""), (7, "yes")]


def test_nothing_more_is_said_of_what_has_no_value() -> None:
    found = findings()
    read(b"a: ~\nb: [*x]\nc: d\n", found)
    found.add(("a",), "is missing", "")
    found.add(("a", "deeper"), "is missing", "")
    found.add(("b", 0), "must be text", "")
    found.add(("b",), "must be longer", "")
    assert [error.path for error in found.errors] == ["a", "b[0]", "b"]


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (b"a: b\nc: \xff\n", 2, "is not UTF-8 text"),
        ("a: b\n".encode("utf-16"), 1, "is not UTF-8 text"),
        (b"\xef\xbb\xbfa: b\n", 1, "has a character that is not seen: '\\ufeff'"),
        (b"a:\n\tb: c\n", 2, "has a tab"),
        (b"a: b\n# a\tcomment\n", 2, "has a tab"),
        (b"a: b\rc: d\n", 1, "has a character that is not seen: '\\r'"),
        ("a: b\u2028c: d\n".encode(), 1, "has a character that is not seen: '\\u2028'"),
        ("a: b\n# \u202e\n".encode(), 2, "has a character that is not seen: '\\u202e'"),
        ("a: b\n# \u200b\n".encode(), 2, "has a character that is not seen: '\\u200b'"),
        ("a: \ufffe\n".encode(), 1, "has a character that is not seen: '\\ufffe'"),
        (b"a: b\n\nc: \x85\n", 3, "is not UTF-8 text"),
        ("a: b\nc: \x85d\n".encode(), 2, "has a character that is not seen: '\\x85'"),
        (b"a: \x1b[2J\n", 1, "has a character that is not seen: '\\x1b'"),
        (b"a: b\x00\n", 1, "has a character that is not seen: '\\x00'"),
    ],
)
def test_characters_that_hide_something_are_refused_with_their_line(content: bytes, line: int, what: str) -> None:
    assert mistakes(content) == [(line, "", what)]


def test_windows_line_ends_are_read_and_counted() -> None:
    assert mistakes(b"a: b\r\nc: d\r\na: e\r\n") == [(3, "a", "stands twice; first on line 1")]


@pytest.mark.parametrize("text", ['"a\\tb"', '"a\\u202eb"', '"a\\0b"', "|\n  a\n  b", '"a\\nb"'])
def test_text_that_is_not_seen_whole_is_refused(text: str) -> None:
    ((line, path, what),) = mistakes(f"a: {text}\n")
    assert (line, path) == (1, "a")
    assert what.startswith("has a line break or a character that is not seen: '")
    assert what.isascii()
    assert what.isprintable()


def test_a_syntax_error_names_where_it_is_and_where_it_began() -> None:
    ((line, path, what),) = mistakes('a:\n  b: "c\n  d: e\n')
    assert (line, path) == (4, "")
    assert what == "is not YAML: found unexpected end of stream (in what began on line 2)"


# --- Bombs -----------------------------------------------------------------------------------------------------------


def test_a_billion_laughs_are_not_told_once() -> None:
    """An alias is refused where it stands; nothing is expanded."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    found = findings()
    values = read("\n".join(lines).encode(), found)
    assert values is not None
    assert values["a9"] == ("",) * 10
    assert len(found.errors) == 10 + 9 * 10


@pytest.mark.parametrize(
    "bomb",
    [
        "[" * 10_000,
        "a: " + "[" * 10_000 + "]" * 10_000,
        "a:\n  - " + "- " * 10_000,
        "a: " + "{a: " * 10_000,
        "? " * 10_000,
    ],
    ids=["open", "closed", "block", "mappings", "keys"],
)
def test_ten_thousand_levels_are_refused_at_the_first_too_many(bomb: str) -> None:
    assert mistakes(bomb)


def test_nesting_is_allowed_to_its_bound_and_no_further() -> None:
    allowed = "a: " + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)
    assert mistakes(allowed) == []
    ((line, path, what),) = mistakes(f"b: c\n{allowed.replace('[]', '[[]]')}")
    assert (line, path, what) == (2, "a[0][0]", f"is nested deeper than {DEEPEST} levels")


@pytest.mark.parametrize("before", ["a: b\na: ", "<<: ", "? "])
def test_what_is_passed_over_is_bounded_too(before: str) -> None:
    """What stands under a repeated key is not kept; libyaml's cost for nesting is its square all the same."""
    assert mistakes(before + "[" * DEEPEST + "]" * DEEPEST)[-1][2] != f"is nested deeper than {DEEPEST} levels"
    assert mistakes(before + "[" * 10_000 + "]" * 10_000)[-1][2] == f"is nested deeper than {DEEPEST} levels"


def test_a_file_larger_than_the_bound_is_not_parsed() -> None:
    filler = b"# " + b"x" * 97 + b"\n"
    whole = b"a: b\n" + filler * ((LONGEST_FILE_BYTES - 5) // len(filler))
    whole += b"#" * (LONGEST_FILE_BYTES - len(whole))
    assert mistakes(whole) == []
    assert mistakes(whole + b"#") == [(1, "", f"is larger than {LONGEST_FILE_BYTES} bytes")]


def test_a_file_has_a_bounded_number_of_values() -> None:
    """Each costs a hundred times the letter that it may be. The file itself and the list are two of them."""
    whole = f"a:\n  [{'b,' * (MOST_VALUES - 2)}]\n"
    assert mistakes(whole) == []
    assert mistakes(whole.replace("]", "b]")) == [(2, "", f"has more than {MOST_VALUES} values")]


# --- Anything --------------------------------------------------------------------------------------------------------

YAMLISH = st.lists(
    st.sampled_from(
        [
            *"ab:-,[]{}&*!|>'\"%@`#?<~= \n\t\r017.",
            "a: b\n",
            "\n  ",
            "---\n",
            "...\n",
            "<<: ",
            "\\U00110000",
            "é",
            "\u202e",
            "\x00",
        ]
    ),
    max_size=60,
).map("".join)


@given(st.one_of(st.binary(max_size=100), YAMLISH.map(str.encode), st.text(max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused_and_nothing_else(content: bytes) -> None:
    """What cannot be read at all says so; what is told has a line of the file."""
    found = findings()
    values = read(content, found)
    assert isinstance(values, dict) or found.errors
    assert all(1 <= error.line <= content.count(b"\n") + content.count(b"\r") + 1 for error in found.errors)
    assert all(str(error).isascii() and str(error).isprintable() for error in found.errors)


# --- Without libyaml -------------------------------------------------------------------------------------------------


def read_with(loader: object, content: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Findings]:
    found = findings()
    with monkeypatch.context() as patch:
        patch.setattr(document, "_LOADER", loader)
        return read(content, found), found


def test_libyaml_is_used_where_it_is() -> None:
    assert document._LOADER is yaml.CSafeLoader


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.file.split('/')[-1]}-{row.path}-{row.what}"[:90])
def test_pyyaml_alone_reads_the_same(row: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same values, lines and mistakes; where it is no YAML at all, each library says so in its own words."""
    content = changed(row.file, row.old, row.new)[row.file].encode()
    fast, slow = (read_with(loader, content, monkeypatch) for loader in (yaml.CSafeLoader, yaml.SafeLoader))
    assert fast[0] == slow[0]
    assert [(error.line, error.path) for error in fast[1].errors] == [
        (error.line, error.path) for error in slow[1].errors
    ]
    if fast[0] is not None:
        assert fast[1].lines == slow[1].lines
        assert fast[1].errors == slow[1].errors


def test_pyyaml_alone_reads_the_example_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in FILES.values():
        fast, slow = (read_with(loader, text.encode(), monkeypatch) for loader in (yaml.CSafeLoader, yaml.SafeLoader))
        assert fast[0] == slow[0]
        assert fast[1].lines == slow[1].lines


def test_pyyaml_alone_refuses_an_escape_beyond_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises a bare ValueError of Python's there."""
    values, found = read_with(yaml.SafeLoader, b'a: b\nc: "\\UFFFFFFFF"\n', monkeypatch)
    assert values is None
    assert [error.what.split(":")[0] for error in found.errors] == ["is not YAML"]
