"""Many organizations: what they cost to load, to keep, to load again after a change, and to find one's publisher among.

The figures of one folder come from a process of its own (`python -m benchmarks.policies FOLDER ORGANIZATIONS`), so that
its memory is that of the policies alone. Then a broker with many organizations is loaded while one file changes all the
time, and while none does, in turn.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import servers
from benchmarks.exchange import NO_REGISTRY
from benchmarks.identities import signers
from benchmarks.measuring import BenchmarkError, Load, load, memory_mb, need
from benchmarks.organizations import ORGANIZATIONS, claims_of, file_of, write_policies
from benchmarks.servers import Server
from broker.cli.serve import COLLECT_AFTER
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.playground.claims import github_claims
from broker.policy.loader import Loader
from broker.policy.model import Policies as Loaded
from broker.policy.rehearsal import rehearse
from broker.reload import YOUNG_SECONDS, look

CONNECTIONS: Final = 4
"""Few: what is asked is how long one exchange takes, not how long the queue is."""
TOKENS_A_SECOND: Final = 3000
"""More than a broker takes."""
CHANGE_SECONDS: Final = 2.0
DECISIONS: Final = 20_000
REPEATS: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The figures of one size."""

    organizations: int
    load_seconds: float
    memory_mb: float
    """Over what the process had before."""
    look_ms: float
    reload_ms: float
    """One file changed: from reading it to the new policies, with the look that follows. Median."""
    decision_us: float
    """Steps 5 to 8 of an exchange, each of another organization: with many, the processor's caches hold few of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The whole run."""

    folders: tuple[Folder, ...]
    """The last is the large one."""
    rounds: tuple[tuple[Load, Load, Load], ...]
    """Few organizations; many; many while one file changes."""
    reloads_ms: tuple[float, ...]
    """Of the broker under load, as its log tells: from the look that found a change. A fifth of a second of each is
    waiting for the change to settle."""
    memory_mb: float
    """Of the broker with many, after all."""

    @property
    def linear(self) -> float:
        """Memory of an organization in the large folder over that in the half of it."""
        half, whole = self.folders[-2:]
        return (whole.memory_mb / whole.organizations) / (half.memory_mb / half.organizations)


