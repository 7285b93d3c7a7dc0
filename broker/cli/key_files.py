"""The files of signing keys, as `broker keys` changes them: each step is there as a whole, or not at all.

A new file is written beside its place, brought to the disk, and renamed: brokers that look see all of it or nothing.
Whoever changes keys holds the folder's lock, so of two at once the second sees what the first has done.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.signing import SigningKey, SigningKeys
from broker.signing_files import Source, parse_each, together

UNFINISHED: Final = ".unfinished"
"""What a file is called beside its name while it is written: brokers do not look at it."""

_ONLY_OWNER: Final = 0o600
_NEVER_MORE: Final = 0o640


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFiles:
    """All files of one folder, or the one file."""

    path: Path
    each: Sequence[tuple[Path, tuple[SigningKey, ...]]]
    keys: SigningKeys

    @classmethod
    def read(cls, path: Path) -> KeyFiles:
        """Reads them.

        Raises:
            SettingsError
        """
        told = parse_each(Source(path=path).contents())
        return cls(path=path, each=[(Path(name), keys) for name, keys in told], keys=together(told))

    def file_of(self, key: SigningKey) -> Path:
        """Where a key is."""
        return next(file for file, keys in self.each if key in keys)

    def add(self, key: SigningKey, name: str) -> Path:
        """Writes a new key: into a new file of the folder, or behind the others of the one file.

        Whoever may read the key that is there last may read the new one, and nobody else.

        Raises:
            OSError: it cannot be written, or there is such a file.
        """
        last, keys = self.each[-1]
        like = last.stat()
        if self.path.is_dir():
            if (self.path / name).exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            return _put(self.path / name, key.text(), like)
        return _put(last, b"".join(one.text() for one in (*keys, key)), like)

    def remove(self, gone: Sequence[SigningKey]) -> None:
        """Takes keys away, and files that have no other."""
        for file, keys in self.each:
            left = [key for key in keys if key not in gone]
            if not left:
                file.unlink()
                _sync(file.parent)
            elif len(left) < len(keys):
                _put(file, b"".join(key.text() for key in left), file.stat())


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else changes the keys meanwhile. Clears away what a crash left unfinished.

    Args:
        path: A folder, or a file in one.

    Raises:
        OSError: there is none.
    """
    folder = path if path.is_dir() else path.parent
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in folder.glob(f"*.pem{UNFINISHED}"):
            left.unlink()
        yield
    finally:
        os.close(descriptor)


def write_new(path: Path, key: SigningKey) -> None:
    """Writes a file that is not there yet.

    Raises:
        OSError: it is there, or cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Created with its final rights, and only if it is not there: a key that signs must not be lost.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _ONLY_OWNER), "wb") as file:
        file.write(key.text())
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def any_in(path: Path) -> bool:
    """Whether a folder has keys."""
    return path.is_dir() and any(path.glob("*.pem"))


def _put(path: Path, text: bytes, like: os.stat_result) -> Path:
    beside = path.with_name(path.name + UNFINISHED)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _ONLY_OWNER), "wb") as file:
        with contextlib.suppress(PermissionError):  # only root can give a file away
            os.fchown(file.fileno(), like.st_uid, like.st_gid)
        os.fchmod(file.fileno(), like.st_mode & _NEVER_MORE)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    _sync(path.parent)
    return path


def _sync(folder: Path) -> None:
    """Brings to the disk which files there are."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
