"""What the system says of processes (Linux's /proc), and how the load is made (wrk)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).with_name("exchange.lua")

_RESULT = re.compile(r"^result (\{.*\})$", re.MULTILINE)


class BenchmarkError(Exception):
    """There is no figure; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk saw."""

    requests: int
    seconds: float
    refused: int
    """Answers of 400 and above."""
    broken: int
    """Connections that failed, and answers that did not come."""
    ran_out: bool
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def need(program: str, package: str) -> None:
    """Says what to install where a program is missing.

    Raises:
        BenchmarkError
    """
    if shutil.which(program) is None:
        raise BenchmarkError(f"{program} is missing: install it from the system's packages (apt install {package}).")


def load(url: str, *, tokens: Path, repeat: bool, seconds: int, connections: int) -> Load:
    """Loads one server with one identity token a request, by one thread of wrk.

    Args:
        tokens: One a line.
        repeat: Begin anew where they end; only for servers that remember nothing.

    Raises:
        BenchmarkError: wrk failed.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT), url]
    arguments = ["--", str(tokens), "repeat" if repeat else "once"]
    told = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    found = _RESULT.search(told.stdout)
    if told.returncode or found is None:
        raise BenchmarkError(f"wrk failed:\n{told.stdout[-1000:]}{told.stderr[-1000:]}")
    result = json.loads(found[1])
    return Load(
        requests=result["requests"],
        seconds=result["microseconds"] / 1e6,
        refused=result["refused"],
        broken=result["broken"],
        ran_out=bool(result["ran_out"]),
        p50_ms=result["p50"] / 1e3,
        p99_ms=result["p99"] / 1e3,
    )


def cpu_seconds(pids: Iterable[int]) -> float:
    """What processes have used of the processor since they began, user and system."""
    ticks = 0
    for pid in pids:
        # The second field, the program's name, may hold anything, blanks and brackets too.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """What a process has in memory now; with `VmHWM`, the most it had since it began or `forget_peak`."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"the process {pid} has ended")
    return int(found[1]) / 1024


def forget_peak(pid: int) -> None:
    """Makes `VmHWM` begin anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
