"""Seconds for a large upload: through the gateway, and straight to the same pypiserver, in turn, by the same client.

The gateway spools, checks, and only then sends on, so it cannot be as fast as no gateway. Beside the time, the most
memory that the broker's process had during an upload, over what it had when it was ready and idle.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib
import os
import secrets
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
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

AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an upload goes, and with what credential."""

    url: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PyPIServer:
    """A registry, and the folder where it keeps packages."""

    target: Target
    packages: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """The whole run."""

    megabytes: int
    straight: tuple[float, ...]
    """Seconds, round by round."""
    gateway: tuple[float, ...]
    straight_at_once: float
    """Seconds for all of `AT_ONCE`."""
    gateway_at_once: float
    idle_mb: float
    """The broker's memory when it was ready and had served no upload."""
    peak_mb: float
    """The most it had during the uploads one by one."""
    peak_at_once_mb: float
    cpu_seconds: float
    """Processor time of the broker for one upload."""

    @property
    def ratio(self) -> float:
        """How many times as long the gateway takes: the median of the rounds' own ratios."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.gateway, self.straight, strict=True))


def measure(folder: Path, *, rounds: int, megabytes: int) -> Uploads:
    """Starts a registry and a broker before it, and uploads by turns.

    Raises:
        BenchmarkError: an upload was not taken, or not kept whole.
    """
    with serving_ci() as ci, _registry(folder) as registry:
        credential = {
            "BROKER_REGISTRY_URL": registry.target.url,
            "BROKER_REGISTRY_USERNAME": registry.target.username,
            "BROKER_REGISTRY_PASSWORD": registry.target.password,
        }
        state_url = f"sqlite:///{folder / 'state.db'}"
        with servers.broker("broker", folder, ci, state_url, registry=credential) as broker:
            idle = memory_mb(broker.pid)
            bench = _Bench(folder, ci, broker, registry, Payload.make(folder / "payload", megabytes))
            forget_peak(broker.pid)
            bench.round("0.0")
            used = cpu_seconds([broker.pid])
            pairs = [bench.round(f"1.{number}", gateway_first=number % 2 == 1) for number in range(rounds)]
            used = cpu_seconds([broker.pid]) - used
            peak = memory_mb(broker.pid, "VmHWM")
            forget_peak(broker.pid)
            straight_at_once, gateway_at_once = bench.at_once()
            return Uploads(
                megabytes=megabytes,
                straight=tuple(seconds for seconds, _ in pairs),
                gateway=tuple(seconds for _, seconds in pairs),
                straight_at_once=straight_at_once,
                gateway_at_once=gateway_at_once,
                idle_mb=idle,
                peak_mb=peak,
                peak_at_once_mb=memory_mb(broker.pid, "VmHWM"),
                cpu_seconds=used / rounds,
            )


class _Bench:
    """One registry, one broker, and wheels that neither has seen."""

    def __init__(self, folder: Path, ci: FakeCI, broker: Server, registry: PyPIServer, payload: Payload) -> None:
        self._folder, self._ci, self._broker, self._registry, self._payload = folder, ci, broker, registry, payload

    def round(self, version: str, *, gateway_first: bool = False) -> tuple[float, float]:
        """Uploads one wheel straight and one through the gateway; gives the seconds of each."""
        gateway = self._timed([f"{version}.1"], self._token) if gateway_first else 0.0
        straight = self._timed([f"{version}.0"], lambda: self._registry.target)
        gateway = gateway or self._timed([f"{version}.1"], self._token)
        print(f"    {version:<5} straight {straight:5.2f} s, through the gateway {gateway:5.2f} s", file=sys.stderr)
        return straight, gateway

    def at_once(self) -> tuple[float, float]:
        """The same with many at once."""
        straight = self._timed([f"2.0.{number}" for number in range(AT_ONCE)], lambda: self._registry.target)
        gateway = self._timed([f"2.1.{number}" for number in range(AT_ONCE)], self._token)
        print(f"    {AT_ONCE} at once: {straight:.2f} s, through the gateway {gateway:.2f} s", file=sys.stderr)
        return straight, gateway

    def _token(self) -> Target:
        answer = self._broker.exchange(self._ci.token("github", **claims_of(0)))
        if answer.status_code != 200:
            raise BenchmarkError(f"the broker minted no upload token: {answer.status_code} {answer.text[:600]}")
        return Target(url=f"{self._broker.origin}/legacy/", username="__token__", password=answer.json()["token"])

    def _timed(self, versions: Sequence[str], target: Callable[[], Target]) -> float:
        wheels = [Wheel.make(self._folder, project_of(0), version, self._payload) for version in versions]
        where = target()
        # What is still on its way to the disk is not part of the next upload.
        os.sync()
        started = time.perf_counter()
        with ThreadPoolExecutor(len(wheels)) as pool:
            list(pool.map(lambda wheel: upload(wheel, where), wheels))
        seconds = time.perf_counter() - started
        for wheel in wheels:
            self._check_kept(wheel)
            wheel.path.unlink()
        return seconds

    def _check_kept(self, wheel: Wheel) -> None:
        kept = self._registry.packages / wheel.path.name
        if not kept.is_file() or kept.read_bytes() != wheel.path.read_bytes():
            raise BenchmarkError(f"the registry has not kept {wheel.path.name} as it was sent")
        kept.unlink()


def upload(wheel: Wheel, target: Target) -> None:
    """Uploads a wheel as clients do, with one plain HTTP request.

    Raises:
        BenchmarkError: it was not taken.
    """
    boundary = secrets.token_hex(16)
    before, after = wheel.form(boundary)
    parts = urlsplit(target.url)
    credential = base64.b64encode(f"{target.username}:{target.password}".encode()).decode()
    connection = http.client.HTTPConnection(parts.netloc, timeout=300)
    with contextlib.closing(connection):
        connection.putrequest("POST", parts.path)
        connection.putheader("Authorization", f"Basic {credential}")
        connection.putheader("Content-Type", f"multipart/form-data; boundary={boundary}")
        connection.putheader("Content-Length", str(len(before) + wheel.path.stat().st_size + len(after)))
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
    command = Command(
        name="the registry (pypiserver)",
        module="pypiserver",
        arguments=["run", *options, "--authenticate", "update", "--passwords", str(passwords), str(packages)],
        environment={
            "GUNICORN_CMD_ARGS": f"--worker-class=gthread --threads={AT_ONCE} --timeout=300 --no-control-socket"
        },
        folder=folder,
        log=folder / "registry.log",
    )
    url = f"http://127.0.0.1:{port}/"
    with running(command, lambda: answers(url)):
        yield PyPIServer(target=Target(url=url, username=username, password=password), packages=packages)
