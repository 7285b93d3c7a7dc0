"""What all tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The broker runs on asyncio alone."""
    return "asyncio"
