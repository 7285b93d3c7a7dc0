"""The chain of an organization's audit records: who removes, alters, adds or swaps one is found out.

Each record is linked to the one before it:

    link = SHA-256(link before || SHA-256(body))

over raw digests, 64 bytes; before the first stands SHA-256 of `GENESIS` and the organization's name, so that one
organization's chain cannot be shown as another's. Records of no organization have a chain too, with an empty name. What
is linked is the body's very bytes, as they are stored, logged and exported.

Whoever can write all of the store can make a new chain. Against them helps a head that was noted elsewhere earlier
(`Verification(noted=...)`): it must still be a link of the chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

GENESIS: Final = b"trusted-publishing-broker audit chain 1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A record as it is kept."""

    position: str
    """Where it stands among all that are kept, opaque and safe in a URL; grows as records are appended."""
    organization: str
    sequence: int
    """Its number in its organization's chain, from 1; 0 where it is from before there was a chain."""
    link: str
    """Of the chain, at this record; hexadecimal."""
    body: str
    told_digest: str = ""
    """Of the whole body (hexadecimal), where an export withheld a part: then the body itself cannot be verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where an organization's chain ends, and where what is kept of it begins."""

    sequence: int
    link: str
    """Of the newest record."""
    swept_sequence: int
    swept_link: str
    """Of the last record that is older than the retention and gone; 0 and the genesis where none is."""


def genesis(organization: str) -> str:
    """What the first record of an organization is linked to; hexadecimal."""
    return hashlib.sha256(GENESIS + organization.encode("utf-8", "surrogatepass")).hexdigest()


def digest(body: bytes) -> bytes:
    """What of a record is linked."""
    return hashlib.sha256(body).digest()


def link(before: str, digested: bytes) -> str:
    """The link at a record; hexadecimal, as the one before."""
    return raw_link(bytes.fromhex(before), digested).hex()


def raw_link(before: bytes, digested: bytes) -> bytes:
    """The link at a record."""
    return hashlib.sha256(before + digested).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it was written."""

    organization: str
    sequence: int
    """Of the first record that it concerns."""
    what: str

    def __str__(self) -> str:
        whose = f"organization {self.organization!r}" if self.organization else "no organization"
        return f"{whose}, record {self.sequence}: {self.what}"


@dataclass(slots=True)
class _Chain:
    """How far one organization's chain was followed."""

    first: Kept
    sequence: int
    link: str


