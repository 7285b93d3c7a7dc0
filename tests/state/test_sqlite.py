"""What only the file can suffer: other processes, locks, disks, crashes, and other people's files."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from broker.api_tokens import ApiToken
from broker.chain import Verification
from broker.policy.model import LONGEST_LIFETIME_SECONDS
from broker.refusals import StateUnavailable
from broker.state import (
    API_TOKEN_MARGIN_SECONDS,
    DEADLINE_SECONDS,
    REVOCATION_MARGIN_SECONDS,
    Claimed,
    Forgotten,
    OverLimit,
    Settled,
    Spent,
)
from broker.state.sqlite import SQLiteState
from broker.state.sqlite_file import APPLICATION_ID, SCHEMA_VERSION, SLICE, STEPS, SWEEP_AFTER, connect
from broker.state.sqlite_records import MOST_ROWS
from broker.state.sqlite_worker import Worker
from broker.tokens import LEEWAY_SECONDS
from tests.state.examples import claim, is_revoked, limit, record, settlement, unavailable_in_time
from tests.state.processes import SPAWN, hold_lock, running, settle_one_token, settle_without_end

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is to be."""
    return tmp_path / "state.db"


@pytest.fixture
async def state(path: Path) -> AsyncIterator[SQLiteState]:
    """State in that file, which the first operation makes."""
    opened = SQLiteState(path, retention_days=30)
    yield opened
    await opened.close()


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[Worker]:
    """The thread alone, for work that is made up here."""
    worker = Worker(path, connect, writes=True)
    yield worker
    await worker.close()


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """What another program reads in the file."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def damage(path: Path, content: bytes) -> None:
    """Puts something else where the file is."""
    path.write_bytes(content)


def contents(path: Path) -> bytes:
    """What is there."""
    return path.read_bytes()


def remove(path: Path) -> None:
    """Takes it away."""
    path.unlink()


def replace(path: Path, other: Path) -> None:
    """Puts another file in its place, as restoring a backup does."""
    for companion in (path.with_name("state.db-wal"), path.with_name("state.db-shm")):
        companion.unlink()
    other.replace(path)


# --- Several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False], ids=["existing", "new file"])
async def test_of_four_processes_at_once_one_settles(path: Path, state: SQLiteState, exists: bool) -> None:
    """With a new file, all four also make the schema at once."""
    if exists:
        await state.ping()
    together, url = SPAWN.Barrier(4), f"sqlite:///{path}"
    with ExitStack() as stack:
        pipes = [stack.enter_context(running(settle_one_token, url, together, 25))[1] for _ in range(4)]
        counts = [await asyncio.to_thread(pipe.recv) for pipe in pipes]
    assert sum(settled for settled, _ in counts) == 1
    assert sum(spent for _, spent in counts) == 99
    assert len(await state.records(10)) == 1


async def test_a_process_killed_in_a_burst_leaves_a_consistent_file(path: Path, state: SQLiteState) -> None:
    """And nothing that it answered is lost."""
    answered: list[str] = []
    with running(settle_without_end, f"sqlite:///{path}") as (process, pipe):
        while len(answered) < 500:
            answered.append(await asyncio.to_thread(pipe.recv))
        process.kill()
        process.join()
        try:
            while pipe.poll():
                answered.append(pipe.recv())
        except EOFError:
            pass
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    (settled,) = rows(path, "SELECT (SELECT 2 * count(*) FROM spends), (SELECT count(*) FROM records)")
    assert settled[0] == settled[1]
    assert rows(path, "SELECT attempt FROM records GROUP BY attempt HAVING count(DISTINCT organization) != 2") == []
    outcomes = await asyncio.gather(*(state.settle(settlement(spend=token)) for token in answered))
    assert {type(outcome) for outcome in outcomes} == {Spent}
    for organization in ("acme", "bolt"):
        assert set(answered) <= set(await state.records(100_000, organization))


async def test_a_lock_held_by_another_process_is_answered_in_time_and_waited_for_no_longer(
    path: Path, state: SQLiteState
) -> None:
    await state.settle(settlement(spend="before"))
    with running(hold_lock, path) as (_, pipe):
        assert await asyncio.to_thread(pipe.recv) == "locked"
        with unavailable_in_time():
            await state.settle(settlement(spend="token"))
        with unavailable_in_time():
            await state.ping()
        # Reading goes on, or no upload would be checked while somebody copies the file.
        assert not await is_revoked(state, "token", (), int(time.time()))
        assert len(await state.records(10)) == 1
        pipe.send("let go")
        assert await asyncio.to_thread(pipe.recv) == "free"
        await state.ping()
    assert await state.settle(settlement(spend="token")) == Settled(), "what was given up must not be done later"


async def test_a_lock_held_for_a_moment_is_waited_for(path: Path, state: SQLiteState) -> None:
    await state.ping()
    with running(hold_lock, path) as (_, pipe):
        assert await asyncio.to_thread(pipe.recv) == "locked"
        asked = asyncio.create_task(state.settle(settlement()))
        await asyncio.sleep(0.5)
        pipe.send("let go")
        assert await asked == Settled()


async def test_a_new_file_that_somebody_else_holds_is_waited_for(path: Path, state: SQLiteState) -> None:
    """Making the schema meets locks too, in other places than writing does."""
    with running(hold_lock, path) as (_, pipe):
        assert await asyncio.to_thread(pipe.recv) == "locked"
        asked = asyncio.create_task(state.settle(settlement()))
        await asyncio.sleep(0.3)
        pipe.send("let go")
        assert await asked == Settled()


# --- Giving up -------------------------------------------------------------------------------------------------------


async def test_a_caller_who_is_cancelled_before_its_turn_has_done_nothing(path: Path, state: SQLiteState) -> None:
    await state.ping()
    with running(hold_lock, path) as (_, pipe):
        assert await asyncio.to_thread(pipe.recv) == "locked"
        gone = asyncio.create_task(state.settle(settlement(spend="token")))
        stays = asyncio.create_task(state.settle(settlement(spend="another token")))
        await asyncio.sleep(0.1)
        gone.cancel()
        await asyncio.wait([gone])
        pipe.send("let go")
        assert await stays == Settled()
    assert gone.cancelled()
    assert await state.settle(settlement(spend="token")) == Settled()


async def test_a_caller_who_gives_up_in_the_middle_is_rolled_back_and_the_others_are_not(
    path: Path, writer: Worker
) -> None:
    """The last look is right before the COMMIT."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(cursor: sqlite3.Cursor) -> None:
        cursor.execute("INSERT INTO revocations VALUES (x'01', 1)")
        begun.set()
        go_on.wait(timeout=10)

    def quick(cursor: sqlite3.Cursor) -> None:
        cursor.execute("INSERT INTO revocations VALUES (x'02', 2)")

    held, freed = threading.Event(), threading.Event()

    def hold(cursor: sqlite3.Cursor) -> None:
        cursor.execute("SELECT 1")
        held.set()
        freed.wait(timeout=10)

    first = asyncio.create_task(writer.do(hold))
    await asyncio.to_thread(held.wait, 10)
    gone, stays = asyncio.create_task(writer.do(slow)), asyncio.create_task(writer.do(quick))
    await asyncio.sleep(0)
    freed.set()  # now both are taken, in one transaction
    await first
    await asyncio.to_thread(begun.wait, 10)
    gone.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await stays
    assert rows(path, "SELECT until FROM revocations") == [(2,)]


