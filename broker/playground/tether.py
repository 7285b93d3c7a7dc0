"""Runs a Python module as a server that does not outlive whoever started it, however that one ends.

`python -m broker.playground.tether MODULE ARGUMENT...` is `python -m MODULE ARGUMENT...`, with one difference: when its
standard input ends, it gets SIGTERM. The starter holds the other end of that pipe and never writes; the kernel closes
it even when the starter is killed. Nothing else works on Linux and macOS alike without a process in between.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Runs the module that the arguments name."""
    module = sys.argv[1]
    sys.argv[:] = sys.argv[1:]
    threading.Thread(target=_end_with_standard_input, name="tether", daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_standard_input() -> None:
    # Not `sys.stdin`: its lock, held by a daemon thread, makes the interpreter's own end fail.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
