"""Archives built byte by byte, each with one change: what is refused, for which cause, and what just passes."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker import refusals
from broker.gateway import archive
from broker.gateway.spool import SpooledFile

CONTENT = b"Name: acme-widgets\n" * 3
FOLDER = "acme-1.0"


class Watched(SpooledFile):
    """Notes how much is asked for at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: list[int] = []

    def read_at(self, offset: int, size: int) -> bytes:
        self.asked.append(size)
        return super().read_at(offset, size)


@contextmanager
def spooled(content: bytes, folder: Path) -> Iterator[Watched]:
    file = Watched(folder)
    file.append(content)
    try:
        yield file
    finally:
        file.close()


def is_ours(folder: str) -> bool:
    return folder == FOLDER


def wheel_metadata(content: bytes, folder: Path) -> bytes:
    with spooled(content, folder) as file:
        return archive.wheel_metadata(file, is_ours)


def sdist_metadata(content: bytes, folder: Path) -> bytes:
    with spooled(content, folder) as file:
        return archive.sdist_metadata(file, is_ours)


def test_the_bounds_are_what_the_design_says() -> None:
    assert archive.MOST_ENTRIES == 100_000
    assert archive.LARGEST_METADATA == 8 * 1024 * 1024
    assert archive.LARGEST_DIRECTORY == 16 * 1024 * 1024
    assert archive.MOST_UNPACKED == 2 * 1024**3
    assert archive.MOST_GROWTH == 100
    assert archive.FREELY_UNPACKED == 64 * 1024 * 1024


# --- Wheels ----------------------------------------------------------------------------------------------------------


def deflate(data: bytes, *, end: int = zlib.Z_FINISH) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush(end)


def entry(
    name: bytes = b"acme-1.0.dist-info/METADATA",
    content: bytes = CONTENT,
    *,
    method: int = 8,
    flags: int = 0,
    packed: bytes | None = None,
    after: str = "",
    local: dict[str, Any] | None = None,
    central: dict[str, Any] | None = None,
    extra: bytes = b"",
    comment: bytes = b"",
    local_extra: bytes = b"",
) -> Callable[[int], tuple[bytes, bytes]]:
    """Given where it starts: what stands there, and its record in the directory. No two fields have one value."""
    data = packed if packed is not None else deflate(content) if method == 8 else content

    def build(start: int) -> tuple[bytes, bytes]:
        true = {
            "mark": b"PK\3\4",
            "flags": flags | (8 if after else 0),
            "method": method,
            "crc": zlib.crc32(content),
            "packed": len(data),
            "unpacked": len(content),
            "name_size": len(name),
            "start": start,
        }
        unknown = {"crc": 0, "packed": 0, "unpacked": 0} if after else {}
        here = true | unknown | (local or {})
        there = true | {"mark": b"PK\1\2"} | (central or {})
        sizes = ("flags", "method")
        header = struct.pack(
            "<4sHHHHHIIIHH",
            here["mark"],
            21,
            *(here[one] for one in sizes),
            0x1111,
            0x2222,
            *(here[one] for one in ("crc", "packed", "unpacked", "name_size")),
            len(local_extra),
        )
        record = struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            there["mark"],
            20,
            21,
            *(there[one] for one in sizes),
            0x1111,
            0x2222,
            *(there[one] for one in ("crc", "packed", "unpacked", "name_size")),
            len(extra),
            len(comment),
            0,
            0x3333,
            0x4444,
            there["start"],
        )
        behind = struct.pack("<III", true["crc"], len(data), len(content)) if after else b""
        behind = b"PK\7\x08" + behind if after == "marked" else behind
        return header + name + local_extra + data + behind, record + name + extra + comment

    return build


METADATA = entry()
OTHER = entry(b"acme/x.py", b"pass\n", method=0)
END: dict[str, Any] = {"mark": b"PK\5\6", "disk": 0, "start_disk": 0, "comment": 0}


