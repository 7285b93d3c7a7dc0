"""What every answer has in common: the attempt id, `no-store`, and one place where a refusal becomes an answer.

A refusal's body serves all clients at once: PyPI's `message` and `errors`, which twine and gh-action read unguarded,
and the members of RFC 9457.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker import ascii_json, refusals
from broker.addresses import Source, TrustedProxies
from broker.audit import new_attempt_id
from broker.leaving import Leaving
from broker.logs import logger
from broker.metrics.counting import Counts
from broker.refusals import Refusal
from broker.sources import Sources, spread

ATTEMPT_HEADER: Final = "Attempt-Id"
_ATTEMPT_HEADER: Final = ATTEMPT_HEADER.lower().encode()

BODY_SECONDS: Final = 5.0
"""For a body that `read_body` reads: a few kilobytes, which clients send at once."""

REFUSAL: Final = "broker.refusal"
"""Where a request's scope has the refusal, if its handler answered that itself."""

WHOLE: Final = "broker.whole"
"""Stands in a request's scope where its body had come when the handler began, as `BoundedProtocol` tells."""

INTERNAL: Final = 500
"""Statuses from here on are not the caller's fault."""


class Json(Response):
    """A JSON answer that no cache keeps, if it does not say so: it may hold a token, or depend on one."""

    media_type = "application/json"

    def __init__(self, value: Any, status: int = 200, media_type: str | None = None, **headers: str) -> None:
        super().__init__(
            ascii_json.encode(value),
            status,
            {"Cache-Control": "no-store", **{name.replace("_", "-"): text for name, text in headers.items()}},
            media_type or self.media_type,
        )


_BEARER: Final = 'Bearer realm="API tokens"'
_CHALLENGES: Final[dict[type[Refusal], str]] = {
    refusals.NoCredentials: 'Basic realm="upload tokens", charset="UTF-8"',
    refusals.NoApiToken: _BEARER,
    refusals.InvalidApiToken: f'{_BEARER}, error="invalid_token"',
    refusals.ExpiredApiToken: f'{_BEARER}, error="invalid_token", error_description="expired"',
}
"""What a 401 asks for. Of API tokens, as RFC 6750 section 3 has it."""


def refused(refusal: Refusal, attempt_id: str) -> Response:
    """The answer to a refusal."""
    body, headers = refusal_body(refusal, attempt_id)
    if challenge := _CHALLENGES.get(type(refusal)):
        headers["WWW_Authenticate"] = challenge
    return Json(body, refusal.status, "application/problem+json", **headers)


