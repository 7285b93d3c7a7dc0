"""Who may ask the API, what is said to everybody else, and what is kept of it. Over real HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.api_tokens import ApiToken
from broker.playground.ci_server import serving_ci
from broker.state import State
from broker.state.opening import open_state
from tests.harness import state_url
from tests.servers import Served, broker

PROVOKED = {
    "no-api-token",
    "invalid-api-token",
    "expired-api-token",
    "role-not-permitted",
    "foreign-organization",
}
"""Codes that only what is tested here can provoke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A broker with an API, whose state a test can reach."""

    served: Served
    folder: Path
    client: httpx.Client

    def get(self, path: str, token: str = "", **headers: str) -> httpx.Response:
        shown = {"Authorization": f"Bearer {token}"} if token else {}
        return self.client.get(path, headers={**shown, **headers})

    def token(self, role: str = "owner", organization: str = "acme", **changes: Any) -> str:
        """A new API token's text; what is kept of it can be changed."""
        name = "exports" if role == "owner" else "ops"
        organization = organization if role == "owner" else ""
        text, kept = ApiToken.make(name, role, now=time.time(), seconds=600, organization=organization)
        with_state(self.folder, lambda state: state.store_api_token(replace(kept, **changes)))
        return text

    def records(self, organization: str | None = None) -> list[dict[str, Any]]:
        return [json.loads(one) for one in with_state(self.folder, lambda state: state.records(100, organization))]


def with_state(folder: Path, work: Any) -> Any:
    """What some work on the broker's state gives."""

    async def opened() -> Any:
        state: State = open_state(state_url(folder), retention_days=400)
        try:
            return await work(state)
        finally:
            await state.close()

    return asyncio.run(opened())


def code_of(answer: httpx.Response) -> str:
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["errors"][0]["code"])


@pytest.fixture(name="asked", scope="module")
def _asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("broker")
    with ExitStack() as stack:
        ci = stack.enter_context(serving_ci())
        served = stack.enter_context(broker(folder, ci))
        client = stack.enter_context(httpx.Client(base_url=served.url, trust_env=False, timeout=30))
        yield Asked(served=served, folder=folder, client=client)


@pytest.mark.parametrize(("role", "organization"), [("owner", "acme"), ("operator", None), ("registry", None)])
def test_a_token_can_ask_what_it_is(asked: Asked, role: str, organization: str | None) -> None:
    text = asked.token(role)
    answer = asked.get("/api/token", text)
    told = answer.json()
    assert (answer.status_code, told["role"], told["organization"]) == (200, role, organization)
    assert told["id"] == text.split("_")[1]
    assert answer.headers["cache-control"] == "no-store"
    assert text.split("_", 2)[2] not in answer.text


@pytest.mark.parametrize("shown", [None, "", "Bearer", "Basic eDp5", "broker_0123456789abcdef_x"])
def test_whoever_shows_no_token_is_asked_for_one(asked: Asked, shown: str | None) -> None:
    before = len(asked.records())
    answer = asked.client.get("/api/token", headers={} if shown is None else {"Authorization": shown})
    code = "invalid-api-token" if shown == "Bearer" else "no-api-token"
    assert (answer.status_code, code_of(answer)) == (401, code)
    assert answer.headers["www-authenticate"].startswith('Bearer realm="API tokens"')
    assert len(asked.records()) == before, "nobody's noise fills the audit"


def test_a_token_that_is_shown_twice_is_none(asked: Asked) -> None:
    """One reader could take the first and another the second."""
    shown = f"Bearer {asked.token()}"
    answer = asked.client.get("/api/token", headers=[("Authorization", shown), ("Authorization", shown)])
    assert (answer.status_code, code_of(answer)) == (401, "no-api-token")


def test_a_wrong_token_is_refused_and_recorded_without_its_secret(asked: Asked) -> None:
    text = asked.token()
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    answers = [asked.get("/api/token", wrong) for _ in range(5)]
    assert {(answer.status_code, code_of(answer)) for answer in answers} == {(401, "invalid-api-token")}
    assert answers[0].headers["www-authenticate"] == 'Bearer realm="API tokens", error="invalid_token"'
    found = [one for one in asked.records("acme") if one.get("caller", {}).get("token") == text.split("_")[1]]
    assert [(one["kind"], one["decision"], one["code"], one["asked"]) for one in found] == [
        ("api", "refused", "invalid-api-token", "GET /api/token")
    ], "once a minute, however often it is tried"
    assert found[0]["attempt"] == answers[0].json()["attempt"]
    secrets = (text.split("_", 2)[2], wrong.split("_", 2)[2])
    kept = b"".join(part.read_bytes() for part in asked.folder.iterdir() if part.is_file())
    assert not any(secret.encode() in kept or secret in answers[0].text for secret in secrets)


def test_random_tokens_leave_one_record_a_minute_all_together(asked: Asked) -> None:
    def unknown() -> int:
        return sum(one.get("code") == "invalid-api-token" and "caller" not in one for one in asked.records())

    for _ in range(20):
        text, _kept = ApiToken.make("nobody", "operator", now=0, seconds=1)
        assert code_of(asked.get("/api/token", text)) == "invalid-api-token"
    assert unknown() == 1


def test_a_token_whose_time_is_over_is_told_so_and_recorded(asked: Asked) -> None:
    text = asked.token(expires_at=int(time.time()) - 1)
    answer = asked.get("/api/token", text)
    assert (answer.status_code, code_of(answer)) == (401, "expired-api-token")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert asked.records("acme")[-1]["code"] == "expired-api-token"


def test_a_token_that_was_removed_is_worthless_at_once(asked: Asked) -> None:
    text = asked.token()
    assert asked.get("/api/token", text).status_code == 200
    with_state(asked.folder, lambda state: state.remove_api_token(text.split("_")[1]))
    assert code_of(asked.get("/api/token", text)) == "invalid-api-token"
