"""Revocations and switches through the API: what operators may, what owners may, and what nobody is told."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.api_tokens import ApiToken
from broker.state import State
from broker.state.opening import open_state
from broker.web import recalls
from tests.harness import Broker, Setup, cuckoo, state_url
from tests.web.test_mint_refusals import check_refusal

pytestmark = pytest.mark.anyio

PROVOKED = {"invalid-body", "unknown-subject", "switch-held", "switched-off"}
"""Codes that only what is tested here, or by `broker disable`, can provoke."""


class Caller:
    """Whoever has an API token."""

    def __init__(self, broker: Broker, text: str) -> None:
        self.broker, self.text = broker, text

    async def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.text}"}
        return await self.broker.client.request(method, path, headers=headers, **more)

    async def revoke(self, what: object, **more: object) -> httpx.Response:
        return await self("POST", "/api/revocations", json={"revoke": what, "reason": "a leak", **more})

    async def throw(self, path: str) -> httpx.Response:
        return await self("PUT", f"/api/switches/{path}", json={"reason": "an incident"})

    async def lift(self, path: str, by: str = "") -> httpx.Response:
        return await self("DELETE", f"/api/switches/{path}", params={"by": by} if by else {})

    async def shown(self) -> list[str]:
        answer = await self("GET", "/api/switches")
        assert answer.status_code == 200, answer.text
        return [f"{one['subject']} by {one['by']}" for one in answer.json()["switches"]]


async def store(broker: Broker, token: ApiToken) -> None:
    """Keeps an API token."""
    state: State = open_state(state_url(broker.folder), retention_days=400)
    await state.store_api_token(token)
    await state.close()


async def caller(broker: Broker, organization: str = "") -> Caller:
    """An owner of an organization, or an operator."""
    role = "owner" if organization else "operator"
    text, kept = ApiToken.make(role, role, now=time.time(), seconds=600, organization=organization)
    await store(broker, kept)
    return Caller(broker, text)


@pytest.fixture(name="broker")
async def _broker(tmp_path: Path) -> AsyncIterator[Broker]:
    setup = Setup(folder=tmp_path)
    setup.write()
    (tmp_path / "policies/organizations/bolt.yaml").write_text(cuckoo("bolt"), encoding="utf-8")
    async with setup.running() as broker:
        yield broker


async def projects(broker: Broker, token: str) -> list[str] | str:
    """What a token covers now, or why nothing."""
    registry, kept = ApiToken.make("registry", "registry", now=time.time(), seconds=600)
    await store(broker, kept)
    headers = {"Authorization": f"Bearer {registry}"}
    told = (await broker.client.post("/oauth2/introspect", data={"token": token}, headers=headers)).json()
    return sorted(told["projects"]) if told["active"] else "not active"


EVERY = ["acme-gadgets", "acme-widgets", "bolt-egg"]

# --- Revocations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "subjects"),
    [
        ("everything", ["everything"]),
        ("issuer github", ["issuer github"]),
        ("run github 17423456789", ["run github 17423456789"]),
        ("actor github 1001", ["actor github 1001"]),
        ("member acme/alice", ["actor github 1001", "actor gitlab 77"]),
    ],
)
async def test_an_operator_revokes_the_whole_of_a_token(broker: Broker, what: str, subjects: list[str]) -> None:
    operator, token = await caller(broker), await broker.minted()
    assert await projects(broker, token) == EVERY
    answer = await operator.revoke(what)
    assert (answer.status_code, answer.json()["revoked"]) == (200, subjects)
    assert await projects(broker, token) == "not active"
    records = [one for one in await broker.records() if one["kind"] == "revocation"]
    assert [(one["revoked"], one["reason"], one["caller"]["role"]) for one in records] == [
        (subject, "a leak", "operator") for subject in subjects
    ]
    assert records[0]["attempt"] == answer.headers["attempt-id"]
    assert len({one["attempt"] for one in records}) == len(subjects)


@pytest.mark.parametrize(
    ("by", "what"),
    [
        *(("acme", what) for what in ("organization acme", "publisher acme/widgets-release", "member acme/alice")),
        ("acme", "token"),
        ("", "organization acme"),
        ("", "publisher acme/widgets-release"),
    ],
)
async def test_what_is_one_organization_s_takes_nothing_of_another_s(broker: Broker, by: str, what: str) -> None:
    """Else bolt, whose publisher earns with each of acme's runs, could make all of their tokens worthless."""
    token = await broker.minted()
    token_id = (await broker.records())[0]["token_id"]
    who = await caller(broker, by)
    answer = await who.revoke(f"token {token_id}" if what == "token" else what)
    assert answer.status_code == 200, answer.text
    assert await projects(broker, token) == ["bolt-egg"]
    assert (await broker.records())[-1]["organization"] == "acme"


