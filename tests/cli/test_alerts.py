"""`broker alerts` shows receivers with what waits for them, and sends a test."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from broker.cli import main
from broker.state import AlertProgress, AlertStep, AlertToSend
from broker.state.opening import open_state
from tests.alerts.hook import SECRET, Hook, hooked
from tests.harness import Setup


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_ALLOW_LOOPBACK_ISSUERS", "true")


def write(folder: Path, hook: Hook) -> Path:
    """A file with one receiver of acme's, and the operators'."""
    (folder / "secret").write_text(SECRET)
    file = folder / "alerts.yaml"
    more = "secret_files: [secret], organizations: [acme], kinds: [switch]"
    file.write_text(
        f"receivers:\n  acme: {{kind: standard, url: '{hook.url}', {more}}}\n"
        f"  operators: {{kind: slack, url: '{hook.url}', organizations: [beta, acme], index: true}}\n"
    )
    return file


def queue(url: str) -> None:
    """Two alerts for acme."""

    async def advance() -> None:
        state = open_state(url, retention_days=1)
        alerts = tuple(AlertToSend(receiver="acme", id=f"alert_{n}", at=time.time(), body="{}") for n in range(2))
        step = AlertStep(now=time.time(), since=AlertProgress(), position="1", memory={}, queue=alerts)
        assert await state.advance_alerts(step)
        await state.close()

    asyncio.run(advance())


def test_receivers_are_listed_with_what_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    queue(url)
    monkeypatch.setenv("BROKER_ALERTS", str(write(tmp_path, Hook())))
    assert main(["alerts", "list", "--state", url]) == 0
    acme, operators = capsys.readouterr().out.splitlines()
    assert acme.startswith("acme  standard  of acme  1 kinds  waiting: 2, since 2")
    assert operators.endswith("of acme, beta, the index  19 kinds  waiting: 0")
    assert main(["alerts", "list", "--state", f"sqlite:///{tmp_path / 'none.db'}"]) == 1


def test_organizations_of_a_slip_and_those_that_nobody_is_told_of_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    queue(url)
    listing = ["alerts", "list", "--state", url, "--file", str(write(tmp_path, Hook()))]
    assert main([*listing, "--policies", f"{tmp_path}/none"]) == 0
    assert f"note: no policies load from {tmp_path}/none (--policies, BROKER_POLICIES)" in capsys.readouterr().err
    policies = Setup(folder=tmp_path).write().policies
    other = "organization: atlas\nmembers: {alice: {role: owner, github: '1001'}}\n"
    (policies / "organizations/atlas.yaml").write_text(other)
    assert main([*listing, "--policies", str(policies)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"note: operators is for organizations that the policies in {policies} do not have: beta",
        f"note: no receiver is for organizations that the policies in {policies} have: atlas",
    ]
    (policies / "organizations/atlas.yaml").unlink()
    (policies / "organizations/beta.yaml").write_text(other.replace("atlas", "beta"))
    assert main([*listing, "--policies", str(policies)]) == 0
    assert capsys.readouterr().err == ""


def test_a_test_alert_is_delivered_and_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hooked() as hook:
        assert main(["alerts", "test", "acme", "--file", str(write(tmp_path, hook))]) == 0
    (got,) = hook.got
    assert got.is_signed()
    assert got.payload()["type"] == "test"
    assert capsys.readouterr().out == f"delivered: {got.headers['webhook-id']} to acme\n"


def test_a_receiver_that_does_not_take_it_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hooked(lambda _: 410) as hook:
        assert main(["alerts", "test", "operators", "--file", str(write(tmp_path, hook))]) == 1
    assert capsys.readouterr().err == "broker alerts: operators did not take it: answered 410.\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["test", "nobody", "--file", "alerts.yaml"], "there is no receiver 'nobody'; the file has acme, operators."),
        (["test", "acme"], "BROKER_ALERTS: is not set"),
        (["list", "--file", "none.yaml"], "BROKER_ALERTS: none.yaml cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_explained(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: str,
) -> None:
    write(tmp_path, Hook())
    monkeypatch.chdir(tmp_path)
    assert main(["alerts", *arguments]) == 2
    assert told in capsys.readouterr().err
