"""What stands for all values of a field that a publisher's rules compare, and a run that a publisher admits.

Of a field, rules tell apart what policies mention, what fits a combination of their globs, a claim that is absent, and
what nobody mentions: one value for each is enough. That holds for the comparisons of `providers.base`, and for a
provider's own as long as they accept nothing but what was mentioned, or a flag, or anything at all.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.patterns import RefGlob
from broker.policy.globs import combinations
from broker.providers import Identity, Kind, Trust

Value = Any
"""Text, a flag, or None for a claim that is absent."""

_NOTHING: Final = object()
_CLAIM: Final = "str | None"
"""The type of what an identity has no field of its own for: a claim that an operator declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Of one field."""

    found: tuple[Value, ...]
    globs: tuple[RefGlob, ...] = ()
    """Those that `found` has a value for each combination of."""
    unmentioned: frozenset[Value] = frozenset()
    """The one of them that stands for all that nobody mentions."""


def values_of(trusts: Sequence[Trust], actors: Iterable[str] = ()) -> dict[str, Values]:
    """For each field that a rule compares, in the order of the rules: what stands for all its values.

    Args:
        trusts: Of one kind of provider, at least one.
        actors: The ids of actors, for a source that is its own actor.

    Raises:
        TooComplexError: there are too many combinations of globs.
    """
    kind = trusts[0].identity
    mentioned: dict[str, list[Value]] = defaultdict(list)
    ids: set[str] = set()
    for trust in trusts:
        for rule in trust.rules:
            told = trust.stated(rule.field)
            mentioned[rule.of] += told if isinstance(told, tuple) else (told,)
            if rule.kind is Kind.ID:
                ids.add(rule.of)
        for never in trust.never:
            for field in mentioned.keys() & never.keys():
                mentioned[field] += sorted(never[field], key=str)
    if trusts[0].itself is not None:
        mentioned[trusts[0].itself] += actors
    types = {item.name: str(item.type) for item in dataclasses.fields(kind)}
    return {
        field: _values(told, types.get(field, _CLAIM), kind, field, field in ids) for field, told in mentioned.items()
    }


def _values(mentioned: list[Value], of_type: str, kind: type[Identity], field: str, is_id: bool) -> Values:
    absent = (None,) if "None" in of_type else ()
    if "bool" in of_type:
        return Values(found=(True, False, *absent))
    texts = [value for value in dict.fromkeys(mentioned) if isinstance(value, str)]
    globs = tuple(dict.fromkeys(value for value in mentioned if isinstance(value, RefGlob)))
    if field == kind.lookup:  # whose name is another, is of another source
        return Values(found=tuple(texts))
    exact = (RefGlob(text) for text in texts if "*" not in text)
    fitting = combinations([*globs, *exact]).values() if globs else ()
    other = _other_than(texts, "1" if is_id else "other")
    return Values(
        found=tuple(dict.fromkeys((*texts, *fitting, other, *absent))), globs=globs, unmentioned=frozenset({other})
    )


def _other_than(texts: Iterable[str], stem: str) -> str:
    """What nobody mentions."""
    taken = {text.lower() for text in texts}
    return next(other for other in _longer(stem) if other not in taken)


def _longer(stem: str) -> Iterator[str]:
    text = stem
    while True:
        yield text
        text += stem[:1]


def home(trust: Trust, values: Mapping[str, Values]) -> Identity | None:
    """A run that a publisher admits, started by nobody in particular; None where it admits none."""
    blank = {item.name: item.name for item in dataclasses.fields(trust.identity) if str(item.type) == "str"}
    waiting = {field: iter(one.found) for field, one in values.items()}
    first = {field: next(found) for field, found in waiting.items()}
    run = trust.identity.from_claims({**blank, "issuer": trust.issuer, "unattended": False, **first})
    while (mismatch := trust.compare(run, {})) is not None:
        following = next(waiting[mismatch.rule.of], _NOTHING)
        if following is _NOTHING:
            return None
        run = telling(run, {mismatch.rule.of: following})
    return run


def telling(run: Identity, values: Mapping[str, Value]) -> Identity:
    """The same run with other values, under the names that `as_claims` has for them."""
    if all(hasattr(run, field) for field in values):
        return dataclasses.replace(run, **values)
    claims = {**run.as_claims(), **values}
    return type(run).from_claims({name: value for name, value in claims.items() if value is not None})


def admits(trust: Trust, run: Identity, field: str) -> Callable[[Value], bool]:
    """Whether a publisher admits a run of its own with another value of that field."""
    return lambda value: trust.compare(telling(run, {field: value}), {}) is None
