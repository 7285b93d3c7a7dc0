"""A certificate authority of one's own, and a certificate for this machine: uv insists on https, even to 127.0.0.1.

The authority's key is never written: it signs one certificate and is forgotten, so nothing else can be made that a
shell with this environment would trust. Extensions are those that rustls (uv), OpenSSL (Python, requests) and RFC 5280
ask for.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=30)
_CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Where the PEM files are."""

    authority: Path
    """The authority alone."""
    trusted: Path
    """The authority beside the public ones: what `SSL_CERT_FILE` may be set to without losing the rest of the world."""
    certificate: Path
    """The server's, for 127.0.0.1, ::1 and localhost."""
    key: Path
    """The server's; mode 0600."""


def make_certificates(folder: Path) -> Certificates:
    """Makes an authority and a server's certificate, valid for 30 days.

    Raises:
        FileExistsError: the folder has such files already.
    """
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _authority(authority_key)
    server = _server(server_key, authority, authority_key)
    certificates = Certificates(
        authority=folder / "authority.pem",
        trusted=folder / "trusted.pem",
        certificate=folder / "certificate.pem",
        key=folder / "certificate.key.pem",
    )
    pem = authority.public_bytes(Encoding.PEM)
    write_private(certificates.key, server_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificates.certificate.write_bytes(server.public_bytes(Encoding.PEM))
    certificates.authority.write_bytes(pem)
    certificates.trusted.write_bytes(Path(certifi.where()).read_bytes() + b"\n" + pem)
    return certificates


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner may read, and that nobody could read before it was full.

    Raises:
        FileExistsError: there is such a file already.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker playground")])
    return (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def _server(
    key: ec.EllipticCurvePrivateKey, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    issuer_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(name, authority.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
        .sign(authority_key, SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _CLOCKS_DIFFER,
        not_valid_after=now + LIFETIME,
    )


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    """An authority signs certificates; a server signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
