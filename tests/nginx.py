"""A real nginx for tests: deploy/nginx.conf as it is, on a port of loopback, with all that it writes in a folder."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

STARTS_WITHIN_SECONDS = 10

DEPLOYED = Path(__file__).parent.parent / "deploy" / "nginx.conf"

_AROUND = """\
{user}
daemon off;
pid nginx.pid;
worker_processes 1;
events {{}}
http {{
    log_format told '$request_method $request_uri $status';
    access_log access.log told;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site-*.conf;
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nginx:
    """A running nginx."""

    folder: Path

    def requests(self) -> list[str]:
        """What it answered so far: 'POST /legacy/ 200'. It writes that a moment after the client has its answer."""
        log, told = self.folder / "access.log", ""
        while told != (told := log.read_text(encoding="utf-8")):
            time.sleep(0.1)
        return told.splitlines()


def filled_in(deployed: Path, names: Mapping[str, str]) -> str:
    """A file of `deploy/`, with its names filled in as `envsubst` does it."""
    return re.sub(r"\$\{([A-Z_]+)\}", lambda found: names[found[1]], deployed.read_text(encoding="utf-8"))


@contextlib.contextmanager
def serving_nginx(
    folder: Path, port: int, names: Mapping[str, str], beside: Mapping[Path, Mapping[str, str]] | None = None
) -> Iterator[Nginx]:
    """Serves for as long as the context is open.

    Args:
        folder: A new folder.
        port: Where to listen.
        names: All that deploy/nginx.conf leaves open, but `LISTEN`.
        beside: More files of `deploy/`, each with all that it leaves open.
    """
    # Debian has it where only root's search path looks.
    program = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))
    assert program, "the tests need a real nginx: install your system's package of that name"
    folder.mkdir()
    # Started by root, its workers would be somebody who may not look into the folder.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_AROUND.format(user=user), encoding="utf-8")
    sites = {DEPLOYED: {**names, "LISTEN": f"127.0.0.1:{port}"}, **(beside or {})}
    for number, (deployed, told) in enumerate(sites.items()):
        (folder / f"site-{number}.conf").write_text(filled_in(deployed, told), encoding="utf-8")
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [program, "-p", folder, "-e", "error.log", "-c", "nginx.conf"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + STARTS_WITHIN_SECONDS
        while not _listens(port):
            assert process.poll() is None, (folder / "output.log").read_text(encoding="utf-8")
            assert time.monotonic() < until, "nginx does not listen"
            time.sleep(0.01)
        yield Nginx(folder=folder)
    finally:
        process.terminate()
        process.wait(STARTS_WITHIN_SECONDS)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