def wheel(
    *entries: Callable[[int], tuple[bytes, bytes]], before: bytes = b"", behind: bytes = b"", more: int = 0, **end: Any
) -> bytes:
    """A wheel of these entries; something may stand before or behind its directory."""
    body, directory = b"", b""
    for one in entries:
        stored, record = one(len(body))
        body, directory = body + stored, directory + record
    body, directory = body + before, directory + behind
    true = END | {"here": len(entries) + more, "count": len(entries) + more}
    true |= {"size": len(directory), "offset": len(body)}
    true |= end
    fields = ("mark", "disk", "start_disk", "here", "count", "size", "offset", "comment")
    return body + directory + struct.pack("<4sHHHHIIH", *(true[one] for one in fields))


GOOD_WHEELS: dict[str, bytes] = {
    "alone": wheel(METADATA),
    "first": wheel(METADATA, OTHER),
    "last": wheel(OTHER, METADATA),
    "stored": wheel(OTHER, entry(method=0)),
    "extra fields and comments": wheel(entry(b"x", extra=b"1234567", comment=b"cmt", local_extra=b"12345"), METADATA),
    "metadata with extra fields": wheel(OTHER, entry(extra=b"1234567", comment=b"cmt", local_extra=b"12345")),
    "sizes after it, marked": wheel(entry(after="marked"), OTHER),
    "sizes after it": wheel(entry(after="plain"), OTHER),
    "another flag": wheel(entry(flags=2), OTHER),
    "a name in another encoding": wheel(entry(b"\xff.py"), METADATA),
    "a folder": wheel(entry(b"acme/", b"", method=0), METADATA),
    "a file called like a folder of metadata": wheel(entry(b"x.dist-info", b""), METADATA),
    "a folder of metadata deeper": wheel(entry(b"x/y.dist-info/METADATA", b""), METADATA),
    "files beside and below the metadata": wheel(
        entry(b"acme-1.0.dist-info/RECORD", b""), entry(b"acme-1.0.dist-info/x/METADATA", b""), METADATA
    ),
    "another method elsewhere": wheel(entry(b"x", method=12), METADATA),
}


@pytest.mark.parametrize("name", GOOD_WHEELS)
def test_a_wheel_is_read(name: str, tmp_path: Path) -> None:
    assert wheel_metadata(GOOD_WHEELS[name], tmp_path) == CONTENT


def named(name: bytes) -> bytes:
    return wheel(METADATA, entry(name))


def reaching(mark_at: int) -> bytes:
    """A wheel whose second entry is said to start so far before the file's end, in a comment there."""
    comment = b"PK\3\4" + bytes(max(0, mark_at - 26))
    size = len(wheel(OTHER, entry(b"y", comment=comment)))
    start = size - mark_at
    head = 30 + len("acme/x.py")
    first = entry(b"acme/x.py", b"pass\n", method=0, central={"packed": start - head}, local={"packed": start - head})
    return wheel(first, entry(b"y", comment=comment, central={"start": start}))


TWO_DISTS = "exactly one .dist-info"
DIFFERENTLY = "two systems would read differently"
ANOTHER = "another one to those who read it without the directory"
NO_END = "does not end as a wheel does"
BETWEEN = "something between its entries"

