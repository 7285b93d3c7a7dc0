"""The files of deploy/verify as an operator runs them: real registries, a real broker, and stock clients."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx
import pytest

from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.playground.packages import Outcome, Uv
from broker.playground.processes import Command, free_port, running
from tests.clients.test_twine import UPLOAD, credentials
from tests.deploy.test_trusted_tokens import FILES
from tests.deploy.test_trusted_uploads import FORMS
from tests.gateway.uploads import BOUNDARY, CONTENT_TYPE, WHEEL, fields_of, join, pack_wheel, part, parts_of, upload
from tests.harness import PUBLIC_URL, state_url
from tests.servers import Served, broker, cli
from tests.test_upload_attacks import ATTACKS, FILE, VICTIM

Kind = Literal["waitress", "gunicorn", "asgi", "naive", "bare"]

ASGI = """
from pathlib import Path
import os

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from trusted_asgi import TrustedASGI
from trusted_tokens import Keys, TrustedTokens
from trusted_uploads import Guard


async def take(request):
    form = await request.form()
    (Path(os.environ["PACKAGES"]) / form["content"].filename).write_bytes(await form["content"].read())
    return Response()


tokens = TrustedTokens(
    issuer=os.environ["TRUSTED_ISSUER"],
    audience=os.environ["TRUSTED_AUDIENCE"],
    keys=Keys(os.environ["TRUSTED_KEYS_URL"]),
)
app = TrustedASGI(Starlette(routes=[Route("/", take, methods=["POST"])]), Guard(tokens=tokens))
"""
"""A registry for ASGI that believes everything."""

PYPISERVER = """
from pathlib import Path
import os

import pypiserver
from trusted_tokens import Keys, Refused, TrustedTokens
from trusted_wsgi import Auther

tokens = TrustedTokens(
    issuer=os.environ["TRUSTED_ISSUER"],
    audience=os.environ["TRUSTED_AUDIENCE"],
    keys=Keys(os.environ["TRUSTED_KEYS_URL"]),
)


def naive(user, password):
    try:
        tokens.verify(password)
    except Refused:
        return False
    return True


auther = naive if os.environ["AUTHER"] == "naive" else Auther(tokens)
app = pypiserver.app(roots=[Path(os.environ["PACKAGES"])], auther=auther, disable_fallback=True)
"""
"""pypiserver with an auther and no middleware: one that believes a token alone, and the example's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A registry that verifies tokens itself, and the broker that mints them."""

    url: str
    folder: Path
    served: Served
    ci: FakeCI
    uv: Uv
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def token(self, **narrowing: str) -> str:
        """A fresh upload token for acme-widgets and acme-gadgets, or a narrower one."""
        asked = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": self.ci.token(),
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            **narrowing,
        }
        answer = httpx.post(f"{self.served.url}/oauth2/token", data=asked, trust_env=False)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def post(self, body: bytes, token: str) -> httpx.Response:
        return httpx.post(
            self.url,
            content=body,
            headers={"Content-Type": CONTENT_TYPE},
            auth=("__token__", token),
            trust_env=False,
            timeout=60,
        )

    def publish(self, client: str, project: str, token: str) -> tuple[Outcome, Mapping[str, str]]:
        """Builds a package and has a stock client upload it; how that ended, and the files."""
        version = f"2.{next(self.versions)}"
        folder = self.folder / "releases" / f"{client}-{project}-{version}"
        files = self.uv.build(project, version, folder)
        program = Uv(program=self.uv.program.with_name(client), home=self.uv.home)
        arguments, environment = {
            "uv": (["publish"], {"UV_PUBLISH_TOKEN": token, "UV_PUBLISH_URL": self.url}),
            "twine": (
                [*UPLOAD, *(f"dist/{name}" for name in files)],
                {**credentials(token), "TWINE_REPOSITORY_URL": self.url},
            ),
        }[client]
        return program.run(arguments, folder, environment), files

    def stored(self) -> dict[str, str]:
        """Filename -> sha256."""
        packages = self.folder / "packages"
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in packages.iterdir()}


