"""The fields of policy files, as pydantic models: strict, frozen, and without a field that is not named here.

They hold what stands in a file, one entry at a time. What it means together is compiled in `index.py` and
`organizations.py`; a publisher's other fields are its provider's `Trust`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel, create_model

from broker.patterns import Projects
from broker.policy.model import Replay, Role
from broker.providers import PROVIDERS, Kind
from broker.tokens import ASYMMETRIC

NAME: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
LONGEST_PROJECT: Final = 200
"""Characters of a project's name or pattern."""
MEMBER_ID: Final = r"^[!-~]{1,255}$"
_KINDS: Final = " or ".join(", ".join(PROVIDERS).rsplit(", ", 1))
"""'github, gitlab or google'"""

_DURATION = re.compile(r"([1-9][0-9]{0,6})([smh])")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:Z|[+-][0-9]{2}:[0-9]{2})")
_YEARS: Final = range(2000, 3000)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


def is_name(text: str) -> bool:
    """Whether an organization, member, team, publisher or issuer can be called so."""
    return re.fullmatch(NAME, text) is not None


def seconds(text: object) -> int:
    """'15m' -> 900.

    Raises:
        ValueError: no whole number with one of the units.
    """
    parts = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if parts is None:
        raise ValueError("write a whole number of seconds, minutes or hours: 900s, 15m, 1h")
    return int(parts[1]) * _SECONDS[parts[2]]


def moment(value: object) -> date:
    """A day as it is; '2026-12-20T18:00:00Z' as a datetime with its zone.

    Raises:
        ValueError: neither; or of a year that nobody means.
    """
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) and _MOMENT.fullmatch(value) else value
    except ValueError:
        found = None
    if not isinstance(found, date) or found.year not in _YEARS:
        raise ValueError("write a day, 2026-12-20, or a moment with its zone, 2026-12-20T18:00:00Z")
    return found


def pattern(text: str) -> Projects:
    """'acme-*' as Projects.

    Raises:
        ValueError: as `Projects.parse`; also where it is too long.
    """
    if len(text) > LONGEST_PROJECT:
        raise ValueError(f"a name is longer than {LONGEST_PROJECT} characters")
    return Projects.parse(text)


def _signatures(names: tuple[str, ...]) -> tuple[str, ...]:
    if unsafe := [name for name in names if name not in ASYMMETRIC]:
        raise ValueError(f"an issuer cannot be trusted with {unsafe[0]!a}; write some of {', '.join(ASYMMETRIC)}")
    return names


Name = Annotated[str, Field(pattern=NAME)]
Duration = Annotated[
    int, BeforeValidator(seconds, json_schema_input_type=Annotated[str, Field(pattern=f"^{_DURATION.pattern}$")])
]
Pattern = Annotated[
    Projects,
    BeforeValidator(lambda value: pattern(value) if isinstance(value, str) else value, json_schema_input_type=str),
]
Moment = Annotated[date | datetime, BeforeValidator(moment, json_schema_input_type=date | str)]
Entry = dict[str, Any]
"""The fields of a member, a publisher and so on, to be looked at one by one, so that one's mistake hides no other's."""


MOST_FREEZES: Final = 100
"""In one file: each exchange asks them all."""
Freezes = Annotated[
    tuple[Entry, ...], Field(max_length=MOST_FREEZES, description="Times in which nothing is published: at most 100.")
]

IDS: Final = "ids"
"""In `required`: all immutable ids of the publisher's provider, stated, so that none is pinned by the first use."""


class Shape(BaseModel):
    """What every model of a policy file has in common."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", arbitrary_types_allowed=True)


class IndexShape(Shape):
    """`index.yaml`: the index operator's."""

    issuers: dict[Name, Entry] = Field(min_length=1, description="The OIDC providers that the operator trusts.")
    lifetime: Entry = Field(default={}, description="How long upload tokens live.")
    organizations: dict[Name, Entry] | None = Field(
        default=None, description="The names that each organization may hold; no organization then holds others."
    )
    freezes: Freezes = ()
    ceilings: Entry = Field(default={}, description="How far organizations' files may go.")


class IssuerShape(Shape):
    """One issuer in `index.yaml`."""

    provider: str = Field(description=f"What kind it is: {_KINDS}.")
    url: str | None = Field(default=None, description="What its tokens say in `iss`, to the letter.")
    claims: Entry | None = Field(default=None, description="For `generic` alone: what its claims mean.")
    disabled: bool = Field(default=False, description="Switched off: its tokens are refused while this is true.")
    replay: Replay | None = Field(default=None, description="What a second exchange of one identity token gets.")
    algorithms: Annotated[tuple[str, ...], AfterValidator(_signatures)] = Field(
        default=("RS256",), min_length=1, description="The only signature algorithms its tokens may use."
    )
    longest_token: Duration | None = Field(default=None, description="The longest life of an identity token.")
    organizations: tuple[Name, ...] | None = Field(default=None, description="The only ones that may bind to it.")


class LifetimeShape(Shape):
    """`lifetime` in `index.yaml`."""

    default: Duration = Field(default=900, description="How long an upload token lives, 15m to 6h.")
    longest: Duration = Field(default=3600, description="The longest life that may be asked for, 15m to 6h.")


