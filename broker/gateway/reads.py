"""The story of a read: the registry's simple index and its files, as far as whoever asks may see them.

Laws:

- what a token does not cover and what is not there are one answer (not-in-index, 404): installers go on to their next
  index then, and whoever guesses names learns nothing;
- both gates are asked again for each request, as at an upload: whoever was removed reads nothing more;
- a name that an organization holds is answered from this registry alone, whatever stands elsewhere under it. Only names
  that nobody holds are sent on to the public index, where the operator has named one;
- a file is found by its project's page: a request names a project and a filename, never a URL, and our credential goes
  to the index's own origin alone;
- files are streamed. Who reads slowly is given up (`Pace`), as who uploads slowly is.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

import httpx

from broker import refusals
from broker.audit import Attempt
from broker.exchange import Exchange
from broker.gateway import shown_token
from broker.gateway.index import Listed, SimpleIndex
from broker.gateway.pace import Pace
from broker.patterns import Projects, normalise

Access = Literal["public", "scoped"]

MOST_REMEMBERED: Final = 20_000
"""Files of which it is remembered where they are, so that an install need not ask for a page twice."""

METADATA: Final = ".metadata"
"""The suffix of the metadata beside a file (PEP 658)."""

_RANGE: Final = re.compile(r"bytes=(?:[0-9]{1,15}-[0-9]{0,15}|-[0-9]{1,15})")
_RELAYED: Final = ("content-length", "content-range", "accept-ranges", "etag", "last-modified")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One request for something of the index."""

    authorization: str | None = field(repr=False)
    attempt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """The public index is to be asked."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file as the registry begins to give it."""

    status: int
    """200, or 206 and 416 where a range was asked for."""
    headers: dict[str, str]
    body: AsyncIterator[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """Serves the reads of one registry."""

    exchange: Exchange
    index: SimpleIndex
    access: Access
    pace: Pace
    """Asked of whoever reads a file; held by those who send it."""
    fallback: str | None = None
    """The simple index that serves names which nobody holds here and the registry does not have; with a last slash."""
    _found: OrderedDict[tuple[str, str], Listed] = field(default_factory=OrderedDict, repr=False)

    async def projects(self, read: Read) -> tuple[str, ...]:
        """The names of the projects that may be seen.

        Raises:
            Those of `_scope`, and of the registry.
        """
        scope = await self._scope(read)
        return tuple(name for name in await self.index.projects() if _covers(scope, name))

    async def files(self, read: Read, name: str) -> tuple[str, tuple[Listed, ...]] | Elsewhere:
        """The normalised name and the files of a project; or where else to look.

        Raises:
            NotInIndex: it is not there, or not to be seen.
            And those of `_scope`, and of the registry.
        """
        scope, project = await self._scope(read), _project(name)
        covered, public = _covers(scope, project), self._is_public(project)
        # Also where it is not covered: of what this registry has, another index's namesake is never offered.
        files = await self._list(project) if covered or public else ()
        if files and covered:
            return project, files
        if public and not files:
            return Elsewhere(url=f"{self.fallback}{project}/")
        raise refusals.NotInIndex(f"there is no project {project!r} here that you may see")

    @asynccontextmanager
    async def file(self, read: Read, name: str, filename: str, bytes_range: str = "") -> AsyncIterator[Download]:
        """A file of a project, or the metadata beside it, recorded before its first byte.

        Args:
            bytes_range: The header `Range`; what is no single range of bytes is as if it was not there.

        Raises:
            NotInIndex, and those of `_scope`, and of the registry.
        """
        attempt = self.exchange.attempt("download", read.attempt)
        scope, project = await self._scope(read, attempt), _project(name)
        attempt.passed("gates")
        url = await self._locate(project, filename) if _covers(scope, project) else None
        if url is None:
            raise refusals.NotInIndex(f"there is no file {filename[:200]!r} here that you may see")
        attempt.project, attempt.filename = project, filename
        more = {"Range": bytes_range} if _RANGE.fullmatch(bytes_range) else {}
        async with self.index.registry.reading(url, "*/*", **more) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                self._found.pop((project, filename.removesuffix(METADATA)), None)
                raise refusals.NotInIndex(f"there is no file {filename[:200]!r} here that you may see")
            if response.status_code not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT, 416}:
                raise refusals.RegistryIndex(f"the registry answers a file with status {response.status_code}")
            attempt.passed("registry")
            if self.access == "scoped":
                await self.exchange.record(attempt)
            headers = {name: response.headers[name] for name in _RELAYED if name in response.headers}
            yield Download(status=response.status_code, headers=headers, body=response.aiter_raw())

    async def _scope(self, read: Read, attempt: Attempt | None = None) -> frozenset[Projects] | None:
        """What may be seen; None for all.

        Raises:
            NoCredentials, InvalidUploadToken, ExpiredUploadToken, WrongScope; and those of `Exchange.covers_now`, with
            a record of who was refused.
        """
        if self.access == "public":
            return None
        attempt = attempt or self.exchange.attempt("download", read.attempt)
        token = self.exchange.minter.read(shown_token(read.authorization), attempt.started_at)
        try:
            scope = await self.exchange.covers_now(token, attempt)
            token.require("read")
        except refusals.StateUnavailable:
            raise
        except refusals.Refusal as refusal:
            attempt.refusal = refusal
            await self.exchange.record(attempt)
            raise
        return scope

    async def _list(self, project: str) -> tuple[Listed, ...]:
        """The files of a project that can be served."""
        files = tuple(one for one in await self.index.files(project) if self._is_servable(one))
        for one in files:
            self._found[project, one.filename] = one
            self._found.move_to_end((project, one.filename))
        while len(self._found) > MOST_REMEMBERED:
            self._found.popitem(last=False)
        return files

    def _is_public(self, project: str) -> bool:
        """Whether the public index may have it."""
        return self.fallback is not None and self.exchange.policies().holder(project) is None

    def _is_servable(self, one: Listed) -> bool:
        return self.index.is_at_home(one.url) and bool(re.fullmatch(r"(?!\.)[ -.0-~]{1,255}", one.filename))

    async def _locate(self, project: str, filename: str) -> str | None:
        """Where the registry has a file, or the metadata beside it."""
        for again in (False, True):
            if again:
                await self._list(project)
            if (found := self._found.get((project, filename))) is not None:
                return found.url
            described = self._found.get((project, filename.removesuffix(METADATA)))
            if filename.endswith(METADATA) and described is not None and described.metadata_sha256 is not None:
                parts = urlsplit(described.url)
                return parts._replace(path=parts.path + METADATA).geturl()
        return None


def _project(name: str) -> str:
    try:
        return normalise(name)
    except ValueError as error:
        raise refusals.NotInIndex(f"{name[:100]!r} is no project's name") from error


def _covers(scope: frozenset[Projects] | None, project: str) -> bool:
    return scope is None or any(pattern.covers(project) for pattern in scope)
