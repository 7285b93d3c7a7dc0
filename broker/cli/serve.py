"""`broker serve`: the broker itself, by uvicorn."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from broker import settings
from broker.app import create_app
from broker.indexes import MOST_READERS
from broker.leaving import Leaving, turn_away
from broker.logs import logger
from broker.policy.errors import PolicyErrors
from broker.refusals import StateUnavailable
from broker.settings import PREFIX, Settings, SettingsError
from broker.state.opening import open_state, sqlite_file
from broker.web.connections import Connections
from broker.web.protocol import BoundedProtocol

MISTAKES_ON_A_SCREEN: Final = 8

COLLECT_AFTER: Final = 5000
"""Objects that can be in cycles, made and not freed since the last look: what some hundred requests under way have."""

TURN_SECONDS: Final = 0.0001
"""After which a thread lets another run that wants to. The event loop is always busy under load, so at Python's 5 ms
the thread that settles a batch of exchanges would wait that long after each statement of its own."""

OTHER_FILES: Final = 200
"""What a process has open beside connections, uploads and reads: state, issuers, libraries, logs."""

FEWEST_CONNECTIONS: Final = 10

FLAGS = ("policies", "state_url", "host", "port", "workers")


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "serve",
        help="serve the broker",
        description="Serves the broker. BROKER_* settings come from the environment or an env file; flags override.",
        epilog="Every setting: docs/reference/settings.md. A wrong setting or policy is explained, and nothing starts.",
    )
    parser.add_argument("--policies", metavar="DIR", help="the folder of policies (BROKER_POLICIES)")
    parser.add_argument("--state", dest="state_url", metavar="URL", help="where state is kept (BROKER_STATE_URL)")
    parser.add_argument("--host", help="the address to listen on (BROKER_HOST)")
    parser.add_argument("--port", help="the port to listen on (BROKER_PORT)")
    parser.add_argument("--workers", help="worker processes (BROKER_WORKERS)")
    parser.add_argument("--env-file", metavar="FILE", help="read BROKER_* settings from this file too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks all that can be wrong in this process, then serves until a signal ends it."""
    # Worker processes are new interpreters and read the environment: so flags become part of it.
    for name in FLAGS:
        if (value := getattr(args, name)) is not None:
            os.environ[PREFIX + name.upper()] = value
    if args.env_file is not None:
        os.environ[settings.ENV_FILE] = args.env_file
    try:
        chosen = settings.load(args.env_file)
        leaving = Leaving(chosen.drain_seconds)
        app = create_app(chosen, leaving=leaving)
        _check_address(chosen)
        asyncio.run(_check_file(chosen))
    except SettingsError as error:
        return _not_started(str(error))
    except PolicyErrors as errors:
        return _not_started(errors.explained(most=MISTAKES_ON_A_SCREEN))
    server = {
        "host": chosen.host,
        "port": chosen.port,
        "ssl_certfile": chosen.tls_certificate,
        "ssl_keyfile": chosen.tls_key,
        "http": partial(BoundedProtocol, all_connections=_connections(chosen)),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # whose word on addresses counts is BROKER_TRUSTED_PROXIES' to say
        "timeout_graceful_shutdown": chosen.shutdown_seconds,
        # A worker answers once it has its modules. On a busy machine that takes longer than uvicorn's 5 s, and it would
        # be ended and begun again for ever.
        "timeout_worker_healthcheck": 60,
    }
    return _serve(app, leaving, chosen, server)


def _connections(chosen: Settings) -> Connections:
    """As many as were chosen, if the system lets this process and its workers have the files; it is asked for more."""
    others = 2 * chosen.uploads_at_once + MOST_READERS + OTHER_FILES
    files = sys.maxsize
    with contextlib.suppress(ImportError, OSError, ValueError):  # where there are no such limits
        import resource  # noqa: PLC0415 - it is not there on every system

        before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = files_of(before, most, chosen.connections + others)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    return Connections(max(FEWEST_CONNECTIONS, min(chosen.connections, files - others)))


def files_of(before: int, most: int, wanted: int) -> int:
    """How many files to have, of so many that are wanted: what there are, or as many more as there can be.

    Both as the system tells them, where a number below 0 is no limit.
    """
    before, most = (sys.maxsize if limit < 0 else limit for limit in (before, most))
    return max(before, min(wanted, most))


def _check_address(chosen: Settings) -> None:
    """Listens for a moment, for uvicorn would fail late, and say so in its own words."""
    try:
        ((family, *_, address), *_) = socket.getaddrinfo(chosen.host, chosen.port, type=socket.SOCK_STREAM)
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        where = f"BROKER_HOST and BROKER_PORT: {chosen.host} port {chosen.port}"
        raise SettingsError(
            f"{where} cannot be listened on ({error.strerror}). Choose another, or end what listens there."
        ) from error


