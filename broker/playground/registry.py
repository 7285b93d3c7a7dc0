"""A real pypiserver that knows one user and has never heard of trusted publishing."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
import secrets
import urllib.parse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from broker.playground.certificates import write_private
from broker.playground.processes import Command, free_port, running

USERNAME: Final = "broker"

_LINK = re.compile(r'href="(?:[^"#]*/)?([^"#/]+)#sha256=([0-9a-f]{64})"')


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageRegistry:
    """A running pypiserver. Anybody may read; only who has the password may upload."""

    url: str
    packages: Path
    """Where it keeps files."""
    username: str
    password: str = field(repr=False)

    def listing(self, project: str) -> dict[str, str]:
        """What the simple index (PEP 503) says of a project: filename -> sha256; empty where it has none.

        Raises:
            httpx.HTTPError: the registry does not answer, or not with an index.
        """
        answer = httpx.get(f"{self.url}/simple/{project}/", trust_env=False, timeout=10)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        answer.raise_for_status()
        return {urllib.parse.unquote(name): digest for name, digest in _LINK.findall(answer.text)}

    def stored(self) -> dict[str, str]:
        """What lies in its folder, whatever its index says: filename -> sha256."""
        return {
            str(path.relative_to(self.packages)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.packages.rglob("*"))
            if path.is_file()
        }


@contextlib.contextmanager
def serving_registry(folder: Path) -> Iterator[PackageRegistry]:
    """Serves a registry whose packages, password file and log are in `folder`, for as long as the context is open.

    Raises:
        ServerError: it did not start.
    """
    packages, passwords = folder / "packages", folder / "htpasswd"
    packages.mkdir(parents=True)
    port = free_port()
    registry = PackageRegistry(
        url=f"http://127.0.0.1:{port}", packages=packages, username=USERNAME, password=secrets.token_urlsafe(32)
    )
    write_private(passwords, _password_file(registry.username, registry.password))
    command = Command(
        name="the registry (pypiserver)",
        module="pypiserver",
        arguments=(
            *("run", "--interface", "127.0.0.1", "--port", str(port)),
            *("--authenticate", "update", "--passwords", str(passwords)),
            *("--hash-algo", "sha256", "--disable-fallback", str(packages)),
        ),
        environment={},
        folder=folder,
        log=folder / "registry.log",
    )
    with running(command, lambda: _answers(registry.url)):
        yield registry


def _password_file(username: str, password: str) -> bytes:
    with warnings.catch_warnings():
        # passlib's last release is of 2020: it imports `crypt`, which Python has deprecated since.
        warnings.simplefilter("ignore", DeprecationWarning)
        apache = importlib.import_module("passlib.apache")
        # Not bcrypt, which pypiserver's passlib crashes on; the password is random, so a slow hash protects nothing.
        file = apache.HtpasswdFile(default_scheme="apr_md5_crypt")
        file.set_password(username, password)
        return bytes(file.to_string())


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
