"""The metadata inside a wheel or a source distribution, read from hostile bytes with bounds on everything.

Only what finds one file is read, and only the plain form of each format that build back ends write. The standard
library's readers are not used: `zipfile` builds an object for each entry, `tarfile` reads extended headers of any size
into memory, `gzip` reads a name without end byte by byte. Whatever is unusual enough that two readers could
disagree on it is refused (metadata-mismatch).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from broker import refusals
from broker.gateway.spool import SpooledFile

MOST_ENTRIES: Final = 100_000
"""Of a source distribution, headers counted. The largest collections on PyPI have about 40,000 files; a wheel without
ZIP64 cannot have more than 65,535."""

LARGEST_METADATA: Final = 8 << 20
"""Bytes of METADATA or PKG-INFO, unpacked. It holds the project's description."""

LARGEST_DIRECTORY: Final = 16 << 20
"""Bytes of a wheel's central directory."""

MOST_UNPACKED: Final = 1 << 31
"""Bytes of a source distribution that are unpacked in search of PKG-INFO; some back ends put it last."""

MOST_GROWTH: Final = 100
"""How many bytes each byte of a source distribution may unpack to, beyond the first `FREELY_UNPACKED`. Gzip can make a
thousand bytes of one. Sources do not shrink to a hundredth; a bomb is cut off there."""

FREELY_UNPACKED: Final = 64 << 20
"""Bytes that a source distribution of any size may unpack to."""

_CHUNK = 1 << 16


def _refuse(reason: str) -> refusals.MetadataMismatch:
    return refusals.MetadataMismatch(f"the archive {reason}")


# --- Wheels ----------------------------------------------------------------------------------------------------------
# Source: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (its end).

_END = struct.Struct("<4sHHHHIIH")
_ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_ENCRYPTED = 0x1
_STATED_AFTER = 1 << 3
"""Checksum and sizes stand behind the data, for whoever wrote did not know them before."""
_DETOURS = frozenset({b"", b".", b".."})
_STORED, _DEFLATED = 0, 8


class _Entry(NamedTuple):
    """How and where a wheel's entry is stored; sizes and offset in bytes."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    unpacked: int
    start: int
    """Of its local header, which stands before its data."""


def wheel_metadata(file: SpooledFile, is_ours: Callable[[str], bool]) -> bytes:
    """The content of `<name>-<version>.dist-info/METADATA`.

    Args:
        file: The wheel.
        is_ours: Whether a folder '<name>-<version>' is the wheel's own.

    Raises:
        MetadataMismatch: there is not exactly one `.dist-info` folder, and it ours, with one METADATA; an entry stands
            twice; whoever reads the file from its beginning would find other entries than the directory names; or the
            archive is broken, exotic or larger than the bounds.
    """
    folders: set[str] = set()
    found: _Entry | None = None
    for name, entry in _wheel_entries(file):
        folder, slash, rest = name.partition("/")
        if slash and folder.lower().endswith(".dist-info"):
            folders.add(folder)
            if rest == "METADATA":
                found = entry
            elif rest.lower() == "metadata":
                raise _refuse("has a METADATA in other letters, which some systems take for the same file")
    if len(folders) != 1 or not is_ours(folders.pop().removesuffix(".dist-info")):
        raise _refuse("does not have exactly one .dist-info folder, named for the distribution")
    if found is None:
        raise _refuse("has no METADATA in its .dist-info folder")
    return _wheel_member(file, found)


def _wheel_entries(file: SpooledFile) -> Iterator[tuple[str, _Entry]]:
    """Each entry's name, and where and how it is stored."""
    count, offset, directory = _wheel_directory(file)
    seen: set[int] = set()
    at = reached = 0
    for _ in range(count):
        if len(directory) - at < _ENTRY.size:
            raise _refuse("has a broken directory")
        fields = _ENTRY.unpack_from(directory, at)
        signature, flags, method, crc, packed, unpacked = fields[0], fields[3], fields[4], *fields[7:10]
        name_size, extra_size, comment_size, start = *fields[10:13], fields[16]
        raw = directory[at + _ENTRY.size : at + _ENTRY.size + name_size]
        at += _ENTRY.size + name_size + extra_size + comment_size
        if signature != b"PK\1\2" or flags & _ENCRYPTED:
            raise _refuse("has a broken or encrypted entry")
        name_hash = hash(raw)  # a hundred thousand names would be large
        if name_hash in seen:
            raise _refuse("has an entry twice")
        seen.add(name_hash)
        if b"\\" in raw or b"\0" in raw or not _DETOURS.isdisjoint(raw.removesuffix(b"/").split(b"/")):
            raise _refuse("has an entry whose name two systems would read differently")
        entry = _Entry(raw, flags, method, crc, packed, unpacked, start)
        if start != reached:
            raise _refuse("has something between its entries, or has them in another order than its directory")
        reached = _wheel_entry_end(file, entry)
        yield raw.decode("utf-8", "replace"), entry
    if at != len(directory) or reached != offset:
        raise _refuse("has a broken directory")


