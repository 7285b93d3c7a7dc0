"""Connections to Redis that trust a master only as far as its replicas bear it out.

Redis answers before its replicas have what was written, and a failover then loses it: a spent token could be spent
again. A master that was cut off goes on answering, too, and knows nothing of what is revoked at its successor. So where
the state's URL says how many replicas there are to wait for:

- **Who writes, waits.** Each script that writes is followed by `WAIT`, sent along with it on the same connection: no
  further round trip, and whoever answers the one answers the other. Too few replicas in time is an error.
- **Who reads, asks a master that can write.** On a connection that has not written for `TRUSTED_SECONDS`, a read is
  preceded by a write and its `WAIT`, sent along with it. Sentinels, and a Cluster's nodes, take longer than that to
  find a master gone, so nobody else was a master before the read.

Both are done here, below the library's clients, because only here is it known which connection a command is sent on:
behind a redirection in a Cluster, or a failover, it is another one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any, Final, Self

from redis.asyncio import SSLConnection
from redis.asyncio.connection import Connection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.exceptions import RedisError, ResponseError

WAIT_SECONDS: Final = 0.8
"""For replicas. Twice that, where a script must be sent again in full, is within the deadline of an operation."""

TRUSTED_SECONDS: Final = 1.0
"""How long a master is one after it wrote, with its replicas. Less than `down-after-milliseconds` of the Sentinels and
`cluster-node-timeout` must be, for which reason the how-to asks for 5 s."""


class NotReplicatedError(RedisError):
    """What was written is not at as many replicas as it must be; it may be lost, or not."""


class Operation(str):
    """The name of a command that the state sends. The library's own, such as AUTH, are plain texts, and never wait."""

    __slots__ = ("writes",)
    writes: bool

    def __new__(cls, name: str, *, writes: bool) -> Self:
        """`writes` says whether the command may change something that must not be lost."""
        operation = super().__new__(cls, name)
        operation.writes = writes
        return operation


class _Packed(list[bytes]):
    """A command as it is sent, and whether it writes."""

    writes = False


class _Confirming(Connection):
    """A connection that does so.

    Args:
        replicas: How many must have what was written.
        fence: A key to write where only reads were asked for.
    """

    def __init__(self, *, replicas: int, fence: bytes, **more: Any) -> None:
        super().__init__(**more)
        self._replicas = replicas
        self._before = [*super().pack_command("SET", fence, "", "PX", 60_000)]
        self._wait = [*super().pack_command("WAIT", replicas, int(WAIT_SECONDS * 1000))]
        self._trusted_until = -math.inf
        self._sent_at = 0.0
        self._answers: tuple[int, int, int] | None = None
        """Of what was sent last: how many answers there are, which one is the command's, and which one WAIT's."""

    async def _connect(self) -> None:
        self._trusted_until, self._answers = -math.inf, None  # another server, maybe
        await super()._connect()  # type: ignore[no-untyped-call] # theirs

    def pack_command(self, *args: Any) -> list[bytes]:
        """As the library's; a command of the state is still one when it is sent."""
        packed = super().pack_command(*args)
        if isinstance(args[0], Operation):
            packed = _Packed(packed)
            packed.writes = args[0].writes
        return packed

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """As the library's, with what goes along."""
        if not isinstance(command, _Packed):
            await super().send_packed_command(command, check_health)
            return
        sent_at = time.monotonic()
        if command.writes:
            await super().send_packed_command([*command, *self._wait], check_health)
            self._answers = (2, 0, 1)
        elif not self.is_connected or sent_at >= self._trusted_until:
            await super().send_packed_command([*self._before, *self._wait, *command], check_health)
            self._answers = (3, 2, 1)
        else:
            await super().send_packed_command(command, check_health)
        self._sent_at = sent_at

    async def read_response(self, *args: Any, **named: Any) -> Any:
        """The command's own answer.

        Raises:
            NotReplicatedError: replicas do not have what was written.
        """
        if self._answers is None:
            return await super().read_response(*args, **named)
        (count, own, waited), self._answers = self._answers, None
        answers: list[Any] = []
        try:
            for _ in range(count):
                try:
                    answers.append(await super().read_response(*args, **named))
                except ResponseError as error:
                    answers.append(error)
        except BaseException:
            await self.disconnect(nowait=True)  # or the next command would get an answer of this one
            raise
        for answer in (answers[own], *answers):
            if isinstance(answer, ResponseError):
                raise answer
        if answers[waited] < self._replicas:
            raise NotReplicatedError(f"{answers[waited]} of {self._replicas} replicas have what was written")
        self._trusted_until = self._sent_at + TRUSTED_SECONDS
        return answers[own]


class _ConfirmingTLS(_Confirming, SSLConnection):
    """The same over TLS."""


class _ConfirmingSentinel(_Confirming, SentinelManagedConnection):
    """The same to whatever server the Sentinels call the master."""


class _ConfirmingSentinelTLS(_Confirming, SentinelManagedSSLConnection):
    """The same over TLS."""


def connection_class(*, tls: bool, sentinel: bool, confirming: bool) -> type[Connection]:
    """What to connect with. Without replicas to wait for, the library's own."""
    if sentinel:
        if confirming:
            return _ConfirmingSentinelTLS if tls else _ConfirmingSentinel
        return SentinelManagedSSLConnection if tls else SentinelManagedConnection
    if confirming:
        return _ConfirmingTLS if tls else _Confirming
    return SSLConnection if tls else Connection
