"""What revocations and switches name: whose tokens they are about, and whose exchanges.

A subject is a text: 'everything', 'issuer github', 'organization acme', 'publisher acme/widgets-release', 'actor github
1001', 'run github 17423456789'. The first four can be switched off. What owners revoke is bound to their organization:
'member acme/github/1001', 'token acme/0c7e2f5a9b1d4e3f8a6c5b4d3e2f1a09'.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from broker.policy.model import Policies
from broker.policy.shapes import is_name
from broker.providers import Identity

EVERYTHING: Final = "everything"

FORMS: Final[Mapping[str, str]] = {
    EVERYTHING: "",
    "organization": "NAME",
    "publisher": "ORGANIZATION/NAME",
    "member": "ORGANIZATION/NAME",
    "actor": "ISSUER ID",
    "issuer": "NAME",
    "run": "ISSUER RUN",
    "token": "ID",
}
"""Each kind, and how its names are written."""

SWITCHES: Final = (EVERYTHING, "issuer", "organization", "publisher")
"""The kinds that can be switched off."""

LONGEST_NAME: Final = 255


@functools.lru_cache(maxsize=4096)
def switches_of(issuer: str, publishers: tuple[str, ...]) -> tuple[str, ...]:
    """What an exchange depends on: each can be switched off.

    Args:
        issuer: Its name.
        publishers: Ids of those that earn the token; their organizations are subjects too.
    """
    return (
        EVERYTHING,
        f"issuer {issuer}",
        *dict.fromkeys(f"organization {publisher.split('/')[0]}" for publisher in publishers),
        *(f"publisher {publisher}" for publisher in publishers),
    )


def subjects_of(token_id: str, identity: Identity, publishers: tuple[str, ...]) -> tuple[str, ...]:
    """Whose token one is: by each it can be revoked.

    Those with an organization's name are for its owners: they reach what the token has of that organization alone.

    Args:
        publishers: Ids of those that earned it.
    """
    organizations = dict.fromkeys(publisher.split("/")[0] for publisher in publishers)
    return (
        *switches_of(identity.issuer, publishers),
        f"actor {identity.issuer} {identity.actor_id}",
        f"run {identity.issuer} {identity.run}",
        *(f"member {name}/{identity.issuer}/{identity.actor_id}" for name in organizations),
        *(f"token {name}/{token_id}" for name in organizations),
    )


def left_of(publishers: Sequence[str], revoked: Iterable[str]) -> tuple[str, ...]:
    """The publishers of a token that still count after revocations of its subjects.

    What concerns one organization takes all that the token has of it, and nothing of another's: else an organization
    that binds a foreign run too could revoke that run's tokens. All other subjects take the whole token.
    """
    lost = {organization_of(subject) for subject in revoked}
    return () if "" in lost else tuple(one for one in publishers if one.split("/")[0] not in lost)


def subject_of(kind: str, names: Sequence[str]) -> str:
    """'publisher' and 'acme/widgets-release' -> 'publisher acme/widgets-release'. Names are taken as they are written.

    Raises:
        ValueError: they are not as many as the kind has, or one is empty or longer than any.
    """
    form, subject = FORMS[kind], " ".join((kind, *names))
    if len(names) != len(form.split()) or not all(0 < len(name) <= LONGEST_NAME for name in names):
        raise ValueError(f"write {f'{kind} {form}'.rstrip()!r}")
    if "/" in form and subject.count("/") != 1:
        raise ValueError(f"{names[0]!r} is no {kind}: write ORGANIZATION/NAME, as in the policies")
    return subject


def switch_of(kind: str, names: Sequence[str]) -> str:
    """The same for what is to be switched: a name that no policy can have is a slip, and would switch nothing.

    Raises:
        ValueError: as `subject_of`; also where a name is none.
    """
    subject = subject_of(kind, names)
    for name in (part for one in names for part in one.split("/")):
        if not is_name(name):
            raise ValueError(f"{name!r} is no name: those in policies have a-z, 0-9 and - alone")
    return subject


def kind_of(subject: str) -> str:
    """'publisher acme/widgets-release' -> 'publisher'"""
    return subject.partition(" ")[0]


def counted(switched_off: Iterable[str]) -> dict[str, int]:
    """How many subjects of each kind are switched off."""
    kinds = [kind_of(subject) for subject in {*switched_off}]
    return {kind: kinds.count(kind) for kind in SWITCHES}


def organization_of(subject: str) -> str:
    """The organization that a subject concerns alone; empty where it is not one's."""
    kind, _, name = subject.partition(" ")
    organization, slash, _ = name.partition("/")
    return organization if kind == "organization" or (slash and kind in {"publisher", "member", "token"}) else ""


def ids_of(policies: Policies, member: str) -> Mapping[str, str]:
    """The ids of a member, such as 'acme/alice', at each issuer where the policies know one.

    Raises:
        ValueError: there is no such member, or it has no id.
    """
    organization, _, name = member.partition("/")
    found = policies.organizations.get(organization)
    known = None if found is None else found.members.get(name)
    if known is None:
        raise ValueError(
            f"the policies have no member {member}: of whoever was removed already, the operator revokes `actor ISSUER "
            "ID`, with the id from the audit records, and an owner `token ID` or `publisher ORGANIZATION/NAME`"
        )
    if not known.ids:
        raise ValueError(f"the member {member} has no id at any issuer, and so no token")
    return dict(sorted(known.ids.items()))


def unknown_in(policies: Policies, kind: str, names: Sequence[str]) -> str:
    """What of a subject the policies do not have: it may be misspelt, or removed already. Empty where they have all."""
    if kind in {"issuer", "actor", "run"} and names[0] not in policies.issuers:
        return f"issuer {names[0]!r}"
    if kind == "actor" and not _is_an_id(policies, *names):
        return f"member with the id {names[1]!r} at {names[0]!r} (a login is none)"
    if kind in {"organization", "publisher"}:
        [named] = names
        name, _, publisher = named.partition("/")
        organization = policies.organizations.get(name)
        if organization is None:
            return f"organization {name!r}"
        if publisher and publisher not in organization.publishers:
            return f"publisher {named!r}"
    return ""


def _is_an_id(policies: Policies, issuer: str, actor: str) -> bool:
    return any(
        member.ids.get(issuer) == actor
        for organization in policies.organizations.values()
        for member in organization.members.values()
    )
