"""The policies in force: loaded at start, and again whenever their files change.

Laws:

- A new generation is compiled beside the old one, in a thread, and swapped at once: an attempt asks one generation.
- What cannot be loaded changes nothing at first: the last good policies decide for a stated time, as `/readyz` and the
  log tell; then everything is denied, until the files are mended.
- What is loaded stood on the disk all at one moment: it is looked at before and after, and read again if that differs.

Changes are found by looking (ADR 20): one look sees an edited file, a ConfigMap's swapped link, and a folder that is a
swapped link itself, also on file systems that tell of nothing.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from broker.logs import logger
from broker.policy import folder as policy_folder
from broker.policy.errors import PolicyError, PolicyErrors
from broker.policy.loader import Listing, Loader
from broker.policy.model import Policies

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files."""
LOOKS_SHARE: Final = 0.02
"""Of one processor, at most, for looking: at ten thousand files, looks are some seconds apart."""
SETTLE_SECONDS: Final = 0.2
"""What changed must stay the same so long before it counts: an editor may be in the middle of a file."""
MOST_TRIES: Final = 20
YOUNG_SECONDS: Final = 2.0
"""A file that was changed within so long of the look may change again and show the same times (file systems count in
steps, some of two seconds): it is read once more when it is older."""
REMIND_SECONDS: Final = 600.0
"""Between two log lines of one failure."""
MISTAKES_IN_A_LOG_LINE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the folder looked like at one moment."""

    listing: Listing
    unsure: frozenset[str]
    """Files whose stamps do not prove that they are unchanged."""
    cost_seconds: float
    """Of a processor."""

    def sure(self, round_number: int) -> Listing:
        """The listing with the stamps that can be trusted, and each only within one round."""
        stamps = self.listing.stamps.items()
        trusted = {file: (round_number, stamp) for file, stamp in stamps if file not in self.unsure}
        return replace(self.listing, stamps=trusted)


def look(folder: Path) -> Look:
    """Looks at the folder, and reads no file."""
    began, now = time.thread_time(), time.time()
    files, errors = policy_folder.list_files(folder)
    parents = {inside: os.path.realpath(folder / inside) + "/" for inside in ("", policy_folder.ORGANIZATIONS)}
    stamps: dict[str, Hashable] = {}
    unsure = set()
    for file in files:
        inside, _, name = file.rpartition("/")
        try:
            stamps[file], changed_at = _stamp(parents[inside], name)
        except OSError as error:
            stamps[file], changed_at = error.errno, now
        if abs(now - changed_at) < YOUNG_SECONDS:
            unsure.add(file)
    listing = Listing(files=tuple(files), errors=tuple(errors), stamps=stamps)
    return Look(listing=listing, unsure=frozenset(unsure), cost_seconds=time.thread_time() - began)


def _stamp(parent: str, name: str) -> tuple[Hashable, float]:
    """What tells a file from every other, and from itself before a change; and when it was changed."""
    found, path = os.lstat(parent + name), parent
    if stat.S_ISLNK(found.st_mode):
        path = os.path.realpath(parent + name, strict=True)
        found = os.lstat(path)
    return (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns), found.st_ctime


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """That the files cannot be loaded."""

    since: float
    """Epoch seconds."""
    denied_from: float
    """From when everything is denied."""
    errors: PolicyErrors


class PoliciesInForce:
    """The policies of one folder, kept current."""

    def __init__(
        self, folder: Path, *, allow_loopback_issuers: bool, stale_after_seconds: float, clock: Callable[[], float]
    ) -> None:
        """Loads them.

        Args:
            stale_after_seconds: How long the last good policies decide while the files cannot be loaded.

        Raises:
            PolicyErrors
        """
        self._folder = folder
        self._allow_loopback_issuers = allow_loopback_issuers
        self._stale_after_seconds = stale_after_seconds
        self._clock = clock
        self._loader = self._new_loader()
        self._round = 0
        """In each, every file is read at least once."""
        self._seen: Listing | None = None
        """What was read last; None where it must be read once more."""
        self._pause_seconds = LOOK_SECONDS
        self._asked = asyncio.Event()
        self._told: object = None
        """What was logged last of a failure."""
        self._told_at = 0.0
        self.failing: Failing | None = None
        """None while the policies are those of the files."""
        self.current = self._read(anew=True)
        self.loaded_at = clock()
        """When that was, epoch seconds."""

    def read_again(self) -> None:
        """Has every file read again soon, whether or not it seems changed: what SIGHUP asks for."""
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
            anew: Read every file, at once, and say in the log how that went.
        """
        began = time.perf_counter()
        try:
            loaded = await asyncio.to_thread(self._read, anew=anew)
        except PolicyErrors as errors:
            self._keep_the_last(errors, anew=anew)
        except Exception as error:  # noqa: BLE001 - whatever it is, exchanges go on, and not for ever
            logger().error("policies could not be read: a bug of the broker", exc_info=error)
            self._loader, self._seen = self._new_loader(), None
            self._keep_the_last(self._mistake("could not be read", "The broker has a bug: report its log."), anew=anew)
        else:
            news = "reloaded" if loaded is not self.current else "unchanged" if anew else ""
            if loaded is not self.current:
                self.loaded_at = self._clock()
            self.current, self.failing, self._told = loaded, None, None
            if news:
                self.tell(news, milliseconds=round((time.perf_counter() - began) * 1000))

    def tell(self, news: str, **more: object) -> None:
        """Logs which policies are in force."""
        organizations = self.current.organizations.values()
        logger().info(
            f"policies {news}",
            generation=self.current.generation,
            organizations=len(organizations),
            publishers=sum(len(one.publishers) for one in organizations),
            **more,
        )

    def _read(self, *, anew: bool) -> Policies:
        """What the folder holds; the policies in force where it did not change.

        Raises:
            PolicyErrors
        """
        if anew:
            self._round, self._seen = self._round + 1, None
        for attempt in range(MOST_TRIES):
            seen = look(self._folder)
            self._pause_seconds = max(LOOK_SECONDS, seen.cost_seconds / LOOKS_SHARE)
            if seen.listing == self._seen:
                return self.current
            if attempt or not anew:
                time.sleep(SETTLE_SECONDS)
            self._seen = None
            try:
                loaded: Policies | PolicyErrors = self._loader.load(seen.sure(self._round))
            except PolicyErrors as errors:
                loaded = errors
            if look(self._folder).listing != seen.listing:
                continue
            if isinstance(loaded, PolicyErrors):
                raise loaded
            self._seen = None if seen.unsure else seen.listing
            return loaded
        raise self._mistake("changes faster than it can be read", "Write elsewhere, then swap it in by a rename.")

    def _keep_the_last(self, errors: PolicyErrors, *, anew: bool) -> None:
        now = self._clock()
        since = now if self.failing is None else self.failing.since
        denied_from = since + self._stale_after_seconds
        if self.failing is None:
            self.current = replace(self.current, denied_from=denied_from)
        self.failing = Failing(since=since, denied_from=denied_from, errors=errors)
        stale = now >= denied_from
        if anew or (errors.errors, stale) != self._told or now - self._told_at >= REMIND_SECONDS:
            self._told, self._told_at = (errors.errors, stale), now
            logger().error(
                "policies stale: everything is denied" if stale else "policies not reloaded: the last good ones decide",
                generation=self.current.generation,
                failing_seconds=round(now - since),
                denied_in_seconds=max(0, round(denied_from - now)),
                mistakes=len(errors.errors),
                explained=errors.explained(most=MISTAKES_IN_A_LOG_LINE),
            )

    def _new_loader(self) -> Loader:
        return Loader(self._folder, allow_loopback_issuers=self._allow_loopback_issuers)

    def _mistake(self, what: str, remedy: str) -> PolicyErrors:
        return PolicyErrors(self._folder, [PolicyError(file="", line=0, path="", what=what, remedy=remedy)])
