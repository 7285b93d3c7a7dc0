"""The whole broker in one process: real policies, real SQLite, and a CI that signs; only the network is not there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette

from broker.app import create_app
from broker.playground.ci import FakeCI, IssuerName
from broker.settings import Settings
from broker.state.opening import open_state

PUBLIC_URL = "https://upload.acme.example"
AUDIENCE = "acme-index"

INDEX = """\
issuers:
  github: {provider: github}
  gitlab: {provider: gitlab}
  google: {provider: google}
"""

ACME = """\
organization: acme
namespaces: [acme]
members:
  alice: {role: owner, github: "1001", gitlab: "77"}
  bob: {role: member, github: "1002"}
  carol: {role: billing-manager, github: "1003"}
  release-bot: {role: member, machine: true, google: "112233445566778899"}
teams:
  core: [bob]
projects:
  acme-widgets: {upload: ["team:core"]}
  acme-tools-*: {upload: [release-bot]}
publishers:
  widgets-release:
    issuer: github
    repository: acme-corp/widgets
    repository_id: "424242424"
    repository_owner_id: "65600975"
    workflow: release.yml
    environment: pypi
    refs: ["refs/tags/v*"]
    projects: [acme-widgets, acme-gadgets]
  widgets-gitlab:
    issuer: gitlab
    project_path: acme/tools/widgets
    project_id: "20"
    namespace_id: "72"
    environment: pypi
    projects: [acme-widgets]
  tools-bot:
    issuer: google
    email: release-bot@acme-builds.iam.gserviceaccount.com
    account_id: "112233445566778899"
    projects: ["acme-tools-*"]
"""


def cuckoo(organization: str) -> str:
    """The file of an organization that binds acme's own repository, and counts acme's people as its members.

    It ends with its publishers, so that more can follow.
    """
    return f"""\
organization: {organization}
namespaces: [{organization}]
members:
  alice: {{role: owner, github: "1001", gitlab: "77"}}
publishers:
  cuckoo:
    issuer: github
    repository: acme-corp/widgets
    repository_id: "424242424"
    repository_owner_id: "65600975"
    workflow: release.yml
    environment: pypi
    projects: [{organization}-egg]
"""


@dataclass(slots=True)
class Clock:
    """A clock that tests move."""

    ahead_seconds: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A running broker, and the CI it trusts."""

    client: httpx.AsyncClient
    app: Starlette
    ci: FakeCI
    clock: Clock
    folder: Path

    async def mint(self, token: object, **more: object) -> httpx.Response:
        """Sends an identity token."""
        return await self.client.post("/_/oidc/mint-token", json={"token": token, **more})

    async def minted(self, issuer: IssuerName = "github", **changes: object) -> str:
        """An upload token for a valid run, with changes."""
        answer = await self.mint(self.ci.token(issuer, **changes))
        assert answer.status_code == 200, answer.text
        await asyncio.sleep(0)  # the broker logs it when this turn of the event loop, which is its own too, ends
        return str(answer.json()["token"])

    async def break_policies(self) -> None:
        """Breaks a policy file, and waits until the broker knows."""
        (self.folder / "policies" / "index.yaml").write_text("issuers: [", encoding="utf-8")
        known = False
        while not known:
            await asyncio.sleep(0.05)
            known = not (await self.client.get("/readyz")).json()["policies"]["current"]

    async def records(self) -> list[dict[str, Any]]:
        """All audit records, oldest first."""
        state = open_state(state_url(self.folder), retention_days=400)
        try:
            return [json.loads(record) for record in await state.records(10_000)]
        finally:
            await state.close()


@dataclass(slots=True, kw_only=True)
class Setup:
    """What a broker is started with; each default is valid, and a test changes one thing."""

    folder: Path
    index: str = INDEX
    acme: str = ACME
    ci: FakeCI = field(default_factory=FakeCI)
    issuers: httpx.AsyncBaseTransport | None = None
    clock: Clock = field(default_factory=Clock)
    settings: dict[str, Any] = field(default_factory=dict)
    sheets: Path | None = None

    def write(self) -> Settings:
        """Writes policies and a signing key, and names them in settings."""
        policies = self.folder / "policies"
        (policies / "organizations").mkdir(parents=True, exist_ok=True)
        (policies / "index.yaml").write_text(self.index, encoding="utf-8")
        (policies / "organizations" / "acme.yaml").write_text(self.acme, encoding="utf-8")
        key = self.folder / "signing.pem"
        if not key.exists():
            private = Ed25519PrivateKey.generate()
            key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        spool = self.folder / "spool"
        spool.mkdir(exist_ok=True)
        values: dict[str, Any] = {
            "policies": policies,
            "public_url": PUBLIC_URL,
            "audience": AUDIENCE,
            "state_url": state_url(self.folder),
            "signing_keys": key,
            "registry_url": "http://127.0.0.1:9/",
            "spool": spool,
            **self.settings,
        }
        return Settings(**values)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Broker]:
        """The broker, for as long as the context is open."""
        issuers = self.issuers or self.ci.transport()
        app = create_app(self.write(), clock=self.clock, issuers=issuers, sheets=self.sheets)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url=PUBLIC_URL) as client,
        ):
            yield Broker(client=client, app=app, ci=self.ci, clock=self.clock, folder=self.folder)


def state_url(folder: Path) -> str:
    """SQLite in that folder."""
    return f"sqlite:///{folder / 'state.db'}"
