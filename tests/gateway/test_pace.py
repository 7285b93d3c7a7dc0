"""How slowly an upload may come, second by second: the clock is the test's."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.pace import GRACE_SECONDS, Pace
from broker.state import LONGEST_UPLOAD_SECONDS

PACE = Pace(bytes_per_second=1000, grace_seconds=10, longest_seconds=60)


def ended_at(pieces: Iterable[tuple[float, int]], pace: Pace = PACE) -> float | None:
    """The second at which a client is given up that sends pieces, each after so many seconds; None where it is not."""
    received, waited = 0, 0.0
    for seconds, size in pieces:
        patience = pace.patience(received, waited)
        if seconds >= patience:
            return waited + patience
        received, waited = received + size, waited + seconds
    return None


@pytest.mark.parametrize(
    ("received", "waited", "patience"),
    [
        (0, 0, 10),
        (0, 9.5, 0.5),
        (0, 10, 0),
        (0, 11, -1),
        (1000, 10, 1),
        (999, 11, -0.001),
        (5000, 0, 15),
        (5000, 15, 0),
        (50_000, 0, 60),
        (49_000, 0, 59),
        (10**9, 59, 1),
        (10**9, 60, 0),
        (10**9, 61, -1),
    ],
)
def test_what_came_earns_time_up_to_the_longest(received: int, waited: float, patience: float) -> None:
    assert PACE.patience(received, waited) == pytest.approx(patience)


@pytest.mark.parametrize(
    ("pieces", "end"),
    [
        ([(9.9, 1)], None),
        ([(10, 10**6)], 10),
        ([(1, 1)] * 20, pytest.approx(10.01)),
        ([(1, 100)] * 30, 11),
        ([(1, 1000)] * 59, None),
        ([(1, 1000)] * 61, 60),
        ([(0, 10_000), (19.9, 1)], None),
        ([(0, 10_000), (20, 1)], 20),
        ([(0, 10**9)] * 100, None),
        ([(9, 0), (0.9, 0), (0.2, 10**6)], 10),
    ],
    ids=[
        "nothing, nearly too long",
        "nothing",
        "a byte a second",
        "a tenth of the pace",
        "just the pace",
        "just the pace, for too long",
        "a start, and a pause that it earned",
        "a start, and a longer pause",
        "as fast as the broker reads",
        "empty pieces",
    ],
)
def test_a_client_is_given_up_at_this_second(pieces: list[tuple[float, int]], end: float | None) -> None:
    assert ended_at(pieces) == end


def test_the_bounds_are_what_the_documentation_says() -> None:
    told = Pace(bytes_per_second=1)
    assert (told.grace_seconds, told.longest_seconds) == (10, 3600) == (GRACE_SECONDS, LONGEST_UPLOAD_SECONDS)


@given(
    st.lists(st.tuples(st.floats(0.001, 100), st.integers(0, 10**7)), max_size=50),
    st.integers(1, 10**6),
    st.floats(0, 100),
)
def test_whoever_is_not_given_up_was_fast_enough(
    pieces: list[tuple[float, int]], bytes_per_second: int, grace_seconds: float
) -> None:
    pace = Pace(bytes_per_second=bytes_per_second, grace_seconds=grace_seconds, longest_seconds=500)
    end = ended_at(pieces, pace)
    waited, received = sum(seconds for seconds, _ in pieces), sum(size for _, size in pieces)
    if end is None:
        assert waited <= min(500, grace_seconds + received / bytes_per_second) + 1e-6
    else:
        assert end <= min(500, grace_seconds + received / bytes_per_second) + 1e-6
