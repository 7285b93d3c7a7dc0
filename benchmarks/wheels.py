"""Large wheels that are valid: nothing in them is for show, the gateway reads their metadata.

Those of one size share their beginning, which alone is large and lies on the disk once: eight of 1000 MB take one.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1 << 20
LARGE: Final = "payload.bin"
"""The one file that a wheel would install."""


class Payload:
    """A zip archive that holds random bytes as they are: the beginning of every wheel of one size."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path, self.megabytes = path, megabytes
        digest = hashlib.sha256()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            with archive.open(LARGE, "w") as target:
                for _ in range(megabytes):
                    chunk = os.urandom(CHUNK_BYTES)
                    digest.update(chunk)
                    target.write(chunk)
            self.length = archive.start_dir
            """How much of it a wheel begins with: all but the archive's directory."""
        self.record = _record(LARGE, digest.digest(), megabytes * CHUNK_BYTES)
        with path.open("rb") as file:
            file.seek(self.length)
            self.directory = file.read()
        self._hashed = hashlib.sha256()
        for chunk in self.chunks():
            self._hashed.update(chunk)

    def chunks(self) -> Iterator[bytes]:
        """What a wheel begins with."""
        left = self.length
        with self.path.open("rb", buffering=0) as file:
            while chunk := file.read(min(CHUNK_BYTES, left)):
                left -= len(chunk)
                yield chunk

    def sha256(self, rest: bytes) -> str:
        """Of a wheel that goes on so."""
        whole = self._hashed.copy()
        whole.update(rest)
        return whole.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel, and the form that uploads it."""

    filename: str
    project: str
    version: str
    sha256: str
    payload: Payload
    rest: bytes = field(repr=False)
    """What comes after the payload."""

    @classmethod
    def make(cls, project: str, version: str, payload: Payload) -> Wheel:
        """Adds to the payload what the wheel format asks for."""
        distribution = project.replace("-", "_")
        information = f"{distribution}-{version}.dist-info"
        texts = {
            f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
            f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        small = [_record(name, hashlib.sha256(text.encode()).digest(), len(text)) for name, text in texts.items()]
        texts[f"{information}/RECORD"] = "".join([payload.record, *small, f"{information}/RECORD,,\n"])
        rest = _appended(payload, texts)
        return cls(
            filename=f"{distribution}-{version}-py3-none-any.whl",
            project=project,
            version=version,
            sha256=payload.sha256(rest),
            payload=payload,
            rest=rest,
        )

    @property
    def size(self) -> int:
        """In bytes."""
        return self.payload.length + len(self.rest)

    def form(self, boundary: str) -> tuple[bytes, bytes]:
        """What stands before the file in the request's body, and what after it."""
        fields = {
            ":action": "file_upload",
            "protocol_version": "1",
            "metadata_version": "2.1",
            "name": self.project,
            "version": self.version,
            "filetype": "bdist_wheel",
            "pyversion": "py3",
            "sha256_digest": self.sha256,
        }
        parts = [_part(boundary, f'name="{name}"', "") + value for name, value in fields.items()]
        content = f'name="content"; filename="{self.filename}"'
        parts.append(_part(boundary, content, "Content-Type: application/octet-stream\r\n"))
        return "\r\n".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()

    def chunks(self) -> Iterator[bytes]:
        """The file."""
        yield from self.payload.chunks()
        yield self.rest


def _appended(payload: Payload, texts: dict[str, str]) -> bytes:
    """What the archive has after its payload with these files added, and its directory for all of them."""
    with tempfile.TemporaryFile() as file:
        # A hole where the payload would be takes no room, and adding to an archive reads its directory alone.
        file.seek(payload.length)
        file.write(payload.directory)
        with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
        file.seek(payload.length)
        return file.read()


def _part(boundary: str, disposition: str, more: str) -> str:
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n"


def _record(name: str, digest: bytes, size: int) -> str:
    return f"{name},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{size}\n"