BAD_WHEELS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is no wheel"),
    "one byte less than an end": (bytes(21), "is no wheel"),
    "an end alone": (wheel(), TWO_DISTS),
    "a directory that is one mark": (wheel(behind=b"PK\6\7" + bytes(16)), "ZIP64"),
    "no metadata": (wheel(entry(b"acme-1.0.dist-info/RECORD")), "no METADATA"),
    "no folder of metadata": (wheel(OTHER), TWO_DISTS),
    "two folders of metadata": (wheel(METADATA, entry(b"b-1.0.dist-info/x")), TWO_DISTS),
    "two, one in capitals": (wheel(METADATA, entry(b"b-1.0.DIST-INFO/x")), TWO_DISTS),
    "another's": (wheel(entry(b"b-1.0.dist-info/METADATA")), TWO_DISTS),
    "metadata in small letters": (wheel(METADATA, entry(b"acme-1.0.dist-info/Metadata")), "in other letters"),
    "an entry twice": (wheel(OTHER, OTHER, METADATA), "an entry twice"),
    "a backslash": (named(b"a\\b"), DIFFERENTLY),
    "an end of text": (named(b"a\0b"), DIFFERENTLY),
    "no name": (named(b""), DIFFERENTLY),
    "from the root": (named(b"/a"), DIFFERENTLY),
    "two slashes": (named(b"a//b"), DIFFERENTLY),
    "two slashes last": (named(b"a//"), DIFFERENTLY),
    "a dot": (named(b"./a"), DIFFERENTLY),
    "two dots": (named(b"a/../b"), DIFFERENTLY),
    "two dots last": (named(b"a/.."), DIFFERENTLY),
    "encrypted": (wheel(METADATA, entry(b"x", flags=1)), "encrypted"),
    "another mark in the directory": (wheel(entry(central={"mark": b"PK\1\3"})), "broken or encrypted"),
    "another mark of its own": (wheel(entry(local={"mark": b"PK\3\5"})), "broken entry"),
    "other flags": (wheel(entry(local={"flags": 2})), ANOTHER),
    "another method": (wheel(entry(local={"method": 0})), ANOTHER),
    "another checksum": (wheel(entry(local={"crc": 1})), ANOTHER),
    "another packed size": (wheel(entry(local={"packed": 1})), ANOTHER),
    "another unpacked size": (wheel(entry(local={"unpacked": 1})), ANOTHER),
    "another length of its name": (wheel(entry(local={"name_size": 26})), ANOTHER),
    "sizes after it, other flags": (wheel(entry(after="plain", local={"flags": 10}), OTHER), ANOTHER),
    "starts later": (wheel(OTHER, entry(central={"start": 45})), BETWEEN),
    "first starts later": (wheel(entry(central={"start": 1})), BETWEEN),
    "another order": (wheel(entry(b"a", central={"start": 90}), METADATA), BETWEEN),
    "something between the last entry and the directory": (wheel(METADATA, before=b"x"), "broken directory"),
    "something behind the directory": (wheel(METADATA, behind=b"x"), "broken directory"),
    "an entry less than it says": (wheel(METADATA, more=1), "broken directory"),
    "an entry more than it says": (wheel(METADATA, OTHER, more=-1), "broken directory"),
    "an entry cut off": (wheel(METADATA, more=1, behind=bytes(45)), "broken directory"),
    "a directory that goes on": (wheel(METADATA, more=1, behind=bytes(46)), "broken or encrypted"),
    "an entry in the end": (reaching(26), "broken entry"),
    "an entry cut off by the end": (reaching(29), "broken entry"),
    "an entry that ends with the file": (reaching(30), ANOTHER),
    "another mark at the end": (wheel(METADATA, mark=b"PK\5\7"), NO_END),
    "a comment": (wheel(METADATA, comment=1), NO_END),
    "a disk": (wheel(METADATA, disk=1), NO_END),
    "a disk of the directory": (wheel(METADATA, start_disk=1), NO_END),
    "two counts": (wheel(METADATA, here=2), NO_END),
    "a directory elsewhere": (wheel(METADATA, offset=0), NO_END),
    "a smaller directory": (wheel(METADATA, size=46), NO_END),
    "a locator of ZIP64": (wheel(entry(comment=b"PK\6\7" + bytes(16))), "ZIP64"),
    "an unknown method": (wheel(entry(method=12)), "packed in a way"),
    "cut short": (wheel(entry(packed=deflate(CONTENT, end=zlib.Z_SYNC_FLUSH))), "cut short"),
    "followed by something": (wheel(entry(packed=deflate(CONTENT) + b"x")), "followed by something"),
    "no deflate": (wheel(entry(packed=b"\xff" * 9)), "broken METADATA"),
    "a wrong checksum": (wheel(entry(central={"crc": 1}, local={"crc": 1})), "broken METADATA"),
    "a wrong size": (wheel(entry(central={"unpacked": 1}, local={"unpacked": 1})), "broken METADATA"),
    "stored, with a wrong checksum": (wheel(entry(method=0, central={"crc": 1}, local={"crc": 1})), "broken METADATA"),
}


@pytest.mark.parametrize("name", BAD_WHEELS)
def test_a_wheel_with_one_thing_wrong_is_refused_for_it(name: str, tmp_path: Path) -> None:
    content, reason = BAD_WHEELS[name]
    with pytest.raises(refusals.MetadataMismatch, match=reason):
        wheel_metadata(content, tmp_path)


