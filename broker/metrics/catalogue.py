"""Every metric that there is: its name, type, labels, and what it says. `docs/reference/metrics.md` is made from this.

Laws:

- a label's values are of a set that stands here, or are names that the operator wrote: nothing that a token or a
  request claims is ever one;
- no label names an organization, a publisher, a project or a person: who reads metrics learns how much, and not of
  whom. The audit records say that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from broker import refusals
from broker.audit import Kind, Step
from broker.policy.subjects import SWITCHES


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric, as Prometheus sees it."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    of_workers: Literal["sum", "largest", "smallest"] = "sum"
    """What is told of several worker processes."""


NO_CODE: Final = "none"
"""The code of what was allowed."""
UNKNOWN_ISSUER: Final = "unknown"
"""Of every attempt at which no configured issuer was found."""

Outcome = Literal["stored", "confirmed", "already-stored", "rejected"]
Check = Literal["must-pass", "must-fail"]
Delivery = Literal["delivered", "failed", "dropped"]

RECEIVERS: Final = "the names of receivers in the file of `BROKER_ALERTS`"
ISSUERS: Final = "the names of issuers in `index.yaml`"

LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    "kind": get_args(Kind),
    "decision": ("allowed", "refused"),
    "code": (NO_CODE, *(refusal.code for refusal in refusals.every())),
    "issuer": (ISSUERS, UNKNOWN_ISSUER),
    "step": get_args(Step),
    "outcome": get_args(Outcome),
    "check": get_args(Check),
    "what": SWITCHES,
    "delivery": get_args(Delivery),
    "receiver": (RECEIVERS,),
    "version": ("the broker's",),
}
"""Label -> all that it can be."""

BOUNDS_SECONDS: Final = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
"""Of the histograms' buckets: a signature takes a quarter of a millisecond, and an upload minutes."""

