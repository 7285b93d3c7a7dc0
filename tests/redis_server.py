"""A real redis-server for tests: on a free port of loopback, in a folder of its own, with nothing kept on disk."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError

from broker.playground.processes import free_port

STARTS_WITHIN_SECONDS = 10


class RedisServer:
    """A redis-server that can be stopped and started again on the same port, and comes back empty.

    Args:
        options: Further ones of redis-server, such as "--cluster-enabled", "yes".
        mode: "--sentinel" for a Sentinel; then `configuration` is its file's text.
        answers: What it says to a PING once it serves; a server with a password says something else.
    """

    def __init__(
        self,
        *options: str,
        port: int | None = None,
        mode: tuple[str, ...] = (),
        configuration: str = "",
        answers: bytes = b"+PONG",
    ) -> None:
        self.port = port or free_port()
        self._options, self._mode, self._configuration, self._answers = options, mode, configuration, answers
        self._folder = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As `BROKER_STATE_URL` takes it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts it, and returns once it answers."""
        if not self._folder:
            self._folder = tempfile.mkdtemp(prefix="redis-")
        program = shutil.which("redis-server")
        assert program, "the tests need a real redis-server: install your system's package of that name"
        file = Path(self._folder) / "server.conf"
        file.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {self._folder}\n{self._configuration}")
        keep_nothing = () if self._mode else ("--save", "", "--appendonly", "no")
        self._process = subprocess.Popen(
            [program, file, *keep_nothing, *self._options, *self._mode],
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + STARTS_WITHIN_SECONDS
        while not self._serves():
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.01)

    def stop(self) -> None:
        """Ends it, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Makes it hang: connections are accepted by the system, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def asked(self, *command: str | int) -> Any:
        """What it answers to a command."""
        with Redis(port=self.port, decode_responses=True) as client:
            return client.execute_command(*command)

    def _serves(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(self._answers)
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A master and its replicas, and the Sentinels that watch them."""

    servers: Sequence[RedisServer]
    """The first one began as the master."""
    sentinels: Sequence[RedisServer]

    def url(self, options: str = "") -> str:
        """As `BROKER_STATE_URL` takes it."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/main/0{options}"

    def master(self) -> RedisServer:
        """Whom the first Sentinel calls the master."""
        _, port = self.sentinels[0].asked("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        (master,) = (server for server in self.servers if server.port == int(port))
        return master


@contextlib.contextmanager
def watched(*, replicas: int = 2, sentinels: int = 1, down_after_ms: int = 500) -> Iterator[Watched]:
    """A master, replicas and Sentinels that know each other, for as long as the context is open."""
    with contextlib.ExitStack() as stack:
        options = ("--repl-diskless-sync-delay", "0")
        master = stack.enter_context(RedisServer(*options))
        follow = (*options, "--replicaof", "127.0.0.1", str(master.port))
        servers = [master, *(stack.enter_context(RedisServer(*follow)) for _ in range(replicas))]
        configuration = (
            f"sentinel monitor main 127.0.0.1 {master.port} {sentinels // 2 + 1}\n"
            f"sentinel down-after-milliseconds main {down_after_ms}\nsentinel failover-timeout main 3000\n"
        )
        watching = [
            stack.enter_context(RedisServer(mode=("--sentinel",), configuration=configuration))
            for _ in range(sentinels)
        ]

        def knows_all(sentinel: RedisServer) -> bool:
            told = sentinel.asked("SENTINEL", "MASTER", "main")
            found = dict(zip(told[::2], told[1::2], strict=True)) if isinstance(told, list) else told
            return (int(found["num-slaves"]), int(found["num-other-sentinels"])) == (replicas, sentinels - 1)

        wait_until(lambda: has_replicas(master, replicas), "the replicas do not come up")
        wait_until(lambda: all(map(knows_all, watching)), "the Sentinels do not find each other, and the replicas")
        yield Watched(servers=servers, sentinels=watching)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A Redis Cluster of several masters. Each has a replica."""

    servers: Sequence[RedisServer]

    @property
    def url(self) -> str:
        """As `BROKER_STATE_URL` takes it."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def master_of(self, key: str) -> RedisServer:
        """Who has the key's slot, by whoever answers."""
        for server in self.servers:
            with contextlib.suppress(RedisError, OSError):
                slot = server.asked("CLUSTER", "KEYSLOT", key)
                for first, last, (_, port, *_), *_ in server.asked("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(one for one in self.servers if one.port == port)
        raise AssertionError("no server knows who has the slot")

    def move_slot(self, key: str) -> None:
        """Moves the key's slot to another master, key by key, as `redis-cli --cluster reshard` does."""
        old = self.master_of(key)
        ids = {server.asked("CLUSTER", "MYID"): server for server in self.servers}
        masters = [
            ids[line.split()[0]] for line in old.asked("CLUSTER", "NODES").splitlines() if "master" in line.split()[2]
        ]
        new = next(one for one in masters if one is not old)
        slot = old.asked("CLUSTER", "KEYSLOT", key)
        new.asked("CLUSTER", "SETSLOT", slot, "IMPORTING", old.asked("CLUSTER", "MYID"))
        old.asked("CLUSTER", "SETSLOT", slot, "MIGRATING", new.asked("CLUSTER", "MYID"))
        while keys := old.asked("CLUSTER", "GETKEYSINSLOT", slot, 100):
            old.asked("MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "KEYS", *keys)
        for server in (new, old, *masters):
            server.asked("CLUSTER", "SETSLOT", slot, "NODE", new.asked("CLUSTER", "MYID"))

    def stop_master(self, key: str) -> RedisServer:
        """Stops whoever has the key's slot, and returns it once its replica has taken over."""
        failing = self.master_of(key)
        failing.stop()
        wait_until(lambda: self.master_of(key) is not failing, "no replica takes over")
        return failing


@contextlib.contextmanager
def cluster_of(*, masters: int) -> Iterator[Cluster]:
    """A Redis Cluster, each of its masters with a replica, for as long as the context is open."""
    with contextlib.ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0")
        servers = [
            stack.enter_context(RedisServer("--cluster-port", str(free_port()), *options)) for _ in range(2 * masters)
        ]
        for number, server in enumerate(servers[:masters]):
            bounds = [16384 * which // masters for which in (number, number + 1)]
            server.asked("CLUSTER", "ADDSLOTSRANGE", bounds[0], bounds[1] - 1)
            server.asked("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            bus = servers[0].asked("CONFIG", "GET", "cluster-port")["cluster-port"]
            server.asked("CLUSTER", "MEET", "127.0.0.1", servers[0].port, bus)
        for master, replica in zip(servers[:masters], servers[masters:], strict=True):
            name = master.asked("CLUSTER", "MYID")
            wait_until(lambda: replica.asked("CLUSTER", "REPLICATE", name), "the nodes do not meet")  # noqa: B023
        wait_until(lambda: all(has_replicas_in_cluster(one) for one in servers[:masters]), "no replicas")
        wait_until(
            lambda: all(one.asked("CLUSTER INFO")["cluster_state"] == "ok" for one in servers), "no cluster comes up"
        )
        yield Cluster(servers=servers)


def has_replicas_in_cluster(master: RedisServer) -> bool:
    """Whether a replica says that it is one."""
    return int(master.asked("INFO", "replication")["connected_slaves"]) > 0


def has_replicas(master: RedisServer, count: int) -> bool:
    """Whether that many have what it just wrote. A new one is counted once it has told how far it is."""
    with Redis(port=master.port) as client:
        client.set("begun", "", px=1)
        return int(client.wait(count, 500)) >= count


def wait_until(holds: Callable[[], bool], otherwise: str, *, seconds: float = 30) -> None:
    """Waits until something holds; a server that does not answer meanwhile says nothing.

    Raises:
        AssertionError: it does not.
    """
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(RedisError, OSError):
            if holds():
                return
        assert time.monotonic() < until, otherwise
        time.sleep(0.02)
