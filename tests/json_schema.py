"""A small judge of JSON Schema (2020-12): the keywords that our schemas use, and no others.

It stands in for a library. An unknown keyword is an error, so that nothing is passed over in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, Final

SILENT: Final = frozenset({"$schema", "$defs", "title", "description", "default", "then", "additionalProperties"}) | {
    "properties",
    "patternProperties",
}
"""What asks nothing by itself; that of properties is asked together."""

TYPES: Final[dict[str, type]] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}

FITS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "type": lambda value, told: type(value) is TYPES[told],
    "const": lambda value, told: bool(value == told),
    "enum": lambda value, told: value in told,
    "pattern": lambda value, told: not isinstance(value, str) or re.search(told, value) is not None,
    "format": lambda value, told: (
        told == "date" and (not isinstance(value, str) or re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None)
    ),
    "minLength": lambda value, told: not isinstance(value, str) or len(value) >= told,
    "maxLength": lambda value, told: not isinstance(value, str) or len(value) <= told,
    "minItems": lambda value, told: not isinstance(value, list) or len(value) >= told,
    "maxItems": lambda value, told: not isinstance(value, list) or len(value) <= told,
    "minProperties": lambda value, told: not isinstance(value, dict) or len(value) >= told,
    "required": lambda value, told: not isinstance(value, dict) or value.keys() >= set(told),
}
"""Keywords that hold no other schemas."""


def as_json(value: Any) -> Any:
    """What an editor sees of a value that was read from YAML: days are text to it."""
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value


def mistakes(value: Any, schema: dict[str, Any] | bool, root: dict[str, Any], place: str = "") -> Iterator[str]:
    """Where and by which keyword a value does not fit: 'publishers.a.workflow: type'."""
    if isinstance(schema, bool):
        if not schema:
            yield f"{place}: unknown"
        return
    for keyword, told in schema.items():
        if keyword in FITS:
            if not FITS[keyword](value, told):
                yield f"{place}: {keyword}"
        elif keyword not in SILENT:
            yield from _within(value, keyword, told, schema, root=root, place=place)
    if isinstance(value, dict):
        yield from _properties(value, schema, root, place)


def _within(
    value: Any, keyword: str, told: Any, schema: dict[str, Any], *, root: dict[str, Any], place: str
) -> Iterator[str]:
    match keyword:
        case "items":
            for at, item in enumerate(value if isinstance(value, list) else []):
                yield from mistakes(item, told, root, f"{place}[{at}]")
        case "$ref":
            yield from mistakes(value, root["$defs"][told.removeprefix("#/$defs/")], root, place)
        case "allOf":
            for one in told:
                yield from mistakes(value, one, root, place)
        case "anyOf":
            yield from min((list(mistakes(value, one, root, place)) for one in told), key=len)
        case "oneOf":
            if sum(not any(mistakes(value, one, root, place)) for one in told) != 1:
                yield f"{place}: oneOf"
        case "if":
            if not any(mistakes(value, told, root, place)):
                yield from mistakes(value, schema["then"], root, place)
        case _:
            raise AssertionError(f"the keyword {keyword!r} at {place!r} is not known here")


def _properties(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], place: str) -> Iterator[str]:
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, one in value.items():
        inner = f"{place}.{key}".lstrip(".")
        fitting = [told for pattern, told in patterns.items() if re.search(pattern, key)]
        if key in named:
            fitting.append(named[key])
        for told in fitting or [schema.get("additionalProperties", True)]:
            yield from mistakes(one, told, root, inner)
