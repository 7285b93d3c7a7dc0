"""For registries that ask: metadata (RFC 8414), introspection (RFC 7662), revocation (RFC 7009); and for clients that
speak OAuth, the exchange as RFC 8693.

Introspection asks what the gateway asks at an upload: signature and time, revocation, and both gates at this moment. So
a registry that verifies for itself, and asks, refuses whoever was removed since the mint.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

from packaging.version import Version
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker import refusals
from broker.api_tokens import Role, ShownToken
from broker.exchange import Exchange, MintRequest, read_scope
from broker.minting import Narrowing
from broker.patterns import normalise
from broker.tokens import LONGEST_TOKEN
from broker.web.answers import REFUSAL, Json, read_body, refusal_body, tell_operator
from broker.web.callers import Callers
from broker.web.index import Index

FORM_BYTES: Final = 4 * LONGEST_TOKEN
"""The longest upload token has 32 KiB."""

MOST_FIELDS: Final = 16

LONGEST_NARROWING: Final = 200
"""Characters of a project or a version: they are kept in the token and the record."""

MOST_FILES: Final = 100
"""Digests that a token can be narrowed to: their text must fit the form, and the token."""

TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
SUBJECT_TYPES: Final = ("urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:jwt")

_INTERNAL: Final = 500

_REGISTRIES: Final[tuple[Role, ...]] = ("registry",)


def routes(indexes: Sequence[Index], callers: Callers) -> list[Route]:
    """The routes of one host's indexes. At the root they are the default's; the exchange serves all of them.

    A registry asks at its own route: there, another index's tokens are not active.
    """

    async def metadata(_: Request) -> Response:
        return Json(_metadata(indexes[0].exchange))

    async def token(request: Request) -> Response:
        exchange, asked, scope = await _asked(request, indexes)
        minted = await exchange.mint(asked, request.scope["attempt"], request.scope["source"])
        return Json(
            {
                "access_token": minted.text,
                "issued_token_type": ACCESS_TOKEN,
                "token_type": "Bearer",
                "expires_in": max(minted.expires_at - int(exchange.clock()), 0),
                "scope": scope,
                "attempt": request.scope["attempt"],
            }
        )

    async def revoke(request: Request) -> Response:
        form = await _form(request)
        await _authenticate(request, form, callers)
        text = _required(form, "token")
        for index in indexes:
            if await index.exchange.burn(text, request.scope["attempt"], request.scope["source"]):
                break
        return Json({})

    return [
        Route("/.well-known/oauth-authorization-server", metadata, methods=["GET"]),
        Route("/oauth2/token", _in_oauth(token), methods=["POST"]),
        Route("/oauth2/revoke", _in_oauth(revoke), methods=["POST"]),
        *(_introspection_route(index, callers) for index in indexes),
    ]


def _metadata(exchange: Exchange) -> dict[str, Any]:
    root = exchange.minter.issuer
    methods = ["client_secret_basic", "client_secret_post"]
    return {
        "issuer": root,
        "token_endpoint": f"{root}/oauth2/token",
        "jwks_uri": f"{root}/.well-known/jwks.json",
        "scopes_supported": list(exchange.scopes),
        "response_types_supported": [],
        "grant_types_supported": [TOKEN_EXCHANGE],
        "token_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint": f"{root}/oauth2/introspect",
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint": f"{root}/oauth2/revoke",
        "revocation_endpoint_auth_methods_supported": methods,
    }


def _introspection_route(index: Index, callers: Callers) -> Route:
    async def introspect(request: Request) -> Response:
        form = await _form(request)
        await _authenticate(request, form, callers)
        return Json(await introspection(index.exchange, _required(form, "token"), request.scope["attempt"]))

    path = "/oauth2/introspect" if index.is_default else f"{index.base}/introspect"
    return Route(path, _in_oauth(introspect), methods=["POST"])


async def _asked(request: Request, indexes: Sequence[Index]) -> tuple[Exchange, Awaitable[MintRequest], str]:
    """Which index a token exchange is for, what it asks, and for which scope. What is wrong is part of the attempt."""

    async def asks(form: Mapping[str, str]) -> MintRequest:
        return _exchange(form)

    async def fails(refusal: refusals.Refusal) -> MintRequest:
        raise refusal

    try:
        form = await _form(request)
        return _target(form, indexes), asks(form), form.get("scope", "upload")
    except refusals.Refusal as refusal:
        return indexes[0].exchange, fails(refusal), ""


async def introspection(exchange: Exchange, text: str, attempt_id: str) -> dict[str, Any]:
    """What an upload token is good for at this moment, as RFC 7662 section 2.2 has it; else that it is not active.

    Raises:
        StateUnavailable, PoliciesStale: it cannot be told now.
    """
    attempt = exchange.attempt("upload", attempt_id)
    try:
        token = exchange.minter.read(text, attempt.started_at)
        projects = await exchange.covers_now(token, attempt)
    except (refusals.StateUnavailable, refusals.PoliciesStale):
        raise
    except refusals.Refusal:
        return {"active": False}
    if not projects:
        return {"active": False}
    return {
        "active": True,
        "iss": exchange.minter.issuer,
        "aud": exchange.minter.audience,
        "sub": token.subject,
        "jti": token.id,
        "exp": token.expires_at,
        "token_type": "Bearer",
        "scope": token.scope,
        "username": token.identity.actor_name,
        "projects": sorted(map(str, projects)),
        "publishers": list(token.publishers),
        "identity": token.identity.as_claims(),
        **token.narrowing.as_claims(),
    }


def _exchange(form: Mapping[str, str]) -> MintRequest:
    """A token exchange, with our own fields `project`, `version`, `sha256` and `uses` to narrow what it gives.

    Raises:
        UnsupportedGrant, UnsupportedScope, MalformedRequest
    """
    if _required(form, "grant_type") != TOKEN_EXCHANGE:
        raise refusals.UnsupportedGrant
    if unknown := form.keys() - _EXCHANGE_FIELDS:
        raise refusals.MalformedRequest(f"{min(unknown)[:100]!r} is no field of a token exchange here")
    if _required(form, "subject_token_type") not in SUBJECT_TYPES:
        raise refusals.MalformedRequest(f"'subject_token_type' must be {SUBJECT_TYPES[0]}")
    if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        raise refusals.MalformedRequest(f"'requested_token_type' can be {ACCESS_TOKEN} alone")
    scope, narrowing = read_scope(form.get("scope", "upload")), _narrowing(form)
    if scope != "upload" and narrowing != Narrowing(project=narrowing.project):
        raise refusals.MalformedRequest(
            "'version', 'sha256' and 'uses' narrow uploads; reads are narrowed to a project"
        )
    return MintRequest(token=_required(form, "subject_token"), narrowing=narrowing, scope=scope)


def _narrowing(form: Mapping[str, str]) -> Narrowing:
    narrowed: dict[str, Any] = {}
    for name, read in _NARROWING.items():
        if name in form:
            try:
                narrowed[name] = read(form[name])
            except ValueError as error:
                raise refusals.MalformedRequest(
                    f"{name!r} is {form[name][:100]!r}, which has not the right form"
                ) from error
    return Narrowing(**narrowed)


def _project(text: str) -> str:
    if len(text) > LONGEST_NARROWING:
        raise ValueError
    return normalise(text)


def _version(text: str) -> str:
    if len(text) > LONGEST_NARROWING:
        raise ValueError
    return str(Version(text))


def _digests(text: str) -> tuple[str, ...]:
    digests = tuple(sorted(set(text.split(" "))))
    if not all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests) or len(digests) > MOST_FILES:
        raise ValueError
    return digests


def _uses(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise ValueError
    return int(text)


_NARROWING: Final[Mapping[str, Callable[[str], Any]]] = {
    "project": _project,
    "version": _version,
    "sha256": _digests,
    "uses": _uses,
}

_EXCHANGE_FIELDS: Final = {
    "grant_type",
    "subject_token",
    "subject_token_type",
    "requested_token_type",
    "scope",
    "audience",
    "resource",
    *_NARROWING,
}


def _target(form: Mapping[str, str], indexes: Sequence[Index]) -> Exchange:
    """The index that a token is asked for, by its URL or its audience (RFC 8693 section 2.1); else the default one.

    Raises:
        InvalidTarget: there is none of that name, or two are named.
    """
    found = list(indexes)
    for name in ("audience", "resource"):
        if name in form:
            found = [one for one in found if form[name] in {one.exchange.audience, one.url, one.url.rstrip("/")}]
            if not found:
                known = ", ".join(repr(one.url) for one in indexes)
                raise refusals.InvalidTarget(f"{name!r} is {form[name][:200]!r}, and there is {known}")
    return found[0].exchange


async def _form(request: Request) -> dict[str, str]:
    """The fields of an `application/x-www-form-urlencoded` body.

    Raises:
        MalformedRequest: it is none, or a field stands twice (RFC 6749 section 3.2).
    """
    body = await read_body(request.scope, request.receive, FORM_BYTES)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=MOST_FIELDS,
            errors="strict",
        )
    except ValueError as error:
        raise refusals.MalformedRequest("the body is no form (application/x-www-form-urlencoded)") from error
    form = dict(pairs)
    if len(form) < len(pairs):
        raise refusals.MalformedRequest("a field of the form stands twice")
    return form


def _required(form: Mapping[str, str], name: str) -> str:
    if not (value := form.get(name)):
        raise refusals.MalformedRequest(f"the form has no field {name!r}")
    return value


async def _authenticate(request: Request, form: Mapping[str, str], callers: Callers) -> None:
    """Lets those pass who show an API token: as Bearer, with Basic credentials, or in the form.

    Source: RFC 6749 section 2.3.1, where the id is the client's, and RFC 7662 section 2.1.

    Raises:
        InvalidClient: there is none, or it is no good.
    """
    shown = _shown(request.headers.get("authorization"), form)
    if shown is None:
        raise refusals.InvalidClient
    try:
        async with callers.asks(request, shown, roles=_REGISTRIES):
            return
    except (refusals.InvalidApiToken, refusals.ExpiredApiToken, refusals.RoleNotPermitted) as refusal:
        # Clients of OAuth are told one thing (RFC 6749 section 5.2); the record has the cause.
        raise refusals.InvalidClient from refusal


def _shown(authorization: str | None, form: Mapping[str, str]) -> ShownToken | None:
    if authorization is None:
        client, text = form.get("client_id", ""), form.get("client_secret", "")
    else:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "bearer":
            return ShownToken.parse(value.strip())
        client, text = _basic(value) if scheme.lower() == "basic" else ("", "")
    shown = ShownToken.parse(text)
    return shown if shown is not None and shown.id == client else None


def _basic(value: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return unquote_plus(user), unquote_plus(password)


def _in_oauth(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Answers refusals as RFC 6749 section 5.2 has them, with our own members beside `error`."""

    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except refusals.Refusal as refusal:
            request.scope[REFUSAL] = refusal
            return _error(refusal, request.scope["attempt"])

    return answered


