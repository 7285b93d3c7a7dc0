"""Which project a path of the registry reads: what forward-auth decides, and all that it can decide.

A proxy asks before it sends a request on, and tells the method and the path, never a body. So:

- what is no read is refused, whatever its path: which project an upload is for stands in its body;
- the path is judged as it came, since so the registry gets it. What one program could take for another path than the
  next does (`..`, `//`, `;`, a query, any escape but two) is no path here: nothing is cleaned, only refused;
- a path is a project's page or one of its files, in the two forms that are known. All else is refused, the list of
  projects too, for a proxy cannot filter it;
- a file is what its name says. A name that registries read in two ways, or where a directory could say another thing,
  is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from packaging.version import InvalidVersion, Version

from broker import refusals
from broker.gateway.filenames import METADATA, read_filename
from broker.patterns import normalise

READS: Final = frozenset({"GET", "HEAD"})

LONGEST_NAME: Final = 255

_INDEX: Final = re.compile(r"(?P<root>(?:/(?!\.{1,2}/)[A-Za-z0-9._~-]+)*/)(?P<list>\+?simple)/")

_ESCAPED: Final = {"%2B": "+", "%2b": "+", "%21": "!"}
"""What installers escape in the names of files (`1.0+local`, `1!2.0`) and in devpi's `+simple`. Both signs mean nothing
in a path, so that it is the same path to whoever leaves them escaped."""

_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~+!-]+)+/?")

# A name with a `-` in it may have no `.`, and no part that begins with a digit: some registry would see the version
# begin there. pypiserver has `acme-1.0-widgets-2.0.tar.gz` and `acme-py3.9-1.0.tar.gz` among the files of `acme`.
_NAME: Final = r"(?:[A-Za-z0-9._]+|[A-Za-z0-9_]+(?:-[A-Za-z][A-Za-z0-9_]*)+)"
_VERSION: Final = r"(?P<version>[0-9][A-Za-z0-9._+!]*)"
_FILES: Final = (
    re.compile(rf"{_NAME}-{_VERSION}(?:\.tar\.gz|\.zip)"),
    re.compile(rf"[A-Za-z0-9._]+-{_VERSION}(?:-[0-9][A-Za-z0-9_]*)?(?:-[A-Za-z0-9._]+){{3}}\.whl"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a path reads."""

    project: str
    """Normalised."""
    filename: str = ""
    """One of its files, or the metadata beside one; empty for its page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPaths:
    """Where a registry has its pages and files."""

    pages: str
    """'/simple/', or '/user/index/+simple/'."""
    files: re.Pattern[str]
    """What stands before a file's name: '/packages/', or '/user/index/+f/' and two parts of a digest."""

    @classmethod
    def beside(cls, index_url: str) -> Self:
        """The paths of a registry whose simple index is there: pypiserver's, or devpi's for `+simple`.

        Raises:
            ValueError: it is of neither form.
        """
        path = urlsplit(index_url).path
        found = _INDEX.fullmatch(path)
        if found is None:
            raise ValueError(f"the simple index at {path!r} is of no form that is known: '.../simple/', '.../+simple/'")
        below = "packages/" if found["list"] == "simple" else r"\+f/[0-9a-f]{1,64}/[0-9a-f]{1,64}/"
        return cls(pages=path, files=re.compile(re.escape(found["root"]) + below))

    def asked(self, method: str, target: str) -> Asked:
        """What a request reads.

        Args:
            method: As the client sent it.
            target: Path and query, as the registry will get them.

        Raises:
            NotARead
            UnscopedPath: no project can be told from it.
        """
        if method not in READS:
            raise refusals.NotARead
        path = re.sub("%2[Bb]|%21", lambda escaped: _ESCAPED[escaped[0]], target)
        if not _PATH.fullmatch(path):
            raise refusals.UnscopedPath
        if path.startswith(self.pages):
            return Asked(project=_page(path.removeprefix(self.pages)))
        before = self.files.match(path)
        if before is None:
            raise refusals.UnscopedPath
        filename = path[before.end() :]
        return Asked(project=_project_of(filename.removesuffix(METADATA)), filename=filename)


def _page(name: str) -> str:
    try:
        return normalise(name.removesuffix("/"))
    except ValueError as error:
        raise refusals.UnscopedPath from error


def _project_of(filename: str) -> str:
    found = next((match for form in _FILES if (match := form.fullmatch(filename))), None)
    project = read_filename(filename).project
    if found is None or not project or len(filename) > LONGEST_NAME:
        raise refusals.UnscopedPath
    try:
        Version(found["version"])
    except InvalidVersion as error:
        raise refusals.UnscopedPath from error
    return project
