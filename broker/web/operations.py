"""What operators' machines ask: is it alive, is it ready, how does it do."""

from __future__ import annotations

import hmac

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker import refusals
from broker.exchange import Exchange
from broker.leaving import Leaving
from broker.metrics import Metrics
from broker.metrics.page import MEDIA_TYPE
from broker.policy.matching import require_current
from broker.policy.subjects import counted, kind_of
from broker.reload import PoliciesInForce
from broker.signing_files import KeysInForce
from broker.state.pulse import Pulse
from broker.web.answers import Json, tell_operator


def routes(
    exchange: Exchange, in_force: PoliciesInForce, pulse: Pulse, signing: KeysInForce, leaving: Leaving
) -> list[Route]:
    """`/healthz` answers for the process alone; `/readyz` for what it needs, and says why it is not ready."""

    async def healthz(_: Request) -> Response:
        return Json({"status": "alive"})

    async def readyz(request: Request) -> Response:
        problems = await _problems(exchange, pulse, request.scope["attempt"])
        if leaving.begun:
            problems.append("the broker is about to end")
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
            "policies": _standing(in_force, exchange.clock()),
            "signing_keys": _signing(signing, exchange.clock()),
            "issuers": issuers,
            "switched_off": await _switched_off(pulse),
        }
        return Json(body, 503 if problems else 200)

    return [Route("/healthz", healthz, methods=["GET"]), Route("/readyz", readyz, methods=["GET"])]


def metrics_route(metrics: Metrics, token: str | None) -> Route:
    """`/metrics`, for Prometheus.

    Args:
        token: What is to be shown as a bearer token: None where everybody may read, empty where nobody may.
    """

    async def tell(request: Request) -> Response:
        if token is not None and not _shows(request.headers.get("authorization", ""), token):
            raise refusals.NotFound("metrics are for whoever shows BROKER_METRICS_TOKEN as a bearer token")
        return Response(await metrics.page(), 200, {"Cache-Control": "no-store"}, MEDIA_TYPE)

    return Route("/metrics", tell, methods=["GET"])


def _shows(authorization: str, token: str) -> bool:
    scheme, _, shown = authorization.partition(" ")
    return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), token.encode())


def _standing(in_force: PoliciesInForce, now: float) -> dict[str, object]:
    """Whether they are those of the files. Which mistakes those have is for the log: anybody may ask this route."""
    failing = in_force.failing
    if failing is None:
        return {"current": True}
    return {
        "current": False,
        "failing_seconds": round(now - failing.since),
        "mistakes": len(failing.error.errors),
        "denied_in_seconds": max(0, round(in_force.denied_from(failing) - now)),
    }


async def _switched_off(pulse: Pulse) -> dict[str, object] | None:
    """What is switched off; None where that cannot be told now. It makes no broker less ready.

    Issuers by their names, which stand here anyhow. Of organizations and publishers how many: anybody may ask this
    route, and who has trouble is theirs to tell.
    """
    try:
        off = {switch.subject for switch in await pulse.beat()}
    except refusals.StateUnavailable:
        return None
    count = counted(off)
    return {
        "everything": count["everything"] == 1,
        "issuers": sorted(subject.removeprefix("issuer ") for subject in off if kind_of(subject) == "issuer"),
        "organizations": count["organization"],
        "publishers": count["publisher"],
    }


def _signing(signing: KeysInForce, now: float) -> dict[str, object]:
    """Which keys there are, and whether they are those of the files. Why they are not is for the log."""
    failing, standings = signing.failing, signing.current.standings(now)
    told = {
        "current": failing is None,
        "signing": signing.current.signing_at(now).id,
        "announced": [id_ for id_, standing in standings.items() if standing == "announced"],
        "retiring": [id_ for id_, standing in standings.items() if standing == "retiring"],
    }
    return told if failing is None else {**told, "failing_seconds": round(now - failing.since)}


async def _problems(exchange: Exchange, pulse: Pulse, attempt_id: str) -> list[str]:
    problems = []
    try:
        await pulse.beat()
    except refusals.StateUnavailable as refusal:
        tell_operator(refusal, attempt_id)  # why, with addresses and paths: not for everybody who may ask this route
        problems.append("state cannot be reached")
    policies = exchange.policies()
    try:
        require_current(policies, exchange.clock())
    except refusals.PoliciesStale:
        problems.append("the policies cannot be loaded, and the last good ones are too old to decide")
    issuers = [issuer for issuer in policies.issuers.values() if not issuer.disabled]
    # One issuer's outage must not take every replica out of service: the others' jobs still publish.
    if not any(exchange.keys.freshness(issuer).usable for issuer in issuers):
        problems.append("no issuer has usable keys" if issuers else "the policies name no issuer")
    return problems
