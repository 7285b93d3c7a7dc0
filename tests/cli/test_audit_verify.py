"""`broker audit verify` over records that a state wrote, in a real SQLite file and a real Redis, and over exports."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from broker.chain import Kept, digest, genesis, link
from broker.cli import main
from broker.cli.audit_verify import pages
from broker.state.opening import open_state
from tests.redis_server import RedisServer
from tests.state.examples import record

WRITTEN = 5
"""Records of each organization."""


def write(url: str) -> list[Kept]:
    """Records of two organizations, in turn; answers what is kept of acme."""

    async def append() -> list[Kept]:
        state = open_state(url, retention_days=30)
        for number in range(1, WRITTEN + 1):
            for organization in ("acme", "bolt"):
                body = json.dumps({"organization": organization, "number": number})
                await state.append(record(organization=organization, body=body))
        kept = [one async for page in pages(state, "acme") for one in page]
        await state.close()
        return kept

    return asyncio.run(append())


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/state.db"
    write(url)
    return url


@pytest.fixture(name="redis", scope="module")
def _redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def verify(url: str, *more: str) -> int:
    """The exit status."""
    return main(["audit", "verify", "--state", url, *more])


def test_records_that_nobody_touched_fit(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(file) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "10 records in 2 chains: all fit\n")


REMOVED = "organization 'acme', record 3: it is missing\n"
ALTERED = "organization 'acme', record 3: it does not follow from the one before: one of the two was altered\n"
ALTERED_TOO = ALTERED.replace("record 3", "record 4")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM records WHERE id = 5", REMOVED),
        ("UPDATE records SET body = CAST(replace(CAST(body AS TEXT), '3', '7') AS BLOB) WHERE id = 5", ALTERED),
        (
            (
                "CREATE TEMP TABLE was AS SELECT id, body FROM records;"
                "UPDATE records SET body = (SELECT body FROM was WHERE was.id = 12 - records.id) WHERE id IN (5, 7)"
            ),
            ALTERED + ALTERED_TOO,
        ),
    ],
)
def test_a_record_deleted_edited_or_swapped_in_sqlite_is_named(
    file: str, statement: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(file.removeprefix("sqlite:///"))) as database:
        database.executescript(statement)
    assert verify(file) == 1
    out, err = capsys.readouterr()
    assert out == found
    assert err.endswith("1 finding\n" if found.count("\n") == 1 else "2 findings\n")


Tampering = Callable[["Redis", list[Kept]], None]
LOG = "{broker}:log:"


def delete(client: Redis, kept: list[Kept]) -> None:
    client.xdel(LOG, kept[2].position)


def _rewrite(client: Redis, bodies: dict[int, str]) -> None:
    """As somebody does who may write everything: all entries again, with the same ids."""
    entries: Any = client.xrange(LOG)
    client.delete(LOG)
    for at, fields in entries:
        body = bodies.get(int(fields["sequence"])) if fields["organization"] == "acme" else None
        client.xadd(LOG, fields | ({} if body is None else {"body": body}), id=at)


def edit(client: Redis, kept: list[Kept]) -> None:
    _rewrite(client, {3: kept[2].body.replace("3", "7")})


def swap(client: Redis, kept: list[Kept]) -> None:
    _rewrite(client, {3: kept[3].body, 4: kept[2].body})


@pytest.mark.parametrize(("tamper", "found"), [(delete, REMOVED), (edit, ALTERED), (swap, ALTERED + ALTERED_TOO)])
def test_a_record_deleted_edited_or_swapped_in_redis_is_named(
    redis: RedisServer, tamper: Tampering, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Redis(port=redis.port, decode_responses=True)) as client:
        client.flushall()
        kept = write(redis.url)
        assert verify(redis.url) == 0
        capsys.readouterr()
        tamper(client, kept)
    assert verify(redis.url) == 1
    assert capsys.readouterr().out == found


# --- Heads that are noted --------------------------------------------------------------------------------------------


def test_a_store_that_was_made_anew_is_found_out_by_what_was_noted(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = tmp_path / "heads.json"
    assert verify(file, "--note", str(heads)) == 0
    assert json.loads(heads.read_text())["acme"]["sequence"] == WRITTEN
    write(file)
    assert verify(file, "--noted", str(heads)) == 0
    Path(file.removeprefix("sqlite:///")).unlink()
    write(f"sqlite:///{tmp_path}/state.db")
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        database.execute("DELETE FROM records WHERE sequence = 5")
        database.execute("UPDATE heads SET sequence = 4, link = (SELECT link FROM records WHERE id = 7)")
        database.commit()
    capsys.readouterr()
    assert verify(file, "--noted", str(heads)) == 1
    assert "organization 'acme', record 5: it was noted earlier, and is not there" in capsys.readouterr().out


def test_what_was_noted_last_and_is_swept_by_now_fits_and_stays_noted(file: str, tmp_path: Path) -> None:
    heads = tmp_path / "heads.json"
    assert verify(file, "--note", str(heads)) == 0
    noted = heads.read_text()
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        database.execute("UPDATE heads SET swept_sequence = sequence, swept_link = link")
        database.execute("DELETE FROM records")
        database.commit()
    assert verify(file, "--noted", str(heads), "--note", str(heads)) == 0
    assert heads.read_text() == noted


def test_a_noted_head_that_others_behind_it_were_swept_after_cannot_be_compared(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = tmp_path / "heads.json"
    heads.write_text(json.dumps({"": {"sequence": 1, "link": "00"}, "acme": {"sequence": 1, "link": "00"}}))
    noted = heads.read_text()
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        database.execute("UPDATE heads SET swept_sequence = sequence, swept_link = link")
        database.execute(
            "INSERT INTO heads SELECT X'', sequence, link, sequence, link FROM heads WHERE sequence = 5 LIMIT 1"
        )
        database.execute("DELETE FROM records")
        database.commit()
    assert verify(file, "--noted", str(heads)) == 2
    told = capsys.readouterr().err
    assert "0 records in 0 chains: not all could be checked\n" in told
    for whose in ("organization 'acme'", "no organization"):
        assert f"{whose}: record 1 was noted, and what is there begins at record 6: whether it follows" in told
    assert "not written" not in told
    assert verify(file, "--noted", str(heads), "--note", str(heads)) == 2
    assert f"broker audit: {heads} was not written. Verify an export that begins at" in capsys.readouterr().err
    assert heads.read_text() == noted


def test_heads_are_not_noted_where_something_was_found(file: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        database.execute("DELETE FROM records WHERE id = 5")
        database.commit()
    assert verify(file, "--note", str(tmp_path / "heads.json")) == 1
    assert not (tmp_path / "heads.json").exists()


HEADS_OF_NONE = {
    "empty": "",
    "a list": "[]",
    "no JSON": "{",
    "a number": '{"acme": 1}',
    "no sequence": '{"acme": {"sequence": "x", "link": ""}}',
    "an infinite sequence": '{"acme": {"sequence": 1e999, "link": ""}}',
    "brackets": "[" * 100_000,
}


@pytest.mark.parametrize("text", HEADS_OF_NONE.values(), ids=HEADS_OF_NONE)
def test_a_file_that_is_none_of_heads_is_a_mistake(
    file: str, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "heads.json").write_text(text)
    assert verify(file, "--noted", str(tmp_path / "heads.json")) == 2
    assert "not what `broker audit verify --note` writes" in capsys.readouterr().err


# --- Exports ---------------------------------------------------------------------------------------------------------


def export(kept: list[Kept], file: Path) -> Path:
    """As `broker audit export` writes it."""
    lines = [json.dumps({"sequence": one.sequence, "link": one.link, "record": one.body}) for one in kept]
    file.write_text("\n".join([*lines, json.dumps({"complete": True})]))
    return file


def test_an_export_is_verified_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = write(f"sqlite:///{tmp_path}/state.db")
    assert main(["audit", "verify", str(export(kept, tmp_path / "export.ndjson"))]) == 0
    assert "note: " not in capsys.readouterr().err
    del kept[2]
    assert main(["audit", "verify", str(export(kept, tmp_path / "export.ndjson"))]) == 1
    assert capsys.readouterr().out == REMOVED


@pytest.mark.parametrize(
    ("organization", "whose"), [("acme", "organization 'acme'"), ("", "no organization")], ids=["acme", "none"]
)
def test_an_export_that_does_not_begin_at_the_first_record_says_so(
    tmp_path: Path, organization: str, whose: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.dumps({"organization": organization})
    kept = Kept(position="1", organization=organization, sequence=7, link="00" * 32, body=body)
    assert main(["audit", "verify", str(export([kept], tmp_path / "export.ndjson"))]) == 0
    assert f"has the records of {whose} from 7 on alone" in capsys.readouterr().err


def forged(kept: list[Kept], before: str) -> list[Kept]:
    """Other records of the same numbers, linked as real ones are, from another link on."""
    made = []
    for one in kept:
        body = one.body.replace('"number": ', '"number": 9')
        before = link(before, digest(body.encode()))
        made.append(replace(one, body=body, link=before))
    return made


def test_an_export_goes_on_from_what_was_noted_or_is_found_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`broker audit export --cursor` begins right behind what was exported and noted before."""
    kept, heads = write(f"sqlite:///{tmp_path}/state.db"), tmp_path / "heads.json"
    compare = ["--noted", str(heads), "--note", str(heads)]
    assert main(["audit", "verify", str(export(kept[:3], tmp_path / "first")), "--note", str(heads)]) == 0
    noted = heads.read_text()
    made_up = export(forged(kept[3:], genesis("acme")), tmp_path / "forged")
    assert main(["audit", "verify", str(made_up), *compare]) == 1
    assert capsys.readouterr().out == (
        "organization 'acme', record 4: it does not follow from the one that was noted: the chain was made anew\n"
    )
    assert heads.read_text() == noted
    assert main(["audit", "verify", str(export(kept[3:], tmp_path / "next")), *compare]) == 0
    assert "from 4 on alone\n" in capsys.readouterr().err
    assert json.loads(heads.read_text()) == {"acme": {"sequence": 5, "link": kept[4].link}}


