"""What every State does, asked of each: SQLite, a real Redis, a real Redis Cluster."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from dataclasses import replace

import pytest

from broker.api_tokens import ApiToken
from broker.audit import Record
from broker.chain import Head, Verification, digest, genesis, link
from broker.refusals import StateUnavailable
from broker.state import (
    THROWERS,
    AlertProgress,
    AlertStep,
    AlertToSend,
    Busy,
    Claim,
    Claimed,
    Forgotten,
    Limit,
    Memorized,
    Objections,
    Outcome,
    OverLimit,
    PinTaken,
    Settled,
    Settlement,
    Spent,
    State,
    StoredKeys,
    SwitchedOff,
    Waiting,
    Written,
)
from broker.state.encoding import to_bytes
from broker.tokens import LEEWAY_SECONDS
from tests.state.conftest import Opening
from tests.state.examples import claim, is_revoked, limit, pin, record, settlement, switch

pytestmark = pytest.mark.anyio

HOSTILE = [
    "",
    "\0",
    "acme\0evil",
    "\ud800",
    "before \udfff\ud800 after",
    "line\nbreak\r\n*1\r\n$4\r\nPING\r\n",
    "'; DROP TABLE spends; --",
    "{other}:slot",
    "Ünïcödé 🐍",
    "x" * 20_000,
]

# --- Spending --------------------------------------------------------------------------------------------------------


async def test_a_token_is_spent_once(state: State) -> None:
    assert await state.settle(settlement(spend="token", receipt="first")) == Settled()
    assert await state.settle(settlement(spend="token", receipt="second")) == Spent(receipt="first")
    assert await state.settle(settlement(spend="another token")) == Settled()


async def test_of_100_at_once_at_two_replicas_one_settles(opening: Opening) -> None:
    replicas = [opening(), opening()]
    outcomes = await asyncio.gather(
        *(replicas[n % 2].settle(settlement(spend="token", receipt=f"receipt {n}")) for n in range(100))
    )
    winners = [n for n, outcome in enumerate(outcomes) if outcome == Settled()]
    assert len(winners) == 1
    assert Counter(outcomes)[Spent(receipt=f"receipt {winners[0]}")] == 99
    assert len(await replicas[0].records(200)) == 1


async def test_of_100_different_tokens_at_once_all_settle(state: State) -> None:
    outcomes = await asyncio.gather(*(state.settle(settlement(receipt="r" * 500)) for _ in range(100)))
    assert set(outcomes) == {Settled()}
    assert len(await state.records(200)) == 100


async def test_the_same_attempt_again_is_settled_again_and_changes_nothing(state: State) -> None:
    """So that a lost answer may be asked for again."""
    once = settlement(spend="token", limits=(limit(burst=1),), pins=(pin(),))
    assert [await state.settle(once) for _ in range(3)] == [Settled()] * 3
    assert await state.records(10) == [once.record.body]
    assert await state.settle(settlement(spend="token")) == Spent(receipt=once.receipt)


async def test_a_token_is_remembered_for_its_time_and_no_longer(state: State) -> None:
    until = math.ceil(time.time()) + 1
    assert await state.settle(settlement(spend="token", spend_until=until)) == Settled()
    await asyncio.sleep(max(until - time.time() - 0.3, 0))
    assert isinstance(await state.settle(settlement(spend="token")), Spent)
    await asyncio.sleep(until - time.time() + 0.3)
    assert await state.settle(settlement(spend="token")) == Settled()


@pytest.mark.parametrize("seconds", [0, -1, -1_000_000])
def test_a_token_whose_time_is_over_is_never_silently_forgotten(seconds: int) -> None:
    with pytest.raises(ValueError):
        settlement(now=1_700_000_000.0, spend_until=1_700_000_000 + seconds)


# --- Pins ------------------------------------------------------------------------------------------------------------


async def test_the_first_use_is_pinned_and_the_same_again_is_no_conflict(state: State) -> None:
    owner = pin("65600975", field="repository_owner_id")
    assert await state.settle(settlement(pins=(pin("42"), owner))) == Settled()
    assert await state.settle(settlement(pins=(pin("42"),))) == Settled()
    assert await state.pins(["acme/widgets-release", "acme/none"]) == {
        "acme/widgets-release": {"repository_id": "42", "repository_owner_id": "65600975"}
    }
    assert await state.pins([]) == {}


async def test_a_conflict_changes_nothing_and_does_not_spend_the_token(state: State) -> None:
    await state.settle(settlement(pins=(pin("42"),)))
    fresh, conflict = pin("7", field="environment_id"), pin("43")
    refused = settlement(spend="token", pins=(fresh, conflict, pin("9", publisher="acme/other")))
    assert await state.settle(refused) == PinTaken(pin=conflict)
    assert await state.pins(["acme/widgets-release", "acme/other"]) == {"acme/widgets-release": {"repository_id": "42"}}
    assert len(await state.records(10)) == 1
    assert await state.settle(settlement(spend="token", pins=(pin("42"),))) == Settled()


async def test_of_20_first_uses_at_once_one_identity_is_pinned(opening: Opening) -> None:
    replicas = [opening(), opening()]
    outcomes = await asyncio.gather(*(replicas[n % 2].settle(settlement(pins=(pin(str(n % 5)),))) for n in range(20)))
    (pinned,) = (await replicas[0].pins(["acme/widgets-release"]))["acme/widgets-release"].values()
    assert [n for n, outcome in enumerate(outcomes) if outcome == Settled()] == [
        n for n in range(20) if str(n % 5) == pinned
    ]


# --- Limits ----------------------------------------------------------------------------------------------------------


async def test_a_burst_passes_and_then_one_each_interval(state: State) -> None:
    now = time.time()

    async def ask(later: float) -> int:
        outcome = await state.settle(settlement(now=now + later, limits=(limit(burst=3, per_seconds=60),)))
        return outcome.retry_after_seconds if isinstance(outcome, OverLimit) else 0

    assert [await ask(0) for _ in range(5)] == [0, 0, 0, 20, 20]
    assert [await ask(5), await ask(19.5)] == [15, 1]
    assert [await ask(20), await ask(20)] == [0, 20]
    assert [await ask(200) for _ in range(4)] == [0, 0, 0, 20]


@pytest.mark.parametrize(("burst", "per_seconds"), [(1, 1), (7, 60), (60, 60), (100, 3600), (1000, 1)])
async def test_a_burst_is_exactly_as_large_as_it_says(state: State, burst: int, per_seconds: int) -> None:
    now = time.time()
    outcomes: list[Outcome] = []
    while (left := burst + 2 - len(outcomes)) > 0:  # a hundred at once: a slow machine is no part of this promise
        asked = (settlement(now=now, limits=(limit(burst, per_seconds),)) for _ in range(min(left, 100)))
        outcomes += await asyncio.gather(*map(state.settle, asked))
    assert Counter(type(outcome) for outcome in outcomes) == {Settled: burst, OverLimit: 2}


async def test_retry_after_is_rounded_up_and_never_zero(state: State) -> None:
    now, quick = time.time(), limit(burst=10, per_seconds=1)
    for _ in range(10):
        await state.settle(settlement(now=now, limits=(quick,)))
    assert await state.settle(settlement(now=now, limits=(quick,))) == OverLimit(retry_after_seconds=1, key=quick.key)
    uneven = limit(burst=2, per_seconds=5, key="uneven")
    for _ in range(2):
        await state.settle(settlement(now=now, limits=(uneven,)))
    assert await state.settle(settlement(now=now, limits=(uneven,))) == OverLimit(retry_after_seconds=3, key="uneven")


async def test_over_a_limit_nothing_is_written(state: State) -> None:
    now, wide, narrow = time.time(), limit(burst=2, key="wide"), limit(burst=1, key="narrow")
    assert await state.settle(settlement(now=now, limits=(narrow,))) == Settled()
    refused = settlement(now=now, limits=(wide, narrow), spend="token", pins=(pin(),))
    for _ in range(5):
        assert await state.settle(refused) == OverLimit(retry_after_seconds=60, key="narrow")
    assert await state.pins(["acme/widgets-release"]) == {}
    assert len(await state.records(10)) == 1
    # The wide limit was not counted either, and the token is as good as new.
    assert await state.settle(settlement(now=now, limits=(wide,), spend="token")) == Settled()
    assert await state.settle(settlement(now=now, limits=(wide,))) == Settled()
    assert isinstance(await state.settle(settlement(now=now, limits=(wide,))), OverLimit)


async def test_of_several_limits_the_longest_wait_is_told(state: State) -> None:
    now, limits = (
        time.time(),
        (limit(burst=1, per_seconds=100, key="long"), limit(burst=1, per_seconds=10, key="short")),
    )
    assert await state.settle(settlement(now=now, limits=limits)) == Settled()
    assert await state.settle(settlement(now=now, limits=limits)) == OverLimit(retry_after_seconds=100, key="long")


async def test_replays_are_limited_by_themselves_and_use_up_nothing_of_others(state: State) -> None:
    now, one, three = time.time(), (limit(burst=1, key="everybody's"),), limit(burst=3, key="of this token")
    assert await state.settle(settlement(now=now, spend="token", again=three, receipt="first")) == Settled()
    replay = settlement(now=now, spend="token", limits=one, again=three)
    assert [await state.settle(replay) for _ in range(3)] == [Spent(receipt="first")] * 3
    assert await state.settle(replay) == OverLimit(retry_after_seconds=20, key="of this token")
    assert await state.settle(settlement(now=now, limits=one, again=three, pins=(pin(),))) == Settled()
    assert await state.settle(settlement(now=now, limits=one, again=three)) == OverLimit(
        retry_after_seconds=60, key="everybody's"
    )


def test_a_limit_counts_once_in_a_settlement() -> None:
    with pytest.raises(ValueError):
        settlement(limits=(limit(burst=1),), again=limit(burst=1))


async def test_replays_without_a_limit_of_their_own_count_for_nothing(state: State) -> None:
    now, one = time.time(), (limit(burst=1),)
    await state.settle(settlement(now=now, spend="token"))
    assert isinstance(await state.settle(settlement(now=now, spend="token", limits=one)), Spent)
    assert await state.settle(settlement(now=now, limits=one)) == Settled()


async def test_an_exchange_whose_pin_is_taken_counts(state: State) -> None:
    now, one = time.time(), (limit(burst=1),)
    await state.settle(settlement(pins=(pin("42"),)))
    assert isinstance(await state.settle(settlement(now=now, pins=(pin("43"),), limits=one)), PinTaken)
    assert isinstance(await state.settle(settlement(now=now, limits=one)), OverLimit)


async def test_a_record_is_appended_with_what_it_counts_and_whether_that_is_over(state: State) -> None:
    now, narrow, wide = time.time(), limit(burst=2, key="narrow"), limit(burst=3, key="wide")
    assert [await state.append(record(), (narrow, wide), now=now) for _ in range(2)] == [None, None]
    over = OverLimit(retry_after_seconds=30, key="narrow")
    assert [await state.append(record(), (narrow, wide), now=now) for _ in range(3)] == [over] * 3
    assert await state.append(record(), (wide,), now=now) is None  # it was not counted where the other was over
    assert await state.append(record(), (wide,), now=now) == OverLimit(retry_after_seconds=20, key="wide")
    assert len(await state.records(100)) == 7
    assert await state.append(record(), (narrow,), now=now + 30) is None


async def test_of_50_records_at_once_at_two_replicas_as_many_are_counted_as_may(opening: Opening) -> None:
    replicas, now = [opening(), opening()], time.time()
    appended = await asyncio.gather(*(replicas[n % 2].append(record(), (limit(burst=20),), now=now) for n in range(50)))
    assert Counter(one is None for one in appended) == {True: 20, False: 30}
    assert len(await replicas[0].records(100)) == 50


async def test_a_spent_token_is_told_before_a_taken_pin(state: State) -> None:
    await state.settle(settlement(spend="token", pins=(pin("42"),)))
    assert isinstance(await state.settle(settlement(spend="token", pins=(pin("43"),))), Spent)


async def test_a_clock_that_was_wrong_for_a_while_blocks_nobody_for_longer_than_a_window(state: State) -> None:
    now, narrow = time.time(), limit(burst=1, per_seconds=60)
    next_year = settlement(now=now + 365 * 86400, limits=(narrow,))
    assert await state.settle(next_year) == Settled()
    assert await state.settle(settlement(now=now, limits=(narrow,))) == OverLimit(
        retry_after_seconds=60, key=narrow.key
    )


@pytest.mark.parametrize(("burst", "per_seconds"), [(0, 60), (-1, 60), (1, 0)])
def test_a_limit_that_means_nothing_is_a_mistake(burst: int, per_seconds: int) -> None:
    with pytest.raises(ValueError):
        Limit(key="mint", burst=burst, per_seconds=per_seconds)


@pytest.mark.parametrize("changes", [{"limits": (limit(1), limit(2))}, {"pins": (pin("1"), pin("2"))}])
def test_what_stands_twice_in_a_settlement_is_a_mistake(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        settlement(**changes)


# --- Since when it remembers -----------------------------------------------------------------------------------------


async def test_a_new_state_takes_tokens_that_were_issued_a_moment_ago(opening: Opening) -> None:
    now = time.time()
    assert await opening().settle(settlement(now=now, issued_at=now - LEEWAY_SECONDS + 1)) == Settled()
    assert await opening().settle(settlement(now=now, issued_at=now - LEEWAY_SECONDS - 1)) == Forgotten()


async def test_what_was_issued_before_the_state_began_is_neither_spent_nor_written(opening: Opening) -> None:
    """It may have been exchanged before, and nobody knows."""
    state = opening()
    older = settlement(spend="token", issued_at=time.time() - 100, pins=(pin(),))
    assert [await state.settle(older) for _ in range(2)] == [Forgotten()] * 2
    assert await state.records(10) == []
    assert await state.pins(["acme/widgets-release"]) == {}
    assert await state.settle(settlement(spend="token")) == Settled()


async def test_tokens_that_are_too_old_count(opening: Opening) -> None:
    state = opening()
    now, one = time.time(), (limit(burst=1),)
    assert await state.settle(settlement(now=now, limits=one, issued_at=now - 100)) == Forgotten()
    assert isinstance(await state.settle(settlement(now=now, limits=one)), OverLimit)


async def test_what_is_known_to_be_spent_is_told_so(opening: Opening) -> None:
    state = opening()
    await state.settle(settlement(spend="token", receipt="first"))
    assert await state.settle(settlement(spend="token", issued_at=0.0)) == Spent(receipt="first")


async def test_an_upload_token_from_before_is_as_good_as_revoked(opening: Opening) -> None:
    """Whoever revoked it was told that it is done."""
    now, state = int(time.time()), opening()
    assert await is_revoked(state, "token", (), now)  # nothing is remembered yet
    await state.begin(now)
    minted = (now - LEEWAY_SECONDS - 1, now - LEEWAY_SECONDS, now)
    assert [await is_revoked(state, "token", (), moment) for moment in minted] == [True, False, False]


async def test_beginning_again_changes_nothing(opening: Opening) -> None:
    now = time.time()
    for later in (0, 50, 1000):
        await opening().begin(now + later)
    assert not await is_revoked(opening(), "token", (), int(now))


# --- Records, revocations, keys --------------------------------------------------------------------------------------


async def test_records_are_the_newest_oldest_first(state: State) -> None:
    for number in range(6):
        await state.append(record(body=str(number), organization="acme" if number % 2 else "bolt"))
    await state.settle(settlement(record=record(body="6", organization="bolt")))
    await state.revoke("token", int(time.time()) + 60, record(body="7", organization=""))
    assert await state.records(100) == list("01234567")
    assert await state.records(3) == list("567")
    assert await state.records(0) == []
    assert await state.records(2, "acme") == list("35")
    assert await state.records(100, "bolt") == list("0246")
    assert await state.records(100, "") == ["7"]
    assert await state.records(100, "nobody") == []


async def test_one_organizations_records_are_found_among_many_of_others(state: State) -> None:
    await state.append(record(body="ours", organization="acme"))
    for _ in range(15):
        await asyncio.gather(*(state.append(record(organization="bolt")) for _ in range(100)))
    assert await state.records(10, "acme") == ["ours"]


async def test_records_are_linked_in_the_order_of_appending(state: State) -> None:
    """By whichever method they came, at whichever replica."""
    await state.append(record(body="one"))
    await state.settle(settlement(record=record(body="two")))
    await state.append(record(body="other", organization="bolt"))
    await state.revoke("jti", int(time.time()) + 60, record(body="three"))
    await state.revoke_subject("everything", int(time.time()), record(body="nobody's \ud800", organization=""))
    kept = await state.records_after("", 100)
    assert [(one.organization, one.sequence, one.body) for one in kept] == [
        ("acme", 1, "one"),
        ("acme", 2, "two"),
        ("bolt", 1, "other"),
        ("acme", 3, "three"),
        ("", 1, "nobody's \ud800"),
    ]
    links = {name: genesis(name) for name in ("acme", "bolt", "")}
    for one in kept:
        links[one.organization] = link(links[one.organization], digest(to_bytes(one.body)))
        assert one.link == links[one.organization]
    assert await state.heads() == {
        name: Head(sequence=sequence, link=links[name], swept_sequence=0, swept_link=genesis(name))
        for name, sequence in (("acme", 3), ("bolt", 1), ("", 1))
    }


async def test_what_several_organizations_are_told_of_one_attempt_is_kept_in_the_chain_of_each(state: State) -> None:
    """By whichever method it came, and by a repeated settlement no more than once."""

    def told(number: int) -> Record:
        others = (record(body=f"bolt {number}", organization="bolt"), record(body=f"none {number}", organization=""))
        return record(body=f"acme {number}", others=others)

    now = int(time.time())
    once = settlement(record=told(0))
    assert [await state.settle(once) for _ in range(2)] == [Settled()] * 2
    await state.append(told(1), [limit(burst=1)], now=now)
    await state.revoke("jti", now + 60, told(2))
    await state.revoke_subject("issuer github", now, told(3))
    await state.switch_off(switch("issuer github"), told(4))
    assert await state.switch_on("issuer github", "operator", told(5))
    kept = await state.records_after("", 100)
    assert [one.body for one in kept] == [
        f"{name} {number}" for number in range(6) for name in ("acme", "bolt", "none")
    ]
    for name, organization in (("acme", "acme"), ("bolt", "bolt"), ("none", "")):
        assert await state.records(100, organization) == [f"{name} {number}" for number in range(6)]
        assert [one.sequence for one in kept if one.organization == organization] == [1, 2, 3, 4, 5, 6]
    verification = Verification(await state.heads())
    verification.follow(kept)
    verification.finish()
    assert verification.findings == []


async def test_what_is_not_settled_leaves_a_record_with_nobody(state: State) -> None:
    both = record(others=(record(organization="bolt"),))
    await state.settle(settlement(spend="t", receipt="first", pins=(pin("1"),)))
    assert await state.settle(settlement(spend="t", record=both)) == Spent(receipt="first")
    assert isinstance(await state.settle(settlement(pins=(pin("2"),), record=both)), PinTaken)
    assert await state.records(10, "bolt") == []


async def test_records_are_read_page_by_page_from_any_position(state: State) -> None:
    for number in range(7):
        await state.append(record(body=f"acme {number}"))
        await state.append(record(body=f"bolt {number}", organization="bolt"))
    for organization in ("acme", "bolt"):
        position, read = "", []
        while page := await state.records_after(position, 3, organization):
            position = page[-1].position
            read += [one.body for one in page]
        assert read == [f"{organization} {number}" for number in range(7)]
    everything = await state.records_after("", 100)
    assert [one.body for one in everything] == [f"{name} {number}" for number in range(7) for name in ("acme", "bolt")]
    assert await state.records_after(everything[4].position, 100) == everything[5:]
    assert await state.records_after(everything[4].position, 2, "acme") == [everything[6], everything[8]]
    assert await state.records_after(everything[-1].position, 100) == []
    assert await state.records_after("", 0) == []


@pytest.mark.parametrize("position", ["x", "-1", "1-", "1 OR 1", "+", "9" * 50, "\u0661", "1-2-3", "\n"])
async def test_a_position_that_is_none_is_a_mistake(state: State, position: str) -> None:
    await state.append(record())
    with pytest.raises(ValueError, match="no position"):
        await state.records_after(position, 1)


async def test_many_at_once_at_two_replicas_make_one_chain(opening: Opening) -> None:
    replicas = [opening(), opening()]
    await asyncio.gather(
        *(state.settle(settlement(record=record(body=f"{n}"))) for state in replicas for n in range(50)),
        *(state.append(record(organization="bolt")) for state in replicas for _ in range(20)),
    )
    verification = Verification(await replicas[0].heads())
    verification.follow(await replicas[1].records_after("", 1000))
    verification.finish()
    assert verification.findings == []
    assert {name: sequence for name, (sequence, _) in verification.ends.items()} == {"acme": 100, "bolt": 40}


async def test_a_revocation_comes_with_its_record(state: State) -> None:
    assert not await is_revoked(state, "token")
    await state.revoke("token", int(time.time()) + 60, record(body="revoked"))
    assert await is_revoked(state, "token")
    assert not await is_revoked(state, "another")
    assert await state.records(10) == ["revoked"]


async def test_a_revocation_holds_where_a_replicas_clock_is_behind(state: State) -> None:
    await state.revoke("token", int(time.time()) - 5, record())
    assert await is_revoked(state, "token")


async def test_revoking_twice_is_no_mistake(state: State) -> None:
    for until in (600, 1):
        await state.revoke("token", int(time.time()) + until, record())
    assert await is_revoked(state, "token")
    assert len(await state.records(10)) == 2


async def test_a_subject_s_revocation_is_of_what_was_minted_until_then(state: State) -> None:
    await state.revoke_subject("organization acme", 1000, record(body="revoked"))
    subjects = ["everything", "organization acme", "publisher acme/x"]
    assert [await is_revoked(state, "token", subjects, minted) for minted in (999, 1000, 1001)] == [True, True, False]
    assert not await is_revoked(state, "token", ["organization acm", "organization acme/", "everything"], 1)
    assert not await is_revoked(state, "organization acme")
    assert not await is_revoked(state, "organization acme", [], 1)
    assert await state.records(10) == ["revoked"]


async def test_of_a_subject_s_revocations_the_latest_moment_counts(state: State) -> None:
    for before in (1000, 2000, 500):
        await state.revoke_subject("run github 1", before, record())
    assert [await is_revoked(state, "token", ["run github 1"], minted) for minted in (2000, 2001)] == [True, False]
    assert len(await state.records(10)) == 3


async def test_one_of_many_subjects_is_enough(state: State) -> None:
    await state.revoke_subject("s7", 1000, record())
    assert await is_revoked(state, "token", [f"s{n}" for n in range(60)], 1000)
    assert not await is_revoked(state, "token", [f"s{n}" for n in range(60) if n != 7], 1000)


# --- Switches --------------------------------------------------------------------------------------------------------


async def test_what_is_switched_off_settles_nothing_until_it_is_on_again(state: State) -> None:
    async def settled() -> Outcome:
        return await state.settle(
            settlement(spend="token", switches=("everything", "issuer github", "organization acme"))
        )

    await state.switch_off(switch("issuer github"), record())
    await state.switch_off(switch("organization acme"), record())
    await state.switch_off(switch("organization bolt"), record())
    off = SwitchedOff(off=frozenset({"issuer github", "organization acme"}))
    assert [await settled(), await settled()] == [off, off]
    assert await state.switch_on("issuer github", "operator", record())
    assert await settled() == SwitchedOff(off=frozenset({"organization acme"}))
    assert await state.switch_on("organization acme", "operator", record())
    assert await settled() == Settled()


async def test_what_a_switch_refuses_changes_nothing(state: State) -> None:
    await state.switch_off(switch(), record(body="thrown"))
    refused = settlement(spend="token", switches=("organization acme",), limits=(limit(burst=1),), pins=(pin(),))
    assert await state.settle(refused) == SwitchedOff(off=frozenset({"organization acme"}))
    assert await state.records(10) == ["thrown"]
    assert await state.pins(["acme/widgets-release"]) == {}
    assert await state.settle(settlement(spend="token", limits=(limit(burst=1),))) == Settled()


async def test_a_switch_comes_before_limits_and_replay_and_after_a_lost_answer(state: State) -> None:
    once = settlement(spend="token", switches=("organization acme",), limits=(limit(burst=1),))
    assert await state.settle(once) == Settled()
    await state.switch_off(switch(), record())
    assert await state.settle(once) == Settled()
    again = settlement(spend="token", switches=("organization acme",), limits=(limit(burst=1),))
    assert await state.settle(again) == SwitchedOff(off=frozenset({"organization acme"}))


async def test_what_speaks_against_a_token_is_told_apart(state: State) -> None:
    nothing: frozenset[str] = frozenset()
    subjects = ["everything", "organization acme", "publisher acme/x"]
    assert await state.objections("token", subjects, 1000) == Objections(token=False, revoked=nothing, off=nothing)
    await state.switch_off(switch("publisher acme/x"), record())
    await state.switch_off(switch("publisher acme/"), record())
    off = frozenset({"publisher acme/x"})
    for minted in (1, 2**40):
        assert await state.objections("token", subjects, minted) == Objections(token=False, revoked=nothing, off=off)
    await state.revoke_subject("everything", 1000, record())
    await state.revoke_subject("organization acme", 1000, record())
    await state.revoke_subject("publisher acme/x", 999, record())
    revoked = frozenset({"everything", "organization acme"})
    assert await state.objections("token", subjects, 1000) == Objections(token=False, revoked=revoked, off=off)
    await state.revoke("token", 2**40, record())
    assert await state.objections("token", ["publisher", "organization"], 1000) == Objections(
        token=True, revoked=nothing, off=nothing
    )


async def test_owners_and_the_operator_have_switches_of_their_own(state: State) -> None:
    await state.switch_off(switch(by="owner", reason="ours"), record())
    await state.switch_off(switch(by="operator", reason="theirs"), record())
    for by in THROWERS:
        assert (await state.objections("token", ["organization acme"])).off == {"organization acme"}
        assert await state.switch_on("organization acme", by, record())
        assert not await state.switch_on("organization acme", by, record())
    assert (await state.objections("token", ["organization acme"])).off == frozenset()
    assert await state.settle(settlement(switches=("organization acme",))) == Settled()


async def test_switches_are_told(state: State) -> None:
    thrown = [
        switch("everything", reason="a b  c"),
        switch("issuer github", at=3),
        switch("organization acme", "operator", reason="theirs"),
        switch("organization acme", "owner", reason="ours"),
    ]
    for one in reversed(thrown):
        await state.switch_off(replace(one, at=7, reason="before"), record())
        await state.switch_off(one, record())
    assert await state.switches() == thrown
    assert await state.switches(["organization acme", "issuer github", "issuer x"]) == thrown[1:]
    assert await state.switches([]) == []
    await state.switch_on("organization acme", "operator", record())
    assert await state.switches() == [*thrown[:2], thrown[3]]


async def test_each_switch_leaves_its_record_and_lifting_none_leaves_none(state: State) -> None:
    await state.switch_off(switch(), record(body="off"))
    await state.switch_off(switch(), record(body="off again"))
    assert await state.switch_on("organization acme", "operator", record(body="on"))
    assert not await state.switch_on("organization acme", "operator", record(body="nothing to lift"))
    assert not await state.switch_on("organization acme", "owner", record(body="nothing of theirs"))
    assert await state.records(10) == await state.records(10, "acme") == ["off", "off again", "on"]


async def test_once_a_switch_is_thrown_nothing_more_settles_at_any_replica(opening: Opening) -> None:
    """Settlements race it: those that win are before it in the records, and after it there is none."""
    replicas = [opening(), opening(), opening()]
    await asyncio.gather(*(one.ping() for one in replicas))

    async def settle(number: int) -> Outcome | None:
        switches = ("everything", f"organization o{number}")
        with contextlib.suppress(StateUnavailable):  # a busy machine: then nothing was settled either
            return await replicas[number % 2].settle(settlement(switches=switches))
        return None

    async def throw() -> None:
        await asyncio.sleep(0.005)
        await replicas[2].switch_off(switch("everything"), record(body="thrown"))

    _, *racing = await asyncio.gather(throw(), *(settle(number) for number in range(60)))
    off = SwitchedOff(off=frozenset({"everything"}))
    assert {*racing} <= {Settled(), off, None}
    assert [await settle(number) for number in range(2)] == [off, off]
    records = await replicas[0].records(1000)
    assert records[-1] == "thrown"


async def test_of_an_issuers_keys_the_newer_stay(state: State) -> None:
    assert await state.stored_keys("https://issuer.example") is None
    old, new = StoredKeys(fetched_at=1000.125, document="old"), StoredKeys(fetched_at=1000.25, document="new")
    for keys in (old, new, old):
        await state.store_keys("https://issuer.example", keys)
    assert await state.stored_keys("https://issuer.example") == new
    assert await state.stored_keys("https://another.example") is None


# --- Files' names ----------------------------------------------------------------------------------------------------


async def take(state: State, one: Claim, *, seconds: float = 60.0) -> Claimed | Busy | Written:
    """Claims a name now."""
    return await state.claim(one, now=time.time(), seconds=seconds)


async def store(state: State, one: Claim) -> bool:
    """Concludes a claim now: the registry has the file."""
    return await state.store(one, now=time.time())


async def test_a_name_is_one_claim_s_until_that_concludes(state: State) -> None:
    mine, other = claim(), claim()
    assert [await take(state, mine), await take(state, other), await take(state, mine)] == [
        Claimed(),
        Busy(),
        Claimed(),
    ]
    assert await take(state, claim("another name")) == Claimed()
    await state.release(mine)
    assert [await take(state, other), await take(state, mine)] == [Claimed(), Busy()]


async def test_what_is_written_stays_so_whoever_asks(state: State) -> None:
    mine = claim()
    await take(state, mine)
    assert [await store(state, mine), await store(state, mine)] == [True, True]
    for one in (mine, claim(), claim(sha256="other")):
        assert await take(state, one) == Written(sha256=mine.sha256)
    assert not await state.renew(mine, now=time.time(), seconds=1)
    await state.release(mine)
    await state.leave(mine)
    await asyncio.sleep(1.2)  # nor did that one second count
    assert await take(state, claim()) == Written(sha256=mine.sha256)


async def test_it_is_known_when_a_name_was_written(state: State) -> None:
    mine, began = claim(), time.time()
    assert await state.written_at([], now=began) == {}
    await take(state, mine)
    assert await state.written_at([mine.name, "another"], now=began) == {}, "claimed is not written"
    assert await state.store(mine, now=began + 0.125)
    assert await state.store(mine, now=began + 9)
    assert await state.written_at([mine.name, "another"], now=began + 9) == {mine.name: began + 0.125}


async def test_of_20_claims_at_once_at_two_replicas_one_gets_the_name(opening: Opening) -> None:
    replicas, claims = [opening(), opening()], [claim() for _ in range(20)]
    outcomes = await asyncio.gather(*(take(replicas[n % 2], one) for n, one in enumerate(claims)))
    assert Counter(map(type, outcomes)) == {Claimed: 1, Busy: 19}
    holder = claims[outcomes.index(Claimed())]
    stored = await asyncio.gather(*(store(replicas[n % 2], one) for n, one in enumerate(claims)))
    assert [one for one, done in zip(claims, stored, strict=True) if done] == [holder]


async def test_a_name_that_was_left_is_for_the_same_bytes_until_the_lease_ends(state: State) -> None:
    lost, same, other = claim(sha256="a"), claim(sha256="a"), claim(sha256="b")
    await take(state, lost, seconds=2)
    await state.leave(lost)
    assert await take(state, other) == Busy()
    assert await take(state, same) == Claimed(left=True)
    assert await take(state, lost) == Busy(), "it is another attempt's now"
    assert not await store(state, lost)
    await state.leave(same)
    assert await take(state, other) == Busy()
    await take(state, same, seconds=1)
    await state.leave(same)
    await asyncio.sleep(2.1)
    assert await take(state, other) == Claimed()


async def test_a_lease_ends_and_whoever_held_it_can_do_nothing_any_more(state: State) -> None:
    slow, next_one = claim(sha256="a"), claim(sha256="b")
    await take(state, slow, seconds=1)
    await asyncio.sleep(2.1)
    assert not await state.renew(slow, now=time.time(), seconds=60)
    assert not await store(state, slow)
    assert await take(state, next_one) == Claimed()
    assert not await state.renew(slow, now=time.time(), seconds=60)
    assert not await store(state, slow)
    await state.release(slow)
    await state.leave(slow)
    assert await take(state, claim()) == Busy(), "the next one's, as it was"
    assert await store(state, next_one)


async def test_a_lease_that_is_renewed_goes_on(state: State) -> None:
    mine = claim()
    await take(state, mine, seconds=1)
    assert await state.renew(mine, now=time.time(), seconds=60)
    await asyncio.sleep(2.1)
    assert await take(state, claim()) == Busy()
    assert await store(state, mine)


def test_a_claim_that_is_nobodys_is_a_mistake() -> None:
    """It would look like one that was left."""
    with pytest.raises(ValueError):
        claim(attempt="")


# --- Any text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_any_text_is_kept_as_it_is(state: State, text: str) -> None:
    hostile = settlement(
        limits=(limit(5, key=text),),
        spend=text,
        receipt=text,
        pins=(pin(text, publisher=text, field=text),),
        record=record(organization=text, body=text),
    )
    assert await state.settle(hostile) == Settled()
    assert await state.settle(settlement(spend=text)) == Spent(receipt=text)
    assert await state.pins([text]) == {text: {text: text}}
    await state.revoke(text, int(time.time()) + 60, record(organization=text, body=text))
    assert await is_revoked(state, text)
    await state.revoke_subject(text, 5, record(organization=text, body=text))
    await state.switch_off(switch(text, reason=text), record(organization=text, body=text))
    assert (await state.objections("", [text, "other"])).off == {text}
    assert await state.settle(settlement(switches=(text,))) == SwitchedOff(off=frozenset({text}))
    assert await state.switches() == await state.switches([text]) == [switch(text, reason=text)]
    assert await state.switch_on(text, "operator", record())
    assert await is_revoked(state, "", [text, "other"], 5)
    assert await state.records(10, text) == [text] * 4
    await state.store_keys(text, StoredKeys(fetched_at=1.5, document=text))
    assert await state.stored_keys(text) == StoredKeys(fetched_at=1.5, document=text)
    named = claim(f"file {text}", sha256=text, attempt=f"attempt {text}")
    assert await take(state, named) == Claimed()
    assert await store(state, named)
    assert await take(state, named) == Written(sha256=text)


async def test_keys_that_look_alike_are_different_tokens(state: State) -> None:
    outcomes = [await state.settle(settlement(spend=text)) for text in HOSTILE]
    assert outcomes == [Settled()] * len(HOSTILE)


async def test_hostile_text_does_not_harm_who_comes_at_the_same_time(state: State) -> None:
    hostile = [settlement(spend=text, record=record(organization=text, body=text)) for text in HOSTILE]
    usual = [settlement() for _ in range(50)]
    settlements: list[Settlement] = [*usual[:25], *hostile, *usual[25:]]
    assert set(await asyncio.gather(*map(state.settle, settlements))) == {Settled()}


# --- Being there -----------------------------------------------------------------------------------------------------


async def test_a_store_that_serves_answers_a_ping(state: State) -> None:
    await state.ping()


async def test_what_was_asked_before_closing_is_done_and_nothing_after(state: State) -> None:
    await state.ping()
    asked = [asyncio.create_task(state.settle(settlement(spend=f"token {n}"))) for n in range(100)]
    await asyncio.sleep(0)
    await state.close()
    await state.close()
    await asyncio.sleep(0)
    assert [task.result() for task in asked] == [Settled()] * 100
    for late in (state.ping(), state.settle(settlement()), is_revoked(state, "token"), state.records(1)):
        with pytest.raises(StateUnavailable):
            await late


async def test_a_replica_that_opens_later_sees_what_was_done(opening: Opening) -> None:
    first = opening()
    await first.settle(settlement(spend="token", receipt="first", pins=(pin("42"),)))
    await first.close()
    second = opening()
    assert await second.settle(settlement(spend="token")) == Spent(receipt="first")
    assert await second.pins(["acme/widgets-release"]) == {"acme/widgets-release": {"repository_id": "42"}}


async def test_each_of_many_at_once_is_given_its_own_receipt_again(state: State) -> None:
    """Many are settled in one go, and what one spent must never bring another's upload token."""
    first = [settlement(receipt=f'{{"jti":"{number}"}}') for number in range(300)]
    assert set(await asyncio.gather(*map(state.settle, first))) == {Settled()}
    again = [replace(one, record=record(at=one.now), receipt="{}") for one in first]
    assert await asyncio.gather(*map(state.settle, again)) == [Spent(receipt=one.receipt) for one in first]


