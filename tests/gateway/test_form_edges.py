"""The numbers and tables of an upload's form, held by a second list of them: what a slip in one entry would change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from broker.gateway.form import Limits
from broker.gateway.parts import read_headers
from broker.gateway.spool import BATCH_BYTES
from tests.fakes import outcome, refused
from tests.gateway.uploads import BOUNDARY, join, part, pieces, raw_part, reading, take

ONCE = [
    ":action",
    "attestations",
    "author",
    "author_email",
    "blake2_256_digest",
    "comment",
    "description",
    "description_content_type",
    "download_url",
    "filetype",
    "home_page",
    "license",
    "license_expression",
    "maintainer",
    "maintainer_email",
    "md5_digest",
    "metadata_version",
    "name",
    "protocol_version",
    "pyversion",
    "requires_python",
    "sha256_digest",
    "summary",
    "version",
]

OFTEN = [
    "classifiers",
    "dynamic",
    "import_name",
    "import_namespace",
    "keywords",
    "license_file",
    "license_files",
    "obsoletes",
    "obsoletes_dist",
    "platform",
    "project_url",
    "project_urls",
    "provides",
    "provides_dist",
    "provides_extra",
    "provides_extras",
    "requires",
    "requires_dist",
    "requires_external",
    "supported_platform",
]

SHORT = [
    ":action",
    "blake2_256_digest",
    "filetype",
    "md5_digest",
    "metadata_version",
    "name",
    "protocol_version",
    "pyversion",
    "sha256_digest",
    "version",
]

FILE = part("content", b"x", "x.whl")
DISPOSITION = b'Content-Disposition: form-data; name="summary"'


@pytest.mark.parametrize("name", ONCE)
def test_fields_that_stand_once(name: str, tmp_path: Path) -> None:
    assert take(join([part(name, "x"), FILE]), tmp_path).fields == ((name, b"x"),)
    with refused("repeated-field"):
        take(join([part(name, "x"), part(name, "x"), FILE]), tmp_path)


@pytest.mark.parametrize("name", OFTEN)
def test_fields_that_may_repeat(name: str, tmp_path: Path) -> None:
    taken = take(join([part(name, "x"), FILE, part(name, "y")]), tmp_path)
    assert taken.fields == ((name, b"x"), (name, b"y"))


@pytest.mark.parametrize("name", [*ONCE, *OFTEN])
def test_only_what_says_what_the_file_is_must_be_short(name: str, tmp_path: Path) -> None:
    def taking(length: int) -> str:
        return outcome(take, join([part(name, "x" * length), FILE]), tmp_path)

    assert taking(255) == "accepted"
    assert (taking(256) != "accepted") is (name in SHORT)


def test_the_bounds_are_what_the_documentation_says() -> None:
    told = Limits()
    assert (told.total_bytes, told.field_bytes, told.short_bytes, told.text_bytes, told.parts) == (
        1024**3,
        4 * 1024**2,
        255,
        8 * 1024**2,
        4096,
    )


@pytest.mark.parametrize("encoding", [b"binary", b"8bit", b"7bit", b"7BIT"])
def test_encodings_that_change_nothing_pass(encoding: bytes) -> None:
    headers = {b"content-disposition": b'form-data; name="summary"', b"content-transfer-encoding": encoding}
    assert read_headers(headers) == ("summary", "")


def test_a_part_may_have_all_three_headers(tmp_path: Path) -> None:
    headers = DISPOSITION + b"\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit"
    assert take(join([raw_part(headers), FILE]), tmp_path).fields == (("summary", b"x"),)


def test_a_part_without_a_disposition_is_refused() -> None:
    with refused("malformed-upload"):
        read_headers({b"content-type": b"text/plain"})


def test_of_several_odd_headers_the_first_by_name_is_told() -> None:
    with refused("malformed-upload") as caught:
        read_headers({b"x-b": b"1", b"x-a": b"1", b"content-disposition": b'form-data; name="summary"'})
    assert "'x-a'" in caught.value.detail


# --- Where the body is cut -------------------------------------------------------------------------------------------

BODY = join([part("summary", f"x {BOUNDARY}-- y"), FILE])
"""The boundary stands in a text, without the line's end and dashes that would make it one."""


@pytest.mark.parametrize("size", range(1, 160))
def test_a_form_is_the_same_wherever_the_network_cut_it(size: int, tmp_path: Path) -> None:
    taken = take(BODY, tmp_path, size=size)
    assert (taken.fields, taken.file) == ((("summary", f"x {BOUNDARY}-- y".encode()),), b"x")
    assert outcome(take, BODY + b"x", tmp_path, size=size) == "malformed-upload"
    assert outcome(take, BODY.removesuffix(b"--\r\n"), tmp_path, size=size) == "truncated-upload"


@pytest.mark.parametrize("behind", [b"\r\nx", b"\r\n\r\n", b"\n", b"x", b"\r\r\n", b"\r\nxyz"])
def test_nothing_comes_after_the_final_boundary_not_even_in_a_piece_of_its_own(behind: bytes, tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield BODY.removesuffix(b"\r\n")
        yield behind

    with refused("malformed-upload"):
        take(body(), tmp_path)


def test_all_texts_together_have_a_bound_to_the_byte(tmp_path: Path) -> None:
    body = join([part("summary", "abc"), part("description", "defg"), FILE])
    assert outcome(take, body, tmp_path, limits=Limits(text_bytes=7)) == "accepted"
    assert outcome(take, body, tmp_path, limits=Limits(text_bytes=6)) == "request-too-large"


def test_a_field_that_is_absent_or_empty_is_missing(tmp_path: Path) -> None:
    async def read() -> list[str]:
        async with reading(pieces(join([part("summary", "x"), part("license", ""), FILE])), tmp_path) as form:
            assert (form.text("summary"), form.get("license"), form.get("name")) == ("x", "", None)
            return [outcome(form.text, name) for name in ("license", "name")]

    assert asyncio.run(read()) == ["missing-field", "missing-field"]


def test_what_was_uploaded_is_not_in_a_repr(tmp_path: Path) -> None:
    async def shown() -> str:
        async with reading(pieces(BODY), tmp_path) as form:
            return repr(form)

    assert asyncio.run(shown()) == "Form(filename='x.whl')"


class _SlowAtFirst(ThreadPoolExecutor):
    """Threads of which the first to be asked takes its time."""

    def submit(self, work: Callable[..., Any], /, *told: Any, **named: Any) -> Future[Any]:
        late, self._late = getattr(self, "_late", 0.2), 0.0

        def later() -> Any:
            time.sleep(late)
            return work(*told, **named)

        return super().submit(later)


def test_batches_are_written_in_the_order_they_came_however_slow_the_disk(tmp_path: Path) -> None:
    file = b"a" * BATCH_BYTES + b"b" * BATCH_BYTES + b"c" * BATCH_BYTES

    async def read() -> bytes:
        asyncio.get_running_loop().set_default_executor(_SlowAtFirst())
        async with reading(pieces(join([part("content", file, "x.whl")])), tmp_path) as form:
            return b"".join(form.file.chunks())

    assert asyncio.run(read()) == file
