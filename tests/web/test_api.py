"""Who may ask the API, what is said to everybody else, and what is kept of it. Over real HTTP."""

from __future__ import annotations

import time

import pytest

from broker.api_tokens import ApiToken
from tests.api import Asked, code_of, with_state

PROVOKED = {"no-api-token", "invalid-api-token", "expired-api-token"}
"""Codes that only what is tested here can provoke."""


@pytest.fixture(name="asked", scope="module")
def _asked(asking: Asked) -> Asked:
    return asking


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
    assert 1 <= unknown() <= 3, "of 20, were they to take minutes"


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
