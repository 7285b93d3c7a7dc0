"""`freezes`: times in which organizations publish nothing, from either kind of file.

A day counts whole, in UTC; a moment to the second. Without `from` a freeze holds from when it is loaded, without
`until` until it is removed: what somebody forgets to write freezes more, never less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Final, TypeVar

from broker.policy.errors import Findings, Place
from broker.policy.model import Freeze
from broker.policy.shapes import MOST_FREEZES, FreezeShape
from broker.policy.validation import validate

_DAY_SECONDS: Final = 24 * 3600

Shaped = TypeVar("Shaped", bound=FreezeShape)


def read_freezes(
    shape: type[Shaped], values: Mapping[str, Any], findings: Findings, *, by_operator: bool = False
) -> Iterator[tuple[Freeze, Shaped, Place]]:
    """Each entry of the list that is well written, with where it stands; mistakes are noted and left out."""
    found = values.get("freezes")
    for at, fields in enumerate(found[:MOST_FREEZES] if isinstance(found, tuple) else ()):
        place: Place = ("freezes", at)
        shaped = validate(shape, fields, place, findings) if isinstance(fields, dict) else None
        if shaped is None:
            continue
        freeze = Freeze(
            reason=shaped.reason, begins=_begins(shaped.from_), ends=_ends(shaped.until), by_operator=by_operator
        )
        if freeze.begins >= freeze.ends:
            what = "is not after `from`, so that this freezes nothing"
            findings.add((*place, "until"), what, "Correct one of the two; without `from`, it begins at once.")
        yield freeze, shaped, place


def _begins(moment: date | None) -> float:
    return -math.inf if moment is None else _start(moment)


def _ends(moment: date | None) -> float:
    """The first moment that is not frozen: a day is frozen to its end, a moment is when the freeze is over."""
    if moment is None:
        return math.inf
    return _start(moment) + (0 if isinstance(moment, datetime) else _DAY_SECONDS)


def _start(moment: date) -> float:
    whole = moment if isinstance(moment, datetime) else datetime.combine(moment, time(), UTC)
    return whole.timestamp()