class Sites:
    """Registries of one broker."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.ci = stack.enter_context(serving_ci())
        (folder / "broker").mkdir()
        self.served = stack.enter_context(broker(folder / "broker", self.ci))
        self.uv = Uv.find(folder / "home")
        self.started: dict[str, Site] = {}

    def site(self, kind: Kind, **settings: str) -> Site:
        """One of that kind and with these settings, started when it is first asked for."""
        known = f"{kind} {sorted(settings)}"
        if known not in self.started:
            self.started[known] = self._start(kind, settings)
        return self.started[known]

    def _start(self, kind: Kind, settings: Mapping[str, str]) -> Site:
        folder = self.folder / f"{len(self.started)}"
        (folder / "packages").mkdir(parents=True)
        (folder / "spool").mkdir()
        (folder / "packages" / VICTIM).write_bytes(FILE)
        for file in FILES.glob("*.py"):
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / "asgi_registry.py").write_text(ASGI, encoding="utf-8")
        (folder / "pypiserver_alone.py").write_text(PYPISERVER, encoding="utf-8")
        port = free_port()
        listen = f"127.0.0.1:{port}"
        module, arguments = {
            "waitress": ("waitress", [f"--listen={listen}", "--call", "pypiserver_app:create"]),
            "gunicorn": ("gunicorn", [f"--bind={listen}", "--threads=4", "pypiserver_app:create()"]),
            "asgi": ("uvicorn", ["asgi_registry:app", "--port", str(port)]),
            "naive": ("waitress", [f"--listen={listen}", "pypiserver_alone:app"]),
            "bare": ("waitress", [f"--listen={listen}", "pypiserver_alone:app"]),
        }[kind]
        command = Command(
            name=kind,
            module=module,
            arguments=arguments,
            environment={
                "TRUSTED_ISSUER": PUBLIC_URL,
                "TRUSTED_AUDIENCE": f"{PUBLIC_URL}/legacy/",
                "TRUSTED_KEYS_URL": f"{self.served.url}/.well-known/jwks.json",
                "PACKAGES": str(folder / "packages"),
                "SPOOL": str(folder / "spool"),
                "AUTHER": kind,
                **settings,
            },
            folder=folder,
            log=folder / "log",
        )
        url = f"http://{listen}/"
        self.stack.enter_context(running(command, lambda: answers(url)))
        return Site(url=url, folder=folder, served=self.served, ci=self.ci, uv=self.uv)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code < 500
    except httpx.HTTPError:
        return False


@pytest.fixture(name="sites", scope="module")
def _sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with ExitStack() as stack:
        yield Sites(tmp_path_factory.mktemp("verify"), stack)


@pytest.fixture(name="site", params=["waitress", "gunicorn", "asgi"])
def _site(request: pytest.FixtureRequest, sites: Sites) -> Site:
    kind: Kind = request.param
    return sites.site(kind)


def victim() -> bytes:
    """An upload of another's project, whole and consistent."""
    fields = fields_of(FILE, name="victim", version="1.1")
    return join(parts_of(fields, FILE, "victim-1.1-py3-none-any.whl"))


# --- Uploads straight to a registry ----------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["uv", "twine"])
def test_a_client_uploads_straight_to_a_registry_that_verifies(site: Site, client: str) -> None:
    before = len(site.served.logged())
    outcome, files = site.publish(client, "acme-widgets", site.token())
    assert outcome.status == 0, outcome.output
    assert site.stored().items() >= files.items()
    kinds = [line["record"]["kind"] for line in site.served.logged()[before:] if isinstance(line.get("record"), dict)]  # type: ignore[index]
    assert kinds == ["mint"], "no upload passes the broker"


@pytest.mark.parametrize("client", ["uv", "twine"])
def test_a_client_uploads_no_other_project_and_is_told_why(site: Site, client: str) -> None:
    before = site.stored()
    outcome, _ = site.publish(client, "acme-gadgets", site.token(project="acme-widgets"))
    assert outcome.status != 0
    assert "project-not-granted" in outcome.output
    assert site.stored() == before


ROWS = [*ATTACKS, "a signature", "another project", "a boundary that goes on", "another version"]
"""The others need no server: both middlewares are held to them, and they go by the same code."""


@pytest.mark.parametrize("form", ROWS)
def test_an_attack_is_refused_and_the_registry_is_as_before(site: Site, form: str) -> None:
    code, body = FORMS[form]
    before = site.stored()
    answer = site.post(body(), site.token())
    assert answer.json()["code"] == code
    assert site.stored() == before
    assert list((site.folder / "spool").iterdir()) == []


def test_a_narrowed_token_uploads_what_it_is_narrowed_to(site: Site) -> None:
    file = pack_wheel()
    other, filename = file + b"more", "acme_widgets-1.0-7-py3-none-any.whl"
    token = site.token(version="1.0", sha256=hashlib.sha256(file).hexdigest())
    assert site.post(upload(other, filename), token).json()["code"] == "token-narrowed"
    assert site.post(upload(file, WHEEL, version="1.1"), token).status_code == 400
    assert site.post(upload(file, filename), token).status_code == 200
    assert site.stored()[filename] == hashlib.sha256(file).hexdigest()
    assert site.post(upload(), site.token(uses="1")).json()["code"] == "token-narrowed"


