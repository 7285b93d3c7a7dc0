"""The file of an upload, on disk without a name, so that its space is free again however upload or process end.

Law: a descriptor is closed only when no thread writes to it. Otherwise a cancelled upload's last batch could land in
whatever file or socket the system opened next under the same number.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

BATCH_BYTES: Final = 1 << 20
"""How much is written, hashed or read in one go: enough that a thread's hand-over does not show, little in memory."""

DIGESTS: Final[dict[str, Callable[[], Any]]] = {
    "sha256_digest": hashlib.sha256,
    "md5_digest": lambda: hashlib.md5(usedforsecurity=False),
    "blake2_256_digest": lambda: hashlib.blake2b(digest_size=32),
}
"""The form fields that state a digest of the file, and how each is made."""


class SpooledFile:
    """Bytes that are appended once, hashed as they come, and read back as often as needed.

    `append`, `read_at`, `chunks` and `digest` block: call them in a thread, one at a time. `close` may be called at any
    moment, by any other.
    """

    def __init__(self, folder: Path, digests: Iterable[str] = ()) -> None:
        """Nothing is on disk before the first `append`. Digests named here are made on the way, sha256 always."""
        self.size = 0
        self._folder = folder
        self._hashes = {name: DIGESTS[name]() for name in {"sha256_digest", *digests}}
        self._file: io.FileIO | None = None
        self._busy = threading.Lock()
        self._closed = False

    def append(self, batch: bytes | bytearray) -> None:
        """Writes and hashes; does nothing once the file is closed.

        Raises:
            OSError: the folder is missing, or its disk or quota is full.
        """
        with self._in_use():
            if not self._closed:
                self._append(batch)

    def _append(self, batch: bytes | bytearray) -> None:
        if self._file is None:
            # Unbuffered, hence a FileIO. On Linux it never has a name (O_TMPFILE); elsewhere it loses it at once.
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        assert self._file is not None  # noqa: S101
        with memoryview(batch) as rest:
            written = 0
            while written < len(rest):
                written += self._file.write(rest[written:]) or 0
        for digest in self._hashes.values():
            digest.update(batch)
        self.size += len(batch)

    def read_at(self, offset: int, size: int) -> bytes:
        """At most so many bytes from there on; fewer only at the end.

        Raises:
            ValueError: the file is closed.
        """
        with self._in_use():
            if self._closed:
                raise ValueError("the spooled file is closed")
            return b"" if self._file is None else os.pread(self._file.fileno(), size, offset)

    def chunks(self, size: int = BATCH_BYTES) -> Iterator[bytes]:
        """The whole file."""
        for offset in range(0, self.size, size):
            yield self.read_at(offset, size)

    def digest(self, name: str) -> str:
        """The digest that a form states in the field of this name, in lower-case hex.

        One that was not made on the way is made now, from the file.
        """
        made = self._hashes.get(name)
        if made is None:
            made = DIGESTS[name]()
            for chunk in self.chunks():
                made.update(chunk)
            self._hashes[name] = made
        return str(made.hexdigest())

    def close(self) -> None:
        """Gives the space back: now, or as soon as a thread that is at it has finished. Never waits."""
        self._closed = True
        self._release()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        try:
            with self._busy:
                yield
        finally:
            if self._closed:
                self._release()

    def _release(self) -> None:
        # Whoever comes last closes. Closing twice is harmless: a FileIO forgets its descriptor the first time.
        if self._busy.acquire(blocking=False):
            try:
                if self._file is not None:
                    self._file.close()
            finally:
                self._busy.release()
