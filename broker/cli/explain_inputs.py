"""What `broker explain` can be asked about: a token, claims, or an attempt that was recorded."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from broker.cli.state import open_existing
from broker.policy import matching
from broker.policy.errors import shown, shown_path
from broker.policy.matching import Pins
from broker.policy.model import Policies, Scope
from broker.policy.rehearsal import Rehearsal, rehearse, rehearse_again
from broker.providers import Identity
from broker.refusals import MalformedToken, Refusal, StateUnavailable, every
from broker.tokens import LEEWAY_SECONDS, LONGEST_TOKEN, peek

LARGEST_INPUT: Final = 4 * LONGEST_TOKEN
"""Characters of a file with claims; of a token, the broker reads a quarter of that."""

MOST_RECORDS: Final = 100_000
"""Of the newest, among which an attempt is looked for."""

_LAST_MOMENT: Final = 253_402_300_799
"""The end of the year 9999, behind which there is no date."""

_TOKEN = re.compile(r"(?:pypi-)?eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_.=-]*")


class InputError(Exception):
    """What was given cannot be used; the message says why, without a full stop, and never holds a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A decision, and what must be said beside it."""

    rehearsal: Rehearsal
    notes: tuple[str, ...] = ()
    """What a mint asks and was not asked here, and what it would find."""
    assumed: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = field(default=None, repr=False)
    """What was recorded of the attempt."""


def of_token(file: str, policies: Policies, audience: str, now: float, *, scope: Scope) -> Told:
    """A token in a file, or in standard input for '-'.

    Raises:
        InputError: there is none.
    """
    try:
        token = peek(_read(file).strip())
    except Refusal as refusal:
        raise InputError(f"{refusal.code}: {refusal.detail}") from refusal
    return _of_payload(token.payload, policies, audience, now, scope=scope)


def of_claims(file: str, policies: Policies, audience: str, now: float, *, scope: Scope) -> Told:
    """The claims of a token as JSON, likewise.

    Raises:
        InputError: there are none.
    """
    try:
        claims = json.loads(_read(file))
    except (ValueError, RecursionError) as error:
        raise InputError("the claims are not JSON") from error
    if not isinstance(claims, dict):
        raise InputError("the claims must be a JSON object")
    return _of_payload(claims, policies, audience, now, scope=scope)


def _read(file: str) -> str:
    if _TOKEN.fullmatch(file):
        raise InputError(
            "that is a token, and what stands on a command line stays in the shell's history: name a file that holds "
            "it, or send it to standard input and write -"
        )
    try:
        if file == "-":
            text = sys.stdin.read(LARGEST_INPUT + 1)
        else:
            with Path(file).open(encoding="utf-8") as stream:
                text = stream.read(LARGEST_INPUT + 1)
    except OSError as error:
        raise InputError(f"{shown_path(file)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{shown_path(file)} is not UTF-8 text") from error
    if len(text) > LARGEST_INPUT:
        raise InputError(f"{shown_path(file)} is longer than {LARGEST_INPUT} characters")
    return text


def _of_payload(claims: Mapping[str, Any], policies: Policies, audience: str, now: float, *, scope: Scope) -> Told:
    notes = ["The signature is NOT verified: anybody can write these claims.", *_registered(claims, audience, now)]
    return Told(rehearsal=rehearse(policies, claims, now=now, scope=scope), notes=tuple(notes))


def _registered(claims: Mapping[str, Any], audience: str, now: float) -> list[str]:
    """What `verify` would find in the registered claims."""
    told = claims.get("aud")
    if told is None:
        notes = ["aud is absent: a mint refuses."]
    elif not audience:
        notes = [f"aud is {shown(told)}; name the broker's by --audience to have it compared."]
    else:
        notes = [
            f"aud is {shown(told)}, {'as it must be' if told == audience else f'not {audience!a}: a mint refuses'}."
        ]
    return [*notes, *(_moment(name, claims.get(name), now) for name in ("iat", "exp"))]


def _moment(name: str, value: object, now: float) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LAST_MOMENT:
        return f"{name} is {'absent' if value is None else shown(value)}: a mint refuses."
    if name == "iat":
        verdict = "in the future: a mint refuses" if now < value - LEEWAY_SECONDS else "past, as it must be"
    else:
        verdict = "past: a mint refuses" if now >= value + LEEWAY_SECONDS else "still to come, as it must be"
    return f"{name} is {datetime.fromtimestamp(value, UTC):%Y-%m-%dT%H:%M:%SZ}, {verdict}."


def of_attempt(attempt: str, url: str, policies: Policies, now: float, *, scope: Scope | None) -> Told:
    """What was recorded of an attempt, and what today's policies say to the same identity.

    Args:
        url: Where state is kept.
        scope: None for the attempt's own.

    Raises:
        InputError: state cannot be read, or holds no such attempt.
    """
    try:
        record, identity, pins = asyncio.run(_recorded(attempt, url, policies))
    except StateUnavailable as refusal:
        why = refusal.__cause__ or "no answer in time"
        raise InputError(f"state cannot be read ({why}): name it by --state or BROKER_STATE_URL") from refusal
    except ValueError as error:
        raise InputError(str(error)) from error
    # Records say it where it is not the upload's (`Attempt.as_fields`).
    scope = scope or ("read" if record.get("scope") == "read" else "upload")
    if identity is None:
        # What was said then is all that can be said: policies are asked about an identity.
        kind = next((one for one in every() if one.code == record.get("code")), MalformedToken)
        note = "No identity was recorded, for the attempt ended before: today's policies were not asked."
        ended = Rehearsal(scope=scope, refusal=kind(record.get("detail", "")))
        return Told(rehearsal=ended, notes=(note,), record=record)
    return Told(rehearsal=rehearse_again(policies, identity, now=now, pins=pins, scope=scope), record=record)


async def _recorded(attempt: str, url: str, policies: Policies) -> tuple[dict[str, Any], Identity | None, Pins]:
    state = open_existing(url)
    try:
        found = (json.loads(body) for body in await state.records(MOST_RECORDS) if attempt in body)
        record = next((one for one in found if one.get("attempt") == attempt), None)
        if record is None:
            raise ValueError(f"there is no attempt {shown(attempt)} among the newest {MOST_RECORDS} records")
        identity = _identity(record, policies)
        pinned = () if identity is None else matching.pinned_on_first_use(matching.candidates(policies, identity))
        return record, identity, await state.pins(pinned) if pinned else {}
    finally:
        await state.close()


def _identity(record: Mapping[str, Any], policies: Policies) -> Identity | None:
    claims = record.get("identity")
    if not claims:
        return None
    issuer = policies.issuers.get(claims["issuer"])
    if issuer is None:
        raise ValueError(f"today's policies have no issuer {shown(claims['issuer'])}, whose run this was")
    try:
        return issuer.provider.trust.identity.from_claims(claims)
    except TypeError as error:
        raise ValueError("the record is of another version of the broker, or the issuer of another kind now") from error
