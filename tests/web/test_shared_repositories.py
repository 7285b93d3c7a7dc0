"""One repository that two organizations bind: each has what concerns it in its audit, and nothing of the other's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.chain import Kept, Verification
from broker.state.opening import open_state
from tests.gateway.uploads import upload
from tests.harness import Broker, Setup, cuckoo, state_url
from tests.web.test_recalls import Caller, caller
from tests.web.test_upload_refusals import send

pytestmark = pytest.mark.anyio

OTHER = {"acme": "bolt", "bolt": "acme"}


@pytest.fixture(name="broker")
async def _broker(tmp_path: Path) -> AsyncIterator[Broker]:
    setup = Setup(folder=tmp_path, settings={"metrics": "open"})
    setup.write()
    (tmp_path / "policies" / "organizations" / "bolt.yaml").write_text(cuckoo("bolt"), encoding="utf-8")
    async with setup.running() as broker:
        yield broker


async def audit(who: Caller, path: str, **query: str) -> list[dict[str, Any]]:
    """The lines of an answer."""
    answer = await who("GET", path, params=query)
    assert answer.status_code == 200, answer.text
    records: list[dict[str, Any]] = answer.json()["records"]
    return records


async def seen(broker: Broker, organization: str, **query: str) -> list[dict[str, Any]]:
    """What an owner of an organization sees of its audit, but for the reading; and there is nothing of the other's."""
    owner = await caller(broker, organization)
    lines = await audit(owner, f"/api/organizations/{organization}/audit", **query)
    records = [json.loads(line["record"]) for line in lines]
    for one in records:
        what_policies_say = {name: value for name, value in one.items() if name != "identity"}
        assert OTHER[organization] not in json.dumps(what_policies_say)
    return [one for one in records if one["kind"] != "api"]


async def assert_is_verified(broker: Broker) -> None:
    """By whoever has an owner's answer, and by whoever has the store."""
    for organization in OTHER:
        lines = await audit(await caller(broker, organization), f"/api/organizations/{organization}/audit")
        verification = Verification()
        verification.follow(
            Kept(
                position="",
                organization=organization,
                sequence=line["sequence"],
                link=line["link"],
                body=line["record"],
                told_digest=line.get("digest", ""),
            )
            for line in lines
        )
        verification.finish()
        assert (verification.findings, verification.begins) == ([], {organization: 1})
    state = open_state(state_url(broker.folder), retention_days=400)
    verification = Verification(await state.heads())
    verification.follow(await state.records_after("", 1000))
    verification.finish(await state.heads())
    assert verification.findings == []
    await state.close()


async def test_a_mint_is_in_the_audit_of_each_whose_projects_it_covers(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    await broker.minted()
    (acme,), (bolt,) = await seen(broker, "acme"), await seen(broker, "bolt")
    assert acme["attempt"] == bolt["attempt"]
    assert acme["token_id"] == bolt["token_id"]
    told = ("organization", "publishers", "members", "projects", "shared_with")
    assert [acme[name] for name in told] == [
        "acme",
        ["acme/widgets-release"],
        ["acme/alice"],
        ["acme-gadgets", "acme-widgets"],
        1,
    ]
    assert [bolt[name] for name in told] == ["bolt", ["bolt/cuckoo"], ["bolt/alice"], ["bolt-egg"], 1]
    await assert_is_verified(broker)
    # The operator sees both, and that they are one attempt's: its count is one.
    lines = await audit(await caller(broker), "/api/audit", kind="mint")
    assert [(line["organization"], line["sequence"], json.loads(line["record"])["attempt"]) for line in lines] == [
        ("acme", 1, acme["attempt"]),
        ("bolt", 1, acme["attempt"]),
    ]
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"event":"attempt"' in line]
    assert [one["record"]["organization"] for one in logged if one["record"]["kind"] == "mint"] == ["acme", "bolt"]
    counted = (await broker.client.get("/metrics")).text
    samples = [line for line in counted.splitlines() if line.startswith("broker_attempts_total{") and '"mint"' in line]
    assert [sample.rsplit(" ", 1)[1] for sample in samples if not sample.endswith(" 0.0")] == ["1.0"]


async def test_what_is_withheld_is_not_found_by_asking_for_it(broker: Broker) -> None:
    await broker.minted()
    for name, own, foreign in (
        ("publisher", "bolt/cuckoo", "acme/widgets-release"),
        ("member", "bolt/alice", "acme/alice"),
        ("project", "bolt-egg", "acme-widgets"),
    ):
        assert len(await seen(broker, "bolt", kind="mint", **{name: own})) == 1
        assert await seen(broker, "bolt", kind="mint", **{name: foreign}) == []
        assert len(await seen(broker, "acme", kind="mint", **{name: foreign})) == 1, "it is acme's own"
        assert await seen(broker, "acme", kind="mint", **{name: own}) == [], "acme's record is of the whole attempt"


async def test_a_refusal_and_a_revocation_are_in_the_audit_of_each_and_an_upload_in_that_of_its_project(
    broker: Broker,
) -> None:
    assert (await broker.mint(broker.ci.token(environment="staging"))).is_error
    token = await broker.minted()
    await send(broker, upload(), token)
    assert (await broker.client.post("/_/oidc/burn-token", json={"token": token})).status_code == 202
    acme, bolt = await seen(broker, "acme"), await seen(broker, "bolt")
    assert [(one["kind"], one.get("shared_with")) for one in acme] == [
        ("mint", 1),
        ("mint", 1),
        ("upload", None),
        ("revocation", 1),
    ]
    assert [one["attempt"] for one in bolt] == [one["attempt"] for one in acme if one["kind"] != "upload"]
    assert [one["code"] for one in (acme[0], bolt[0])] == ["no-publisher"] * 2
    (considered,) = bolt[0]["considered"]
    assert considered.startswith("bolt/cuckoo: environment")
    assert (bolt[2]["publishers"], bolt[2]["token_id"]) == (["bolt/cuckoo"], bolt[1]["token_id"])
    await assert_is_verified(broker)


async def test_a_token_that_is_given_again_is_in_the_audit_of_each_again(broker: Broker) -> None:
    """And it is given: what was spent points to a record that has its receipt."""
    gitlab = cuckoo("bolt") + (
        "  again: {issuer: gitlab, project_path: acme/tools/widgets, project_id: '20', namespace_id: '72',"
        " environment: pypi, projects: [bolt-egg]}\n"
    )
    (broker.folder / "policies" / "organizations" / "bolt.yaml").write_text(gitlab, encoding="utf-8")
    async with Setup(folder=broker.folder, ci=broker.ci).running() as again:
        token = again.ci.token("gitlab")
        first, second = [(await again.mint(token)).json() for _ in range(2)]
        assert first["token"] == second["token"]
        for organization in OTHER:
            told = await seen(again, organization)
            assert [one.get("repeated", False) for one in told] == [False, True]
            assert len({one["token_id"] for one in told}) == 1
