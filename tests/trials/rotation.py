"""Rotates the signing key and restarts both replicas, one after the other, under continuous `uv publish`: no failure.

    python -m tests.trials.rotation [--seconds 150] [--state sqlite|redis] [--workers 1]

Two brokers share state and a folder of keys; nginx with TLS, as deploy/nginx.conf has it, is in front of both; a real
pypiserver is behind them; several real `uv publish` run all the time, each with files that are new. Meanwhile:

1. `broker keys rotate`, with a short delay;
2. each replica is ended by SIGTERM, and started again when it is gone, before the new key signs;
3. the new key signs; then each replica is started anew once more.

It fails where a `uv publish` does, where nginx answered anything but success to anyone, where a replica ended with
another status than 0, where a file is not in the registry, or where not both keys signed tokens that uploaded.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import io
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from broker import cli
from broker.playground.certificates import Certificates, make_certificates
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.playground.claims import AUDIENCE
from broker.playground.packages import Uv
from broker.playground.policies import write_policies
from broker.playground.processes import Command, free_port, running
from tests.gateway.uploads import metadata, pack_wheel
from tests.nginx import Nginx, serving_nginx
from tests.redis_server import RedisServer
from tests.registries import PASSWORD, USER, PypiServer, pypi_server
from tests.servers import is_ready

PUBLISH: Final = ["publish", "--trusted-publishing", "always"]
PATIENCE_SECONDS: Final = 120.0
_FIRST_NO: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long, and how much of it."""

    seconds: float = 150.0
    """Altogether, at least."""
    delay_seconds: int = 30
    """Until the new key signs."""
    publishers: int = 2
    rounds: tuple[int, int] = (2, 2)
    """How many replicas are restarted before the new key signs, and after."""
    drain_seconds: float = 3.0
    pause_seconds: float = 0.0
    """Between two of one publisher."""
    workers: int = 1


@dataclass(slots=True, kw_only=True)
class Report:
    """What came of it."""

    published: Counter[str] = field(default_factory=Counter)
    """Ids of keys -> `uv publish` that succeeded with a token that it signed."""
    failures: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """What nginx answered: statuses."""
    ended: list[int] = field(default_factory=list)
    """How replicas ended that were restarted."""
    missing: list[str] = field(default_factory=list)
    """Files that were published, and are not in the registry, or with other bytes."""
    changes: list[tuple[str, str]] = field(default_factory=list)
    """Of keys, as the audit has them: what happened, to which."""
    keys: tuple[str, str] = ("", "")

    def wrong(self) -> list[str]:
        """All that must not be; empty where it is as promised."""
        first, second = self.keys
        told = [*self.failures, *(f"not in the registry: {name}" for name in self.missing)]
        told += [f"nginx answered {status}: {n}" for status, n in self.answers.items() if int(status) >= _FIRST_NO]
        told += [f"a replica ended with status {status}" for status in self.ended if status]
        told += [f"no token that {key} signed uploaded anything" for key in self.keys if not self.published[key]]
        told += [f"{key} signed, and is neither" for key in self.published if key not in self.keys]
        wanted = [("announced", second), ("signing", second)]
        if self.changes != wanted:
            told.append(f"recorded: {self.changes}, and not {wanted} (after {first})")
        return told


