"""Who holds which names is known after any history as if all had come at once."""

from __future__ import annotations

import functools

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.patterns import Projects
from broker.policy.model import Organization
from broker.policy.organizations import Compiled, Held
from broker.policy.overlaps import Names

PATTERNS = ("a", "a-*", "a-b", "a-b-*", "a-b-c", "ab", "ab-*", "b-*")
World = dict[str, Compiled]


def holding(name: str, patterns: frozenset[str]) -> Compiled:
    """An organization of that name that holds these."""
    held = (
        Held(Projects.parse(text), name, f"organizations/{name}.yaml", line, f"projects.{text}")
        for line, text in enumerate(sorted(patterns), 1)
    )
    return Compiled(
        Organization(name=name, members={}, member_by_id={}, publishers={}, owner_ids=frozenset()), (*held,)
    )


def everything(world: World) -> list[Held]:
    """In the order of the files."""
    return [held for one in world.values() for held in one.held]


def overlapping(world: World) -> bool:
    """By trying every pair."""
    held = everything(world)
    return any(
        one.organization != other.organization and one.pattern.intersect(other.pattern) is not None
        for one in held
        for other in held
    )


CHANGES = st.tuples(st.sampled_from("wxy"), st.frozensets(st.sampled_from(PATTERNS), max_size=2))


@settings(deadline=None)
@given(st.lists(st.lists(CHANGES, min_size=1, max_size=2), min_size=1, max_size=8))
def test_overlaps_are_told_after_any_history_as_at_first_sight(
    history: list[list[tuple[str, frozenset[str]]]],
) -> None:
    names, before = Names(), World()
    for changes in history:
        now = before | {name: holding(name, patterns) for name, patterns in changes}
        gone = [one for name, one in before.items() if now.get(name) is not one]
        came = [one for name, one in now.items() if before.get(name) is not one]
        told = names.change(gone, came, functools.partial(everything, now))
        assert told == Names().change((), now.values(), functools.partial(everything, now))
        assert bool(told) == overlapping(now)
        before = now
