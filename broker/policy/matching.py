"""The two gates: publishers that match the CI identity, and the membership of its actor. Asked at mint and at upload.

Rules, in order (design §3, steps 6 to 8):

- a publisher matches when names, immutable ids and conditions all fit (no-publisher; identity-changed when names fit
  and ids do not);
- to upload, it must publish something (publisher-reads-only);
- it counts only while its own time and its organization's standing allow it (publisher-expired,
  organization-suspended; and for uploads alone organization-frozen);
- the actor is a member of that organization at this moment (unknown-actor, member-suspended, member-expired), and
  marked as a machine where nobody pressed a button (machine-required);
- the grant is the union over matching publishers of what both the publisher and the actor may upload to, or may read;
  an empty one refuses (member-not-permitted);
- of those publishers only the ones count that are not switched off, nor their issuer or organization (switched-off);
- what is minted for it lives as long as the index says, or as the narrowest of its organizations does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from broker import refusals
from broker.patterns import Projects, intersect
from broker.policy.model import Freeze, Issuer, Member, Organization, Policies, Publisher, Scope, is_past
from broker.policy.subjects import EVERYTHING, switches_of
from broker.providers import Identity, Kind, Mismatch
from broker.providers.base import fold

Pins = Mapping[str, Mapping[str, str]]
"""Publisher id -> field -> the immutable id that its first use recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one identity earned: where its publishers and its actor's rights agree."""

    projects: frozenset[Projects]
    """What may be uploaded to, or where reading was asked for, be read."""
    publishers: tuple[Publisher, ...]
    """Those that gave something, in a stable order; never empty."""
    given: tuple[frozenset[Projects], ...]
    """What each of them gave."""
    publisher_ids: tuple[str, ...]
    """Theirs, in the same order."""
    members: tuple[str, ...]
    """'acme/alice', one for each organization that gave something."""
    organizations: tuple[str, ...]
    lifetime_seconds: int
    """How long a token for it lives."""

    def covers(self, project: str) -> bool:
        """Whether a *normalised* project name is in the grant."""
        return any(pattern.covers(project) for pattern in self.projects)

    def given_by(self, organization: str) -> frozenset[Projects]:
        """What one organization's publishers gave of it; empty where none of them gave anything."""
        each = zip(self.publishers, self.given, strict=True)
        return frozenset().union(*(given for publisher, given in each if publisher.organization == organization))


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """One publisher that was looked at, and why it did not match; None if it did."""

    publisher: Publisher
    mismatch: Mismatch | None

    def __str__(self) -> str:
        """For the audit record."""
        return f"{self.publisher.id}: {self.mismatch or 'matches'}"


def require_current(policies: Policies, now: float) -> None:
    """Lets policies decide that are those of their files, or were so not too long ago.

    Raises:
        PoliciesStale
    """
    if policies.denied_from is not None and now >= policies.denied_from:
        raise refusals.PoliciesStale


def find_issuer(policies: Policies, url: str) -> Issuer:
    """The configured issuer of that URL.

    Raises:
        UnknownIssuer, IssuerDisabled
    """
    issuer = policies.issuer_by_url.get(url)
    if issuer is None:
        raise refusals.UnknownIssuer(f"the issuer {url[:200]!r} is none that this index trusts")
    if issuer.disabled:
        raise refusals.IssuerDisabled(f"the issuer {issuer.name!r} is switched off")
    return issuer


def candidates(policies: Policies, identity: Identity) -> tuple[Publisher, ...]:
    """The publishers whose mutable name is the identity's."""
    name = fold(getattr(identity, identity.lookup))
    return policies.publishers_by_name.get((identity.issuer, name), ())


def pinned_on_first_use(publishers: tuple[Publisher, ...]) -> tuple[str, ...]:
    """The publishers among them (ids) whose pins must be looked up before `consider`."""
    return tuple([publisher.id for publisher in publishers if publisher.trust.pin is not None])


def consider(publishers: tuple[Publisher, ...], identity: Identity, pins: Pins) -> tuple[Considered, ...]:
    """Compares an identity with each candidate."""
    return tuple(
        [Considered(publisher=one, mismatch=one.trust.compare(identity, pins.get(one.id, {}))) for one in publishers]
    )


