"""From a box to what a person reads: projects as policies write them, conditions, and periods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from broker.patterns import Projects, RefGlob
from broker.policy.space import Dimension
from broker.providers import Kind, Rule, Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a run must have in one field for a change to concern it."""

    field: str
    """As policies call it."""
    is_name: bool
    any_of: tuple[str | None, ...] = ()
    """Values and globs, None for a claim that is absent; empty where any will do but `none_of`."""
    none_of: tuple[str | None, ...] = ()
    narrowed: bool = False
    """The publisher asks for less than this: runs that do not fit are decided as before."""


def conditions_of(
    trust: Trust, at: Mapping[str, tuple[Dimension, int]], whole: Mapping[str, int]
) -> Iterator[Condition]:
    """What the publisher asks, and where only some of its runs are concerned, which.

    An immutable id is told only where policies mention several for one name.

    Args:
        at: Field -> its dimension, and the values that are concerned.
        whole: Field -> the values that the publisher admits.
    """
    for rule in trust.rules:
        dimension, mask = at[rule.of]
        stated = trust.stated(rule.field)
        if mask != whole[rule.of]:
            yield _narrowed(rule, dimension, mask, whole[rule.of], stated)
        elif stated is not None and _is_written(trust, rule) and _is_telling(rule, dimension):
            yield Condition(field=rule.field, is_name=rule.kind is Kind.NAME, any_of=_texts(stated))


def _is_written(trust: Trust, rule: Rule) -> bool:
    """'claims.ref' stands in the field `claims`."""
    return rule.field.partition(".")[0] in trust.model_fields_set


def _is_telling(rule: Rule, dimension: Dimension) -> bool:
    """An id means nothing to a reader, unless there are several under the name."""
    values = dimension.values(dimension.everything)
    return rule.kind is not Kind.ID or len(values) - len(dimension.unmentioned) > 1


def _narrowed(rule: Rule, dimension: Dimension, mask: int, whole: int, stated: object) -> Condition:
    concerned, others = dimension.values(mask), dimension.values(whole & ~mask)
    if dimension.globs:
        own = [glob for glob in dimension.globs if isinstance(stated, tuple) and glob in stated]
        any_of = [glob for glob in own if _fits_some(glob, concerned)]
        near = [value for value in others if not any_of or any(_fits_some(glob, [value]) for glob in any_of)]
        none_of = (glob for glob in dimension.globs if _fits_some(glob, near) and not _fits_some(glob, concerned))
        return Condition(
            field=rule.field, is_name=False, any_of=_texts(tuple(any_of)), none_of=_texts(tuple(none_of)), narrowed=True
        )
    if dimension.unmentioned.intersection(concerned):
        return Condition(field=rule.field, is_name=False, none_of=_texts(tuple(others)), narrowed=True)
    return Condition(field=rule.field, is_name=False, any_of=_texts(tuple(concerned)), narrowed=True)


def _fits_some(glob: RefGlob, values: Iterable[str | None]) -> bool:
    return any(value is not None and glob.matches(value) for value in values)


def _texts(stated: object) -> tuple[str | None, ...]:
    values = stated if isinstance(stated, tuple) else (stated,)
    return tuple(None if one is None else str(one).lower() if isinstance(one, bool) else str(one) for one in values)


def patterns_of(own: Iterable[Projects], names: Dimension, mask: int) -> tuple[str, ...]:
    """The names of a mask as policies write them.

    Args:
        own: The patterns that the names are of. What others tell already is not told again.
        names: Each name that is mentioned, and one for each prefix.
    """
    concerned, others = names.values(mask), names.values(names.everything & ~mask)
    found = {
        pattern: tuple([name for name in some if pattern.covers(name)] for some in (concerned, others))
        for pattern in sorted(own)
    }
    whole = [pattern for pattern, (_, missing) in found.items() if not missing]
    told: list[str] = []
    for pattern, (meant, missing) in found.items():
        if any(other != pattern and pattern.within(other) for other in whole):
            continue
        if meant and not missing:
            told.append(str(pattern))
        elif any(not any(other.covers(name) for other in whole) for name in meant):
            told.append(f"{pattern} (such as {', '.join(meant)}, without {', '.join(missing)})")
    return tuple(told)


def periods_of(when: Dimension, mask: int) -> tuple[tuple[float | None, float | None], ...]:
    """The moments of a mask as periods, each from its first moment until the next that is not in it."""
    if mask == when.everything:
        return ()
    periods: list[tuple[float | None, float | None]] = []
    moments = [atom[0] for atom in when.atoms]
    for at, moment in enumerate(moments):
        if not mask >> at & 1:
            continue
        end = moments[at + 1] if at + 1 < len(moments) else None
        if periods and periods[-1][1] == moment:
            periods[-1] = (periods[-1][0], end)
        else:
            periods.append((None if at == 0 else moment, end))
    return tuple(periods)
