"""What `broker probe` asks of a broker: one exchange that must pass, and one that must fail.

Laws:

- whatever upload token a broker gives is burned at once, also one that it must not have given, or gave too late;
- no token is ever part of a result: of an answer, a result holds its status, the attempt's id, and a code that is one
  of the broker's own;
- an identity token goes to the one host that was named: nothing redirects, no proxy is taken from the environment.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import httpx

from broker import refusals
from broker.exchange import SINGLE_USE
from broker.metrics.catalogue import Check
from broker.outgoing import failure

LATE_SECONDS: Final = 30.0
"""How much longer an answer is waited for that is late already: a token that comes with it must be burned."""

BURN_TRIES: Final = 3
BURN_PAUSE_SECONDS: Final = 1.0

MOST_BYTES: Final = 256 * 1024
"""Of an answer. The longest upload token has 32 KiB."""

EXPECTED: Final = refusals.InvalidSignature.code

_CODES: Final = frozenset(refusal.code for refusal in refusals.every())
_IDENTITY_TOKEN: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one check."""

    check: Check
    ok: bool
    seconds: float = 0.0
    """Until the answer was there."""
    status: int = 0
    code: str = ""
    attempt: str = ""
    problem: str = ""
    """What is wrong; empty where nothing is."""
    token_left: bool = False
    """An upload token could not be burned."""

    def as_line(self) -> dict[str, Any]:
        """What is said of it: `check`, `ok`, and what is known."""
        told = {name: value for name, value in asdict(self).items() if value}
        return {"check": self.check, "ok": self.ok, **told, "seconds": round(self.seconds, 4)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    seconds: float
    code: str = ""
    attempt: str = ""
    token: str = field(default="", repr=False)
    """An upload token, if there is one."""


def is_identity_token(text: str) -> bool:
    """Whether it has the form of one."""
    try:
        return bool(_IDENTITY_TOKEN.fullmatch(text)) and bool(_signature(text))
    except binascii.Error:
        return False


def break_signature(token: str) -> str:
    """The same identity token with one bit of its signature changed."""
    signature = bytearray(_signature(token))
    signature[0] ^= 1
    return f"{token.rpartition('.')[0]}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _signature(token: str) -> bytes:
    text = token.rpartition(".")[2]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prober:
    """Asks one broker."""

    url: str
    """Its origin."""
    patience_seconds: float
    """Within which it must answer."""

    async def check(self, token: str) -> list[Result]:
        """Both checks with one identity token.

        The one that must fail is first: a refused exchange does not use the token up, and a broker that grants it all
        the same is then told from one that remembers it.
        """
        async with self._client() as client:
            return [
                await self._run(client, "must-fail", break_signature(token)),
                await self._run(client, "must-pass", token),
            ]

    async def _run(self, client: httpx.AsyncClient, check: Check, token: str) -> Result:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.patience_seconds + LATE_SECONDS):
                answer = await self._exchange(client, token)
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            seconds = time.perf_counter() - began
            return Result(check=check, ok=False, seconds=seconds, problem=f"no answer: {failure(error)}")
        left = bool(answer.token) and not await self._burn(client, answer.token)
        problems = [
            _problem_of(check, answer),
            "the answer came too late" if answer.seconds > self.patience_seconds else "",
            "the upload token could not be burned, and is usable until its end" if left else "",
        ]
        problem = "; ".join(filter(None, problems))
        return Result(
            check=check,
            ok=not problem,
            seconds=answer.seconds,
            status=answer.status,
            code=answer.code,
            attempt=answer.attempt,
            problem=problem,
            token_left=left,
        )

    async def _exchange(self, client: httpx.AsyncClient, token: str) -> _Answer:
        """Asks for an upload token, for one upload alone. What devpi judges itself cannot be burned: a broker that
        mints such tokens refuses the feature, and gives none.
        """
        began = time.perf_counter()
        asked = {"token": token, "features": [SINGLE_USE]}
        status, headers, body = await self._post(client, "/_/oidc/mint-token", asked)
        seconds = time.perf_counter() - began
        attempt = headers.get("attempt-id", "")
        told = body.get("token")
        return _Answer(
            status=status,
            seconds=seconds,
            code=_code_of(body),
            attempt=attempt if re.fullmatch(r"[0-9a-f-]{1,40}", attempt) else "",
            token=told if isinstance(told, str) else "",
        )

    async def _burn(self, client: httpx.AsyncClient, token: str) -> bool:
        """Whether the broker says that it is done."""
        for again in range(BURN_TRIES):
            if again:
                await asyncio.sleep(BURN_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(self.patience_seconds + LATE_SECONDS):
                    status, _, _ = await self._post(client, "/_/oidc/burn-token", {"token": token})
            except (httpx.HTTPError, TimeoutError, ValueError):
                continue
            if status == httpx.codes.ACCEPTED:
                return True
        return False

    async def _post(
        self, client: httpx.AsyncClient, path: str, asked: Mapping[str, object]
    ) -> tuple[int, httpx.Headers, dict[str, Any]]:
        """Status, headers and body; what is no JSON object is an empty one.

        Raises:
            ValueError: the body is endless.
            httpx.HTTPError
        """
        async with client.stream("POST", self.url + path, json=asked) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise ValueError("the answer has no end")
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            told = None
        return answer.status_code, answer.headers, told if isinstance(told, dict) else {}

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            timeout=self.patience_seconds + LATE_SECONDS,
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
        )


def _code_of(body: Mapping[str, Any]) -> str:
    match body:
        case {"errors": [{"code": str(code)}, *_]}:
            return code if code in _CODES else "unknown"
    return ""


def _problem_of(check: Check, answer: _Answer) -> str:
    if check == "must-fail":
        if answer.token:
            return "an identity token with a broken signature was granted an upload token"
        return "" if answer.code == EXPECTED else f"refused otherwise than with {EXPECTED}"
    passed = answer.status == httpx.codes.OK and answer.token
    return "" if passed else "no upload token was granted"
