"""What the one that works does: where it goes on, what it teaches itself, and what it does when state is not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from broker.alerts import standing, worker
from broker.alerts.receivers import Receiver
from broker.alerts.standing import Watch
from broker.alerts.webhooks import Webhooks
from broker.alerts.worker import LEASE, Alerting, pause_seconds
from broker.keys import IssuerKeys
from broker.metrics.counting import Counts
from broker.playground.ci import FakeCI
from broker.reload import PoliciesInForce
from broker.state import AlertStep, Claim, Claimed, State
from broker.state.opening import open_state
from tests.alerts.hook import KEY, SECRET, Hook, hooked
from tests.harness import Broker, Setup, state_url
from tests.redis_server import RedisServer
from tests.state.examples import record

pytestmark = pytest.mark.anyio

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without the system's certificates, which take long to load: receivers are plain http here."""

PATIENCE_SECONDS = 60.0

BETA = """\
organization: beta
namespaces: [beta]
members:
  berta: {role: owner, github: "2001"}
publishers:
  beta-release:
    issuer: github
    repository: beta-corp/secrets
    repository_id: "99"
    repository_owner_id: "88"
    workflow: release.yml
    projects: [beta-secrets]
"""
BETAS = {"repository": "beta-corp/secrets", "repository_id": "99", "repository_owner_id": "88"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(standing, "HOLDS_SECONDS", 0.2)


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


def setup(folder: Path, receivers: str, **changes: Any) -> Setup:
    """A broker with these receivers."""
    (folder / "secret").write_text(SECRET)
    (folder / "alerts.yaml").write_text(f"receivers:\n{receivers}")
    more: dict[str, Any] = {"alerts": folder / "alerts.yaml", "allow_loopback_issuers": True}
    return Setup(folder=folder, settings={**more, **changes.pop("settings", {})}, **changes)


def entry(name: str, hook: Hook, whose: str) -> str:
    """One receiver of the file."""
    return f"  {name}: {{kind: standard, url: '{hook.url}', secret_files: [secret], {whose}, longest_pause: 1s}}\n"


async def mint(broker: Broker, **claims: object) -> int:
    return (await broker.mint(broker.ci.token("github", **claims))).status_code


# --- Whose alerts ----------------------------------------------------------------------------------------------------


async def test_nothing_of_one_organization_reaches_another_s_receiver(tmp_path: Path) -> None:
    (tmp_path / "policies" / "organizations").mkdir(parents=True)
    (tmp_path / "policies" / "organizations" / "beta.yaml").write_text(BETA)
    with hooked() as acme, hooked() as beta, hooked() as operators:
        receivers = (
            entry("acme", acme, "organizations: [acme]")
            + entry("beta", beta, "organizations: [beta]")
            + entry("operators", operators, "index: true")
        )
        async with setup(tmp_path, receivers).running() as broker:
            assert await mint(broker) == 200
            assert await mint(broker, **BETAS, actor_id="2001") == 200
            assert await mint(broker, **BETAS, actor_id="1001") == 403
            assert await mint(broker, **{**BETAS, "repository_id": "100"}, actor_id="2001") == 403
            assert await mint(broker, actor_id="2001") == 403
            await until(lambda: len(acme.taken()) == 2 and len(beta.taken()) == 3)
    assert (acme.types(), operators.got) == (["first-use", "member-refused"], [])
    assert beta.types() == ["first-use", "member-refused", "identity-changed"]
    assert all(b"beta" not in one.body for one in acme.got)
    assert all(b"acme/" not in one.body and b"widgets" not in one.body for one in beta.got)
    assert all(one.is_signed(KEY) for one in (*acme.got, *beta.got))


async def test_records_from_before_teach_and_alert_nobody(tmp_path: Path) -> None:
    made = Setup(folder=tmp_path)
    async with made.running() as broker:
        assert await mint(broker) == 200
        assert await mint(broker, actor_id="7") == 403
    with hooked() as hook:
        alerted = setup(tmp_path, entry("acme", hook, "organizations: [acme]"), ci=made.ci)
        async with alerted.running() as broker:
            await asyncio.sleep(0.3)  # by now the records were looked at
            assert await mint(broker) == 200
            assert await mint(broker, runner_environment="self-hosted") == 200
            await until(lambda: len(hook.taken()) == 1)
    assert hook.types() == ["new-runner"]


# --- Policies and keys -----------------------------------------------------------------------------------------------


class Flaky(httpx.AsyncBaseTransport):
    """Issuers that can be out of reach."""

    def __init__(self, ci: FakeCI) -> None:
        self.real = ci.transport()
        self.down = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("down")
        return await self.real.handle_async_request(request)


async def test_policies_and_keys_are_told_of_once_and_once_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IssuerKeys.keep_fresh, "__defaults__", (0.05,))
    ci = FakeCI()
    issuers = Flaky(ci)
    index = "issuers:\n  github: {provider: github}\n  gitlab: {provider: gitlab, disabled: true}\n"
    with hooked() as hook:
        made = setup(tmp_path, entry("operators", hook, "index: true"), ci=ci, issuers=issuers, index=index)
        made.acme = made.acme.replace("google:", "github:").split("publishers:")[0]
        made.settings["policies_stale_after_hours"] = 10.0

        async def told(*levels: tuple[str, str]) -> None:
            await until(lambda: len(hook.taken()) >= len(levels))
            payloads = [one.payload() for one in hook.taken()]
            assert [(one["type"], one["data"]["level"]) for one in payloads] == [*levels]
            hook.got.clear()

        async with made.running() as broker:
            await until(lambda: broker.app is not None)
            policy = tmp_path / "policies" / "index.yaml"
            whole = policy.read_text()
            policy.write_text("issuers: [")
            await told(("policies-stale", "failing"))
            issuers.down, broker.clock.ahead_seconds = True, 9 * 3600
            await told(("keys-stale", "stale"))
            broker.clock.ahead_seconds = 25 * 3600
            await until(lambda: len(hook.taken()) == 2)
            assert {(one.payload()["type"], one.payload()["data"]["level"]) for one in hook.taken()} == {
                ("policies-stale", "denying"),
                ("keys-stale", "unusable"),
            }
            hook.got.clear()
            policy.write_text(whole)
            await told(("policies-current", "well"))
            issuers.down, broker.clock.ahead_seconds = False, 26 * 3600
            await told(("keys-fresh", "well"))