def _error(refusal: refusals.Refusal, attempt_id: str) -> Response:
    if refusal.status >= _INTERNAL:
        tell_operator(refusal, attempt_id)
    body, headers = refusal_body(refusal, attempt_id)
    error = _ERRORS.get(type(refusal), "temporarily_unavailable" if refusal.status >= _INTERNAL else "invalid_request")
    # A token that is refused for any reason is an invalid request (RFC 8693 section 2.2.2), and that is a 400.
    status = 400 if refusal.status in {403, 422} else refusal.status
    if isinstance(refusal, refusals.InvalidClient):
        headers["WWW_Authenticate"] = 'Basic realm="API tokens", charset="UTF-8"'
    told = {"error": error, "error_description": _ascii(body["detail"]), **body, "status": status}
    return Json(told, status, **headers)


_ERRORS: Final[Mapping[type[refusals.Refusal], str]] = {
    refusals.InvalidClient: "invalid_client",
    refusals.UnsupportedGrant: "unsupported_grant_type",
    refusals.InvalidTarget: "invalid_target",
    refusals.UnsupportedScope: "invalid_scope",
}


def _ascii(text: str) -> str:
    """As RFC 6749 section 5.2 allows it: printable ASCII without `"` and backslash."""
    return "".join(letter if " " <= letter <= "~" and letter not in '"\\' else "?" for letter in text)
