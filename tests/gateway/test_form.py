"""What `read_form` takes, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import os
import resource
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker import refusals
from broker.gateway.form import Limits
from broker.gateway.parts import MULTIPLE, SHORT, SINGLE
from broker.gateway.spool import BATCH_BYTES, SpooledFile
from tests.gateway import uploads
from tests.gateway.uploads import BOUNDARY, WHEEL, fields_of, join, part, parts_of, raw_part, reading, take

FILE = b"PK" + bytes(range(256)) * 8
DISPOSITION = b'Content-Disposition: form-data; name="summary"'
CONTENT = f'Content-Disposition: form-data; name="content"; filename="{WHEEL}"'.encode()


BEFORE_FILE = join([part("content", b"", WHEEL)]).partition(f"\r\n--{BOUNDARY}--".encode())[0]


def form(*more: bytes, **changes: str | None) -> bytes:
    """A valid body with more parts at its end."""
    return join([*parts_of(fields_of(FILE, WHEEL, **changes), FILE), *more])


# --- What is taken ---------------------------------------------------------------------------------------------------

# The order of parts of each client, as captured in November 2026 (uv 0.13.8, twine 7.0.0, pdm 2.29.3), or read in its
# source (poetry 2.5.1, hatch 1.18.2, flit 4.2.0, maturin 1.16.0).
CLIENTS = {
    "uv": ":action sha256_digest blake2_256_digest protocol_version metadata_version name version filetype pyversion "
    "author description description_content_type keywords summary requires_python classifiers classifiers dynamic "
    "license_file platform project_urls provides_extra requires_dist content attestations",
    "twine": "classifiers classifiers provides_extra keywords requires_python license_file version author project_urls "
    "platform dynamic summary requires_dist description_content_type name metadata_version description pyversion "
    "filetype sha256_digest gpg_signature attestations blake2_256_digest :action protocol_version content",
    "pdm": "name version filetype pyversion metadata_version summary home_page author author_email maintainer "
    "maintainer_email license description keywords platform classifiers classifiers download_url comment project_urls "
    "requires_dist requires_python provides_extras description_content_type dynamic sha256_digest md5_digest "
    "blake2_256_digest :action protocol_version content",
    "poetry": "md5_digest sha256_digest blake2_256_digest filetype pyversion name version metadata_version summary "
    "author author_email license classifiers project_urls requires_dist requires_python description :action "
    "protocol_version content",
    "hatch": "description metadata_version name version project_urls license_file classifiers import_name "
    "requires_python filetype pyversion :action protocol_version sha256_digest md5_digest blake2_256_digest content",
    "flit": ":action name version metadata_version summary description keywords keywords classifiers requires_dist "
    "supported_platform provides requires obsoletes protocol_version filetype pyversion md5_digest sha256_digest "
    "content",
    "maturin": ":action sha256_digest protocol_version metadata_version name version pyversion filetype content",
    "the file first": "content :action name version filetype sha256_digest md5_digest blake2_256_digest",
}


@pytest.mark.parametrize("client", CLIENTS)
def test_the_form_of_every_client_is_taken_in_its_order(client: str, tmp_path: Path) -> None:
    names = CLIENTS[client].split()
    values = [(name, f"{name} {number}") for number, name in enumerate(names)]
    parts = [part(name, value) for name, value in values]
    parts[names.index("content")] = part("content", FILE, WHEEL)
    if "gpg_signature" in names:
        parts[names.index("gpg_signature")] = part("gpg_signature", b"\xff\x00", f"{WHEEL}.asc")
    taken = take(join(parts), tmp_path)
    assert taken.fields == tuple(
        (name, value.encode()) for name, value in values if name not in {"content", "gpg_signature"}
    )
    assert (taken.filename, taken.file) == (WHEEL, FILE)


@pytest.mark.parametrize("stated_first", [True, False])
def test_every_digest_is_right_whether_stated_before_the_file_or_after(stated_first: bool, tmp_path: Path) -> None:
    parts = parts_of(fields_of(FILE, md5_digest="x"), FILE)
    taken = take(join(parts if stated_first else parts[::-1]), tmp_path)
    assert taken.digests == (
        hashlib.sha256(FILE).hexdigest(),
        hashlib.md5(FILE).hexdigest(),
        hashlib.blake2b(FILE, digest_size=32).hexdigest(),
    )


@pytest.mark.parametrize("name", sorted(MULTIPLE))
def test_fields_with_several_values_keep_them_in_order(name: str, tmp_path: Path) -> None:
    taken = take(form(part(name, "first"), part(name, "second")), tmp_path)
    assert [value for known, value in taken.fields if known == name][-2:] == [b"first", b"second"]


@pytest.mark.parametrize("filename", [None, f"{WHEEL}.asc"])
def test_a_signature_is_read_and_dropped(filename: str | None, tmp_path: Path) -> None:
    told: list[str] = []
    taken = take(form(part("gpg_signature", b"\xff", filename)), tmp_path, on_field=lambda name, _: told.append(name))
    assert "gpg_signature" not in {*told, *dict(taken.fields)}


def test_a_description_of_two_megabytes_is_taken_whole(tmp_path: Path) -> None:
    description = "Zwölf Boxkämpfer \N{BOXING GLOVE}\r\n" * 60_000
    taken = take(form(description=description), tmp_path)
    assert dict(taken.fields)["description"].decode() == description


@pytest.mark.parametrize(
    "content_type",
    [
        f"multipart/form-data; boundary={BOUNDARY}",
        f'Multipart/Form-Data;boundary="{BOUNDARY}"',
        f"multipart/form-data ; Boundary={BOUNDARY}",
    ],
)
def test_content_types_of_one_meaning_are_taken(content_type: str, tmp_path: Path) -> None:
    assert take(form(), tmp_path, content_type=content_type).file == FILE


@pytest.mark.parametrize("boundary", ["=_x y?", "(a),b/c:d", "a" * 70])
def test_a_quoted_boundary_has_more_letters(boundary: str, tmp_path: Path) -> None:
    body = join(parts_of(fields_of(FILE), FILE), boundary)
    assert take(body, tmp_path, content_type=f'multipart/form-data; boundary="{boundary}"').file == FILE


@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_the_line_break_after_the_final_boundary_may_be_missing(end: bytes, tmp_path: Path) -> None:
    assert take(form().removesuffix(b"\r\n") + end, tmp_path).file == FILE


@pytest.mark.parametrize("headers", ["Content-Type: text/plain\r\n", "content-transfer-encoding: 8BIT\r\n"])
def test_headers_that_change_nothing_are_taken(headers: str, tmp_path: Path) -> None:
    assert ("summary", b"s") in take(form(part("summary", "s", headers=headers)), tmp_path).fields


def test_a_file_of_many_batches_arrives_whole(tmp_path: Path) -> None:
    """With lines that begin as the boundary does, and are none."""
    file = (f"\r\n--{BOUNDARY[:-1]}\r\n--{BOUNDARY}-x".encode() + b"\r" * 997) * (4 * BATCH_BYTES // 1000)
    assert take(join(parts_of(fields_of(FILE), file)), tmp_path).file == file


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    assert take(join([part("content", b"", WHEEL)]), tmp_path).file == b""


@pytest.mark.parametrize("letter", [b"\r", b"\n", b"\r\n", b"-", b"\r\n-"])
def test_input_full_of_what_begins_a_boundary_is_taken(letter: bytes, tmp_path: Path) -> None:
    file = letter * (BATCH_BYTES // len(letter))
    assert take(join(parts_of(fields_of(FILE), file)), tmp_path).file == file


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/mixed; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        f"multipart/form-data; boundary={'x' * 71}",
        f'multipart/form-data; boundary="{"x" * 71}"',
        f'multipart/form-data; boundary="{BOUNDARY} "',
        f'multipart/form-data; boundary="{BOUNDARY}',
        f"multipart/form-data; boundary={BOUNDARY}; boundary=y",
        f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}",
        f"multipart/form-data; boundary*={BOUNDARY}",
        f"multipart/form-data; boundary={BOUNDARY}, multipart/form-data; boundary=y",
        f"multipart/form-data; boundary={BOUNDARY}\n",
        "multipart/form-data; boundary=a@b",
        "multipart/form-data; boundary=é",
    ],
)
def test_another_content_type_is_refused(content_type: str, tmp_path: Path) -> None:
    with pytest.raises(refusals.MalformedUpload):
        take(form(), tmp_path, content_type=content_type)


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize(
    "body",
    [
        b"\r\n" + form(),
        b"preamble\r\n" + form(),
        b" " + form(),
        form().replace(b"\r\n", b"\n"),
        form().replace(b"--" + BOUNDARY.encode(), b"--other"),
        b"--" + BOUNDARY.encode() + b"--\r\n",
        b"--" + BOUNDARY.encode() + b" \r\n" + form().partition(b"\r\n")[2],
        form() + b"\r\n",
        form() + b"junk",
        form().removesuffix(b"\r\n") + b"junk",
        form().removesuffix(b"\r\n") + b"\n",
        form().removesuffix(b"\r\n") + b"\r\r\n",
        form() + form(),
        form() + b"\r\n--" + BOUNDARY.encode() + b"--\r\n",
    ],
)
def test_anything_around_the_form_is_refused(body: bytes, size: int, tmp_path: Path) -> None:
    with pytest.raises(refusals.MalformedUpload):
        take(body, tmp_path, size=size)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Type: text/plain",
        DISPOSITION + b"\r\n" + DISPOSITION,
        DISPOSITION + b'\r\ncontent-disposition: form-data; name="name"',
        DISPOSITION + b"\r\nContent-Type: a/b\r\nContent-Type: a/b",
        DISPOSITION + b"\r\nContent-Length: 1",
        DISPOSITION + b"\r\nContent-Location: x",
        DISPOSITION + b"\r\nX-Other: y",
        DISPOSITION + b"\r\nContent-Type:",
        DISPOSITION + b"\r\nContent-Type: text/\xffplain",
        DISPOSITION + b"\r\n folded: yes",
        DISPOSITION + b"\r\nContent-Type: a\r\n folded",
        DISPOSITION + b"\r\nContent-Type: a\nContent-Type: b",
        DISPOSITION + b"\r\nContent-Type: a\rb",
        DISPOSITION + b'; name="name"',
        DISPOSITION + b"; name*=utf-8''name",
        DISPOSITION + b"; charset=utf-8",
        DISPOSITION + b";",
        DISPOSITION + b" ",
        b'Content-Disposition: form-data; name=""',
        b"Content-Disposition: form-data; name=summary",
        b"Content-Disposition: form-data; name='summary'",
        b'Content-Disposition: form-data; name="sum\\"mary"',
        b'Content-Disposition: form-data; name="sum\tmary"',
        b'Content-Disposition: form-data; name="sum mary"',
        b'Content-Disposition: form-data; name="s\xc3\xbcm"',
        b'Content-Disposition: form-data; name="' + b"x" * 65 + b'"',
        b'Content-Disposition: form-data; name*="summary"',
        b'Content-Disposition: form-data; filename="x"; name="content"',
        b'Content-Disposition: form-data; filename="x"',
        b'Content-Disposition: attachment; name="summary"',
        b'Content-Disposition: form-data, form-data; name="summary"',
        b'Content-Disposition : form-data; name="summary"',
        b"Content-Disposition",
        b": x",
        DISPOSITION + b'; filename="notes.txt"',
        DISPOSITION + b'; filename=""',
    ],
)
def test_a_part_that_could_be_read_in_two_ways_is_refused(headers: bytes, tmp_path: Path) -> None:
    with pytest.raises(refusals.MalformedUpload):
        take(join([raw_part(headers), *parts_of(fields_of(FILE), FILE)]), tmp_path)


@pytest.mark.parametrize(
    "headers",
    [
        b'Content-Disposition: form-data; name="content"',
        CONTENT + b'; filename="victim-1.0-py3-none-any.whl"',
        CONTENT + b"; filename*=utf-8''victim-1.0-py3-none-any.whl",
        CONTENT.replace(b"acme_widgets", b'acme"widgets'),
        CONTENT.replace(b"acme_widgets", b"acme\\widgets"),
        CONTENT.replace(b"acme_widgets", b"acme\x00widgets"),
        CONTENT.replace(b"acme_widgets", "äcme_widgets".encode()),
        CONTENT.replace(b"acme_widgets", b"a" * 256),
    ],
)
def test_a_file_whose_name_could_be_read_in_two_ways_is_refused(headers: bytes, tmp_path: Path) -> None:
    with pytest.raises(refusals.MalformedUpload):
        take(join([raw_part(headers, FILE)]), tmp_path)


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "gzip", "binary, base64"])
def test_an_encoded_part_is_refused(encoding: str, tmp_path: Path) -> None:
    with pytest.raises(refusals.UnsupportedEncoding):
        take(form(part("summary", "s", headers=f"Content-Transfer-Encoding: {encoding}\r\n")), tmp_path)


def test_a_part_with_many_or_long_headers_is_refused(tmp_path: Path) -> None:
    for headers in (b"\r\n".join(b"X-%d: x" % number for number in range(9)), b"X: " + b"x" * 100_000, b"x" * 100_000):
        with pytest.raises(refusals.MalformedUpload):
            take(join([raw_part(headers)]), tmp_path)


@pytest.mark.parametrize("name", ["was", "Name", "action", ":Action", "content[]", "files", "sha512_digest", "_method"])
def test_an_unknown_field_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(refusals.UnknownField, match=name.replace("[]", "")):
        take(form(part(name, "x")), tmp_path)


@pytest.mark.parametrize("name", sorted(SINGLE - {"content", "gpg_signature"}))
def test_a_field_with_one_value_stands_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(refusals.RepeatedField, match=name):
        take(join([part(name, "x"), part(name, "x")]), tmp_path)


@pytest.mark.parametrize("name", ["content", "gpg_signature"])
def test_a_file_stands_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(refusals.RepeatedField, match=name):
        take(join([part(name, FILE, "a"), part(name, FILE, "b")]), tmp_path)


def test_a_form_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(refusals.MissingField, match="content"):
        take(join([part("name", "acme")]), tmp_path)


@pytest.mark.parametrize("value", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_text_that_is_not_utf8_is_refused(value: bytes, tmp_path: Path) -> None:
    with pytest.raises(refusals.MalformedUpload, match="summary"):
        take(form(part("summary", value)), tmp_path)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(total_bytes=len(form()) - 1),
        Limits(field_bytes=len("file_upload") - 1),
        Limits(text_bytes=200),
        Limits(parts=len(parts_of(fields_of(FILE), FILE)) - 1),
    ],
)
@pytest.mark.parametrize("size", [1, 65536])
def test_what_is_beyond_a_bound_is_refused(limits: Limits, size: int, tmp_path: Path) -> None:
    with pytest.raises(refusals.RequestTooLarge):
        take(form(), tmp_path, limits=limits, size=size)


@pytest.mark.parametrize("name", sorted(SHORT - {":action"}))
def test_what_says_what_the_file_is_is_short(name: str, tmp_path: Path) -> None:
    """Each of these is compared and recorded; a version of 4 MB can even be equal to 1.0."""
    others = fields_of(FILE) | {name: None}
    take(join([*parts_of(others, FILE), part(name, "0" * 255)]), tmp_path)
    with pytest.raises(refusals.RequestTooLarge, match=name):
        take(join([*parts_of(others, FILE), part(name, "0" * 256)]), tmp_path)


def test_what_is_exactly_at_every_bound_is_taken(tmp_path: Path) -> None:
    fields = fields_of(FILE, description=None, classifiers="x" * 100)
    texts = [len(value) for value in fields.values() if isinstance(value, str)]
    body = join(parts_of(fields, FILE))
    limits = Limits(total_bytes=len(body), field_bytes=max(texts), text_bytes=sum(texts), parts=len(texts) + 1)
    assert take(body, tmp_path, limits=limits, content_length=len(body)).file == FILE


def test_an_announced_length_beyond_the_bound_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    with pytest.raises(refusals.RequestTooLarge):
        take(never(), tmp_path, limits=Limits(total_bytes=100), content_length=101)


def test_a_body_that_is_not_as_long_as_announced_is_refused(tmp_path: Path) -> None:
    body = form()
    with pytest.raises(refusals.TruncatedUpload):
        take(body, tmp_path, content_length=len(body) + 1)
    with pytest.raises(refusals.MalformedUpload):
        take(body, tmp_path, content_length=len(body) - 1)


# --- Laws over all inputs --------------------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, len(form())), max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_chunking_of_a_body_gives_the_same_form(cuts: list[int], tmp_path: Path) -> None:
    body = form()
    edges = [0, *sorted(cuts), len(body)]

    async def chunks() -> AsyncIterator[bytes]:
        for start, end in itertools.pairwise(edges):
            yield body[start:end]

    assert take(chunks(), tmp_path) == take(body, tmp_path)


@pytest.mark.parametrize("size", [1, 2, 3, 61])
def test_small_chunks_give_the_same_form(size: int, tmp_path: Path) -> None:
    assert take(form(), tmp_path, size=size) == take(form(), tmp_path)


@given(length=st.integers(0, len(form()) - 3), size=st.sampled_from([1, 13, 65536]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_no_beginning_of_a_body_is_taken_for_the_whole(length: int, size: int, tmp_path: Path) -> None:
    with pytest.raises(refusals.TruncatedUpload):
        take(form()[:length], tmp_path, size=size)


def test_half_a_line_break_at_the_end_is_a_body_cut_short(tmp_path: Path) -> None:
    with pytest.raises(refusals.TruncatedUpload):
        take(form()[:-1], tmp_path)


@given(at=st.integers(0, len(form()) - 1), byte=st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_a_changed_byte_is_refused_or_shows(at: int, byte: int, tmp_path: Path) -> None:
    """Never another error; and where the file was damaged, the file is another."""
    body, start = form(), form().index(FILE)
    damaged = body[:at] + bytes([byte]) + body[at + 1 :]
    try:
        taken = take(damaged, tmp_path)
    except refusals.Refusal:
        assert damaged != body
        return
    if start <= at < start + len(FILE):
        assert taken.file == damaged[start : start + len(FILE)]


@given(body=st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_any_bytes_after_the_boundary_are_refused(body: bytes, tmp_path: Path) -> None:
    with pytest.raises(refusals.Refusal):
        take(f"--{BOUNDARY}\r\n".encode() + body, tmp_path)


# --- What the story decides on the way -------------------------------------------------------------------------------


def test_a_refusal_of_a_field_ends_the_reading_before_the_file(tmp_path: Path) -> None:
    asked = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal asked
        for chunk in (join([part("name", "victim")]).removesuffix(b"--\r\n") + b"\r\n", b"rest"):
            asked += 1
            yield chunk

    def refuse(name: str, value: str) -> None:
        raise refusals.ProjectNotGranted(f"{name} {value}")

    with pytest.raises(refusals.ProjectNotGranted, match="name victim"):
        take(body(), tmp_path, on_field=refuse)
    assert asked == 1


def test_every_text_field_is_told_once_it_is_complete(tmp_path: Path) -> None:
    told: list[tuple[str, bytes]] = []
    taken = take(form(), tmp_path, on_field=lambda name, value: told.append((name, value.encode())), size=5)
    assert tuple(told) == taken.fields


# --- Nothing is left behind ------------------------------------------------------------------------------------------


def test_the_file_has_no_name_while_it_is_there(tmp_path: Path) -> None:
    """So a broker that is killed leaves nothing either."""

    async def story() -> None:
        async with reading(uploads.pieces(form()), tmp_path):
            assert len(uploads.held(tmp_path)) == 1
            assert "deleted" in uploads.held(tmp_path)[0]

    asyncio.run(story())
    assert uploads.held(tmp_path) == []


@pytest.mark.parametrize("error", [ConnectionResetError, refusals.TruncatedUpload])
def test_an_error_of_the_body_passes_through_and_leaves_nothing(error: type[Exception], tmp_path: Path) -> None:
    async def gone() -> AsyncIterator[bytes]:
        yield BEFORE_FILE
        for _ in range(3):
            yield bytes(BATCH_BYTES)
        assert len(uploads.held(tmp_path)) == 1
        raise error

    with pytest.raises(error):
        take(gone(), tmp_path)


def test_an_error_of_the_reader_of_the_form_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with reading(uploads.pieces(form()), tmp_path):
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(story())
    assert uploads.held(tmp_path) == []


def test_a_cancelled_upload_gives_its_space_back_without_waiting_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes goes on, is not cut off in the middle, and closes the file itself."""
    at_it, go_on = threading.Event(), threading.Event()
    original = SpooledFile._append

    def slow(self: SpooledFile, batch: bytes | bytearray) -> None:
        original(self, batch)
        at_it.set()
        assert go_on.wait(10)

    monkeypatch.setattr(SpooledFile, "_append", slow)

    async def endless() -> AsyncIterator[bytes]:
        yield BEFORE_FILE
        while True:
            await asyncio.sleep(0)
            yield bytes(BATCH_BYTES)

    async def story() -> None:
        async def upload() -> None:
            async with reading(endless(), tmp_path):
                raise AssertionError("the body never ends")

        task = asyncio.create_task(upload())
        await asyncio.to_thread(at_it.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(uploads.held(tmp_path)) == 1
        go_on.set()

    asyncio.run(story())
    gc.collect()
    assert uploads.held(tmp_path) == []


def test_a_disk_that_fails_after_the_client_is_gone_is_nobodys_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_it, go_on = threading.Event(), threading.Event()
    complaints: list[object] = []

    def fail(self: SpooledFile, batch: bytes | bytearray) -> None:  # noqa: ARG001
        at_it.set()
        assert go_on.wait(10)
        raise OSError("disk full")

    monkeypatch.setattr(SpooledFile, "_append", fail)

    async def body() -> AsyncIterator[bytes]:
        yield BEFORE_FILE
        yield bytes(BATCH_BYTES)
        await asyncio.to_thread(at_it.wait, 10)
        raise ConnectionResetError

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        with pytest.raises(ConnectionResetError):
            async with reading(body(), tmp_path):
                raise AssertionError("the client is gone")
        go_on.set()

    asyncio.run(story())
    gc.collect()
    assert complaints == []
    assert uploads.held(tmp_path) == []


def test_a_folder_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    async def story() -> None:
        async with reading(uploads.pieces(form()), tmp_path / "gone"):
            raise AssertionError("stored nowhere")

    with pytest.raises(refusals.UploadStorage):
        asyncio.run(story())


def test_a_full_disk_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    """A real limit of the system's: the largest file that this process may write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BATCH_BYTES, hard))
    try:
        with pytest.raises(refusals.UploadStorage):
            take(join(parts_of(fields_of(FILE), bytes(3 * BATCH_BYTES))), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_closed_file_neither_grows_nor_is_read(tmp_path: Path) -> None:
    file = SpooledFile(tmp_path)
    file.append(b"x")
    file.close()
    file.append(b"y")
    assert file.size == 1
    with pytest.raises(ValueError, match="closed"):
        file.read_at(0, 1)
    assert uploads.held(tmp_path) == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_closed_while_it_is_read_is_closed_right_after(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SpooledFile(tmp_path)
    file.append(b"xy")
    original = os.pread

    def close_meanwhile(descriptor: int, size: int, offset: int) -> bytes:
        file.close()
        assert len(uploads.held(tmp_path)) == 1, "closed under a reader, whose number could be another's by now"
        if fails:
            raise OSError("broken disk")
        return original(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", close_meanwhile)
    if fails:
        with pytest.raises(OSError, match="broken disk"):
            file.read_at(0, 2)
    else:
        assert file.read_at(0, 2) == b"xy"
    assert uploads.held(tmp_path) == []
