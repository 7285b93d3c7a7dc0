"""What must agree in an upload, broken one at a time; and archives made to harm whoever reads them."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker import refusals
from broker.gateway import archive
from broker.patterns import normalise
from tests.gateway.uploads import (
    FOLDER,
    SDIST,
    WHEEL,
    check_upload,
    fields_of,
    held,
    join,
    metadata,
    pack_sdist,
    pack_wheel,
    parts_of,
    sdist_entries,
    upload,
    wheel_entries,
)
from tests.registries import project_in

METADATA = f"{FOLDER}.dist-info/METADATA"
PKG_INFO = f"{FOLDER}/PKG-INFO"


# --- What passes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filename", [WHEEL, SDIST])
def test_an_upload_that_agrees_with_itself_passes(filename: str, tmp_path: Path) -> None:
    file = pack_wheel() if filename == WHEEL else pack_sdist()
    package = check_upload(upload(file, filename), tmp_path)
    assert (package.project, package.name, package.version) == ("acme-widgets", "Acme_Widgets", "1.0")
    assert (package.filename, package.size_bytes) == (filename, len(file))
    assert package.sha256 == fields_of(file)["sha256_digest"]
    assert package.filetype == ("bdist_wheel" if filename == WHEEL else "sdist")
    assert held(tmp_path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "acme-widgets"},
        {"name": "ACME.widgets"},
        {"version": "1.0.0"},
        {"version": "v1.0"},
        {"pyversion": None},
        {"pyversion": ""},
        {"pyversion": "py2.py3"},
        {"protocol_version": None},
        {"md5_digest": ""},
        {"blake2_256_digest": None},
        {"sha256_digest": str(fields_of(pack_wheel())["sha256_digest"]).upper()},
    ],
)
def test_another_spelling_of_the_same_passes(changes: dict[str, str | None], tmp_path: Path) -> None:
    file = pack_wheel()
    assert check_upload(upload(file, WHEEL, **changes), tmp_path).project == "acme-widgets"


@pytest.mark.parametrize(
    ("filename", "changes"),
    [
        ("Acme.Widgets-1.0-py3-none-any.whl", {}),
        ("acme_widgets-1.0.0-2fix-py2.py3-none-any.whl", {"pyversion": "py2.py3"}),
        ("acme_widgets-1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", {"pyversion": "cp312"}),
    ],
)
def test_wheels_of_every_kind_pass(filename: str, changes: dict[str, str], tmp_path: Path) -> None:
    assert check_upload(upload(pack_wheel(), filename, **changes), tmp_path).filename == filename


@pytest.mark.parametrize("version", ["1!2.0rc1", "1.0+local.1", "2026.11.20.dev1", "1.0.post1"])
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_versions_of_every_kind_pass(version: str, kind: str, tmp_path: Path) -> None:
    inside = metadata(version=version)
    if kind == "wheel":
        file, filename = pack_wheel({f"acme_widgets-{version}.dist-info/METADATA": inside}), f"acme_widgets-{version}"
        filename += "-py3-none-any.whl"
    else:
        file, filename = pack_sdist({f"acme_widgets-{version}/PKG-INFO": inside}), f"acme_widgets-{version}.tar.gz"
    assert check_upload(upload(file, filename, version=version), tmp_path).version == version


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_metadata_is_read_packed_or_not(method: int, tmp_path: Path) -> None:
    check_upload(upload(pack_wheel(method=method)), tmp_path)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("depth", [1, 7])
def test_source_distributions_of_every_tar_format_pass(tar_format: int, depth: int, tmp_path: Path) -> None:
    """With names too long for a plain header before PKG-INFO, as far as the format has them."""
    long_name = FOLDER + "/nested-folder-name" * depth + "/module.py"
    directory = tarfile.TarInfo(FOLDER)
    directory.type = tarfile.DIRTYPE
    link = tarfile.TarInfo(f"{FOLDER}/README")
    link.type, link.linkname = tarfile.SYMTYPE, "README.md"
    entries = {long_name: b"x" * 1000} | sdist_entries()
    file = pack_sdist(entries, members=[(directory, b""), (link, b"")], tar_format=tar_format)
    check_upload(upload(file, SDIST), tmp_path)


def test_a_long_project_name_is_found_in_every_tar_format(tmp_path: Path) -> None:
    name = "acme" + "x" * 90
    for tar_format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = pack_sdist({f"{name}-1.0/PKG-INFO": metadata(name)}, tar_format=tar_format)
        assert check_upload(upload(file, f"{name}-1.0.tar.gz", name=name), tmp_path).project == name


def test_a_folder_named_the_old_way_passes(tmp_path: Path) -> None:
    check_upload(upload(pack_sdist({"Acme.Widgets-1.0.0/PKG-INFO": metadata()}), SDIST), tmp_path)


# --- The form and the filename ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "remove_pkg"},
        {"action": "submit"},
        {"action": "doc_upload"},
        {"action": "verify"},
        {"action": "File_Upload"},
        {"action": "file_upload "},
        {"protocol_version": "2"},
        {"protocol_version": ""},
    ],
)
def test_another_action_is_refused(changes: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(refusals.WrongAction):
        check_upload(upload(**changes), tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("name", ["action", "name", "version", "filetype", "sha256_digest"])
def test_what_every_upload_has_must_be_there(name: str, value: str | None, tmp_path: Path) -> None:
    with pytest.raises(refusals.MissingField, match=name):
        check_upload(upload(pack_wheel(), WHEEL, **{name: value}), tmp_path)


@pytest.mark.parametrize(
    "filename",
    [
        "victim-1.0-py3-none-any.whl",
        "acme-1.0-py3-none-any.whl",
        "acme_widgets_extra-1.0-py3-none-any.whl",
        "acme_widgets-1.1-py3-none-any.whl",
        "acme_widgets-1.0+local-py3-none-any.whl",
        "acme_widgets-1.0.dev1-py3-none-any.whl",
        "acme_widgets-1.0-cp312-none-any.whl",
        "acme_widgets-1.0.whl",
        "acme_widgets-1.0-py3-none.whl",
        "acme_widgets-1.0-x1-py3-none-any.whl",
        "acme_widgets-1.0-1-2-py3-none-any.whl",
        "acme_widgets-v1.0-py3-none-any.whl",
        "acme-widgets-1.0-py3-none-any.whl",
        "acme_widgets-1.0-py3-none-any.WHL",
        "acme_widgets-1.0-py3-none-any.whl.asc",
        "acme_widgets-1.0-py3-none-any.egg",
        "acme_widgets-1.0.zip",
        "acme_widgets-1.0.tar.bz2",
        "acme_widgets-1.0.tgz",
        "acme_widgets-1.0.tar.gz",
        "../acme_widgets-1.0-py3-none-any.whl",
        "acme_widgets-1.0-py3-none-any.whl/x",
        "a/acme_widgets-1.0-py3-none-any.whl",
        "acme_widgets%-1.0-py3-none-any.whl",
        " acme_widgets-1.0-py3-none-any.whl",
        "acme_widgets-1.0-py3-none-any.whl ",
        "acme__widgets-1.0-py3-none-any.whl",
        ".acme_widgets-1.0-py3-none-any.whl",
        ".",
        "METADATA",
    ],
)
def test_a_wheel_under_another_name_is_refused(filename: str, tmp_path: Path) -> None:
    file = pack_wheel()
    body = join(parts_of(fields_of(file), file, filename))
    with pytest.raises(refusals.FilenameMismatch):
        check_upload(body, tmp_path)


@pytest.mark.parametrize(
    "filename",
    [
        "victim-1.0.tar.gz",
        "acme_widgets-1.1.tar.gz",
        "acme-widgets-1.0.tar.gz",
        "acme_widgets-1.0-1.tar.gz",
        "acme_widgets-v1.0.tar.gz",
        "acme_widgets.tar.gz",
        "acme_widgets-.tar.gz",
        "-1.0.tar.gz",
        "acme_widgets-1.0.zip",
        "acme_widgets-1.0.tar",
        "acme_widgets-1.0.TAR.GZ",
        "x/acme_widgets-1.0.tar.gz",
        WHEEL,
    ],
)
def test_a_source_distribution_under_another_name_is_refused(filename: str, tmp_path: Path) -> None:
    file = pack_sdist()
    body = join(parts_of(fields_of(file, SDIST), file, filename))
    with pytest.raises(refusals.FilenameMismatch):
        check_upload(body, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "victim"},
        {"name": "acme"},
        {"name": "acme widgets"},
        {"name": "acme_widgets\n"},
        {"name": "äcme-widgets"},
        {"name": "acme-widgets*"},
        {"version": "2.0"},
        {"version": "one"},
        {"version": "1.0+local"},
        {"version": " 1.0"},
        {"version": "1.0\n"},
        {"version": "1.0\u2003"},
        {"filetype": "sdist"},
        {"filetype": "bdist_egg"},
        {"filetype": "bdist_wheel "},
        {"pyversion": "cp312"},
        {"pyversion": "source"},
    ],
)
def test_a_form_that_says_otherwise_than_the_filename_is_refused(changes: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(refusals.FilenameMismatch):
        check_upload(upload(pack_wheel(), WHEEL, **changes), tmp_path)


@pytest.mark.parametrize("filetype", ["bdist_wheel", "bdist_egg"])
def test_a_source_distribution_of_another_type_is_refused(filetype: str, tmp_path: Path) -> None:
    with pytest.raises(refusals.FilenameMismatch):
        check_upload(upload(pack_sdist(), SDIST, filetype=filetype), tmp_path)


def test_a_source_distribution_for_one_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(refusals.FilenameMismatch):
        check_upload(upload(pack_sdist(), SDIST, pyversion="py3"), tmp_path)


_PIECE = st.text(alphabet="aA10._-!+v", min_size=1, max_size=8)


@given(name=_PIECE, version=_PIECE, build=st.sampled_from(["", "-1", "-1x", "-2-3"]), sdist=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
def test_the_registry_reads_the_same_project_from_a_filename_that_passes(
    name: str, version: str, build: str, sdist: bool, tmp_path: Path
) -> None:
    """pypiserver goes by the filename alone, and finds the name in it in its own way."""
    stem = f"{name}-{version}{build}"
    if sdist:
        filename, file = f"{stem}.tar.gz", pack_sdist({f"{name}-{version}/PKG-INFO": metadata(name, version)})
    else:
        filename, file = f"{stem}-py3-none-any.whl", pack_wheel({f"{stem}.dist-info/METADATA": metadata(name, version)})
    try:
        package = check_upload(upload(file, filename, name=name, version=version), tmp_path)
    except refusals.Refusal:
        return
    assert normalise(project_in(package.filename)) == package.project


@pytest.mark.parametrize(
    ("name", "version", "filename"),
    [
        ("victim-1.0", "2", "victim-1.0-2.tar.gz"),
        ("victim", "1.0.post2", "victim-1.0-2.tar.gz"),
        ("victim", "v1", "victim-v1-1x-py3-none-any.whl"),
    ],
)
def test_a_filename_that_two_readers_split_differently_is_refused(
    name: str, version: str, filename: str, tmp_path: Path
) -> None:
    inside = metadata(name, version)
    if filename.endswith(".whl"):
        file = pack_wheel({f"{name}-{version}.dist-info/METADATA": inside})
    else:
        file = pack_sdist({f"{name}-{version}/PKG-INFO": inside})
    with pytest.raises(refusals.FilenameMismatch):
        check_upload(upload(file, filename, name=name, version=version), tmp_path)


# --- Digests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sha256_digest", "md5_digest", "blake2_256_digest"])
@pytest.mark.parametrize("value", ["0" * 64, "0" * 32, "00", "x" * 64, "sha256:" + "0" * 64])
def test_a_digest_of_another_file_is_refused(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(refusals.DigestMismatch, match=name):
        check_upload(upload(pack_wheel(), WHEEL, **{name: value}), tmp_path)


def test_a_digest_with_something_around_it_is_refused(tmp_path: Path) -> None:
    right = fields_of(pack_wheel())["sha256_digest"]
    for wrong in (f" {right}", f"{right}\n", f"{right}0"):
        with pytest.raises(refusals.DigestMismatch):
            check_upload(upload(sha256_digest=wrong), tmp_path)


def test_a_file_changed_in_one_byte_is_refused(tmp_path: Path) -> None:
    file = pack_wheel()
    other = file[:-1] + bytes([file[-1] ^ 1])
    with pytest.raises(refusals.DigestMismatch):
        check_upload(join(parts_of(fields_of(file), other)), tmp_path)


def test_digests_stated_after_the_file_are_compared_too(tmp_path: Path) -> None:
    file = pack_wheel()
    check_upload(join(parts_of(fields_of(file, md5_digest=""), file)[::-1]), tmp_path)
    for name in ("sha256_digest", "md5_digest", "blake2_256_digest"):
        parts = parts_of(fields_of(file, WHEEL, **{name: "0" * 64}), file)[::-1]
        with pytest.raises(refusals.DigestMismatch, match=name):
            check_upload(join(parts), tmp_path)


# --- The metadata inside ---------------------------------------------------------------------------------------------

INSIDE = [
    metadata("victim"),
    metadata("acme"),
    metadata(version="1.1"),
    metadata(version="one"),
    metadata(name="äcme"),
    metadata(name=""),
    metadata(more="Name: victim\n"),
    metadata(more="name: Acme_Widgets\n"),
    metadata(more="Version: 1.0\n"),
    b"\n" + metadata(),
    b"Metadata-Version: 2.4\nVersion: 1.0\n\nName: Acme_Widgets\n",
    b"Metadata-Version: 2.4\nName: Acme_Widgets\n\nVersion: 1.0\n",
    b"",
    b"\x00\xff" * 100,
]


@pytest.mark.parametrize("inside", INSIDE)
def test_a_wheel_of_another_project_inside_is_refused(inside: bytes, tmp_path: Path) -> None:
    with pytest.raises(refusals.MetadataMismatch):
        check_upload(upload(pack_wheel(wheel_entries(**{METADATA: inside}))), tmp_path)


@pytest.mark.parametrize("inside", INSIDE)
def test_a_source_distribution_of_another_project_inside_is_refused(inside: bytes, tmp_path: Path) -> None:
    with pytest.raises(refusals.MetadataMismatch):
        check_upload(upload(pack_sdist(sdist_entries(**{PKG_INFO: inside})), SDIST), tmp_path)


def without(path: str) -> dict[str, bytes]:
    entries = wheel_entries()
    del entries[path]
    return entries


def twice(path: str) -> bytes:
    entries = list(wheel_entries().items())
    with pytest.warns(UserWarning, match="Duplicate"):
        return pack_wheel([*entries, (path, wheel_entries()[path])])


def patch_end(at: int, value: bytes) -> bytes:
    """A wheel whose end record says otherwise."""
    changed = bytearray(pack_wheel())
    start = len(changed) - 22
    changed[start + at : start + at + len(value)] = value
    return bytes(changed)


def patch_entry(at: int, value: bytes, file: bytes | None = None) -> bytes:
    """A wheel whose directory says otherwise of METADATA, and so does METADATA's own header where it has that field."""
    changed = bytearray(pack_wheel() if file is None else file)
    entry = changed.rindex(METADATA.encode()) - 46
    changed[entry + at : entry + at + len(value)] = value
    if 8 <= at < 28:  # flags to sizes, which stand two bytes earlier there
        return patch_local(at - 2, value, bytes(changed))
    return bytes(changed)


