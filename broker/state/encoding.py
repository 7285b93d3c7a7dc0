"""Texts as the stores keep them: UTF-8, and whatever else a Python string can hold."""

from __future__ import annotations

import operator
from collections.abc import Callable

to_bytes: Callable[[str], bytes] = operator.methodcaller("encode", "utf-8", "surrogatepass")
"""Any text, lone surrogates included: strict UTF-8 would raise for those, in the middle of other callers' work."""


def to_text(stored: bytes) -> str:
    """The text that `to_bytes` was given."""
    return stored.decode("utf-8", "surrogatepass")
