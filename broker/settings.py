"""`BROKER_*` settings: from the environment or an env file, strict, with secrets also as `..._FILE`.

What of it tells of a registry can stand in a file instead, for several: `registries.py`.

`docs/reference/settings.md` is generated from the descriptions here. A wrong setting is a `SettingsError` that says
what, where and how to mend it; nothing starts with one.
"""

from __future__ import annotations

import difflib
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from broker.addresses import TrustedProxies
from broker.gateway.credential import SecretFile

PREFIX: Final = "BROKER_"

ENV_FILE: Final = "BROKER_ENV_FILE"
"""Names an env file; `broker serve --env-file` sets it, so that worker processes read the same one."""


class SettingsError(Exception):
    """The settings cannot be used; the message holds one line a mistake, and never a secret's value."""


def _plain_url(value: str) -> str:
    # First, for what stands before an @ may hold a password, which `urlsplit` would take for a port and quote; and it
    # drops line breaks, which are still in the value.
    if not re.fullmatch(r"[!-?A-~]*", value):
        raise ValueError("write a URL such as https://upload.acme.example, without user and white space")
    parts = urlsplit(value)
    # Reading the port is what finds a wrong one.
    nonsense = parts.scheme not in {"https", "http"} or not parts.hostname or parts.port == 0
    if nonsense or parts.query or parts.fragment or not re.fullmatch(r"[A-Za-z0-9.:_\[\]-]+", parts.netloc):
        raise ValueError("write a URL such as https://upload.acme.example, without user, query and fragment")
    return value


def _origin(value: str) -> str:
    _plain_url(value)
    if urlsplit(value).path not in {"", "/"}:
        raise ValueError("clients drop the path of the upload URL, so the broker needs a host of its own: no path here")
    return value.rstrip("/")


def _audience(value: str) -> str:
    # GitLab's job variable is the audience in upper case, and clients differ on a leading digit.
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._:/-]{0,199}", value):
        raise ValueError("begin with a letter; letters, digits and . _ : / - may follow")
    return value


def _path(value: str) -> str:
    if not re.fullmatch(r"/(?:[A-Za-z0-9._~-]+/)*", value) or value.startswith(("/_/", "/.well-known/")):
        raise ValueError("write a path such as /legacy/, with a slash at both ends")
    return value


def _proxies(value: str) -> str:
    TrustedProxies.parse(value)
    return value


PlainUrl = Annotated[str, AfterValidator(_plain_url)]
Origin = Annotated[str, AfterValidator(_origin)]
Audience = Annotated[str, AfterValidator(_audience)]
UploadPath = Annotated[str, AfterValidator(_path)]
Proxies = Annotated[str, AfterValidator(_proxies)]

UploadTokens = Literal["own", "devpi"]
ReadAccess = Literal["off", "public", "scoped"]
ForwardAuth = Literal["off", "nginx", "traefik", "envoy", "caddy"]


class _Sources(BaseSettings):
    """Settings from where they are told: the environment first, then the env file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values given by name, then the environment, then the env file; each may name files that hold secrets."""
        del file_secret_settings
        env_file = _EnvFile(settings_cls, env_file=getattr(dotenv_settings, "env_file", None))
        return (
            init_settings,
            env_settings,
            _SecretFiles(settings_cls, os.environ),
            env_file,
            _SecretFiles(settings_cls, env_file.told()),
        )


