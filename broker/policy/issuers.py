"""An entry of `issuers` in `index.yaml`: a kind of provider, a URL, and what its tokens may be."""

from __future__ import annotations

import re
from typing import Any, Final

from broker.policy.errors import Findings, Place, shown
from broker.policy.model import Issuer
from broker.policy.shapes import IssuerShape, MemberShape
from broker.policy.validation import validate
from broker.providers import PROVIDERS, Provider

LONGEST_TOKEN_SECONDS: Final = 31 * 24 * 3600
"""What `longest_token` may allow: GitLab's longest job timeout is a month."""

_URL = re.compile(r"https://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[1-9][0-9]{0,4})?((?:/[A-Za-z0-9._~-]+)*)")
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::[1-9][0-9]{0,4})?((?:/[A-Za-z0-9._~-]+)*)")


def compile_issuer(name: str, fields: dict[str, Any], findings: Findings, *, allow_loopback: bool) -> Issuer | None:
    """Compiles one entry, or notes why it cannot be."""
    place: Place = ("issuers", name)
    if name in MemberShape.model_fields:
        what = "is what a field of members is called, among which their ids are keyed by the issuer's name"
        findings.add(place, what, "Choose another name for the issuer.")
    _refuse_url(fields.get("url"), (*place, "url"), findings, allow_loopback=allow_loopback)
    shape = validate(IssuerShape, fields, place, findings)
    if shape is None:
        return None
    provider = PROVIDERS.get(shape.provider)
    if provider is None:
        remedy = findings.suggest(shape.provider, PROVIDERS, f"The broker knows {', '.join(PROVIDERS)}.")
        findings.add((*place, "provider"), f"is no provider: {shown(shape.provider)}", remedy)
        return None
    provider = _declared(provider, shape.claims, (*place, "claims"), findings)
    if provider is None:
        return None
    url = provider.issuer if shape.url is None else shape.url
    if url is None:
        where = f"Each operator has their own {provider.name}: write its URL"
        findings.add((*place, "url"), "is missing", f"{where}{_such_as(provider)}.")
        return None
    form = provider.url_form
    if form is not None and not findings.at((*place, "url")) and re.fullmatch(form.pattern, url) is None:
        what = f"is no {provider.name} issuer's URL: {shown(url)}"
        findings.add((*place, "url"), what, f"Write it{_such_as(provider)}.")
    longest = provider.longest_token_seconds if shape.longest_token is None else shape.longest_token
    if longest > LONGEST_TOKEN_SECONDS:
        findings.add((*place, "longest_token"), "is longer than 744h", "Write a shorter time.")
    return Issuer(
        name=name,
        url=url,
        provider=provider,
        disabled=shape.disabled,
        replay=shape.replay or provider.replay,
        algorithms=shape.algorithms,
        longest_token_seconds=longest,
        organizations=None if shape.organizations is None else frozenset(shape.organizations),
    )


def _declared(kind: Provider, claims: dict[str, Any] | None, place: Place, findings: Findings) -> Provider | None:
    """The kind itself, or where its claims are to be declared, the provider that the declaration makes."""
    if kind.declaration is None:
        if claims is not None:
            findings.add(place, f"is nothing to declare: the claims of {kind.name} are known", "Remove it.")
        return kind
    if claims is None:
        findings.add(
            place, "is missing", f"The broker does not know the claims of {kind.name}: declare what they mean."
        )
        return None
    declaration = validate(kind.declaration, claims, place, findings)
    return None if declaration is None else declaration.provider()


def _such_as(provider: Provider) -> str:
    return "" if provider.url_form is None else f" as {provider.url_form.example}"


def _refuse_url(url: object, place: Place, findings: Findings, *, allow_loopback: bool) -> None:
    if isinstance(url, str) and (wrong := _wrong_url(url, allow_loopback=allow_loopback)):
        findings.add(place, f"cannot be an issuer's URL: {shown(url)}", wrong)


def _wrong_url(url: str, *, allow_loopback: bool) -> str:
    """Why this cannot stand in `iss`, as a remedy; empty where it can.

    Tokens are found by the letter, so a URL has one spelling here: no default port, no upper case in the host, no `/`
    at the end, no escapes or dots that lead to the same place.
    """
    loopback = _LOOPBACK.fullmatch(url)
    if loopback is not None and not allow_loopback:
        return "Write https://; plain http on loopback is for development, and BROKER_ALLOW_LOOPBACK_ISSUERS allows it."
    parts = loopback or _URL.fullmatch(url)
    if parts is not None and not {".", ".."}.intersection(parts[1].split("/")):
        host = url.split("/")[2]
        return "Leave :443 out." if parts is not loopback and host.endswith(":443") else ""
    if not url.startswith("https://"):
        return "Begin with https://."
    if url.endswith("/"):
        return "Write it as tokens say it in `iss`: without the `/` at the end."
    return "Write https://host or https://host/path, the host in lower case, without user, query or fragment."
