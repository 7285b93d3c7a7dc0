"""`BROKER_*` variables for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """These `BROKER_*` variables, and none beside them."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("BROKER_")]:
        del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
