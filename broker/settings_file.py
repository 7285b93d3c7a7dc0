"""A file that a setting names, for what is too long for a variable: strict YAML, as policies are.

Whatever cannot be meant is told with file, line and path, all of it at once. Secrets stand in files that it names, and
those are found from its folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from broker.gateway.credential import SecretFile
from broker.policy import document
from broker.policy.errors import Findings, Place, shown_path
from broker.policy.shapes import Entry, Shape
from broker.policy.validation import validate
from broker.settings import SettingsError, reason

Root = TypeVar("Root", bound=Shape)
Part = TypeVar("Part", bound=Shape)
Meaning = TypeVar("Meaning")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFile:
    """One such file while it is made sense of."""

    folder: Path
    """Where it lies."""
    findings: Findings
    """What is wrong with it."""

    def add(self, place: Place, what: str, remedy: str) -> None:
        """Notes a mistake."""
        self.findings.add(place, what, remedy)

    def shaped(self, shape: type[Part], entry: Entry, place: Place) -> Part | None:
        """The entry at this place; None, and mistakes are noted, where it has not this shape."""
        return validate(shape, entry, place, self.findings)

    def secret(self, place: Place, path: str) -> SecretStr | None:
        """The secret in a file that is named at this place; None, and a mistake is noted, where it cannot be read."""
        try:
            return SecretFile(self.folder / path)
        except (OSError, ValueError) as error:
            what = f"names a file that cannot be read ({reason(error)})"
            self.add(place, what, "Name one that the broker's user may read.")
        return None


def parse(path: Path, shape: type[Root], findings: Findings) -> Root | None:
    """What stands in a file; None, and mistakes are noted, where it has not this shape.

    Raises:
        OSError
    """
    value = document.read(path.read_bytes(), findings)
    return None if value is None else validate(shape, value, (), findings)


def read(setting: str, path: Path, shape: type[Root], meaning: Callable[[Root, SettingsFile], Meaning]) -> Meaning:
    """What a file means.

    Args:
        setting: Which one names it: 'BROKER_ALERTS'.
        meaning: Makes it of a file of the right shape, and notes what else is wrong.

    Raises:
        SettingsError: with one line for each mistake.
    """
    findings = Findings(file=path.name)
    try:
        root = parse(path, shape, findings)
    except OSError as error:
        raise SettingsError(f"{setting}: {shown_path(path)} cannot be read ({reason(error)}).") from error
    meant = None if root is None else meaning(root, SettingsFile(folder=path.parent, findings=findings))
    if meant is None or findings.errors:
        folder = shown_path(path.parent)
        raise SettingsError("\n".join(f"{setting}: {folder}/{one}. {one.remedy}" for one in sorted(findings.errors)))
    return meant