def measure(folder: Path, *, rounds: int, seconds: int, organizations: int) -> Policies:
    """Measures folders of three sizes, and brokers with the smallest and the largest.

    Raises:
        BenchmarkError: something is missing, or an answer was not what it should be.
    """
    need("wrk", "wrk")
    with signers() as signing, serving_ci() as ci:
        sizes = (ORGANIZATIONS, organizations // 2, organizations)
        folders = tuple(_folder(folder / str(size), ci, size) for size in sizes)
        for_few = [folder / f"few-{number}" for number in range(rounds + 1)]
        for_many = [folder / f"many-{number}" for number in range(2 * (rounds + 1))]
        signing.write(ci, for_few, TOKENS_A_SECOND * seconds)
        signing.write(ci, for_many, TOKENS_A_SECOND * seconds, organizations)
        with _broker("few", folder, ci, ORGANIZATIONS) as few, _broker("many", folder, ci, organizations) as many:
            taken = []
            for number in range(rounds + 1):
                print(f"  {f'round {number} of {rounds}' if number else 'warming up'}", file=sys.stderr)
                still, changing = for_many[2 * number : 2 * number + 2]
                alone = (_load(few, for_few[number], seconds), _load(many, still, seconds))
                with _changing(file_of(many.log.parent / "policies", organizations - 1)):
                    taken.append((*alone, _load(many, changing, seconds)))
            return Policies(
                folders=folders, rounds=tuple(taken[1:]), reloads_ms=_reloads_ms(many), memory_mb=memory_mb(many.pid)
            )


def _reloads_ms(server: Server) -> tuple[float, ...]:
    with server.log.open(encoding="utf-8") as log:
        told = [json.loads(line) for line in log if '"policies reloaded"' in line]
    if not told:
        raise BenchmarkError(f"{server.name} did not read its policies again: make the rounds longer (--seconds)")
    return tuple(line["milliseconds"] for line in told)


def _folder(path: Path, ci: FakeCI, organizations: int) -> Folder:
    print(f"  {organizations} organizations", file=sys.stderr)
    write_policies(path, ci, organizations)
    command = [sys.executable, "-m", "benchmarks.policies", str(path), str(organizations)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{told.stderr[-1000:]}")
    return Folder(organizations=organizations, **json.loads(told.stdout))


@contextlib.contextmanager
def _broker(name: str, folder: Path, ci: FakeCI, organizations: int) -> Iterator[Server]:
    state_url = f"sqlite:///{folder / f'{name}.db'}"
    with servers.broker(name, folder, ci, state_url, registry=NO_REGISTRY, organizations=organizations) as server:
        yield server


def _load(server: Server, tokens: Path, seconds: int) -> Load:
    seen = load(server.url, tokens=tokens, repeat=False, seconds=seconds, connections=CONNECTIONS)
    if seen.refused or seen.broken or seen.ran_out or not seen.requests:
        raise BenchmarkError(f"{server.name}: {seen}. Its log: {server.log}")
    return seen


@contextlib.contextmanager
def _changing(file: Path) -> Iterator[None]:
    """Changes a policy file all the time, as an editor does: a new one, renamed into its place."""
    text, ended = file.read_text(encoding="utf-8"), threading.Event()

    def change() -> None:
        number = 0
        while not ended.wait(CHANGE_SECONDS):
            number += 1
            _replace(file, f"# {number}\n{text}")

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _replace(file: Path, text: str) -> None:
    new = file.with_name(f".{file.name}")
    new.write_text(text, encoding="utf-8")
    new.rename(file)


def main() -> None:
    """Prints the figures of one folder as JSON."""
    path, organizations = Path(sys.argv[1]), int(sys.argv[2])
    time.sleep(YOUNG_SECONDS)  # the files are old then, as most are
    gc.collect()
    before, began = memory_mb(os.getpid()), time.perf_counter()
    loader = Loader(path, allow_loopback_issuers=True)
    loaded = loader.load(look(path).sure(0))
    load_seconds = time.perf_counter() - began
    gc.collect()
    gc.freeze()  # this and the next as `broker serve` does
    gc.set_threshold(COLLECT_AFTER)
    figures = {
        "load_seconds": load_seconds,
        "memory_mb": memory_mb(os.getpid()) - before,
        "look_ms": statistics.median(_look_ms(path) for _ in range(REPEATS)),
        "reload_ms": statistics.median(_reload_ms(loader, path, number) for number in range(REPEATS)),
        "decision_us": min(_decision_us(loaded, organizations) for _ in range(REPEATS)),
    }
    print(json.dumps(figures))


def _look_ms(path: Path) -> float:
    began = time.thread_time()
    look(path)
    return (time.thread_time() - began) * 1000


def _reload_ms(loader: Loader, path: Path, number: int) -> float:
    file = file_of(path, number)
    _replace(file, f"# {number}\n{file.read_text(encoding='utf-8')}")
    seen = look(path)
    began = time.perf_counter()
    loader.load(seen.sure(0))
    look(path)
    return (time.perf_counter() - began) * 1000


def _decision_us(policies: Loaded, organizations: int) -> float:
    # In steps, so that each is another organization; and made before the clock runs.
    jobs = [_claims(policies, number * 7919, organizations) for number in range(DECISIONS)]
    now, began = time.time(), time.perf_counter()
    for claims in jobs:
        if rehearse(policies, claims, now=now).grant is None:
            raise BenchmarkError(f"no grant for {claims}")
    return (time.perf_counter() - began) / DECISIONS * 1e6


def _claims(policies: Loaded, number: int, organizations: int) -> dict[str, object]:
    (issuer,) = policies.issuer_by_url
    return github_claims(**claims_of(number, organizations), iss=issuer)


if __name__ == "__main__":
    main()
