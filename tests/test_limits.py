"""Limits: what is refused too often is not looked at for long, and nobody else pays for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker import refusals, sources
from broker.addresses import Source
from broker.audit import Attempt, new_attempt_id
from broker.refusals import StateUnavailable
from broker.sources import Sources
from broker.state.sqlite import SQLiteState
from tests.harness import PUBLIC_URL, Broker, Setup, cuckoo
from tests.web.test_mint_refusals import check_refusal

pytestmark = pytest.mark.anyio

LIMITS = {"refusals_per_minute": 3}


@pytest.fixture(autouse=True, name="pause")
def _pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is held waits less than clients do."""
    monkeypatch.setattr(sources, "PAUSE_SECONDS", 0.05)


@contextlib.asynccontextmanager
async def at(broker: Broker, address: str, **headers: str) -> AsyncIterator[Broker]:
    """The same broker, for a client of another address."""
    transport = httpx.ASGITransport(broker.app, client=(address, 4711))
    async with httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL, headers=headers) as client:
        yield Broker(client=client, app=broker.app, ci=broker.ci, clock=broker.clock, folder=broker.folder)


async def codes(broker: Broker, times: int, token: object = "nonsense") -> list[str]:
    """What some attempts, one after the other, are refused with."""
    answers = [await broker.mint(token) for _ in range(times)]
    return [answer.json()["errors"][0]["code"] if answer.status_code != 200 else "" for answer in answers]


async def recorded(broker: Broker, **wanted: object) -> list[dict[str, Any]]:
    """The records with these values."""
    return [one for one in await broker.records() if wanted.items() <= one.items()]


async def test_who_is_refused_too_often_leaves_no_further_records_and_is_told_to_wait(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path, settings=LIMITS).running() as broker, at(broker, "192.0.2.1") as bad:
        assert await codes(bad, 6) == ["malformed-token"] * 4 + ["rate-limited"] * 2
        answer = await bad.mint("nonsense")
        check_refusal(answer, "rate-limited", 429)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "malformed-token" in answer.json()["message"]
        assert len(await recorded(broker, source="192.0.2.1")) == 4


async def test_what_is_good_of_the_same_address_passes_meanwhile(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path, settings=LIMITS).running() as broker, at(broker, "192.0.2.1") as shared:
        await codes(shared, 5)
        assert (await shared.mint(broker.ci.token())).status_code == 200
        (good,) = await recorded(broker, decision="allowed")
        assert (good["source"], good["organization"]) == ("192.0.2.1", "acme")


async def test_another_address_is_refused_for_its_own_alone(tmp_path: Path) -> None:
    async with (
        Setup(folder=tmp_path, settings=LIMITS).running() as broker,
        at(broker, "192.0.2.1") as bad,
        at(broker, "192.0.2.2") as other,
    ):
        await codes(bad, 5)
        assert await codes(other, 1) == ["malformed-token"]
        assert await codes(bad, 1) == ["rate-limited"]


async def test_a_flood_that_concerns_nobody_hides_nothing_of_what_is_tried_at_an_organization(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path, settings=LIMITS).running() as broker, at(broker, "192.0.2.1") as bad:
        await codes(bad, 5)
        mallory = [broker.ci.token(actor="mallory", actor_id="6666") for _ in range(5)]
        seen = [(await bad.mint(token)).json()["errors"][0]["code"] for token in mallory]
        assert seen == ["unknown-actor"] * 4 + ["rate-limited"]
        assert len(await recorded(broker, organization="acme", code="unknown-actor")) == 4


async def test_what_left_no_record_of_its_own_is_told_by_one(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path, settings=LIMITS).running() as broker, at(broker, "192.0.2.1") as bad:
        await codes(bad, 9)
        await codes(bad, 2, broker.ci.token(iss="https://nobody.example"))
    told = [one for one in await broker.records() if one["kind"] == "limit"]
    (one,) = told
    assert (one["source"], one["organization"], one["code"]) == ("192.0.2.1", "", "rate-limited")
    assert one["unrecorded"] == {"malformed-token": 5, "unknown-issuer": 2}


