"""What is remembered between requests, and shared by replicas. Two real implementations: SQLite and Redis.

Both are held to one behaviour suite (`tests/state`), and to these laws:

- Every method does what it says as a whole, or raises `StateUnavailable` (a refusal) within `DEADLINE_SECONDS` and has
  done nothing, or nothing that grants anything. An answer can be lost after the work was done: then a token is spent,
  or a record written, and nobody was told. Such a token earns nothing; a token that two callers could spend would.
- A settlement repeated with the same attempt id is `Settled` again and changes nothing, so that a lost answer may be
  asked for again. Ids of attempts are made by the broker and never used twice.
- Whatever appends a record appends its `others` with it, each to the chain of its own organization: all, or none.
- `now` is the caller's, read once for an attempt. What is kept for a time is kept at least that long.
- Texts may hold anything, NUL and lone surrogates too, and come back as they were.
- A store that is found empty has forgotten: it notes since when it remembers (`beginning`), and what was issued before
  is as good as spent, or revoked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, get_args

from broker.api_tokens import ApiToken
from broker.audit import Record
from broker.chain import Head, Kept
from broker.tokens import LEEWAY_SECONDS

DEADLINE_SECONDS: Final = 2.0
"""After which an operation gives up. Clients give up on the broker after 5 s, and an exchange makes two or three."""

LONGEST_UPLOAD_SECONDS: Final = 3600
"""How long after its token's end an upload that was begun in time may still be decided."""

REVOCATION_MARGIN_SECONDS: Final = LONGEST_UPLOAD_SECONDS + 60
"""How much longer than its token a revocation is kept. Were it forgotten before the gateway stops deciding uploads that
the token began, a client that holds one open could outlive it. The minute is more than replicas' clocks differ."""

