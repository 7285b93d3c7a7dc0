"""The registries behind the broker: one that the settings tell, or several that a file tells (`BROKER_REGISTRIES`).

```yaml
registries:
  main:                                  # the first of a host is its default: stock clients find it
    path: /legacy/
    audience: acme-index
    url: http://pypi.internal:8080/
    username: broker
    password_file: /run/secrets/main     # read again for each use: secret stores rotate it
  team-a:
    path: /team-a/legacy/
    audience: acme-team-a
    url: https://devpi.internal/team-a/prod/
    bearer_file: /run/secrets/team-a
    organizations: [team-a]              # only these publish here
```

Strict, as policies are: whatever cannot be meant is told with file, line and path, all of it at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from broker import settings_file
from broker.gateway.credential import Credential
from broker.gateway.parts import CONTENT, MULTIPLE, SINGLE
from broker.gateway.spool import DIGESTS
from broker.policy.errors import Findings, Place, PolicyError, shown, written
from broker.policy.shapes import Duration, Entry, Name, Shape
from broker.policy.validation import validate
from broker.policy.warnings import UNKNOWN_ORGANIZATION, PolicyWarning
from broker.settings import (
    Audience,
    ForwardAuth,
    Origin,
    PlainUrl,
    ReadAccess,
    Settings,
    UploadPath,
    UploadTokens,
    reason,
)
from broker.settings_file import SettingsFile

ONE: Final = "default"
"""What the registry is called that the settings tell."""

LARGEST_AT_ONCE: Final = 16
"""Uploads of the largest size for which there is space, where the operator does not say how much there is."""

_NEEDED: Final = frozenset({":action", "name", "version", "filetype", "metadata_version", CONTENT, *DIGESTS})
"""Fields that no registry can do without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """One registry behind the broker, and the index that clients see in its place."""

    name: str
    public_url: str
    """The host that it is served at."""
    upload_path: str
    audience: str
    url: str
    """The registry's own upload URL."""
    index_url: str
    """The root of the registry's simple index, with a slash at the end."""
    credential: Credential
    timeout_seconds: float
    upload_limit_bytes: int
    release_days: int | None = None
    drop: frozenset[str] = frozenset()
    pass_user_agent: bool = False
    organizations: frozenset[str] | None = None
    """The only ones that may use it; None is all."""
    upload_tokens: UploadTokens = "own"
    devpi_token: SecretStr = field(default_factory=lambda: SecretStr(""))
    reads: ReadAccess = "off"
    fallback_index: str | None = None
    """The public simple index, with a slash at the end."""
    forward_auth: ForwardAuth = "off"
    """Which kind of proxy asks whether a read of the registry itself may pass."""
    is_default: bool = True
    """Of its host: what stock clients find, which drop the upload URL's path."""

    @property
    def upload_url(self) -> str:
        """The index as clients name it; `aud` of the upload tokens."""
        return self.public_url + self.upload_path

    @property
    def simple_path(self) -> str:
        """'/team-a/simple/' beside '/team-a/legacy/'; else below the upload path."""
        return self._beside + "simple/"

    @property
    def files_path(self) -> str:
        """'/team-a/files/'."""
        return self._beside + "files/"

    @property
    def read_paths(self) -> tuple[str, ...]:
        """Below which reads are served."""
        return () if self.reads == "off" else (self.simple_path, self.files_path)

    @property
    def paths(self) -> tuple[str, ...]:
        """All that it serves beside `base`."""
        return (self.upload_path, *self.read_paths)

    @property
    def _beside(self) -> str:
        return self.upload_path.removesuffix("legacy/") if self.upload_path.endswith("/legacy/") else self.upload_path

    @property
    def base(self) -> str:
        """Below which its own routes are: '/_', or '/_/registries/team-a'."""
        return "/_" if self.is_default else f"/_/registries/{self.name}"


def of(settings: Settings) -> tuple[RegistrySettings, ...]:
    """The registries, those of the file in its order.

    Raises:
        SettingsError: with one line for each mistake.
    """
    return (_told_by(settings),) if settings.registries is None else _read(settings.registries, settings)


def check(path: Path, file: str, organizations: Iterable[str]) -> tuple[list[PolicyError], list[PolicyWarning]]:
    """The mistakes that a file's text alone shows, and each organization in it that is none of these.

    No setting is asked, and no secret is read: where policies are checked, there are none.

    Args:
        file: What it is called in both.
    """
    findings = Findings(file=file)
    try:
        shape = settings_file.parse(path, _FileShape, findings)
    except OSError as error:
        what = f"cannot be read ({reason(error)})"
        return [PolicyError(file=file, line=0, path="", what=what, remedy="Name the registries' file.")], []
    told, known = [], frozenset(organizations)
    for registry, entry in ({} if shape is None else shape.registries).items():
        place = ("registries", registry)
        one = validate(RegistryShape, entry, place, findings)
        for at, name in enumerate((one and one.organizations) or ()):
            if name not in known:
                where = (*place, "organizations", at)
                told.append(
                    PolicyWarning(
                        file=file,
                        line=findings.line_of(where),
                        path=written(where),
                        code=UNKNOWN_ORGANIZATION.code,
                        what=f"names an organization that the policies do not have: {shown(name)}",
                        remedy=findings.suggest(name, known, UNKNOWN_ORGANIZATION.remedy),
                    )
                )
    return findings.errors, told