METRICS: Final = (
    Metric(
        name="broker_attempts_total",
        type="counter",
        labels=("kind", "decision", "code", "issuer"),
        meaning="Attempts that left an audit record. Reads of an index that is public leave none.",
    ),
    Metric(
        name="broker_refusals_total",
        type="counter",
        labels=("code",),
        meaning="Refusals that were answered, with a record or without: `state-unavailable` has none, nor has "
        "what is no attempt. What is no HTTP (`malformed-http`) is not counted.",
    ),
    Metric(
        name="broker_unrecorded_attempts_total",
        type="counter",
        meaning="Refused attempts that left no record of their own, for too many had been refused from their address, "
        "or in all. A record of the kind `limit` tells of them.",
    ),
    Metric(
        name="broker_refusals_held",
        type="gauge",
        of_workers="largest",
        meaning="How many addresses have had too many attempts refused, each at one organization or at none, and are "
        "held.",
    ),
    Metric(
        name="broker_internal_errors_total",
        type="counter",
        meaning="Requests at which the broker failed: each is a bug, and the log has its traceback.",
    ),
    Metric(
        name="broker_uploads_total",
        type="counter",
        labels=("outcome",),
        meaning="Uploads that were allowed, by what came of them: `stored` by the registry; `confirmed`, that its "
        "index has the file although it did not say so; `already-stored`, the same bytes; `rejected` by the registry.",
    ),
    Metric(
        name="broker_uploaded_bytes_total",
        type="counter",
        meaning="Bytes of the files that were stored or confirmed.",
    ),
    Metric(
        name="broker_attempt_seconds",
        type="histogram",
        labels=("kind", "decision"),
        meaning="From the beginning of an attempt until its record was stored.",
    ),
    Metric(
        name="broker_step_seconds",
        type="histogram",
        labels=("kind", "step"),
        meaning="What each step took that an attempt passed: `body`, that it came (of an upload, with the wait for a "
        "place); `keys`, the issuer's; `verify`, the token; `gates`, publishers, membership and revocation; `mint`; "
        "`package`, the file held against its form; `registry`, its answer, and its index's; `state`, spending and "
        "recording.",
    ),
    Metric(
        name="broker_state_reachable",
        type="gauge",
        of_workers="smallest",
        meaning="1 where the state answered when the metrics were asked for.",
    ),
    Metric(
        name="broker_switched_off",
        type="gauge",
        labels=("what",),
        of_workers="largest",
        meaning="How many are switched off (`broker disable`); no series where the state cannot tell.",
    ),
    Metric(
        name="broker_issuer_keys_usable",
        type="gauge",
        labels=("issuer",),
        of_workers="smallest",
        meaning="1 where keys of the issuer are there that are not too old; a disabled issuer has no series.",
    ),
    Metric(
        name="broker_issuer_keys_age_seconds",
        type="gauge",
        labels=("issuer",),
        of_workers="largest",
        meaning="Since they were fetched; no series where they never were.",
    ),
    Metric(
        name="broker_policies_age_seconds",
        type="gauge",
        of_workers="largest",
        meaning="Since the policies in force were loaded.",
    ),
    Metric(
        name="broker_policies_failing_seconds",
        type="gauge",
        of_workers="largest",
        meaning="How long the policy files have had mistakes, and the last good ones decide; 0 while all is well.",
    ),
    Metric(
        name="broker_policies_denying",
        type="gauge",
        of_workers="largest",
        meaning="1 where that has gone on for too long, and everything is denied.",
    ),
    Metric(
        name="broker_signing_keys_failing_seconds",
        type="gauge",
        of_workers="largest",
        meaning="How long the broker's own signing keys could not be read again, and the last good ones sign and "
        "verify; 0 while all is well.",
    ),
    Metric(name="broker_upload_places", type="gauge", meaning="How many uploads may be under way at once."),
    Metric(name="broker_upload_places_held", type="gauge", meaning="How many are."),
    Metric(name="broker_upload_places_waiting", type="gauge", meaning="How many wait for a place."),
    Metric(name="broker_spool_bytes", type="gauge", meaning="How much space uploads under way may take."),
    Metric(name="broker_spool_bytes_held", type="gauge", meaning="How much those under way have declared."),
    Metric(
        name="broker_alert_deliveries_total",
        type="counter",
        labels=("receiver", "delivery"),
        meaning="Attempts to deliver an alert: `delivered`; `failed`, and tried again; `dropped`, for too many wait.",
    ),
    Metric(
        name="broker_alerts_waiting",
        type="gauge",
        labels=("receiver",),
        of_workers="largest",
        meaning="How many wait to be delivered. The one process that delivers alerts has this series.",
    ),
    Metric(
        name="broker_alerts_oldest_seconds",
        type="gauge",
        labels=("receiver",),
        of_workers="largest",
        meaning="How long the oldest of them has waited; 0 where none does.",
    ),
    Metric(name="broker_workers", type="gauge", meaning="Worker processes that are alive."),
    Metric(
        name="broker_info", type="gauge", labels=("version",), of_workers="largest", meaning="1, for the label's sake."
    ),
    Metric(name="process_cpu_seconds_total", type="counter", meaning="Processor time."),
    Metric(name="process_resident_memory_bytes", type="gauge", meaning="Memory."),
    Metric(name="process_virtual_memory_bytes", type="gauge", meaning="Address space."),
    Metric(name="process_open_fds", type="gauge", of_workers="largest", meaning="Open files and sockets."),
    Metric(name="process_max_fds", type="gauge", of_workers="smallest", meaning="How many each process may have."),
    Metric(
        name="process_start_time_seconds",
        type="gauge",
        of_workers="largest",
        meaning="When the youngest process began, in epoch seconds.",
    ),
)
"""What `/metrics` tells. The `process_` ones are there on Linux alone."""

PROBE_METRICS: Final = (
    Metric(
        name="broker_probe_success",
        type="gauge",
        labels=("check",),
        meaning="1 where the last exchange that must pass did, or the last that must fail was refused as it must be.",
    ),
    Metric(name="broker_probe_seconds", type="gauge", labels=("check",), meaning="What that took."),
    Metric(
        name="broker_probe_token_left",
        type="gauge",
        meaning="1 where an upload token could not be burned: it is usable until its end.",
    ),
    Metric(name="broker_probe_last_run_timestamp_seconds", type="gauge", meaning="When that was, in epoch seconds."),
)
"""What `broker probe --metrics-file` writes."""

BY_NAME: Final = {metric.name: metric for metric in (*METRICS, *PROBE_METRICS)}
