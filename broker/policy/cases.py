"""`tests/*.yaml`: what is expected of the policies beside them, case by case.

The server never reads these files. A case is a token's claims, whole or a template's with changes, and what it should
get; `trials.py` asks whether it does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from broker import refusals
from broker.patterns import Projects
from broker.policy import document, folder
from broker.policy.case_shapes import CaseShape, CasesShape, TemplateShape
from broker.policy.errors import Findings, Place, PolicyError, shown, shown_path, written
from broker.policy.holdings import entries
from broker.policy.matching import Pins
from broker.policy.model import Issuer, Policies, Scope
from broker.policy.validation import validate

_CODES = tuple(refusal.code for refusal in refusals.every())


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case, ready to be tried."""

    name: str
    file: str
    line: int
    path: str
    claims: Mapping[str, Any]
    at: float | None
    """Epoch seconds; None is the moment of the trial."""
    pins: Pins
    scope: Scope
    allow: frozenset[Projects]
    """Exactly the grant; empty where a refusal is expected."""
    refuse: str
    """The refusal's code; empty where a grant is expected."""


def read_cases(path: Path, policies: Policies | None) -> tuple[tuple[Case, ...], tuple[PolicyError, ...]]:
    """The cases in a folder of policies, and every mistake in their files; of a file with a mistake no case is tried.

    Args:
        policies: What the folder was loaded as: cases refer to its issuers and publishers. None where it did not
            load: then nothing is said of references.
    """
    known = _Known.of(policies)
    files, errors = folder.list_cases(path)
    cases: list[Case] = []
    for file in files:
        findings = Findings(file=shown_path(file))
        content = folder.read_bytes(path, file, findings)
        values = None if content is None else document.read(content, findings)
        if values is not None:
            validate(CasesShape, values, (), findings)
            found = list(_File(values, findings, known).cases())
            cases += found if not findings.errors else ()
        errors += findings.errors
    return tuple(cases), tuple(errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What cases may refer to; None where the policies did not load."""

    issuers: Mapping[str, Issuer]
    issuer_names: frozenset[str] | None
    publishers: frozenset[str] | None

    @classmethod
    def of(cls, policies: Policies | None) -> Self:
        if policies is None:
            return cls(issuers={}, issuer_names=None, publishers=None)
        publishers = (one.id for each in policies.organizations.values() for one in each.publishers.values())
        return cls(issuers=policies.issuers, issuer_names=frozenset(policies.issuers), publishers=frozenset(publishers))


@dataclass(frozen=True, slots=True)
class _File:
    """One file of cases, while it is compiled."""

    values: Mapping[str, Any]
    findings: Findings
    known: _Known

    def cases(self) -> Iterable[Case]:
        templates: dict[str, TemplateShape | None] = {}
        for name, fields in entries(self.values, "templates").items():
            place: Place = ("templates", name)
            templates[name] = shape = validate(TemplateShape, fields, place, self.findings)
            if shape is not None:
                self._refuse_days(shape.changes, (*place, "changes"))
                self._refuse_unknown(
                    shape.issuer, self.known.issuer_names, (*place, "issuer"), "no issuer in index.yaml"
                )
        for name, fields in entries(self.values, "cases").items():
            case = self._case(name, fields, templates)
            if case is not None:
                yield case

    def _case(self, name: str, fields: dict[str, Any], templates: Mapping[str, TemplateShape | None]) -> Case | None:
        place: Place = ("cases", name)
        shape = validate(CaseShape, fields, place, self.findings)
        self._one_of(fields, "template", "claims", place, "Name a template, or write the claims.")
        self._one_of(fields, "allow", "refuse", place, "Add `allow: [projects]`, or `refuse: code`.")
        if shape is None:
            return None
        if shape.refuse is not None:
            self._refuse_unknown(shape.refuse, _CODES, (*place, "refuse"), "no refusal's code")
        for publisher in shape.pins:
            self._refuse_unknown(publisher, self.known.publishers, (*place, "pins", publisher), "no publisher")
        for section, claims in (("claims", shape.claims or {}), ("changes", shape.changes)):
            self._refuse_days(claims, (*place, section))
        template = self._template(shape, templates, place)
        claims = self._claims(shape, template, place)
        return Case(
            name=name,
            file=self.findings.file,
            line=self.findings.line_of(place),
            path=written(place),
            claims=MappingProxyType(claims),
            at=template.at if shape.at is None and template is not None else shape.at,
            pins=shape.pins,
            scope=shape.scope,
            allow=frozenset(shape.allow or ()),
            refuse=shape.refuse or "",
        )

    def _one_of(self, fields: Mapping[str, Any], one: str, other: str, place: Place, remedy: str) -> None:
        if one in fields and other in fields:
            self.findings.add((*place, other), f"stands beside `{one}`", "Keep one of the two.")
        elif one not in fields and other not in fields:
            self.findings.add(place, f"has neither `{one}` nor `{other}`", remedy)

    def _template(
        self, shape: CaseShape, templates: Mapping[str, TemplateShape | None], place: Place
    ) -> TemplateShape | None:
        if shape.template is None:
            return None
        if shape.template in templates:
            return templates[shape.template]
        issuers = self.known.issuer_names
        known = None if issuers is None else issuers.union(templates)
        self._refuse_unknown(shape.template, known, (*place, "template"), "no template here, and no issuer")
        return TemplateShape(issuer=shape.template)

    def _claims(self, shape: CaseShape, template: TemplateShape | None, place: Place) -> dict[str, Any]:
        changes: dict[str, Any] = {**(template.changes if template else {}), **shape.changes}
        without = (*(template.without if template else ()), *shape.without)
        issuer = self.known.issuers.get(template.issuer) if template else None
        if issuer is None:
            claims = {**(shape.claims or {}), **changes}
        else:
            # An example is made for the issuer's own URL; another `iss` is put in after, and may be anything.
            example = issuer.provider.example({**_as_json(changes), "iss": issuer.url})
            claims = {**example, **({"iss": changes["iss"]} if "iss" in changes else {})}
        for at, name in enumerate(shape.without):
            if name not in claims and (issuer is not None or shape.claims is not None):
                remedy = self.findings.suggest(name, claims, "Remove it.")
                self.findings.add((*place, "without", at), f"is no claim here: {shown(name)}", remedy)
        return {name: value for name, value in _as_json(claims).items() if name not in without}

    def _refuse_unknown(self, name: str, known: Collection[str] | None, place: Place, what: str) -> None:
        if known is not None and name not in known:
            remedy = self.findings.suggest(name, known, "Correct the name.")
            self.findings.add(place, f"is {what}: {shown(name)}", remedy)

    def _refuse_days(self, value: Any, place: Place) -> None:
        """JSON has no days: a claim that looks like one is text."""
        if isinstance(value, date):
            self.findings.add(place, f"is a day, and a claim is none: {value}", f'Write "{value}" in quotes.')
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
        for step, one in inner:
            self._refuse_days(one, (*place, step))


def _as_json(value: Any) -> Any:
    """As a token's payload has it: lists where a file has tuples."""
    if isinstance(value, dict):
        return {key: _as_json(one) for key, one in value.items()}
    return [_as_json(one) for one in value] if isinstance(value, tuple | list) else value
