"""Every combination of globs that a ref can have is found, with such a ref, and no other."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.patterns import RefGlob
from broker.policy import globs
from broker.policy.globs import TooComplexError, combinations
from broker.policy.regions import Box, outside


def found(*texts: str) -> dict[str, str]:
    """'refs/a refs/*' -> a ref that these fit and no other."""
    combined = combinations(map(RefGlob, texts))
    return {" ".join(sorted(map(str, some))): ref for some, ref in combined.items()}


@pytest.mark.parametrize(
    ("texts", "kinds"),
    [
        ((), {}),
        (("refs/tags/v*",), {"refs/tags/v*": "refs/tags/v"}),
        (("refs/*",), {"refs/*": "refs/x"}),
        (("refs/a", "refs/b"), {"refs/a": "refs/a", "refs/b": "refs/b"}),
        (("refs/a", "refs/*"), {"refs/*": "refs/x", "refs/* refs/a": "refs/a"}),
        (("refs/a*", "refs/*a"), {"refs/a*": "refs/ax", "refs/*a": "refs/xa", "refs/*a refs/a*": "refs/a"}),
        (("refs/*/a", "refs/b/*"), {"refs/*/a": "refs/x/a", "refs/b/*": "refs/b/x", "refs/*/a refs/b/*": "refs/b/a"}),
        (("refs/*", "refs/*/*"), {"refs/*": "refs/x", "refs/*/*": "refs/x/x"}),
        (("refs/a*b", "refs/a*b"), {"refs/a*b": "refs/ab"}),
    ],
)
def test_each_kind_of_ref_stands_once(texts: tuple[str, ...], kinds: dict[str, str]) -> None:
    assert found(*texts) == kinds


def test_a_star_stands_for_a_letter_that_no_glob_has() -> None:
    assert found(f"refs/{globs._FILLERS}", "refs/*") == {
        "refs/*": "refs/\u4e00",
        f"refs/* refs/{globs._FILLERS}": f"refs/{globs._FILLERS}",
    }


def test_too_many_combinations_are_refused_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [RefGlob(f"refs/*{letter}*") for letter in "abcdefgh"]
    assert len(combinations(some)) == 2**8 - 1
    monkeypatch.setattr(globs, "MOST_STATES", 100)
    with pytest.raises(TooComplexError, match="too many globs: 8"):
        combinations(some)


segments = st.text("ab*", max_size=4).filter(lambda part: "**" not in part)
some_globs = st.lists(st.lists(segments, min_size=1, max_size=2).map("/".join).map(RefGlob), max_size=4)
REFS = [
    "/".join(parts)
    for length in range(4)
    for letters in itertools.product("abx/", repeat=length + 1)
    if (parts := "".join(letters).split("/"))
]


@settings(deadline=None, derandomize=True, database=None)
@given(some_globs)
def test_the_combinations_are_those_that_refs_have(some: list[RefGlob]) -> None:
    combined = combinations(some)
    for fitting, ref in combined.items():
        assert fitting == {glob for glob in some if glob.matches(ref)}
    tried = {frozenset(glob for glob in some if glob.matches(ref)) for ref in REFS}
    assert tried - {frozenset()} <= set(combined)


masks = st.tuples(*(st.integers(1, 7) for _ in range(3)))
POINTS = list(itertools.product((1, 2, 4), repeat=3))


def holds(box: Box, point: tuple[int, ...]) -> bool:
    return all(mask & bit for mask, bit in zip(box, point, strict=True))


@settings(deadline=None, derandomize=True, database=None)
@given(masks, st.lists(masks, max_size=5), st.lists(masks, max_size=2))
def test_what_is_outside_is_in_the_box_and_in_no_other(box: Box, others: list[Box], void: list[Box]) -> None:
    pieces = outside(box, others, void=void)
    there = [point for point in POINTS if not any(holds(one, point) for one in void)]
    for point in there:
        expected = holds(box, point) and not any(holds(other, point) for other in others)
        assert any(holds(piece, point) for piece in pieces) == expected
    assert all(any(holds(piece, point) for point in there) for piece in pieces)
    assert len(set(pieces)) == len(pieces)


def test_a_piece_is_as_large_as_can_be() -> None:
    assert outside((3, 3), [(1, 1)]) == [(2, 3), (3, 2)]
    assert outside((3, 3), []) == [(3, 3)]
    assert outside((3, 3), [(3, 3)]) == []


def test_a_box_in_too_many_pieces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.policy.regions.MOST_PIECES", 1)
    with pytest.raises(TooComplexError, match="overlap"):
        outside((3, 3), [(1, 1)])
