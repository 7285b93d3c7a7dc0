"""Large wheels that are valid: nothing in them is for show, the gateway reads their metadata."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A file of random bytes, for every wheel the same: what makes them large."""

    path: Path
    digest: bytes
    """Its sha256."""

    @classmethod
    def make(cls, path: Path, megabytes: int) -> Payload:
        """Writes it."""
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for _ in range(megabytes):
                chunk = os.urandom(CHUNK_BYTES)
                digest.update(chunk)
                file.write(chunk)
        return cls(path=path, digest=digest.digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel, and the form that uploads it."""

    path: Path
    project: str
    version: str
    sha256: str

    @classmethod
    def make(cls, folder: Path, project: str, version: str, payload: Payload) -> Wheel:
        """Writes it: the payload stored as it is, and what the wheel format asks for."""
        distribution = project.replace("-", "_")
        path = folder / f"{distribution}-{version}-py3-none-any.whl"
        information = f"{distribution}-{version}.dist-info"
        texts = {
            f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
            f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        large = f"{distribution}/payload.bin"
        records = [_record(large, payload.digest, payload.path.stat().st_size)]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            with payload.path.open("rb") as source, archive.open(large, "w") as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
            for name, text in texts.items():
                archive.writestr(name, text)
                records.append(_record(name, hashlib.sha256(text.encode()).digest(), len(text.encode())))
            archive.writestr(f"{information}/RECORD", "".join([*records, f"{information}/RECORD,,\n"]))
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path=path, project=project, version=version, sha256=sha256)

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
        content = f'name="content"; filename="{self.path.name}"'
        parts.append(_part(boundary, content, "Content-Type: application/octet-stream\r\n"))
        return "\r\n".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()

    def chunks(self) -> Iterator[bytes]:
        """The file."""
        with self.path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


def _part(boundary: str, disposition: str, more: str) -> str:
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n"


def _record(name: str, digest: bytes, size: int) -> str:
    return f"{name},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{size}\n"