# --- API tokens ------------------------------------------------------------------------------------------------------


def api_token(name: str = "devpi", *, created_at: float = 0, seconds: int = 600) -> ApiToken:
    """An API token of its own."""
    return ApiToken.make(name, "registry", now=created_at or time.time(), seconds=seconds)[1]


async def test_an_api_token_is_kept_by_its_id_until_it_is_removed(state: State) -> None:
    token, other = api_token(), api_token("nexus")
    await state.store_api_token(token)
    await state.store_api_token(other)
    assert await state.api_token(token.id) == token
    assert await state.remove_api_token(token.id) is True
    assert await state.remove_api_token(token.id) is False
    assert await state.api_token(token.id) is None
    assert await state.api_token(other.id) == other


async def test_an_api_token_that_is_over_is_kept_for_a_while_so_that_it_is_known_for_what_it_was(state: State) -> None:
    now = time.time()
    token = ApiToken.make("exports", "owner", organization="acme", now=now - 2, seconds=1)[1]
    await state.store_api_token(token)
    await asyncio.sleep(0.01)
    assert await state.api_token(token.id) == token
    assert token.is_over(now)


async def test_an_unknown_api_token_is_none(state: State) -> None:
    assert [await state.api_token(text) for text in HOSTILE] == [None] * len(HOSTILE)
    assert await state.remove_api_token("0123456789abcdef") is False


