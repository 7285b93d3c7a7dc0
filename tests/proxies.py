"""The real proxies in front of a registry, each as its file in `deploy/` has it, on a port of loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import httpx
import pytest

from broker.playground.certificates import Certificates
from broker.playground.processes import free_port
from tests.nginx import filled_in, serving_nginx

Proxy = Literal["nginx", "traefik", "envoy", "caddy"]
PROXIES: Final[tuple[Proxy, ...]] = get_args(Proxy)
PACKAGED: Final = frozenset({"nginx", "caddy"})
"""The system's packages have these, and `make test` installs them. Others are tried where somebody installed them."""

DEPLOY: Final = Path(__file__).parent.parent / "deploy"
FILES: Final[Mapping[Proxy, str]] = {
    "nginx": "nginx-forward-auth.conf",
    "traefik": "traefik.yaml",
    "envoy": "envoy.yaml",
    "caddy": "Caddyfile",
}
STARTS_WITHIN_SECONDS: Final = 30

EACH: Final = [
    pytest.param(
        proxy,
        marks=pytest.mark.skipif(
            proxy not in PACKAGED and shutil.which(proxy) is None, reason=f"{proxy} is not installed"
        ),
    )
    for proxy in PROXIES
]
"""To parametrise tests with."""


@contextlib.contextmanager
def serving_proxy(
    proxy: Proxy, folder: Path, certificates: Certificates, *, broker: int, registry: int, reader: str
) -> Iterator[str]:
    """The URL of one, for as long as the context is open.

    Args:
        proxy: Which.
        folder: A new folder.
        certificates: To serve with.
        broker: The port that it asks.
        registry: The port that it sends reads on to.
        reader: The registry's own credential for reading, as Basic has it.
    """
    port = free_port()
    names = {
        "LISTEN": f"127.0.0.1:{port}" if proxy == "nginx" else f"https://127.0.0.1:{port}",
        "LISTEN_ADDRESS": "127.0.0.1",
        "LISTEN_PORT": str(port),
        "PUBLIC_NAME": "127.0.0.1",
        "BROKER": f"127.0.0.1:{broker}",
        "UPLOAD_NAME": "upload.acme.example",
        "ASK_ADDRESS": "127.0.0.1",
        "ASK_PORT": str(broker),
        "REGISTRY": f"127.0.0.1:{registry}",
        "REGISTRY_ADDRESS": "127.0.0.1",
        "REGISTRY_PORT": str(registry),
        "REGISTRY_READER": reader,
        "CERTIFICATE": str(certificates.certificate),
        "CERTIFICATE_KEY": str(certificates.key),
    }
    deployed = DEPLOY / FILES[proxy]
    if proxy == "nginx":
        with serving_nginx(folder, free_port(), names, {deployed: names}):
            yield f"https://127.0.0.1:{port}"
        return
    # Below the working directory: in it, Traefik would take the file for its other kind.
    file = folder / "deploy" / deployed.name
    file.parent.mkdir(parents=True)
    file.write_text(deployed.read_text(encoding="utf-8") if proxy == "caddy" else filled_in(deployed, names))
    arguments = {
        "traefik": [f"--entryPoints.websecure.address=127.0.0.1:{port}", f"--providers.file.filename={file}"],
        "envoy": ["-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"],
        "caddy": ["run", "--config", str(file)],
    }[proxy]
    # Caddy has its own way to fill in names, and would write into the user's home.
    told = {**names, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    url, trust = f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=certificates.authority)
    with _running(proxy, arguments, folder, told if proxy == "caddy" else {}, lambda: _asks(url, trust)):
        yield url


@contextlib.contextmanager
def _running(
    proxy: Proxy, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], is_ready: Callable[[], bool]
) -> Iterator[None]:
    program = shutil.which(proxy)
    assert program, f"the tests need a real {proxy}: make setup"
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [program, *arguments],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + STARTS_WITHIN_SECONDS
        while not is_ready():
            assert process.poll() is None, (folder / "output.log").read_text(encoding="utf-8")[-2000:]
            assert time.monotonic() < until, f"{proxy} does not answer"
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STARTS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _asks(url: str, trust: ssl.SSLContext) -> bool:
    """Whether a read without a token is refused there, as the broker does; Traefik listens before it knows what for."""
    with contextlib.suppress(httpx.HTTPError):
        answer = httpx.get(f"{url}/simple/any/", verify=trust, trust_env=False, timeout=2)
        return answer.status_code == httpx.codes.UNAUTHORIZED
    return False
