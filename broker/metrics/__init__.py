"""What operators' machines watch: counted in each process, added up over all workers, told at `/metrics`.

Attempts are counted where their records are published, so that the two stories (`exchange.py`, `gateway/`) say no more
of it than which step is through. Counting is ours, and prometheus-client only writes the page (ADR 32).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker import refusals
from broker.logs import logger
from broker.metrics.catalogue import METRICS
from broker.metrics.counting import Counts, Key
from broker.metrics.page import page
from broker.metrics.sheets import Folder, Sheet, sheet_of, together
from broker.metrics.standing import Standing
from broker.policy.subjects import counted
from broker.state.pulse import Pulse

WRITE_SECONDS: Final = 1.0
"""Between two sheets of a worker."""


class Metrics:
    """The figures of one process, and through a folder those of its fellow workers."""

    def __init__(
        self, counts: Counts, standing: Standing, pulse: Pulse, folder: Path | None, clock: Callable[[], float]
    ) -> None:
        """Nothing is read or written yet.

        Args:
            folder: Shared with the other workers; None where there are none.
        """
        self._counts = counts
        self._standing = standing
        self._pulse = pulse
        self._folder = None if folder is None else Folder(folder, clock)

    async def page(self) -> bytes:
        """All figures as Prometheus reads them; of the other workers, as of a second ago."""
        of_state = await self._of_state()
        own = self._sheet()
        others: tuple[Sheet, ...] = ()
        if self._folder is not None:
            # Whoever is asked next must not know less of this one: a counter never goes back.
            with contextlib.suppress(OSError):
                self._folder.write(own)
            others = (*self._folder.others(),)
        own.values.update(of_state)
        return page(together([own, *others]), METRICS)

    async def keep_written(self) -> None:
        """Writes this process's sheet for as long as it runs, and a last one; where there are no other workers, never.

        A sheet that cannot be written is logged, once until it can be again.
        """
        if self._folder is None:
            return
        told = False
        try:
            while True:
                try:
                    self._folder.write(self._sheet())
                except OSError as error:
                    if not told:
                        logger().warning("metrics cannot be shared with the other workers", cause=repr(error))
                    told = True
                else:
                    told = False
                await asyncio.sleep(WRITE_SECONDS)
        finally:
            if not told:
                self._folder.write(self._sheet(), last=True)

    def _sheet(self) -> Sheet:
        return sheet_of(self._counts, self._standing.read())

    async def _of_state(self) -> dict[Key, float]:
        try:
            off = counted(switch.subject for switch in await self._pulse.beat())
        except refusals.StateUnavailable:
            return {("broker_state_reachable",): 0}
        return {
            ("broker_state_reachable",): 1,
            **{("broker_switched_off", kind): number for kind, number in off.items()},
        }
