"""Any bytes on any route: a 4xx with its code and the attempt id, never a 500, and no error in the log."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness import Broker, Setup

pytestmark = pytest.mark.anyio

POSTED = ["/_/oidc/mint-token", "/_/oidc/github/mint-token", "/_/oidc/burn-token", "/legacy/", "/legacy"]
PATHS = [
    "/",
    "/legacy/%2Bsimple/acme/",
    "/%00",
    "/%ff%fe",
    "/_/oidc/mint-token/",
    "//legacy/",
    "/legacy/%2e%2e/_/oidc/audience",
    "/" + "x" * 5000,
    "/.well-known/pytp?discover=http://[",
    "/.well-known/pytp?discover=%ff",
    "/.well-known/pytp?%zz",
]

DEEP = b"[" * 100_000
BODIES = [
    b"",
    b"null",
    b'"x"',
    b"{}",
    b'{"token": null}',
    b'{"token": 1}',
    b'{"token": ["a.b.c"]}',
    b'{"token": ""}',
    b'{"token": "\\ud800"}',
    b'{"token": "\\u0000.\\u0000.\\u0000"}',
    b'{"token": "a.b.c", "features": {}}',
    b'{"token": "a.b.c", "features": [[]]}',
    b'{"token": "pypi-a.b.c"}',
    b'{"token": "pypi-..."}',
    b'{"token": "' + b"9" * 5000 + b'"}',
    b'{"token": ' + b"9" * 5000 + b"}",
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf{}",
    b"NaN",
    DEEP[:30_000],
    b'{"token":' * 3000,
    b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nacme\r\n--x--\r\n',
]

HEADERS: list[dict[str, str | bytes]] = [
    {},
    {"Content-Type": "multipart/form-data; boundary=x"},
    {"Content-Type": "multipart/form-data"},
    {"Content-Type": "\x00"},
    {"Content-Encoding": "gzip"},
    {"Content-Length": "-1"},
    {"Content-Length": "9" * 5000},
    {"Content-Length": "٣"},
    {"Authorization": "Basic"},
    {"Authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()},
    {"Authorization": "Basic " + base64.b64encode(b"__token__").decode()},
    {"Authorization": "Basic " + base64.b64encode(b"__token__:pypi-a.b.c").decode()},
    {"Authorization": "Basic " + base64.b64encode(b"__token__:" + "pypi-é".encode()).decode()},
    {"Authorization": "Bearer x"},
    {"Authorization": b"\xff\xfe"},
]


UNLIMITED = {"refusals_per_minute": 0, "refusals_per_minute_in_all": 0}
"""Each is to be looked at."""


def garbage(seed: int, most: int) -> Iterator[bytes]:
    """Bodies by chance: bytes, and JWT-like texts of odd JSON."""
    chance = random.Random(seed)
    odd: list[object] = [
        None,
        True,
        0,
        -1,
        1e300,
        "",
        "x",
        [],
        {},
        [{}],
        {"iss": 1},
        "https://token.actions.githubusercontent.com",
    ]
    for _ in range(most):
        parts = [
            base64.urlsafe_b64encode(json.dumps({name: chance.choice(odd) for name in names}).encode()).rstrip(b"=")
            for names in (("alg", "kid", "crit", "typ"), ("iss", "aud", "exp", "iat", "sub"))
        ]
        signature = base64.urlsafe_b64encode(chance.randbytes(chance.randrange(40))).rstrip(b"=")
        prefix = chance.choice([b"", b"pypi-"])
        yield b'{"token": "' + prefix + b".".join([*parts, signature]) + b'"}'
        yield chance.randbytes(chance.randrange(200))


def check(answer: httpx.Response) -> None:
    """A 4xx that says which, or what is the same for everybody (burning is blind)."""
    assert 400 <= answer.status_code < 500 or answer.status_code == 202, (answer.request.url, answer.text)
    assert answer.headers["attempt-id"]
    if answer.status_code != 202:
        assert answer.json()["errors"][0]["code"]
        assert answer.json()["attempt"] == answer.headers["attempt-id"]


async def send(broker: Broker, method: str, path: str, body: bytes, headers: dict[str, str | bytes]) -> httpx.Response:
    raw = {name: text if isinstance(text, bytes) else text.encode() for name, text in headers.items()}
    return await broker.client.request(
        method, path, content=body, headers={name.encode(): text for name, text in raw.items()}
    )


async def test_any_bytes_are_refused_with_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Setup(folder=tmp_path, settings=UNLIMITED).running() as broker:
        for path in POSTED:
            for body in [*BODIES, *garbage(seed=1, most=25)]:
                check(await send(broker, "POST", path, body, {}))
            for headers in HEADERS:
                for body in BODIES[:3]:
                    check(await send(broker, "POST", path, body, headers))
        for path in PATHS:
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "BREW"):
                answer = await send(broker, method, path, b"x", {})
                assert 400 <= answer.status_code < 500, (method, path, answer.status_code)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told
    assert {line["level"] for line in told} <= {"info", "debug"}


async def test_a_body_that_never_ends_is_not_read_to_its_end(tmp_path: Path) -> None:
    async def endless(read: list[int]) -> object:
        while True:
            read[0] += 1
            assert read[0] < 10_000
            yield b"x" * 1000

    read = [0]
    async with Setup(folder=tmp_path, settings=UNLIMITED).running() as broker:
        answer = await broker.client.post("/_/oidc/mint-token", content=endless(read))  # type: ignore[arg-type]
        assert answer.status_code == 413
    assert read[0] < 100
