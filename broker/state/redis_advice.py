"""What Redis tells of itself, and what its operator should be told of that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_NOT_ALLOWED: Final = (
    "Redis does not let this user ask INFO: see to `maxmemory-policy noeviction`, `appendonly yes` and "
    "`min-replicas-to-write` yourself, or grant +info"
)


def advice(sections: Sequence[str], *, replicas: int) -> Sequence[str]:
    """What should be otherwise, by the sections memory, persistence and replication of `INFO`; empty where all is well.

    Args:
        sections: Empty where the broker's user may not ask.
        replicas: How many the broker waits for.
    """
    if not sections:
        return [_NOT_ALLOWED]
    told = dict(re.findall(r"^(\w+):(.*?)\r?$", "\n".join(sections), re.MULTILINE))
    said = []
    if told.get("aof_enabled") != "1":
        said.append("Redis forgets at a restart what was written since its last snapshot: set `appendonly yes`")
    connected = int(told.get("connected_slaves", "0"))
    if replicas == 0 and connected > 0:
        said.append("Redis has replicas, and a failover to one loses what was written last: add replicas=1 to the URL")
    if replicas > connected:
        said.append(f"Redis has {connected} replicas and the broker waits for {replicas}: it refuses until they come")
    if replicas > 0 and "min_slaves_good_slaves" not in told:
        said.append("Redis takes writes without its replicas, which are then refused late: set `min-replicas-to-write`")
    return said