async def test_api_tokens_are_listed_oldest_first(state: State) -> None:
    now = int(time.time())
    tokens = [api_token(f"number {at}", created_at=now + at) for at in (3, 1, 2)]
    for token in tokens:
        await state.store_api_token(token)
    listed = [token for token in await state.api_tokens() if token in tokens]
    assert [token.name for token in listed] == ["number 1", "number 2", "number 3"]
    await state.remove_api_token(tokens[0].id)
    assert tokens[0] not in await state.api_tokens()


# --- Uses ------------------------------------------------------------------------------------------------------------


async def test_a_token_is_good_for_so_many_files_and_each_counts_once(state: State) -> None:
    now = time.time()

    async def use(file: str, token: str = "jti", most: int = 2) -> bool:
        return await state.use(token, file, most=most, now=now, until=int(now) + 900)

    assert [await use(file) for file in ("a", "b", "a", "c", "b", HOSTILE[3], "a")] == [
        *(True, True, True, False, True, False, True)
    ]
    assert await use("c", "another")
    assert await use("c", most=3)


async def test_of_many_uses_at_once_no_more_than_so_many_count(state: State) -> None:
    now = time.time()
    asked = [state.use("jti", f"file {n % 20}", most=7, now=now, until=int(now) + 900) for n in range(60)]
    counted = await asyncio.gather(*asked)
    assert sum(counted[:20]) == 7
    assert counted[20:40] == counted[40:] == counted[:20]


