"""Policies that are loaded anew while brokers run leave one record, whichever of them sees it first."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from broker.refusals import StateUnavailable
from broker.state.sqlite import SQLiteState
from tests.harness import ACME, Broker, Setup

pytestmark = pytest.mark.anyio


async def look(*brokers: Broker) -> None:
    """Has each read its policies, and note what became of them."""
    for broker in brokers:
        parts = broker.app.router.lifespan_context.__self__  # type: ignore[union-attr]  # a bound method
        await parts.policies.refresh(anew=True)
        await parts.policy_changes.note()


async def test_a_change_is_recorded_once_for_all_replicas_and_a_failure_and_its_end_too(tmp_path: Path) -> None:
    file = tmp_path / "policies" / "organizations" / "acme.yaml"
    async with Setup(folder=tmp_path).running() as one, Setup(folder=tmp_path).running() as two:
        before = (await one.client.get("/readyz")).json()["generation"]
        await look(one, two)
        assert await one.records() == [], "what a broker starts with is no change"
        file.write_text(ACME.replace("pypi", "release"), encoding="utf-8")
        await look(one, two)
        file.write_text("organization: [", encoding="utf-8")
        await look(one, two)
        file.write_text(ACME.replace("pypi", "release"), encoding="utf-8")
        await look(one, two)
        generation = (await one.client.get("/readyz")).json()["generation"]
        told = [
            (record["kind"], record["organization"], record["change"], record["generation"], record.get("before"))
            for record in await one.records()
        ]
    assert told == [
        ("policies", "", "loaded", generation, before),
        ("policies", "", "failing", generation, None),
        ("policies", "", "loaded", generation, None),
    ]


async def test_what_cannot_be_recorded_is_recorded_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        await broker.client.get("/readyz")
        with monkeypatch.context() as patched:

            async def unavailable(*_: object) -> None:
                raise StateUnavailable

            patched.setattr(SQLiteState, "settle", unavailable)
            (tmp_path / "policies" / "organizations" / "acme.yaml").write_text(ACME + "\n# again\n", encoding="utf-8")
            with contextlib.suppress(StateUnavailable):
                await look(broker)
            assert await broker.records() == []
        await look(broker)
        assert [record["change"] for record in await broker.records()] == ["loaded"]
