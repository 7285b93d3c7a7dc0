"""A broker in front of a registry, and an upload to it, while a verb changes what that is worth."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.gateway.uploads import CONTENT_TYPE, WHEEL, upload
from tests.harness import Broker, Setup
from tests.registries import PASSWORD, USER, PypiServer
from tests.web.test_upload_refusals import basic


def before(registry: PypiServer, folder: Path) -> Setup:
    """A broker in front of that registry, which has nothing."""
    (registry.packages / WHEEL).unlink(missing_ok=True)
    settings = {"registry_url": registry.url, "registry_username": USER, "registry_password": PASSWORD}
    return Setup(folder=folder, settings=settings)


async def publish(broker: Broker, token: str) -> httpx.Response:
    """An upload with that token."""
    return await broker.client.post(
        "/legacy/", content=upload(), headers={"Authorization": basic(token), "Content-Type": CONTENT_TYPE}
    )
