"""What forward-auth decides by a path: one project, which is the one that the registry then reads, or nothing."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker import refusals
from broker.gateway.paths import Asked, RegistryPaths
from broker.patterns import normalise
from tests.fakes import refused
from tests.registries import PypiServer, project_in, pypi_server

PYPISERVER = RegistryPaths.beside("http://pypi.internal:8080/simple/")
DEVPI = RegistryPaths.beside("https://devpi.internal/team-a/prod/+simple/")

WHEEL = "acme_widgets-1.0-py3-none-any.whl"
SDIST = "acme_widgets-1.0.tar.gz"


@pytest.mark.parametrize(
    ("paths", "target", "project", "filename"),
    [
        (PYPISERVER, "/simple/acme-widgets/", "acme-widgets", ""),
        (PYPISERVER, "/simple/acme-widgets", "acme-widgets", ""),
        (PYPISERVER, "/simple/Acme._Widgets/", "acme-widgets", ""),
        (PYPISERVER, f"/packages/{WHEEL}", "acme-widgets", WHEEL),
        (PYPISERVER, f"/packages/{WHEEL}.metadata", "acme-widgets", f"{WHEEL}.metadata"),
        (PYPISERVER, f"/packages/{SDIST}", "acme-widgets", SDIST),
        (PYPISERVER, "/packages/acme-widgets-1.0.zip", "acme-widgets", "acme-widgets-1.0.zip"),
        (PYPISERVER, "/packages/Acme.Widgets-1.0.tar.gz", "acme-widgets", "Acme.Widgets-1.0.tar.gz"),
        (PYPISERVER, "/packages/acme-1.0+cpu.1.tar.gz", "acme", "acme-1.0+cpu.1.tar.gz"),
        (PYPISERVER, "/packages/acme-1.0%2Bcpu.1.tar.gz", "acme", "acme-1.0+cpu.1.tar.gz"),
        (PYPISERVER, "/packages/acme-1%212.0%2bcpu.tar.gz", "acme", "acme-1!2.0+cpu.tar.gz"),
        (PYPISERVER, "/packages/acme-1.0-2-cp313-abi3-any.whl", "acme", "acme-1.0-2-cp313-abi3-any.whl"),
        (DEVPI, "/team-a/prod/+simple/acme-widgets/", "acme-widgets", ""),
        (DEVPI, "/team-a/prod/%2Bsimple/acme-widgets", "acme-widgets", ""),
        (DEVPI, f"/team-a/prod/+f/0ab/c1d2e3f405162/{SDIST}", "acme-widgets", SDIST),
        (DEVPI, f"/team-a/prod/%2Bf/0ab/c1d2e3f405162/{WHEEL}.metadata", "acme-widgets", f"{WHEEL}.metadata"),
    ],
)  # fmt: skip
def test_a_page_and_a_file_are_their_project_s(paths: RegistryPaths, target: str, project: str, filename: str) -> None:
    for method in ("GET", "HEAD"):
        assert paths.asked(method, target) == Asked(project=project, filename=filename)


@pytest.mark.parametrize(
    "target",
    [
        *("", "/", "*", "simple/acme/", "http://other/simple/acme/", "/simple", "/simple/", "/packages/", "/acme/"),
        *("/simple/acme/../victim/", "/simple/../simple/acme/", "/simple/./acme/", "/simple/acme/.", "/simple/.."),
        *("/simple//acme/", "//simple/acme/", "/simple/acme//", "/simple/acme/victim/", "/simple/acme\\..\\victim/"),
        *("/simple/%61cme/", "/simple/acme%2f..%2fvictim/", "/simple/%2e%2e/", "/simple/acme%00/", "/simple/acme%"),
        *("/simple/acme;x/", "/simple/acme/?x", "/simple/acme/#x", "/simple/acme /", "/simple/acmé/", "/simple/-acme/"),
        *("/simple/acme/\n", "/simple/acme\t/", "/Simple/acme/", "/simple/acme/json", "/acme/json", "/favicon.ico"),
        f"/simple/acme-widgets/{SDIST}",
        f"/simple/victim/{SDIST}",
        f"/packages/victim/{SDIST}",
        f"/packages/../packages/{SDIST}",
        f"/other/packages/{SDIST}",
        f"/packages/{SDIST}/",
        f"/packages/{SDIST}.asc",
        f"/packages/{SDIST}.metadata.metadata",
        f"/packages/{SDIST}?x",
        "/packages/simple/acme-3.0.zip",
        "/packages/simple/acme/",
        "/packages/.metadata",
        "/packages/acme",
        "/packages/acme.tar.gz",
        "/packages/acme-widgets.tar.gz",
        "/packages/acme-1.0.egg",
        "/packages/acme-1.0.doc.zip",
        "/packages/acme-1.0-py3-none.whl",
        "/packages/-acme-1.0.zip",
        "/packages/_-1.0.zip",
        "/packages/acme-1.0-widgets-2.0.tar.gz",
        "/packages/acme-py3.9-1.0.tar.gz",
        "/packages/acme.x-widgets-1.tar.gz",
        "/packages/acme-3d-1.0.tar.gz",
        f"/packages/acme-{'1' * 300}.tar.gz",
        f"/team-a/prod/+f/0ab/c1d2e3f405162/{SDIST}",
    ],
)
def test_what_is_no_project_s_page_or_file_is_refused(target: str) -> None:
    with refused("unscoped-path"):
        PYPISERVER.asked("GET", target)


@pytest.mark.parametrize(
    "target",
    [
        *("/team-a/prod", "/team-a/prod/", "/team-a/prod/+simple/", "/team-a/prod/acme-widgets", "/+login", "/+status"),
        *("/team-a/other/+simple/acme-widgets/", "/team-b/prod/+simple/acme-widgets/", "/simple/acme-widgets/"),
        f"/team-b/prod/+f/0ab/c1d2e3f405162/{SDIST}",
        f"/team-a/prod/+f/0ab/c1d2e3f405162/x/{SDIST}",
        f"/team-a/prod/+f/0ab/{SDIST}",
        f"/team-a/prod/+e/https_files/{SDIST}",
        f"/team-a/prod/%252Bf/0ab/c1d2e3f405162/{SDIST}",
        f"/packages/{SDIST}",
    ],
)
def test_of_devpi_s_indexes_only_the_one_is_read(target: str) -> None:
    with refused("unscoped-path"):
        DEVPI.asked("GET", target)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get", "GET ", ""])
@pytest.mark.parametrize("target", ["/", "/simple/acme-widgets/", f"/packages/{SDIST}", "/../"])
def test_what_is_no_read_is_refused_whatever_its_path(method: str, target: str) -> None:
    with refused("not-a-read"):
        PYPISERVER.asked(method, target)


@pytest.mark.parametrize(
    "url",
    [
        *("http://pypi.internal/", "http://pypi.internal/index/", "http://pypi.internal/a/../simple/"),
        *("http://pypi.internal/%73imple/", "http://pypi.internal/a//simple/", "http://pypi.internal/++simple/"),
    ],
)
def test_a_registry_of_no_known_form_has_no_paths(url: str) -> None:
    with pytest.raises(ValueError, match="no form that is known"):
        RegistryPaths.beside(url)


# --- Beside the real pypiserver --------------------------------------------------------------------------------------

STORED = (
    *(WHEEL, SDIST, "acme-widgets-2.0.zip", "acme-1.0.tar.gz", "acme-1.0+cpu.tar.gz"),
    *("victim-1.0.tar.gz", "victim-1.0-py3-none-any.whl", "acme_victim-1.0.tar.gz"),
    *("acme-1.0-widgets-2.0.tar.gz", "acme-py3.9-1.0.tar.gz", "acme.x-widgets-1.tar.gz", "acme-widgets.zip"),
    *("simple/acme-3.0.zip", "acme-widgets/victim-3.0.zip"),
)

PARTS = st.sampled_from(
    [
        *("simple", "packages", "acme-widgets", "Acme_Widgets", "acme", "victim", "acme-victim", "json", *STORED),
        *("..", ".", "", "%2e%2e", ".%2e", "%2f", "..%2f", "\\", "..\\", "%5c", ";", "?", "#", "%", "%00", "%0a", " "),
        *("+", "%2B", "!", "~", ".metadata", ".zip", "-1.0", "é", "%c3%a9", "%2561cme"),
    ]
)
TARGETS = st.builds(
    lambda start, parts: start + "".join(parts),
    st.sampled_from(["/", "/simple/", "/packages/", "//", ""]),
    st.lists(st.tuples(PARTS, st.sampled_from(["", "/", "/", "//"])).map("".join), max_size=4),
)


@pytest.fixture(name="registry", scope="module")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PypiServer]:
    with pypi_server(tmp_path_factory.mktemp("registry")) as registry:
        for name in STORED:
            path = registry.packages / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content_of(name), encoding="utf-8")
        yield registry


def content_of(name: str) -> str:
    """A file that says whose it is, as pypiserver has it."""
    return f"[[{normalise(project_in(name.rpartition('/')[2]))}]]"


def told_by(registry: PypiServer, target: str) -> set[str]:
    """The projects of which an answer tells something: a file's content, or a link on a page."""
    connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=10)
    try:
        connection.putrequest("GET", target, skip_accept_encoding=True)
        connection.endheaders()
        text = connection.getresponse().read().decode("utf-8")
    finally:
        connection.close()
    linked = (unquote(link).partition("#")[0].rpartition("/")[2] for link in re.findall(r'href="([^"]+)"', text))
    return {*re.findall(r"\[\[(.+?)\]\]", text), *(normalise(project_in(name)) for name in linked if name)}


