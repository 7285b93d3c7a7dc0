"""A SQLite state that other processes open and close: what is written beside them is not lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from broker.state.opening import open_state
from tests.state.conftest import RETENTION_DAYS
from tests.state.examples import record


def look(url: str) -> list[str]:
    """Reads the records as `broker audit` does: in another process, which then ends."""
    done = subprocess.run(
        [sys.executable, "-m", "broker", "audit", "tail", "--state", url], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.anyio
async def test_a_reader_that_ends_takes_nothing_with_it(tmp_path: Path) -> None:
    """Were the broker's locks on the file lost, the reader would think itself the last, and delete the log in use."""
    url = f"sqlite:///{tmp_path}/state.db"
    state = open_state(url, retention_days=RETENTION_DAYS)
    try:
        written = []
        for _ in range(3):
            one = record()
            await state.append(one)
            await state.records(1)  # opens the second connection too
            written.append(one.body)
            assert look(url) == written
    finally:
        await state.close()
    assert look(url) == written
