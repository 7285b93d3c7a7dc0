"""How a process takes its leave at SIGTERM, so that nobody behind a proxy notices.

1. For a while, all goes on: but `/readyz` says 503, and each answer ends its connection. Whoever balances load takes
   notice, and a proxy has no idle connection left that it could use in the very moment in which it is closed.
2. Then no connection begins any more (`turn_away`). Those that had begun, and wait to be taken, are taken.
3. Then the server ends as it does by itself: it closes its socket, and finishes what is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

from broker.logs import logger

LINGER_SECONDS: Final = 0.3
"""In which those that had begun are taken."""

CUT_OFF_SECONDS: Final = 5.0
"""For what a request that is cut off still has to write to the state: two operations, of 2 s at most."""

_SO_ATTACH_FILTER: Final = 26
_DROP_SYN: Final = (
    (0x30, 0, 0, 13),  # the flags of the TCP header
    (0x54, 0, 0, 0x12),  # of those, SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)
"""A classic BPF program (linux/filter.h)."""


class Leaving:
    """Whether this process is about to end, and how it goes about it.

    Args:
        seconds: How long the first step lasts. At 0, the server ends at once.
        listener: The socket that is listened on; None where another process turns new connections away.
    """

    def __init__(self, seconds: float, listener: socket.socket | None = None) -> None:
        self._seconds = seconds
        self.listener = listener
        self.begun = False
        self.under_way = 0
        """Requests that are not answered yet."""
        self._timer: asyncio.TimerHandle | None = None

    async def last_requests(self) -> None:
        """Waits for those that the server cut off to note what became of them; not for long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CUT_OFF_SECONDS
        while self.under_way and loop.time() < until:  # noqa: ASYNC110 - nobody is woken for each request
            await asyncio.sleep(0.02)

    @contextlib.contextmanager
    def at_sigterm(self) -> Iterator[None]:
        """Delays what SIGTERM does by then, which is the server's own handler. A second one cuts the delay short."""
        if not self._seconds:
            yield
            return
        loop = asyncio.get_running_loop()
        server: Any = signal.getsignal(signal.SIGTERM)  # a function: whoever serves has set it

        def end() -> None:
            server(signal.SIGTERM, None)

        def linger() -> None:
            if self.listener is not None:
                turn_away(self.listener)
            self._timer = loop.call_later(LINGER_SECONDS, end)

        def begin() -> None:
            if self._timer is not None:
                self._timer.cancel()
                end()
                return
            self.begun = True
            logger().info("leaving: new connections are still taken", seconds=self._seconds)
            self._timer = loop.call_later(self._seconds, linger)

        loop.add_signal_handler(signal.SIGTERM, begin)
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()
            loop.remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, server)


def turn_away(listener: socket.socket) -> None:
    """Has the kernel drop what would begin a connection, also for other processes that listen on the socket.

    Closing a socket resets the connections that wait in its queue, whose clients may have sent their request. Whoever
    comes after this knocks again a second later, finds nobody, and goes to the next replica. Where the kernel cannot do
    it (other than Linux), a connection may be reset that begins in the moment of closing.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in _DROP_SYN))
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
        )
