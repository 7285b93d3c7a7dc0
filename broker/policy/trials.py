"""Whether policies do what their test cases expect: each case is rehearsed, and told how it differs if it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from broker.patterns import Projects
from broker.policy.cases import Case
from broker.policy.model import Policies
from broker.policy.rehearsal import Rehearsal, rehearse


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Failure:
    """A case that did not come out as expected."""

    file: str
    line: int
    path: str
    case: str
    expected: str
    came: str
    detail: str
    """What the refusal says, where one came."""
    nearest: str
    """The publisher that came nearest to matching, and what did not fit; empty where one matched or none was found."""

    @property
    def what(self) -> str:
        """'expected acme-widgets, came no-publisher: no publisher fits ...'."""
        return f"expected {self.expected}, came {self.came}" + (f": {self.detail}" if self.detail else "")

    @property
    def remedy(self) -> str:
        """Where to look."""
        if self.nearest:
            return f"Nearest is {self.nearest}."
        return "Mend the policy; or the case, if what it expects has changed."


def try_case(policies: Policies, case: Case, now: float) -> Failure | None:
    """How a case differs from what is expected; None if it does not.

    Args:
        now: Epoch seconds; for cases that name no moment.
    """
    at = now if case.at is None else case.at
    found = rehearse(policies, case.claims, now=at, pins=case.pins, scope=case.scope)
    granted = found.grant.projects if found.grant else frozenset()
    code = found.refusal.code if found.refusal else ""
    if (granted, code) == (case.allow, case.refuse):
        return None
    return Failure(
        file=case.file,
        line=case.line,
        path=case.path,
        case=case.name,
        expected=case.refuse or _listed(case.allow),
        came=code or _listed(granted),
        detail=_ascii(found.refusal.detail) if found.refusal else "",
        nearest=_ascii(_nearest(found)),
    )


def _ascii(text: str) -> str:
    """A letter of a claim that poses as another is seen for what it is."""
    return text.encode("ascii", "backslashreplace").decode()


def _listed(projects: Iterable[Projects]) -> str:
    return "the grant " + ", ".join(map(str, sorted(projects)))


def _nearest(found: Rehearsal) -> str:
    """The one whose rules went furthest."""
    refused = [(one, one.mismatch.rule) for one in found.considered if one.mismatch is not None]
    if not refused or len(refused) < len(found.considered):
        return ""
    return str(max(refused, key=lambda pair: pair[0].publisher.trust.rules.index(pair[1]))[0])
