"""A few kills, as `python -m tests.trials.kills` makes hundreds of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.trials.kills import play


def test_what_a_broker_answered_before_it_was_killed_is_recorded_and_holds(tmp_path: Path) -> None:
    told, wrong = asyncio.run(play("sqlite", tmp_path, kills=3, clients=2, count=1, workers=1))
    assert wrong == []
    assert told["minted_twice"] == 0
    assert told["upload_tokens"]
    assert told["shared"]
