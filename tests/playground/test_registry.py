"""The registry is a real one, and its password is the only way to upload."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from broker.playground.registry import PackageRegistry, serving_registry

FILENAME = "acme_widgets-1.0.0-py3-none-any.whl"


@pytest.fixture(scope="module", name="registry")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PackageRegistry]:
    with serving_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def uploads(registry: PackageRegistry, password: str, content: bytes) -> bool:
    """Whether an upload with that password succeeds. The registry may hang up on one that it refuses, body unread."""
    try:
        answer = httpx.post(
            registry.url,
            data={":action": "file_upload", "name": "acme-widgets", "version": "1.0.0"},
            files={"content": (FILENAME, content)},
            auth=(registry.username, password),
            trust_env=False,
        )
    except httpx.TransportError:
        return False
    return answer.is_success


def test_only_the_password_uploads_and_anybody_reads(registry: PackageRegistry) -> None:
    assert registry.listing("acme-widgets") == {}
    assert not uploads(registry, "wrong", b"evil")
    assert registry.stored() == {}
    assert uploads(registry, registry.password, b"wheel")
    expected = {FILENAME: hashlib.sha256(b"wheel").hexdigest()}
    assert registry.stored() == expected
    assert registry.listing("acme-widgets") == expected


def test_an_index_that_cannot_be_read_is_not_an_empty_one(registry: PackageRegistry) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        registry.listing("acme..widgets")


def test_the_password_is_not_shown_and_not_written(registry: PackageRegistry) -> None:
    assert registry.password not in repr(registry)
    folder = registry.packages.parent
    assert {path.name for path in folder.iterdir()} == {"packages", "htpasswd", "registry.log"}
    assert all(registry.password.encode() not in path.read_bytes() for path in folder.iterdir() if path.is_file())


def test_two_registries_have_two_passwords(registry: PackageRegistry, tmp_path: Path) -> None:
    with serving_registry(tmp_path / "other") as other:
        assert other.password != registry.password
        assert not uploads(other, registry.password, b"evil")
        assert uploads(other, other.password, b"wheel")
