"""What an upload made to harm may cost in memory: measured, and so slower than the tables beside."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from broker import refusals
from broker.gateway import archive
from broker.gateway.spool import SpooledFile
from tests.gateway.test_package import METADATA, SDISTS, WHEELS
from tests.gateway.uploads import check_upload, metadata, pack_wheel, upload, wheel_entries


@pytest.mark.parametrize(
    ("read", "make"),
    [(archive.wheel_metadata, WHEELS["a bomb that hides its size"]), (archive.sdist_metadata, SDISTS["a bomb"])],
)
def test_a_bomb_does_not_fill_the_memory(
    read: Callable[[SpooledFile, Callable[[str], bool]], bytes], make: Callable[[], bytes], tmp_path: Path
) -> None:
    file = SpooledFile(tmp_path)
    file.append(make())
    tracemalloc.start()
    try:
        with pytest.raises(refusals.MetadataMismatch):
            read(file, lambda _: True)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * archive.LARGEST_METADATA
    finally:
        tracemalloc.stop()
        file.close()


@pytest.mark.parametrize("line", [b"a:\n", b" \n", b"a:\r", b"a:\r\n"])
def test_headers_without_end_are_not_parsed(line: bytes, tmp_path: Path) -> None:
    """A wheel of 8 KiB with millions of them took ten seconds and 400 MB."""
    begun = metadata().partition(b"\n\n")[0] + b"\nD: x\n"
    check_upload(upload(pack_wheel(wheel_entries(**{METADATA: begun + line * 40_000 + b"\n\nWidgets."}))), tmp_path)
    many = begun + line * (archive.LARGEST_METADATA // len(line) - 100)
    body = upload(pack_wheel(wheel_entries(**{METADATA: many})))
    tracemalloc.start()
    try:
        with pytest.raises(refusals.MetadataMismatch, match="lines"):
            check_upload(body, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8 * archive.LARGEST_METADATA
    finally:
        tracemalloc.stop()
