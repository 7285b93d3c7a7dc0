"""Why somebody cannot be reached is told in the system's words, and in nobody else's."""

from __future__ import annotations

import asyncio
import errno
import ssl
from pathlib import Path

import httpx
import pytest

from broker.outgoing import client, failure, shown
from broker.playground.certificates import make_certificates

pytestmark = pytest.mark.anyio


async def asked(url: str, **headers: str) -> str:
    """What is told of asking there."""
    async with client(httpx.Timeout(5.0), user_agent="tests") as asking:
        with pytest.raises(httpx.HTTPError) as caught:
            await asking.get(url, headers=headers)
    return failure(caught.value)


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 ready\r\n")
    writer.close()


async def test_nobody_listens() -> None:
    assert await asked("https://127.0.0.1:1/secret") == "ConnectError: Connection refused"


async def test_the_name_is_none() -> None:
    assert (await asked("https://nowhere.invalid/")).startswith("ConnectError: ")
    assert (await asked("https://nowhere.invalid/")).split(": ")[1]


async def test_the_authority_is_unknown(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await asked(f"https://127.0.0.1:{port}/")).startswith("ConnectError: certificate verify failed: ")


async def test_it_speaks_no_tls() -> None:
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await asked(f"https://127.0.0.1:{port}/")).startswith("ConnectError: TLS: ")
        assert await asked(f"http://127.0.0.1:{port}/") == "RemoteProtocolError", "and not what it answered"


async def test_a_credential_that_an_exception_quotes_is_not_told() -> None:
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await asked(f"http://127.0.0.1:{port}/", authorization="Bearer hunter2\n") == "LocalProtocolError"


def test_of_several_addresses_the_first_speaks_for_all() -> None:
    tried = [OSError(errno.ENETUNREACH, "2001:db8::1"), OSError(errno.ECONNREFUSED, "192.0.2.1")]
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = OSError("All connection attempts failed")
    error.__cause__.__cause__ = ExceptionGroup("multiple connection attempts failed", tried)
    assert failure(error) == "ConnectError: Network is unreachable"


def test_exceptions_that_are_each_other_s_causes_are_looked_at_once() -> None:
    error, other = httpx.ConnectError("x"), OSError(errno.ECONNRESET, "x")
    error.__cause__, other.__cause__ = other, error
    assert failure(error) == "ConnectError: Connection reset by peer"


@pytest.mark.parametrize("error", [ssl.SSLError("x"), ssl.SSLCertVerificationError(1, "x")])
def test_an_error_that_tells_nothing_of_itself_is_named(error: ssl.SSLError) -> None:
    assert failure(error).startswith(type(error).__name__)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://user:secret@registry.example:8443/a?key=secret#secret", "https://registry.example:8443/a"),
        ("https://registry.example/a\u202eb", "https://registry.example/a\\u202eb"),
        ("https://registry.example/" + "a" * 400_000, "https://registry.example/" + "a" * 175 + "..."),
        ("https://[::1", "a URL that cannot be read"),
    ],
    ids=["secrets", "what is not printed", "length", "nonsense"],
)
def test_of_a_url_what_lets_nobody_in_is_shown(url: str, told: str) -> None:
    assert shown(url) == told
