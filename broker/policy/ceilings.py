"""`ceilings` in `index.yaml`: how far organizations' files may go. What stands below only narrows what stands above.

Above all stands the index's own `lifetime`; then `ceilings`; then `ceilings.organizations.<name>`; then that
organization's file. What is wider than a thing above it is a mistake at its own line, which names the line above:
nobody shall believe in a permission that is not there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from broker.policy.errors import Findings, Place, shown
from broker.policy.holdings import entries, texts
from broker.policy.model import LONGEST_LIFETIME_SECONDS, SHORTEST_LIFETIME_SECONDS
from broker.policy.shapes import IDS, REQUIRABLE, TRIGGERS, CeilingShape, CeilingsShape, LevelShape, PublisherShape
from broker.policy.validation import validate
from broker.providers import Kind, Trust

Value = TypeVar("Value")

_ISSUERS: Final = "issuers"
_RAISE: Final = "ask the index operator to raise the ceiling"


@dataclass(frozen=True, slots=True)
class Bound(Generic[Value]):
    """What is allowed at most, and where that stands."""

    value: Value
    stands: str = field(compare=False)
    """'index.yaml:12'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """How far an organization's file may go; what is not there is not bounded."""

    lifetime: Bound[int] | None = None
    """Seconds that an upload token may live."""
    lists: Mapping[str, Bound[tuple[str, ...]]] = field(default_factory=dict)
    """What publishers may name: under 'issuers', and under each field that lists triggers ('events', ...)."""
    required: Mapping[str, Bound[str]] = field(default_factory=dict)
    """Fields that each publisher must state."""


def stands(place: Place, findings: Findings) -> str:
    """'index.yaml:12'; the file alone where it says nothing at this place, so that a default holds."""
    return f"{findings.file}:{findings.lines[place]}" if place in findings.lines else findings.file


def refuse_lifetime(seconds: int, above: Bound[int] | None, place: Place, findings: Findings) -> None:
    """Notes a lifetime that no upload token may have, or that is longer than what stands above it."""
    if not SHORTEST_LIFETIME_SECONDS <= seconds <= LONGEST_LIFETIME_SECONDS:
        what = f"is {seconds} seconds, and an upload token lives 15m to 6h"
        findings.add(place, what, "Write a time within these bounds (PEP 807).")
    elif above is not None and seconds > above.value:
        findings.add(
            place, f"is {seconds} seconds, and {above.stands} allows {above.value}", f"Shorten it, or {_RAISE}."
        )


# --- In index.yaml ---------------------------------------------------------------------------------------------------


def compile_ceilings(
    values: Mapping[str, Any],
    findings: Findings,
    *,
    issuers: Collection[str] | None,
    organizations: Collection[str],
    longest: Bound[int] | None,
) -> tuple[Ceilings, dict[str, Ceilings]]:
    """Those of everybody, and of each organization with some of its own, which hold both. Mistakes are noted.

    Args:
        issuers: The names that are declared; None where that cannot be read.
        organizations: Those that may be named.
        longest: Seconds that the index lets any upload token live.
    """
    above, fields = Ceilings(lifetime=longest), values.get("ceilings")
    if not isinstance(fields, dict):
        return above, {}
    known = {_ISSUERS: issuers, **TRIGGERS}
    everybodys = _level(CeilingsShape, fields, ("ceilings",), above, known=known, findings=findings)
    own: dict[str, Ceilings] = {}
    for name, narrower in entries(fields, "organizations").items():
        place: Place = ("ceilings", "organizations", name)
        if name not in organizations:
            remedy = findings.suggest(name, organizations, "Add its file to organizations/ first.")
            findings.add(place, f"names an organization that is not there: {shown(name)}", remedy)
        own[name] = _level(CeilingShape, narrower, place, everybodys, known=known, findings=findings)
    return everybodys, own


