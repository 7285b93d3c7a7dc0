"""What the policy files mean, once they are read: typed, immutable, and indexed for one look-up an exchange."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final, Literal, get_args

from broker.patterns import Projects
from broker.providers import Provider, Trust

SHORTEST_LIFETIME_SECONDS: Final = 900
LONGEST_LIFETIME_SECONDS: Final = 6 * 3600
"""Of an upload token, as PEP 807 has it."""

Role = Literal["owner", "member", "billing-manager"]
Replay = Literal["strict", "same-token"]
Scope = Literal["upload", "read"]
"""What a token is for. Who may upload may read too."""
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An OIDC provider whose tokens the operator trusts."""

    name: str
    url: str
    provider: Provider
    disabled: bool = False
    replay: Replay = "strict"
    algorithms: tuple[str, ...] = ("RS256",)
    longest_token_seconds: int
    organizations: frozenset[str] | None = None
    """Only these may bind publishers and members to it; None is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person or machine in an organization."""

    name: str
    role: Role
    ids: Mapping[str, str]
    """Issuer name -> the immutable id there."""
    machine: bool = False
    suspended: bool = False
    until: date | None = None
    """The last day (UTC) of the membership."""
    uploads: frozenset[Projects] = frozenset()
    """What the organization's `projects` let this member upload to, by name or by team. Owners need no entry."""
    downloads: frozenset[Projects] = frozenset()
    """What they let this member read, likewise, beside what it may upload to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """A declared binding of one CI identity to some of an organization's projects."""

    organization: str
    name: str
    trust: Trust
    projects: frozenset[Projects]
    """What its runs may publish; empty where they only read."""
    downloads: frozenset[Projects] = frozenset()
    """What its runs may read, beside what they may publish."""
    until: date | None = None
    """The last day (UTC) on which it counts."""

    @property
    def id(self) -> str:
        """'acme/widgets-release': `sub` of upload tokens, and what records call it."""
        return f"{self.organization}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A time in which an organization publishes nothing, and why."""

    reason: str
    """What its runs are told."""
    begins: float = -math.inf
    """Epoch seconds: the first moment of it."""
    ends: float = math.inf
    """Epoch seconds: the first moment after it; infinite where it holds until somebody removes it."""
    by_operator: bool = False
    """The index operator declared it, so the organization's admins cannot lift it."""

    def holds(self, now: float) -> bool:
        """Whether it is in force at `now` (epoch seconds)."""
        return self.begins <= now < self.ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """The owner of projects and namespaces."""

    name: str
    suspended: bool = False
    members: Mapping[str, Member]
    member_by_id: Mapping[tuple[str, str], Member]
    """(issuer name, immutable id) -> the member."""
    publishers: Mapping[str, Publisher]
    owner_ids: frozenset[tuple[str, str]]
    """(issuer name, owner id) that its publishers pin: whose tokens' owners may be told what was expected."""
    freezes: tuple[Freeze, ...] = ()
    """Its own, and those of the index operator that are for it."""
    lifetime_seconds: int = LONGEST_LIFETIME_SECONDS
    """Its upload tokens live no longer than this, whatever else would let them."""

    def freeze(self, now: float) -> Freeze | None:
        """The freeze in force at `now` (epoch seconds); of several, the one that ends last."""
        holding = [one for one in self.freezes if one.holds(now)]
        return max(holding, key=lambda one: one.ends) if holding else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """All that the policy files say. With none, everything is denied."""

    generation: str
    """A hash of the files: every record names the generation that decided."""
    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    issuer_by_url: Mapping[str, Issuer] = field(default_factory=dict)
    organizations: Mapping[str, Organization] = field(default_factory=dict)
    publishers_by_name: Mapping[tuple[str, str], tuple[Publisher, ...]] = field(default_factory=dict)
    """(issuer name, folded name as `Trust.lookup` gives it) -> the publishers found by it, in a stable order."""
    holders: Mapping[str, str] = field(default_factory=dict)
    """Stem of a pattern ('acme-widgets', 'acme-') -> the organization that holds those names."""
    default_lifetime_seconds: int = SHORTEST_LIFETIME_SECONDS
    longest_lifetime_seconds: int = 3600
    denied_from: float | None = None
    """Epoch seconds from which these decide nothing more, for their files cannot be loaded; None while they can."""

    def holder(self, project: str) -> str | None:
        """The organization that a *normalised* name belongs to, by a namespace or by a project of its own."""
        if project in self.holders:
            return self.holders[project]
        ends = (at + 1 for at, letter in enumerate(project) if letter == "-")
        return next((self.holders[project[:end]] for end in ends if project[:end] in self.holders), None)


def is_past(until: date | None, now: float) -> bool:
    """Whether a last day (UTC) is over at `now` (epoch seconds)."""
    return until is not None and datetime.fromtimestamp(now, UTC).date() > until
