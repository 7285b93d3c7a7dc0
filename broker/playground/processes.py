"""Servers as processes of their own: started on a free port, waited for, ended with whoever started them."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import broker

CHECKOUT: Final = Path(broker.__file__).resolve().parent.parent
"""Where `python -m broker` finds the package, installed or not."""


class ServerError(Exception):
    """A server did not come up; the message holds the last lines that it wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is to be served."""

    name: str
    """For people."""
    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    """On top of this process's own, which loses its `BROKER_*`."""
    folder: Path
    """The working directory."""
    log: Path
    """Where its output is appended."""
    start_seconds: float = 60.0
    """Within which it must be ready. Patient: a laptop may be busy."""
    stop_seconds: float = 10.0
    """Between SIGTERM and SIGKILL."""


PORTS: Final = range(20_000, 32_000)
"""Below those that systems give to outgoing connections, so that none takes a port before its server does. Nor is a
client of a stopped server given the very port: it would connect to itself, and keep the server from coming back."""


def free_port() -> int:
    """A loopback port that nobody listens on at the moment.

    Raises:
        OSError: twenty ports in a row are taken.
    """
    for _ in range(20):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", secrets.choice(PORTS))) as listener:
            return int(listener.getsockname()[1])
    raise OSError("no free port")


@contextlib.contextmanager
def running(command: Command, is_ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server for as long as the context is open.

    Args:
        command: What to run.
        is_ready: Asked until it says yes; it must not raise.

    Raises:
        ServerError: it ended at once, or was not ready within `start_seconds`.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    search_path = os.pathsep.join(filter(None, (str(CHECKOUT), inherited.get("PYTHONPATH"))))
    with (
        command.log.open("ab") as log,
        # A session of its own: Ctrl-C reaches the starter alone, which then ends the others in order.
        subprocess.Popen(
            [sys.executable, "-m", "broker.playground.tether", command.module, *command.arguments],
            cwd=command.folder,
            env={**inherited, **command.environment, "PYTHONPATH": search_path},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            _wait_for(command, process, is_ready)
            yield process
        finally:
            _end(command, process)


def _wait_for(command: Command, process: subprocess.Popen[bytes], is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + command.start_seconds
    while not is_ready():
        if process.poll() is not None:
            raise ServerError(f"{command.name} ended with status {process.returncode}:\n{_last_lines(command.log)}")
        if time.monotonic() > deadline:
            raise ServerError(
                f"{command.name} was not ready in {command.start_seconds:.0f} s:\n{_last_lines(command.log)}"
            )
        time.sleep(0.05)
    if process.poll() is not None:
        raise ServerError(f"{command.name} ended, and something else answers on its port")


def _end(command: Command, process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(command.stop_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_lines(log: Path, most: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-most:])
