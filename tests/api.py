"""A broker with an API over real HTTP, and API tokens for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from broker.api_tokens import ApiToken
from broker.playground.ci_server import serving_ci
from broker.state import State
from broker.state.opening import open_state
from tests.harness import state_url
from tests.servers import Served, broker


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A broker with an API, whose state a test can reach."""

    served: Served
    folder: Path
    client: httpx.Client

    def get(self, path: str, token: str = "", **headers: str) -> httpx.Response:
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.get(path, headers={**shown, **headers})

    def token(self, role: str = "owner", organization: str = "acme", **changes: Any) -> str:
        """A new API token's text; what is kept of it can be changed."""
        name = "exports" if role == "owner" else "ops"
        organization = organization if role == "owner" else ""
        text, kept = ApiToken.make(name, role, now=time.time(), seconds=600, organization=organization)
        with_state(self.folder, lambda state: state.store_api_token(replace(kept, **changes)))
        return text

    def records(self, organization: str | None = None) -> list[dict[str, Any]]:
        return [json.loads(one) for one in with_state(self.folder, lambda state: state.records(100, organization))]


def with_state(folder: Path, work: Any) -> Any:
    """What some work on the broker's state gives."""

    async def opened() -> Any:
        state: State = open_state(state_url(folder), retention_days=400)
        try:
            return await work(state)
        finally:
            await state.close()

    return asyncio.run(opened())


def code_of(answer: httpx.Response) -> str:
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["errors"][0]["code"])


@contextlib.contextmanager
def asked(folder: Path) -> Iterator[Asked]:
    """A broker whose state is in a folder."""
    with ExitStack() as stack:
        ci = stack.enter_context(serving_ci())
        served = stack.enter_context(broker(folder, ci))
        client = stack.enter_context(httpx.Client(base_url=served.url, trust_env=False, timeout=30))
        yield Asked(served=served, folder=folder, client=client)
