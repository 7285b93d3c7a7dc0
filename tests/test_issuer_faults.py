"""Issuers that misbehave at the wire: every mint answers within the 5 s that clients wait, with its code."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from broker import keys
from tests import issuer as wire
from tests.harness import Broker, Clock, Setup

pytestmark = pytest.mark.anyio

CLIENTS_WAIT_SECONDS = 5.0


def setup(folder: Path, issuer: wire.Issuer, clock: Clock | None = None) -> Setup:
    """A broker that asks that issuer over the network."""
    return Setup(
        folder=folder,
        index=wire.index(issuer),
        ci=issuer.ci,
        issuers=httpx.AsyncHTTPTransport(),
        clock=clock or Clock(),
        settings={"allow_loopback_issuers": True, "exchanges_per_minute": 10_000, "refusals_per_minute": 0},
    )


def code(answer: httpx.Response) -> str:
    """The refusal's code; empty for success."""
    return "" if answer.status_code == 200 else str(answer.json()["errors"][0]["code"])


@pytest.mark.parametrize(
    "behaviour",
    [
        wire.slow,
        wire.hanging,
        wire.dripping,
        wire.huge,
        wire.compressed,
        wire.html,
        wire.elsewhere,
        wire.impostor,
        wire.plain_key_address,
        wire.secret_key_address,
        wire.without_keys,
        wire.no_object,
    ],
    ids=lambda behaviour: behaviour.__name__,
)
async def test_an_issuer_that_misbehaves_is_answered_for_in_time(
    tmp_path: Path, behaviour: wire.Behaviour, capsys: pytest.CaptureFixture[str]
) -> None:
    async with wire.serving(behaviour) as issuer, setup(tmp_path, issuer).running() as broker:
        for _ in range(2):
            began = time.monotonic()
            assert code(await broker.mint(issuer.ci.token())) == "keys-unavailable"
            assert time.monotonic() - began < CLIENTS_WAIT_SECONDS
        ready = await broker.client.get("/readyz")
        assert ready.status_code == 503
        for told in (ready.text, capsys.readouterr().out):
            assert "hunter2" not in told
            assert len(told) < 10_000


async def test_an_issuer_that_is_down_is_answered_for_in_time_and_found_again(tmp_path: Path) -> None:
    clock = Clock()
    async with wire.serving() as issuer, setup(tmp_path, issuer, clock).running() as broker:
        assert code(await broker.mint(issuer.ci.token())) == ""
    down = wire.Issuer(issuer.port, issuer.ci, wire.well)
    async with setup(tmp_path / "fresh", down, clock).running() as broker:
        began = time.monotonic()
        assert code(await broker.mint(issuer.ci.token())) == "keys-unavailable"
        assert time.monotonic() - began < CLIENTS_WAIT_SECONDS
        async with wire.serving(port=down.port):
            clock.ahead_seconds += keys.COOL_DOWN_SECONDS
            assert code(await broker.mint(issuer.ci.token())) == ""


def told(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str, str]]:
    """What was logged of issuers' keys."""
    lines = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    return [(one["event"], one["level"], one.get("cause", "")) for one in lines if "issuer's keys" in one["event"]]


async def test_an_issuer_that_cannot_be_reached_is_logged_once_with_the_cause_and_when_it_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    async with wire.serving() as issuer:
        pass
    async with setup(tmp_path, issuer, clock).running() as broker:
        for _ in range(3):
            assert code(await broker.mint(issuer.ci.token())) == "keys-unavailable"
            clock.ahead_seconds += keys.COOL_DOWN_SECONDS
        stands = (await broker.client.get("/readyz")).json()["issuers"]["github"]["problem"]
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        began = [line for line in lines if line["event"] == "an issuer's keys cannot be fetched"]
        assert [(line["level"], line["cause"]) for line in began if line["issuer"] == "github"] == [("warning", stands)]
        assert stands.endswith("/.well-known/openid-configuration: ConnectError: Connection refused")
        assert [line["cause"] for line in lines if line["event"] == "keys-unavailable"] == [
            f"FetchError('{stands}')"
        ] * 3
        async with wire.serving(wire.html, port=issuer.port):
            assert code(await broker.mint(issuer.ci.token())) == "keys-unavailable"
            assert {(level, cause.split(": ")[-1]) for _, level, cause in told(capsys)} == {
                ("warning", "JSONDecodeError")
            }
        clock.ahead_seconds += keys.COOL_DOWN_SECONDS
        async with wire.serving(port=issuer.port) as well:
            assert code(await broker.mint(well.ci.token())) == ""
            assert ("an issuer's keys are fetched again", "info", "") in told(capsys)


