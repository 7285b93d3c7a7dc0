"""Why an identity gets what it gets: every publisher that was considered, the nearest first, and the actor's standing.

The decision itself is a `Rehearsal`: the functions of a mint. What is added here decides nothing: which publishers were
near, and who the actor is in the organizations that these belong to.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from broker import refusals
from broker.policy import matching
from broker.policy.matching import Considered
from broker.policy.model import Member, Organization, Policies, Publisher, Scope
from broker.policy.rehearsal import Rehearsal
from broker.providers import Identity
from broker.providers.base import fold

MOST_COMPARED: Final = 2_000
"""Names of sources that a name is compared with by likeness, which costs their length squared."""

MOST_NEAR: Final = 5
"""Publishers of other names that are told where none has the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A publisher, and why it was looked at."""

    considered: Considered
    why: str
    """'has this name', or what makes it worth a look all the same."""
    passed: int
    """Rules that the identity fits before the first that it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Who the actor is in one organization."""

    organization: str
    suspended: bool
    """The organization."""
    member: Member | None
    """None where nobody there has the actor's id."""
    refusal: refusals.Refusal | None
    """Why this actor gets nothing of the organization, were it for any publisher of its that is near."""
    closest: str = ""
    """Who may have been meant, where the actor is no member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision, and what led to it."""

    rehearsal: Rehearsal
    near: tuple[Near, ...] = ()
    standings: tuple[Standing, ...] = ()
    first_uses: tuple[str, ...] = ()
    """Publishers (ids) among these that pin on first use: here every id fits them."""


def explain(policies: Policies, rehearsal: Rehearsal, *, now: float) -> Explanation:
    """Tells what led to a decision.

    Args:
        rehearsal: Of the same policies, at the same moment (epoch seconds).
    """
    identity = rehearsal.identity
    if identity is None:
        return Explanation(rehearsal=rehearsal)
    near = [_near(one, "has this name") for one in rehearsal.considered]
    near = sorted(near or _of_other_names(policies, identity), key=lambda one: -one.passed)
    organizations = dict.fromkeys(one.considered.publisher.organization for one in near)
    return Explanation(
        rehearsal=rehearsal,
        near=tuple(near),
        standings=tuple(
            _standing(policies, name, identity, near, now, scope=rehearsal.scope) for name in organizations
        ),
        first_uses=matching.pinned_on_first_use(tuple(one.considered.publisher for one in near)),
    )


def _near(considered: Considered, why: str) -> Near:
    mismatch, rules = considered.mismatch, considered.publisher.trust.rules
    passed = len(rules) if mismatch is None else next((at for at, rule in enumerate(rules) if rule is mismatch.rule), 0)
    return Near(considered=considered, why=why, passed=passed)


def _of_other_names(policies: Policies, identity: Identity) -> list[Near]:
    """Those of the same owner, of the same name at another issuer, and of a name that is much like it."""
    name = fold(getattr(identity, identity.lookup))
    found: dict[str, tuple[Publisher, str]] = {}
    for why, publishers in (
        ("has this name at another issuer", _elsewhere(policies, identity, name)),
        ("has a name like it", _alike(policies, identity, name)),
        ("is of the same owner", _of_owner(policies, identity)),
    ):
        for one in publishers:
            if len(found) < MOST_NEAR:
                found.setdefault(one.id, (one, why))
    compared = matching.consider(tuple(one for one, _ in found.values()), identity, {})
    return [_near(one, found[one.publisher.id][1]) for one in compared]


def _elsewhere(policies: Policies, identity: Identity, name: str) -> Iterator[Publisher]:
    for issuer in policies.issuers:
        if issuer != identity.issuer:
            yield from policies.publishers_by_name.get((issuer, name), ())


def _alike(policies: Policies, identity: Identity, name: str) -> Iterator[Publisher]:
    names = [other for issuer, other in policies.publishers_by_name if issuer == identity.issuer]
    for other in difflib.get_close_matches(name, names[:MOST_COMPARED], n=MOST_NEAR, cutoff=0.7):
        yield from policies.publishers_by_name[identity.issuer, other]


def _of_owner(policies: Policies, identity: Identity) -> Iterator[Publisher]:
    owner = (identity.issuer, getattr(identity, identity.owner))
    for organization in policies.organizations.values():
        if owner in organization.owner_ids:
            yield from (one for one in organization.publishers.values() if one.trust.issuer == identity.issuer)


def _standing(
    policies: Policies, name: str, identity: Identity, near: list[Near], now: float, *, scope: Scope
) -> Standing:
    organization = policies.organizations[name]
    member = organization.member_by_id.get((identity.issuer, identity.actor_id))
    own = [one.considered.publisher for one in near if one.considered.publisher.organization == name]
    refusal: refusals.Refusal | None = None
    try:
        # As if the publishers fitted: what is asked here is the actor.
        matching.grant(policies, identity, tuple(Considered(publisher=one, mismatch=None) for one in own), now, scope)
    except refusals.Refusal as found:
        refusal = found
    return Standing(
        organization=name,
        suspended=organization.suspended,
        member=member,
        refusal=refusal,
        closest="" if member is not None else _closest(organization, identity),
    )


def _closest(organization: Organization, identity: Identity) -> str:
    """A member of the actor's name, or with the actor's id at another issuer, or of a name like it."""
    actor = fold(identity.actor_name)
    for name, member in organization.members.items():
        if name == actor:
            known = member.ids.get(identity.issuer)
            return (
                f"{name}, whose {identity.issuer} id is {known}"
                if known
                else f"{name}, who has no {identity.issuer} id"
            )
        if elsewhere := [issuer for issuer, told in member.ids.items() if told == identity.actor_id]:
            return f"{name}, whose id this is at {' and '.join(elsewhere)}"
    alike = difflib.get_close_matches(actor, list(organization.members)[:MOST_COMPARED], n=1)
    return alike[0] if alike else ""