# --- One process at a time -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def alerting(folder: Path, *receivers: Receiver, url: str | None = None) -> AsyncIterator[tuple[Alerting, State]]:
    """One process's alerts, which do nothing by themselves."""
    made = Setup(folder=folder).write()
    state = open_state(url or state_url(folder), retention_days=30)
    policies = PoliciesInForce(made.policies, allow_loopback_issuers=False, stale_after_seconds=3600, clock=time.time)
    async with httpx.AsyncClient(verify=PLAIN) as client, httpx.AsyncHTTPTransport(verify=PLAIN) as transport:
        keys = IssuerKeys(client, state, time.time, lambda *_: None)
        yield (
            Alerting(
                receivers,
                state=state,
                webhooks=Webhooks(transport=transport, clock=time.time, user_agent="broker"),
                watch=Watch(policies=policies, keys=keys, clock=time.time),
                counts=Counts(dict),
                clock=time.time,
            ),
            state,
        )
        await state.close()


@contextlib.asynccontextmanager
async def going(one: Alerting) -> AsyncIterator[None]:
    """The alerts, working."""
    task = asyncio.create_task(one.keep_going())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def receiver(hook: Hook, name: str = "acme") -> Receiver:
    """One of acme's."""
    return Receiver(
        name=name,
        kind="standard",
        url=SecretStr(hook.url),
        secrets=(SecretStr(SECRET),),
        organizations=frozenset({"acme"}),
        longest_pause_seconds=1,
        allow_loopback=True,
    )


def refusal(number: int) -> str:
    """The record of a refused member of its own."""
    told = {"attempt": f"a{number}", "at": "2999-01-01T00:00:00+00:00", "kind": "mint", "decision": "refused"}
    member = {
        "organization": "acme",
        "code": "unknown-actor",
        "issuer": "github",
        "identity": {"actor_id": f"{number}"},
    }
    return json.dumps({**told, **member})


async def append(state: State, *numbers: int) -> None:
    for number in numbers:
        await state.append(record(organization="acme", body=refusal(number)))


def subjects(hook: Hook) -> list[str]:
    return [one.payload()["data"]["subject"].rpartition(" ")[2] for one in hook.taken()]


async def test_of_two_that_look_at_once_one_queues(tmp_path: Path) -> None:
    hook = Hook()
    async with alerting(tmp_path, receiver(hook)) as (one, state), alerting(tmp_path, receiver(hook)) as (other, _):
        await append(state, *range(150))
        while any(await asyncio.gather(one.look(), other.look())):
            pass
        waiting = [waits.alert for waits in await state.waiting_alerts("acme", 1000)]
    subjects = [json.loads(alert.body)["data"]["subject"] for alert in waiting]
    assert subjects.count("acme") == 1, "a burst"
    assert subjects[:20] + subjects[21:] == [f"unknown-actor github {number}" for number in range(150)]


