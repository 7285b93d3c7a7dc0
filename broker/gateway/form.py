"""From the bytes of an upload to a `Form`: text fields in memory, the one file on disk, its digest made on the way.

Laws, each with its own refusal:

- the Content-Type is `multipart/form-data` with one boundary by RFC 2046's grammar (malformed-upload);
- the body begins with the boundary and ends with the final one: nothing before, only a line break after. The parser
  takes a missing end and trailing junk for granted, and a registry that was sent such a body stored it
  (malformed-upload, truncated-upload);
- a part has one Content-Disposition of our own strict grammar, and beside it only what cannot change its meaning:
  parsers differ on repeated and extended parameters (malformed-upload, unsupported-encoding);
- known fields only (unknown-field), those with one value once (repeated-field), and one file (missing-field);
- everything that grows has a bound, on what is announced and on what comes (request-too-large).

The reader holds at most two batches of the file, and whatever ends it, its space on disk is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from broker import refusals
from broker.gateway.parts import CONTENT, MULTIPLE, SHORT, SIGNATURE, SINGLE, read_boundary, read_headers
from broker.gateway.spool import BATCH_BYTES, DIGESTS, SpooledFile

_MOST_HEADERS = 3
_LONGEST_HEADER = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large an upload may be."""

    total_bytes: int = 1 << 30
    """Of the whole body."""
    field_bytes: int = 4 << 20
    """Of one text field. Descriptions of 1.5 MB exist."""
    short_bytes: int = 255
    """Of one of `SHORT`."""
    text_bytes: int = 8 << 20
    """Of all text fields together; they are held in memory."""
    parts: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """An upload as it was sent, complete and well-formed. What it says has not been compared with the file yet."""

    fields: tuple[tuple[str, bytes], ...] = field(repr=False)
    """Name and value, valid UTF-8, in the order they came. Bytes: as `str` one emoji makes four of each."""
    filename: str
    file: SpooledFile = field(repr=False)

    def get(self, name: str) -> str | None:
        """The (first) value of a field, or None."""
        return next((value.decode() for known, value in self.fields if known == name), None)

    def text(self, name: str) -> str:
        """The value of a field.

        Raises:
            MissingField: the form lacks it, or it is empty.
        """
        value = self.get(name)
        if not value:
            raise refusals.MissingField(f"the form has no {name!r}")
        return value


@asynccontextmanager
async def read_form(
    body: AsyncIterator[bytes],
    *,
    content_type: str,
    content_length: int | None,
    limits: Limits,
    spool: Path,
    on_field: Callable[[str, str], None],
) -> AsyncIterator[Form]:
    """Reads an upload by the laws at the top of this file, and gives its space on disk back at the end of the `with`.

    Args:
        body: The request's body. What it raises passes through.
        content_type: The header, whole.
        content_length: The header, where there was one.
        limits: The bounds.
        spool: The folder for the file.
        on_field: Called with name and value as each text field ends. A refusal that it raises ends the reading there,
            before anything of what follows is taken in.

    Raises:
        MalformedUpload, UnsupportedEncoding, TruncatedUpload, RequestTooLarge, UnknownField, RepeatedField,
        MissingField: see above.
        UploadStorage: the disk is full.
    """
    if content_length is not None and content_length > limits.total_bytes:
        raise refusals.RequestTooLarge(f"an upload may have {limits.total_bytes} bytes, and this one {content_length}")
    reader = _Reader(read_boundary(content_type), content_length, limits, spool, on_field)
    try:
        async for chunk in body:
            reader.feed(chunk)
            if len(reader.batch) >= BATCH_BYTES:
                await reader.write_batch()
        form = reader.finish()
        await reader.write_batch()
        await reader.written()
        yield form
    finally:
        reader.close()