def spool_bytes(settings: Settings, found: Iterable[RegistrySettings]) -> int:
    """How much space the uploads under way to all of them may take in a process."""
    return settings.spool_limit_bytes or LARGEST_AT_ONCE * max(one.upload_limit_bytes for one in found)


def _told_by(settings: Settings) -> RegistrySettings:
    url, bearer = settings.registry_url or "", settings.registry_bearer_token  # there are settings only with a URL
    return RegistrySettings(
        name=ONE,
        public_url=settings.public_url,
        upload_path=settings.upload_path,
        audience=settings.audience or "",
        url=url,
        index_url=_index_url(url, settings.registry_index_url),
        credential=Credential(secret=bearer)
        if bearer.get_secret_value()
        else Credential(username=settings.registry_username, secret=settings.registry_password),
        timeout_seconds=settings.registry_timeout_seconds,
        upload_limit_bytes=settings.upload_limit_bytes,
        release_days=settings.release_days,
        upload_tokens=settings.upload_tokens,
        devpi_token=settings.devpi_token,
        reads=settings.reads,
        fallback_index=_slash(settings.fallback_index_url),
        forward_auth=settings.forward_auth,
    )


def _slash(url: str | None) -> str | None:
    return None if url is None else url.rstrip("/") + "/"


def _index_url(upload_url: str, told: str | None) -> str:
    if told is not None:
        return told.rstrip("/") + "/"
    return upload_url.rstrip("/").removesuffix("/legacy") + "/simple/"


# --- The file --------------------------------------------------------------------------------------------------------