def _level(
    model: type[LevelShape],
    fields: Mapping[str, Any],
    place: Place,
    above: Ceilings,
    *,
    known: Mapping[str, Collection[str] | None],
    findings: Findings,
) -> Ceilings:
    """What one mapping says, within what stands above it; with mistakes in its form, only the latter."""
    shape = validate(model, fields, place, findings)
    if shape is None:
        return above
    lifetime, lists, required = above.lifetime, dict(above.lists), dict(above.required)
    if shape.lifetime is not None:
        where = (*place, "lifetime")
        refuse_lifetime(shape.lifetime, above.lifetime, where, findings)
        lifetime = above.lifetime if findings.at(where) else Bound(shape.lifetime, stands(where, findings))
    for name, names in known.items():
        if name in fields:
            _refuse_unknown(fields, name, names, place, findings)
            _refuse_more(fields, name, above, place, findings)
            if not findings.within((*place, name)):  # with mistakes, publishers' would only follow
                lists[name] = Bound(fields[name], stands((*place, name), findings))
    for where, name in texts(fields, "required", place):
        if name in REQUIRABLE:
            required.setdefault(name, Bound(name, stands(where, findings)))
        else:
            remedy = findings.suggest(name, REQUIRABLE, f"It may name {', '.join(REQUIRABLE)}.")
            findings.add(where, f"names nothing that can be required: {shown(name)}", remedy)
    return Ceilings(lifetime=lifetime, lists=lists, required=required)


def _refuse_unknown(
    fields: Mapping[str, Any], name: str, known: Collection[str] | None, place: Place, findings: Findings
) -> None:
    for where, text in texts(fields, name, place):
        if known is not None and text not in known:
            remedy = findings.suggest(text, known, f"It may name {', '.join(known)}.")
            findings.add(where, f"allows what is not there: {shown(text)}", remedy)


def _refuse_more(fields: Mapping[str, Any], name: str, above: Ceilings, place: Place, findings: Findings) -> None:
    """Notes what a list names beyond the one above it."""
    bound = above.lists.get(name)
    for where, text in texts(fields, name, place):
        if bound is not None and text not in bound.value and not findings.at(where):
            what = f"goes beyond {bound.stands}, which allows {', '.join(bound.value)}: {shown(text)}"
            findings.add(where, what, f"Remove it, or {_RAISE}.")


# --- In an organization's file ---------------------------------------------------------------------------------------


def refuse_beyond(
    ceilings: Ceilings, trust: type[Trust], fields: Mapping[str, Any], place: Place, findings: Findings
) -> None:
    """Notes what a publisher names or leaves out against them; asked of the file, whatever else is wrong."""
    issuers = ceilings.lists.get(_ISSUERS)
    if issuers is not None and fields["issuer"] not in issuers.value:
        what = f"is {shown(fields['issuer'])}, and {issuers.stands} allows {', '.join(issuers.value)}"
        findings.add((*place, "issuer"), what, f"Use one of these, or {_RAISE}.")
    if trust.triggers is not None:
        _refuse_more(fields, trust.triggers.field, ceilings, place, findings)
    for name, bound in ceilings.required.items():
        where = bound.stands
        if name == IDS:
            _refuse_pin(trust, fields, where, place, findings)
        elif name in fields and fields[name] is False:
            findings.add((*place, name), f"is false, and {where} requires it", f"Write true, or {_RAISE}.")
        elif name not in fields and (name in trust.model_fields or name in PublisherShape.model_fields):
            findings.add(place, f"does not state {name}, which {where} requires", f"Add `{name}`, or {_RAISE}.")


def _refuse_pin(trust: type[Trust], fields: Mapping[str, Any], where: str, place: Place, findings: Findings) -> None:
    if fields.get("pin") == "first-use":
        ids = [rule.field for rule in trust.rules if rule.kind is Kind.ID]
        what = f"lets the first use decide, and {where} requires the ids"
        findings.add((*place, "pin"), what, f"Write {' and '.join(ids)} in its place, or {_RAISE}.")


def narrowed_default(
    ceilings: Ceilings, trust: type[Trust], fields: Mapping[str, Any], place: Place, findings: Findings
) -> dict[str, tuple[str, ...]]:
    """What stands for the list of triggers that a publisher leaves out: its provider's default, within the ceiling."""
    triggers = trust.triggers
    bound = None if triggers is None else ceilings.lists.get(triggers.field)
    if triggers is None or bound is None or triggers.field in fields:
        return {}
    default = trust.model_fields[triggers.field].default
    left = tuple(one for one in default if one in bound.value)
    if not left:
        what = f"does not state {triggers.field}, and of the default, {', '.join(default)}, {bound.stands} allows none"
        findings.add(place, what, f"Write `{triggers.field}` with some of {', '.join(bound.value)}, or {_RAISE}.")
    return {triggers.field: left or default}