async def _check_file(chosen: Settings) -> None:
    """Writes to a state that is a file. A Redis that is down may come back; a wrong path does not mend itself."""
    url = chosen.state_address()
    if not url.startswith("sqlite:"):
        return
    state = open_state(url, retention_days=chosen.audit_days)
    try:
        await state.ping()
    except StateUnavailable as refusal:
        raise SettingsError(
            f"BROKER_STATE_URL: {sqlite_file(url)} cannot be written ({refusal.__cause__ or refusal.detail}). Name a "
            "file of the broker's own, in a folder that is there and that its user may write to."
        ) from refusal
    finally:
        await state.close()


def _not_started(why: str) -> int:
    print(f"broker serve: not started.\n\n{why}", file=sys.stderr)
    return 1


def _serve(app: object, leaving: Leaving, chosen: Settings, server: dict[str, object]) -> int:
    if chosen.workers == 1:
        _tune_interpreter()
        return _serve_alone(uvicorn.Config(app, **server), leaving)  # type: ignore[arg-type]  # as uvicorn names them
    try:
        folder = tempfile.TemporaryDirectory(prefix="broker-metrics-", ignore_cleanup_errors=True)
    except OSError as error:
        return _not_started(
            f"BROKER_WORKERS: several share their metrics in a temporary folder, and none can be made ({error}). "
            "Give the broker a /tmp, or name a folder in TMPDIR."
        )
    with folder as sheets:
        application = partial(worker, Path(sheets))
        config = uvicorn.Config(application, factory=True, workers=chosen.workers, **server)  # type: ignore[arg-type]
        Workers(config, [config.bind_socket()], drain_seconds=chosen.drain_seconds).run()
    return 0


def _serve_alone(config: uvicorn.Config, leaving: Leaving) -> int:
    """Serves in this process until a signal ends it; that is a good end."""
    server = uvicorn.Server(config)
    leaving.listener = config.bind_socket()
    # When all is done, uvicorn raises the signal again that ended it. Before it serves, there is nothing to finish.
    signal.signal(signal.SIGTERM, lambda *_: None if server.started else sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        server.run([leaving.listener])
    return 0 if server.started else STARTUP_FAILURE


class Workers(Multiprocess):
    """uvicorn's worker processes, but for two things.

    SIGHUP has each read policies and keys again, instead of starting all anew. And while they end, this process does
    not keep the socket open: whoever connects then would wait for nobody.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], *, drain_seconds: float) -> None:
        """Starts nothing yet.

        Args:
            drain_seconds: How long workers still take connections after SIGTERM.
        """
        super().__init__(config, sockets)
        self._drain_seconds = drain_seconds

    def terminate_all(self) -> None:
        """Has all end. Another signal cuts short the time in which they still take connections."""
        pids = [process.pid for process in self.processes]
        super().terminate_all()
        until = time.monotonic() + self._drain_seconds
        while time.monotonic() < until and not {signal.SIGTERM, signal.SIGINT} & set(self.signal_queue):
            time.sleep(0.05)
        if self.signal_queue:
            _signal(pids, signal.SIGTERM)
        for one in self.sockets:
            if self._drain_seconds:
                turn_away(one)
            one.close()

    def handle_int(self) -> None:
        """Ends all, in no way that takes time: it is Ctrl-C."""
        self._drain_seconds = 0
        _signal([process.pid for process in self.processes], signal.SIGINT)
        super().handle_int()

    def handle_hup(self) -> None:
        """Hands the signal on."""
        _signal([process.pid for process in self.processes], signal.SIGHUP)


def _signal(pids: Iterable[int | None], what: signal.Signals) -> None:
    for pid in filter(None, pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def worker(sheets: Path) -> Starlette:
    """What each of several worker processes serves.

    Where policies or keys were broken since the others began, it ends, is started again, and leaves the work to those.

    Args:
        sheets: The folder in which they share their metrics.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until all is loaded, and it asks to load it again
    try:
        chosen = settings.load()
        app = create_app(chosen, sheets=sheets, leaving=Leaving(chosen.drain_seconds))
    except (PolicyErrors, SettingsError) as errors:
        why = errors.explained(most=MISTAKES_ON_A_SCREEN) if isinstance(errors, PolicyErrors) else str(errors)
        logger().error("worker not started", explained=why)
        sys.exit(1)
    _tune_interpreter()
    return app


def _tune_interpreter() -> None:
    """Fits the interpreter to many short exchanges: its garbage collector, and how its threads take turns (ADR 11).

    The collector is told what stays, and to look less often for what does not: an exchange that waits for state
    outlives a young generation, so by its own measure the collector went through all modules and policies again and
    again. What is not part of a cycle never waits for it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    sys.setswitchinterval(TURN_SECONDS)
