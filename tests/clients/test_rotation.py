"""A signing key rotates, and a replica is restarted, while the real uv publishes: the trial, for some seconds."""

from __future__ import annotations

from pathlib import Path

from tests.trials.rotation import Plan, rotate_under_load


def test_no_upload_fails_while_the_key_rotates_and_a_replica_is_restarted(tmp_path: Path) -> None:
    plan = Plan(seconds=0, delay_seconds=2, publishers=1, rounds=(0, 1), drain_seconds=1.0, pause_seconds=1.0)
    report = rotate_under_load(tmp_path, plan, f"sqlite:///{tmp_path / 'state.db'}", lambda _: None)
    assert report.wrong() == []
    assert report.ended == [0]
