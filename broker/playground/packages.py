"""The publishing side: a small package, built and published by the real uv, in an environment that is its own."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PYPROJECT = """\
[project]
name = "{name}"
version = "{version}"
description = "A small package that is published through the broker."
requires-python = ">=3.11"

[build-system]
requires = ["uv_build=={uv}"]
build-backend = "uv_build"
"""

_MASK = "::add-mask::"
_CODE = re.compile(r'"code"\s*:\s*"([a-z-]+)"|Server message: ([a-z-]+): ')
"""uv prints the body of a refused mint, and the title of a refused upload (RFC 9457), which begins with the code."""


class UvError(Exception):
    """uv is missing, hangs, or cannot build; the message says so, with what it printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run of a client ended."""

    status: int
    output: str
    """What a CI's log would show: standard output and standard error together, without what is masked."""
    masked: tuple[str, ...] = field(default=(), repr=False)
    """The secrets that it asked GitHub's runner to mask: uv does so with its upload token."""

    @classmethod
    def of(cls, status: int, printed: str) -> Outcome:
        """Reads what a client printed as GitHub's runner does: commands to mask are carried out, and not shown."""
        lines = printed.splitlines(keepends=True)
        masked = tuple(line.removeprefix(_MASK).rstrip("\r\n") for line in lines if line.startswith(_MASK))
        output = "".join(line for line in lines if not line.startswith(_MASK))
        for secret in filter(None, masked):
            output = output.replace(secret, "***")
        return cls(status=status, output=output, masked=masked)

    @property
    def refusal_code(self) -> str:
        """The code of the broker's refusal, as the client showed it; empty where it showed none."""
        found = _CODE.search(self.output)
        return found[1] or found[2] if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uv:
    """The real uv, with a home of its own: no configuration, keyring or credential of the user's is looked at."""

    program: Path
    home: Path
    seconds: float = 120.0
    """How long a run may take."""

    @classmethod
    def find(cls, home: Path) -> Uv:
        """Looks beside this Python, then on the search path.

        Raises:
            UvError: there is none.
        """
        beside = Path(sys.executable).with_name("uv")
        found = beside if beside.is_file() else shutil.which("uv")
        if found is None:
            raise UvError("uv is not installed: pip install -r requirements/playground.txt, or use `make demo`")
        return cls(program=Path(found), home=home)

    def run(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Outcome:
        """Runs `uv ARGUMENT...` in a folder.

        Raises:
            UvError: it does not end.
        """
        clean = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "UV_CACHE_DIR": str(self.home / "cache"),
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON": sys.executable,
            "UV_PYTHON_DOWNLOADS": "never",
            "NO_COLOR": "1",
        }
        try:
            done = subprocess.run(
                [self.program, *arguments],
                cwd=folder,
                env={**clean, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=self.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UvError(f"uv {arguments[0]} did not end within {self.seconds:.0f} s") from error
        return Outcome.of(done.returncode, done.stdout)

    def build(self, name: str, version: str, folder: Path) -> dict[str, str]:
        """Builds a package without a network: its backend is uv's own, at uv's own version.

        Args:
            name: The project's name.
            version: Its version.
            folder: A new folder; the files are in its `dist/`.

        Returns:
            Filename -> sha256, of a wheel and an sdist.

        Raises:
            UvError: it could not.
        """
        source = folder / "src" / name.replace("-", "_")
        source.mkdir(parents=True)
        (source / "__init__.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
        own = self.run(["--version"], folder).output.split()[1]
        (folder / "pyproject.toml").write_text(_PYPROJECT.format(name=name, version=version, uv=own), encoding="utf-8")
        outcome = self.run(["build", "--offline", "--no-create-gitignore"], folder)
        if outcome.status != 0:
            raise UvError(f"uv build failed:\n{outcome.output}")
        files = sorted((folder / "dist").iterdir())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
