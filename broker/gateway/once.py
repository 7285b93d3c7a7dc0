"""A file's name is written once, whichever replica is asked, and whatever becomes of the registry's answer.

    free ──claim──> claimed ──store──> written      written: the same bytes are answered 200, others 400; none are sent
      ^                │ │
      ├────release─────┘ └──leave, or the lease ends──> unknown: who claims it next asks the registry's index first
      └──────────────────the index does not have it────────┘

Laws:

- Only who holds the claim sends, and only after the registry's index said that it has no file of that name. So what
  the registry held before the broker came, what a crashed broker sent, and what was forgotten since is found, and not
  written again.
- The lease is renewed while the registry is at work, and longer than the registry may be silent. Whoever loses it stops
  sending, and cannot conclude: the index then says what became of the file.
- After anything but a success the index is asked again before the name is given up. Where the file is there with our
  bytes, the upload has succeeded, whatever the registry answered.
- What nobody can know (the index does not answer either) is left to the same bytes alone until the lease ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from broker import refusals
from broker.audit import Attempt
from broker.gateway.filenames import FileName, read_filename
from broker.gateway.form import Form
from broker.gateway.index import Listed, SimpleIndex
from broker.gateway.package import Package
from broker.gateway.registry import Answer, Registry
from broker.gateway.releases import Releases
from broker.state import Busy, Claim, Claimed, State, Written

WAIT_SECONDS: Final = 30.0
"""How long an upload waits for another one of the same name."""

RETRY_AFTER_SECONDS: Final = 10

LEASE_MARGIN_SECONDS: Final = 60.0
"""How much longer a lease is than the registry may be silent: it answers, or we ask its index, within that."""

_SERVER_ERROR: Final = 500

_LOST: Final = "the broker could not keep its claim on the file's name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """Sends files on to one registry, each name once."""

    state: State
    registry: Registry
    index: SimpleIndex
    open_days: int | None = None
    """After which a release takes no new files; see `releases`."""
    clock: Callable[[], float]
    lease_seconds: float
    """Longer than the registry may be silent. So long is a name blocked after a crash in the middle of an upload."""
    wait_seconds: float = WAIT_SECONDS
    poll_seconds: float = 0.25

    async def send(
        self,
        form: Form,
        package: Package,
        attempt: Attempt,
        still_allowed: Callable[[], Awaitable[None]],
        user_agent: str = "",
    ) -> Answer:
        """Sends the file on, unless it is there; notes in the attempt what came of it.

        Args:
            still_allowed: Asked right before the file is sent, after all waiting. What it raises passes through.
            user_agent: The client's, for registries that are to see it.

        Raises:
            FileExists: the name is written, with other bytes.
            ReleaseClosed: the file is new, and its release old.
            UploadInProgress: another upload of that name went on for too long.
            RegistryDamaged: the registry failed, and kept other bytes than were sent.
            StateUnavailable: or the claim was lost, and nothing is known of the file.
            RegistryIndex, RegistryUnavailable, RegistryCredential
        """
        filename = read_filename(package.filename)
        claim = Claim(name=self._name(filename), sha256=package.sha256, attempt=attempt.id)
        give_up: Callable[[Claim], Awaitable[object]] = self.state.release
        try:
            held = await self._claim(claim)
            if isinstance(held, Written):
                return _already(held.sha256, package, attempt)
            if held.left:
                give_up = self.state.leave
            files = await self.index.files(package.project)
            if (sha256 := await self._digest(files, package)) is not None:
                answer = _already(sha256, package, attempt)
                # What an earlier attempt sent is ours; what was there before us is the registry's to take away again.
                await self._end(self._store if held.left else self.state.release, claim)
                return answer
            await self._releases.check_open(files, filename)
            await still_allowed()
            give_up = self.state.leave  # from here on, what is cut short may be at the registry
            return await self._send(claim, form, package, attempt, user_agent)
        except refusals.FileExists:
            await self._end(self.state.release, claim)  # whoever comes next, with the bytes that are there, is told so
            raise
        except BaseException:
            await self._end(give_up, claim)  # nothing happens where it is concluded
            raise

    def _name(self, filename: FileName) -> str:
        return f"{self.registry.url} {filename}"

    @property
    def _releases(self) -> Releases:
        return Releases(state=self.state, clock=self.clock, name=self._name, open_days=self.open_days)

    async def _claim(self, claim: Claim) -> Claimed | Written:
        """Waits for the name to be ours, or written."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.wait_seconds
        while True:
            held = await self.state.claim(claim, now=self.clock(), seconds=self.lease_seconds)
            if not isinstance(held, Busy):
                return held
            if loop.time() >= until:
                raise refusals.UploadInProgress(retry_after_seconds=RETRY_AFTER_SECONDS)
            await asyncio.sleep(self.poll_seconds)

    async def _digest(self, files: Sequence[Listed], package: Package) -> str | None:
        """Of the registry's file of that name; ours, where it has several spellings and one has our bytes."""
        name = read_filename(package.filename)
        digests = [await self.index.sha256(one) for one in files if read_filename(one.filename) == name]
        return package.sha256 if package.sha256 in digests else next(iter(digests), None)

    async def _send(self, claim: Claim, form: Form, package: Package, attempt: Attempt, user_agent: str) -> Answer:
        outcome: Answer | refusals.Refusal
        try:
            outcome = await self._forward(claim, form, package, user_agent)
        except refusals.RegistryCredential:
            await self._end(self.state.release, claim)
            raise
        except refusals.Refusal as refusal:
            outcome = refusal
        else:
            attempt.registry_status = outcome.status
            if outcome.is_success:
                if await self._store(claim):
                    return outcome
                outcome = refusals.StateUnavailable(_LOST)
        return await self._settle(claim, package, attempt, outcome)

    async def _forward(self, claim: Claim, form: Form, package: Package, user_agent: str) -> Answer:
        """Sends the file, and renews the lease as long as that takes."""
        loop = asyncio.get_running_loop()
        held_until = loop.time() + self.lease_seconds
        # Before the first byte too: the index may have taken longer than the lease.
        if not await self.state.renew(claim, now=self.clock(), seconds=self.lease_seconds):
            raise refusals.StateUnavailable(_LOST)
        sending = loop.create_task(self.registry.send(form, package, user_agent))
        try:
            while True:
                done, _ = await asyncio.wait({sending}, timeout=self.lease_seconds / 4)
                if done:
                    return sending.result()
                asked_at = loop.time()
                with contextlib.suppress(refusals.StateUnavailable):  # there is time for three more
                    if not await self.state.renew(claim, now=self.clock(), seconds=self.lease_seconds):
                        break
                    held_until = asked_at + self.lease_seconds
                if loop.time() >= held_until:
                    break
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        raise refusals.StateUnavailable(_LOST)

    async def _settle(
        self, claim: Claim, package: Package, attempt: Attempt, outcome: Answer | refusals.Refusal
    ) -> Answer:
        """Finds out what became of a file that was sent on without success."""
        is_no = isinstance(outcome, Answer) and outcome.status < _SERVER_ERROR
        try:
            sha256 = await self._digest(await self.index.files(package.project), package)
        except refusals.Refusal:
            sha256, is_no = None, False
        if sha256 is not None:
            somebody_else = is_no or isinstance(outcome, refusals.StateUnavailable)
            if sha256 != package.sha256 and not somebody_else:
                raise refusals.RegistryDamaged
            _check_same(sha256, package)
            await self._store(claim)
            attempt.confirmed = True
            return _found(package)
        if isinstance(outcome, refusals.Refusal):
            raise outcome
        await self._end(self.state.release if is_no else self.state.leave, claim)
        return outcome

    async def _store(self, claim: Claim) -> bool:
        try:
            return await self.state.store(claim, now=self.clock())
        except refusals.StateUnavailable:
            return True  # the registry has it: once the lease is over, whoever asks for the name finds that out

    async def _end(self, how: Callable[[Claim], Awaitable[object]], claim: Claim) -> None:
        """Concludes a claim; one that cannot be ends with its lease, and hides no better known answer."""
        with contextlib.suppress(refusals.StateUnavailable):
            await how(claim)


def _check_same(sha256: str, package: Package) -> None:
    if sha256 != package.sha256:
        # "already exists", with a 400, is what clients look for that skip such files.
        raise refusals.FileExists(f"{package.filename!r} already exists, with other bytes")


def _already(sha256: str, package: Package, attempt: Attempt) -> Answer:
    _check_same(sha256, package)
    attempt.already_stored = True
    return _found(package)


def _found(package: Package) -> Answer:
    return Answer(status=200, text=f"{package.filename} is there already, with the same bytes.")
