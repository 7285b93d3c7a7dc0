"""The broker's signing keys in force: read at start, and again whenever their files change.

Laws:

- what cannot be read changes nothing: the last good keys sign and verify, as `/readyz` and the log tell, until it is
  mended;
- what is read stood there twice, a moment apart: no half-written file counts, nor half of a mounted secret's swap;
- a change is recorded once, and not by each replica that sees it: whoever comes first, `broker keys rotate` included.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from broker.audit import Attempt, new_attempt_id
from broker.logs import logger
from broker.refusals import StateUnavailable
from broker.settings import Settings, SettingsError
from broker.signing import LONGEST_TEXT, SINCE_EVER, Change, SigningKey, SigningKeys, Standing, changes, moment, parse

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files: they are few and small, so each look reads them."""
SETTLE_SECONDS: Final = 0.2
"""What changed must stay the same so long before it counts."""
MOST_TRIES: Final = 20
REMIND_SECONDS: Final = 600.0
"""Between two log lines of one failure."""

REMEMBERED_SECONDS: Final = 10 * 366 * 86_400
"""How long it is known that a key's change was recorded."""

Contents = Sequence[tuple[str, bytes]]
"""What files hold, or the setting does, by their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the keys are: in a PEM file, in a folder of them, or in a setting."""

    path: Path | None = None
    text: SecretStr | None = None

    @classmethod
    def of(cls, settings: Settings) -> Source:
        """Where the settings say."""
        return cls(path=settings.signing_keys, text=settings.signing_keys_pem)

    def contents(self) -> Contents:
        """All that is there now.

        Raises:
            SettingsError: a file cannot be read, or there is none.
        """
        if self.path is None:
            text = "" if self.text is None else self.text.get_secret_value()
            # Many a place where one writes environments keeps to one line.
            return [("BROKER_SIGNING_KEYS_PEM", text.replace("\\n", "\n").encode())]
        told = []
        for file in files(self.path):
            try:
                with file.open("rb") as opened:
                    told.append((str(file), opened.read(LONGEST_TEXT + 1)))
            except OSError as error:
                raise SettingsError(
                    f"BROKER_SIGNING_KEYS: {file} cannot be read ({error.strerror}). "
                    f"Make one with: broker keys new {file}"
                ) from error
        return told


