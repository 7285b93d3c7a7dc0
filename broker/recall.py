"""Taking back: minted tokens are made worthless, and what could earn new ones is switched off, each with its record.

It holds at every replica once the call has returned: whatever uses a token, and whatever settles an exchange, asks
state, and keeps nothing of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from broker.audit import Attempt, Record
from broker.policy.model import LONGEST_LIFETIME_SECONDS, Policies
from broker.policy.subjects import ids_of, organization_of
from broker.state import State, Switch, Thrower

LONGEST_REASON: Final = 500


def read_reason(text: str) -> str:
    """Why, in words that a record and a log can hold.

    Raises:
        ValueError: it is empty, longer than `LONGEST_REASON`, or more than one line.
    """
    if not text.strip() or not text.isprintable() or len(text) > LONGEST_REASON:
        raise ValueError(f"write one line, of at most {LONGEST_REASON} characters")
    return text


def read_moment(text: str, now: float) -> int:
    """A moment such as '2026-11-28T02:00:00Z', in epoch seconds.

    Raises:
        ValueError: it is none, without its zone, or still to come.
    """
    try:
        told = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("write a moment such as 2026-11-28T02:00:00Z") from error
    if told.tzinfo is None:
        raise ValueError("say the time zone too: 2026-11-28T02:00:00Z")
    if told.timestamp() > now:
        raise ValueError("it is still to come: tokens that are not minted yet cannot be revoked")
    return int(told.timestamp())


def subjects_for(policies: Policies, kind: str, names: Sequence[str], owner: str = "") -> tuple[str, ...]:
    """What is to be revoked, as tokens have it among their subjects.

    Args:
        kind: One of `FORMS`.
        names: As `subject_of` takes them.
        owner: The organization whose owner asks: then nothing is reached that another's publishers earned.

    Raises:
        ValueError: a member is meant that the policies do not have.
    """
    if kind == "member":
        ids = ids_of(policies, names[0])
        organization = names[0].split("/")[0]
        named = (
            f"member {organization}/{issuer}/{one}" if owner else f"actor {issuer} {one}" for issuer, one in ids.items()
        )
        return tuple(named)
    if kind == "token" and owner:
        return (f"token {owner}/{names[0]}",)
    return (" ".join((kind, *names)),)


async def revoke(state: State, attempt: Attempt, subject: str, before: int) -> Record:
    """Revokes all of a subject's tokens that were minted until a moment.

    Raises:
        StateUnavailable: that could not be kept, and the same of the functions below.
    """
    attempt.revoked, attempt.minted_until = subject, before
    record = _noted(attempt, subject)
    await state.revoke_subject(subject, before, record)
    return record


async def revoke_token(state: State, attempt: Attempt, token_id: str) -> Record:
    """Revokes one token, whatever it was earned by."""
    attempt.revoked, attempt.token_id = f"token {token_id}", token_id
    record = _noted(attempt, attempt.revoked)
    await state.revoke(token_id, int(attempt.started_at) + LONGEST_LIFETIME_SECONDS, record)
    return record


async def switch_off(state: State, attempt: Attempt, subject: str, by: Thrower) -> Record:
    """Switches a subject off."""
    attempt.switched_off, attempt.by = subject, by
    record = _noted(attempt, subject)
    switch = Switch(subject=subject, by=by, at=int(attempt.started_at), reason=attempt.reason)
    await state.switch_off(switch, record)
    return record


async def switch_on(state: State, attempt: Attempt, subject: str, by: Thrower) -> Record | None:
    """Lifts a switch; None where they have thrown none."""
    attempt.switched_on, attempt.by = subject, by
    record = _noted(attempt, subject)
    return record if await state.switch_on(subject, by, record) else None


def _noted(attempt: Attempt, subject: str) -> Record:
    attempt.owner = organization_of(subject) or attempt.owner
    return attempt.record()
