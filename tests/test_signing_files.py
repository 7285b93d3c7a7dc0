"""However files of signing keys change, the keys in force become theirs; what cannot be read leaves the last good."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from broker import logs, signing_files
from broker.audit import Attempt
from broker.in_force import REMIND_SECONDS
from broker.refusals import StateUnavailable
from broker.settings import SettingsError
from broker.signing import KEPT_SECONDS, SINCE_EVER, SigningKey, moment
from broker.signing_files import REMEMBERED_SECONDS, KeysInForce, Source, attempt_of, name_of
from broker.state.once import record_once
from broker.state.opening import open_state
from tests.harness import Clock, Setup, state_url
from tests.in_force import logged, swap

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_looks")]

FIRST, SECOND, THIRD = SigningKey.new(), SigningKey.new(), SigningKey.new()
KEYS = {FIRST.id: "first", SECOND.id: "second", THIRD.id: "third"}


def put(path: Path, *keys: SigningKey) -> Path:
    """A file with these keys, there at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name("beside")
    beside.write_bytes(b"".join(key.text() for key in keys))
    return beside.rename(path)


class Kept:
    """What was to be recorded, and who records it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.down = False

    async def __call__(self, attempt: Attempt) -> None:
        if self.down:
            raise StateUnavailable
        self.told.append((attempt.change, KEYS.get(attempt.key, attempt.key)))


def in_force(
    path: Path, clock: Callable[[], float] | None = None, record: Callable[[Attempt], Awaitable[None]] | None = None
) -> KeysInForce:
    """The keys of a file or a folder."""
    logs.configure("info")
    return KeysInForce(Source(path=path), clock=clock or Clock(), record=record or Kept())


def ids(keys: KeysInForce) -> list[str]:
    """Of those in force, in order."""
    return [KEYS.get(key.id, key.id) for key in keys.current.keys]


# --- Where they are --------------------------------------------------------------------------------------------------


async def test_a_key_that_comes_and_one_that_goes_are_taken_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = put(tmp_path / "keys" / "1.pem", FIRST)
    keys = in_force(tmp_path / "keys")
    await keys.refresh()
    assert (ids(keys), logged(capsys)) == (["first"], [])
    await keys.refresh(anew=True)
    assert [line["event"] for line in logged(capsys)] == ["signing keys unchanged"]
    put(tmp_path / "keys" / "2.pem", SigningKey(id=SECOND.id, private=SECOND.private, signs_from=4e9))
    await keys.refresh()
    assert ids(keys) == ["first", "second"]
    [line, announced] = logged(capsys)
    assert (line["event"], line["signing"], line["announced"]) == ("signing keys reloaded", FIRST.id, [SECOND.id])
    assert (announced["event"], announced["key"]) == ("signing key: announced", SECOND.id)
    first.unlink()
    await keys.refresh()
    assert ids(keys) == ["second"]


async def test_one_file_may_hold_them_all(tmp_path: Path) -> None:
    file = put(tmp_path / "keys.pem", FIRST)
    keys = in_force(file)
    put(file, FIRST, SECOND)
    await keys.refresh()
    assert ids(keys) == ["first", "second"]
    file.write_bytes(SECOND.text())
    await keys.refresh()
    assert ids(keys) == ["second"]


async def test_a_mounted_secret_is_followed_as_its_link_is_swapped(tmp_path: Path) -> None:
    put(tmp_path / "keys" / "..2026_1" / "a.pem", FIRST)
    swap(tmp_path / "keys" / "..data", "..2026_1")
    (tmp_path / "keys" / "a.pem").symlink_to("..data/a.pem")
    keys = in_force(tmp_path / "keys")
    put(tmp_path / "keys" / "..2026_2" / "a.pem", FIRST)
    put(tmp_path / "keys" / "..2026_2" / "b.pem", SECOND)
    swap(tmp_path / "keys" / "..data", "..2026_2")
    await keys.refresh()
    assert ids(keys) == ["first"], "kubelet makes the name after the swap"
    (tmp_path / "keys" / "b.pem").symlink_to("..data/b.pem")
    await keys.refresh()
    assert ids(keys) == ["first", "second"]
    put(tmp_path / "keys" / "..2026_3" / "b.pem", SECOND)
    swap(tmp_path / "keys" / "..data", "..2026_3")
    await keys.refresh()
    assert ids(keys) == ["first", "second"], "a name that leads nowhere is no key that was taken away"
    assert keys.failing is not None
    (tmp_path / "keys" / "a.pem").unlink()
    await keys.refresh()
    assert ids(keys) == ["second"]
    assert keys.failing is None


def test_what_is_hidden_or_unfinished_is_no_key(tmp_path: Path) -> None:
    put(tmp_path / "keys" / "1.pem", FIRST)
    for name in (".2.pem", "3.pem.unfinished", "4.txt"):
        (tmp_path / "keys" / name).write_text("nothing")
    assert ids(in_force(tmp_path / "keys")) == ["first"]


@pytest.mark.parametrize("line_break", ["\n", "\\n"])
async def test_they_may_stand_in_a_setting(tmp_path: Path, line_break: str) -> None:
    next_one = SigningKey(id=SECOND.id, private=SECOND.private, signs_from=2e9)
    text = (FIRST.text() + next_one.text()).decode().replace("\n", line_break)
    settings = Setup(folder=tmp_path, settings={"signing_keys": None, "signing_keys_pem": SecretStr(text)}).write()
    keys = KeysInForce(Source.of(settings), clock=Clock(), record=Kept())
    await keys.refresh()
    assert ids(keys) == ["first", "second"]
    assert keys.current.signing_at(2e9).id == SECOND.id
    assert "PRIVATE" not in repr(settings) + repr(Source.of(settings)) + repr(vars(keys)["current"])


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN PRIVATE KEY-----"])
def test_a_setting_without_a_key_is_explained_without_its_text(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^BROKER_SIGNING_KEYS_PEM: it is no unencrypted private key") as caught:
        KeysInForce(Source(text=SecretStr(text)), clock=Clock(), record=Kept())
    assert "hello" not in str(caught.value)


# --- What cannot be read ---------------------------------------------------------------------------------------------


def torn(folder: Path) -> None:
    (folder / "1.pem").write_bytes(FIRST.text()[:90])


def gone(folder: Path) -> None:
    (folder / "1.pem").unlink()


def twice(folder: Path) -> None:
    put(folder / "2.pem", FIRST)


def misspelt(folder: Path) -> None:
    put(folder / "2.pem", SECOND).write_bytes(b"Sign-From: 2026-11-28T05:00:00Z\n" + SECOND.text())


def no_file(folder: Path) -> None:
    (folder / "2.pem").mkdir()


def endless(folder: Path) -> None:
    (folder / "2.pem").symlink_to("/dev/zero")


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink() if file.is_symlink() or file.is_file() else file.rmdir()


@pytest.mark.parametrize(
    ("breaks", "why"),
    [
        (torn, "no unencrypted private key"),
        (gone, "has no *.pem file"),
        (twice, "stands there twice"),
        (misspelt, "'Sign-From' is said of a key"),
        (no_file, "cannot be read (Is a directory)"),
        (endless, "it has more than 65536 bytes"),
    ],
)
async def test_what_is_broken_leaves_the_last_good_keys_and_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], breaks: Callable[[Path], None], why: str
) -> None:
    clock = Clock()
    put(tmp_path / "1.pem", FIRST)
    keys = in_force(tmp_path, clock)
    breaks(tmp_path)
    await keys.refresh()
    await keys.refresh()
    assert ids(keys) == ["first"]
    [line] = logged(capsys)
    assert (line["level"], line["signing"]) == ("error", FIRST.id)
    assert line["event"] == "signing keys not reloaded: the last good ones sign and verify"
    assert why in line["explained"]
    assert "PRIVATE" not in line["explained"]
    clock.ahead_seconds = REMIND_SECONDS + 1
    await keys.refresh()
    [line] = logged(capsys)
    assert line["failing_seconds"] >= REMIND_SECONDS
    await keys.refresh(anew=True)
    assert len(logged(capsys)) == 1, "whoever asks by SIGHUP is told"
    empty(tmp_path)
    put(tmp_path / "1.pem", FIRST)
    await keys.refresh()
    assert keys.failing is None
    assert [line["event"] for line in logged(capsys)] == ["signing keys unchanged"]


def test_a_folder_that_cannot_be_read_is_not_called_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "1.pem", FIRST)
    with pytest.raises(
        SettingsError, match=r"1\.pem/keys cannot be read \(Not a directory\)\. Name a file or a folder"
    ):
        Source(path=tmp_path / "1.pem" / "keys").contents()

    def denied(_: Path) -> None:  # as nobody denies root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(SettingsError) as caught:
        Source(path=tmp_path).contents()
    assert f"{tmp_path} cannot be read (Permission denied). " in str(caught.value)
    assert "keys new" not in str(caught.value)


async def test_a_bug_leaves_the_last_good_keys_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "1.pem", FIRST)
    keys = in_force(tmp_path)

    def broken(_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(signing_files, "parse_each", broken)
    put(tmp_path / "2.pem", SECOND)
    await keys.refresh()
    assert ids(keys) == ["first"]
    assert logged(capsys)[0]["event"] == "signing keys could not be read: a bug of the broker"
    assert keys.failing is not None


# --- What happens to keys --------------------------------------------------------------------------------------------


async def test_each_change_is_told_when_it_happens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock, kept = Clock(), Kept()
    put(tmp_path / "1.pem", FIRST)
    keys = in_force(tmp_path, clock, kept)
    await keys.note_changes()
    assert kept.told == [], "a broker that begins is no change of its keys"
    at = clock() + 1000
    put(tmp_path / "2.pem", SigningKey(id=SECOND.id, private=SECOND.private, signs_from=at))
    await keys.refresh()
    assert kept.told == [("announced", "second")]
    clock.ahead_seconds = 1001
    await keys.refresh()
    assert kept.told[1:] == [("signing", "second")]
    clock.ahead_seconds = 1001 + KEPT_SECONDS
    await keys.refresh()
    assert kept.told[2:] == [("removed", "first")]
    (tmp_path / "1.pem").unlink()
    await keys.refresh()
    assert len(kept.told) == 3
    events = [(line["event"], line.get("signs_from")) for line in logged(capsys) if "signs_from" in line]
    assert events == [
        ("signing key: announced", moment(at)),
        ("signing key: signing", moment(at)),
        ("signing key: removed", ""),
    ]


async def test_what_began_before_the_broker_did_is_told_to_the_record(tmp_path: Path) -> None:
    """Whoever takes keys from the environment learns of each by a restart. That it is recorded once is the state's."""
    kept = Kept()
    put(tmp_path / "1.pem", FIRST)
    put(tmp_path / "2.pem", SigningKey(id=SECOND.id, private=SECOND.private, signs_from=1.0))
    put(tmp_path / "3.pem", SigningKey(id=THIRD.id, private=THIRD.private, signs_from=4e9))
    await in_force(tmp_path, record=kept).note_changes()
    assert kept.told == [("signing", "second"), ("announced", "third")]


