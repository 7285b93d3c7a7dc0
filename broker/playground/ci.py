"""A CI that signs: GitHub, GitLab and Google in one object, each with its own issuer URL and its own key.

It works without a network (`transport` answers an httpx client), and served (`serving`), with GitHub's token-request
route and GitLab's variables, so that environment variables alone make an unmodified client think it runs there.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

import httpx
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256

from broker.playground.ci_keys import base64url, public_jwk, signing_key
from broker.playground.claims import (
    AUDIENCE,
    GITHUB_URL,
    GITLAB_URL,
    GOOGLE_URL,
    claims_now,
    github_claims,
    gitlab_claims,
    google_claims,
)

__all__ = ["FakeCI", "IssuerName", "Run", "github_claims", "gitlab_claims", "google_claims", "token_variable"]

IssuerName = Literal["github", "gitlab", "google", "activestate", "buildkite", "circleci", "forgejo", "generic"]

_CLAIMS: Final[Mapping[IssuerName, Callable[..., dict[str, Any]]]] = {
    "github": github_claims,
    "gitlab": gitlab_claims,
    "google": google_claims,
}

_KEY_SETS: Final[Mapping[IssuerName, str]] = {
    "github": "/.well-known/jwks",
    "gitlab": "/oauth/discovery/keys",
    "google": "/oauth2/v3/certs",
}
"""Where each provider keeps its keys: never at a place that could be guessed from the issuer."""
_KEY_SET: Final = "/.well-known/jwks"
"""Of those that are not in the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a GitHub workflow: whoever knows its request token may have its identity tokens."""

    claims: Mapping[str, object]
    """What is different from `github_claims()`."""
    environment: Mapping[str, str] = field(repr=False)
    """What GitHub sets for the run's steps."""


class FakeCI:
    """Three issuers or more, and the runs that were started on them."""

    def __init__(
        self,
        github: str = GITHUB_URL,
        gitlab: str = GITLAB_URL,
        google: str = GOOGLE_URL,
        more: Mapping[IssuerName, str] | None = None,
    ) -> None:
        """Makes the issuers.

        Args:
            more: The URLs of other kinds of issuers.
        """
        self.urls: Mapping[IssuerName, str] = {"github": github, "gitlab": gitlab, "google": google, **(more or {})}
        self._runs: dict[str, Run] = {}

    @classmethod
    def at(cls, origin: str) -> Self:
        """A CI whose issuers are folders of one server, such as 'http://127.0.0.1:8123'."""
        return cls(github=f"{origin}/github", gitlab=f"{origin}/gitlab", google=f"{origin}/google")

    def claims(self, issuer: IssuerName, **changes: object) -> dict[str, Any]:
        """Valid claims of that issuer, with changes as the functions of `claims` take them."""
        told = {"iss": self.urls[issuer], **changes}
        return _CLAIMS[issuer](**told) if issuer in _CLAIMS else claims_now(issuer, told)

    def sign(self, claims: Mapping[str, Any], issuer: IssuerName = "github", **header: object) -> str:
        """An identity token, signed with the issuer's key whatever its header says.

        Args:
            claims: The payload, valid or not.
            issuer: Whose key signs.
            header: Fields of the header to be different; `...` leaves one out.
        """
        fields = {"alg": "RS256", "kid": self.key_id(issuer), "typ": "JWT", **header}
        told = {name: value for name, value in fields.items() if value is not ...}
        signed = f"{_segment(told)}.{_segment(claims)}"
        signature = signing_key(issuer).sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return f"{signed}.{base64url(signature)}"

    def token(self, issuer: IssuerName = "github", **changes: object) -> str:
        """An identity token of a valid run, with changes."""
        return self.sign(self.claims(issuer, **changes), issuer)

    def key_id(self, issuer: IssuerName) -> str:
        """The `kid` of the issuer's key."""
        return str(public_jwk(issuer)["kid"])

    def documents(self) -> dict[str, bytes]:
        """What the issuers publish, by URL: discovery documents and key sets."""
        found: dict[str, dict[str, Any]] = {}
        for name, url in self.urls.items():
            key_set = _key_set_url(name, url)
            found[f"{url}/.well-known/openid-configuration"] = {
                "issuer": url,
                "jwks_uri": key_set,
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "claims_supported": sorted(self.claims(name)),
                "scopes_supported": ["openid"],
            }
            found[key_set] = {"keys": [public_jwk(name)]}
        return {url: json.dumps(document).encode() for url, document in found.items()}

    def transport(self) -> httpx.MockTransport:
        """Answers an httpx client as the issuers' servers would, without a network."""
        documents = self.documents()

        def answer(request: httpx.Request) -> httpx.Response:
            body = documents.get(str(request.url))
            if request.method != "GET" or body is None:
                return httpx.Response(404)
            return httpx.Response(200, stream=httpx.ByteStream(body), headers={"Content-Type": "application/json"})

        return httpx.MockTransport(answer)

    def start_run(self, **changes: object) -> Run:
        """Starts a run on GitHub: each of its token requests gets a fresh token with these claims."""
        request_token = secrets.token_urlsafe(32)
        run = Run(
            claims=changes,
            environment={
                "CI": "true",
                "GITHUB_ACTIONS": "true",
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.urls['github']}/token-request?api-version=2.0",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": request_token,
            },
        )
        self._runs[request_token] = run
        return run

    def answer_token_request(self, request_token: str, audience: str) -> dict[str, Any] | None:
        """What GitHub answers a step that asks for an identity token; None where the request token is no run's."""
        run = self._runs.get(request_token)
        if run is None:
            return None
        value = self.token("github", **{"aud": audience, **run.claims})
        return {"count": len(value), "value": value}

    def start_job(self, audience: str = AUDIENCE, **changes: object) -> dict[str, str]:
        """Starts a job on GitLab: what is in its environment, with the one token that it has for its whole life."""
        token = self.token("gitlab", **{"aud": audience, **changes})
        return {"CI": "true", "GITLAB_CI": "true", token_variable(audience): token}


def token_variable(audience: str) -> str:
    """Where clients look for GitLab's token: 'acme-index' -> 'ACME_INDEX_ID_TOKEN'."""
    letters = (letter.upper() if letter.isascii() and letter.isalnum() else "_" for letter in audience)
    return "".join(letters) + "_ID_TOKEN"


def _key_set_url(name: IssuerName, url: str) -> str:
    # Google's own keys are on another host than its issuer. One that stands in for it has a single server.
    origin = "https://www.googleapis.com" if url == GOOGLE_URL else url
    return origin + _KEY_SETS.get(name, _KEY_SET)


def _segment(value: Mapping[str, Any]) -> str:
    return base64url(json.dumps(value, separators=(",", ":")).encode())
