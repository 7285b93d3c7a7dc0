"""The real clients, with a real devpi behind the gateway instead of a pypiserver."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from broker.gateway.paths import Asked, RegistryPaths
from broker.playground.packages import Uv
from broker.playground.session import Playground
from broker.web.downloads import JSON
from tests.clients.conftest import Bench, Release
from tests.clients.test_pdm import QUIET
from tests.clients.test_twine import UPLOAD, credentials, files
from tests.clients.test_uv import PUBLISH
from tests.devpi import Devpi, DevpiIndex


class WithDevpi(Playground):
    """A playground whose broker has other settings; its own registry stays empty."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.settings = settings

    def _broker_settings(self) -> Mapping[str, str]:
        return {**super()._broker_settings(), **self.settings}


@pytest.fixture(name="index", scope="module")
def _index(devpi: Devpi) -> DevpiIndex:
    return devpi.index()


@pytest.fixture(name="bench", scope="module")
def _bench(tmp_path_factory: pytest.TempPathFactory, index: DevpiIndex) -> Iterator[Bench]:
    settings = {
        "BROKER_REGISTRY_URL": index.url,
        "BROKER_REGISTRY_USERNAME": index.username,
        "BROKER_REGISTRY_PASSWORD": index.password,
    }
    with WithDevpi(tmp_path_factory.mktemp("playground"), settings) as playground:
        yield Bench(playground=playground, uv=Uv.find(playground.folder / "home"))


def arrived(index: DevpiIndex, release: Release) -> dict[str, str]:
    """What the index has of a release's files."""
    return {name: digest for name, digest in index.stored().items() if name in release.files}


@pytest.mark.parametrize("client", ["uv", "pdm"])
def test_a_wheel_and_an_sdist_arrive_byte_for_byte(bench: Bench, index: DevpiIndex, client: str) -> None:
    release, before = bench.release(), bench.playground.records()
    arguments = {"uv": PUBLISH, "pdm": ["publish", "--no-build"]}[client]
    run = bench.playground.ci.start_run()
    outcome = bench.run(client, arguments, release, {**QUIET, **run.environment})
    assert outcome.status == 0, outcome.output
    assert arrived(index, release) == release.files
    assert bench.stored(release) == {}
    uploads = [record for record in bench.new_records(before) if record["kind"] == "upload"]
    assert [(upload["decision"], upload["registry_status"]) for upload in uploads] == [("allowed", 200)] * 2


def test_twine_uploads_with_a_minted_token_and_again_without_harm(bench: Bench, index: DevpiIndex) -> None:
    """To the same file again, devpi says 200, where pypiserver says 409."""
    release, token = bench.release(), bench.mint()
    for _ in range(2):
        outcome = bench.run("twine", [*UPLOAD, *files(release)], release, credentials(token))
        assert outcome.status == 0, outcome.output
        assert arrived(index, release) == release.files


def test_other_bytes_under_a_stored_name_are_refused_and_the_stored_file_stays(bench: Bench, index: DevpiIndex) -> None:
    release = bench.release()
    assert bench.run("twine", [*UPLOAD, *files(release)], release, credentials(bench.mint())).status == 0
    for name in release.files:
        if name.endswith(".whl"):
            with zipfile.ZipFile(release.folder / "dist" / name, "a") as wheel:
                wheel.writestr("acme_widgets/more.py", "")
    outcome = bench.run("twine", [*UPLOAD, "dist/*.whl"], release, credentials(bench.mint()))
    assert outcome.status != 0
    assert arrived(index, release) == release.files


def test_its_links_are_what_forward_auth_reads_a_project_from(bench: Bench, index: DevpiIndex) -> None:
    release = bench.release()
    assert bench.run("twine", [*UPLOAD, *files(release)], release, credentials(bench.mint())).status == 0
    paths, page = RegistryPaths.beside(f"{index.url}+simple/"), f"{urlsplit(index.url).path}+simple/acme-widgets/"
    assert paths.asked("GET", page) == Asked(project="acme-widgets")
    answer = httpx.get(urljoin(index.url, page), headers={"Accept": JSON}, trust_env=False, timeout=30).json()
    links = {one["filename"]: urljoin(page, one["url"].partition("#")[0]) for one in answer["files"]}
    assert links.keys() >= release.files.keys()
    for filename in release.files:
        target = urlsplit(links[filename]).path
        for spelled in (target, target.replace("+", "%2B")):
            assert paths.asked("GET", spelled) == Asked(project="acme-widgets", filename=filename)
            got = httpx.get(urljoin(index.url, spelled), trust_env=False, timeout=30)
            assert hashlib.sha256(got.content).hexdigest() == release.files[filename]
