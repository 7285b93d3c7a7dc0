"""What in an audit record is worth an alert. Pure: a record and what is remembered go in, alerts come out.

A record shows *signs*. Each says which memories it asks, so that those of many records are read at once, and then
judges: an alert or none, and what is to be remembered. Time is the records' own, so that whoever looks at the same
records again, after a crash, finds the same alerts with the same ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from broker.alerts.kinds import BY_CODE, Alert, Kind
from broker.state import Memorized

BURST_SECONDS: Final = 600
BURST_REFUSALS: Final = 20
"""Of one organization or publisher, within `BURST_SECONDS`."""
BURST_REFUSALS_OF_THE_INDEX: Final = 100
"""Of attempts that are no organization's: anybody at a trusted issuer can make those."""

SEEN_SECONDS: Final = 400 * 86_400
"""How long a publisher is known to have been used by somebody, since it last was."""
REFRESH_SECONDS: Final = 86_400
"""Of what is seen again and again, how often that is noted."""
COUNTED_SECONDS: Final = 7 * 86_400
"""How long what was held back is counted after its quiet time, for the next alert to tell."""

OF_CODES: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("no-publisher", "publisher-expired", "publisher-reads-only", "organization-not-admitted"), "outside-publisher"
    ),
    **dict.fromkeys(("project-not-granted", "namespace-reserved"), "outside-grant"),
    **dict.fromkeys(
        ("unknown-actor", "member-suspended", "member-expired", "member-not-permitted", "machine-required"),
        "member-refused",
    ),
    **{code: code for code in ("replayed-token", "identity-changed", "registry-credential")},
}
"""A refusal's code -> the kind of alert it is."""

OF_RECORDS: Final[Mapping[str, str]] = {"revocation": "revocation", "switch": "switch", "keys": "signing-keys"}
"""A record's kind -> the kind of alert it is, whatever was decided."""

_COMMIT: Final = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})")

_TOLD: Final = (
    *("attempt", "kind", "decision", "code", "index", "issuer", "project", "filename", "release", "sha256"),
    *("token_id", "registry_status", "scope", "unrecorded"),
)
"""Of a record, what an organization's alert tells. Not `detail`, `considered` and `members`: where a repository is two
organizations', those hold names of both."""


class Memory:
    """What is remembered, with what changes of it."""

    def __init__(self, kept: Mapping[str, str]) -> None:
        self._kept = kept
        self.changes: dict[str, Memorized] = {}

    def get(self, key: str) -> str | None:
        """What is remembered under a key."""
        changed = self.changes.get(key)
        return self._kept.get(key) if changed is None else changed.text

    def put(self, key: str, text: str, until: float) -> None:
        """Remembers a text until then (epoch seconds)."""
        self.changes[key] = Memorized(text=text, until=int(until) + 1)


