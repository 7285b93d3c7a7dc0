"""URLs of states: what they mean, and that a wrong one is refused without being quoted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker.state.opening import open_state
from broker.state.redis_servers import parse
from broker.state.sqlite import SQLiteState


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///state.db", "<SQLiteState state.db>"),
        ("sqlite:////var/lib/broker/state.db", "<SQLiteState /var/lib/broker/state.db>"),
        ("sqlite:///a%20folder/state.db", "<SQLiteState a folder/state.db>"),
        ("redis://127.0.0.1", "<RedisState server 127.0.0.1:6379>"),
        ("rediss://user:pa%2Fss@redis.acme.example:6380/3", "<RedisState server redis.acme.example:6380>"),
        ("redis://:pass@[::1]:6379/0", "<RedisState server ::1:6379>"),
        ("redis+sentinel://u:p@a,b:26380/service/2", "<RedisState sentinel a:26379,b:26380>"),
        ("redis+cluster://u:p@a,b:7000/0", "<RedisState cluster a:6379,b:7000>"),
    ],
)
def test_a_state_shows_where_it_is_and_no_credentials(url: str, shown: str) -> None:
    async def work() -> None:
        state = open_state(url, retention_days=30)
        assert repr(state) == shown
        await state.close()

    asyncio.run(work())


def test_a_redis_url_is_read_whole() -> None:
    servers = parse(
        "rediss+sentinel://us%40er:pa%2Fss%3A@a,b:26380/main/2?prefix={acme}&sentinel_password=s%26p&ca=/etc/ca.pem"
    )
    assert (servers.kind, servers.tls, servers.hosts) == ("sentinel", True, (("a", 26379), ("b", 26380)))
    assert (servers.service, servers.database, servers.prefix) == ("main", 2, "{acme}")
    assert (servers.username, servers.password) == ("us@er", "pa/ss:")
    assert servers.options["sentinel_password"] == "s&p"
    assert not [secret for secret in ("us@er", "pa/ss", "s&p") if secret in repr(servers)]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "secret",
        "postgres://secret@host/0",
        "sqlite://secret/state.db",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///state.db?secret=1",
        "redis:secret",
        "redis://user:secret/1@host/0",
        "redis://user:secret#1@host/0",
        "redis://user:secret@host:port/0",
        "redis://user:secret@host:99999/0",
        "redis://user:secret@host:6379/zero",
        "redis://user:secret@a,b/0",
        "redis://user:secret@ho st/0",
        "redis://user:secret@host/0?secret=1",
        "redis://user:secret@host/0?prefix=broker",
        "redis://user:secret@host/0?prefix={}",
        "redis://user:secret@host/0?replicas=",
        "redis://user:secret@host/0?replicas=two",
        "redis://user:secret@host/0?replicas=-1",
        "redis+sentinel://user:secret@host:26379",
        "redis+cluster://user:secret@host/1",
        "redis+other://user:secret@host",
    ],
)
def test_a_wrong_url_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ValueError) as raised:
        open_state(url, retention_days=30)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "replicas"),
    [
        ("redis://host", 0),
        ("redis://host?replicas=2", 2),
        ("redis+sentinel://host/main", 1),
        ("redis+cluster://host", 1),
        ("redis+cluster://host?replicas=0", 0),
    ],
)
def test_where_masters_change_a_replica_is_waited_for_unless_the_url_says_otherwise(url: str, replicas: int) -> None:
    assert parse(url).replicas == replicas


def test_records_are_kept_for_a_day_at_least(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        open_state(f"sqlite:///{tmp_path}/state.db", retention_days=0)


def test_opening_touches_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        began = time.perf_counter()
        state = open_state(f"sqlite:///{tmp_path}/none/state.db", retention_days=30)
        assert isinstance(state, SQLiteState)
        await state.close()
        assert time.perf_counter() - began < 1

    asyncio.run(work())
    assert not list(tmp_path.iterdir())


def test_a_broker_with_its_state_in_a_file_loads_no_redis() -> None:
    look = "import sys, broker.cli.serve; from broker.state.opening import open_state; print('redis' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
