"""What one process has counted. Everything here is asked of for every attempt: a few dictionary look-ups each."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Container
from typing import Final

from broker.audit import Attempt
from broker.metrics.catalogue import BOUNDS_SECONDS, NO_CODE, UNKNOWN_ISSUER, Outcome
from broker.refusals import Refusal, UnknownIssuer

Key = tuple[str, ...]
"""A metric's name, then the values of its labels in their order."""

_FIRST_NO: Final = 300


class Spread:
    """A histogram: how many observations fell into each bucket, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Takes one in."""
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.total += seconds


class Counts:
    """Counters and histograms, for one thread."""

    def __init__(self, issuers: Callable[[], Container[str]]) -> None:
        """Nothing is counted yet.

        Args:
            issuers: The names of the configured ones.
        """
        self._issuers = issuers
        self.counters: dict[Key, float] = {("broker_internal_errors_total",): 0, ("broker_uploaded_bytes_total",): 0}
        self.spreads: dict[Key, Spread] = {}

    def attempt(self, attempt: Attempt) -> None:
        """Counts an attempt that was decided and recorded."""
        refusal, kind = attempt.refusal, attempt.kind
        decision, code = ("allowed", NO_CODE) if refusal is None else ("refused", refusal.code)
        self._add("broker_attempts_total", kind, decision, code, self._issuer(attempt))
        since = attempt.began
        for step, at in attempt.steps:
            self._observe(("broker_step_seconds", kind, step), at - since)
            since = at
        self._observe(("broker_attempt_seconds", kind, decision), attempt.seconds())
        if kind == "upload" and refusal is None:
            outcome = _outcome(attempt)
            self._add("broker_uploads_total", outcome)
            if outcome in {"stored", "confirmed"}:
                self._add("broker_uploaded_bytes_total", by=attempt.size_bytes)

    def refusal(self, refusal: Refusal) -> None:
        """Counts a refusal that was answered."""
        self._add("broker_refusals_total", refusal.code)

    def internal_error(self) -> None:
        """Counts a bug of ours."""
        self._add("broker_internal_errors_total")

    def _issuer(self, attempt: Attempt) -> str:
        # Before a configured one was found, the attempt has what the token claims, which may be another's very name.
        known = attempt.issuer in self._issuers() and not isinstance(attempt.refusal, UnknownIssuer)
        return attempt.issuer if known else UNKNOWN_ISSUER

    def _add(self, *key: str, by: float = 1) -> None:
        self.counters[key] = self.counters.get(key, 0) + by

    def _observe(self, key: Key, seconds: float) -> None:
        spread = self.spreads.get(key)
        if spread is None:
            spread = self.spreads[key] = Spread()
        spread.add(seconds)


def _outcome(attempt: Attempt) -> Outcome:
    if attempt.confirmed:
        return "confirmed"
    if attempt.already_stored:
        return "already-stored"
    return "stored" if attempt.registry_status < _FIRST_NO else "rejected"
