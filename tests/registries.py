"""Real registries for the tests, started on a free port of this machine and stopped again."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Protocol

from broker.playground.processes import free_port

USER = "broker"
PASSWORD = "only-the-broker-knows-this"
START_SECONDS = 20.0


class Registry(Protocol):
    """What stands behind a gateway, and can be looked into."""

    @property
    def url(self) -> str:
        """Where uploads go."""

    @property
    def username(self) -> str:
        """Who may upload."""

    @property
    def password(self) -> str:
        """Of that user."""

    @property
    def answers_again(self) -> int:
        """The status that the same file gets a second time."""

    def stored(self) -> dict[str, str]:
        """All that is in it: filename -> sha256."""


@functools.cache
def _pypiserver_helpers() -> ModuleType:
    # Alone, by its path: the package's `__init__` redirects imports of the whole process.
    package = importlib.util.find_spec("pypiserver")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0]) / "pkg_helpers.py"
    spec = importlib.util.spec_from_file_location("pypiserver_pkg_helpers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project_in(filename: str) -> str:
    """What pypiserver itself takes for the project in a filename; empty where it takes none."""
    guessed = _pypiserver_helpers().guess_pkgname_and_version(filename)
    return guessed[0] if guessed else ""


@dataclass(slots=True)
class PypiServer:
    """A pypiserver that takes uploads with one password, and stores them in a folder."""

    folder: Path
    server: str = "wsgiref"
    """What it runs on: `wsgiref`, its default where no other is installed; `waitress`, its default where that is; or
    `gunicorn`, as in its container."""
    username: str = USER
    password: str = PASSWORD
    answers_again: int = 409
    authenticate: str = "update"
    """What needs the password: `update`, or `update, download, list`."""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where uploads go."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def packages(self) -> Path:
        """Where they arrive."""
        return self.folder / "packages"

    def stored(self) -> dict[str, str]:
        """What arrived: filename -> sha256, in hex."""
        return {
            path.relative_to(self.packages).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.packages.rglob("*")
            if path.is_file()
        }

    def _choice(self) -> str:
        # It takes waitress, where that is installed, and has no name for it.
        return "auto" if self.server == "waitress" else self.server

    def start(self) -> None:
        """Returns when it answers."""
        self.packages.mkdir(parents=True, exist_ok=True)
        passwords = self.folder / "htpasswd"
        passwords.write_text(f"{USER}:{{SHA}}{base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()}\n")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-W", "ignore", "-m", "pypiserver", "run", "--server", self._choice()),
                    *("--interface", "127.0.0.1", "--port", str(self.port), "--disable-fallback"),
                    *("--passwords", str(passwords), "--authenticate", self.authenticate, str(self.packages)),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | {"GUNICORN_CMD_ARGS": "--workers 2"},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise RuntimeError(f"pypiserver did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it and its workers; SIGKILL at once, as a crash does."""
        if self.process is None:
            return
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)  # its own session, so none but it and its workers
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


@contextmanager
def pypi_server(folder: Path, server: str = "wsgiref", *, authenticate: str = "update") -> Iterator[PypiServer]:
    """A running one, stopped in the end."""
    registry = PypiServer(folder, server, authenticate=authenticate)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()
