"""Looks at records as they come, and delivers what the rules find, in one process at a time.

Laws:

- The position in the records moves on in the same step that remembers and queues: no record is passed over, and none is
  looked at twice with effect, whatever ends when (ADR 37).
- An alert is removed from its queue after its receiver took it: at least once. Its id says which ones are the same.
- Each receiver has a queue and a task of its own: one that is down or slow holds up itself alone. Within a queue
  nothing overtakes.
- Who works has a lease. It is given back at the end, and else is over within `LEASE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, Protocol

from broker.alerts.kinds import Alert
from broker.alerts.receivers import Receiver
from broker.alerts.rules import Memory, Sign, signs
from broker.alerts.standing import Watch
from broker.alerts.webhooks import DeliveryError, Webhooks
from broker.logs import logger
from broker.refusals import StateUnavailable
from broker.state import AlertStep, AlertToSend, Claim, Claimed, State, Waiting

POLL_SECONDS: Final = 1.0
"""Between two looks for records, where the last one found few."""
BREATH_SECONDS: Final = 0.02
"""The same where it found many, as at first: exchanges are served by the same thread."""
LEASE_SECONDS: Final = 10.0
RENEW_SECONDS: Final = 3.0
MOST_RECORDS: Final = 100
"""Looked at in one step."""
MOST_WAITING: Final = 10_000
"""Alerts in one receiver's queue; more are dropped, and said so in the log and the metrics."""
AT_ONCE: Final = 20
"""Alerts of one receiver that are read from state at once."""
COUNT_SECONDS: Final = 10.0
"""Between two looks at how many wait."""

SCHEDULE_SECONDS: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Pauses after the first failures, as Standard Webhooks recommends; the last for all that follow. No pause is longer
than the receiver's `longest_pause`."""
JITTER: Final = 0.2
"""How much a pause is longer or shorter by chance, so that brokers and receivers do not meet all at once."""

LEASE: Final = "alerts"
"""The name that is claimed. Those of files have a registry's name and a space in them."""

FOR_EVER: Final = 4_000_000_000
_BEGUN: Final = "begun"

Result = Literal["delivered", "failed", "dropped"]


class Counts(Protocol):
    """Where deliveries are counted."""

    def alert(self, receiver: str, result: Result) -> None:
        """Counts one."""