class Settings(_Sources):
    """What the broker reads at start."""

    policies: Path = Field(default=Path("policies"), description="The folder of policies.")
    policies_stale_after_hours: float = Field(
        default=24.0,
        ge=0,
        le=720,
        description="How long the last good policies decide while the files are broken; then everything is denied.",
    )
    public_url: Origin = Field(
        description="What clients see, such as `https://upload.acme.example`; `iss` of the upload tokens."
    )
    registries: Path | None = Field(
        default=None,
        description="A file that describes several registries, in place of the settings of one: `registries.yaml`.",
    )
    audience: Audience | None = Field(
        default=None,
        validate_default=True,
        description="What identity tokens must carry in `aud`; begins with a letter. Needed, unless "
        "`BROKER_REGISTRIES` tells it.",
    )
    state_url: SecretStr = Field(
        default=SecretStr("sqlite:///state.db"),
        description=(
            "Where state is kept: `sqlite:///state.db`, `redis://...`, `rediss://...`, `redis+sentinel://...` or "
            "`redis+cluster://...`."
        ),
    )
    signing_keys_pem: SecretStr | None = Field(
        default=None,
        description="The Ed25519 keys themselves, PEM blocks one after the other, in place of `BROKER_SIGNING_KEYS`; "
        "a line break may be written `\\n`.",
    )
    signing_keys: Path | None = Field(
        default=None,
        validate_default=True,
        description="A PEM file with Ed25519 keys, or a folder of `*.pem`: all verify, and each says from when it "
        "signs. Read again whenever it changes. Make the first with `broker keys new`, the next with `broker keys "
        "rotate`. Needed, unless `BROKER_SIGNING_KEYS_PEM` has them.",
    )
    upload_path: UploadPath = Field(
        default="/legacy/", description="The path of the upload route, served with and without the last `/`."
    )
    registry_url: PlainUrl | None = Field(
        default=None,
        validate_default=True,
        description="Where uploads are sent on to: the registry's own upload URL. Let nobody but the broker reach it. "
        "Needed, unless `BROKER_REGISTRIES` tells it.",
    )
    registry_index_url: PlainUrl | None = Field(
        default=None,
        description="The registry's simple index, which is asked whether a file is there; default: `simple/` under the "
        "registry's URL, or beside its `legacy/`. For devpi: `https://devpi.example/user/index/+simple/`.",
    )
    release_days: int | None = Field(
        default=None,
        ge=1,
        description="How many days after its first file a release still takes new ones, at most `BROKER_AUDIT_DAYS`; "
        "default: for ever.",
    )
    registry_username: str = Field(default="", description="The registry's user, that only the broker knows.")
    registry_password: SecretStr = Field(
        default=SecretStr(""), description="The password of that user. A file is read again for each use."
    )
    registry_bearer_token: SecretStr = Field(
        default=SecretStr(""), description="A bearer token for the registry, in place of user and password."
    )
    registry_timeout_seconds: float = Field(
        default=120.0, gt=0, le=3600, description="How long the registry may be silent while it takes a file."
    )
    drain_seconds: float = Field(
        default=6.0,
        ge=0,
        le=300,
        description="How long after SIGTERM new connections are still taken, while `/readyz` says 503 and every answer "
        "ends its connection, so that proxies go elsewhere. Longer than proxies keep a connection idle; the broker "
        "itself keeps none for more than 5 s.",
    )
    shutdown_seconds: int = Field(
        default=60,
        ge=0,
        le=3600,
        description="How long after that requests and uploads under way may take; then they are cut off.",
    )
    tls_certificate: Path | None = Field(default=None, description="A PEM file: serve https itself. Needs the key too.")
    tls_key: Path | None = Field(default=None, description="The private key of that certificate.")
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port to listen on.")
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes; all share the state.")
    token_prefix: str = Field(
        default="pypi-",
        pattern=r"^[A-Za-z0-9_-]{0,40}$",
        description="What upload tokens begin with; stock clients and secret scanners expect `pypi-`.",
    )
    upload_tokens: UploadTokens = Field(
        default="own",
        description="Whose upload tokens are minted: the broker's `own`, for its gateway; or those of a `devpi` with "
        "devpi-tokens, to which clients then upload themselves.",
    )
    devpi_token: SecretStr = Field(
        default=SecretStr(""),
        description="The devpi token, of the devpi user `__token__`, that is narrowed for each upload token.",
    )
    reads: ReadAccess = Field(
        default="off",
        description="Whether the registry's simple index and files are served too: to everybody (`public`), or to "
        "those whose token covers the project (`scoped`).",
    )
    fallback_index_url: PlainUrl | None = Field(
        default=None,
        description="A public simple index, such as PyPI's, to which installers are sent for names that no "
        "organization holds and the registry does not have.",
    )
    forward_auth: ForwardAuth = Field(
        default="off",
        description="Which kind of proxy in front of the registry itself asks `/_/authorize` before it sends a read "
        "on: `nginx`, `traefik`, `envoy` or `caddy`. Needs `BROKER_READS=scoped`.",
    )
    trusted_proxies: Proxies = Field(
        default="",
        description="Addresses and networks, `10.0.0.0/8, 2001:db8::5`, of the proxies in front whose "
        "`X-Forwarded-For` says where a request comes from. Without any, that is whoever opened the connection.",
    )
    exchanges_per_minute: int = Field(
        default=120, ge=1, description="Exchanges for one repository, project or service account; more are refused."
    )
    exchanges_per_minute_per_organization: int = Field(
        default=1200, ge=0, description="Exchanges for one organization; 0 for any number."
    )
    exchanges_per_minute_per_issuer: int = Field(
        default=12_000, ge=0, description="Exchanges of one issuer's identity tokens; 0 for any number."
    )
    refusals_per_minute: int = Field(
        default=300,
        ge=0,
        description="Refused attempts from one address (of IPv6, from one /64) at one organization, or at none. "
        "Further ones leave no record of their own and wait for their answer; what is good still passes. "
        "0 for any number.",
    )
    refusals_per_minute_in_all: int = Field(
        default=6000,
        ge=0,
        description="Refused attempts at which no organization was found, from all addresses, that leave a record of "
        "their own. 0 for any number.",
    )
    connections: int = Field(
        default=1000,
        ge=10,
        le=100_000,
        description="How many connections each process has open at once. Beyond, one that waits for its client is "
        "closed, of the address that has the most.",
    )
    upload_limit_bytes: int = Field(
        default=1024**3, ge=1024, description="The largest upload, the form around the file included."
    )
    spool: Path | None = Field(
        default=None,
        description="A folder on a disk with room, where uploads lie while checked; default: the system's.",
    )
    spool_limit_bytes: int | None = Field(
        default=None,
        ge=1024,
        description="How much space uploads under way may take there, in each process; at least one upload's, and "
        "default: 16 times `BROKER_UPLOAD_LIMIT_BYTES`.",
    )
    uploads_at_once: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="How many uploads are under way at once, in each process; a third of them one publisher's, half of "
        "them one organization's. More wait for some seconds, and are refused then.",
    )
    upload_bytes_per_second: int = Field(
        default=16 * 1024,
        ge=1,
        description="How fast an upload must come on average, after its first seconds; a slower one is refused.",
    )
    alerts: Path | None = Field(
        default=None,
        description="A file that says who is told of what, by webhooks: `receivers.yaml`; without: nobody.",
    )
    audit_days: int = Field(default=400, ge=1, description="How long audit records are kept.")
    metrics: Literal["token", "open"] = Field(
        default="token",
        description="Who may read `/metrics`: whoever shows `BROKER_METRICS_TOKEN` (nobody while that is not set), or "
        "everybody (`open`).",
    )
    metrics_token: SecretStr = Field(
        default=SecretStr(""), description="The bearer token that Prometheus shows; 16 characters at least."
    )
    traces_url: PlainUrl | None = Field(
        default=None,
        description="Where an OpenTelemetry collector takes traces, OTLP over HTTP: "
        "`https://collector.acme.example:4318/v1/traces`. Needs the extra `traces`; what else there is to set has "
        "OpenTelemetry's own names: `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS` ...",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    allow_loopback_issuers: bool = Field(
        default=False, description="Development only: issuers may be `http://127.0.0.1:...`. Warned about at start."
    )

    @field_validator("audience", "registry_url")
    @classmethod
    def _needed_unless_there_are_several(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("registries") is None:
            raise ValueError("is not set")
        return value

    @field_validator("signing_keys")
    @classmethod
    def _keys_are_in_one_place(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        told = info.data.get("signing_keys_pem") is not None
        if value is None and not told:
            raise ValueError("is not set")
        if value is not None and told:
            raise ValueError("is set, and so is BROKER_SIGNING_KEYS_PEM: set one of them")
        return value

    def state_address(self) -> str:
        """The state's URL, password and all: for the one who opens it."""
        return self.state_url.get_secret_value()


class Beside(_Sources):
    """What verbs beside a running broker need of its settings; nothing of it has to be told."""

    model_config = SettingsConfigDict(extra="ignore")

    policies: Path = Settings.model_fields["policies"].default
    audience: str = ""
    signing_keys: Path | None = None
    alerts: Path | None = None
    allow_loopback_issuers: bool = False


class BesideState(_Sources):
    """Where a running broker's state is. By itself, for it may be in a file that not everybody may read."""

    model_config = SettingsConfigDict(extra="ignore")

    state_url: SecretStr = Settings.model_fields["state_url"].default


class _EnvFile(DotEnvSettingsSource):
    """The env file, but for the `..._FILE` names in it: those are for `_SecretFiles`."""

    def __call__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__call__().items() if name.upper() not in _secret_files()}

    def told(self) -> dict[str, str]:
        """What the file says, names in upper case."""
        return {name.upper(): value or "" for name, value in self.env_vars.items()}


class _SecretFiles(EnvSettingsSource):
    """`BROKER_REGISTRY_PASSWORD_FILE=/run/secrets/registry`: the file's text, but its last newline, is the secret."""

    def __init__(self, settings_cls: type[BaseSettings], told: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._told = told

    def __call__(self) -> dict[str, Any]:
        values = {}
        for variable, name in _secret_files().items():
            path = self._told.get(variable)
            if path is None or name not in self.settings_cls.model_fields:
                continue
            if variable.removesuffix("_FILE") in self._told:
                raise SettingsError(f"{variable} is set, and so is {variable.removesuffix('_FILE')}: set one of them.")
            try:
                values[name] = SecretFile(Path(path))
            except (OSError, ValueError) as error:
                raise SettingsError(f"{variable}: {path!r} cannot be read ({reason(error)}).") from error
        return values


def secret_names() -> list[str]:
    """The settings that may also be given as `..._FILE`."""
    return [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]


def _secret_files() -> dict[str, str]:
    """'BROKER_REGISTRY_PASSWORD_FILE' -> 'registry_password'."""
    return {f"{PREFIX}{name.upper()}_FILE": name for name in secret_names()}


def load(env_file: str | None = None) -> Settings:
    """Reads the settings from the environment, and what it does not say from the file that `BROKER_ENV_FILE` names.

    Args:
        env_file: As for `read`.

    Raises:
        SettingsError: with one line for each mistake.
    """
    settings = read(Settings, env_file)
    _check_together(settings)
    return settings


Shape = TypeVar("Shape", bound=_Sources)


def read(shape: type[Shape], env_file: str | None = None) -> Shape:
    """Reads some of the settings, as `load` reads all; a name that is none at all is a mistake in either.

    Args:
        env_file: In place of the one that `BROKER_ENV_FILE` names.

    Raises:
        SettingsError: with one line for each mistake.
    """
    # An empty variable is one that is not set, as deployments leave it; an empty option is a slip.
    if env_file == "":
        raise SettingsError("the env file '' does not exist, or is no file.")
    named = env_file or os.environ.get(ENV_FILE)
    file = Path(named) if named else None
    if file is not None and not file.is_file():
        raise SettingsError(f"the env file {file} does not exist, or is no file.")
    try:
        # All of them refuse of themselves what stands in the file and is none; some leave the others alone.
        in_file = _EnvFile(shape, env_file=file).told() if shape.model_config["extra"] == "ignore" else {}
        told = sorted({*os.environ, *in_file})
        unknown = [_unknown(name) for name in told if name.startswith(PREFIX) and name not in _known()]
        if unknown:
            raise SettingsError("\n".join(unknown))
        return shape(_env_file=file)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem) for problem in error.errors(include_input=False))) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the env file {file} cannot be read ({reason(error)}).") from error


