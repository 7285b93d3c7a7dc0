"""HTTP on a connection, with the bounds that uvicorn leaves to a proxy in front: not every broker has one.

Laws:

- what of a request is no body (its line, headers, trailers, the framing of chunks) is of bounded size: `httptools`
  keeps it all, a header without end included, and twenty times over where the headers are small;
- the head of a request comes within `HEAD_SECONDS`, from the connection's or its own first byte;
- of a body that was answered before it was through, `MOST_DROPPED_BYTES` are dropped, for `DROP_SECONDS`: uvicorn would
  do so for ever;
- `MOST_PIPELINED` requests of a connection wait for their turn;
- of a process, no more connections are open than `Connections` says: those that wait for their client give way;
- what breaks a bound is told so where an answer can still be sent, and the connection ends.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from broker import refusals
from broker.addresses import TrustedProxies
from broker.audit import new_attempt_id
from broker.sources import PAUSE_SECONDS, spread
from broker.web.answers import ATTEMPT_HEADER, WHOLE, refused
from broker.web.connections import Awaits, Connections

MOST_HEAD_BYTES: Final = 64 * 1024
"""The longest upload token, as a Basic credential, takes 44 KiB."""

HEAD_SECONDS: Final = 10.0

DROP_SECONDS: Final = 10.0
MOST_DROPPED_BYTES: Final = 64 * 1024 * 1024
"""What is dropped of a body that comes after its answer: clients that send first and read later then see it."""

MOST_PIPELINED: Final = 16
"""Requests of one connection that wait while another is answered. uvicorn stops to read then, but one read can bring
thousands, and each takes 6 KB for as long as the client reads no answer. No client of packages sends one before the
answer to the last has come."""

MOST_HELD_BYTES: Final = 4096
"""A head; what is longer is worth a write of its own."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, bounded by the laws above. uvicorn bounds how long a connection is idle between requests."""

    _unbodied = 0
    """Bytes of this request that were no body, counted by what the socket gave at a time."""
    _in_body = False
    """The head is complete, and the message is not."""
    _dropped = 0
    """Bytes of this request's body that came after its answer."""
    _is_refused = False
    """What came was no request: all that follows is dropped."""
    _timer: asyncio.TimerHandle | None = None
    _address = ""

    def __init__(self, *told: Any, all_connections: Connections | None = None, **named: Any) -> None:
        """A connection that is to be made.

        Args:
            all_connections: Those of the process; None where nobody counts them.
        """
        super().__init__(*told, **named)
        self._all = all_connections or Connections(sys.maxsize)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Takes its place, and starts the clock for the first head."""
        self._gathering = Gathering(transport, self.loop)
        super().connection_made(self._gathering)
        self._address = TrustedProxies().source(self.client[0] if self.client else "", ()).name
        self._start_timer()
        if not self._all.enter(self, self._address):
            self.give_way()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives its place back, and stops the clock."""
        self._all.leave(self, self._address)
        self._stop_timer()
        super().connection_lost(exc)

    def awaits(self) -> Awaits:
        """What of a request is still to come."""
        if self._in_body:
            return "body"
        return "nothing" if self._is_answering() else "head"

    def give_way(self) -> None:
        """Closes it at once."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Takes some bytes in, and ends the connection where a bound is broken."""
        self._unbodied += len(data)
        super().data_received(data)
        if self._is_refused:
            return
        if self._unbodied > MOST_HEAD_BYTES:
            self._refuse_in_turn(refusals.RequestTooLarge(f"a request's head may have {MOST_HEAD_BYTES} bytes"))
        elif self._dropped > MOST_DROPPED_BYTES:
            self.transport.close()
        elif self._timer is None and not self._is_answering():
            self._start_timer(DROP_SECONDS if self._in_body else HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """The head came in time.

        Raises:
            BufferError: too many wait for their turn on this connection. The parser stops at it, as at any mistake.
        """
        if len(self.pipeline) >= MOST_PIPELINED:
            raise BufferError
        self._stop_timer()
        self._in_body = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """What is body is bounded by those who read it."""
        self._unbodied -= len(body)
        if not self._is_answering():
            self._dropped += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """What follows is the next request's."""
        self._unbodied, self._dropped, self._in_body = 0, 0, False
        self._stop_timer()
        self.scope[WHOLE] = True  # type: ignore[typeddict-unknown-key]  # read by our own handlers
        super().on_message_complete()

    def eof_received(self) -> None:
        """The client sends no more; its transport is closed after this."""
        self._gathering.flush()
        super().eof_received()

    def send_400_response(self, msg: str) -> None:
        """Refuses what uvicorn cannot parse in the form that all refusals have."""
        del msg
        self._refuse_in_turn(refusals.MalformedHttp())

    def _refuse_in_turn(self, refusal: refusals.Refusal) -> None:
        """Refuses what is no request; where many do so, after a while."""
        self._is_refused = True
        if self._is_answering() or self._all.refuses_at_once():
            self._refuse(refusal)
            return
        self._stop_timer()
        self.flow.pause_reading()
        # Each waits for a time of its own, or they would come again together.
        wait = random.uniform(0, 2 * PAUSE_SECONDS)  # noqa: S311 - no secret
        self._timer = self.loop.call_later(wait, self._refuse, refusal)

    def _is_answering(self) -> bool:
        return not getattr(self.cycle, "response_complete", True)  # uvicorn's is None at first, and not typed so

    def _start_timer(self, seconds: float = HEAD_SECONDS) -> None:
        self._timer = self.loop.call_later(spread(seconds), self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, refusal: refusals.Refusal) -> None:
        if self._is_answering() or self.transport.is_closing():
            self.transport.abort()  # an answer is under way that this one would stand in the middle of
            return
        attempt_id = new_attempt_id(time.time())
        answer = refused(refusal, attempt_id)
        headers = [*answer.raw_headers, (ATTEMPT_HEADER.encode(), attempt_id.encode()), (b"connection", b"close")]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"HTTP/1.1 %d Refused\r\n%b\r\n%b" % (answer.status_code, head, bytes(answer.body)))
        self.transport.close()


class Gathering(asyncio.Transport):
    """Writes an answer's head with what follows it in the same turn of the event loop.

    uvicorn writes the two apart: twice a system call, a packet, a TLS record, and a client that wakes up.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Around uvicorn's own.

        Args:
            loop: The transport's.
        """
        super().__init__()
        self._transport, self._loop = transport, loop
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Writes what is held and this; or holds this until the turn ends."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        elif len(data) > MOST_HELD_BYTES:
            self._transport.write(data)
        else:
            self._held = bytes(data)
            self._loop.call_soon(self.flush)

    def close(self) -> None:
        """Closes it when all is written."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Closes it at once."""
        self._held = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Asks for no more data."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Asks for data again."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the transport has it."""
        return self._transport.get_extra_info(name, default)

    def flush(self) -> None:
        """Writes what is held."""
        if self._held and not self.is_closing():  # the client may be gone since: uvloop raises where a socket is closed
            held, self._held = self._held, b""
            self._transport.write(held)
