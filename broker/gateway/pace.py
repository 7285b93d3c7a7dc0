"""How slowly an upload may come. The decision alone: whoever waits for a client counts the seconds, and asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broker.state import LONGEST_UPLOAD_SECONDS

GRACE_SECONDS: Final = 10.0
"""In which nothing need come: a connection that starts badly, or a client that reads its file first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What is asked of a client that sends a body.

    Seconds are those in which the broker waited for the client. Those in which it was busy itself (disk, a place, the
    registry) are not the client's, whose bytes meanwhile stand in line.
    """

    bytes_per_second: int
    """On average, once the grace is over."""
    grace_seconds: float = GRACE_SECONDS
    longest_seconds: float = LONGEST_UPLOAD_SECONDS
    """For the whole body, however fast. What takes longer could not be decided, where its token ended meanwhile."""

    def patience(self, received_bytes: int, waited_seconds: float) -> float:
        """For how many seconds more the next piece is waited for; at 0, and below, the upload is too slow.

        Args:
            received_bytes: What came so far.
            waited_seconds: How long that, all in all, was waited for.
        """
        earned = self.grace_seconds + received_bytes / self.bytes_per_second
        return min(earned, self.longest_seconds) - waited_seconds
