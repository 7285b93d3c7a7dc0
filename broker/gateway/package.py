"""Does the file say what the form says? Name, version, type and digests of an upload, held against each other.

A registry believes whatever part of an upload it happens to look at: one takes the project from `name`, another from
the filename, installers from the metadata inside. So all of them must agree before anything is sent on:

- `:action` is `file_upload` (wrong-action);
- the filename is that of a wheel or a source distribution, in a spelling that can be read in one way only, and agrees
  with `name`, `version`, `filetype` and `pyversion` (filename-mismatch);
- the file is the one whose digests the form states; sha256 is required (digest-mismatch);
- the archive's own metadata agrees (metadata-mismatch).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.errors import MessageError
from email.parser import BytesHeaderParser
from typing import Final, Literal

from packaging.utils import parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from broker import refusals
from broker.gateway.archive import sdist_metadata, wheel_metadata
from broker.gateway.form import Form
from broker.gateway.spool import DIGESTS, SpooledFile
from broker.patterns import normalise

Filetype = Literal["bdist_wheel", "sdist"]

_WHEEL = re.compile(r"[A-Za-z0-9_.]+-[0-9][A-Za-z0-9_.!+]*(?:-[0-9][A-Za-z0-9_.]*)?(?:-[A-Za-z0-9_.]+){3}\.whl")
_SDIST = re.compile(r"[A-Za-z0-9_.]+-[0-9][A-Za-z0-9_.!+]*\.tar\.gz")
"""One dash between name and version (PEP 625), and a version that begins with a digit. With a dash more, as in
`acme-1.0-2.tar.gz`, some read version 2 of `acme-1.0`, and some, pypiserver among them, version `1.0-2` of `acme`: a
token for the one would upload the other. Zipped source distributions are not taken: PEP 625 knows none."""

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
"""What `packaging` reads beside it has white space around it, which registries keep or drop as they please."""

_HEADERS = re.compile(rb".*?(?>\r\n|\r|\n){2}", re.DOTALL)
"""To the first empty line. What follows is the description, which nobody here needs."""
MOST_HEADER_LINES: Final = 100_000
"""Of the metadata's headers, old ones with the description folded into them included. Each costs the parser 150 bytes
and 4 microseconds, and a wheel of 8 KiB could hold millions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A distribution of which form, filename and file agree."""

    project: str
    """Normalised (PEP 503)."""
    name: str
    """As the form has it."""
    version: str
    """As the form has it."""
    filename: str
    filetype: Filetype
    sha256: str
    """Lower-case hex."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Release:
    """One version of one project, however either was written."""

    project: str
    version: Version

    @classmethod
    def read(cls, name: str, version: str) -> _Release:
        """Raises ValueError where one is none."""
        return cls(normalise(name), Version(version))

    def is_named(self, folder: str) -> bool:
        """Whether 'Acme_Widgets-1.0' is this release."""
        name, _, version = folder.rpartition("-")
        try:
            return self == _Release.read(name, version)
        except ValueError:
            return False


def check(form: Form) -> Package:
    """Holds the parts of an upload against each other, by the rules at the top of this file.

    It reads the spooled file: call it in a thread.

    Raises:
        WrongAction, MissingField, FilenameMismatch, DigestMismatch, MetadataMismatch: see above.
    """
    _check_action(form)
    name, version = form.text("name"), form.text("version")
    try:
        release = _Release.read(name, version)
    except ValueError as error:
        raise refusals.FilenameMismatch("the form's name or version is none") from error
    if not _VERSION.fullmatch(version):
        raise refusals.FilenameMismatch(f"the form's version is {version!r}, which is not a version alone")
    filetype = _check_filename(form, release)
    _check_digests(form)
    _check_metadata(form.file, release, filetype)
    return Package(
        project=release.project,
        name=name,
        version=version,
        filename=form.filename,
        filetype=filetype,
        sha256=form.file.digest("sha256_digest"),
        size_bytes=form.file.size,
    )


def _check_action(form: Form) -> None:
    action = form.text(":action")
    if action != "file_upload":
        raise refusals.WrongAction(f"':action' is {action[:40]!r}, and only 'file_upload' passes")
    if form.get("protocol_version") not in {None, "1"}:
        raise refusals.WrongAction("only protocol version 1 is known")


def _check_filename(form: Form, release: _Release) -> Filetype:
    filename, filetype, pyversion = form.filename, form.text("filetype"), form.get("pyversion")
    try:
        if _WHEEL.fullmatch(filename):
            name, version, _, tags = parse_wheel_filename(filename)
            expected: Filetype = "bdist_wheel"
            interpreters = {tag.interpreter for tag in tags}
        elif _SDIST.fullmatch(filename):
            name, version = parse_sdist_filename(filename)
            expected, interpreters = "sdist", {"source"}
        else:
            raise refusals.FilenameMismatch(f"{filename!r} is no wheel's and no source distribution's name")
    except ValueError as error:
        raise refusals.FilenameMismatch(f"{filename!r} is no distribution's name") from error
    if _Release(name, version) != release:
        raise refusals.FilenameMismatch(f"{filename!r} is not of the form's name and version")
    if filetype != expected:
        raise refusals.FilenameMismatch(f"{filename!r} is no {filetype[:40]!r}")
    # Absent or empty where a client does not know it. One in common is enough: flit may state py2.py3 for a py3 wheel.
    if pyversion and interpreters.isdisjoint(pyversion.split(".")):
        raise refusals.FilenameMismatch(f"{filename!r} is not for the Python version {pyversion[:40]!r}")
    return expected


def _check_digests(form: Form) -> None:
    form.text("sha256_digest")
    for name in DIGESTS:
        stated = form.get(name)
        if stated and stated.lower() != form.file.digest(name):
            raise refusals.DigestMismatch(f"the file that came does not have the form's {name!r}")


def _check_metadata(file: SpooledFile, release: _Release, filetype: Filetype) -> None:
    read = wheel_metadata if filetype == "bdist_wheel" else sdist_metadata
    try:
        # The parser that installers use, so that both see the same.
        headers = BytesHeaderParser().parsebytes(_headers(read(file, release.is_named)))
        match headers.get_all("Name", []), headers.get_all("Version", []):
            case [name], [version]:
                inside = _Release.read(str(name).strip(), str(version).strip())
            case _:
                raise refusals.MetadataMismatch("the metadata does not have one name and one version")
    except (MessageError, ValueError) as error:
        raise refusals.MetadataMismatch("the metadata's name or version is none") from error
    if inside != release:
        raise refusals.MetadataMismatch("the metadata inside the archive is of another name or version than the form's")


def _headers(metadata: bytes) -> bytes:
    """The metadata without its description, if it is of a size to be parsed."""
    found = _HEADERS.match(metadata)
    headers = metadata if found is None else found[0]
    if headers.count(b"\n") + headers.count(b"\r") > MOST_HEADER_LINES:
        raise refusals.MetadataMismatch(f"the metadata has more than {MOST_HEADER_LINES} lines of headers")
    return headers
