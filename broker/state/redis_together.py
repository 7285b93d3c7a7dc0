"""What an event loop asks of Redis in one turn of its own, sent together on one connection.

The library hands each command over in a task, under two timers and behind three locks: that costs several times what
the command does. Commands that are sent together pay for it once. While `MOST_UNDER_WAY` sendings wait for their
answers, the next ones gather: the busier it is, the more are sent together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import NoScriptError

from broker.refusals import StateUnavailable
from broker.state import DEADLINE_SECONDS

MOST_UNDER_WAY: Final = 4
MOST_AT_ONCE: Final = 64
MOST_WAITING: Final = 8192
"""When Redis hangs, callers are answered and go, and what they asked is dropped when a sending has room again."""

Command = Sequence[Any]


class _Asked:
    """A script to be run, and who waits for what it answers."""

    __slots__ = ("answer", "by_name", "in_full")

    def __init__(self, by_name: Command, in_full: Command, answer: asyncio.Future[Any]) -> None:
        self.by_name = by_name
        self.in_full = in_full
        self.answer = answer


class Together:
    """Runs scripts that are sent together. For one event loop.

    Args:
        redis: A client of one server, whose pool has room for `MOST_UNDER_WAY` connections.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: deque[_Asked] = deque()
        self._gathering = False
        self._closed = False
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, by_name: Command, in_full: Command) -> Any:
        """What a script answers. Whoever gives up waiting may find later that it was done.

        Args:
            by_name: The command, for a Redis that has seen the script since its start.
            in_full: The command, for one that has not.

        Raises:
            RedisError, OSError: its own, or what kept all that were sent along from their answers.
            StateUnavailable: too many wait already, or it was closed.
        """
        if self._closed or len(self._waiting) >= MOST_WAITING:
            raise StateUnavailable
        loop = asyncio.get_running_loop()
        asked = _Asked(by_name, in_full, loop.create_future())
        self._waiting.append(asked)
        if not self._gathering:
            self._gathering = True
            loop.call_soon(self._send_what_waits)
        return await asked.answer

    async def close(self) -> None:
        """Runs what waits already."""
        self._closed = True
        self._send_what_waits()
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _send_what_waits(self) -> None:
        self._gathering = False
        while self._waiting and len(self._under_way) < MOST_UNDER_WAY:
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            if wanted := [asked for asked in taken if not asked.answer.done()]:
                sending = asyncio.get_running_loop().create_task(self._send(wanted))
                self._under_way.add(sending)
                sending.add_done_callback(self._sent)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._under_way.discard(sending)
        self._send_what_waits()

    async def _send(self, all_asked: Sequence[_Asked]) -> None:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                answers = await self._answers([asked.by_name for asked in all_asked])
                unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
                if unknown:
                    known = await self._answers([all_asked[at].in_full for at in unknown])
                    for at, answer in zip(unknown, known, strict=True):
                        answers[at] = answer
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes to the callers
            answers = [error] * len(all_asked)
        for asked, answer in zip(all_asked, answers, strict=True):
            if asked.answer.done():
                continue
            if isinstance(answer, Exception):
                asked.answer.set_exception(answer)
            else:
                asked.answer.set_result(answer)

    async def _answers(self, commands: Sequence[Command]) -> list[Any]:
        """Of each its answer, or its own error."""
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            return await pipeline.execute(raise_on_error=False)
        except RuntimeError as error:
            # uvloop's, for writing to a connection that the other side has just closed; asyncio has an OSError there.
            raise NotConnectedError from error
