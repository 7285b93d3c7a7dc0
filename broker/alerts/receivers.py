"""Who is told: the file that `BROKER_ALERTS` names.

```yaml
receivers:
  acme-owners:
    kind: standard                           # Standard Webhooks, signed
    url: https://hooks.acme.example/broker
    secret_files: [/run/secrets/acme-hook]   # whsec_...; several while one is rotated
    organizations: [acme]
  operators:
    kind: slack
    url_file: /run/secrets/slack-url         # who has a Slack URL can post to it
    index: true                              # what belongs to no organization, and what the operator must mend
```

Strict, as policies are: whatever cannot be meant is told with file, line and path, all of it at once. URLs and secrets
in files or variables are read again for each use.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from broker import settings_file
from broker.alerts.kinds import BY_CODE, Alert
from broker.policy.errors import Place, shown
from broker.policy.shapes import Duration, Entry, Name, Shape
from broker.settings import PREFIX
from broker.settings_file import SettingsFile

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what secrets begin with
SECRET_BYTES: Final = range(24, 65)
"""As https://github.com/standard-webhooks/standard-webhooks has it, in its spec (read 2026-11)."""
MOST_SECRETS: Final = 5

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,199}")
_URL: Final = re.compile(r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?(?:[/?][!-~]*)?")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})


class VariableSecret(SecretStr):
    """A secret in the environment.

    Raises:
        ValueError: the variable is not set.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__("")
        if not self.get_secret_value():
            raise ValueError("is not set")

    def get_secret_value(self) -> str:
        """What the variable says now."""
        return os.environ.get(self._name, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """One who is told."""

    name: str
    kind: Literal["standard", "slack"]
    url: SecretStr
    secrets: tuple[SecretStr, ...] = field(default=(), repr=False)
    organizations: frozenset[str] = frozenset()
    index: bool = False
    kinds: frozenset[str] = frozenset(BY_CODE)
    longest_pause_seconds: int = 1800
    allow_loopback: bool = False

    def wants(self, alert: Alert) -> bool:
        """Whether it is told of this one."""
        return alert.kind.code in self.kinds and alert.is_for(self.organizations, index=self.index)

    def address(self) -> str:
        """The URL as it is at this moment.

        Raises:
            ValueError: it is none that may be used; the message does not quote it.
        """
        return usable_url(self.url.get_secret_value(), allow_loopback=self.allow_loopback)

    def keys(self) -> tuple[bytes, ...]:
        """What its alerts are signed with at this moment.

        Raises:
            ValueError: a secret is none; the message does not quote it.
        """
        return tuple(signing_key(secret.get_secret_value()) for secret in self.secrets)


def unknown_to(policies: Iterable[str], told: Iterable[Receiver]) -> Mapping[str, Sequence[str]]:
    """The receivers that name organizations which are none of the policies', and those names."""
    known = frozenset(policies)
    return {one.name: sorted(unknown) for one in told if (unknown := one.organizations - known)}


def named_by_none(policies: Iterable[str], told: Iterable[Receiver]) -> Sequence[str]:
    """The policies' organizations that no receiver names: nobody is told what only their owners are."""
    return sorted(frozenset(policies).difference(*(one.organizations for one in told)))


def usable_url(url: str, *, allow_loopback: bool) -> str:
    """The URL, where it can be a receiver's.

    Raises:
        ValueError
    """
    parts = _URL.fullmatch(url)
    if parts is None or urlsplit(url).fragment:
        raise ValueError("write a URL such as https://hooks.acme.example/broker, without user and fragment")
    if parts[1] == "http" and not (allow_loopback and parts[2] in _LOOPBACK):
        raise ValueError("write https://; plain http on loopback is for BROKER_ALLOW_LOOPBACK_ISSUERS, in development")
    return url


def signing_key(secret: str) -> bytes:
    """'whsec_...' -> the bytes of the key.

    Raises:
        ValueError
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) not in SECRET_BYTES:
        raise ValueError("a secret is whsec_ and 24 to 64 bytes in base64; make one with: openssl rand -base64 32")
    return key


# --- The file --------------------------------------------------------------------------------------------------------


def _kinds(codes: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [code for code in codes if code not in BY_CODE]:
        raise ValueError(f"{shown(unknown[0])} is no kind of alert; write some of {', '.join(BY_CODE)}")
    return codes


def _variables(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        _variable(name)
    return names


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name) or name.startswith(PREFIX):
        raise ValueError(
            f"write a variable's name, such as ACME_HOOK; those of {PREFIX}* are the broker's own settings"
        )
    return name


class _FileShape(Shape):
    receivers: dict[Name, Entry] = Field(min_length=1, description="Who is told, by name.")


class ReceiverShape(Shape):
    """One receiver in the file."""

    kind: Literal["standard", "slack"] = Field(
        description="`standard`: Standard Webhooks, signed. `slack`: the text of a chat's incoming webhook."
    )
    url: str | None = Field(default=None, description="Where alerts are posted to, https.")
    url_file: str | None = Field(default=None, description="A file with the URL, where that is a secret.")
    url_environment: Annotated[str, AfterValidator(_variable)] | None = Field(
        default=None, description="An environment variable with the URL."
    )
    secret_files: tuple[str, ...] = Field(
        default=(), description="Files with a signing secret each, `whsec_...`; all sign, so that one is rotated."
    )
    secret_environment: Annotated[tuple[str, ...], AfterValidator(_variables)] = Field(
        default=(), description="Environment variables with a signing secret each."
    )
    organizations: tuple[Name, ...] = Field(default=(), min_length=1, description="Whose alerts it gets.")
    index: bool = Field(
        default=False, description="Whether it gets the operator's alerts, and those of no organization."
    )
    kinds: Annotated[tuple[str, ...], AfterValidator(_kinds)] | None = Field(
        default=None, min_length=1, description="The only kinds of alerts that it gets; without: all."
    )
    longest_pause: Duration = Field(
        default=1800, description="The longest pause between two attempts while it takes none."
    )


def read(path: Path, *, allow_loopback: bool) -> tuple[Receiver, ...]:
    """The receivers of a file, in its order.

    Raises:
        SettingsError: with one line for each mistake.
    """

    def meant(shape: _FileShape, file: SettingsFile) -> tuple[Receiver, ...]:
        reader = _Reader(file, allow_loopback)
        entries = shape.receivers.items()
        return tuple(one for name, entry in entries if (one := reader.receiver(name, entry)) is not None)

    return settings_file.read("BROKER_ALERTS", path, _FileShape, meant)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes receivers of a file's entries."""

    file: SettingsFile
    allow_loopback: bool

    def receiver(self, name: str, entry: Entry) -> Receiver | None:
        """One receiver; None where its fields cannot be meant."""
        place = ("receivers", name)
        shape = self.file.shaped(ReceiverShape, entry, place)
        if shape is None:
            return None
        if not shape.organizations and not shape.index:
            self.file.add(place, "is told of nothing", "Write `organizations`, or `index: true`, or both.")
        return Receiver(
            name=name,
            kind=shape.kind,
            url=self._url(shape, place),
            secrets=self._secrets(shape, place),
            organizations=frozenset(shape.organizations),
            index=shape.index,
            kinds=frozenset(BY_CODE if shape.kinds is None else shape.kinds),
            longest_pause_seconds=shape.longest_pause,
            allow_loopback=self.allow_loopback,
        )

    def _url(self, shape: ReceiverShape, place: Place) -> SecretStr:
        fields = ("url", "url_file", "url_environment")
        told = [name for name in fields if getattr(shape, name) is not None]
        if len(told) != 1:
            self.file.add(place, f"has {len(told) or 'none'} of {', '.join(fields)}", "Write one of them.")
            return SecretStr("")
        if shape.url is not None:
            found: SecretStr | None = SecretStr(shape.url)
        elif shape.url_file is not None:
            found = self.file.secret((*place, "url_file"), shape.url_file)
        else:
            found = self._environment((*place, "url_environment"), shape.url_environment or "")
        if found is None:
            return SecretStr("")
        try:
            usable_url(found.get_secret_value(), allow_loopback=self.allow_loopback)
        except ValueError as error:
            self.file.add((*place, told[0]), "is no receiver's URL", f"W{str(error)[1:]}.")
        return found

    def _secrets(self, shape: ReceiverShape, place: Place) -> tuple[SecretStr, ...]:
        named = len(shape.secret_files) + len(shape.secret_environment)
        if shape.kind == "slack" and named:
            self.file.add(place, "has secrets, and nothing in a chat compares signatures", "Remove them.")
        elif shape.kind == "standard" and not 0 < named <= MOST_SECRETS:
            what = "has no secret" if not named else f"has more than {MOST_SECRETS} secrets"
            remedy = f"Write 1 to {MOST_SECRETS} `secret_files` or `secret_environment`: alerts are signed with them."
            self.file.add(place, what, remedy)
        files = (
            ((*place, "secret_files", at), self.file.secret((*place, "secret_files", at), one))
            for at, one in enumerate(shape.secret_files)
        )
        variables = (
            ((*place, "secret_environment", at), self._environment((*place, "secret_environment", at), one))
            for at, one in enumerate(shape.secret_environment)
        )
        return tuple(self._usable([*files, *variables]))

    def _usable(self, secrets: Iterable[tuple[Place, SecretStr | None]]) -> Iterable[SecretStr]:
        for place, secret in secrets:
            if secret is None:
                continue
            try:
                signing_key(secret.get_secret_value())
            except ValueError as error:
                what, _, remedy = str(error).partition("; ")
                self.file.add(place, f"names no secret: {what}", f"{remedy[0].upper()}{remedy[1:]}.")
            else:
                yield secret

    def _environment(self, place: Place, name: str) -> SecretStr | None:
        try:
            return VariableSecret(name)
        except ValueError as error:
            self.file.add(place, f"names a variable that {error}", "Set it where the broker is started.")
        return None
