"""Exchanges a second: the floor, a plain PyJWT route, and the broker with SQLite and with Redis, in turn.

One server is loaded at a time, for a few seconds, and the rounds are interleaved: what the machine does meanwhile falls
on all alike. So the figure to trust is the *ratio* within a round, and its median.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import servers
from benchmarks.identities import signers
from benchmarks.measuring import BenchmarkError, Load, cpu_seconds, load, memory_mb, need
from benchmarks.servers import Server
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci

PILOT_SECONDS: Final = 2
PILOT_TOKENS: Final = 2000
SLICE: Final = 0.9
"""Of what the floor takes in a round, the tokens in a slice: more than a broker takes. The floor and the plain route
begin anew at the end of theirs."""

NO_REGISTRY: Final = {"BROKER_REGISTRY_URL": "http://127.0.0.1:9/"}
"""Nothing is uploaded here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One server in one round."""

    server: str
    load: Load
    cpu_us: float
    """Processor time of one request, the server's and its helpers'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of one server's process."""

    idle_mb: float
    after_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanges:
    """The whole run."""

    rounds: tuple[tuple[Measured, ...], ...]
    """Of each round, the servers in their order; the floor is the first."""
    memory: dict[str, Memory]
    empty: Load

    def of(self, server: str) -> tuple[Measured, ...]:
        """All rounds of one server."""
        return tuple(measured for each in self.rounds for measured in each if measured.server == server)

    def ratios(self, server: str) -> tuple[float, ...]:
        """Round by round, what part of the floor's requests a second it reached."""
        return tuple(
            mine.load.rate / floor.load.rate for mine, floor in zip(self.of(server), self.of("floor"), strict=True)
        )

    def ratio(self, server: str) -> float:
        """The median of those."""
        return statistics.median(self.ratios(server))


def measure(folder: Path, *, rounds: int, seconds: int, connections: int) -> Exchanges:
    """Starts all servers, warms them up, and measures them in turn.

    Raises:
        BenchmarkError: something is missing, or an answer was not what it should be.
    """
    need("wrk", "wrk")
    need("redis-server", "redis-server")
    with signers() as signing, serving_ci() as ci, _all_servers(folder, ci) as started:
        floor = started[0]
        pilot = folder / "pilot"
        signing.write(ci, [pilot], PILOT_TOKENS)
        empty_server = Server(name="empty", origin=floor.origin, path="/empty", pid=floor.pid, log=floor.log)
        empty = _load(empty_server, pilot, PILOT_SECONDS, connections)
        rate = _load(floor, pilot, PILOT_SECONDS, connections).rate
        slices = [folder / f"slice-{number}" for number in range(rounds + 1)]
        signing.write(ci, slices, int(rate * seconds * SLICE))
        idle = {server.name: memory_mb(server.pid) for server in started}
        taken = [_round(started, tokens, seconds, connections) for tokens in _told(slices)]
        memory = {server.name: Memory(idle_mb=idle[server.name], after_mb=memory_mb(server.pid)) for server in started}
        _check_all_was_on(started, slices[-1], [measured for each in taken for measured in each])
    return Exchanges(rounds=tuple(taken[1:]), memory=memory, empty=empty)


@contextlib.contextmanager
def _all_servers(folder: Path, ci: FakeCI) -> Iterator[Sequence[Server]]:
    with contextlib.ExitStack() as stack:
        redis_url, redis_pid = stack.enter_context(servers.redis(folder))
        sqlite_url = f"sqlite:///{folder / 'state.db'}"
        yield (
            stack.enter_context(servers.floor(folder, ci)),
            stack.enter_context(servers.plain(folder, ci)),
            stack.enter_context(servers.broker("broker + SQLite", folder, ci, sqlite_url, registry=NO_REGISTRY)),
            stack.enter_context(
                servers.broker("broker + Redis", folder, ci, redis_url, registry=NO_REGISTRY, helpers=(redis_pid,))
            ),
        )


def _told(slices: Sequence[Path]) -> Iterator[Path]:
    for number, tokens in enumerate(slices):
        print(f"  {f'round {number} of {len(slices) - 1}' if number else 'warming up'}", file=sys.stderr)
        yield tokens


def _round(started: Sequence[Server], tokens: Path, seconds: int, connections: int) -> tuple[Measured, ...]:
    measured = []
    for server in started:
        before = cpu_seconds((server.pid, *server.helpers))
        seen = _load(server, tokens, seconds, connections)
        used = cpu_seconds((server.pid, *server.helpers)) - before
        measured.append(Measured(server=server.name, load=seen, cpu_us=used / seen.requests * 1e6))
        print(f"    {server.name:<16} {seen.rate:>8,.0f}/s", file=sys.stderr)
    return tuple(measured)


def _load(server: Server, tokens: Path, seconds: int, connections: int) -> Load:
    seen = load(server.url, tokens=tokens, repeat=not server.remembers, seconds=seconds, connections=connections)
    if seen.ran_out:
        raise BenchmarkError(f"{server.name} took all identity tokens of its round: sign more (SLICE), or run shorter.")
    if seen.refused or seen.broken or not seen.requests:
        with tokens.open(encoding="ascii") as lines:
            last = next(reversed(list(lines))).strip()
        sample = server.exchange(last)
        raise BenchmarkError(
            f"{server.name}: of {seen.requests:,} requests {seen.refused:,} were refused and {seen.broken:,} broken."
            f"\nAsked once more, it says {sample.status_code}: {sample.text[:600]}"
            f"\nIts log ends:\n{_end_of(server.log)}"
        )
    return seen


def _check_all_was_on(started: Sequence[Server], tokens: Path, measured: Sequence[Measured]) -> None:
    """A broker that forgot to record, or to remember, would be fast. So it is asked.

    Raises:
        BenchmarkError: an exchange left no record, or a spent identity token was taken again.
    """
    with tokens.open(encoding="ascii") as lines:
        spent = next(itertools.islice(lines, 1, None)).strip()
    for server in started:
        if not server.remembers:
            continue
        again = server.exchange(spent)
        if again.json().get("errors", [{}])[0].get("code") != "replayed-token":
            raise BenchmarkError(f"{server.name} took a spent identity token: {again.status_code} {again.text[:600]}")
        with server.log.open("rb") as log:
            records = sum(b'"decision":"allowed"' in line for line in log)
        answered = sum(one.load.requests for one in measured if one.server == server.name)
        if records < answered:
            raise BenchmarkError(f"{server.name} answered {answered:,} exchanges and recorded {records:,}")


def _end_of(log: Path) -> str:
    return "\n".join(line[:500] for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
