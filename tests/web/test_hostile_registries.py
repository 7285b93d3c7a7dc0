"""Registries whose operators mean harm: their answers reach readers within bounds, and cost nobody else anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.test_registry import response
from tests.gateway.wire import JSON, WireRegistry, wire_registry
from tests.harness import Broker, Setup
from tests.web.test_mint_refusals import check_refusal

pytestmark = pytest.mark.anyio

SECRET = "s3cret-of-the-registry"  # noqa: S105


def listing(*files: dict[str, object]) -> bytes:
    """A project's page."""
    return response("200 OK", json.dumps({"files": files}).encode(), JSON)


@asynccontextmanager
async def before(folder: Path, registry: WireRegistry, **settings: Any) -> AsyncIterator[Broker]:
    """A broker that lets everybody read this registry."""
    told = {
        "registry_url": registry.url,
        "registry_username": "",
        "registry_password": "",
        "registry_bearer_token": SECRET,
        "reads": "public",
        **settings,
    }
    async with Setup(folder=folder, settings=told).running() as broker:
        yield broker


@pytest.mark.parametrize(
    "told", [f"{SECRET}\n{SECRET}", f"{SECRET} ", f"{SECRET}\0", f"\ufeff{SECRET}", f"{SECRET}\u20ac"]
)
async def test_a_bearer_token_that_no_header_holds_is_told_to_nobody(
    tmp_path: Path, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with wire_registry() as registry, before(tmp_path, registry, registry_bearer_token=told) as broker:
        answer = await broker.client.get("/simple/x/")
        check_refusal(answer, "registry-credential", 502)
        assert SECRET not in answer.text
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
