"""Laws of patterns."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from broker.patterns import Projects, RefGlob, intersect, normalise
from tests.property.strategies import globs, patterns, project_texts, refs

NAMES = ["".join(letters) for length in range(1, 7) for letters in itertools.product("ab-", repeat=length)]
"""Every name that a pattern of up to four of these letters can tell apart."""


def meant(pattern: Projects) -> set[str]:
    return {name for name in NAMES if pattern.covers(name)}


@given(patterns, patterns)
def test_what_both_mean_is_what_each_means(one: Projects, other: Projects) -> None:
    both = one.intersect(other)
    assert (set() if both is None else meant(both)) == meant(one) & meant(other)


@given(patterns, patterns)
def test_intersection_is_commutative(one: Projects, other: Projects) -> None:
    assert one.intersect(other) == other.intersect(one)


@given(patterns)
def test_a_pattern_and_itself_are_itself(one: Projects) -> None:
    assert one.intersect(one) == one
    assert one.within(one)


@given(patterns, patterns)
def test_within_is_to_mean_no_more(one: Projects, other: Projects) -> None:
    assert one.within(other) == (meant(one) <= meant(other))


@given(st.sets(patterns, max_size=4), st.sets(patterns, max_size=4))
def test_sets_mean_what_their_members_mean(some: set[Projects], others: set[Projects]) -> None:
    both = intersect(some, others)
    covered = {name for name in NAMES if any(one.covers(name) for one in both)}
    assert covered == {
        name for name in NAMES if any(one.covers(name) for one in some) and any(one.covers(name) for one in others)
    }
    assert both == intersect(others, some)


@given(project_texts)
def test_what_is_written_is_read_back(text: str) -> None:
    parsed = Projects.parse(text)
    assert Projects.parse(str(parsed)) == parsed


@given(st.text(max_size=20))
def test_a_name_is_normalised_once_for_all_or_refused(text: str) -> None:
    try:
        name = normalise(text)
    except ValueError:
        return
    assert normalise(name) == name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)


@given(globs, refs)
def test_a_glob_fits_as_the_same_regular_expression_would(glob: str, ref: str) -> None:
    expression = "[^/]*".join(map(re.escape, glob.split("*")))
    assert RefGlob(glob).matches(ref) == (re.fullmatch(expression, ref) is not None)


@given(globs, refs)
def test_no_star_crosses_a_slash(glob: str, ref: str) -> None:
    assert not RefGlob(glob).matches(ref) or glob.count("/") == ref.count("/")


@given(st.text(max_size=30))
def test_a_glob_parses_or_is_refused(text: str) -> None:
    try:
        glob = RefGlob.parse(text)
    except ValueError:
        return
    assert text.startswith("refs/")
    assert glob.matches(text.replace("*", "x"))


@given(st.integers(0, 30), st.integers(0, 200))
def test_stars_end_soon(stars: int, length: int) -> None:
    """A matcher that goes back and tries again would not get through the first hundred of these."""
    assert not RefGlob("refs/" + "a*" * stars + "b").matches("refs/" + "a" * length)
