"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.devpi import Devpi, serving_devpi


@pytest.fixture
def anyio_backend() -> str:
    """The broker runs on asyncio alone."""
    return "asyncio"


@pytest.fixture(scope="session", name="devpi")
def _devpi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devpi]:
    """One devpi for all tests of a process: it takes seconds to start, an index of one's own is made at once."""
    with serving_devpi(tmp_path_factory.mktemp("devpi")) as devpi:
        yield devpi
