"""A file's name is written once, as clients, the registry and the audit log see it: the whole broker, and a registry
that misbehaves on the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.gateway.test_registry import response
from tests.gateway.uploads import SDIST, WHEEL, pack_sdist, pack_wheel, upload, wheel_entries
from tests.gateway.wire import Misbehave, WireRegistry, answers, breaks_off, hangs, wire_registry
from tests.harness import ACME, Broker, Setup
from tests.web.test_mint_refusals import check_refusal
from tests.web.test_upload_refusals import send, with_fields

pytestmark = pytest.mark.anyio

FILE = pack_wheel()
OTHER = pack_wheel(wheel_entries(**{"acme_widgets/more.py": b"more = 1\n"}))
assert OTHER != FILE

BOLT = """\
organization: bolt
namespaces: [bolt]
members: {dora: {role: owner, github: "9"}}
projects: {victim: {upload: [dora]}}
"""


IN_PROGRESS = "upload-in-progress"


def setup(folder: Path, registry: WireRegistry, **settings: object) -> Setup:
    """A broker in front of that registry, beside which an organization `bolt` holds names."""
    values = {"registry_url": registry.url, "registry_timeout_seconds": 0.5, **settings}
    made = Setup(folder=folder, settings=values)
    (folder / "policies" / "organizations").mkdir(parents=True, exist_ok=True)
    (folder / "policies" / "organizations" / "bolt.yaml").write_text(BOLT)
    return made


def told(record: dict[str, object]) -> dict[str, object]:
    """What a record says of what became of the file."""
    names = ("code", "registry_status", "stored", "already_stored", "confirmed")
    return {name: record[name] for name in names if name in record}


# --- Refusals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that stands in the way of a valid upload."""

    code: str
    status: int
    ask: Callable[[Broker], Awaitable[httpx.Response]] = lambda broker: send(broker, upload(FILE))
    stored: tuple[tuple[str, bytes], ...] = ()
    misbehave: Misbehave | None = None
    index: bytes | None = None
    settings: tuple[tuple[str, object], ...] = ()
    uploaded_days_ago: float | None = None