async def test_an_operator_revokes_a_token_by_its_id(broker: Broker) -> None:
    token = await broker.minted()
    operator = await caller(broker)
    assert (await operator.revoke(f"token {(await broker.records())[0]['token_id']}")).status_code == 200
    assert await projects(broker, token) == "not active"


async def test_an_owner_learns_nothing_of_a_token_s_id(broker: Broker) -> None:
    """One of another organization's is "revoked" as one that nobody has, and stays good."""
    token = await broker.minted("gitlab")
    token_id = (await broker.records())[0]["token_id"]
    bolt = await caller(broker, "bolt")
    answers = [await bolt.revoke(f"token {name}") for name in (token_id, "none-at-all")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["revoked"] for answer in answers] == [[f"token bolt/{token_id}"], ["token bolt/none-at-all"]]
    assert await projects(broker, token) == ["acme-widgets"]


async def test_an_owner_s_changes_are_so_many_a_minute_and_an_operator_s_as_many_as_there_are(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is an alert in the operator's queue: a token that leaked must not fill it."""
    monkeypatch.setattr(recalls, "MOST_CHANGES", 3)
    leaked, other, operator = await caller(broker, "acme"), await caller(broker, "acme"), await caller(broker)
    path = "publisher/acme/widgets-release"
    answers = [await leaked.revoke("token x"), await leaked.throw(path), await leaked.lift(path)]
    assert [answer.status_code for answer in answers] == [200] * 3
    for answer in (await leaked.revoke("token x"), await leaked.throw(path), await leaked.lift(path)):
        check_refusal(answer, "rate-limited", 429)
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert (await other.revoke("organization acme")).status_code == 200
    assert [(await operator.revoke("token x")).status_code for _ in range(5)] == [200] * 5
    broker.clock.ahead_seconds = 61
    assert (await leaked.throw(path)).status_code == 200


async def test_a_moment_spares_what_was_minted_since_and_a_slip_is_noted(broker: Broker) -> None:
    token, owner = await broker.minted(), await caller(broker, "acme")
    answer = await owner.revoke("organization acme", before="2026-01-01T00:00:00Z")
    assert (answer.json()["minted_until"], "note" in answer.json()) == (1767225600, False)
    assert await projects(broker, token) == EVERY
    answer = await owner.revoke("publisher acme/gone")
    assert answer.json()["note"] == "the policies have no publisher 'acme/gone'; it was done all the same"
    answer = await (await caller(broker)).revoke("actor github alice")
    assert answer.json()["note"].startswith("the policies have no member with the id 'alice' at 'github' (a login is")


NOT_AN_OWNERS: list[tuple[object, str, int]] = [
    ("organization bolt", "foreign-organization", 403),
    ("publisher bolt/cuckoo", "foreign-organization", 403),
    ("publisher nobody/x", "foreign-organization", 403),
    ("member bolt/alice", "foreign-organization", 403),
    ("member bolt/nobody", "foreign-organization", 403),
    ("everything", "role-not-permitted", 403),
    ("issuer github", "role-not-permitted", 403),
    ("actor github 1001", "role-not-permitted", 403),
    ("run github 17423456789", "role-not-permitted", 403),
    ("member acme/mallory", "unknown-subject", 422),
    ("nonsense", "unknown-subject", 422),
    ("publisher acme", "unknown-subject", 422),
    ("organization", "unknown-subject", 422),
    (f"organization {'x' * 300}", "unknown-subject", 422),
    (7, "invalid-body", 422),
]


async def test_what_an_owner_may_not_is_refused_and_recorded(broker: Broker) -> None:
    token = await broker.minted()
    for what, code, status in NOT_AN_OWNERS:
        owner = await caller(broker, "acme")  # of one token, a refusal is recorded once a minute
        answer = await owner.revoke(what)
        check_refusal(answer, code, status)
        record = (await broker.records())[-1]
        assert (record["decision"], record["code"], record["organization"]) == ("refused", code, "acme"), what
        assert record["attempt"] == answer.json()["attempt"], what
    assert await projects(broker, token) == EVERY


NO_BODIES: list[tuple[bytes, str, int]] = [
    (b"", "invalid-body", 422),
    (b"[]", "invalid-body", 422),
    (b'{"revoke": "everything"}', "invalid-body", 422),
    (b'{"revoke": "everything", "reason": "x", "more": 1}', "invalid-body", 422),
    (b'{"revoke": "everything", "reason": " "}', "invalid-body", 422),
    (b'{"revoke": "everything", "reason": 1}', "invalid-body", 422),
    (b'{"revoke": "everything", "reason": "a\\nb"}', "invalid-body", 422),
    (b'{"revoke": "everything", "reason": "x", "before": 17}', "invalid-body", 422),
    (b'{"revoke": "everything", "reason": "x", "before": "2999-01-01T00:00:00Z"}', "invalid-body", 422),
    (b'{"revoke": "token x", "reason": "x", "before": "2020-01-01T00:00:00Z"}', "invalid-body", 422),
    (b"[" * 5000, "invalid-body", 422),
    (b"x" * 9000, "request-too-large", 413),
]


async def test_a_body_that_is_none_revokes_nothing(broker: Broker) -> None:
    token, operator = await broker.minted(), await caller(broker)
    for body, code, status in NO_BODIES:
        check_refusal(await operator("POST", "/api/revocations", content=body), code, status)
    check_refusal(await operator("PUT", "/api/switches/everything", json={}), "invalid-body", 422)
    assert await projects(broker, token) == EVERY


# --- Switches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["everything", "issuer/github", "organization/acme", "publisher/acme/widgets-release"])
async def test_an_operator_switches_whatever_there_is(broker: Broker, path: str) -> None:
    operator, token = await caller(broker), await broker.minted()
    answer = await operator.throw(path)
    subject = path.replace("/", " ", 1)
    assert answer.json()["off"] is True
    (thrown,) = answer.json()["switches"]
    assert (thrown["subject"], thrown["by"], thrown["reason"]) == (subject, "operator", "an incident")
    assert await operator.shown() == [f"{subject} by operator"]
    whole = path in {"everything", "issuer/github"}
    assert await projects(broker, token) == ("not active" if whole else ["bolt-egg"])
    assert (await broker.mint(broker.ci.token())).status_code == (403 if whole else 200)
    assert (await operator("GET", f"/api/switches/{path}")).json() == answer.json()
    assert (await operator.lift(path)).json() == {"subject": subject, "off": False, "switches": []}
    assert await projects(broker, token) == EVERY
    records = [one for one in await broker.records() if one["kind"] == "switch"]
    assert [one.get("switched_off", one.get("switched_on")) for one in records] == [subject, subject]
    assert {one["caller"]["role"] for one in records} == {"operator"}


@pytest.mark.parametrize("path", ["organization/acme", "publisher/acme/widgets-release"])
async def test_an_owner_switches_what_is_the_organization_s(broker: Broker, path: str) -> None:
    owner, token = await caller(broker, "acme"), await broker.minted()
    assert (await owner.throw(path)).json()["switches"][0]["by"] == "owner"
    assert await projects(broker, token) == ["bolt-egg"], "another organization's share stays"
    assert await owner.shown() == [f"{path.replace('/', ' ', 1)} by owner"]
    assert (await owner.lift(path)).json()["off"] is False
    assert await projects(broker, token) == EVERY
    assert (await owner.lift(path)).json()["off"] is False
    switches = [one for one in await broker.records() if one["kind"] == "switch"]
    assert [(one["organization"], one["by"]) for one in switches] == [("acme", "owner")] * 2


async def test_an_owner_does_not_lift_what_the_operator_threw(broker: Broker) -> None:
    owner, operator = await caller(broker, "acme"), await caller(broker)
    await operator.throw("organization/acme")
    check_refusal(await owner.lift("organization/acme"), "switch-held", 403)
    assert (await broker.records())[-1]["code"] == "switch-held"
    assert (await owner.throw("organization/acme")).json()["off"]
    left = (await owner.lift("organization/acme")).json()
    assert (left["off"], [one["by"] for one in left["switches"]]) == (True, ["operator"])
    check_refusal(await owner.lift("organization/acme", by="operator"), "invalid-query", 422)
    assert await projects(broker, await broker.minted()) == ["bolt-egg"]


async def test_an_operator_names_an_owner_s_switch_to_lift_it(broker: Broker) -> None:
    owner, operator = await caller(broker, "acme"), await caller(broker)
    await owner.throw("organization/acme")
    assert (await operator.lift("organization/acme")).json()["off"] is True
    check_refusal(await operator.lift("organization/acme", by="nobody"), "invalid-query", 422)
    assert (await operator.lift("organization/acme", by="owner")).json()["off"] is False


async def test_an_owner_sees_and_switches_nothing_of_others(broker: Broker) -> None:
    owner, operator = await caller(broker, "acme"), await caller(broker)
    for path in ("organization/bolt", "publisher/bolt/cuckoo", "issuer/gitlab"):
        await operator.throw(path)
    assert await owner.shown() == []
    for path in ("organization/bolt", "organization/nobody", "publisher/bolt/cuckoo", "publisher/bolt/none"):
        for ask in (owner.throw, owner.lift, lambda path: owner("GET", f"/api/switches/{path}")):
            check_refusal(await ask(path), "foreign-organization", 403)
    for path in ("everything", "issuer/gitlab"):
        check_refusal(await owner.throw(path), "role-not-permitted", 403)
    assert await operator.shown() == [
        "issuer gitlab by operator",
        "organization bolt by operator",
        "publisher bolt/cuckoo by operator",
    ]


async def test_what_the_policies_do_not_have_an_operator_alone_switches(broker: Broker) -> None:
    owner, operator = await caller(broker, "acme"), await caller(broker)
    check_refusal(await owner.throw("publisher/acme/gone"), "unknown-subject", 422)
    answer = await operator.throw("publisher/acme/gone")
    assert answer.json()["note"] == "the policies have no publisher 'acme/gone'; it was done all the same"
    assert answer.json()["off"] is True


NO_PATHS: list[tuple[str, str, int]] = [
    ("actor/github", "not-found", 404),
    ("", "not-found", 404),
    ("organization/Acme", "unknown-subject", 422),
    ("organization", "unknown-subject", 422),
    ("everything/x", "unknown-subject", 422),
    ("publisher/acme", "unknown-subject", 422),
    ("publisher/acme/x/y", "unknown-subject", 422),
    ("issuer/", "unknown-subject", 422),
]


async def test_a_path_that_names_nothing_switches_nothing(broker: Broker) -> None:
    operator = await caller(broker)
    for path, code, status in NO_PATHS:
        check_refusal(await operator.throw(path), code, status)
    assert await operator.shown() == []


async def test_nobody_without_an_api_token_of_such_a_role_does_anything(broker: Broker) -> None:
    text, kept = ApiToken.make("registry", "registry", now=time.time(), seconds=600)
    await store(broker, kept)
    for method, path in [
        ("POST", "/api/revocations"),
        ("GET", "/api/switches"),
        ("GET", "/api/switches/organization/acme"),
        ("PUT", "/api/switches/everything"),
        ("DELETE", "/api/switches/organization/acme"),
    ]:
        check_refusal(await broker.client.request(method, path), "no-api-token", 401)
        check_refusal(await Caller(broker, text)(method, path, json={"reason": "x"}), "role-not-permitted", 403)


async def test_methods_that_there_are_not_are_refused(broker: Broker) -> None:
    operator = await caller(broker)
    check_refusal(await operator("GET", "/api/revocations"), "method-not-allowed", 405)
    check_refusal(await operator("POST", "/api/switches/everything"), "method-not-allowed", 405)
