"""What operators' machines ask: is it alive, is it ready."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker import refusals
from broker.exchange import Exchange
from broker.web.answers import Json, tell_operator


def routes(exchange: Exchange) -> list[Route]:
    """`/healthz` answers for the process alone; `/readyz` for what it needs, and says why it is not ready."""

    async def healthz(_: Request) -> Response:
        return Json({"status": "alive"})

    async def readyz(request: Request) -> Response:
        problems = await _problems(exchange, request.scope["attempt"])
        policies = exchange.policies()
        issuers = {
            name: {"usable": stands.usable, "age_seconds": stands.age_seconds, "problem": stands.problem}
            for name, issuer in policies.issuers.items()
            if not issuer.disabled
            for stands in [exchange.keys.freshness(issuer)]
        }
        body = {
            "status": "not ready" if problems else "ready",
            "problems": problems,
            "generation": policies.generation,
            "issuers": issuers,
        }
        return Json(body, 503 if problems else 200)

    return [Route("/healthz", healthz, methods=["GET"]), Route("/readyz", readyz, methods=["GET"])]


async def _problems(exchange: Exchange, attempt_id: str) -> list[str]:
    problems = []
    try:
        await exchange.state.ping()
    except refusals.StateUnavailable as refusal:
        tell_operator(refusal, attempt_id)  # why, with addresses and paths: not for everybody who may ask this route
        problems.append("state cannot be reached")
    issuers = [issuer for issuer in exchange.policies().issuers.values() if not issuer.disabled]
    # One issuer's outage must not take every replica out of service: the others' jobs still publish.
    if not any(exchange.keys.freshness(issuer).usable for issuer in issuers):
        problems.append("no issuer has usable keys" if issuers else "the policies name no issuer")
    return problems
