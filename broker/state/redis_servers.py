"""From a URL to a Redis client: one server, the master that Sentinels name, or a Cluster; with or without TLS.

    redis://user:password@host:6379/0
    redis+sentinel://user:password@host1:26379,host2:26379/service/0
    redis+cluster://user:password@host1:6379,host2:6379

and each with `rediss` for TLS. Options, as a query: `replicas` (how many must have what is written; 1 behind Sentinels
and in a Cluster, else 0), `prefix` (of all keys), `ca` (a PEM file, for TLS), `certificate` and `key` (the client's
own), `sentinel_username` and `sentinel_password`. User names and passwords are percent-encoded.

A URL holds credentials: no error here quotes any of it, and parsing is our own, as the standard library's quotes what
it takes for a port, which is the password where a `/` in it was not encoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from broker.state.encoding import to_bytes
from broker.state.redis_confirming import connection_class

MOST_CONNECTIONS: Final = 32
"""Of one process. More do not make one Redis faster; a burst waits its turn."""

CONNECT_SECONDS: Final = 1.0
"""To connect to one server; half of the deadline of an operation, which may need a second try."""

SENTINEL_SECONDS: Final = 0.5
"""To connect to a Sentinel, and for its answer: one that hangs must leave time to ask the next."""

ANSWER_SECONDS: Final = 1.5
"""For one answer. Scripts take microseconds; this is for a server that is gone and whose network does not say so."""

DEFAULT_PREFIX: Final = "{broker}"
"""In braces: what Redis Cluster hashes, so that all keys are in one slot and scripts can reach them."""

_URL = re.compile(
    r"redis(?P<tls>s?)(?:\+(?P<kind>sentinel|cluster))?://"
    r"(?:(?P<username>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<hosts>[^@/?#]+)"
    r"(?:/(?P<path>[^?#]*))?"
    r"(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_PREFIX = re.compile(r"[^{}]*\{[^{}]+\}[^{}]*")
_OPTIONS = frozenset({"replicas", "prefix", "ca", "certificate", "key", "sentinel_username", "sentinel_password"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where Redis is, and how to be let in."""

    kind: str
    """"server", "sentinel" or "cluster"."""
    hosts: tuple[tuple[str, int], ...]
    service: str
    """What the Sentinels call it."""
    database: int
    tls: bool
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    options: dict[str, str] = field(repr=False)

    @property
    def prefix(self) -> str:
        """Before every key."""
        return self.options.get("prefix", DEFAULT_PREFIX)

    @property
    def shown(self) -> str:
        """The URL again, without what lets one in."""
        kind = "" if self.kind == "server" else f"+{self.kind}"
        hosts = ",".join(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name, port in self.hosts)
        service = f"/{quote(self.service, safe='')}" if self.service else ""
        prefix = "" if self.prefix == DEFAULT_PREFIX else f"?prefix={quote(self.prefix, safe='{}')}"
        return f"redis{'s' if self.tls else ''}{kind}://{hosts}{service}/{self.database}{prefix}"

    @property
    def replicas(self) -> int:
        """How many must have what is written before it counts. Who has Sentinels or a Cluster has failovers."""
        return int(self.options.get("replicas", 0 if self.kind == "server" else 1))


