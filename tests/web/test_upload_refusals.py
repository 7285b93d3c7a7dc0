"""Each refusal of the upload route, provoked by changing one thing in a valid upload to a real pypiserver."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from broker.refusals import StateUnavailable
from broker.state.sqlite import SQLiteState
from tests.gateway.uploads import (
    BOUNDARY,
    CONTENT_TYPE,
    WHEEL,
    fields_of,
    join,
    pack_wheel,
    part,
    parts_of,
    upload,
    wheel_entries,
)
from tests.harness import ACME, Broker, Setup
from tests.registries import PASSWORD, USER, PypiServer, pypi_server
from tests.web.test_mint_refusals import check_refusal, member

pytestmark = pytest.mark.anyio

Ask = Callable[[Broker], Awaitable[httpx.Response]]
Settings = tuple[tuple[str, object], ...]


def basic(password: str, user: str = "__token__") -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def send(broker: Broker, body: bytes, token: str | None = None, **headers: str) -> httpx.Response:
    """Uploads a body; with a token of alice's run unless given one."""
    token = await broker.minted() if token is None else token
    told = {"Authorization": basic(token), "Content-Type": CONTENT_TYPE} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return await broker.client.post("/legacy/", content=body, headers=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One change to a valid upload, and what it is refused with."""

    code: str
    status: int
    ask: Ask
    settings: Settings = ()


def with_fields(**changes: str | Sequence[str] | None) -> Ask:
    """The upload with these fields of the form changed."""
    file = pack_wheel()
    return lambda broker: send(broker, join(parts_of(fields_of(file, WHEEL, **changes), file)))


def with_file(file: bytes, filename: str = WHEEL) -> Ask:
    """The upload of another file, with the digests of that one."""
    return lambda broker: send(broker, upload(file, filename))


async def without_credentials(broker: Broker) -> httpx.Response:
    return await broker.client.post("/legacy/", content=upload(), headers={"Content-Type": CONTENT_TYPE})


async def long_after(broker: Broker) -> httpx.Response:
    token = await broker.minted()
    broker.clock.ahead_seconds = 900
    return await send(broker, upload(), token)


async def after_burning(broker: Broker) -> httpx.Response:
    token = await broker.minted()
    await broker.client.post("/_/oidc/burn-token", json={"token": token})
    return await send(broker, upload(), token)


async def without_a_spool(broker: Broker) -> httpx.Response:
    shutil.rmtree(broker.folder / "spool")
    return await send(broker, upload())


async def after_policies_broke(broker: Broker) -> httpx.Response:
    token = await broker.minted()
    await broker.break_policies()
    return await send(broker, upload(), token)


OTHER_INSIDE = pack_wheel(
    wheel_entries() | {"acme_widgets-1.0.dist-info/METADATA": b"Metadata-Version: 2.4\nName: victim\nVersion: 1.0\n"}
)

UNRECORDED = "acme_widgets-1.0-2-py3-none-any.whl"

ROWS = [
    Row(code="no-credentials", status=401, ask=without_credentials),
    Row(code="invalid-upload-token", status=403, ask=lambda b: send(b, upload(), "hunter2")),
    Row(code="expired-upload-token", status=403, ask=long_after),
    Row(code="policies-stale", status=503, ask=after_policies_broke, settings=(("policies_stale_after_hours", 0),)),
    Row(code="revoked-token", status=403, ask=after_burning),
    Row(code="project-not-granted", status=403, ask=with_fields(name="victim")),
    Row(code="malformed-upload", status=400, ask=lambda b: send(b, upload(), Content_Type="text/plain")),
    Row(code="unsupported-encoding", status=415, ask=lambda b: send(b, upload(), Content_Encoding="gzip")),
    Row(code="request-too-large", status=413, ask=with_fields(), settings=(("upload_limit_bytes", 1024),)),
    Row(code="truncated-upload", status=400, ask=lambda b: send(b, upload()[: -len(BOUNDARY) - 8])),
    Row(code="unknown-field", status=400, ask=with_fields(owner="x")),
    Row(code="repeated-field", status=400, ask=with_fields(name=["acme-widgets", "acme-widgets"])),
    Row(code="missing-field", status=400, ask=with_fields(sha256_digest=None)),
    Row(code="wrong-action", status=400, ask=with_fields(action="remove_pkg")),
    Row(code="filename-mismatch", status=400, ask=with_file(pack_wheel(), "victim-1.0-py3-none-any.whl")),
    Row(code="metadata-mismatch", status=400, ask=with_file(OTHER_INSIDE)),
    Row(code="digest-mismatch", status=400, ask=with_fields(sha256_digest="0" * 64)),
    Row(code="upload-storage", status=507, ask=without_a_spool),
    Row(
        code="registry-unavailable",
        status=502,
        ask=with_fields(),
        settings=(("registry_url", "http://127.0.0.1:9/"),),
    ),
    Row(code="registry-credential", status=502, ask=with_fields(), settings=(("registry_password", "wrong"),)),
]


@pytest.fixture(name="registry", scope="module")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    with pypi_server(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def setup(folder: Path, registry: PypiServer, *, acme: str = ACME, settings: Settings = ()) -> Setup:
    """A broker in front of that registry."""
    values: dict[str, object] = {"registry_url": registry.url, "registry_username": USER, "registry_password": PASSWORD}
    values |= dict(settings)
    return Setup(folder=folder, acme=acme, settings=values)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
async def test_one_change_is_refused_with_its_code_and_stores_nothing(
    tmp_path: Path, registry: PypiServer, row: Row
) -> None:
    before = registry.stored()
    async with setup(tmp_path, registry, settings=row.settings).running() as broker:
        answer = await row.ask(broker)
        check_refusal(answer, row.code, row.status)
        mine = [record for record in await broker.records() if record["attempt"] == answer.json()["attempt"]]
        assert [(record["kind"], record["decision"], record["code"]) for record in mine] == [
            ("upload", "refused", row.code)
        ]
    assert registry.stored() == before
    assert not (tmp_path / "spool").exists() or list((tmp_path / "spool").iterdir()) == []


async def test_the_upload_that_every_row_changes_is_stored_to_the_letter_and_recorded(
    tmp_path: Path, registry: PypiServer
) -> None:
    async with setup(tmp_path, registry).running() as broker:
        answer = await send(broker, upload())
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        record = (await broker.records())[-1]
    assert record["kind"] == "upload"
    assert record["decision"] == "allowed"
    assert record["attempt"] == answer.headers["attempt-id"]
    assert (record["project"], record["release"], record["filename"]) == ("acme-widgets", "1.0", WHEEL)
    assert (record["registry_status"], record["stored"]) == (200, True)
    assert registry.stored()[WHEEL] == record["sha256"]
    assert (record["publishers"], record["members"]) == (["acme/widgets-release"], ["acme/alice"])
    assert record["identity"]["run"]


@pytest.mark.parametrize(
    ("code", "acme"),
    [
        ("unknown-actor", ACME.replace('  alice: {role: owner, github: "1001", gitlab: "77"}\n', "")),
        ("member-suspended", member("alice", "suspended: true")),
        ("member-expired", member("alice", "until: 2020-01-31")),
        ("member-not-permitted", ACME.replace("alice: {role: owner", "alice: {role: billing-manager")),
        ("no-publisher", ACME.replace("environment: pypi\n    refs", "environment: staging\n    refs")),
        ("no-publisher", ACME.replace("widgets-release:", "another:")),
        ("identity-changed", ACME.replace("424242424", "1")),
        ("publisher-expired", ACME.replace("    issuer: github\n", "    issuer: github\n    until: 2020-01-31\n")),
        ("organization-suspended", ACME + "suspended: true\n"),
        ("organization-frozen", ACME + "freezes: [{reason: year end}]\n"),
        ("project-not-granted", ACME.replace("[acme-widgets, acme-gadgets]", "[acme-gadgets]")),
    ],
)
async def test_whoever_lost_the_right_since_the_mint_uploads_nothing(
    tmp_path: Path, registry: PypiServer, code: str, acme: str
) -> None:
    before = registry.stored()
    async with setup(tmp_path, registry).running() as broker:
        token = await broker.minted()
    assert acme != ACME
    async with setup(tmp_path, registry, acme=acme).running() as broker:
        check_refusal(await send(broker, upload(), token), code, 403)
    assert registry.stored() == before


async def test_whoever_is_removed_while_the_body_comes_uploads_nothing(tmp_path: Path, registry: PypiServer) -> None:
    before = registry.stored()
    async with setup(tmp_path, registry).running() as broker:
        token, body = await broker.minted(), upload()

        async def slowly() -> object:
            yield body[:500]
            await broker.client.post("/_/oidc/burn-token", json={"token": token})
            yield body[500:]

        headers = {"Authorization": basic(token), "Content-Type": CONTENT_TYPE, "Content-Length": str(len(body))}
        answer = await broker.client.post("/legacy/", content=slowly(), headers=headers)  # type: ignore[arg-type]
        check_refusal(answer, "revoked-token", 403)
    assert registry.stored() == before


async def test_what_the_registry_refuses_is_relayed_and_recorded_as_not_stored(
    tmp_path: Path, registry: PypiServer
) -> None:
    """Its own rule for files that are there stands behind ours, as where the index is not where the settings say."""
    (registry.packages / WHEEL).write_bytes(pack_wheel())
    elsewhere = (("registry_index_url", registry.url + "nothing/"),)
    async with setup(tmp_path, registry, settings=elsewhere).running() as broker:
        answer = await send(broker, upload())
        record = (await broker.records())[-1]
    assert answer.status_code == 409
    assert answer.headers["content-type"].startswith("text/plain")
    assert registry.url not in answer.text
    assert registry.url.split("/")[2] not in answer.text
    assert (record["decision"], record["registry_status"], record["stored"]) == ("allowed", 409, False)


async def test_an_upload_that_could_not_be_recorded_any_more_is_in_the_log(
    tmp_path: Path, registry: PypiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The registry has it by then, and the record is all that says whose it is."""

    async def lost(*_: object) -> None:
        raise StateUnavailable

    async with setup(tmp_path, registry).running() as broker:
        token = await broker.minted()
        capsys.readouterr()
        monkeypatch.setattr(SQLiteState, "append", lost)
        check_refusal(await send(broker, upload(pack_wheel(), UNRECORDED), token), "state-unavailable", 503)
    assert UNRECORDED in registry.stored()
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    records = [line["record"] for line in logged if line["event"] == "attempt"]
    assert [(one["decision"], one["filename"], one["members"]) for one in records] == [
        ("allowed", UNRECORDED, ["acme/alice"])
    ]


async def test_a_token_of_another_key_index_or_kind_is_none(tmp_path: Path, registry: PypiServer) -> None:
    async with setup(tmp_path / "other", registry).running() as other:
        foreign = await other.minted()
    async with setup(tmp_path, registry).running() as broker:
        own, identity = await broker.minted(), broker.ci.token()
        header, payload, signature = own.split(".")
        for token in (
            foreign,
            identity,
            "pypi-" + identity,
            own[5:],
            f"{header}.{payload}.{signature[:-8]}AAAAAAAA",
            "",
        ):
            check_refusal(await send(broker, upload(), token), "invalid-upload-token", 403)
        for value in (basic(own, "alice"), basic(own).replace("Basic", "Bearer"), "Basic x", "x"):
            answer = await send(broker, upload(), own, Authorization=value)
            check_refusal(answer, "invalid-upload-token", 403)
    async with setup(tmp_path, registry, settings=(("upload_path", "/team/legacy/"),)).running() as broker:
        answer = await broker.client.post(
            "/team/legacy/", content=upload(), headers={"Authorization": basic(own), "Content-Type": CONTENT_TYPE}
        )
        check_refusal(answer, "invalid-upload-token", 403)


async def test_the_path_is_served_without_its_last_slash_and_the_query_is_dropped(
    tmp_path: Path, registry: PypiServer
) -> None:
    async with setup(tmp_path, registry).running() as broker:
        token = await broker.minted()
        headers = {"Authorization": basic(token), "Content-Type": CONTENT_TYPE}
        for path in ("/legacy", "/legacy/?name=victim&:action=remove_pkg"):
            answer = await broker.client.post(path, content=upload(), headers=headers)
            assert answer.status_code == 200


async def test_a_name_that_is_none_is_granted_to_nobody(tmp_path: Path, registry: PypiServer) -> None:
    async with setup(tmp_path, registry).running() as broker:
        check_refusal(await with_fields(name="!")(broker), "project-not-granted", 403)


async def test_the_name_is_judged_before_the_file_is_read(tmp_path: Path, registry: PypiServer) -> None:
    async with setup(tmp_path, registry).running() as broker:
        parts = [part(":action", "file_upload"), part("name", "victim"), part("content", b"x" * 300_000, WHEEL)]
        answer = await send(broker, join(parts))
        check_refusal(answer, "project-not-granted", 403)
