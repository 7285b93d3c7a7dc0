"""Seconds for uploads of several sizes, one and many at once: through the gateway, and straight to the same pypiserver.

The gateway spools, checks, and only then sends on, so it cannot be as fast as no gateway. Both take turns, round after
round, by the same client. Beside the time, the most memory that the broker's process had during the uploads of a row,
over what it had when it was ready and idle.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import importlib
import itertools
import os
import secrets
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks import servers
from benchmarks.measuring import BenchmarkError, cpu_seconds, forget_peak, memory_mb
from benchmarks.organizations import claims_of, project_of
from benchmarks.servers import Server, answers
from benchmarks.wheels import Payload, Wheel
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.playground.processes import Command, free_port, running

SIZES: Final = (1, 50, 200, 1000)
"""In MB."""
AT_ONCE: Final = (1, 8)
LARGEST_MB: Final = 1000
"""Of a wheel: the broker takes uploads of 1 GiB, if it is told no other limit."""
UNASKED_MB: Final = 2000
"""The most that is sent at once where nobody asked for the size."""
STEADY_MB: Final = 400
"""From here on a few rounds are enough: each takes long."""
PATIENT_SECONDS: Final = 1800
"""For any answer. pypiserver is silent while it takes a form apart, one processor for all: many large ones take it
longer than a broker waits if it is told nothing else."""
COPIES: Final = 4
"""Of an upload, on the disk at one moment: in the gateway's spool, as pypiserver reads the body, as it takes the file
out of it, and where it keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an upload goes, and with what credential."""

    way: str
    """For people."""
    url: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PyPIServer:
    """A registry, and the folder where it keeps packages."""

    target: Target
    packages: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many wheels of one size, sent together."""

    at_once: int
    megabytes: int

    def __str__(self) -> str:
        """`8 x 200 MB`."""
        return f"{self.at_once} x {self.megabytes} MB"

    @property
    def total_mb(self) -> int:
        """Of all."""
        return self.at_once * self.megabytes

    @property
    def disk_mb(self) -> int:
        """Room that it needs, with what the client reads."""
        return COPIES * self.total_mb + self.megabytes

    def rounds(self, most: int) -> int:
        """Fewer, the longer each takes."""
        if self.total_mb > UNASKED_MB:
            return 1
        return min(most, 3) if self.total_mb >= STEADY_MB else most


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The same load both ways, one after the other: seconds until the last upload was answered."""

    straight: float
    gateway: float

    @property
    def ratio(self) -> float:
        """How many times as long the gateway takes."""
        return self.gateway / self.straight


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All rounds of one load."""

    load: Load
    rounds: tuple[Round, ...]
    over_idle_mb: float
    """The broker's most memory in these rounds, over what it had when it was ready and had served no upload."""
    cpu_seconds: float
    """Processor time of the broker for one upload."""

    @property
    def ratio(self) -> float:
        """The median of the rounds' own."""
        return statistics.median(each.ratio for each in self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """The whole run."""

    rows: tuple[Row, ...]
    skipped: dict[Load, str]
    """What was not measured, and why."""
    idle_mb: float


def measure(folder: Path, *, rounds: int, sizes: Sequence[int] | None) -> Uploads:
    """Starts a registry and a broker before it, and uploads by turns.

    Args:
        folder: Where all of it lies.
        rounds: At most; see `Load.rounds`.
        sizes: In MB; without them `SIZES`, and of these no load beyond `UNASKED_MB`.

    Raises:
        BenchmarkError: an upload was not taken, or not kept whole.
    """
    # One by one first: what many at once leave in the process is not held against a single one.
    loads = [Load(at_once=at_once, megabytes=size) for at_once in AT_ONCE for size in sizes or SIZES]
    with _bench(folder) as bench:
        bench.warm_up()
        rows, skipped = [], {}
        for load in loads:
            if why := _why_not(load, folder, asked=sizes is not None):
                skipped[load] = why
                print(f"  {load}: skipped, {why}", file=sys.stderr)
            else:
                rows.append(bench.row(load, load.rounds(rounds)))
        return Uploads(rows=tuple(rows), skipped=skipped, idle_mb=bench.idle_mb)


def _why_not(load: Load, folder: Path, *, asked: bool) -> str | None:
    if load.total_mb > UNASKED_MB and not asked:
        return f"it needs {load.disk_mb:,} MB of disk and minutes: ask for it with --sizes {load.megabytes}"
    free_mb = shutil.disk_usage(folder).free >> 20
    if free_mb < load.disk_mb:
        return f"it needs {load.disk_mb:,} MB of disk, and {free_mb:,} MB are free where TMPDIR points"
    return None


@contextlib.contextmanager
def _bench(folder: Path) -> Iterator[_Bench]:
    with serving_ci() as ci, _registry(folder) as registry:
        credential = {
            "BROKER_REGISTRY_URL": registry.target.url,
            "BROKER_REGISTRY_USERNAME": registry.target.username,
            "BROKER_REGISTRY_PASSWORD": registry.target.password,
            "BROKER_REGISTRY_TIMEOUT_SECONDS": str(PATIENT_SECONDS),
        }
        state_url = f"sqlite:///{folder / 'state.db'}"
        with servers.broker("broker", folder, ci, state_url, registry=credential) as broker:
            yield _Bench(folder, ci, broker, registry)


class _Bench:
    """One registry, one broker, and wheels that neither has seen."""

    def __init__(self, folder: Path, ci: FakeCI, broker: Server, registry: PyPIServer) -> None:
        self._ci, self._broker, self._registry = ci, broker, registry
        self._large = folder / "payload"
        self._payload = Payload(self._large, 1)
        self._versions = itertools.count()
        self.idle_mb = memory_mb(broker.pid)

    def warm_up(self) -> None:
        """One upload each way, that no figure tells of."""
        self._round("  warming up", 1, gateway_first=False)

    def row(self, load: Load, rounds: int) -> Row:
        """Measures one load, each way first in every other round."""
        print(f"  {load}", file=sys.stderr)
        if load.megabytes != self._payload.megabytes:
            self._payload = Payload(self._large, load.megabytes)
        forget_peak(self._broker.pid)
        used, taken = cpu_seconds([self._broker.pid]), []
        for number in range(1, rounds + 1):
            told = f"    round {number} of {rounds}"
            taken.append(self._round(told, load.at_once, gateway_first=number % 2 == 0))
        return Row(
            load=load,
            rounds=tuple(taken),
            over_idle_mb=memory_mb(self._broker.pid, "VmHWM") - self.idle_mb,
            cpu_seconds=(cpu_seconds([self._broker.pid]) - used) / rounds / load.at_once,
        )

    def _round(self, told: str, at_once: int, *, gateway_first: bool) -> Round:
        print(f"{told}:", end="", file=sys.stderr, flush=True)
        ways = [lambda: self._registry.target, self._token]
        seconds = [self._timed(at_once, way()) for way in (reversed(ways) if gateway_first else ways)]
        print(file=sys.stderr)
        straight, gateway = reversed(seconds) if gateway_first else seconds
        return Round(straight=straight, gateway=gateway)

    def _token(self) -> Target:
        answer = self._broker.exchange(self._ci.token("github", **claims_of(0)))
        if answer.status_code != 200:
            raise BenchmarkError(f"the broker minted no upload token: {answer.status_code} {answer.text[:600]}")
        url, token = f"{self._broker.origin}/legacy/", answer.json()["token"]
        return Target(way="gateway", url=url, username="__token__", password=token)

    def _timed(self, at_once: int, where: Target) -> float:
        wheels = [Wheel.make(project_of(0), f"1.{next(self._versions)}", self._payload) for _ in range(at_once)]
        # What is still on its way to the disk is not part of the next upload.
        os.sync()
        started = time.perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda wheel: upload(wheel, where), wheels))
        seconds = time.perf_counter() - started
        print(f" {where.way} {seconds:.2f} s", end="", file=sys.stderr, flush=True)
        self._take_away(wheels)
        return seconds

    def _take_away(self, wheels: Sequence[Wheel]) -> None:
        """Empties the registry's folder, which must hold the wheels as they were sent, and nothing else."""
        kept = {}
        for path in self._registry.packages.iterdir():
            with path.open("rb") as file:
                kept[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
            path.unlink()
        if kept != {wheel.filename: wheel.sha256 for wheel in wheels}:
            raise BenchmarkError(f"the registry has not kept {', '.join(each.filename for each in wheels)} as sent")


def upload(wheel: Wheel, target: Target) -> None:
    """Uploads a wheel as clients do, with one plain HTTP request.

    Raises:
        BenchmarkError: it was not taken.
    """
    boundary = secrets.token_hex(16)
    before, after = wheel.form(boundary)
    parts = urlsplit(target.url)
    credential = base64.b64encode(f"{target.username}:{target.password}".encode()).decode()
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENT_SECONDS)
    with contextlib.closing(connection):
        connection.putrequest("POST", parts.path)
        connection.putheader("Authorization", f"Basic {credential}")
        connection.putheader("Content-Type", f"multipart/form-data; boundary={boundary}")
        connection.putheader("Content-Length", str(len(before) + wheel.size + len(after)))
        connection.endheaders(before)
        for chunk in wheel.chunks():
            connection.send(chunk)
        connection.send(after)
        answer = connection.getresponse()
        text = answer.read()
    if answer.status != 200:
        raise BenchmarkError(f"{target.url} took no upload: {answer.status} {text[:600].decode(errors='replace')}")


