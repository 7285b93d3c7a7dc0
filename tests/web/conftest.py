"""What several modules ask of one broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import api


@pytest.fixture(scope="session")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[api.Asked]:
    """A broker with an API, whose audit grows with each test."""
    with api.asked(tmp_path_factory.mktemp("broker")) as asked:
        yield asked