def patch_local(at: int, value: bytes, file: bytes | None = None) -> bytes:
    """A wheel in which METADATA's own header says otherwise than the directory."""
    changed = bytearray(pack_wheel() if file is None else file)
    local = changed.index(METADATA.encode()) - 30
    changed[local + at : local + at + len(value)] = value
    return bytes(changed)


def hidden() -> bytes:
    """What only those read who unpack a wheel from its beginning."""
    return pack_wheel({METADATA: metadata("victim")}).partition(b"PK\1\2")[0]


def prepended(more: bytes) -> bytes:
    """A wheel with more before it, and all offsets as they then are."""
    changed = bytearray(more + pack_wheel())
    for mark, at in ((b"PK\1\2", 42), (b"PK\5\6", 16)):
        start = changed.find(mark, len(more))
        while start >= 0:
            (offset,) = struct.unpack_from("<I", changed, start + at)
            struct.pack_into("<I", changed, start + at, offset + len(more))
            start = changed.find(mark, start + 4)
    return bytes(changed)


def noted(comment: bytes = b"PK\3\4") -> bytes:
    """A wheel whose last entry, right before the end record, has a comment."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive_file:
        for path, content in wheel_entries().items():
            archive_file.writestr(zipfile.ZipInfo(path), content)
        archive_file.infolist()[-1].comment = comment
    return packed.getvalue()


def hidden_bomb() -> bytes:
    """METADATA of 64 MiB, of which the directory says 100 bytes."""
    bomb = pack_wheel({METADATA: metadata(description="x" * (64 << 20))})
    return patch_entry(24, struct.pack("<I", 100), bomb)


WHEELS: dict[str, Callable[[], bytes]] = {
    "no metadata": lambda: pack_wheel(without(METADATA)),
    "two dist-info folders": lambda: pack_wheel(wheel_entries(**{"victim-1.0.dist-info/METADATA": metadata("victim")})),
    "a dist-info folder in capitals": lambda: pack_wheel(wheel_entries(**{"v-1.DIST-INFO/METADATA": metadata("v")})),
    "another's dist-info folder": lambda: pack_wheel({"victim-1.0.dist-info/METADATA": metadata()}),
    "another version's dist-info folder": lambda: pack_wheel({"acme_widgets-2.0.dist-info/METADATA": metadata()}),
    "a folder without a version": lambda: pack_wheel({"acme_widgets.dist-info/METADATA": metadata()}),
    "metadata one folder too deep": lambda: pack_wheel({f"x/{METADATA}": metadata()}),
    "metadata with a backslash": lambda: pack_wheel({METADATA.replace("/", "\\"): metadata()}),
    "a backslash in a name": lambda: pack_wheel(wheel_entries(**{"acme\\x.py": b""})),
    "an end of text in a name": lambda: pack_wheel(wheel_entries(**{"acme#x.py": b""})).replace(b"acme#x", b"acme\0x"),
    "an entry above": lambda: pack_wheel(wheel_entries(**{"../x.py": b""})),
    "metadata on a detour": lambda: pack_wheel(wheel_entries(**{f"x/../{METADATA}": metadata("victim")})),
    "metadata here": lambda: pack_wheel(wheel_entries(**{f"./{METADATA}": metadata("victim")})),
    "metadata behind two slashes": lambda: pack_wheel(wheel_entries(**{METADATA.replace("/", "//"): metadata("v")})),
    "metadata in small letters": lambda: pack_wheel(wheel_entries(**{f"{FOLDER}.dist-info/metadata": metadata("v")})),
    "entries that the directory does not name": lambda: prepended(hidden()),
    "something before it that the directory knows of": lambda: prepended(b"#!/bin/sh\n"),
    "an entry with another name of its own": lambda: patch_local(30, b"b"),
    "an entry with another method of its own": lambda: patch_local(8, struct.pack("<H", 0)),
    "an entry with another checksum of its own": lambda: patch_local(14, b"\0\0\0\0"),
    "an entry with another size of its own": lambda: patch_local(18, struct.pack("<I", 5)),
    "an entry with other flags of its own": lambda: patch_local(6, struct.pack("<H", 8)),
    "metadata from the root": lambda: pack_wheel({f"/{METADATA}": metadata()}),
    "metadata twice": lambda: twice(METADATA),
    "another entry twice": lambda: twice("acme_widgets/__init__.py"),
    "a comment at the end": lambda: pack_wheel()[:-2] + b"\x01\x00x",
    "an end record in the comment": lambda: pack_wheel()[:-2] + b"\x16\x00" + pack_wheel()[-22:],
    "a ZIP64 end in an entry's comment": lambda: noted(b"PK\6\7" + bytes(16)),
    "something before it": lambda: b"#!/bin/sh\n" + pack_wheel(),
    "something after it": lambda: pack_wheel() + b"x",
    "its end cut off": lambda: pack_wheel()[:-1],
    "its beginning cut off": lambda: pack_wheel()[1:],
    "another mark at the end": lambda: patch_end(0, b"PK\5\7"),
    "a count too small": lambda: patch_end(8, struct.pack("<HH", 3, 3)),
    "a count beyond all": lambda: patch_end(8, struct.pack("<HH", 0xFFFF, 0xFFFF)),
    "two counts": lambda: patch_end(8, struct.pack("<H", 3)),
    "another disk": lambda: patch_end(4, b"\1"),
    "a directory on another disk": lambda: patch_end(6, b"\1"),
    "a directory elsewhere": lambda: patch_end(16, struct.pack("<I", 0xFFFFFFFF)),
    "a comment that is not there": lambda: patch_end(20, b"\1"),
    "a source distribution": pack_sdist,
    "nothing": bytes,
    "an end record only": lambda: b"PK\5\6" + bytes(18),
    "encrypted metadata": lambda: patch_entry(8, struct.pack("<H", 1)),
    "metadata packed as bzip2": lambda: pack_wheel(method=zipfile.ZIP_BZIP2),
    "metadata packed as lzma": lambda: pack_wheel(method=zipfile.ZIP_LZMA),
    "a wrong checksum": lambda: patch_entry(16, b"\0\0\0\0"),
    "a wrong size": lambda: patch_entry(24, struct.pack("<I", 5)),
    "a size beyond the bound": lambda: patch_entry(24, struct.pack("<I", archive.LARGEST_METADATA + 1)),
    "a packed size beyond the file": lambda: patch_entry(20, struct.pack("<I", 0xFFFFFFFF)),
    "a packed size too short": lambda: patch_entry(20, struct.pack("<I", 9)),
    "metadata that starts elsewhere": lambda: patch_entry(42, struct.pack("<I", 7)),
    "metadata beyond the end": lambda: patch_entry(42, struct.pack("<I", 0xFFFFFFFE)),
    "metadata in the end record": lambda: patch_entry(42, struct.pack("<I", len(noted()) - 26), noted()),
    "metadata without its own mark": lambda: pack_wheel().replace(b"PK\3\4", b"PK\3\5"),
    "a name longer than the directory": lambda: patch_entry(28, struct.pack("<H", 0xFFFF)),
    "a bomb": lambda: pack_wheel({METADATA: metadata(description="x" * (archive.LARGEST_METADATA + 1))}),
    "a bomb that hides its size": hidden_bomb,
}


@pytest.mark.parametrize("name", WHEELS)
def test_a_wheel_made_to_harm_is_refused_within_bounds(name: str, tmp_path: Path) -> None:
    file = WHEELS[name]()
    with pytest.raises(refusals.MetadataMismatch):
        check_upload(upload(file), tmp_path)


def plain(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object
) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a tar archive."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(content)
    for key, value in more.items():
        setattr(member, key, value)
    return member, content


def block(name: bytes, *, size: bytes = b"00000000000\0", kind: bytes = b"0", magic: bytes = b"ustar\x0000") -> bytes:
    """A raw tar header, with a right checksum."""
    header = bytearray(512)
    header[: len(name)] = name
    header[124:136], header[156:157], header[257:265] = size, kind, magic
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def octal(size: int) -> bytes:
    return b"%011o\0" % size


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """An extended header."""
    return block(b"PaxHeader", size=octal(len(records)), kind=kind) + records + bytes(-len(records) % 512)


RENAME = b"%d path=%s\n" % (len(PKG_INFO) + 9, PKG_INFO.encode())
END = bytes(1024)
NAMELESS = block(b"x", size=octal(len(metadata()))) + metadata().ljust(512, b"\0") + END
ENTRY = block(PKG_INFO.encode(), size=octal(len(metadata()))) + metadata().ljust(512, b"\0") + END


def bomb() -> bytes:
    """256 MiB in 256 KiB, before the metadata."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream:
        stream.write(block(b"x", size=octal(256 << 20)))
        for _ in range(256):
            stream.write(bytes(1 << 20))
        stream.write(ENTRY)
    return packed.getvalue()