class Alerting:
    """The alerts of one process, which works while it has the lease."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        *,
        state: State,
        webhooks: Webhooks,
        watch: Watch,
        counts: Counts,
        clock: Callable[[], float],
    ) -> None:
        self._receivers = {one.name: one for one in receivers}
        self._state = state
        self._webhooks = webhooks
        self._watch = watch
        self._counts = counts
        self._clock = clock
        self._began_at = clock() - 0.001  # records tell milliseconds, rounded down
        self._claim = Claim(name=LEASE, sha256="", attempt=f"alerts {secrets.token_hex(8)}")
        self._queued = {name: asyncio.Event() for name in self._receivers}
        self._leads_until = 0.0
        """By the monotonic clock."""
        self._told_of: str = ""
        self.waiting: Mapping[str, Waiting] = {}
        """What waited when this process last looked; nothing while another works."""

    async def keep_going(self) -> None:
        """Works, or waits for the lease, for as long as it runs. What goes wrong is logged, and tried again."""
        try:
            while True:
                try:
                    if await self._take_lease():
                        await self._work()
                except StateUnavailable:
                    self._tell_once("alerts wait: state cannot be used")
                except Exception as error:  # noqa: BLE001 - whatever it is, records wait, and alerts with them
                    logger().error("alerts stopped for a moment: a bug of the broker", exc_info=error)
                self.waiting = {}
                await asyncio.sleep(POLL_SECONDS)
        finally:
            with contextlib.suppress(StateUnavailable):
                await self._state.release(self._claim)

    async def _take_lease(self) -> bool:
        began = time.monotonic()
        if not isinstance(await self._state.claim(self._claim, now=self._clock(), seconds=LEASE_SECONDS), Claimed):
            return False
        self._leads_until = began + LEASE_SECONDS
        return True

    async def _work(self) -> None:
        """Looks and delivers until the lease is another's, or over."""
        tasks = [asyncio.create_task(self._look_while_leading())]
        tasks += [asyncio.create_task(self._deliver(one)) for one in self._receivers.values()]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _end(tasks)

    async def _look_while_leading(self) -> None:
        renew_at = counted_at = 0.0
        while True:
            try:
                if time.monotonic() >= renew_at:
                    if not await self._take_lease():
                        return
                    renew_at = time.monotonic() + RENEW_SECONDS
                if time.monotonic() >= counted_at:
                    self.waiting = await self._state.waiting([*self._receivers])
                    counted_at = time.monotonic() + COUNT_SECONDS
                more = await self.look()
                self._told_of = ""
            except StateUnavailable:
                if time.monotonic() >= self._leads_until:
                    raise
                more = False
                self._tell_once("alerts wait: state cannot be used")
            await asyncio.sleep(BREATH_SECONDS if more else POLL_SECONDS)

    def _tell_once(self, what: str) -> None:
        if self._told_of != what:
            logger().warning(what)
        self._told_of = what

    # --- Looking -----------------------------------------------------------------------------------------------------

    async def look(self) -> bool:
        """Looks at the records that were not looked at yet; whether there are more.

        Records from before alerts were first looked for teach who uses what, and alert nobody.

        Raises:
            StateUnavailable
        """
        progress = await self._state.alert_progress()
        kept = await self._state.records_after(progress.position, MOST_RECORDS)
        seen = [shown for one in kept if (shown := _signs(one.body)) is not None]
        keys = {key for _, found in seen for sign in found for key in sign.keys}
        memory = Memory(await self._state.alert_memory([*keys, *self._watch.memories(), _BEGUN]))
        now = self._clock()
        if memory.get(_BEGUN) is None:
            memory.put(_BEGUN, repr(self._began_at), FOR_EVER)
        begun_at = float(memory.get(_BEGUN) or 0)
        alerts: list[Alert] = []
        for at, found in seen:
            alerts += _judge(found, memory, quietly=at < begun_at)
            await asyncio.sleep(0)  # exchanges are served by this thread
        alerts += self._watch.judge(memory)
        if not kept and not memory.changes:
            return False
        position = kept[-1].position if kept else progress.position
        queue = await self._queue(alerts, now)
        step = AlertStep(now=now, since=progress, position=position, memory=memory.changes, queue=queue)
        if await self._state.advance_alerts(step):
            for one in queue:
                self._queued[one.receiver].set()
        return len(kept) == MOST_RECORDS

    async def _queue(self, alerts: Iterable[Alert], now: float) -> tuple[AlertToSend, ...]:
        """What each receiver is to be told, as far as its queue has room."""
        queue = [
            AlertToSend(receiver=receiver.name, id=alert.id, at=now, body=alert.body())
            for alert in alerts
            for receiver in self._receivers.values()
            if receiver.wants(alert)
        ]
        if not queue:
            return ()
        waiting = await self._state.waiting(list({one.receiver for one in queue}))
        room = Counter({name: MOST_WAITING - one.alerts for name, one in waiting.items()})
        fits = []
        for one in queue:
            room[one.receiver] -= 1
            if room[one.receiver] >= 0:
                fits.append(one)
            else:
                self._counts.alert(one.receiver, "dropped")
                logger().error("alert dropped: too many wait for the receiver", receiver=one.receiver, alert=one.id)
        return tuple(fits)

    # --- Delivering --------------------------------------------------------------------------------------------------

    async def _deliver(self, receiver: Receiver) -> None:
        """Delivers what waits for a receiver, one after the other, each until it is taken."""
        queued, failures = self._queued[receiver.name], 0
        while True:
            queued.clear()
            try:
                for one in await self._state.waiting_alerts(receiver.name, AT_ONCE):
                    await self._webhooks.send(receiver, one.alert)
                    failures = 0
                    self._counts.alert(receiver.name, "delivered")
                    await self._state.remove_alert(receiver.name, one.place)
                    queued.set()  # there may be more than were read
            except StateUnavailable:
                await asyncio.sleep(POLL_SECONDS)
                continue
            except DeliveryError as error:
                failures += 1
                pause = pause_seconds(failures, receiver.longest_pause_seconds, error.retry_after_seconds)
                self._counts.alert(receiver.name, "failed")
                logger().warning(
                    "alert not delivered",
                    receiver=receiver.name,
                    cause=str(error),
                    failures=failures,
                    again_in_seconds=round(pause, 1),
                )
                await asyncio.sleep(pause)
                continue
            await queued.wait()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancels tasks until they have ended: what they wait for may swallow a cancellation."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=1.0)
    await asyncio.gather(*tasks, return_exceptions=True)


def pause_seconds(failures: int, longest: int, retry_after: int = 0) -> float:
    """How long to leave a receiver alone after so many failures in a row."""
    planned = SCHEDULE_SECONDS[min(failures, len(SCHEDULE_SECONDS)) - 1]
    return min(max(planned, retry_after), longest) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret


def _signs(body: str) -> tuple[float, tuple[Sign, ...]] | None:
    """What a record shows. One that cannot be read is told of and passed over: it must not hold up all others."""
    try:
        return signs(body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger().error("a record could not be looked at for alerts: a bug of the broker", cause=type(error).__name__)
        return None


def _judge(found: Iterable[Sign], memory: Memory, *, quietly: bool) -> list[Alert]:
    if not quietly:
        return [alert for sign in found for alert in sign.judge(memory)]
    for sign in found:
        if sign.teaches:
            list(sign.judge(memory))
    return []
