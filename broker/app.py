"""Puts the parts together; the one module that knows them all.

`create_app()` is what `uvicorn --factory` calls in each worker. Clients, state and background work live as long as the
application's lifespan.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from broker import __version__, logs, settings
from broker.addresses import TrustedProxies
from broker.alerts import receivers
from broker.alerts.standing import Watch
from broker.alerts.webhooks import Webhooks
from broker.alerts.worker import Alerting
from broker.audit import Attempt, Record
from broker.indexes import Indexes
from broker.keys import IssuerKeys
from broker.leaving import Leaving
from broker.metrics import Metrics
from broker.metrics.counting import Counts
from broker.metrics.standing import Standing
from broker.outgoing import client, webhook_transport
from broker.policy.model import Issuer
from broker.policy_changes import SAME_SECONDS, PolicyChanges
from broker.refusals import StateUnavailable
from broker.reload import PoliciesInForce
from broker.settings import Settings, SettingsError
from broker.signing_files import REMEMBERED_SECONDS, KeysInForce, Source, name_of
from broker.sources import Sources
from broker.state import State
from broker.state.once import record_once
from broker.state.opening import open_state
from broker.state.pulse import Pulse
from broker.traces import FollowTraces, Traces
from broker.web import api, hosts, operations, recalls
from broker.web.answers import Attempts
from broker.web.callers import Callers

BEGIN_AGAIN_SECONDS = 1.0
"""Between attempts to reach a state at start."""

USER_AGENT = f"trusted-publishing-broker/{__version__}"


def create_app(
    given: Settings | None = None,
    *,
    clock: Callable[[], float] = time.time,
    issuers: httpx.AsyncBaseTransport | None = None,
    own_process: bool = True,
    sheets: Path | None = None,
    leaving: Leaving | None = None,
) -> Starlette:
    """The broker as an ASGI application, to be served alone or mounted in another.

    Whoever mounts it runs its lifespan, for Starlette does not: `async with app.router.lifespan_context(app)`.

    Args:
        given: The settings; read from the environment when None.
        clock: Epoch seconds.
        issuers: How issuers are reached; the network when None.
        own_process: Set up logging for the whole process, and read policies and signing keys again at SIGHUP. When
            False, neither is touched: events, and a copy of each audit record, go to structlog as the application has
            it.
        sheets: The folder in which several worker processes share their metrics; None where there is one process.
        leaving: What is to happen at SIGTERM; None leaves that to whoever serves the application.

    Raises:
        SettingsError, PolicyErrors: something it is to work with is wrong; nothing was started.
    """
    chosen = given or settings.load()
    if own_process:
        logs.configure(chosen.log_level, shared_output=chosen.workers > 1)
    policies = PoliciesInForce(
        chosen.policies,
        allow_loopback_issuers=chosen.allow_loopback_issuers,
        stale_after_seconds=chosen.policies_stale_after_hours * 3600,
        clock=clock,
    )
    parts = _Parts(
        chosen, policies, clock, issuers, own_process=own_process, sheets=sheets, leaving=leaving or Leaving(0)
    )
    app = Broker(
        asked_most=hosts.asked_most(parts.indexes.all),
        routes=parts.routes(),
        lifespan=parts.lifespan,
        middleware=[
            *([] if parts.traces is None else [Middleware(FollowTraces)]),
            Middleware(
                Attempts,
                clock=clock,
                counts=parts.counts,
                sources=parts.sources,
                leaving=parts.leaving,
                proxies=TrustedProxies.parse(chosen.trusted_proxies),
                asked_by_proxies=tuple(f"{one.base}/authorize" for one in parts.indexes.all if one.proxy != "off"),
            ),
        ],
    )
    # A redirect loses the body with some clients: each path that is served is named.
    app.router.redirect_slashes = False
    return app


class Broker(Starlette):
    """The application, without Starlette's own two middlewares for errors: `Attempts` answers whatever is raised."""

    def __init__(self, *, asked_most: Mapping[str, ASGIApp], **named: Any) -> None:
        """As Starlette's.

        Args:
            asked_most: By paths, what is posted to them: it is also among the routes, and found here before those.
        """
        super().__init__(**named)
        self.asked_most = asked_most

    def build_middleware_stack(self) -> ASGIApp:
        """Only those that were asked for, around the router."""

        def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if scope.get("method") == "POST":
                path = scope["path"].removeprefix(scope.get("root_path", ""))
                return self.asked_most.get(path, self.router)(scope, receive, send)
            return self.router(scope, receive, send)

        stack: ASGIApp = app
        for middleware, told, named in reversed(self.user_middleware):
            stack = middleware(stack, *told, **named)
        return stack