def _known() -> set[str]:
    return {PREFIX + name.upper() for name in Settings.model_fields} | {ENV_FILE} | _secret_files().keys()


def _unknown(variable: str) -> str:
    close = difflib.get_close_matches(variable, _known(), n=1)
    return f"{variable}: there is no such setting." + (f" Did you mean {close[0]}?" if close else "")


def _check_together(settings: Settings) -> None:
    lines = []
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        lines.append("BROKER_TLS_CERTIFICATE and BROKER_TLS_KEY: set both, or none.")
    for name in ("tls_certificate", "tls_key"):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            lines.append(f"{PREFIX}{name.upper()}: {path} is no file.")
    if not lines and settings.tls_certificate is not None and settings.tls_key is not None:
        lines += _check_certificate(settings.tls_certificate, settings.tls_key)
    lines += _check_one_registry(settings) if settings.registries is None else _check_several(settings)
    if settings.upload_tokens == "own" and settings.devpi_token.get_secret_value():
        lines.append("BROKER_DEVPI_TOKEN is set, and nothing uses it: set BROKER_UPLOAD_TOKENS=devpi too, or neither.")
    lines += _check_metrics(settings)
    if settings.spool is not None and not settings.spool.is_dir():
        lines.append(f"BROKER_SPOOL: {settings.spool} is no folder.")
    limit = settings.upload_limit_bytes if settings.registries is None else 0
    if settings.spool_limit_bytes is not None and settings.spool_limit_bytes < limit:
        lines.append(
            "BROKER_SPOOL_LIMIT_BYTES: at least BROKER_UPLOAD_LIMIT_BYTES, or the largest upload never passes."
        )
    if settings.release_days is not None and settings.release_days > settings.audit_days:
        lines.append(
            "BROKER_RELEASE_DAYS: at most BROKER_AUDIT_DAYS, for after that nobody knows how old a release is."
        )
    if lines:
        raise SettingsError("\n".join(lines))


