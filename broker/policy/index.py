"""`index.yaml`: which issuers the operator trusts, how long upload tokens live, who may hold which names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from broker.patterns import Projects
from broker.policy.ceilings import Bound, Ceilings, compile_ceilings, refuse_lifetime, stands
from broker.policy.errors import Findings, Place, shown
from broker.policy.freezes import read_freezes
from broker.policy.holdings import Holdings, declared_names, entries, read_namespaces, read_patterns, texts
from broker.policy.issuers import compile_issuer
from broker.policy.model import Freeze, Issuer
from broker.policy.shapes import AllotmentShape, IndexFreezeShape, IndexShape, LifetimeShape
from broker.policy.validation import validate
from broker.providers import PROVIDERS, Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """An issuer's name as organizations may refer to it, also where its entry has mistakes."""

    provider: Provider | None
    """None where the entry does not say it."""
    organizations: frozenset[str] | None
    """None where all may bind to it, or the entry does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What `index.yaml` says, as far as it can be read."""

    declared: Mapping[str, Declared] | None = None
    """None where the file cannot be read: then nothing can be said of references to issuers."""
    issuers: Mapping[str, Issuer] = field(default_factory=dict)
    allotments: Mapping[str, Holdings[str] | None] | None = None
    """What each organization may hold; None where names are not allotted, or for one whose entry has mistakes."""
    default_lifetime_seconds: int = 900
    longest_lifetime_seconds: int = 3600
    lifetime: Bound[int] | None = None
    """Of upload tokens, in seconds, where nothing else is said; None where that cannot be read."""
    freezes: tuple[tuple[Freeze, frozenset[str] | None], ...] = ()
    """The operator's, each with the organizations that it is for; None is all."""
    everybodys: Ceilings = field(default_factory=Ceilings)
    ceilings: Mapping[str, Ceilings] = field(default_factory=dict)
    """Of each organization that has some of its own; those of everybody are in them."""

    def ceilings_of(self, organization: str) -> Ceilings:
        """How far this organization's file may go."""
        return self.ceilings.get(organization, self.everybodys)

    def freezes_of(self, organization: str) -> tuple[Freeze, ...]:
        """The operator's freezes that are for this organization."""
        return tuple(freeze for freeze, only in self.freezes if only is None or organization in only)

    def for_organizations(self) -> Index:
        """What the compilation of organizations may ask. The rest changes without compiling any of them again."""
        nothing = Index()
        return replace(
            self,
            issuers=nothing.issuers,
            default_lifetime_seconds=nothing.default_lifetime_seconds,
            longest_lifetime_seconds=nothing.longest_lifetime_seconds,
        )

    def shared(self, before: Index) -> Index:
        """The same, with each value that is equal taken from `before`: so `is` tells what changed."""
        # Where a ceiling stands is told to those who go beyond it, and is no part of its being equal.
        told = {name for name in _BOUNDS if repr(getattr(self, name)) != repr(getattr(before, name))}
        equal = [name for name in self.__slots__ if name not in told and getattr(self, name) == getattr(before, name)]
        if len(equal) == len(self.__slots__):
            return before
        return replace(self, **{name: getattr(before, name) for name in equal})

    def says_the_same(self, before: Index, organization: str, issuers: Iterable[str]) -> bool:
        """Whether an organization without a mistake, compiled beside `before`, is compiled to the same beside this.

        Args:
            before: What this was `shared` with, or something older.
            issuers: All that the organization refers to.
        """
        if self == Index():  # the file cannot be read: it finds no mistake, and nothing is granted by it
            return True
        others = (name for name in self.__slots__ if name not in {"declared", "allotments", "freezes", *_BOUNDS})
        return (
            all(getattr(self, name) is getattr(before, name) for name in others)
            and self._bounds_the_same(before, organization)
            and self._declares_the_same(before, issuers)
            and self._allots_the_same(before, organization)
        )

    def _bounds_the_same(self, before: Index, organization: str) -> bool:
        return (
            self.lifetime == before.lifetime
            and self.ceilings_of(organization) == before.ceilings_of(organization)
            and (self.freezes is before.freezes or self.freezes_of(organization) == before.freezes_of(organization))
        )

    def _declares_the_same(self, before: Index, issuers: Iterable[str]) -> bool:
        if self.declared is None or self.declared is before.declared:
            return True
        told = before.declared
        return told is not None and all(self.declared.get(issuer) == told.get(issuer) for issuer in issuers)

    def _allots_the_same(self, before: Index, organization: str) -> bool:
        if self.allotments is None or self.allotments is before.allotments:
            return True
        nothing: Holdings[str] = Holdings()
        allotted = self.allotments.get(organization, nothing)
        told = None if before.allotments is None else before.allotments.get(organization, nothing)
        return allotted is None or allotted == told

    def provider_of(self, issuer: str) -> Provider | None:
        """The kind of a declared issuer, where it can be read."""
        declared = (self.declared or {}).get(issuer)
        return None if declared is None else declared.provider

    def binds(
        self, issuer: str, organization: str, place: Place, findings: Findings, *, fields: Iterable[str] = ()
    ) -> bool:
        """Whether an organization may refer to an issuer of this name; what speaks against it is noted.

        Args:
            fields: What else could have been meant where the issuer's name is a key.
        """
        if self.declared is None:
            return True
        declared = self.declared.get(issuer)
        if declared is None:
            what = "is no field here, and no issuer in index.yaml" if fields else "names no issuer in index.yaml"
            names = (*fields, *self.declared)
            findings.add(place, f"{what}: {shown(issuer)}", findings.suggest(issuer, names, "Ask the index operator."))
        elif declared.organizations is not None and organization not in declared.organizations:
            what = f"refers to the issuer {issuer!a}, which {organization!a} may not bind to"
            findings.add(place, what, "Ask the index operator to add it to the issuer's `organizations`.")
        else:
            return True
        return False


