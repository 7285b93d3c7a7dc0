"""The design's example as files, for tests that change one thing in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

INDEX: Final = """\
issuers:
  github: {provider: github}
  gitlab: {provider: gitlab}
  google: {provider: google}
  gitlab-acme:
    provider: gitlab
    url: https://gitlab.acme.example
    organizations: [acme]
lifetime: {default: 15m, longest: 1h}
organizations:
  acme: {namespaces: [acme], projects: [widgets]}
  globex: {namespaces: [globex]}
"""

ACME: Final = """\
organization: acme
namespaces: [acme]
members:
  alice: {role: owner, github: "1001", gitlab: "77"}
  bob: {role: member, github: "1002", until: 2027-01-31}
  carol: {role: billing-manager, github: "1003"}
  release-bot: {role: member, machine: true, google: "112233445566778899"}
teams:
  core: [alice, bob]
projects:
  acme-widgets: {upload: ["team:core"]}
  acme-*: {upload: [release-bot]}
publishers:
  widgets-release:
    issuer: github
    repository: acme-corp/widgets
    repository_id: "424242424"
    repository_owner_id: "65600975"
    workflow: release.yml
    environment: pypi
    refs: ["refs/tags/v*"]
    events: [push, release, workflow_dispatch]
    projects: [acme-widgets]
"""

GLOBEX: Final = """\
organization: globex
namespaces: [globex]
members:
  alice: {role: owner, gitlab: "77"}
publishers:
  engine-release:
    issuer: gitlab
    project_path: globex/engine
    pin: first-use
    projects: [globex-engine]
"""

FILES: Final = {
    "index.yaml": INDEX,
    "organizations/acme.yaml": ACME,
    "organizations/globex.yaml": GLOBEX,
}


def write(folder: Path, files: Mapping[str, str | bytes] = FILES) -> Path:
    """Writes a folder of policies."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def changed(file: str, old: str, new: str) -> dict[str, str]:
    """The example with one text in one file replaced; `old` stands there once."""
    assert FILES[file].count(old) == 1, f"{old!r} stands {FILES[file].count(old)} times in {file}"
    return {**FILES, file: FILES[file].replace(old, new)}


def line_of(text: str, marker: str) -> int:
    """The line on which a text that stands once begins."""
    assert text.count(marker) == 1, f"{marker!r} stands {text.count(marker)} times"
    return text[: text.index(marker)].count("\n") + 1
