"""The main job, shown: one publication that is allowed, three that are refused, and the record of each.

Nothing is only said to have worked. Every step is compared with what must be: the registry's files byte for byte, the
code of each refusal, and the audit records, all of them and no other. The first difference ends the demo.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.playground.claims import ALICE, AUDIENCE, BOB, CAROL, MALLORY, Person
from broker.playground.packages import Outcome, Uv
from broker.playground.page import Page, audit_table
from broker.playground.policies import MEMBERS, ORGANIZATION, PROJECT
from broker.playground.session import Playground

TRUSTED: Final = ("publish", "--trusted-publishing", "always")


class SurpriseError(Exception):
    """Something went otherwise than it must; the message says what, and shows what a client printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Release:
    """A package, built."""

    folder: Path
    files: dict[str, str]
    """Filename -> sha256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """The demo in a playground that is open."""

    playground: Playground
    page: Page
    uv: Uv

    def run(self) -> None:
        """Shows all of it.

        Raises:
            SurpriseError: it went otherwise than it must.
        """
        release = self._build("1.0.0")
        self._publish(release)
        self.page.heading("2. Three that are refused")
        self._no_member(release)
        self._other_workflow(release)
        self._removed_member()
        self._records(release)

    def _build(self, version: str) -> _Release:
        folder = self.playground.folder / "packages" / version
        return _Release(folder=folder, files=self.uv.build(PROJECT, version, folder))

    def _publish(self, release: _Release) -> None:
        self.page.heading("1. alice pushes the tag v1.0.0, and the release workflow publishes")
        self.page.good(f"uv build: {' and '.join(release.files)}")
        outcome = self._as_run(release, ALICE, "release.yml")
        _must(outcome.status == 0, "uv could not publish", outcome)
        self.page.good("uv publish --trusted-publishing always, without any password")
        listed = self.playground.registry.listing(PROJECT)
        _must(listed == release.files, f"the registry lists {listed}, built were {release.files}")
        stored = self.playground.registry.stored()
        _must(stored == release.files, f"the registry stores {stored}, built were {release.files}")
        self.page.good(f"the registry lists both, byte for byte: {self.playground.registry.url}/simple/{PROJECT}/")
        for name, digest in listed.items():
            self.page.note(f"{name:<36} sha256 {digest[:16]}...")

    def _no_member(self, release: _Release) -> None:
        outcome = self._as_run(release, MALLORY, "release.yml")
        self._must_refuse(outcome, "unknown-actor", "mallory starts the right workflow")
        self.page.note(f"The job is trusted, but the person behind it is no member of {ORGANIZATION}.")

    def _other_workflow(self, release: _Release) -> None:
        outcome = self._as_run(release, BOB, "tests.yml")
        self._must_refuse(outcome, "no-publisher", "bob, a member, starts another workflow")
        self.page.note(f"The person is trusted, but {ORGANIZATION} has bound release.yml, and not tests.yml.")

    def _removed_member(self) -> None:
        release = self._build("1.1.0")
        token = self._mint(CAROL)
        self.playground.set_members([login for login in MEMBERS if login != CAROL.login])
        wheel = next(name for name in release.files if name.endswith(".whl"))
        outcome = self.uv.run(
            ["publish", "--trusted-publishing", "never", f"dist/{wheel}"],
            release.folder,
            {**self.playground.client_environment, "UV_PUBLISH_TOKEN": token},
        )
        self._must_refuse(outcome, "unknown-actor", "carol uses her upload token after she was removed")
        self.page.note("The token is still valid. Membership is asked again at the upload, and carol has none now.")

    def _records(self, release: _Release) -> None:
        self.page.heading("3. What the auditor reads: one record an attempt")
        records = self.playground.records()
        for line in audit_table(records):
            self.page.line(line)
        wheel, sdist = sorted(release.files)
        expected = [
            ("mint", ALICE.login, "", "allowed"),
            ("upload", ALICE.login, wheel, "allowed"),
            ("upload", ALICE.login, sdist, "allowed"),
            ("revocation", ALICE.login, "", "allowed"),
            ("mint", MALLORY.login, "", "unknown-actor"),
            ("mint", BOB.login, "", "no-publisher"),
            ("mint", CAROL.login, "", "allowed"),
            ("upload", CAROL.login, "", "unknown-actor"),
        ]
        found = [_summary(record) for record in records]
        _must(found == expected, f"the audit records are {found}, and must be {expected}")
        self.page.note("revocation: uv gives its upload token back as soon as it is done.")

    def _as_run(self, release: _Release, actor: Person, workflow_file: str) -> Outcome:
        run = self.playground.ci.start_run(workflow_file=workflow_file, **actor.on_github)
        return self.uv.run(TRUSTED, release.folder, {**self.playground.client_environment, **run.environment})

    def _mint(self, actor: Person) -> str:
        identity_token = self.playground.ci.token("github", aud=AUDIENCE, **actor.on_github)
        with self.playground.client() as client:
            answer = client.post("/_/oidc/mint-token", json={"token": identity_token})
        _must(answer.is_success, f"{actor.login} got no upload token: {answer.text}")
        return str(answer.json()["token"])

    def _must_refuse(self, outcome: Outcome, code: str, what: str) -> None:
        _must(outcome.status != 0, f"{what}: it was not refused", outcome)
        _must(outcome.refusal_code == code, f"{what}: uv does not show the code {code}", outcome)
        self.page.refused(code, what)


def _summary(record: dict[str, Any]) -> tuple[str, str, str, str]:
    actor = str(record.get("identity", {}).get("actor_name", ""))
    filename = str(record.get("filename", "")) if record["decision"] == "allowed" else ""
    return record["kind"], actor, filename, record.get("code", record["decision"])


def _must(holds: bool, message: str, outcome: Outcome | None = None) -> None:
    if not holds:
        raise SurpriseError(message if outcome is None else f"{message}; it said:\n{outcome.output}")
