"""What a request was is freed with it, and does not wait for the garbage collector: memory under load stays flat."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.uploads import pack_wheel, upload, wheel_entries
from tests.gateway.wire import wire_registry
from tests.harness import Broker, Setup
from tests.web.test_upload_refusals import send

pytestmark = pytest.mark.anyio

Ask = Callable[[Broker, int], Awaitable[httpx.Response]]


async def mint(broker: Broker, number: int) -> httpx.Response:
    return await broker.mint(broker.ci.token("github", run_id=str(number)))


async def mint_of_a_stranger(broker: Broker, number: int) -> httpx.Response:
    return await broker.mint(broker.ci.token("github", run_id=str(number), actor_id="4"))


async def no_request(broker: Broker, _: int) -> httpx.Response:
    return await broker.client.post("/_/oidc/mint-token", content=b"\xff")


async def refused_by_its_handler(broker: Broker, _: int) -> httpx.Response:
    return await broker.client.post("/oauth2/token", content=b"grant_type=password")


async def burn(broker: Broker, _: int) -> httpx.Response:
    return await broker.client.post("/_/oidc/burn-token", json={"token": await broker.minted()})


async def send_file(broker: Broker, number: int) -> httpx.Response:
    file = pack_wheel(wheel_entries(**{"acme_widgets/number.py": f"number = {number}\n".encode()}))
    return await send(broker, upload(file, f"acme_widgets-1.0-{number}-py3-none-any.whl"))


async def send_no_form(broker: Broker, _: int) -> httpx.Response:
    return await send(broker, b"no form")


@contextlib.contextmanager
def garbage() -> Iterator[Counter[str]]:
    """In the end, what of the broker's and of its connections' only the collector found, by type."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        names = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
        found.update(name for name in names if name.startswith(("broker.", "httpcore.")))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (mint, 200),
        (mint_of_a_stranger, 403),
        (no_request, 422),
        (refused_by_its_handler, 400),
        (burn, 202),
        (send_file, 200),
        (send_no_form, 400),
    ],
)
async def test_nothing_of_a_request_waits_for_the_collector(tmp_path: Path, ask: Ask, status: int) -> None:
    async with (
        wire_registry() as registry,
        Setup(folder=tmp_path, settings={"registry_url": registry.url}).running() as broker,
    ):
        await ask(broker, 1)  # what is made once, is made
        with garbage() as found:
            for number in range(2, 5):
                assert (await ask(broker, number)).status_code == status
        assert not found
