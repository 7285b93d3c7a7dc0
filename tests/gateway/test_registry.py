"""Sending on: to a real pypiserver, and to servers that misbehave on the wire."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from broker import refusals
from broker.gateway import registry as registry_module
from broker.gateway.credential import Credential
from broker.gateway.form import Form
from broker.gateway.package import Package, check
from broker.gateway.registry import LONGEST_ANSWER, Answer, Registry, RegistryError
from tests.gateway.uploads import (
    BOUNDARY,
    SDIST,
    WHEEL,
    fields_of,
    held,
    join,
    pack_sdist,
    pack_wheel,
    part,
    parts_of,
    pieces,
    reading,
    upload,
    wheel_entries,
)
from tests.registries import PASSWORD, USER, PypiServer, pypi_server

pytestmark = pytest.mark.anyio

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(name="pypiserver", params=["wsgiref", "gunicorn"], scope="module")
def _pypiserver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    """On what it runs on where nothing else is installed, and on what its container runs on."""
    with pypi_server(tmp_path_factory.mktemp("registry"), request.param) as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> None:
    """Each test finds the registry's folder empty."""
    if "pypiserver" in request.fixturenames:
        for path in request.getfixturevalue("pypiserver").packages.iterdir():
            path.unlink()


@asynccontextmanager
async def to(url: str, password: str = PASSWORD, *, seconds: float = 20.0) -> AsyncIterator[Registry]:
    """A registry at this URL, as the broker has it."""
    async with httpx.AsyncClient(trust_env=False, timeout=seconds) as client:
        yield Registry(url=url, credential=Credential(username=USER, secret=SecretStr(password)), client=client)


async def send(registry: Registry, body: bytes, spool: Path) -> Answer:
    """The way of an upload from its body to the registry's answer."""
    try:
        async with reading(pieces(body), spool) as form:
            return await registry.send(form, await asyncio.to_thread(check, form))
    finally:
        await given_back(spool)


async def given_back(spool: Path) -> None:
    """Asserts that the space is free, or is as soon as the thread that reads its last piece has ended."""
    for _ in range(500):
        if not held(spool):
            break
        await asyncio.sleep(0.01)
    assert held(spool) == []


def large_wheel(megabytes: int) -> bytes:
    """A valid wheel that no buffer on the way swallows."""
    return pack_wheel(wheel_entries(**{"acme_widgets/data.bin": bytes(megabytes << 20)}), method=0)


# --- A real registry -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filename", [WHEEL, SDIST])
async def test_the_registry_stores_the_same_bytes(filename: str, pypiserver: PypiServer, tmp_path: Path) -> None:
    file = pack_wheel() if filename == WHEEL else pack_sdist()
    async with to(pypiserver.url) as registry:
        assert await send(registry, upload(file, filename), tmp_path) == Answer(status=200, text="")
    assert pypiserver.stored() == {filename: hashlib.sha256(file).hexdigest()}


async def test_a_large_file_arrives_whole(pypiserver: PypiServer, tmp_path: Path) -> None:
    file = large_wheel(20)
    async with to(pypiserver.url) as registry:
        assert (await send(registry, upload(file), tmp_path)).status == 200
    assert pypiserver.stored() == {WHEEL: hashlib.sha256(file).hexdigest()}


async def test_fields_after_the_file_and_a_signature_make_no_difference(pypiserver: PypiServer, tmp_path: Path) -> None:
    """Sent straight to pypiserver, the signature is stored beside the file."""
    file = pack_wheel()
    parts = [part("gpg_signature", b"signed", f"{WHEEL}.asc"), *parts_of(fields_of(file), file)]
    async with to(pypiserver.url) as registry:
        assert (await send(registry, join(parts[::-1]), tmp_path)).status == 200
    assert pypiserver.stored() == {WHEEL: hashlib.sha256(file).hexdigest()}