class Sign(Protocol):
    """Something in a record that may be worth an alert."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The memories that it asks."""

    @property
    def teaches(self) -> bool:
        """Whether a record from before there were alerts is to be learned from."""

    def judge(self, memory: Memory) -> Iterator[Alert]:
        """The alerts, with what is to be remembered put into the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that is an alert whenever it happens, but for repeats within the kind's quiet time."""

    kind: Kind
    organization: str
    subject: str
    at: float
    cause: str
    data: Mapping[str, Any] = field(repr=False)
    teaches: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The one in which repeats are counted."""
        return (f"quiet {self.kind.code} {self.organization} {self.subject}",) if self.kind.quiet_seconds else ()

    def judge(self, memory: Memory) -> Iterator[Alert]:
        """An alert, or one more that was held back."""
        held_back = 0
        for key in self.keys:
            quiet_until, held_back = json.loads(memory.get(key) or "[0, 0]")
            if self.at < quiet_until:
                memory.put(key, json.dumps([quiet_until, held_back + 1]), quiet_until + COUNTED_SECONDS)
                return
            quiet_until = self.at + self.kind.quiet_seconds
            memory.put(key, json.dumps([quiet_until, 0]), quiet_until + COUNTED_SECONDS)
        yield Alert(
            kind=self.kind,
            organization=self.organization,
            subject=self.subject,
            at=self.at,
            cause=self.cause,
            data=self.data,
            held_back=held_back,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """That a publisher earned a token: with whom, from where, by what and on what, for each kind of news."""

    publisher: str
    circumstances: Mapping[str, str]
    """Kind of alert -> what was told."""
    at: float
    cause: str
    data: Mapping[str, Any] = field(repr=False)
    teaches: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        """That it was used at all, then each circumstance."""
        told = self.circumstances.items()
        return (f"used {self.publisher}", *(f"seen {self.publisher} {kind} {value}" for kind, value in told))

    def judge(self, memory: Memory) -> Iterator[Alert]:
        """One alert for the first use, whatever is new with it; later, one for each circumstance that is."""
        used, *seen = self.keys
        known = [memory.get(key) is not None for key in seen]
        first = memory.get(used) is None
        for key in self.keys:
            if self.at - float(memory.get(key) or 0) >= REFRESH_SECONDS:
                memory.put(key, str(self.at), self.at + SEEN_SECONDS)
        if first:
            yield self._alert("first-use", self.publisher)
            return
        for (kind, value), is_known in zip(self.circumstances.items(), known, strict=True):
            if not is_known:
                yield self._alert(kind, f"{self.publisher} {value}")

    def _alert(self, kind: str, subject: str) -> Alert:
        return Alert(
            kind=BY_CODE[kind],
            organization=self.publisher.split("/", maxsplit=1)[0],
            subject=subject,
            at=self.at,
            cause=self.cause,
            data=self.data,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One refusal more of those that are many at some time."""

    most: int
    event: Event
    """What it is when they are."""
    teaches: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The last refusals, and those of the event."""
        return (f"refusals {self.event.organization} {self.event.subject}", *self.event.keys)

    def judge(self, memory: Memory) -> Iterator[Alert]:
        """The event, when as many as are a burst stand close together; then it begins anew."""
        key, at = self.keys[0], self.event.at
        times = sorted([*json.loads(memory.get(key) or "[]"), round(at, 3)])
        times = [time for time in times[-self.most :] if times[-1] - time <= BURST_SECONDS]
        burst = len(times) >= self.most
        memory.put(key, json.dumps([] if burst else times), at + BURST_SECONDS)
        if burst:
            yield from self.event.judge(memory)


def signs(body: str) -> tuple[float, tuple[Sign, ...]]:
    """When a record was made, and what it shows.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no record as the broker writes them.
    """
    record = json.loads(body)
    at = datetime.fromisoformat(record["at"]).timestamp()
    if record.get("excerpt"):  # of one that shows what all hear: each would hear it once more, and the operator too
        return at, ()
    return at, (*_of_kind(record, at), *_of_refusal(record, at), *_of_use(record, at))


def _of_kind(record: Mapping[str, Any], at: float) -> Iterator[Sign]:
    """What an operator, or somebody in their name, did. A client that burns its own token is none."""
    kind = OF_RECORDS.get(record["kind"])
    if kind is None or (kind == "revocation" and not record.get("revoked")) or record["decision"] != "allowed":
        return
    told = {name: value for name, value in record.items() if name not in {"version", "organization", "considered"}}
    attempt = record["attempt"]
    whose = "" if BY_CODE[kind].to == "operator" else record["organization"]
    yield Event(kind=BY_CODE[kind], organization=whose, subject=attempt, at=at, cause=attempt, data=told)


def _of_refusal(record: Mapping[str, Any], at: float) -> Iterator[Sign]:
    if record["decision"] != "refused":
        return
    for organization in _concerned(record):
        yield from _of_refusal_for(organization, record, at)


def _concerned(record: Mapping[str, Any]) -> Iterable[str]:
    """The organization whose record it is, and before a project is known, all others that bind the same repository.

    Else an organization would hear nothing of its own runs that are refused, once another binds its repository too.
    """
    if record.get("project"):
        return (record["organization"],)
    named = (*record.get("publishers", ()), *record.get("considered", ()))
    return dict.fromkeys((record["organization"], *(text.partition("/")[0] for text in named)))


def _of_refusal_for(organization: str, record: Mapping[str, Any], at: float) -> Iterator[Sign]:
    code, attempt = record["code"], record["attempt"]
    publisher = _publisher(record, organization)
    told = _told(record, (publisher,) if publisher else ())
    kind = BY_CODE.get(OF_CODES.get(code, ""))
    if kind is not None and (organization or kind.to == "operator"):
        yield Event(
            kind=kind,
            organization="" if kind.to == "operator" else organization,
            subject=_subject(kind.code, record, publisher),
            at=at,
            cause=attempt,
            data=told,
        )
    burst = BY_CODE["refusal-burst"]
    for subject in filter(None, dict.fromkeys((organization or "index", publisher))):
        most = BURST_REFUSALS if organization else BURST_REFUSALS_OF_THE_INDEX
        last = {"refusals": most, "within_seconds": BURST_SECONDS, "last": told}
        event = Event(kind=burst, organization=organization, subject=subject, at=at, cause=attempt, data=last)
        # A `limit` record stands for many that were refused and left none.
        yield event if record["kind"] == "limit" else Tally(most=most, event=event)


def _of_use(record: Mapping[str, Any], at: float) -> Iterator[Sign]:
    if record["kind"] != "mint" or record["decision"] != "allowed":
        return
    identity = record["identity"]
    for publisher in record.get("publishers", ()):
        yield Use(
            publisher=publisher,
            circumstances=_circumstances(identity),
            at=at,
            cause=record["attempt"],
            data=_told(record, (publisher,)),
        )


def _subject(kind: str, record: Mapping[str, Any], publisher: str) -> str:
    if kind == "registry-credential":
        return str(record.get("index", "registry"))
    if kind == "member-refused":
        return f"{record['code']} {record['issuer']} {record['identity']['actor_id']}"
    return f"{record['code']} {publisher}" if kind != record["code"] else publisher


def _publisher(record: Mapping[str, Any], organization: str) -> str:
    """The organization's publisher that the record is about, or that came nearest; empty where none did."""
    considered = (text.partition(":")[0] for text in record.get("considered", ()))
    for publisher in (*record.get("publishers", ()), *considered):
        if publisher.startswith(f"{organization}/"):
            return str(publisher)
    return ""


