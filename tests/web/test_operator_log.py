"""What only the operator can mend is said in the log, with its cause; what a caller did is not."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.gateway.uploads import upload
from tests.harness import Broker, Setup
from tests.web.test_upload_refusals import send

pytestmark = pytest.mark.anyio

PASSWORD = "the-registry-password-73a1"


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged above `info`."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line["level"] != "info"]


async def test_a_registry_that_does_not_take_our_credential_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as registry:
        Thread(target=registry.serve_forever, daemon=True).start()
        settings = {"registry_url": f"http://127.0.0.1:{registry.server_port}/", "registry_password": PASSWORD}
        async with Setup(folder=tmp_path, settings=settings).running() as broker:
            answer = await send(broker, upload())
        registry.shutdown()
    output = told(capsys)
    assert [(line["event"], line["level"], line["attempt"]) for line in output] == [
        ("registry-credential", "error", answer.json()["attempt"])
    ]
    assert output[0]["cause"] == f"RegistryError('POST {settings['registry_url']}: answered 401')"
    assert str(registry.server_port) not in answer.text
    assert PASSWORD not in str(output)


async def test_a_registry_that_is_down_is_a_warning_with_its_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        await send(broker, upload())
    [line] = told(capsys)
    assert (line["event"], line["level"]) == ("registry-unavailable", "warning")
    assert re.fullmatch(
        r"RegistryError\('GET http://\S+/simple/acme-widgets/: ConnectError: Connection refused'\)", line["cause"]
    )


async def gone(broker: Broker) -> None:
    """Asks two routes that need state, where the state is not one."""
    (broker.folder / "state.db").write_bytes(b"no database at all")
    assert (await broker.client.get("/readyz")).status_code == 503
    assert (await broker.mint(broker.ci.token())).status_code == 503


async def test_a_state_that_fails_is_a_warning_with_its_cause_and_the_answer_does_not_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        await gone(broker)
        answer = await broker.client.get("/readyz")
    assert "state cannot be reached" in answer.json()["problems"]
    assert "database" not in answer.text
    lines = told(capsys)
    assert {line["event"] for line in lines} == {"state-unavailable"}
    assert {line["cause"] for line in lines} == {"DatabaseError('file is not a database')"}


async def test_what_a_caller_did_wrong_is_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        await broker.mint("x")
        await broker.mint(broker.ci.token(repository="mallory/widgets"))
        await send(broker, upload(), "pypi-x")
    assert told(capsys) == []
