"""The broker as a part of another application: the page's own example, served by a real uvicorn."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import structlog

from broker import create_app
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.playground.processes import Command, free_port, running
from tests.gateway.uploads import CONTENT_TYPE, WHEEL, upload
from tests.harness import AUDIENCE, PUBLIC_URL, Setup
from tests.registries import PypiServer, pypi_server
from tests.servers import variables
from tests.web.test_mint_refusals import check_refusal

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "mount-in-your-app.md"
APPLICATION, LOGGING = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_importing_the_package_loads_no_server_and_the_name_is_there() -> None:
    look = (
        "import sys, broker; heavy = {'starlette', 'redis', 'httpx', 'pydantic'} & set(sys.modules); "
        "from broker import create_app; print(sorted(heavy), create_app.__module__, hasattr(broker, 'nothing'))"
    )
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout == "[] broker.app False\n"


def test_other_names_are_missing_as_in_any_module() -> None:
    import broker  # noqa: PLC0415 - the module, beside the name that is imported from it

    with pytest.raises(AttributeError, match="no attribute 'create_apps'"):
        _ = broker.create_apps  # type: ignore[attr-defined]  # which is what is tested
    assert broker.create_app is create_app


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The page's application, served."""

    client: httpx.Client
    registry: PypiServer
    ci: FakeCI
    log: Path

    def publish(self, prefix: str = "") -> httpx.Response:
        """Mints, and uploads with the token."""
        minted = self.client.post(f"{prefix}/_/oidc/mint-token", json={"token": self.ci.token()})
        assert minted.status_code == 200, minted.text
        headers = {"Content-Type": CONTENT_TYPE}
        return self.client.post(
            f"{prefix}/legacy/", content=upload(), headers=headers, auth=("__token__", minted.json()["token"])
        )


Serve = Callable[[str], contextlib.AbstractContextManager[Parent]]


@pytest.fixture(name="serve")
def _serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves an application, whatever is in its file, with the settings of a broker in its environment."""
    with serving_ci() as ci, pypi_server(tmp_path / "registry") as registry:
        (tmp_path / "served").mkdir()
        told = {"registry_url": registry.url, "registry_username": registry.username}
        environment = variables(tmp_path / "served", ci, registry_password=registry.password, **told)

        @contextlib.contextmanager
        def serving(text: str) -> Iterator[Parent]:
            (tmp_path / "application.py").write_text(text, encoding="utf-8")
            port, log = free_port(), tmp_path / "log"
            command = Command(
                name="an application",
                module="uvicorn",
                arguments=("application:app", "--port", str(port), "--no-access-log"),
                environment=environment,
                folder=tmp_path,
                log=log,
            )
            url = f"http://127.0.0.1:{port}"
            with running(command, lambda: _answers(url)), httpx.Client(base_url=url, trust_env=False) as client:
                yield Parent(client=client, registry=registry, ci=ci, log=log)

        yield serving


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/hello", trust_env=False).is_success
    return False


def test_mounted_at_the_root_it_serves_clients_beside_the_parent_s_routes(serve: Serve) -> None:
    with serve(APPLICATION) as parent:
        assert parent.client.get("/hello").text == "an application of your own"
        assert parent.client.get("/_/oidc/audience").json() == {"audience": AUDIENCE}
        assert parent.publish().status_code == 200
        assert list(parent.registry.stored()) == [WHEEL]
        check_refusal(parent.client.get("/nowhere"), "not-found", 404)
        found = parent.client.get("/.well-known/pytp", params={"discover": "/legacy/"})
        assert found.json()["token-mint-endpoint"] == "https://upload.acme.example/_/oidc/mint-token"
    log = parent.log.read_text()
    assert "Application startup complete" in log
    assert "Application shutdown complete" in log
    assert "Traceback" not in log


def test_the_lifespan_that_the_page_runs_is_what_has_keys_ready_before_the_first_exchange(serve: Serve) -> None:
    asked = "async with broker.router.lifespan_context(broker):\n        yield"
    assert asked in APPLICATION
    with serve(APPLICATION.replace(asked, "yield")) as parent:
        assert parent.client.get("/readyz").json()["problems"] == ["no issuer has usable keys"]
    with serve(APPLICATION) as parent:
        deadline = time.monotonic() + 20
        while not parent.client.get("/readyz").is_success:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_below_a_prefix_a_step_that_mints_works_and_the_root_stays_the_parent_s(serve: Serve) -> None:
    with serve(APPLICATION.replace('Mount("/", ', 'Mount("/broker", ')) as parent:
        assert parent.publish("/broker").status_code == 200
        assert list(parent.registry.stored()) == [WHEEL]
        for path in ("/_/oidc/audience", "/.well-known/pytp"):
            assert parent.client.get(path).text == "Not Found", "and so no client finds it by itself"


def test_events_and_records_are_lines_of_the_parent_s_own_log(serve: Serve) -> None:
    with serve(f"{LOGGING}\n{APPLICATION}") as parent:
        assert parent.publish().status_code == 200
        lines = parent.log.read_text().splitlines()
    told = [json.loads(line[line.index("{") :]) for line in lines if line.startswith("INFO broker.logs {")]
    assert [event["record"]["kind"] for event in told if event["event"] == "attempt"] == ["mint", "upload"]


@pytest.mark.anyio
async def test_a_mounted_broker_leaves_logging_alone(tmp_path: Path) -> None:
    ci, root = FakeCI(), logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("httpx").level, structlog.get_config())
    app = create_app(Setup(folder=tmp_path).write(), issuers=ci.transport(), own_process=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=PUBLIC_URL) as client,
    ):
        with structlog.testing.capture_logs() as events:
            assert (await client.post("/_/oidc/mint-token", json={"token": ci.token()})).status_code == 200
    assert [(event["event"], event["record"]["kind"]) for event in events] == [("attempt", "mint")]
    assert (root.level, root.handlers, logging.getLogger("httpx").level, structlog.get_config()) == before