@pytest.mark.parametrize("name", STORED)
def test_each_stored_file_is_pypiserver_s_project_s_or_nobody_s(registry: PypiServer, name: str) -> None:
    told = told_by(registry, f"/packages/{name}")
    assert len(told) == 1
    try:
        assert {PYPISERVER.asked("GET", f"/packages/{name}").project} == told
    except refusals.UnscopedPath:
        assert re.search(r"/|-[0-9].*-[0-9]|-py3\.9-|\.x-|widgets\.zip", name), "only what can be read in two ways"


@settings(max_examples=200, deadline=None)
@given(target=TARGETS)
@example(target="/packages/simple/acme-3.0.zip")
@example(target="/packages/acme-widgets/victim-3.0.zip")
@example(target="/simple/acme-widgets/victim-1.0.tar.gz")
@example(target="/simple/acme-widgets/../victim/")
def test_what_passes_never_reads_another_project(registry: PypiServer, target: str) -> None:
    try:
        asked = PYPISERVER.asked("GET", target)
    except refusals.UnscopedPath:
        return
    assert told_by(registry, target) <= {asked.project}


NAME_PARTS = st.sampled_from(
    [
        *("acme", "widgets", "x", "py3", "py3.9", "cp39", "win32", "linux", "none", "any", "dev", "post", "egg", "zip"),
        *(
            "-",
            "-",
            "-",
            ".",
            "_",
            "+",
            "!",
            "1",
            "1.0",
            "2",
            "0a1",
            "v1",
            "3d",
            "1.0-1",
            ".win32-py3.9.",
            ".dist-info",
        ),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(NAME_PARTS, min_size=1, max_size=9),
    suffix=st.sampled_from([".tar.gz", ".zip", ".whl", ".tar.gz.zip"]),
)
def test_a_name_that_passes_is_read_as_pypiserver_reads_it(parts: list[str], suffix: str) -> None:
    filename = "".join(parts) + suffix
    try:
        asked = PYPISERVER.asked("GET", f"/packages/{filename}")
    except refusals.UnscopedPath:
        return
    assert normalise(project_in(filename)) == asked.project
