"""Which audit records somebody asks for, and what of them an owner of the organization may see. It fetches none.

A record is kept for one organization, and an attempt can concern several: a repository that two have publishers for.
Then each has a record of it, and what that says of the others is withheld from the one's owners.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self, get_args

from pydantic_core import from_json

from broker import refusals
from broker.audit import OF_ALL, OF_SEVERAL, Kind
from broker.patterns import Projects, normalise

MOST_CONDITIONS: Final = 40
"""Values of all filters together."""

LONGEST_VALUE: Final = 300

_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)

_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")

Fields = Mapping[str, Any]

Filter = Callable[[Fields, Collection[str]], bool]
"""Whether a record has any one of these values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Whose records are asked for, and which of them."""

    organization: str | None
    """None asks for all, those of no organization too."""
    conditions: tuple[tuple[str, frozenset[str]], ...] = ()
    """Filters by their names; each admits what has any one of its values."""
    since: datetime | None = None
    until: datetime | None = None
    """Of the attempt's moment; the first is in, the last is out."""

    @classmethod
    def parse(cls, organization: str | None, asked: Iterable[tuple[str, str]]) -> Self:
        """Reads filters as a query string has them: a name can stand several times.

        Raises:
            InvalidQuery: there is no such filter, or its value is none. What is not understood is not passed over, for
                then more would be answered than was asked for.
        """
        values: dict[str, set[str]] = {}
        moments: dict[str, datetime] = {}
        for number, (name, text) in enumerate(asked):
            if number >= MOST_CONDITIONS or not 1 <= len(text) <= LONGEST_VALUE:
                raise refusals.InvalidQuery(
                    f"filters have at most {MOST_CONDITIONS} values, of 1 to {LONGEST_VALUE} characters"
                )
            if name in MOMENTS and name not in moments:
                moments[name] = _moment(name, text)
            elif name in FILTERS:
                values.setdefault(name, set()).add(_checked(name, text))
            else:
                raise refusals.InvalidQuery(
                    f"{name[:50]!r} stands twice" if name in MOMENTS else f"{name[:50]!r} is no filter of records"
                )
        conditions = tuple(sorted((name, frozenset(found)) for name, found in values.items()))
        return cls(organization=organization, conditions=conditions, **moments)

    @property
    def fingerprint(self) -> str:
        """Tells this query from any other."""
        moments = [moment and moment.timestamp() for moment in (self.since, self.until)]
        told = [self.organization, [(name, sorted(values)) for name, values in self.conditions], moments]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    def admits(self, organization: str, body: str) -> bool:
        """Whether a record is asked for.

        A body that is no record, as one that somebody altered, is admitted where nothing is asked of it: who verifies
        the whole then sees it.
        """
        if self.organization is not None and organization != self.organization:
            return False
        if not self.conditions and self.since is None and self.until is None:
            return True
        fields = parse(body)
        return self._is_in_time(fields) and all(FILTERS[name](fields, values) for name, values in self.conditions)

    def _is_in_time(self, fields: Fields) -> bool:
        if self.since is None and self.until is None:
            return True
        try:
            at = datetime.fromisoformat(fields["at"])
            begun, over = self.since is None or at >= self.since, self.until is not None and at >= self.until
        except (KeyError, TypeError, ValueError):
            return False
        return begun and not over


