"""What goes wrong in the middle of reading the audit, and who takes too much: noticed, and bounded."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from broker import refusals
from broker.api_tokens import ApiToken
from broker.audit import Record
from broker.chain import Kept, link
from broker.records import Query
from broker.signing import SigningKey, SigningKeys, parse
from broker.state.opening import open_state
from broker.state.sqlite import SQLiteState
from broker.web import audit, callers
from broker.web.audit import AT_A_TIME, MOST_OF_ALL, MOST_OF_ONE, Asked, Cursors, Export, Places, Reading
from tests.api import code_of
from tests.harness import Broker, Setup, state_url

pytestmark = pytest.mark.anyio

ACME = "/api/organizations/acme/audit"
MANY = 3 * AT_A_TIME + 7


@pytest.fixture(name="broker")
async def _broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with Setup(folder=tmp_path).running() as broker:
        yield broker


async def with_token(broker: Broker, role: str = "owner", records: Sequence[str] = ()) -> dict[str, str]:
    """The header that shows a new API token; and an audit of acme's that has these bodies."""
    organization = "acme" if role == "owner" else ""
    text, token = ApiToken.make("exports", role, organization=organization, now=time.time(), seconds=600)
    state = open_state(state_url(broker.folder), retention_days=400)
    await state.store_api_token(token)
    now = time.time()
    appended = (Record(attempt=str(at), at=now, organization="acme", body=body) for at, body in enumerate(records))
    await asyncio.gather(*map(state.append, appended))
    await state.close()
    return {"Authorization": f"Bearer {text}"}


def bodies(number: int, **fields: Any) -> list[str]:
    return [json.dumps({"kind": "mint", "number": one, **fields}) for one in range(number)]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- The store fails -------------------------------------------------------------------------------------------------


