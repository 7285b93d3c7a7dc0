"""The fields of files of test cases, as pydantic models: strict as those of policies are."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from broker.policy.model import Scope
from broker.policy.shapes import Entry, Name, Pattern, Shape

_MOMENT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?"


def moment(value: object) -> float:
    """A day (its beginning) or '2027-01-31T08:00:00Z' -> epoch seconds.

    Raises:
        ValueError: neither, or no such day.
    """
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    if isinstance(value, str) and re.fullmatch(_MOMENT, value) and "T" in value:
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            pass
    raise ValueError("write a day, as 2027-01-31, or a moment in UTC, as 2027-01-31T08:00:00Z")


Moment = Annotated[float, BeforeValidator(moment, json_schema_input_type=Annotated[str, Field(pattern=f"^{_MOMENT}$")])]


class CasesShape(Shape):
    """`tests/*.yaml`: what CI jobs should and should not get from the policies beside it."""

    templates: dict[Name, Entry] = Field(default={}, description="Claims that several cases begin with, by name.")
    cases: dict[str, Entry] = Field(min_length=1, description="Each named by a sentence that says what it promises.")


class TemplateShape(Shape):
    """Claims of a valid run at an issuer, changed to be those of one source."""

    issuer: str = Field(
        description="The name of an issuer in index.yaml: the claims are an example of its provider's, with its URL."
    )
    changes: dict[str, Any] = Field(
        default={}, description="Claims to be different; those that follow from a changed one follow it."
    )
    without: tuple[str, ...] = Field(default=(), description="Claims to be left out.")
    at: Moment | None = Field(
        default=None, description="The moment of the decision: a day, or 2027-01-31T08:00:00Z. Without it, now."
    )


class CaseShape(Shape):
    """One job, and what it should get: `allow` with projects, or `refuse` with a code."""

    template: str | None = Field(
        default=None, description="One of `templates`, or the name of an issuer in index.yaml."
    )
    claims: dict[str, Any] | None = Field(default=None, description="In place of a template: all claims of a token.")
    changes: dict[str, Any] = Field(
        default={}, description="Claims to be different; those that follow from a changed one follow it."
    )
    without: tuple[str, ...] = Field(default=(), description="Claims to be left out.")
    at: Moment | None = Field(
        default=None, description="The moment of the decision: a day, or 2027-01-31T08:00:00Z. Without it, now."
    )
    pins: dict[str, dict[str, str]] = Field(
        default={},
        description="What first uses recorded: publisher (`acme/widgets-release`) to field to id. Without it, nothing.",
    )
    scope: Scope = Field(default="upload", description="What is asked for: to upload, or to read.")
    allow: tuple[Pattern, ...] | None = Field(
        default=None, min_length=1, description="Allowed, and the grant is exactly these projects."
    )
    refuse: str | None = Field(default=None, description="Refused, with this code.")
