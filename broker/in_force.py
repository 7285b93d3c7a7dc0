"""What files say, in force: read at start, and again whenever the files change.

Laws:

- What cannot be read leaves the last good in force, as `failing` and the log say: there one failure is told once, and
  then every ten minutes. A bug of the broker is such a failure too.
- What is taken up stood there twice, a moment apart: no half-written file counts, nor half of a mounted folder's swap.
- Whoever asks for another reading (SIGHUP) is answered in the log, whatever came of it.

Changes are found by looking (ADR 20), in a thread, so that nobody waits for a disk.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from broker.logs import logger

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files."""
LOOKS_SHARE: Final = 0.02
"""Of one processor, at most, for looking: at ten thousand files, looks are some seconds apart."""
SETTLE_SECONDS: Final = 0.2
"""What changed must stay the same so long before it counts: an editor may be in the middle of a file."""
MOST_TRIES: Final = 20
REMIND_SECONDS: Final = 600.0
"""Between two log lines of one failure."""

Value = TypeVar("Value")
Seen = TypeVar("Seen")
Error = TypeVar("Error", bound=Exception)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Generic[Seen]):
    """What was seen of the files at one moment."""

    seen: Seen
    """Equal at two looks where nothing changed between them."""
    sure: bool = True
    """Whether equal proves that; else the files are read once more at the next look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing(Generic[Error]):
    """That the files cannot be read."""

    since: float
    """Epoch seconds."""
    error: Error


class InForce(ABC, Generic[Value, Seen, Error]):
    """What some files say, kept current."""

    def __init__(self, what: str, errors: type[Error], clock: Callable[[], float]) -> None:
        """Reads them. A subclass is ready to look and to read before it calls this.

        Args:
            what: What the log calls it.
            errors: What `_load` raises where the files are wrong.

        Raises:
            Error
        """
        self._what = what
        self._errors = errors
        self._clock = clock
        self._seen: Seen | None = None
        """What was read last; None where it must be read once more."""
        self._pause_seconds = LOOK_SECONDS
        self._asked = asyncio.Event()
        self._told: object = None
        """What was logged last of a failure."""
        self._told_at = 0.0
        self.failing: Failing[Error] | None = None
        """None while `current` is what the files say."""
        self.current: Value = self._read(anew=True, settled=False)
        """Swapped as a whole: whoever asks twice for one token asks once."""
        self.loaded_at = clock()
        """When that was, epoch seconds."""

    def read_again(self) -> None:
        """Has the files read again soon, whether or not they seem changed: what SIGHUP asks for."""
        self._asked.set()

    async def keep_current(self) -> None:
        """Looks after the files for as long as it runs."""
        while True:
            try:
                async with asyncio.timeout(self._pause_seconds):
                    await self._asked.wait()
            except TimeoutError:
                await self.refresh()
            else:
                self._asked.clear()
                await self.refresh(anew=True)

    async def refresh(self, *, anew: bool = False) -> None:
        """Looks once, and takes up what changed.

        Args:
            anew: Read every file, and say in the log how that went.
        """
        began = time.perf_counter()
        try:
            loaded = await asyncio.to_thread(self._read, anew=anew)
        except self._errors as error:
            self._fail(error, anew=anew)
        except Exception as error:  # noqa: BLE001 - whatever it is, what is in force is used on
            logger().error(f"{self._what} could not be read: a bug of the broker", exc_info=error)
            self._fail(self._mistake("could not be read", "The broker has a bug: report its log."), anew=anew)
        else:
            news = "reloaded" if loaded is not self.current else "unchanged" if anew or self.failing else ""
            if loaded is not self.current:
                self._take_up(loaded)
            self.failing = self._told = None
            if news:
                self.tell(news, milliseconds=round((time.perf_counter() - began) * 1000))

    def tell(self, news: str, **more: object) -> None:
        """Logs what is in force."""
        logger().info(f"{self._what} {news}", **self._summary(), **more)

    @abstractmethod
    def _look(self) -> Look[Seen]:
        """Looks at the files. What is wrong with them is for `_load` to raise."""

    @abstractmethod
    def _load(self, seen: Seen) -> Value:
        """What the files say, that were seen so; the very same value where that is still what they say."""

    @abstractmethod
    def _mistake(self, what: str, remedy: str) -> Error:
        """The error that says this of all the files: ('could not be read', 'Report it.')."""

    @abstractmethod
    def _explained(self, error: Error) -> str:
        """What the log says of an error; what it says once more where it is another than before."""

    @abstractmethod
    def _summary(self) -> Mapping[str, object]:
        """What the log says of what is in force."""

    @abstractmethod
    def _keep_the_last(self, failing: Failing[Error], now: float) -> tuple[str, Mapping[str, object]]:
        """Has the last good stay in force, as far as it may; returns the event and more that the log has of it."""

    def _take_up(self, loaded: Value) -> None:
        self.current, self.loaded_at = loaded, self._clock()

    def _read(self, *, anew: bool, settled: bool = True) -> Value:
        """What the files say; what is in force where they did not change.

        Raises:
            Error
        """
        if anew:
            self._seen = None
        for attempt in range(MOST_TRIES):
            look = self._timed_look()
            if look.seen == self._seen:
                return self.current
            if attempt or settled:
                time.sleep(SETTLE_SECONDS)
            self._seen = None
            try:
                loaded = self._load(look.seen)
            except self._errors:
                if self._look().seen == look.seen:
                    raise
            else:
                if self._look().seen == look.seen:
                    self._seen = look.seen if look.sure else None
                    return loaded
        raise self._mistake("changes faster than it can be read", "Write elsewhere, then swap it in by a rename.")

    def _timed_look(self) -> Look[Seen]:
        began = time.thread_time()
        look = self._look()
        self._pause_seconds = max(LOOK_SECONDS, (time.thread_time() - began) / LOOKS_SHARE)
        return look

    def _fail(self, error: Error, *, anew: bool) -> None:
        self._seen = None  # what is in force may be for a time only, from here on: a look that goes well must end that
        now = self._clock()
        self.failing = Failing(since=now if self.failing is None else self.failing.since, error=error)
        event, more = self._keep_the_last(self.failing, now)
        told = event, self._explained(error)
        if anew or told != self._told or now - self._told_at >= REMIND_SECONDS:
            self._told, self._told_at = told, now
            failing_seconds = round(now - self.failing.since)
            logger().error(event, **more, failing_seconds=failing_seconds, explained=told[1])
