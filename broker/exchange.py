"""The story of a mint: an identity token in, an upload token out, and exactly one audit record. Read this first.

The order is the contract (design §3); the first step that fails refuses, with its code. Replay comes last and is
atomic with the rate limit, the first-use pins and the record: a refused or failed exchange does not use a token up, and
without a record no token is answered.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from broker import refusals, tokens
from broker.audit import Attempt, Kind, Record
from broker.devpi import DevpiTokens
from broker.keys import IssuerKeys
from broker.minting import NOT_NARROWED, MintedToken, Minter, Narrowing, UploadToken, subjects_of
from broker.patterns import Projects, intersect
from broker.policy import matching
from broker.policy.model import SCOPES, Issuer, Policies, Scope
from broker.providers import Identity
from broker.state import Forgotten, Limit, OverLimit, Pin, Settled, Settlement, Spent, State
from broker.tokens import Claims


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Trades identity tokens for the upload tokens of one index, and asks again what those are good for."""

    index: str = ""
    """The registry's name, where there are several: records say it."""
    audience: str
    """What identity tokens must carry in `aud`."""
    exchanges_per_minute: int
    """For one source (repository, project, service account)."""
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

    @property
    def features(self) -> tuple[str, ...]:
        """Of PEP 807, what can be asked for. devpi counts no uses."""
        return (MULTI_USE,) if self.devpi else FEATURES

    def attempt(self, kind: Kind, attempt_id: str) -> Attempt:
        """The notebook of an attempt at this index that begins now."""
        return Attempt(kind=kind, id=attempt_id, started_at=self.clock(), index=self.index)

    async def mint(self, request: Awaitable[MintRequest], attempt_id: str) -> MintedToken:
        """Decides one exchange, and records it.

        Args:
            request: Still to be read: what goes wrong there is part of the attempt.

        Raises:
            Refusal: with its record written; or StateUnavailable, when it could not be.
        """
        attempt = self.attempt("mint", attempt_id)
        try:
            return await self._decide(request, attempt)
        except refusals.Refusal as refusal:
            attempt.refusal = refusal
            await self.record(attempt)
            raise

    async def burn(self, text: str, attempt_id: str) -> bool:
        """Revokes an upload token. What is no token of this index changes nothing, and is False.

        Raises:
            StateUnavailable: the revocation could not be kept. Clients repeat the call then.
        """
        attempt = self.attempt("revocation", attempt_id)
        try:
            token = self.minter.read(text, attempt.started_at)
        except refusals.Refusal:
            return False
        note_token(attempt, token, self.policies())
        record = attempt.record()
        await self.state.revoke(token.id, token.expires_at, record)
        self.publish_record(attempt, record)
        return True

    async def covers_now(self, token: UploadToken, attempt: Attempt) -> frozenset[Projects]:
        """What an upload token covers at this moment: what it was minted for, and both gates still give.

        Its time is not asked: an upload that was begun in time may end after it.

        Raises:
            PoliciesStale, RevokedToken, IssuerDisabled; and those of `matching.grant`.
        """
        policies, now = self.policies(), self.clock()
        note_token(attempt, token, policies)
        matching.require_current(policies, now)
        if await self.state.is_revoked(token.id, token.subjects, token.issued_at):
            raise refusals.RevokedToken
        issuer = policies.issuers.get(token.identity.issuer)
        if issuer is None or issuer.disabled:
            raise refusals.IssuerDisabled(f"the issuer {token.identity.issuer!r} was switched off since the mint")
        grant = await self._ask(
            policies, token.identity, attempt, now=now, scope=token.scope, publishers=token.publishers
        )
        return intersect(token.projects, grant.projects)

    async def record(self, attempt: Attempt) -> None:
        """Stores an attempt's record, and tells the log and the metrics of it.

        Raises:
            StateUnavailable
        """
        record = attempt.record()
        await self.state.append(record)
        if attempt.refusal is None:  # else the step that refused is not through, and would be counted as this one
            attempt.passed("state")
        self.publish_record(attempt, record)

    async def _decide(self, request: Awaitable[MintRequest], attempt: Attempt) -> MintedToken:
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
        grant = await self._ask(policies, identity, attempt, now=now, scope=asked.scope)
        attempt.passed("gates")
        minted = self._mints(asked.scope).mint(
            grant,
            identity,
            issuer.provider.name,
            now=now,
            lifetime_seconds=grant.lifetime_seconds,
            narrowing=asked.narrowing,
            scope=asked.scope,
        )
        attempt.passed("mint")
        attempt.token_id, attempt.expires_at = minted.id, minted.expires_at
        attempt.narrowing = asked.narrowing
        attempt.upstream = "devpi" if self._mints(asked.scope) is self.devpi else ""
        return await self._settle(attempt, issuer, identity, claims, minted, now=now)

    def _mints(self, scope: Scope) -> Minter | DevpiTokens:
        """devpi judges uploads by itself, and asks nothing of who reads."""
        return self.devpi if self.devpi is not None and scope == "upload" else self.minter

    async def _settle(
        self, attempt: Attempt, issuer: Issuer, identity: Identity, claims: Claims, minted: MintedToken, *, now: float
    ) -> MintedToken:
        record = attempt.record()
        outcome = await self.state.settle(
            Settlement(
                now=now,
                limits=(self._limit(issuer, identity),),
                spend=f"{issuer.url} {claims.fingerprint}",
                spend_until=claims.replayable_until,
                issued_at=claims.issued_at,
                receipt=minted.receipt,
                pins=_first_uses(attempt, identity),
                record=record,
            )
        )
        attempt.passed("state")
        match outcome:
            case Settled():
                self.publish_record(attempt, record)
                return minted
            case Spent(receipt=receipt):
                return await self._again(attempt, issuer, identity, receipt, now)
            case OverLimit(retry_after_seconds=seconds):
                attempt.token_id, attempt.expires_at = "", 0
                raise refusals.RateLimited(retry_after_seconds=seconds)
            case Forgotten():
                attempt.token_id, attempt.expires_at = "", 0
                raise refusals.StateForgot
            case taken:
                pin = taken.pin
                attempt.token_id, attempt.expires_at = "", 0
                raise refusals.IdentityChanged(f"the publisher {pin.publisher!r} was first used by another {pin.field}")

    async def _again(
        self, attempt: Attempt, issuer: Issuer, identity: Identity, receipt: str, now: float
    ) -> MintedToken:
        """A second exchange of one identity token: refused, or the very same upload token, never another."""
        attempt.token_id, attempt.expires_at = "", 0
        if issuer.replay == "strict" or not receipt:  # whose record is older than the retention
            raise refusals.ReplayedToken
        minted = self._mints(attempt.scope).repeat(receipt, now, attempt.narrowing, attempt.scope)
        attempt.token_id, attempt.expires_at, attempt.repeated = minted.id, minted.expires_at, True
        publishers = attempt.grant.publishers if attempt.grant else ()
        subjects = subjects_of(identity, [publisher.id for publisher in publishers])
        if await self.state.is_revoked(minted.id, subjects, minted.issued_at):
            raise refusals.RevokedToken("the identity token was exchanged before, and its upload token revoked since")
        await self.record(attempt)
        return minted

    def _limit(self, issuer: Issuer, identity: Identity) -> Limit:
        source = getattr(identity, identity.source)
        return Limit(key=f"mint {issuer.url} {source}", burst=self.exchanges_per_minute, per_seconds=60)

    async def _ask(
        self,
        policies: Policies,
        identity: Identity,
        attempt: Attempt,
        *,
        now: float,
        scope: Scope,
        publishers: tuple[str, ...] | None = None,
    ) -> matching.Grant:
        """Asks both gates, at the mint and again at the upload, and notes what they said.

        State is read only where a publisher of that name pins on first use.

        Args:
            publishers: Only these count (ids); None for all.

        Raises:
            Those of `matching.admit` and `matching.grant`.
        """
        found = matching.candidates(policies, identity)
        if publishers is not None:
            found = tuple(one for one in found if one.id in publishers)
        pinned = matching.pinned_on_first_use(found)
        attempt.considered = matching.consider(found, identity, await self.state.pins(pinned) if pinned else {})
        admitted = matching.admit(attempt.considered, self.organizations)
        attempt.grant = matching.grant(policies, identity, admitted, now, scope)
        return attempt.grant


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
    if not isinstance(features, list) or any(feature not in FEATURES for feature in features):
        raise refusals.UnsupportedFeature
    single = SINGLE_USE in features
    if single and MULTI_USE in features:
        raise refusals.UnsupportedFeature(f"{SINGLE_USE!r} and {MULTI_USE!r} exclude each other")
    if single and scope != "upload":
        raise refusals.UnsupportedFeature(f"{SINGLE_USE!r} is for uploads")
    return MintRequest(token=request["token"], narrowing=Narrowing(uses=1 if single else 0), scope=scope)


