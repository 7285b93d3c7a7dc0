"""The audit over real HTTP: what is answered is that organization's, all of it, in order, and can be verified."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.api_tokens import ApiToken
from broker.audit import Record, new_attempt_id
from broker.chain import Kept, Verification
from broker.state import State
from broker.web import audit
from broker.web.audit import NDJSON
from tests.api import Asked, code_of, with_state

PROVOKED = {"role-not-permitted", "foreign-organization", "invalid-query", "invalid-cursor", "api-busy"}
"""Codes that only what is tested here, and in process, can provoke."""

WHOSE = ("acme", "zenith", "")
KINDS = ("mint", "upload", "download")
CODES = ("no-publisher", "replayed-token", "unknown-actor")
PROJECTS = ("acme-widgets", "acme-gadgets", "acme-tools")
AT = datetime(2026, 11, 28, 2, tzinfo=UTC).timestamp()
MANY = 500
"""Records that are there from the start: more than state is asked for at once, of each organization less."""


def example(number: int) -> Record:
    """One of many records that differ in what filters look at."""
    chosen = random.Random(number)
    at, organization = AT + number, chosen.choice(WHOSE)
    refused, attempt = chosen.random() < 0.5, new_attempt_id(at)
    fields = {
        "version": 1,
        "attempt": attempt,
        "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
        "kind": chosen.choice(KINDS),
        "decision": "refused" if refused else "allowed",
        "organization": organization,
        "generation": "g1",
        "issuer": "github",
        **({"code": chosen.choice(CODES)} if refused else {"publishers": [f"{organization}/release"]}),
        "project": chosen.choice(PROJECTS),
        "identity": {"actor_id": str(chosen.randrange(1000, 1003)), "environment": "prüf-🚀"},
    }
    return Record(attempt=attempt, at=at, organization=organization, body=json.dumps(fields))


@pytest.fixture(name="asked", scope="module")
def _asked(asking: Asked) -> Asked:
    async def fill(state: State) -> None:
        await asyncio.gather(*(state.append(example(number)) for number in range(MANY)))

    with_state(asking.folder, fill)
    return asking


@pytest.fixture(name="owner", scope="module")
def _owner(asked: Asked) -> str:
    return asked.token()


@pytest.fixture(name="operator", scope="module")
def _operator(asked: Asked) -> str:
    return asked.token("operator")


def path_of(organization: str | None) -> str:
    return "/api/audit" if organization is None else f"/api/organizations/{organization}/audit"


def pages(asked: Asked, path: str, token: str, **query: Any) -> Iterator[dict[str, Any]]:
    """Pages one after the other, as `Link` and `next` lead on."""
    answer = asked.client.get(path, params=query, headers={"Authorization": f"Bearer {token}"})
    while True:
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        page = answer.json()
        yield page
        if page["next"] is None:
            assert "link" not in answer.headers
            return
        assert page["next"] == page["cursor"]
        answer = asked.get(answer.links["next"]["url"], token)


def read(asked: Asked, path: str, token: str, **query: Any) -> list[dict[str, Any]]:
    return [one for page in pages(asked, path, token, **query) for one in page["records"]]


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == NDJSON
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


def kept(asked: Asked, organization: str | None) -> list[Kept]:
    """What state has, straight from it."""
    found: list[Kept] = with_state(asked.folder, lambda state: state.records_after("", 100_000, organization))
    return found


def as_kept(told: list[dict[str, Any]]) -> list[Kept]:
    return [
        Kept(
            position="",
            organization=one["organization"],
            sequence=one["sequence"],
            link=one["link"],
            body=one["record"],
        )
        for one in told
    ]


def assert_is_verified(told: list[dict[str, Any]]) -> None:
    verification = Verification()
    verification.follow(as_kept(told))
    verification.finish()
    assert verification.findings == []
    assert verification.unchained == 0


# --- What is answered ------------------------------------------------------------------------------------------------


def test_pages_have_all_of_an_organization_s_records_in_order_with_their_links(asked: Asked, owner: str) -> None:
    told = read(asked, path_of("acme"), owner, limit=70)
    expected = kept(asked, "acme")
    assert [(one["sequence"], one["link"], one["record"]) for one in told] == [
        (one.sequence, one.link, one.body) for one in expected
    ]
    assert len(told) > 100
    assert len(next(pages(asked, path_of("acme"), owner, limit=70))["records"]) == 70
    assert_is_verified(told)


def test_a_stream_has_the_same_and_says_that_it_is_whole(asked: Asked, owner: str, operator: str) -> None:
    path = path_of("acme")
    *told, last = lines(asked.get(path, owner, Accept=f"text/html;q=0.1, {NDJSON}"))
    assert as_kept(told) == as_kept(read(asked, path, owner, limit=1000))
    assert (last["complete"], last["records"]) == (True, len(told))
    assert "sequence" not in last
    assert_is_verified(told)
    *everything, last = lines(asked.get("/api/audit?format=ndjson", operator))
    assert len(everything) >= MANY
    assert {one["organization"] for one in everything} >= set(WHOSE)
    assert_is_verified(everything)


def test_an_altered_record_is_told_as_it_is_so_that_who_verifies_finds_it(asked: Asked, owner: str) -> None:
    told = read(asked, path_of("acme"), owner)
    told[3]["record"] = told[3]["record"].replace("acme", "acmE")
    verification = Verification()
    verification.follow(as_kept(told))
    verification.finish()
    assert [finding.sequence for finding in verification.findings] == [4]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    organization=st.sampled_from([None, "acme", "zenith"]),
    values=st.fixed_dictionaries(
        {},
        optional={
            "kind": st.lists(st.sampled_from([*KINDS, "api"]), min_size=1, max_size=2, unique=True),
            "code": st.lists(st.sampled_from(CODES), min_size=1, max_size=2, unique=True),
            "decision": st.sampled_from(["allowed", "refused"]).map(lambda one: [one]),
            "project": st.sampled_from(["Acme_Widgets", "acme-tools"]).map(lambda one: [one]),
            "publisher": st.sampled_from(["acme/release", "zenith/release"]).map(lambda one: [one]),
            "actor": st.sampled_from(["1001", "1002"]).map(lambda one: [one]),
        },
    ),
    moments=st.fixed_dictionaries({}, optional={"since": st.integers(0, MANY), "until": st.integers(0, MANY)}),
    limit=st.integers(20, 300),
    streams=st.booleans(),
)
def test_whatever_is_asked_the_answer_is_what_a_search_through_all_finds(
    asked: Asked,
    operator: str,
    *,
    organization: str | None,
    values: dict[str, list[str]],
    moments: dict[str, int],
    limit: int,
    streams: bool,
) -> None:
    def fits(fields: dict[str, Any]) -> bool:
        told = {
            **{name: {fields.get(name)} for name in ("kind", "code", "decision")},
            "project": {fields.get("project")},
            "publisher": set(fields.get("publishers", [])),
            "actor": {fields.get("identity", {}).get("actor_id")},
        }
        wanted = {name: {one.lower().replace("_", "-") for one in some} for name, some in values.items()}
        at = datetime.fromisoformat(fields["at"]).timestamp() - AT
        return (
            all(told[name] & some for name, some in wanted.items())
            and at >= moments.get("since", -1e9)
            and at < moments.get("until", 1e12)
        )

    asking = {name: datetime.fromtimestamp(AT + at, UTC).isoformat() for name, at in moments.items()}
    query: dict[str, Any] = {**values, **asking}
    if streams:
        answer = asked.client.get(
            path_of(organization),
            params={**query, "format": "ndjson"},
            headers={"Authorization": f"Bearer {operator}"},
        )
        *told, last = lines(answer)
        assert (last["complete"], last["records"]) == (True, len(told))
    else:
        told = read(asked, path_of(organization), operator, limit=limit, **query)
    # What was recorded of the readings themselves meanwhile is later than all examples.
    expected = [one for one in kept(asked, organization) if fits(json.loads(one.body))]
    assert [one["record"] for one in told] == [one.body for one in expected]
    assert all(organization is None or one["organization"] == organization for one in told)


def test_what_came_later_follows_the_last_cursor(asked: Asked, owner: str) -> None:
    *_, last = pages(asked, path_of("acme"), owner, kind="upload")
    later = Record(
        attempt="later", at=AT, organization="acme", body='{"kind":"upload","at":"2027-01-01T00:00:00+00:00"}'
    )
    with_state(asked.folder, lambda state: state.append(later))
    told = read(asked, path_of("acme"), owner, kind="upload", cursor=last["cursor"])
    assert [one["record"] for one in told] == [later.body]
    *_, end = lines(asked.get(f"{path_of('acme')}?format=ndjson&kind=upload&cursor={last['cursor']}", owner))
    assert (end["complete"], end["records"]) == (True, len(told))
    assert read(asked, path_of("acme"), owner, kind="upload", cursor=end["cursor"]) == []


def test_a_head_request_is_told_the_form_and_nothing_else(asked: Asked, owner: str) -> None:
    for accept in ("application/json", NDJSON):
        answer = asked.client.head(path_of("acme"), headers={"Authorization": f"Bearer {owner}", "Accept": accept})
        assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, accept, b"")


# --- Whose it is -----------------------------------------------------------------------------------------------------


def test_an_owner_is_refused_what_is_another_organization_s_whether_it_exists_or_not(asked: Asked, owner: str) -> None:
    before = len(kept(asked, "zenith"))
    answers = [asked.get(path_of(name), owner) for name in ("zenith", "nobody", "ACME", "acme%20", "%00")]
    assert {(answer.status_code, code_of(answer)) for answer in answers} == {(403, "foreign-organization")}
    assert len({json.dumps({**answer.json(), "attempt": ""}) for answer in answers}) == 1, "each is told the same"
    assert len(kept(asked, "zenith")) == before
    last = asked.records("acme")[-1]
    assert (last["code"], last["asked"]) == ("foreign-organization", "GET /api/organizations/zenith/audit")


def test_a_cursor_of_another_organization_reaches_nothing(asked: Asked, owner: str, operator: str) -> None:
    page = next(pages(asked, path_of("zenith"), operator, limit=5))
    everything = next(pages(asked, path_of(None), operator, limit=5))
    for cursor in (page["cursor"], everything["cursor"]):
        answer = asked.get(f"{path_of('acme')}?cursor={cursor}&limit=5", owner)
        assert (answer.status_code, code_of(answer)) == (422, "invalid-cursor")


@pytest.mark.parametrize(
    ("role", "path"), [("registry", "/api/audit"), ("registry", path_of("acme")), ("owner", "/api/audit")]
)
def test_a_role_that_may_not_is_told_which_may(asked: Asked, role: str, path: str) -> None:
    answer = asked.get(path, asked.token(role))
    assert (answer.status_code, code_of(answer)) == (403, "role-not-permitted")
    assert "operator" in answer.json()["detail"]


def test_whoever_shows_nothing_or_something_wrong_sees_nothing(asked: Asked, owner: str) -> None:
    for token, code in (("", "no-api-token"), (owner[:-2] + "zz", "invalid-api-token")):
        for path in ("/api/audit", path_of("acme"), path_of("nobody")):
            answer = asked.get(path, token)
            assert (answer.status_code, code_of(answer)) == (401, code)


def test_an_owner_s_token_without_an_organization_is_nobody_s(asked: Asked) -> None:
    """None is made, but somebody may write one into state."""
    text, token = ApiToken.make("x", "owner", now=time.time(), seconds=60, organization="acme")
    with_state(asked.folder, lambda state: state.store_api_token(replace(token, organization="")))
    assert code_of(asked.get(path_of("acme"), text)) == "foreign-organization"
    assert code_of(asked.get("/api/audit", text)) == "role-not-permitted"


def test_an_owner_sees_that_an_operator_read(asked: Asked, owner: str) -> None:
    operator = asked.token("operator")
    for _ in range(3):
        next(pages(asked, path_of("acme"), operator))
    found = [
        fields
        for one in read(asked, path_of("acme"), owner, kind="api", caller=operator.split("_")[1])
        for fields in [json.loads(one["record"])]
    ]
    assert [(one["decision"], one["caller"]["role"], one["asked"]) for one in found] == [
        ("allowed", "operator", "GET /api/organizations/acme/audit")
    ], "once an hour"


def test_a_copy_of_a_token_that_reads_from_elsewhere_is_seen(asked: Asked, owner: str) -> None:
    """Hardly ever not: two addresses in 64 share a place."""
    copied = asked.token("owner")
    headers = {"Authorization": f"Bearer {copied}"}
    for address in [f"127.0.0.{number}" for number in range(1, 9)] * 2:
        transport = httpx.HTTPTransport(local_address=address)
        with httpx.Client(base_url=asked.served.url, transport=transport, headers=headers) as client:
            assert client.get(path_of("acme")).status_code == 200
    found = read(asked, path_of("acme"), owner, kind="api", caller=copied.split("_")[1])
    sources = [json.loads(one["record"])["source"] for one in found]
    assert 1 < len(sources) == len({*sources}) <= 8
    assert len({audit.reader(f"192.0.2.{number}") for number in range(256)}) <= audit.MOST_READERS


# --- Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "kinds=mint",
        "kind=",
        "limit=0",
        "limit=1001",
        "limit=1e3",
        "limit=%C2%B2",
        "limit=-1",
        "limit=" + "9" * 5000,
        "limit=1&limit=2",
        "limit=5&format=ndjson",
        "format=csv",
        "format=",
        "since=yesterday",
        "since=2026-11-28T00:00:00+00:00",
        "project=%00",
        "x%0d%0aSet-Cookie:%20a=1",
    ],
)
def test_a_query_that_is_not_understood_is_refused(asked: Asked, query: str) -> None:
    answer = asked.get(f"{path_of('acme')}?{query}", asked.token())
    assert (answer.status_code, code_of(answer)) == (422, "invalid-query")
    assert "set-cookie" not in answer.headers
    assert asked.records("acme")[-1]["code"] == "invalid-query"


def test_no_organization_can_be_called_what_is_no_name(asked: Asked, operator: str) -> None:
    for name in ("Acme", "a%0d%0aX-Evil:%201", "%F0%9F%9A%80", "x" * 64):
        answer = asked.get(path_of(name), operator)
        assert (answer.status_code, code_of(answer)) == (422, "invalid-query")
        assert "x-evil" not in answer.headers


def test_what_a_caller_writes_cannot_break_a_line_of_the_log(asked: Asked) -> None:
    token = asked.token()
    evil = "acme%0d%0a%7B%22event%22:%22forged%22%7D%E2%80%A8%1b%5B31m"
    assert code_of(asked.get(path_of(evil), token)) == "foreign-organization"
    logged = asked.served.logged()
    assert all(one["event"] != "forged" for one in logged)
    records = [one["record"] for one in logged if one["event"] == "attempt"]
    asked_for = [one["asked"] for one in records if isinstance(one, dict) and "forged" in one.get("asked", "")]
    assert asked_for == ['GET /api/organizations/acme\r\n{"event":"forged"}\u2028\x1b[31m/audit']
    assert "\x1b" not in asked.served.log.read_text(encoding="utf-8")


def test_a_cursor_that_was_tampered_with_is_refused_and_recorded(asked: Asked, owner: str) -> None:
    page = next(pages(asked, path_of("acme"), owner, limit=5))
    cursor = page["cursor"]
    payload, signature = cursor.split(".")
    chosen = random.Random(1)
    tampered = ["", "x", ".", "..", payload, f"{payload}.", f".{signature}", f"{cursor}=", f"{cursor}A", cursor * 9]
    tampered += [f"{signature}.{payload}", "W10.W10", "MQ.MQ", "bnVsbA.AA", "eyJhIjoxfQ.AA", "[" * 900 + ".AA"]
    for _ in range(30):
        at = chosen.randrange(len(cursor))
        letter = chosen.choice([one for one in "ABCxyz019-_.%2B" if one != cursor[at]])
        tampered.append(cursor[:at] + letter + cursor[at + 1 :])
    for text in tampered:
        answer = asked.client.get(
            path_of("acme"), params={"cursor": text, "limit": 5}, headers={"Authorization": f"Bearer {owner}"}
        )
        assert (answer.status_code, code_of(answer)) == (422, "invalid-cursor"), text
    assert "invalid-cursor" in {one.get("code") for one in asked.records("acme")}
    assert asked.get(f"{path_of('acme')}?cursor={cursor}&limit=5", owner).status_code == 200


def test_a_cursor_is_good_for_its_filters_alone(asked: Asked, owner: str) -> None:
    cursor = next(pages(asked, path_of("acme"), owner, limit=5, kind="mint"))["cursor"]
    assert asked.get(f"{path_of('acme')}?cursor={cursor}&limit=9&kind=mint", owner).status_code == 200
    for query in ("", "&kind=upload", "&kind=mint&kind=upload", "&kind=mint&since=2026-11-28T02:00:00Z"):
        answer = asked.get(f"{path_of('acme')}?cursor={cursor}{query}", owner)
        assert code_of(answer) == "invalid-cursor"


def test_the_audit_is_read_and_nothing_else(asked: Asked, owner: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = asked.client.request(method, path_of("acme"), headers={"Authorization": f"Bearer {owner}"})
        assert (answer.status_code, code_of(answer)) == (405, "method-not-allowed")


def test_records_hold_no_secret_of_a_token(asked: Asked, owner: str, operator: str) -> None:
    told = "".join(one["record"] for one in read(asked, "/api/audit", operator))
    for token in (owner, operator):
        secret = token.split("_", 2)[2]
        assert secret not in told
        assert hashlib.sha256(secret.encode()).hexdigest() not in told
    assert Path(asked.served.log).read_text(encoding="utf-8").count(owner.split("_", 2)[2]) == 0
