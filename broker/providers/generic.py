"""Any OIDC issuer: the index operator declares in `index.yaml` which of its claims mean what.

What other providers know of their claims, nobody knows of these: so the operator vouches for it, once for each issuer
(`GenericDeclaration`), and publishers bind the declared claims alone, to the letter. Nothing here knows which runs an
outsider can cause: an issuer that signs for such runs needs a condition that tells them apart, and publishers that bind
it.
Claims: https://openid.net/specs/openid-connect-core-1_0.html#IDToken (read 2026-11).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import ConfigDict, Field, RootModel, create_model, field_validator, model_validator

from broker.providers import examples
from broker.providers.base import (
    HUMAN,
    MACHINE,
    Declaration,
    Identity,
    Kind,
    Provider,
    Rule,
    Text,
    Trust,
    exact,
    fold,
)
from broker.tokens import Claims

MOST_CLAIMS: Final = 16
"""That an issuer's publishers may bind: an upload token carries each."""

_OF_THE_TOKEN: Final = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti"})
"""Claims that say nothing of the run."""

_PREFIX: Final = "claims."
"""Before a claim's name where it stands among an identity's own fields: none of those has a dot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenericIdentity(Identity):
    """A run of whatever the issuer signs for."""

    name: str
    """The declared name of the source: what publishers are found by."""
    source_id: str
    """The first of the declared immutable ids."""
    declaration: str
    """Which declaration it was read by. An upload token that was minted under another fits no publisher."""
    claims: tuple[tuple[str, str], ...]
    """The other declared claims that the token has, by name."""

    lookup: ClassVar[str] = "name"
    owner: ClassVar[str] = "source_id"
    source: ClassVar[str] = "source_id"

    def told(self, name: str) -> Any:
        """A field, or 'claims.ref' for the claim `ref`; None where the token has no such claim."""
        if name.startswith(_PREFIX):
            return dict(self.claims).get(name.removeprefix(_PREFIX))
        return getattr(self, name)

    def as_claims(self) -> dict[str, str | bool]:
        """The identity, briefly and flat: each claim as 'claims.<name>'."""
        own = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "claims"}
        return {**own, **{f"{_PREFIX}{name}": value for name, value in self.claims}}

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Self:
        """The reverse of `as_claims`.

        Raises:
            TypeError: fields are missing or unknown.
        """
        bound = tuple((name.removeprefix(_PREFIX), told) for name, told in claims.items() if name.startswith(_PREFIX))
        own = {name: told for name, told in claims.items() if not name.startswith(_PREFIX)}
        return cls(**own, claims=bound)


class GenericTrust(Trust):
    """A publisher of an issuer whose claims the index operator declared. Undeclared, it fits nobody."""

    claims: dict[str, Text] = Field(description="Claims that index.yaml declares, each compared to the letter.")

    identity: ClassVar[type[Identity]] = GenericIdentity
    declaration: ClassVar[str | None] = None
    rules: ClassVar[tuple[Rule, ...]] = (Rule("declaration", "declaration", Kind.CONDITION, exact, always=True),)

    @field_validator("claims")
    @classmethod
    def _has_the_name(cls, value: dict[str, str]) -> dict[str, str]:
        missing = [_bare(rule.field) for rule in cls.rules if rule.kind is Kind.NAME and _bare(rule.field) not in value]
        if missing:
            raise ValueError(f"does not bind {missing[0]!a}, the claim that publishers are found by; add it")
        return value

    def __hash__(self) -> int:
        """As other publishers can be hashed, although a mapping cannot."""
        return hash(frozenset(self.claims.items()))

    def lookup(self) -> str:
        """The name that this publisher is found by, folded."""
        return fold(self.stated(self.rules[0].field))

    def stated(self, name: str) -> Any:
        """A field, or 'claims.ref' for what it binds the claim `ref` to."""
        return self.claims.get(_bare(name)) if name.startswith(_PREFIX) else getattr(self, name)

    @classmethod
    def unstated_ids(cls, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """The immutable ids that a publisher's entry leaves out."""
        bound = fields.get("claims")
        ids = (rule.field for rule in cls.rules if rule.kind is Kind.ID)
        return tuple(name for name in ids if not isinstance(bound, dict) or _bare(name) not in bound)


def _bare(field: str) -> str:
    """'claims.ref' -> 'ref'."""
    return field.removeprefix(_PREFIX)


class GenericMember(RootModel[str]):
    """A member's id: what the declared claim says of the actor, whatever its form."""

    model_config = ConfigDict(strict=True, frozen=True)

    root: str = Field(
        min_length=1, max_length=500, description="Write what the issuer's tokens say of the actor, in quotes."
    )


ClaimName = Annotated[str, Field(min_length=1, max_length=200)]