async def flood(broker: Broker, issuer: wire.Issuer, most: int) -> Counter[str]:
    claims = issuer.ci.claims("github")
    codes: Counter[str] = Counter()
    for start in range(0, most, 100):
        tokens = [issuer.ci.sign({"iss": claims["iss"], "n": start + n}, kid=secrets.token_hex(8)) for n in range(100)]
        codes.update(code(answer) for answer in await asyncio.gather(*map(broker.mint, tokens)))
    return codes


async def test_a_thousand_random_key_ids_cause_at_most_two_fetches(tmp_path: Path) -> None:
    async with wire.serving() as issuer, setup(tmp_path, issuer).running() as broker:
        assert await flood(broker, issuer, 1000) == {"unknown-key": 1000}
        fetched = Counter(path for path in issuer.asked if path.startswith("/github"))
        assert fetched
        assert max(fetched.values()) <= 2
        assert code(await broker.mint(issuer.ci.token())) == ""


async def test_an_issuer_without_our_key_is_asked_again_only_after_the_cool_down(tmp_path: Path) -> None:
    clock = Clock()
    async with wire.serving() as issuer, setup(tmp_path, issuer, clock).running() as broker:
        assert code(await broker.mint(issuer.ci.token())) == ""
        before = len(issuer.asked)
        stranger = issuer.ci.sign(issuer.ci.claims("github"), kid="not-published-yet")
        assert code(await broker.mint(stranger)) == "unknown-key"
        assert len(issuer.asked) == before
        clock.ahead_seconds += keys.COOL_DOWN_SECONDS
        assert code(await broker.mint(stranger)) == "unknown-key"
        assert len(issuer.asked) > before


async def test_keys_outlive_an_outage_and_a_restart_but_not_the_hard_age(tmp_path: Path) -> None:
    clock = Clock()
    async with wire.serving() as issuer:
        async with setup(tmp_path, issuer, clock).running() as broker:
            assert code(await broker.mint(issuer.ci.token())) == ""
            issuer.behaviour = wire.html
            clock.ahead_seconds += keys.SOFT_AGE_SECONDS + 1
            now = int(clock())
            assert code(await broker.mint(issuer.ci.token(iat=now, nbf=now, exp=now + 300))) == ""
        async with setup(tmp_path, issuer, clock).running() as broker:
            now = int(clock())
            assert code(await broker.mint(issuer.ci.token(iat=now, nbf=now, exp=now + 300))) == ""
            clock.ahead_seconds += keys.HARD_AGE_SECONDS
            now = int(clock())
            assert code(await broker.mint(issuer.ci.token(iat=now, nbf=now, exp=now + 300))) == "keys-unavailable"


async def test_a_removed_key_stops_working(tmp_path: Path) -> None:
    clock = Clock()
    async with wire.serving() as issuer, setup(tmp_path, issuer, clock).running() as broker:
        assert code(await broker.mint(issuer.ci.token())) == ""
        replaced = issuer.ci.documents()[f"{issuer.ci.urls['gitlab']}/oauth/discovery/keys"].replace(
            issuer.ci.key_id("gitlab").encode(), b"its-successor"
        )

        async def rotated(of: wire.Issuer, path: str, writer: asyncio.StreamWriter) -> None:
            if path == "/github/.well-known/jwks":
                await wire.reply(writer, replaced)
            else:
                await wire.well(of, path, writer)

        issuer.behaviour = rotated
        clock.ahead_seconds += keys.COOL_DOWN_SECONDS
        now = int(clock())
        successor = issuer.ci.sign(issuer.ci.claims("github", iat=now, exp=now + 300), "gitlab", kid="its-successor")
        assert code(await broker.mint(successor)) == ""
        assert code(await broker.mint(issuer.ci.token(iat=now, exp=now + 300))) == "unknown-key"
