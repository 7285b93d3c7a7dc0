"""The story of a mint: an identity token in, an upload token out, and exactly one audit record. Read this first.

The order is the contract (design §3); the first step that fails refuses, with its code. Replay comes last and is
atomic with the switches, the rate limit, the first-use pins and the record: a refused or failed exchange does not use a
token up, and without a record no token is answered.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import from_json

from broker import refusals, tokens
from broker.addresses import NOWHERE, Source
from broker.audit import Attempt, Kind, Record
from broker.devpi import DevpiTokens
from broker.keys import IssuerKeys
from broker.minting import NOT_NARROWED, MintedToken, Minter, Narrowing, UploadToken
from broker.patterns import Projects, intersect
from broker.policy import matching
from broker.policy.matching import Grant
from broker.policy.model import SCOPES, Issuer, Policies, Scope
from broker.policy.subjects import left_of, subjects_of, switches_of
from broker.providers import Identity
from broker.sources import Sources
from broker.state import Forgotten, Limit, OverLimit, Pin, Settled, Settlement, Spent, State, SwitchedOff


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How many exchanges a minute may bring. All are counted in the settlement, or none of them."""

    per_repository: int
    """Or project, or service account."""
    per_organization: int = 0
    """0 for any number."""
    per_issuer: int = 0
    """0 for any number."""

    def limits(self, issuer: Issuer, identity: Identity, organizations: Iterable[str]) -> tuple[Limit, ...]:
        """What an exchange counts for."""
        counted = [_a_minute(f"mint {issuer.url} {getattr(identity, identity.source)}", self.per_repository)]
        if self.per_organization:
            counted += [_a_minute(f"mint-organization {name}", self.per_organization) for name in organizations]
        if self.per_issuer:
            counted.append(_a_minute(f"mint-issuer {issuer.url}", self.per_issuer))
        return tuple(counted)

    def again(self, spend: str) -> Limit:
        """What it counts for where its identity token was exchanged before: whoever has a copy of that token could use
        up the repository's limit with it, or the organization's, or the issuer's.
        """
        return Limit(key=f"mint-again {spend}", burst=self.per_repository, per_seconds=60)

    def what(self, key: str) -> str:
        """In words, what such a limit is of."""
        return _OF[key.partition(" ")[0]]


@functools.lru_cache(maxsize=4096)  # most exchanges are of repositories that had one lately
def _a_minute(key: str, burst: int) -> Limit:
    return Limit(key=key, burst=burst, per_seconds=60)


_OF: Final = {
    "mint": "this repository, project or account",
    "mint-organization": "this organization",
    "mint-issuer": "this issuer",
    "mint-again": "this one identity token",
}