class Verification:
    """Follows the chains of all organizations through the records of a store, or of an export.

    Take its heads first, then `follow` its records in the order of their positions, then `finish` with its heads again:
    records that come or are swept meanwhile are no findings.

    Args:
        heads: Of the store. None for an export, which may begin and end anywhere.
        noted: Heads that were noted earlier and elsewhere: organization -> sequence and link.
    """

    def __init__(
        self, heads: Mapping[str, Head] | None = None, noted: Mapping[str, tuple[int, str]] | None = None
    ) -> None:
        self._heads = heads
        self._noted = dict(noted or {})
        self._chains: dict[str, _Chain] = {}
        self.findings: list[Finding] = []
        self.records = 0
        self.unchained = 0
        """Of these, those from before there was a chain: nothing can be said of them."""
        self.in_part = 0
        """Of these, those that an export has in part: they are there, and nothing can be said of what is told."""
        self.gaps: dict[str, tuple[int, int]] = {}
        """Organizations whose noted head is older than what is kept, and the numbers of that head and of the first
        record: nothing can be said of what was between, nor whether what is kept follows from what was noted."""

    @property
    def ends(self) -> dict[str, tuple[int, str]]:
        """Where each chain ended: to be noted."""
        return {organization: (chain.sequence, chain.link) for organization, chain in sorted(self._chains.items())}

    @property
    def begins(self) -> dict[str, int]:
        """The number of each chain's first record that was followed."""
        return {organization: chain.first.sequence for organization, chain in sorted(self._chains.items())}

    def follow(self, kept: Iterable[Kept]) -> None:
        """Takes the next records."""
        for one in kept:
            self.records += 1
            self.in_part += bool(one.told_digest)
            chain = self._chains.get(one.organization)
            if one.sequence == 0 and chain is None:
                self.unchained += 1
                continue
            if chain is None:
                self._chains[one.organization] = _Chain(first=one, sequence=one.sequence, link=one.link)
            else:
                self._step(chain, one)
            self._compare_noted(one)
            self._compare_head(one)

    def finish(self, heads: Mapping[str, Head] | None = None) -> None:
        """Looks at where the chains begin and end."""
        for chain in self._chains.values():
            self._look_at_first(chain.first, (heads or {}).get(chain.first.organization))
        for organization, head in (self._heads or {}).items():
            swept = max(head.swept_sequence, (heads or {}).get(organization, head).swept_sequence)
            end = self._chains[organization].sequence if organization in self._chains else swept
            if end < head.sequence:
                self._find(organization, end + 1, _missing(end + 1, head.sequence))
        if heads is not None:
            self._look_past_heads(heads)
        self._look_for_noted(heads or self._heads or {})
        self.findings.sort(key=lambda finding: (finding.organization, finding.sequence))

    def _step(self, chain: _Chain, one: Kept) -> None:
        expected = chain.sequence + 1
        if one.sequence < expected:
            self._find(one.organization, one.sequence, f"it stands after record {chain.sequence}: swapped, or put in")
            return
        if one.sequence > expected:
            self._find(one.organization, expected, _missing(expected, one.sequence - 1))
        elif not _follows(one, chain.link):
            self._find(one.organization, one.sequence, ALTERED)
        chain.sequence, chain.link = one.sequence, one.link

    def _compare_noted(self, one: Kept) -> None:
        noted = self._noted.get(one.organization)
        if noted is not None and noted[0] == one.sequence:
            del self._noted[one.organization]
            if noted[1] != one.link:
                self._find(one.organization, one.sequence, "it is not the one that was noted: the chain was made anew")

    def _compare_head(self, one: Kept) -> None:
        """No record behind the last one tells that it was altered and linked anew: its head does."""
        head = (self._heads or {}).get(one.organization)
        if head is not None and head.sequence == one.sequence and head.link != one.link:
            self._find(one.organization, one.sequence, NOT_THE_HEAD)

    def _look_past_heads(self, later: Mapping[str, Head]) -> None:
        """What was appended moved a head on; what was put in behind the last one, or for nobody, did not."""
        for organization, chain in self._chains.items():
            known = max(one.get(organization, NO_HEAD).sequence for one in (self._heads or {}, later))
            if chain.sequence > known:
                self._find(organization, known + 1, "it stands behind the last that was written: put in")

    def _look_for_noted(self, heads: Mapping[str, Head]) -> None:
        """Looks at the noted heads that no record is: what is kept may begin right behind one, or later."""
        for organization, (sequence, noted) in self._noted.items():
            first = self._first_kept(organization, heads)
            if sequence >= first:
                self._find(organization, sequence, "it was noted earlier, and is not there")
            elif sequence < first - 1:
                self.gaps[organization] = (sequence, first)
            elif not self._begins_at(organization, noted, heads):
                self._find(organization, first, NOT_FROM_NOTED)

    def _begins_at(self, organization: str, noted: str, heads: Mapping[str, Head]) -> bool:
        """Whether what is kept begins right behind a link; of an organization without records, its head tells."""
        if organization in self._chains:
            return _follows(self._chains[organization].first, noted)
        return heads.get(organization, NO_HEAD).swept_link == noted

    def _first_kept(self, organization: str, heads: Mapping[str, Head]) -> int:
        if organization in self._chains:
            return self._chains[organization].first.sequence
        return heads[organization].swept_sequence + 1 if organization in heads else 0

    def _look_at_first(self, first: Kept, later: Head | None) -> None:
        before = first.sequence - 1
        starts = {0: genesis(first.organization)}
        kept_from = 0
        if self._heads is not None:
            for head in (self._heads.get(first.organization), later):
                if head is not None:
                    starts[head.swept_sequence] = head.swept_link
                    kept_from = max(kept_from, head.swept_sequence)
        if before in starts:
            if not _follows(first, starts[before]):
                self._find(first.organization, first.sequence, ALTERED)
        elif self._heads is not None and before > kept_from:
            self._find(first.organization, kept_from + 1, _missing(kept_from + 1, before))

    def _find(self, organization: str, sequence: int, what: str) -> None:
        self.findings.append(Finding(organization=organization, sequence=sequence, what=what))


NO_HEAD: Final = Head(sequence=0, link="", swept_sequence=0, swept_link="")
NOT_THE_HEAD: Final = "it is not the last that was written: it was altered, and linked anew"
NOT_FROM_NOTED: Final = "it does not follow from the one that was noted: the chain was made anew"
ALTERED: Final = "it does not follow from the one before: one of the two was altered"


def _follows(one: Kept, before: str) -> bool:
    try:
        told = bytes.fromhex(one.told_digest) if one.told_digest else digest(one.body.encode("utf-8", "surrogatepass"))
        return link(before, told) == one.link
    except ValueError:  # a link or a digest is no hexadecimal number: somebody wrote something else there
        return False


def _missing(first: int, last: int) -> str:
    return "it is missing" if first == last else f"it and all up to {last} are missing"
