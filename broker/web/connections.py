"""The connections of one process: how many there are, and which gives way where there are too many.

Laws:

- there are never more than `most`. So there are always files left for state, uploads and the registry, and the system
  never stops the broker from accepting;
- where one comes too many, another is closed that waits for its client: of the address that has the most, first the
  oldest that has not sent a head, then the oldest whose body is not there. So whoever opens hundreds displaces itself;
- a request that is there is never broken off. If there are nothing but those, the newcomer is closed;
- of what is no HTTP, `MOST_REFUSED_AT_ONCE` a second are refused at once. All others wait for their answer: whoever
  sends such by the hundred connects again as soon as it is answered, and all in step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Literal, Protocol

from broker.logs import logger

Awaits = Literal["head", "body", "nothing"]
"""What a connection waits for, of its client."""

TELL_SECONDS: Final = 60.0

MOST_REFUSED_AT_ONCE: Final = 20


class Connection(Protocol):
    """A client's."""

    def awaits(self) -> Awaits:
        """What it waits for."""

    def give_way(self) -> None:
        """Closes it, whatever is under way."""


class Connections:
    """Those that are open, by address."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._of: dict[str, dict[Connection, None]] = {}
        self._open = 0
        self._told_at = float("-inf")
        self._refused_since, self._refused = float("-inf"), 0

    def enter(self, connection: Connection, address: str) -> bool:
        """Takes a connection in, in place of another where there are too many. False where there is no room."""
        if self._open >= self.most:
            self._tell()
            victim = next(self._giving_way(), None)
            if victim is None:
                return False
            other, its_address = victim
            self.leave(other, its_address)
            other.give_way()
        self._of.setdefault(address, {})[connection] = None
        self._open += 1
        return True

    def leave(self, connection: Connection, address: str) -> None:
        """Forgets a connection; one that is not there is forgotten already."""
        others = self._of.get(address, {})
        if connection in others:
            del others[connection]
            self._open -= 1
            if not others:
                del self._of[address]

    def refuses_at_once(self) -> bool:
        """Whether what is no HTTP is refused at once; counts it."""
        now = time.monotonic()
        if now - self._refused_since >= 1:
            self._refused_since, self._refused = now, 0
        self._refused += 1
        return self._refused <= MOST_REFUSED_AT_ONCE

    def _giving_way(self) -> Iterator[tuple[Connection, str]]:
        for address, ones in sorted(self._of.items(), key=lambda of: len(of[1]), reverse=True):
            for awaited in ("head", "body"):
                yield from ((one, address) for one in ones if one.awaits() == awaited)

    def _tell(self) -> None:
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            logger().warning("too many connections: those that wait for their client give way", most=self.most)
