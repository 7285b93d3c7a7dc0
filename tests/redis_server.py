"""A real redis-server for tests: on a free port of loopback, in a folder of its own, with nothing kept on disk."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

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