def read_scope(text: object) -> Scope:
    """What a client asks its token to be for.

    Raises:
        UnsupportedScope: that is none.
    """
    scope = next((one for one in SCOPES if one == text), None)
    if scope is None:
        raise refusals.UnsupportedScope(f"the scope is {' or '.join(map(repr, SCOPES))}, and not {str(text)[:100]!r}")
    return scope


def parse_request(body: bytes) -> dict[str, Any]:
    """A request to mint or to burn: an object with a string `token`.

    Raises:
        MalformedRequest: it is none.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise refusals.MalformedRequest("the body is not JSON") from error
    if not isinstance(request, dict) or not isinstance(request.get("token"), str):
        raise refusals.MalformedRequest
    return request


SINGLE_USE: Final = "single-use-token"
MULTI_USE: Final = "multi-use-token"
FEATURES: Final = (SINGLE_USE, MULTI_USE)
"""Of PEP 807, what discovery offers; without either, a token is good for any number of uploads."""


def note_token(attempt: Attempt, token: UploadToken, policies: Policies) -> None:
    """Notes which upload token an attempt is about, and under which policies."""
    attempt.issuer, attempt.identity, attempt.generation = token.identity.issuer, token.identity, policies.generation
    attempt.token_id, attempt.expires_at, attempt.publishers = token.id, token.expires_at, token.publishers
    attempt.scope = token.scope


def _first_uses(attempt: Attempt, identity: Identity) -> tuple[Pin, ...]:
    publishers = attempt.grant.publishers if attempt.grant else ()
    return tuple(
        Pin(publisher=publisher.id, field=field, value=value)
        for publisher in publishers
        for field, value in publisher.trust.pins_of(identity).items()
    )
