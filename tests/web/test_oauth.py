"""What registries that ask are told, and the exchange as RFC 8693: narrower where that is asked for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker import refusals
from broker.api_tokens import ApiToken
from broker.cli import main
from broker.state.opening import open_state
from broker.state.sqlite import SQLiteState
from tests.gateway.uploads import SDIST, WHEEL, pack_sdist, pack_wheel, upload
from tests.harness import ACME, PUBLIC_URL, Broker, Setup, state_url
from tests.registries import PASSWORD, USER, PypiServer, pypi_server
from tests.web.test_upload_refusals import basic, send

pytestmark = pytest.mark.anyio

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
UPLOAD_URL = f"{PUBLIC_URL}/legacy/"

PROVOKED = {"invalid-client", "unsupported-grant", "invalid-target", "token-narrowed", "used-up-token"}
"""Codes that only what is tested here can provoke."""


@pytest.fixture(name="registry", scope="module")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    with pypi_server(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(name="broker")
async def _broker(tmp_path: Path, registry: PypiServer) -> AsyncIterator[Broker]:
    settings = {"registry_url": registry.url, "registry_username": USER, "registry_password": PASSWORD}
    async with Setup(folder=tmp_path, settings=settings).running() as broker:
        yield broker


@pytest.fixture(name="secret")
async def _secret(broker: Broker, capsys: pytest.CaptureFixture[str]) -> str:
    """An API token, made while the broker runs."""
    assert await command(broker, "new", "pypiserver") == 0
    made, newline, _ = capsys.readouterr().out.rpartition("\n")
    assert newline
    return made.rpartition("\n")[2]


async def command(broker: Broker, *arguments: str) -> int:
    """`broker tokens ...`, in a thread for its own event loop."""
    return await asyncio.to_thread(main, ["tokens", *arguments, "--state", state_url(broker.folder)])


async def exchange(broker: Broker, identity_token: str | None = None, **fields: str) -> httpx.Response:
    """A token exchange, with more or other fields; an empty one is left out."""
    form = {
        "grant_type": EXCHANGE,
        "subject_token": broker.ci.token() if identity_token is None else identity_token,
        "subject_token_type": ID_TOKEN,
        **fields,
    }
    return await broker.client.post("/oauth2/token", data={name: value for name, value in form.items() if value})


async def exchanged(broker: Broker, **fields: str) -> str:
    answer = await exchange(broker, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def code_of(answer: httpx.Response) -> str:
    return str(answer.json()["errors"][0]["code"])


async def introspected(broker: Broker, secret: str, token: str) -> dict[str, Any]:
    answer = await broker.client.post(
        "/oauth2/introspect", data={"token": token}, headers={"Authorization": f"Bearer {secret}"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    told: dict[str, Any] = answer.json()
    return told


# --- Metadata --------------------------------------------------------------------------------------------------------


async def test_the_metadata_names_endpoints_that_are_there(broker: Broker) -> None:
    told = (await broker.client.get("/.well-known/oauth-authorization-server")).json()
    assert told["issuer"] == PUBLIC_URL
    for name in ("token_endpoint", "introspection_endpoint", "revocation_endpoint"):
        answer = await broker.client.post(told[name])
        assert (answer.status_code, code_of(answer)) in {(400, "malformed-request"), (401, "invalid-client")}
    assert (await broker.client.get(told["jwks_uri"])).json()["keys"]


# --- The exchange ----------------------------------------------------------------------------------------------------


async def test_a_token_exchange_gives_an_upload_token(broker: Broker, registry: PypiServer) -> None:
    answer = await exchange(broker)
    told = answer.json()
    assert (told["token_type"], told["scope"]) == ("Bearer", "upload")
    assert told["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert 890 <= told["expires_in"] <= 900
    assert answer.headers["cache-control"] == "no-store"
    assert (await send(broker, upload(), told["access_token"])).status_code == 200
    assert WHEEL in registry.stored()


@pytest.mark.parametrize(
    "fields", [{"audience": "acme-index"}, {"resource": UPLOAD_URL}, {"audience": UPLOAD_URL[:-1]}]
)
async def test_the_index_can_be_named(broker: Broker, fields: dict[str, str]) -> None:
    assert (await exchange(broker, **fields)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        ({"grant_type": "client_credentials"}, "unsupported_grant_type", "unsupported-grant"),
        ({"grant_type": ""}, "invalid_request", "malformed-request"),
        ({"subject_token": ""}, "invalid_request", "malformed-request"),
        ({"subject_token": "x.y"}, "invalid_request", "malformed-token"),
        ({"subject_token_type": "urn:x"}, "invalid_request", "malformed-request"),
        ({"requested_token_type": ID_TOKEN}, "invalid_request", "malformed-request"),
        ({"scope": "upload admin"}, "invalid_scope", "unsupported-scope"),
        ({"scope": "read"}, "invalid_scope", "unsupported-scope"),
        ({"actor_token": "x"}, "invalid_request", "malformed-request"),
        ({"audience": "another-index"}, "invalid_target", "invalid-target"),
        ({"resource": "https://evil.example/"}, "invalid_target", "invalid-target"),
        ({"project": "a b"}, "invalid_request", "malformed-request"),
        ({"project": "acme-" + "x" * 200}, "invalid_request", "malformed-request"),
        ({"version": "1" + ".1" * 100}, "invalid_request", "malformed-request"),
        ({"version": "one"}, "invalid_request", "malformed-request"),
        ({"sha256": "0" * 63}, "invalid_request", "malformed-request"),
        ({"sha256": " ".join(f"{n:064x}" for n in range(101))}, "invalid_request", "malformed-request"),
        ({"uses": "0"}, "invalid_request", "malformed-request"),
        ({"uses": "1.5"}, "invalid_request", "malformed-request"),
        ({"project": "other"}, "invalid_request", "project-not-granted"),
    ],
)
async def test_a_wrong_exchange_is_refused_as_oauth_clients_expect(
    broker: Broker, fields: dict[str, str], error: str, code: str
) -> None:
    answer = await exchange(broker, **fields)
    assert (answer.status_code, answer.json()["error"], code_of(answer)) == (400, error, code)
    assert answer.json()["status"] == 400
    assert (await broker.records())[-1]["code"] == code


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"grant_type=a&grant_type=b", b"nonsense", b"&".join([b"a=1"] * 20), b"a=%ff"]
)
async def test_what_is_no_form_is_refused(broker: Broker, body: bytes) -> None:
    answer = await broker.client.post("/oauth2/token", content=body)
    assert (answer.status_code, code_of(answer)) == (400, "malformed-request")


async def test_a_refused_run_is_refused_here_too(broker: Broker) -> None:
    answer = await exchange(broker, broker.ci.token(actor_id="6666", actor="mallóry"))
    assert (answer.status_code, answer.json()["error"], code_of(answer)) == (400, "invalid_request", "unknown-actor")
    assert "mall?ry" in answer.json()["error_description"]


def lose_state(broker: Broker) -> None:
    """Puts a folder where the file was; again, where the broker that keeps its keys fresh has just made another."""
    state = broker.folder / "state.db"
    while not state.is_dir():
        for part in broker.folder.glob("state.db*"):
            part.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            state.mkdir()


async def test_a_state_that_is_gone_is_temporary(broker: Broker) -> None:
    lose_state(broker)
    answer = await exchange(broker)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")


# --- Narrowing -------------------------------------------------------------------------------------------------------


def other_wheel() -> bytes:
    """Another file of the same release."""
    return upload(pack_wheel(), "acme_widgets-1.0-1-py3-none-any.whl")


def digest(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"project": "Acme_Gadgets"}, "project-not-granted"),
        ({"version": "2.0"}, "token-narrowed"),
        ({"sha256": "0" * 64}, "token-narrowed"),
    ],
)
async def test_a_token_that_was_narrowed_uploads_nothing_else(
    broker: Broker, fields: dict[str, str], code: str
) -> None:
    answer = await send(broker, upload(), await exchanged(broker, **fields))
    assert (answer.status_code, code_of(answer)) == (403, code)


@pytest.mark.parametrize(
    "fields",
    [
        {"project": "Acme_Widgets"},
        {"version": "1.0.0"},
        {"version": "1"},
        {"sha256": f"{'0' * 64} {digest(pack_sdist())}"},
    ],
)
async def test_a_token_that_was_narrowed_uploads_what_it_was_narrowed_to(
    broker: Broker, registry: PypiServer, fields: dict[str, str]
) -> None:
    (registry.packages / SDIST).unlink(missing_ok=True)
    answer = await send(broker, upload(filename=SDIST), await exchanged(broker, **fields))
    assert answer.status_code == 200, answer.text
    record = (await broker.records())[0]
    assert record["kind"] == "mint"
    assert set(record["narrowed_to"]) == set(fields)


async def test_a_token_for_one_use_takes_one_file_and_that_file_again(broker: Broker) -> None:
    token = (await broker.mint(broker.ci.token(), features=["single-use-token"])).json()["token"]
    assert (await send(broker, upload(), token)).status_code in {200, 409}
    assert (await send(broker, upload(), token)).status_code in {200, 409}, "whatever went wrong, it can be repeated"
    answer = await send(broker, other_wheel(), token)
    assert (answer.status_code, code_of(answer)) == (403, "used-up-token")


async def test_both_features_at_once_exclude_each_other(broker: Broker) -> None:
    answer = await broker.mint(broker.ci.token(), features=["single-use-token", "multi-use-token"])
    assert code_of(answer) == "unsupported-feature"


async def test_the_same_token_again_is_never_one_that_was_narrowed_otherwise(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        identity = broker.ci.token("gitlab")
        first = (await exchange(broker, identity, version="1.0")).json()["access_token"]
        assert (await exchange(broker, identity, version="1.0")).json()["access_token"] == first
        for fields in ({}, {"version": "2.0"}, {"version": "1.0", "uses": "1"}):
            assert code_of(await exchange(broker, identity, **fields)) == "replayed-token"


# --- Introspection ---------------------------------------------------------------------------------------------------


async def test_a_good_token_is_active_and_says_what_for(broker: Broker, secret: str) -> None:
    token = await exchanged(broker, project="acme-widgets", uses="2")
    told = await introspected(broker, secret, token)
    assert told["active"] is True
    assert (told["iss"], told["aud"], told["sub"]) == (PUBLIC_URL, UPLOAD_URL, "acme/widgets-release")
    assert (told["projects"], told["uses"]) == (["acme-widgets"], 2)
    assert told["identity"]["repository"] == "acme-corp/widgets"
    assert told["username"] == "alice"
    assert token not in str(told)


async def test_what_is_no_token_of_ours_is_not_active(broker: Broker, secret: str) -> None:
    for text in ("hunter2", broker.ci.token(), "pypi-x.y.z"):
        assert await introspected(broker, secret, text) == {"active": False}


async def test_a_burned_token_is_not_active(broker: Broker, secret: str) -> None:
    token = await broker.minted()
    await broker.client.post("/_/oidc/burn-token", json={"token": token})
    assert await introspected(broker, secret, token) == {"active": False}


async def test_an_expired_token_is_not_active(broker: Broker, secret: str) -> None:
    token = await broker.minted()
    broker.clock.ahead_seconds = 900
    assert await introspected(broker, secret, token) == {"active": False}


@pytest.mark.parametrize(
    "acme",
    [
        ACME.replace("alice: {role: owner", "alice: {suspended: true, role: owner"),
        ACME.replace("projects: [acme-widgets, acme-gadgets]", "projects: [acme-others]"),
    ],
)
async def test_a_token_of_somebody_who_lost_the_right_is_not_active(tmp_path: Path, acme: str) -> None:
    assert acme != ACME
    kept = ApiToken.make("devpi", "registry", now=0, seconds=10**10)
    async with Setup(folder=tmp_path).running() as broker:
        token = await broker.minted()
    async with Setup(folder=tmp_path, acme=acme).running() as broker:
        await store(broker, kept[1])
        assert await introspected(broker, kept[0], token) == {"active": False}


async def store(broker: Broker, token: ApiToken) -> None:
    state = open_state(state_url(broker.folder), retention_days=400)
    await state.store_api_token(token)
    await state.close()


@pytest.mark.parametrize("cause", [refusals.StateUnavailable, refusals.PoliciesStale])
async def test_where_it_cannot_be_told_now_there_is_no_answer(
    broker: Broker, secret: str, cause: type[refusals.Refusal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is said to be inactive is thrown away; this one may be good."""
    token = await broker.minted()

    async def unknown(*_: object) -> bool:
        raise cause

    monkeypatch.setattr(SQLiteState, "objections", unknown)
    answer = await broker.client.post(
        "/oauth2/introspect", data={"token": token}, headers={"Authorization": f"Bearer {secret}"}
    )
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")


