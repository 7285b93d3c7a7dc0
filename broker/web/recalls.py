"""Revocations and switches through the API: an operator's for whatever there is, an owner's for their organization.

Laws:

- what an owner revokes or switches reaches what their organization's publishers earn, and nothing of another's;
- no answer tells an owner whether a token, or anything of another organization, is there;
- an owner lifts owners' switches, and not the operator's;
- each change is an alert of the operator's too, so one owner's token makes so many a minute and no more: else it would
  fill the queue in which what others must hear of waits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker import refusals
from broker.api_tokens import ApiToken, Role
from broker.audit import Attempt, new_attempt_id
from broker.exchange import Exchange
from broker.policy.subjects import (
    FORMS,
    SWITCHES,
    organization_of,
    subject_of,
    switch_of,
    unknown_in,
)
from broker.recall import read_moment, read_reason, revoke, revoke_token, subjects_for, switch_off, switch_on
from broker.state import THROWERS, Switch, Thrower
from broker.web.answers import Json, read_body
from broker.web.callers import Callers, bearer

BODY_BYTES: Final = 8 * 1024

OWNERS_REVOKE: Final = ("organization", "publisher", "member", "token")

MOST_CHANGES: Final = 30
"""Of one owner's token in `CHANGES_SECONDS`, by one process; a token that leaked takes nothing from another one."""
CHANGES_SECONDS: Final = 60.0

_ANYBODY: Final[tuple[Role, ...]] = ("owner", "operator")


def routes(callers: Callers) -> list[Route]:
    """`/api/revocations` and `/api/switches`, the same on each host."""
    exchange = callers.exchange
    changes = Changes()

    async def revoke_tokens(request: Request) -> Response:
        async with callers.asks(request, bearer(request), roles=_ANYBODY) as (caller, attempt):
            attempt.kind = "revocation"
            fields = await _fields(request, "revoke", "reason", optional=("before",))
            kind, names = _named(fields["revoke"])
            _check_owner(caller, kind, names)
            if kind == "token" and "before" in fields:
                raise refusals.InvalidBody("'before' is for many tokens, and one is revoked whenever it was minted")
            attempt.reason, before = _reason(fields["reason"]), _moment(fields.get("before"), attempt.started_at)
            changes.count(caller, attempt.started_at)
            done = await _revoke(exchange, caller, attempt, kind, names, before=before)
        return Json({"revoked": done, "minted_until": before, **_note(unknown_in(exchange.policies(), kind, names))})

    async def show(request: Request) -> Response:
        async with callers.asks(request, bearer(request), roles=_ANYBODY) as (caller, _):
            thrown = await exchange.state.switches()
        own = [
            one for one in thrown if caller.role == "operator" or organization_of(one.subject) == caller.organization
        ]
        return Json({"switches": [_told(one) for one in own]})

    async def show_one(request: Request) -> Response:
        kind, name = _path(request)
        async with _asks(callers, request, kind, name):
            return await _standing(exchange, _subject(kind, name))

    async def throw(request: Request) -> Response:
        kind, name = _path(request)
        async with _asks(callers, request, kind, name) as (caller, attempt):
            attempt.kind = "switch"
            subject = _subject(kind, name)
            attempt.reason = _reason((await _fields(request, "reason"))["reason"])
            unknown = unknown_in(exchange.policies(), kind, [name])
            if unknown and caller.role != "operator":  # else what an owner can fill state with has no bound
                raise refusals.UnknownSubject(f"the policies have no {unknown}")
            changes.count(caller, attempt.started_at)
            record = await switch_off(exchange.state, attempt, subject, _thrower(caller))
            exchange.publish_record(attempt, record)
            return await _standing(exchange, subject, unknown)

    async def lift(request: Request) -> Response:
        kind, name = _path(request)
        async with _asks(callers, request, kind, name) as (caller, attempt):
            attempt.kind = "switch"
            subject, by = _subject(kind, name), _lifts(request, caller)
            changes.count(caller, attempt.started_at)
            record = await switch_on(exchange.state, attempt, subject, by)
            if record is not None:
                exchange.publish_record(attempt, record)
            elif by == "owner" and caller.role != "operator" and await exchange.state.switches([subject]):
                raise refusals.SwitchHeld
            return await _standing(exchange, subject)

    one = "/api/switches/{subject:path}"
    return [
        Route("/api/revocations", revoke_tokens, methods=["POST"]),
        Route("/api/switches", show, methods=["GET"]),
        Route(one, show_one, methods=["GET"]),
        Route(one, throw, methods=["PUT"]),
        Route(one, lift, methods=["DELETE"]),
    ]


class Changes:
    """How many changes each owner's token made lately."""

    def __init__(self) -> None:
        """None were made."""
        self._made: dict[str, list[float]] = {}
        """When, by the ids of tokens that were admitted."""

    def count(self, caller: ApiToken, now: float) -> None:
        """Counts one more.

        Raises:
            RateLimited: there were as many as there may be. An operator makes as many as they like.
        """
        if caller.role == "operator":
            return
        lately = [at for at in self._made.get(caller.id, ()) if abs(now - at) < CHANGES_SECONDS]
        if len(lately) >= MOST_CHANGES:
            raise refusals.RateLimited(
                f"an owner's API token makes {MOST_CHANGES} changes in {CHANGES_SECONDS:.0f} s, and no more",
                retry_after_seconds=max(1, math.ceil(lately[0] + CHANGES_SECONDS - now)),
            )
        self._made[caller.id] = [*lately, now]


