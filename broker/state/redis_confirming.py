"""Connections to Redis that trust a master only as far as its replicas bear it out.

Redis answers before its replicas have what was written, and a failover then loses it: a spent token could be spent
again. A master that was cut off goes on answering, too, and knows nothing of what is revoked at its successor. So where
the state's URL says how many replicas there are to wait for:

- **Who writes, waits.** A script that writes is followed by `WAIT`, sent along with it on the same connection: no
  further round trip, and whoever answers the one answers the other. Too few replicas in time is an error. Of several
  scripts that are sent together, one `WAIT` follows the last, and its error is theirs all.
- **Who reads, asks a master that can write.** Where that was not asked on a connection for `TRUSTED_SECONDS`, a read
  is preceded by a write and its `WAIT`, sent along with it. Sentinels, and a Cluster's nodes, take longer than that to
  find a master gone, so nobody else was a master before the read.

Both are done here, below the library's clients, because only here is it known which connection a command is sent on:
behind a redirection in a Cluster, or a failover, it is another one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
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
    """Commands as they are sent, how many, and whether one of them writes."""

    writes = False
    commands = 1


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
        self._before_own, self._own, self._after_own = 0, 0, 0
        """Of what was sent last, answers that are still to come: of what went before the commands, the last of them a
        WAIT's; the commands' own; and a WAIT's after them."""
        self._alone = True
        """Whether one command was sent: an error of its own is then all that it says."""

    async def _connect(self) -> None:
        self._trusted_until, self._own = -math.inf, 0  # another server, maybe
        await super()._connect()  # type: ignore[no-untyped-call] # theirs

    def pack_command(self, *args: Any) -> list[bytes]:
        """As the library's; a command of the state is still one when it is sent."""
        packed = super().pack_command(*args)
        if isinstance(args[0], Operation):
            packed = _Packed(packed)
            packed.writes = args[0].writes
        return packed

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """The same of several."""
        listed = [tuple(command) for command in commands]
        packed = _Packed(super().pack_commands(listed))
        packed.commands = len(listed)
        packed.writes = any(isinstance(command[0], Operation) and command[0].writes for command in listed)
        return packed

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """As the library's, with what goes along."""
        if not isinstance(command, _Packed):
            await super().send_packed_command(command, check_health)
            return
        sent_at = time.monotonic()
        before: list[bytes] = []
        after: list[bytes] = []
        if command.writes:
            after = self._wait
        elif not self.is_connected or sent_at >= self._trusted_until:
            before = [*self._before, *self._wait]
        await super().send_packed_command([*before, *command, *after], check_health)
        self._before_own, self._own, self._after_own = 2 if before else 0, command.commands, 1 if after else 0
        self._alone = command.commands == 1
        self._sent_at = sent_at

    async def read_response(self, *args: Any, **named: Any) -> Any:
        """The answer of the next command.

        Raises:
            NotReplicatedError: replicas do not have what was written: by it, or by one that was sent along with it.
        """
        if not self._own:
            return await super().read_response(*args, **named)
        try:
            confirming = [await self._answer(*args, **named) for _ in range(self._before_own)]
            own = await self._answer(*args, **named)
            if self._own == 1:
                confirming += [await self._answer(*args, **named) for _ in range(self._after_own)]
            if confirming and not (self._alone and isinstance(own, ResponseError)):
                self._confirm(confirming)
                # A script that writes may have had nothing to write, and its WAIT then nothing to wait for.
                if self._before_own:
                    self._trusted_until = self._sent_at + TRUSTED_SECONDS
        except BaseException:
            self._own = 0
            await self.disconnect(nowait=True)  # or the next command would get an answer of this one
            raise
        self._before_own, self._own = 0, self._own - 1
        if isinstance(own, ResponseError):
            raise own
        return own

    async def _answer(self, *args: Any, **named: Any) -> Any:
        try:
            return await super().read_response(*args, **named)
        except ResponseError as error:
            return error

    def _confirm(self, answers: Sequence[Any]) -> None:
        """Takes answers to what was sent to confirm; the last is a WAIT's.

        An error in them is not the command's, and of several that were sent together not of one alone.
        """
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise NotReplicatedError("Redis does not say that replicas have what was written") from answer
        if answers[-1] < self._replicas:
            raise NotReplicatedError(f"{answers[-1]} of {self._replicas} replicas have what was written")


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