async def test_one_who_fails_in_a_batch_fails_alone(path: Path, writer: Worker) -> None:
    held, freed = threading.Event(), threading.Event()

    def hold(cursor: sqlite3.Cursor) -> None:
        cursor.execute("SELECT 1")
        held.set()
        freed.wait(timeout=10)

    def bad(cursor: sqlite3.Cursor) -> None:
        cursor.execute("INSERT INTO revocations VALUES (x'ff', 0)")
        raise ZeroDivisionError

    def wrong(cursor: sqlite3.Cursor) -> None:
        cursor.execute("INSERT INTO no_such_table VALUES (1)")

    def good(number: int) -> asyncio.Task[None]:
        def work(cursor: sqlite3.Cursor) -> None:
            cursor.execute("INSERT INTO revocations VALUES (?, ?)", (bytes([number]), number))

        return asyncio.create_task(writer.do(work))

    first = asyncio.create_task(writer.do(hold))
    await asyncio.to_thread(held.wait, 10)
    tasks = [good(1), asyncio.create_task(writer.do(bad)), good(2), asyncio.create_task(writer.do(wrong)), good(3)]
    await asyncio.sleep(0)
    freed.set()
    await first
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        type(None), ZeroDivisionError, type(None), StateUnavailable, type(None),
    ]  # fmt: skip
    assert isinstance(outcomes[3], StateUnavailable)
    assert isinstance(outcomes[3].__cause__, sqlite3.OperationalError)
    assert rows(path, "SELECT until FROM revocations") == [(1,), (2,), (3,)]


