"""Changes of policies while the broker runs, in the audit: a record for each, once for all replicas that see it.

What a broker starts with is no change; each record of an attempt names the generation that decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from broker.audit import Attempt, new_attempt_id
from broker.refusals import StateUnavailable
from broker.reload import PoliciesInForce

LOOK_SECONDS: Final = 1.0

SAME_SECONDS: Final = 600
"""What two replicas see within this time is one change: each looks at its own files, which may come later."""


class PolicyChanges:
    """Notes what became of the policies.

    Args:
        record: Told of each change and of what tells it from others, to be recorded once within `SAME_SECONDS`. It may
            raise StateUnavailable: then it is told again.
    """

    def __init__(
        self,
        policies: PoliciesInForce,
        *,
        clock: Callable[[], float],
        record: Callable[[Attempt, str], Awaitable[None]],
    ) -> None:
        self._policies = policies
        self._clock = clock
        self._record = record
        self._generation = policies.current.generation
        self._failing = False

    async def keep_noted(self) -> None:
        """Looks for as long as it runs."""
        while True:
            await self.note()
            await asyncio.sleep(LOOK_SECONDS)

    async def note(self) -> None:
        """Looks once. What cannot be recorded now is seen again at the next look."""
        generation, failing = self._policies.current.generation, self._policies.failing is not None
        if (generation, failing) == (self._generation, self._failing):
            return
        now = self._clock()
        attempt = Attempt(kind="policies", id=new_attempt_id(now), started_at=now, generation=generation)
        attempt.change = "failing" if failing else "loaded"
        attempt.before = self._generation if generation != self._generation else ""
        try:
            await self._record(attempt, f"policies {attempt.change} {self._generation} {generation}")
        except StateUnavailable:
            return
        self._generation, self._failing = generation, failing