def test_an_export_plants_no_head_of_an_organization_that_was_not_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the true records, when they are exported, would not be those that were noted."""
    kept, heads = write(f"sqlite:///{tmp_path}/state.db"), tmp_path / "heads.json"
    assert main(["audit", "verify", str(export(kept[:3], tmp_path / "first")), "--note", str(heads)]) == 0
    capsys.readouterr()
    planted = Kept(
        position="1", organization="victim", sequence=7, link="0f" * 32, body=json.dumps({"organization": "victim"})
    )
    new = json.dumps({"organization": "new"})
    begun = Kept(
        position="1", organization="new", sequence=1, link=link(genesis("new"), digest(new.encode())), body=new
    )
    handed_in = export([*kept[3:], planted, begun], tmp_path / "next")
    assert main(["audit", "verify", str(handed_in), "--noted", str(heads), "--note", str(heads)]) == 2
    told = capsys.readouterr().err
    assert "4 records in 3 chains: not all could be checked\n" in told
    assert (
        "organization 'victim': it was not noted before, and what is there begins at record 7: it is not taken up. "
        "Verify an export that begins at its record 1." in told
    )
    assert json.loads(heads.read_text()) == {
        "acme": {"sequence": 5, "link": kept[4].link},
        "new": {"sequence": 1, "link": begun.link},
    }


def test_records_of_an_export_from_before_the_chain_have_no_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = write(f"sqlite:///{tmp_path}/state.db")
    old = Kept(position="0", organization="acme", sequence=0, link="", body=json.dumps({"organization": "acme"}))
    assert main(["audit", "verify", str(export([old, *kept], tmp_path / "export"))]) == 0
    assert "1 are from before there was one" in capsys.readouterr().err


def test_an_export_that_leaves_out_what_followed_the_noted_head_is_not_called_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, heads = write(f"sqlite:///{tmp_path}/state.db"), tmp_path / "heads.json"
    assert main(["audit", "verify", str(export(kept[:3], tmp_path / "first")), "--note", str(heads)]) == 0
    noted = heads.read_text()
    made_up = export(forged(kept[4:], genesis("acme")), tmp_path / "forged")
    assert main(["audit", "verify", str(made_up), "--noted", str(heads), "--note", str(heads)]) == 2
    told = capsys.readouterr().err
    assert "record 3 was noted, and what is there begins at record 5" in told
    assert "from 5 on alone; what that one says cannot be verified\n" in told
    assert "1 record in 1 chain: not all could be checked\n" in told
    assert heads.read_text() == noted


@pytest.mark.parametrize(
    ("made", "place"),
    [
        (lambda whole: ['{"complete":true}', *whole[:3]], "line 2: line 1 says"),
        (lambda whole: [*whole, *whole[:3]], "line 7: line 6 says"),
        (lambda whole: [*whole[:3], '{"complete":false}', '{"complete":true}'], "line 5: line 4 says"),
    ],
    ids=["said in front", "several exports", "said twice"],
)
def test_an_export_with_more_behind_its_last_line_is_not_whole(
    tmp_path: Path, made: Callable[[list[str]], list[str]], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, heads = export(write(f"sqlite:///{tmp_path}/state.db"), tmp_path / "export"), tmp_path / "heads.json"
    file.write_text("\n".join(made(file.read_text().split("\n"))))
    assert main(["audit", "verify", str(file), "--note", str(heads)]) == 2
    told = capsys.readouterr().err
    assert f"broker audit: {file}, {place} that the export ends there, and more follows: it is not one whole" in told
    assert "Export it again" in told
    assert "all fit" not in told
    assert not heads.exists()


def line(**told: Any) -> str:
    """Of an export, with something else in it."""
    return json.dumps({"organization": "acme", "sequence": 7, "link": "0f" * 32, "record": "{}"} | told)


LINES_OF_NONE = {
    "no JSON": "{",
    "a number": "1",
    "a list": "[]",
    "a record alone": '{"record": "{}"}',
    "a record of a list": '{"record": "[]", "sequence": 1, "link": ""}',
    **{f"sequence {one!r}": line(sequence=one) for one in (True, 7.0, "7", None, -1, 0.0, 2**63)},
    **{f"link {one!a}": line(link=one) for one in ("garbage\u202e", "0F" * 32, "0f" * 31, "0f" * 32 + "\n", "", None)},
    "an infinite sequence": line().replace("7", "1e999"),
    "brackets": "[" * 100_000,
    "a record of brackets": json.dumps({"record": "[" * 100_000, "sequence": 7, "link": "0f" * 32}),
    "a body that is none": line(record={}),
    "an organization that is none": line(organization=["acme"]),
}


@pytest.mark.parametrize("line", LINES_OF_NONE.values(), ids=LINES_OF_NONE)
def test_a_file_that_is_no_export_is_a_mistake(tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "export").write_text(line)
    assert main(["audit", "verify", str(tmp_path / "export")]) == 2
    assert f"{tmp_path}/export, line 1: no record of an export" in capsys.readouterr().err


def test_what_cannot_be_looked_at_has_its_own_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(f"sqlite:///{tmp_path}/nowhere.db") == 2
    assert main(["audit", "verify", str(tmp_path / "nowhere")]) == 2
    assert f"{tmp_path}/nowhere: No such file or directory." in capsys.readouterr().err


def test_a_long_verification_tells_how_far_it_is(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("broker.cli.audit_verify.PAGE", 3)
    monkeypatch.setattr("broker.cli.audit_verify.PROGRESS_EVERY", 5)
    assert verify(file) == 0
    assert capsys.readouterr().err == "6 records ...\n10 records ...\n10 records in 2 chains: all fit\n"


def test_records_from_before_the_chain_are_told_apart(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        columns = "id, at, organization, attempt, receipt, body"
        database.execute("UPDATE records SET id = id + 100")
        row = (1, time.time(), b"acme", b"x", b"", b"{}")
        database.execute(f"INSERT INTO records ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)
        database.commit()
    assert verify(file) == 0
    assert "1 are from before there was one, and could not be verified" in capsys.readouterr().err