MOST_BURNED: Final = 10_000
"""Tokens of which it is remembered that they were burned; each takes an exchange, and those are limited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Trades identity tokens for the upload tokens of one index, and asks again what those are good for."""

    index: str = ""
    """The registry's name, where there are several: records say it."""
    audience: str
    """What identity tokens must carry in `aud`."""
    rates: Rates
    sources: Sources
    """Refused attempts are recorded there."""
    policies: Callable[[], Policies]
    """The policies in force; read once for each attempt."""
    keys: IssuerKeys
    minter: Minter
    state: State
    clock: Callable[[], float]
    publish_record: Callable[[Attempt, Record], None]
    """Told of each attempt whose record was stored: the log and the metrics."""
    organizations: frozenset[str] | None = None
    """The only ones that may use this index; None is all."""
    scopes: tuple[Scope, ...] = ("upload",)
    """What tokens can be asked for."""
    devpi: DevpiTokens | None = None
    """Where the registry judges tokens of its own: those are minted instead. They cannot be burned."""
    _burned: OrderedDict[str, int] = field(default_factory=OrderedDict, repr=False, compare=False)
    """Ids of tokens that were, the latest last, and until when they would be good: after that nobody burns them."""

    @property
    def features(self) -> tuple[str, ...]:
        """Of PEP 807, what can be asked for. devpi counts no uses."""
        return (MULTI_USE,) if self.devpi else FEATURES

    def attempt(self, kind: Kind, attempt_id: str, source: Source = NOWHERE) -> Attempt:
        """The notebook of an attempt at this index that begins now."""
        return Attempt(kind=kind, id=attempt_id, started_at=self.clock(), index=self.index, source=source)

    async def mint(self, request: Awaitable[MintRequest], attempt_id: str, source: Source = NOWHERE) -> MintedToken:
        """Decides one exchange, and records it.

        Args:
            request: Still to be read: what goes wrong there is part of the attempt.

        Raises:
            Refusal: with its record written; or StateUnavailable, when it could not be.
        """
        attempt = self.attempt("mint", attempt_id, source)
        try:
            return await self._decide(request, attempt)
        except refusals.Refusal as refusal:
            attempt.refusal = refusal
            await self.record(attempt)
            raise

    async def burn(self, text: str, attempt_id: str, source: Source = NOWHERE) -> bool:
        """Revokes an upload token. What is no token of this index changes nothing, and is False.

        One that this process revoked already leaves no further record: whoever has a token could else write them
        without end. Any other is revoked again: what another process wrote may not be kept for certain yet.

        Raises:
            StateUnavailable: the revocation could not be kept. Clients repeat the call then.
        """
        attempt = self.attempt("revocation", attempt_id, source)
        try:
            token = self.minter.read(text, attempt.started_at)
        except refusals.Refusal:
            return False
        if token.id in self._burned:
            return True
        note_token(attempt, token, self.policies())
        record = attempt.record()
        await self.state.revoke(token.id, token.expires_at, record)
        self._burned[token.id] = token.expires_at
        while len(self._burned) > MOST_BURNED or next(iter(self._burned.values())) <= attempt.started_at:
            self._burned.popitem(last=False)
        self.publish_record(attempt, record)
        return True

    async def covers_now(self, token: UploadToken, attempt: Attempt) -> frozenset[Projects]:
        """What an upload token covers at this moment: what it was minted for, and both gates still give.

        Its time is not asked: an upload that was begun in time may end after it.

        Raises:
            PoliciesStale, RevokedToken, IssuerDisabled; and those of `matching.grant`, such as SwitchedOff.
        """
        policies, now = self.policies(), self.clock()
        note_token(attempt, token, policies)
        matching.require_current(policies, now)
        objections = await self.state.objections(token.id, token.subjects, token.issued_at)
        publishers = left_of(token.publishers, objections.revoked)
        if objections.token or not publishers:
            raise refusals.RevokedToken
        issuer = policies.issuers.get(token.identity.issuer)
        if issuer is None or issuer.disabled:
            raise refusals.IssuerDisabled(f"the issuer {token.identity.issuer!r} was switched off since the mint")
        grant = await self._ask(
            policies,
            token.identity,
            attempt,
            now=now,
            scope=token.scope,
            publishers=publishers,
            off=objections.off,
        )
        return intersect(token.projects, grant.projects)

    async def record(self, attempt: Attempt) -> None:
        """Stores an attempt's record, and tells the log and the metrics of it.

        Raises:
            RateLimited: the attempt was refused, as many before it, and left no record of its own.
            StateUnavailable
        """
        if attempt.refusal is not None:  # the step that refused is not through, and would be counted as this one
            await self.sources.record(attempt, attempt.refusal)
            return
        record = attempt.record()
        await self.state.append(record)
        attempt.passed("state")
        self.publish_record(attempt, record)

    async def _decide(self, request: Awaitable[MintRequest], attempt: Attempt) -> MintedToken:
        proven = await self._prove(request, attempt)
        # Switches are asked with the settlement, where they cost nothing, and none that was thrown is missed. Where one
        # is off, whatever else earns the token stands for itself: nobody's switch stops another organization.
        off: frozenset[str] = frozenset()
        while True:
            grant = await self._ask(
                proven.policies, proven.identity, attempt, now=proven.now, scope=proven.scope, off=off
            )
            attempt.passed("gates")
            minted = self._mint(proven, attempt, grant)
            settled = await self._settle(proven, attempt, minted, off)
            if not isinstance(settled, SwitchedOff):
                return settled
            off |= settled.off

    async def _prove(self, request: Awaitable[MintRequest], attempt: Attempt) -> _Proven:
        """Reads and verifies what the client shows."""
        asked = await request
        attempt.passed("body")
        if asked.scope not in self.scopes:
            raise refusals.UnsupportedScope(
                f"this index offers tokens for {' and '.join(map(repr, self.scopes))} alone"
            )
        attempt.scope = asked.scope
        # Read now and not before: the caller decides how long a body takes, and at the moment it began, a token that
        # was spent and forgotten since, or found later, is still good.
        now, policies = self.clock(), self.policies()
        attempt.generation = policies.generation
        matching.require_current(policies, now)
        unverified = tokens.peek(asked.token)
        attempt.issuer = unverified.issuer[: tokens.LONGEST_CLAIM]
        issuer = matching.find_issuer(policies, unverified.issuer)
        attempt.issuer = issuer.name
        key = await self.keys.find(issuer, unverified.key_id)
        attempt.passed("keys")
        claims = tokens.verify(
            unverified,
            key,
            issuer=issuer.url,
            audience=self.audience,
            algorithms=issuer.algorithms,
            longest_seconds=issuer.longest_token_seconds,
            now=now,
        )
        attempt.passed("verify")
        attempt.identity = identity = issuer.provider.read(claims, issuer.name, issuer.url)
        return _Proven(
            scope=asked.scope,
            narrowing=asked.narrowing,
            policies=policies,
            now=now,
            issuer=issuer,
            identity=identity,
            spend=f"{issuer.url} {claims.fingerprint}",
            spend_until=claims.replayable_until,
            issued_at=claims.issued_at,
        )

    def _mint(self, proven: _Proven, attempt: Attempt, grant: Grant) -> MintedToken:
        minted = self._mints(proven.scope).mint(
            grant,
            proven.identity,
            proven.issuer.provider.name,
            now=proven.now,
            lifetime_seconds=grant.lifetime_seconds,
            narrowing=proven.narrowing,
            scope=proven.scope,
        )
        attempt.passed("mint")
        attempt.token_id, attempt.expires_at = minted.id, minted.expires_at
        attempt.narrowing = proven.narrowing
        attempt.upstream = "devpi" if self._mints(proven.scope) is self.devpi else ""
        return minted

    def _mints(self, scope: Scope) -> Minter | DevpiTokens:
        """devpi judges uploads by itself, and asks nothing of who reads."""
        return self.devpi if self.devpi is not None and scope == "upload" else self.minter

    async def _settle(
        self, proven: _Proven, attempt: Attempt, minted: MintedToken, off: frozenset[str]
    ) -> MintedToken | SwitchedOff:
        record, organizations = attempt.record(), attempt.grant.organizations if attempt.grant else ()
        outcome = await self.state.settle(
            Settlement(
                now=proven.now,
                limits=self.rates.limits(proven.issuer, proven.identity, organizations),
                again=self.rates.again(proven.spend),
                spend=proven.spend,
                spend_until=proven.spend_until,
                issued_at=proven.issued_at,
                receipt=minted.receipt,
                pins=_first_uses(attempt, proven.identity),
                switches=switches_of(proven.identity.issuer, _earning(attempt)),
                record=record,
            )
        )
        attempt.passed("state")
        match outcome:
            case Settled():
                self.publish_record(attempt, record)
                return minted
            case Spent(receipt=receipt):
                return await self._again(proven, attempt, receipt, off)
            case SwitchedOff():
                attempt.token_id, attempt.expires_at = "", 0
                return outcome
            case OverLimit(retry_after_seconds=seconds, key=key):
                attempt.token_id, attempt.expires_at = "", 0
                kind, _, name = key.partition(" ")
                if kind == "mint-organization" and attempt.grant and attempt.grant.organizations != (name,):
                    # As with switches: an organization that uses up its own limit stops no other one that binds the
                    # same repository.
                    return SwitchedOff(off=frozenset({f"organization {name}"}))
                raise refusals.RateLimited(
                    f"too many exchanges in a short time for {self.rates.what(key)}", retry_after_seconds=seconds
                )
            case Forgotten():
                attempt.token_id, attempt.expires_at = "", 0
                raise refusals.StateForgot
            case taken:
                pin = taken.pin
                attempt.token_id, attempt.expires_at = "", 0
                raise refusals.IdentityChanged(f"the publisher {pin.publisher!r} was first used by another {pin.field}")

    async def _again(self, proven: _Proven, attempt: Attempt, receipt: str, off: frozenset[str]) -> MintedToken:
        """A second exchange of one identity token: refused, or the very same upload token, never another."""
        attempt.token_id, attempt.expires_at = "", 0
        if proven.issuer.replay == "strict" or not receipt:  # whose record is older than the retention
            raise refusals.ReplayedToken
        minted = self._mints(attempt.scope).repeat(receipt, proven.now, attempt.narrowing, attempt.scope)
        attempt.token_id, attempt.expires_at, attempt.repeated = minted.id, minted.expires_at, True
        publishers = _earning(attempt)
        objections = await self.state.objections(
            minted.id, subjects_of(minted.id, proven.identity, publishers), minted.issued_at
        )
        # Of a token of our own, both gates are asked again when it is used. devpi judges its own, and asks nobody: what
        # is gone in part is not given again.
        in_part = bool(attempt.upstream and objections.revoked)
        if objections.token or in_part or not left_of(publishers, objections.revoked):
            raise refusals.RevokedToken("the identity token was exchanged before, and its upload token revoked since")
        if attempt.upstream and (off or objections.off):
            raise refusals.SwitchedOff("what the identity token was exchanged for before is switched off since")
        await self.record(attempt)
        return minted

    async def _ask(
        self,
        policies: Policies,
        identity: Identity,
        attempt: Attempt,
        *,
        now: float,
        scope: Scope,
        publishers: tuple[str, ...] | None = None,
        off: frozenset[str] = frozenset(),
    ) -> Grant:
        """Asks both gates, at the mint and again at the upload, and notes what they said.

        State is read only where a publisher of that name pins on first use.

        Args:
            publishers: Only these count (ids); None for all.
            off: What is switched off.

        Raises:
            Those of `matching.admit` and `matching.grant`.
        """
        found = matching.candidates(policies, identity)
        if publishers is not None:
            found = tuple(one for one in found if one.id in publishers)
        pinned = matching.pinned_on_first_use(found)
        attempt.considered = matching.consider(found, identity, await self.state.pins(pinned) if pinned else {})
        admitted = matching.admit(attempt.considered, self.organizations)
        attempt.grant = matching.grant(policies, identity, admitted, now, scope, off=off)
        return attempt.grant


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proven:
    """What is left of a request once its identity token is verified. The token itself and its claims are not: dozens of
    exchanges wait for state at once, and what they hold pushes everything else out of the processor's cache (ADR 11).
    """

    scope: Scope
    narrowing: Narrowing
    policies: Policies
    now: float
    issuer: Issuer
    identity: Identity
    spend: str
    """As settlements have it, like the two below."""
    spend_until: int
    issued_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MintRequest:
    """What a client asks for."""

    token: str = field(repr=False)
    """The identity token, which nobody has looked at yet."""
    narrowing: Narrowing = NOT_NARROWED
    scope: Scope = "upload"


