"""A broker that mints devpi's own tokens: what the mint answers, what is recorded, and what there is not."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from broker.app import create_app
from broker.devpi import token_id
from broker.settings import SettingsError
from tests.devpi import NATIVE, parent_of
from tests.harness import ACME, Broker, Setup
from tests.test_devpi import restrictions
from tests.web.test_mint_refusals import check_refusal

pytestmark = pytest.mark.anyio


def native(folder: Path, **changes: object) -> Setup:
    """A broker of that kind, with changed settings."""
    return Setup(folder=folder, settings={**dict(NATIVE), **changes})


async def test_the_token_is_devpi_s_and_the_record_says_so(tmp_path: Path) -> None:
    async with native(tmp_path).running() as broker:
        answer = await broker.mint(broker.ci.token())
        assert answer.status_code == 200, answer.text
        token = answer.json()["token"]
        assert token.startswith("devpi-")
        (record,) = await broker.records()
    assert (record["upstream"], record["token_id"]) == ("devpi", token_id(token))
    assert record["expires_at"] == answer.json()["expires"]
    assert record["projects"] == ["acme-gadgets", "acme-widgets"]
    assert token not in str(record)


async def test_the_broker_s_own_tokens_are_of_nobody_else(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        await broker.minted()
        (record,) = await broker.records()
    assert "upstream" not in record


async def test_the_same_identity_token_gets_the_same_token_where_the_issuer_allows(tmp_path: Path) -> None:
    async with native(tmp_path).running() as broker:
        token = broker.ci.token("gitlab")
        first, again = await broker.mint(token), await broker.mint(token)
        assert first.json()["token"] == again.json()["token"]
        strict = broker.ci.token()
        assert (await broker.mint(strict)).status_code == 200
        check_refusal(await broker.mint(strict), "replayed-token", 422)
        broker.clock.ahead_seconds = 901
        check_refusal(await broker.mint(token), "replayed-token", 422)


async def test_burning_is_answered_and_changes_nothing(tmp_path: Path) -> None:
    async with native(tmp_path).running() as broker:
        token = broker.ci.token("gitlab")
        minted = (await broker.mint(token)).json()["token"]
        assert (await broker.client.post("/_/oidc/burn-token", json={"token": minted})).status_code == 202
        assert (await broker.mint(token)).json()["token"] == minted
        assert [record["kind"] for record in await broker.records()] == ["mint", "mint"]


async def test_no_upload_is_taken_and_discovery_knows_the_index(tmp_path: Path) -> None:
    async with native(tmp_path).running() as broker:
        check_refusal(await broker.client.post("/acme/prod/", content=b""), "not-found", 404)
        found = await broker.client.get("/.well-known/pytp", params={"discover": "/acme/prod/"})
        assert found.json()["token-mint-endpoint"].endswith("/_/oidc/mint-token")


async def test_an_expired_parent_is_the_operator_s_to_mend(tmp_path: Path) -> None:
    async with native(tmp_path, devpi_token=parent_of("expires=1000")).running() as broker:
        answer = await broker.mint(broker.ci.token())
    check_refusal(answer, "registry-credential", 502)
    assert "BROKER_DEVPI_TOKEN" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devpi_token": ""}, ["BROKER_DEVPI_TOKEN", "no devpi token", "token-create", "--indexes acme/prod"]),
        ({"devpi_token": parent_of(user="bob")}, ["BROKER_DEVPI_TOKEN", "another devpi user", "__token__"]),
        ({"devpi_token": parent_of("indexes=acme/dev")}, ["BROKER_DEVPI_TOKEN", "indexes=acme/dev"]),
        ({"registry_url": "https://devpi.acme.example/"}, ["BROKER_REGISTRY_URL", "BROKER_UPLOAD_TOKENS=devpi"]),
    ],
)
async def test_what_could_never_work_does_not_start(tmp_path: Path, changes: dict[str, str], words: list[str]) -> None:
    setup = native(tmp_path, **changes)
    with pytest.raises(SettingsError) as told:
        create_app(setup.write())
    for word in words:
        assert word in str(told.value)
    assert not changes.get("devpi_token") or changes["devpi_token"][6:] not in str(told.value)


async def test_no_project_is_left_out_of_a_token_in_silence(tmp_path: Path) -> None:
    """A prefix beside an exact name refuses too: a token that covers less than its record says would mislead."""
    setup = native(tmp_path)
    setup.acme = ACME.replace("[acme-widgets, acme-gadgets]", "[acme-widgets, 'acme-*']")
    async with setup.running() as broker:
        token = broker.ci.token()
        check_refusal(await broker.mint(token), "prefix-not-expressible", 403)
        # bob's rights name one project: his part of the same publisher can be said.
        assert (await broker.mint(broker.ci.token(actor="bob", actor_id="1002"))).status_code == 200


async def exchange(broker: Broker, identity_token: str, **fields: str) -> httpx.Response:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": identity_token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
    }
    return await broker.client.post("/oauth2/token", data=form | fields)


async def test_a_token_can_be_narrowed_to_a_project_of_the_grant(tmp_path: Path) -> None:
    async with native(tmp_path).running() as broker:
        answer = await exchange(broker, broker.ci.token(), project="Acme.Widgets")
        assert answer.status_code == 200, answer.text
        (record,) = await broker.records()
        assert record["narrowed_to"] == {"project": "acme-widgets"}
        refused = await exchange(broker, broker.ci.token(), project="acme-others")
    assert refused.json()["errors"][0]["code"] == "project-not-granted"
    assert restrictions(answer.json()["access_token"])[-1] == "projects=acme-widgets"


async def test_one_project_of_a_prefix_can_be_named(tmp_path: Path) -> None:
    async with native(tmp_path).running() as broker:
        google = broker.ci.token("google")
        assert (await exchange(broker, google)).json()["errors"][0]["code"] == "prefix-not-expressible"
        answer = await exchange(broker, google, project="acme-tools-x")
    assert restrictions(answer.json()["access_token"])[-1] == "projects=acme-tools-x"


@pytest.mark.parametrize("fields", [{"version": "1.0"}, {"sha256": "0" * 64}, {"uses": "1"}])
async def test_what_devpi_cannot_hold_is_refused_and_not_left_out(tmp_path: Path, fields: dict[str, str]) -> None:
    async with native(tmp_path).running() as broker:
        answer = await exchange(broker, broker.ci.token(), project="acme-widgets", **fields)
        assert answer.json()["errors"][0]["code"] == "unsupported-feature"
        check_refusal(await broker.mint(broker.ci.token(), features=["single-use-token"]), "unsupported-feature", 422)
        found = await broker.client.get("/.well-known/pytp", params={"discover": "/acme/prod/"})
        assert found.json()["features"] == ["multi-use-token"]


async def test_the_same_token_again_is_none_that_was_narrowed_otherwise(tmp_path: Path) -> None:
    async with native(tmp_path).running() as broker:
        token = broker.ci.token("gitlab")
        first = (await exchange(broker, token, project="acme-widgets")).json()["access_token"]
        assert (await exchange(broker, token, project="acme-widgets")).json()["access_token"] == first
        assert (await exchange(broker, token)).json()["errors"][0]["code"] == "replayed-token"
