"""From a folder of policy files to `Policies`, whole or not at all: by a folder with a mistake nothing is granted."""

from __future__ import annotations

from pathlib import Path

from broker.policy.errors import PolicyErrors
from broker.policy.loader import Loader
from broker.policy.model import Policies

__all__ = ["PolicyErrors", "load"]


def load(path: Path, *, allow_loopback_issuers: bool = False) -> Policies:
    """Loads a folder of policies.

    Args:
        allow_loopback_issuers: For development: issuers may be `http://127.0.0.1:...` and the like.

    Raises:
        PolicyErrors: with every mistake in every file.
    """
    return Loader(path, allow_loopback_issuers=allow_loopback_issuers).load()