@pytest.mark.parametrize("size", [18, 19, 20, 21])
def test_a_comment_that_is_no_locator_of_zip64_passes(size: int, tmp_path: Path) -> None:
    content = wheel(entry(comment=b"PK\6\7" + bytes(size - 4)))
    if size == 20:
        with pytest.raises(refusals.MetadataMismatch, match="ZIP64"):
            wheel_metadata(content, tmp_path)
    else:
        assert wheel_metadata(content, tmp_path) == CONTENT


@pytest.mark.parametrize("method", [0, 8])
def test_the_metadata_of_a_wheel_has_a_bound(method: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = random.Random(1).randbytes(2000) if method == 0 else b"x" * 2000
    content = wheel(entry(content=text, method=method), OTHER)
    monkeypatch.setattr(archive, "LARGEST_METADATA", 2000)
    assert wheel_metadata(content, tmp_path) == text
    monkeypatch.setattr(archive, "LARGEST_METADATA", 1999)
    with pytest.raises(refusals.MetadataMismatch, match="more than 1999" if method == 0 else "too long"):
        wheel_metadata(content, tmp_path)


def test_the_directory_of_a_wheel_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(METADATA(0)[1])
    monkeypatch.setattr(archive, "LARGEST_DIRECTORY", size)
    assert wheel_metadata(wheel(METADATA), tmp_path) == CONTENT
    monkeypatch.setattr(archive, "LARGEST_DIRECTORY", size - 1)
    with pytest.raises(refusals.MetadataMismatch, match="too large a directory"):
        wheel_metadata(wheel(METADATA), tmp_path)


# --- Source distributions --------------------------------------------------------------------------------------------


def octal(number: int) -> bytes:
    return b"%011o\0" % number


def member(
    name: bytes = b"acme-1.0/PKG-INFO",
    content: bytes = CONTENT,
    kind: bytes = b"0",
    *,
    size: bytes | None = None,
    checksum: bytes = b"%06o\0 ",
    off: int = 0,
    owner: bytes = b"0001750 ",
    time: bytes = b"14524767400 ",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    padding: bytes = b"\0",
) -> bytes:
    """A header, with its checksum or one that much off it, and the data. The fields beside those read are filled."""
    header = bytearray(512)
    header[100:124], header[136:148] = b"0000644 0001750 " + owner, time
    header[157:257] = b"l" * 100
    header[500:512] = b"p" * 12
    header[: len(name)] = name
    header[124:136] = octal(len(content)) if size is None else size
    header[156:157], header[257:265] = kind, magic
    header[345 : 345 + len(prefix)] = prefix
    header[148:156] = b" " * 8
    header[148:156] = checksum % (sum(header) + off) if b"%" in checksum else checksum
    return bytes(header) + content + padding * (-len(content) % 512)


PKG_INFO = member()
END_OF_TAR = bytes(1024)


def record(key: bytes, value: bytes, *, length: int | None = None) -> bytes:
    """One of a pax header, with its true length."""
    size = len(key) + len(value) + 3
    if length is None:
        length = next(n for n in range(size, size + 7) if size + len(str(n)) == n)
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: bytes, kind: bytes = b"x", padding: bytes = b"\0") -> bytes:
    return member(b"PaxHeader", b"".join(records), kind, padding=padding)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return member(b"././@LongLink", name, kind)


OURS = b"acme-1.0/PKG-INFO"
NAMELESS = member(b"x")

