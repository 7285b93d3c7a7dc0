"""Whether state answers, for whoever asks often: probes, Prometheus, and anybody who may ask `/readyz`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from broker.refusals import StateUnavailable
from broker.state import State, Switch

FRESH_SECONDS: Final = 1.0
"""How long an answer stands for all who ask: it takes a write to get one."""


class Pulse:
    """The last answer of a state, at most a second old; one question at a time, whoever waits for it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._asking: asyncio.Task[Sequence[Switch] | StateUnavailable] | None = None
        self._answered_at = 0.0

    async def beat(self) -> Sequence[Switch]:
        """As `State.ping`; and what is switched off.

        Raises:
            StateUnavailable
        """
        asking = self._asking
        if asking is None or (asking.done() and time.monotonic() - self._answered_at >= FRESH_SECONDS):
            asking = self._asking = asyncio.create_task(self._ask())
        # Shielded: the question belongs to all who wait, and one that goes away must not end it.
        told = await asyncio.shield(asking)
        if isinstance(told, StateUnavailable):
            raise StateUnavailable(told.detail) from told.__cause__
        return told

    async def _ask(self) -> Sequence[Switch] | StateUnavailable:
        try:
            await self._state.ping()
            return await self._state.switches()
        except StateUnavailable as refusal:
            return refusal
        finally:
            self._answered_at = time.monotonic()
