"""Forms, judged by both middlewares: what is handed on is one upload that the token covers, written anew."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import httpx
import pytest

import trusted_asgi
import trusted_uploads
from broker import refusals
from broker.gateway import parts as gateway
from broker.gateway import spool
from broker.minting import Narrowing
from tests.deploy.key_server import KeyServer, serving_keys
from tests.deploy.test_trusted_tokens import FILES, fresh, trusted
from tests.gateway.uploads import (
    BOUNDARY,
    CONTENT_TYPE,
    SDIST,
    WHEEL,
    fields_of,
    held,
    join,
    pack_sdist,
    pack_wheel,
    part,
    parts_of,
    raw_part,
    upload,
)
from tests.test_upload_attacks import ATTACKS, FILE, VICTIM, fields, replaced
from tests.web.test_upload_refusals import basic
from trusted_asgi import TrustedASGI
from trusted_tokens import Refused, TrustedTokens
from trusted_uploads import Guard, read_form
from trusted_wsgi import JUDGED, Auther, TrustedWSGI


@dataclass(slots=True)
class Taken:
    """What a registry that takes everything was given."""

    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    """Content-Type and body."""
    reads: list[str] = field(default_factory=list)

    def wsgi(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            assert environ["wsgi.input"].read() == b"", "the length is that of the body"
            self.bodies.append((environ["CONTENT_TYPE"], body))
        else:
            self.reads.append(environ["PATH_INFO"] + "?" + environ["QUERY_STRING"])
        start_response("200 OK", [])
        yield b"taken"

    async def asgi(self, scope: trusted_asgi.Scope, receive: trusted_asgi.Receive, send: trusted_asgi.Send) -> None:
        if scope["method"] == "POST":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            assert len(headers) == len(scope["headers"])
            assert int(headers["content-length"]) == len(body)
            assert scope["trusted_upload"].projects
            self.bodies.append((headers["content-type"], body))
        else:
            self.reads.append(scope["path"] + "?" + scope["query_string"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"taken"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A registry behind one of the middlewares."""

    kind: str
    guard: Guard
    taken: Taken

    def ask(
        self, method: str, path: str, content: bytes | Iterator[bytes] = b"", headers: Sequence[tuple[str, str]] = ()
    ) -> httpx.Response:
        request = httpx.Request(method, f"http://registry.example{path}", headers=headers, content=content)
        if self.kind == "WSGI":
            wsgi = httpx.WSGITransport(TrustedWSGI(self.taken.wsgi, self.guard))
            with httpx.Client(transport=wsgi) as client:
                return client.send(request)

        async def ask() -> httpx.Response:
            asgi = httpx.ASGITransport(TrustedASGI(self.taken.asgi, self.guard))
            async with httpx.AsyncClient(transport=asgi) as client:
                body = content if isinstance(content, bytes) else b"".join(content)
                return await client.send(httpx.Request(method, request.url, headers=headers, content=body))

        return asyncio.run(ask())

    def post(self, body: bytes, token: str | None = None, **headers: str) -> httpx.Response:
        told = {"Authorization": basic(token or fresh()), "Content-Type": CONTENT_TYPE} | headers
        return self.ask("POST", "/", body, list(told.items()))


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[KeyServer]:
    with serving_keys() as server:
        yield server


@pytest.fixture(name="site", params=["WSGI", "ASGI"])
def _site(request: pytest.FixtureRequest, server: KeyServer, tmp_path: Path) -> Iterator[Site]:
    yield Site(kind=request.param, guard=Guard(tokens=trusted(server), spool=tmp_path), taken=Taken())
    assert held(tmp_path) == [], "no space stays taken"


def code_of(answer: httpx.Response) -> str:
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["status"] == answer.status_code
    assert told["title"].startswith(told["code"])
    return str(told["code"])


