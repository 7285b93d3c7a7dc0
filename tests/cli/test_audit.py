"""`broker audit tail` and `export`, from the state and over a broker's API: the same records, whole, or noticed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.audit import Record
from broker.cli import audit_export, audit_reading, main
from broker.cli.audit_reading import OfApi, Page, ReadingError
from broker.refusals import StateUnavailable
from broker.state.sqlite import SQLiteState
from tests.api import Asked, with_state
from tests.harness import state_url
from tests.servers import cli

AT = "2026-11-28T02:00:{:02}.000+00:00"


def body(number: int, organization: str = "acme", **fields: Any) -> str:
    told = {"at": AT.format(number), "kind": "mint", "organization": organization, "number": number, **fields}
    return json.dumps(told, separators=(",", ":"))


def fill(folder: Path, *bodies: str) -> None:
    async def append(state: SQLiteState) -> None:
        for one in bodies:
            whose = json.loads(one)["organization"]
            await state.append(Record(attempt="x", at=time.time(), organization=whose, body=one))

    with_state(folder, append)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    fill(tmp_path, *(body(one, "acme" if one % 3 else "zenith", code=f"c{one % 4}") for one in range(30)))
    return tmp_path


@pytest.fixture(name="token_file", scope="module")
def _token_file(asking: Asked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(asking.token("operator") + "\n", encoding="ascii")
    return file


def numbers(text: str) -> list[int]:
    return [json.loads(line)["number"] for line in text.splitlines()]


def run(folder: Path, *arguments: str) -> int:
    return main(["audit", *arguments, "--state", state_url(folder)])


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="ascii").splitlines()]


# --- From the state --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("-n", "3"), [27, 28, 29]),
        (("-n", "3", "--organization", "zenith"), [21, 24, 27]),
        (("-n", "2", "--code", "c1"), [25, 29]),
        (("-n", "3", "--code", "c1", "--code", "c2", "--organization", "acme"), [25, 26, 29]),
        (("--since", "2026-11-28T02:00:27Z", "--until", "2026-11-28T02:00:29Z"), [27, 28]),
        (("--kind", "upload"), []),
    ],
)
def test_tail_prints_the_newest_that_fit(
    folder: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], expected: list[int]
) -> None:
    assert run(folder, "tail", *asked) == 0
    assert numbers(capsys.readouterr().out) == expected


def test_tail_follows_what_is_appended(folder: Path) -> None:
    command = cli("audit", "tail", "-n", "1", "--follow", "--organization", "acme", "--state", state_url(folder))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert numbers(process.stdout.readline()) == [29]
        fill(folder, body(30, "zenith"), body(31))
        assert numbers(process.stdout.readline()) == [31]
        fill(folder, body(32))
        assert numbers(process.stdout.readline()) == [32]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_an_export_can_be_verified_and_says_that_it_is_whole(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_reading, "AT_A_TIME", 7)
    monkeypatch.setattr(audit_export, "PROGRESS_SECONDS", 0.0)
    file = tmp_path / "acme.ndjson"
    assert run(folder, "export", "--organization", "acme", "--output", str(file)) == 0
    assert "20 records" in capsys.readouterr().err
    *told, last = lines_of(file)
    assert [one["sequence"] for one in told] == list(range(1, 21))
    assert told[0]["record"] == body(1, code="c1")
    assert (last["complete"], last["records"]) == (True, 20)
    assert file.stat().st_mode & 0o777 == 0o600
    assert main(["audit", "verify", str(file)]) == 0
    altered = file.read_text().replace('\\"number\\":5', '\\"number\\":6')
    file.write_text(altered)
    capsys.readouterr()
    assert main(["audit", "verify", str(file)]) == 1
    assert "altered" in capsys.readouterr().out
    fill(folder, body(33))
    assert run(folder, "export", "--organization", "acme", "--cursor", last["cursor"]) == 0
    *told, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert ([one["sequence"] for one in told], last["records"]) == ([21], 1)


def test_an_export_that_breaks_off_leaves_no_file_and_no_good_last_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_reading, "AT_A_TIME", 7)
    whole = SQLiteState.records_after

    async def failing(self: SQLiteState, position: str, *rest: Any) -> Any:
        if position:
            raise StateUnavailable
        return await whole(self, position, *rest)

    monkeypatch.setattr(SQLiteState, "records_after", failing)
    file = tmp_path / "all.ndjson"
    file.write_text("an earlier one")
    assert run(folder, "export", "--output", str(file)) == 1
    assert file.read_text() == "an earlier one"
    assert [one.name for one in tmp_path.glob(".all*")] == []
    assert f"broke off after 7 records; {file} is as it was before" in capsys.readouterr().err
    assert run(folder, "export") == 1
    out, err = capsys.readouterr()
    *told, last = (json.loads(line) for line in out.splitlines())
    assert (len(told), last["complete"], last["records"]) == (7, False, 7)
    assert f"to go on from there, into another file: --cursor {last['cursor']}" in err


def test_a_reader_that_has_seen_enough_ends_an_export_in_peace(folder: Path) -> None:
    command = cli("audit", "export", "--state", state_url(folder))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (141, b"")


def test_none_are_not_the_newest(folder: Path) -> None:
    with pytest.raises(SystemExit):
        run(folder, "tail", "-n", "0")


def test_what_cannot_be_written_is_explained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "export", "--output", str(folder / "none" / "x")) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [("--since", "yesterday"), ("--until", "2026-11-28"), ("--project", "a b"), ("--code", "")]
)
def test_a_filter_that_is_none_is_wrong_usage(
    folder: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[str, str]
) -> None:
    for action in ("tail", "export"):
        assert run(folder, action, *wrong) == 2
        assert capsys.readouterr().err.startswith("broker audit: ")


def test_a_cursor_of_something_else_is_explained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "export", "--cursor", "x") == 1
    assert "the cursor is none of this state's" in capsys.readouterr().err


# --- Over the API ----------------------------------------------------------------------------------------------------


def over_api(asking: Asked, token_file: Path, action: str, *arguments: str) -> int:
    return main(["audit", action, "--url", asking.served.url, "--token-file", str(token_file), *arguments])


def test_over_the_api_the_same_is_exported_as_from_the_state(
    asking: Asked, token_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(asking.folder, *(body(one, "yonder", code=f"c{one % 4}") for one in range(30)))
    here, there = tmp_path / "here", tmp_path / "there"
    assert over_api(asking, token_file, "export", "--organization", "yonder", "--output", str(there)) == 0
    assert run(asking.folder, "export", "--organization", "yonder", "--output", str(here)) == 0
    assert lines_of(there)[:30] == lines_of(here)[:30]
    assert lines_of(there)[-1]["complete"]
    assert main(["audit", "verify", str(there)]) == 0
    capsys.readouterr()
    query = ("--organization", "yonder", "--code", "c1", "-n", "2")
    assert over_api(asking, token_file, "tail", *query) == 0
    assert numbers(capsys.readouterr().out) == [25, 29]
    assert over_api(asking, token_file, "tail", "-n", "5") == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_what_the_api_refuses_is_explained_with_its_code(
    asking: Asked, token_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, nothing = tmp_path / "owner", tmp_path / "nothing"
    owner.write_text(asking.token())
    nothing.write_text("broker_x y")
    for file, arguments, told in (
        (owner, ("--organization", "zenith"), "foreign-organization"),
        (owner, ("--organization", "../zenith"), "not-found"),
        (token_file, ("--cursor", "x"), "invalid-cursor"),
        (nothing, (), "holds no API token"),
        (tmp_path / "none", (), "cannot be read"),
    ):
        assert over_api(asking, file, "export", *arguments) == 1
        assert told in capsys.readouterr().err
    assert main(["audit", "export", "--url", asking.served.url]) == 1
    assert "--token-file" in capsys.readouterr().err
    assert main(["audit", "tail", "--token-file", str(owner)]) == 2
    assert "name that by --url" in capsys.readouterr().err


def test_a_token_goes_to_no_other_machine_without_tls(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "export", "--url", "http://broker.example", "--token-file", "x"])
    assert "it must be https" in capsys.readouterr().err


def asks(handler: Callable[[httpx.Request], httpx.Response]) -> Page:
    async def ask() -> Page:
        transport = httpx.MockTransport(handler)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await OfApi(client, "/api/audit", [("kind", "mint")]).after("the-cursor")

    return asyncio.run(ask())


def test_a_broker_that_fails_for_a_while_is_asked_again_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_reading, "FIRST_PAUSE_SECONDS", 0.0)
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url.query, "ascii"))
        if len(asked) == 1:
            raise httpx.ReadError("cut")
        if len(asked) < 4:
            return httpx.Response(503 if len(asked) == 2 else 429, headers={"Retry-After": "0"})
        return httpx.Response(200, json={"records": [{"sequence": 1}], "next": None, "cursor": "c"})

    assert asks(handler) == Page(records=[{"sequence": 1}], cursor="c", ended=True)
    assert set(asked) == {"kind=mint&limit=1000&cursor=the-cursor"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.Response(503), "answered 503, 6 times"),
        (httpx.Response(200, text="<html>"), "not as a broker does"),
        (httpx.Response(200, json=[]), "not as a broker does"),
        (httpx.Response(302, headers={"Location": "https://evil.example"}), "answered 302"),
        (httpx.Response(400, json={"errors": [{"code": "x", "description": "\x1b[31m"}]}), "\\\\x1b"),
    ],
)
def test_an_answer_that_is_none_is_explained(
    answer: httpx.Response, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_reading, "FIRST_PAUSE_SECONDS", 0.0)
    with pytest.raises(ReadingError, match=told):
        asks(lambda _: answer)


# --- What an owner's export withholds, and what was cut --------------------------------------------------------------


def test_an_owner_s_export_is_verified_past_what_is_withheld(
    asking: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {"considered": ["wide/release: matches", "zenith/x: environment is 'a', expected 'secret'"]}
    fill(asking.folder, body(1, "wide"), body(2, "wide", **shared), body(3, "wide"))
    token, file = tmp_path / "token", tmp_path / "wide.ndjson"
    token.write_text(asking.token(organization="wide"))
    assert over_api(asking, token, "export", "--organization", "wide", "--output", str(file)) == 0
    assert "secret" not in file.read_text()
    capsys.readouterr()
    assert main(["audit", "verify", str(file)]) == 0
    assert "1 are withheld in part" in capsys.readouterr().err
    digest = json.loads(file.read_text().splitlines()[1])["digest"]
    for changed in (digest[::-1], "no digest"):
        altered = tmp_path / "altered"
        altered.write_text(file.read_text().replace(digest, changed))
        assert main(["audit", "verify", str(altered)]) == 1
        assert capsys.readouterr().out.startswith("organization 'wide', record 2: ")


def test_who_verifies_is_told_of_an_export_that_was_cut(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "acme.ndjson"
    assert run(folder, "export", "--organization", "acme", "--output", str(file)) == 0
    for kept, cut in ((None, False), (-1, True)):
        (tmp_path / "cut").write_text("\n".join(file.read_text().splitlines()[:kept]))
        capsys.readouterr()
        assert main(["audit", "verify", str(tmp_path / "cut")]) == (2 if cut else 0)
        assert ("it was cut off, and more may be missing" in capsys.readouterr().err) is cut
    lines = file.read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), "record": "no JSON"})
    (tmp_path / "cut").write_text("\n".join(lines))
    assert main(["audit", "verify", str(tmp_path / "cut")]) == 1
    assert "organization 'acme', record 3: " in capsys.readouterr().out
