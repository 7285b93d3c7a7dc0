"""Traces of attempts, as a real receiver of OTLP over HTTP gets them."""

from __future__ import annotations

import builtins
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from starlette.types import Receive, Scope, Send

from broker.app import create_app
from broker.playground.processes import free_port
from broker.settings import SettingsError
from broker.traces import FollowTraces
from tests.harness import Setup

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@dataclass(slots=True)
class Collector:
    """What a collector was sent."""

    url: str
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    def spans(self) -> list[Span]:
        """In the order of their beginnings; a parent before its children."""
        found = [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: (span.start_time_unix_nano, bool(span.parent_span_id)))

    def services(self) -> set[str]:
        """The names of the services that sent it."""
        return {
            attribute.value.string_value
            for request in self.requests
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that takes everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}/v1/traces")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(name="collector")
def _collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    with collecting() as collector:
        yield collector


def attributes(span: Span) -> dict[str, object]:
    """Texts, and lists of texts."""
    return {
        one.key: [item.string_value for item in one.value.array_value.values] or one.value.string_value
        for one in span.attributes
    }


async def test_a_mint_is_a_trace_with_a_span_for_each_step(tmp_path: Path, collector: Collector) -> None:
    async with Setup(folder=tmp_path, settings={"traces_url": collector.url}).running() as broker:
        answer = await broker.mint(broker.ci.token())
        assert answer.status_code == 200
        (record,) = await broker.records()
    mint, *steps = collector.spans()
    assert mint.name == "mint"
    assert [step.name for step in steps] == ["body", "keys", "verify", "gates", "mint", "state"]
    assert {step.parent_span_id for step in steps} == {mint.span_id}
    assert {step.trace_id for step in steps} == {mint.trace_id}
    assert [step.start_time_unix_nano for step in steps[1:]] == [step.end_time_unix_nano for step in steps[:-1]]
    assert mint.start_time_unix_nano == steps[0].start_time_unix_nano
    assert mint.end_time_unix_nano >= steps[-1].end_time_unix_nano
    assert attributes(mint) == {
        "broker.attempt": record["attempt"],
        "broker.decision": "allowed",
        "broker.organization": "acme",
        "broker.issuer": "github",
        "broker.publishers": ["acme/widgets-release"],
        "broker.token_id": record["token_id"],
    }
    assert collector.services() == {"trusted-publishing-broker"}


async def test_a_refusal_is_told_with_its_code_and_nothing_that_was_not_verified(
    tmp_path: Path, collector: Collector
) -> None:
    async with Setup(folder=tmp_path, settings={"traces_url": collector.url}).running() as broker:
        assert (await broker.mint(broker.ci.token(iss="https://evil.example"))).status_code == 422
        assert (await broker.mint(broker.ci.token(actor_id="666"))).status_code == 403
    first, second = (span for span in collector.spans() if not span.parent_span_id)
    assert attributes(first).keys() == {"broker.attempt", "broker.decision", "broker.code"}
    assert attributes(first)["broker.code"] == "unknown-issuer"
    assert attributes(second)["broker.code"] == "unknown-actor"
    assert "evil" not in str(collector.requests)
    assert {first.status.code, second.status.code} == {Status.STATUS_CODE_UNSET}, "the caller's mistakes, not ours"


async def test_what_the_service_fails_at_is_an_error(tmp_path: Path, collector: Collector) -> None:
    down = httpx.MockTransport(lambda _: httpx.Response(500))
    async with Setup(folder=tmp_path, issuers=down, settings={"traces_url": collector.url}).running() as broker:
        assert (await broker.mint(broker.ci.token())).status_code == 503
    (mint, *_) = collector.spans()
    assert mint.status.code == Status.STATUS_CODE_ERROR
    assert attributes(mint)["broker.code"] == "keys-unavailable"


async def test_a_request_that_is_part_of_a_trace_goes_on_with_it(tmp_path: Path, collector: Collector) -> None:
    async with Setup(folder=tmp_path, settings={"traces_url": collector.url}).running() as broker:
        for headers in ({"traceparent": PARENT}, {}, {"traceparent": "nonsense"}):
            await broker.client.post("/_/oidc/mint-token", content=b"{}", headers=headers)
    one, two, three = (span for span in collector.spans() if span.name == "mint")
    assert (one.trace_id.hex(), one.parent_span_id.hex()) == (TRACE, "00f067aa0ba902b7")
    assert TRACE not in {two.trace_id.hex(), three.trace_id.hex()}
    assert not two.parent_span_id


async def test_what_is_not_sampled_is_not_sent(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with Setup(folder=tmp_path, settings={"traces_url": collector.url}).running() as broker:
        assert (await broker.mint(broker.ci.token())).status_code == 200
    assert collector.requests == []


async def test_the_operator_names_the_service(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "acme-index")
    async with Setup(folder=tmp_path, settings={"traces_url": collector.url}).running() as broker:
        assert (await broker.mint(broker.ci.token())).status_code == 200
    assert collector.services() == {"acme-index"}


async def test_without_a_collector_everything_else_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    nobody = f"http://127.0.0.1:{free_port()}/v1/traces"
    async with Setup(folder=tmp_path, settings={"traces_url": nobody}).running() as broker:
        assert (await broker.mint(broker.ci.token())).status_code == 200


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: object) -> object:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return real(name, *more)  # type: ignore[arg-type]  # passed on as it came

    settings = Setup(folder=tmp_path, settings={"traces_url": "http://127.0.0.1:1/v1/traces"}).write()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=r"pip install 'trusted-publishing-broker\[traces\]'"):
        create_app(settings)


async def test_what_is_no_request_passes_as_it_is() -> None:
    """Such as the lifespan, which every application is asked for."""
    seen = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> None:
        """Is asked for nothing."""

    await FollowTraces(app)({"type": "lifespan"}, nothing, nothing)  # type: ignore[arg-type]  # nobody receives
    assert seen == ["lifespan"]