def read_request(body: bytes) -> MintRequest:
    """A mint request, whatever its Content-Type.

    Raises:
        MalformedRequest: the body is no JSON object with a string `token`.
        UnsupportedScope: its `scope` is none.
        UnsupportedFeature: it asks for a feature of PEP 807 that is not offered.
    """
    request = parse_request(body)
    scope = read_scope(request.get("scope", "upload"))
    features = request.get("features", [])
    if not isinstance(features, list) or [feature for feature in features if feature not in FEATURES]:
        raise refusals.UnsupportedFeature
    single = SINGLE_USE in features
    if single and MULTI_USE in features:
        raise refusals.UnsupportedFeature(f"{SINGLE_USE!r} and {MULTI_USE!r} exclude each other")
    if single and scope != "upload":
        raise refusals.UnsupportedFeature(f"{SINGLE_USE!r} is for uploads")
    return MintRequest(token=request["token"], narrowing=_ONCE if single else NOT_NARROWED, scope=scope)


def read_scope(text: object) -> Scope:
    """What a client asks its token to be for.

    Raises:
        UnsupportedScope: that is none.
    """
    for scope in SCOPES:
        if scope == text:
            return scope
    raise refusals.UnsupportedScope(f"the scope is {' or '.join(map(repr, SCOPES))}, and not {str(text)[:100]!r}")


