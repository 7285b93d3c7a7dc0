"""The story of an upload: spooled, checked, then sent on with the registry's own credential. Never streamed through.

The order is the contract (design §7). Who may upload is decided before the body is read, with the same two gates as at
the mint, and asked once more before the file is sent on: whoever left meanwhile uploads nothing. Nothing reaches the
registry, and no space stays taken, when a client vanishes at any byte.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from packaging.version import Version

from broker import refusals
from broker.addresses import NOWHERE, Source
from broker.audit import Attempt
from broker.exchange import Exchange, note_token
from broker.gateway.form import Limits, read_form
from broker.gateway.once import Once
from broker.gateway.pace import Pace
from broker.gateway.package import Package, check
from broker.gateway.places import Places, begun
from broker.gateway.registry import Answer
from broker.minting import Narrowing, UploadToken
from broker.patterns import Projects, normalise
from broker.state import LONGEST_UPLOAD_SECONDS

USER: Final = "__token__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One request to the upload route."""

    authorization: str | None = field(repr=False)
    content_type: str
    content_length: int | None
    """None where the client did not say, or said nonsense."""
    encoded: bool
    """The body is compressed, or chunked."""
    body: AsyncIterator[bytes] = field(repr=False)
    """Raises TruncatedUpload when the client goes away, SlowUpload when it is too slow."""
    user_agent: str = ""
    source: Source = NOWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Guards one registry."""

    exchange: Exchange
    """Knows what an upload token is good for."""
    once: Once
    spool: Path
    upload_limit_bytes: int
    places: Places
    """Shared by all gateways of the process."""
    pace: Pace
    """Asked of whoever sends a body; held by those who hand it over."""

    async def publish(self, upload: Upload, attempt_id: str) -> Answer:
        """Decides one upload, sends it on, and records it.

        Raises:
            Refusal: with its record written; or StateUnavailable, when it could not be.
        """
        attempt = self.exchange.attempt("upload", attempt_id, upload.source)
        try:
            answer = await self._decide(upload, attempt)
        except refusals.Refusal as refusal:
            attempt.refusal = refusal
            await self.exchange.record(attempt)
            raise
        except asyncio.CancelledError:
            # The process ends. What is recorded of it may have come to the registry all the same.
            attempt.refusal = refusals.BrokerEnding()
            await self.exchange.record(attempt)
            raise
        try:
            await self.exchange.record(attempt)
        except refusals.StateUnavailable:
            # The registry has the file. What cannot be stored of that is at least in the log.
            self.exchange.publish_record(attempt, attempt.record())
            raise
        return answer

    async def _decide(self, upload: Upload, attempt: Attempt) -> Answer:
        size_bytes = self._check_envelope(upload)
        token = self.exchange.minter.read(shown_token(upload.authorization), attempt.started_at)
        attempt.passed("verify")
        scope = await self._scope(token, attempt)
        token.require("upload")
        attempt.passed("gates")

        def on_field(name: str, value: str) -> None:
            if name == ":action" and value != "file_upload":
                raise refusals.WrongAction(f"':action' is {value[:40]!r}, and only 'file_upload' passes")
            if name == "name":
                self._check_scope(scope, value, attempt)

        body = await begun(upload.body)
        async with (
            self.places.taken(token.publishers[0], size_bytes),
            read_form(
                body,
                content_type=upload.content_type,
                content_length=size_bytes,
                limits=Limits(total_bytes=self.upload_limit_bytes),
                spool=self.spool,
                on_field=on_field,
            ) as form,
        ):
            attempt.passed("body")
            package = await asyncio.to_thread(check, form)
            attempt.passed("package")
            attempt.project, attempt.version, attempt.filename = package.project, package.version, package.filename
            attempt.sha256, attempt.size_bytes = package.sha256, package.size_bytes
            _check_narrowing(token.narrowing, package)

            async def still_allowed() -> None:
                self._check_scope(await self._scope(token, attempt), package.project, attempt)

            # Asked again: a slow body takes long enough for somebody to be removed, or the token to be revoked. So does
            # waiting for a name, and `once` asks a third time after it.
            await still_allowed()
            await self._count_use(token, package)
            attempt.passed("gates")
            answer = await self.once.send(form, package, attempt, still_allowed, upload.user_agent)
            attempt.passed("registry")
            return answer

    def _check_envelope(self, upload: Upload) -> int:
        """How many bytes the body has."""
        if upload.encoded or upload.content_length is None:
            raise refusals.UnsupportedEncoding
        if upload.content_length > self.upload_limit_bytes:
            raise refusals.RequestTooLarge(f"an upload may have {self.upload_limit_bytes} bytes")
        return upload.content_length

    async def _scope(self, token: UploadToken, attempt: Attempt) -> frozenset[Projects]:
        """What the token covers at this moment: what it was minted for, and both gates still give.

        Raises:
            ExpiredUploadToken: the upload was begun in time, and took too long since.
            And those of `Exchange.covers_now`.
        """
        if self.exchange.clock() >= token.expires_at + LONGEST_UPLOAD_SECONDS:  # then a revocation may be forgotten
            note_token(attempt, token, self.exchange.policies())
            raise refusals.ExpiredUploadToken("the upload went on for too long after its token expired")
        return await self.exchange.covers_now(token, attempt)

    async def _count_use(self, token: UploadToken, package: Package) -> None:
        """Counts the file, where the token is good for so many. Sent again, after whatever went wrong, it counts once.

        Raises:
            UsedUpToken
        """
        most = token.narrowing.uses
        file, now = f"{package.filename} {package.sha256}", self.exchange.clock()
        if most and not await self.exchange.state.use(token.id, file, most=most, now=now, until=token.expires_at):
            raise refusals.UsedUpToken(f"the upload token was good for {most} uploads, and is used up")

    def _check_scope(self, scope: frozenset[Projects], name: str, attempt: Attempt) -> None:
        try:
            project = normalise(name)
        except ValueError as error:
            raise refusals.ProjectNotGranted(f"{name[:100]!r} is no project's name") from error
        if any(pattern.covers(project) for pattern in scope):
            return
        holder = self.exchange.policies().holder(project)
        if holder is not None and attempt.grant is not None and holder not in attempt.grant.organizations:
            raise refusals.NamespaceReserved(f"{project[:100]!r} belongs to another organization")
        raise refusals.ProjectNotGranted(f"the upload token does not cover {project[:100]!r}")


def shown_token(authorization: str | None) -> str:
    """The password of Basic credentials for `__token__`: the upload token, or the read token.

    Raises:
        NoCredentials: there is no Authorization header.
        InvalidUploadToken: there is one, but of another scheme, form or user.
    """
    if authorization is None:
        raise refusals.NoCredentials
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise refusals.InvalidUploadToken("the Authorization header holds no Basic credentials") from error
    if scheme.lower() != "basic" or not colon or user != USER:
        raise refusals.InvalidUploadToken(f"the user name must be {USER!r}, and the password a minted token")
    return password


def _check_narrowing(narrowing: Narrowing, package: Package) -> None:
    if narrowing.version and Version(package.version) != Version(narrowing.version):
        raise refusals.TokenNarrowed(f"the upload token is for version {narrowing.version!r} alone")
    if narrowing.sha256 and package.sha256 not in narrowing.sha256:
        raise refusals.TokenNarrowed("the upload token is for other files: none has this sha256")
