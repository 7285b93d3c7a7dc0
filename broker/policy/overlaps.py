"""Names that two organizations hold. While there are none, a load asks only of the names that changed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from broker.policy.errors import PolicyError
from broker.policy.holdings import Holdings, containing
from broker.policy.organizations import Compiled, Held


class Names:
    """Who holds which names, remembered from one load to the next."""

    def __init__(self) -> None:
        self._holders: dict[str, tuple[str, ...]] = {}
        """Stem -> the organizations that hold it."""
        self._overlap = False

    def change(
        self, gone: Iterable[Compiled], came: Iterable[Compiled], everything: Callable[[], Iterable[Held]]
    ) -> list[PolicyError]:
        """Takes note of what changed, and tells every overlap there is now.

        Args:
            gone: What no longer counts.
            came: What counts from now on, also in place of what is gone.
            everything: All that counts now, in the order of the files.
        """
        left = {(held.pattern.stem, held.organization) for one in gone for held in one.held}
        for stem, organization in left:
            rest = tuple(other for other in self._holders[stem] if other != organization)
            if rest:
                self._holders[stem] = rest
            else:
                del self._holders[stem]
        new = {(held.pattern.stem, held.organization) for one in came for held in one.held}
        for stem, organization in new:
            self._holders[stem] = (*self._holders.get(stem, ()), organization)
        # Two that overlapped before may still do so, and neither of them has changed.
        if not self._overlap and not self._meet_others(new - left):
            return []
        errors = list(_overlaps(everything()))
        self._overlap = bool(errors)
        return errors

    def _meet_others(self, added: Iterable[tuple[str, str]]) -> bool:
        added = list(added)
        stems = sorted(self._holders) if any(stem.endswith("-") for stem, _ in added) else []
        return any(self._is_shared(stem, organization, stems) for stem, organization in added)

    def _is_shared(self, stem: str, organization: str, stems: Sequence[str]) -> bool:
        """Whether another organization holds the name, or what contains it, or what it contains."""
        around = (outer for outer in containing(stem) if outer in self._holders)
        within = _beginning_with(stem, stems) if stem.endswith("-") else iter(())
        return any(self._holders[each] != (organization,) for each in (*around, *within))


def _beginning_with(stem: str, stems: Sequence[str]) -> Iterator[str]:
    at = bisect_left(stems, stem)
    while at < len(stems) and stems[at].startswith(stem):
        yield stems[at]
        at += 1


def _overlaps(everything: Iterable[Held]) -> Iterator[PolicyError]:
    """Names that two organizations hold, each told once, at the later of the two files."""
    held = list(everything)
    holdings: Holdings[Held] = Holdings()
    for one in held:
        holdings.record(one.pattern, one)
    told: set[tuple[str, str]] = set()
    for one in held:
        for other in holdings.covering(one.pattern):
            if other.organization == one.organization:
                continue
            earlier, later = sorted((one, other), key=lambda each: (each.file, each.line))
            if (later.file, later.path) not in told:  # a namespace holds two patterns at one place
                told.add((later.file, later.path))
                yield PolicyError(
                    file=later.file,
                    line=later.line,
                    path=later.path,
                    what=f"holds {later.pattern}, and {earlier.file}:{earlier.line} holds {earlier.pattern}",
                    remedy="Two organizations never hold overlapping names: agree on one, or ask the index operator.",
                )
            break
