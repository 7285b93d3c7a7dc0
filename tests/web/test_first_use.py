"""`pin: first-use`: the first success records the ids, and every later exchange and upload must equal them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.gateway.uploads import upload
from tests.harness import ACME, Setup
from tests.web.test_mint_refusals import check_refusal
from tests.web.test_upload_refusals import send

pytestmark = pytest.mark.anyio

IDS = '    repository_id: "424242424"\n    repository_owner_id: "65600975"\n'
PINNING = ACME.replace(IDS, "    pin: first-use\n")


async def test_the_first_success_pins_and_others_are_refused(tmp_path: Path) -> None:
    assert PINNING != ACME
    async with Setup(folder=tmp_path, acme=PINNING).running() as broker:
        check_refusal(await broker.mint(broker.ci.token(actor_id="6666", repository_id="9")), "unknown-actor", 403)
        await broker.minted()
        check_refusal(await broker.mint(broker.ci.token(repository_id="9")), "identity-changed", 403)
        check_refusal(await broker.mint(broker.ci.token(repository_owner_id="9")), "identity-changed", 403)
        await broker.minted()
    async with Setup(folder=tmp_path, acme=PINNING).running() as broker:
        check_refusal(await broker.mint(broker.ci.token(repository_id="9")), "identity-changed", 403)


async def test_of_two_first_uses_at_once_one_is_pinned(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path, acme=PINNING).running() as broker:
        tokens = [broker.ci.token(repository_id=str(number)) for number in range(1, 9)]
        await broker.client.get("/readyz")
        answers = await asyncio.gather(*map(broker.mint, tokens))
        assert sorted(answer.status_code for answer in answers) == [200, *[403] * 7]
        for answer in answers:
            if answer.status_code != 200:
                check_refusal(answer, "identity-changed", 403)


async def test_pins_are_asked_at_the_upload_too(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path, acme=PINNING).running() as broker:
        token = await broker.minted()
    other = PINNING.replace("    pin: first-use\n", IDS.replace("424242424", "9"))
    async with Setup(folder=tmp_path, acme=other).running() as broker:
        check_refusal(await send(broker, upload(), token), "identity-changed", 403)
