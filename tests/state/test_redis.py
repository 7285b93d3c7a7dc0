"""What only a Redis can suffer: being stopped, hanging, failing over, being full, and answers that are lost."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import time
import traceback
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from broker.api_tokens import ApiToken
from broker.chain import Head
from broker.playground.certificates import make_certificates
from broker.playground.processes import free_port
from broker.policy.model import LONGEST_LIFETIME_SECONDS
from broker.refusals import StateUnavailable
from broker.state import (
    REVOCATION_MARGIN_SECONDS,
    Busy,
    Claimed,
    Forgotten,
    Outcome,
    Settled,
    Settlement,
    Spent,
    State,
    StoredKeys,
    Written,
    redis_together,
)
from broker.state.opening import open_state
from broker.state.redis_confirming import TRUSTED_SECONDS
from broker.state.redis_scripts import SETTLE
from broker.state.redis_servers import MOST_CONNECTIONS
from broker.state.redis_together import MOST_UNDER_WAY
from broker.tokens import LEEWAY_SECONDS
from tests.redis_server import RedisServer, has_replicas, wait_until, watched
from tests.state.conftest import RETENTION_DAYS, one_node_cluster
from tests.state.examples import claim, is_revoked, limit, pin, record, settlement, unavailable_in_time

pytestmark = pytest.mark.anyio

DAY_MS = 86_400_000
KEEPS = ("--appendonly", "yes")
"""Of a redis-server: what was written survives that it is stopped."""


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[State]:
    """A state, closed at the end."""
    state = open_state(url, retention_days=RETENTION_DAYS)
    try:
        yield state
    finally:
        await state.close()


async def test_an_api_token_that_an_older_broker_stored_has_no_organization(redis_server: RedisServer) -> None:
    async with opened(redis_server.url + f"?prefix={{{uuid.uuid4().hex}}}") as state:
        kept = ApiToken.make("devpi", "registry", now=time.time(), seconds=60)[1]
        await state.store_api_token(kept)
        with Redis(port=redis_server.port) as client:
            (key,) = client.keys(f"*:api-token:{kept.id}")
            assert client.hdel(key, "organization") == 1
        assert await state.api_token(kept.id) == kept


@pytest.fixture
def prefix() -> str:
    """Keys of this test alone."""
    return f"{{{uuid.uuid4().hex}}}"


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Redis]:
    """What an operator sees in the shared Redis."""
    with Redis(port=redis_server.port, decode_responses=True) as client:
        yield client


@pytest.fixture
async def state(redis_server: RedisServer, prefix: str) -> AsyncIterator[State]:
    """State in the shared Redis."""
    async with opened(f"{redis_server.url}?prefix={prefix}") as state:
        yield state


async def all_unavailable_in_time(*asked: Awaitable[object]) -> None:
    """Each of these, asked at once, ends so."""
    with unavailable_in_time():
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {StateUnavailable}
        raise next(outcome for outcome in outcomes if isinstance(outcome, StateUnavailable))


async def comes_back(state: State, *, within_seconds: float) -> None:
    """Waits until a settlement succeeds again."""
    assert await answered(state, settlement, within_seconds=within_seconds) == Settled()


async def answered(state: State, asked: Callable[[], Settlement], *, within_seconds: float) -> Outcome:
    """What a state answers to a settlement as soon as it answers."""
    until = time.monotonic() + within_seconds
    while True:
        try:
            return await state.settle(asked())
        except StateUnavailable:
            assert time.monotonic() < until, "the state does not come back"
            await asyncio.sleep(0.1)


# --- Gone, and back --------------------------------------------------------------------------------------------------


async def test_a_stopped_redis_is_unavailable_and_serves_again_without_a_restart() -> None:
    with RedisServer(*KEEPS) as server:
        async with opened(server.url) as state:
            await asyncio.gather(*(state.settle(settlement()) for _ in range(50)))
            server.stop()
            everything = (
                state.settle(settlement()),
                state.append(record()),
                state.records(1),
                state.pins(["acme/widgets-release"]),
                state.revoke("token", int(time.time()) + 60, record()),
                is_revoked(state, "token"),
                state.store_keys("https://issuer.example", StoredKeys(fetched_at=1.0, document="{}")),
                state.stored_keys("https://issuer.example"),
                state.ping(),
            )
            for one in everything:
                with unavailable_in_time():
                    await one
            server.start()
            await state.ping()
            assert await state.settle(settlement()) == Settled()


async def test_a_cluster_that_was_stopped_serves_again_without_a_restart() -> None:
    with one_node_cluster(*KEEPS) as server:
        async with opened(f"redis+cluster://127.0.0.1:{server.port}?replicas=0") as state:
            assert await state.settle(settlement()) == Settled()
            server.stop()
            with unavailable_in_time():
                await state.settle(settlement())
            server.start()
            await comes_back(state, within_seconds=10)


async def test_a_connection_that_uvloop_finds_closed_while_writing_is_replaced(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its RuntimeError is the OSError of asyncio: nothing was sent, so it is sent again."""
    connections = state._client.redis  # type: ignore[attr-defined]
    execute, broken = connections.execute_command, [RuntimeError("unable to perform operation on <TCPTransport>")]

    async def execute_command(*command: object) -> object:
        if broken:
            raise broken.pop()
        return await execute(*command)

    monkeypatch.setattr(connections, "execute_command", execute_command)
    assert await is_revoked(state, "token") is True
    assert not broken