@contextlib.contextmanager
def _registry(folder: Path) -> Iterator[PyPIServer]:
    """A pypiserver as its container runs it: on gunicorn, with threads."""
    packages, passwords = folder / "packages", folder / "htpasswd"
    packages.mkdir()
    port, username, password = free_port(), "broker", secrets.token_urlsafe(16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scheme = importlib.import_module("passlib.hash").apr_md5_crypt
    passwords.write_text(f"{username}:{scheme.hash(password)}\n", encoding="utf-8")
    options = ["--interface", "127.0.0.1", "--port", str(port), "--disable-fallback", "--server", "gunicorn"]
    gunicorn = f"--worker-class=gthread --threads={max(AT_ONCE)} --timeout={PATIENT_SECONDS} --no-control-socket"
    command = Command(
        name="the registry (pypiserver)",
        module="pypiserver",
        arguments=["run", *options, "--authenticate", "update", "--passwords", str(passwords), str(packages)],
        environment={"GUNICORN_CMD_ARGS": gunicorn},
        folder=folder,
        log=folder / "registry.log",
    )
    url = f"http://127.0.0.1:{port}/"
    with running(command, lambda: answers(url)):
        target = Target(way="straight", url=url, username=username, password=password)
        yield PyPIServer(target=target, packages=packages)
