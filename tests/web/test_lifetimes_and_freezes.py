"""What the policies say of time reaches the token and the caller."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.harness import ACME, INDEX, Setup

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("index", "acme", "seconds"),
    [
        ("", "", 900),
        ("lifetime: {default: 40m, longest: 1h}\n", "", 2400),
        ("lifetime: {default: 40m, longest: 1h}\n", "lifetime: 20m\n", 1200),
        ("lifetime: {default: 40m, longest: 1h}\nceilings: {lifetime: 30m}\n", "", 1800),
        ("lifetime: {default: 40m, longest: 1h}\nceilings: {organizations: {acme: {lifetime: 25m}}}\n", "", 1500),
    ],
)
async def test_a_minted_token_lives_as_long_as_the_narrowest_says(
    tmp_path: Path, index: str, acme: str, seconds: int
) -> None:
    async with Setup(folder=tmp_path, index=INDEX + index, acme=ACME + acme).running() as broker:
        answer = await broker.mint(broker.ci.token())
        assert answer.json()["expires"] == pytest.approx(time.time() + seconds, abs=5)
        assert (await broker.records())[-1]["expires_at"] == answer.json()["expires"]


async def test_the_reason_of_a_freeze_reaches_its_own_run_and_the_record_and_no_stranger(tmp_path: Path) -> None:
    acme = ACME + "freezes: [{reason: the signing key leaked}]\n"
    async with Setup(folder=tmp_path, acme=acme).running() as broker:
        own = (await broker.mint(broker.ci.token())).json()
        other = await broker.mint(broker.ci.token(repository="mallory/widgets", repository_id="5"))
        records = await broker.records()
    sentence = "the organization 'acme' is frozen by its admins until further notice: the signing key leaked"
    assert own["errors"] == [{"code": "organization-frozen", "description": sentence}]
    assert "`freezes`" in own["detail"]
    assert records[0]["detail"] == sentence
    assert "leaked" not in other.text
    assert "leaked" not in str(records[1])


async def test_a_freeze_that_is_over_is_over_without_a_reload(tmp_path: Path) -> None:
    """Whoever waits for its end need not wait for anybody."""
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    async with Setup(folder=tmp_path, acme=f"{ACME}freezes: [{{until: {until}, reason: x}}]\n").running() as broker:
        assert (await broker.mint(broker.ci.token())).status_code == 403
        broker.clock.ahead_seconds = 3600
        answer = await broker.mint(broker.ci.token(iat=int(broker.clock()), exp=int(broker.clock()) + 300))
        assert answer.status_code == 200, answer.text
