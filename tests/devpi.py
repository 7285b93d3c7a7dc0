"""A real devpi-server with devpi-tokens, started on a free port of this machine and ended with its context."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pymacaroons  # type: ignore[import-untyped]  # it has no types

from broker.playground.processes import Command, free_port, running

OWNER: Final = "acme"
"""The devpi user whose indexes these are."""

UPLOADER: Final = "broker"
"""The devpi user that the broker uploads as, behind the gateway."""

TOKEN_USER: Final = "__token__"
"""The devpi user that native tokens belong to: clients send this name, and devpi-tokens compares."""

_NUMBERS = itertools.count(1)

QUICK_HASHES: Final = ("--argon2-memory-cost", "8", "--argon2-time-cost", "1", "--argon2-parallelism", "1")
"""devpi derives keys from its secret with argon2. At its defaults, a start takes many seconds on a small machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Devpi:
    """A running devpi-server."""

    url: str
    password: str = field(repr=False)
    """All its users', root's too."""

    def index(self, uploaders: tuple[str, ...] = (UPLOADER, TOKEN_USER)) -> DevpiIndex:
        """A new, empty index that these users may upload to."""
        name = f"{OWNER}/prod{next(_NUMBERS)}"
        told = {"type": "stage", "bases": [], "volatile": False, "acl_upload": list(uploaders)}
        self.ask("PUT", name, told, user=OWNER)
        return DevpiIndex(devpi=self, name=name)

    def parent_token(self, **restrictions: object) -> str:
        """A token of `TOKEN_USER`'s that the broker may attenuate; for devpi's own life of a token, a year."""
        answer = self.ask("POST", f"{TOKEN_USER}/+token-create", restrictions, user=TOKEN_USER)
        return str(answer["result"]["token"])

    def ask(self, method: str, path: str, body: object = None, *, user: str | None = None) -> Any:
        """One request of devpi's JSON interface; None where there is nothing at that path."""
        headers = {"Accept": "application/json"}
        auth = (user, self.password) if user else None
        answer = httpx.request(
            method, f"{self.url}/{path}", json=body, headers=headers, auth=auth, trust_env=False, timeout=30
        )
        if method == "GET" and answer.status_code == httpx.codes.NOT_FOUND:
            return None
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()


@dataclass(frozen=True, slots=True, kw_only=True)
class DevpiIndex:
    """One index of a devpi-server, in the role of a registry."""

    devpi: Devpi
    name: str
    """Such as 'acme/prod1'."""
    username: str = UPLOADER
    answers_again: int = 200
    """To the same file a second time."""

    @property
    def url(self) -> str:
        """Where uploads go."""
        return f"{self.devpi.url}/{self.name}/"

    @property
    def password(self) -> str:
        """Of `username`."""
        return self.devpi.password

    def stored(self) -> dict[str, str]:
        """What the index lists: filename -> sha256, of whatever kind; a project or release without any file -> ''."""
        listed: dict[str, str] = {}
        for project in self.devpi.ask("GET", self.name)["result"]["projects"]:
            releases = self.devpi.ask("GET", f"{self.name}/{project}")["result"]
            listed |= {} if releases else {project: ""}
            for version, release in releases.items():
                links = release.get("+links", [])
                listed |= {} if links else {f"{project} {version}": ""}
                listed |= {link["href"].rpartition("/")[2]: link["hash_spec"].partition("=")[2] for link in links}
        return listed


@contextlib.contextmanager
def serving_devpi(folder: Path) -> Iterator[Devpi]:
    """Serves a devpi whose data, secret and log are in `folder`, with the users that tests need."""
    data, secret, password = folder / "data", folder / "secret", secrets.token_hex(24)
    subprocess.run(
        [
            str(Path(sys.executable).with_name("devpi-init")),
            *("--serverdir", str(data), "--no-root-pypi", "--root-passwd", password),
        ],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    secret.write_text(secrets.token_urlsafe(48), encoding="ascii")
    secret.chmod(0o600)
    port = free_port()
    devpi = Devpi(url=f"http://127.0.0.1:{port}", password=password)
    command = Command(
        name="devpi-server",
        module="devpi_server",
        arguments=(
            *("--serverdir", str(data), "--secretfile", str(secret), *QUICK_HASHES),
            *("--host", "127.0.0.1", "--port", str(port), "--threads", "8", "--offline-mode"),
            "--enable-core-metadata",  # PEP 658, which devpi calls experimental
        ),
        environment={"PYTHONWARNINGS": "ignore"},
        folder=folder,
        log=folder / "devpi.log",
    )
    with running(command, lambda: _answers(devpi.url)):
        for user in (OWNER, UPLOADER, TOKEN_USER):
            devpi.ask("PUT", user, {"password": password}, user="root")
        yield devpi


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/+api", trust_env=False, timeout=2).is_success
    except httpx.HTTPError:
        return False


def parent_of(
    *restrictions: str,
    user: str = TOKEN_USER,
    identifier: str | None = None,
    key: str = "devpi's",
    version: int = pymacaroons.MACAROON_V2,
    location: str = "",
) -> str:
    """A token such as devpi-tokens makes, of no devpi that runs."""
    macaroon = pymacaroons.Macaroon(
        location=location, identifier=f"{user}-abcdefgh" if identifier is None else identifier, key=key, version=version
    )
    for restriction in restrictions:
        macaroon.add_first_party_caveat(restriction)
    return f"devpi-{macaroon.serialize()}"


NATIVE: Final = (
    ("upload_tokens", "devpi"),
    ("devpi_token", parent_of("allowed=upload")),
    ("registry_url", "https://devpi.acme.example/acme/prod/"),
    ("upload_path", "/acme/prod/"),
)
"""Settings of a broker that mints tokens of a devpi's; nothing asks that devpi."""