def large_metadata() -> bytes:
    """Stored, so that what is packed is as large."""
    entries = wheel_entries() | {f"{FOLDER}.dist-info/METADATA": metadata(description="x" * archive.LARGEST_METADATA)}
    return pack_wheel(entries, method=zipfile.ZIP_STORED)


def test_stored_metadata_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(refusals.MetadataMismatch):
        check_upload(upload(large_metadata()), tmp_path)


SDISTS: dict[str, Callable[[], bytes]] = {
    "no metadata": lambda: pack_sdist({f"{FOLDER}/setup.py": b""}),
    "nothing": bytes,
    "an empty archive": lambda: pack_sdist({}),
    "metadata at the root": lambda: pack_sdist({"PKG-INFO": metadata()}),
    "metadata too deep": lambda: pack_sdist({f"{FOLDER}/src/PKG-INFO": metadata()}),
    "metadata in another's folder": lambda: pack_sdist({"victim-1.0/PKG-INFO": metadata()}),
    "metadata in another version's folder": lambda: pack_sdist({"acme_widgets-2.0/PKG-INFO": metadata()}),
    "metadata above the root": lambda: pack_sdist({f"../{PKG_INFO}": metadata()}),
    "metadata from the root": lambda: pack_sdist({f"/{PKG_INFO}": metadata()}),
    "metadata by a dot": lambda: pack_sdist({f"./{PKG_INFO}": metadata()}),
    "two of them": lambda: pack_sdist(members=[plain(PKG_INFO)]),
    "two of them, spelt otherwise": lambda: pack_sdist(members=[plain("Acme-Widgets-1.0/PKG-INFO")]),
    "a second one by a dot": lambda: pack_sdist(members=[plain(f"{FOLDER}/./PKG-INFO")]),
    "a second one from above": lambda: pack_sdist(members=[plain(f"x/../{PKG_INFO}")]),
    "no end": lambda: gzip.compress(ENTRY.removesuffix(END)),
    "a symbolic link": lambda: pack_sdist(members=[plain(PKG_INFO, kind=tarfile.SYMTYPE, linkname="x")]),
    "a hard link": lambda: pack_sdist(members=[plain(PKG_INFO, kind=tarfile.LNKTYPE, linkname="x")]),
    "a folder": lambda: pack_sdist({}, members=[plain(PKG_INFO, kind=tarfile.DIRTYPE)]),
    "a device": lambda: pack_sdist(members=[plain(PKG_INFO, kind=tarfile.CHRTYPE)]),
    "not packed": lambda: gzip.decompress(pack_sdist()),
    "packed as zlib": lambda: zlib.compress(gzip.decompress(pack_sdist())),
    "cut short": lambda: pack_sdist(sdist_entries(**{PKG_INFO: metadata(description="x" * 9000)}))[:-60],
    "another gzip member": lambda: gzip.compress(gzip.decompress(pack_sdist())[:512]) + pack_sdist(),
    "a wheel": pack_wheel,
    "a broken checksum": lambda: gzip.compress(b"X" + gzip.decompress(pack_sdist(tar_format=tarfile.USTAR_FORMAT))[1:]),
    "a size that is no number": lambda: gzip.compress(block(b"x", size=b"x" * 12) + ENTRY),
    "a size below zero": lambda: gzip.compress(block(b"x", size=b"-0000000001\0") + ENTRY),
    "a size in binary": lambda: gzip.compress(block(b"x", size=b"\x80" + bytes(10) + b"\0") + ENTRY),
    "a folder with a size": lambda: gzip.compress(block(b"x", size=octal(512), kind=b"5") + bytes(512) + ENTRY),
    "a sparse file": lambda: gzip.compress(block(b"x", kind=b"S") + ENTRY),
    "an unknown kind": lambda: gzip.compress(block(b"x", kind=b"Z") + ENTRY),
    "a sparse file by a pax header": lambda: gzip.compress(pax(b"22 GNU.sparse.major=1\n") + ENTRY),
    "a name for all files": lambda: gzip.compress(pax(RENAME, b"g") + NAMELESS),
    "a pax header without end": lambda: gzip.compress(pax(b"99 path=x\n") + ENTRY),
    "a pax header of no length": lambda: gzip.compress(pax(b"0 path=x\n") + ENTRY),
    "a pax header that is no number": lambda: gzip.compress(pax(b"x path=x\n") + ENTRY),
    "a pax header without a value": lambda: gzip.compress(pax(b"7 path\n") + ENTRY),
    "a pax size that is no number": lambda: gzip.compress(pax(b"11 size=-5\n") + ENTRY),
    "a pax header that renames": lambda: gzip.compress(pax(b"10 path=x\n") + ENTRY),
    "an extended header of a gigabyte": lambda: gzip.compress(block(b"x", size=octal(1 << 30), kind=b"x") + ENTRY),
    "a long name of a gigabyte": lambda: gzip.compress(block(b"x", size=octal(1 << 30), kind=b"L") + ENTRY),
    "metadata beyond the bound": lambda: pack_sdist(
        {PKG_INFO: metadata(description="x" * archive.LARGEST_METADATA)},
    ),
    "a bomb": bomb,
    "a name without end": lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * (4 << 20),
}