# --- Sources by themselves, on real state ----------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Table:
    """One process's sources, on state in a folder."""

    folder: Path
    per_minute: int = 3
    in_all_per_minute: int = 0
    now: float = 1_800_000_000.0
    state: SQLiteState = field(init=False)
    sources: Sources = field(init=False)
    published: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = SQLiteState(self.folder / "state.db", retention_days=1)
        self.sources = Sources(
            state=self.state,
            per_minute=self.per_minute,
            in_all_per_minute=self.in_all_per_minute,
            clock=lambda: self.now,
            publish_record=lambda _, record: self.published.append(json.loads(record.body)),
        )

    async def refuse(
        self, name: str = "192.0.2.1", refusal: type[refusals.Refusal] = refusals.MalformedToken, organization: str = ""
    ) -> str:
        """An attempt that was refused; with which code it is answered."""
        attempt = Attempt(
            kind="mint",
            id=new_attempt_id(self.now),
            started_at=self.now,
            source=Source(name),
            owner=organization,
            refusal=refusal(),
        )
        try:
            await self.sources.record(attempt, refusal())
        except refusals.RateLimited:
            return "rate-limited"
        return refusal.code

    async def refuse_all(self, *names: str, times: int = 1, **how: Any) -> Counter[str]:
        """Several at once, of each of these."""
        return Counter(await asyncio.gather(*(self.refuse(name, **how) for name in names for _ in range(times))))

    async def records(self) -> int:
        """How many there are."""
        return len(await self.state.records(10_000))


@pytest.fixture(name="opening")
async def _opening(tmp_path: Path) -> AsyncIterator[Callable[..., Table]]:
    tables: list[Table] = []

    def opened(**changes: Any) -> Table:
        tables.append(Table(folder=tmp_path, **changes))
        return tables[-1]

    yield opened
    for table in tables:
        await table.state.close()


async def test_of_replicas_each_learns_what_all_have_counted(opening: Callable[..., Table]) -> None:
    first, second = opening(), opening()
    assert [await first.refuse() for _ in range(3)] == ["malformed-token"] * 3
    assert [await second.refuse() for _ in range(2)] == ["malformed-token", "rate-limited"]
    assert [await first.refuse() for _ in range(2)] == ["malformed-token", "rate-limited"]
    assert (first.sources.held, second.sources.held) == (1, 1)


async def test_it_is_over_when_the_time_is(opening: Callable[..., Table]) -> None:
    table = opening()
    assert [await table.refuse() for _ in range(5)] == ["malformed-token"] * 4 + ["rate-limited"]
    table.now += 61
    assert table.sources.held == 0
    assert [await table.refuse() for _ in range(5)] == ["malformed-token"] * 4 + ["rate-limited"]


async def test_what_is_the_broker_s_own_fault_counts_for_nobody(opening: Callable[..., Table]) -> None:
    table = opening()
    for _ in range(9):
        assert await table.refuse(refusal=refusals.KeysUnavailable, organization="acme") == "keys-unavailable"
    assert await table.records() == 9


async def test_who_has_no_address_is_no_source(opening: Callable[..., Table]) -> None:
    table = opening()
    assert await table.refuse_all("", times=9) == {"malformed-token": 9}


async def test_without_limits_each_leaves_its_record(opening: Callable[..., Table]) -> None:
    table = opening(per_minute=0)
    assert await table.refuse_all("192.0.2.1", times=9) == {"malformed-token": 9}
    assert await table.records() == 9


async def test_from_many_addresses_so_many_records_are_left_and_what_finds_an_organization_always_leaves_one(
    opening: Callable[..., Table],
) -> None:
    table = opening(in_all_per_minute=5)
    for number in range(6):
        assert await table.refuse(f"192.0.2.{number}") == "malformed-token"
    assert await table.refuse("198.51.100.1") == "rate-limited"
    # What is our own fault is answered as it is, and leaves no record either.
    assert await table.refuse("198.51.100.1", refusals.KeysUnavailable) == "keys-unavailable"
    assert await table.records() == 6
    assert await table.refuse("198.51.100.1", organization="acme") == "malformed-token"
    assert table.sources.unrecorded == 2


