"""Puts the parts together; the one module that knows them all.

`create_app()` is what `uvicorn --factory` calls in each worker. Clients, state and background work live as long as the
application's lifespan.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Host, Route, Router

from broker import __version__, logs, registries, settings
from broker.addresses import TrustedProxies
from broker.alerts import receivers
from broker.alerts.standing import Watch
from broker.alerts.webhooks import Webhooks
from broker.alerts.worker import Alerting
from broker.audit import Attempt, Record
from broker.devpi import DevpiTokens, ParentToken, index_of
from broker.exchange import Exchange, Rates
from broker.gateway import Gateway
from broker.gateway.index import SimpleIndex
from broker.gateway.once import LEASE_MARGIN_SECONDS, WAIT_SECONDS, Once
from broker.gateway.pace import Pace
from broker.gateway.paths import RegistryPaths
from broker.gateway.places import Places
from broker.gateway.reads import Reads
from broker.gateway.registry import Registry
from broker.keys import IssuerKeys
from broker.leaving import Leaving
from broker.metrics import Metrics
from broker.metrics.counting import Counts
from broker.metrics.standing import Standing
from broker.minting import Minter
from broker.policy_changes import SAME_SECONDS, PolicyChanges
from broker.refusals import StateUnavailable
from broker.registries import RegistrySettings
from broker.reload import PoliciesInForce
from broker.settings import Settings, SettingsError
from broker.signing_files import REMEMBERED_SECONDS, KeysInForce, Source, name_of
from broker.sources import Sources
from broker.state import State
from broker.state.once import record_once
from broker.state.opening import open_state
from broker.state.pulse import Pulse
from broker.traces import FollowTraces, Traces
from broker.web import api, downloads, forward, oauth, operations, publishing, recalls, uploads
from broker.web.answers import Attempts, refuse_unrouted
from broker.web.callers import Callers
from broker.web.index import Index

MOST_READERS = 256
"""Pages and files that a process reads from one registry at once."""
MOST_FILES = 192
"""Of those, files: what is left is for pages, which come and go."""

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
        logs.configure(chosen.log_level)
    policies = PoliciesInForce(
        chosen.policies,
        allow_loopback_issuers=chosen.allow_loopback_issuers,
        stale_after_seconds=chosen.policies_stale_after_hours * 3600,
        clock=clock,
    )
    parts = _Parts(
        chosen, policies, clock, issuers, own_process=own_process, sheets=sheets, leaving=leaving or Leaving(0)
    )
    app = Starlette(
        routes=parts.routes,
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
                asked_by_proxies=tuple(f"{one.base}/authorize" for one in parts.indexes if one.proxy != "off"),
            ),
        ],
        exception_handlers={HTTPException: refuse_unrouted},
    )
    # A redirect loses the body with some clients: each path that is served is named.
    app.router.redirect_slashes = False
    return app


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
        self.chosen, self.own_process, self.leaving = chosen, own_process, leaving
        self.policies = policies
        self.signing = KeysInForce(Source.of(chosen), clock=clock, record=self._record_key)
        self.state = _open_state(chosen)
        self.issuers_client = _client(httpx.Timeout(5.0), issuers)
        most = max(100, chosen.uploads_at_once)
        self.registry_client = _client(httpx.Timeout(120.0, connect=5.0, pool=30.0), most=most)
        self.readers_clients: list[httpx.AsyncClient] = []
        self.keys = IssuerKeys(self.issuers_client, self.state, clock)
        self.clock = clock
        told = registries.of(chosen)
        self.places = Places(most=chosen.uploads_at_once, most_bytes=registries.spool_bytes(chosen, told))
        self.counts = Counts(lambda: policies.current.issuers)
        self.sources = Sources(
            state=self.state,
            per_minute=chosen.refusals_per_minute,
            in_all_per_minute=chosen.refusals_per_minute_in_all,
            clock=clock,
            publish_record=self._publish_record,
        )
        self.rates = Rates(
            per_repository=chosen.exchanges_per_minute,
            per_organization=chosen.exchanges_per_minute_per_organization,
            per_issuer=chosen.exchanges_per_minute_per_issuer,
        )
        self.receivers_transport: httpx.AsyncHTTPTransport | None = None
        self.alerting = None if chosen.alerts is None else self._alerting(chosen.alerts)
        standing = Standing(
            policies=policies,
            signing=self.signing,
            keys=self.keys,
            places=self.places,
            sources=self.sources,
            clock=clock,
            version=__version__,
            alerts=lambda: {} if self.alerting is None else self.alerting.waiting,
        )
        pulse = Pulse(self.state)
        self.metrics = Metrics(self.counts, standing, pulse, sheets, clock)
        self.traces = _open_traces(chosen)
        self.policy_changes = PolicyChanges(policies, clock=clock, record=self._record_policies)
        self.indexes = [self._index(one) for one in told]
        callers = Callers(self.indexes[0].exchange)
        self.routes: list[BaseRoute] = [
            *_asked_most(self.indexes),
            *operations.routes(self.indexes[0].exchange, policies, pulse, self.signing, leaving),
            *api.routes(callers),
            *recalls.routes(callers),
            operations.metrics_route(self.metrics, self._metrics_token()),
            *_by_host(self.indexes, callers),
        ]

    def _index(self, one: RegistrySettings) -> Index:
        minter = Minter(
            keys=lambda: self.signing.current,
            issuer=one.public_url,
            audience=one.upload_url,
            prefix=self.chosen.token_prefix,
        )
        exchange = Exchange(
            index="" if self.chosen.registries is None else one.name,
            audience=one.audience,
            rates=self.rates,
            sources=self.sources,
            policies=lambda: self.policies.current,
            keys=self.keys,
            minter=minter,
            state=self.state,
            clock=self.clock,
            publish_record=self._publish_record,
            organizations=one.organizations,
            scopes=("upload", "read") if one.reads == "scoped" else ("upload",),
            devpi=_read_devpi(one),
        )
        pace = Pace(bytes_per_second=self.chosen.upload_bytes_per_second)
        gateway = Gateway(
            exchange=exchange,
            once=self._once(one),
            spool=self.chosen.spool or Path(tempfile.gettempdir()),
            upload_limit_bytes=one.upload_limit_bytes,
            places=self.places,
            pace=pace,
        )
        # devpi's own tokens are for devpi: no upload comes here.
        return Index(
            base=one.base,
            upload_path=one.upload_path,
            exchange=exchange,
            gateway=None if exchange.devpi else gateway,
            reads=self._reads(one, exchange, pace),
            simple_path=one.simple_path,
            files_path=one.files_path,
            proxy=one.forward_auth,
            registry_paths=_registry_paths(one),
        )

    def _publish_record(self, attempt: Attempt, record: Record) -> None:
        log = logs.attempt if self.own_process else logs.attempt_as_event
        for one in (record, *record.others):
            log(one)
        self.counts.attempt(attempt)
        if self.traces is not None:
            self.traces.attempt(attempt, record.organization)

    def _alerting(self, file: Path) -> Alerting:
        told = receivers.read(file, allow_loopback=self.chosen.allow_loopback_issuers)
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

    def _reads(self, one: RegistrySettings, exchange: Exchange, pace: Pace) -> Reads | None:
        if one.reads == "off":
            return None
        # Of its own: readers are many, and must keep neither uploads nor another registry's readers from theirs.
        client = _client(httpx.Timeout(60.0, connect=5.0, pool=10.0), most=MOST_READERS)
        self.readers_clients.append(client)
        return Reads(
            exchange=exchange,
            index=_simple_index(one, client),
            access=one.reads,
            places=Places(most=MOST_FILES, most_bytes=1),
            pace=pace,
            fallback=one.fallback_index,
        )

    def _once(self, one: RegistrySettings) -> Once:
        index = _simple_index(one, self.registry_client)
        return Once(
            state=self.state,
            registry=index.registry,
            index=index,
            open_days=one.release_days,
            clock=self.clock,
            lease_seconds=one.timeout_seconds + LEASE_MARGIN_SECONDS,
            wait_seconds=WAIT_SECONDS,
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Keeps policies and all keys current while the application lives; then closes what it opened."""
        if any(index.url.startswith("http:") for index in self.indexes):
            logs.logger().warning(
                "BROKER_PUBLIC_URL is http: uv and gh-action insist on https, and tokens are readable"
            )
        if self.chosen.allow_loopback_issuers:
            logs.logger().warning("loopback issuers are allowed: never so in production")
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
            await self.registry_client.aclose()
            if self.receivers_transport is not None:
                await self.receivers_transport.aclose()
            for client in self.readers_clients:
                await client.aclose()
            await self.state.close()
            if self.traces is not None:
                await asyncio.to_thread(self.traces.close)

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


