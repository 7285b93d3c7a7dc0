"""Valid settlements and records, each taking the one change that a test is about."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from broker.audit import Record, new_attempt_id
from broker.refusals import StateUnavailable
from broker.state import Claim, Limit, Pin, Settlement, State, Switch, Thrower

_numbers = itertools.count()


def record(**changes: Any) -> Record:
    """A record of an attempt of its own."""
    attempt = new_attempt_id(time.time())
    values: dict[str, Any] = {
        "attempt": attempt,
        "at": time.time(),
        "organization": "acme",
        "body": f'{{"attempt":"{attempt}"}}',
    }
    return Record(**(values | changes))


def settlement(**changes: Any) -> Settlement:
    """An exchange of an identity token of its own."""
    now = changes.get("now", time.time())
    values: dict[str, Any] = {
        "now": now,
        "limits": (),
        "spend": f"https://issuer.example token-{next(_numbers)}",
        "spend_until": int(now) + 600,
        "issued_at": now - 1,
        "receipt": '{"jti":"upload-token"}',
        "pins": (),
        "record": record(at=now),
    }
    return Settlement(**(values | changes))


def pin(value: str = "424242424", *, publisher: str = "acme/widgets-release", field: str = "repository_id") -> Pin:
    """A first use of a publisher."""
    return Pin(publisher=publisher, field=field, value=value)


def limit(burst: int, per_seconds: int = 60, *, key: str = "mint 192.0.2.1") -> Limit:
    """A rate limit."""
    return Limit(key=key, burst=burst, per_seconds=per_seconds)


def switch(subject: str = "organization acme", by: Thrower = "operator", *, at: int = 1000, reason: str = "") -> Switch:
    """A switch that is thrown."""
    return Switch(subject=subject, by=by, at=at, reason=reason)


def claim(name: str = "registry acme-widgets 1.0", *, sha256: str = "ab" * 32, attempt: str | None = None) -> Claim:
    """A claim on a file's name, by an attempt of its own."""
    return Claim(name=name, sha256=sha256, attempt=new_attempt_id(time.time()) if attempt is None else attempt)


async def is_revoked(state: State, token_id: str, subjects: Sequence[str] = (), issued_at: int = 0) -> bool:
    """Whether that speaks against a token."""
    objections = await state.objections(token_id, subjects, issued_at)
    return objections.token or bool(objections.revoked)


@contextlib.contextmanager
def unavailable_in_time() -> Iterator[None]:
    """What is done within ends with StateUnavailable, soon enough for a client that gives up after 5 s."""
    began = time.perf_counter()
    with pytest.raises(StateUnavailable):
        yield
    assert time.perf_counter() - began < 2.5