GOOD_SDISTS: dict[str, Sequence[bytes]] = {
    "alone": [PKG_INFO],
    "an old kind of file": [member(kind=b"\0")],
    "a folder before": [member(b"acme-1.0/", b"", b"5"), PKG_INFO],
    "an old kind of folder": [member(b"acme-1.0/", b"", b"\0"), PKG_INFO],
    **{f"kind {kind} without data": [member(b"x", b"", b"%d" % kind), PKG_INFO] for kind in range(8)},
    "a contiguous file": [member(b"x", b"y" * 9, b"7"), PKG_INFO],
    **{f"{size} bytes before": [member(b"x", b"y" * size), PKG_INFO] for size in (1, 511, 512, 513, 1024, 200_000)},
    **{f"{size} bytes of metadata": [member(content=b"y" * size), member(b"x")] for size in (0, 1, 511, 512, 513)},
    "a large file before": [member(b"x", b"y" * 3_000_000), PKG_INFO],
    "what does not pack": [member(b"x", random.Random(1).randbytes(200_000)), PKG_INFO],
    "what repeats far away": [member(b"x", random.Random(2).randbytes(30_000) * 3), PKG_INFO],
    "a name of 100 bytes": [member(b"n" * 100), PKG_INFO],
    "metadata one folder deeper": [member(b"acme-1.0/src/PKG-INFO"), PKG_INFO],
    "another file of ours": [member(b"acme-1.0/x"), PKG_INFO],
    "another's metadata": [member(b"b-1.0/PKG-INFO"), PKG_INFO],
    "metadata at the root": [member(b"PKG-INFO"), PKG_INFO],
    "a name in another encoding": [member(b"\xff"), PKG_INFO],
    "a prefix": [member(b"PKG-INFO", prefix=b"acme-1.0")],
    "a prefix, ended": [member(b"PKG-INFO", prefix=b"acme-1.0\0x\0y")],
    "a name, ended": [member(b"acme-1.0/PKG-INFO\0x\0y")],
    "a prefix of 155 bytes": [member(b"PKG-INFO", prefix=b"p" * 155), PKG_INFO],
    "a digit right before the size": [member(owner=b"00017501")],
    "a digit right before the checksum": [member(time=b"145247674001")],
    "the format of GNU": [member(magic=b"ustar  \0")],
    "no format": [member(magic=bytes(8))],
    "a size in spaces": [member(b"x", size=b"         71 ", content=b"y" * 57), PKG_INFO],
    "a size in all its field": [member(b"x", size=b"000000000071", content=b"y" * 57), PKG_INFO],
    "a size from the first digit": [member(size=b"71" + b"\0" * 10)],
    "a checksum in spaces": [member(checksum=b"%6o\0 ")],
    "a checksum to the end": [member(checksum=b"%08o")],
    "a long name": [long_name(OURS + b"\0"), NAMELESS],
    "a long name without end": [long_name(OURS), NAMELESS],
    "a long link": [long_name(b"target", b"K"), PKG_INFO],
    "a long link and a long name": [long_name(b"t", b"K"), long_name(OURS), NAMELESS],
    "a path": [pax(record(b"path", OURS)), NAMELESS],
    "a path among others": [pax(record(b"a", b"b\nc=d"), record(b"path", OURS), record(b"e", b"")), NAMELESS],
    "a path for one file": [pax(record(b"path", b"y")), NAMELESS, PKG_INFO],
    "a path that ends in a slash": [pax(record(b"path", b"y/")), member(b"y/", b"", b"5"), PKG_INFO],
    "a long path cut after a slash": [pax(record(b"path", b"a/b")), member(b"a/"), PKG_INFO],
    "its own size": [pax(record(b"size", b"%d" % len(CONTENT))), PKG_INFO],
    "its own size and a path": [pax(record(b"path", OURS), record(b"size", b"%d" % len(CONTENT))), NAMELESS],
    "its own size, twice": [pax(record(b"size", b"0"), record(b"size", b"0")), member(b"x", b""), PKG_INFO],
    "a size for one file": [pax(record(b"size", b"0")), member(b"x", b""), PKG_INFO],
    "a comment for all": [pax(record(b"comment", b"x"), kind=b"g"), PKG_INFO],
    "a comment, then a path": [pax(record(b"mtime", b"1")), pax(record(b"path", OURS)), NAMELESS],
    "an empty pax header": [pax(), PKG_INFO],
    "the longest header": [pax(record(b"c", b"x" * ((1 << 16) - 9), length=1 << 16)), PKG_INFO],
}


def pack(members: Sequence[bytes], end: bytes = END_OF_TAR) -> bytes:
    return gzip.compress(b"".join(members) + end, mtime=0)


@pytest.mark.parametrize("name", GOOD_SDISTS)
def test_a_source_distribution_is_read(name: str, tmp_path: Path) -> None:
    found = sdist_metadata(pack(GOOD_SDISTS[name]), tmp_path)
    if "of metadata" in name:
        assert found == b"y" * int(name.split(maxsplit=1)[0])
    else:
        assert found == CONTENT


NUMBER = "broken number"
CHECKSUM = "wrong checksum"
DETOUR = "a detour"
UNUSUAL = "unusual kind"
BROKEN = "broken extended header"
FOR_ALL = "for all files"
TWO_NAMES = "two names"
TWO_SIZES = "two sizes"

