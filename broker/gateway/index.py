"""Asks the registry's simple index which files of a project it has, and with which bytes.

The answer decides whether a file is sent on, so anything but a clear one is a refusal (registry-index), never a "no":

- PEP 691 JSON is asked for first, PEP 503 HTML will do; the project's page is read within bounds on bytes and time;
- our credential goes to the index's own origin and nowhere else. A redirect within it is followed, at most three times.
  One that leads to the same project elsewhere is how registries say that they do not have it, and send installers on
  to PyPI instead; any other is no answer;
- a file's sha256 is what the page says. Where it says none, the file is fetched from the index's origin and hashed,
  and nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from html.parser import HTMLParser
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

import httpx
from pydantic import BaseModel, Field, ValidationError

from broker import refusals
from broker.gateway.registry import Registry

PAGE_SECONDS: Final = 60.0
"""For a project's page, redirects included. A pypiserver without its cache hashes all of a project's files for it."""

LARGEST_PAGE: Final = 16 << 20
"""Bytes. PyPI's own largest pages are about as large; a private project's are a thousandth."""

MOST_REDIRECTS: Final = 3

FILE_SECONDS: Final = 300.0
"""For a file whose digest no page says."""

_JSON: Final = "application/vnd.pypi.simple.v1+json"
_ACCEPT: Final = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_PAGES: Final = frozenset({"application/vnd.pypi.simple.v1+html", "text/html"})
_NOT_THERE: Final = frozenset({404, 410})
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A file that the index lists."""

    filename: str
    url: str
    """Absolute."""
    sha256: str = ""
    """Lower-case hex; empty where the index does not say it."""
    uploaded_at: float | None = None
    """Epoch seconds; None where the index does not say it (PEP 700)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleIndex:
    """The simple index of the registry behind the broker."""

    url: str
    """Its root, with a slash at the end: '/simple/'."""
    registry: Registry
    largest_file_bytes: int
    """Of a file that must be fetched to know its digest."""

    async def files(self, project: str) -> tuple[Listed, ...]:
        """What the index lists under a normalised project name; nothing where it does not know the project.

        Raises:
            RegistryIndex: it gave no clear answer.
            RegistryUnavailable, RegistryCredential: it gave none, or does not take our credential.
        """
        url = f"{self.url}{project}/"
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                for _ in range(MOST_REDIRECTS + 1):
                    page = await self._page(url, project)
                    if not isinstance(page, str):
                        return page
                    url = page
        except TimeoutError as error:
            raise refusals.RegistryUnavailable("the registry's index did not answer in time") from error
        raise refusals.RegistryIndex(f"the registry's index redirects more than {MOST_REDIRECTS} times")

    async def _page(self, url: str, project: str) -> tuple[Listed, ...] | str:
        """The files of the page; or where it redirects to."""
        async with self.registry.reading(url, _ACCEPT) as response:
            if response.has_redirect_location:
                target = _join(url, response.headers["location"])
                if _origin(target) == _origin(self.url):
                    return target
                if urlsplit(target).path.rstrip("/").endswith(f"/{project}"):
                    return ()
                raise refusals.RegistryIndex("the registry's index redirects to another host")
            if response.status_code in _NOT_THERE:
                return ()
            if response.status_code != httpx.codes.OK:
                raise refusals.RegistryIndex(f"the registry's index answered with status {response.status_code}")
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            raw = bytearray()
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > LARGEST_PAGE:
                    raise refusals.RegistryIndex(f"the registry's index has a page of more than {LARGEST_PAGE} bytes")
        return await asyncio.to_thread(_read_page, bytes(raw), kind, url)

    async def sha256(self, listed: Listed) -> str:
        """The digest of a listed file, in lower-case hex.

        Raises:
            As `files`.
        """
        if listed.sha256:
            return listed.sha256
        if _origin(listed.url) != _origin(self.url):
            raise refusals.RegistryIndex("the registry's index says no sha256, and its files are at another host")
        digest, size = hashlib.sha256(), 0
        try:
            async with asyncio.timeout(FILE_SECONDS), self.registry.reading(listed.url, "*/*") as response:
                if response.status_code != httpx.codes.OK:
                    what = f"says no sha256, and its file answers with status {response.status_code}"
                    raise refusals.RegistryIndex(f"the registry's index {what}")
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                    if size > self.largest_file_bytes:
                        raise refusals.RegistryIndex("the registry's index says no sha256 of a file that is too large")
                    digest.update(chunk)
        except TimeoutError as error:
            raise refusals.RegistryUnavailable("the registry took too long over a file") from error
        return digest.hexdigest()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _join(url: str, link: str) -> str:
    """A link's whole URL, such that `urlsplit` takes it."""
    try:
        return urlsplit(urljoin(url, link)).geturl()
    except ValueError as error:
        raise refusals.RegistryIndex("the registry's index leads to a URL that is none") from error


def _read_page(raw: bytes, kind: str, url: str) -> tuple[Listed, ...]:
    """Blocks for as long as the page is large."""
    if kind == _JSON:
        return tuple(_read_json(raw, url))
    if kind in _PAGES:
        return tuple(_read_html(raw, url))
    raise refusals.RegistryIndex(f"the registry's index answered with {kind[:80]!r}, which is no index")


class _File(BaseModel):
    """Of PEP 691, what matters here."""

    filename: str
    url: str
    hashes: dict[str, str] = {}
    uploaded: datetime | None = Field(default=None, alias="upload-time")


class _Page(BaseModel):
    files: list[_File]


def _read_json(raw: bytes, url: str) -> list[Listed]:
    try:
        page = _Page.model_validate_json(raw)
        return [
            Listed(
                filename=one.filename,
                url=_join(url, one.url),
                sha256=_digest(one.hashes.get("sha256", "")),
                uploaded_at=None if one.uploaded is None else one.uploaded.timestamp(),
            )
            for one in page.files
        ]
    except ValidationError as error:
        raise refusals.RegistryIndex("the registry's index answered with JSON that is not PEP 691's") from error


class _Links(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.base, self.found = url, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "base":
            self.base = _join(self.base, href)
        elif href and tag == "a":
            self.found.append(_join(self.base, href))


def _read_html(raw: bytes, url: str) -> list[Listed]:
    links = _Links(url)
    try:
        links.feed(raw.decode())
        return [_linked(link) for link in links.found]
    except ValueError as error:
        raise refusals.RegistryIndex("the registry's index answered with a page that is not UTF-8") from error


def _linked(link: str) -> Listed:
    """A link as installers take it: the filename is the path's end, the digest the fragment."""
    parts = urlsplit(link)
    return Listed(
        filename=unquote(parts.path.rpartition("/")[2]),
        url=parts._replace(fragment="").geturl(),
        sha256=_digest(parts.fragment.removeprefix("sha256=")) if parts.fragment.startswith("sha256=") else "",
    )


def _digest(text: str) -> str:
    """In lower case; empty where it is none."""
    return text.lower() if _SHA256.fullmatch(text) else ""