SHORTEST_METRICS_TOKEN: Final = 16


def _check_metrics(settings: Settings) -> list[str]:
    token = settings.metrics_token.get_secret_value()
    if token and settings.metrics == "open":
        return ["BROKER_METRICS_TOKEN: is set, and BROKER_METRICS=open asks nobody for it: set one of them."]
    if token and not re.fullmatch(rf"[!-~]{{{SHORTEST_METRICS_TOKEN},}}", token):
        return [f"BROKER_METRICS_TOKEN: {SHORTEST_METRICS_TOKEN} letters, digits and signs at least; no white space."]
    return []


ONE_REGISTRY: Final = (
    "audience",
    "upload_path",
    "registry_url",
    "registry_index_url",
    "release_days",
    "registry_username",
    "registry_password",
    "registry_bearer_token",
    "registry_timeout_seconds",
    "upload_limit_bytes",
    "upload_tokens",
    "devpi_token",
    "reads",
    "fallback_index_url",
    "forward_auth",
)
"""The settings of a single registry: a file of several says each of these for each."""


def _check_one_registry(settings: Settings) -> list[str]:
    bearer = settings.registry_bearer_token.get_secret_value()
    if bearer and (settings.registry_username or settings.registry_password.get_secret_value()):
        return ["BROKER_REGISTRY_BEARER_TOKEN: is set, and so is a user or a password: set one of them."]
    if settings.fallback_index_url is not None and settings.reads == "off":
        return ["BROKER_FALLBACK_INDEX_URL: is for those who read here: set BROKER_READS too, or neither."]
    if settings.forward_auth != "off" and settings.reads != "scoped":
        return ["BROKER_FORWARD_AUTH: decides by tokens for reads: set BROKER_READS=scoped too, or neither."]
    return []