BAD_SDISTS: dict[str, tuple[Sequence[bytes], str]] = {
    "nothing in it": ([], "no PKG-INFO"),
    "no metadata": ([NAMELESS], "no PKG-INFO"),
    "another's": ([member(b"b-1.0/PKG-INFO")], "no PKG-INFO"),
    "metadata behind the end": ([END_OF_TAR, PKG_INFO], "no PKG-INFO"),
    "metadata named by a link": ([member(b"x")[:157] + OURS + member(b"x")[157 + len(OURS) :]], CHECKSUM),
    "two": ([PKG_INFO, PKG_INFO], "two PKG-INFO"),
    "two of no bytes": ([member(content=b""), member(content=b"")], "two PKG-INFO"),
    "two, one by a prefix": ([PKG_INFO, member(b"PKG-INFO", prefix=b"acme-1.0")], "two PKG-INFO"),
    "two, one of two blocks": ([member(content=b"y" * 513), PKG_INFO], "two PKG-INFO"),
    "two, one behind a path": ([pax(record(b"path", b"y")), NAMELESS, PKG_INFO, PKG_INFO], "two PKG-INFO"),
    "a folder": ([member(OURS + b"/", b"", b"5")], "no file"),
    "a link": ([member(OURS, b"", b"2")], "no file"),
    "a contiguous file": ([member(OURS, b"", b"7")], "no file"),
    **{f"kind {kind} with data": ([member(b"x", b"y", b"%d" % kind), PKG_INFO], UNUSUAL) for kind in range(1, 7)},
    **{f"kind {kind}": ([member(b"x", b"", kind.encode()), PKG_INFO], UNUSUAL) for kind in "8SXZ"},
    "a file that is an old folder": ([member(b"x/", b"y", b"\0"), PKG_INFO], UNUSUAL),
    "a file that ends in a slash": ([member(b"x/", b"y"), PKG_INFO], UNUSUAL),
    "a file whose path ends in a slash": ([pax(record(b"path", b"y/")), NAMELESS, PKG_INFO], UNUSUAL),
    "an old folder with another path": ([pax(record(b"path", b"y")), member(b"x/", b"y", b"\0"), PKG_INFO], UNUSUAL),
    "no name": ([member(b""), PKG_INFO], DETOUR),
    "a root": ([member(b"/x"), PKG_INFO], DETOUR),
    "a slash": ([member(b"/", b""), PKG_INFO], DETOUR),
    "two slashes": ([member(b"x//y"), PKG_INFO], DETOUR),
    "a dot": ([member(b"./x"), PKG_INFO], DETOUR),
    "two dots": ([member(b"x/../y"), PKG_INFO], DETOUR),
    "an end within a path": ([pax(record(b"path", b"x\0y")), NAMELESS, PKG_INFO], DETOUR),
    "an end within a long name": ([long_name(b"x\0y"), NAMELESS, PKG_INFO], DETOUR),
    "an empty path": ([pax(record(b"path", b"")), PKG_INFO], DETOUR),
    "an empty long name": ([long_name(b"\0"), PKG_INFO], DETOUR),
    "a checksum too high": ([member(off=1)], CHECKSUM),
    "a checksum too low": ([member(off=-1)], CHECKSUM),
    "no checksum": ([member(checksum=bytes(8))], NUMBER),
    "a checksum below zero": ([member(checksum=b"-0000001")], NUMBER),
    "a size below zero": ([member(size=b"-0000000001\0")], NUMBER),
    "a size in binary": ([member(size=b"\x80" + bytes(11))], NUMBER),
    "a size after an end": ([member(size=b"\x000000000071\0")], NUMBER),
    "a size with something behind": ([member(size=b"0000000071\0x")], NUMBER),
    "a size with another sign": ([member(size=b"00000000_71\0")], NUMBER),
    "a size with a letter": ([member(size=b"0o000000071\0")], NUMBER),
    "a size with a nine": ([member(size=b"00000000079\0")], NUMBER),
    "a size of nothing": ([member(size=bytes(12))], NUMBER),
    "a size of spaces": ([member(size=b" " * 12)], NUMBER),
    "a prefix beside GNU": ([member(magic=b"ustar  \0", prefix=b"x")], "a prefix"),
    "a prefix in no format": ([member(magic=bytes(8), prefix=b"x")], "a prefix"),
    "a prefix of another version": ([member(magic=b"ustar\x0001", prefix=b"x")], "a prefix"),
    "a prefix of a version cut short": ([member(magic=b"ustar\x000\0", prefix=b"x")], "a prefix"),
    "a prefix of another mark": ([member(magic=b"Ustar\x0000", prefix=b"x")], "a prefix"),
    "a prefix of one byte last": ([member(b"PKG-INFO", prefix=b"acme-1.0/" + b"p" * 146)], "no PKG-INFO"),
    "two paths": ([pax(record(b"path", OURS), record(b"path", OURS)), NAMELESS], TWO_NAMES),
    "two headers with a path": ([pax(record(b"path", OURS)), pax(record(b"path", OURS)), NAMELESS], TWO_NAMES),
    "a path and a long name": ([pax(record(b"path", OURS)), long_name(OURS), NAMELESS], TWO_NAMES),
    "a path for all": ([pax(record(b"path", OURS), kind=b"g"), NAMELESS], FOR_ALL),
    "a size for all": ([pax(record(b"size", b"57"), kind=b"g"), PKG_INFO], FOR_ALL),
    "another size": ([pax(record(b"size", b"1")), PKG_INFO], TWO_SIZES),
    "its own size with a zero": ([pax(record(b"size", b"057")), PKG_INFO], TWO_SIZES),
    "its own size with a sign": ([pax(record(b"size", b"+57")), PKG_INFO], TWO_SIZES),
    "no size": ([pax(record(b"size", b"")), PKG_INFO], TWO_SIZES),
    "its own size, then another": ([pax(record(b"size", b"57"), record(b"size", b"1")), PKG_INFO], TWO_SIZES),
    "another size, then its own": ([pax(record(b"size", b"1"), record(b"size", b"57")), PKG_INFO], TWO_SIZES),
    "a size before a long name": ([pax(record(b"size", b"57")), long_name(OURS), NAMELESS], TWO_SIZES),
    "a long name's size": ([pax(record(b"size", b"%d" % len(OURS))), long_name(OURS), NAMELESS], TWO_SIZES),
    "sparse": ([pax(record(b"GNU.sparse.major", b"1")), PKG_INFO], "sparse"),
    "sparse for all": ([pax(record(b"GNU.sparse.major", b"1"), kind=b"g"), PKG_INFO], "sparse"),
    "a record of no length": ([pax(b"path=x\n"), PKG_INFO], BROKEN),
    "a record of length zero": ([pax(b"0 path=x\n"), PKG_INFO], BROKEN),
    "a record of another sign": ([pax(b"-9 path=x\n"), PKG_INFO], BROKEN),
    "a record of a length beyond all": ([pax(b"9" * 5000 + b" path=x\n"), PKG_INFO], BROKEN),
    "a record one byte short": ([pax(b"8 path=x\n"), PKG_INFO], BROKEN),
    "a record one byte long": ([pax(b"11 path=x\n"), PKG_INFO], BROKEN),
    "a record without a key": ([pax(b"5 =x\n"), PKG_INFO], BROKEN),
    "a record without a value": ([pax(b"7 path\n"), PKG_INFO], BROKEN),
    "a record without an end": ([pax(b"10 path=xy"), PKG_INFO], BROKEN),
    "a record that goes on behind its end": ([pax(b"12 path=x\nyz"), NAMELESS, PKG_INFO], BROKEN),
    "a record in the padding": (
        [pax(padding=b"x"), pax(record(b"a", b"b"), padding=b"x"), PKG_INFO],
        "something behind",
    ),
    "a long name in the padding": ([member(b"L", b"x", b"L", padding=b"y"), PKG_INFO], "something behind"),
    "one byte over the longest header": (
        [pax(record(b"c", b"x" * ((1 << 16) - 8), length=(1 << 16) + 1)), PKG_INFO],
        "too long",
    ),
    "a header of a gigabyte": ([member(b"x", b"", b"x", size=octal(1 << 30)), PKG_INFO], "too long"),
}