def _whole(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("write a whole number, 1 or more")
    return value


def _droppable(names: tuple[str, ...]) -> tuple[str, ...]:
    known = (SINGLE | MULTIPLE) - _NEEDED
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{unknown[0][:80]!a} cannot be dropped; write names of optional fields, such as attestations")
    return names


_Whole = Annotated[int, BeforeValidator(_whole)]


class _FileShape(Shape):
    registries: dict[Name, Entry] = Field(
        min_length=1, description="The registries by name; a host's first is its default."
    )


class RegistryShape(Shape):
    """One registry in the file."""

    path: UploadPath = Field(description="The path that clients upload to, such as `/team-a/legacy/`.")
    audience: Audience = Field(description="What identity tokens must carry in `aud`: of each registry another.")
    url: PlainUrl = Field(description="The registry's own upload URL. Let nobody but the broker reach it.")
    public_url: Origin | None = Field(default=None, description="Its host, where not that of `BROKER_PUBLIC_URL`.")
    index_url: PlainUrl | None = Field(default=None, description="The registry's simple index, where not beside `url`.")
    username: str | None = Field(default=None, description="The registry's user, that only the broker knows.")
    password_file: str | None = Field(default=None, description="A file with that user's password.")
    bearer_file: str | None = Field(
        default=None, description="A file with a bearer token, in place of user and password."
    )
    timeout: Duration = Field(default=120, description="How long the registry may be silent while it takes a file.")
    upload_limit_bytes: _Whole = Field(default=1024**3, description="The largest upload, its form included.")
    release_days: _Whole | None = Field(default=None, description="How many days a release takes new files.")
    drop_fields: Annotated[tuple[str, ...], AfterValidator(_droppable)] = Field(
        default=(), description="Fields that the registry does not understand, such as `attestations`."
    )
    pass_user_agent: bool = Field(default=False, description="Whether the registry sees the client's User-Agent.")
    organizations: tuple[Name, ...] | None = Field(
        default=None, min_length=1, description="The only organizations that may use it."
    )
    upload_tokens: UploadTokens = Field(default="own", description="Whose upload tokens are minted: `own` or `devpi`.")
    devpi_token_file: str | None = Field(default=None, description="A file with the devpi token that is narrowed.")
    reads: ReadAccess = Field(default="off", description="Whether reads are served: `off`, `public` or `scoped`.")
    fallback_index: PlainUrl | None = Field(
        default=None, description="The public simple index that has all names that nobody holds here."
    )
    forward_auth: ForwardAuth = Field(
        default="off",
        description="Which kind of proxy asks before it sends reads on: `nginx`, `traefik`, `envoy` or `caddy`.",
    )


def _read(path: Path, settings: Settings) -> tuple[RegistrySettings, ...]:
    def meant(shape: _FileShape, file: SettingsFile) -> tuple[RegistrySettings, ...]:
        reader = _Reader(file, settings)
        found = [one for name, entry in shape.registries.items() if (one := reader.registry(name, entry)) is not None]
        for name, what, remedy in _conflicts(found, settings):
            file.add(("registries", name), what, remedy)
        defaults = {one.public_url: one.name for one in reversed(found)}
        return tuple(replace(one, is_default=defaults[one.public_url] == one.name) for one in found)

    return settings_file.read("BROKER_REGISTRIES", path, _FileShape, meant)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes registries of a file's entries."""

    file: SettingsFile
    settings: Settings

    def registry(self, name: str, entry: Entry) -> RegistrySettings | None:
        """One registry; None where its fields cannot be meant."""
        place = ("registries", name)
        shape = self.file.shaped(RegistryShape, entry, place)
        if shape is None:
            return None
        if (shape.upload_tokens == "devpi") != (shape.devpi_token_file is not None):
            self.file.add(place, "has one of `upload_tokens: devpi` and `devpi_token_file`", "Write both, or none.")
        if shape.fallback_index is not None and shape.reads == "off":
            what = "is for those who read here, and nobody does"
            self.file.add((*place, "fallback_index"), what, "Write `reads: scoped` or `public` too, or neither.")
        if shape.forward_auth != "off" and shape.reads != "scoped":
            what = "decides by tokens for reads, and there are none"
            self.file.add((*place, "forward_auth"), what, "Write `reads: scoped` too, or neither.")
        return RegistrySettings(
            name=name,
            public_url=shape.public_url or self.settings.public_url,
            upload_path=shape.path,
            audience=shape.audience,
            url=shape.url,
            index_url=_index_url(shape.url, shape.index_url),
            credential=self._credential(shape, place),
            timeout_seconds=shape.timeout,
            upload_limit_bytes=shape.upload_limit_bytes,
            release_days=shape.release_days,
            drop=frozenset(shape.drop_fields),
            pass_user_agent=shape.pass_user_agent,
            organizations=None if shape.organizations is None else frozenset(shape.organizations),
            upload_tokens=shape.upload_tokens,
            devpi_token=self._secret((*place, "devpi_token_file"), shape.devpi_token_file),
            reads=shape.reads,
            fallback_index=_slash(shape.fallback_index),
            forward_auth=shape.forward_auth,
        )

    def _credential(self, shape: RegistryShape, place: Place) -> Credential:
        if shape.bearer_file is not None:
            if shape.username is not None or shape.password_file is not None:
                what = "has a bearer token, and a user or a password"
                self.file.add(place, what, "Write `bearer_file` alone, or the other two.")
            return Credential(secret=self._secret((*place, "bearer_file"), shape.bearer_file))
        if (shape.username is None) != (shape.password_file is None):
            self.file.add(place, "has one of `username` and `password_file`", "Write both, or none.")
        secret = self._secret((*place, "password_file"), shape.password_file)
        return Credential(username=shape.username or "", secret=secret)

    def _secret(self, place: Place, path: str | None) -> SecretStr:
        """An empty one where none is named, or it cannot be read."""
        secret = None if path is None else self.file.secret(place, path)
        return SecretStr("") if secret is None else secret


def _conflicts(found: Iterable[RegistrySettings], settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Which registry cannot stand beside an earlier one, or beside the settings."""
    earlier: list[RegistrySettings] = []
    for one in found:
        for other in earlier:
            if one.audience == other.audience:
                yield one.name, f"has the audience of {other.name!r}", "Give each registry an audience of its own."
            if one.upload_url == other.upload_url:
                yield one.name, f"has the path of {other.name!r}", "Give each registry of a host a path of its own."
            if one.public_url == other.public_url and (path := _overlap(one, other)) is not None:
                yield (
                    one.name,
                    f"serves {path!r} as {other.name!r} does",
                    "Give it a path that is not below the other's `simple/` and `files/`, where reads are served.",
                )
            if _host(one) == _host(other) and one.public_url != other.public_url:
                yield (
                    one.name,
                    f"has the host of {other.name!r} with another scheme or port",
                    "Give it another host name.",
                )
        if settings.spool_limit_bytes is not None and settings.spool_limit_bytes < one.upload_limit_bytes:
            yield (
                one.name,
                "takes larger uploads than BROKER_SPOOL_LIMIT_BYTES",
                "Give room for one, or take smaller ones.",
            )
        if one.release_days is not None and one.release_days > settings.audit_days:
            yield one.name, "has more `release_days` than BROKER_AUDIT_DAYS", "Keep records longer, or write fewer."
        earlier.append(one)


def _overlap(one: RegistrySettings, other: RegistrySettings) -> str | None:
    """A path of one that stands where the other serves reads, or the reverse."""
    return next(
        (
            path
            for this, that in ((one, other), (other, one))
            for path in this.paths
            if path.startswith(that.read_paths)
        ),
        None,
    )


def _host(one: RegistrySettings) -> str | None:
    return urlsplit(one.public_url).hostname