async def test_a_record_that_cannot_be_written_is_told_later(opening: Callable[..., Table]) -> None:
    table = opening()
    for _ in range(6):
        await table.refuse()
    await table.state.close()
    with pytest.raises(StateUnavailable):
        await table.sources.tell()
    again = opening()
    again.sources._untold = table.sources._untold
    await again.sources.tell()
    (told,) = [one for one in again.published if one["kind"] == "limit"]
    assert told["unrecorded"] == {"malformed-token": 2}


async def test_what_is_cut_off_while_it_is_told_is_told_at_the_end(
    opening: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at SIGTERM: the task that tells is cancelled, and what is left is told once more."""
    table = opening()
    for _ in range(6):
        await table.refuse()

    async def hangs(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    with monkeypatch.context() as patched:
        patched.setattr(table.state, "append", hangs)
        telling = asyncio.create_task(table.sources.tell())
        await asyncio.sleep(0)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    await table.sources.tell()
    (told,) = [one for one in table.published if one["kind"] == "limit"]
    assert told["unrecorded"] == {"malformed-token": 2}


async def test_it_is_told_within_a_minute(opening: Callable[..., Table], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LOOK_SECONDS", 0.01)
    table = opening()
    for _ in range(6):
        await table.refuse()
    telling = asyncio.create_task(table.sources.keep_told())
    await asyncio.sleep(0.1)
    assert not [one for one in table.published if one["kind"] == "limit"]
    table.now += 60
    told = False
    while not told:
        await asyncio.sleep(0.01)
        told = any(one["kind"] == "limit" for one in table.published)
    telling.cancel()


async def test_only_so_many_are_held(opening: Callable[..., Table], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_HELD", 3)
    table, names = opening(per_minute=1), [f"192.0.2.{number}" for number in range(6)]
    for name in names:
        await table.refuse_all(name, times=2)
    assert table.sources.held == 3
    assert [await table.refuse(name) for name in names[3:]] == ["rate-limited"] * 3


async def test_only_so_many_are_told_of_one_by_one(
    opening: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_UNTOLD", 2)
    table, names = opening(per_minute=1), [f"192.0.2.{number}" for number in range(6)]
    for name in names:
        await table.refuse_all(name, times=2)
    assert await table.refuse_all(*names) == {"rate-limited": 6}
    await table.sources.tell()
    told = {one.get("source", ""): one["unrecorded"] for one in table.published if one["kind"] == "limit"}
    one, four = {"malformed-token": 1}, {"malformed-token": 4}
    assert told == {names[0]: one, names[1]: one, "": four}


async def test_who_binds_a_repository_with_many_leaves_the_others_their_half_of_the_table(
    opening: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_UNTOLD", 4)
    held = opening().sources
    held._note("192.0.2.1", ("aaa", "bbb", "ccc", "ddd"), "unknown-actor")
    held._note("192.0.2.1", ("aaa", "bbb", "ccc", "ddd"), "unknown-actor")
    held._note("192.0.2.2", ("acme", "bbb"), "unknown-actor")
    held._note("192.0.2.3", ("acme",), "unknown-actor")
    held._note("192.0.2.4", ("acme", "bbb", "ccc"), "unknown-actor")
    told = {key: one.codes["unknown-actor"] for key, one in held._untold.items()}
    whole = {("192.0.2.1", "aaa"): 2, ("192.0.2.1", "bbb"): 2, ("192.0.2.2", "acme"): 1, ("192.0.2.3", "acme"): 1}
    assert told == whole | {sources.EVERYBODY: 1}, "what has no room of its own is counted once"


async def test_only_so_many_wait(opening: Callable[..., Table], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_PAUSED", 1)
    monkeypatch.setattr(sources, "PAUSE_SECONDS", 3600)
    table = opening()
    for _ in range(4):
        await table.refuse()
    waits = asyncio.create_task(table.refuse())
    await asyncio.sleep(0)
    assert await table.refuse() == "rate-limited"
    waits.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waits
    assert not table.sources._judged


async def test_while_many_of_a_source_wait_no_more_are_let_in(
    opening: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_JUDGED", 4)
    monkeypatch.setattr(sources, "PAUSE_SECONDS", 0.5)
    table = opening()
    for _ in range(4):
        await table.refuse()
    waiting = asyncio.gather(*(table.refuse() for _ in range(4)))
    await asyncio.sleep(0.1)
    with pytest.raises(refusals.RateLimited):
        await table.sources.admit(Source("192.0.2.1"))
    await table.sources.admit(Source("192.0.2.2"))
    assert set(await waiting) == {"rate-limited"}
    await table.sources.admit(Source("192.0.2.1"))
    assert table.sources.unrecorded == 5


async def test_a_proxy_is_always_let_in(opening: Callable[..., Table], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_JUDGED", 0)
    await opening().sources.admit(Source("192.0.2.1", stands_for_many=True))


# --- At the door, and behind proxies ---------------------------------------------------------------------------------


async def test_at_the_door_no_body_is_read_and_probes_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_JUDGED", 0)
    async with Setup(folder=tmp_path).running() as broker:
        check_refusal(await broker.client.post("/_/oidc/mint-token", content=_never()), "rate-limited", 429)
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await broker.client.get(path)).status_code in {200, 404, 503}
        assert (await broker.client.get("/_/oidc/audience")).status_code == 429


async def test_what_a_proxy_asks_for_all_its_clients_comes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_JUDGED", 0)
    settings = {"reads": "scoped", "forward_auth": "envoy"}
    async with Setup(folder=tmp_path, settings=settings).running() as broker:
        assert (await broker.client.get("/_/authorize/simple/acme-widgets/")).status_code == 401
        assert (await broker.client.get("/simple/acme-widgets/")).status_code == 429


async def _never() -> AsyncIterator[bytes]:
    raise AssertionError("the body was asked for")
    yield b""


async def test_behind_a_trusted_proxy_each_client_is_its_own_source(tmp_path: Path) -> None:
    settings = LIMITS | {"trusted_proxies": "10.0.0.0/8"}
    async with (
        Setup(folder=tmp_path, settings=settings).running() as broker,
        at(broker, "10.0.0.1", **{"X-Forwarded-For": "192.0.2.7, 192.0.2.1"}) as bad,
        at(broker, "10.0.0.1", **{"X-Forwarded-For": "192.0.2.1, 192.0.2.2"}) as other,
    ):
        await codes(bad, 5)
        assert await codes(other, 1) == ["malformed-token"]
        assert {one["source"] for one in await broker.records()} == {"192.0.2.1", "192.0.2.2"}


async def test_what_a_client_says_of_its_own_address_changes_nothing(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path, settings=LIMITS).running() as broker:
        seen = []
        for number in range(6):
            async with at(broker, "192.0.2.1", **{"X-Forwarded-For": f"203.0.113.{number}"}) as bad:
                seen += await codes(bad, 1)
        assert seen == ["malformed-token"] * 4 + ["rate-limited"] * 2
        assert {one["source"] for one in await broker.records()} == {"192.0.2.1"}


# --- Exchanges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "of"),
    [
        ("exchanges_per_minute", "repository"),
        ("exchanges_per_minute_per_organization", "organization"),
        ("exchanges_per_minute_per_issuer", "issuer"),
    ],
)
async def test_each_limit_of_exchanges_says_whose_it_is(tmp_path: Path, setting: str, of: str) -> None:
    async with Setup(folder=tmp_path, settings={setting: 2}).running() as broker:
        for _ in range(2):
            assert (await broker.mint(broker.ci.token())).status_code == 200
        token = broker.ci.token()
        answer = await broker.mint(token)
        check_refusal(answer, "rate-limited", 429)
        assert (int(answer.headers["retry-after"]), f"for this {of}" in answer.json()["message"]) == (30, True)
        broker.clock.ahead_seconds = 31
        assert (await broker.mint(token)).status_code == 200


async def test_one_organization_and_one_issuer_leave_the_others_theirs(tmp_path: Path) -> None:
    settings = {"exchanges_per_minute_per_issuer": 1, "exchanges_per_minute_per_organization": 2}
    async with Setup(folder=tmp_path, settings=settings).running() as broker:
        assert (await broker.mint(broker.ci.token("github"))).status_code == 200
        check_refusal(await broker.mint(broker.ci.token("github")), "rate-limited", 429)
        assert (await broker.mint(broker.ci.token("gitlab"))).status_code == 200


CUCKOO = (
    cuckoo("aaa")
    + """\
  own:
    issuer: github
    repository: aaa/own
    repository_id: "9"
    repository_owner_id: "8"
    workflow: release.yml
    environment: pypi
    projects: [aaa-own]
"""
)
"""Binds acme's repository beside its own, and comes before acme by its name."""


async def test_an_organization_that_uses_up_its_limit_stops_no_other_that_binds_the_same_repository(
    tmp_path: Path,
) -> None:
    setup = Setup(folder=tmp_path, settings={"exchanges_per_minute_per_organization": 2})
    setup.write()
    (tmp_path / "policies/organizations/aaa.yaml").write_text(CUCKOO, encoding="utf-8")
    async with setup.running() as broker:
        own = {"repository": "aaa/own", "repository_id": "9", "repository_owner_id": "8", "repository_owner": "aaa"}
        assert await codes(broker, 1, broker.ci.token("github", **own)) == [""]
        answers = [await broker.mint(broker.ci.token()) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        check_refusal(answers[-1], "rate-limited", 429)
        both, alone = (
            await recorded(broker, decision="allowed", organization="aaa"),
            await recorded(broker, decision="allowed", organization="acme"),
        )
        shared = ["aaa/cuckoo", "acme/widgets-release"]
        assert [one["publishers"] for one in both] == [["aaa/own"], shared]
        assert [(one["publishers"], "excerpt" in one) for one in alone] == [
            (["acme/widgets-release"], True),
            (["acme/widgets-release"], False),
        ]


async def test_of_what_left_no_record_each_organization_is_told_that_it_concerns(tmp_path: Path) -> None:
    setup = Setup(folder=tmp_path, settings=LIMITS)
    setup.write()
    (tmp_path / "policies/organizations/aaa.yaml").write_text(CUCKOO, encoding="utf-8")
    async with setup.running() as broker, at(broker, "192.0.2.1") as bad:
        for _ in range(6):
            await bad.mint(broker.ci.token(actor="mallory", actor_id="6666"))
    told = await recorded(broker, kind="limit")
    assert [(one["organization"], one["unrecorded"]) for one in told] == [
        ("aaa", {"unknown-actor": 2}),
        ("acme", {"unknown-actor": 2}),
    ]


async def test_whoever_has_a_spent_token_uses_up_nobody_s_limit_with_it(tmp_path: Path) -> None:
    settings = {"exchanges_per_minute": 3, "exchanges_per_minute_per_issuer": 3, "refusals_per_minute": 0}
    async with Setup(folder=tmp_path, settings=settings).running() as broker:
        spent = broker.ci.token()
        assert (await broker.mint(spent)).status_code == 200
        assert await codes(broker, 5, spent) == ["replayed-token"] * 3 + ["rate-limited"] * 2
        assert (await broker.mint(broker.ci.token())).status_code == 200


async def test_a_limit_of_nothing_is_none(tmp_path: Path) -> None:
    off = {"exchanges_per_minute_per_organization": 0, "exchanges_per_minute_per_issuer": 0}
    async with Setup(folder=tmp_path, settings=off).running() as broker:
        assert (await broker.mint(broker.ci.token())).status_code == 200
