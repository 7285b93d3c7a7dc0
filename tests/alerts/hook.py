"""A receiver of webhooks: a real server, which can be down, slow, or answer what it likes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from broker.playground.processes import free_port

KEY = b"k" * 32
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"

Answer = Callable[[BaseHTTPRequestHandler], int]
"""What it answers; it may take its time, or write something else first."""


@dataclass(frozen=True, slots=True)
class Got:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    def payload(self) -> dict[str, Any]:
        """The JSON."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_signed(self, key: bytes = KEY) -> bool:
        """Whether a signature is valid, as the specification has it, and its time is now."""
        text = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        wanted = "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
        return (
            wanted in self.headers["webhook-signature"].split(" ")
            and abs(time.time() - int(self.headers["webhook-timestamp"])) < 300
        )


@dataclass(slots=True)
class Hook:
    """A receiver on a port of its own, up or down."""

    port: int = field(default_factory=free_port)
    answer: Answer = lambda _: 204
    got: list[Got] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    def taken(self) -> list[Got]:
        """What it answered with a success, in order, without repeats."""
        by_id: dict[str, Got] = {}
        for one in self.got:
            if one.status < 300:
                by_id.setdefault(one.headers["webhook-id"], one)
        return list(by_id.values())

    def types(self) -> list[str]:
        """Of what it took."""
        return [one.payload()["type"] for one in self.taken()]

    def start(self) -> None:
        """Comes up."""
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = hook.answer(self)
                headers = {name.lower(): value for name, value in self.headers.items()}
                hook.got.append(Got(self.path, headers, body, status))
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Location", f"{hook.url}/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                del format, args

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                del request, client_address  # of who hung up

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Goes down."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@contextlib.contextmanager
def hooked(answer: Answer = lambda _: 204) -> Iterator[Hook]:
    """A receiver that is up for as long as the context is open."""
    hook = Hook(answer=answer)
    hook.start()
    try:
        yield hook
    finally:
        hook.stop()