def refusal_body(refusal: Refusal, attempt_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What is said of a refusal: the members of the body, and headers as `Json` takes them."""
    description = f"{refusal.detail} ({refusal.expected})" if refusal.expected else refusal.detail
    body = {
        "message": f"{refusal.code}: {description}",
        "errors": [{"code": refusal.code, "description": description}],
        "type": f"urn:trusted-publishing-broker:refusal:{refusal.code}",
        # uv shows title and detail of a refused upload, and nothing else: so the code stands here too.
        "title": f"{refusal.code}: {refusal.title().removesuffix('.')}",
        "status": refusal.status,
        "detail": f"{description.removesuffix('.')}. {refusal.remedy}",
        "attempt": attempt_id,
    }
    headers = {}
    if refusal.retry_after_seconds is not None:
        headers["Retry_After"] = str(refusal.retry_after_seconds)
    return body, headers


OF_THE_OPERATOR: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are answered whoever asks: a probe that is refused takes a broker out of service that does well."""


class Attempts:
    """Gives each request its attempt id, says it in the answer, and answers what handlers raise.

    The one place where a refusal becomes an answer. What is no refusal is our bug: logged with the attempt id, and
    answered without detail. It is also the door: who is refused too often does not come further.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        clock: Callable[[], float],
        counts: Counts,
        sources: Sources,
        leaving: Leaving,
        proxies: TrustedProxies,
        asked_by_proxies: tuple[str, ...] = (),
    ) -> None:
        """Around an application.

        Args:
            asked_by_proxies: How paths begin that only a proxy asks, for all of its clients.
        """
        self.app = app
        self.clock = clock
        self.counts = counts
        self.sources = sources
        self.leaving = leaving
        self.proxies = proxies
        # Of a peer that no header says more of: most requests, and the same few peers.
        self._alone: Callable[[str], Source] = lru_cache(maxsize=4096)(lambda peer: proxies.source(peer, ()))
        self.asked_by_proxies = asked_by_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        attempt_id = new_attempt_id(self.clock())
        scope["attempt"] = attempt_id
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        scope["source"] = source = self._source(scope, path)
        started = False
        self.leaving.under_way += 1

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (_ATTEMPT_HEADER, attempt_id.encode())]
                if self.leaving.begun:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            if path not in OF_THE_OPERATOR:
                await self.sources.admit(source)
            await self.app(scope, receive, send_with_id)
            if REFUSAL in scope:
                self.counts.refusal(scope[REFUSAL])
                _forget_frames(scope[REFUSAL])
        except Exception as raised:  # noqa: BLE001 - the last line before the caller
            error = _unrouted(raised) if isinstance(raised, HTTPException) else raised
            if isinstance(error, Refusal):
                self.counts.refusal(error)
            else:
                self.counts.internal_error()
            response = answer(error, scope, attempt_id)
            if not started:
                await response(scope, receive, send_with_id)
            _forget_frames(error)
        except asyncio.CancelledError:  # the server does so when its time to end is up
            if not started:
                refusal = refusals.BrokerEnding()
                self.counts.refusal(refusal)
                await refused(refusal, attempt_id)(scope, receive, send_with_id)
            raise
        finally:
            self.leaving.under_way -= 1

    def _source(self, scope: Scope, path: str) -> Source:
        client = scope.get("client")
        told = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        peer = client[0] if client else ""
        source = self.proxies.source(peer, told) if told else self._alone(peer)
        return replace(source, stands_for_many=True) if path.startswith(self.asked_by_proxies) else source


def _forget_frames(error: BaseException | None) -> None:
    """Takes the tracebacks from an exception that was answered, and from its causes.

    Their frames have the attempt, and the attempt has its refusal: all that a refused request was would wait for the
    garbage collector, and a flood would be its work (ADR 42).
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def answer(error: Exception, scope: Scope, attempt_id: str) -> Response:
    """What is said of whatever a handler raised; the operator is told what only they can mend."""
    if isinstance(error, Refusal):
        if error.status >= INTERNAL:
            tell_operator(error, attempt_id)
        return refused(error, attempt_id)
    logger().error("internal error", attempt=attempt_id, path=scope["path"], exc_info=error)
    body = {"message": "internal error", "errors": [], "status": INTERNAL, "attempt": attempt_id}
    return Json(body, INTERNAL)


def tell_operator(refusal: Refusal, attempt_id: str) -> None:
    """Logs what the operator must mend, and no caller can: what is down, full, or does not take our credential."""
    say = logger().error if isinstance(refusal, refusals.RegistryCredential) else logger().warning
    cause = refusal.__cause__
    say(refusal.code, attempt=attempt_id, detail=refusal.detail, cause="" if cause is None else repr(cause))


def _unrouted(error: HTTPException) -> Refusal:
    """What the router says, as a refusal of ours."""
    is_of_the_method = error.status_code == refusals.MethodNotAllowed.status
    return refusals.MethodNotAllowed() if is_of_the_method else refusals.NotFound()


async def read_body(scope: Scope, receive: Receive, most_bytes: int) -> bytes:
    """The body, if it is not too large; what was declared and what came are both counted.

    Raises:
        RequestTooLarge
        MalformedRequest: it did not come whole, or not in `BODY_SECONDS`.
    """
    try:
        if WHOLE in scope:  # nothing to wait for: a clock would cost more than all else here
            return await _collect(receive, most_bytes)
        if (declared_bytes(Headers(scope=scope)) or 0) > most_bytes:
            raise refusals.RequestTooLarge
        async with asyncio.timeout(spread(BODY_SECONDS)):
            return await _collect(receive, most_bytes)
    except (ClientDisconnect, TimeoutError) as error:
        raise refusals.MalformedRequest(f"the body did not come whole in {BODY_SECONDS:.0f} s") from error


async def _collect(receive: Receive, most_bytes: int) -> bytes:
    body = bytearray()
    while True:
        # What `Request.stream()` does, without a generator to step in and out of for the one message that most have.
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > most_bytes:
            raise refusals.RequestTooLarge
        if not message.get("more_body", False):
            return bytes(body)


def declared_bytes(headers: Headers) -> int | None:
    """What Content-Length says; None where it is absent or no plain number."""
    declared = headers.get("content-length", "")
    return int(declared) if re.fullmatch(r"[0-9]{1,18}", declared) else None
