"""What tests of verbs beside a running broker share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registries import PypiServer, pypi_server


@pytest.fixture(name="registry", scope="package")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    with pypi_server(tmp_path_factory.mktemp("registry")) as registry:
        yield registry
