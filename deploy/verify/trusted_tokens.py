"""Verifies the broker's upload tokens without asking the broker, with PyJWT alone: `pip install "pyjwt[crypto]>=2.14"`.

    tokens = TrustedTokens(issuer="https://upload.acme.example", audience="https://upload.acme.example/legacy/")
    token = tokens.verify(password)             # before the body is read; raises Refused
    ...                                         # read and judge the form, then:
    tokens.confirm(token, "acme-widgets")       # still good, and for this project; raises Refused

What cannot be checked here is refused, never passed over: tokens with `uses`, which somebody would have to count, and
tokens with a claim that this file does not know, for it may narrow what they are good for.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import jwt

USER: Final = "__token__"

CLAIMS: Final = frozenset(
    {"iss", "aud", "sub", "jti", "iat", "nbf", "exp", "scope", "projects", "publishers", "provider", "identity"}
)
"""What every upload token carries."""
NARROWING: Final = frozenset({"project", "version", "sha256"})
"""What a token may carry beside that. `project` says once more what is in `projects`; `uses` is left out on purpose."""

_LONGEST_TOKEN = 32 * 1024
_LONGEST_ANSWER_BYTES = 64 * 1024
_CLOCKS_DIFFER_SECONDS = 30
"""A token may be that far from beginning. None is taken after its end."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_PROJECTS = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*(?:-\*)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)


