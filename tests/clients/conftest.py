"""One playground for all clients: a broker over TLS, a pypiserver behind it, and a CI that signs."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.playground.ci import IssuerName
from broker.playground.packages import Outcome, Uv
from broker.playground.session import Playground

_VERSIONS = itertools.count(1)

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "publish-from-ci.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A package with a wheel and an sdist that nobody has published yet."""

    folder: Path
    version: str
    files: dict[str, str]
    """Filename -> sha256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A playground at which clients are tried."""

    playground: Playground
    uv: Uv

    def release(self, project: str = "acme-widgets") -> Release:
        """Builds the next version."""
        version = f"1.{next(_VERSIONS)}.0"
        folder = self.playground.folder / "releases" / version
        return Release(folder=folder, version=version, files=self.uv.build(project, version, folder))

    def run(self, program: str, arguments: list[str], release: Release, environment: dict[str, str]) -> Outcome:
        """Runs a client, installed beside uv, in a release's folder and a clean environment."""
        client = Uv(program=self.uv.program.with_name(program), home=self.uv.home)
        return client.run(arguments, release.folder, {**self.playground.client_environment, **environment})

    def follow(self, client: str, release: Release, token: str, **environment: str) -> Outcome:
        """Runs the line that the how-to has for a client, with a token as its steps before have fetched it."""
        lines = HOW_TO.read_text(encoding="utf-8").splitlines()
        [line] = [line for line in lines if "=$token " in line and f" {client} " in line]
        shell = shutil.which("bash")
        assert shell is not None
        told = {
            **self.playground.client_environment,
            "PATH": f"{self.uv.program.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "index": self.playground.upload_url,
            "token": token,
        }
        return Uv(program=Path(shell), home=self.uv.home).run(["-euc", line], release.folder, {**told, **environment})

    def mint(self, issuer: IssuerName = "github", *, scope: str = "upload", **changes: object) -> str:
        """A token, by plain HTTP, as a step for clients that know nothing of trusted publishing."""
        identity = self.playground.ci.token(issuer, **changes)
        with self.playground.client() as client:
            answer = client.post("/_/oidc/mint-token", json={"token": identity, "scope": scope})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    def stored(self, release: Release) -> dict[str, str]:
        """What the registry has of a release's files, read from its folder."""
        return {name: digest for name, digest in self.playground.registry.stored().items() if name in release.files}

    def new_records(self, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What was recorded since."""
        known = {record["attempt"] for record in before}
        return [record for record in self.playground.records() if record["attempt"] not in known]


@pytest.fixture(scope="session", name="bench")
def _bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Playground(tmp_path_factory.mktemp("playground")) as playground:
        yield Bench(playground=playground, uv=Uv.find(playground.folder / "home"))
