"""What callers and operators see while policies change, break, and grow stale."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.gateway.uploads import upload
from tests.harness import ACME, Broker, Setup
from tests.web.test_mint_refusals import check_refusal
from tests.web.test_upload_refusals import send

pytestmark = pytest.mark.anyio


async def change(broker: Broker, acme: str) -> str:
    """Changes the organization's file, and waits for the new generation."""
    before = after = (await broker.client.get("/readyz")).json()["generation"]
    (broker.folder / "policies" / "organizations" / "acme.yaml").write_text(acme)
    while after == before:
        await asyncio.sleep(0.05)
        after = (await broker.client.get("/readyz")).json()["generation"]
    return str(after)


async def test_a_member_who_was_removed_neither_mints_nor_uploads_and_records_say_by_which_policies(
    tmp_path: Path,
) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        token = await broker.minted()
        before = (await broker.client.get("/readyz")).json()["generation"]
        after = await change(broker, ACME.replace('github: "1001"', 'github: "1009"'))
        check_refusal(await broker.mint(broker.ci.token()), "unknown-actor", 403)
        check_refusal(await send(broker, upload(), token), "unknown-actor", 403)
        decided = [(record["kind"], record["decision"], record["generation"]) for record in await broker.records()]
    assert decided == [("mint", "allowed", before), ("mint", "refused", after), ("upload", "refused", after)]


async def test_broken_policies_are_told_and_the_last_good_decide_until_they_are_stale(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        token = await broker.minted()
        ready = (await broker.client.get("/readyz")).json()
        assert ready["policies"] == {"current": True}
        await broker.break_policies()
        await broker.minted()
        broker.clock.ahead_seconds = 3600
        answer = await broker.client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        assert answer.json()["generation"] == ready["generation"]
        assert answer.json()["policies"] == {
            "current": False,
            "failing_seconds": pytest.approx(3600, abs=20),
            "mistakes": 1,
            "denied_in_seconds": pytest.approx(23 * 3600, abs=20),
        }
        assert "index.yaml" not in answer.text, "which mistakes is for those who read the log"

        broker.clock.ahead_seconds = 24 * 3600 + 1
        answer = await broker.client.get("/readyz")
        assert answer.status_code == 503
        assert (
            "the policies cannot be loaded, and the last good ones are too old to decide" in answer.json()["problems"]
        )
        assert answer.json()["policies"]["denied_in_seconds"] == 0
        check_refusal(await broker.mint(broker.ci.token()), "policies-stale", 503)
        assert (await broker.records())[-1]["generation"] == ready["generation"]
        broker.clock.ahead_seconds = 0
        assert (await broker.client.post("/_/oidc/burn-token", json={"token": token})).status_code == 202
        check_refusal(await send(broker, upload(), token), "revoked-token", 403)