async def test_the_answer_to_a_file_that_exists_is_relayed(pypiserver: PypiServer, tmp_path: Path) -> None:
    """As words, not as the page they came in."""
    async with to(pypiserver.url) as registry:
        await send(registry, upload(), tmp_path)
        answer = await send(registry, upload(), tmp_path)
    assert answer.status == 409
    assert f"Package '{WHEEL}' already exists!" in answer.text
    assert "<" not in answer.text


@pytest.mark.parametrize("megabytes", [0, 20])
@pytest.mark.parametrize("password", ["wrong", ""])
async def test_a_credential_that_the_registry_refuses_is_ours(
    password: str, megabytes: int, pypiserver: PypiServer, tmp_path: Path
) -> None:
    """Also when it closes before the file is through, and its answer is lost with the connection."""
    async with to(pypiserver.url, password) as registry:
        with pytest.raises(refusals.RegistryCredential):
            await send(registry, upload(large_wheel(megabytes)), tmp_path)
    assert pypiserver.stored() == {}


async def test_a_registry_killed_while_it_takes_a_file_is_unavailable(tmp_path: Path) -> None:
    file, spool = large_wheel(100), tmp_path / "spool"
    spool.mkdir()
    server = PypiServer(tmp_path / "registry", "gunicorn")
    server.start()
    try:
        async with to(server.url) as registry, reading(pieces(upload(file)), spool) as form:
            package = await asyncio.to_thread(check, form)
            reads = 0
            original = form.file.read_at

            def read_and_kill(offset: int, size: int) -> bytes:
                nonlocal reads
                reads += 1
                if reads == 40:
                    server.stop(signal.SIGKILL)
                return original(offset, size)

            form.file.read_at = read_and_kill  # type: ignore[method-assign]
            with pytest.raises(refusals.RegistryUnavailable):
                await registry.send(form, package)
            assert reads >= 40
        assert server.stored() == {}
    finally:
        server.stop()
    assert held(spool) == []


async def test_a_registry_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    server = PypiServer(tmp_path / "never started")
    async with to(server.url) as registry:
        with pytest.raises(refusals.RegistryUnavailable, match="reached"):
            await send(registry, upload(), tmp_path)


# --- What goes over the wire -----------------------------------------------------------------------------------------


@asynccontextmanager
async def server_of(handler: Handler) -> AsyncIterator[str]:
    """A raw server that does as the handler says with each connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/legacy/"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(answer: bytes, requests: list[tuple[bytes, bytes]] | None = None) -> Handler:
    """Reads a whole request, then says this and closes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if requests is not None:
            requests.append((head, body))
        writer.write(answer)
        await writer.drain()

    return handler


def response(status: str, text: bytes = b"", headers: str = "Content-Type: text/plain") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n{headers}\r\n\r\n".encode() + text


async def test_what_is_sent_is_written_anew(tmp_path: Path) -> None:
    """Read back by the standard library's parser: every field in its order, and nothing else of the client's."""
    requests: list[tuple[bytes, bytes]] = []
    file = pack_wheel()
    body = join(
        [
            part("summary", "s", headers="Content-Type: text/x-of-the-client\r\n"),
            *parts_of(fields_of(file, attestations="[]"), file)[::-1],
        ]
    )
    async with server_of(answering(response("200 OK"), requests)) as url, to(url) as registry:
        await send(registry, body, tmp_path)
        await send(registry, body, tmp_path)
    head, sent = requests[0]
    assert head.startswith(b"POST /legacy/ HTTP/1.1\r\n")
    assert b"of-the-client" not in sent
    assert BOUNDARY.encode() not in head + sent.replace(b"--not-a-boundary", b"")
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type:" + head.lower().partition(b"content-type:")[2] + sent)
    parts = [
        (str(one.get_param("name", header="content-disposition")), one.get_filename(), one.get_payload(decode=True))
        for one in message.iter_parts()
    ]
    async with reading(pieces(body), tmp_path) as form:
        expected = [(name, None, value) for name, value in form.fields]
    assert parts == [*expected, ("content", WHEEL, file)]
    assert requests[1][1] != sent, "the boundary is fresh each time"