async def test_what_could_not_be_recorded_is_recorded_later(tmp_path: Path) -> None:
    kept = Kept()
    put(tmp_path / "1.pem", FIRST)
    keys = in_force(tmp_path, record=kept)
    kept.down = True
    put(tmp_path / "2.pem", SECOND)
    await keys.refresh()
    (tmp_path / "1.pem").unlink()
    await keys.refresh()
    assert kept.told == []
    kept.down = False
    await keys.refresh()
    assert kept.told == [("signing", "second"), ("removed", "first")]


@pytest.mark.parametrize(("signs_from", "late"), [(SINCE_EVER, False), (1.0, True)])
async def test_a_key_that_was_seen_too_late_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], signs_from: float, late: bool
) -> None:
    put(tmp_path / "1.pem", FIRST)
    keys = in_force(tmp_path)
    put(tmp_path / "2.pem", SigningKey(id=SECOND.id, private=SECOND.private, signs_from=signs_from))
    await keys.refresh()
    warning = logged(capsys)[0]
    assert (warning["level"], warning["key"]) == ("warning", SECOND.id)
    assert warning["event"].startswith("a signing key was seen when it signed already")
    assert ("late_seconds" in warning) == late


async def test_of_many_replicas_one_records_a_change(tmp_path: Path) -> None:
    states = [open_state(state_url(tmp_path), retention_days=400) for _ in range(3)]
    try:
        for change in ("announced", "signing"):
            told = []
            for state in states:
                attempt = attempt_of(change, SECOND.id, 1.8e9, signs_from=1.8e9)
                told.append(await record_once(state, attempt, what=name_of(attempt), seconds=REMEMBERED_SECONDS))
            assert told == [True, False, False]
        first, second = map(json.loads, await states[0].records(10))
    finally:
        for state in states:
            await state.close()
    assert (first["kind"], first["decision"], first["organization"]) == ("keys", "allowed", "")
    assert (first["change"], second["change"]) == ("announced", "signing")
    assert (first["key"], first["signs_from"]) == (SECOND.id, "2027-01-15T08:00:00Z")
    assert first["replica"]


