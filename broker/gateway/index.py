"""Asks the registry's simple index which projects and which files it has, and with which bytes.

The answer decides whether a file is sent on, and what readers are shown, so anything but a clear one is a refusal
(registry-index), never a "no":

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
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Final, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

import httpx
from pydantic import AliasChoices, BaseModel, Field, ValidationError

from broker import refusals
from broker.gateway.registry import Registry, RegistryError
from broker.patterns import normalise

PAGE_SECONDS: Final = 60.0
"""For a project's page, redirects included. A pypiserver without its cache hashes all of a project's files for it."""

LARGEST_PAGE: Final = 16 << 20
"""Bytes. PyPI's own largest pages are about as large; a private project's are a thousandth."""

MOST_LINKS: Final = 100_000
"""Of a page: each costs memory many times its own bytes."""

LONGEST_URL: Final = 8192
"""Characters of a link's whole URL. A page may name one base for all of them, and each is as long as that at least."""

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
    size_bytes: int | None = None
    """None where the index does not say it (PEP 700)."""
    requires_python: str = ""
    yanked: str | None = None
    """Why the file was yanked (PEP 592), which may be empty; None where it was not."""
    metadata_sha256: str | None = None
    """Of the metadata that is served beside it (PEP 658), which may be unknown; None where there is none."""


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
        page = await self._get(f"{self.url}{project}/", project)
        return () if page is None else await asyncio.to_thread(_read_files, page)

    async def projects(self) -> tuple[str, ...]:
        """The normalised names of all that it lists, in their order. What is no project's name is left out.

        Raises:
            As `files`.
        """
        page = await self._get(self.url, "")
        return () if page is None else await asyncio.to_thread(_read_projects, page)

    async def _get(self, url: str, project: str) -> _Page | None:
        """A page, after redirects within the index; None where it is not there."""
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                for _ in range(MOST_REDIRECTS + 1):
                    page = await self._page(url, project)
                    if not isinstance(page, str):
                        return page
                    url = page
        except TimeoutError as error:
            failed = RegistryError("GET", url, error)
            raise refusals.RegistryUnavailable("the registry's index did not answer in time") from failed
        raise refusals.RegistryIndex(f"the registry's index redirects more than {MOST_REDIRECTS} times")

    async def _page(self, url: str, project: str) -> _Page | str | None:
        """The page; or where it redirects to."""
        async with self.registry.reading(url, _ACCEPT) as response:
            if response.has_redirect_location:
                target = _join(url, response.headers["location"])
                if _origin(target) == _origin(self.url):
                    return target
                if project and urlsplit(target).path.rstrip("/").endswith(f"/{project}"):
                    return None
                raise refusals.RegistryIndex("the registry's index redirects to another host")
            if response.status_code in _NOT_THERE:
                return None
            if response.status_code != httpx.codes.OK:
                raise refusals.RegistryIndex(f"the registry's index answered with status {response.status_code}")
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            raw = bytearray()
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > LARGEST_PAGE:
                    raise refusals.RegistryIndex(f"the registry's index has a page of more than {LARGEST_PAGE} bytes")
        return _Page(url=url, kind=kind, raw=bytes(raw))

    async def sha256(self, listed: Listed) -> str:
        """The digest of a listed file, in lower-case hex.

        Raises:
            As `files`.
        """
        if listed.sha256:
            return listed.sha256
        if not self.is_at_home(listed.url):
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
            failed = RegistryError("GET", listed.url, error)
            raise refusals.RegistryUnavailable("the registry took too long over a file") from failed
        return digest.hexdigest()

    def is_at_home(self, url: str) -> bool:
        """Whether a URL is of the index's own origin, which alone is shown our credential."""
        return _origin(url) == _origin(self.url)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _join(url: str, link: str) -> str:
    """A link's whole URL, such that `urlsplit` takes it."""
    try:
        whole = urlsplit(urljoin(url, link)).geturl()
    except ValueError as error:
        raise refusals.RegistryIndex("the registry's index leads to a URL that is none") from error
    if len(whole) > LONGEST_URL:
        raise refusals.RegistryIndex(f"the registry's index leads to a URL of more than {LONGEST_URL} characters")
    return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """A page of the index as it came."""

    url: str
    kind: str
    """Its media type, in lower case."""
    raw: bytes


def _read_files(page: _Page) -> tuple[Listed, ...]:
    """Blocks for as long as the page is large."""
    return _as_json(page, _Files).listed(page.url) if page.kind == _JSON else tuple(map(_linked, _links(page)))