def _asks(
    callers: Callers, request: Request, kind: str, name: str
) -> AbstractAsyncContextManager[tuple[ApiToken, Attempt]]:
    """Admits whoever may see and switch that: what is no organization's, operators alone."""
    organization = organization_of(f"{kind} {name}")
    roles = _ANYBODY if organization else ("operator",)
    return callers.asks(request, bearer(request), roles=roles, organization=organization)


def _path(request: Request) -> tuple[str, str]:
    """'publisher/acme/widgets-release' -> 'publisher', 'acme/widgets-release'.

    Raises:
        NotFound: there are no such switches.
    """
    kind, _, name = request.path_params["subject"].partition("/")
    if kind not in SWITCHES:
        raise refusals.NotFound(f"there are switches of {', '.join(SWITCHES)}, and no others")
    return kind, name


def _subject(kind: str, name: str) -> str:
    try:
        return switch_of(kind, [name] if name else [])
    except ValueError as error:
        raise refusals.UnknownSubject(str(error)) from error


def _thrower(caller: ApiToken) -> Thrower:
    return "operator" if caller.role == "operator" else "owner"


def _lifts(request: Request, caller: ApiToken) -> Thrower:
    """Whose switch is to be lifted: the caller's, unless an operator names the owner's.

    Raises:
        InvalidQuery: there is no such, or an owner names the operator's.
    """
    asked = request.query_params.get("by", _thrower(caller))
    by = next((one for one in THROWERS if one == asked), None)
    if by is None or (by == "operator" and caller.role != "operator"):
        raise refusals.InvalidQuery("'by' says whose switch is lifted: 'owner', or for operators 'operator' too")
    return by


async def _standing(exchange: Exchange, subject: str, unknown: str = "") -> Response:
    thrown = await exchange.state.switches([subject])
    return Json({"subject": subject, "off": bool(thrown), "switches": [_told(one) for one in thrown], **_note(unknown)})


def _told(switch: Switch) -> dict[str, object]:
    return {"subject": switch.subject, "by": switch.by, "since": switch.at, "reason": switch.reason}


def _note(unknown: str) -> dict[str, str]:
    return {"note": f"the policies have no {unknown}; it was done all the same"} if unknown else {}


# --- Revoking --------------------------------------------------------------------------------------------------------


async def _revoke(
    exchange: Exchange, caller: ApiToken, attempt: Attempt, kind: str, names: Sequence[str], *, before: int
) -> list[str]:
    """Revokes, with a record of each subject.

    Raises:
        UnknownSubject: a member that the policies do not have.
    """
    try:
        subjects = subjects_for(exchange.policies(), kind, names, caller.organization)
    except ValueError as error:
        raise refusals.UnknownSubject(str(error)) from error
    for number, subject in enumerate(subjects):
        one = attempt if number == 0 else replace(attempt, id=new_attempt_id(attempt.started_at), steps=[])
        if subject.startswith("token ") and not caller.organization:
            record = await revoke_token(exchange.state, one, names[0])
        else:
            record = await revoke(exchange.state, one, subject, before)
        exchange.publish_record(one, record)
    return [*subjects]


def _named(text: object) -> tuple[str, list[str]]:
    """'run github 1742' -> 'run', ['github', '1742']

    Raises:
        InvalidBody: it is no text.
        UnknownSubject: it names nothing that there can be.
    """
    if not isinstance(text, str):
        raise refusals.InvalidBody("'revoke' is a text such as 'publisher acme/widgets-release'")
    kind, _, rest = text.partition(" ")
    if kind not in FORMS:
        raise refusals.UnknownSubject(f"what is revoked begins with {', '.join(FORMS)}")
    names = rest.split(" ", len(FORMS[kind].split()) - 1) if rest else []
    try:
        subject_of(kind, names)
    except ValueError as error:
        raise refusals.UnknownSubject(str(error)) from error
    return kind, names


def _check_owner(caller: ApiToken, kind: str, names: Sequence[str]) -> None:
    """Lets an owner pass who revokes what is of the organization alone; whether it is there is not asked.

    Raises:
        RoleNotPermitted, ForeignOrganization
    """
    if caller.role == "operator":
        return
    if kind not in OWNERS_REVOKE:
        raise refusals.RoleNotPermitted(
            f"an owner revokes by {', '.join(OWNERS_REVOKE)}; by {kind}, only an operator does"
        )
    if kind != "token" and organization_of(f"{kind} {names[0]}") != caller.organization:
        raise refusals.ForeignOrganization(f"the API token is for the organization {caller.organization!r} alone")


# --- The body --------------------------------------------------------------------------------------------------------


async def _fields(request: Request, *required: str, optional: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a JSON object that has these and no others.

    Raises:
        InvalidBody, RequestTooLarge
    """
    try:
        fields = json.loads(await read_body(request.scope, request.receive, BODY_BYTES))
    except (ValueError, RecursionError) as error:
        raise refusals.InvalidBody("the body is not JSON") from error
    if not isinstance(fields, dict) or not {*required} <= fields.keys() <= {*required, *optional}:
        may = f", and may have {', '.join(map(repr, optional))}" if optional else ""
        raise refusals.InvalidBody(f"the body is a JSON object with {', '.join(map(repr, required))}{may}")
    return fields


def _reason(value: object) -> str:
    try:
        return read_reason(value if isinstance(value, str) else "")
    except ValueError as error:
        raise refusals.InvalidBody(f"'reason': {error}") from error


def _moment(value: object, now: float) -> int:
    """'2026-11-28T02:00:00Z' in epoch seconds; now where nothing is said.

    Raises:
        InvalidBody: it is no moment, or still to come.
    """
    try:
        return int(now) if value is None else read_moment(value if isinstance(value, str) else "", now)
    except ValueError as error:
        raise refusals.InvalidBody(f"'before': {error}") from error
