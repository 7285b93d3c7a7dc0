"""Breaks the core in many places, one at a time, and sees that a test fails each time.

    python -m tests.mutation.run [--jobs 2] [--part 1/4] [broker/tokens.py ...]

A mutant that no test notices is a rule that no test holds. Those that remain are in `survivors.md`, each with the
reason why it is the same program; any other makes this fail. Each mutant runs in a fork of a process that has the
libraries loaded, so that a thousand take minutes. Nothing is written to the tree.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

import pytest
from hypothesis import settings

from tests.mutation.operators import Mutant, mutants

ROOT: Final = Path(__file__).parents[2]
SURVIVORS: Final = Path(__file__).with_name("survivors.md")

_PROVIDERS = (
    "tests/providers/test_shape.py",
    "tests/property/test_publishers.py",
    "tests/policy/test_warnings.py",
    "tests/policy_core/test_plan_kinds.py",
)

TESTS: Final[Mapping[str, Sequence[str]]] = {
    "broker/tokens.py": ("tests/test_tokens.py", "tests/property/test_tokens.py"),
    "broker/patterns.py": ("tests/test_patterns.py", "tests/property/test_patterns.py"),
    "broker/providers/base.py": (
        "tests/providers",
        "tests/property/test_publishers.py",
        "tests/policy/test_warnings.py",
        "tests/policy_core/test_plan_kinds.py",
        "tests/policy/test_schemas.py",
    ),
    "broker/providers/github.py": ("tests/providers/test_github.py", *_PROVIDERS),
    "broker/providers/gitlab.py": ("tests/providers/test_gitlab.py", *_PROVIDERS),
    "broker/providers/google.py": ("tests/providers/test_google.py", *_PROVIDERS),
    "broker/providers/activestate.py": ("tests/providers/test_activestate.py", *_PROVIDERS),
    "broker/providers/buildkite.py": ("tests/providers/test_buildkite.py", *_PROVIDERS),
    "broker/providers/circleci.py": ("tests/providers/test_circleci.py", *_PROVIDERS),
    "broker/providers/forgejo.py": ("tests/providers/test_forgejo.py", *_PROVIDERS),
    "broker/providers/generic.py": ("tests/providers/test_generic.py", *_PROVIDERS),
    "broker/policy/model.py": (
        "tests/policy_core/test_model.py",
        "tests/policy_core/test_freezes.py",
        "tests/policy_core/test_matching.py",
    ),
    "broker/policy/matching.py": (
        "tests/policy_core/test_matching.py",
        "tests/policy_core/test_subjects.py",
        "tests/policy_core/test_freezes.py",
        "tests/policy_core/test_admit.py",
        "tests/providers/test_github.py",
    ),
    "broker/policy/subjects.py": ("tests/policy_core/test_subjects.py",),
    "broker/signing.py": ("tests/test_signing.py", "tests/test_minting.py"),
    "broker/minting.py": ("tests/test_minting.py", "tests/property/test_tokens.py"),
    "broker/devpi.py": ("tests/test_devpi.py",),
    "broker/audit.py": ("tests/test_audit.py",),
    "broker/ascii_json.py": ("tests/test_ascii_json.py",),
    "broker/gateway/parts.py": ("tests/gateway/test_form_edges.py", "tests/gateway/test_form.py"),
    "broker/gateway/form.py": (
        "tests/gateway/test_form_edges.py",
        "tests/gateway/test_form.py",
        "tests/gateway/test_package_edges.py",
    ),
    "broker/gateway/package.py": ("tests/gateway/test_package_edges.py", "tests/gateway/test_package.py"),
    "broker/gateway/archive.py": ("tests/gateway/test_archive.py",),
}
"""What holds each module's rules; the tables first, for they fail fastest."""

_LIBRARIES = (
    "anyio._backends._asyncio",
    "anyio.pytest_plugin",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "devpi_tokens.restrictions",
    "httpx",
    "hypothesis.internal.conjecture.engine",
    "hypothesis.strategies",
    "jwt.algorithms",
    "packaging.utils",
    "pydantic",
    "pymacaroons",
    "python_multipart.multipart",
    "structlog",
    "yaml",
)
_ISSUERS = ("github", "gitlab", "google", "activestate", "buildkite", "circleci", "forgejo", "generic")
"""Of the fake CI. An RSA key takes longer to make than most mutants to test."""
_OPTIONS = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "anyio.pytest_plugin")
"""Nobody reads why a test fails here, so assertions stay plain; of plugins, only what the tests need is loaded."""
_OURS = 70
"""The exit status of a fork that did not come as far as testing."""
_MOST_BYTES = 2 << 30
"""Of memory, for a mutant that collects without end."""
_PATIENCE = 3
"""How many times the processor time of the unbroken module a mutant may take: it may loop."""
_LEAST_PATIENCE = 20
"""Seconds of processor time that every mutant has."""
_HANGING = 10
"""How many times as long a mutant may wait for what never comes. On a busy machine others wait too: a survivor that
is ended for it would count as noticed."""
_TOLD = 50
"""Mutants after which progress is shown."""


@dataclass(frozen=True, slots=True)
class _Child:
    """A fork that tests one mutant."""

    mutant: Mutant
    pid: int
    ends: int
    """A pidfd: readable once the process has ended."""
    deadline: float


@dataclass(slots=True)
class _Tally:
    total: int = 0
    survivors: list[Mutant] = field(default_factory=list)


