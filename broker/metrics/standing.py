"""How things stand at this moment in one process: what gauges tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import ProcessCollector

from broker import refusals
from broker.gateway.places import Places
from broker.keys import IssuerKeys
from broker.metrics.counting import Key
from broker.policy.matching import require_current
from broker.reload import PoliciesInForce
from broker.signing_files import KeysInForce
from broker.sources import Sources
from broker.state import Waiting

_PROCESS = ProcessCollector(registry=None)  # reads /proc; where there is none, it tells nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whom to ask."""

    policies: PoliciesInForce
    signing: KeysInForce
    keys: IssuerKeys
    places: Places
    sources: Sources
    clock: Callable[[], float]
    version: str
    """The broker's."""
    alerts: Callable[[], Mapping[str, Waiting]] = dict
    """What waits for each receiver, where this process delivers alerts."""

    def read(self) -> dict[Key, float]:
        """What they say. None of it waits."""
        return {
            ("broker_info", self.version): 1,
            ("broker_workers",): 1,
            **self._policies(),
            **self._keys(),
            **self._signing(),
            **self._places(),
            ("broker_unrecorded_attempts_total",): self.sources.unrecorded,
            ("broker_refusals_held",): self.sources.held,
            **self._alerts(),
            **{(one.name,): one.value for family in _PROCESS.collect() for one in family.samples},
        }

    def _policies(self) -> dict[Key, float]:
        now, failing = self.clock(), self.policies.failing
        try:
            require_current(self.policies.current, now)
        except refusals.PoliciesStale:
            denying = 1
        else:
            denying = 0
        return {
            ("broker_policies_age_seconds",): now - self.policies.loaded_at,
            ("broker_policies_failing_seconds",): 0 if failing is None else now - failing.since,
            ("broker_policies_denying",): denying,
        }

    def _keys(self) -> dict[Key, float]:
        told: dict[Key, float] = {}
        for name, issuer in self.policies.current.issuers.items():
            if issuer.disabled:
                continue
            stands = self.keys.freshness(issuer)
            told["broker_issuer_keys_usable", name] = int(stands.usable)
            if stands.age_seconds is not None:
                told["broker_issuer_keys_age_seconds", name] = stands.age_seconds
        return told

    def _alerts(self) -> dict[Key, float]:
        told: dict[Key, float] = {}
        for receiver, waits in self.alerts().items():
            told["broker_alerts_waiting", receiver] = waits.alerts
            since = 0.0 if waits.oldest_at is None else max(0.0, self.clock() - waits.oldest_at)
            told["broker_alerts_oldest_seconds", receiver] = since
        return told

    def _signing(self) -> dict[Key, float]:
        failing = self.signing.failing
        return {("broker_signing_keys_failing_seconds",): 0 if failing is None else self.clock() - failing.since}

    def _places(self) -> dict[Key, float]:
        everything, held = self.places.everything, self.places.held
        return {
            ("broker_upload_places",): everything.places,
            ("broker_upload_places_held",): held.places,
            ("broker_upload_places_waiting",): self.places.waiting,
            ("broker_spool_bytes",): everything.space_bytes,
            ("broker_spool_bytes_held",): held.space_bytes,
        }
