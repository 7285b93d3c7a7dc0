"""Judges upload forms against upload tokens; the middlewares for WSGI and ASGI both go by this.

A registry takes the project from whatever part of a form it happens to look at, so all that name it must agree, and be
in the token's scope. The body is spooled to disk and judged there, complete. What passes is written anew, under a
boundary that nobody could know: so it matters not how the registry's own parser would have read what came.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import mmap
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from trusted_tokens import USER, Refused, TrustedTokens, UploadToken, covers, normalise

DIGESTS: Final[Mapping[str, Callable[[], Any]]] = {
    "sha256_digest": hashlib.sha256,
    "md5_digest": lambda: hashlib.md5(usedforsecurity=False),
    "blake2_256_digest": lambda: hashlib.blake2b(digest_size=32),
}

# fmt: off
SINGLE: Final = frozenset({
    ":action", "protocol_version", "metadata_version", "name", "version", "filetype", "pyversion", "comment",
    "summary", "description", "description_content_type", "home_page", "download_url", "author", "author_email",
    "maintainer", "maintainer_email", "license", "license_expression", "requires_python", "attestations", "content",
    *DIGESTS,
})
"""Fields that stand in a form once. `gpg_signature` is not among them: registries store that file unchecked."""

MULTIPLE: Final = frozenset({
    "keywords", "classifiers", "platform", "supported_platform", "project_url", "project_urls", "requires",
    "provides", "obsoletes", "requires_dist", "provides_dist", "obsoletes_dist", "requires_external",
    "provides_extra", "provides_extras", "dynamic", "license_file", "license_files", "import_name",
    "import_namespace",
})
"""Fields that may repeat."""
# fmt: on

_MOST_PARTS = 4096
_MOST_TEXT_BYTES = 8 << 20
_LONGEST_HEADERS = 2048
_BLOCK_BYTES = 1 << 20

_BOUNDARY = r"""(?:"([0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?])"|([0-9A-Za-z'+_.\-]{1,70}))"""
_CONTENT_TYPE = re.compile(rf"multipart/form-data[ \t]*;[ \t]*boundary={_BOUNDARY}", re.IGNORECASE)
_HEADER = re.compile(rb"([A-Za-z-]+):[ \t]*([\x20-\x7e]+)")
_DISPOSITION = re.compile(
    rb'form-data; ?name="([\x21\x23-\x5b\x5d-\x7e]{1,64})"(?:; ?filename="([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})")?',
    re.IGNORECASE,
)
_LENGTH = re.compile(r"[0-9]{1,18}")

_WHEEL = re.compile(r"([A-Za-z0-9_.]+)-([0-9][A-Za-z0-9_.!+]*)(?:-[0-9][A-Za-z0-9_.]*)?(?:-[A-Za-z0-9_.]+){3}\.whl")
_SDIST = re.compile(r"([A-Za-z0-9_.]+)-([0-9][A-Za-z0-9_.!+]*)\.tar\.gz")
"""One dash between name and version (PEP 625): with more, registries differ on where the name ends."""
_VERSION = re.compile(
    r"(?:[1-9][0-9]*!)?(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*(?:(?:a|b|rc)(?:0|[1-9][0-9]*))?"
    r"(?:\.post(?:0|[1-9][0-9]*))?(?:\.dev(?:0|[1-9][0-9]*))?(?:\+[a-z0-9]+(?:\.[a-z0-9]+)*)?"
)
"""A version in its normal form (PEP 440), as build backends write it: then equal texts will do for equal versions."""


# --- The form --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form as it came, complete and well-formed; its file is still in the spooled body."""

    fields: tuple[tuple[str, bytes], ...] = field(repr=False)
    filename: str
    start: int
    end: int

    def text(self, name: str) -> str:
        """The value of a field that stands once.

        Raises:
            Refused: the form lacks it, or it is empty.
        """
        if not (value := self.get(name)):
            raise Refused(400, "missing-field", f"the form has no {name!r}")
        return value

    def get(self, name: str) -> str:
        """The same; empty where there is none."""
        return next((value.decode() for known, value in self.fields if known == name), "")


def read_form(body: IO[bytes], content_type: str) -> Form:
    """Reads a form from a file, by a grammar that leaves no choice.

    Raises:
        Refused: it is another, or not whole.
    """
    found = _CONTENT_TYPE.fullmatch(content_type)
    if found is None:
        raise _malformed("the Content-Type is not multipart/form-data with one valid boundary")
    body.flush()
    with mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _read(data, b"\r\n--" + str(found[1] or found[2]).encode())


def _read(data: mmap.mmap, delimiter: bytes) -> Form:
    fields: list[tuple[str, bytes]] = []
    names: set[str] = set()
    text_bytes, filename, start, end = 0, "", 0, 0
    for header, begin, after in _parts(data, delimiter):
        name, sent_as = _read_headers(header)
        if name not in SINGLE | MULTIPLE:
            raise Refused(400, "unknown-field", f"the form has a field {name!r}")
        if name in names and name in SINGLE:
            raise Refused(400, "repeated-field", f"the form has {name!r} twice")
        names.add(name)
        if (name == "content") != bool(sent_as):
            raise _malformed("the one file of a form is 'content'")
        if sent_as:
            filename, start, end = sent_as, begin, after
            continue
        text_bytes += after - begin
        if text_bytes > _MOST_TEXT_BYTES or len(fields) >= _MOST_PARTS:
            raise Refused(413, "request-too-large", "the form has too many fields, or too much text")
        fields.append((name, _utf8(data[begin:after])))
    if not filename:
        raise Refused(400, "missing-field", "the form has no 'content'")
    return Form(fields=tuple(fields), filename=filename, start=start, end=end)


def _parts(data: mmap.mmap, delimiter: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Headers of each part, and from where to where its body is."""
    opening = delimiter[2:] + b"\r\n"
    if data[: len(opening)] != opening:
        raise _malformed("the body does not begin with its boundary")
    at = len(opening)
    while True:
        blank = data.find(b"\r\n\r\n", at, at + _LONGEST_HEADERS)
        if blank < 0:
            raise _malformed("a part has no headers, too many, or no end of them")
        after = data.find(delimiter, blank + 4)
        if after < 0:
            raise Refused(400, "truncated-upload", "the final boundary is missing")
        yield data[at:blank], blank + 4, after
        at = after + len(delimiter) + 2
        follows = data[at - 2 : at]
        if follows == b"--":
            break
        if follows != b"\r\n":
            raise _malformed("a boundary stands where it ends nothing")
    if data[at : at + 3] not in {b"", b"\r\n"}:
        raise _malformed("there is something after the final boundary")


def _read_headers(block: bytes) -> tuple[str, str]:
    """A part's name and filename; the latter empty where it has none."""
    headers: dict[bytes, bytes] = {}
    for line in block.split(b"\r\n"):
        found = _HEADER.fullmatch(line)
        if found is None or found[1].lower() in headers:
            raise _malformed("a part has a header that is malformed, or stands twice")
        headers[found[1].lower()] = found[2]
    if headers.keys() - {b"content-disposition", b"content-type", b"content-transfer-encoding"}:
        raise _malformed("a part has a header that no part of an upload has")
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in {b"binary", b"8bit", b"7bit"}:
        raise Refused(415, "unsupported-encoding", "a part has a Content-Transfer-Encoding")
    disposition = _DISPOSITION.fullmatch(headers.get(b"content-disposition", b""))
    if disposition is None:
        raise _malformed('a part\'s Content-Disposition is not `form-data; name="..."`')
    return disposition[1].decode(), (disposition[2] or b"").decode()


def _utf8(value: bytes) -> bytes:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise _malformed("a field is not UTF-8") from error
    return value


def _malformed(why: str) -> Refused:
    return Refused(400, "malformed-upload", why)


# --- The decision ----------------------------------------------------------------------------------------------------


def judge(form: Form, body: IO[bytes], token: UploadToken) -> str:
    """Whether a token covers an upload, and the upload says one thing only. Returns the project's normalised name.

    Raises:
        Refused: the first of them that is not so.
    """
    if form.text(":action") != "file_upload" or form.get("protocol_version") not in {"", "1"}:
        raise Refused(400, "wrong-action", "only ':action' 'file_upload' passes, of protocol version 1")
    project, version = normalise(form.text("name")), form.text("version")
    if not covers(token.projects, project):
        raise Refused(403, "project-not-granted", f"the upload token does not cover {project[:100]!r}")
    wheel, sdist = _WHEEL.fullmatch(form.filename), _SDIST.fullmatch(form.filename)
    named = wheel or sdist
    if named is None or _normalised(named[1]) != project:
        raise _mismatch(f"{form.filename!r} is no wheel and no source distribution of {project[:100]!r}")
    if not _VERSION.fullmatch(version) or named[2] != version:
        raise _mismatch(f"{form.filename!r} is not of version {version[:100]!r}, or that is not in its normal form")
    if form.text("filetype") != ("bdist_wheel" if wheel else "sdist"):
        raise _mismatch(f"{form.filename!r} is of another file type")
    if token.version not in {"", version}:
        raise Refused(403, "token-narrowed", f"the upload token is for version {token.version!r} alone")
    sha256 = _check_digests(form, body)
    if token.sha256 and sha256 not in token.sha256:
        raise Refused(403, "token-narrowed", "the upload token is for other files: none has this sha256")
    return project


def _normalised(name: str) -> str:
    try:
        return normalise(name)
    except Refused:
        return ""


def _check_digests(form: Form, body: IO[bytes]) -> str:
    """That the file is the one which the form states; its sha256."""
    form.text("sha256_digest")
    stated = {name: form.get(name).lower() for name in DIGESTS if form.get(name)}
    made = {name: DIGESTS[name]() for name in stated}
    for block in _blocks(form, body):
        for digest in made.values():
            digest.update(block)
    for name, digest in made.items():
        if digest.hexdigest() != stated[name]:
            raise Refused(400, "digest-mismatch", f"the file that came does not have the form's {name!r}")
    return stated["sha256_digest"]


def _blocks(form: Form, body: IO[bytes]) -> Iterator[bytes]:
    body.seek(form.start)
    left = form.end - form.start
    while left and (block := body.read(min(left, _BLOCK_BYTES))):
        left -= len(block)
        yield block


def _mismatch(why: str) -> Refused:
    return Refused(400, "filename-mismatch", why)


# --- What a middleware does with a request ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What comes before the body."""

    method: str
    path: str
    query: str
    authorization: str | None = field(repr=False)
    content_type: str
    content_length: str
    encoded: bool
    """There is a Transfer-Encoding or a Content-Encoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Lets reads pass, and uploads that a token covers. Everything else is refused, whatever it is."""

    tokens: TrustedTokens
    path: str = "/"
    """Where the registry takes uploads, exactly."""
    most_bytes: int = 1 << 30
    spool: Path | None = None
    """The folder for bodies; the system's, where there is none."""

    def begin(self, head: Head) -> Upload | None:
        """Decides before the body is read. None: it is a read, which is the registry's own affair.

        Raises:
            Refused
        """
        if head.method in {"GET", "HEAD", "OPTIONS"}:
            return None
        if head.method != "POST" or head.path != self.path or head.query:
            raise Refused(403, "wrong-action", f"only reads pass, and uploads to {self.path}")
        token = self.tokens.verify(_password(head.authorization))
        if head.encoded or not _LENGTH.fullmatch(head.content_length):
            raise Refused(415, "unsupported-encoding", "an upload has a Content-Length, and is not encoded")
        expected = int(head.content_length)
        if expected > self.most_bytes:
            raise Refused(413, "request-too-large", f"an upload may have {self.most_bytes} bytes")
        return Upload(self, token, head.content_type, expected)


class Upload:
    """One upload: `write` what comes, `finish`, hand `chunks` on, and `close` in any case. All of them block."""

    def __init__(self, guard: Guard, token: UploadToken, content_type: str, expected: int) -> None:
        self.token = token
        self.expected = expected
        """Bytes."""
        self.content_type = content_type
        """Before `finish` that of the body as it comes; after it, that of `chunks`."""
        self.content_length = 0
        """Of `chunks`."""
        self._tokens = guard.tokens
        self._received = 0
        self._form: Form | None = None
        self._head = self._tail = b""
        # Without a name on disk, so that its space is free again however this ends.
        self._body: IO[bytes] = tempfile.TemporaryFile(dir=guard.spool)  # noqa: SIM115 - closed by `close`

    def write(self, piece: bytes) -> None:
        """Takes the next piece of the body in.

        Raises:
            Refused: it is longer than it said; or the disk is full.
        """
        self._received += len(piece)
        if self._received > self.expected:
            raise _malformed("the body is longer than its Content-Length")
        try:
            self._body.write(piece)
        except OSError as error:
            raise Refused(507, "upload-storage", "there is no space for the upload at the moment") from error

    def finish(self) -> None:
        """Judges the whole of it.

        Raises:
            Refused
        """
        if not 0 < self._received == self.expected:
            raise Refused(400, "truncated-upload", f"of {self.expected} bytes, {self._received} came")
        form = read_form(self._body, self.content_type)
        self._tokens.confirm(self.token, judge(form, self._body, self.token))
        boundary = secrets.token_hex(16)
        disposition = f"--{boundary}\r\nContent-Disposition: form-data; name="
        fields = (f'{disposition}"{name}"\r\n\r\n'.encode() + value + b"\r\n" for name, value in form.fields)
        content = (
            f'{disposition}"content"; filename="{form.filename}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        self._head = b"".join(fields) + content.encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._form = form
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.content_length = len(self._head) + form.end - form.start + len(self._tail)

    def chunks(self) -> Iterator[bytes]:
        """The form that the registry gets."""
        if self._form is None:
            raise RuntimeError("nothing is handed on that was not judged")
        yield self._head
        yield from _blocks(self._form, self._body)
        yield self._tail

    def close(self) -> None:
        """Gives the space back."""
        self._body.close()


def _password(authorization: str | None) -> str:
    if not authorization:
        raise Refused(401, "no-credentials", f"log in as {USER!r}, with an upload token for a password")
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise Refused(403, "invalid-upload-token", "the Authorization header holds no Basic credentials") from error
    if scheme.lower() != "basic" or user != USER:
        raise Refused(403, "invalid-upload-token", f"the user name must be {USER!r}")
    return password