ROWS = [
    Row(code="namespace-reserved", status=409, ask=with_fields(name="victim")),
    Row(code="namespace-reserved", status=409, ask=with_fields(name="Bolt.New")),
    Row(code="file-exists", status=400, stored=((WHEEL, OTHER),)),
    Row(code="registry-index", status=502, index=response("500 Oops")),
    Row(code="registry-damaged", status=502, misbehave=breaks_off(stores=True, alters=True)),
    Row(
        code="release-closed",
        status=403,
        stored=((SDIST, b"old"),),
        uploaded_days_ago=14.01,
        settings=(("release_days", 14),),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
async def test_one_thing_in_the_way_is_refused_with_its_code(tmp_path: Path, row: Row) -> None:
    async with wire_registry() as registry:
        registry.stored |= dict(row.stored)
        registry.misbehave = row.misbehave
        if row.uploaded_days_ago is not None:
            registry.uploaded_at = dict.fromkeys(registry.stored, time.time() - row.uploaded_days_ago * 86400)
        if row.index is not None:
            answer_of_index = row.index
            registry.index = lambda _: answer_of_index
        before = dict(registry.stored)
        async with setup(tmp_path, registry, **dict(row.settings)).running() as broker:
            answer = await row.ask(broker)
            check_refusal(answer, row.code, row.status)
            assert (await broker.records())[-1]["code"] == row.code
        if row.misbehave is None:
            assert (registry.posts, registry.stored) == (0, before), "nothing reached the registry"


async def test_a_name_that_another_upload_does_not_give_back_is_in_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.indexes.WAIT_SECONDS", 0.2)
    async with wire_registry() as registry:
        registry.misbehave = hangs()
        async with setup(tmp_path, registry, registry_timeout_seconds=20).running() as broker:
            first = asyncio.create_task(send(broker, upload(FILE)))
            await registry.posted.wait()
            for file in (FILE, OTHER):
                answer = await send(broker, upload(file))
                check_refusal(answer, IN_PROGRESS, 503)
                assert int(answer.headers["retry-after"]) >= 1
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            registry.misbehave = None
            assert (await send(broker, upload(FILE))).status_code == 200, "what was cut short is given back at once"


async def test_a_reserved_name_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:
        check_refusal(await with_fields(name="victim")(broker), "namespace-reserved", 409)
        for name in ("nobodys", "acme-other"):
            # A free name, and one of their own organization's that the grant does not hold.
            check_refusal(await with_fields(name=name)(broker), "project-not-granted", 403)
        assert registry.gets == []


async def test_a_name_that_moved_to_another_organization_since_the_mint_is_reserved(tmp_path: Path) -> None:
    async with wire_registry() as registry:
        async with setup(tmp_path, registry).running() as broker:
            token = await broker.minted()
        moved = setup(tmp_path, registry)
        # acme keeps the publisher that the token was minted for, with another project.
        moved.acme = (
            ACME.replace("namespaces: [acme]", "namespaces: [acmes]")
            .replace("acme-tools-*", "acmes-tools-*")
            .replace("acme-", "acmes-")
            .replace("acmes-corp", "acme-corp")
            .replace("acmes-builds", "acme-builds")
        )
        bolt = tmp_path / "policies" / "organizations" / "bolt.yaml"
        bolt.write_text(BOLT.replace("namespaces: [bolt]", "namespaces: [bolt, acme]"))
        async with moved.running() as broker:
            check_refusal(await send(broker, upload(FILE), token), "namespace-reserved", 409)
        assert registry.posts == 0


# --- The same file again ---------------------------------------------------------------------------------------------


async def test_the_same_bytes_again_are_taken_for_done_and_not_sent(tmp_path: Path) -> None:
    async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:
        for _ in range(3):
            answer = await send(broker, upload(FILE))
            assert (answer.status_code, answer.headers["content-type"][:10]) == (200, "text/plain")
        outcomes = [told(record) for record in await broker.records() if record["kind"] == "upload"]
        assert outcomes == [{"registry_status": 200, "stored": True}, *[{"already_stored": True}] * 2]
        assert registry.posts == 1


async def test_other_bytes_are_refused_in_the_words_that_clients_look_for(tmp_path: Path) -> None:
    async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:
        await send(broker, upload(FILE))
        for _ in range(2):
            answer = await send(broker, upload(OTHER))
            check_refusal(answer, "file-exists", 400)
            assert "already exists" in answer.text
        assert (registry.posts, registry.stored) == (1, {WHEEL: FILE})


async def test_another_spelling_of_the_name_is_the_same_file(tmp_path: Path) -> None:
    spelling = "Acme.Widgets-1.0.0.tar.gz"
    async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:
        assert (await send(broker, upload(pack_sdist(), SDIST))).status_code == 200
        assert (await send(broker, upload(pack_sdist(), spelling))).status_code == 200
        check_refusal(await send(broker, upload(pack_sdist(mtime=1.25), spelling)), "file-exists", 400)
        assert (await send(broker, upload(FILE))).status_code == 200, "and a wheel is another"
        assert (registry.posts, set(registry.stored)) == (2, {SDIST, WHEEL})


async def test_what_the_registry_held_before_the_broker_came_is_known(tmp_path: Path) -> None:
    async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:
        registry.stored[WHEEL] = FILE
        assert (await send(broker, upload(FILE))).status_code == 200
        assert told((await broker.records())[-1]) == {"already_stored": True}
        check_refusal(await send(broker, upload(OTHER)), "file-exists", 400)
        assert registry.posts == 0
        # Not the broker's: where the operator takes it away, the name is free.
        registry.stored.clear()
        assert (await send(broker, upload(OTHER))).status_code == 200


async def test_a_file_that_was_taken_away_does_not_free_its_name(tmp_path: Path) -> None:
    """As on PyPI: whoever pinned the name must never get other bytes."""
    async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:
        await send(broker, upload(FILE))
        registry.stored.clear()
        check_refusal(await send(broker, upload(OTHER)), "file-exists", 400)
        assert (await send(broker, upload(FILE))).status_code == 200
        assert registry.posts == 1


# --- Registries that misbehave ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a registry does with an upload, what the client and the record say then, and what a repeat gives."""

    misbehave: Misbehave
    answer: int | str
    """A status that is relayed, or a refusal's code."""
    record: Mapping[str, object]
    repeat: Mapping[str, object]
    held: bytes | None = None
    """What somebody else uploads under the name in the same moment."""


SENT = {"registry_status": 200, "stored": True}
THERE = {"already_stored": True}

CASES = {
    "500, not kept": Case(
        misbehave=answers("500 Oops", b"oops"),
        answer=500,
        record={"registry_status": 500, "stored": False},
        repeat=SENT,
    ),
    "500, kept": Case(
        misbehave=answers("500 Oops", stores=True),
        answer=200,
        record={"registry_status": 500, "confirmed": True, "stored": True},
        repeat=THERE,
    ),
    "401": Case(
        misbehave=answers("401 No"), answer="registry-credential", record={"code": "registry-credential"}, repeat=SENT
    ),
    "an early 413": Case(
        misbehave=answers("413 Too Large", b"too large", early=True),
        answer=413,
        record={"registry_status": 413, "stored": False},
        repeat=SENT,
    ),
    "400 for another reason": Case(
        misbehave=answers("400 Bad", b"no such classifier"),
        answer=400,
        record={"registry_status": 400, "stored": False},
        repeat=SENT,
    ),
    "broken off, not kept": Case(
        misbehave=breaks_off(),
        answer="registry-unavailable",
        record={"code": "registry-unavailable"},
        repeat=SENT,
    ),
    "broken off, kept": Case(
        misbehave=breaks_off(stores=True), answer=200, record={"confirmed": True, "stored": True}, repeat=THERE
    ),
    "broken off, half of it kept": Case(
        misbehave=breaks_off(stores=True, alters=True),
        answer="registry-damaged",
        record={"code": "registry-damaged"},
        repeat={"code": "file-exists"},
    ),
    "hanging, not kept": Case(
        misbehave=hangs(), answer="registry-unavailable", record={"code": "registry-unavailable"}, repeat=SENT
    ),
    "hanging, kept": Case(
        misbehave=hangs(stores=True), answer=200, record={"confirmed": True, "stored": True}, repeat=THERE
    ),
    "409, with the same bytes by another way": Case(
        misbehave=answers("409 Conflict"),
        held=FILE,
        answer=200,
        record={"registry_status": 409, "confirmed": True, "stored": True},
        repeat=THERE,
    ),
    "409, with other bytes by another way": Case(
        misbehave=answers("409 Conflict"),
        held=OTHER,
        answer="file-exists",
        record={"code": "file-exists", "registry_status": 409, "stored": False},
        repeat={"code": "file-exists"},
    ),
    "409 for another reason": Case(
        misbehave=answers("409 Conflict", b"the project is archived"),
        answer=409,
        record={"registry_status": 409, "stored": False},
        repeat=SENT,
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_becomes_of_a_file_is_told_recorded_and_a_repeat_knows_it(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:

        async def misbehave(
            _: WireRegistry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int
        ) -> None:
            if case.held is not None:
                registry.stored[WHEEL] = case.held
            await case.misbehave(registry, reader, writer, length)

        registry.misbehave = misbehave
        answer = await send(broker, upload(FILE))
        seen = answer.json()["errors"][0]["code"] if isinstance(case.answer, str) else answer.status_code
        assert seen == case.answer, answer.text
        assert told((await broker.records())[-1]) == case.record
        registry.misbehave = None
        await send(broker, upload(FILE))
        assert told((await broker.records())[-1]) == case.repeat


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["401", "an early 413", "400 for another reason", "409 for another reason"], 200),
        (["500, not kept", "broken off, not kept", "hanging, not kept"], 503),
    ],
)
async def test_after_a_clear_no_the_name_is_free_and_else_it_is_left_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], status: int
) -> None:
    """What a registry was sent and did not refuse may arrive late."""
    monkeypatch.setattr("broker.indexes.WAIT_SECONDS", 0.2)
    for name in names:
        async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:
            registry.misbehave = CASES[name].misbehave
            await send(broker, upload(FILE))
            registry.misbehave = None
            assert (await send(broker, upload(OTHER))).status_code == status, name