async def test_our_credential_and_nothing_of_the_clients_is_sent(tmp_path: Path) -> None:
    requests: list[tuple[bytes, bytes]] = []
    async with server_of(answering(response("200 OK"), requests)) as url, to(url) as registry:
        await send(registry, upload(), tmp_path)
    names = [line.partition(b":")[0].lower() for line in requests[0][0].split(b"\r\n")[1:-2]]
    assert sorted(names) == sorted(
        b"host accept accept-encoding connection user-agent content-type content-length authorization".split()
    )
    assert httpx.BasicAuth(USER, PASSWORD)._auth_header.encode() in requests[0][0]
    assert b"twine" not in requests[0][0].lower()


async def test_a_registry_is_sent_what_it_understands(tmp_path: Path) -> None:
    """A bearer token, no field that it would refuse, and the client's name where the operator wants that."""
    requests: list[tuple[bytes, bytes]] = []
    body = upload(attestations="[]")
    async with server_of(answering(response("200 OK"), requests)) as url, httpx.AsyncClient(trust_env=False) as client:
        registry = Registry(
            url=url,
            credential=Credential(secret=SecretStr("t0ken")),
            client=client,
            drop=frozenset({"attestations", "classifiers"}),
            pass_user_agent=True,
        )
        async with reading(pieces(body), tmp_path) as form:
            package = await asyncio.to_thread(check, form)
            for user_agent in ("uv/0.13.8 ({})", "x\r\nEvil: 1", "", "x" * 201, " uv"):
                await registry.send(form, package, user_agent)
    head, sent = requests[0]
    assert b"authorization: bearer t0ken\r\n" in head.lower()
    assert b"attestations" not in sent
    assert b"classifiers" not in sent
    assert b'name="version"' in sent
    assert b"user-agent: uv/0.13.8 ({})\r\n" in head.lower()
    for head, _ in requests[1:]:
        assert b"user-agent: python-httpx" in head.lower(), "ours, where the client's is none"
        assert b"evil" not in head.lower()