def files(path: Path) -> list[Path]:
    """A PEM file, or the `*.pem` of a folder in the order of their names.

    Raises:
        SettingsError: the folder has none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.glob("*.pem") if not one.name.startswith("."))
    if not found:
        raise SettingsError(f"BROKER_SIGNING_KEYS: {path} has no *.pem file. Make one with: broker keys new {path}")
    return found


def parse_each(contents: Contents) -> list[tuple[str, tuple[SigningKey, ...]]]:
    """The keys of each file, or of the setting.

    Raises:
        SettingsError: something there is no Ed25519 key, or what is said of one is not understood.
    """
    told = []
    for name, text in contents:
        try:
            told.append((name, parse(text)))
        except ValueError as error:
            where = name if name.startswith("BROKER_") else f"BROKER_SIGNING_KEYS: {name}"
            raise SettingsError(f"{where}: {error}. Make one with: broker keys new FILE.pem") from error
    return told


def together(told: Sequence[tuple[str, tuple[SigningKey, ...]]]) -> SigningKeys:
    """The keys of all files.

    Raises:
        SettingsError: one stands twice.
    """
    try:
        return SigningKeys(keys=tuple(key for _, keys in told for key in keys))
    except ValueError as error:
        raise SettingsError(f"BROKER_SIGNING_KEYS: {error}: remove one of the two.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """That the keys cannot be read."""

    since: float
    """Epoch seconds."""
    why: str


class KeysInForce:
    """The signing keys of one source, kept current."""

    def __init__(
        self, source: Source, *, clock: Callable[[], float], record: Callable[[Attempt], Awaitable[None]]
    ) -> None:
        """Reads them.

        Args:
            record: Told of each change of a key, to be recorded once. It may raise StateUnavailable: then it is told
                again.

        Raises:
            SettingsError
        """
        self._source = source
        self._clock = clock
        self._record = record
        self._contents = source.contents()
        self.current = together(parse_each(self._contents))
        """Swapped as a whole: whoever asks twice for one token asks once."""
        # Of a key that says nothing nobody knows whether it is new: it is no change that a broker starts with it.
        standings = self.current.standings(clock())
        self._known: dict[str, Standing] = {
            key.id: standings[key.id] for key in self.current.keys if key.signs_from == SINCE_EVER
        }
        self._unrecorded: list[Attempt] = []
        self._asked = asyncio.Event()
        self.failing: Failing | None = None
        """None while the keys are those of the files."""
        self._told_at = 0.0

    def read_again(self) -> None:
        """Has them read soon, and says in the log how that went: what SIGHUP asks for."""
        self._asked.set()

    async def keep_current(self) -> None:
        """Looks after the files, and notes what happens to keys, for as long as it runs."""
        await self.note_changes()
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                await self.refresh()
            else:
                self._asked.clear()
                await self.refresh(anew=True)

    async def refresh(self, *, anew: bool = False) -> None:
        """Looks once, and takes up what changed.

        Args:
            anew: Say in the log how that went.
        """
        try:
            contents = await asyncio.to_thread(self._read)
            loaded = self.current if contents == self._contents else together(parse_each(contents))
        except SettingsError as error:
            self._keep_the_last(str(error), anew=anew)
        except Exception as error:  # noqa: BLE001 - whatever it is, tokens are signed and verified
            logger().error("signing keys could not be read: a bug of the broker", exc_info=error)
            self._keep_the_last("the broker has a bug: report its log", anew=anew)
        else:
            news = loaded is not self.current
            if news:
                self._warn_of_late_ones(loaded)
            self._contents, self.current = contents, loaded
            if news or self.failing or anew:
                self.tell("reloaded" if news else "unchanged")
            self.failing = None
        await self.note_changes()

    def tell(self, what: str) -> None:
        """Logs which keys are in force."""
        standings = self.current.standings(self._clock())
        shown = {kind: [id_ for id_, one in standings.items() if one == kind] for kind in ("announced", "retiring")}
        logger().info(f"signing keys {what}", signing=self.current.signing_at(self._clock()).id, **shown)

    async def note_changes(self) -> None:
        """Logs, and has recorded, what happened to keys since this was asked last; time alone makes them begin."""
        now = self._clock()
        standings = self.current.standings(now)
        moments = {key.id: key.signs_from for key in self.current.keys}
        for key_id, change in changes(self._known, standings):
            attempt = attempt_of(change, key_id, now, signs_from=moments.get(key_id, SINCE_EVER))
            logger().info(f"signing key: {change}", key=key_id, signs_from=attempt.signs_from)
            self._unrecorded.append(attempt)
        self._known = standings
        while self._unrecorded:
            try:
                await self._record(self._unrecorded[0])
            except StateUnavailable:
                return  # the next look tries again
            del self._unrecorded[0]

    def _read(self) -> Contents:
        """What is there, and stays. Raises SettingsError."""
        seen = self._look()
        for _ in range(MOST_TRIES):
            if seen == self._contents:
                break
            time.sleep(SETTLE_SECONDS)
            before, seen = seen, self._look()
            if seen == before:
                break
        else:
            raise SettingsError("BROKER_SIGNING_KEYS: it changes faster than it can be read")
        if isinstance(seen, str):
            raise SettingsError(seen)
        return seen

    def _look(self) -> Contents | str:
        """What is there, or why that cannot be told."""
        try:
            return self._source.contents()
        except SettingsError as error:
            return str(error)

    def _keep_the_last(self, why: str, *, anew: bool) -> None:
        now = self._clock()
        before = self.failing
        self.failing = Failing(since=now if before is None else before.since, why=why)
        if anew or before is None or before.why != why or now - self._told_at >= REMIND_SECONDS:
            self._told_at = now
            logger().error(
                "signing keys not reloaded: the last good ones sign and verify",
                signing=self.current.signing_at(now).id,
                failing_seconds=round(now - self.failing.since),
                explained=why,
            )

    def _warn_of_late_ones(self, loaded: SigningKeys) -> None:
        """Of a key that signs at once when it is seen, other replicas had no time to learn."""
        now = self._clock()
        key, known = loaded.signing_at(now), {one.id for one in self.current.keys}
        if key.id not in known:
            logger().warning(
                "a signing key was seen when it signed already: a replica that has not seen it refuses its tokens",
                key=key.id,
                **({} if key.signs_from == SINCE_EVER else {"late_seconds": round(now - key.signs_from)}),
            )


def name_of(attempt: Attempt) -> str:
    """What tells a key's change from everything else that is recorded once."""
    return f"key {attempt.change} {attempt.key}"


def attempt_of(change: Change, key_id: str, now: float, *, signs_from: float = SINCE_EVER) -> Attempt:
    """The notebook of a key's change."""
    attempt = Attempt(kind="keys", id=new_attempt_id(now), started_at=now)
    attempt.key, attempt.change, attempt.replica = key_id, change, socket.gethostname()
    attempt.signs_from = "" if signs_from == SINCE_EVER or change == "removed" else moment(signs_from)
    return attempt