def _wheel_entry_end(file: SpooledFile, entry: _Entry) -> int:
    """Where the next entry begins, once the entry's own header says what the directory says of it.

    Whoever unpacks a wheel as it comes, as uv does, goes by those headers and never sees the directory.
    """
    header = file.read_at(entry.start, _LOCAL.size)
    if len(header) != _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise _refuse("has a broken entry")
    _, _, flags, method, _, _, *stated, name_size, extra_size = _LOCAL.unpack(header)
    name = file.read_at(entry.start + _LOCAL.size, name_size)
    known = [entry.crc, entry.packed, entry.unpacked]
    if (name, flags, method) != entry[:3] or (stated != known and not flags & _STATED_AFTER):
        raise _refuse("has an entry that is another one to those who read it without the directory")
    end: int = entry.start + _LOCAL.size + name_size + extra_size + entry.packed
    if flags & _STATED_AFTER:
        end += 16 if file.read_at(end, 4) == b"PK\7\x08" else 12
    return end


def _wheel_directory(file: SpooledFile) -> tuple[int, int, bytes]:
    """How many entries the central directory has, where it starts, and its bytes.

    It must end right before an end record without a comment, at the file's end: then no reader finds another one.
    """
    end = file.size - _END.size
    if end < 0:
        raise _refuse("is no wheel")
    signature, disk, start_disk, here, count, size, offset, comment = _END.unpack(file.read_at(end, _END.size))
    if signature != b"PK\5\6" or comment or disk or start_disk or here != count or offset + size != end:
        raise _refuse("does not end as a wheel does")
    if size > LARGEST_DIRECTORY:
        raise _refuse("has too large a directory")
    directory = file.read_at(offset, size)
    if directory[-20:].startswith(b"PK\6\7"):
        raise _refuse("is in the ZIP64 format")
    return count, offset, directory


def _wheel_member(file: SpooledFile, entry: _Entry) -> bytes:
    _, _, method, crc, packed, unpacked, start = entry
    if packed > LARGEST_METADATA:
        raise _refuse(f"has a METADATA of more than {LARGEST_METADATA} bytes")
    *_, name_size, extra_size = _LOCAL.unpack(file.read_at(start, _LOCAL.size))
    stored = file.read_at(start + _LOCAL.size + name_size + extra_size, packed)
    if method == _STORED:
        data = stored
    elif method == _DEFLATED:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = unpacker.decompress(stored, LARGEST_METADATA)
        except zlib.error as error:
            raise _refuse("has a broken METADATA") from error
        if not unpacker.eof or unpacker.unused_data:
            raise _refuse("has a METADATA that is cut short, too long, or followed by something")
    else:
        raise _refuse("has a METADATA packed in a way that wheels are not")
    if len(data) != unpacked or zlib.crc32(data) != crc:
        raise _refuse("has a broken METADATA")
    return data


# --- Source distributions --------------------------------------------------------------------------------------------
# Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".

_BLOCK = 512
_LONGEST_HEADER = 1 << 16
_FILE_KINDS = frozenset({0, ord("0")})
_EMPTY_KINDS = frozenset(b"123456")
"""Links, devices, folders: they have no data, and readers differ on those that say they have."""
_KINDS = _FILE_KINDS | _EMPTY_KINDS | {ord("7")}
_EXTENSIONS = frozenset(b"xgLK")
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_LENGTH = re.compile(rb"[0-9]{1,5} ")
_RECORD = re.compile(rb"[0-9]+ ([^=]+)=(.*)\n", re.DOTALL)
"""Of a pax header: its length in bytes, a key and a value."""