def test_what_is_neither_a_read_nor_an_upload_does_not_reach_the_registry(site: Site) -> None:
    before = site.stored()
    auth = ("__token__", site.token())
    for method, path in [("POST", "?:action=remove_pkg"), ("POST", "RPC2"), ("DELETE", ""), ("PUT", "simple/victim/")]:
        answer = httpx.request(method, site.url + path, content=upload(), auth=auth, trust_env=False)
        assert answer.status_code == 403
    assert httpx.post(site.url, content=upload(), trust_env=False).status_code == 401
    assert site.stored() == before


def hidden(filename: str) -> bytes:
    """An upload of acme-widgets whose description holds a second file, to a parser that takes a bare line feed."""
    file = pack_wheel()
    break_ = f"\n--{BOUNDARY}\n"
    second = 'Content-Disposition: form-data; name="content"; filename="victim-6.6-py3-none-any.whl"\n\nx'
    parts = parts_of(fields_of(file, description=None), file, filename)
    return join(
        [*parts, part("description", f"x{break_}{second}{break_}Content-Disposition: form-data; name=summary\n")]
    )


def test_a_boundary_that_the_registry_alone_sees_ends_nothing(site: Site) -> None:
    before, filename = site.stored(), "acme_widgets-1.0-8-py3-none-any.whl"
    assert site.post(hidden(filename), site.token()).status_code == 200
    assert site.stored().keys() - before.keys() == {filename}


# --- What the page says of authers -----------------------------------------------------------------------------------


def test_an_auther_that_goes_by_the_token_alone_lets_it_upload_any_project(sites: Sites) -> None:
    """Why there is a middleware: an auther sees a user and a password. True for as long as this passes."""
    site = sites.site("naive")
    assert site.post(victim(), "pypi-x").status_code == 403
    assert site.post(victim(), site.token(project="acme-widgets")).status_code == 200
    assert "victim-1.1-py3-none-any.whl" in site.stored()
    assert site.post(hidden(WHEEL), site.token(project="acme-widgets")).status_code == 200
    assert "victim-6.6-py3-none-any.whl" in site.stored(), "a strict reader before it would have seen none"
    remove = join(
        part(name, value) for name, value in [(":action", "remove_pkg"), ("name", "victim"), ("version", "1.0")]
    )
    assert site.post(remove, site.token(project="acme-widgets")).status_code == 200
    assert VICTIM not in site.stored()


def test_the_example_s_auther_lets_nobody_upload_where_the_middleware_is_missing(sites: Sites) -> None:
    site = sites.site("bare")
    assert site.post(upload(), site.token()).status_code == 403
    assert site.stored().keys() == {VICTIM}


# --- Revocation ------------------------------------------------------------------------------------------------------


def asking(sites: Sites) -> Site:
    """A registry that asks the broker about each token."""
    made = cli("tokens", "new", "pypiserver", "--state", state_url(sites.folder / "broker"))
    secret = subprocess.run(made, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    file = sites.folder / "secret"
    file.write_text(secret + "\n", encoding="utf-8")
    return sites.site(
        "waitress",
        TRUSTED_INTROSPECTION_URL=f"{sites.served.url}/oauth2/introspect",
        TRUSTED_CLIENT_ID=secret.split("_")[1],
        TRUSTED_CLIENT_SECRET_FILE=str(file),
    )


def test_a_revoked_token_uploads_until_it_ends_unless_the_registry_asks(sites: Sites) -> None:
    asks, trusts = asking(sites), sites.site("waitress")
    token = asks.token()
    assert asks.post(upload(filename="acme_widgets-3.0.tar.gz", version="3.0"), token).status_code == 200
    burned = httpx.post(f"{sites.served.url}/_/oidc/burn-token", json={"token": token}, trust_env=False)
    assert burned.status_code == 202
    body = upload(filename="acme_widgets-3.1.tar.gz", version="3.1")
    assert asks.post(body, token).json()["code"] == "revoked-token"
    assert trusts.post(body, token).status_code == 200
    outcome, _ = asks.publish("uv", "acme-widgets", asks.token())
    assert outcome.status == 0, outcome.output


def test_who_leaves_uploads_until_the_token_ends_unless_the_registry_asks(sites: Sites) -> None:
    asks, trusts = asking(sites), sites.site("waitress")
    token = asks.token()
    policy = sites.folder / "broker" / "policies" / "organizations" / "acme.yaml"
    kept = policy.read_text(encoding="utf-8")

    def is_active() -> bool:
        """Of a form that is not stored: the broker is asked once all else is right, and then the file is there."""
        return asks.post(upload(filename="acme_widgets-3.0.tar.gz", version="3.0"), token).status_code != 403

    policy.write_text(kept.replace("alice: {", "alice: {suspended: true, "), encoding="utf-8")
    try:
        wait_until(lambda: not is_active())
        assert trusts.post(upload(filename="acme_widgets-3.2.tar.gz", version="3.2"), token).status_code == 200
    finally:
        policy.write_text(kept, encoding="utf-8")
    wait_until(is_active)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