@pytest.mark.parametrize("name", BAD_SDISTS)
def test_a_source_distribution_with_one_thing_wrong_is_refused_for_it(name: str, tmp_path: Path) -> None:
    members, reason = BAD_SDISTS[name]
    with pytest.raises(refusals.MetadataMismatch, match=reason):
        sdist_metadata(pack(members), tmp_path)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [(b"f" * 91 + b"/PKG-INFO", b""), (b"PKG-INFO", b"f" * 155)],
)
def test_metadata_is_found_in_a_folder_whose_name_fills_its_field(name: bytes, prefix: bytes, tmp_path: Path) -> None:
    folder = (prefix or name.removesuffix(b"/PKG-INFO")).decode()
    with spooled(pack([member(name, prefix=prefix)]), tmp_path) as file:
        assert archive.sdist_metadata(file, folder.__eq__) == CONTENT


def test_metadata_too_deep_is_none_whatever_its_folder(tmp_path: Path) -> None:
    with (
        spooled(pack([member(b"a/b/PKG-INFO")]), tmp_path) as file,
        pytest.raises(refusals.MetadataMismatch, match="no PKG-INFO"),
    ):
        archive.sdist_metadata(file, lambda _: True)


TAR = PKG_INFO + END_OF_TAR


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "ends too early"),
        (gzip.compress(PKG_INFO), "ends too early"),
        (gzip.compress(PKG_INFO + bytes(511)), "ends too early"),
        (gzip.compress(PKG_INFO) + gzip.compress(TAR), "ends too early"),
        (gzip.compress(random.Random(3).randbytes(9) + TAR)[:30], "ends too early"),
        (TAR, "no gzip"),
        (zlib.compress(TAR), "no gzip"),
        (gzip.compress(TAR)[:10] + b"\xff" * 20, "no gzip"),
    ],
)
def test_what_is_no_gzip_or_has_no_end_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(refusals.MetadataMismatch, match=reason):
        sdist_metadata(content, tmp_path)


