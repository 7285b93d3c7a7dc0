"""Members, their ids, their teams, and what the organization's `projects` let each upload to or read."""

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
"""Pairs of a member and a pattern in one organization, to upload or to read. A file within its size bound could ask for
a hundred million."""

_TEAM: Final = "team:"

_Rights = dict[str, frozenset[Projects]]
"""Member -> patterns."""


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
    uploads, downloads = _rights(values, patterns, findings)
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
                downloads=downloads.get(name, frozenset()),
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


def _rights(values: Mapping[str, Any], patterns: Mapping[str, Projects], findings: Findings) -> tuple[_Rights, _Rights]:
    """What `upload`, and what `download`, gives each member: the union of all patterns where it names them or a team of
    theirs."""
    for text, fields in entries(values, "projects").items():
        place: Place = ("projects", text)
        validate(ProjectShape, fields, place, findings)
        if "upload" not in fields and "download" not in fields:
            what, remedy = (
                "has neither `upload` nor `download`",
                "Say who may: `upload: [alice]`, or `download: [alice]`.",
            )
            findings.add(place, what, remedy)
    named = [_named(right, values, patterns, findings) for right in ("upload", "download")]
    teams = _teams(values, declared_names(values, "members", findings), findings)
    uploads, downloads = (_parts(teams, by_member, by_team) for by_member, by_team in named)
    rights = sum(len(part) for found in (uploads, downloads) for sets in found.values() for part in sets)
    if rights > MOST_RIGHTS:
        what = f"gives {rights} rights, of each member to each pattern, and {MOST_RIGHTS} are the most"
        findings.add(("projects",), what, "Give rights by prefix, as in `acme-*`, or split the organization.")
        return {}, {}
    return _united(uploads), _united(downloads)


def _named(
    right: str, values: Mapping[str, Any], patterns: Mapping[str, Projects], findings: Findings
) -> tuple[dict[str, set[Projects]], dict[str, set[Projects]]]:
    """Member -> the patterns where `upload`, or `download`, names them; and the same of teams."""
    members, known_teams = (declared_names(values, section, findings) for section in ("members", "teams"))
    by_member: dict[str, set[Projects]] = defaultdict(set)
    by_team: dict[str, set[Projects]] = defaultdict(set)
    for text, fields in entries(values, "projects").items():
        for where, who in texts(fields, right, ("projects", text)):
            if who.startswith(_TEAM):
                _refuse_unknown("team", who.removeprefix(_TEAM), known_teams, where, findings)
            elif known_teams is not None and who in known_teams and members is not None and who not in members:
                findings.add(where, f"names a team as a member: {shown(who)}", f"Write {_TEAM + who!a}, in quotes.")
            else:
                _refuse_unknown("member", who, members, where, findings)
            if text in patterns:
                (by_team if who.startswith(_TEAM) else by_member)[who.removeprefix(_TEAM)].add(patterns[text])
    return by_member, by_team


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


def _parts(
    teams: Mapping[str, Iterable[str]], by_member: Mapping[str, set[Projects]], by_team: Mapping[str, set[Projects]]
) -> dict[str, list[set[Projects]]]:
    return {
        member: [by_member.get(member, set()), *(by_team.get(team, set()) for team in teams.get(member, ()))]
        for member in {*by_member, *teams}
    }


def _united(parts: Mapping[str, Iterable[set[Projects]]]) -> _Rights:
    return {member: frozenset().union(*sets) for member, sets in parts.items()}