def sdist_metadata(file: SpooledFile, is_ours: Callable[[str], bool]) -> bytes:
    """The content of `<name>-<version>/PKG-INFO`.

    It is read to its end: some readers take the first file of a name, and what is unpacked is the last.

    Args:
        file: The `.tar.gz`.
        is_ours: Whether a folder '<name>-<version>' is the distribution's own.

    Raises:
        MetadataMismatch: there is not exactly one within the bounds, or something else than a plain file under that
            name; an entry's path has a detour; or the archive is broken or exotic.
    """
    unpacked = _Gunzip(file)
    found: bytes | None = None
    stated: list[tuple[bytes, bytes]] = []
    for _ in range(MOST_ENTRIES):
        header = unpacked.take(_BLOCK)
        if header == bytes(_BLOCK):
            if found is None:
                raise _refuse("has no PKG-INFO in a folder named for the distribution")
            return found
        kind, size = header[156], _tar_size(header)
        if any(key == b"size" and value != b"%d" % size for key, value in stated):
            # Some readers take it for the size of whatever comes next, others of the next file.
            raise _refuse("has an entry with two sizes")
        if kind in _EXTENSIONS:
            stated += _tar_extension(kind, unpacked.take_padded(size))
            continue
        own = _tar_name(header)
        name, *others = [value for key, value in stated if key == b"path"] or [own]
        if others:
            raise _refuse("has an entry with two names")
        stated = []
        # A kind of 0 is a file or, for Python and by its own header's name alone, a folder.
        is_empty = kind in _EMPTY_KINDS or name.endswith(b"/") or (kind == 0 and own.endswith(b"/"))
        if (is_empty and size) or kind not in _KINDS:
            raise _refuse("has an entry of an unusual kind")
        path = name.removesuffix(b"/")
        if b"\0" in path or not _DETOURS.isdisjoint(path.split(b"/")):
            raise _refuse("has an entry whose path has a detour, or an end within")
        folder, _, rest = path.decode("utf-8", "replace").partition("/")
        if rest == "PKG-INFO" and is_ours(folder):
            if found is not None:
                raise _refuse("has two PKG-INFO")
            if kind not in _FILE_KINDS or size > LARGEST_METADATA:
                raise _refuse(f"has a PKG-INFO that is no file of at most {LARGEST_METADATA} bytes")
            found = unpacked.take(size)
        else:
            unpacked.skip(size)
        unpacked.skip(-size % _BLOCK)
    raise _refuse("has too many entries")


class _Gunzip:
    """Reads one gzip member forward, in bounded steps."""

    def __init__(self, file: SpooledFile) -> None:
        self._packed = file.chunks(_CHUNK)
        self._unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._ready = b""
        self._left = min(MOST_UNPACKED, MOST_GROWTH * file.size + FREELY_UNPACKED)

    def take(self, size: int) -> bytes:
        """Exactly so many bytes."""
        parts = []
        while size:
            part = self._next(size)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def take_padded(self, size: int) -> bytes:
        """The data of a tar entry that is itself a header: small, and padded to whole blocks."""
        if size > _LONGEST_HEADER:
            raise _refuse("has an extended header that is too long")
        data = self.take(size)
        if self.take(-size % _BLOCK).strip(b"\0"):
            # Python's reader goes on there.
            raise _refuse("has something behind an extended header")
        return data

    def skip(self, size: int) -> None:
        """Passes over so many bytes."""
        while size:
            size -= len(self._next(size))

    def _next(self, most: int) -> bytes:
        while not self._ready:
            packed = self._unpacker.unconsumed_tail or next(self._packed, b"")
            if self._unpacker.eof or not packed:
                raise _refuse("ends too early")
            try:
                self._ready = self._unpacker.decompress(packed, _CHUNK)
            except zlib.error as error:
                raise _refuse("is no gzip file, or a broken one") from error
            self._left -= len(self._ready)
            if self._left < 0:
                raise _refuse("unpacks to far more than its size, and no PKG-INFO in it so far")
        part, self._ready = self._ready[:most], self._ready[most:]
        return part


def _tar_size(header: bytes) -> int:
    """The size of an entry's data, once the header's checksum fits."""
    if _octal(header[148:156]) != sum(header[:148] + 8 * b" " + header[156:]):
        raise _refuse("has a header with a wrong checksum")
    return _octal(header[124:136])


def _octal(field: bytes) -> int:
    """A number as every reader reads it: they differ on one after a NUL, and on other signs than digits."""
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise _refuse("has a header with a broken number")
    return int(found[1], 8)


def _tar_name(header: bytes) -> bytes:
    name, prefix = (field.partition(b"\0")[0] for field in (header[:100], header[345:500]))
    if not prefix:
        return name
    # GNU archives (`ustar  `) may keep times there, which Python takes for a prefix and others do not.
    if header[257:265] != b"ustar\x0000":
        raise _refuse("has a prefix that is none in its format")
    return prefix + b"/" + name


def _tar_extension(kind: int, data: bytes) -> list[tuple[bytes, bytes]]:
    """Every path and size that an extended header states for the entry after it: readers differ on which counts."""
    if kind == ord("L"):
        return [(b"path", data.rstrip(b"\0"))]
    stated: list[tuple[bytes, bytes]] = []
    if kind == ord("K"):
        return stated
    while data:
        length = _LENGTH.match(data)
        if length is None:
            raise _refuse("has a broken extended header")
        end = int(length[0])
        record, data = data[:end], data[end:]
        found = _RECORD.fullmatch(record)
        if found is None or len(record) != end:
            raise _refuse("has a broken extended header")
        key, value = found.groups()
        if b"sparse" in key:
            raise _refuse("has a sparse file")
        if key in {b"path", b"size"}:
            if kind == ord("g"):
                raise _refuse("has one name or size for all files")
            stated.append((key, value))
    return stated