def admit(considered: tuple[Considered, ...], organizations: frozenset[str] | None) -> tuple[Considered, ...]:
    """Leaves those that count at an index that is for these organizations alone; None is for all.

    Raises:
        OrganizationNotAdmitted: a publisher matches, and none of an organization that the index is for.
    """
    if organizations is None:
        return considered
    matching = [one.publisher.organization for one in considered if one.mismatch is None]
    if matching and organizations.isdisjoint(matching):
        raise refusals.OrganizationNotAdmitted(f"the organization {matching[0]!r} may not use this index")
    return tuple(one for one in considered if one.publisher.organization in organizations)


def grant(
    policies: Policies,
    identity: Identity,
    considered: tuple[Considered, ...],
    now: float,
    scope: Scope = "upload",
    *,
    off: frozenset[str] = frozenset(),
) -> Grant:
    """Decides what an identity may upload to, or read.

    Args:
        considered: What `consider` said of the candidates.
        now: Epoch seconds, read once for the whole attempt.
        scope: Which of the two is asked.
        off: Subjects that are switched off, of those that state was asked about.

    Raises:
        The refusals at the top of this file.
    """
    standing = _standing(policies, identity, considered, now, scope)
    granted: list[tuple[Publisher, frozenset[Projects]]] = []
    members: dict[str, Member] = {}
    failures: list[refusals.Refusal] = []
    for publisher in standing:
        organization = policies.organizations[publisher.organization]
        try:
            member = _member(organization, identity, now)
            projects = _rights(member, publisher, scope)
        except refusals.Refusal as failure:
            failures.append(failure)
            continue
        granted.append((publisher, projects))
        members[organization.name] = member
    if not granted:
        raise max(failures, key=lambda failure: _NEARNESS.index(type(failure)))
    if off:
        granted = _switched_on(granted, identity, off)
        members = {publisher.organization: members[publisher.organization] for publisher, _ in granted}
    publishers, given = zip(*granted, strict=True)
    return Grant(
        projects=given[0].union(*given),
        publishers=publishers,
        given=given,
        publisher_ids=tuple([publisher.id for publisher in publishers]),
        members=tuple([f"{organization}/{member.name}" for organization, member in members.items()]),
        organizations=tuple(members),
        lifetime_seconds=min(
            [policies.default_lifetime_seconds, *[policies.organizations[name].lifetime_seconds for name in members]]
        ),
    )


_NEARNESS: tuple[type[refusals.Refusal], ...] = (
    refusals.UnknownActor,
    refusals.MemberExpired,
    refusals.MemberSuspended,
    refusals.MachineRequired,
    refusals.MemberNotPermitted,
)
"""Where several organizations refuse one actor, the caller hears from the one that came nearest to a yes."""


def _switched_on(
    granted: list[tuple[Publisher, frozenset[Projects]]], identity: Identity, off: frozenset[str]
) -> list[tuple[Publisher, frozenset[Projects]]]:
    left = [each for each in granted if not _stop(each[0], identity, off)]
    if not left:
        raise refusals.SwitchedOff(_off(_stop(granted[0][0], identity, off)))
    return left


def _stop(publisher: Publisher, identity: Identity, off: frozenset[str]) -> str:
    """What of the publisher's is switched off first; "" where nothing is."""
    return next((one for one in switches_of(identity.issuer, (publisher.id,)) if one in off), "")


def _off(subject: str) -> str:
    """Who hears it fits a publisher in all that it pins. Why it is off may be another's business (decision 36)."""
    if subject == EVERYTHING:
        return "the whole index is switched off"
    kind, name = subject.split(" ")
    return f"the {kind} {name!r} is switched off"


