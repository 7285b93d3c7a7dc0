"""One record an attempt: who asked, what was known by then, what was decided and why. Never a credential.

`Attempt` is the one mutable value of an exchange or upload: a notebook, so that a refusal keeps what was known when it
was made. `Record` is what is stored of it. The format is versioned by `RECORD_VERSION`; fields are only ever added.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from time import perf_counter
from typing import Any, Final, Literal

from broker import ascii_json
from broker.addresses import NOWHERE, Source
from broker.api_tokens import ApiToken
from broker.minting import NOT_NARROWED, Narrowing
from broker.policy.matching import Considered, Grant
from broker.policy.model import Scope
from broker.providers import Identity
from broker.refusals import Refusal
from broker.signing import Change

RECORD_VERSION: Final = 1

_FIRST_NO: Final = 300
"""The broker may allow an upload that the registry then refuses: a file of that name is there already, most often."""

_WHERE_KNOWN: Final = {
    "index": "index",
    "token_id": "token_id",
    "expires_at": "expires_at",
    "upstream": "upstream",
    "repeated": "repeated",
    "project": "project",
    "filename": "filename",
    "sha256": "sha256",
    "size_bytes": "size_bytes",
    "version": "release",
    "already_stored": "already_stored",
    "confirmed": "confirmed",
    "registry_status": "registry_status",
    "revoked": "revoked",
    "minted_until": "minted_until",
    "switched_off": "switched_off",
    "switched_on": "switched_on",
    "by": "by",
    "reason": "reason",
    "asked": "asked",
    "unrecorded": "unrecorded",
    "key": "key",
    "change": "change",
    "before": "before",
    "signs_from": "signs_from",
    "replica": "replica",
}
"""Fields of an attempt -> what a record calls them, where they hold something."""

_values_where_known: Final[Callable[[Attempt], tuple[Any, ...]]] = attrgetter(*_WHERE_KNOWN)

Kind = Literal["mint", "upload", "download", "revocation", "switch", "api", "limit", "keys", "policies"]

Step = Literal["body", "keys", "verify", "gates", "mint", "package", "registry", "state"]
"""What an attempt goes through, for whoever measures how long each takes."""

OF_SEVERAL: Final = ("considered", "publishers", "members")
"""Fields with lists whose entries name an organization: 'acme/alice', 'acme/release: environment is ...'."""

OF_ALL: Final = ("detail", "expected", "narrowed_to", "nonce")
"""Fields that can be about any of several organizations."""

MOST_CONSIDERED: Final = 20
"""Publishers that a record lists, and organizations that have a record of one attempt; with more in one repository,
the first ones stand for all."""


def new_attempt_id(now: float) -> str:
    """A name for an attempt that sorts by time and cannot be guessed, such as '019aa1c2f3d4-8f2c61d0a9'."""
    return f"{int(now * 1000):012x}-{secrets.token_hex(5)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept of an attempt."""

    attempt: str
    at: float
    """Epoch seconds."""
    organization: str
    """The organization whose record this is; empty where none was found."""
    body: str
    """The whole record, as one line of JSON (ASCII)."""
    others: tuple[Record, ...] = ()
    """The same attempt's, for the other organizations that it concerns. Kept with this one, or none of them is."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """A notebook of one attempt. Every field but the first three is filled in when it becomes known."""

    kind: Kind
    id: str
    started_at: float

    source: Source = NOWHERE
    """Where the request came from."""
    index: str = ""
    """The registry's name, where the broker stands in front of several."""
    generation: str = ""
    """Of the policies that decided."""
    issuer: str = ""
    """The configured issuer's name; before one is found, the URL that the token claims."""
    identity: Identity | None = None
    considered: tuple[Considered, ...] = ()
    publishers: tuple[str, ...] = ()
    """Ids of those that earned the upload token; of a mint, the grant's."""
    grant: Grant | None = None
    token_id: str = ""
    """`jti` of the upload token that was minted, used or revoked."""
    expires_at: int = 0
    """Of that token, epoch seconds."""
    upstream: str = ""
    """Whose token that is, where not the broker's own: 'devpi', which judges it; no upload with it is seen here."""
    scope: Scope = "upload"
    """What the token is for."""
    narrowing: Narrowing = NOT_NARROWED
    """What the client asked the token to be narrowed to."""
    repeated: bool = False
    """The same upload token was given again for the same identity token."""
    project: str = ""
    version: str = ""
    filename: str = ""
    sha256: str = ""
    size_bytes: int = 0
    registry_status: int = 0
    """What the registry answered; 0 where it was not asked, or did not answer."""
    already_stored: bool = False
    """The registry had the same file already; nothing was sent on."""
    confirmed: bool = False
    """The registry gave no answer or no success, and its index has the file."""
    owner: str = ""
    """Where no publisher says it: the organization that it concerns."""
    revoked: str = ""
    """Whose tokens were revoked, all at once, such as 'organization acme'."""
    minted_until: int = 0
    """Of those, the ones minted until then (epoch seconds)."""
    switched_off: str = ""
    """What a switch was thrown for, such as 'organization acme'."""
    switched_on: str = ""
    """Of what a switch was lifted."""
    by: str = ""
    """Whose switch that is: the index operator's, or that of an owner of the organization."""
    reason: str = ""
    """Why, in the words of whoever did it."""
    caller: ApiToken | None = None
    """The API token that was shown, by its id: where it was refused as invalid, that was another secret's bearer."""
    asked: str = ""
    """Of the API: the method and the path."""
    unrecorded: dict[str, int] = field(default_factory=dict)
    """Of attempts that left no record of their own: how many were refused with which code."""
    key: str = ""
    """Of a change of the broker's own signing keys: the key's id."""
    change: Change | Literal["loaded", "failing", ""] = ""
    """What happened to it; or to the policies."""
    before: str = ""
    """The generation of the policies that were in force before."""
    signs_from: str = ""
    """From when it signs, where its file says so."""
    replica: str = ""
    """The name of the machine that saw the change first, or made it."""
    refusal: Refusal | None = field(default=None)
    began: float = field(default_factory=perf_counter, repr=False, compare=False)
    """By a clock that only measures: nothing is decided by it."""
    steps: list[tuple[Step, float]] = field(default_factory=list, repr=False, compare=False)
    """Those that are through, and when, by the same clock."""

    def passed(self, step: Step) -> None:
        """Notes that a step is through: it took the time since the one before."""
        self.steps.append((step, perf_counter()))

    def seconds(self) -> float:
        """How long it has gone on."""
        return perf_counter() - self.began

    def record(self) -> Record:
        """What is kept: where several organizations are concerned, the first one's, with an excerpt for each other."""
        mine, *others = self.concerned
        fields = self._fields(mine)
        own = f"{mine}/"
        if [entry for name in OF_SEVERAL for entry in fields.get(name, ()) if not entry.startswith(own)]:
            # Owners are told the digest of what is withheld from them, and could try names until one fits.
            fields["nonce"] = secrets.token_hex(16)
        if not others:
            return self._record(mine, fields)
        fields["shared_with"] = len(others)
        first = self._record(mine, {**fields, **self._projects_of(mine)})
        excerpts = (self._record(name, self._excerpt(name, fields)) for name in others[: MOST_CONSIDERED - 1])
        return replace(first, others=tuple(excerpts))

    def _record(self, organization: str, fields: Mapping[str, Any]) -> Record:
        return Record(attempt=self.id, at=self.started_at, organization=organization, body=ascii_json.encode(fields))

    def _projects_of(self, organization: str) -> dict[str, Any]:
        """One organization's alone: they do not say whose they are."""
        return {} if self.grant is None else {"projects": sorted(map(str, self.grant.given_by(organization)))}

    def _excerpt(self, organization: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What one of several organizations has of it: nothing that can be about another."""
        own = f"{organization}/"
        entries = {name: [one for one in fields.get(name, ()) if one.startswith(own)] for name in OF_SEVERAL}
        told = {**fields, **entries, **self._projects_of(organization)}
        empty = {name for name in (*OF_SEVERAL, "projects") if not told.get(name)}
        kept = {name: value for name, value in told.items() if name not in {*OF_ALL, *empty}}
        return {**kept, "organization": organization, "excerpt": True}

    @property
    def concerns(self) -> str:
        """The organization whose attempt it is; empty where none was found.

        Of several that bind one repository, the one whose project is uploaded or read: else whoever comes first by name
        would have another's records, and the other none.
        """
        if self.grant is not None:
            for publisher in self.grant.publishers if self.project else ():
                if any(one.covers(self.project) for one in publisher.projects | publisher.downloads):
                    return publisher.organization
            return self.grant.organizations[0]
        if self.publishers:
            return self.publishers[0].split("/")[0]
        return self.considered[0].publisher.organization if self.considered else self.owner

    @property
    def concerned(self) -> tuple[str, ...]:
        """All organizations whose attempt it is, that of `concerns` first: several only where no project is known.

        Those are concerned that earned the token; and where something was refused, those whose publishers were looked
        at: each hears what became of the runs that it waits for.
        """
        if self.project:
            return (self.concerns,)
        earned = self.grant.organizations if self.grant is not None else [one.split("/")[0] for one in self.publishers]
        looked_at = [one.publisher.organization for one in self.considered] if self.refusal is not None else ()
        return tuple(dict.fromkeys((self.concerns, *earned, *looked_at)))

    def _fields(self, organization: str) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "version": RECORD_VERSION,
            "attempt": self.id,
            "at": _moment(self.started_at),
            "kind": self.kind,
            "decision": "refused" if self.refusal else "allowed",
            "organization": organization,
            "generation": self.generation,
            "issuer": self.issuer,
        }
        if self.refusal is not None:
            fields |= {"code": self.refusal.code, "detail": self.refusal.detail}
            if self.refusal.expected:
                fields["expected"] = self.refusal.expected
        if self.caller is not None:
            fields["caller"] = {"token": self.caller.id, "name": self.caller.name, "role": self.caller.role}
        if self.source.name:
            fields["source"] = self.source.name
        if self.identity is not None:
            fields["identity"] = self.identity.as_claims()
        if self.considered and (self.refusal is not None or len(self.considered) > 1):
            fields["considered"] = [str(one) for one in _shown(self.considered)]
        if self.publishers:
            fields["publishers"] = list(self.publishers)
        if self.grant is not None:
            fields |= {
                "publishers": self.grant.publisher_ids,
                "members": list(self.grant.members),
                "projects": sorted(map(str, self.grant.projects)),
            }
        if self.scope != "upload":
            fields["scope"] = self.scope
        if narrowed := self.narrowing.as_claims():
            fields["narrowed_to"] = narrowed
        known = zip(_WHERE_KNOWN.values(), _values_where_known(self), strict=True)
        fields |= {name: value for name, value in known if value}
        if self.registry_status or self.confirmed:
            fields["stored"] = self.confirmed or self.registry_status < _FIRST_NO
        return fields


def _moment(at: float) -> str:
    """1790000000.1234 -> '2026-09-21T14:13:20.123+00:00'"""
    seconds, milliseconds = divmod(int(at * 1_000_000 + 0.5) // 1000, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}+00:00"


@lru_cache(maxsize=16)  # thousands of attempts begin in one second
def _second(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}"


def _shown(considered: Sequence[Considered]) -> Sequence[Considered]:
    """As many as a record lists, with one of each organization first: none hides that another is concerned."""
    if len(considered) <= MOST_CONSIDERED:
        return considered
    first = {one.publisher.organization: one for one in reversed(considered)}
    firsts = [one for one in considered if first[one.publisher.organization] is one]
    others = [one for one in considered if first[one.publisher.organization] is not one]
    return [*firsts, *others][:MOST_CONSIDERED]
