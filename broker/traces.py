"""Traces of attempts for an OpenTelemetry collector, where one is configured.

A trace is made from an attempt's notebook once it is decided and recorded: a span for the attempt, and one for each
step that it went through. The exchange itself does no more than it does without. Spans wait in memory and are sent by
a thread, many at a time; where the collector does not take them, they are dropped, and nothing else suffers.

The libraries are an extra (`traces`), and loaded only here: without a collector, no process has them in its memory.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from broker.audit import Attempt
from broker.refusals import Refusal

if TYPE_CHECKING:
    from opentelemetry.context import Context

_PARENT: Final[ContextVar[dict[str, str] | None]] = ContextVar("parent", default=None)
"""What the request in hand says of the trace that it is part of."""

_HEADERS: Final = {b"traceparent", b"tracestate"}

FAILED: Final = 500
"""From this status on, a refusal is an error of the service, and not of the caller."""


class Traces:
    """Makes traces of attempts, and sends them.

    The SDK reads `OTEL_*` variables of its own: name and attributes of the service, headers, which ones to sample
    (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).

    Args:
        url: Where an OpenTelemetry collector takes OTLP over HTTP: https://collector.example:4318/v1/traces.
        version: The broker's.

    Raises:
        ImportError: the extra is not installed.
    """

    def __init__(self, url: str, version: str) -> None:
        # Here, so that only a process that sends traces has them.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.trace import Status, StatusCode, set_span_in_context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins over ours.
        ours = Resource({"service.name": "trusted-publishing-broker", "service.version": version})
        self._provider = TracerProvider(resource=ours.merge(_told(Resource.create())))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("broker", version)
        self._within = set_span_in_context
        self._propagator = TraceContextTextMapPropagator()
        self._error = Status(StatusCode.ERROR)

    def attempt(self, attempt: Attempt, organization: str) -> None:
        """Makes the trace of an attempt that was decided, of the organization whose record it is."""
        ended, elapsed = time.time_ns(), time.perf_counter()

        def moment(at: float) -> int:
            return ended - int((elapsed - at) * 1e9)

        span = self._tracer.start_span(
            attempt.kind,
            self._parent(),
            attributes=_attributes(attempt, organization),
            start_time=moment(attempt.began),
        )
        if attempt.refusal is not None and attempt.refusal.status >= FAILED:
            span.set_status(self._error)
        if span.is_recording():
            within, since = self._within(span), attempt.began
            for step, at in attempt.steps:
                self._tracer.start_span(step, within, start_time=moment(since)).end(moment(at))
                since = at
        span.end(ended)

    def _parent(self) -> Context:
        # An empty context, where there is none: the SDK would else take whatever span the process has open.
        return self._propagator.extract(_PARENT.get() or {}, context={})  # type: ignore[arg-type]  # a dict does

    def close(self) -> None:
        """Sends what waits, but not for long."""
        self._provider.shutdown()


def _told(resource: Any) -> Any:
    """Without the name that the SDK makes up where nobody told one."""
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        return type(resource)({name: told for name, told in resource.attributes.items() if name != "service.name"})
    return resource


def _attributes(attempt: Attempt, organization: str) -> dict[str, str | list[str]]:
    """What there is to search for: what was verified, and never a claim of a token that was not."""
    refusal: Refusal | None = attempt.refusal
    told: dict[str, str | list[str]] = {
        "broker.attempt": attempt.id,
        "broker.decision": "allowed" if refusal is None else "refused",
        "broker.code": "" if refusal is None else refusal.code,
        "broker.organization": organization,
        "broker.index": attempt.index,
    }
    if attempt.identity is not None:
        told |= {
            "broker.issuer": attempt.identity.issuer,
            "broker.publishers": [one.id for one in attempt.grant.publishers] if attempt.grant else [],
            "broker.token_id": attempt.token_id,
            "broker.project": attempt.project,
            "broker.filename": attempt.filename,
        }
    return {name: value for name, value in told.items() if value}


class FollowTraces:
    """Middleware: notes which trace a request says that it is part of (W3C Trace Context)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "http":
            _PARENT.set(
                {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _HEADERS}
            )
        await self.app(scope, receive, send)