def _simple_index(one: RegistrySettings, client: httpx.AsyncClient) -> SimpleIndex:
    registry = Registry(
        url=one.url,
        credential=one.credential,
        client=client,
        timeout_seconds=one.timeout_seconds,
        drop=one.drop,
        pass_user_agent=one.pass_user_agent,
    )
    return SimpleIndex(url=one.index_url, registry=registry, largest_file_bytes=one.upload_limit_bytes)


def _by_host(indexes: Sequence[Index], callers: Callers) -> list[BaseRoute]:
    """The routes of each host's indexes. The first host's are served to whoever asks for none of them by name."""
    hosts: dict[str, list[Index]] = {}
    for index in indexes:
        hosts.setdefault(urlsplit(index.url).hostname or "", []).append(index)
    first, *others = hosts.values()
    named = [
        Host(urlsplit(several[0].url).hostname or "", Router(_routes(several, callers), redirect_slashes=False))
        for several in others
    ]
    return [*named, *_routes(first, callers)]


def _asked_most(indexes: Sequence[Index]) -> list[Route]:
    """The routes of exchanges, to be looked for first. Of several hosts, each has its own, behind its name."""
    hosts = {urlsplit(index.url).hostname for index in indexes}
    return publishing.exchange_routes(indexes) if len(hosts) == 1 else []