class Replicas:
    """Two brokers, each at a port of its own."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.ports = [free_port(), free_port()]
        self.ended: list[int] = []
        self._settings = settings
        self._open = [contextlib.ExitStack(), contextlib.ExitStack()]
        self._processes: list[subprocess.Popen[bytes] | None] = [None, None]

    def start(self, number: int) -> None:
        """Returns when it is ready."""
        url = f"http://127.0.0.1:{self.ports[number]}"
        command = Command(
            name=f"replica {number}",
            module="broker",
            arguments=("serve",),
            environment={**self._settings, "BROKER_PORT": str(self.ports[number])},
            folder=self.folder,
            log=self.folder / f"replica-{number}.log",
            start_seconds=PATIENCE_SECONDS,
            stop_seconds=PATIENCE_SECONDS,
        )
        self._processes[number] = self._open[number].enter_context(running(command, lambda: is_ready(url)))

    def restart(self, number: int) -> None:
        """As a rolling restart does: SIGTERM, its end, a new one that is ready."""
        process = self._processes[number]
        assert process is not None
        self._open[number].close()
        self.ended.append(process.returncode)
        self.start(number)

    def stop(self) -> None:
        """Ends both."""
        for one in self._open:
            one.close()


@dataclass(slots=True, kw_only=True)
class Load:
    """Clients that publish, each as fast as it can."""

    uv: Uv
    ci: FakeCI
    folder: Path
    environment: Mapping[str, str]
    report: Report
    pause_seconds: float
    files: dict[str, str] = field(default_factory=dict)
    """All that was published: name -> sha256."""
    enough: threading.Event = field(default_factory=threading.Event)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def publish_on(self) -> None:
        """Publishes until there was enough."""
        while not self.enough.is_set():
            self.publish()
            self.enough.wait(self.pause_seconds)

    def publish(self) -> None:
        """One `uv publish` of a wheel that is new."""
        version = f"1.{next(self._numbers)}"
        folder = self.folder / version
        name = f"acme_widgets-{version}-py3-none-any.whl"
        told = f"acme_widgets-{version}.dist-info"
        wheel = pack_wheel(
            {
                "acme_widgets/__init__.py": f"__version__ = '{version}'\n".encode() * 200,
                f"{told}/METADATA": metadata(version=version),
                f"{told}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                f"{told}/RECORD": b"",
            }
        )
        (folder / "dist").mkdir(parents=True)
        (folder / "dist" / name).write_bytes(wheel)
        outcome = self.uv.run(PUBLISH, folder, {**self.environment, **self.ci.start_run().environment})
        if outcome.status != 0:
            self.report.failures.append(f"uv publish of {version}: {outcome.output.strip()[-400:]}")
            return
        self.files[name] = hashlib.sha256(wheel).hexdigest()
        token = next(secret for secret in outcome.masked if secret.startswith("pypi-"))
        self.report.published[_key_of(token)] += 1


def rotate_under_load(folder: Path, plan: Plan, state_url: str, say: Callable[[str], None]) -> Report:
    """The whole trial, in an empty folder."""
    report = Report()
    with contextlib.ExitStack() as opened:
        ci = opened.enter_context(serving_ci())
        registry = opened.enter_context(pypi_server(folder / "registry"))
        certificates = make_certificates(folder)
        write_policies(folder / "policies", ci)
        keys = folder / "keys"
        first = _cli("keys", "new", str(keys)).split()[-1]
        port = free_port()
        replicas = Replicas(folder, _settings(folder, plan, registry, state_url, port))
        opened.callback(replicas.stop)
        nginx = opened.enter_context(serving_nginx(folder / "nginx", port, _names(replicas.ports, certificates)))
        for number in range(2):
            replicas.start(number)
        load = Load(
            uv=Uv.find(folder / "home"),
            ci=ci,
            folder=folder / "releases",
            environment={
                "SSL_CERT_FILE": str(certificates.trusted),
                "NO_PROXY": "127.0.0.1,localhost",
                "UV_PUBLISH_URL": f"https://127.0.0.1:{port}/legacy/",
                "UV_HTTP_RETRIES": "0",  # what is to be shown is that nothing fails, not that it is tried again
            },
            report=report,
            pause_seconds=plan.pause_seconds,
        )
        with _publishing(load, plan.publishers):
            _wait_until(lambda: bool(report.published))
            before = time.time()
            second = _cli("keys", "rotate", str(keys), "--after", f"{plan.delay_seconds}s", "--state", state_url)
            report.keys = first, second.split()[1]
            say(f"announced; signs in {plan.delay_seconds} s; {sum(report.published.values())} published so far")
            _restart(replicas, plan.rounds[0], say)
            _wait_until(lambda: bool(report.published[report.keys[1]]))
            say(f"the new key signs since {time.time() - before - plan.delay_seconds:.1f} s at most")
            _restart(replicas, plan.rounds[1], say)
            until = before + plan.seconds
            while (left := until - time.time()) > 0:
                time.sleep(min(left, 10.0))
                say(f"{sum(report.published.values())} published, {len(report.failures)} failed")
        report.answers = _statuses(nginx)
        stored = registry.stored()
        report.missing = [name for name, sha256 in load.files.items() if stored.get(name) != sha256]
        report.ended = replicas.ended
        lines = _cli("audit", "tail", "-n", "100000", "--state", state_url).splitlines()
        records = [record for record in map(json.loads, lines) if record["kind"] == "keys"]
        report.changes = [(record["change"], record["key"]) for record in records]
    return report


@contextlib.contextmanager
def _publishing(load: Load, publishers: int) -> Iterator[None]:
    threads = [threading.Thread(target=load.publish_on, name=f"publisher {n}") for n in range(publishers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        load.enough.set()
        for thread in threads:
            thread.join()


def _restart(replicas: Replicas, how_many: int, say: Callable[[str], None]) -> None:
    for number in range(how_many):
        began = time.monotonic()
        replicas.restart(number)
        say(f"replica {number} is back after {time.monotonic() - began:.1f} s; it had ended with {replicas.ended[-1]}")


def _settings(folder: Path, plan: Plan, registry: PypiServer, state_url: str, port: int) -> dict[str, str]:
    return {
        "BROKER_POLICIES": str(folder / "policies"),
        "BROKER_PUBLIC_URL": f"https://127.0.0.1:{port}",
        "BROKER_AUDIENCE": AUDIENCE,
        "BROKER_STATE_URL": state_url,
        "BROKER_SIGNING_KEYS": str(folder / "keys"),
        "BROKER_REGISTRY_URL": registry.url,
        "BROKER_REGISTRY_USERNAME": USER,
        "BROKER_REGISTRY_PASSWORD": PASSWORD,
        "BROKER_WORKERS": str(plan.workers),
        "BROKER_DRAIN_SECONDS": str(plan.drain_seconds),
        "BROKER_EXCHANGES_PER_MINUTE": "100000",
        "BROKER_ALLOW_LOOPBACK_ISSUERS": "true",
    }


def _names(ports: list[int], certificates: Certificates) -> dict[str, str]:
    one, two = (f"127.0.0.1:{port} max_fails=0" for port in ports)
    return {
        "PUBLIC_NAME": "127.0.0.1",
        "BROKER": f"{one}; server {two}",
        "CERTIFICATE": str(certificates.certificate),
        "CERTIFICATE_KEY": str(certificates.key),
    }


def _statuses(nginx: Nginx) -> Counter[str]:
    return Counter(line.split()[-1] for line in nginx.requests())


def _key_of(token: str) -> str:
    header = token.removeprefix("pypi-").split(".")[0]
    told: dict[str, Any] = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    return str(told["kid"])


def _cli(*arguments: str) -> str:
    """`broker ...`, in this process: to start an interpreter for each costs more than what they do."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = cli.main(list(arguments))
    assert status == 0, f"broker {arguments[0]} ended with {status}"
    return printed.getvalue()


