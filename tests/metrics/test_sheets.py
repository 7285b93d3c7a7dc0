"""Several processes' figures are added up, and what is gone is told no more."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from broker.audit import Attempt
from broker.gateway.places import Places
from broker.metrics.catalogue import BOUNDS_SECONDS
from broker.metrics.counting import Counts
from broker.metrics.sheets import LIVE_SECONDS, Folder, Sheet, sheet_of, together
from broker.refusals import IssuerDisabled, UnknownIssuer

ATTEMPTS = "broker_attempts_total"


def counted(*attempts: Attempt) -> Sheet:
    counts = Counts(lambda: {"github"})
    for attempt in attempts:
        counts.attempt(attempt)
    return sheet_of(counts, {("broker_workers",): 1, ("broker_state_reachable",): 1, ("process_max_fds",): 9})


def mint(issuer: str = "github", **more: object) -> Attempt:
    return Attempt(kind="mint", id="1", started_at=0.0, issuer=issuer, **more)  # type: ignore[arg-type]


def test_counters_and_histograms_of_all_processes_are_added_up() -> None:
    whole = together([counted(mint(), mint()), counted(mint())])
    assert whole.values[ATTEMPTS, "mint", "allowed", "none", "github"] == 3
    assert sum(whole.spreads["broker_attempt_seconds", "mint", "allowed"][1:]) == 3
    assert whole.values["broker_workers",] == 2


def test_of_what_cannot_be_added_the_worst_is_told() -> None:
    sheets = [Sheet(values={("broker_state_reachable",): up, ("broker_policies_age_seconds",): up}) for up in (1, 0)]
    assert together(sheets).values == {("broker_state_reachable",): 0, ("broker_policies_age_seconds",): 1}


@pytest.mark.parametrize("last", [True, False])
def test_of_a_worker_that_is_gone_only_what_it_counted_stays(tmp_path: Path, *, last: bool) -> None:
    now = 1000.0
    Folder(tmp_path, lambda: now).write(counted(mint()), last=last)
    now += 0 if last else LIVE_SECONDS
    [sheet] = Folder(tmp_path, lambda: now).others()
    assert sheet.values[ATTEMPTS, "mint", "allowed", "none", "github"] == 1
    assert ("broker_workers",) not in sheet.values


def test_a_worker_does_not_count_itself_twice_and_a_sheet_that_vanishes_is_no_error(tmp_path: Path) -> None:
    folder, other = Folder(tmp_path, lambda: 1.0), Folder(tmp_path, lambda: 1.0)
    folder.write(counted(mint()))
    assert list(folder.others()) == []
    assert len(list(other.others())) == 1
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    assert len(list(other.others())) == 1


def test_a_sheet_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    Folder(tmp_path, lambda: 1.0).write(sheet := counted(mint()))
    assert list(Folder(tmp_path, lambda: 1.0).others()) == [sheet]


@pytest.mark.parametrize(
    ("attempt", "issuer"),
    [
        (mint(), "github"),
        (mint("https://mallory.example"), "unknown"),
        (mint(""), "unknown"),
        (mint(refusal=UnknownIssuer()), "unknown"),
        (mint(refusal=IssuerDisabled()), "github"),
    ],
)
def test_an_issuer_is_named_as_configured_or_unknown(attempt: Attempt, issuer: str) -> None:
    names = {key[4] for key in counted(attempt).values if key[0] == ATTEMPTS}
    assert names == {issuer}


@pytest.mark.parametrize(
    ("said", "outcome", "stored_bytes"),
    [
        ({"registry_status": 200}, "stored", 7),
        ({"registry_status": 500, "confirmed": True}, "confirmed", 7),
        ({"already_stored": True}, "already-stored", 0),
        ({"registry_status": 400}, "rejected", 0),
    ],
)
def test_uploads_are_counted_by_what_came_of_them(said: dict[str, object], outcome: str, stored_bytes: int) -> None:
    attempt = Attempt(kind="upload", id="1", started_at=0.0, issuer="github", size_bytes=7, **said)  # type: ignore[arg-type]
    values = counted(attempt).values
    assert values["broker_uploads_total", outcome] == 1
    assert values["broker_uploaded_bytes_total",] == stored_bytes


def test_each_step_is_observed_from_the_one_before() -> None:
    attempt = mint()
    attempt.steps = [("keys", attempt.began + 0.002), ("verify", attempt.began + 1000)]
    spreads = counted(attempt).spreads
    total, *buckets = spreads["broker_step_seconds", "mint", "keys"]
    assert total == pytest.approx(0.002)
    assert buckets.index(1) == BOUNDS_SECONDS.index(0.0025)
    total, *buckets = spreads["broker_step_seconds", "mint", "verify"]
    assert total == pytest.approx(999.998)
    assert buckets[-1] == 1


def test_an_observation_on_a_bound_is_in_its_bucket() -> None:
    attempt = mint()
    attempt.began, attempt.steps = 0.0, [("keys", 0.5)]
    assert counted(attempt).spreads["broker_step_seconds", "mint", "keys"][1:].index(1) == BOUNDS_SECONDS.index(0.5)


def test_places_tell_what_is_held_and_who_waits() -> None:
    async def hold() -> None:
        places = Places(most=3, most_bytes=300, wait_seconds=0.01)
        assert (places.held.places, places.waiting) == (0, 0)
        async with places.taken("acme/one", 100):
            assert (places.held.places, places.held.space_bytes) == (1, 100)

            async def second() -> None:
                async with places.taken("acme/one", 100):
                    raise AssertionError

            task = asyncio.create_task(second())
            await asyncio.sleep(0)
            assert places.waiting == 1
            await asyncio.gather(task, return_exceptions=True)
        assert (places.held.places, places.waiting) == (0, 0)

    asyncio.run(hold())


def test_a_folder_that_is_gone_is_an_error_of_the_system(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "sheets", lambda: 1.0)
    with pytest.raises(OSError, match="No such file"):
        folder.write(Sheet())
    (tmp_path / "sheets").mkdir()
    folder.write(Sheet())
    shutil.rmtree(tmp_path / "sheets")
    assert list(folder.others()) == []
