"""Good exchanges while somebody attacks: how much slower they get, and whether each still passes.

A broker with its default limits, as a process of its own, gets a steady stream of good exchanges, each on a connection
of its own, and in turn: random key ids, bad signatures, replays, bodies of 1 MB, slow connections, half of them in
the head and half in the body, and what is no HTTP at all. Before each attack and after the last the same is measured in
quiet. Latency is counted from the moment at which an exchange was due, so a broker that stalls cannot hide it.

The attacker's process yields the processor to the others: it stands for other machines. Source addresses are of
127.0.0.0/8, which Linux lets any socket use. Prints a table; ends with 1 where a good exchange
was refused, or where the 99th percentile under an attack was not below the bound.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import multiprocessing
import os
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.organizations import claims_of, write_policies
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.playground.processes import Command, free_port, running
from tests.redis_server import RedisServer
from tests.servers import is_ready, variables

GOOD: Final = "127.0.0.1"
BAD: Final = "127.0.0.2"
BOUND: Final = 3.0
LEAD_SECONDS: Final = 2.0
"""How long an attack goes on before anything is measured."""
PATIENCE_SECONDS: Final = 5.0
"""After which clients give up."""
ATTACKERS: Final = 50
"""Connections that send one request after the other."""
SLOW: Final = 500
"""Connections that send a byte now and then."""
CROWD: Final = 250
"""Clients that send what is no HTTP."""

Requests = Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """What was seen of good exchanges."""

    seconds: tuple[float, ...]
    statuses: Mapping[str, int]

    def at(self, percent: int) -> float:
        """A percentile, in milliseconds."""
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1] * 1000

    @property
    def failed(self) -> int:
        """Those that were not answered with a token."""
        return sum(count for status, count in self.statuses.items() if status != "200")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One attack."""

    name: str
    kind: str
    bad: str = BAD
    good: str = GOOD
    good_behind: str = ""
    """What the proxy says in X-Forwarded-For of the good client; empty where there is no proxy."""
    bad_behind: str = ""


ATTACKS: Final = ("random kids", "bad signatures", "replays", "1 MB bodies", f"{SLOW} slow connections", "no HTTP")

