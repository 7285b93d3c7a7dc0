"""From a folder of policy files to `Policies`, whole or not at all: by a folder with a mistake nothing is granted."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from broker.policy import document, folder
from broker.policy.errors import Findings, PolicyError, PolicyErrors, shown_path
from broker.policy.holdings import Holdings
from broker.policy.index import Index, compile_index
from broker.policy.model import Policies, Publisher
from broker.policy.organizations import Compiled, Held, compile_organization

__all__ = ["PolicyErrors", "load"]

_GENERATION_LENGTH: Final = 16
"""Hexadecimal digits."""


def load(path: Path, *, allow_loopback_issuers: bool = False) -> Policies:
    """Loads a folder of policies.

    Args:
        allow_loopback_issuers: For development: issuers may be `http://127.0.0.1:...` and the like.

    Raises:
        PolicyErrors: with every mistake in every file.
    """
    files, errors = folder.list_files(path)
    names = [_name(file) for file in files]
    before = folder.stamps(path, files)
    generation, index, compiled = hashlib.sha256(), Index(), list[Compiled]()
    for file, name in zip(files, names, strict=True):
        findings = Findings(file=shown_path(file))
        values = _read(path, file, findings, generation)
        if values is not None and file == folder.INDEX:
            index = compile_index(values, findings, names[1:], allow_loopback=allow_loopback_issuers)
        elif values is not None:
            compiled.append(compile_organization(name, values, findings, index))
        errors += findings.errors
    errors += folder.changes(path, before)
    errors += _overlaps(held for one in compiled for held in one.held)
    if errors:
        raise PolicyErrors(path, errors)
    return _assembled(generation.hexdigest()[:_GENERATION_LENGTH], index, compiled)


def _name(file: str) -> str:
    """'organizations/acme.yaml' -> 'acme'."""
    return file.removeprefix(f"{folder.ORGANIZATIONS}/").removesuffix(".yaml")


def _read(path: Path, file: str, findings: Findings, generation: Any) -> dict[str, Any] | None:
    content = folder.read_bytes(path, file, findings)
    if content is None:
        return None
    # Lengths stand before both, so that no two folders read alike.
    for part in (file.encode(errors="surrogateescape"), content):
        generation.update(len(part).to_bytes(8, "big") + part)
    return document.read(content, findings)


def _overlaps(everything: Iterable[Held]) -> Iterator[PolicyError]:
    """Names that two organizations hold, each told once, at the later of the two files."""
    held = list(everything)
    holdings: Holdings[Held] = Holdings()
    for one in held:
        holdings.record(one.pattern, one)
    told: set[tuple[str, str]] = set()
    for one in held:
        for other in holdings.covering(one.pattern):
            if other.organization == one.organization:
                continue
            earlier, later = sorted((one, other), key=lambda each: (each.file, each.line))
            if (later.file, later.path) not in told:  # a namespace holds two patterns at one place
                told.add((later.file, later.path))
                yield PolicyError(
                    file=later.file,
                    line=later.line,
                    path=later.path,
                    what=f"holds {later.pattern}, and {earlier.file}:{earlier.line} holds {earlier.pattern}",
                    remedy="Two organizations never hold overlapping names: agree on one, or ask the index operator.",
                )
            break


def _assembled(generation: str, index: Index, compiled: list[Compiled]) -> Policies:
    organizations = {one.organization.name: one.organization for one in compiled}
    by_name: dict[tuple[str, str], list[Publisher]] = defaultdict(list)
    for organization in organizations.values():
        for publisher in organization.publishers.values():
            by_name[publisher.trust.issuer, publisher.trust.lookup()].append(publisher)
    return Policies(
        generation=generation,
        issuers=index.issuers,
        issuer_by_url={issuer.url: issuer for issuer in index.issuers.values()},
        organizations=organizations,
        publishers_by_name={name: tuple(sorted(found, key=lambda one: one.id)) for name, found in by_name.items()},
        default_lifetime_seconds=index.default_lifetime_seconds,
        longest_lifetime_seconds=index.longest_lifetime_seconds,
    )
