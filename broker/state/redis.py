"""State in Redis, for processes of several machines.

What changes several things is one script (`redis_scripts`), on keys of one slot. Texts are sent as bytes.

**Asked twice.** Where a connection breaks before the answer came, what is safe to repeat is asked once more, on a new
connection and within the same deadline: all that reads, `store_keys`, what is done with a claim, and `settle`, for
Redis remembers which attempt spent a token and answers it `Settled` again. `append` and `revoke` are not repeated, for
a record could stand twice.

**Since when.** A key says since when Redis remembers. Where it is gone, Redis forgot: what was issued before is as good
as spent, or revoked. Whether this process has seen that key before decides how the leeway counts (`beginning`).

**What an operator owes** is in `docs/how-to/redis.md`; what of it is missing is told at start (`begin`). `ping` refuses
where Redis would evict keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotConnectedError
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from broker import chain
from broker.api_tokens import ApiToken
from broker.audit import Record
from broker.chain import Head, Kept
from broker.policy.model import LONGEST_LIFETIME_SECONDS
from broker.refusals import StateUnavailable
from broker.state import (
    ALERTS_KEPT_SECONDS,
    API_TOKEN_MARGIN_SECONDS,
    DEADLINE_SECONDS,
    REVOCATION_MARGIN_SECONDS,
    THROWERS,
    AlertProgress,
    AlertStep,
    AlertToSend,
    Busy,
    Claim,
    Claimed,
    Forgotten,
    Limit,
    Objections,
    Outcome,
    OverLimit,
    PinTaken,
    Settled,
    Settlement,
    Spent,
    StoredKeys,
    Switch,
    SwitchedOff,
    Thrower,
    Waiting,
    WaitingAlert,
    Written,
    beginning,
)
from broker.state import redis_scripts as scripts
from broker.state.encoding import to_bytes, to_text
from broker.state.redis_advice import advice
from broker.state.redis_confirming import Operation
from broker.state.redis_servers import MOST_CONNECTIONS, Client, Servers
from broker.state.redis_together import MOST_UNDER_WAY, Together

Argument = bytes | str | int

MOST_ALONE = MOST_CONNECTIONS - MOST_UNDER_WAY
"""Connections for what is not sent together."""

_RUNS = {writes: (Operation("EVALSHA", writes=writes), Operation("EVAL", writes=writes)) for writes in (False, True)}
_THROWERS = {by.encode(): by for by in THROWERS}
_POSITION = re.compile(r"[0-9]{1,20}-[0-9]{1,20}", re.ASCII)
"""An entry's id in a stream."""