async def test_a_registry_may_be_silent_for_a_time_of_its_own(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server_of(silent) as url, httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        registry = Registry(url=url, credential=Credential(secret=SecretStr("t")), client=client, timeout_seconds=0.3)
        began = time.monotonic()
        with pytest.raises(refusals.RegistryUnavailable, match="in time"):
            await send(registry, upload(), tmp_path)
    assert time.monotonic() - began < 10


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads what it is sent, and begins an answer without end, a letter at a time."""
    reading = asyncio.ensure_future(reader.read(1 << 20))
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not reader.at_eof():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)
        if reading.done():
            reading = asyncio.ensure_future(reader.read(1 << 20))


async def test_a_registry_that_drips_its_answer_s_head_is_given_up(tmp_path: Path) -> None:
    async with server_of(drips) as url, to(url, seconds=0.5) as registry:
        began = time.monotonic()
        with pytest.raises(refusals.RegistryUnavailable, match="in time"):
            await send(registry, upload(), tmp_path)
        with pytest.raises(refusals.RegistryUnavailable, match="in time"):
            async with registry.reading(url, "*/*"):
                pass
    assert time.monotonic() - began < 10


async def test_with_a_client_that_waits_for_ever_so_does_the_broker(tmp_path: Path) -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.5)
        writer.write(response("200 OK"))

    async with server_of(late) as url, httpx.AsyncClient(trust_env=False, timeout=None) as client:
        registry = Registry(url=url, credential=Credential(secret=SecretStr("t")), client=client)
        assert (await send(registry, upload(), tmp_path)).status == 200


async def test_names_cannot_break_out_of_their_quotes() -> None:
    """The grammar of parts refuses such names; were it wrong, they would still stay names."""
    package = Package(
        project="a", name="a", version="1", filename='a"\r\nX: y', filetype="sdist", sha256="", size_bytes=0
    )
    form = Form(fields=(('name"\r\n\r\nvictim', b"v"),), filename=package.filename, file=None)  # type: ignore[arg-type]
    opening, _ = registry_module._encode(form, package, "b", frozenset())
    assert opening.split(b"\r\n") == [
        b"--b",
        b'Content-Disposition: form-data; name="name%22%0D%0A%0D%0Avictim"',
        b"",
        b"v",
        b"--b",
        b'Content-Disposition: form-data; name="content"; filename="a%22%0D%0AX: y"',
        b"Content-Type: application/octet-stream",
        b"",
        b"",
    ]


async def test_a_client_that_reads_the_environment_is_not_taken() -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(ValueError, match="environment"):
            Registry(
                url="http://127.0.0.1/", credential=Credential(username=USER, secret=SecretStr(PASSWORD)), client=client
            )


async def test_the_credential_shows_nowhere(tmp_path: Path) -> None:
    server = PypiServer(tmp_path / "never started")
    async with to(server.url) as registry:
        assert PASSWORD not in repr(registry)
        with pytest.raises(refusals.RegistryUnavailable) as caught:
            await send(registry, upload(), tmp_path)
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in f"{error!r} {error} {vars(error)}"
        error = error.__cause__


def test_what_the_operator_is_told_of_a_url_lets_nobody_in() -> None:
    told = str(RegistryError("GET", f"https://{USER}:{PASSWORD}@files.example/a.whl?token={PASSWORD}", status=403))
    assert told == "GET https://files.example/a.whl: answered 403"


# --- How registries answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (response("200 OK"), (200, "")),
        (response("201 Created", b"created"), (201, "created")),
        (response("204 No Content"), (204, "")),
        (response("400 Bad Request", b"no"), (400, "no")),
        (response("413 Too Large", b"too large"), (413, "too large")),
        (response("500 Oops", "Fehler: ü\n".encode()), (500, "Fehler: ü")),
        (response("507 Full"), (507, "")),
        (response("400 No", b"\xff\x1b[31mred\x00\r\nline"), (400, "\N{REPLACEMENT CHARACTER}[31mred\nline")),
        (response("400 No", b"<script>x()</script>", "Content-Type: text/plain"), (400, "<script>x()</script>")),
        (
            response(
                "400 No",
                b"<title>T</title><style>p {}</style><script>x < 1</script><h1>No:</h1>&lt;it&gt; <p>exists<![x[",
                "Content-Type: text/html; charset=utf-8",
            ),
            (400, "No: <it> exists"),
        ),
        (response("400 No", b"<" * 9000, "Content-Type: text/html"), (400, "")),
        (response("400 No", b"\x1f\x8b\x08", "Content-Encoding: gzip"), (400, "")),
        (response("400 No", f"you sent {PASSWORD}".encode()), (400, "")),
        (response("400 No", httpx.BasicAuth(USER, PASSWORD)._auth_header.encode()), (400, "")),
        (response("400 No", b"." * (LONGEST_ANSWER + 1 - len(PASSWORD)) + PASSWORD.encode()), (400, "")),
        (response("400 No", b"." * (LONGEST_ANSWER - 1) + PASSWORD.encode(), "Content-Type: text/html"), (400, "")),
        (response("400 No", b"." * (LONGEST_ANSWER + 9)), (400, "." * LONGEST_ANSWER)),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + response("200 OK"), (200, "")),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", (200, "until the end")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut", (200, "cut")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\n", (200, "abc")),
    ],
)
async def test_an_answer_is_relayed_as_text(answer: bytes, expected: tuple[int, str], tmp_path: Path) -> None:
    async with server_of(answering(answer)) as url, to(url) as registry:
        relayed = await send(registry, upload(), tmp_path)
    assert (relayed.status, relayed.text) == expected


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_refused_credential_is_the_brokers_trouble(status: str, tmp_path: Path) -> None:
    async with server_of(answering(response(status, b"go away"))) as url, to(url) as registry:
        with pytest.raises(refusals.RegistryCredential):
            await send(registry, upload(), tmp_path)


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent", "304 Not Modified"]
)
async def test_a_redirect_is_not_followed(status: str, tmp_path: Path) -> None:
    """Whoever it names gets neither the credential nor the file."""
    elsewhere: list[tuple[bytes, bytes]] = []
    async with server_of(answering(response("200 OK"), elsewhere)) as other:
        redirect = response(status, headers=f"Location: {other}")
        async with server_of(answering(redirect)) as url, to(url) as registry:
            with pytest.raises(refusals.RegistryUnavailable):
                await send(registry, upload(), tmp_path)
    assert elsewhere == []


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 999 What\r\n\r\n", b"HTTP/1.1 200 OK\r\nX" + b"x" * 200_000],
)
async def test_what_is_no_http_answer_is_none(answer: bytes, tmp_path: Path) -> None:
    async with server_of(answering(answer)) as url, to(url) as registry:
        with pytest.raises(refusals.RegistryUnavailable):
            await send(registry, upload(), tmp_path)


async def test_an_answer_of_fifty_megabytes_is_cut_short(tmp_path: Path) -> None:
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 52428800\r\n\r\n")(reader, writer)
        for _ in range(50):
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            sent += 1

    async with server_of(handler) as url, to(url) as registry:
        answer = await send(registry, upload(), tmp_path)
    assert answer == Answer(status=200, text="x" * LONGEST_ANSWER)
    assert sent < 50


async def test_a_registry_that_never_answers_is_given_up(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # noqa: ARG001
        await reader.read(-1)

    async with server_of(handler) as url, to(url, seconds=0.3) as registry:
        with pytest.raises(refusals.RegistryUnavailable, match="in time"):
            await send(registry, upload(), tmp_path)


async def test_an_answer_that_trickles_is_given_up_and_its_status_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n")(reader, writer)
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    monkeypatch.setattr(registry_module, "ANSWER_SECONDS", 0.2)
    async with server_of(handler) as url, to(url) as registry:
        answer = await send(registry, upload(), tmp_path)
    assert answer.status == 201
    assert 0 < len(answer.text) < 1000


@pytest.mark.parametrize("status", ["413 Too Large", "403 Forbidden"])
async def test_a_registry_that_answers_early_and_takes_the_rest_is_heard(status: str, tmp_path: Path) -> None:
    """As nginx does."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(status, b"early"))
        await writer.drain()
        while await reader.read(1 << 16):
            pass

    async with server_of(handler) as url, to(url) as registry:
        if status.startswith("403"):
            with pytest.raises(refusals.RegistryCredential):
                await send(registry, upload(large_wheel(10)), tmp_path)
        else:
            assert await send(registry, upload(large_wheel(10)), tmp_path) == Answer(status=413, text="early")


@pytest.mark.parametrize("closes", [True, False])
async def test_a_registry_that_answers_early_and_takes_no_more_blocks_nothing(closes: bool, tmp_path: Path) -> None:
    """The answer may be lost, the attempt is not: it ends within the client's timeout."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response("413 Too Large", b"early"))
        await writer.drain()
        if not closes:
            await asyncio.sleep(30)

    started = time.monotonic()
    async with server_of(handler) as url, to(url, seconds=0.5) as registry:
        try:
            answer = await send(registry, upload(large_wheel(30)), tmp_path)
        except refusals.RegistryUnavailable:
            pass
        else:
            assert answer == Answer(status=413, text="early")
    assert time.monotonic() - started < 15


async def test_the_second_question_about_our_credential_uploads_nothing(tmp_path: Path) -> None:
    questions: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length: 0\r\n" in head.lower():
            questions.append(head)
            writer.write(response("401 Unauthorized"))
            await writer.drain()
        # An upload is broken off with bytes unread, which resets the connection.

    async with server_of(handler) as url, to(url) as registry:
        with pytest.raises(refusals.RegistryCredential):
            await send(registry, upload(large_wheel(10)), tmp_path)
    assert len(questions) == 1


async def test_a_cancelled_forward_leaves_nothing(tmp_path: Path) -> None:
    reached = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # noqa: ARG001
        await reader.readuntil(b"\r\n\r\n")
        reached.set()
        await asyncio.sleep(30)

    async with server_of(handler) as url, to(url) as registry:
        task = asyncio.create_task(send(registry, upload(large_wheel(30)), tmp_path))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await given_back(tmp_path)