# --- Alerts ----------------------------------------------------------------------------------------------------------


def step(since: AlertProgress, *alerts: AlertToSend, position: str = "1", **memory: Memorized) -> AlertStep:
    """What looking at some records changed."""
    return AlertStep(now=time.time(), since=since, position=position, memory=memory, queue=alerts)


def alert(number: int = 1, *, receiver: str = "acme", at: float = 5.5) -> AlertToSend:
    """An alert for acme's receiver."""
    return AlertToSend(receiver=receiver, id=f"alert_{number}", at=at, body=f'{{"number":{number}}}')


async def test_a_step_of_alerts_is_done_as_a_whole_and_once(opening: Opening) -> None:
    state, replica = opening(), opening()
    begun = await state.alert_progress()
    assert begun == await replica.alert_progress() == AlertProgress()
    kept = Memorized(text="seen", until=int(time.time()) + 600)
    first, second = time.time(), time.time() + 1
    assert await state.advance_alerts(step(begun, alert(1, at=first), alert(2, at=second), position="7", key=kept))
    assert not await replica.advance_alerts(step(begun, alert(3), position="9", other=kept))
    moved = await replica.alert_progress()
    assert (moved.step, moved.position) == (1, "7")
    assert await replica.alert_memory(["key", "other"]) == {"key": "seen"}
    assert await state.alert_memory([]) == {}
    assert [one.alert for one in await replica.waiting_alerts("acme", 10)] == [alert(1, at=first), alert(2, at=second)]
    assert await state.waiting(["acme", "nobody"]) == {"acme": Waiting(alerts=2, oldest_at=first), "nobody": Waiting()}
    assert await state.waiting([]) == {}


