"""Whatever an admin does to a policy, it loads, or says in plain words what is wrong: no other exception, no jargon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from broker.policy.errors import Findings, PolicyErrors
from broker.policy.files import load
from broker.policy.model import Policies
from broker.policy.validation import validate
from tests.policy.example import FILES, write

Step = str | int
TREES: Final[dict[str, Any]] = {name: yaml.safe_load(text) for name, text in FILES.items()}

ODD: Final[list[Any]] = [
    None, True, 0, -1, 1.5, 10**45, "", "x", "*", "acme", "acme-*", "team:core", "a" * 1000, "\u0430lice", "\u202e",
    date(2027, 1, 31), [], [None], [[]], ["x"], [1], {}, {"x": "y"}, {"x": {}}, {1: 2}, {"issuer": {"issuer": []}},
]  # fmt: skip

JARGON: Final = (
    "Input should",
    "valid string",
    "pydantic",
    "type=",
    "NoneType",
    "dict",
    "tuple",
    "bool",
    "what belongs",
    "<class",
    "Error",
)


def places(tree: Any, at: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Every place in a document."""
    yield at
    steps = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for step in steps:
        yield from places(tree[step], (*at, step))


def edited(tree: Any, at: tuple[Step, ...], new: Any, *, delete: bool = False) -> Any:
    """A copy with one place replaced, or deleted."""
    if not at:
        return new
    first, *rest = at
    copy = tree.copy()
    if delete and not rest:
        del copy[first]
    else:
        copy[first] = edited(tree[first], tuple(rest), new, delete=delete)
    return copy


def outcome(folder: Path, file: str, text: str) -> Policies | PolicyErrors:
    """The only two ways a load can end; and its mistakes can be read by a person."""
    (folder / file).write_text(text)
    try:
        return load(folder)
    except PolicyErrors as error:
        mistakes = error
    for each in mistakes.errors:
        assert each.what
        assert each.remedy
        assert not [word for word in JARGON if word in f"{each.what} {each.remedy}".replace("boolean", "")]
        assert str(each).isascii()
        assert "\n" not in str(each)
    assert mistakes.errors
    return mistakes


@pytest.mark.parametrize("file", FILES)
def test_with_any_one_thing_deleted_it_loads_or_says_why_not(tmp_path: Path, file: str) -> None:
    write(tmp_path)
    for at in places(TREES[file]):
        text = yaml.safe_dump(edited(TREES[file], at, None, delete=True)) if at else ""
        outcome(tmp_path, file, text)


@pytest.mark.parametrize("file", FILES)
def test_with_any_one_value_replaced_by_an_odd_one_it_loads_or_says_why_not(tmp_path: Path, file: str) -> None:
    """Every place with every odd value: some 2,500 folders."""
    write(tmp_path, {name: FILES[name] for name in ("index.yaml", file)})
    (tmp_path / "organizations").mkdir(exist_ok=True)
    for at in places(TREES[file]):
        for odd in ODD:
            outcome(tmp_path, file, yaml.safe_dump(edited(TREES[file], at, odd), allow_unicode=True))


@pytest.mark.parametrize("file", FILES)
def test_with_any_one_line_missing_or_doubled_it_loads_or_says_why_not(tmp_path: Path, file: str) -> None:
    write(tmp_path)
    lines = FILES[file].splitlines(keepends=True)
    for number in range(len(lines)):
        outcome(tmp_path, file, "".join(lines[:number] + lines[number + 1 :]))
        doubled = outcome(tmp_path, file, "".join(lines[: number + 1] + lines[number:]))
        assert isinstance(doubled, PolicyErrors)  # a name stands twice, whichever line it is
        assert any("stands twice" in error.what for error in doubled.errors) or "not YAML" in str(doubled)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_with_any_text_put_anywhere_it_loads_or_says_why_not(tmp_path: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(FILES)))
    text = FILES[file]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    put = data.draw(st.text(st.sampled_from(" \n-:{}[]\"'#&*!acme1.,<?@%\\\u202e\u0430"), max_size=12))
    write(tmp_path)
    outcome(tmp_path, file, text[:start] + put + text[end:])


def test_no_deletion_makes_more_of_the_first_gate(tmp_path: Path) -> None:
    """Ids, names and what restricts a publisher: without them it does not load, or it is known what it then allows."""
    write(tmp_path)
    file = "organizations/acme.yaml"
    publisher = ("publishers", "widgets-release")
    loads = {
        field
        for field in TREES[file]["publishers"]["widgets-release"]
        if isinstance(
            outcome(tmp_path, file, yaml.safe_dump(edited(TREES[file], (*publisher, field), None, delete=True))),
            Policies,
        )
    }
    assert loads == {"environment", "refs", "events"}  # optional; `events` then has its safe default


def test_what_pydantic_may_say_some_day_is_still_told() -> None:
    """A kind of error that no sentence is written for."""

    class Later(BaseModel):
        model_config = ConfigDict(strict=True)
        number: int

    findings = Findings(file="x.yaml")
    assert validate(Later, {"number": "seven"}, ("a",), findings) is None
    ((path, what),) = [(error.path, error.what) for error in findings.errors]
    assert (path, what) == ("a.number", "is not what belongs here: the text 'seven'")