class _Broken(MetaPathFinder, Loader):
    """Gives one module its broken code."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name, self._code = name, code

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """Part of the import protocol."""
        del path, target
        return spec_from_loader(fullname, self, origin=self._code.co_filename) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        """Part of the import protocol."""
        exec(self._code, module.__dict__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the mutants of the named modules, or of all; 1 where one survives that is not known to be equivalent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="K/N", help="of each N mutants the Kth alone")
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    options = parser.parse_args(arguments)
    _prepare()
    known = SURVIVORS.read_text(encoding="utf-8")
    surprises = 0
    for module in options.modules:
        started = time.monotonic()
        tally = _run_module(module, options.jobs, options.part)
        surprising = [one for one in tally.survivors if f"`{module}` {one.name}" not in known]
        surprises += len(surprising)
        print(
            f"{module}: {tally.total} mutants, {len(tally.survivors)} survive, of them "
            f"{len(tally.survivors) - len(surprising)} known to be equivalent ({time.monotonic() - started:.0f} s)",
            flush=True,
        )
        for one in surprising:
            print(f"  {module}:{one.line} {one.name}", flush=True)
    return 1 if surprises else 0


def _part(text: str) -> tuple[int, int]:
    """'2/4'; argparse calls it by this name when it is none."""
    at, of = map(int, text.split("/"))
    if not 1 <= at <= of:
        raise ValueError
    return at, of


def _prepare() -> None:
    """Loads what every mutant needs and none breaks, and makes the fake CI's keys: forks then have them."""
    os.environ |= {"HYPOTHESIS_PROFILE": "mutants", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    os.chdir(ROOT)
    settings.register_profile("mutants", max_examples=60, deadline=None, derandomize=True, database=None)
    settings.load_profile("mutants")  # always the same examples, and as long as they take
    for name in _LIBRARIES:
        importlib.import_module(name)
    fake_ci = importlib.import_module("broker.playground.ci_keys")
    for issuer in _ISSUERS:
        fake_ci.signing_key(issuer)
    loaded = [name for name in sys.modules if name.startswith("broker.") and not name.startswith("broker.playground")]
    assert not loaded, f"a fork could not break what is loaded already: {loaded}"
    gc.freeze()


def _run_module(path: str, jobs: int, part: tuple[int, int]) -> _Tally:
    source = (ROOT / path).read_text(encoding="utf-8")
    name = path.removesuffix(".py").replace("/", ".")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    whole = _fork(name, Mutant(0, "", "", "", compile(source, path, "exec")), TESTS[path], 600)
    if _outcome(whole) != pytest.ExitCode.OK:
        sys.exit(f"{path}: its tests fail without any fault: {' '.join(TESTS[path])}")
    took = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    patience = max(_LEAST_PATIENCE, round(_PATIENCE * took))
    tally = _Tally()
    running: list[_Child] = []
    for mutant in itertools.islice(mutants(source, path), part[0] - 1, None, part[1]):
        tally.total += 1
        if tally.total % _TOLD == 0:
            print(f"{path}: {tally.total} mutants so far, {len(tally.survivors)} survive", file=sys.stderr, flush=True)
        running.append(_fork(name, mutant, TESTS[path], patience))
        if len(running) == jobs:
            _collect(running, tally)
    while running:
        _collect(running, tally)
    return tally


def _fork(name: str, mutant: Mutant, tests: Sequence[str], patience: int) -> _Child:
    pid = os.fork()
    if pid == 0:
        _be_tested(name, mutant, tests, patience)
    return _Child(mutant, pid, os.pidfd_open(pid), time.monotonic() + _HANGING * patience)


def _be_tested(name: str, mutant: Mutant, tests: Sequence[str], patience: int) -> None:
    """The life of a fork. It never returns."""
    status: int = _OURS
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (patience, patience))
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        sys.meta_path.insert(0, _Broken(name, mutant.code))
        status = pytest.ExitCode.TESTS_FAILED  # as which count files left open, for which pytest raises at its end
        for file in tests:  # one after the other: nearly all mutants fail in the first
            status = pytest.main([*_OPTIONS, file])
            if status != pytest.ExitCode.OK:
                break
    finally:
        os._exit(int(status))


def _collect(running: list[_Child], tally: _Tally) -> None:
    """Waits for the next fork to end, and takes it off the list."""
    for child in _ended(running):
        running.remove(child)
        status = _outcome(child)
        if status in {pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.USAGE_ERROR, _OURS}:
            sys.exit(f"the tests of {child.mutant.name} did not run")
        if status == pytest.ExitCode.OK:
            tally.survivors.append(child.mutant)
            print(f"survives so far: line {child.mutant.line} {child.mutant.name}", file=sys.stderr, flush=True)


def _ended(running: Sequence[_Child]) -> Iterator[_Child]:
    wait = max(0.0, min(child.deadline for child in running) - time.monotonic())
    ready, _, _ = select.select([child.ends for child in running], [], [], wait)
    yield from [child for child in running if child.ends in ready or child.deadline <= time.monotonic()]


def _outcome(child: _Child) -> int:
    """pytest's exit status; that of a failure for a fork that took too long, or crashed."""
    wait = max(0.0, child.deadline - time.monotonic())
    if not select.select([child.ends], [], [], wait)[0]:
        os.kill(child.pid, signal.SIGKILL)
    _, status = os.waitpid(child.pid, 0)
    os.close(child.ends)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else int(pytest.ExitCode.TESTS_FAILED)


if __name__ == "__main__":
    sys.exit(main())