def _standing(
    policies: Policies, identity: Identity, considered: tuple[Considered, ...], now: float, scope: Scope
) -> tuple[Publisher, ...]:
    matching = [one.publisher for one in considered if one.mismatch is None]
    if not matching:
        raise _no_match(policies, identity, considered)
    fitting = [one for one in matching if one.projects or scope == "read"]
    if not fitting:
        raise refusals.PublisherReadsOnly(f"the publisher {matching[0].id!r} may read, and publishes nothing")
    current = [one for one in fitting if not is_past(one.until, now)]
    if not current:
        raise refusals.PublisherExpired(f"the publisher {fitting[0].id!r} was declared until {fitting[0].until}")
    active = tuple([one for one in current if not policies.organizations[one.organization].suspended])
    if not active:
        raise refusals.OrganizationSuspended(f"the organization {current[0].organization!r} is suspended")
    if scope == "read":  # while nothing is published, what there is may still be read (decision 30)
        return active
    frozen = {
        one.organization: freeze for one in active if (freeze := policies.organizations[one.organization].freeze(now))
    }
    thawed = tuple([one for one in active if one.organization not in frozen]) if frozen else active
    if not thawed:
        raise _frozen(*next(iter(frozen.items())))
    return thawed


def _frozen(organization: str, freeze: Freeze) -> refusals.Refusal:
    """By whom, until when and why: who hears it fits a publisher in all that it pins, and so may know (decision 14)."""
    by = "by the index operator" if freeze.by_operator else "by its admins"
    until = "further notice" if math.isinf(freeze.ends) else f"{datetime.fromtimestamp(freeze.ends, UTC):%F %T} UTC"
    return refusals.OrganizationFrozen(
        f"the organization {organization!r} is frozen {by} until {until}: {freeze.reason}"
    )


def _no_match(policies: Policies, identity: Identity, considered: tuple[Considered, ...]) -> refusals.Refusal:
    source = f"{identity.lookup} {getattr(identity, identity.lookup)!r} of issuer {identity.issuer!r}"
    changed = [one for one in considered if one.mismatch is not None and one.mismatch.rule.kind is Kind.ID]
    nearest = changed or considered
    expected = "; ".join(str(one) for one in nearest if _is_owner(policies, one, identity))
    if changed:
        return refusals.IdentityChanged(f"{source} is not the one that was bound", expected=expected)
    return refusals.NoPublisher(f"no publisher fits {source}", expected=expected)


def _is_owner(policies: Policies, considered: Considered, identity: Identity) -> bool:
    owner = (identity.issuer, getattr(identity, identity.owner))
    return owner in policies.organizations[considered.publisher.organization].owner_ids


def _member(organization: Organization, identity: Identity, now: float) -> Member:
    member = organization.member_by_id.get((identity.issuer, identity.actor_id))
    if member is None:
        raise refusals.UnknownActor(f"{_who(identity)} is no member of {organization.name!r}")
    if member.suspended:
        raise refusals.MemberSuspended(f"{_who(identity)} is suspended in {organization.name!r}")
    if is_past(member.until, now):
        ended = f"in {organization.name!r} ended on {member.until}"
        raise refusals.MemberExpired(f"the membership of {_who(identity)} {ended}")
    if identity.unattended and not member.machine:
        raise refusals.MachineRequired(f"{_who(identity)} ran unattended, and its member is not marked `machine: true`")
    return member


def _who(identity: Identity) -> str:
    return f"the actor {identity.actor_name!r} ({identity.issuer} id {identity.actor_id})"


def rights(member: Member, publisher: Publisher, scope: Scope = "upload") -> frozenset[Projects]:
    """What a member may upload to of what a publisher publishes, or may read of that and of what it reads beside."""
    if scope == "upload":
        offered, own = publisher.projects, member.uploads
    else:
        offered, own = publisher.projects | publisher.downloads, member.uploads | member.downloads
    if member.role == "owner":
        return offered
    return intersect(offered, own) if member.role == "member" else frozenset()


def _rights(member: Member, publisher: Publisher, scope: Scope) -> frozenset[Projects]:
    both = rights(member, publisher, scope)
    if not both:
        what = "upload to" if scope == "upload" else "read"
        raise refusals.MemberNotPermitted(
            f"the member {member.name!r} ({member.role}) may {what} none of the projects of {publisher.id!r}"
        )
    return both