def parse_request(body: bytes) -> dict[str, Any]:
    """A request to mint or to burn: an object with a string `token`.

    Raises:
        MalformedRequest: it is none.
    """
    try:
        request = from_json(body, cache_strings="none")
    except ValueError as error:
        raise refusals.MalformedRequest("the body is not JSON") from error
    if not isinstance(request, dict) or not isinstance(request.get("token"), str):
        raise refusals.MalformedRequest
    return request


_ONCE: Final = Narrowing(uses=1)

SINGLE_USE: Final = "single-use-token"
MULTI_USE: Final = "multi-use-token"
FEATURES: Final = (SINGLE_USE, MULTI_USE)
"""Of PEP 807, what discovery offers; without either, a token is good for any number of uploads."""


def note_token(attempt: Attempt, token: UploadToken, policies: Policies) -> None:
    """Notes which upload token an attempt is about, and under which policies."""
    attempt.issuer, attempt.identity, attempt.generation = token.identity.issuer, token.identity, policies.generation
    attempt.token_id, attempt.expires_at, attempt.publishers = token.id, token.expires_at, token.publishers
    attempt.scope = token.scope


def _earning(attempt: Attempt) -> tuple[str, ...]:
    return attempt.grant.publisher_ids if attempt.grant else ()


def _first_uses(attempt: Attempt, identity: Identity) -> tuple[Pin, ...]:
    publishers = attempt.grant.publishers if attempt.grant else ()
    return tuple(
        [
            Pin(publisher=publisher.id, field=field, value=value)
            for publisher in publishers
            for field, value in publisher.trust.pins_of(identity).items()
        ]
    )