SCENES: Final = (
    *(Scene(name=kind, kind=kind) for kind in ATTACKS),
    Scene(
        name="bad signatures, by the same proxy",
        kind="bad signatures",
        bad=GOOD,
        good_behind="203.0.113.1",
        bad_behind="198.51.100.7",
    ),
    Scene(
        name="bad signatures, from the same address",
        kind="bad signatures",
        bad=GOOD,
        good_behind="192.0.2.5",
        bad_behind="192.0.2.5",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of a scene."""

    scene: Scene
    good: Good
    attempts: Mapping[str, int] = field(default_factory=dict)
    """What the attacker was answered, by status."""


# --- The good client, in a process of its own ------------------------------------------------------------------------


def be_good(port: int, scene: Scene, tokens: list[str], per_second: float) -> Good:
    """Sends each token at its moment."""
    return asyncio.run(_be_good(port, scene, tokens, per_second))


async def _be_good(port: int, scene: Scene, tokens: list[str], per_second: float) -> Good:
    clock = asyncio.get_running_loop().time
    begin, seconds, statuses = clock() + 0.1, [], Counter[str]()

    async def exchange(due: float, token: str) -> None:
        await asyncio.sleep(max(due - clock(), 0))
        request = _post(json.dumps({"token": token}).encode(), scene.good_behind, close=True)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(scene.good, 0))
                with contextlib.closing(writer):
                    writer.write(request)
                    status = (await reader.readuntil(b"\r\n")).split()[1].decode()
                    await reader.read()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, IndexError) as error:
            status = type(error).__name__
        statuses[status] += 1
        seconds.append(clock() - due)

    await asyncio.gather(*(exchange(begin + n / per_second, token) for n, token in enumerate(tokens)))
    return Good(seconds=tuple(seconds), statuses=dict(statuses))


def _post(body: bytes, behind: str, *, close: bool = False, declared: int | None = None) -> bytes:
    lines = ["POST /_/oidc/mint-token HTTP/1.1", "Host: x", f"Content-Length: {declared or len(body)}"]
    lines += [f"X-Forwarded-For: {behind}"] if behind else []
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode() + body


# --- The attacker, in another ----------------------------------------------------------------------------------------


def attack(port: int, scene: Scene, token: str, until: float) -> dict[str, int]:
    """Attacks until a moment; says what it was answered.

    Args:
        token: A good one, that was exchanged before.
    """
    return asyncio.run(_attack(port, scene, token, until))


async def _attack(port: int, scene: Scene, token: str, until: float) -> dict[str, int]:
    answered = Counter[str]()
    header, payload, signature = token.split(".")

    def random_kid() -> bytes:
        named = json.dumps({"alg": "RS256", "typ": "JWT", "kid": secrets.token_hex(8)}).encode()
        return _body(f"{base64.urlsafe_b64encode(named).rstrip(b'=').decode()}.{payload}.{signature}")

    def bad_signature() -> bytes:
        return _body(f"{header}.{payload}.{secrets.token_urlsafe(256)}")

    make: Mapping[str, Requests] = {
        "random kids": random_kid,
        "bad signatures": bad_signature,
        "replays": lambda: _body(token),
        "1 MB bodies": lambda: _body("x" * (1 << 20)),
    }
    if scene.kind in make:
        ones = [_flood(port, scene, make[scene.kind], answered) for _ in range(ATTACKERS)]
    elif scene.kind == "no HTTP":
        ones = [_stumble(port, scene, answered) for _ in range(CROWD)]
    else:
        ones = [_drip(port, scene, answered, number) for number in range(SLOW)]
    tasks = [asyncio.create_task(one) for one in ones]
    await asyncio.sleep(until - time.time())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return dict(answered)


def _body(token: str) -> bytes:
    return json.dumps({"token": token}).encode()


async def _flood(port: int, scene: Scene, make: Requests, answered: Counter[str]) -> None:
    """One request after the other, on a connection for as long as that is kept."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(scene.bad, 0))
            with contextlib.closing(writer):
                while True:
                    writer.write(_post(make(), scene.bad_behind))
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    answered[head.split()[1].decode()] += 1
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, IndexError):
            answered["broken off"] += 1
            await asyncio.sleep(0.01)


async def _stumble(port: int, scene: Scene, answered: Counter[str]) -> None:
    """What is no HTTP, on a new connection as soon as one is closed: a crowd that keeps in step."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(scene.bad, 0))
            with contextlib.closing(writer):
                writer.write(b"POST / HTTP/1.1\r\nContent-Length: 1a\r\n\r\n")
                answered[(await reader.read()).split()[1].decode()] += 1
        except (OSError, IndexError):
            answered["broken off"] += 1
            await asyncio.sleep(0.01)


async def _drip(port: int, scene: Scene, answered: Counter[str], number: int) -> None:
    """A byte now and then, of a head or of a body, on a new connection as soon as one is closed."""
    await asyncio.sleep(number / SLOW / 2)  # so many are not opened at one moment, nor send their bytes in step
    begun = _post(b"{", scene.bad_behind, declared=1000)
    of_a_head = begun[: begun.index(b"Content-Length")] + b"X-Slow: "
    start, more = (begun, b" ") if number % 2 else (of_a_head, b"a")
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(scene.bad, 0))
            with contextlib.closing(writer):
                answered["opened"] += 1
                writer.write(start)
                while not reader.at_eof():
                    await asyncio.sleep(random.uniform(0.25, 0.75))
                    writer.write(more)
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(65536), 0.01)
        except OSError:
            await asyncio.sleep(0.01)


# --- The whole -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Trial:
    """Scenes in front of one broker."""

    port: int
    ci: FakeCI
    pool: ProcessPoolExecutor
    attackers: ProcessPoolExecutor
    seconds: float
    per_second: float
    number: int = 0
    """Of tokens that were signed."""

    def quiet(self, scene: Scene) -> Good:
        """Good exchanges alone."""
        return self.pool.submit(be_good, self.port, scene, self._tokens(), self.per_second).result()

    def under_attack(self, scene: Scene) -> Row:
        """Good exchanges, and the attack."""
        spent = self._tokens(1)
        self.pool.submit(be_good, self.port, scene, spent * 2, 10.0).result()
        tokens = self._tokens()
        until = time.time() + LEAD_SECONDS + self.seconds + 0.5
        attacking = self.attackers.submit(attack, self.port, scene, spent[0], until)
        time.sleep(LEAD_SECONDS)
        good = self.pool.submit(be_good, self.port, scene, tokens, self.per_second).result()
        return Row(scene=scene, good=good, attempts=attacking.result())

    def _tokens(self, most: int | None = None) -> list[str]:
        first, now = self.number, int(time.time())
        self.number += most or max(2, int(self.seconds * self.per_second))
        return [
            self.ci.token("github", **claims_of(n), iat=now, exp=now + 900, jti=secrets.token_hex(16))
            for n in range(first, self.number)
        ]


@contextlib.contextmanager
def served(folder: Path, ci: FakeCI, state_url: str, **settings: str) -> Iterator[int]:
    """A broker with its default limits; gives its port."""
    home = folder / secrets.token_hex(4)
    home.mkdir()
    write_policies(home / "of-ten", ci)
    port = free_port()
    told = variables(home, ci, policies=str(home / "of-ten"), port=str(port), state_url=state_url, **settings)
    limits = {name for name in told if "_PER_MINUTE" in name}
    command = Command(
        name="broker",
        module="broker",
        arguments=["serve"],
        environment={name: value for name, value in told.items() if name not in limits},
        folder=home,
        log=home / "broker.log",
    )
    with running(command, lambda: is_ready(f"http://127.0.0.1:{port}")):
        yield port


def compare(trial: Trial, scenes: tuple[Scene, ...]) -> tuple[list[Good], list[Row]]:
    """What was seen in quiet, before and after each scene; and in each."""
    trial.quiet(scenes[0])  # the first exchanges of a process are slower
    quiet, rows = [], []
    for scene in scenes:
        quiet.append(trial.quiet(scene))
        print(f"  quiet: {_told(quiet[-1])}", file=sys.stderr)
        rows.append(trial.under_attack(scene))
        print(f"  {scene.name}: {_told(rows[-1].good)}; attacker {dict(rows[-1].attempts)}", file=sys.stderr)
    quiet.append(trial.quiet(scenes[-1]))
    return quiet, rows


def _told(good: Good) -> str:
    return f"p50 {good.at(50):.1f} ms, p99 {good.at(99):.1f} ms, {dict(good.statuses)}"


def report(name: str, quiet: list[Good], rows: list[Row]) -> bool:
    """Prints the table of one state; whether all is within the bound."""
    reference = statistics.median(one.at(99) for one in quiet)
    p50 = statistics.median(one.at(50) for one in quiet)
    print(f"\n{name}; load {os.getloadavg()[0]:.1f}\n")
    print(f"| {'good exchanges while':<40} |    p50 |    p99 |    max | p99, of quiet | failed | attacker's answers |")
    print(f"|{'-' * 42}|{'-' * 8}|{'-' * 8}|{'-' * 8}|{'-' * 15}|{'-' * 8}|{'-' * 20}|")
    print(f"| {'quiet (medians)':<40} | {p50:>6.1f} | {reference:>6.1f} |        |           1.0 |      0 | |")
    held = not any(one.failed for one in quiet)
    for row in rows:
        good, ratio = row.good, row.good.at(99) / reference
        held = held and ratio < BOUND and not good.failed
        answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(row.attempts.items()))
        print(
            f"| {row.scene.name:<40} | {good.at(50):>6.1f} | {good.at(99):>6.1f} | {max(good.seconds) * 1000:>6.1f} "
            f"| {ratio:>13.1f} | {good.failed:>6} | {answers} |"
        )
    return held


def main() -> int:
    """Runs it, with SQLite and with Redis."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.attack", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each is measured (default: 10)")
    parser.add_argument("--per-second", type=float, default=100.0, help="good exchanges a second (default: 100)")
    parser.add_argument("--state", choices=("sqlite", "redis", "both"), default="both")
    parser.add_argument("--attack", choices=[scene.name for scene in SCENES], action="append", help="only this one")
    args = parser.parse_args()
    scenes = tuple(scene for scene in SCENES if not args.attack or scene.name in args.attack)
    held = True
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=spawn)
    attackers = ProcessPoolExecutor(1, mp_context=spawn, initializer=os.nice, initargs=(19,))
    with tempfile.TemporaryDirectory() as named, pool, attackers, serving_ci() as ci, RedisServer() as redis:
        folder = Path(named)
        states = {"sqlite": f"sqlite:///{folder / 'state.db'}", "redis": redis.url}
        for name, url in states.items():
            if args.state not in {name, "both"}:
                continue
            with served(folder, ci, url, trusted_proxies=GOOD) as port:
                print(f"{name}:", file=sys.stderr)
                trial = Trial(port, ci, pool, attackers, args.seconds, args.per_second)
                held = report(name, *compare(trial, scenes)) and held
    print("\nwithin the bound" if held else f"\nNOT within the bound: {BOUND} times the p99 of quiet, and none failed")
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