def _read_projects(page: _Page) -> tuple[str, ...]:
    """Blocks for as long as the page is large."""
    if page.kind == _JSON:
        names = [one.name for one in _as_json(page, _Projects).projects]
    else:
        names = [unquote(urlsplit(one["href"]).path.rstrip("/").rpartition("/")[2]) for one in _links(page)]
    return tuple(dict.fromkeys(filter(None, map(_normalised, names))))


def _normalised(name: str) -> str:
    """Empty for what is no project's name: registries link to more than those."""
    try:
        return normalise(name)
    except ValueError:
        return ""


# --- PEP 691 ---------------------------------------------------------------------------------------------------------


class _File(BaseModel):
    """Of PEP 691, 700, 714 and 592, what matters here."""

    filename: str
    url: str
    hashes: dict[str, str] = {}
    uploaded: datetime | None = Field(default=None, alias="upload-time")
    size: int | None = None
    requires_python: str | None = Field(default=None, alias="requires-python")
    yanked: bool | str = False
    metadata: bool | dict[str, str] = Field(
        default=False, validation_alias=AliasChoices("core-metadata", "dist-info-metadata")
    )


class _Files(BaseModel):
    files: list[_File] = Field(max_length=MOST_LINKS)

    def listed(self, url: str) -> tuple[Listed, ...]:
        """Those of the page at this URL."""
        return tuple(
            Listed(
                filename=one.filename,
                url=_join(url, one.url),
                sha256=_digest(one.hashes.get("sha256", "")),
                uploaded_at=None if one.uploaded is None else _seconds(one.uploaded),
                size_bytes=one.size,
                requires_python=one.requires_python or "",
                yanked=("" if one.yanked else None) if isinstance(one.yanked, bool) else one.yanked,
                metadata_sha256=_metadata(one.metadata),
            )
            for one in self.files
        )


class _Project(BaseModel):
    name: str


class _Projects(BaseModel):
    projects: list[_Project]


_Shape = TypeVar("_Shape", bound=BaseModel)


def _as_json(page: _Page, shape: type[_Shape]) -> _Shape:
    try:
        return shape.model_validate_json(page.raw)
    except ValidationError as error:
        raise refusals.RegistryIndex("the registry's index answered with JSON that is not PEP 691's") from error


def _seconds(uploaded: datetime) -> float:
    """Of a time that can be told again: near either end of the calendar, another zone's is not."""
    try:
        seconds = uploaded.timestamp()
        datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError) as error:
        raise refusals.RegistryIndex("the registry's index tells a time that is none") from error
    return seconds


def _metadata(told: bool | dict[str, str]) -> str | None:
    if isinstance(told, bool):
        return "" if told else None
    return _digest(told.get("sha256", ""))


# --- PEP 503 ---------------------------------------------------------------------------------------------------------


class _Links(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.base, self.found = url, list[dict[str, str]]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if told.get("href") and tag == "base":
            self.base = _join(self.base, told["href"])
        elif told.get("href") and tag == "a":
            if len(self.found) == MOST_LINKS:
                raise refusals.RegistryIndex(f"the registry's index has a page of more than {MOST_LINKS} links")
            self.found.append({**told, "href": _join(self.base, told["href"])})


def _links(page: _Page) -> list[dict[str, str]]:
    """The attributes of each link, `href` whole."""
    if page.kind not in _PAGES:
        raise refusals.RegistryIndex(f"the registry's index answered with {page.kind[:80]!r}, which is no index")
    links = _Links(page.url)
    try:
        links.feed(page.raw.decode())
    except ValueError as error:
        raise refusals.RegistryIndex("the registry's index answered with a page that is not UTF-8") from error
    except AssertionError as error:  # how the parser gives up on some declarations
        raise refusals.RegistryIndex("the registry's index answered with a page that is no HTML") from error
    return links.found


def _linked(link: Mapping[str, str]) -> Listed:
    """A link as installers take it: the filename is the path's end, the digest the fragment."""
    parts = urlsplit(link["href"])
    told = link.get("data-core-metadata", link.get("data-dist-info-metadata"))
    return Listed(
        filename=unquote(parts.path.rpartition("/")[2]),
        url=parts._replace(fragment="").geturl(),
        sha256=_digest(parts.fragment.removeprefix("sha256=")) if parts.fragment.startswith("sha256=") else "",
        requires_python=link.get("data-requires-python", ""),
        yanked=link.get("data-yanked"),
        metadata_sha256=None if told in {None, "false"} else _digest(str(told).removeprefix("sha256=")),
    )


def _digest(text: str) -> str:
    """In lower case; empty where it is none."""
    return text.lower() if _SHA256.fullmatch(text) else ""
