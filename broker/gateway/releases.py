"""The optional rule that an old release takes no new files: whoever gets hold of a publisher then cannot slip a file in
under a version that everybody has pinned and checked.

A release begins with its first file. When that was, the registry's index says (PEP 700), or for files that came through
the broker, its own memory. Where neither knows it of each file that is there, the release is taken for old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from broker import refusals
from broker.gateway.filenames import FileName, read_filename
from broker.gateway.index import Listed
from broker.state import State

_DAY_SECONDS: Final = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """Which releases take new files."""

    state: State
    clock: Callable[[], float]
    name: Callable[[FileName], str]
    """What a file is called in state."""
    open_days: int | None
    """After which a release takes no more; None for never."""
    tries: int = 4
    pause_seconds: float = 0.25
    """A file that comes at the same time is in the index a moment before it is in our memory."""

    async def check_open(self, files: Sequence[Listed], filename: FileName) -> None:
        """Passes where a new file may be added to its release.

        Args:
            files: What the index lists of the project.

        Raises:
            ReleaseClosed
        """
        siblings = {known: one for one in files if (known := read_filename(one.filename))[:2] == filename[:2]}
        if self.open_days is None or not siblings:
            return
        begun = await self._begun(siblings)
        if begun is None:
            raise refusals.ReleaseClosed("it is not known when the release was begun, so it is taken for old")
        if self.clock() >= begun + self.open_days * _DAY_SECONDS:
            raise refusals.ReleaseClosed(f"the release was begun more than {self.open_days} days ago")

    async def _begun(self, files: dict[FileName, Listed]) -> float | None:
        told = {self.name(known): one.uploaded_at for known, one in files.items()}
        untold = [name for name, at in told.items() if at is None]
        for _ in range(self.tries):
            remembered = await self.state.written_at(untold, now=self.clock())
            if len(remembered) == len(untold):
                return min(at for at in (*told.values(), *remembered.values()) if at is not None)
            await asyncio.sleep(self.pause_seconds)
        return None
