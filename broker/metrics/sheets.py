"""One process's figures as a sheet; the sheets of all workers in one folder; and what they say together.

Laws:

- each worker writes a sheet of its own, anew every second and when it is asked, and whoever is asked adds up all of
  them: its own as it is, the others' as they were a second ago. So a counter never goes back, whoever is asked next;
- what a worker counted stays counted when it ends; what was its state at a moment goes with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.metrics.catalogue import BY_NAME
from broker.metrics.counting import Counts, Key

LIVE_SECONDS: Final = 10.0
"""A sheet that is older is of a worker that ended, or hangs."""

_JOIN: Final[dict[str, Callable[[float, float], float]]] = {
    "sum": lambda one, other: one + other,
    "largest": max,
    "smallest": min,
}


@dataclass(slots=True, kw_only=True)
class Sheet:
    """Figures of one process, or of several together."""

    values: dict[Key, float] = field(default_factory=dict)
    """Counters and gauges."""
    spreads: dict[Key, tuple[float, ...]] = field(default_factory=dict)
    """Histograms: the sum, then what fell into each bucket."""

    def only_counted(self) -> Sheet:
        """Without what was true of a moment."""
        counters = {key: value for key, value in self.values.items() if BY_NAME[key[0]].type == "counter"}
        return Sheet(values=counters, spreads=self.spreads)

    def as_text(self, at: float) -> str:
        """As a file holds it."""
        return json.dumps([at, [*self.values.items()], [*self.spreads.items()]])

    @classmethod
    def from_text(cls, text: str, now: float) -> Sheet:
        """What a file says; of a worker that is gone, what it has counted."""
        at, values, spreads = json.loads(text)
        whole = cls(
            values={tuple(key): value for key, value in values},
            spreads={tuple(key): tuple(figures) for key, figures in spreads},
        )
        return whole if now - at < LIVE_SECONDS else whole.only_counted()


def sheet_of(counts: Counts, standing: dict[Key, float]) -> Sheet:
    """The figures of this process."""
    spreads = {key: tuple(spread) for key, spread in counts.spreads().items()}
    return Sheet(values={**counts.counters(), **standing}, spreads=spreads)


def together(sheets: Iterable[Sheet]) -> Sheet:
    """What several processes' sheets say."""
    whole = Sheet()
    for sheet in sheets:
        for key, value in sheet.values.items():
            join = _JOIN[BY_NAME[key[0]].of_workers]
            whole.values[key] = join(whole.values[key], value) if key in whole.values else value
        for key, figures in sheet.spreads.items():
            before = whole.spreads.get(key, (0,) * len(figures))
            whole.spreads[key] = tuple(map(sum, zip(before, figures, strict=True)))
    return whole


class Folder:
    """Where workers of one broker leave their sheets. Whoever started them makes the folder, and removes it."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Nothing is written yet."""
        self._path = path
        self._clock = clock
        # A process id alone may be given again.
        self._own = path / f"{os.getpid()}-{secrets.token_hex(4)}.json"

    def write(self, sheet: Sheet, *, last: bool = False) -> None:
        """Writes this process's sheet; nobody ever reads half of one.

        Args:
            last: The process ends.

        Raises:
            OSError: the folder is gone, or its disk full.
        """
        new = self._own.with_suffix(".new")
        new.write_text(sheet.as_text(0.0 if last else self._clock()), encoding="utf-8")
        new.replace(self._own)

    def others(self) -> Iterator[Sheet]:
        """The sheets of the other processes."""
        for path in sorted(self._path.glob("*.json")):
            with contextlib.suppress(OSError):  # somebody tidies up
                if path != self._own:
                    yield Sheet.from_text(path.read_text(encoding="utf-8"), self._clock())