@pytest.mark.parametrize("name", SDISTS)
def test_a_source_distribution_made_to_harm_is_refused_within_bounds(name: str, tmp_path: Path) -> None:
    file = SDISTS[name]()
    with pytest.raises(refusals.MetadataMismatch):
        check_upload(upload(file, SDIST), tmp_path)


def test_the_headers_built_by_hand_are_right(tmp_path: Path) -> None:
    """Or the rows above would be refused for another cause."""
    check_upload(upload(gzip.compress(ENTRY), SDIST), tmp_path)
    check_upload(upload(gzip.compress(pax(b"12 comment=\n", b"g") + pax(b"11 mtime=5\n") + ENTRY), SDIST), tmp_path)
    check_upload(upload(noted(b"a comment")), tmp_path)
    check_upload(upload(gzip.compress(block(b"x", size=octal(512)) + bytes(512) + ENTRY), SDIST), tmp_path)
    check_upload(upload(gzip.compress(block(b"x", size=octal(2), kind=b"K") + bytes(512) + ENTRY), SDIST), tmp_path)
    check_upload(upload(gzip.compress(pax(RENAME) + NAMELESS), SDIST), tmp_path)


def test_a_description_of_many_lines_is_none_of_our_business(tmp_path: Path) -> None:
    text = metadata(description="\n" * 1_000_000 + "Name: victim\n")
    check_upload(upload(pack_wheel(wheel_entries(**{METADATA: text}))), tmp_path)


