"""Values that no provider sends, for the tables of hostile claims."""

from __future__ import annotations

from typing import Final

NOT_TEXT: Final = [1, 0, 1.5, True, False, [], ["x"], {}, {"x": 1}]

UNREADABLE: Final = ["a\x00", "a\n", "\u202ea", "\ud800", "a" * 1025, "a" * 1_000_000]

NO_NUMBERS: Final = ["x", "١٠٠١", "1 ", "+1", "-1", "1.0", "1e3", "²"]

NO_UUIDS: Final = [
    "x",
    "1001",
    "0184990A-477B-4FA8-9968-496074483CE1",
    "0184990a477b4fa89968496074483ce1",
    "{0184990a-477b-4fa8-9968-496074483ce1}",
    "urn:uuid:0184990a-477b-4fa8-9968-496074483ce1",
    "0184990a-477b-4fa8-9968-496074483ce",
    "0184990a-477b-4fa8-9968-496074483ce11",
    "0184990g-477b-4fa8-9968-496074483ce1",
    "٠184990a-477b-4fa8-9968-496074483ce1",
    " 0184990a-477b-4fa8-9968-496074483ce1",
]
