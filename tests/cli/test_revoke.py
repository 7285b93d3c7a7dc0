"""`broker revoke`: what was minted is worthless at once, and what was not minted yet is not touched."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from broker.cli import main
from broker.state.opening import open_state
from tests.cli.publishing import before, publish
from tests.environment import environment
from tests.harness import Broker, Setup, state_url
from tests.registries import PypiServer
from tests.web.test_mint_refusals import check_refusal

pytestmark = pytest.mark.anyio

EVERY = [
    ("everything",),
    ("organization", "acme"),
    ("publisher", "acme/widgets-release"),
    ("member", "acme/alice"),
    ("actor", "github", "1001"),
    ("issuer", "github"),
    ("run", "github", "17423456789"),
]
OTHERS = [
    ("organization", "bolt"),
    ("publisher", "acme/widgets-gitlab"),
    ("member", "acme/bob"),
    ("actor", "gitlab", "1001"),
    ("actor", "github", "77"),
    ("issuer", "gitlab"),
    ("run", "gitlab", "17423456789"),
    ("run", "github", "1"),
    ("token", "17423456789"),
]


async def revoke(broker: Broker, *arguments: str) -> int:
    """`broker revoke`, beside the running broker."""
    more = ["--reason", "a leak", "--state", state_url(broker.folder), "--policies", str(broker.folder / "policies")]
    return await asyncio.to_thread(main, ["revoke", *arguments, *more])


@pytest.mark.parametrize("what", EVERY, ids=" ".join)
async def test_what_was_minted_is_worthless_at_once(
    tmp_path: Path, registry: PypiServer, capsys: pytest.CaptureFixture[str], what: tuple[str, ...]
) -> None:
    async with before(registry, tmp_path).running() as broker:
        token = await broker.minted()
        capsys.readouterr()
        assert await revoke(broker, *what) == 0
        assert "revoked: " in capsys.readouterr().out
        answer = await publish(broker, token)
        check_refusal(answer, "revoked-token", 403)
        revocation = (await broker.records())[1]
        assert (revocation["kind"], revocation["reason"]) == ("revocation", "a leak")
        assert revocation["minted_until"] <= time.time()
        assert revocation["organization"] == ("acme" if what[0] in {"organization", "publisher", "member"} else "")
    assert registry.stored() == {}


@pytest.mark.parametrize("what", OTHERS, ids=" ".join)
async def test_what_others_minted_is_not_touched(tmp_path: Path, registry: PypiServer, what: tuple[str, ...]) -> None:
    async with before(registry, tmp_path).running() as broker:
        token = await broker.minted()
        assert await revoke(broker, *what) == 0
        answer = await publish(broker, token)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("what", "note"),
    [
        (("issuer", "githbu"), "no issuer 'githbu'"),
        (("actor", "githbu", "1001"), "no issuer 'githbu'"),
        (("actor", "github", "alice"), "no member with the id 'alice' at 'github' (a login is none)"),
        (("actor", "gitlab", "1001"), "no member with the id '1001' at 'gitlab'"),
        (("actor", "github", "1001"), ""),
        (("run", "githbu", "1"), "no issuer 'githbu'"),
        (("organization", "Acme"), "no organization 'Acme'"),
        (("publisher", "bolt/x"), "no organization 'bolt'"),
        (("publisher", "acme/x"), "no publisher 'acme/x'"),
        (("publisher", "acme/widgets-release"), ""),
        (("everything",), ""),
    ],
)
def test_a_name_that_the_policies_do_not_have_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: tuple[str, ...], note: str
) -> None:
    policies = Setup(folder=tmp_path).write().policies
    asyncio.run(_made(state_url(tmp_path)))
    with environment(BROKER_POLICIES=str(policies)):
        assert main(["revoke", *what, "--reason", "x", "--state", state_url(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("revoked: ")
    assert (note in told.err, bool(told.err)) == (True, bool(note))


async def _made(url: str) -> None:
    state = open_state(url, retention_days=1)
    await state.ping()
    await state.close()


def test_where_no_policies_load_names_are_taken_as_they_are_and_that_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(_made(state_url(tmp_path)))
    more = ["--reason", "x", "--state", state_url(tmp_path), "--policies", str(tmp_path / "none")]
    assert main(["revoke", "issuer", "githbu", *more]) == 0
    assert f"no policies load from {tmp_path / 'none'}" in capsys.readouterr().err
    assert main(["revoke", "everything", *more]) == 0
    assert main(["revoke", "token", "x", *more]) == 0
    assert capsys.readouterr().err == ""


async def test_a_token_is_revoked_by_its_id(tmp_path: Path, registry: PypiServer) -> None:
    async with before(registry, tmp_path).running() as broker:
        token = await broker.minted()
        (mint,) = await broker.records()
        assert await revoke(broker, "token", mint["token_id"]) == 0
        check_refusal(await publish(broker, token), "revoked-token", 403)
        assert (await broker.records())[1]["token_id"] == mint["token_id"]


async def test_what_is_minted_afterwards_is_good(tmp_path: Path, registry: PypiServer) -> None:
    async with before(registry, tmp_path).running() as broker:
        await broker.minted()  # there is state from the first use on
        assert await revoke(broker, "everything") == 0
        broker.clock.ahead_seconds = 2
        answer = await publish(broker, await broker.minted())
        assert answer.status_code == 200


async def test_an_earlier_moment_spares_what_was_minted_since(tmp_path: Path, registry: PypiServer) -> None:
    async with before(registry, tmp_path).running() as broker:
        token = await broker.minted()
        assert await revoke(broker, "everything", "--before", "2026-01-01T00:00:00+01:00") == 0
        answer = await publish(broker, token)
        assert answer.status_code == 200


async def test_a_revoked_token_is_not_given_again(tmp_path: Path, registry: PypiServer) -> None:
    async with before(registry, tmp_path).running() as broker:
        token = broker.ci.token("gitlab")
        assert (await broker.mint(token)).status_code == 200
        assert await revoke(broker, "member", "acme/alice") == 0
        check_refusal(await broker.mint(token), "revoked-token", 403)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["organization"], 2, "write 'organization NAME'"),
        (["everything", "acme"], 2, "write 'everything'."),
        (["publisher", "acme"], 2, "write ORGANIZATION/NAME"),
        (["actor", "github", ""], 2, "write 'actor ISSUER ID'"),
        (["member", "acme/mallory"], 2, "`actor ISSUER ID`"),
        (["member", "nobody/alice"], 2, "no member nobody/alice"),
        (["member", "acme/idless"], 2, "no id at any issuer"),
    ],
)
def test_what_names_nothing_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    made = Setup(folder=tmp_path)
    made.acme = made.acme.replace("members:\n", "members:\n  idless: {role: member}\n")
    policies = made.write().policies
    more = ["--reason", "x", "--state", state_url(tmp_path), "--policies", str(policies)]
    assert main(["revoke", *arguments, *more]) == status
    assert words in capsys.readouterr().err


def test_broken_policies_and_a_missing_state_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--reason", "x", "--state", state_url(tmp_path)]
    assert main(["revoke", "member", "acme/alice", "--policies", str(tmp_path / "none"), *more]) == 1
    assert "broker revoke: " in capsys.readouterr().err
    assert main(["revoke", "everything", *more]) == 1
    assert "there is no state at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--reason", " ", "write one line"),
        ("--reason", "a\nb", "write one line"),
        ("--reason", "x" * 501, "at most 500"),
        ("--before", "yesterday", "write a moment such as"),
        ("--before", "2026-01-01T00:00:00", "time zone"),
        ("--before", "2999-01-01T00:00:00Z", "still to come"),
    ],
)
def test_a_wrong_flag_is_explained(capsys: pytest.CaptureFixture[str], flag: str, value: str, words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["revoke", "everything", "--reason", "x", flag, value])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
