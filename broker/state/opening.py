"""From `BROKER_STATE_URL` to a State."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from broker.state import State
from broker.state.sqlite import SQLiteState


def open_state(url: str, *, retention_days: int) -> State:
    """The State that a URL names. Nothing is connected to or created yet: the first operation does that.

    Args:
        url: `sqlite:///state.db` (relative), `sqlite:////var/lib/broker/state.db`, or one of `redis_servers`.
        retention_days: How long audit records are kept.

    Raises:
        ValueError: it is none of these, or the retention is less than a day. The message quotes nothing of the URL,
            for that may hold a password.
    """
    if retention_days < 1:
        raise ValueError("records are kept for at least a day")
    if url.startswith("sqlite:"):
        return SQLiteState(sqlite_file(url), retention_days=retention_days)
    if url.startswith("redis"):
        # Redis's library is some 6 MB in each process, which one that keeps its state in a file need not have.
        from broker.state.redis import RedisState  # noqa: PLC0415
        from broker.state.redis_servers import parse  # noqa: PLC0415

        return RedisState(parse(url), retention_days=retention_days)
    raise ValueError("a state URL begins with sqlite:///, redis://, rediss://, redis+sentinel:// or redis+cluster://")


def shown(url: str) -> str:
    """A state's URL as it may be told to everybody: with neither user nor password, and a file's whole path.

    Raises:
        ValueError: it is no state's URL.
    """
    if url.startswith("sqlite:"):
        file = sqlite_file(url)
        with suppress(OSError):  # where one stands in a folder that was removed
            file = file.absolute()
        return f"sqlite:///{quote(os.fsencode(file))}"  # the very bytes of a name, which need not be UTF-8
    from broker.state.redis_servers import parse  # noqa: PLC0415 - as above

    return parse(url).shown


def sqlite_file(url: str) -> Path:
    """'sqlite:///state.db' -> 'state.db'; 'sqlite:////var/state.db' -> '/var/state.db'.

    Raises:
        ValueError: it is no such URL.
    """
    text = os.fsdecode(unquote_to_bytes(os.fsencode(url.removeprefix("sqlite:///"))))
    if not url.startswith("sqlite:///") or not text or "?" in url or "#" in url or "\0" in text or ":memory:" in text:
        raise ValueError("a SQLite state is a file: write sqlite:///state.db, or sqlite:////var/lib/broker/state.db")
    return Path(text)
