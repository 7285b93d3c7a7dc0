"""What one process has counted. Asked of for every attempt, so a few dictionary look-ups each."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from typing import Final

from broker.audit import Attempt
from broker.metrics.catalogue import BOUNDS_SECONDS, NO_CODE, UNKNOWN_ISSUER, Delivery, Outcome
from broker.refusals import Refusal, UnknownIssuer

Key = tuple[str, ...]
"""A metric's name, then the values of its labels in their order."""

Spread = list[float]
"""A histogram: the sum of what was observed, then how many observations fell into each bucket."""

_FIRST_NO: Final = 300


def _spread() -> Spread:
    return [0.0] * (len(BOUNDS_SECONDS) + 2)


def _spreads() -> defaultdict[str, Spread]:
    return defaultdict(_spread)


class Counts:
    """Counters and histograms, for one thread."""

    def __init__(self, issuers: Callable[[], Container[str]]) -> None:
        """Nothing is counted yet.

        Args:
            issuers: The names of the configured ones.
        """
        self._issuers = issuers
        self._counters: defaultdict[Key, float] = defaultdict(float)
        for name in ("broker_internal_errors_total", "broker_uploaded_bytes_total"):
            self._counters[name,] = 0
        self._attempts: defaultdict[str, defaultdict[str, Spread]] = defaultdict(_spreads)
        self._steps: defaultdict[str, defaultdict[str, Spread]] = defaultdict(_spreads)

    def attempt(self, attempt: Attempt) -> None:
        """Counts an attempt that was decided and recorded."""
        refusal, kind, issuer = attempt.refusal, attempt.kind, attempt.issuer
        decision, code = ("allowed", NO_CODE) if refusal is None else ("refused", refusal.code)
        # Before a configured one was found, the attempt has what the token claims, which may be another's very name.
        if issuer not in self._issuers() or isinstance(refusal, UnknownIssuer):
            issuer = UNKNOWN_ISSUER
        self._counters["broker_attempts_total", kind, decision, code, issuer] += 1
        steps, since = self._steps[kind], attempt.began
        for step, at in attempt.steps:
            # As `_observe` does: a call for each would cost a third more.
            seconds, spread, since = at - since, steps[step], at
            spread[0] += seconds
            spread[bisect_left(BOUNDS_SECONDS, seconds) + 1] += 1
        _observe(self._attempts[kind][decision], attempt.seconds())
        if kind == "upload" and refusal is None:
            outcome = _outcome(attempt)
            self._counters["broker_uploads_total", outcome] += 1
            if outcome in {"stored", "confirmed"}:
                self._counters["broker_uploaded_bytes_total",] += attempt.size_bytes

    def refusal(self, refusal: Refusal) -> None:
        """Counts a refusal that was answered."""
        self._counters["broker_refusals_total", refusal.code] += 1

    def internal_error(self) -> None:
        """Counts a bug of ours."""
        self._counters["broker_internal_errors_total",] += 1

    def alert(self, receiver: str, result: Delivery) -> None:
        """Counts what came of delivering an alert."""
        self._counters["broker_alert_deliveries_total", receiver, result] += 1

    def counters(self) -> Mapping[Key, float]:
        """What each counter is at."""
        return self._counters

    def spreads(self) -> dict[Key, Spread]:
        """What each histogram has."""
        named = (("broker_attempt_seconds", self._attempts), ("broker_step_seconds", self._steps))
        return {
            (name, kind, label): spread
            for name, kinds in named
            for kind, labels in kinds.items()
            for label, spread in labels.items()
        }


def _observe(spread: Spread, seconds: float) -> None:
    spread[0] += seconds
    spread[bisect_left(BOUNDS_SECONDS, seconds) + 1] += 1


def _outcome(attempt: Attempt) -> Outcome:
    if attempt.confirmed:
        return "confirmed"
    if attempt.already_stored:
        return "already-stored"
    return "stored" if attempt.registry_status < _FIRST_NO else "rejected"
