"""The policies in force.

Laws, beside those of `in_force.py`:

- A new generation is compiled beside the old one, in a thread, and swapped at once: an attempt asks one generation.
- What cannot be loaded changes nothing at first: the last good policies decide for a stated time, as `/readyz` and the
  log tell; then everything is denied, until the files are mended.
- Files are looked at and not read (ADR 20): one look sees an edited file, a ConfigMap's swapped link, and a folder that
  is a swapped link itself, also on file systems that tell of nothing.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from broker import in_force
from broker.in_force import InForce
from broker.policy import folder as policy_folder
from broker.policy.errors import PolicyError, PolicyErrors
from broker.policy.loader import Listing, Loader
from broker.policy.model import Policies

YOUNG_SECONDS: Final = 2.0
"""A file that was changed within so long of the look may change again and show the same times (file systems count in
steps, some of two seconds): it is read once more when it is older."""
MISTAKES_IN_A_LOG_LINE: Final = 8

Failing = in_force.Failing[PolicyErrors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """What the folder looked like at one moment."""

    listing: Listing
    unsure: frozenset[str] = field(compare=False)
    """Files whose stamps do not prove that they are unchanged."""

    def sure(self, round_number: int) -> Listing:
        """The listing with the stamps that can be trusted, and each only within one round."""
        stamps = self.listing.stamps.items()
        trusted = {file: (round_number, stamp) for file, stamp in stamps if file not in self.unsure}
        return replace(self.listing, stamps=trusted)


def look(folder: Path) -> Stamped:
    """Looks at the folder, and reads no file."""
    now = time.time()
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
    return Stamped(listing=listing, unsure=frozenset(unsure))


def _stamp(parent: str, name: str) -> tuple[Hashable, float]:
    """What tells a file from every other, and from itself before a change; and when it was changed."""
    found, path = os.lstat(parent + name), parent
    if stat.S_ISLNK(found.st_mode):
        path = os.path.realpath(parent + name, strict=True)
        found = os.lstat(path)
    return (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns), found.st_ctime


class PoliciesInForce(InForce[Policies, Stamped, PolicyErrors]):
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
        self._loader = self._new_loader()
        self._round = 0
        """In each, every file is read at least once."""
        super().__init__("policies", PolicyErrors, clock)

    def denied_from(self, failing: Failing) -> float:
        """From when everything is denied, while that lasts; epoch seconds."""
        return failing.since + self._stale_after_seconds

    def _look(self) -> in_force.Look[Stamped]:
        seen = look(self._folder)
        return in_force.Look(seen=seen, sure=not seen.unsure)

    def _read(self, *, anew: bool, settled: bool = True) -> Policies:
        self._round += anew
        return super()._read(anew=anew, settled=settled)

    def _load(self, seen: Stamped) -> Policies:
        try:
            return self._loader.load(seen.sure(self._round))
        except PolicyErrors:
            raise
        except Exception:
            self._loader = self._new_loader()
            raise

    def _keep_the_last(self, failing: Failing, now: float) -> tuple[str, Mapping[str, object]]:
        denied_from = self.denied_from(failing)
        if self.current.denied_from is None:
            self.current = replace(self.current, denied_from=denied_from)
        return (
            "policies stale: everything is denied"
            if now >= denied_from
            else "policies not reloaded: the last good ones decide",
            {
                "generation": self.current.generation,
                "denied_in_seconds": max(0, round(denied_from - now)),
                "mistakes": len(failing.error.errors),
            },
        )

    def _explained(self, error: PolicyErrors) -> str:
        return error.explained(most=MISTAKES_IN_A_LOG_LINE)

    def _summary(self) -> Mapping[str, object]:
        organizations = self.current.organizations.values()
        return {
            "generation": self.current.generation,
            "organizations": len(organizations),
            "publishers": sum(len(one.publishers) for one in organizations),
        }

    def _new_loader(self) -> Loader:
        return Loader(self._folder, allow_loopback_issuers=self._allow_loopback_issuers)

    def _mistake(self, what: str, remedy: str) -> PolicyErrors:
        return PolicyErrors(self._folder, [PolicyError(file="", line=0, path="", what=what, remedy=remedy)])
