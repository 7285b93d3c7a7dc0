"""Sends an upload on to the registry: written anew from its parsed parts, with the credential only the broker has.

Laws:

- nothing of the client's request passes but the parsed fields and the spooled file: fresh boundary, exact length; and,
  where the operator wants it, the client's name (User-Agent);
- no redirect is followed and no proxy taken from the environment: either would hand credential and file to another;
- the registry's answer is text of a bounded size, whatever it says it is; and it never contains the credential;
- the head of an answer comes within the registry's time, counted from the end of what it was sent: httpx counts anew
  for each byte, and a registry that drips would hold an upload's place for ever;
- a 401 or 403 is about *our* credential (registry-credential); no answer, or none that HTTP knows, is
  registry-unavailable. Both are 502, never the client's fault.
"""

from __future__ import annotations

import asyncio
import html
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import httpx

from broker import refusals
from broker.gateway.credential import Credential, Shown
from broker.gateway.form import Form
from broker.gateway.package import Package
from broker.outgoing import failure, shown

LONGEST_ANSWER: Final = 16 * 1024
"""Bytes of a registry's answer that are relayed. What follows is not read; the connection is closed."""

ANSWER_SECONDS: Final = 30.0
"""For the answer's body, once its status is known."""

_BEYOND: Final = 8 * 1024
"""Bytes that are read after those, and searched for our credential only: one that stands across the cut, where whoever
knows how long the answer gets can put it, would be shown but for its end."""

SECOND_OPINION_SECONDS: Final = 5.0

_CHUNK = 1 << 18
"""Bytes that are read and sent in one go: a thread's hand-over hardly shows, and few are in memory for each upload."""

_UNAUTHORISED = frozenset({401, 403})

_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})
"""How names are quoted in a form. Source: HTML Living Standard, "Multipart form data". The grammar of `parts.py` lets
none of the three in; this makes it no matter."""


_USER_AGENT = re.compile(r"[!-~](?:[ -~]{0,198}[!-~])?")

_TAGS = re.compile(r"<(?:script|style|title)\b[^<]*|<[^<>]*>?", re.IGNORECASE)


_NOTHING = httpx.ByteStream(b"")