def _wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.05)


def main() -> int:
    """Runs it; 1 where something was not as promised."""
    parser = argparse.ArgumentParser(
        description="Rotates the signing key and restarts both replicas under continuous uv publish: no failure."
    )
    parser.add_argument("--seconds", type=float, default=150.0, help="how long, at least (default: 150)")
    parser.add_argument("--state", choices=["sqlite", "redis"], default="redis", help="what replicas share")
    parser.add_argument("--workers", type=int, default=1, help="worker processes of each replica (default: 1)")
    parser.add_argument("--publishers", type=int, default=2, help="how many publish at once (default: 2)")
    parser.add_argument(
        "--drain", type=float, default=3.0, help="BROKER_DRAIN_SECONDS (default: 3); without any, some fail"
    )
    args = parser.parse_args()
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", file=sys.stderr)

    plan = Plan(seconds=args.seconds, workers=args.workers, publishers=args.publishers, drain_seconds=args.drain)
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="rotation-")))
        state_url = f"sqlite:///{folder / 'state.db'}"
        if args.state == "redis":
            redis = RedisServer()
            redis.start()
            opened.callback(redis.stop)
            state_url = redis.url
        report = rotate_under_load(folder, plan, state_url, say)
    wrong = report.wrong()
    print(f"published, by key: {dict(report.published)}")
    print(f"nginx answered: {dict(report.answers)}")
    print(f"replicas ended with: {report.ended}")
    print(f"recorded: {report.changes}")
    print("\n".join(wrong) if wrong else "nothing failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
