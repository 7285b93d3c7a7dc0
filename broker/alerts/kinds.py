"""Every kind of alert there is. `docs/reference/alerts.md` is made from this."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

Audience = Literal["organization", "operator", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of alert."""

    code: str
    message: str
    """A sentence that is the same for all of its alerts: what a token claims stands in fields alone."""
    subject: str
    """What repeats are of."""
    to: Audience = "organization"
    """Whose it is. An organization's kind is the operator's too where no organization is known."""
    quiet_seconds: int = 0
    """Repeats within it are counted, and told with the next alert."""


HOUR: Final = 3600

KINDS: Final = (
    Kind(
        code="outside-publisher",
        message="A run asked for a token and was refused: none of the organization's publishers is for it now.",
        subject="code and publisher that came nearest",
        quiet_seconds=HOUR,
    ),
    Kind(
        code="outside-grant",
        message="An upload was refused: its project is none that the token covers, or another organization's.",
        subject="code and publisher",
        quiet_seconds=HOUR,
    ),
    Kind(
        code="member-refused",
        message="A run was refused: whoever is behind it is no member with the right to its projects now.",
        subject="code and actor",
        quiet_seconds=HOUR,
    ),
    Kind(
        code="replayed-token",
        message="An identity token was brought a second time. If no pipeline repeats itself, somebody else has it.",
        subject="publisher",
        quiet_seconds=HOUR,
    ),
    Kind(
        code="identity-changed",
        message="The names are a publisher's and the immutable ids are not: a repository or an account changed hands.",
        subject="publisher",
        quiet_seconds=HOUR,
    ),
    Kind(
        code="first-use",
        message="A publisher earned a token for the first time.",
        subject="publisher",
    ),
    Kind(
        code="new-actor",
        message="A publisher was used by an actor who had not used it before.",
        subject="publisher and actor",
    ),
    Kind(
        code="new-ref",
        message="A publisher was used from a kind of ref that it had not been used from before.",
        subject="publisher and ref, without its number",
    ),
    Kind(
        code="new-workflow",
        message="A publisher was used by a workflow that had not used it before.",
        subject="publisher and workflow",
    ),
    Kind(
        code="new-runner",
        message="A publisher was used on a kind of runner that it had not been used on before.",
        subject="publisher and kind of runner",
    ),
    Kind(
        code="refusal-burst",
        message="Many attempts were refused in a short time.",
        subject="organization, publisher, or the index",
        quiet_seconds=HOUR,
    ),
    Kind(
        code="registry-credential",
        message="The registry refused the broker's own credential: nothing can be published there.",
        subject="registry",
        to="operator",
        quiet_seconds=HOUR,
    ),
    Kind(
        code="revocation",
        message="Tokens were revoked, all of a subject's at once.",
        subject="attempt",
        to="both",
    ),
    Kind(
        code="switch",
        message="An issuer, an organization or a publisher was switched off or on.",
        subject="attempt",
        to="both",
    ),
    Kind(
        code="signing-keys",
        message="The broker's signing keys changed.",
        subject="attempt",
        to="operator",
    ),
    Kind(
        code="policies-stale",
        message="The policy files have mistakes: the last good ones decide, or everything is denied.",
        subject="policies",
        to="operator",
    ),
    Kind(
        code="policies-current",
        message="The policy files are in force again.",
        subject="policies",
        to="operator",
    ),
    Kind(
        code="keys-stale",
        message="An issuer's keys cannot be refreshed, or are too old to be used.",
        subject="issuer",
        to="operator",
    ),
    Kind(
        code="keys-fresh",
        message="An issuer's keys are fresh again.",
        subject="issuer",
        to="operator",
    ),
)

BY_CODE: Final[Mapping[str, Kind]] = {kind.code: kind for kind in KINDS}

TEST: Final = Kind(code="test", message="This is a test: `broker alerts test` was run.", subject="", to="both")
"""What `broker alerts test` sends, whatever kinds the receiver is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that somebody must hear of."""

    kind: Kind
    organization: str
    """Whose it is; empty where it is nobody's but the operator's."""
    subject: str
    at: float
    """Epoch seconds: of the record, not of the alert."""
    cause: str
    """What it was found in: the attempt's id, most often."""
    data: Mapping[str, Any]
    held_back: int = 0
    """Repeats of it since the last alert, of which nobody was told."""

    @property
    def id(self) -> str:
        """The same whenever the same record is looked at: receivers know repeats by it."""
        told = f"{self.kind.code}\n{self.organization}\n{self.subject}\n{self.cause}"
        return f"alert_{hashlib.sha256(told.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"

    def is_for(self, organizations: frozenset[str], *, index: bool) -> bool:
        """Whether it is for somebody who is told of these organizations, and perhaps of the index itself."""
        if self.kind.to != "operator" and self.organization in organizations:
            return True
        return index and (not self.organization or self.kind.to != "organization")

    def body(self) -> str:
        """The payload, as one line of JSON (ASCII)."""
        data = {
            "organization": self.organization,
            "subject": self.subject,
            "message": self.kind.message,
            **({"held_back": self.held_back} if self.held_back else {}),
            **self.data,
        }
        return json.dumps({"type": self.kind.code, "timestamp": moment(self.at), "data": data}, separators=(",", ":"))


def moment(at: float) -> str:
    """1800000000.0 -> '2027-01-15T08:00:00.000Z'"""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