def test_one_block_of_nothing_ends_it(tmp_path: Path) -> None:
    assert sdist_metadata(pack([PKG_INFO], bytes(512)), tmp_path) == CONTENT


def test_it_is_read_in_small_steps_and_no_further_than_needed(tmp_path: Path) -> None:
    with spooled(gzip.compress(PKG_INFO) + bytes(400_000), tmp_path) as file:
        with pytest.raises(refusals.MetadataMismatch, match="too early"):
            archive.sdist_metadata(file, is_ours)
        assert file.asked == [65_536, 65_536]


def test_what_it_unpacks_to_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pack([member(b"x", bytes(30_000)), PKG_INFO])
    size = len(gzip.decompress(content))
    monkeypatch.setattr(archive, "MOST_UNPACKED", size)
    assert sdist_metadata(content, tmp_path) == CONTENT
    monkeypatch.setattr(archive, "MOST_UNPACKED", size - 1)
    with pytest.raises(refusals.MetadataMismatch, match="far more than its size"):
        sdist_metadata(content, tmp_path)


def test_what_it_unpacks_to_has_a_bound_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pack([member(b"x", bytes(60_000)), PKG_INFO])
    spare = len(gzip.decompress(content)) - 100 * len(content)
    assert spare > 0
    monkeypatch.setattr(archive, "FREELY_UNPACKED", spare)
    assert sdist_metadata(content, tmp_path) == CONTENT
    monkeypatch.setattr(archive, "FREELY_UNPACKED", spare - 1)
    with pytest.raises(refusals.MetadataMismatch, match="far more than its size"):
        sdist_metadata(content, tmp_path)


def test_the_metadata_of_a_source_distribution_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST_METADATA", len(CONTENT))
    assert sdist_metadata(pack([PKG_INFO]), tmp_path) == CONTENT
    monkeypatch.setattr(archive, "LARGEST_METADATA", len(CONTENT) - 1)
    with pytest.raises(refusals.MetadataMismatch, match="no file of at most"):
        sdist_metadata(pack([PKG_INFO]), tmp_path)


def test_the_headers_of_a_source_distribution_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pack([pax(record(b"a", b"b")), PKG_INFO])
    monkeypatch.setattr(archive, "MOST_ENTRIES", 3)
    assert sdist_metadata(content, tmp_path) == CONTENT
    monkeypatch.setattr(archive, "MOST_ENTRIES", 2)
    with pytest.raises(refusals.MetadataMismatch, match="too many entries"):
        sdist_metadata(content, tmp_path)
