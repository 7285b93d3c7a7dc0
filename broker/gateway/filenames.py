"""Which filenames mean one file: `Acme_Widgets-1.0.tar.gz` and `acme_widgets-1.0.0.tar.gz` are two spellings of one.

Registries differ on that: one takes both, another the first, a third lists both under one project. An installer that
asks for the release sees one file or cannot choose, so for the broker they are one name.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from packaging.utils import canonicalize_version

from broker.patterns import normalise

METADATA: Final = ".metadata"
"""The suffix of the metadata beside a file (PEP 658)."""

_WHEEL = ".whl"
_SDISTS = (".tar.gz", ".zip")


class FileName(NamedTuple):
    """What a filename says, each part in its canonical spelling."""

    project: str
    """Normalised; empty where the filename is of no form that is known here: then it means itself alone."""
    version: str
    kind: str
    """Build, tags and suffix; or the whole filename, as above."""

    def __str__(self) -> str:
        """'acme-widgets 1 py3-none-any.whl'"""
        return " ".join(self)


def read_filename(filename: str) -> FileName:
    """The name of a wheel or source distribution, however it is spelled. Any text will do.

    'Acme.Widgets-1.0-py3.py2-none-any.whl' -> ('acme-widgets', '1', 'py2.py3-none-any.whl')
    """
    if filename.endswith(_WHEEL):
        name, *rest = filename.removesuffix(_WHEEL).split("-")
        if 4 <= len(rest) <= 5:  # noqa: PLR2004 - version, perhaps a build number, and three tags
            return _named(filename, name, rest[0], f"{_build(rest[1:-3])}{_tags(rest[-3:])}{_WHEEL}")
    for suffix in _SDISTS:
        if filename.endswith(suffix):
            name, _, version = filename.removesuffix(suffix).rpartition("-")
            return _named(filename, name, version, suffix)
    return FileName("", "", filename)


def _named(filename: str, name: str, version: str, kind: str) -> FileName:
    try:
        return FileName(normalise(name), canonicalize_version(version), kind)
    except ValueError:
        return FileName("", "", filename)


def _build(parts: list[str]) -> str:
    """['01b'] -> '1b-'; [] -> ''"""
    return "".join(f"{part.lstrip('0')}-".lower() for part in parts)


def _tags(parts: list[str]) -> str:
    """['py3.py2', 'none', 'any'] -> 'py2.py3-none-any'"""
    return "-".join(".".join(sorted(set(part.lower().split(".")))) for part in parts)
