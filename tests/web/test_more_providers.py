"""Runs of every kind of provider, from the identity token over HTTP to the upload: nothing is kept from one that the
other does not understand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.playground.ci import FakeCI, IssuerName
from broker.providers import PROVIDERS
from tests.gateway.uploads import upload
from tests.harness import Setup
from tests.web.test_mint_refusals import check_refusal
from tests.web.test_upload_refusals import send

pytestmark = pytest.mark.anyio

MORE: tuple[IssuerName, ...] = ("activestate", "buildkite", "circleci", "forgejo", "generic")

URLS: dict[IssuerName, str] = {name: PROVIDERS[name].example({})["iss"] for name in MORE}

INDEX = f"""\
issuers:
  activestate: {{provider: activestate}}
  buildkite: {{provider: buildkite}}
  circleci: {{provider: circleci, url: "{URLS["circleci"]}"}}
  forgejo: {{provider: forgejo, url: "{URLS["forgejo"]}"}}
  generic:
    provider: generic
    url: {URLS["generic"]}
    claims:
      name: repository
      ids: [repository_id]
      conditions: [ref]
      actor: actor_id
      actor_name: actor
"""

ACME = """\
organization: acme
namespaces: [acme]
members:
  alice:
    role: owner
    activestate: 0b2ad4f2-8e0d-4c5e-9a61-6a5f3c1d7e01
    circleci: 2b1a0c9d-8e7f-4a6b-9c5d-4e3f2a1b0c9d
    forgejo: "501"
  bot:
    role: member
    machine: true
    buildkite: 0184990a-4782-42b5-afc1-16715b10b8f2
    generic: actor_id-example
projects:
  acme-*: {upload: [bot]}
publishers:
  activestate:
    issuer: activestate
    project_path: acme/widgets
    organization_id: 5f1c9b1e-2d61-4f7a-8a3e-3f0f5b8a9c10
    project_id: 9c3b2a10-7e6d-4c5b-9f8e-2d1c0b9a8f77
    projects: [acme-widgets]
  buildkite:
    issuer: buildkite
    pipeline: acme/widgets
    organization_id: 0184990a-477b-4fa8-9968-496074483ce1
    pipeline_id: 0184990a-4782-42b5-afc1-16715b10b8f2
    refs: ["refs/tags/v*"]
    projects: [acme-widgets]
  circleci:
    issuer: circleci
    vcs_origin: github.com/acme-corp/widgets
    project_id: 8a7b6c5d-4e3f-4a2b-9c1d-0e9f8a7b6c5d
    refs: ["refs/tags/v*"]
    projects: [acme-widgets]
  forgejo:
    issuer: forgejo
    repository: acme/widgets
    repository_id: "4711"
    repository_owner_id: "815"
    workflow: .forgejo/workflows/release.yml
    refs: ["refs/tags/v*"]
    projects: [acme-widgets]
  generic:
    issuer: generic
    claims: {repository: repository-example, repository_id: repository_id-example, ref: ref-example}
    projects: [acme-widgets]
"""

CHANGES: list[tuple[IssuerName, dict[str, Any], str]] = [
    ("activestate", {"builder": "wheel-builder"}, "forbidden-trigger"),
    ("activestate", {"project_id": ...}, "missing-claim"),
    ("activestate", {"project_id": "ffffffff-7e6d-4c5b-9f8e-2d1c0b9a8f77"}, "identity-changed"),
    ("activestate", {"actor_id": "ffffffff-7e6d-4c5b-9f8e-2d1c0b9a8f77"}, "unknown-actor"),
    ("buildkite", {"build_tag": ...}, "forbidden-trigger"),
    ("buildkite", {"organization_id": ...}, "missing-claim"),
    ("buildkite", {"organization_id": "ffffffff-477b-4fa8-9968-496074483ce1"}, "identity-changed"),
    ("buildkite", {"build_tag": "beta"}, "no-publisher"),
    ("circleci", {"oidc.circleci.com/ssh-rerun": True}, "forbidden-trigger"),
    ("circleci", {"oidc.circleci.com/vcs-ref": "refs/heads/pull/7"}, "forked-source"),
    ("circleci", {"sub": "org/evil"}, "invalid-claim"),
    ("circleci", {"oidc.circleci.com/project-id": "ffffffff-4e3f-4a2b-9c1d-0e9f8a7b6c5d"}, "identity-changed"),
    ("forgejo", {"event_name": "pull_request_target"}, "forbidden-trigger"),
    ("forgejo", {"actor_id": ...}, "missing-claim"),
    ("forgejo", {"repository_owner_id": "9"}, "identity-changed"),
    ("forgejo", {"actor_id": "9"}, "unknown-actor"),
    ("generic", {"repository_id": 17}, "invalid-claim"),
    ("generic", {"repository_id": "other"}, "identity-changed"),
    ("generic", {"ref": "other"}, "no-publisher"),
    ("generic", {"actor_id": "other"}, "unknown-actor"),
]


def setup(folder: Path, *, index: str = INDEX, acme: str = ACME) -> Setup:
    return Setup(folder=folder, index=index, acme=acme, ci=FakeCI(more=URLS))


async def sent(setup: Setup, token: str) -> httpx.Response:
    """The upload of a wheel with that token, by a broker started for it."""
    async with setup.running() as broker:
        return await send(broker, upload(), token)


@pytest.mark.parametrize("kind", MORE)
async def test_a_valid_run_is_exchanged_and_may_upload(tmp_path: Path, kind: IssuerName) -> None:
    async with setup(tmp_path).running() as broker:
        token = await broker.minted(kind)
        (record,) = await broker.records()
        assert (record["decision"], record["issuer"], record["publishers"]) == ("allowed", kind, [f"acme/{kind}"])
        # The registry of this set-up is not there: whoever comes as far as asking it was allowed to.
        check_refusal(await send(broker, upload(), token), "registry-unavailable", 502)


@pytest.mark.parametrize(("kind", "changes", "code"), CHANGES, ids=str)
async def test_one_change_is_refused_with_its_code(
    tmp_path: Path, kind: IssuerName, changes: dict[str, Any], code: str
) -> None:
    async with setup(tmp_path).running() as broker:
        answer = await broker.mint(broker.ci.token(kind, **changes))
        check_refusal(answer, code, answer.status_code)
        assert answer.status_code in {403, 422}


async def test_a_runs_ids_are_pinned_by_the_first_use_under_the_claims_names(tmp_path: Path) -> None:
    acme = ACME.replace("repository_id: repository_id-example, ", "").replace(
        "    issuer: generic\n", "    issuer: generic\n    pin: first-use\n"
    )
    async with setup(tmp_path, acme=acme).running() as broker:
        await broker.minted("generic")
        check_refusal(await broker.mint(broker.ci.token("generic", repository_id="other")), "identity-changed", 403)


async def test_an_upload_token_dies_with_the_declaration_that_its_run_was_read_by(tmp_path: Path) -> None:
    """The operator says that another claim names the actor; what was signed before means something else now."""
    async with setup(tmp_path).running() as broker:
        token = await broker.minted("generic")
    again = INDEX.replace("actor: actor_id\n", "actor: sub\n")
    assert again != INDEX
    check_refusal(await sent(setup(tmp_path, index=again), token), "no-publisher", 403)
    check_refusal(await sent(setup(tmp_path), token), "registry-unavailable", 502)
