"""`broker playground` until it is interrupted: what it says, what it shows, and that it leaves nothing."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.playground.packages import Uv
from broker.playground.processes import CHECKOUT
from tests.playground.test_processes import wait_until
from tests.playground.test_session import processes_of


class Running:
    """A playground that a person started in a terminal."""

    def __init__(self, folder: Path, output: Path, *flags: str, until: str = "Ctrl-C ends everything") -> None:
        self.folder, self._output = folder, output
        with output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "broker", "playground", "--dir", str(folder), *flags],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: until in self.shown or self.process.poll() is not None, seconds=60)

    @property
    def shown(self) -> str:
        return self._output.read_text(encoding="utf-8")


@pytest.fixture(name="running")
def _running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "playground", tmp_path / "output")
    yield running
    running.process.terminate()
    running.process.wait(30)


def test_what_it_says_is_short_and_enough_to_publish_by_hand(running: Running) -> None:
    explained = running.shown.partition("Ready.")[2].splitlines()
    assert len(explained) <= 20
    [line] = [line.strip() for line in explained if line.endswith("/environment.sh")]
    uv = Uv.find(running.folder / "home")
    package = running.folder / "package"
    files = uv.build("acme-widgets", "1.0.0", package)
    published = subprocess.run(
        ["sh", "-ec", f"{line}; {uv.program} publish --no-config --trusted-publishing always"],
        cwd=package,
        env={"PATH": "/usr/bin:/bin", "HOME": str(running.folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert published.returncode == 0, published.stderr
    assert {path.name for path in (running.folder / "registry" / "packages").iterdir()} == files.keys()
    wait_until(lambda: running.shown.count(" alice ") == 4)
    assert re.search(r"upload +alice +acme_widgets-1\.0\.0\.tar\.gz +allowed", running.shown)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(running: Running, number: signal.Signals) -> None:
    assert len(processes_of(running.folder)) == 2
    running.process.send_signal(number)
    assert running.process.wait(30) == 0
    assert processes_of(running.folder) == []
    assert "Traceback" not in running.shown


def test_killed_it_leaves_nothing_running(running: Running) -> None:
    running.process.kill()
    running.process.wait()
    wait_until(lambda: processes_of(running.folder) == [])


def test_a_demo_that_is_interrupted_ends_everything_too(tmp_path: Path) -> None:
    interrupted = Running(tmp_path / "playground", tmp_path / "output", "--demo", until="the broker: broker serve")
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.process.wait(30) == 130, "as shells call what Ctrl-C ended"
    assert processes_of(interrupted.folder) == []
    assert "Traceback" not in interrupted.shown


def test_a_folder_that_is_not_empty_is_explained_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "playground").mkdir()
    (tmp_path / "playground" / "thesis.txt").touch()
    refused = Running(tmp_path / "playground", tmp_path / "output")
    assert refused.process.wait(30) == 1
    assert refused.shown.splitlines()[-1].startswith("broker playground: ")
    assert "name a folder that is new or empty" in refused.shown
