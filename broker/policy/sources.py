"""The policy files once more, as they are written: what the compiled policies do not keep, such as lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.policy import document, folder
from broker.policy.errors import Findings, Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file."""

    file: str
    """Relative to the policies' folder."""
    values: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[Place, int] = field(default_factory=dict)

    def findings(self) -> Findings:
        """An empty list of findings that knows the file's lines."""
        return Findings(file=self.file, lines=dict(self.lines))


def read_sources(path: Path) -> dict[str, Source]:
    """Reads all policy files of a folder, by their names; what cannot be read is left out, for `load` tells of it."""
    sources: dict[str, Source] = {}
    for file in folder.list_files(path)[0]:
        findings = Findings(file=file)
        content = folder.read_bytes(path, file, findings)
        values = None if content is None else document.read(content, findings)
        if values is not None:
            sources[file] = Source(file=file, values=values, lines=findings.lines)
    return sources
