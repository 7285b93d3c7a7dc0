"""The servers under test, each a process of its own on a free loopback port, ended with the run."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.measuring import BenchmarkError
from benchmarks.organizations import ORGANIZATIONS, write_policies
from broker.playground.ci import FakeCI
from broker.playground.claims import AUDIENCE
from broker.playground.processes import Command, free_port, running

START_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Something that answers."""

    name: str
    origin: str
    path: str
    """Of its exchange."""
    pid: int
    helpers: tuple[int, ...] = ()
    """Processes that work for it: a Redis."""
    remembers: bool = False
    """It refuses an identity token that it has seen."""
    log: Path

    @property
    def url(self) -> str:
        """Of its exchange."""
        return self.origin + self.path

    def exchange(self, token: str) -> httpx.Response:
        """Asks it once."""
        return httpx.post(self.url, json={"token": token}, trust_env=False, timeout=10)


@contextlib.contextmanager
def floor(folder: Path, ci: FakeCI) -> Iterator[Server]:
    """The floor server."""
    with _serving("floor", "benchmarks.floor", ["--key", _key_file(folder, ci)], "/exchange", folder) as server:
        yield server


@contextlib.contextmanager
def plain(folder: Path, ci: FakeCI) -> Iterator[Server]:
    """The plain PyJWT exchange."""
    arguments = ["--key", _key_file(folder, ci), "--issuer", ci.urls["github"], "--audience", AUDIENCE]
    with _serving("plain PyJWT", "benchmarks.plain", arguments, "/exchange", folder) as server:
        yield server


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[tuple[str, int]]:
    """A real redis-server that keeps nothing on disk; gives its URL and its process id."""
    port, data = free_port(), folder / "redis"
    data.mkdir()
    quiet = ["--save", "", "--appendonly", "no", "--dir", str(data), "--logfile", "redis.log"]
    process = subprocess.Popen(["redis-server", "--bind", "127.0.0.1", "--port", str(port), *quiet])
    try:
        _wait_for_port(port, process)
        yield f"redis://127.0.0.1:{port}/0", process.pid
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def broker(
    name: str,
    folder: Path,
    ci: FakeCI,
    state_url: str,
    *,
    registry: Mapping[str, str],
    helpers: tuple[int, ...] = (),
    organizations: int = ORGANIZATIONS,
) -> Iterator[Server]:
    """The broker as `broker serve` runs it, one process, with everything on.

    Args:
        registry: `BROKER_REGISTRY_...`
        helpers: Processes whose work counts as its own.
    """
    home = folder / name.replace(" ", "-").replace("+", "and")
    (home / "spool").mkdir(parents=True)
    write_policies(home / "policies", ci, organizations)
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (home / "signing.pem").write_bytes(key)
    port = free_port()
    environment = {
        "BROKER_POLICIES": str(home / "policies"),
        "BROKER_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "BROKER_AUDIENCE": AUDIENCE,
        "BROKER_STATE_URL": state_url,
        "BROKER_SIGNING_KEYS": str(home / "signing.pem"),
        "BROKER_SPOOL": str(home / "spool"),
        "BROKER_PORT": str(port),
        # The limiter counts every exchange, and never says no: a hundred repositories bring thousands a second.
        "BROKER_EXCHANGES_PER_MINUTE": "100000000",
        "BROKER_EXCHANGES_PER_MINUTE_PER_ORGANIZATION": "100000000",
        "BROKER_EXCHANGES_PER_MINUTE_PER_ISSUER": "100000000",
        "BROKER_ALLOW_LOOPBACK_ISSUERS": "true",
        "BROKER_DRAIN_SECONDS": "0",
        **registry,
    }
    command = Command(
        name=name,
        module="broker",
        arguments=["serve"],
        environment=environment,
        folder=home,
        log=home / "broker.log",
        start_seconds=60 + organizations / 50,
    )
    origin = f"http://127.0.0.1:{port}"
    with running(command, lambda: answers(f"{origin}/readyz")) as process:
        yield Server(
            name=name,
            origin=origin,
            path="/_/oidc/mint-token",
            pid=process.pid,
            helpers=helpers,
            remembers=True,
            log=command.log,
        )


@contextlib.contextmanager
def _serving(name: str, module: str, arguments: Sequence[str], path: str, folder: Path) -> Iterator[Server]:
    port = free_port()
    command = Command(
        name=name,
        module=module,
        arguments=["--port", str(port), *arguments],
        environment={},
        folder=folder,
        log=folder / f"{module}.log",
    )
    # Any answer will do: the exchange is a POST, and this is a GET.
    with running(command, lambda: answers(f"http://127.0.0.1:{port}{path}", httpx.codes.METHOD_NOT_ALLOWED)) as process:
        yield Server(name=name, origin=f"http://127.0.0.1:{port}", path=path, pid=process.pid, log=command.log)


def answers(url: str, status: int = 200) -> bool:
    """Whether a server answers so."""
    try:
        return httpx.get(url, trust_env=False, timeout=2).status_code == status
    except httpx.HTTPError:
        return False


def _key_file(folder: Path, ci: FakeCI) -> str:
    path = folder / "issuer.jwk"
    documents = {urlsplit(url).path: json.loads(body) for url, body in ci.documents().items()}
    discovery: dict[str, Any] = documents[f"{urlsplit(ci.urls['github']).path}/.well-known/openid-configuration"]
    path.write_text(json.dumps(documents[urlsplit(discovery["jwks_uri"]).path]["keys"][0]), encoding="utf-8")
    return str(path)


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError("redis-server did not start") from None
            time.sleep(0.05)
        else:
            return
