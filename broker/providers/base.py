"""What every provider is made of: an Identity (what a token says) and a Trust (what a policy may pin of it).

A provider is one file: a frozen `Identity` with its claims, a pydantic `Trust` with the fields of its publishers, the
table of rules that compares the two, `read`, which makes an Identity of Claims, and `example`, which makes the claims
of a valid run. No rule lives anywhere else.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel

from broker.patterns import RefGlob
from broker.tokens import UUID, Claims


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A CI identity: what a verified identity token says of the job, its source and its actor.

    Everything is text, a flag or None, so that an identity survives the journey through an upload token and is asked
    again at the upload. Names keep the form they were signed in; comparing folds them where the provider does.
    """

    issuer: str
    """The issuer's *name* in `index.yaml`: id 1001 of one instance is nobody on another."""
    subject: str
    """`sub` as signed: for the record, never parsed."""
    actor_id: str
    """The immutable id of who caused the run."""
    actor_name: str
    unattended: bool
    """Nobody pressed a button for this run: a schedule, a bot, a service account."""
    run: str
    """What the provider calls this run; for the record and for revocation by run."""

    lookup: ClassVar[str]
    """The field with the mutable name that publishers are found by."""
    owner: ClassVar[str]
    """The field with the immutable id of the source's owner: who may be told what a policy expected."""
    source: ClassVar[str]
    """The field with the immutable id of the source: what exchanges are counted by."""

    def as_claims(self) -> dict[str, str | bool]:
        """The identity, briefly, for an upload token or a record: what is None is left out."""
        kind = type(self)
        if kind not in _FIELDS:
            names = tuple(item.name for item in dataclasses.fields(self))
            _FIELDS[kind] = names, operator.attrgetter(*names)
        names, values_of = _FIELDS[kind]
        return {name: value for name, value in zip(names, values_of(self), strict=True) if value is not None}

    def told(self, name: str) -> Any:
        """What it says of the thing that a rule's `of` names."""
        return getattr(self, name)

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Self:
        """The reverse of `as_claims`, for claims that the broker signed itself.

        Raises:
            TypeError: fields are missing or unknown, as after an upgrade of the broker between mint and upload.
        """
        optional = {item.name: None for item in dataclasses.fields(cls) if "None" in str(item.type)}
        return cls(**{**optional, **claims})


_FIELDS: Final[dict[type, tuple[tuple[str, ...], Callable[[Identity], tuple[str | bool | None, ...]]]]] = {}
"""The fields of each kind of identity, and what gives all of their values at once: asked for with each exchange."""


class Kind(Enum):
    """What a rule compares, and so what it means when it fails."""

    NAME = "a mutable name; another name is another publisher"
    ID = "an immutable id; a mismatch under the right name means that the name changed hands"
    CONDITION = "a circumstance of the run"


@dataclass(frozen=True, slots=True)
class Rule:
    """One comparison of a publisher's field with an identity's.

    A field that a policy leaves out (None) asks nothing, but for NAME and ID rules, which always ask: an id may then
    come from the first use.
    """

    field: str
    of: str
    kind: Kind
    agrees: Callable[[Any, Any], bool]
    """Asked where the two are not equal, and always of flags: any other text that is equal agrees."""
    always: bool = False
    """Asks even where the policy leaves the field out: `agrees` then gets None."""


