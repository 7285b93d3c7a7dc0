"""Loads a folder of policies again and again, each time at the cost of what changed.

Laws:

- What is loaded, and what is told of mistakes, is what a first load of the folder would give, whatever came before.
- A file is parsed and compiled again when its bytes changed; an organization's also when `index.yaml` says
  something else of what it asks. What it may ask is `Index.for_organizations`, and nothing beside it.
- `Policies` that were given never change: a new generation shares what stayed the same, and copies the rest.
- Of a file, its meaning and its mistakes are kept, not its text or its lines.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from broker.policy import document, folder
from broker.policy.errors import Findings, PolicyError, PolicyErrors, shown_path
from broker.policy.index import Index, compile_index
from broker.policy.model import Organization, Policies, Publisher
from broker.policy.organizations import Compiled, compile_organization
from broker.policy.overlaps import Names

_GENERATION_LENGTH: Final = 16
"""Hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which files there are to read."""

    files: tuple[str, ...]
    """`index.yaml` first, then those of organizations by name; none where there is no folder."""
    errors: tuple[PolicyError, ...] = ()
    """What is wrong with the folder itself."""
    stamps: Mapping[str, Hashable] = field(default_factory=dict)
    """File -> what is another once it was changed. A file without one is always read."""

    @classmethod
    def of(cls, path: Path) -> Listing:
        """What is in the folder now, all of it to be read."""
        files, errors = folder.list_files(path)
        return cls(files=tuple(files), errors=tuple(errors))


Meaning = TypeVar("Meaning")
Beside = TypeVar("Beside")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept(Generic[Meaning, Beside]):
    """What is kept of a file."""

    stamp: Hashable | None
    digest: bytes
    """Of its name and bytes; empty where it could not be read, which is tried again each time."""
    errors: tuple[PolicyError, ...]
    meaning: Meaning | None
    """None where nothing of it can be read."""
    beside: Beside
    """What it was compiled beside."""


_KeptIndex = _Kept[Index, tuple[str, ...]]
"""Beside the names of all files."""
_KeptOrganization = _Kept[Compiled, Index]
_Organizations = Mapping[str, Compiled]
"""File -> what it says."""


class Loader:
    """Loads one folder, for one thread at a time. After an error of its own (not `PolicyErrors`), make another."""

    def __init__(self, path: Path, *, allow_loopback_issuers: bool = False) -> None:
        self._path = path
        self._allow_loopback_issuers = allow_loopback_issuers
        self._index: _KeptIndex | None = None
        self._kept: Mapping[str, _KeptOrganization] = {}
        self._seen = Index()
        """What organizations saw of the last `index.yaml` whose issuers could be read."""
        self._names = Names()
        self._named: _Organizations = {}
        """What `_names` knows."""
        self._good: _Organizations = {}
        self._policies = Policies(generation="")
        """The last that were loaded, made of what is in `_good`."""

    def load(self, listing: Listing | None = None) -> Policies:
        """Loads what is in the folder; the very same policies where that is still what they say.

        Args:
            listing: Which files there are, and which of them need not be read; None is all, as they are now.

        Raises:
            PolicyErrors: with every mistake in every file.
        """
        # Whoever gives a listing has looked, and looks again: at 10,000 files, that costs as much as all else here.
        unwatched = listing is None
        listing = listing or Listing.of(self._path)
        if not listing.files:
            raise PolicyErrors(self._path, listing.errors)
        before = folder.stamps(self._path, listing.files) if unwatched else {}
        self._index = kept = self._read_index(listing)
        seen = self._shared(kept.meaning or Index())
        self._kept = {file: self._read_organization(file, listing, seen) for file in listing.files[1:]}
        errors = [*listing.errors, *kept.errors, *(error for one in self._kept.values() for error in one.errors)]
        organizations = {file: one.meaning for file, one in self._kept.items() if one.meaning is not None}
        errors += folder.changes(self._path, before)
        gone, came = _difference(self._named, organizations)
        self._named = organizations
        errors += self._names.change(gone, came, lambda: (held for one in organizations.values() for held in one.held))
        if errors or kept.meaning is None:
            raise PolicyErrors(self._path, errors)
        generation = hashlib.sha256(b"".join([kept.digest, *(one.digest for one in self._kept.values())])).hexdigest()
        if generation[:_GENERATION_LENGTH] != self._policies.generation:
            self._policies = self._assembled(generation[:_GENERATION_LENGTH], kept.meaning, organizations)
            self._good = organizations
        return self._policies

    def _read_index(self, listing: Listing) -> _KeptIndex:
        def compiled(values: dict[str, Any], findings: Findings) -> Index:
            names = map(_name, listing.files[1:])
            return compile_index(values, findings, names, allow_loopback=self._allow_loopback_issuers)

        # It may name organizations that need a file.
        before = self._index if self._index is not None and self._index.beside == listing.files else None
        return self._read(folder.INDEX, listing, before, listing.files, compiled)

    def _read_organization(self, file: str, listing: Listing, index: Index) -> _KeptOrganization:
        def compiled(values: dict[str, Any], findings: Findings) -> Compiled:
            return compile_organization(_name(file), values, findings, index)

        before = self._kept.get(file)
        if before is not None and before.beside is not index and not _stands(before, index):
            before = None
        if before is not None and before.stamp is not None and before.stamp == listing.stamps.get(file):
            return before  # as nearly always: `_read` would say the same
        return self._read(file, listing, before, index, compiled)

    def _read(
        self,
        file: str,
        listing: Listing,
        before: _Kept[Meaning, Beside] | None,
        beside: Beside,
        compiled: Callable[[dict[str, Any], Findings], Meaning],
    ) -> _Kept[Meaning, Beside]:
        """What a file says now.

        Args:
            before: What is kept of it, if that is still right for the same bytes.
        """
        stamp = listing.stamps.get(file)
        if before is not None and stamp is not None and stamp == before.stamp:
            return before
        findings = Findings(file=shown_path(file))
        content = folder.read_bytes(self._path, file, findings)
        if content is None:
            return _Kept(stamp=None, digest=b"", errors=tuple(findings.errors), meaning=None, beside=beside)
        digest = _digest(file, content)
        if before is not None and digest == before.digest:
            return replace(before, stamp=stamp)
        values = document.read(content, findings)
        meaning = None if values is None else compiled(values, findings)
        return _Kept(stamp=stamp, digest=digest, errors=tuple(findings.errors), meaning=meaning, beside=beside)

    def _shared(self, index: Index) -> Index:
        """What organizations may ask of it, shared with what they saw before where that is equal."""
        seen = index.for_organizations().shared(self._seen)
        if seen.declared is not None:
            self._seen = seen
        return seen

    def _assembled(self, generation: str, index: Index, organizations: _Organizations) -> Policies:
        gone, came = _difference(self._good, organizations)
        return Policies(
            generation=generation,
            issuers=index.issuers,
            issuer_by_url={issuer.url: issuer for issuer in index.issuers.values()},
            organizations={one.organization.name: one.organization for one in organizations.values()},
            publishers_by_name=_by_name(self._policies.publishers_by_name, gone, came),
            holders=_holders(self._policies.holders, gone, came),
            default_lifetime_seconds=index.default_lifetime_seconds,
            longest_lifetime_seconds=index.longest_lifetime_seconds,
        )


def _name(file: str) -> str:
    """'organizations/acme.yaml' -> 'acme'."""
    return file.removeprefix(f"{folder.ORGANIZATIONS}/").removesuffix(".yaml")


def _digest(file: str, content: bytes) -> bytes:
    """Lengths stand before both, so that no two folders read alike."""
    parts = (file.encode(errors="surrogateescape"), content)
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


def _stands(kept: _KeptOrganization, index: Index) -> bool:
    """Whether an organization compiles to the same beside another `index.yaml`.

    One with mistakes may not: what could have been meant depends on every name in the index.
    """
    if kept.errors or kept.meaning is None:
        return False
    one = kept.meaning.organization
    return index.says_the_same(kept.beside, one.name, _issuers(one))


def _issuers(organization: Organization) -> Iterator[str]:
    """All that it refers to."""
    yield from (issuer for issuer, _ in organization.member_by_id)
    yield from (publisher.trust.issuer for publisher in organization.publishers.values())


def _difference(before: _Organizations, now: _Organizations) -> tuple[list[Compiled], list[Compiled]]:
    """What is gone, and what came; what changed is both."""
    return (
        [one for file, one in before.items() if now.get(file) is not one],
        [one for file, one in now.items() if before.get(file) is not one],
    )


def _by_name(
    before: Mapping[tuple[str, str], tuple[Publisher, ...]], gone: Iterable[Compiled], came: Iterable[Compiled]
) -> dict[tuple[str, str], tuple[Publisher, ...]]:
    left: dict[tuple[str, str], set[str]] = defaultdict(set)
    new: dict[tuple[str, str], list[Publisher]] = defaultdict(list)
    for one in gone:
        for publisher in one.organization.publishers.values():
            left[publisher.trust.issuer, publisher.trust.lookup()].add(publisher.id)
    for one in came:
        for publisher in one.organization.publishers.values():
            new[publisher.trust.issuer, publisher.trust.lookup()].append(publisher)
    by_name = dict(before)
    for name in {*left, *new}:
        stay = (publisher for publisher in before.get(name, ()) if publisher.id not in left.get(name, ()))
        if found := sorted((*stay, *new.get(name, ())), key=lambda one: one.id):
            by_name[name] = tuple(found)
        else:
            del by_name[name]
    return by_name


def _holders(before: Mapping[str, str], gone: Iterable[Compiled], came: Iterable[Compiled]) -> dict[str, str]:
    holders = dict(before)
    for one in gone:
        for held in one.held:
            holders.pop(held.pattern.stem, None)  # a namespace's prefix may be a project's entry, too
    for one in came:
        holders |= {held.pattern.stem: held.organization for held in one.held}
    return holders