_BOUNDS: Final = ("lifetime", "everybodys", "ceilings")


def compile_index(
    values: Mapping[str, Any], findings: Findings, organizations: Iterable[str], *, allow_loopback: bool
) -> Index:
    """Compiles the file's values, and notes every mistake in them.

    Args:
        organizations: Those that have a file, well written or not.
    """
    validate(IndexShape, values, (), findings)
    issuers: dict[str, Issuer] = {}
    by_url: dict[str, str] = {}
    known = {*organizations, *entries(values, "organizations")}
    for name, fields in entries(values, "issuers").items():
        _refuse_strangers(fields, ("issuers", name), known, findings)
        issuer = compile_issuer(name, fields, findings, allow_loopback=allow_loopback)
        if issuer is None:
            continue
        issuers[name] = issuer
        other = by_url.setdefault(issuer.url, name)
        if other != name:
            place = ("issuers", name, "url" if "url" in fields else "provider")
            line = findings.line_of(("issuers", other))
            what = f"has the same URL as the issuer {other!a} on line {line}: {shown(issuer.url)}"
            findings.add(place, what, "Keep one of the two: a token names its issuer by its URL alone.")
    declared, lifetime = _declared(values, issuers, findings), _lifetime(values, findings)
    default, longest = (_bound(name, lifetime, findings) for name in ("default", "longest"))
    everybodys, ceilings = compile_ceilings(values, findings, issuers=declared, organizations=known, longest=longest)
    return Index(
        declared=declared,
        issuers=issuers,
        allotments=_allotments(values, findings),
        default_lifetime_seconds=lifetime.default,
        longest_lifetime_seconds=lifetime.longest,
        lifetime=default,
        freezes=tuple(_freezes(values, findings, known)),
        everybodys=everybodys,
        ceilings=ceilings,
    )