async def test_who_has_not_the_lease_waits_for_it_and_who_loses_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RENEW_SECONDS", 0.1)
    other = Claim(name=LEASE, sha256="", attempt="other")
    with hooked() as hook:
        async with alerting(tmp_path, receiver(hook)) as (one, state):
            assert isinstance(await state.claim(other, now=time.time(), seconds=60), Claimed)
            async with going(one):
                await append(state, 1)
                await asyncio.sleep(0.5)
                assert (hook.got, one.waiting) == ([], {})
                await state.release(other)
                await until(lambda: subjects(hook) == ["1"] and set(one.waiting) == {"acme"})
                await state.release(one._claim)
                while not isinstance(await state.claim(other, now=time.time(), seconds=60), Claimed):
                    await state.release(one._claim)
                await until(lambda: one.waiting == {})
                await append(state, 2)
                await asyncio.sleep(0.3)
                assert subjects(hook) == ["1"]
                await state.release(other)
                await until(lambda: subjects(hook) == ["1", "2"])
            # The lease was given back: nobody waits for it.
            assert isinstance(await state.claim(other, now=time.time(), seconds=60), Claimed)


class Deaf(httpx.AsyncBaseTransport):
    """A client that is cancelled twice before it gives up."""

    def __init__(self) -> None:
        self.asked = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked = True
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(PATIENCE_SECONDS)
        await asyncio.sleep(PATIENCE_SECONDS)
        raise httpx.ConnectError("gave up", request=request)


async def test_a_delivery_that_does_not_hear_of_the_end_does_not_hold_it_up(tmp_path: Path) -> None:
    async with alerting(tmp_path, receiver(Hook())) as (one, state):
        one._webhooks = Webhooks(transport=(deaf := Deaf()), clock=time.time, user_agent="broker")
        began = time.monotonic()
        async with going(one):
            await append(state, 1)
            await until(lambda: deaf.asked)
        assert time.monotonic() - began < PATIENCE_SECONDS / 2


async def test_a_record_that_nobody_can_read_is_passed_over(tmp_path: Path) -> None:
    with hooked() as hook:
        async with alerting(tmp_path, receiver(hook)) as (one, state), going(one):
            bodies = ["no json", "[]", "{}", '{"at": 5}', refusal(1).replace('"identity"', '"other"')] * 25
            await asyncio.gather(*(state.append(record(organization="acme", body=body)) for body in bodies))
            await append(state, 2)
            await until(lambda: subjects(hook) == ["2"])


async def test_a_bug_is_logged_and_alerts_go_on_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.3)
    with hooked() as hook, capture_logs() as logged:
        async with alerting(tmp_path, receiver(hook)) as (one, state):
            await one.look()
            right = await state.alert_progress()
            nowhere = AlertStep(now=time.time(), since=right, position="of another store", memory={}, queue=())
            assert await state.advance_alerts(nowhere)
            async with going(one):
                await asyncio.sleep(0.5)
                wrong = await state.alert_progress()
                back = AlertStep(now=time.time(), since=wrong, position=right.position, memory={}, queue=())
                assert await state.advance_alerts(back)
                await append(state, 1)
                await until(lambda: subjects(hook) == ["1"])
    assert "alerts stopped for a moment: a bug of the broker" in {line["event"] for line in logged}


async def test_what_has_no_room_in_a_queue_is_dropped_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST_WAITING", 2)
    more = receiver(Hook(), "more")
    with capture_logs() as logged:
        async with alerting(tmp_path, receiver(Hook()), more) as (one, state):
            await append(state, 1, 2, 3)
            await one.look()
            await append(state, 4)
            await one.look()
            waiting = await state.waiting(["acme", "more"])
    assert [waiting["acme"].alerts, waiting["more"].alerts] == [2, 2]
    counted = one._counts.counters()  # type: ignore[attr-defined]  # the real ones
    assert counted["broker_alert_deliveries_total", "acme", "dropped"] == 2
    assert {line["event"] for line in logged} == {"alert dropped: too many wait for the receiver"}


async def test_state_that_goes_away_holds_alerts_up_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LEASE_SECONDS", 3.0)
    redis = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    redis.start()
    try:

        def stops_redis(_: BaseHTTPRequestHandler) -> int:
            if len(hook.got) == 1:
                redis.stop()
            return 204

        with hooked(stops_redis) as hook:
            async with alerting(tmp_path, receiver(hook), url=redis.url) as (one, state), going(one):
                await append(state, 1, 2, 3)
                await until(lambda: len(hook.got) == 2)
                await until(lambda: one._leads_until < time.monotonic() and one.waiting == {})
                await asyncio.to_thread(redis.start)
                await until(lambda: subjects(hook) == ["1", "2", "3"])
    finally:
        redis.stop()


def test_pauses_grow_as_the_specification_recommends_up_to_the_receiver_s_longest() -> None:
    for failures, seconds in ((1, 5), (2, 300), (3, 1800), (4, 7200), (9, 86_400), (1000, 86_400)):
        assert seconds * 0.79 < pause_seconds(failures, 86_400) < seconds * 1.21
    assert pause_seconds(50, 1800) < 1800 * 1.21
    assert 100 < pause_seconds(1, 1800, 130) < 160
    assert pause_seconds(1, 60, 10_000) < 73
