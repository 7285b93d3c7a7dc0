"""WSGI middleware: reads pass, uploads pass that the broker's token covers, nothing else does.

application = TrustedWSGI(registry, Guard(tokens=tokens, path="/"))
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from trusted_tokens import USER, Refused, TrustedTokens, UploadToken
from trusted_uploads import Guard, Head, Upload

JUDGED: Final[ContextVar[UploadToken | None]] = ContextVar("JUDGED", default=None)
"""The token of the upload that is being handed on, for what the registry asks meanwhile, such as an auther."""

_PIECE_BYTES = 1 << 16


class TrustedWSGI:
    """Stands before a registry."""

    def __init__(self, registry: WSGIApplication, guard: Guard) -> None:
        self._registry = registry
        self._guard = guard

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            upload = self._guard.begin(_head(environ))
            if upload is None:
                return self._registry(environ, start_response)
            return self._hand_on(upload, environ, start_response)
        except Refused as refused:
            headers, body = refused.answer()
            start_response(f"{int(refused.status)} {refused.status.phrase}", headers)
            return [body]

    def _hand_on(self, upload: Upload, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with contextlib.ExitStack() as stack:
            stack.callback(upload.close)
            _receive(upload, environ["wsgi.input"])
            told = {
                "CONTENT_TYPE": upload.content_type,
                "CONTENT_LENGTH": str(upload.content_length),
                "wsgi.input": io.BufferedReader(_Chunks(upload.chunks())),
            }
            judged = JUDGED.set(upload.token)
            try:
                answer = self._registry({**environ, **told}, start_response)
            finally:
                JUDGED.reset(judged)
            return _Answer(answer, stack.pop_all())


class Auther:
    """What pypiserver asks at each upload (`pypiserver.app(auther=...)`), with a user and a password alone.

    From those nobody can tell which project is uploaded. So it takes a good token only while the middleware hands on a
    form that it judged with the very same token: without the middleware, nobody uploads anything.
    """

    def __init__(self, tokens: TrustedTokens) -> None:
        self._tokens = tokens

    def __call__(self, user: str, password: str) -> bool:
        try:
            return user == USER and self._tokens.verify(password) == JUDGED.get()
        except Refused:
            return False


def _head(environ: WSGIEnvironment) -> Head:
    return Head(
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", ""),
        query=environ.get("QUERY_STRING", ""),
        authorization=environ.get("HTTP_AUTHORIZATION"),
        content_type=environ.get("CONTENT_TYPE", ""),
        content_length=environ.get("CONTENT_LENGTH", ""),
        encoded="HTTP_TRANSFER_ENCODING" in environ or "HTTP_CONTENT_ENCODING" in environ,
    )


def _receive(upload: Upload, body: io.BufferedIOBase) -> None:
    left = upload.expected
    while left:
        try:
            piece = body.read(min(left, _PIECE_BYTES))
        except OSError:  # the client is gone; what servers raise then
            piece = b""
        if not piece:
            break
        left -= len(piece)
        upload.write(piece)
    upload.finish()


class _Chunks(io.RawIOBase):
    """What an iterator gives, as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]  # what io.BufferedReader hands over
        rest = self._rest or memoryview(next(self._chunks, b""))
        taken = min(len(rest), len(into))
        into[:taken] = rest[:taken]
        self._rest = rest[taken:]
        return taken


class _Answer:
    """The registry's answer; at its end the upload's space is given back."""

    def __init__(self, answer: Iterable[bytes], held: contextlib.ExitStack) -> None:
        self._answer = answer
        self._held = held

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        with self._held:
            if hasattr(self._answer, "close"):
                self._answer.close()