# --- What passes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("filename", "pack"), [(WHEEL, pack_wheel), (SDIST, pack_sdist)])
def test_an_upload_is_handed_on_written_anew(site: Site, filename: str, pack: Callable[[], bytes]) -> None:
    file = pack()
    assert site.post(upload(file, filename)).text == "taken"
    [(content_type, body)] = site.taken.bodies
    assert BOUNDARY.encode() not in body
    parsed = list(
        BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body).iter_parts()
    )
    sent = {(str(one.get_param("name", header="content-disposition")), one.get_payload(decode=True)) for one in parsed}
    expected: set[tuple[str, object]] = {("content", file)}
    for name, value in fields_of(file, filename).items():
        expected |= {(name, one.encode()) for one in ([value] if isinstance(value, str) else value or [])}
    assert sent == expected
    assert [one.get_filename() for one in parsed if one.get_filename()] == [filename]


def test_reads_pass_untouched_and_without_a_token(site: Site) -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        assert site.ask(method, "/simple/acme-widgets/?format=json").status_code == 200
    assert site.taken.reads == ["/simple/acme-widgets/?format=json"] * 3


def test_fields_may_come_after_the_file_and_a_description_may_be_long(site: Site) -> None:
    parts = parts_of(fields(name=None, description="Widgets.\n" * 200_000), FILE)
    assert site.post(join([*parts, part("name", "Acme.Widgets")])).status_code == 200


def test_what_a_token_is_narrowed_to_passes(site: Site) -> None:
    narrowing = Narrowing(project="acme-widgets", version="1.0", sha256=(hashlib.sha256(FILE).hexdigest(),))
    assert site.post(upload(FILE), fresh(narrowing=narrowing)).status_code == 200


def test_the_fields_there_are_are_those_of_the_gateway() -> None:
    assert gateway.SINGLE - {gateway.SIGNATURE} == trusted_uploads.SINGLE
    assert trusted_uploads.MULTIPLE == gateway.MULTIPLE
    assert trusted_uploads.DIGESTS.keys() == spool.DIGESTS.keys()


# --- What does not ---------------------------------------------------------------------------------------------------


def content(headers: str, body: bytes = FILE) -> bytes:
    """An upload whose file's part has these header lines."""
    return join([*parts_of(fields(), FILE)[:-1], raw_part(headers.encode(), body)])


DISPOSITION = f'Content-Disposition: form-data; name="content"; filename="{WHEEL}"'