# --- Revocation ------------------------------------------------------------------------------------------------------


async def test_a_revoked_token_uploads_nothing(broker: Broker, secret: str) -> None:
    token = await broker.minted()
    client = secret.split("_")[1]
    for text in (token, token, "nonsense"):
        answer = await broker.client.post(
            "/oauth2/revoke", data={"token": text, "client_id": client, "client_secret": secret}
        )
        assert (answer.status_code, answer.json()) == (200, {})
    assert code_of(await send(broker, upload(), token)) == "revoked-token"


# --- Who may ask -----------------------------------------------------------------------------------------------------


def as_basic(client: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client}:{secret}".encode()).decode()}


async def asked(broker: Broker, headers: Mapping[str, str]) -> httpx.Response:
    return await broker.client.post("/oauth2/introspect", data={"token": "x"}, headers=headers)


async def test_basic_credentials_are_the_id_and_the_token(broker: Broker, secret: str) -> None:
    assert (await asked(broker, as_basic(secret.split("_")[1], secret))).json() == {"active": False}


async def test_whoever_shows_no_good_api_token_is_told_nothing(broker: Broker, secret: str) -> None:
    client = secret.split("_")[1]
    upload_token = await broker.minted()
    for headers in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {secret[:-1]}A" if not secret.endswith("A") else f"Bearer {secret[:-1]}B"},
        {"Authorization": f"Bearer {upload_token}"},
        {"Authorization": f"Digest {secret}"},
        {"Authorization": "Basic x"},
        {"Authorization": basic(secret)},
        as_basic("0123456789abcdef", secret),
        as_basic(client, f"broker_0123456789abcdef_{secret.split('_', 2)[2]}"),
    ):
        answer = await asked(broker, headers)
        assert (answer.status_code, answer.json()["error"], code_of(answer)) == (
            401,
            "invalid_client",
            "invalid-client",
        )
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert secret not in answer.text


async def test_an_api_token_of_another_role_is_no_good(broker: Broker) -> None:
    text, kept = ApiToken.make("ops", "registry", now=0, seconds=10**10)
    await store(broker, replace(kept, role="operator"))
    assert (await asked(broker, {"Authorization": f"Bearer {text}"})).status_code == 401


async def test_an_api_token_that_is_over_or_removed_is_no_good(
    broker: Broker, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {"Authorization": f"Bearer {secret}"}
    assert (await asked(broker, headers)).status_code == 200
    broker.clock.ahead_seconds = 366 * 86_400
    assert (await asked(broker, headers)).status_code == 401
    broker.clock.ahead_seconds = 0
    assert await command(broker, "list") == 0
    assert "registry" in capsys.readouterr().out
    assert await command(broker, "remove", secret.split("_")[1]) == 0
    assert (await asked(broker, headers)).status_code == 401
