"""Brokers as processes of their own, over plain http on loopback, with the fake CI as their issuers."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from broker.playground.ci import FakeCI
from broker.playground.processes import Command, free_port, running
from tests.harness import ACME, AUDIENCE, Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A broker that answers at a URL."""

    url: str
    pid: int
    log: Path
    process: subprocess.Popen[bytes]

    def logged(self) -> list[dict[str, object]]:
        """What it logged so far, one object an event. It may be writing a line right now: that one is not in yet."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").split("\n")[:-1]]


@contextlib.contextmanager
def broker(folder: Path, ci: FakeCI, *, name: str = "broker", **settings: str) -> Iterator[Served]:
    """A broker for as long as the context is open; settings as `BROKER_*` without the prefix, in lower case.

    Two brokers of one folder are replicas: they share policies, signing key and (unless told otherwise) state.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = folder / f"{name}.log"
    command = Command(
        name=name,
        module="broker",
        arguments=("serve",),
        environment=variables(folder, ci, **{"port": str(port), **settings}),
        folder=folder,
        log=log,
    )
    with running(command, lambda: is_ready(url)) as process:
        yield Served(url=url, pid=process.pid, log=log, process=process)


def variables(folder: Path, ci: FakeCI, **settings: str) -> dict[str, str]:
    """`BROKER_*` for a broker whose policies, signing key, state and spool are in a folder, with changes."""
    index = "\n".join(
        ["issuers:", *(f"  {kind}: {{provider: {kind}, url: '{url}'}}" for kind, url in ci.urls.items()), ""]
    )
    written = Setup(folder=folder, index=index, acme=ACME, settings={"allow_loopback_issuers": True}).write()
    values = {
        "policies": str(written.policies),
        "public_url": "https://upload.acme.example",
        "audience": AUDIENCE,
        "state_url": written.state_address(),
        "signing_keys": str(written.signing_keys),
        "registry_url": "http://127.0.0.1:9/",
        "spool": str(written.spool),
        "allow_loopback_issuers": "true",
        "drain_seconds": "0",
        "exchanges_per_minute": "100000",
        "exchanges_per_minute_per_organization": "0",
        "exchanges_per_minute_per_issuer": "0",
        "refusals_per_minute": "0",
        "refusals_per_minute_in_all": "0",
        **settings,
    }
    return {f"BROKER_{setting.upper()}": text for setting, text in values.items()}


def is_ready(url: str) -> bool:
    """Whether a broker answers there, and says so."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def cli(*arguments: str) -> list[str]:
    """The command line of `broker ...`."""
    return [sys.executable, "-m", "broker", *arguments]
