"""Identity tokens by the hundred thousand, signed before anything is measured, no two alike."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Final

from benchmarks.organizations import ORGANIZATIONS, claims_of
from broker.playground.ci import FakeCI

SIGNERS: Final = 2
BATCH: Final = 500
"""Tokens that one process signs in one go."""

LIFETIME_SECONDS: Final = 3500
"""GitHub's live 300 s. These must outlive the run, and be no older than the broker takes from GitHub."""


class Signers:
    """Processes that sign for a fake CI. They are forked before it has threads, and share its key."""

    def __init__(self) -> None:
        FakeCI().key_id("github")  # makes the key, that the forks inherit
        self._pool = ProcessPoolExecutor(SIGNERS, mp_context=multiprocessing.get_context("fork"))
        self._pool.submit(int).result()

    def write(self, ci: FakeCI, paths: list[Path], each: int, organizations: int = ORGANIZATIONS) -> None:
        """Writes files of identity tokens, one a line, and says how far it is."""
        started, total = time.monotonic(), len(paths) * each
        told = -1
        for index, path in enumerate(paths):
            jobs = [range(start, min(start + BATCH, each)) for start in range(0, each, BATCH)]
            batches = self._pool.map(_sign, repeat(ci.urls["github"]), jobs, repeat(organizations))
            with path.open("w", encoding="ascii") as file:
                done = index * each
                for batch in batches:
                    file.write("".join(f"{token}\n" for token in batch))
                    done += len(batch)
                    if (percent := done * 10 // total) != told:
                        told = percent
                        print(f"  signed {done:,} of {total:,} identity tokens", file=sys.stderr)
        print(f"  that took {time.monotonic() - started:.0f} s", file=sys.stderr)

    def close(self) -> None:
        """Ends the processes."""
        self._pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def signers() -> Iterator[Signers]:
    """Signers for as long as the context is open. Open it before anything that starts threads."""
    pool = Signers()
    try:
        yield pool
    finally:
        pool.close()


def _sign(url: str, jobs: range, organizations: int) -> list[str]:
    ci, now = FakeCI(github=url), int(time.time())
    expires_at = now + LIFETIME_SECONDS
    return [ci.token("github", **claims_of(index, organizations), iat=now, exp=expires_at) for index in jobs]
