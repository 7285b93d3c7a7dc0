"""What is no attempt's: policies that are not those of their files, and issuers' keys that grow old.

Told once when it changes and once when it is over. What was told last is remembered in state, so that another process
that takes over tells nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker import refusals
from broker.alerts.kinds import BY_CODE, Alert
from broker.alerts.rules import SEEN_SECONDS, Memory
from broker.keys import SOFT_AGE_SECONDS, IssuerKeys
from broker.policy.matching import require_current
from broker.reload import PoliciesInForce

STALE_SECONDS: Final = 4 * SOFT_AGE_SECONDS
"""Keys are refreshed every 15 minutes; after an hour without, somebody should look."""
HOLDS_SECONDS: Final = 30.0
"""How long a change must last: a broker that has just started has no keys yet."""
WELL: Final = "well"


@dataclass(frozen=True, slots=True)
class _Stands:
    subject: str
    level: str
    """`WELL`, or how bad it is."""
    kinds: tuple[str, str]
    """Of the alert, and of the one when it is over."""
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Looks at one process's policies and keys."""

    policies: PoliciesInForce
    keys: IssuerKeys
    clock: Callable[[], float]
    _since: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Subject -> its level, and since when it is that."""

    def memories(self) -> tuple[str, ...]:
        """The keys under which it stands what was told last."""
        return tuple(_key(one) for one in self._look())

    def judge(self, memory: Memory) -> Iterator[Alert]:
        """What changed since it was last told, and has lasted for a while."""
        now = self.clock()
        for one in self._look():
            level, since = self._since.get(one.subject, ("", now))
            if level != one.level:
                since = now
                self._since[one.subject] = (one.level, now)
            if one.level == (memory.get(_key(one)) or WELL) or now - since < HOLDS_SECONDS:
                continue
            memory.put(_key(one), one.level, now + SEEN_SECONDS)
            kind = one.kinds[one.level == WELL]
            yield Alert(
                kind=BY_CODE[kind], organization="", subject=one.subject, at=now, cause=f"{now:.3f}", data=one.data
            )

    def _look(self) -> Iterator[_Stands]:
        yield self._policies()
        for name, issuer in self.policies.current.issuers.items():
            if not issuer.disabled:
                stands = self.keys.freshness(issuer)
                age = stands.age_seconds
                level = "unusable" if not stands.usable else "stale" if (age or 0) >= STALE_SECONDS else WELL
                data = {"level": level, "issuer": name, "age_seconds": age, "problem": stands.problem}
                yield _Stands(f"keys {name}", level, ("keys-stale", "keys-fresh"), data)

    def _policies(self) -> _Stands:
        now, failing = self.clock(), self.policies.failing
        level, data = WELL, {}
        if failing is not None:
            level, data = "failing", {"failing_seconds": round(now - failing.since)}
            try:
                require_current(self.policies.current, now)
            except refusals.PoliciesStale:
                level = "denying"
        generation = self.policies.current.generation
        kinds = ("policies-stale", "policies-current")
        return _Stands("policies", level, kinds, {"level": level, "generation": generation, **data})


def _key(one: _Stands) -> str:
    return f"standing {one.subject}"