@dataclass(frozen=True, slots=True)
class Triggers:
    """Which field of a publisher lists what may start its runs, so that the index operator can narrow it."""

    field: str
    """A tuple of texts, with a default that is not empty."""
    safe: tuple[str, ...]
    """All that may stand in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """The first rule of a publisher that an identity does not fit."""

    rule: Rule
    expected: str
    actual: str

    def __str__(self) -> str:
        """For the audit record and for owners."""
        return f"{self.rule.field} is {self.actual}, expected {self.expected}"


def exact(expected: str, actual: object) -> bool:
    """Equal to the letter."""
    return expected == actual


def folded(expected: str, actual: object) -> bool:
    """Equal but for case. ASCII alone folds: 'K' (KELVIN SIGN) is not 'k' to any provider."""
    return isinstance(actual, str) and fold(expected) == fold(actual)


def one_of(expected: tuple[str, ...], actual: object) -> bool:
    """One of the listed, to the letter."""
    return actual in expected


def any_ref(expected: tuple[RefGlob, ...], actual: object) -> bool:
    """A ref that one of the globs fits."""
    return isinstance(actual, str) and any(glob.matches(actual) for glob in expected)


def same(expected: bool, actual: object) -> bool:
    """The same flag; an absent one is neither."""
    return expected is actual


_UPPER_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def fold(text: str) -> str:
    """Lower case, ASCII only: the form names are found by."""
    return text.lower() if text.isascii() else text.translate(_UPPER_TO_LOWER)


def _ref_glob(value: object) -> object:
    return RefGlob.parse(value) if isinstance(value, str) else value


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Text = Annotated[str, Field(min_length=1, max_length=500)]
DecimalId = Annotated[str, Field(pattern=r"^[0-9]{1,30}$", description="An immutable numeric id, in quotes.")]
UuidId = Annotated[str, Field(pattern=f"^{UUID}$", description="An immutable id: a UUID, in lower case.")]
_RefText = Annotated[str, Field(pattern=r"^refs/[^?\[\]{}\\]*$")]
Refs = Annotated[
    tuple[Annotated[RefGlob, BeforeValidator(_ref_glob, json_schema_input_type=_RefText)], ...],
    BeforeValidator(_as_tuple),
    Field(min_length=1, description="Globs on the full ref; `*` stops at `/`."),
]


_Reader = Callable[[Any], tuple[Any, ...]]

Impossible = Mapping[str, frozenset[object]]
"""Field of identities -> values, of which no run has one in each."""

HUMAN: Final[Impossible] = {"unattended": frozenset({False})}
"""Impossible where no human can start a run."""
MACHINE: Final[Impossible] = {"unattended": frozenset({True})}
"""Impossible where tokens do not tell runs without a human."""


class Trust(BaseModel):
    """What a publisher pins of a CI identity. Strict: an unknown field or another type is an error."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    issuer: Text = Field(description="The name of an issuer in index.yaml.")
    pin: Literal["first-use"] | None = Field(
        default=None,
        description="Instead of writing the ids: the first exchange that succeeds records them, later ones must equal.",
    )

    identity: ClassVar[type[Identity]]
    rules: ClassVar[tuple[Rule, ...]]
    """In the order they are asked: names, then ids, then conditions."""
    triggers: ClassVar[Triggers | None] = None
    """None where tokens do not say what started the run."""
    itself: ClassVar[str | None] = None
    """The field of identities that always equals `actor_id`, where a source is its own actor."""
    never: ClassVar[tuple[Impossible, ...]] = ()
    """What no run is at once. `broker plan` tells nothing of runs that cannot be."""

    def lookup(self) -> str:
        """The name that this publisher is found by, folded."""
        return fold(getattr(self, self.identity.lookup))

    def stated(self, name: str) -> Any:
        """What it pins in the field that a rule names; None where a policy leaves it out."""
        return getattr(self, name)

    @classmethod
    def unstated_ids(cls, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """The immutable ids that a publisher's entry leaves out, asked of the file: whatever else is wrong there."""
        return tuple(rule.field for rule in cls.rules if rule.kind is Kind.ID and rule.field not in fields)

    def machines_only(self) -> bool:
        """Whether only runs without a human can match this publisher, so that its actors must be machines."""
        return any(self._always(one) for one in self.never if False in one.get("unattended", ()))

    def _always(self, impossible: Mapping[str, frozenset[object]]) -> bool:
        """Whether all runs that match have these values, whoever started them."""
        fields = {rule.of: rule.field for rule in self.rules}
        return all(values.issuperset(self.stated(fields[of])) for of, values in impossible.items() if of in fields)

    def only_actor(self) -> str | None:
        """The immutable id of the one actor that can match, where the publisher says it."""
        field = next((rule.field for rule in self.rules if rule.of == self.itself), None)
        return None if field is None else self.stated(field)

    def missing_ids(self) -> tuple[str, ...]:
        """The immutable ids that this publisher does not state: without `pin`, it must not load."""
        return tuple(rule.field for rule in self.rules if rule.kind is Kind.ID and self.stated(rule.field) is None)

    def compare(self, identity: Identity, pins: Mapping[str, str]) -> Mismatch | None:
        """The first rule that the identity does not fit, or None; another issuer, or another kind of one, fits none.

        Args:
            pins: For `pin: first-use`, what was recorded: field -> id. A field without a record fits any id.
        """
        # An issuer may have changed its kind since the upload token was minted that this identity comes from.
        if identity.issuer != self.issuer or not isinstance(identity, self.identity):
            return Mismatch(rule=_ISSUER, expected=_shown(self.issuer), actual=_shown(identity.issuer))
        all_stated, all_told = _readers_of(type(self))
        for rule, stated, actual in zip(self.rules, all_stated(self), all_told(identity), strict=True):
            expected = stated
            if stated is None and not rule.always:
                if rule.kind is not Kind.ID:
                    continue
                # With neither id nor `pin`, a publisher does not load; one that is here all the same fits nobody.
                expected = pins.get(rule.field) if self.pin else None
                if expected is None and self.pin:
                    continue
            # What is equal agrees, but for flags: 1 equals True.
            if (expected != actual or isinstance(expected, bool)) and not rule.agrees(expected, actual):
                return Mismatch(rule=rule, expected=_shown(expected), actual=_shown(actual))
        return None

    def pins_of(self, identity: Identity) -> dict[str, str]:
        """The ids of this identity that a first use records."""
        if self.pin is None:
            return {}
        of = {rule.field: rule.of for rule in self.rules}
        return {name: identity.told(of[name]) for name in self.missing_ids()}


@functools.lru_cache(maxsize=256)
def _readers_of(kind: type[Trust]) -> tuple[_Reader, _Reader]:
    """What gives `stated` of a publisher, and `told` of an identity, for all rules of a kind in their order."""
    fields, ofs = [rule.field for rule in kind.rules], [rule.of for rule in kind.rules]
    identity = kind.identity
    return (
        operator.attrgetter(*fields)
        if kind.stated is Trust.stated and len(fields) > 1
        else lambda publisher: tuple(map(publisher.stated, fields)),
        operator.attrgetter(*ofs)
        if identity.told is Identity.told and len(ofs) > 1
        else lambda run: tuple(map(run.told, ofs)),
    )


_ISSUER = Rule("issuer", "issuer", Kind.NAME, exact)


def _shown(value: object) -> str:
    if value is None:
        return "absent"
    if isinstance(value, tuple):
        return " or ".join(map(repr, map(str, value)))
    return repr(str(value)) if not isinstance(value, bool) else str(value).lower()


class NumberedMember(RootModel[str]):
    """A member's id where the provider numbers its actors."""

    model_config = ConfigDict(strict=True, frozen=True)

    root: str = Field(
        pattern=r"^(?:0|[1-9][0-9]{0,29})$", description="Write the provider's immutable id, a number, in quotes."
    )


class UuidMember(RootModel[str]):
    """A member's id where the provider's actors have UUIDs."""

    model_config = ConfigDict(strict=True, frozen=True)

    root: str = Field(pattern=f"^{UUID}$", description="Write the provider's immutable id, a UUID, in lower case.")


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlForm:
    """What an issuer's URL looks like where each operator has their own."""

    pattern: str
    """What it must fit, whole."""
    example: str


class Declaration(BaseModel, ABC):
    """What an index operator declares of one issuer's claims, where the provider alone does not know them."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @abstractmethod
    def provider(self) -> Provider:
        """The provider of that issuer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A kind of issuer, and all that the broker knows about it."""

    name: str
    issuer: str | None
    """The URL of its public instance; None where each operator has their own."""
    trust: type[Trust]
    read: Callable[[Claims, str, str], Identity]
    """Makes an identity of claims, the issuer's name and the issuer's URL. Raises refusals."""
    example: Callable[[Mapping[str, object]], dict[str, Any]]
    """Makes the claims of a valid run, with changes by the claims' names, as `examples.py` has them."""
    longest_token_seconds: int
    """The longest life its tokens have in practice; `longest_token` in index.yaml changes it."""
    member_id: type[RootModel[str]] = NumberedMember
    """The form of its actors' ids: what policies write for members."""
    url_form: UrlForm | None = None
    """None where any URL may be that of its issuer."""
    declaration: type[Declaration] | None = None
    """What index.yaml must say of the claims of each issuer of this kind; None where the provider knows them."""
    replay: Literal["strict", "same-token"] = "strict"
    """What a second exchange of one identity token gets, unless index.yaml says otherwise."""