class _Reader:
    """The state of one reading; the parser calls its `_on_...` methods, `read_form` the rest."""

    def __init__(
        self,
        boundary: bytes,
        expected: int | None,
        limits: Limits,
        spool: Path,
        on_field: Callable[[str, str], None],
    ) -> None:
        self._expected, self._received = expected, 0
        self.batch = bytearray()
        """What came of the file and is not written yet."""
        self._opening = b"--" + boundary + b"\r\n"
        self._closing = b"\r\n--" + boundary + b"--"
        self._limits, self._spool, self._on_field = limits, spool, on_field
        self._parts = 0
        self._text_bytes = 0
        self._fields: list[tuple[str, bytes]] = []
        self._seen: set[str] = set()
        self._headers: dict[bytes, bytes] = {}
        self._header_name, self._header_value = bytearray(), bytearray()
        self._name = ""
        self._text = bytearray()
        self._filename = ""
        self._file: SpooledFile | None = None
        self._writing: asyncio.Future[None] | None = None
        self._tail = b""
        self._ended = False
        self._epilogue = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=_MOST_HEADERS,
            max_header_size=_LONGEST_HEADER,
        )

    # --- Called by read_form -----------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> None:
        """Takes the next piece of the body in."""
        opening = self._opening[self._received : self._received + len(chunk)]
        if not chunk.startswith(opening):
            raise refusals.MalformedUpload("the body does not begin with its boundary")
        self._received += len(chunk)
        if self._received > self._limits.total_bytes:
            raise refusals.RequestTooLarge(f"an upload may have {self._limits.total_bytes} bytes")
        if self._expected is not None and self._received > self._expected:
            raise refusals.MalformedUpload("the body is longer than its Content-Length")
        if self._ended:
            self._epilogue += chunk[:3]
        else:
            self._parse(chunk)
        if not b"\r\n".startswith(self._epilogue):
            raise refusals.MalformedUpload("there is something after the final boundary")

    def _parse(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise refusals.MalformedUpload(f"the form is malformed near byte {self._received}") from error
        window = len(self._closing) - 1
        if self._ended:
            # The parser does not say where it stopped; it stops where the final boundary first stands.
            self._epilogue = (self._tail + chunk).partition(self._closing)[2][:3]
        else:
            self._tail = chunk[-window:] if len(chunk) >= window else (self._tail + chunk)[-window:]

    async def write_batch(self) -> None:
        """Hands the batch to a thread, once the one before is on disk: neither disk nor hashing holds up the loop."""
        await self.written()
        if self._file is not None and self.batch:
            batch, self.batch = self.batch, bytearray()
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._file.append, batch)

    async def written(self) -> None:
        """Waits for the batch that a thread has."""
        if self._writing is not None:
            try:
                await self._writing
            except OSError as error:
                raise refusals.UploadStorage from error
            self._writing = None

    def finish(self) -> Form:
        """What the whole body says. The last batch is still to be written."""
        if self._expected is not None and self._received < self._expected:
            raise refusals.TruncatedUpload(f"of {self._expected} bytes, {self._received} came")
        if not self._ended or self._epilogue == b"\r":
            raise refusals.TruncatedUpload("the final boundary is missing")
        if self._file is None:
            raise refusals.MissingField(f"the form has no {CONTENT!r}")
        return Form(fields=tuple(self._fields), filename=self._filename, file=self._file)

    def close(self) -> None:
        """Gives the space on disk back, without waiting for the thread that may be at it."""
        if self._writing is not None:
            self._writing.cancel()
        if self._file is not None:
            self._file.close()
        del self._parser  # or it and the reader keep each other, and the text, until the garbage collector comes

    # --- Called by the parser ----------------------------------------------------------------------------------------

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._limits.parts:
            raise refusals.RequestTooLarge(f"a form may have {self._limits.parts} parts")
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        name = bytes(self._header_name).lower()
        if name in self._headers:
            raise refusals.MalformedUpload("a part has the same header twice")
        self._headers[name] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        self._name, filename = read_headers(self._headers)
        if self._name not in SINGLE and self._name not in MULTIPLE:
            raise refusals.UnknownField(f"the form has a field {self._name!r}")
        if self._name in self._seen and self._name in SINGLE:
            raise refusals.RepeatedField(f"the form has {self._name!r} twice")
        self._seen.add(self._name)
        if self._name == CONTENT and filename:
            # Clients state digests before the file; what comes later is made from the file afterwards.
            self._filename, self._file = filename, SpooledFile(self._spool, self._seen & DIGESTS.keys())
        elif self._name == CONTENT:
            raise refusals.MalformedUpload(f"{CONTENT!r} has no filename")
        elif filename and self._name != SIGNATURE:
            raise refusals.MalformedUpload(f"{self._name!r} is sent as a file, and is none")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == CONTENT:
            with memoryview(data) as view:
                self.batch += view[start:end]
            return
        self._text_bytes += end - start
        most = self._limits.short_bytes if self._name in SHORT else self._limits.field_bytes
        if self._text_bytes > self._limits.text_bytes or len(self._text) + end - start > most:
            raise refusals.RequestTooLarge(f"{self._name!r} is too long, or the text fields are together")
        self._text += data[start:end]

    def _on_part_end(self) -> None:
        if self._name == CONTENT:
            return
        value = bytes(self._text)
        self._text.clear()
        if self._name == SIGNATURE:  # read and dropped: registries store it beside the file, unchecked
            return
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            raise refusals.MalformedUpload(f"{self._name!r} is not UTF-8") from error
        self._fields.append((self._name, value))
        self._on_field(self._name, text)

    def _on_end(self) -> None:
        self._ended = True
