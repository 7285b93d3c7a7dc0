"""Brokers that are killed (`kill -9`) at random instants under load, and what they answered before.

Two brokers share a state: a SQLite file, each broker with two workers, or a Redis that keeps everything. Clients offer
identity tokens to both at once, and old ones again and again, from before and after kills; every tenth upload token
uploads a file to a real pypiserver. Each broker, as soon as it is ready again, is killed with all its processes at a
random instant. A second organization binds the same repository, so that most attempts leave two records.

At the end every identity token is offered once more, and what clients hold is compared with what the state kept: none
was minted twice (0), no upload token and no upload was answered without its record, no attempt has a record with one of
its organizations alone, and each chain of records is whole.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker.playground.ci_server import serving_ci
from broker.playground.processes import CHECKOUT, free_port
from tests.harness import cuckoo
from tests.redis_server import RedisServer
from tests.registries import PASSWORD, USER, pypi_server
from tests.servers import variables
from tests.trials.ledger import Ledger

STORES = ("sqlite", "redis")
READY_SECONDS = 180.0
LIVES_SECONDS = 1.0
"""At most, before the next kill."""


def main() -> int:
    """Runs it on each store, and says how it ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.kills", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="of each store (200)")
    parser.add_argument("--store", choices=STORES, action="append", help="only this one (all)")
    parser.add_argument("--clients", type=int, default=4, help="that offer tokens at once (4)")
    chosen = parser.parse_args()
    wrong = 0
    for store in chosen.store or STORES:
        with tempfile.TemporaryDirectory() as folder:
            told, faults = asyncio.run(play(store, Path(folder), kills=chosen.kills, clients=chosen.clients))
        print(json.dumps({"store": store, **told, "wrong": faults}), flush=True)
        wrong += len(faults)
    return 1 if wrong else 0


@dataclass(slots=True, kw_only=True)
class Killable:
    """A broker that can be killed with all its processes, and started again on the same port."""

    environment: Mapping[str, str]
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it is ready."""
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "broker.playground.tether", "broker", "serve"],
                cwd=self.folder,
                # What was killed leaves its temporary files behind: here.
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith("BROKER_")},
                    **self.environment,
                    "BROKER_PORT": str(self.port),
                    "PYTHONPATH": str(CHECKOUT),
                    "TMPDIR": str(self.folder),
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            assert self.process.poll() is None, (self.folder / "broker.log").read_text()[-2000:]
            assert time.monotonic() < until, "the broker is not ready"
            time.sleep(0.02)

    def kill(self) -> None:
        """Ends it as a crash does, whatever it is doing."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # its own session: none but it and its workers
            self.process.communicate()
            self.process = None

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextlib.contextmanager
def storing(store: str, folder: Path, workers: int) -> Iterator[dict[str, str]]:
    """The settings of a state of that kind."""
    if store == "sqlite":
        yield {"state_url": f"sqlite:///{folder}/state.db", "workers": str(workers)}
    else:
        with RedisServer("--appendonly", "yes") as server:
            yield {"state_url": server.url}


async def play(
    store: str, folder: Path, *, kills: int, clients: int, count: int = 2, workers: int = 2
) -> tuple[dict[str, object], Sequence[str]]:
    """Kills that often: what there is to tell, and what is wrong.

    Args:
        store: Which.
        folder: A new folder.
        kills: How often, all brokers together.
        clients: That offer tokens at once.
        count: Brokers.
        workers: Of each broker whose state is a file.
    """
    with (
        serving_ci() as ci,
        pypi_server(folder / "registry") as registry,
        storing(store, folder, workers) as state,
        contextlib.ExitStack() as stack,
    ):
        told = {"registry_url": registry.url, "registry_username": USER, "registry_password": PASSWORD}
        environment = variables(folder, ci, **state, **told)
        (Path(environment["BROKER_POLICIES"]) / "organizations" / "bolt.yaml").write_text(
            cuckoo("bolt"), encoding="utf-8"
        )
        brokers = [Killable(environment=environment, folder=folder) for _ in range(count)]
        for one in brokers:
            stack.callback(one.kill)
        ledger, urls, began = Ledger(ci), [one.url for one in brokers], time.monotonic()
        await asyncio.gather(*(asyncio.to_thread(one.start) for one in brokers))
        ending, left = asyncio.Event(), iter(range(kills))

        async def torture(one: Killable) -> None:
            for number in left:
                await asyncio.sleep(random.uniform(0, LIVES_SECONDS))
                await asyncio.to_thread(one.kill)
                await asyncio.to_thread(one.start)
                if number % 20 == 0:
                    tell(f"{store}: {number} kills, {len(ledger.offers)} identity tokens")

        load = [asyncio.create_task(ledger.load(urls, ending.is_set, uploads=True)) for _ in range(clients)]
        await asyncio.gather(*map(torture, brokers))
        ending.set()
        await asyncio.gather(*load)
        seconds = time.monotonic() - began
        tell(f"{store}: all {len(ledger.offers)} identity tokens are offered again")
        await ledger.offer_all_again(urls)
        wrong = await ledger.judge(environment["BROKER_STATE_URL"])
    return {
        "kills": kills,
        "seconds": round(seconds),
        "identity_tokens": len(ledger.offers),
        "upload_tokens": len(ledger.minted),
        "shared": ledger.shared,
        "minted_twice": len(ledger.minted_twice()),
        "answers": dict(ledger.answers),
        "uploads": dict(ledger.uploads),
    }, wrong


def tell(what: str) -> None:
    """Progress."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