def _check_several(settings: Settings) -> list[str]:
    return [
        f"{PREFIX}{name.upper()}: is set, and so is BROKER_REGISTRIES, whose file says it for each registry."
        for name in ONE_REGISTRY
        if name in settings.model_fields_set
    ]


def _check_certificate(certificate: Path, key: Path) -> list[str]:
    """Loads the two as the server will, which would only say it with a traceback, or ask for a pass phrase."""

    def no_pass_phrase() -> str:
        raise ValueError("the key has a pass phrase: write it without one, for its owner alone to read")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=no_pass_phrase)
    except ValueError as error:
        why = str(error)
    except OSError as error:  # ssl.SSLError is one
        mismatch = getattr(error, "reason", None) == "KEY_VALUES_MISMATCH"
        why = "the key is not this certificate's" if mismatch else "they must be readable, and in PEM form"
    else:
        return []
    return [f"BROKER_TLS_CERTIFICATE and BROKER_TLS_KEY: {certificate} and {key} do not do: {why}."]


def _explain(problem: Mapping[str, Any]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    field = Settings.model_fields.get(name)
    if field is None:
        return _unknown(name.upper())
    what = "is not set" if problem["type"] == "missing" else str(problem["msg"]).removeprefix("Value error, ")
    return f"{PREFIX}{name.upper()}: {what[0].lower()}{what[1:]}. ({field.description})"


def reason(error: Exception) -> str:
    """Why a file could not be read."""
    if isinstance(error, OSError):
        return error.strerror or "unreadable"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