async def test_a_thread_that_hangs_is_not_waited_for(writer: Worker) -> None:
    """As a disk does that does not answer: the deadline is the event loop's, not the thread's."""
    go_on = threading.Event()
    began = time.perf_counter()

    def hang(cursor: sqlite3.Cursor) -> None:
        cursor.execute("INSERT INTO revocations VALUES (x'01', 1)")
        go_on.wait(timeout=10)

    with unavailable_in_time():
        await writer.do(hang)
    assert time.perf_counter() - began > DEADLINE_SECONDS - 0.5
    go_on.set()
    assert await writer.do(lambda cursor: cursor.execute("SELECT count(*) FROM revocations").fetchone()) == (0,)


# --- The file --------------------------------------------------------------------------------------------------------


async def test_the_file_is_its_owners_alone(path: Path, state: SQLiteState) -> None:
    await state.settle(settlement())
    files = sorted(path.parent.glob("state.db*"))
    assert [file.name for file in files] == ["state.db", "state.db-shm", "state.db-wal"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_closing_leaves_one_file_with_everything_in_it(path: Path) -> None:
    opened = SQLiteState(path, retention_days=30)
    await opened.settle(settlement())
    await opened.close()
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]
    assert rows(path, "SELECT count(*) FROM spends") == [(1,)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("state-")]


@pytest.mark.parametrize(
    "content",
    [b"this is no database, but a text of some length " * 100, b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 4096],
    ids=["text", "zeros", "damaged"],
)
async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    path: Path, state: SQLiteState, content: bytes
) -> None:
    damage(path, content)
    with unavailable_in_time():
        await state.settle(settlement(spend="token"))
    with unavailable_in_time():
        await is_revoked(state, "token")
    assert contents(path) == content
    remove(path)
    assert await state.settle(settlement(spend="token")) == Settled()
    assert not await is_revoked(state, "token", (), int(time.time()))


async def test_a_database_of_something_else_is_refused_and_left_as_it_is(path: Path, state: SQLiteState) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE albums (title TEXT)")
    with unavailable_in_time():
        await state.ping()
    assert rows(path, "SELECT name FROM sqlite_schema") == [("albums",)]


async def test_a_file_of_a_newer_broker_is_refused(path: Path, state: SQLiteState) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute("PRAGMA user_version = 1000")
    with unavailable_in_time():
        await state.ping()