API_TOKEN_MARGIN_SECONDS: Final = 30 * 86_400
"""How much longer than its time an API token is kept: whoever shows it is told what it was, and there is a record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """At most `burst` at once, refilled evenly over `per_seconds`.

    Kept as the one moment when the whole burst is free again (the generic cell rate algorithm), in whole microseconds:
    both implementations then reach the same answer, to the last one of a burst.
    """

    key: str
    burst: int
    per_seconds: int

    window: int = field(init=False, repr=False, compare=False)
    """How far ahead a spent burst reaches, in microseconds."""
    interval: int = field(init=False, repr=False, compare=False)
    """What one costs, in microseconds. Rounded down, so that a whole burst always fits the window."""

    def __post_init__(self) -> None:
        """Refuses a limit that means nothing.

        Raises:
            ValueError: `burst` or `per_seconds` is less than one.
        """
        if self.burst < 1 or self.per_seconds < 1:
            raise ValueError("a limit allows at least one in at least one second")
        window = self.per_seconds * 1_000_000
        object.__setattr__(self, "window", window)
        object.__setattr__(self, "interval", window // self.burst)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """An immutable id that a publisher's first use records."""

    publisher: str
    field: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """All that one exchange changes, to be done as a whole or not at all."""

    now: float
    limits: tuple[Limit, ...]
    again: Limit | None = None
    """Counted in place of those where the token was spent before: who shows one token again and again uses up nothing
    that others need."""
    spend: str
    """The key of the identity token: issuer and fingerprint."""
    spend_until: int
    """Epoch seconds until which it must be remembered; always after `now`."""
    issued_at: float
    """When the identity token was issued (epoch seconds, by its issuer's clock)."""
    receipt: str
    """The upload token's claims (never the token), to be given to whoever brings the same identity token again."""
    pins: tuple[Pin, ...]
    """Each field of a publisher at most once."""
    switches: tuple[str, ...] = ()
    """The subjects that must all be switched on."""
    record: Record

    def __post_init__(self) -> None:
        """Refuses what a store would silently forget or overwrite; it is our own mistake, never a caller's.

        Raises:
            ValueError: the token need not be remembered any more, or a limit or a pin stands twice.
        """
        if self.spend_until <= self.now:
            raise ValueError("a token whose time is over cannot be spent: it would be forgotten at once")
        keys = [limit.key for limit in (*self.limits, *([self.again] if self.again else ()))]
        if len(set(keys)) != len(keys):
            raise ValueError("a limit stands twice in one settlement")
        if len(self.pins) > 1 and len({(pin.publisher, pin.field) for pin in self.pins}) != len(self.pins):
            raise ValueError("a pin stands twice in one settlement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The token was spent, limits counted, pins and record written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverLimit:
    """Nothing was counted; of a settlement, nothing was written."""

    retry_after_seconds: int
    """Rounded up, at least 1; by then every limit has room for one, if nobody else takes it."""
    key: str
    """Of the limit that has to be waited for longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """The token was spent before; nothing was written but the count of `again`."""

    receipt: str
    """Of the first time; empty where the first record is older than the retention and gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """The token was issued before the state began to remember, so it may have been spent; nothing was written but the
    count of limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinTaken:
    """Another identity was first; nothing was written but the count of limits."""

    pin: Pin
    """The first of the settlement's that another value stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchedOff:
    """Nothing was written."""

    off: frozenset[str]
    """Of the settlement's switches, those that are off."""


Outcome = Settled | OverLimit | Spent | Forgotten | PinTaken | SwitchedOff


def beginning(now: float, *, began_before: bool) -> int:
    """Since when (epoch seconds) a store remembers that is found empty now.

    Clocks differ by the leeway. Where this process knows that the store was not empty, that is against the caller:
    nothing that was issued before is taken. Where it knows nothing, the store is most likely new, and its first tokens
    were issued a moment ago.
    """
    return int(now) + (LEEWAY_SECONDS if began_before else -LEEWAY_SECONDS)


Thrower = Literal["operator", "owner"]
"""Whose switch one is: the index operator's, or that of an owner of the organization it concerns."""

THROWERS: Final[tuple[Thrower, ...]] = get_args(Thrower)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Something that is switched off. It is on again when nobody's switch of that subject is left."""

    subject: str
    """As `policy.subjects` writes it."""
    by: Thrower
    at: int
    """When it was thrown, in epoch seconds."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Objections:
    """What speaks against a token that is used."""

    token: bool
    """It was revoked itself; or it was minted before the state began to remember, and nobody knows."""
    revoked: frozenset[str]
    """Of its subjects, those whose tokens were revoked after it was minted."""
    off: frozenset[str]
    """Of its subjects, those that are switched off at this moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One attempt's hold on a file's name, while it finds out whether the registry has it, and sends it on."""

    name: str
    """Of the file, and of the registry it is in."""
    sha256: str
    attempt: str
    """Fences: what another attempt claimed since, this one can neither prolong nor conclude."""

    def __post_init__(self) -> None:
        """Refuses a claim that is nobody's; it is our own mistake.

        Raises:
            ValueError: the attempt has no id.
        """
        if not self.attempt:
            raise ValueError("a claim is somebody's: it names its attempt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """Nobody else gets the name until the lease ends."""

    left: bool = False
    """Another attempt with the same bytes had left it: what it sent may still arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """Another attempt holds the name, or left it to the same bytes alone. Ask again shortly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The registry has a file of that name."""

    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKeys:
    """An issuer's key set as it was fetched."""

    fetched_at: float
    document: str
    """The JWKS, JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertProgress:
    """How far the audit records were looked at for alerts."""

    step: int = 0
    """Counts what moved it; 0 where nothing did yet."""
    position: str = ""
    """Of the last record that was looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memorized:
    """What the rules of alerts remember under a key."""

    text: str
    until: int
    """Epoch seconds; kept until then, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertToSend:
    """One alert on its way to one receiver."""

    receiver: str
    id: str
    at: float
    """Epoch seconds, when it was queued."""
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertStep:
    """What looking at some records changes, to be done as a whole or not at all."""

    now: float
    since: AlertProgress
    """What was read before: whoever moved it meanwhile did this work already."""
    position: str
    """Of the last record that was looked at."""
    memory: Mapping[str, Memorized]
    queue: tuple[AlertToSend, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingAlert:
    """The place of an alert in its receiver's queue, and the alert."""

    place: str
    alert: AlertToSend


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for one receiver."""

    alerts: int = 0
    oldest_at: float | None = None
    """Epoch seconds; None where nothing waits."""


ALERTS_KEPT_SECONDS: Final = 30 * 86_400
"""How long an alert waits for a receiver that takes none."""


class State(Protocol):
    """What the broker remembers.

    Every method raises `StateUnavailable`, within `DEADLINE_SECONDS`, where the store cannot be reached or written.
    """

    async def settle(self, settlement: Settlement) -> Outcome:
        """Atomically: asks the switches, counts the limits, spends the token, records pins, appends the record.

        In this order, and the first that says no ends it; of a token that was spent before, `again` alone is counted.
        A token is spent only where the state remembers since before it was issued. Of any number of calls with one
        `spend` key, at any number of replicas, exactly one is `Settled` until `spend_until`; the same attempt again is
        `Settled` again. A pin that is recorded with the same value already is no conflict. Whatever is not `Settled`
        when a switch has been thrown, at any replica, is not until it is lifted.
        """

    async def append(self, record: Record, limits: Sequence[Limit] = (), *, now: float = 0.0) -> OverLimit | None:
        """Appends a record, linked to the last one of its organization (`broker.chain`), as all that append do.

        Atomically with it, counts the limits at `now`; or tells that one has no room, and counts none. The record is
        written either way. Where there are no limits, `now` means nothing.
        """

    async def records(self, most: int, organization: str | None = None) -> Sequence[str]:
        """The newest `most` records (their bodies) of all or of one organization, oldest first.

        "Newest" is by when they were appended. Those older than the retention go away in time, in no hurry.
        """

    async def records_after(self, position: str, most: int, organization: str | None = None) -> Sequence[Kept]:
        """The first `most` records after a position, of all or of one organization, in the order of appending.

        Args:
            position: Of a record of this store, which may be gone; empty for the oldest that is kept.

        Raises:
            ValueError: `position` is none of this store's.
        """

    async def heads(self) -> Mapping[str, Head]:
        """Where each organization's chain stands."""

    async def pins(self, publishers: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """What first uses recorded: publisher -> field -> id, without the publishers that have none."""

    async def revoke(self, token_id: str, until: int, record: Record) -> None:
        """Atomically: revokes an upload token until it would expire (epoch seconds), and appends the record.

        Kept for `REVOCATION_MARGIN_SECONDS` longer, and at least that long: another replica's clock may be behind.
        """

    async def revoke_subject(self, subject: str, before: int, record: Record) -> None:
        """Atomically: revokes all of a subject's tokens that were minted until a moment, and appends the record.

        The moment is in epoch seconds; of several, the latest counts. Remembered until the last such token is over, and
        `REVOCATION_MARGIN_SECONDS`.
        """

    async def objections(self, token_id: str, subjects: Sequence[str] = (), issued_at: int = 0) -> Objections:
        """What speaks against a token that was minted at a moment (epoch seconds), all of it as of now."""

    async def switch_off(self, switch: Switch, record: Record) -> None:
        """Atomically: throws a switch, until it is lifted, and appends the record.

        Thrown again by the same, it has the new moment and reason.
        """

    async def switch_on(self, subject: str, by: Thrower, record: Record) -> bool:
        """Atomically: lifts a switch and appends the record. False, with nothing written, where they have thrown none.

        The other's switch of the subject stays, and holds it off.
        """

    async def switches(self, subjects: Sequence[str] | None = None) -> Sequence[Switch]:
        """All that are thrown, or those of some subjects; in the order of their subjects."""

    async def claim(self, claim: Claim, *, now: float, seconds: float) -> Claimed | Busy | Written:
        """Atomically: takes a file's name for `seconds`, unless it is written, or somebody else's.

        Of any number of calls for one name, at any number of replicas, one is `Claimed` until that one concludes or its
        lease ends. The same attempt again is `Claimed` again. A lease that ended says nothing of the registry: whoever
        gets the name next must ask it.
        """

    async def renew(self, claim: Claim, *, now: float, seconds: float) -> bool:
        """Makes a lease end `seconds` from `now`. False, with nothing changed, where it ended or is not the claim's."""

    async def store(self, claim: Claim, *, now: float) -> bool:
        """Concludes a claim: the registry has the file, with its bytes. False where it is not the claim's any more.

        It is remembered as long as records are; then the name is as unknown as one that was never claimed. Repeated, it
        is True again.
        """

    async def written_at(self, names: Sequence[str], *, now: float) -> Mapping[str, float]:
        """When each of these names was stored (epoch seconds), without those of which that is not known."""

    async def release(self, claim: Claim) -> None:
        """Concludes a claim: the registry does not have the file. Does nothing where it is not the claim's any more."""

    async def leave(self, claim: Claim) -> None:
        """Concludes a claim of which nobody knows what the registry made: until its lease ends, the name can be claimed
        for the same bytes alone, then for any. Does nothing where it is not the claim's any more.
        """

    async def use(self, token_id: str, file: str, *, most: int, now: float, until: int) -> bool:
        """Atomically: counts a file as one use of an upload token, unless it was counted; False where `most` have been.

        Remembered until the token's end (epoch seconds) and `REVOCATION_MARGIN_SECONDS`, as an upload may end later.
        """

    async def store_api_token(self, token: ApiToken) -> None:
        """Keeps an API token until its time is over, and `API_TOKEN_MARGIN_SECONDS`."""

    async def api_token(self, token_id: str) -> ApiToken | None:
        """The API token of that id."""

    async def api_tokens(self) -> Sequence[ApiToken]:
        """All that are kept, oldest first."""

    async def remove_api_token(self, token_id: str) -> bool:
        """Forgets an API token, so that it is good for nothing from now on; whether there was one."""

    async def store_keys(self, issuer: str, keys: StoredKeys) -> None:
        """Keeps an issuer's keys (by URL), so that a restart survives the issuer's outage. Newer ones stay."""

    async def stored_keys(self, issuer: str) -> StoredKeys | None:
        """The keys last stored for an issuer."""

    async def alert_progress(self) -> AlertProgress:
        """How far the records were looked at."""

    async def alert_memory(self, keys: Sequence[str]) -> Mapping[str, str]:
        """What is remembered under these keys, without those under which nothing is."""

    async def advance_alerts(self, step: AlertStep) -> bool:
        """Atomically: remembers, queues, and moves the progress on; False, with nothing done, where it was moved since.

        So of two processes that look at the same records, one alerts. What waits for longer than `ALERTS_KEPT_SECONDS`
        is dropped in time.
        """

    async def waiting_alerts(self, receiver: str, most: int) -> Sequence[WaitingAlert]:
        """What waits for a receiver, in the order of queueing."""

    async def remove_alert(self, receiver: str, place: str) -> None:
        """Forgets an alert that was delivered. Does nothing where it is gone already."""

    async def waiting(self, receivers: Sequence[str]) -> Mapping[str, Waiting]:
        """How much waits for each of these receivers."""

    async def begin(self, now: float) -> Sequence[str]:
        """Begins to remember, unless it did; a settlement does so too. Answers what an operator should be told of how
        the store is kept.
        """

    async def ping(self) -> None:
        """Raises StateUnavailable unless a write succeeds now."""

    async def close(self) -> None:
        """Finishes what was begun, and frees connections and threads. What is called after is StateUnavailable."""
