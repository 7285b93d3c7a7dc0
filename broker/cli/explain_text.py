"""An explanation as text and as JSON (docs/reference/explain.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import Any, Final

from broker.cli.explain_inputs import Told
from broker.policy.explanation import Explanation, Near, Standing
from broker.policy.model import Member, Policies

FORMAT_VERSION: Final = 1
"""Of the JSON. Fields are only ever added; a change to one is a new version."""

_WIDTH: Final = 11
"""Of the headings on the left."""


def as_text(explanation: Explanation, policies: Policies, told: Told) -> str:
    """For a person."""
    return "\n".join(
        f"{heading:<{_WIDTH}} {line}".rstrip()
        for title, lines in _sections(explanation, policies, told)
        for heading, line in zip([title, *[""] * len(lines)], lines, strict=False)
    )


def _sections(explanation: Explanation, policies: Policies, told: Told) -> Iterator[tuple[str, list[str]]]:
    decision = explanation.rehearsal
    if decision.grant is not None:
        verb = "publish" if decision.scope == "upload" else "read"
        yield "ALLOWED", [f"to {verb} {', '.join(sorted(map(str, decision.grant.projects)))}"]
    if decision.refusal is not None:
        yield "REFUSED", [decision.refusal.code, decision.refusal.detail, decision.refusal.remedy]
    if told.notes:
        yield "note", list(told.notes)
    if told.record is not None:
        yield "recorded", _recorded(told.record, policies)
    if told.assumed:
        yield "assumed", list(told.assumed)
    if decision.identity is not None:
        hidden = {"subject", "run", "sha"}
        yield "run", [f"{name} {value}" for name, value in _identity(explanation).items() if name not in hidden]
    near = [_near_line(one) for one in explanation.near]
    if decision.identity is not None:
        yield "publishers", near or ["none has this name, nor one like it"]
    if explanation.first_uses:
        known = "asked as recorded" if told.record else "what it recorded is not known here, so any ids fit"
        yield "", [f"{one}: pins on first use; {known}" for one in explanation.first_uses]
    if explanation.standings:
        yield "actor", [_standing_line(one) for one in explanation.standings]
    if decision.grant is not None:
        grant = decision.grant
        yield (
            "grant",
            [
                f"projects {', '.join(sorted(map(str, grant.projects)))}",
                f"by {', '.join(one.id for one in grant.publishers)} for {', '.join(grant.members)}",
                f"{'an upload' if decision.scope == 'upload' else 'a read'} token lives {grant.lifetime_seconds} s",
            ],
        )


def _recorded(record: Any, policies: Policies) -> list[str]:
    generation = record.get("generation", "")
    same = "the policies of today" if generation == policies.generation else f"today's are {policies.generation}"
    lines = [
        f"{record['attempt']} at {record.get('at')}: {record.get('kind')} {record.get('decision')}",
        f"by generation {generation} ({same})",
    ]
    if "code" in record:
        lines.append(f"{record['code']}: {record.get('detail')}")
    lines += record.get("considered", [])
    if "projects" in record:
        lines.append(f"projects {', '.join(record['projects'])}")
    return lines


def _identity(explanation: Explanation) -> dict[str, Any]:
    identity = explanation.rehearsal.identity
    claims = {} if identity is None else identity.as_claims()
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in claims.items()}


def _near_line(near: Near) -> str:
    one = near.considered
    until = f", until {one.publisher.until}" if one.publisher.until else ""
    why = "" if near.why == "has this name" else f" ({near.why})"
    return f"{one.publisher.id}{until}: {one.mismatch or 'matches'}{why}"


def _standing_line(standing: Standing) -> str:
    who = f"no member{f'; closest is {standing.closest}' if standing.closest else ''}"
    if standing.member is not None:
        who = f"{standing.member.name}, {', '.join(_traits(standing.member))}"
    refused = f": {standing.refusal.code}" if standing.refusal is not None else ""
    return f"{standing.organization}{' (suspended)' if standing.suspended else ''}: {who}{refused}"


def _traits(member: Member) -> Iterator[str]:
    yield member.role
    if member.machine:
        yield "machine"
    if member.suspended:
        yield "suspended"
    if member.until is not None:
        yield f"until {member.until}"
    if member.role == "member":
        yield f"may upload to {', '.join(sorted(map(str, member.uploads))) or 'nothing'}"
        if member.downloads:
            yield f"may read {', '.join(sorted(map(str, member.downloads)))}"


def as_json(explanation: Explanation, policies: Policies, told: Told) -> str:
    """For programs."""
    decision = explanation.rehearsal
    refusal, grant = decision.refusal, decision.grant
    fields: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "scope": decision.scope,
        "decision": "refused" if refusal is not None else "allowed",
        "generation": policies.generation,
        "issuer": decision.issuer.name if decision.issuer is not None else None,
        "identity": decision.identity.as_claims() if decision.identity is not None else None,
        "refusal": None
        if refusal is None
        else {
            "code": refusal.code,
            "detail": refusal.detail,
            "remedy": refusal.remedy,
            "expected": refusal.expected,
        },
        "publishers": [_near_fields(one) for one in explanation.near],
        "first_uses": list(explanation.first_uses),
        "actor": [_standing_fields(one) for one in explanation.standings],
        "grant": None
        if grant is None
        else {
            "projects": sorted(map(str, grant.projects)),
            "publishers": [one.id for one in grant.publishers],
            "members": list(grant.members),
            "lifetime_seconds": grant.lifetime_seconds,
        },
        "notes": list(told.notes),
        "assumed": list(told.assumed),
        "record": told.record,
    }
    return json.dumps(fields, indent=2)


def _near_fields(near: Near) -> dict[str, Any]:
    mismatch = near.considered.mismatch
    return {
        "id": near.considered.publisher.id,
        "why": near.why,
        "passed": near.passed,
        "until": _day(near.considered.publisher.until),
        "mismatch": None
        if mismatch is None
        else {"field": mismatch.rule.field, "expected": mismatch.expected, "actual": mismatch.actual},
    }


def _standing_fields(standing: Standing) -> dict[str, Any]:
    member = standing.member
    return {
        "organization": standing.organization,
        "organization_suspended": standing.suspended,
        "member": None
        if member is None
        else {
            "name": member.name,
            "role": member.role,
            "machine": member.machine,
            "suspended": member.suspended,
            "until": _day(member.until),
            "uploads": sorted(map(str, member.uploads)),
            "downloads": sorted(map(str, member.downloads)),
        },
        "closest": standing.closest,
        "refusal": standing.refusal.code if standing.refusal is not None else None,
    }


def _day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
