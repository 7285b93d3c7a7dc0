"""No server outlives whoever started it, and one that does not come up says why."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.playground.processes import CHECKOUT, PORTS, Command, ServerError, free_port, running

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
FAILS = "import sys; print('no such flag'); sys.exit(3)"


def command(folder: Path, code: str, *, start_seconds: float = 30.0, stop_seconds: float = 30.0) -> Command:
    """A module that runs this code, as the servers are modules."""
    (folder / "served.py").write_text(code, encoding="utf-8")
    return Command(
        name="the server",
        module="served",
        arguments=(),
        environment={},
        folder=folder,
        log=folder / "log",
        start_seconds=start_seconds,
        stop_seconds=stop_seconds,
    )


def said_up(folder: Path) -> Callable[[], bool]:
    return lambda: "up" in (folder / "log").read_text(encoding="utf-8")


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_server_ends_with_its_context(tmp_path: Path) -> None:
    with running(command(tmp_path, SLEEPS), said_up(tmp_path)) as process:
        assert process.poll() is None
    assert process.returncode == -signal.SIGTERM


def test_a_server_that_does_not_hear_is_killed(tmp_path: Path) -> None:
    with running(command(tmp_path, DEAF, stop_seconds=0.2), said_up(tmp_path)) as process:
        pass
    assert process.returncode == -signal.SIGKILL


def test_a_server_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    """Nothing of the starter's own code runs then; the tether must do it."""
    script = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(CHECKOUT)!r})
from tests.playground.test_processes import SLEEPS, command, running, said_up
folder = Path({str(tmp_path)!r})
with running(command(folder, SLEEPS), said_up(folder)) as process:
    print(process.pid, flush=True)
    time.sleep(600)
"""
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert is_running(pid)
    starter.kill()
    starter.communicate()
    wait_until(lambda: not is_running(pid))


def test_a_server_that_ends_at_once_is_told_of_with_what_it_printed(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"(?s)the server ended with status 3:\nno such flag"),
        running(command(tmp_path, FAILS), lambda: False),
    ):
        pytest.fail("it is not running")


def test_a_server_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="was not ready in 1 s"),
        running(command(tmp_path, SLEEPS, start_seconds=1), lambda: False),
    ):
        pytest.fail("it is not ready")


def test_another_s_answer_is_not_the_server_s(tmp_path: Path) -> None:
    def answers_after_the_end() -> bool:
        time.sleep(2)
        return True

    with (
        pytest.raises(ServerError, match="something else answers"),
        running(command(tmp_path, FAILS), answers_after_the_end),
    ):
        pytest.fail("it is not running")


def test_a_server_sees_no_broker_setting_of_the_starter_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_POLICIES", "elsewhere")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), "kept"]))
    shows = "import os; print(sorted(n for n in os.environ if n.startswith('BROKER_')), os.environ['PYTHONPATH'])"
    with running(command(tmp_path, f"{shows}; {SLEEPS}"), said_up(tmp_path)):
        assert (tmp_path / "log").read_text(encoding="utf-8").splitlines()[0] == f"[] {CHECKOUT}:{tmp_path}:kept"


def test_ports_are_below_those_of_outgoing_connections() -> None:
    assert free_port() in PORTS


def test_where_every_port_is_taken_there_is_no_endless_search(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("broker.playground.processes.PORTS", [taken.getsockname()[1]])
        with pytest.raises(OSError, match="no free port"):
            free_port()
