"""Recording what every replica sees, once for all of them."""

from __future__ import annotations

from broker.audit import Attempt
from broker.state import Settled, Settlement, State


async def record_once(state: State, attempt: Attempt, *, what: str, seconds: int) -> bool:
    """Records something, unless some replica did within so many seconds; whether it was done now.

    Args:
        what: Tells it from everything else that is recorded so.

    Raises:
        StateUnavailable
    """
    outcome = await state.settle(
        Settlement(
            now=attempt.started_at,
            issued_at=attempt.started_at,
            limits=(),
            spend=what,
            spend_until=int(attempt.started_at) + seconds,
            receipt="",
            pins=(),
            record=attempt.record(),
        )
    )
    return isinstance(outcome, Settled)