async def test_a_damaged_file_that_is_removed_can_be_uploaded_again(tmp_path: Path) -> None:
    async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:
        registry.misbehave = breaks_off(stores=True, alters=True)
        check_refusal(await send(broker, upload(FILE)), "registry-damaged", 502)
        registry.misbehave = None
        registry.stored.clear()
        assert (await send(broker, upload(FILE))).status_code == 200
        assert registry.stored == {WHEEL: FILE}


async def test_an_unclear_end_that_the_index_cannot_clear_is_left_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.indexes.WAIT_SECONDS", 0.2)
    async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:

        async def then_no_index(
            _: WireRegistry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int
        ) -> None:
            registry.index = lambda _: response("503 Later")
            await breaks_off(stores=True)(registry, reader, writer, length)

        registry.misbehave = then_no_index
        check_refusal(await send(broker, upload(FILE)), "registry-unavailable", 502)
        check_refusal(await send(broker, upload(OTHER)), IN_PROGRESS, 503)
        check_refusal(await send(broker, upload(FILE)), "registry-index", 502)
        check_refusal(await send(broker, upload(OTHER)), IN_PROGRESS, 503)
        registry.index, registry.misbehave = None, None
        assert (await send(broker, upload(FILE))).status_code == 200
        assert told((await broker.records())[-1]) == {"already_stored": True}
        assert registry.posts == 1
        registry.index = lambda _: response("503 Later")
        assert (await send(broker, upload(FILE))).status_code == 200, "from here on, it is known without the index"


async def test_of_20_at_once_with_the_same_bytes_one_is_sent_and_with_others_one_is_stored(tmp_path: Path) -> None:
    async with wire_registry() as registry, setup(tmp_path, registry).running() as broker:
        token = await broker.minted()
        same = await asyncio.gather(*(send(broker, upload(FILE), token) for _ in range(20)))
        assert [answer.status_code for answer in same] == [200] * 20
        assert registry.posts == 1
        files = [pack_sdist(mtime=number + 0.5) for number in range(20)]
        others = await asyncio.gather(*(send(broker, upload(file, SDIST), token) for file in files))
        assert sorted(answer.status_code for answer in others) == [200] + [400] * 19
        assert registry.posts == 2
        (winner,) = [file for file, answer in zip(files, others, strict=True) if answer.status_code == 200]
        assert registry.stored == {WHEEL: FILE, SDIST: winner}