async def test_a_file_of_the_first_version_is_brought_up_to_date_and_keeps_what_it_holds(path: Path) -> None:
    """By whichever of two processes comes first; the other finds it done."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in VERSION_1.split(";\n"):
            database.execute(statement)
        database.execute("INSERT INTO revocations VALUES (CAST('token' AS BLOB), 4000000000)")
        database.execute("INSERT INTO pins VALUES (CAST('acme/widgets' AS BLOB), x'61', x'62')")
    replicas = [SQLiteState(path, retention_days=30) for _ in range(2)]
    mine = claim()
    outcomes = await asyncio.gather(*(one.claim(mine, now=time.time(), seconds=60) for one in replicas))
    assert outcomes == [Claimed(), Claimed()]
    assert rows(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    assert [await is_revoked(one, "token") for one in replicas] == [True, True]
    assert not await is_revoked(replicas[0], "another", (), 1), "it has remembered all along"
    assert await replicas[1].pins(["acme/widgets"]) == {"acme/widgets": {"a": "b"}}
    for one in replicas:
        await one.close()


VERSION_1 = f"""
CREATE TABLE spends (
    key BLOB PRIMARY KEY, until INTEGER NOT NULL, record INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE revocations (key BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE limits (key BLOB PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pins (
    publisher BLOB, field BLOB, value BLOB NOT NULL, PRIMARY KEY (publisher, field)
) STRICT, WITHOUT ROWID;
CREATE TABLE issuer_keys (
    issuer BLOB PRIMARY KEY, fetched_at REAL NOT NULL, document BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL, organization BLOB NOT NULL, attempt BLOB NOT NULL, receipt BLOB NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE INDEX records_of_organization ON records (organization);
CREATE TABLE heartbeat (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
"""
"""The schema as version 1 of it was released; it never changes."""


async def test_an_api_token_of_an_older_broker_is_what_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for step in STEPS[:3]:
            for statement in step.split(";\n"):
                database.execute(statement)
        database.execute(
            "INSERT INTO api_tokens VALUES (CAST('0123456789abcdef' AS BLOB), 4000000000, 1000, CAST('devpi' AS BLOB),"
            " CAST('registry' AS BLOB), CAST('digest' AS BLOB))"
        )
    state = SQLiteState(path, retention_days=30)
    kept = await state.api_token("0123456789abcdef")
    assert kept == ApiToken(
        id="0123456789abcdef",
        name="devpi",
        role="registry",
        digest="digest",
        created_at=1000,
        expires_at=4_000_000_000,
        organization="",
    )
    await state.close()
    assert rows(path, "SELECT until - expires_at FROM api_tokens") == [(API_TOKEN_MARGIN_SECONDS,)]


async def test_a_folder_that_is_not_there_is_unavailable_until_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    state = SQLiteState(folder / "state.db", retention_days=30)
    with unavailable_in_time():
        await state.settle(settlement(spend="token"))
    folder.mkdir()
    assert await state.settle(settlement(spend="token")) == Settled()
    await state.close()


async def test_a_disk_that_is_full_is_unavailable_until_there_is_room(path: Path) -> None:
    """SQLite's own bound on the file's size gives the same SQLITE_FULL."""
    full = True

    def connect_small(where: Path) -> sqlite3.Connection:
        connection = connect(where)
        if full:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    def fill(cursor: sqlite3.Cursor) -> None:
        cursor.execute("INSERT INTO heartbeat VALUES (1, 1.0)")
        cursor.execute("INSERT INTO pins VALUES (x'01', x'02', zeroblob(100000))")

    worker = Worker(path, connect_small, writes=True)
    with unavailable_in_time():
        await worker.do(fill)
    assert rows(path, "SELECT count(*) FROM heartbeat") == [(0,)]
    full = False
    await worker.do(fill)
    assert rows(path, "SELECT count(*) FROM heartbeat") == [(1,)]
    await worker.close()


async def test_a_file_that_is_replaced_is_opened_anew(path: Path, state: SQLiteState) -> None:
    """Or one process would spend tokens in a file that no other sees."""
    await state.settle(settlement(spend="token"))
    other = path.with_name("other.db")
    restored = SQLiteState(other, retention_days=30)
    await restored.settle(settlement(spend="restored", receipt="from a backup"))
    await restored.close()
    replace(path, other)
    assert await state.settle(settlement(spend="restored")) == Spent(receipt="from a backup")


async def test_a_file_that_is_removed_was_no_new_one(path: Path, state: SQLiteState) -> None:
    """Whoever went on knows so: nothing that was issued before is taken, nor for the leeway after."""
    now = time.time()
    await state.settle(settlement(now=now, spend="token"))
    await state.revoke("jti", int(now) + 60, record())
    remove(path)
    for spend in ("token", "another"):
        assert await state.settle(settlement(spend=spend, issued_at=now + LEEWAY_SECONDS - 1)) == Forgotten()
    assert await is_revoked(state, "jti", (), int(now))
    later = now + LEEWAY_SECONDS + 60
    assert await state.settle(settlement(now=later, issued_at=later)) == Settled()


async def test_an_error_tells_nothing_of_what_was_asked(path: Path, state: SQLiteState) -> None:
    damage(path, b"no database at all, and long enough to be looked at " * 20)
    with pytest.raises(StateUnavailable) as raised:
        await state.settle(settlement(spend="very secret", receipt="very secret"))
    assert "very secret" not in f"{raised.value!r} {raised.value.__cause__!r} {raised.value.detail}"
    assert repr(state) == f"<SQLiteState {path}>"


# --- Sweeping --------------------------------------------------------------------------------------------------------


async def test_what_is_over_is_swept_and_what_is_not_stays(path: Path, state: SQLiteState) -> None:
    start, day = 1_700_000_000.0, 86400
    for number in range(SWEEP_AFTER):
        await state.settle(
            settlement(
                now=start,
                spend_until=int(start) + (600 if number % 2 else 40 * day),
                limits=(limit(9, key=str(number)),),
            )
        )
    await state.revoke("old", int(start) + 600, record(at=start))
    await state.revoke("new", int(start) + 40 * day, record(at=start))
    later = start + 31 * day
    for sha256, began in (("old", start), ("new", later)):
        written = claim(sha256, sha256=sha256)
        await state.claim(written, now=began, seconds=60)
        assert await state.store(written, now=began)
    for _ in range(3 * SWEEP_AFTER):
        await state.append(record(at=later, body="later"))
    await state.ping()  # behind the last sweep
    assert rows(path, "SELECT count(*), min(until) FROM spends") == [(SWEEP_AFTER // 2, int(start) + 40 * day)]
    assert rows(path, "SELECT CAST(key AS TEXT) FROM revocations") == [("new",)]
    assert rows(path, "SELECT count(*) FROM limits") == [(0,)]
    assert rows(path, "SELECT CAST(sha256 AS TEXT) FROM files") == [("new",)]
    assert rows(path, "SELECT count(*), min(at) FROM records") == [(3 * SWEEP_AFTER, later)]


async def test_records_are_swept_from_the_front_and_the_chain_tells_so(state: SQLiteState) -> None:
    """Also where one was appended long after its attempt began: never one in the middle of a chain."""
    start, day = 1_700_000_000.0, 86400
    for _ in range(3):
        await state.append(record(at=start, organization="bolt"))
    ages = [start, start + 5 * day, start, start + 20 * day]
    for at in ages:
        await state.append(record(at=at))
    before = await state.records_after("", 100)
    for _ in range(2 * SWEEP_AFTER):
        await state.append(record(at=start + 31 * day, organization=""))
    await state.ping()
    heads, kept = await state.heads(), await state.records_after("", 3)
    assert [one.sequence for one in kept] == [2, 3, 4], "the third is old, and stands behind one that is not"
    assert (heads["acme"].swept_sequence, heads["acme"].swept_link) == (1, before[3].link)
    assert (heads["bolt"].swept_sequence, heads["bolt"].swept_link) == (3, before[2].link)
    verification = Verification(heads)
    verification.follow(await state.records_after("", 10_000))
    verification.finish()
    assert verification.findings == []


async def test_more_rows_than_one_statement_takes_are_written_as_one(state: SQLiteState) -> None:
    """And each spent token points to its own record."""
    settlements = [
        settlement(receipt=f"{number}", record=record(others=tuple(record(organization=f"o{n}") for n in range(19))))
        for number in range(2 * MOST_ROWS // 20)
    ]
    assert set(await asyncio.gather(*map(state.settle, settlements))) == {Settled()}
    again = await asyncio.gather(*(state.settle(settlement(spend=one.spend)) for one in settlements))
    assert again == [Spent(receipt=one.receipt) for one in settlements]
    verification = Verification(await state.heads())
    verification.follow(await state.records_after("", 10_000))
    verification.finish()
    assert (verification.records, verification.findings) == (2 * MOST_ROWS, [])


async def test_records_from_before_the_chain_are_kept_beside_it(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(VERSION_1)
        row = f"({time.time()}, CAST('acme' AS BLOB), x'01', x'', CAST('old' AS BLOB))"
        database.execute(f"INSERT INTO records (at, organization, attempt, receipt, body) VALUES {row}")
        database.commit()
    state = SQLiteState(path, retention_days=30)
    await state.append(record(body="new"))
    kept = await state.records_after("", 10)
    assert [(one.sequence, one.body) for one in kept] == [(0, "old"), (1, "new")]
    verification = Verification(await state.heads())
    verification.follow(kept)
    verification.finish()
    assert (verification.unchained, verification.findings) == (1, [])
    await state.close()


async def test_a_large_heap_is_swept_in_small_slices(path: Path, state: SQLiteState) -> None:
    """Never as one long lock that other processes would wait for."""
    await state.ping()
    with closing(sqlite3.connect(path)) as database:
        database.executemany(
            "INSERT INTO revocations VALUES (?, 1)", ((number.to_bytes(4, "big"),) for number in range(5 * SLICE))
        )
        database.commit()
    left: list[object] = [5 * SLICE]
    for _ in range(8):
        for _ in range(SWEEP_AFTER):
            await state.append(record(at=1_700_000_000.0))
        await state.ping()
        left.append(rows(path, "SELECT count(*) FROM revocations")[0][0])
    assert left[-1] == 0
    assert all(
        isinstance(more, int) and isinstance(less, int) and more - less <= SLICE
        for more, less in itertools.pairwise(left)
    )


async def test_a_token_outlives_its_record_and_never_gets_anothers_receipt(path: Path, state: SQLiteState) -> None:
    """Where the retention is shorter than a token may live."""
    start, day = 1_700_000_000.0, 86400
    narrow = limit(burst=1, per_seconds=60 * day)
    await state.settle(settlement(now=start, spend="token", spend_until=int(start) + 40 * day, limits=(narrow,)))
    later = start + 31 * day
    for _ in range(SWEEP_AFTER + 1):
        assert isinstance(await state.settle(settlement(now=later, limits=(narrow,))), OverLimit)
    await state.ping()
    assert rows(path, "SELECT count(*) FROM records") == [(0,)]
    assert await state.settle(settlement(now=later, receipt="another's")) == Settled()
    assert await state.settle(settlement(now=later, spend="token")) == Spent(receipt="")


async def test_a_subject_s_revocation_is_swept_once_its_last_token_is_over(path: Path, state: SQLiteState) -> None:
    start = 1_700_000_000
    await state.begin(start)
    await state.revoke_subject("everything", start + 100, record(at=start))
    over = 100 + LONGEST_LIFETIME_SECONDS + REVOCATION_MARGIN_SECONDS
    for later, kept in ((over - 1, True), (over, False)):
        for _ in range(SWEEP_AFTER + 1):
            await state.append(record(at=start + later))
        await state.ping()
        assert await is_revoked(state, "token", ["everything"], start + 100) is kept
    assert rows(path, "SELECT count(*) FROM revoked_subjects") == [(0,)]


async def test_a_revocation_is_swept_only_when_every_replica_knows_its_token_is_over(
    path: Path, state: SQLiteState
) -> None:
    start = 1_700_000_000.0
    await state.begin(start)
    for until in (600, 1):  # the longer one holds
        await state.revoke("token", int(start) + until, record(at=start))
    for later, kept in ((600 + REVOCATION_MARGIN_SECONDS - 1, True), (600 + REVOCATION_MARGIN_SECONDS, False)):
        for _ in range(SWEEP_AFTER + 1):
            await state.append(record(at=start + later))
        await state.ping()
        assert await is_revoked(state, "token", (), int(start)) is kept
    assert rows(path, "SELECT count(*) FROM revocations") == [(0,)]


@pytest.mark.parametrize(("times", "works"), [(1, True), (2, False)])
async def test_a_file_that_is_replaced_while_it_is_opened_is_not_taken_for_the_new_one(
    path: Path, times: int, works: bool
) -> None:
    """Or this process would spend tokens in a file that nobody else can see."""
    replacements = iter(range(times))

    def connect_and_lose(where: Path) -> sqlite3.Connection:
        connection = connect(where)
        if next(replacements, None) is not None:
            where.unlink()
            where.touch()
        return connection

    def beat(cursor: sqlite3.Cursor) -> None:
        cursor.execute("INSERT INTO heartbeat VALUES (1, 1.0)")

    worker = Worker(path, connect_and_lose, writes=True)
    if works:
        await worker.do(beat)
        assert rows(path, "SELECT count(*) FROM heartbeat") == [(1,)]
    else:
        with unavailable_in_time():
            await worker.do(beat)
    await worker.close()
