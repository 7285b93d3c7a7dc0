"""The broker's signing keys in force.

Laws, beside those of `in_force.py`:

- The last good keys sign and verify until what cannot be read is mended, however long that takes.
- Files are few and small: each look reads them.
- A change is recorded once, and not by each replica that sees it: whoever comes first, `broker keys rotate` included.
"""

from __future__ import annotations

import socket
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from broker.audit import Attempt, new_attempt_id
from broker.in_force import Failing, InForce, Look
from broker.logs import logger
from broker.refusals import StateUnavailable
from broker.settings import Settings, SettingsError
from broker.signing import LONGEST_TEXT, SINCE_EVER, Change, SigningKey, SigningKeys, Standing, changes, moment, parse

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
            except FileNotFoundError as error:
                raise SettingsError(
                    f"BROKER_SIGNING_KEYS: {file} cannot be read ({error.strerror}). "
                    f"Make one with: broker keys new {file}"
                ) from error
            except OSError as error:
                raise _unreadable(file, error) from error
        return told


def files(path: Path) -> list[Path]:
    """A PEM file, or the `*.pem` of a folder in the order of their names.

    Raises:
        SettingsError: the folder has none, or cannot be read: then there may be some.
    """
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return [path]
        found = sorted(one for one in path.iterdir() if one.suffix == ".pem" and not one.name.startswith("."))
    except FileNotFoundError:
        return [path]
    except OSError as error:
        raise _unreadable(path, error) from error
    if not found:
        raise SettingsError(f"BROKER_SIGNING_KEYS: {path} has no *.pem file. Make one with: broker keys new {path}")
    return found


def _unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"BROKER_SIGNING_KEYS: {path} cannot be read ({error.strerror}). Name a file or a folder that the broker's "
        "user may read; no other user needs to."
    )


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


class KeysInForce(InForce[SigningKeys, Contents | str, SettingsError]):
    """The signing keys of one source, kept current, and what happens to them."""

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
        self._record = record
        self._parsed: tuple[Contents, SigningKeys] | None = None
        """What was parsed last, and what it says."""
        super().__init__("signing keys", SettingsError, clock)
        # Of a key that says nothing nobody knows whether it is new: it is no change that a broker starts with it.
        standings = self.current.standings(clock())
        self._known: dict[str, Standing] = {
            key.id: standings[key.id] for key in self.current.keys if key.signs_from == SINCE_EVER
        }
        self._unrecorded: list[Attempt] = []

    async def keep_current(self) -> None:
        """Looks after the files, and notes what happens to keys, for as long as it runs."""
        await self.note_changes()
        await super().keep_current()

    async def refresh(self, *, anew: bool = False) -> None:
        """Looks once, takes up what changed, and notes what happened to keys."""
        await super().refresh(anew=anew)
        await self.note_changes()

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

    def _look(self) -> Look[Contents | str]:
        """What is there, or why that cannot be told."""
        try:
            return Look(seen=self._source.contents())
        except SettingsError as error:
            return Look(seen=str(error))

    def _load(self, seen: Contents | str) -> SigningKeys:
        if isinstance(seen, str):
            raise SettingsError(seen)
        if self._parsed is None or self._parsed[0] != seen:
            self._parsed = seen, together(parse_each(seen))
        return self._parsed[1]

    def _take_up(self, loaded: SigningKeys) -> None:
        self._warn_of_late_ones(loaded)
        super()._take_up(loaded)

    def _keep_the_last(self, failing: Failing[SettingsError], now: float) -> tuple[str, Mapping[str, object]]:
        del failing  # however long it lasts
        event = "signing keys not reloaded: the last good ones sign and verify"
        return event, {"signing": self.current.signing_at(now).id}

    def _explained(self, error: SettingsError) -> str:
        return str(error)

    def _summary(self) -> Mapping[str, object]:
        now = self._clock()
        standings = self.current.standings(now)
        shown = {kind: [id_ for id_, one in standings.items() if one == kind] for kind in ("announced", "retiring")}
        return {"signing": self.current.signing_at(now).id, **shown}

    def _mistake(self, what: str, remedy: str) -> SettingsError:
        return SettingsError(f"BROKER_SIGNING_KEYS: it {what}. {remedy}")

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
