"""A broker's key set and introspection at the wire: counts what is asked, and answers as a test tells it to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from broker.signing import SigningKeys, key_set
from tests.test_minting import KEY


@dataclass(slots=True)
class KeyServer:
    """What it answers, and how often it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = field(default_factory=lambda: json.dumps(key_set(SigningKeys(keys=(KEY,)), time.time())).encode())
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: int = 0
    seen: list[str] = field(default_factory=list)
    """What came in bodies."""


@contextlib.contextmanager
def serving_keys() -> Iterator[KeyServer]:
    """One on a free port, for as long as the context is open."""
    told = KeyServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked += 1
            told.seen.append(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        do_POST = do_GET  # noqa: N815 - as above

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_address[1]}/keys"
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
