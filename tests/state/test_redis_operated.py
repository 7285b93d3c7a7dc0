"""Redis as it is run: users with few rights, certificates, a Cluster whose parts move and fail, a slow network."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from broker.playground.certificates import make_certificates
from broker.playground.processes import free_port
from broker.refusals import StateUnavailable
from broker.state import Claimed, Settled, Spent, State, StoredKeys
from broker.state.redis_advice import advice
from tests.redis_server import RedisServer, cluster_of
from tests.state.conftest import one_node_cluster
from tests.state.examples import claim, is_revoked, limit, pin, record, settlement, switch, unavailable_in_time
from tests.state.test_redis import answered, comes_back, opened

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent
HOW_TO = (ROOT / "docs" / "how-to" / "redis.md").read_text(encoding="utf-8")
CLUSTERED = ("+command", "+cluster|slots", "+asking")


def least_rights() -> Sequence[str]:
    """The rules of the line in the how-to, with a password."""
    (line,) = re.findall(r"^ACL SETUSER broker (.*)$", HOW_TO, re.MULTILINE)
    return shlex.split(line.replace("PASSWORD", "secret"))


async def use(state: State) -> None:
    """What an index does in a day."""
    now = time.time()
    await state.begin(now)
    await state.ping()
    assert await state.settle(settlement(pins=(pin(),), limits=(limit(5),))) == Settled()
    await state.append(record())
    assert len(await state.records(5, "acme")) == 2
    assert len(await state.records_after("", 5, "acme")) == 2
    assert set(await state.heads()) == {"acme"}
    assert await state.pins(["acme/widgets-release"])
    await state.revoke("jti", int(now) + 60, record())
    await state.revoke_subject("organization acme", int(now), record())
    assert await is_revoked(state, "jti", ["organization acme"], int(now))
    one, other = claim("one"), claim("other")
    for each in (one, other):
        assert await state.claim(each, now=now, seconds=60) == Claimed()
        assert await state.renew(each, now=now, seconds=60)
    assert await state.store(one, now=now)
    assert await state.written_at(["one"], now=now)
    await state.leave(other)
    await state.release(other)
    assert await state.use("jti", "file", most=1, now=now, until=int(now) + 60)
    await state.store_keys("https://issuer.example", StoredKeys(fetched_at=1.0, document="{}"))
    assert await state.stored_keys("https://issuer.example")
    assert await state.api_tokens() == []
    assert not await state.remove_api_token("operator")
    await state.switch_off(switch(), record())
    assert await state.switches() == await state.switches(["organization acme"]) == [switch()]
    assert await state.switch_on("organization acme", "operator", record())


# --- The user --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["redis", "redis+cluster"])
async def test_a_user_with_the_rights_of_the_how_to_can_do_all_that_the_broker_does(kind: str) -> None:
    with RedisServer() if kind == "redis" else one_node_cluster() as server:
        server.asked("ACL", "SETUSER", "broker", *least_rights(), *(CLUSTERED if kind != "redis" else ()))
        async with opened(f"{kind}://broker:secret@127.0.0.1:{server.port}/0?replicas=0") as state:
            await use(state)
        assert server.asked("ACL", "LOG") == []
        async with opened(f"{kind}://broker:secret@127.0.0.1:{server.port}/0?replicas=0&prefix={{other}}") as state:
            with unavailable_in_time():
                await state.settle(settlement())


def test_the_user_of_the_how_to_has_no_right_that_the_broker_does_not_use() -> None:
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "broker" / "state").glob("redis*.py"))
    in_scripts = re.findall(r"redis\.p?call\('([A-Z]+)'", sources)
    sent = re.findall(r"(?:_command|Operation|pack_command)\(\"([A-Z]+)\"", sources)
    rights = [rule for rule in least_rights() if rule[0] in "+-@"]
    assert sorted(rights) == sorted({f"+{name.lower()}" for name in (*in_scripts, *sent)})
    assert {rule for rule in least_rights() if rule not in rights} == {"reset", "on", ">secret", "~{broker}:*"}
    assert all(right in HOW_TO for right in CLUSTERED)


# --- What the log is told at start -----------------------------------------------------------------------------------


async def test_a_redis_that_is_kept_as_it_must_be_is_no_news() -> None:
    with RedisServer("--appendonly", "yes") as server:
        async with opened(server.url) as state:
            assert await state.begin(time.time()) == []


async def test_what_is_not_as_it_must_be_is_told(redis_server: RedisServer, redis_replica: RedisServer) -> None:
    del redis_replica
    for replicas, told in ((0, ["appendonly yes", "add replicas=1"]), (1, ["appendonly yes", "min-replicas-to-write"])):
        async with opened(f"{redis_server.url}?replicas={replicas}") as state:
            said = await state.begin(time.time())
            assert [part in one for part, one in zip(told, said, strict=True)] == [True, True]


async def test_who_may_not_ask_is_told_so_and_works() -> None:
    with RedisServer() as server:
        server.asked("ACL", "SETUSER", "broker", *(right for right in least_rights() if right != "+info"))
        async with opened(f"redis://broker:secret@127.0.0.1:{server.port}/0") as state:
            (said,) = await state.begin(time.time())
            assert "+info" in said
            await use(state)


def test_replicas_that_are_not_there_are_told() -> None:
    told = advice(["maxmemory:0", "aof_enabled:1\r\n", "connected_slaves:1\r\nmin_slaves_good_slaves:1"], replicas=2)
    assert told == ["Redis has 1 replicas and the broker waits for 2: it refuses until they come"]


# --- TLS -------------------------------------------------------------------------------------------------------------


def make_client_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    files = folder / "client.pem", folder / "client.key.pem"
    files[0].write_bytes(made.sign(key, SHA256()).public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


async def test_a_server_that_asks_for_the_client_s_certificate_gets_it(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    certificate, key = make_client_certificate(tmp_path)
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(made.authority.read_bytes() + certificate.read_bytes())
    port = free_port()
    options = ("--tls-port", str(port), "--tls-auth-clients", "yes", "--tls-ca-cert-file", str(trusted))
    files = ("--tls-cert-file", str(made.certificate), "--tls-key-file", str(made.key))
    with RedisServer(*options, *files):
        url = f"rediss://127.0.0.1:{port}/0?ca={made.authority}"
        async with opened(f"{url}&certificate={certificate}&key={key}") as state:
            assert await state.settle(settlement()) == Settled()
        async with opened(url) as state:
            with unavailable_in_time():
                await state.ping()


# --- A Cluster -------------------------------------------------------------------------------------------------------


async def test_in_a_cluster_a_slot_moves_and_a_master_fails_and_what_is_spent_stays_spent() -> None:
    with cluster_of(masters=3) as cluster:
        async with opened(cluster.url) as one, opened(cluster.url) as other:
            await comes_back(one, within_seconds=20)
            await one.begin(time.time())
            await one.settle(settlement(spend="token", receipt="first"))
            assert await other.settle(settlement(spend="token")) == Spent(receipt="first")
            busy = asyncio.Event()
            outcomes: list[object] = []

            async def spend() -> None:
                while not busy.is_set():
                    try:
                        outcomes.append(await one.settle(settlement()))
                    except StateUnavailable as refusal:
                        outcomes.append(refusal.code)
                    await asyncio.sleep(0.01)

            spending = asyncio.create_task(spend())
            await asyncio.to_thread(cluster.move_slot, "{broker}")
            await comes_back(one, within_seconds=20)
            assert await other.settle(settlement(spend="token")) == Spent(receipt="first")
            failed = await asyncio.to_thread(cluster.stop_master, "{broker}")
            with unavailable_in_time():  # no replica is left that could have it
                await other.settle(settlement())
            failed.start()
            await comes_back(one, within_seconds=30)
            assert cluster.master_of("{broker}") is not failed
            # The new master's only replica has just come back, and may not keep up on a busy machine.
            spent = await answered(one, lambda: settlement(spend="token"), within_seconds=30)
            assert spent == Spent(receipt="first")
            busy.set()
            await spending
            assert set(map(str, outcomes)) <= {str(Settled()), "state-unavailable"}


# --- The network -----------------------------------------------------------------------------------------------------


class SlowNetwork:
    """Passes on to a Redis, later than it came; or not at all, as where packets are dropped."""

    def __init__(self, port: int) -> None:
        self.delay_seconds = 0.0
        self.passes = asyncio.Event()
        self.passes.set()
        self._to = port
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Its port."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)  # what was closed is gone now

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
        for source, sink in ((reader, up_writer), (up_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pass_on(source, sink)))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(sink):
            while data := await source.read(1 << 16):
                await asyncio.sleep(self.delay_seconds)
                await self.passes.wait()
                sink.write(data)


async def test_a_slow_network_is_waited_for_and_one_that_drops_all_is_refused(
    redis_server: RedisServer,
) -> None:
    network = SlowNetwork(redis_server.port)
    async with network.listening() as port, opened(f"redis://127.0.0.1:{port}/0?prefix={{slow}}") as state:
        await state.begin(time.time())
        network.delay_seconds = 0.1
        assert await state.settle(settlement(spend="token")) == Settled()
        network.delay_seconds = 1.2  # there and back, longer than an operation may take
        with unavailable_in_time():
            await state.settle(settlement())
        network.delay_seconds = 0.0
        network.passes.clear()
        with unavailable_in_time():
            await asyncio.gather(*(state.settle(settlement()) for _ in range(100)))
        network.passes.set()
        await comes_back(state, within_seconds=10)
        assert isinstance(await state.settle(settlement(spend="token")), Spent)
