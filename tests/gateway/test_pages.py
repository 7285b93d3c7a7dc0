"""Pages of the simple index: whatever a registry says of its files, they are read back as what it said."""

from __future__ import annotations

import dataclasses
import json
import string
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.index import Listed, SimpleIndex, _Page, _read_files
from broker.gateway.pages import files_html, files_json, projects_html, projects_json
from tests.gateway.test_index import answering, html, index_at
from tests.gateway.test_registry import response
from tests.gateway.wire import JSON

pytestmark = pytest.mark.anyio

DIGEST = "ab" * 32
OTHER = "cd" * 32

HOSTILE = '"><script>alert(1)&#39;%3Cb%3E #sha256=x?y.whl'

FILES = (
    Listed(filename="a-1.0.tar.gz", url="/files/a/a-1.0.tar.gz"),
    Listed(
        filename="a-2.0+local-py3-none-any.whl",
        url="/files/a/a-2.0%2Blocal-py3-none-any.whl",
        sha256=DIGEST,
        requires_python=">=3.11,<4 ; \"quoted\" & 'so'",
        yanked='broken: "x" < y & z',
        metadata_sha256=OTHER,
    ),
    Listed(filename="a-3.0-py3-none-any.whl", url="/files/a/a-3.0-py3-none-any.whl", yanked="", metadata_sha256=""),
    Listed(filename=HOSTILE, url="/files/a/" + quote(HOSTILE), sha256=DIGEST, yanked="\n\ttwo\r\nlines"),
)


def link(filename: str) -> str:
    return "/files/a/" + quote(filename)


async def read_back(server: str, index: SimpleIndex) -> tuple[Listed, ...]:
    return tuple(
        dataclasses.replace(one, url=one.url.replace(server.rstrip("/"), "")) for one in await index.files("a")
    )


class Tags(HTMLParser):
    """Every tag of a page, and the text in links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["a"]:
            self.texts.append(data)


async def test_both_kinds_of_page_are_read_back_as_what_was_said() -> None:
    as_json = response("200 OK", json.dumps(files_json("a", FILES, link)).encode(), JSON)
    for answer in (as_json, html(files_html("a", FILES, link))):
        async with answering(simple__a__=answer) as server, index_at(f"{server.url}simple/") as index:
            assert await read_back(server.url, index) == FILES


async def test_sizes_and_moments_are_said_in_json() -> None:
    file = dataclasses.replace(FILES[0], size_bytes=0, uploaded_at=1768464000.25)
    told = files_json("a", [file], link)
    assert told["files"][0] == {
        "filename": "a-1.0.tar.gz",
        "url": "/files/a/a-1.0.tar.gz",
        "hashes": {},
        "size": 0,
        "upload-time": "2026-01-15T08:00:00.250000Z",
    }
    answer = response("200 OK", json.dumps(told).encode(), JSON)
    async with answering(simple__a__=answer) as server, index_at(f"{server.url}simple/") as index:
        assert await read_back(server.url, index) == (file,)


def test_what_is_hostile_stays_text() -> None:
    page = Tags(files_html("a", FILES, link))
    assert page.tags == ["html", "head", "meta", "title", "body", *(["a", "br"] * len(FILES))]
    assert page.texts == [one.filename for one in FILES]
    assert "<script" not in files_html("</title><script>", FILES, link)
    assert Tags(projects_html(["</a><script>"])).tags.count("script") == 0


def test_a_yanked_file_without_a_reason_is_yanked() -> None:
    first, second, third, _ = files_json("a", FILES, link)["files"]
    assert "yanked" not in first
    assert (second["yanked"], third["yanked"]) == (FILES[1].yanked, True)
    assert (second["core-metadata"], third["core-metadata"]) == ({"sha256": OTHER}, True)
    assert second["dist-info-metadata"] == second["core-metadata"]
    page = files_html("a", FILES, link)
    assert 'data-yanked=""' in page
    assert f'data-core-metadata="sha256={OTHER}" data-dist-info-metadata="sha256={OTHER}"' in page
    assert 'data-core-metadata="true" data-dist-info-metadata="true"' in page


async def test_projects_are_read_back_and_what_is_none_is_left_out() -> None:
    names = ("acme-widgets", "acme-lib")
    as_json = response("200 OK", json.dumps(projects_json(names)).encode(), JSON)
    for answer in (as_json, html(projects_html(names))):
        async with answering(simple__=answer) as server, index_at(f"{server.url}simple/") as index:
            assert await index.projects() == names
    others = html('<a href="../">up</a><a href="/simple/Acme_Lib/">x</a><a href="acme-lib/">x</a><a href="/">x</a>')
    twice = response("200 OK", json.dumps(projects_json(["Acme.Lib", "!", "acme-lib", ""])).encode(), JSON)
    for answer in (others, twice):
        async with answering(simple__=answer) as server, index_at(f"{server.url}simple/") as index:
            assert await index.projects() == ("acme-lib",)
    async with answering() as server, index_at(f"{server.url}simple/") as index:
        assert await index.projects() == ()


# --- Whatever is said ------------------------------------------------------------------------------------------------

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
# What HTML itself cannot say: NUL and lone surrogates; and line ends other than "\n" it may read as that.
TEXTS = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=40)
NAMES = st.text(string.printable[:95].replace("/", ""), min_size=1, max_size=40).filter(
    lambda name: not name.startswith(".")
)


@st.composite
def listed(draw: st.DrawFn) -> Listed:
    """A file of which anything is said."""
    name = draw(NAMES)
    return Listed(
        filename=name,
        url=link(name),
        sha256=draw(st.just("") | DIGESTS),
        requires_python=draw(TEXTS),
        yanked=draw(st.none() | TEXTS),
        metadata_sha256=draw(st.none() | st.just("") | DIGESTS),
    )


@given(files=st.lists(listed(), max_size=4))
def test_whatever_is_said_of_files_is_read_back_from_either_page(files: list[Listed]) -> None:
    told = files_json("a", files, link)
    for page in (
        _Page(url="http://index/simple/a/", kind=JSON.partition(": ")[2], raw=json.dumps(told).encode()),
        _Page(url="http://index/simple/a/", kind="text/html", raw=files_html("a", files, link).encode()),
    ):
        found = tuple(dataclasses.replace(one, url=one.url.removeprefix("http://index")) for one in _read_files(page))
        assert found == tuple(files)