class RegistryError(Exception):
    """What the registry did, and at which URL: a refusal's cause, for the operator's log and for no caller.

    Args:
        error: Why it gave no answer; None where `status` says what it answered.
    """

    def __init__(self, method: str, url: str | httpx.URL, error: Exception | None = None, *, status: int = 0) -> None:
        super().__init__(f"{method} {shown(str(url))}: {f'answered {status}' if error is None else failure(error)}")
        self.__cause__ = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the registry said: 2xx, 4xx but 401 and 403, or 5xx, and plain text."""

    status: int
    text: str

    @property
    def is_success(self) -> bool:
        """Whether the registry says that it has the file."""
        return httpx.codes.is_success(self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The registry behind the broker."""

    url: str
    """Its upload URL."""
    credential: Credential
    client: httpx.AsyncClient = field(repr=False)
    """Its timeouts bound how long the registry may be silent; it must not read the environment."""
    timeout_seconds: float | None = None
    """Where this registry may be silent for another time than the client says."""
    drop: frozenset[str] = frozenset()
    """Fields of the form that the registry does not understand, and is not sent."""
    pass_user_agent: bool = False
    """Send the client's User-Agent on, and not ours."""

    def __post_init__(self) -> None:
        """Raises ValueError where the client would take a proxy or a credential from the environment."""
        if self.client.trust_env:
            raise ValueError("the registry's client must not trust the environment")

    async def send(self, form: Form, package: Package, user_agent: str = "") -> Answer:
        """Sends the file and the fields, and gives the registry's answer.

        The User-Agent is ours unless the operator wants the client's. Ours says nothing of twine: to it, pypiserver
        answers 400 instead of 409 for a file that exists, and a 400 could be anything.

        Raises:
            RegistryCredential: the registry refused our credential.
            RegistryUnavailable: it did not answer, or redirected. It may have stored the file.
        """
        shown, deadline = self.credential.show(), asyncio.timeout(None)
        request = self._request(form, package, user_agent, shown, deadline)
        try:
            async with deadline:
                response = await self.client.send(request, stream=True, follow_redirects=False)
        except httpx.ConnectError as error:
            raise refusals.RegistryUnavailable("the registry cannot be reached") from self._post_failed(error)
        except (httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ReadTimeout, TimeoutError) as error:
            raise refusals.RegistryUnavailable("the registry did not answer in time") from self._post_failed(error)
        except httpx.RequestError as error:
            failed = self._post_failed(error)
            if await self._refuses_us():
                raise refusals.RegistryCredential from failed
            raise refusals.RegistryUnavailable("the registry broke the connection off, or took no more") from failed
        async with _closing(response):
            return await self._read(response, shown)

    def _post_failed(self, error: Exception) -> RegistryError:
        return RegistryError("POST", self.url, error)

    def _request(
        self, form: Form, package: Package, user_agent: str, shown: Shown, deadline: asyncio.Timeout
    ) -> httpx.Request:
        """The upload. When its last byte is sent, the deadline for the answer's head begins."""
        boundary = secrets.token_hex(24)  # made after the file was read, so that it cannot stand in it but by 2 ** -192
        opening, closing = _encode(form, package, boundary, self.drop)

        async def body() -> AsyncIterator[bytes]:
            async for piece in _body(opening, form, closing):
                yield piece
            deadline.reschedule(_in(self._silence_seconds()))

        name = {"User-Agent": user_agent} if self.pass_user_agent and _USER_AGENT.fullmatch(user_agent) else {}
        return self.client.build_request(
            "POST",
            self.url,
            content=body(),
            timeout=self._timeout(),
            headers={
                **name,
                "Authorization": shown.header,
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(opening) + package.size_bytes + len(closing)),
                "Accept": "text/plain, */*;q=0.5",
                "Accept-Encoding": "identity",
                # An upload is rare and large. An idle connection that the registry is just closing would fail it.
                "Connection": "close",
            },
        )

    @asynccontextmanager
    async def reading(self, url: str, accept: str, **more: str) -> AsyncIterator[httpx.Response]:
        """Asks with our credential for something at the registry: only of an origin that is to have it.

        Args:
            more: Other headers.

        Raises:
            RegistryCredential: the registry refused our credential.
            RegistryUnavailable: it did not answer; also while its answer is read.
            RegistryIndex: the URL is none, or the answer is compressed, which was not asked for.
        """
        headers = {
            "Authorization": self.credential.show().header,
            "Accept": accept,
            "Accept-Encoding": "identity",
            "Cache-Control": "no-cache",
            **more,
        }
        try:
            request = self.client.build_request("GET", url, headers=headers, timeout=self._timeout())
            response = await self._head(request)
            async with _closing(response):
                if response.status_code in _UNAUTHORISED:
                    raise refusals.RegistryCredential from RegistryError("GET", url, status=response.status_code)
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise refusals.RegistryIndex("the registry's index answers compressed, which was not asked for")
                yield response
        except httpx.InvalidURL as error:
            raise refusals.RegistryIndex("the registry's index leads to a URL that is none") from error
        except httpx.RequestError as error:
            what = "the registry cannot be reached, or broke its answer off"
            raise refusals.RegistryUnavailable(what) from RegistryError("GET", url, error)

    async def _head(self, request: httpx.Request) -> httpx.Response:
        try:
            async with asyncio.timeout(self._silence_seconds()):
                return await self.client.send(request, stream=True, follow_redirects=False)
        except TimeoutError as error:
            failed = RegistryError("GET", request.url, error)
            raise refusals.RegistryUnavailable("the registry did not answer in time") from failed

    async def _refuses_us(self) -> bool:
        """Whether the registry, having broken an upload off, did so for our credential.

        One that judges the credential first may answer and close before the file is through; the system then drops the
        answer with the connection. So it is asked again, with nothing to upload, and its answer cannot be lost.
        """
        headers = {"Authorization": self.credential.show().header}
        try:
            async with (
                asyncio.timeout(SECOND_OPINION_SECONDS),
                self.client.stream("POST", self.url, headers=headers, follow_redirects=False) as response,
            ):
                return response.status_code in _UNAUTHORISED
        except (httpx.RequestError, TimeoutError):
            return False

    def _timeout(self) -> httpx.Timeout:
        usual = self.client.timeout
        if self.timeout_seconds is None:
            return usual
        return httpx.Timeout(self.timeout_seconds, connect=usual.connect, pool=usual.pool)

    def _silence_seconds(self) -> float | None:
        return self._timeout().read

    async def _read(self, response: httpx.Response, shown: Shown) -> Answer:
        status = response.status_code
        if status in _UNAUTHORISED:
            raise refusals.RegistryCredential from RegistryError("POST", self.url, status=status)
        if not (response.is_success or response.is_error):
            raise refusals.RegistryUnavailable(
                f"the registry answered with status {status}, which is no answer to an upload"
            ) from RegistryError("POST", self.url, status=status)
        raw = bytearray()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                async for chunk in response.aiter_raw():
                    raw += chunk
                    if len(raw) > LONGEST_ANSWER + _BEYOND:
                        break
        except (httpx.RequestError, TimeoutError):
            pass  # The status is the decision, and stands; only the words to it are cut short.
        return Answer(status=status, text=self._readable(response, bytes(raw[: LONGEST_ANSWER + _BEYOND]), shown))

    def _readable(self, response: httpx.Response, raw: bytes, shown: Shown) -> str:
        """Text that can be shown in a CI log."""
        if response.headers.get("content-encoding", "identity") != "identity":
            return ""
        is_page = response.headers.get("content-type", "").startswith("text/html")
        read, text = (part.decode("utf-8", "replace") for part in (raw, raw[:LONGEST_ANSWER]))
        if shown.stands_in(read) or (is_page and shown.stands_in(_text_of(read))):
            return ""  # a registry's debug page that shows the request back
        text = _text_of(text) if is_page else text
        # Where it stands inside is nothing for a CI log. Some name it: pypiserver links to itself.
        text = text.replace(self.url, "").replace(urlsplit(self.url).netloc, "the registry")
        return "".join(letter for letter in text if letter.isprintable() or letter == "\n").strip()