# --- While a broker runs ---------------------------------------------------------------------------------------------


async def comes(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(20):
        while await ask() != wanted:  # noqa: ASYNC110 - a running broker is asked
            await asyncio.sleep(0.02)


async def test_every_use_of_a_running_broker_sees_the_new_set_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    put(folder / "1.pem", FIRST)
    async with Setup(folder=tmp_path, settings={"signing_keys": folder}).running() as broker:

        async def published() -> list[str]:
            answer = await broker.client.get("/.well-known/jwks.json")
            assert answer.headers["cache-control"] == "public, max-age=300"
            return [key["kid"] for key in answer.json()["keys"]]

        async def standing() -> dict[str, Any]:
            told: dict[str, Any] = (await broker.client.get("/readyz")).json()["signing_keys"]
            return told

        async def current() -> object:
            return (await standing())["current"]

        assert await published() == [FIRST.id]
        before, repeated = await broker.minted(), broker.ci.token("gitlab")
        same = (await broker.mint(repeated)).json()["token"]
        put(folder / "2.pem", SigningKey(id=SECOND.id, private=SECOND.private, signs_from=int(broker.clock()) + 200))
        await comes(published, [FIRST.id, SECOND.id])
        assert await standing() == {"current": True, "signing": FIRST.id, "announced": [SECOND.id], "retiring": []}
        assert key_of(await broker.minted()) == FIRST.id
        broker.clock.ahead_seconds = 201
        assert await standing() == {"current": True, "signing": SECOND.id, "announced": [], "retiring": [FIRST.id]}
        assert key_of(await broker.minted()) == SECOND.id
        assert (await broker.mint(repeated)).json()["token"] == same
        (folder / "1.pem").write_text("broken")
        await comes(current, False)
        answer = await broker.client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json()["signing_keys"]["failing_seconds"] >= 0
        assert str(folder) not in answer.text
        assert key_of(await broker.minted()) == SECOND.id
        (folder / "1.pem").unlink()
        await comes(published, [SECOND.id])
        assert key_of(await broker.minted()) == SECOND.id
        answer = await broker.mint(repeated)
        assert answer.json()["errors"][0]["code"] == "replayed-token", "its key is gone, and it cannot be given again"
        await broker.client.post("/_/oidc/burn-token", json={"token": before})
        records = await broker.records()
        assert [record["kind"] for record in records].count("revocation") == 0, "it is no token any more"
        assert [(record["change"], record["key"]) for record in records if record["kind"] == "keys"] == [
            ("announced", SECOND.id),
            ("signing", SECOND.id),
            ("removed", FIRST.id),
        ]


def key_of(token: str) -> str:
    """The id of the key that signed."""
    return next(id_ for id_, header in HEADERS.items() if token.startswith(f"pypi-{header}."))


HEADERS = {key.id: key.header for key in (FIRST, SECOND, THIRD)}
