"""Members, their ids, their teams, and what the organization's `projects` let each upload to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from broker.patterns import Projects
from broker.policy.errors import Findings, Place, shown
from broker.policy.holdings import declared_names, entries, texts
from broker.policy.index import Index
from broker.policy.model import Member
from broker.policy.shapes import MemberId, MemberShape, ProjectShape
from broker.policy.validation import validate

MOST_RIGHTS: Final = 250_000
"""Pairs of a member and a pattern in one organization. A file within its size bound could ask for a hundred million."""

_TEAM: Final = "team:"


def compile_members(
    organization: str,
    values: Mapping[str, Any],
    patterns: Mapping[str, Projects],
    findings: Findings,
    index: Index,
) -> dict[str, Member]:
    """Compiles `members`, `teams` and `projects`; members with mistakes are noted and left out.

    Args:
        patterns: What the keys of `projects` mean, but for those with mistakes.
    """
    uploads = _uploads(values, patterns, findings)
    members: dict[str, Member] = {}
    claimed: dict[tuple[str, str], str] = {}
    for name, fields in entries(values, "members").items():
        place: Place = ("members", name)
        own = {key: value for key, value in fields.items() if key in MemberShape.model_fields}
        others = {key: value for key, value in fields.items() if key not in own}
        shape = validate(MemberShape, own, place, findings)
        ids = _ids(organization, others, place, findings, index)
        for pair in ids.items():
            if (other := claimed.setdefault(pair, name)) != name:
                what = f"is also the id of {other!a}, on line {findings.line_of(('members', other, pair[0]))}"
                findings.add((*place, pair[0]), what, "An id is one person or machine: remove one of the two.")
        if shape is not None:
            members[name] = Member(
                name=name,
                role=shape.role,
                ids=ids,
                machine=shape.machine,
                suspended=shape.suspended,
                until=shape.until,
                uploads=uploads.get(name, frozenset()),
            )
    return members


def _ids(
    organization: str, fields: Mapping[str, Any], place: Place, findings: Findings, index: Index
) -> dict[str, str]:
    """'github: "1001"' and the like: what is no field of a member is the name of an issuer."""
    ids: dict[str, str] = {}
    for issuer, value in fields.items():
        where = (*place, issuer)
        if index.binds(issuer, organization, where, findings, fields=MemberShape.model_fields):
            provider = index.provider_of(issuer)
            shape = validate(MemberId if provider is None else provider.member_id, value, where, findings)
            if shape is not None:
                ids[issuer] = shape.root
    return ids


def _uploads(
    values: Mapping[str, Any], patterns: Mapping[str, Projects], findings: Findings
) -> dict[str, frozenset[Projects]]:
    """Member -> the union of all patterns whose `upload` names them or a team of theirs."""
    members, known_teams = (declared_names(values, section, findings) for section in ("members", "teams"))
    by_member: dict[str, set[Projects]] = defaultdict(set)
    by_team: dict[str, set[Projects]] = defaultdict(set)
    for text, fields in entries(values, "projects").items():
        place: Place = ("projects", text)
        validate(ProjectShape, fields, place, findings)
        for where, who in texts(fields, "upload", place):
            if who.startswith(_TEAM):
                _refuse_unknown("team", who.removeprefix(_TEAM), known_teams, where, findings)
            elif known_teams is not None and who in known_teams and members is not None and who not in members:
                findings.add(where, f"names a team as a member: {shown(who)}", f"Write {_TEAM + who!a}, in quotes.")
            else:
                _refuse_unknown("member", who, members, where, findings)
            if text in patterns:
                (by_team if who.startswith(_TEAM) else by_member)[who.removeprefix(_TEAM)].add(patterns[text])
    return _union(_teams(values, members, findings), by_member, by_team, findings)


def _teams(values: Mapping[str, Any], members: frozenset[str] | None, findings: Findings) -> dict[str, list[str]]:
    """Member -> their teams, in the order of the file."""
    teams: dict[str, list[str]] = defaultdict(list)
    found = values.get("teams")
    if not isinstance(found, dict):
        return teams
    for team in found:
        for where, member in texts(found, team, ("teams",)):
            _refuse_unknown("member", member, members, where, findings)
            teams[member].append(team)
    return teams


def _refuse_unknown(kind: str, name: str, known: frozenset[str] | None, place: Place, findings: Findings) -> None:
    if known is not None and name not in known:
        remedy = findings.suggest(name, known, f"Add it under `{kind}s`, or remove it here.")
        findings.add(place, f"names a {kind} that is not there: {shown(name)}", remedy)


def _union(
    teams: Mapping[str, Iterable[str]],
    by_member: Mapping[str, set[Projects]],
    by_team: Mapping[str, set[Projects]],
    findings: Findings,
) -> dict[str, frozenset[Projects]]:
    parts = {
        member: [by_member.get(member, set()), *(by_team.get(team, set()) for team in teams.get(member, ()))]
        for member in {*by_member, *teams}
    }
    rights = sum(len(part) for sets in parts.values() for part in sets)
    if rights > MOST_RIGHTS:
        what = f"gives {rights} rights, of each member to each pattern, and {MOST_RIGHTS} are the most"
        findings.add(("projects",), what, "Give rights by prefix, as in `acme-*`, or split the organization.")
        return {}
    return {member: frozenset().union(*sets) for member, sets in parts.items()}
