"""When the meaning of policies changes by itself: at every other moment, an identity gets what it got before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

from broker.policy.model import Organization, Publisher


def moments(organizations: Iterable[Organization], publishers: Iterable[Publisher], now: float) -> tuple[float, ...]:
    """From `now` on, the moments (epoch seconds) at which some of these publishers may give something else.

    `now` comes first, and between two that follow each other nothing changes. Whatever makes a decision depend on the
    clock belongs in here, or `broker plan` does not see it.

    Args:
        organizations: The publishers' own, for what holds for all of an organization.
    """
    turns = {*_of_publishers(publishers), *(turn for one in organizations for turn in _of_organization(one))}
    return (now, *sorted(turn for turn in turns if turn > now))


def _of_organization(organization: Organization) -> Iterator[float]:
    for freeze in organization.freezes:
        yield from (moment for moment in (freeze.begins, freeze.ends) if math.isfinite(moment))
    yield from _ends(member.until for member in organization.members.values())


def _of_publishers(publishers: Iterable[Publisher]) -> Iterator[float]:
    yield from _ends(publisher.until for publisher in publishers)


def _ends(days: Iterable[date | None]) -> Iterator[float]:
    """The first moment (UTC) after each last day."""
    for day in days:
        if day is not None and day < date.max:
            yield datetime.combine(day + timedelta(days=1), time(), UTC).timestamp()
