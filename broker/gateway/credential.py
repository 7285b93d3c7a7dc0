"""The credential that only the broker knows: what the registry is shown, and nobody else may see.

A secret that lives in a file is read from it each time it is used: secret stores rotate it there, and tell nobody.
"""

from __future__ import annotations

import base64
import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from broker import refusals

LONGEST_SECRET: Final = 64 * 1024
"""Bytes of a file that is read for a secret."""

_BEARER: Final = re.compile(r"[!-~]+")


class SecretFile(SecretStr):
    """A secret in a file: its text, but for the last line break.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read at first.
        ValueError: it is too large.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(self._read())

    def get_secret_value(self) -> str:
        """What the file says now; what it last said, while it cannot be read or is just being written."""
        with contextlib.suppress(OSError, ValueError):
            self._secret_value = self._read() or self._secret_value
        return self._secret_value

    def _read(self) -> str:
        with self._path.open("rb") as file:
            content = file.read(LONGEST_SECRET + 1)
        if len(content) > LONGEST_SECRET:
            raise ValueError(f"it has more than {LONGEST_SECRET} bytes")
        return content.decode().rstrip("\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A credential as one request carries it."""

    header: str = field(repr=False)
    """For `Authorization`."""
    texts: tuple[str, ...] = field(repr=False)
    """By which it would be known where it stands in a text."""

    def stands_in(self, text: str) -> bool:
        """Whether whoever reads the text learns it."""
        return any(told in text for told in self.texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Basic, with a user name; or a bearer token, where that is None."""

    username: str | None = None
    secret: SecretStr = field(repr=False)

    def show(self) -> Shown:
        """The credential as it is at this moment.

        Raises:
            RegistryCredential: the bearer token is none that a header can hold. The HTTP client would say so with the
                token in its words, and those are logged.
        """
        secret = self.secret.get_secret_value()
        if self.username is None:
            if not _BEARER.fullmatch(secret):
                raise refusals.RegistryCredential("the broker's bearer token is none that a header can hold")
            return Shown(header=f"Bearer {secret}", texts=(secret,))
        encoded = base64.b64encode(f"{self.username}:{secret}".encode()).decode()
        return Shown(header=f"Basic {encoded}", texts=(encoded, secret) if secret else (encoded,))