def parse(body: str) -> dict[str, Any]:
    """A record's fields; none where it is no record."""
    try:
        fields = from_json(body)
    except ValueError:
        try:  # what pydantic's parser refuses: lone surrogates, which a token may claim
            fields = json.loads(body)
        except (ValueError, RecursionError):
            return {}
    return fields if isinstance(fields, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(fields: Fields, name: str) -> Sequence[str]:
    found = fields.get(name)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else ()


def _is(name: str) -> Filter:
    return lambda fields, values: _text(fields.get(name)) in values


def _inner_is(outer: str, *names: str) -> Filter:
    def fits(fields: Fields, values: Collection[str]) -> bool:
        found = fields.get(outer)
        return isinstance(found, dict) and any(_text(found.get(name)) in values for name in names)

    return fits


def _has_member(fields: Fields, values: Collection[str]) -> bool:
    return any(one in values for one in _texts(fields, "members"))


def _has_publisher(fields: Fields, values: Collection[str]) -> bool:
    """Of those that earned something, and where it was refused, of those that were looked at."""
    considered = (one.split(": ", 1)[0] for one in _texts(fields, "considered"))
    return any(one in values for one in (*_texts(fields, "publishers"), *considered))


def _concerns(fields: Fields, values: Collection[str]) -> bool:
    """Whether any of these projects is the record's, or one that its grant covers."""
    told = [_text(fields.get("project")), *_texts(fields, "projects")]
    return any(_pattern(one).covers(project) for one in told if one for project in values)


def _pattern(told: str) -> Projects:
    return Projects(told[:-1], is_prefix=True) if told.endswith("-*") else Projects(told)


FILTERS: Final[Mapping[str, Filter]] = {
    "kind": _is("kind"),
    "decision": _is("decision"),
    "code": _is("code"),
    "issuer": _is("issuer"),
    "attempt": _is("attempt"),
    "token_id": _is("token_id"),
    "filename": _is("filename"),
    "sha256": _is("sha256"),
    "publisher": _has_publisher,
    "project": _concerns,
    "member": _has_member,
    "actor": _inner_is("identity", "actor_id", "actor_name"),
    "caller": _inner_is("caller", "token"),
}
"""What can be asked of records, by the names that queries have for it."""

KNOWN: Final[Mapping[str, Sequence[str]]] = {"kind": get_args(Kind), "decision": ("allowed", "refused")}
"""All values of the filters that have few."""

MOMENTS: Final = ("since", "until")


def _moment(name: str, text: str) -> datetime:
    try:
        if _RFC_3339.fullmatch(text):
            return datetime.fromisoformat(text.upper())
    except ValueError:
        pass
    raise refusals.InvalidQuery(
        f"{name!r} is a moment with its zone, 2026-11-28T02:00:00Z; a `+` in a URL is written `%2B`"
    )


def _checked(name: str, text: str) -> str:
    """A value as it is compared. One that no record can have is a slip, and would find nothing."""
    if name in KNOWN and text not in KNOWN[name]:
        raise refusals.InvalidQuery(f"{name!r} is one of {', '.join(KNOWN[name])}")
    if name == "sha256":
        if not _SHA256.fullmatch(text):
            raise refusals.InvalidQuery("'sha256' is 64 hexadecimal digits")
        return text.lower()
    return _normalised(text) if name == "project" else text


def _normalised(text: str) -> str:
    try:
        return normalise(text)
    except ValueError as error:
        raise refusals.InvalidQuery(f"'project': {error}") from error


# --- What an owner sees ----------------------------------------------------------------------------------------------


def seen_by_owner(organization: str, body: str) -> tuple[str, Sequence[str]]:
    """A record as an owner of its organization may see it, and the names of the fields that are not the whole truth.

    It is the exact text, unless it says something of another organization.
    """
    fields = parse(body)
    own = f"{organization}/"
    foreign = [name for name in OF_SEVERAL if any(not one.startswith(own) for one in _texts(fields, name))]
    if not foreign:
        return body, ()
    # Where each of several has a record, the projects in one's are its own.
    together = [*OF_ALL, *([] if "shared_with" in fields else ["projects"])]
    withheld = [*foreign, *(name for name in together if name in fields)]
    told = {name: value for name, value in fields.items() if name not in withheld}
    told |= {name: kept for name in foreign if (kept := [one for one in _texts(fields, name) if one.startswith(own)])}
    return json.dumps(told, separators=(",", ":")), withheld