class Refused(Exception):  # noqa: N818 - as the broker names them
    """No, with an HTTP status, one of the broker's codes (docs/reference/refusals.md) and a reason for the client."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = HTTPStatus(status)
        self.code = code
        self.detail = detail

    def answer(self) -> tuple[list[tuple[str, str]], bytes]:
        """Headers and body (RFC 9457); clients show the title."""
        told = {"title": str(self), "status": int(self.status), "detail": self.detail, "code": self.code}
        body = json.dumps(told).encode()
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", 'Basic realm="uploads"'))
        return headers, body


def normalise(name: str) -> str:
    """A project's name as registries compare it (PEP 503): 'Acme._Widgets' -> 'acme-widgets'.

    Raises:
        Refused: it is none.
    """
    if not _NAME.fullmatch(name):
        raise Refused(403, "project-not-granted", f"{name[:100]!r} is no project's name")
    return re.sub(r"[-_.]+", "-", name).lower()


def covers(projects: frozenset[str], project: str) -> bool:
    """Whether a normalised name is one of these, or begins with a prefix such as 'acme-*'."""
    prefixes = (one.removesuffix("*") for one in projects if one.endswith("-*"))
    return project in projects or any(project.startswith(one) and project != one for one in prefixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadToken:
    """What a verified upload token is good for."""

    id: str
    subject: str
    """Organization and publisher."""
    projects: frozenset[str]
    """Names, and prefixes with a `*`."""
    version: str
    """The one release, or empty."""
    sha256: frozenset[str]
    """The only files; or empty, for any."""
    expires_at: int
    text: str = field(repr=False)


# --- The broker's keys -----------------------------------------------------------------------------------------------


class Keys:
    """The broker's public keys: fetched when they are needed, kept, and fetched again when they are old.

    There is one fetch at a time, and none within `cooldown_seconds` of the last, whatever became of that: tokens with
    made-up key ids cause no flood. A key that the broker no longer shows is gone after `fresh_seconds`; where the
    broker does not answer, the last keys serve until they are `oldest_seconds` old, and then no token passes.
    """

    def __init__(
        self,
        url: str,
        *,
        fresh_seconds: float = 300,
        oldest_seconds: float = 3600,
        cooldown_seconds: float = 30,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = _checked(url)
        self._fresh_seconds = fresh_seconds
        self._oldest_seconds = oldest_seconds
        self._cooldown_seconds = cooldown_seconds
        self._clock = clock
        self._kept: tuple[float, Mapping[str, jwt.PyJWK]] = (float("-inf"), {})
        """When they were asked for, and by their ids; one value, so that no thread sees half of it."""
        self._ask_again_at = float("-inf")
        self._fetching = threading.Lock()

    def find(self, key_id: str) -> jwt.PyJWK:
        """The key of that id.

        Raises:
            Refused: the broker has none; or its keys cannot be had.
        """
        key, age_seconds = self._known(key_id)
        if key is None or age_seconds >= self._fresh_seconds:
            self._refresh(wait=key is None)
            key, age_seconds = self._known(key_id)
        if key is not None:
            return key
        if age_seconds >= self._oldest_seconds:
            raise Refused(503, "keys-unavailable", "the broker's keys cannot be had at the moment")
        raise Refused(403, "invalid-upload-token", "none of the broker's keys signed this token")

    def _known(self, key_id: str) -> tuple[jwt.PyJWK | None, float]:
        asked_at, keys = self._kept
        age_seconds = self._clock() - asked_at
        return (keys.get(key_id) if age_seconds < self._oldest_seconds else None), age_seconds

    def _refresh(self, *, wait: bool) -> None:
        # Whoever has a key goes on with it while another thread asks.
        if not self._fetching.acquire(blocking=wait):
            return
        try:
            asked_at = self._clock()
            if asked_at >= self._ask_again_at:
                try:
                    self._kept = (asked_at, _keys(_ask(urllib.request.Request(self._url))))  # noqa: S310 - checked
                except (OSError, http.client.HTTPException, ValueError, jwt.PyJWTError) as error:
                    _log.warning("the broker's keys cannot be had from %s: %s", self._url, error)
                self._ask_again_at = self._clock() + self._cooldown_seconds
        finally:
            self._fetching.release()


def _keys(document: Any) -> Mapping[str, jwt.PyJWK]:
    """The Ed25519 keys of a JWK set (RFC 7517); others are none of the broker's.

    Raises:
        ValueError: it is no JWK set.
    """
    if not isinstance(document, dict) or not isinstance(listed := document.get("keys"), list):
        raise ValueError("the answer is no JWK set")  # noqa: TRY004 - a wrong answer, not a wrong type
    found = {}
    for one in listed:
        match one:
            case {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": str(key_id), "x": str(x)}:
                found[key_id] = jwt.PyJWK({"kty": "OKP", "crv": "Ed25519", "x": x}, "EdDSA")
    return found


# --- Whether a token is good at this moment --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """Asks the broker (RFC 7662): whether the token was revoked, and what both gates give at this moment.

    `broker tokens new NAME` prints the client's id and secret.
    """

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    timeout_seconds: float = 5

    def __post_init__(self) -> None:
        _checked(self.url)

    def projects(self, token: UploadToken) -> frozenset[str]:
        """What the token may upload to now.

        Raises:
            Refused: nothing; or the broker cannot be asked.
        """
        credentials = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}".encode()
        request = urllib.request.Request(  # noqa: S310 - checked
            self.url,
            urlencode({"token": token.text}).encode(),
            {
                "Authorization": f"Basic {base64.b64encode(credentials).decode()}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
        )
        try:
            told = _ask(request, self.timeout_seconds)
        except (OSError, http.client.HTTPException, ValueError) as error:
            _log.error("the broker cannot be asked about a token at %s: %s", self.url, error)
            raise Refused(503, "introspection-unavailable", "the broker cannot be asked at the moment") from error
        match told:
            case {"active": True, "jti": token.id, "projects": [*projects]}:
                return _read_projects(projects)
            case _:
                raise Refused(403, "revoked-token", "the broker no longer takes this token")


# --- Tokens ----------------------------------------------------------------------------------------------------------


class TrustedTokens:
    """Reads the upload tokens of one broker.

    Args:
        issuer: `BROKER_PUBLIC_URL`; tokens carry it as `iss`.
        audience: The broker's upload URL, `BROKER_PUBLIC_URL` and `BROKER_UPLOAD_PATH`; tokens carry it as `aud`,
            wherever the registry is.
        keys: Where the broker's keys are, if not at `issuer`.
        introspection: To ask the broker too, before each upload. Without it, who leaves uploads until the token ends.
        prefix: `BROKER_TOKEN_PREFIX`.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys: Keys | None = None,
        introspection: Introspection | None = None,
        prefix: str = "pypi-",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not issuer or not audience:
            raise ValueError("without an issuer and an audience, any token would do")
        self._issuer = issuer
        self._audience = audience
        self._keys = keys or Keys(f"{issuer}/.well-known/jwks.json")
        self._introspection = introspection
        self._prefix = prefix
        self._clock = clock

    def verify(self, text: str) -> UploadToken:
        """Reads an upload token: signature, type, issuer, audience, times, scope.

        Raises:
            Refused: it is no good, or the keys cannot be had.
        """
        if not text.startswith(self._prefix) or len(text) > _LONGEST_TOKEN:
            raise _invalid("it is no upload token")
        compact = text.removeprefix(self._prefix)
        key = self._keys.find(_key_id(compact))
        try:
            claims = jwt.decode(
                compact,
                key,
                algorithms=["EdDSA"],
                issuer=self._issuer,
                audience=self._audience,
                leeway=_CLOCKS_DIFFER_SECONDS,
                options={"strict_aud": True, "require": sorted(CLAIMS)},
            )
        except jwt.ExpiredSignatureError as error:
            raise _expired() from error
        except Exception as error:  # whatever the library raises at hostile text, it did not accept it
            raise _invalid("it is not of this broker, or for another index") from error
        token = _read(claims, text)
        self._check_time(token)
        return token

    def confirm(self, token: UploadToken, project: str) -> None:
        """The last word, when the whole upload is there: the token has not ended, and covers the project.

        Raises:
            Refused: else.
        """
        self._check_time(token)
        if not covers(token.projects, project):
            raise _not_granted(project)
        if self._introspection is not None and not covers(self._introspection.projects(token), project):
            raise _not_granted(project)

    def _check_time(self, token: UploadToken) -> None:
        if self._clock() >= token.expires_at:
            raise _expired()