def _routes(indexes: Sequence[Index], callers: Callers) -> list[BaseRoute]:
    return [
        *publishing.routes(indexes),
        *oauth.routes(indexes, callers),
        *(
            route
            for index in indexes
            for route in (*uploads.routes(index), *downloads.routes(index), *forward.routes(index))
        ),
    ]


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


def _client(
    timeout: httpx.Timeout, transport: httpx.AsyncBaseTransport | None = None, *, most: int = 100
) -> httpx.AsyncClient:
    # No proxy and no .netrc from the environment; certificates from the system's store, or SSL_CERT_FILE.
    return httpx.AsyncClient(
        timeout=timeout,
        limits=httpx.Limits(max_connections=most, max_keepalive_connections=20),
        transport=transport,
        verify=ssl.create_default_context(),
        trust_env=False,
        follow_redirects=False,
        headers={"User-Agent": USER_AGENT},
    )


def webhook_transport() -> httpx.AsyncHTTPTransport:
    """How alerts' receivers are reached: as `_client` reaches others, but that nothing logs the URLs.

    A slow receiver keeps its connection to itself: there are as many as receivers.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    return httpx.AsyncHTTPTransport(verify=ssl.create_default_context(), limits=limits, trust_env=False)


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


def _read_devpi(one: RegistrySettings) -> DevpiTokens | None:
    if one.upload_tokens != "devpi":
        return None
    try:
        index = index_of(one.url)
    except ValueError as error:
        raise SettingsError(f"BROKER_REGISTRY_URL, with BROKER_UPLOAD_TOKENS=devpi: {error}.") from error
    try:
        parent = ParentToken.parse(one.devpi_token.get_secret_value(), index)
    except ValueError as error:
        raise SettingsError(
            f"BROKER_DEVPI_TOKEN: {error}. Make one as the devpi user __token__: "
            f"devpi token-create --allowed upload --indexes {index}"
        ) from error
    return DevpiTokens(parent=parent, index=index)


def _registry_paths(one: RegistrySettings) -> RegistryPaths | None:
    if one.forward_auth == "off":
        return None
    try:
        return RegistryPaths.beside(one.index_url)
    except ValueError as error:
        raise SettingsError(
            f"BROKER_FORWARD_AUTH={one.forward_auth}: of the registry {one.name!r}, {error}. "
            "Correct its index URL, or switch forward-auth off."
        ) from error