async def test_so_is_one_on_which_several_are_sent_together(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = state._client.redis  # type: ignore[attr-defined]
    pipeline, broken = connections.pipeline, [RuntimeError("unable to perform operation on <TCPTransport>")]

    def pipeline_that_breaks(**named: bool) -> object:
        made = pipeline(**named)
        execute = made.execute

        async def once_broken(**named: bool) -> object:
            if broken:
                raise broken.pop()
            return await execute(**named)

        made.execute = once_broken
        return made

    monkeypatch.setattr(connections, "pipeline", pipeline_that_breaks)
    assert await asyncio.gather(*(state.settle(settlement()) for _ in range(3))) == [Settled()] * 3
    assert not broken


async def test_a_redis_that_stops_in_the_middle_of_a_burst_harms_nobody_for_long() -> None:
    """Whoever waits gets an answer or a refusal, never another error."""
    with RedisServer(*KEEPS) as server:
        async with opened(server.url) as state:
            outcomes: list[object] = []

            async def spend() -> None:
                until = time.monotonic() + 1.5
                while time.monotonic() < until:
                    try:
                        outcomes.append(await state.settle(settlement()))
                    except StateUnavailable as refusal:
                        outcomes.append(refusal.code)
                        await asyncio.sleep(0.05)

            burst = asyncio.gather(*(spend() for _ in range(100)))
            await asyncio.sleep(0.3)
            server.stop()
            await asyncio.sleep(0.4)
            server.start()
            await burst
            assert {outcome for outcome in outcomes if isinstance(outcome, str)} == {"state-unavailable"}
            assert outcomes[-1] == Settled()


async def test_a_redis_that_hangs_is_unavailable_in_time_for_all_who_wait() -> None:
    with RedisServer() as server:
        async with opened(server.url) as state:
            await state.ping()
            server.freeze()
            asked = [settlement() for _ in range(3 * MOST_CONNECTIONS)]
            began = time.perf_counter()
            outcomes = await asyncio.gather(*map(state.settle, asked), return_exceptions=True)
            assert time.perf_counter() - began < 2.5
            assert {type(outcome) for outcome in outcomes} == {StateUnavailable}
            server.thaw()
            await comes_back(state, within_seconds=5)
            # What Redis had received it did, and nobody was told. Asked again by the same attempt, it is theirs.
            assert set(await asyncio.gather(*map(state.settle, asked))) == {Settled()}


async def test_a_host_that_is_not_there_is_unavailable_in_time() -> None:
    async with opened(f"redis://127.0.0.1:{free_port()}/0") as state:
        with unavailable_in_time():
            await state.settle(settlement())


async def test_a_burst_opens_a_bounded_number_of_connections(state: State, client: Redis) -> None:
    before = client.info("stats")["total_connections_received"]
    outcomes = await asyncio.gather(*(state.settle(settlement()) for _ in range(10 * MOST_CONNECTIONS)))
    assert set(outcomes) == {Settled()}
    assert client.info("stats")["total_connections_received"] - before <= MOST_UNDER_WAY


async def test_of_those_sent_together_one_that_fails_fails_alone(state: State, client: Redis, prefix: str) -> None:
    client.set(f"{prefix}:spend:token 7", "of another kind")
    asked = [state.settle(settlement(spend=f"token {number}")) for number in range(20)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [number for number, one in enumerate(outcomes) if isinstance(one, StateUnavailable)] == [7]
    assert outcomes.count(Settled()) == 19


async def test_whoever_gives_up_is_not_waited_for_and_harms_nobody() -> None:
    with RedisServer() as server:
        async with opened(server.url) as state:
            await state.ping()
            early = asyncio.create_task(state.settle(settlement(spend="early")))
            await asyncio.sleep(0)
            early.cancel()
            await asyncio.sleep(0.1)
            server.freeze()
            asked = [asyncio.create_task(state.settle(settlement(spend=f"token {n}"))) for n in range(3)]
            await asyncio.sleep(0.1)
            asked[1].cancel()
            await asyncio.sleep(0)
            server.thaw()
            assert [await asked[0], await asked[2]] == [Settled()] * 2
            assert await state.settle(settlement(spend="early")) == Settled(), "what was given up in time was not sent"


async def test_more_than_can_wait_are_refused_at_once(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_together, "MOST_WAITING", 5)
    asked = [state.settle(settlement()) for _ in range(8)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Settled] * 5 + [StateUnavailable] * 3


# --- Empty, and back -------------------------------------------------------------------------------------------------


async def test_a_redis_that_comes_back_empty_takes_nothing_that_was_issued_before() -> None:
    """Nor for the leeway after, as clocks differ. Brokers that went on know that it was not empty."""
    with RedisServer() as server:
        async with opened(server.url) as state:
            now = time.time()
            await state.begin(now)
            assert await state.settle(settlement(spend="token")) == Settled()
            await state.revoke("revoked", int(now) + 600, record())
            server.stop()
            server.start()
            for spend, issued_at in (("token", now), ("another", now + 1), ("later", now + LEEWAY_SECONDS - 1)):
                assert await state.settle(settlement(spend=spend, issued_at=issued_at)) == Forgotten()
            assert await is_revoked(state, "revoked", (), int(now))
            later = time.time() + LEEWAY_SECONDS + 1
            assert await state.settle(settlement(now=later, issued_at=later)) == Settled()
            assert not await is_revoked(state, "new", (), int(later))
        async with opened(server.url) as another:
            await another.begin(time.time())
            assert await another.settle(settlement(spend="token", issued_at=now)) == Forgotten()


# --- Lost answers ----------------------------------------------------------------------------------------------------


class LosingProxy:
    """Passes on to a Redis, and loses as many answers to scripts as it is told to: the connection breaks instead."""

    def __init__(self, port: int) -> None:
        self.losses = 0
        self._to = port
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        """Its port."""
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
        losing = asyncio.Event()

        async def requests() -> None:
            while request := await reader.read(1 << 16):
                if b"EVALSHA" in request and self.losses > 0:
                    self.losses -= 1
                    losing.set()
                up_writer.write(request)

        async def answers() -> None:
            while (answer := await up_reader.read(1 << 16)) and not losing.is_set():
                writer.write(answer)

        tasks = {asyncio.create_task(requests()), asyncio.create_task(answers())}
        self._tasks |= tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        up_writer.close()
        writer.close()


@pytest.mark.parametrize("losses", [1, 2])
async def test_a_settlement_whose_answer_was_lost_is_settled_once(
    redis_server: RedisServer, state: State, prefix: str, losses: int
) -> None:
    """One loss is mended unseen. After two, the caller is refused, the token is spent, and nobody holds anything."""
    asked = settlement(spend="token", pins=(pin("42"),), limits=(limit(5),))
    await state.settle(settlement())  # Redis knows the script
    proxy = LosingProxy(redis_server.port)
    async with proxy.listening() as port, opened(f"redis://127.0.0.1:{port}/0?prefix={prefix}") as losing:
        proxy.losses = losses
        if losses == 1:
            assert await losing.settle(asked) == Settled()
        else:
            with unavailable_in_time():
                await losing.settle(asked)
    assert await state.settle(settlement(spend="token")) == Spent(receipt=asked.receipt)
    assert (await state.records(10)).count(asked.record.body) == 1


async def test_a_record_whose_answer_was_lost_is_not_written_twice(
    redis_server: RedisServer, state: State, prefix: str
) -> None:
    await state.append(record(body="before"))
    proxy = LosingProxy(redis_server.port)
    async with proxy.listening() as port, opened(f"redis://127.0.0.1:{port}/0?prefix={prefix}") as losing:
        proxy.losses = 1
        with unavailable_in_time():
            await losing.append(record(body="once"))
    assert await state.records(10) == ["before", "once"]


async def test_a_claim_whose_answer_was_lost_is_still_the_attempt_s(
    redis_server: RedisServer, state: State, prefix: str
) -> None:
    mine = claim()
    await state.claim(claim("another name"), now=time.time(), seconds=60)  # Redis knows the scripts
    await state.renew(mine, now=time.time(), seconds=60)
    proxy = LosingProxy(redis_server.port)
    async with proxy.listening() as port, opened(f"redis://127.0.0.1:{port}/0?prefix={prefix}") as losing:
        proxy.losses = 1
        assert await losing.claim(mine, now=time.time(), seconds=60) == Claimed()
        proxy.losses = 1
        assert await losing.store(mine, now=time.time())
    assert await state.claim(claim(), now=time.time(), seconds=60) == Written(sha256=mine.sha256)


async def test_a_cluster_client_does_not_write_a_record_twice_either() -> None:
    """It has retries of its own, which must stay off."""
    port = free_port()
    with one_node_cluster("--cluster-announce-port", str(port)) as server:
        proxy = LosingProxy(server.port)
        async with proxy.listening(port), opened(f"redis+cluster://127.0.0.1:{port}?replicas=0") as state:
            await state.append(record(body="before"))
            proxy.losses = 1
            with unavailable_in_time():
                await state.append(record(body="once"))
            assert await state.records(10) == ["before", "once"]


async def test_a_redis_that_forgot_the_scripts_is_sent_them_again(state: State, client: Redis) -> None:
    await state.settle(settlement())
    assert client.script_exists(SETTLE.name) == [True]
    client.script_flush()
    outcomes = await asyncio.gather(state.append(record()), *(state.settle(settlement()) for _ in range(20)))
    assert outcomes == [None] + [Settled()] * 20


# --- What is kept, and for how long ----------------------------------------------------------------------------------


async def test_everything_is_kept_for_its_time_by_the_servers_clock(state: State, client: Redis, prefix: str) -> None:
    """Relative times only: a broker's clock that is a day behind would otherwise have tokens forgotten at once."""
    yesterday = time.time() - 86400
    asked = settlement(now=yesterday, spend="token", spend_until=int(yesterday) + 600, limits=(limit(1, 60, key="k"),))
    assert await state.settle(asked) == Settled()
    for seconds in (900, 1):  # the longer one holds
        await state.revoke("jti", int(yesterday) + seconds, record(at=yesterday))
    assert 598_000 < client.pttl(f"{prefix}:spend:token") <= 600_000
    assert 60_000 < client.pttl(f"{prefix}:limit:k") <= 120_000
    kept = client.pttl(f"{prefix}:revoked:jti") - REVOCATION_MARGIN_SECONDS * 1000
    assert 898_000 < kept <= 901_000
    for before in (int(yesterday) + 50, int(yesterday)):  # the longer one holds
        await state.revoke_subject("everything", before, record(at=yesterday))
    kept = client.pttl(f"{prefix}:revoked-subject:everything") - REVOCATION_MARGIN_SECONDS * 1000
    assert 48_000 < kept - LONGEST_LIFETIME_SECONDS * 1000 <= 51_000
    assert isinstance(await state.settle(settlement(spend="token")), Spent)
    mine, name = claim(), f"{prefix}:file:{hashlib.sha256(claim().name.encode()).hexdigest()}"
    for ask, milliseconds in (
        (lambda: state.claim(mine, now=yesterday, seconds=60), 60_000),
        (lambda: state.renew(mine, now=yesterday, seconds=90), 90_000),
        (lambda: state.store(mine, now=yesterday), RETENTION_DAYS * DAY_MS),
    ):
        await ask()
        assert milliseconds - 2000 < client.pttl(name) <= milliseconds


async def test_every_key_has_the_prefix(state: State, redis_server: RedisServer, prefix: str) -> None:
    client = Redis(port=redis_server.port)  # as bytes: other tests leave keys here that are no text
    before = set(client.scan_iter(count=1000))
    await state.settle(settlement(pins=(pin(),), limits=(limit(1),)))
    await state.revoke("jti", int(time.time()) + 60, record())
    await state.store_keys("https://issuer.example", StoredKeys(fetched_at=1.0, document="{}"))
    await state.claim(claim(), now=time.time(), seconds=60)
    await state.ping()
    new = set(client.scan_iter(count=1000)) - before
    assert len(new) == 11
    assert all(key.startswith(f"{prefix}:".encode()) for key in new)
    client.close()


async def test_records_older_than_the_retention_go_and_the_chain_tells_so(
    state: State, client: Redis, prefix: str
) -> None:
    """The oldest first, some now and then when others come; a ping takes out more."""
    now_ms = int(time.time() * 1000)
    for number in range(1, 201):
        old, organization = f"{now_ms - (RETENTION_DAYS + 1) * DAY_MS}-{number}", "acme" if number % 2 else "bolt"
        fields = {"organization": organization, "sequence": str(number), "link": f"{number:064x}", "body": "old"}
        client.xadd(f"{prefix}:log:", fields, id=old)  # type: ignore[arg-type]  # redis-py's dicts are invariant
        client.xadd(f"{prefix}:log-of:{organization}", {"of": ""}, id=old)
        client.hset(f"{prefix}:log-heads:", organization, f"{number} {number:064x} 0 {0:064x}")
    for number in range(50):
        await state.append(record(body=str(number)))
    left = client.xlen(f"{prefix}:log:") - 50
    assert left < 200
    assert left % 32 == 200 % 32
    heads = await state.heads()
    assert heads["acme"].swept_sequence in {(200 - left) - 1, 200 - left}
    assert heads["acme"].swept_link == f"{heads['acme'].swept_sequence:064x}"
    await state.ping()
    await state.ping()
    assert client.xlen(f"{prefix}:log:") == 50
    assert client.xlen(f"{prefix}:log-of:acme") == 50
    assert client.xlen(f"{prefix}:log-of:bolt") == 0
    heads = await state.heads()
    assert heads["bolt"] == Head(sequence=200, link=f"{200:064x}", swept_sequence=200, swept_link=f"{200:064x}")
    assert await state.records(400, "acme") == [str(number) for number in range(50)]
    assert [kept.sequence for kept in await state.records_after("", 100, "acme")] == list(range(200, 250))


# --- A Redis that is not as it should be -----------------------------------------------------------------------------


async def test_a_redis_that_forgets_when_it_is_full_is_not_ready() -> None:
    """An evicted key would be a spent token that can be spent again."""
    with RedisServer("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru") as server:
        async with opened(server.url) as state:
            with pytest.raises(StateUnavailable) as raised:
                await state.ping()
            assert "noeviction" in raised.value.detail
    with RedisServer("--maxmemory", "100mb", "--maxmemory-policy", "noeviction") as server:
        async with opened(server.url) as state:
            await state.ping()


async def test_a_full_redis_is_unavailable_and_nothing_is_written() -> None:
    with RedisServer("--maxmemory", "200kb", "--maxmemory-policy", "noeviction") as server:
        async with opened(server.url) as state:
            with unavailable_in_time():
                await state.settle(settlement(limits=(limit(5),), pins=(pin(),)))
            with unavailable_in_time():
                await state.ping()
        with Redis(port=server.port) as client:
            assert client.dbsize() == 0


async def test_a_replica_is_unavailable_for_writing(redis_server: RedisServer) -> None:
    with RedisServer("--replicaof", "127.0.0.1", str(redis_server.port)) as replica:
        async with opened(replica.url) as state:
            with unavailable_in_time():
                await state.settle(settlement())
            with unavailable_in_time():
                await state.ping()


async def test_a_password_is_used_and_never_shown() -> None:
    with RedisServer("--requirepass", "pa/ss:word", answers=b"-NOAUTH") as server:
        async with opened(f"redis://:pa%2Fss%3Aword@127.0.0.1:{server.port}/0") as state:
            assert await state.settle(settlement()) == Settled()
            assert "ss:word" not in repr(state)
        async with opened(f"redis://:wr%2Fong-word@127.0.0.1:{server.port}/0") as state:
            with pytest.raises(StateUnavailable) as raised:
                await state.ping()
            assert "ong-word" not in "".join(traceback.format_exception(raised.value))


async def test_a_wrong_kind_of_key_under_the_prefix_is_unavailable_and_grants_nothing(
    state: State, client: Redis, prefix: str
) -> None:
    client.set(f"{prefix}:spend:token", "somebody else's")
    with unavailable_in_time():
        await state.settle(settlement(spend="token"))
    assert await state.records(10) == []


# --- Sentinel and TLS ------------------------------------------------------------------------------------------------


async def test_a_failover_by_sentinel_under_load_is_followed_and_no_token_is_spent_twice() -> None:
    with watched() as redis:
        url = redis.url().replace("//", f"//127.0.0.1:{free_port()},")  # nobody is there: the next one is asked
        async with opened(url) as one, opened(url) as other:
            settled: Counter[str] = Counter()
            refused, ended = 0, asyncio.Event()

            async def spend(caller: int) -> None:
                nonlocal refused
                for number in itertools.count():
                    if ended.is_set():
                        return
                    token = f"{caller} {number}"
                    asked = (state.settle(settlement(spend=token)) for state in (one, other))
                    outcomes = await asyncio.gather(*asked, return_exceptions=True)
                    settled[token] += outcomes.count(Settled())
                    refused += sum(isinstance(outcome, StateUnavailable) for outcome in outcomes)
                    await asyncio.sleep(0.01)

            load = [asyncio.create_task(spend(caller)) for caller in range(4)]
            await comes_back(one, within_seconds=10)
            await asyncio.sleep(0.5)
            redis.servers[0].stop()
            await comes_back(one, within_seconds=30)
            assert redis.master() is not redis.servers[0]
            ended.set()
            await asyncio.gather(*load)
            assert refused > 0
            assert set(settled.values()) <= {0, 1}
            for token in [token for token, times in settled.items() if times]:
                assert isinstance(await other.settle(settlement(spend=token)), Spent)


async def test_what_no_replica_has_is_not_acknowledged() -> None:
    """A failover would lose it, and the token could be spent again, the revoked one used."""
    with RedisServer("--repl-diskless-sync-delay", "0") as server, RedisServer() as replica:
        replica.asked("REPLICAOF", "127.0.0.1", server.port)
        wait_until(lambda: has_replicas(server, 1), "the replica does not come up")
        async with opened(f"{server.url}?replicas=1") as state:
            spent = settlement(spend="token")
            assert await state.settle(spent) == Settled()
            replica.freeze()
            await all_unavailable_in_time(
                state.settle(settlement()),
                state.append(record()),
                state.revoke("another", int(time.time()) + 60, record()),
                state.claim(claim(), now=time.time(), seconds=60),
                state.use("token", "file", most=1, now=time.time(), until=int(time.time()) + 60),
                state.ping(),
            )
            replica.thaw()
            await comes_back(state, within_seconds=10)
            assert await state.settle(spent) == Settled()


async def test_what_no_replica_has_is_not_acknowledged_where_the_last_of_several_is_an_error(prefix: str) -> None:
    """Their one `WAIT` comes behind the last: an error of its own must not hide what that said."""
    with RedisServer() as server, Redis(port=server.port) as client:
        client.set(f"{prefix}:spend:wrong", "of another kind")
        async with opened(f"{server.url}?prefix={prefix}&replicas=1") as state:
            await all_unavailable_in_time(
                *(state.settle(settlement()) for _ in range(3)), state.settle(settlement(spend="wrong"))
            )


async def test_a_master_that_was_replaced_unseen_is_neither_written_nor_believed(prefix: str) -> None:
    """As a broker's that is cut off with it: what was revoked at the new master since, the old one does not know."""
    with RedisServer("--repl-diskless-sync-delay", "0") as old, RedisServer() as new:
        new.asked("REPLICAOF", "127.0.0.1", old.port)
        wait_until(lambda: has_replicas(old, 1), "the replica does not come up")
        async with (
            opened(f"{old.url}?prefix={prefix}&replicas=1") as behind,
            opened(f"{new.url}?prefix={prefix}") as state,
        ):
            await behind.settle(settlement(spend="token"))
            assert not await is_revoked(behind, "token", (), int(time.time()))
            new.asked("REPLICAOF", "NO", "ONE")
            await state.revoke("token", int(time.time()) + 60, record())
            await asyncio.sleep(TRUSTED_SECONDS)
            await all_unavailable_in_time(
                is_revoked(behind, "token"),
                behind.pins(["acme/widgets-release"]),
                behind.api_token("operator"),
                behind.settle(settlement(spend="another")),
            )


async def test_who_may_not_ask_for_the_replicas_acknowledges_nothing() -> None:
    with RedisServer() as server:
        server.asked("ACL", "SETUSER", "broker", "on", ">secret", "~*", "+@all", "-wait")
        async with opened(f"redis://broker:secret@127.0.0.1:{server.port}/0?replicas=1") as state:
            await all_unavailable_in_time(state.settle(settlement()), is_revoked(state, "token"))


async def test_a_script_that_wrote_nothing_says_nothing_of_the_replicas() -> None:
    """It had nothing to wait for; were the master believed for it, one that was cut off would be."""
    with RedisServer("--repl-diskless-sync-delay", "0") as server, RedisServer() as replica:
        replica.asked("REPLICAOF", "127.0.0.1", server.port)
        wait_until(lambda: has_replicas(server, 1), "the replica does not come up")
        async with opened(f"{server.url}?replicas=1") as state:
            now = time.time()
            assert await state.claim(claim(attempt="one"), now=now, seconds=60) == Claimed()
            await asyncio.sleep(TRUSTED_SECONDS)
            replica.freeze()
            with contextlib.suppress(StateUnavailable):  # where the master wrote something of its own meanwhile
                assert await state.claim(claim(attempt="two"), now=now, seconds=60) == Busy()
            await all_unavailable_in_time(is_revoked(state, "token"))


async def test_a_master_without_its_replicas_refuses_before_anything_is_written_where_it_is_told_to() -> None:
    """`min-replicas-to-write`: then the identity token is as good as new."""
    with RedisServer("--min-replicas-to-write", "1") as server:
        async with opened(f"{server.url}?replicas=1") as state:
            with unavailable_in_time():
                await state.settle(settlement())
        with Redis(port=server.port) as client:
            assert client.dbsize() == 0


async def test_behind_a_confirmed_write_reads_cost_no_write(
    redis_server: RedisServer, redis_replica: RedisServer, prefix: str
) -> None:
    del redis_replica
    async with opened(f"{redis_server.url}?prefix={prefix}&replicas=1") as state:
        await is_revoked(state, "token", (), 1)
        offset = redis_server.asked("INFO", "replication")["master_repl_offset"]
        for _ in range(5):
            await is_revoked(state, "token")
        assert redis_server.asked("INFO", "replication")["master_repl_offset"] - offset < 200


async def test_a_service_that_sentinels_do_not_know_is_unavailable() -> None:
    with RedisServer(mode=("--sentinel",)) as sentinel:
        async with opened(f"redis+sentinel://127.0.0.1:{sentinel.port}/nothing/0?replicas=0") as state:
            with unavailable_in_time():
                await state.ping()


async def test_tls_is_used_and_its_certificate_checked(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    port = free_port()
    options = ("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(certificates.authority))
    files = ("--tls-cert-file", str(certificates.certificate), "--tls-key-file", str(certificates.key))
    with RedisServer(*options, *files):
        async with opened(f"rediss://127.0.0.1:{port}/0?ca={certificates.authority}") as state:
            assert await state.settle(settlement()) == Settled()
        async with opened(f"rediss://127.0.0.1:{port}/0") as state:
            with unavailable_in_time():
                await state.ping()
        async with opened(f"redis://127.0.0.1:{port}/0") as state:
            with unavailable_in_time():
                await state.ping()
