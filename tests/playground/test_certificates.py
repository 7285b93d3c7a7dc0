"""The certificate convinces strict clients, for this machine and for nothing else."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from broker.playground.certificates import Certificates, make_certificates, write_private


@pytest.fixture(name="made")
def _made(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


def handshake(made: Certificates, host: str, *, trusted: Path | None) -> None:
    """A whole TLS handshake in memory, as strict as Python can be (the default from 3.13 on).

    Raises:
        ssl.SSLError: either side says no.
    """
    client_context = ssl.create_default_context(cafile=trusted)
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(made.certificate, made.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server, client, server]
    for side in waiting:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_strict_client_that_trusts_the_authority_accepts_this_machine(made: Certificates, host: str) -> None:
    handshake(made, host, trusted=made.authority)
    handshake(made, host, trusted=made.trusted)


def test_no_other_host_is_accepted(made: Certificates) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(made, "upload.acme.example", trusted=made.authority)


def test_who_does_not_trust_the_authority_accepts_nothing(made: Certificates) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made, "127.0.0.1", trusted=None)


def test_another_playground_s_authority_is_not_this_one_s(made: Certificates, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made, "127.0.0.1", trusted=make_certificates(other).authority)


def test_the_bundle_keeps_the_public_authorities(made: Certificates) -> None:
    bundle = ssl.create_default_context(cafile=made.trusted)
    assert len(bundle.get_ca_certs()) > 50


def test_keys_are_their_owner_s_alone_and_never_overwritten(made: Certificates) -> None:
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    before = made.key.read_bytes()
    with pytest.raises(FileExistsError):
        write_private(made.key, b"other")
    assert made.key.read_bytes() == before


def test_the_authority_s_key_is_not_kept(made: Certificates) -> None:
    keys = [path for path in made.key.parent.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert keys == [made.key]