def parse(url: str) -> Servers:
    """Reads a URL.

    Raises:
        ValueError: it is none of the forms above. The message quotes nothing of it.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError("no Redis URL: write redis://user:password@host:6379/0, the password percent-encoded")
    kind = parts["kind"] or "server"
    hosts = tuple(_host(text, 26379 if kind == "sentinel" else 6379) for text in parts["hosts"].split(","))
    if kind == "server" and len(hosts) > 1:
        raise ValueError("several Redis hosts: write redis+sentinel:// or redis+cluster://")
    service, database = _path(kind, parts["path"] or "")
    return Servers(
        kind=kind,
        hosts=hosts,
        service=service,
        database=database,
        tls=bool(parts["tls"]),
        username=unquote(parts["username"] or "") or None,
        password=unquote(parts["password"] or "") or None,
        options=_options(parts["query"] or ""),
    )


def _host(text: str, port: int) -> tuple[str, int]:
    parts = _HOST.fullmatch(text)
    if parts is None or not 0 < int(parts["port"] or port) < 1 << 16:
        raise ValueError("a Redis host is a name or an address, and maybe a port: host:6379, [::1]:6379")
    return parts["name"].strip("[]"), int(parts["port"] or port)


def _path(kind: str, path: str) -> tuple[str, int]:
    """'0' -> ('', 0), and for Sentinel 'service/0' -> ('service', 0)."""
    service, _, database = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel" and not service:
        raise ValueError("a Sentinel URL names the service: redis+sentinel://host:26379/service/0")
    if not re.fullmatch(r"[0-9]{0,5}", database) or (kind == "cluster" and database not in {"", "0"}):
        raise ValueError("a Redis database is a number, and in a Cluster there is only 0")
    return unquote(service), int(database or 0)


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= _OPTIONS:
        raise ValueError(f"a Redis URL has an option that is none of {', '.join(sorted(_OPTIONS))}")
    if not _PREFIX.fullmatch(options.get("prefix", DEFAULT_PREFIX)):
        raise ValueError(
            "the prefix of Redis keys has one part in braces, such as {broker}: a Cluster hashes that part"
        )
    if not re.fullmatch(r"[0-9]", options.get("replicas", "0")):
        raise ValueError("the number of Redis replicas to wait for is one digit")
    return options


class Client:
    """A Redis client of whatever kind, and how to close it.

    It retries nothing: whether something may be asked twice, only the operation knows.
    """

    def __init__(self, servers: Servers) -> None:
        self._sentinel: Sentinel | None = None
        self.redis: Redis | RedisCluster = self._client(servers)

    def _client(self, servers: Servers) -> Redis | RedisCluster:
        settings = _connecting(ANSWER_SECONDS, CONNECT_SECONDS) | _tls(servers)
        settings |= {"username": servers.username, "password": servers.password, "max_connections": MOST_CONNECTIONS}
        connection = connection_class(
            tls=servers.tls, sentinel=servers.kind == "sentinel", confirming=servers.replicas > 0
        )
        waiting: dict[str, Any] = {}
        if servers.replicas > 0:
            waiting = {"replicas": servers.replicas, "fence": to_bytes(f"{servers.prefix}:fence:")}
        if servers.kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in servers.hosts]
            cluster = RedisCluster(startup_nodes=nodes, ssl=servers.tls, **settings)
            # It takes neither, and hands both on to each node that it finds.
            cluster.connection_kwargs.update(waiting, connection_class=connection)
            for node in cluster.startup_nodes:
                node.connection_class = connection
                node.connection_kwargs.update(waiting)
            return cluster
        settings |= waiting | {"connection_class": connection, "db": servers.database}
        if servers.kind == "sentinel":
            asking = _connecting(SENTINEL_SECONDS, SENTINEL_SECONDS) | _tls(servers) | {"ssl": servers.tls}
            asking["username"] = servers.options.get("sentinel_username")
            asking["password"] = servers.options.get("sentinel_password")
            self._sentinel = Sentinel(servers.hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call] # theirs
            master: Redis = self._sentinel.master_for(servers.service, **settings)
            return master
        (host, port) = servers.hosts[0]
        return Redis.from_pool(ConnectionPool(host=host, port=port, **settings))

    async def close(self) -> None:
        """Closes every connection."""
        await self.redis.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


def _connecting(answer_seconds: float, connect_seconds: float) -> dict[str, Any]:
    return {
        "socket_timeout": answer_seconds,
        "socket_connect_timeout": connect_seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }


def _tls(servers: Servers) -> dict[str, Any]:
    if not servers.tls:
        return {}
    names = {"ca": "ssl_ca_certs", "certificate": "ssl_certfile", "key": "ssl_keyfile"}
    return {setting: servers.options[option] for option, setting in names.items() if option in servers.options}
