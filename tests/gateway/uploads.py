"""Uploads as clients send them: each function builds a valid thing and takes the one change as an argument."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from broker.gateway.form import Form, Limits, read_form
from broker.gateway.package import Package, check

BOUNDARY = "41347a98dfa9f158-ef488641d52c1845"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
WHEEL = "acme_widgets-1.0-py3-none-any.whl"
SDIST = "acme_widgets-1.0.tar.gz"
FOLDER = "acme_widgets-1.0"

Fields = dict[str, str | Sequence[str] | None]


# --- Distributions ---------------------------------------------------------------------------------------------------


def metadata(
    name: str = "Acme_Widgets", version: str = "1.0", *, more: str = "", description: str = "Widgets."
) -> bytes:
    """METADATA or PKG-INFO."""
    return f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{more}\n{description}\n".encode()


def wheel_entries(**changes: bytes) -> dict[str, bytes]:
    """Path -> content."""
    return {
        "acme_widgets/__init__.py": b"",
        f"{FOLDER}.dist-info/METADATA": metadata(),
        f"{FOLDER}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{FOLDER}.dist-info/RECORD": b"",
    } | changes


def pack_wheel(
    entries: Mapping[str, bytes] | Iterable[tuple[str, bytes]] | None = None, *, method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """A wheel of these entries; a list may have one twice."""
    if entries is None:
        entries = wheel_entries()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for path, content in entries.items() if isinstance(entries, Mapping) else entries:
            archive.writestr(zipfile.ZipInfo(path), content, method)
    return packed.getvalue()


def sdist_entries(**changes: bytes) -> dict[str, bytes]:
    """Path -> content. PKG-INFO stands last, where flit and hatchling put it."""
    return {f"{FOLDER}/pyproject.toml": b"[project]\n", f"{FOLDER}/PKG-INFO": metadata()} | changes


def pack_sdist(
    entries: Mapping[str, bytes] | None = None,
    *,
    members: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
    tar_format: int = tarfile.PAX_FORMAT,
    mtime: float = 1_700_000_000.25,
) -> bytes:
    """A source distribution of these entries, after `members`. A fractional time makes Python write pax headers."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tar_format) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
        for path, content in (sdist_entries() if entries is None else entries).items():
            member = tarfile.TarInfo(path)
            member.size, member.mtime = len(content), mtime
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


# --- Forms -----------------------------------------------------------------------------------------------------------


def part(name: str, value: bytes | str, filename: str | None = None, *, headers: str = "") -> bytes:
    """One part, without a boundary."""
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"'
    return f"{disposition}\r\n{headers}\r\n".encode() + (value.encode() if isinstance(value, str) else value)


def raw_part(headers: bytes, value: bytes = b"x") -> bytes:
    """One part with these header lines."""
    return headers + b"\r\n\r\n" + value


def join(parts: Iterable[bytes], boundary: str = BOUNDARY) -> bytes:
    """The body of these parts."""
    return b"".join(b"--%s\r\n%s\r\n" % (boundary.encode(), one) for one in parts) + b"--%s--\r\n" % boundary.encode()


def fields_of(file: bytes, filename: str = WHEEL, **changes: str | Sequence[str] | None) -> Fields:
    """The text fields that uv sends. A change to None leaves one out, to a list repeats it."""
    is_wheel = filename.endswith(".whl")
    fields: Fields = {
        ":action": "file_upload",
        "sha256_digest": hashlib.sha256(file).hexdigest(),
        "blake2_256_digest": hashlib.blake2b(file, digest_size=32).hexdigest(),
        "protocol_version": "1",
        "metadata_version": "2.4",
        "name": "Acme_Widgets",
        "version": "1.0",
        "filetype": "bdist_wheel" if is_wheel else "sdist",
        "pyversion": "py3" if is_wheel else "source",
        "description": "Widgets.\r\n\r\n--not-a-boundary--\r\n",
        "classifiers": ["Topic :: A", "Topic :: B"],
        "requires_python": "",
    }
    return fields | {key.replace("action", ":action"): value for key, value in changes.items()}


def parts_of(fields: Fields, file: bytes, filename: str = WHEEL) -> list[bytes]:
    """The parts of an upload, `content` last."""
    parts = []
    for name, value in fields.items():
        parts += [part(name, one) for one in ([value] if isinstance(value, str) else value or [])]
    return [*parts, part("content", file, filename, headers="Content-Type: application/octet-stream\r\n")]


def upload(file: bytes | None = None, filename: str = WHEEL, **changes: str | Sequence[str] | None) -> bytes:
    """The body of a valid upload."""
    if file is None:
        file = pack_wheel() if filename.endswith(".whl") else pack_sdist()
    return join(parts_of(fields_of(file, filename, **changes), file, filename))


# --- Reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was read of an upload, after its file is gone."""

    fields: tuple[tuple[str, bytes], ...]
    filename: str
    file: bytes
    digests: tuple[str, str, str]
    """sha256, md5, blake2."""


async def pieces(body: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    """A body as a server hands it over."""
    for at in range(0, len(body), size):
        await asyncio.sleep(0)
        yield body[at : at + size]


def ignore(name: str, value: str) -> None:
    """Lets every field pass."""


def reading(body: AsyncIterator[bytes], spool: Path) -> AbstractAsyncContextManager[Form]:
    """`read_form`, where only the body matters."""
    return read_form(
        body, content_type=CONTENT_TYPE, content_length=None, limits=Limits(), spool=spool, on_field=ignore
    )


def take(
    body: bytes | AsyncIterator[bytes],
    spool: Path,
    *,
    content_type: str = CONTENT_TYPE,
    content_length: int | None = None,
    limits: Limits = Limits(),  # noqa: B008
    on_field: Callable[[str, str], None] = ignore,
    size: int = 65536,
) -> Taken:
    """Reads an upload, and asserts that nothing of it stays behind whatever happens."""

    async def read() -> Taken:
        stream = pieces(body, size) if isinstance(body, bytes) else body
        async with read_form(
            stream,
            content_type=content_type,
            content_length=content_length,
            limits=limits,
            spool=spool,
            on_field=on_field,
        ) as form:
            return Taken(
                fields=form.fields,
                filename=form.filename,
                file=b"".join(form.file.chunks()),
                digests=tuple(map(form.file.digest, ("sha256_digest", "md5_digest", "blake2_256_digest"))),  # type: ignore[arg-type]
            )

    try:
        return asyncio.run(read())
    finally:
        assert held(spool) == []


def check_upload(body: bytes, spool: Path) -> Package:
    """Reads an upload and checks it."""

    async def read() -> Package:
        async with reading(pieces(body), spool) as form:
            return await asyncio.to_thread(check, form)

    return asyncio.run(read())


def held(spool: Path) -> list[str]:
    """What takes space in a folder: its files, and the nameless ones that this process has open there."""
    open_files = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(f"{spool}/"):
            open_files.append(target)
    return open_files + [str(path) for path in spool.iterdir()]