FORMS: dict[str, tuple[str, Callable[[], bytes]]] = {
    **ATTACKS,
    "name twice, mine last": ("repeated-field", ATTACKS["name twice, mine last"][1]),
    "a signature": ("unknown-field", lambda: join([*parts_of(fields(), FILE), part("gpg_signature", b"x", "x.asc")])),
    "no action": ("missing-field", lambda: upload(action=None)),
    "an empty action": ("missing-field", lambda: upload(action="")),
    "action twice": ("repeated-field", lambda: upload(action=["file_upload", "remove_pkg"])),
    "another protocol": ("wrong-action", lambda: upload(protocol_version="2")),
    "another project": ("project-not-granted", lambda: replaced(fields(name="victim"), filename=VICTIM)),
    "another project's name alone": ("project-not-granted", lambda: upload(name="victim")),
    "a name that begins as mine": ("project-not-granted", lambda: upload(name="acme-widgets-x")),
    "a name that is none": ("project-not-granted", lambda: upload(name="acme-widgets\nvictim")),
    "no name": ("missing-field", lambda: upload(name=None)),
    "no version": ("missing-field", lambda: upload(version=None)),
    "another version": ("filename-mismatch", lambda: upload(version="1.1")),
    "a version that is written otherwise": ("filename-mismatch", lambda: upload(version="1.0.0")),
    "a version not in its normal form": (
        "filename-mismatch",
        lambda: upload(FILE, "acme_widgets-1.00-py3-none-any.whl", version="1.00"),
    ),
    "another file type": ("filename-mismatch", lambda: upload(filetype="sdist")),
    "no file type": ("missing-field", lambda: upload(filetype=None)),
    "a dash too many": ("filename-mismatch", lambda: upload(filename="acme-widgets-1.0.tar.gz")),
    "an egg": ("filename-mismatch", lambda: upload(FILE, "acme_widgets-1.0-py3.egg")),
    "a filename whose name is none": ("filename-mismatch", lambda: upload(FILE, "_-1.0-py3-none-any.whl")),
    "a filename with a line break": ("malformed-upload", lambda: content(DISPOSITION + "\r\nX")),
    "a wrong blake2": ("digest-mismatch", lambda: upload(blake2_256_digest="0" * 64)),
    "no file": ("missing-field", lambda: join(parts_of(fields(), FILE)[:-1])),
    "a file that is a field": ("malformed-upload", lambda: content('Content-Disposition: form-data; name="content"')),
    "a field that is a file": (
        "malformed-upload",
        lambda: join([part("summary", b"x", "x"), *parts_of(fields(), FILE)]),
    ),
    "an unknown field": ("unknown-field", lambda: join([part("_charset_", "utf-7"), *parts_of(fields(), FILE)])),
    "a field that is no UTF-8": (
        "malformed-upload",
        lambda: join([part("summary", b"\xff"), *parts_of(fields(), FILE)]),
    ),
    "a disposition twice": ("malformed-upload", lambda: content(f"{DISPOSITION}\r\n{DISPOSITION}")),
    "a folded header": ("malformed-upload", lambda: content(f'{DISPOSITION}\r\n ; filename="{VICTIM}"')),
    "another header": ("malformed-upload", lambda: content(f"{DISPOSITION}\r\nContent-Location: x")),
    "no disposition": ("malformed-upload", lambda: content("Content-Type: text/plain")),
    "no headers": ("malformed-upload", lambda: content("")),
    "headers without an end": ("malformed-upload", lambda: content(f"{DISPOSITION}\r\nContent-Type: " + "x" * 3000)),
    "an encoded part": ("unsupported-encoding", lambda: content(f"{DISPOSITION}\r\nContent-Transfer-Encoding: base64")),
    "something before": ("malformed-upload", lambda: b"x\r\n" + upload()),
    "an empty line before": ("malformed-upload", lambda: b"\r\n" + upload()),
    "a boundary that goes on": ("malformed-upload", lambda: content(DISPOSITION, b"\r\n--" + BOUNDARY.encode() + b"x")),
    "a boundary with a space after it": (
        "malformed-upload",
        lambda: content(DISPOSITION, b"\r\n--" + BOUNDARY.encode() + b" \r\n"),
    ),
    "half a line break at the end": ("malformed-upload", lambda: upload()[:-1]),
    "nothing": ("truncated-upload", bytes),
    "too many fields": (
        "request-too-large",
        lambda: join([*[part("keywords", "x")] * 5000, *parts_of(fields(), FILE)]),
    ),
    "too much text": ("request-too-large", lambda: upload(description="x" * 9_000_000)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_is_not_one_upload_of_the_token_s_is_refused(site: Site, form: str) -> None:
    code, body = FORMS[form]
    answer = site.post(body())
    assert code_of(answer) == code
    assert (code, answer.status_code) in {(one.code, one.status) for one in refusals.every()}
    assert site.taken.bodies == []


def test_a_boundary_in_other_parsers_eyes_ends_nothing(site: Site) -> None:
    """pypiserver's parser takes a bare line feed before a boundary. What it gets has another boundary."""
    hidden = f'\n--{BOUNDARY}\nContent-Disposition: form-data; name="name"\n\nvictim\n--{BOUNDARY}--\n'
    assert site.post(upload(FILE, description=hidden)).status_code == 200
    [(content_type, body)] = site.taken.bodies
    assert hidden.encode() in body
    assert BOUNDARY not in content_type


@pytest.mark.parametrize(
    ("narrowing", "code"),
    [
        (Narrowing(version="1.1"), "token-narrowed"),
        (Narrowing(version="1.0.0"), "token-narrowed"),
        (Narrowing(sha256=("0" * 64,)), "token-narrowed"),
        (Narrowing(uses=1), "token-narrowed"),
    ],
)
def test_what_a_token_is_not_narrowed_to_is_refused(site: Site, narrowing: Narrowing, code: str) -> None:
    assert code_of(site.post(upload(), fresh(narrowing=narrowing))) == code
    assert site.taken.bodies == []


def test_a_body_cut_anywhere_is_refused(site: Site) -> None:
    body = upload(FILE)
    for cut in [*range(1, len(body) - 2, len(body) // 20), len(body) - 3]:
        assert 400 <= site.post(body[:cut]).status_code < 500
    assert site.taken.bodies == []


REQUESTS: dict[str, tuple[str, Callable[[Site], httpx.Response]]] = {
    "a query": (
        "wrong-action",
        lambda site: site.ask(
            "POST",
            "/?:action=remove_pkg",
            upload(),
            [("Authorization", basic(fresh())), ("Content-Type", CONTENT_TYPE)],
        ),
    ),
    "another path": ("wrong-action", lambda site: site.ask("POST", "/RPC2", b"", [("Authorization", basic(fresh()))])),
    "the path written otherwise": ("wrong-action", lambda site: site.ask("POST", "//", upload())),
    "removing": ("wrong-action", lambda site: site.ask("DELETE", "/", b"", [("Authorization", basic(fresh()))])),
    "no credentials": ("no-credentials", lambda site: site.ask("POST", "/", upload())),
    "another scheme": ("invalid-upload-token", lambda site: site.post(upload(), Authorization=f"Bearer {fresh()}")),
    "another user": ("invalid-upload-token", lambda site: site.post(upload(), Authorization=basic(fresh(), "alice"))),
    "no Base64": (
        "invalid-upload-token",
        lambda site: site.post(upload(), Authorization="Basic !!"),
    ),
    "no token": ("invalid-upload-token", lambda site: site.post(upload(), "pypi-x")),
    "an expired token": ("expired-upload-token", lambda site: site.post(upload(), fresh(now=1_700_000_000))),
    "compressed": ("unsupported-encoding", lambda site: site.post(upload(), **{"Content-Encoding": "gzip"})),
    "chunked": (
        "unsupported-encoding",
        lambda site: site.ask(
            "POST", "/", upload(), [("Authorization", basic(fresh())), ("Transfer-Encoding", "chunked")]
        ),
    ),
    "a length that is none": ("unsupported-encoding", lambda site: site.post(upload(), **{"Content-Length": "1e3"})),
    "too long": ("request-too-large", lambda site: site.post(b"", **{"Content-Length": str(1 << 31)})),
    "longer than it says": (
        "truncated-upload",
        lambda site: site.post(upload(), **{"Content-Length": str(len(upload()) - 40)}),
    ),
    "shorter than it says": (
        "truncated-upload",
        lambda site: site.post(upload(), **{"Content-Length": str(len(upload()) + 1)}),
    ),
    "no form": ("malformed-upload", lambda site: site.post(upload(), **{"Content-Type": "application/json"})),
    "two boundaries": (
        "malformed-upload",
        lambda site: site.post(upload(), **{"Content-Type": f"{CONTENT_TYPE}; boundary=x"}),
    ),
}


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_that_is_neither_a_read_nor_an_upload_is_refused(site: Site, request_: str) -> None:
    code, ask = REQUESTS[request_]
    answer = ask(site)
    # A server for ASGI does not hand on more than was announced; the test's transport does.
    expected = "malformed-upload" if (site.kind, request_) == ("ASGI", "longer than it says") else code
    assert code_of(answer) == expected
    assert ("www-authenticate" in answer.headers) == (code == "no-credentials")
    assert (site.taken.bodies, site.taken.reads) == ([], [])


@pytest.mark.parametrize(
    ("name", "code"), [("Authorization", "invalid-upload-token"), ("Content-Type", "malformed-upload")]
)
def test_a_header_that_stands_twice_is_none(server: KeyServer, tmp_path: Path, name: str, code: str) -> None:
    """Servers for WSGI join them, as the middleware for ASGI does."""
    site = Site(kind="ASGI", guard=Guard(tokens=trusted(server), spool=tmp_path), taken=Taken())
    told = {"Authorization": basic(fresh()), "Content-Type": CONTENT_TYPE}
    assert code_of(site.ask("POST", "/", upload(), [*told.items(), (name, told[name])])) == code


def test_a_token_that_ends_while_the_body_comes_is_refused(server: KeyServer, tmp_path: Path) -> None:
    times = iter([1.0, 1e12])
    tokens = trusted(server, clock=lambda: next(times))
    site = Site(kind="WSGI", guard=Guard(tokens=tokens, spool=tmp_path), taken=Taken())
    assert code_of(site.post(upload())) == "expired-upload-token"


def test_a_full_disk_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> io.IOBase:
        return open("/dev/full", "wb", buffering=0)  # noqa: PTH123 - what a full disk is like

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    answer = site.post(upload())
    assert (answer.status_code, code_of(answer)) == (507, "upload-storage")


def test_nothing_is_handed_on_that_was_not_judged(server: KeyServer, tmp_path: Path) -> None:
    begun = trusted_uploads.Upload(
        Guard(tokens=trusted(server), spool=tmp_path), trusted(server).verify(fresh()), "", 1
    )
    with pytest.raises(RuntimeError):
        next(begun.chunks())
    begun.close()


def test_a_form_is_read_from_any_file(tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as body:
        body.write(upload(FILE))
        assert read_form(body, CONTENT_TYPE).filename == WHEEL


# --- Their own edges -------------------------------------------------------------------------------------------------


def wsgi_environ(body: io.BufferedIOBase, length: int) -> WSGIEnvironment:
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "HTTP_AUTHORIZATION": basic(fresh()),
        "CONTENT_TYPE": CONTENT_TYPE,
        "CONTENT_LENGTH": str(length),
        "wsgi.input": body,
    }


class Gone(io.BytesIO):
    """A body whose client is gone."""

    def read(self, _size: int | None = -1, /) -> bytes:
        raise ConnectionResetError


def started(*_: object) -> Callable[[bytes], object]:
    return lambda _: None


def test_a_client_that_is_gone_leaves_nothing(server: KeyServer, tmp_path: Path) -> None:
    taken = Taken()
    guard = Guard(tokens=trusted(server), spool=tmp_path)
    list(TrustedWSGI(taken.wsgi, guard)(wsgi_environ(Gone(), 1000), started))

    async def leave() -> None:
        messages: Iterator[trusted_asgi.Message] = iter(
            [{"type": "http.request", "body": upload()[:100], "more_body": True}, {"type": "http.disconnect"}]
        )

        async def receive() -> trusted_asgi.Message:
            return next(messages)

        async def send(message: trusted_asgi.Message) -> None:
            pytest.fail(f"nobody is there to be told {message}")

        told = [("authorization", basic(fresh())), ("content-type", CONTENT_TYPE), ("content-length", "1000")]
        headers = [(name.encode(), value.encode()) for name, value in told]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
        await TrustedASGI(taken.asgi, guard)(scope, receive, send)

    asyncio.run(leave())
    assert taken.bodies == []
    assert held(tmp_path) == []


def test_the_space_is_held_until_the_registry_s_answer_is_closed(server: KeyServer, tmp_path: Path) -> None:
    """A registry may read while it answers."""
    closed: list[bool] = []
    judged: list[object] = []

    class Lazy:
        def __init__(self, body: io.BufferedIOBase) -> None:
            self.body = body

        def __iter__(self) -> Iterator[bytes]:
            yield self.body.read()

        def close(self) -> None:
            closed.append(True)

    def registry(environ: WSGIEnvironment, start_response: StartResponse) -> Lazy:
        judged.append(JUDGED.get())
        start_response("200 OK", [])
        return Lazy(environ["wsgi.input"])

    body = upload(FILE)
    guard = Guard(tokens=trusted(server), spool=tmp_path)
    answer: Any = TrustedWSGI(registry, guard)(wsgi_environ(io.BytesIO(body), len(body)), started)
    assert judged != [None]
    assert JUDGED.get() is None, "it is not handed on any more"
    assert FILE in b"".join(answer)
    assert len(held(tmp_path)) == 1
    answer.close()
    assert (held(tmp_path), closed) == ([], [True])


def test_lifespans_pass_and_web_sockets_do_not() -> None:
    passed: list[str] = []
    sent: list[trusted_asgi.Message] = []

    async def registry(scope: trusted_asgi.Scope, *_: object) -> None:
        passed.append(scope["type"])

    async def receive() -> trusted_asgi.Message:
        raise AssertionError

    async def send(message: trusted_asgi.Message) -> None:
        sent.append(message)

    middleware = TrustedASGI(registry, Guard(tokens=TrustedTokens(issuer="https://a", audience="https://a/")))
    for kind in ("lifespan", "websocket"):
        asyncio.run(middleware({"type": kind}, receive, send))
    assert (passed, [message["type"] for message in sent]) == (["lifespan"], ["websocket.close"])


def test_a_registry_hears_of_a_client_that_leaves_later(server: KeyServer, tmp_path: Path) -> None:
    heard: list[str] = []
    body = upload(FILE)
    messages: Iterator[trusted_asgi.Message] = iter(
        [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]
    )

    async def registry(_: trusted_asgi.Scope, receive: trusted_asgi.Receive, __: trusted_asgi.Send) -> None:
        while (await receive()).get("more_body"):
            pass
        heard.append((await receive())["type"])

    async def receive() -> trusted_asgi.Message:
        return next(messages)

    async def send(_: trusted_asgi.Message) -> None:
        raise AssertionError

    told = [("authorization", basic(fresh())), ("content-type", CONTENT_TYPE), ("content-length", str(len(body)))]
    headers = [(name.encode(), value.encode()) for name, value in told]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/r/",
        "root_path": "/r",
        "query_string": b"",
        "headers": headers,
    }
    asyncio.run(TrustedASGI(registry, Guard(tokens=trusted(server), spool=tmp_path))(scope, receive, send))
    assert heard == ["http.disconnect"]


def test_an_auther_says_yes_only_while_a_judged_form_is_handed_on(server: KeyServer) -> None:
    tokens, text = trusted(server), fresh()
    auther = Auther(tokens)
    assert not auther("__token__", text)
    judged = JUDGED.set(tokens.verify(text))
    try:
        assert auther("__token__", text)
        assert not auther("alice", text)
        assert not auther("__token__", fresh())
        assert not auther("__token__", "pypi-x")
    finally:
        JUDGED.reset(judged)


PAGE = FILES.parent.parent / "docs" / "how-to" / "verify-tokens-yourself.md"


def test_the_page_s_example_runs_and_its_settings_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    [example] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"registry": Taken().asgi}
    exec(example, names)
    assert isinstance(names["app"], TrustedASGI)
    told = set(re.findall(r"\b(?:TRUSTED_[A-Z_]+|PACKAGES|SPOOL)\b", page))
    known = set(re.findall(r'"([A-Z_]+)"', (FILES / "pypiserver_app.py").read_text(encoding="utf-8")))
    assert told == known
    assert {path.name for path in FILES.glob("*.py")} == set(re.findall(r"`(\w+\.py)`", page))


def test_a_refusal_says_its_code() -> None:
    assert str(Refused(403, "revoked-token", "it was")) == "revoked-token: it was"