class GenericDeclaration(Declaration):
    """What the claims of one issuer mean: `claims` in `index.yaml`."""

    name: ClaimName = Field(description="The claim with the source's name, such as repository.")
    ids: tuple[ClaimName, ...] = Field(
        min_length=1,
        description="Claims that stay what they are when names change hands; publishers bind them all.",
    )
    conditions: tuple[ClaimName, ...] = Field(default=(), description="Claims that publishers may bind besides.")
    actor: ClaimName = Field(description="The claim with the immutable id of who caused the run: members' id.")
    actor_name: ClaimName | None = Field(default=None, description="The claim with their name, for the record.")
    run: ClaimName | None = Field(default=None, description="The claim that names the run, for the record.")
    unattended: bool = Field(
        default=True, description="Whether runs have no human behind them, so that members must be machines."
    )

    @field_validator("*")
    @classmethod
    def _of_the_run(cls, value: object) -> object:
        names = value if isinstance(value, tuple) else (value,)
        if useless := [name for name in names if name in _OF_THE_TOKEN]:
            raise ValueError(f"{useless[0]} says nothing of the run; write a claim that does")
        return value

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        others = (*self.ids, *self.conditions)
        if len(set(others)) < len(others) or self.name in self.conditions:
            raise ValueError("declares a claim twice among name, ids and conditions; write each once")
        if len(self.bound()) > MOST_CLAIMS:
            raise ValueError(f"declares {len(self.bound())} claims; write {MOST_CLAIMS} at most")
        return self

    def bound(self) -> tuple[str, ...]:
        """The claims that publishers may bind. Where the name itself stays, it is an id too."""
        return tuple(dict.fromkeys((self.name, *self.ids, *self.conditions)))

    @property
    def hash(self) -> str:
        """Another declaration has another."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def provider(self) -> Provider:
        """The provider of the one issuer that it is declared of."""
        return _provider_of(self)

    def read(self, claims: Claims, issuer: str, url: str) -> GenericIdentity:
        """Reads a run's claims.

        Raises:
            MissingClaim, InvalidClaim: a declared claim is no text, or one that must be there is absent.
        """
        del url
        subject, actor = claims.text("sub"), claims.text(self.actor)
        first, *others = self.ids
        told = {name: claims.text(name) for name in others}
        told |= {name: value for name in self.conditions if (value := claims.optional_text(name)) is not None}
        return GenericIdentity(
            issuer=issuer,
            subject=subject,
            actor_id=actor,
            actor_name=actor if self.actor_name is None else claims.text(self.actor_name),
            unattended=self.unattended,
            run=subject if self.run is None else claims.text(self.run),
            name=claims.text(self.name),
            source_id=claims.text(first),
            declaration=self.hash,
            claims=tuple(told.items()),
        )

    def rules(self) -> tuple[Rule, ...]:
        """How an issuer's publishers are compared with its runs."""
        first, *others = self.ids
        return (
            Rule(f"{_PREFIX}{self.name}", "name", Kind.NAME, exact),
            Rule(f"{_PREFIX}{first}", "source_id", Kind.ID, exact),
            *(Rule(f"{_PREFIX}{name}", f"{_PREFIX}{name}", Kind.ID, exact) for name in others),
            *(Rule(f"{_PREFIX}{name}", f"{_PREFIX}{name}", Kind.CONDITION, exact) for name in self.conditions),
            *GenericTrust.rules,
        )

    def example(self, changes: Mapping[str, object]) -> dict[str, Any]:
        """A run of `<claim>-example` in each declared claim. Changes: see `examples.py`."""
        named = (self.actor, self.actor_name, self.run, *self.bound(), "sub")
        issued_at = examples.issued_at(changes)
        claims: dict[str, Any] = {
            **{name: f"{name}-example" for name in named if name is not None},
            "iss": "https://ci.example",
            "aud": examples.AUDIENCE,
            "iat": issued_at,
            "exp": issued_at + 300,
        }
        return examples.changed(claims, changes)


@functools.lru_cache(maxsize=64)  # each reload asks again, and a model is slow to make
def _provider_of(declaration: GenericDeclaration) -> Provider:
    names = Literal[declaration.bound()]  # type: ignore[valid-type] # made of what the operator declares
    claims = (dict[names, Text], Field(description=GenericTrust.model_fields["claims"].description))  # type: ignore[valid-type] # likewise
    trust = create_model("DeclaredTrust", __base__=GenericTrust, claims=claims)
    trust.declaration, trust.rules = declaration.hash, declaration.rules()
    trust.never = (HUMAN if declaration.unattended else MACHINE,)
    trust.itself = next((rule.of for rule in trust.rules if _bare(rule.field) == declaration.actor), None)
    return dataclasses.replace(
        PROVIDER, trust=trust, read=declaration.read, example=declaration.example, declaration=None
    )


_EXAMPLE: Final = GenericDeclaration(
    name="repository", ids=("repository_id",), conditions=("ref",), actor="actor_id", actor_name="actor"
)

PROVIDER = Provider(
    name="generic",
    issuer=None,
    trust=GenericTrust,
    read=_EXAMPLE.read,
    example=_EXAMPLE.example,
    longest_token_seconds=3600,
    member_id=GenericMember,
    declaration=GenericDeclaration,
)
"""The kind. Each issuer of it has a provider of its own, made of its declaration; this one's publishers fit nobody."""