def test_a_wheel_written_in_one_go_passes(tmp_path: Path) -> None:
    """Then checksum and sizes stand behind the data, and the headers before it have none."""
    written = Unseekable()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in wheel_entries().items():
            wheel.writestr(path, content)
    assert written.getvalue()[6] & 8
    check_upload(upload(written.getvalue()), tmp_path)


class Unseekable(io.BytesIO):
    """A pipe, for who writes to it."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_upload(upload(pack_sdist(), SDIST), tmp_path)
    monkeypatch.setattr(archive, "MOST_ENTRIES", 1)
    with pytest.raises(refusals.MetadataMismatch):
        check_upload(upload(pack_sdist(), SDIST), tmp_path)


def test_a_directory_beyond_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST_DIRECTORY", 100)
    with pytest.raises(refusals.MetadataMismatch):
        check_upload(upload(pack_wheel()), tmp_path)


@given(data=st.data(), kind=st.sampled_from([WHEEL, SDIST]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_a_damaged_archive_is_refused_or_right_and_nothing_else_is_raised(
    data: st.DataObject, kind: str, tmp_path: Path
) -> None:
    """Damage inside the gzip stream is made before packing, or its checksum would find every bit of it."""
    file = bytearray(pack_wheel() if kind == WHEEL else gzip.decompress(pack_sdist()))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    packed = bytes(file) if kind == WHEEL else gzip.compress(bytes(file))
    with contextlib.suppress(refusals.MetadataMismatch):
        assert check_upload(upload(packed, kind), tmp_path).project == "acme-widgets"


@given(file=st.binary(max_size=2000), kind=st.sampled_from([WHEEL, SDIST]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
def test_any_bytes_are_refused_as_an_archive(file: bytes, kind: str, tmp_path: Path) -> None:
    packed = file if kind == WHEEL else gzip.compress(file)
    with pytest.raises(refusals.MetadataMismatch):
        check_upload(upload(packed, kind), tmp_path)
