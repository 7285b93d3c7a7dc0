"""`broker explain --github`: the claims of a run of which a person knows a few things, and what is assumed beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from broker.cli.explain_inputs import InputError, Told
from broker.policy.errors import shown
from broker.policy.model import Issuer, Member, Policies, Publisher, Scope
from broker.policy.rehearsal import rehearse
from broker.providers.base import fold

FACTS: Final = (
    "workflow",
    "environment",
    "ref",
    "event",
    "actor_id",
    "actor",
    "repository_id",
    "repository_owner_id",
    "job_workflow",
    "ref_protected",
    "runner_environment",
)
"""What a run can be told to be; an environment may be the empty text, for none."""

_OTHERWISE: Final = {
    "workflow": "release.yml",
    "environment": "",
    "ref": "refs/heads/main",
    "event": "push",
    "actor_id": "0",
    "actor": "somebody",
    "repository_id": "0",
    "repository_owner_id": "0",
    "ref_protected": "true",
    "runner_environment": "github-hosted",
}


def of_github(
    repository: str, facts: Mapping[str, str], named: str | None, policies: Policies, now: float, *, scope: Scope
) -> Told:
    """Decides for a run on GitHub.

    Args:
        facts: Some of `FACTS`.
        named: The issuer, where it is not the first of GitHub's kind.

    Raises:
        InputError: there is no such issuer.
    """
    issuer = _issuer(named, policies)
    bound = policies.publishers_by_name.get((issuer.name, fold(repository)), ())
    publisher = max(bound, key=lambda one: _fitting(one, facts), default=None)
    run, assumed = dict(facts), []
    for fact in FACTS:
        if fact in facts or fact == "job_workflow":
            continue
        run[fact], why = _guess(fact, run, issuer, publisher, policies)
        assumed.append(f"{fact} {shown(run[fact]) if run[fact] else 'none'} ({why})")
    claims = _claims(repository, issuer, run)
    notes = ("There is no token: what is given here, a token would have to say.",)
    found = rehearse(policies, claims, now=now, scope=scope)
    return Told(rehearsal=found, notes=notes, assumed=tuple(assumed))


def _issuer(named: str | None, policies: Policies) -> Issuer:
    found = [one for one in policies.issuers.values() if one.provider.name == "github" and named in {None, one.name}]
    if not found:
        raise InputError(f"index.yaml has no issuer of GitHub's kind{f' named {shown(named)}' if named else ''}")
    return found[0]


def _fitting(publisher: Publisher, facts: Mapping[str, str]) -> int:
    return sum(getattr(publisher.trust, fact, None) == value for fact, value in facts.items())


def _guess(
    fact: str, run: Mapping[str, str], issuer: Issuer, publisher: Publisher | None, policies: Policies
) -> tuple[str, str]:
    if publisher is None:
        return _OTHERWISE[fact], "no publisher has this name"
    if fact in {"actor_id", "actor"}:
        return _who(fact, run, issuer, publisher, policies)
    stated = getattr(publisher.trust, {"ref": "refs", "event": "events"}.get(fact, fact))
    if isinstance(stated, tuple):
        stated = str(stated[0]).replace("*", "1")
    if isinstance(stated, bool):
        stated = str(stated).lower()
    return (_OTHERWISE[fact], "any will do") if stated is None else (stated, f"as {publisher.id} asks")


def _who(
    fact: str, run: Mapping[str, str], issuer: Issuer, publisher: Publisher, policies: Policies
) -> tuple[str, str]:
    members = policies.organizations[publisher.organization].members.values()
    known = [one for one in members if issuer.name in one.ids]
    if fact == "actor":
        names = [one.name for one in known if one.ids[issuer.name] == run["actor_id"]]
        return (names[0], "the member with that id") if names else (_OTHERWISE[fact], "no member has that id")
    if not known:
        return _OTHERWISE[fact], f"{publisher.organization} has no member with an id at {issuer.name}"
    first = min(known, key=_rank)
    return first.ids[issuer.name], f"the {first.role} {first.name}"


def _rank(member: Member) -> int:
    return ("owner", "member", "billing-manager").index(member.role) + (3 if member.suspended else 0)


def _claims(repository: str, issuer: Issuer, run: Mapping[str, str]) -> dict[str, Any]:
    caller = f"{repository}/.github/workflows/{run['workflow']}@{run['ref']}"
    claims = {name: value for name, value in run.items() if name not in {"workflow", "job_workflow", "event"} and value}
    return {
        **claims,
        "iss": issuer.url,
        "sub": f"repo:{repository}",
        "repository": repository,
        "event_name": run["event"],
        "workflow_ref": caller,
        "job_workflow_ref": run.get("job_workflow") or caller,
        "sha": "0" * 40,
        "run_id": "0",
    }