def _declared(
    values: Mapping[str, Any], issuers: Mapping[str, Issuer], findings: Findings
) -> dict[str, Declared] | None:
    names, found = declared_names(values, "issuers", findings), entries(values, "issuers")
    if names is None:
        return None
    declared: dict[str, Declared] = {}
    for name in names:
        fields = found.get(name, {})
        only = frozenset(text for _, text in texts(fields, "organizations", ()))
        declared[name] = Declared(
            provider=issuers[name].provider if name in issuers else _kind(fields.get("provider")),
            organizations=only if "organizations" in fields else None,
        )
    return declared


def _kind(name: object) -> Provider | None:
    """The provider of an issuer whose entry has mistakes; None where it takes the whole entry to tell."""
    kind = PROVIDERS.get(name) if isinstance(name, str) else None
    return None if kind is None or kind.declaration is not None else kind


def _refuse_strangers(fields: Mapping[str, Any], place: Place, known: Collection[str], findings: Findings) -> None:
    for where, text in texts(fields, "organizations", place):
        if text not in known:
            what = f"names an organization that is not there: {shown(text)}"
            findings.add(where, what, findings.suggest(text, known, "Add its file to organizations/ first."))


def _freezes(
    values: Mapping[str, Any], findings: Findings, known: Collection[str]
) -> Iterator[tuple[Freeze, frozenset[str] | None]]:
    for freeze, shape, place in read_freezes(IndexFreezeShape, values, findings, by_operator=True):
        only = shape.organizations
        _refuse_strangers({"organizations": only}, place, known, findings)
        yield freeze, None if only is None else frozenset(only)


def _lifetime(values: Mapping[str, Any], findings: Findings) -> LifetimeShape:
    """What the file says; with mistakes in it, what holds where it says nothing."""
    fields = values.get("lifetime", {})
    shape = validate(LifetimeShape, fields, ("lifetime",), findings) if isinstance(fields, dict) else None
    if shape is None:
        return LifetimeShape()
    for name in ("default", "longest"):
        refuse_lifetime(getattr(shape, name), None, ("lifetime", name), findings)
    if shape.default > shape.longest:
        what = f"is longer than `longest`, which is {shape.longest} seconds"
        findings.add(("lifetime", "default"), what, "Shorten it, or write a longer `longest`.")
    return shape


def _bound(name: str, lifetime: LifetimeShape, findings: Findings) -> Bound[int] | None:
    """What stands above organizations; None where it has mistakes, of which theirs would only follow."""
    if findings.within(("lifetime",)):
        return None
    return Bound(getattr(lifetime, name), stands(("lifetime", name), findings))


def _allotments(values: Mapping[str, Any], findings: Findings) -> dict[str, Holdings[str] | None] | None:
    if not isinstance(values.get("organizations"), dict):
        return None
    allotments: dict[str, Holdings[str] | None] = {}
    allotted: list[tuple[Projects, Place, str]] = []
    everything: Holdings[tuple[str, Place]] = Holdings()
    for name, fields in entries(values, "organizations").items():
        place: Place = ("organizations", name)
        validate(AllotmentShape, fields, place, findings)
        found = [*read_namespaces(fields, place, findings), *read_patterns(fields, "projects", place, findings)]
        holdings: Holdings[str] = Holdings()
        for pattern, where in found:
            holdings.record(pattern, name)
            everything.record(pattern, (name, where))
            allotted.append((pattern, where, name))
        allotments[name] = None if findings.within(place) else holdings
    for pattern, where, name in allotted:
        _refuse_overlap(pattern, where, name, everything, findings)
    return allotments


def _refuse_overlap(
    pattern: Projects, where: Place, name: str, everything: Holdings[tuple[str, Place]], findings: Findings
) -> None:
    for other, elsewhere in everything.covering(pattern):
        if other != name:
            what = f"allots {pattern}, and line {findings.line_of(elsewhere)} allots it to {other!a}"
            findings.add(where, what, "Allot it to one: two organizations never hold overlapping names.")
            return
