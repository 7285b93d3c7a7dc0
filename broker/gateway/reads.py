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

import contextlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Literal
from urllib.parse import urlsplit

import httpx

from broker import refusals
from broker.addresses import NOWHERE, Source
from broker.audit import Attempt
from broker.exchange import Exchange
from broker.gateway import shown_token
from broker.gateway.filenames import METADATA
from broker.gateway.index import Listed, SimpleIndex
from broker.gateway.pace import Pace
from broker.gateway.paths import Asked
from broker.gateway.places import Places
from broker.patterns import Projects, normalise
from broker.policy import matching

Access = Literal["public", "scoped"]

MOST_REMEMBERED: Final = 20_000
"""Files of which it is remembered where they are, so that an install need not ask for a page twice."""

_RANGE: Final = re.compile(r"bytes=(?:[0-9]{1,15}-[0-9]{0,15}|-[0-9]{1,15})")
_NO_SUCH_RANGE: Final = 416
_ANSWERS_TO_RANGE: Final = frozenset({200, 206, _NO_SUCH_RANGE})
_ENDS: Final = frozenset({"content-length", "transfer-encoding"})
_RELAYED: Final = ("content-length", "content-range", "accept-ranges", "etag", "last-modified")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One request for something of the index."""

    authorization: str | None = field(repr=False)
    attempt: str
    source: Source = NOWHERE


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
    places: Places
    """For the files that readers of one registry have under way; shared as uploads' places are."""
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
            PoliciesStale: nobody knows whether the public index may have it.
            And those of `_scope`, and of the registry.
        """
        scope, project = await self._scope(read), _project(name)
        covered, public = _covers(scope, project), self._is_public(project)
        # Also where it is not covered: of what this registry has, another index's namesake is never offered.
        listed = await self.index.files(project) if covered or public else ()
        if covered and (files := self._servable(project, listed)):
            return project, files
        # What the registry has and the broker cannot serve, the registry has: it is no other index's.
        if public and not listed:
            # Who holds which names by policies that may have been overtaken long ago, nobody is sent elsewhere by.
            matching.require_current(self.exchange.policies(), self.exchange.clock())
            return Elsewhere(url=f"{self.fallback}{project}/")
        raise refusals.NotInIndex(f"there is no project {project!r} here that you may see")

    @asynccontextmanager
    async def file(self, read: Read, name: str, filename: str, bytes_range: str = "") -> AsyncIterator[Download]:
        """A file of a project, or the metadata beside it, recorded before its first byte.

        Args:
            bytes_range: The header `Range`; what is no single range of bytes is as if it was not there.

        Raises:
            ReadsBusy: this reader's publisher has as many under way as it may.
            NotInIndex, and those of `_scope`, and of the registry.
        """
        attempt = self.exchange.attempt("download", read.attempt, read.source)
        scope, project = await self._scope(read, attempt), _project(name)
        attempt.passed("gates")
        url = await self._locate(project, filename) if _covers(scope, project) else None
        if url is None:
            raise refusals.NotInIndex(f"there is no file {filename[:200]!r} here that you may see")
        attempt.project, attempt.filename = project, filename
        more = {"Range": bytes_range} if _RANGE.fullmatch(bytes_range) else {}
        async with self._place(attempt), self.index.registry.reading(url, "*/*", **more) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                self._found.pop((project, filename.removesuffix(METADATA)), None)
                raise refusals.NotInIndex(f"there is no file {filename[:200]!r} here that you may see")
            if response.status_code not in (_ANSWERS_TO_RANGE if more else {httpx.codes.OK}):
                raise refusals.RegistryIndex(f"the registry answers a file with status {response.status_code}")
            if not _ENDS.intersection(response.headers):
                # Where it ends with the connection, one that is broken off looks whole.
                raise refusals.RegistryIndex("the registry does not say where a file ends")
            attempt.passed("registry")
            if self.access == "scoped":
                await self.exchange.record(attempt)
            told = {name: response.headers[name] for name in _RELAYED if name in response.headers}
            headers = {name: value for name, value in told.items() if value.isascii() and value.isprintable()}
            if "transfer-encoding" in response.headers:  # which overrides the length (RFC 9112 section 6.3)
                headers.pop("content-length", None)
            if response.status_code == _NO_SUCH_RANGE:
                # Its body is words of the registry's, which may show the request back, and our credential with it.
                headers["content-length"] = "0"
                yield Download(status=_NO_SUCH_RANGE, headers=headers, body=_nothing())
                return
            yield Download(status=response.status_code, headers=headers, body=response.aiter_raw())

    async def permit(self, read: Read, asked: Asked) -> None:
        """Lets a read pass that a proxy sends on to the registry itself; of a file, it is recorded as `file` does.

        Raises:
            NotInIndex, and those of `_scope`.
        """
        attempt = self.exchange.attempt("download", read.attempt, read.source)
        if not _covers(await self._scope(read, attempt), asked.project):
            raise refusals.NotInIndex(f"there is no project {asked.project!r} here that you may see")
        if asked.filename:
            attempt.project, attempt.filename = asked.project, asked.filename
            await self.exchange.record(attempt)

    @asynccontextmanager
    async def _place(self, attempt: Attempt) -> AsyncIterator[None]:
        """Public readers are nobody that could be told apart: a proxy in front bounds them."""
        if self.access == "public":
            yield
            return
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self.places.taken(attempt.publishers[0], 0))
            except refusals.UploadsBusy as error:
                raise refusals.ReadsBusy(retry_after_seconds=error.retry_after_seconds) from error
            yield

    async def _scope(self, read: Read, attempt: Attempt | None = None) -> frozenset[Projects] | None:
        """What may be seen; None for all.

        Raises:
            NoCredentials, InvalidUploadToken, ExpiredUploadToken, WrongScope; and those of `Exchange.covers_now`, with
            a record of who was refused.
        """
        if self.access == "public":
            return None
        attempt = attempt or self.exchange.attempt("download", read.attempt, read.source)
        token = self.exchange.minter.read(shown_token(read.authorization), attempt.started_at)
        try:
            scope = await self.exchange.covers_now(token, attempt)
            token.require("read")
        except refusals.Refusal as refusal:
            attempt.refusal = refusal
            await self.exchange.record(attempt)
            raise
        return scope

    def _servable(self, project: str, listed: tuple[Listed, ...]) -> tuple[Listed, ...]:
        """Those of a project's files that can be served; it is remembered where they are."""
        files = tuple(one for one in listed if self._is_servable(one))
        for one in files:
            # Without its texts: a registry may make each as long as a page.
            self._found[project, one.filename] = replace(one, requires_python="", yanked=None)
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
        remembered = _where(filename, lambda name: self._found.get((project, name)))
        if remembered is not None:
            return remembered
        files = self._servable(project, await self.index.files(project))
        return _where(filename, {one.filename: one for one in files}.get)


def _where(filename: str, find: Callable[[str], Listed | None]) -> str | None:
    """Where a file is, or the metadata beside one, that is found by its name."""
    if (found := find(filename)) is not None:
        return found.url
    described = find(filename.removesuffix(METADATA)) if filename.endswith(METADATA) else None
    if described is None or described.metadata_sha256 is None:
        return None
    parts = urlsplit(described.url)
    return parts._replace(path=parts.path + METADATA).geturl()


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


def _project(name: str) -> str:
    try:
        return normalise(name)
    except ValueError as error:
        raise refusals.NotInIndex(f"{name[:100]!r} is no project's name") from error


def _covers(scope: frozenset[Projects] | None, project: str) -> bool:
    return scope is None or any(pattern.covers(project) for pattern in scope)