async def test_a_stream_whose_store_fails_says_so_and_where_to_go_on(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await with_token(broker, records=bodies(MANY))
    whole, asked_for = SQLiteState.records_after, 0

    async def failing(self: SQLiteState, position: str, most: int, organization: str | None = None) -> Sequence[Kept]:
        nonlocal asked_for
        asked_for += 1
        if asked_for == 3:
            raise refusals.StateUnavailable
        return await whole(self, position, most, organization)

    monkeypatch.setattr(SQLiteState, "records_after", failing)
    *told, last = lines((await broker.client.get(f"{ACME}?format=ndjson", headers=headers)).text)
    assert (last["complete"], last["records"], last["code"]) == (False, len(told), "state-unavailable")
    assert len(told) == 2 * AT_A_TIME
    answer = await broker.client.get(f"{ACME}?format=ndjson&cursor={last['cursor']}", headers=headers)
    *rest, last = lines(answer.text)
    assert last["complete"]
    assert [one["sequence"] for one in (*told, *rest)] == list(range(1, len(told) + len(rest) + 1))
    assert len(told) + len(rest) == MANY + 1, "and the record of the reading"


async def test_where_nothing_can_be_read_there_is_a_refusal_and_no_stream(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await with_token(broker, records=bodies(1))

    async def failing(*_: object) -> Sequence[Kept]:
        raise refusals.StateUnavailable

    monkeypatch.setattr(SQLiteState, "records_after", failing)
    for query in ("", "?format=ndjson"):
        answer = await broker.client.get(ACME + query, headers=headers)
        assert (answer.status_code, code_of(answer)) == (503, "state-unavailable")


async def test_where_the_reading_cannot_be_recorded_nothing_is_answered(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await with_token(broker, records=bodies(1))

    async def failing(*_: object, **__: object) -> None:
        raise refusals.StateUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(SQLiteState, "append", failing)
        for path in (ACME, "/api/organizations/zenith/audit"):
            answer = await broker.client.get(path, headers=headers)
            assert (answer.status_code, code_of(answer)) == (503, "state-unavailable")
    assert (await broker.client.get(ACME, headers=headers)).status_code == 200
    assert [one["decision"] for one in await broker.records() if one["kind"] == "api"] == ["allowed"]


def keys_of(broker: Broker) -> SigningKeys:
    """The broker's own."""
    return SigningKeys(keys=parse((broker.folder / "signing.pem").read_bytes()))


async def test_a_cursor_of_another_store_is_refused(broker: Broker) -> None:
    headers = await with_token(broker, records=bodies(1))
    cursor = Cursors(keys_of(broker), time.time()).make("1700000000000-0", Query.parse("acme", []))
    for query in ("", "&format=ndjson"):
        answer = await broker.client.get(f"{ACME}?cursor={cursor}{query}", headers=headers)
        assert (answer.status_code, code_of(answer)) == (422, "invalid-cursor")


async def test_a_cursor_lives_as_long_as_its_key() -> None:
    key = SigningKey.new
    old, new, query = key(), key(), Query.parse("acme", [])
    cursor = Cursors(SigningKeys(keys=(old,)), 1.0).make("7", query)
    assert Cursors(SigningKeys(keys=(old, new)), 1.0).read(cursor, query) == "7"
    with pytest.raises(refusals.InvalidCursor):
        Cursors(SigningKeys(keys=(new,)), 1.0).read(cursor, query)


async def test_an_upload_token_is_no_cursor_and_a_cursor_no_upload_token(broker: Broker) -> None:
    headers = await with_token(broker)
    token = (await broker.minted()).removeprefix("pypi-")
    header, payload, signature = token.split(".")
    for text in (token, f"{payload}.{signature}", f"{header}.{signature}"):
        assert code_of(await broker.client.get(f"{ACME}?cursor={text}", headers=headers)) == "invalid-cursor"


# --- Who takes too much ----------------------------------------------------------------------------------------------


async def test_a_page_looks_at_so_many_records_and_then_says_where_to_go_on(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await with_token(broker, records=[*bodies(MANY), *bodies(1, code="rare")])
    monkeypatch.setattr(audit, "MOST_LOOKED_AT", 2 * AT_A_TIME)
    first = (await broker.client.get(f"{ACME}?code=rare", headers=headers)).json()
    assert first["records"] == []
    second = (await broker.client.get(f"{ACME}?code=rare&cursor={first['next']}", headers=headers)).json()
    assert ([json.loads(one["record"])["code"] for one in second["records"]], second["next"]) == (["rare"], None)


async def test_a_stream_ends_after_its_time_and_is_not_taken_for_the_whole(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await with_token(broker, records=bodies(MANY))
    monkeypatch.setattr(audit, "EXPORT_SECONDS", 0.0)
    *told, last = lines((await broker.client.get(f"{ACME}?format=ndjson", headers=headers)).text)
    assert (len(told), last["complete"], "code" in last) == (AT_A_TIME, False, False)


async def reading(broker: Broker) -> Reading:
    """What a stream of acme's would read."""
    caller = ApiToken.make("exports", "operator", now=0, seconds=1)[1]
    asked = Asked(query=Query.parse("acme", []), position="", limit=1, streams=True)
    state = open_state(state_url(broker.folder), retention_days=400)
    return Reading(asked=asked, caller=caller, state=state, cursors=Cursors(keys_of(broker), time.time()))


async def test_a_reader_that_takes_nothing_or_goes_away_gets_no_last_line(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_token(broker, records=bodies(MANY))
    monkeypatch.setattr(audit, "CHUNK_SECONDS", 0.05)
    gone = asyncio.Event()

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 3:
            await asyncio.sleep(30)

    places, slow = Places(), await reading(broker)
    await Export(slow, places)({"type": "http", "method": "GET"}, receive, send)
    assert len(sent) == 3, "it took a chunk, and then nothing"
    assert all(message.get("more_body") for message in sent[1:])
    sent.clear()
    gone.set()
    monkeypatch.setattr(audit, "CHUNK_SECONDS", 30.0)
    await Export(await reading(broker), places)({"type": "http", "method": "GET"}, receive, send)
    assert all(message.get("more_body") for message in sent[1:])

    async def lost(message: Any) -> None:
        sent.append(message)
        if message.get("more_body"):
            raise TimeoutError  # ETIMEDOUT, from a server that says so

    sent.clear()
    await Export(await reading(broker), places)({"type": "http", "method": "GET"}, receive, lost)
    assert len(sent) == 2
    with places.taken(slow.caller.id):
        pass  # whatever happened, its place is free again
    await slow.state.close()


def test_of_queries_under_way_there_are_so_many_of_one_token_and_of_all() -> None:
    places = Places()
    held = [places.taken(f"token {at // MOST_OF_ONE}") for at in range(MOST_OF_ALL)]
    for one in held[:MOST_OF_ONE]:
        one.__enter__()
    with pytest.raises(refusals.ApiBusy) as caught, places.taken("token 0"):
        pass
    assert caught.value.retry_after_seconds
    for one in held[MOST_OF_ONE:]:
        one.__enter__()
    with pytest.raises(refusals.ApiBusy), places.taken("another"):
        pass
    held[0].__exit__(None, None, None)
    with places.taken("another"), pytest.raises(refusals.ApiBusy), places.taken("token 0"):
        pass


async def test_a_caller_with_too_many_queries_is_told_to_wait(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = await with_token(broker)
    monkeypatch.setattr(audit, "MOST_OF_ONE", 0)
    for query in ("", "?format=ndjson"):
        answer = await broker.client.get(ACME + query, headers=headers)
        assert (answer.status_code, code_of(answer)) == (429, "api-busy")
        assert answer.headers["retry-after"] == "2"


# --- What is recorded ------------------------------------------------------------------------------------------------


async def test_a_reading_is_recorded_once_an_hour_and_again_when_the_clock_was_set_back(broker: Broker) -> None:
    headers = await with_token(broker)

    async def recorded(ahead: float) -> int:
        broker.clock.ahead_seconds = ahead
        assert (await broker.client.get(ACME, headers=headers)).status_code == 200
        return sum(one["kind"] == "api" for one in await broker.records())

    told = [await recorded(ahead) for ahead in (0, 300)]
    assert told == [1, 1]
    broker.clock.ahead_seconds = -4000
    assert (await broker.client.get(ACME, headers=headers)).status_code == 200
    assert sum(one["kind"] == "api" for one in await broker.records()) == 2


async def test_what_was_recorded_is_forgotten_and_not_kept_without_end(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "MOST_REMEMBERED", 2)
    headers = await with_token(broker, "operator")
    for name in ("a", "b", "c", "c", "a"):
        await broker.client.get(f"/api/organizations/{name}/audit", headers=headers)
    found = [one["organization"] for one in await broker.records() if one["kind"] == "api"]
    assert found == ["a", "b", "c", "a"]


# --- What an owner sees ----------------------------------------------------------------------------------------------


async def test_an_owner_s_answer_has_nothing_of_another_organization_and_its_chain_can_be_followed(
    broker: Broker,
) -> None:
    shared = {"considered": ["acme/release: matches", "zenith/x: environment is 'a', expected 'b'"]}
    records = [*bodies(1), *bodies(1, **shared), *bodies(1)]
    owner = await with_token(broker)
    for body in records:
        await with_token(broker, records=[body])
    told = (await broker.client.get(ACME, headers=owner)).json()["records"]
    assert [one["record"] for one in told if "withheld" not in one] == [records[0], records[2], told[3]["record"]]
    assert "zenith" not in json.dumps(told)
    assert json.loads(told[1]["record"])["considered"] == ["acme/release: matches"]
    assert told[1]["withheld"] == ["considered"]
    assert link(told[0]["link"], bytes.fromhex(told[1]["digest"])) == told[1]["link"]
    operator = await with_token(broker, "operator")
    assert (await broker.client.get(ACME, headers=operator)).json()["records"][1]["record"] == records[1]