def _key_id(compact: str) -> str:
    try:
        header = jwt.get_unverified_header(compact)
    except Exception as error:  # as above
        raise _invalid("it is no token") from error
    key_id = header.get("kid")
    # All of it: a header that says more, such as `crit` or a key of its own, is none of the broker's.
    if not isinstance(key_id, str) or header != {"alg": "EdDSA", "kid": key_id, "typ": "at+jwt"}:
        raise _invalid("its header is not that of an upload token")
    return key_id


def _read(claims: Mapping[str, Any], text: str) -> UploadToken:
    if unknown := claims.keys() - CLAIMS - NARROWING:
        raise Refused(403, "token-narrowed", f"the token has {min(unknown)[:100]!r}, which this registry cannot check")
    match claims:
        case {"scope": "upload", "jti": str(id_), "sub": str(subject), "projects": [*projects], "exp": int(expires_at)}:
            version, sha256 = claims.get("version", ""), claims.get("sha256", [])
        case _:
            raise _invalid("it is not for uploads")
    if "project" in claims and projects != [claims["project"]]:
        raise _invalid("its project is none")
    if "version" in claims and not (isinstance(version, str) and version):
        raise _invalid("its version is none")
    if "sha256" in claims and not (isinstance(sha256, list) and sha256 and all(map(_is_sha256, sha256))):
        raise _invalid("its digests are none")
    return UploadToken(
        id=id_,
        subject=subject,
        projects=_read_projects(projects),
        version=version,
        sha256=frozenset(sha256),
        expires_at=expires_at,
        text=text,
    )


def _read_projects(listed: list[Any]) -> frozenset[str]:
    if not all(isinstance(one, str) and _PROJECTS.fullmatch(one) for one in listed):
        raise _invalid("its projects are none")
    return frozenset(listed)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _invalid(why: str) -> Refused:
    return Refused(403, "invalid-upload-token", why)


def _expired() -> Refused:
    return Refused(403, "expired-upload-token", "the upload token has expired")


def _not_granted(project: str) -> Refused:
    return Refused(403, "project-not-granted", f"the upload token does not cover {project[:100]!r}")


# --- The network -----------------------------------------------------------------------------------------------------


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Another host's keys are not the broker's."""


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())


def _checked(url: str) -> str:
    """The URL, if keys and secrets may go over it: https, or http on this machine."""
    where = urlsplit(url)
    if where.scheme != "https" and (where.scheme != "http" or where.hostname not in {"127.0.0.1", "::1", "localhost"}):
        raise ValueError(f"{url!r} is not https")
    return url


def _ask(request: urllib.request.Request, timeout_seconds: float = 5) -> Any:
    try:
        with _OPENER.open(request, timeout=timeout_seconds) as answer:
            body = answer.read(_LONGEST_ANSWER_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise
    if len(body) > _LONGEST_ANSWER_BYTES:
        raise ValueError("the answer is too long")
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("the answer is nested too deeply") from error