@asynccontextmanager
async def _closing(response: httpx.Response) -> AsyncIterator[None]:
    """Closes an answer in the end, and parts it from its stream.

    In httpx each has the other, and they have the request and the connection: all of it would wait for the garbage
    collector.
    """
    try:
        yield
    finally:
        await response.aclose()
        response.stream = _NOTHING


def _in(seconds: float | None) -> float | None:
    """The moment of the event loop's clock that is so far from now; None for never."""
    return None if seconds is None else asyncio.get_running_loop().time() + seconds


def _encode(form: Form, package: Package, boundary: str, drop: frozenset[str]) -> tuple[bytes, bytes]:
    """What stands before the file, and what after."""
    opening = bytearray()
    for name, value in form.fields:
        if name in drop:
            continue
        opening += f'--{boundary}\r\nContent-Disposition: form-data; name="{name.translate(_ESCAPES)}"\r\n\r\n'.encode()
        opening += value + b"\r\n"
    filename = package.filename.translate(_ESCAPES)
    opening += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    return bytes(opening), f"\r\n--{boundary}--\r\n".encode()


async def _body(opening: bytes, form: Form, closing: bytes) -> AsyncIterator[bytes]:
    yield opening
    for offset in range(0, form.file.size, _CHUNK):
        yield await asyncio.to_thread(form.file.read_at, offset, _CHUNK)
    yield closing


def _text_of(page: str) -> str:
    """'<h1>Error</h1> <p>exists' -> 'Error exists'."""
    return " ".join(html.unescape(_TAGS.sub(" ", page)).split())
