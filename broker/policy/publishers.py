"""Publishers: the fields that all have, the fields of their provider's Trust, and what a safe binding needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.policy.ceilings import Ceilings, narrowed_default, refuse_beyond
from broker.policy.errors import Findings, Place
from broker.policy.holdings import Holdings, entries
from broker.policy.index import Index
from broker.policy.model import Publisher
from broker.policy.shapes import IDS, PublisherShape
from broker.policy.validation import validate
from broker.providers import Trust


def compile_publishers(
    organization: str, values: Mapping[str, Any], findings: Findings, index: Index, own: Holdings[str] | None
) -> dict[str, Publisher]:
    """Compiles `publishers`; those with mistakes are noted and left out.

    Args:
        own: What the organization holds; None where that could not be read whole.
    """
    publishers: dict[str, Publisher] = {}
    for name, fields in entries(values, "publishers").items():
        place: Place = ("publishers", name)
        common = {key: value for key, value in fields.items() if key in PublisherShape.model_fields}
        shape = validate(PublisherShape, common, place, findings)
        trust = _trust(organization, fields, place, findings, index)
        if shape is None:
            continue
        if not shape.projects and not shape.downloads:
            what, remedy = "has neither `projects` nor `downloads`", "Say what it may publish, or what it may read."
            findings.add(place, what, remedy)
        for field, verb, patterns in (
            ("projects", "publishes", shape.projects),
            ("downloads", "reads", shape.downloads),
        ):
            for at, projects in enumerate(patterns):
                if own is not None and next(own.covering(projects), None) is None:
                    what = f"{verb} {projects}, which is not the organization's own"
                    remedy = "Add the namespace or the project to the organization first, or correct the name."
                    findings.add((*place, field, at), what, remedy)
        if trust is not None:
            publishers[name] = Publisher(
                organization=organization,
                name=name,
                trust=trust,
                projects=frozenset(shape.projects),
                downloads=frozenset(shape.downloads),
                until=shape.until,
            )
    return publishers


def owner_id(publisher: Publisher) -> tuple[str, str] | None:
    """(issuer name, owner id) where the publisher states the id of its source's owner."""
    trust = publisher.trust
    field = next(rule.field for rule in trust.rules if rule.of == trust.identity.owner)
    stated = trust.stated(field)
    return None if stated is None else (trust.issuer, stated)


def _trust(
    organization: str, fields: Mapping[str, Any], place: Place, findings: Findings, index: Index
) -> Trust | None:
    issuer = fields.get("issuer")
    if not isinstance(issuer, str) or not index.binds(issuer, organization, (*place, "issuer"), findings):
        return None
    provider = index.provider_of(issuer)
    if provider is None:
        return None
    others = [name for name in PublisherShape.model_fields if name != "issuer"]
    own = {key: value for key, value in fields.items() if key not in others}
    ceilings = index.ceilings_of(organization)
    _refuse_unpinned(provider.trust, fields, place, findings, ceilings)
    refuse_beyond(ceilings, provider.trust, fields, place, findings)
    own |= narrowed_default(ceilings, provider.trust, fields, place, findings)
    return validate(provider.trust, own, place, findings, also=others)


def _refuse_unpinned(
    trust: type[Trust], fields: Mapping[str, Any], place: Place, findings: Findings, ceilings: Ceilings
) -> None:
    """Immutable ids stand beside names, or are pinned by the first use; asked of the file, whatever else is wrong."""
    missing = trust.unstated_ids(fields)
    if missing and "pin" not in fields:
        what = f"does not state {' and '.join(missing)}, and a name alone can change hands"
        remedy = f"Add {' and '.join(missing)}"
        remedy += "." if IDS in ceilings.required else "; or `pin: first-use`, and the first success records them."
        findings.add(place, what, remedy)
    if fields.get("pin") == "first-use" and not missing:
        findings.add((*place, "pin"), "pins nothing: all ids are stated", "Remove it, or the ids.")
