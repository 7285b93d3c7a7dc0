"""Who asks the broker's own API: whoever shows an API token that may. Who shows one that may not leaves a record.

What a flood can do is bounded: of one token, or of all that nobody knows together, a refusal is recorded once a minute
by each process. The metrics count every one (`broker_refusals_total`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import Request

from broker import refusals
from broker.api_tokens import ApiToken, Role, ShownToken
from broker.audit import Attempt
from broker.exchange import Exchange

REFUSED_EVERY_SECONDS: Final = 60.0
"""How often a refusal of one token for one cause is recorded, by one process."""

MOST_REMEMBERED: Final = 10_000
"""Of what was recorded lately; then all is forgotten, and may be recorded once more."""

LONGEST_ASKED: Final = 200
"""Characters of a method and a path, as records keep them."""


def bearer(request: Request) -> ShownToken:
    """The API token that a request shows as a bearer token (RFC 6750 section 2.1).

    Raises:
        NoApiToken: there is no such header, or several.
        InvalidApiToken: it holds something else.
    """
    shown = request.headers.getlist("authorization")
    scheme, _, text = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise refusals.NoApiToken
    found = ShownToken.parse(text.strip())
    if found is None:
        raise refusals.InvalidApiToken
    return found


class Callers:
    """Admits callers, and records whom it does not."""

    def __init__(self, exchange: Exchange) -> None:
        """Nothing was recorded yet.

        Args:
            exchange: Any of the broker's, for the state, the clock and the record that they share.
        """
        self.exchange = exchange
        self._recorded: dict[tuple[str, ...], float] = {}
        """What was recorded, and when. Its keys are ids of tokens that exist, codes and organizations' names."""

    @asynccontextmanager
    async def asks(
        self, request: Request, shown: ShownToken, *, roles: Collection[Role], organization: str | None = None
    ) -> AsyncIterator[tuple[ApiToken, Attempt]]:
        """Admits a caller; what is done meanwhile and refused is recorded as the caller's. Success records nothing.

        Args:
            request: What is asked for.
            shown: By whom.
            roles: Those that may ask for it.
            organization: Whose it is: then all but its owners and operators are refused, whether there is one of that
                name or not.

        Raises:
            InvalidApiToken, ExpiredApiToken, RoleNotPermitted, ForeignOrganization
            StateUnavailable: it cannot be told now, or not recorded.
        """
        attempt = Attempt(kind="api", id=request.scope["attempt"], started_at=self.exchange.clock())
        attempt.source = request.scope["source"]
        attempt.asked = f"{request.method} {request.scope['path']}"[:LONGEST_ASKED]
        kept = await self.exchange.state.api_token(shown.id)
        if kept is not None:
            attempt.caller, attempt.owner = kept, kept.organization
        try:
            yield _admit(kept, shown, attempt.started_at, roles, organization), attempt
        except refusals.StateUnavailable:
            raise
        except refusals.Refusal as refusal:
            attempt.refusal = refusal
            known = "" if kept is None else kept.id
            await self.record(attempt, known, refusal.code, every_seconds=REFUSED_EVERY_SECONDS)
            raise

    async def record(self, attempt: Attempt, *key: str, every_seconds: float) -> None:
        """Records an attempt, unless one of that key was recorded so shortly before.

        Raises:
            StateUnavailable: then it is due still.
        """
        now, due = attempt.started_at, self._recorded.get(key)
        # A clock that was set back must not silence it.
        if due is not None and abs(now - due) < every_seconds:
            return
        await self.exchange.record(attempt)
        if len(self._recorded) >= MOST_REMEMBERED:
            self._recorded.clear()
        self._recorded[key] = now


def _admit(
    kept: ApiToken | None, shown: ShownToken, now: float, roles: Collection[str], organization: str | None
) -> ApiToken:
    """What is kept of the token that was shown, where it may ask.

    Raises:
        InvalidApiToken, ExpiredApiToken, RoleNotPermitted, ForeignOrganization
    """
    if kept is None or not kept.is_opened_by(shown):
        raise refusals.InvalidApiToken
    if kept.is_over(now):
        raise refusals.ExpiredApiToken
    if kept.role not in roles:
        raise refusals.RoleNotPermitted(
            f"the API token has the role {kept.role}, and this is for the role {' or '.join(roles)}"
        )
    if organization is not None and kept.role != "operator" and kept.organization != organization:
        raise refusals.ForeignOrganization(f"the API token is for the organization {kept.organization!r} alone")
    return kept
