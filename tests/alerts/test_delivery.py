"""Real brokers and real receivers: every alert arrives, in order, signed, whatever was down meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from tests.alerts.hook import SECRET, Hook, hooked
from tests.servers import Served, broker

PATIENCE_SECONDS = 90.0


@pytest.fixture(name="ci", scope="module")
def _ci() -> Iterator[FakeCI]:
    with serving_ci() as ci:
        yield ci


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def write_receivers(folder: Path, **receivers: Hook) -> dict[str, str]:
    """A file of receivers, all of acme; and the settings that name it."""
    (folder / "secret").write_text(SECRET + "\n")
    more = "secret_files: [secret], organizations: [acme], longest_pause: 1s"
    lines = [
        "receivers:",
        *(f"  {name}: {{kind: standard, url: '{hook.url}', {more}}}" for name, hook in receivers.items()),
    ]
    (folder / "alerts.yaml").write_text("\n".join(lines) + "\n")
    return {"alerts": str(folder / "alerts.yaml"), "metrics": "open"}


def mint(served: Served, ci: FakeCI, **claims: object) -> int:
    answer = httpx.post(
        f"{served.url}/_/oidc/mint-token", json={"token": ci.token("github", **claims)}, timeout=30, trust_env=False
    )
    return answer.status_code


def refuse(served: Served, ci: FakeCI, actors: Sequence[str]) -> list[str]:
    """Refused members, one alert each; what their alerts are about, in order."""
    for actor in actors:
        assert mint(served, ci, actor_id=actor) == 403
    return [f"unknown-actor github {actor}" for actor in actors]


def subjects(hook: Hook) -> list[str]:
    """Of what a receiver took, in order."""
    return [one.payload()["data"]["subject"] for one in hook.taken()]


def test_every_alert_arrives_in_order_though_receivers_are_down_fail_or_are_slow(tmp_path: Path, ci: FakeCI) -> None:
    down, failing_for = Hook(), [True]

    def slow(_: object) -> int:
        time.sleep(0.4)
        return 200

    with (
        hooked() as good,
        hooked(lambda _: 500 if failing_for[0] else 204) as failing,
        hooked(slow) as late,
        broker(tmp_path, ci, **write_receivers(tmp_path, good=good, down=down, failing=failing, late=late)) as served,
    ):
        assert mint(served, ci) == 200
        told = ["acme/widgets-release", *refuse(served, ci, [f"9{n}" for n in range(8)])]
        wait_until(lambda: subjects(good) == told)
        assert failing.taken() == [], "who fails holds up itself alone"
        wait_until(lambda: len(failing.got) >= 2)
        page = httpx.get(f"{served.url}/metrics", trust_env=False).text
        assert 'broker_alert_deliveries_total{delivery="failed",receiver="failing"}' in page
        failing_for[0] = False
        down.start()
        told += refuse(served, ci, ["800", "801"])
        for hook in (good, down, failing, late):
            wait_until(lambda hook=hook: subjects(hook) == told)  # type: ignore[misc]  # bound now
            assert all(one.is_signed() for one in hook.got)
        assert len({one.headers["webhook-id"] for hook in (good, down, late) for one in hook.got}) == len(told)
        down.stop()
        log = served.log.read_text(encoding="utf-8")
        assert '"event": "alert not delivered"' in log
        assert "/hook" not in log, "URLs are secrets"


def test_another_broker_takes_over_when_the_one_that_delivers_is_killed(tmp_path: Path, ci: FakeCI) -> None:
    hook = Hook()
    settings = write_receivers(tmp_path, acme=hook)
    with contextlib.ExitStack() as stack:
        brokers = [stack.enter_context(broker(tmp_path, ci, name=name, **settings)) for name in ("one", "two")]
        told = refuse(brokers[0], ci, ["900", "901", "902"])
        wait_until(lambda: any("alert not delivered" in one.log.read_text() for one in brokers))
        (worker,) = [one for one in brokers if "alert not delivered" in one.log.read_text()]
        (other,) = [one for one in brokers if one is not worker]
        os.kill(worker.pid, signal.SIGKILL)
        told += refuse(other, ci, ["903", "904"])
        hook.start()
        stack.callback(hook.stop)
        wait_until(lambda: subjects(hook) == told)
        assert all(one.is_signed() for one in hook.got)