class _Parts:
    """What the application is made of, and its life."""

    def __init__(
        self,
        chosen: Settings,
        policies: PoliciesInForce,
        clock: Callable[[], float],
        issuers: httpx.AsyncBaseTransport | None,
        *,
        own_process: bool,
        sheets: Path | None,
        leaving: Leaving,
    ) -> None:
        self.chosen, self.policies, self.clock = chosen, policies, clock
        self.own_process, self.leaving = own_process, leaving
        self.signing = KeysInForce(Source.of(chosen), clock=clock, record=self._record_key)
        self.state = _open_state(chosen)
        self.issuers_client = client(httpx.Timeout(5.0), user_agent=USER_AGENT, transport=issuers)
        self.keys = IssuerKeys(self.issuers_client, self.state, clock, _tell_of_keys)
        self.counts = Counts(lambda: policies.current.issuers)
        self.sources = Sources(
            state=self.state,
            per_minute=chosen.refusals_per_minute,
            in_all_per_minute=chosen.refusals_per_minute_in_all,
            clock=clock,
            publish_record=self._publish_record,
        )
        self.indexes = Indexes(
            chosen,
            policies=lambda: policies.current,
            signing=lambda: self.signing.current,
            keys=self.keys,
            state=self.state,
            sources=self.sources,
            clock=clock,
            publish_record=self._publish_record,
            user_agent=USER_AGENT,
        )
        self.receivers_transport: httpx.AsyncHTTPTransport | None = None
        self.receivers: tuple[receivers.Receiver, ...] = ()
        self.alerting = None if chosen.alerts is None else self._alerting(chosen.alerts)
        self.pulse = Pulse(self.state)
        self.metrics = Metrics(self.counts, self._standing(), self.pulse, sheets, clock)
        self.traces = _open_traces(chosen)
        self.policy_changes = PolicyChanges(policies, clock=clock, record=self._record_policies)

    def routes(self) -> list[BaseRoute]:
        """All that is served."""
        exchange = self.indexes.all[0].exchange
        callers = Callers(exchange)
        return [
            *operations.routes(exchange, self.policies, self.pulse, self.signing, self.leaving),
            *api.routes(callers),
            *recalls.routes(callers),
            operations.metrics_route(self.metrics, self._metrics_token()),
            *hosts.routes(self.indexes.all, callers),
        ]

    def _standing(self) -> Standing:
        return Standing(
            policies=self.policies,
            signing=self.signing,
            keys=self.keys,
            places=self.indexes.places,
            sources=self.sources,
            clock=self.clock,
            version=__version__,
            alerts=lambda: {} if self.alerting is None else self.alerting.waiting,
        )

    def _publish_record(self, attempt: Attempt, record: Record) -> None:
        log = logs.attempt if self.own_process else logs.attempt_as_event
        for one in (record, *record.others):
            log(one)
        self.counts.attempt(attempt)
        if self.traces is not None:
            self.traces.attempt(attempt, record.organization)

    def _alerting(self, file: Path) -> Alerting:
        self.receivers = told = receivers.read(file, allow_loopback=self.chosen.allow_loopback_issuers)
        self.receivers_transport = transport = webhook_transport()
        return Alerting(
            told,
            state=self.state,
            webhooks=Webhooks(transport=transport, clock=self.clock, user_agent=USER_AGENT),
            watch=Watch(policies=self.policies, keys=self.keys, clock=self.clock),
            counts=self.counts,
            clock=self.clock,
        )

    async def _record_key(self, attempt: Attempt) -> None:
        await self._record_once(attempt, name_of(attempt), REMEMBERED_SECONDS)

    async def _record_policies(self, attempt: Attempt, what: str) -> None:
        await self._record_once(attempt, what, SAME_SECONDS)

    async def _record_once(self, attempt: Attempt, what: str, seconds: int) -> None:
        if await record_once(self.state, attempt, what=what, seconds=seconds):
            self._publish_record(attempt, attempt.record())

    def _read_again(self) -> None:
        self.policies.read_again()
        self.signing.read_again()

    def _metrics_token(self) -> str | None:
        """What is to be shown; empty where nothing will do, None where nothing need be."""
        return None if self.chosen.metrics == "open" else self.chosen.metrics_token.get_secret_value()

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Keeps policies and all keys current while the application lives; then closes what it opened."""
        self._warn()
        self.policies.tell("loaded")
        self.signing.tell("loaded")
        work = [
            asyncio.create_task(self._begin_state()),
            asyncio.create_task(self.policies.keep_current()),
            asyncio.create_task(self.signing.keep_current()),
            asyncio.create_task(self.policy_changes.keep_noted()),
            asyncio.create_task(self.keys.keep_fresh(lambda: self.policies.current.issuers)),
            asyncio.create_task(self.metrics.keep_written()),
            asyncio.create_task(self.sources.keep_told()),
        ]
        if self.alerting is not None:
            work.append(asyncio.create_task(self.alerting.keep_going()))
        try:
            on_hangup = _on_hangup(self._read_again) if self.own_process else contextlib.nullcontext()
            with on_hangup, self.leaving.at_sigterm():
                yield
        finally:
            await self.leaving.last_requests()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            with contextlib.suppress(StateUnavailable):
                await self.sources.tell()
            await self.keys.close()
            await self.issuers_client.aclose()
            await self.indexes.close()
            if self.receivers_transport is not None:
                await self.receivers_transport.aclose()
            await self.state.close()
            if self.traces is not None:
                await asyncio.to_thread(self.traces.close)
            with contextlib.suppress(OSError):  # a full disk: there is nobody left to tell
                logs.flush()

    def _warn(self) -> None:
        """Tells what is probably not meant, and no reason not to serve."""
        logger = logs.logger()
        if any(index.url.startswith("http:") for index in self.indexes.all):
            logger.warning("BROKER_PUBLIC_URL is http: uv and gh-action insist on https, and tokens are readable")
        if self.chosen.allow_loopback_issuers:
            logger.warning("loopback issuers are allowed: never so in production")
        for exchange in (index.exchange for index in self.indexes.all):
            if unknown := (exchange.organizations or frozenset()) - self.policies.current.organizations.keys():
                logger.warning(
                    "a registry is for organizations that the policies do not have",
                    registry=exchange.index,
                    organizations=sorted(unknown),
                )

        if self.receivers:
            self._warn_of_receivers()

    def _warn_of_receivers(self) -> None:
        logger, known = logs.logger(), self.policies.current.organizations
        for receiver, organizations in receivers.unknown_to(known, self.receivers).items():
            logger.warning(
                "a receiver of alerts is for organizations that the policies do not have",
                receiver=receiver,
                organizations=organizations,
            )
        if unnamed := receivers.named_by_none(known, self.receivers):
            logger.warning("no receiver of alerts is for organizations that the policies have", organizations=unnamed)

    async def _begin_state(self) -> None:
        """Has the state begin to remember, as soon as it answers, and tells how it is kept."""
        while True:
            try:
                for said in await self.state.begin(self.clock()):
                    logs.logger().warning("state is not kept as it should be", why=said)
            except StateUnavailable:  # which `/readyz` and every request say too
                await asyncio.sleep(BEGIN_AGAIN_SECONDS)
            else:
                return


@contextlib.contextmanager
def _on_hangup(call: Callable[[], None]) -> Iterator[None]:
    """Does this at SIGHUP, instead of ending; nothing where there are no such signals, or another thread gets them."""
    loop, unable = asyncio.get_running_loop(), (AttributeError, NotImplementedError, RuntimeError, ValueError)
    with contextlib.suppress(*unable):
        loop.add_signal_handler(signal.SIGHUP, call)
    try:
        yield
    finally:
        with contextlib.suppress(*unable):
            loop.remove_signal_handler(signal.SIGHUP)


def _tell_of_keys(issuer: Issuer, problem: str) -> None:
    if problem:
        logs.logger().warning("an issuer's keys cannot be fetched", issuer=issuer.name, cause=problem)
    else:
        logs.logger().info("an issuer's keys are fetched again", issuer=issuer.name)


def _open_state(chosen: Settings) -> State:
    try:
        return open_state(chosen.state_address(), retention_days=chosen.audit_days)
    except ValueError as error:
        raise SettingsError(f"BROKER_STATE_URL: {error}.") from error


def _open_traces(chosen: Settings) -> Traces | None:
    if chosen.traces_url is None:
        return None
    try:
        return Traces(chosen.traces_url, __version__)
    except ImportError as error:
        raise SettingsError(
            "BROKER_TRACES_URL: what sends traces is not installed. Install it: "
            "pip install 'trusted-publishing-broker[traces]'"
        ) from error