class RedisState:
    """The Protocol `State` in Redis, 6.2 or later.

    Args:
        servers: Connected to when first needed.
        retention_days: How long records are kept, at least.
    """

    def __init__(self, servers: Servers, *, retention_days: int) -> None:
        self._servers = servers
        self._prefix = to_bytes(servers.prefix)
        self._retention = retention_days * 86_400_000
        self._client = Client(servers)
        self._turns = asyncio.Semaphore(MOST_ALONE)
        redis = self._client.redis
        self._together = Together(redis) if isinstance(redis, Redis) else None
        self._closed = False
        self._began = False
        """Whether Redis was seen to remember."""

    def __repr__(self) -> str:
        hosts = ",".join(f"{host}:{port}" for host, port in self._servers.hosts)
        return f"<RedisState {self._servers.kind} {hosts}>"

    async def settle(self, settlement: Settlement) -> Outcome:
        """As `State.settle`."""
        record, pins = settlement.record, settlement.pins
        limits = settlement.limits if settlement.again is None else (*settlement.limits, settlement.again)
        keys = [
            *self._records_of(record),
            self._key("switches"),
            self._key("spend", settlement.spend),
            self._key("since"),
            *(self._key("limit", limit.key) for limit in limits),
            *(self._key("pins", pin.publisher) for pin in pins),
        ]
        arguments: list[Argument] = [
            *self._appending(record),
            to_bytes(record.attempt),
            to_bytes(settlement.receipt),
            math.ceil((settlement.spend_until - settlement.now) * 1000),
            int(settlement.now * 1_000_000),
            len(settlement.limits),
            len(limits) - len(settlement.limits),
            repr(settlement.issued_at),
            beginning(settlement.now, began_before=self._began),
            *_bounds(limits),
        ]
        for pin in pins:
            arguments += (to_bytes(pin.field), to_bytes(pin.value))
        arguments += map(to_bytes, settlement.switches)
        outcome = await self._run(scripts.SETTLE, keys, arguments)
        self._began = True
        match outcome:
            case [b"settled"]:
                return Settled()
            case [b"over", wait, which]:
                return _over(limits[which], wait)
            case [b"spent", receipt]:
                return Spent(receipt=to_text(receipt))
            case [b"forgotten"]:
                return Forgotten()
            case [b"off", off]:
                return SwitchedOff(off=frozenset(map(to_text, off)))
            case taken:
                return PinTaken(pin=pins[taken[1]])

    async def append(self, record: Record, limits: Sequence[Limit] = (), *, now: float = 0.0) -> OverLimit | None:
        """As `State.append`."""
        keys = [*self._records_of(record), *(self._key("limit", limit.key) for limit in limits)]
        arguments = [*self._appending(record), int(now * 1_000_000), *_bounds(limits)]
        over = await self._run(scripts.APPEND, keys, arguments, repeatable=False)
        return None if over is None else _over(limits[over[1]], over[0])

    async def records(self, most: int, organization: str | None = None) -> Sequence[str]:
        """As `State.records`."""
        if most < 1:
            return []
        keys = [self._key("log")]
        if organization is not None:
            keys.append(self._key("log-of", organization))
        bodies = await self._run(scripts.RECORDS, keys, [most])
        return [to_text(body) for body in reversed(bodies)]

    async def records_after(self, position: str, most: int, organization: str | None = None) -> Sequence[Kept]:
        """As `State.records_after`."""
        if position and not _POSITION.fullmatch(position):
            raise ValueError("no position of a record")
        if most < 1:
            return []
        keys = [self._key("log")]
        if organization is not None:
            keys.append(self._key("log-of", organization))
        found = await self._run(scripts.RECORDS_AFTER, keys, [f"({position}" if position else "-", most])
        return [
            Kept(position=at, organization=name, sequence=int(sequence), link=link, body=body)
            for at, name, sequence, link, body in (map(to_text, one) for one in found)
        ]

    async def heads(self) -> Mapping[str, Head]:
        """As `State.heads`."""
        told = await self._command("HGETALL", self._key("log-heads"))
        return {to_text(name): _head(to_text(one)) for name, one in told.items()}

    async def pins(self, publishers: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """As `State.pins`."""
        if not publishers:
            return {}
        found = await self._run(scripts.PINS, [self._key("pins", publisher) for publisher in publishers], [])
        return {
            publisher: {to_text(name): to_text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
            for publisher, flat in zip(publishers, found, strict=True)
            if flat
        }

    async def revoke(self, token_id: str, until: int, record: Record) -> None:
        """As `State.revoke`."""
        seconds = max(until - record.at, 0) + REVOCATION_MARGIN_SECONDS
        keys = [*self._records_of(record), self._key("revoked", token_id)]
        arguments: list[Argument] = [*self._appending(record), math.ceil(seconds * 1000)]
        await self._run(scripts.REVOKE, keys, arguments, repeatable=False)

    async def revoke_subject(self, subject: str, before: int, record: Record) -> None:
        """As `State.revoke_subject`."""
        seconds = max(before - record.at, 0) + LONGEST_LIFETIME_SECONDS + REVOCATION_MARGIN_SECONDS
        keys = [*self._records_of(record), self._key("revoked-subject", subject)]
        arguments: list[Argument] = [*self._appending(record), math.ceil(seconds * 1000), before]
        await self._run(scripts.REVOKE_SUBJECT, keys, arguments, repeatable=False)

    async def objections(self, token_id: str, subjects: Sequence[str] = (), issued_at: int = 0) -> Objections:
        """As `State.objections`."""
        keys = [
            self._key("revoked", token_id),
            self._key("switches"),
            self._key("since"),
            *(self._key("revoked-subject", subject) for subject in subjects),
        ]
        token, revoked, off = await self._run(scripts.OBJECTIONS, keys, [issued_at, *map(to_bytes, subjects)])
        return Objections(token=bool(token), revoked=frozenset(map(to_text, revoked)), off=frozenset(map(to_text, off)))

    async def switch_off(self, switch: Switch, record: Record) -> None:
        """As `State.switch_off`."""
        kept = b"%d %b" % (switch.at, to_bytes(switch.reason))
        arguments: list[Argument] = [*self._appending(record), _field(switch.subject, switch.by), kept]
        await self._run(scripts.SWITCH_OFF, self._keys_of_switching(record), arguments, repeatable=False)

    async def switch_on(self, subject: str, by: Thrower, record: Record) -> bool:
        """As `State.switch_on`."""
        arguments: list[Argument] = [*self._appending(record), _field(subject, by)]
        return bool(await self._run(scripts.SWITCH_ON, self._keys_of_switching(record), arguments, repeatable=False))

    async def switches(self, subjects: Sequence[str] | None = None) -> Sequence[Switch]:
        """As `State.switches`."""
        if subjects is None:
            kept = await self._command("HGETALL", self._key("switches"))
        else:
            fields = [_field(subject, by) for subject in subjects for by in THROWERS]
            found = await self._command("HMGET", self._key("switches"), *fields) if fields else []
            kept = {field: value for field, value in zip(fields, found, strict=True) if value is not None}
        return sorted((_switch(field, value) for field, value in kept.items()), key=lambda one: (one.subject, one.by))

    def _keys_of_switching(self, record: Record) -> Sequence[bytes]:
        return *self._records_of(record), self._key("switches")

    async def claim(self, claim: Claim, *, now: float, seconds: float) -> Claimed | Busy | Written:
        """As `State.claim`."""
        del now  # the lease runs by the server's clock
        arguments: list[Argument] = [to_bytes(claim.attempt), to_bytes(claim.sha256), math.ceil(seconds * 1000)]
        match await self._run(scripts.CLAIM, [self._file(claim.name)], arguments):
            case [b"claimed", left]:
                return Claimed(left=bool(left))
            case [b"written", sha256]:
                return Written(sha256=to_text(sha256))
            case _:
                return Busy()

    async def renew(self, claim: Claim, *, now: float, seconds: float) -> bool:
        """As `State.renew`."""
        del now
        return await self._conclude(claim, "renew", math.ceil(seconds * 1000))

    async def store(self, claim: Claim, *, now: float) -> bool:
        """As `State.store`."""
        return await self._conclude(claim, "store", self._retention, now)

    async def written_at(self, names: Sequence[str], *, now: float) -> Mapping[str, float]:
        """As `State.written_at`."""
        del now
        if not names:
            return {}
        found = await self._run(scripts.WRITTEN_AT, [self._file(name) for name in names], [])
        return {name: float(at) for name, at in zip(names, found, strict=True) if at is not None}

    async def release(self, claim: Claim) -> None:
        """As `State.release`."""
        await self._conclude(claim, "release")

    async def leave(self, claim: Claim) -> None:
        """As `State.leave`."""
        await self._conclude(claim, "leave")

    async def _conclude(self, claim: Claim, how: str, milliseconds: int = 0, now: float = 0.0) -> bool:
        arguments: list[Argument] = [to_bytes(claim.attempt), how, milliseconds, repr(now)]
        return bool(await self._run(scripts.CONCLUDE, [self._file(claim.name)], arguments))

    async def use(self, token_id: str, file: str, *, most: int, now: float, until: int) -> bool:
        """As `State.use`."""
        seconds = max(until - now, 0) + REVOCATION_MARGIN_SECONDS
        arguments: list[Argument] = [to_bytes(file), most, math.ceil(seconds * 1000)]
        return bool(await self._run(scripts.USE, [self._key("uses", token_id)], arguments))

    async def store_api_token(self, token: ApiToken) -> None:
        """As `State.store_api_token`."""
        kept = dataclasses.asdict(token)
        fields = [part for name in kept for part in (name, to_bytes(str(kept[name])))]
        milliseconds = (token.expires_at - token.created_at + API_TOKEN_MARGIN_SECONDS) * 1000
        arguments: list[Argument] = [to_bytes(token.id), token.created_at, milliseconds, *fields]
        await self._run(scripts.STORE_API_TOKEN, self._keys_of_token(token.id), arguments)

    async def api_token(self, token_id: str) -> ApiToken | None:
        """As `State.api_token`."""
        names = [one.name for one in dataclasses.fields(ApiToken)]
        kept = await self._command("HMGET", self._key("api-token", token_id), *names)
        if kept[0] is None:
            return None
        # What was stored by a broker that had fewer fields has no organization.
        texts = {name: to_text(text) for name, text in zip(names, kept, strict=True) if text is not None}
        times = {name: int(texts.pop(name)) for name in ("created_at", "expires_at")}
        return ApiToken(**texts, **times)  # type: ignore[arg-type]  # texts and numbers, by their names

    async def api_tokens(self) -> Sequence[ApiToken]:
        """As `State.api_tokens`."""
        ids = await self._command("ZRANGE", self._key("api-tokens"), 0, -1)
        found = [await self.api_token(to_text(one)) for one in ids]
        return [token for token in found if token is not None]

    async def remove_api_token(self, token_id: str) -> bool:
        """As `State.remove_api_token`."""
        keys = self._keys_of_token(token_id)
        return bool(await self._run(scripts.REMOVE_API_TOKEN, keys, [to_bytes(token_id)], repeatable=False))

    def _keys_of_token(self, token_id: str) -> Sequence[bytes]:
        return self._key("api-token", token_id), self._key("api-tokens")

    async def store_keys(self, issuer: str, keys: StoredKeys) -> None:
        """As `State.store_keys`."""
        arguments: list[Argument] = [repr(keys.fetched_at), to_bytes(keys.document)]
        await self._run(scripts.STORE_KEYS, [self._key("keys", issuer)], arguments)

    async def stored_keys(self, issuer: str) -> StoredKeys | None:
        """As `State.stored_keys`."""
        fetched_at, document = await self._command("HMGET", self._key("keys", issuer), "fetched_at", "document")
        return None if document is None else StoredKeys(fetched_at=float(fetched_at), document=to_text(document))

    async def alert_progress(self) -> AlertProgress:
        """As `State.alert_progress`."""
        step, position = await self._command("HMGET", self._key("alert-progress"), "step", "position")
        return AlertProgress() if step is None else AlertProgress(step=int(step), position=to_text(position))

    async def alert_memory(self, keys: Sequence[str]) -> Mapping[str, str]:
        """As `State.alert_memory`."""
        if not keys:
            return {}
        found = await self._command("MGET", *map(self._memory, keys))
        return {key: to_text(text) for key, text in zip(keys, found, strict=True) if text is not None}

    async def advance_alerts(self, step: AlertStep) -> bool:
        """As `State.advance_alerts`."""
        memory = {key: one for key, one in step.memory.items() if one.until > step.now}
        keys = [
            self._key("alert-progress"),
            *map(self._memory, memory),
            *(self._key("alert-queue", one.receiver) for one in step.queue),
        ]
        arguments: list[Argument] = [
            step.since.step,
            to_bytes(step.since.position),
            to_bytes(step.position),
            len(memory),
            ALERTS_KEPT_SECONDS * 1000,
        ]
        for one in memory.values():
            arguments += (to_bytes(one.text), math.ceil((one.until - step.now) * 1000))
        for alert in step.queue:
            arguments += (to_bytes(alert.id), repr(alert.at), to_bytes(alert.body))
        return bool(await self._run(scripts.ADVANCE_ALERTS, keys, arguments, repeatable=False))

    async def waiting_alerts(self, receiver: str, most: int) -> Sequence[WaitingAlert]:
        """As `State.waiting_alerts`."""
        found = await self._command("XRANGE", self._key("alert-queue", receiver), "-", "+", "COUNT", most)
        return [
            WaitingAlert(
                place=to_text(place),
                alert=AlertToSend(
                    receiver=receiver,
                    id=to_text(fields[b"id"]),
                    at=float(fields[b"at"]),
                    body=to_text(fields[b"body"]),
                ),
            )
            for place, fields in found
        ]

    async def remove_alert(self, receiver: str, place: str) -> None:
        """As `State.remove_alert`."""
        await self._command("XDEL", self._key("alert-queue", receiver), place)

    async def waiting(self, receivers: Sequence[str]) -> Mapping[str, Waiting]:
        """As `State.waiting`."""
        if not receivers:
            return {}
        found = await self._run(scripts.WAITING, [self._key("alert-queue", receiver) for receiver in receivers], [])
        return {
            receiver: Waiting(alerts=alerts, oldest_at=None if at is None else float(at))
            for receiver, (alerts, at) in zip(receivers, found, strict=True)
        }

    def _memory(self, key: str) -> bytes:
        return self._key("alert-memory", hashlib.sha256(to_bytes(key)).hexdigest())

    async def begin(self, now: float) -> Sequence[str]:
        """As `State.begin`."""
        sections = await self._run(scripts.BEGIN, [self._key("since")], [beginning(now, began_before=self._began)])
        self._began = True
        return advice([to_text(section) for section in sections], replicas=self._servers.replicas)

    async def ping(self) -> None:
        """As `State.ping`; also where Redis is set to forget keys when its memory is full."""
        forgetful = await self._run(
            scripts.PING, [self._key("ping"), self._key("log"), self._key("log-heads")], [self._retention]
        )
        if forgetful:
            raise StateUnavailable("Redis forgets keys when its memory is full: set `maxmemory-policy noeviction`")

    async def close(self) -> None:
        """As `State.close`."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                for _ in range(MOST_ALONE):  # behind all who have a turn, or wait for one
                    await self._turns.acquire()
                if self._together is not None:
                    await self._together.close()
        with contextlib.suppress(RedisError, OSError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._client.close()

    def _key(self, kind: str, name: str = "") -> bytes:
        """'{broker}:pins:acme/widgets-release'."""
        return b"%b:%b:%b" % (self._prefix, kind.encode(), to_bytes(name))

    def _file(self, name: str) -> bytes:
        return self._key("file", hashlib.sha256(to_bytes(name)).hexdigest())

    def _records_of(self, record: Record) -> tuple[bytes, bytes, bytes]:
        return self._key("log"), self._key("log-of", record.organization), self._key("log-heads")

    def _appending(self, record: Record) -> tuple[Argument, ...]:
        """What every script takes that appends, before its own arguments."""
        others = [part for one in record.others for part in _linked(one)]
        return self._retention, *_linked(record), len(record.others), *others

    async def _run(
        self, script: scripts.Script, keys: Sequence[bytes], arguments: Sequence[Argument], *, repeatable: bool = True
    ) -> Any:
        """What a script answers; it is sent in full only to a Redis that has not seen it since its start."""

        by_name, in_full = _RUNS[script.writes]
        asked = len(keys), *keys, *arguments

        async def alone() -> Any:
            try:
                return await self._send(by_name, script.name, *asked)
            except NoScriptError:
                return await self._send(in_full, script.text, *asked)

        # What writes answers briefly; what reads may answer with a thousand records, and others would wait for them.
        if self._together is None or not script.writes:
            return await self._within_deadline(alone, self._turns, repeatable=repeatable)
        run, commands = self._together.run, ((by_name, script.name, *asked), (in_full, script.text, *asked))
        return await self._within_deadline(lambda: run(*commands), contextlib.nullcontext(), repeatable=repeatable)

    async def _command(self, name: str, *arguments: Argument) -> Any:
        """What a command answers that only reads, or may be done twice and be lost."""
        command = Operation(name, writes=False), *arguments
        return await self._within_deadline(lambda: self._send(*command), self._turns, repeatable=True)

    async def _send(self, *command: Argument) -> Any:
        try:
            return await self._client.redis.execute_command(*command)
        except RuntimeError as error:
            # uvloop's, for writing to a connection that the other side has just closed; asyncio has an OSError there.
            raise NotConnectedError from error

    async def _within_deadline(
        self, ask: Callable[[], Awaitable[Any]], turn: AbstractAsyncContextManager[None], *, repeatable: bool
    ) -> Any:
        """Waits for a turn and asks, once more where the connection broke and that is safe.

        Raises:
            StateUnavailable: there was no answer in time, or an error.
        """
        if self._closed:
            raise StateUnavailable
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), turn:
                try:
                    return await ask()
                except NotConnectedError:
                    if not repeatable:
                        raise
                    return await ask()
        except (RedisError, RedisClusterException, OSError) as error:
            raise StateUnavailable from error


def _linked(record: Record) -> tuple[Argument, ...]:
    """Body, digest, organization, and genesis of its chain."""
    body = to_bytes(record.body)
    return body, chain.digest(body).hex(), to_bytes(record.organization), chain.genesis(record.organization)


def _field(subject: str, by: Thrower) -> bytes:
    """'operator issuer github'"""
    return b"%b %b" % (by.encode(), to_bytes(subject))


def _switch(field: bytes, kept: bytes) -> Switch:
    (by, _, subject), (at, _, reason) = field.partition(b" "), kept.partition(b" ")
    return Switch(subject=to_text(subject), by=_THROWERS[by], at=int(at), reason=to_text(reason))


def _head(told: str) -> Head:
    sequence, link, swept_sequence, swept_link = told.split(" ")
    return Head(sequence=int(sequence), link=link, swept_sequence=int(swept_sequence), swept_link=swept_link)


def _bounds(limits: Sequence[Limit]) -> Iterator[int]:
    """Interval and window of each."""
    for limit in limits:
        yield limit.interval
        yield limit.window


def _over(limit: Limit, wait: bytes) -> OverLimit:
    return OverLimit(retry_after_seconds=-(-int(wait) // 1_000_000), key=limit.key)
