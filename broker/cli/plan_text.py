"""A plan as text, as Markdown for a comment, and as JSON (docs/reference/plan.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

from broker.policy.errors import counted
from broker.policy.plan import Change, Plan
from broker.policy.plan_words import Condition

FORMAT_VERSION: Final = 1
"""Of the JSON. Fields are only ever added; a change to one is a new version."""

MOST_LINES: Final = 200
"""Of changes, in text and Markdown: a comment has a largest size, and nobody reads more."""

_WORDS: Final = {"gained": ("can now", "and"), "lost": ("can no longer", "or")}
_VERBS: Final = {"upload": "publish", "read": "read"}


def as_text(plan: Plan) -> str:
    """For a terminal."""
    return "\n".join(_lines(plan, heading="{}".format, strong=str, code=str))


def as_markdown(plan: Plan) -> str:
    """For a comment on a pull request."""
    return "\n".join(_lines(plan, heading="\n### {}\n".format, strong=_strong, code=_code)).strip()


def as_json(plan: Plan) -> str:
    """For programs."""
    fields: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "old": plan.old,
        "new": plan.new,
        "widened": plan.widened,
        "changes": [_fields(one) for one in plan.changes],
        "settings": [
            {"path": one.path, "before": one.before, "after": one.after, "wider": one.wider} for one in plan.settings
        ],
    }
    return json.dumps(fields, indent=2)


_Style = Callable[[str], str]


def _lines(plan: Plan, *, heading: _Style, strong: _Style, code: _Style) -> Iterator[str]:
    yield heading(_summary(plan))
    ordered = sorted(plan.changes, key=lambda one: (one.publisher.organization, one.effect, one.publisher.name))
    for organization, changes in groupby(ordered[:MOST_LINES], key=lambda one: one.publisher.organization):
        yield heading(organization)
        for change in changes:
            yield f"- {_told(change, strong=strong, code=code)}"
    if len(ordered) > MOST_LINES:
        yield f"\n... and {counted(len(ordered) - MOST_LINES, 'change')} more: `broker plan --format json` lists all."
    if plan.settings:
        yield heading("Settings")
    for one in plan.settings:
        wider = " (wider)" if one.wider else ""
        yield f"- {code(one.path)}: {one.before or 'not there'} → {one.after or 'not there'}{wider}"


def _summary(plan: Plan) -> str:
    if not plan.changes and not plan.settings:
        return "No run of any job is decided otherwise."
    gained = sum(one.effect == "gained" for one in plan.changes)
    verdict = "Access is widened" if plan.widened else "Access is not widened"
    return f"{verdict}: {gained} gained, {len(plan.changes) - gained} lost, {counted(len(plan.settings), 'setting')}."


def _told(change: Change, *, strong: _Style, code: _Style) -> str:
    who = _listed([f"{strong(one.name)} ({'machine, ' if one.machine else ''}{one.role})" for one in change.members])
    what = _listed([code(one) for one in change.projects])
    source = [
        f"from {change.issuer.name} {' '.join(code(one.any_of[0] or '') for one in change.conditions if one.is_name)}",
        *(_condition(one, code) for one in change.conditions if not one.is_name),
    ]
    if change.unattended is not None and any(one.machine for one in change.members):
        source.append("in runs that nobody started" if change.unattended else "in runs that somebody started")
    can, word = _WORDS[change.effect]
    does = f"{can} {_listed([_VERBS[one] for one in change.scopes], word)}"
    when = _listed([_period(*one) for one in change.periods])
    if change.effect == "gained" and change.publisher.trust.pin is not None:
        source.append("whoever has these names first")
    return f"{who} {does} {what} {', '.join(source)}{f'; {when}' if when else ''} ({change.publisher.id})"


def _condition(condition: Condition, code: _Style) -> str:
    any_of, none_of = (
        _listed([code(one) if one is not None else "absent" for one in told], "or")
        for told in (condition.any_of, condition.none_of)
    )
    if not condition.any_of:
        return f"any {condition.field} but {none_of}" if condition.none_of else f"some {condition.field}"
    return f"{condition.field} {any_of}{f' but not {none_of}' if condition.none_of else ''}"


def _period(start: float | None, end: float | None) -> str:
    """(None, the first moment of February) -> 'until 2027-01-31'."""
    parts = []
    if start is not None:
        parts.append(f"from {_moment(start)}")
    if end is not None:
        whole_day = datetime.fromtimestamp(end, UTC).time().isoformat() == "00:00:00"
        last = datetime.fromtimestamp(end, UTC).date() - timedelta(days=1)
        parts.append(f"until {last.isoformat() if whole_day else _moment(end)}")
    return " ".join(parts)


def _moment(at: float) -> str:
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
    return text.removesuffix("T00:00Z")


def _listed(items: list[str], word: str = "and") -> str:
    """['a', 'b', 'c'] -> 'a, b and c'."""
    return f" {word} ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))


def _strong(text: str) -> str:
    return f"**{text}**"


def _code(text: str) -> str:
    """As code, whatever it holds: a policy's text must not write Markdown of its own into a comment."""
    fence = "`" * (max((len(list(run)) for letter, run in groupby(text) if letter == "`"), default=0) + 1)
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _fields(change: Change) -> dict[str, Any]:
    return {
        "effect": change.effect,
        "scopes": change.scopes,
        "organization": change.publisher.organization,
        "publisher": change.publisher.name,
        "issuer": {"name": change.issuer.name, "url": change.issuer.url},
        "members": [
            {"name": one.name, "role": one.role, "machine": one.machine, "id": one.ids[change.issuer.name]}
            for one in change.members
        ],
        "projects": list(change.projects),
        "conditions": [
            {"field": one.field, "any_of": one.any_of, "none_of": one.none_of, "narrowed": one.narrowed}
            for one in change.conditions
        ],
        "unattended": change.unattended,
        "periods": [{"from": _iso(start), "until": _iso(end)} for start, end in change.periods],
        "first_use": change.publisher.trust.pin is not None,
        "example": {
            "identity": change.example.identity.as_claims(),
            "scope": change.example.scope,
            "project": change.example.project,
            "at": _iso(change.example.at),
        },
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
