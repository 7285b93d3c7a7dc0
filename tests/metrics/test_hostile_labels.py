"""Whatever ten thousand tokens claim, no label has a value that the reference does not name."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import Message

from broker import __version__
from broker.metrics.catalogue import BY_NAME, LABELS, METRICS
from broker.playground.ci import FakeCI
from broker.playground.ci_keys import base64url
from tests.harness import Broker, Setup
from tests.metrics.reading import Series, read

pytestmark = pytest.mark.anyio

HOW_MANY = 10_000

HOSTILE_TEXTS = (
    *("github", "gitlab", "unknown", "none", "allowed", "mint", "acme", "acme/widgets-release", ""),
    *('x"} 1\nbroker_attempts_total{code="x', "\ud800", "\0", "é\u202e", "x" * 500, "../..", "{}", "\\n"),
)


def bodies(ci: FakeCI, random: random.Random) -> Iterator[bytes]:
    """Requests to mint that nobody should have sent: garbage, other issuers, other keys, other claims."""

    def text() -> str:
        made = "".join(chr(random.randrange(1, 0xD800)) for _ in range(random.randrange(1, 20)))
        return random.choice([*HOSTILE_TEXTS, made, str(random.random())])

    def unsigned(header: object, claims: object) -> str:
        parts = [base64url(json.dumps(part).encode()) for part in (header, claims)]
        return ".".join([*parts, base64url(random.randbytes(256))])

    kept = [ci.token(repository=text(), environment=text(), workflow_file=text()) for _ in range(20)]
    kept += [ci.sign({**ci.claims("github"), text(): text(), "jti": text()}) for _ in range(20)]
    kept += [ci.sign(ci.claims("github"), kid=text()) for _ in range(20)]
    kinds = (
        lambda: random.randbytes(40),
        lambda: json.dumps({"token": text()}).encode(),
        lambda: json.dumps({"token": random.choice([1, None, [], {}]), text(): text()}).encode(),
        lambda: json.dumps({"token": text(), "scope": text()}).encode(),
        lambda: json.dumps({"token": unsigned({"alg": text(), "kid": text()}, {"iss": text()})}).encode(),
        lambda: json.dumps({"token": unsigned({"alg": "RS256", "kid": text()}, {"iss": f"https://{text()}"})}).encode(),
        lambda: json.dumps({"token": unsigned({"alg": "RS256", "kid": text()}, ci.claims("gitlab"))}).encode(),
        lambda: json.dumps(
            {"token": unsigned({"alg": "RS256", "kid": ci.key_id("github")}, {**ci.claims("github"), "sub": text()})}
        ).encode(),
        lambda: json.dumps({"token": random.choice(kept)}).encode(),
    )
    for _ in range(HOW_MANY):
        yield random.choice(kinds)()


async def post(broker: Broker, body: bytes) -> int:
    """The status of a request to mint; without a client in between, which would take longer than the broker."""
    statuses = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    path = "/_/oidc/mint-token"
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "root_path": ""}
    await broker.app(scope, receive, send)
    return int(statuses[0])


async def told(broker: Broker) -> dict[Series, float]:
    answer = await broker.client.get("/metrics")
    assert answer.status_code == 200
    return read(answer.text)


async def test_ten_thousand_hostile_tokens_add_no_label_value(tmp_path: Path) -> None:
    unlimited = {"refusals_per_minute": 0, "refusals_per_minute_in_all": 0}
    async with Setup(folder=tmp_path, settings={"metrics": "open", **unlimited}).running() as broker:
        assert (await broker.mint(broker.ci.token())).status_code == 200
        sent = list(bodies(broker.ci, random.Random(7)))
        for at in range(0, HOW_MANY, 250):
            await asyncio.gather(*(post(broker, body) for body in sent[at : at + 250]))
        series = await told(broker)
    issuers = {"github", "gitlab", "google"}
    allowed = {**{label: set(values) for label, values in LABELS.items()}, "version": {__version__}}
    allowed["issuer"] = {*issuers, "unknown"}
    seen = defaultdict(set)
    for _, labels in series:
        for label, value in labels:
            seen[label].add(value)
    bounds = seen.pop("le")
    assert len(bounds) < 20
    assert {value for label, values in seen.items() for value in values - allowed[label]} == set()
    assert seen["issuer"] == allowed["issuer"]
    attempts = {dict(labels)["code"]: dict(labels) for name, labels in series if name == "broker_attempts_total"}
    assert attempts["unknown-issuer"]["issuer"] == attempts["malformed-token"]["issuer"] == "unknown"
    counted = sum(value for (name, _), value in series.items() if name == "broker_attempts_total")
    assert counted == HOW_MANY + 1


async def test_no_series_is_of_a_metric_that_the_reference_does_not_name(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path, settings={"metrics": "open"}).running() as broker:
        await broker.mint("x")
        series = await told(broker)
    for name, labels in series:
        metric = BY_NAME.get(name) or BY_NAME[name.rpartition("_")[0]]
        assert {label for label, _ in labels} - {"le"} == set(metric.labels)
        assert metric in METRICS