async def test_of_steps_at_once_at_two_replicas_one_is_done(opening: Opening) -> None:
    replicas, begun = [opening(), opening()], AlertProgress()
    done = await asyncio.gather(*(replicas[n % 2].advance_alerts(step(begun, alert(n))) for n in range(20)))
    assert sum(done) == 1
    (queued,) = await replicas[0].waiting_alerts("acme", 100)
    assert queued.alert == alert(done.index(True))


async def test_alerts_wait_in_order_for_each_receiver_until_they_are_removed(state: State) -> None:
    now = time.time()
    progress = AlertProgress()
    for number in range(5):
        both = (alert(number, at=now), alert(number + 10, at=now, receiver="other"))
        assert await state.advance_alerts(step(progress, *both, position=str(number)))
        progress = await state.alert_progress()
    first, second = await state.waiting_alerts("acme", 2)
    assert (first.alert.id, second.alert.id) == ("alert_0", "alert_1")
    await state.remove_alert("acme", first.place)
    await state.remove_alert("acme", first.place)
    assert [one.alert.id for one in await state.waiting_alerts("acme", 9)] == [f"alert_{n}" for n in (1, 2, 3, 4)]
    assert (await state.waiting(["other"]))["other"].alerts == 5


async def test_a_memory_of_alerts_is_replaced_and_one_whose_time_is_over_is_none(state: State) -> None:
    until = int(time.time()) + 600
    assert await state.advance_alerts(step(AlertProgress(), key=Memorized(text="a", until=until)))
    gone = Memorized(text="c", until=1)
    again = step(await state.alert_progress(), key=Memorized(text="b", until=until), gone=gone)
    assert await state.advance_alerts(again)
    assert (await state.alert_memory(["key"])) == {"key": "b"}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_alerts_hold_any_text(state: State, text: str) -> None:
    hostile = AlertToSend(receiver=text, id=text, at=time.time(), body=text)
    kept = {text: Memorized(text=text, until=int(time.time()) + 60)}
    changes = AlertStep(now=time.time(), since=AlertProgress(), position=text, memory=kept, queue=(hostile,))
    assert await state.advance_alerts(changes)
    assert (await state.alert_progress()).position == text
    assert await state.alert_memory([text]) == {text: text}
    (waiting,) = await state.waiting_alerts(text, 1)
    assert waiting.alert == hostile
    await state.remove_alert(text, waiting.place)
    assert await state.waiting([text]) == {text: Waiting()}