def _told(record: Mapping[str, Any], publishers: tuple[str, ...]) -> dict[str, Any]:
    told = {name: record[name] for name in _TOLD if record.get(name)}
    if publishers:
        told["publishers"] = list(publishers)
    if "identity" in record:
        told["identity"] = record["identity"]
    return told


def _circumstances(identity: Mapping[str, Any]) -> dict[str, str]:
    """What is compared with earlier uses; what the provider does not tell is left out."""

    def told(name: str) -> str:
        return str(identity.get(name) or identity.get(f"claims.{name}") or "")

    workflow = " ".join(filter(None, (told("workflow"), told("ci_config"), _pinned(told("job_workflow")))))
    found = {
        "new-actor": f"{identity['issuer']} {identity['actor_id']}",
        "new-ref": ref_shape(told("ref")),
        "new-workflow": workflow or told("pipeline_definition_id") or told("step_key"),
        "new-runner": told("runner_environment"),
    }
    return {kind: value for kind, value in found.items() if value}


def _pinned(workflow: str) -> str:
    """'o/n/.github/workflows/f.yml@refs/tags/v1.2' -> '...@refs/tags/v*'. A commit stays: whoever pins one chose it."""
    file, at, ref = workflow.rpartition("@")
    return workflow if _COMMIT.fullmatch(ref) else f"{file}{at}{ref_shape(ref)}"


def ref_shape(ref: str) -> str:
    """What two releases have in common: 'refs/tags/v1.2.3' -> 'refs/tags/v*', 'refs/heads/main' as it is.

    All from the first digit on is cut off; a bare commit is 'commit'.
    """
    if _COMMIT.fullmatch(ref):
        return "commit"
    head, digit, _ = re.match(r"(\D*)(\d?)(.*)", ref, re.DOTALL).groups()  # type: ignore[union-attr]  # fits any text
    return f"{head}*" if digit else head
