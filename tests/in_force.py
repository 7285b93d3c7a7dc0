"""What tests of files in force share: who looks after them, what is logged of it, and how folders are swapped."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.in_force import InForce


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged since this was asked last."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@contextlib.asynccontextmanager
async def kept_current(files: InForce[Any, Any, Any]) -> AsyncIterator[None]:
    """As the application does."""
    task = asyncio.create_task(files.keep_current())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(happened: Callable[[], bool]) -> None:
    """Waits for a file, or a line in the log."""
    async with asyncio.timeout(20):
        for _ in iter(happened, True):
            await asyncio.sleep(0.005)


def swap(link: Path, target: str) -> None:
    """Leads a link elsewhere in one step, as kubelet and git-sync do."""
    new = link.with_name("..data_tmp")
    new.symlink_to(target)
    new.rename(link)
