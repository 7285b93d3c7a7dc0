"""Masters that fail under load, with real redis-servers and Sentinels, and what two brokers answer meanwhile.

A round is a fresh master, two replicas and three Sentinels; two brokers; and clients that offer identity tokens to both
brokers at once, and old ones again and again. In its middle, one thing happens:

- kill: the master is killed (`kill -9`), and comes back later, as a replica;
- freeze: it is stopped (SIGSTOP) until another is master, and then goes on (SIGCONT), as after a partition;
- lag: it loses its replicas a second before it is killed, so that they lack what was written last;
- empty: it is killed and started again at once, empty, before anybody finds it gone: its replicas empty themselves.

Told for each round: answers by code, the pause until the next upload token, identity tokens that were minted twice (0),
upload tokens without a record, and revocations that were lost. In a round of "empty", records are lost by design, so
only what is minted twice counts, and that revoked tokens stay refused. With `--replicas 0`, nothing waits for replicas:
that shows what is waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from broker.playground.ci_server import serving_ci
from tests.redis_server import Watched, wait_until, watched
from tests.servers import broker
from tests.trials.ledger import Ledger

FAULTS = ("kill", "freeze", "lag", "empty")


def main() -> int:
    """Runs the rounds, and says how each ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials.failover", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=2, help="of each kind (2)")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only this kind (all)")
    parser.add_argument("--replicas", type=int, default=1, help="how many replicas brokers wait for (1)")
    parser.add_argument("--clients", type=int, default=4, help="that offer tokens at once (4)")
    parser.add_argument("--down-after-ms", type=int, default=5000, help="until Sentinels take a master for gone (5000)")
    chosen = parser.parse_args()
    wrong = 0
    for number in range(chosen.rounds):
        for fault in chosen.fault or FAULTS:
            told, faults = asyncio.run(play(fault, chosen.replicas, chosen.clients, chosen.down_after_ms))
            print(json.dumps({"fault": fault, "round": number + 1, **told, "wrong": faults}), flush=True)
            wrong += len(faults)
    return 1 if wrong else 0


async def play(fault: str, replicas: int, clients: int, down_after_ms: int) -> tuple[dict[str, object], Sequence[str]]:
    """One round: what there is to tell, and what is wrong."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving_ci() as ci,
        watched(replicas=2, sentinels=3, down_after_ms=down_after_ms) as redis,
        contextlib.ExitStack() as stack,
    ):
        url, ledger = redis.url(f"?replicas={replicas}"), Ledger(ci)
        served = [stack.enter_context(broker(Path(folder), ci, name=name, state_url=url)) for name in ("one", "two")]
        urls, ending = [one.url for one in served], asyncio.Event()
        load = [asyncio.create_task(ledger.load(urls, ending.is_set, burns=True)) for _ in range(clients)]
        await asyncio.sleep(4)
        began, answers = time.monotonic(), ledger.answers.copy()
        tell(f"{fault}: after {len(ledger.offers)} identity tokens")
        await asyncio.to_thread(strike, fault, redis)
        while not (ledger.granted_at and ledger.granted_at[-1] > began + down_after_ms / 1000 + 1):
            if time.monotonic() > began + 90:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(4)
        ending.set()
        await asyncio.gather(*load)
        meanwhile = ledger.answers - answers
        pause = ledger.longest_pause(began)
        tell(f"{fault}: {pause:.1f} s without an upload token; {len(ledger.offers)} identity tokens are offered again")
        await ledger.offer_all_again(urls)
        wrong = await ledger.judge(url)
        told: dict[str, object] = {
            "identity_tokens": len(ledger.offers),
            "upload_tokens": len(ledger.minted),
            "since_the_fault": dict(meanwhile),
            "pause_seconds": round(pause, 2),
            "minted_twice": len(ledger.minted_twice()),
            "revoked": len(ledger.burned),
        }
        if fault == "empty":
            wrong = [one for one in wrong if "record" not in one]
        return told, wrong


def strike(fault: str, redis: Watched) -> None:
    """Makes the master fail, and returns when another one is, and the failed one is back."""
    failing, others = redis.servers[0], redis.servers[1:]
    if fault == "lag":
        for other in others:
            other.freeze()
        failing.asked("CLIENT", "KILL", "TYPE", "REPLICA")  # or all would be in their sockets, and arrive late
        time.sleep(1)
    if fault == "freeze":
        failing.freeze()
    else:
        failing.stop()
    if fault == "lag":
        for other in others:
            other.thaw()
    if fault == "empty":
        failing.start()
        return
    wait_until(lambda: redis.master() is not failing, "no replica is made the master", seconds=60)
    time.sleep(2)
    if fault == "freeze":
        failing.thaw()
    else:
        failing.start()


def tell(what: str) -> None:
    """Progress."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