class AllotmentShape(Shape):
    """One organization in `index.yaml`: the names that it may hold."""

    namespaces: tuple[str, ...] = Field(default=(), description="`acme` allots `acme` and `acme-*` (PEP 752).")
    projects: tuple[str, ...] = Field(default=(), description="Projects by name, or by prefix as in `acme-*`.")


class OrganizationShape(Shape):
    """`organizations/<name>.yaml`: the organization's admins'."""

    organization: str = Field(description="The organization's name, as the file is called.")
    suspended: bool = Field(
        default=False, description="Nobody publishes or reads for the organization while this is true."
    )
    namespaces: tuple[str, ...] = Field(default=(), description="`acme` means `acme` and `acme-*` (PEP 752).")
    members: dict[Name, Entry] = Field(default={}, description="The people and machines that belong to it.")
    teams: dict[Name, tuple[str, ...]] = Field(
        default={}, description="Members under one name, for `upload` and `download`."
    )
    projects: dict[str, Entry] = Field(default={}, description="Who may upload to what, and who may read it.")
    publishers: dict[Name, Entry] = Field(default={}, description="The CI identities that may publish or read for it.")
    freezes: Freezes = ()
    lifetime: Duration | None = Field(default=None, description="How long its upload tokens live: less than others'.")


class MemberShape(Shape):
    """One member, without their ids, which are keyed by the names of issuers."""

    role: Role = Field(description="owner, member or billing-manager.")
    machine: bool = Field(default=False, description="True for what runs without a human: schedules, bots, accounts.")
    suspended: bool = Field(default=False, description="Their runs publish and read nothing while this is true.")
    until: date | None = Field(default=None, description="The last day (UTC) of the membership.")


class MemberId(RootModel[str]):
    """A member's id at one issuer, of any kind: each kind has a narrower form, its provider's `member_id`."""

    model_config = ConfigDict(strict=True, frozen=True)

    root: str = Field(pattern=MEMBER_ID, description="Write the issuer's immutable id, in quotes.")


class ProjectShape(Shape):
    """One entry of `projects`: who may upload, and who may read."""

    upload: tuple[str, ...] = Field(default=(), description="Members, and teams as `team:core`. They may read it too.")
    download: tuple[str, ...] = Field(default=(), description="Who else may read it: likewise.")


class PublisherShape(Shape):
    """The fields that every publisher has beside those of its provider."""

    issuer: str = Field(description="The name of an issuer in index.yaml.")
    projects: tuple[Pattern, ...] = Field(
        default=(), min_length=1, description="What it may publish, and read; left out where it only reads."
    )
    downloads: tuple[Pattern, ...] = Field(default=(), min_length=1, description="What else it may read.")
    until: date | None = Field(default=None, description="The last day (UTC) on which it counts.")


class FreezeShape(Shape):
    """One entry of `freezes`: nothing is published meanwhile."""

    reason: str = Field(
        min_length=1, max_length=200, description="Say why: whoever wants to publish meanwhile reads it."
    )
    from_: Moment | None = Field(default=None, alias="from", description="The first day (UTC) or moment; without: now.")
    until: Moment | None = Field(
        default=None, description="The last day (UTC), or the moment when it is over; without: until it is removed."
    )


class IndexFreezeShape(FreezeShape):
    """One entry of `freezes` in `index.yaml`."""

    organizations: tuple[Name, ...] | None = Field(default=None, min_length=1, description="The only ones it is for.")


class LevelShape(Shape):
    """What `ceilings` says at either level, without the lists that are some provider's."""

    lifetime: Duration | None = Field(default=None, description="The longest life of an upload token.")
    issuers: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The only issuers that publishers may bind to."
    )
    required: tuple[str, ...] = Field(
        default=(), description="Fields that each publisher must state; `ids` means its immutable ids."
    )


def _triggers() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for triggers in (one.trust.triggers for one in PROVIDERS.values()):
        if triggers is not None:
            found[triggers.field] = tuple(dict.fromkeys((*found.get(triggers.field, ()), *triggers.safe)))
    return found


TRIGGERS: Final = _triggers()
"""Each field that lists triggers in the publishers of some provider -> all that may stand in it."""
_LISTED: Final = Field(default=None, min_length=1, description="The only ones that publishers may list.")
_LISTS: Final[dict[str, Any]] = dict.fromkeys(TRIGGERS, (tuple[str, ...] | None, _LISTED))

CeilingShape: Final = create_model(
    "CeilingShape", __base__=LevelShape, __doc__="How far the file of one organization may go.", **_LISTS
)
CeilingsShape: Final = create_model(
    "CeilingsShape",
    __base__=CeilingShape,
    __doc__="How far the files of all organizations may go; and, narrower, that of each.",
    organizations=(dict[Name, Entry], Field(default={}, description="Narrower ones for some organizations.")),
)


def _requirable() -> Iterator[str]:
    yield IDS
    given = {"projects", "downloads"}  # to require these would widen what a publisher gives
    yield from (n for n, field in PublisherShape.model_fields.items() if not field.is_required() and n not in given)
    for trust in (one.trust for one in PROVIDERS.values()):
        apart = {"pin", *(rule.field for rule in trust.rules if rule.kind is Kind.ID)}
        yield from (name for name, field in trust.model_fields.items() if not field.is_required() and name not in apart)


REQUIRABLE: Final = tuple(dict.fromkeys(_requirable()))
"""What `required` may name: what a publisher of some provider may leave out."""
