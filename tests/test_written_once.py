"""Several brokers in front of one registry: of simultaneous uploads of one filename, one is written."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from tests.gateway.uploads import CONTENT_TYPE, SDIST, WHEEL, pack_sdist, pack_wheel, upload
from tests.redis_server import RedisServer
from tests.registries import PASSWORD, USER, PypiServer, pypi_server
from tests.servers import Served, broker
from tests.web.test_upload_refusals import basic

AT_ONCE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fronts:
    """Brokers that share a registry and a state."""

    served: Sequence[Served]
    registry: PypiServer
    ci: FakeCI

    def upload(self, bodies: Sequence[bytes]) -> list[httpx.Response]:
        """All at once, each over a connection of its own, spread over the brokers."""
        minted = httpx.post(f"{self.served[0].url}/_/oidc/mint-token", json={"token": self.ci.token()}, trust_env=False)
        headers = {"Authorization": basic(minted.json()["token"]), "Content-Type": CONTENT_TYPE}

        async def all_of_them() -> list[httpx.Response]:
            limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)
            async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
                urls = [f"{self.served[n % len(self.served)].url}/legacy/" for n in range(len(bodies))]
                posts = [client.post(url, content=one, headers=headers) for url, one in zip(urls, bodies, strict=True)]
                return list(await asyncio.gather(*posts))

        return asyncio.run(all_of_them())

    def records(self) -> list[dict[str, object]]:
        """Of all uploads so far."""
        logged = [line["record"] for one in self.served for line in one.logged() if line["event"] == "attempt"]
        return [record for record in logged if isinstance(record, dict) and record["kind"] == "upload"]


@pytest.fixture(name="fronts", params=["two brokers on Redis", "one broker of two workers on SQLite"])
def _fronts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fronts]:
    with ExitStack() as stack:
        registry = stack.enter_context(pypi_server(tmp_path / "registry", "gunicorn"))
        ci = stack.enter_context(serving_ci())
        settings = {"registry_url": registry.url, "registry_username": USER, "registry_password": PASSWORD}
        if request.param == "two brokers on Redis":
            url = stack.enter_context(RedisServer()).url
            served = [
                stack.enter_context(broker(tmp_path, ci, name=name, state_url=url, **settings))
                for name in ("one", "two")
            ]
        else:
            served = [stack.enter_context(broker(tmp_path, ci, workers="2", **settings))]
        yield Fronts(served=served, registry=registry, ci=ci)


def test_of_20_at_once_with_different_bytes_one_is_stored_and_19_are_refused(fronts: Fronts) -> None:
    files = [pack_sdist(mtime=number + 0.5) for number in range(AT_ONCE)]
    answers = fronts.upload([upload(file, SDIST) for file in files])
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: AT_ONCE - 1}
    assert {answer.json()["errors"][0]["code"] for answer in answers if answer.status_code == 400} == {"file-exists"}
    (winner,) = [file for file, answer in zip(files, answers, strict=True) if answer.status_code == 200]
    assert fronts.registry.stored() == {SDIST: hashlib.sha256(winner).hexdigest()}
    assert Counter(record.get("registry_status") for record in fronts.records()) == {200: 1, None: AT_ONCE - 1}


def test_of_20_at_once_with_the_same_bytes_all_succeed_and_one_is_sent(fronts: Fronts) -> None:
    file = pack_wheel()
    answers = fronts.upload([upload(file)] * AT_ONCE)
    assert {answer.status_code for answer in answers} == {200}
    assert fronts.registry.stored() == {WHEEL: hashlib.sha256(file).hexdigest()}
    records = fronts.records()
    assert Counter(record.get("registry_status") for record in records) == {200: 1, None: AT_ONCE - 1}
    assert Counter(record.get("already_stored") for record in records) == {True: AT_ONCE - 1, None: 1}
