"""The playground: a CI, a registry, a broker over TLS, and a folder that a person can look into while they run.

Who opened it holds everything: when the context closes, or its process ends in whatever way, all servers end. The
registry's password goes to the broker's environment and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from broker.playground.certificates import Certificates, make_certificates
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.playground.claims import AUDIENCE
from broker.playground.environment import write_environments
from broker.playground.policies import write_policies
from broker.playground.processes import CHECKOUT, Command, free_port, running
from broker.playground.registry import PackageRegistry, serving_registry
from broker.state.opening import open_state

UPLOAD_PATH: Final = "/legacy/"
RECORD_DAYS: Final = 30


class FolderError(Exception):
    """The folder cannot be used."""


class Playground:
    """Everything at once. Use it as a context manager; its parts are there while it is open.

    Args:
        folder: Where to put everything, and leave it: a new or empty folder. Default: a temporary one, removed at the
            end.
        port: Where the broker listens; 0 is any that is free.
        say: Told, in a few words, what is being waited for.

    Raises (on entering):
        FolderError: the folder has something in it.
        ServerError: the registry or the broker did not start.
    """

    ci: FakeCI
    registry: PackageRegistry
    certificates: Certificates
    folder: Path
    url: str

    def __init__(self, folder: Path | None = None, *, port: int = 0, say: Callable[[str], None] | None = None) -> None:
        self._given_folder = folder
        self._port = port
        self._say = say or (lambda _: None)
        self._open = contextlib.ExitStack()
        self._broker = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            self._start(opening)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    @property
    def upload_url(self) -> str:
        """The index, as clients name it."""
        return self.url + UPLOAD_PATH

    @property
    def policies(self) -> Path:
        """The folder of policy files."""
        return self.folder / "policies"

    @property
    def state_url(self) -> str:
        """Where the broker keeps its state."""
        return f"sqlite:///{quote(str(self.folder / 'state.db'))}"

    @property
    def client_environment(self) -> dict[str, str]:
        """What any client needs here, CI or not."""
        return {
            "SSL_CERT_FILE": str(self.certificates.trusted),
            "REQUESTS_CA_BUNDLE": str(self.certificates.trusted),
            "NO_PROXY": "127.0.0.1,localhost",
            "UV_PUBLISH_URL": self.upload_url,
            "PDM_PUBLISH_REPO": self.upload_url,
            "TWINE_REPOSITORY_URL": self.upload_url,
        }

    def client(self) -> httpx.Client:
        """An HTTP client that trusts the broker's certificate, with its URL as base."""
        context = ssl.create_default_context(cafile=str(self.certificates.authority))
        return httpx.Client(base_url=self.url, verify=context, trust_env=False, timeout=30)

    def set_members(self, members: Sequence[str]) -> None:
        """Writes the organization's file with these members, and restarts the broker: the way policies change today."""
        write_policies(self.policies, self.ci, members)
        self._say("the broker, with the new policies")
        self._broker.close()
        self._start_broker()

    def records(self, most: int = 1000) -> list[dict[str, Any]]:
        """The newest audit records, oldest first."""
        return [json.loads(body) for body in asyncio.run(_bodies(self.state_url, most))]

    def _start(self, opening: contextlib.ExitStack) -> None:
        self.folder = opening.enter_context(_folder(self._given_folder))
        self._say("a certificate for this machine")
        self.certificates = make_certificates(self.folder)
        self._say("a CI for GitHub, GitLab and Google")
        self.ci = opening.enter_context(serving_ci())
        write_policies(self.policies, self.ci)
        self._say("a registry: pypiserver")
        self.registry = opening.enter_context(serving_registry(self.folder / "registry"))
        self._say("a signing key: broker keys new")
        _make_signing_key(self.folder / "signing-keys")
        self._say("the broker: broker serve")
        self.url = f"https://127.0.0.1:{self._port or free_port()}"
        opening.push(self._broker)
        self._start_broker()
        write_environments(self.folder, self.ci, self.client_environment)

    def _start_broker(self) -> None:
        command = Command(
            name="the broker",
            module="broker",
            arguments=("serve",),
            environment=self._broker_settings(),
            folder=self.folder,
            log=self.folder / "broker.log",
        )
        self._broker.enter_context(running(command, self._is_ready))

    def _broker_settings(self) -> Mapping[str, str]:
        return {
            "BROKER_POLICIES": str(self.policies),
            "BROKER_PUBLIC_URL": self.url,
            "BROKER_AUDIENCE": AUDIENCE,
            "BROKER_STATE_URL": self.state_url,
            "BROKER_SIGNING_KEYS": str(self.folder / "signing-keys"),
            "BROKER_UPLOAD_PATH": UPLOAD_PATH,
            "BROKER_REGISTRY_URL": f"{self.registry.url}/",
            "BROKER_REGISTRY_USERNAME": self.registry.username,
            "BROKER_REGISTRY_PASSWORD": self.registry.password,
            "BROKER_TLS_CERTIFICATE": str(self.certificates.certificate),
            "BROKER_TLS_KEY": str(self.certificates.key),
            "BROKER_HOST": "127.0.0.1",
            "BROKER_PORT": self.url.rpartition(":")[2],
            "BROKER_AUDIT_DAYS": str(RECORD_DAYS),
            "BROKER_ALLOW_LOOPBACK_ISSUERS": "true",
            "BROKER_METRICS": "open",
            "BROKER_DRAIN_SECONDS": "0",
        }

    def _is_ready(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/readyz", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is None:
        with tempfile.TemporaryDirectory(prefix="broker-playground-") as made:
            yield Path(made)
        return
    folder = given.resolve()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FolderError(f"{folder} is not empty: name a folder that is new or empty.")
    except OSError as error:
        raise FolderError(f"{folder} cannot be used ({error.strerror}).") from error
    yield folder


def _make_signing_key(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "broker", "keys", "new", str(folder)],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )


async def _bodies(url: str, most: int) -> Sequence[str]:
    state = open_state(url, retention_days=RECORD_DAYS)
    try:
        return await state.records(most)
    finally:
        await state.close()
