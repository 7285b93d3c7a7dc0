"""From pydantic's errors to sentences that an organization's admin can act on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from broker.policy.errors import Findings, Place, shown
from broker.policy.shapes import NAME

Model = TypeVar("Model", bound=BaseModel)

_ELSEWHERE: Final = "The how-to on writing policies shows each field."
_KINDS: Final[dict[type, str]] = {
    bool: "a boolean",
    int: "a number",
    date: "a day",
    str: "text",
    tuple: "a list",
    dict: "a mapping",
}


def validate(
    model: type[Model], value: object, place: Place, findings: Findings, *, also: Iterable[str] = ()
) -> Model | None:
    """Makes a model of plain values, or notes every reason why that cannot be.

    Args:
        also: Fields that stand beside the model's own in the file, for what to suggest in place of an unknown one.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["type"] == "too_short" and detail["input"]:
                continue  # it became empty because of mistakes in its items, which are told
            where = tuple(step for step in detail["loc"] if step != "[key]")
            what, remedy = _sentence(detail, model, (*_fields(model), *also), findings)
            findings.add((*place, *where), what, remedy)
    return None


def _sentence(
    detail: ErrorDetails, model: type[BaseModel], fields: tuple[str, ...], findings: Findings
) -> tuple[str, str]:
    about = _about(_fields(model).get(str(detail["loc"][0]) if detail["loc"] else "root"))
    kind, value = detail["type"], detail["input"]
    if kind == "missing":
        return "is missing", f"Add it. {about}"
    if kind == "extra_forbidden":
        return "is no field here", findings.suggest(detail["loc"][-1], fields, f"The fields here: {', '.join(fields)}.")
    if kind == "literal_error":
        return f"must be {detail['ctx']['expected']}, and is {_what(value)}", "Write one of these."
    if kind == "value_error":
        return reason(detail["ctx"]["error"], value, about)
    sentence = _SENTENCES.get(kind)
    return (
        sentence(value, detail.get("ctx", {}), about)
        if sentence is not None
        else (f"is not what belongs here: {_what(value)}", about)
    )


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """By the names that stand in files: `from` is a word of Python's."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _about(field: FieldInfo | None) -> str:
    """What a field is for, in its own words or in those of its type."""
    if field is None:
        return _ELSEWHERE
    parts = (notes for part in get_args(field.annotation) for notes in getattr(part, "__metadata__", ()))
    described = (one.description for one in (field, *parts) if isinstance(one, FieldInfo))
    return next(filter(None, described), _ELSEWHERE)


def reason(error: Exception, value: object, about: str) -> tuple[str, str]:
    """What a ValueError of our own says: what is wrong, and what to write instead, or else `about`."""
    message = str(error).encode("ascii", "backslashreplace").decode()
    if message.startswith("write "):
        return f"has not the right form: {_what(value)}", f"W{message[1:]}."
    for cut in (": write ", "; "):
        what, found, remedy = message.partition(cut)
        if found:
            remedy = cut.lstrip(":; ") + remedy
            return what, f"{remedy[0].upper()}{remedy[1:]}."
    return message, about


def _what(value: object) -> str:
    """What a value is, as a reader of the file would call it."""
    if isinstance(value, str):
        return f"the text {shown(value)}"
    kind = _KINDS.get(type(value), "of another kind")
    return f"{kind} ({_as_written(value)})" if isinstance(value, bool | int | date) else kind


def _as_written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(value: object, _context: dict[str, Any], about: str) -> tuple[str, str]:
    quoted = isinstance(value, bool | int | date)
    return f"must be text, and is {_what(value)}", f'Write "{_as_written(value)}" in quotes.' if quoted else about


def _flag(value: object, _context: dict[str, Any], _about: str) -> tuple[str, str]:
    return f"must be true or false, and is {_what(value)}", "Write true or false, without quotes."


def _day(value: object, _context: dict[str, Any], _about: str) -> tuple[str, str]:
    return f"must be a day of the calendar, and is {_what(value)}", "Write it as 2027-01-31, without quotes."


def _mapping(value: object, _context: dict[str, Any], _about: str) -> tuple[str, str]:
    return (
        f"must be a mapping of names to values, and is {_what(value)}",
        "Write `name: value` lines under it, indented.",
    )


def _list(value: object, _context: dict[str, Any], _about: str) -> tuple[str, str]:
    return f"must be a list, and is {_what(value)}", "Write [ before it and ] behind it, commas between."


def _empty(_value: object, _context: dict[str, Any], about: str) -> tuple[str, str]:
    return "must not be empty", about


def _long(_value: object, context: dict[str, Any], about: str) -> tuple[str, str]:
    return f"is longer than {context['max_length']} characters", about


def _many(_value: object, context: dict[str, Any], about: str) -> tuple[str, str]:
    return f"has more than {context['max_length']} entries", about


def _form(value: object, context: dict[str, Any], about: str) -> tuple[str, str]:
    if context["pattern"] == NAME:
        remedy = "Use lower-case letters, digits and `-`, beginning with a letter or digit; at most 63."
        return f"has a name that is none here: {shown(value)}", remedy
    return f"has not the right form: {_what(value)}", about


_Sentence = Callable[[object, dict[str, Any], str], tuple[str, str]]
_SENTENCES: Final[dict[str, _Sentence]] = {
    "string_type": _text,
    "dataclass_exact_type": _text,
    "bool_type": _flag,
    "date_type": _day,
    "dict_type": _mapping,
    "model_type": _mapping,
    "tuple_type": _list,
    "too_short": _empty,
    "too_long": _many,
    "string_too_short": _empty,
    "string_too_long": _long,
    "string_pattern_mismatch": _form,
}
