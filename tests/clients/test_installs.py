"""The real pip and the real uv install through the broker, over TLS, with a token that reads; and never from elsewhere
what is an organization's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from broker.playground.packages import Outcome, Uv
from broker.playground.processes import Command, free_port, running
from tests.clients.conftest import Bench, Release
from tests.clients.test_devpi import WithDevpi
from tests.devpi import Devpi

INSTALLERS = ("pip", "uv")

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "install-through-the-broker.md"

OURS, EVIL, PUBLIC = "ours", "evil", "public"

BACKEND = """\
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/{WHEEL}", "w") as wheel:
        for path, content in ENTRIES.items():
            wheel.writestr(path, content)
    return WHEEL
"""


def entries(project: str, version: str, whose: str) -> dict[str, str]:
    """Those of a wheel whose module says whose it is."""
    name = project.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    paths = {
        f"{name}.py": f"WHOSE = {whose!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*paths, f"{info}/RECORD"))
    return {**paths, f"{info}/RECORD": record}


def wheel(project: str, version: str, whose: str = OURS) -> tuple[str, bytes]:
    """A filename and a wheel."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in entries(project, version, whose).items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return f"{project.replace('-', '_')}-{version}-py3-none-any.whl", packed.getvalue()


def sdist(project: str, version: str, whose: str = OURS) -> tuple[str, bytes]:
    """A filename and an sdist that brings its own build backend: nothing else need be installed."""
    name, packed = f"{project.replace('-', '_')}-{version}", io.BytesIO()
    told = entries(project, version, whose)
    contents = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": f"WHEEL = '{name}-py3-none-any.whl'\nENTRIES = {told!r}\n{BACKEND}",
    }
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, content in contents.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
    return f"{name}.tar.gz", packed.getvalue()


# --- Benches ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicIndex:
    """A pypiserver that everybody may read, at another host name than the broker's."""

    url: str
    packages: Path
    log: Path

    def add(self, name: str, content: bytes) -> None:
        """Puts a file into it."""
        (self.packages / name).write_bytes(content)

    def asked(self) -> list[str]:
        """What was asked of it, each with all its headers."""
        return [line for line in self.log.read_text(encoding="utf-8").splitlines() if "REQUEST_METHOD" in line]


@contextlib.contextmanager
def public_index(folder: Path) -> Iterator[PublicIndex]:
    """One for as long as the context is open."""
    port, packages = free_port(), folder / "packages"
    packages.mkdir(parents=True)
    told = PublicIndex(url=f"http://localhost:{port}/simple/", packages=packages, log=folder / "requests.log")
    command = Command(
        name="a public index (pypiserver)",
        module="pypiserver",
        arguments=(
            *("run", "--interface", "127.0.0.1", "--port", str(port), "--authenticate", ".", "--passwords", "."),
            *("--disable-fallback", "--hash-algo", "sha256"),
            *("-vv", "--log-file", str(told.log), "--log-req-frmt", "%s", str(packages)),
        ),
        environment={"PYTHONWARNINGS": "ignore"},
        folder=folder,
        log=folder / "output.log",
    )
    with running(command, lambda: _answers(told.url)):
        yield told


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(name="public", scope="module")
def _public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublicIndex]:
    with public_index(tmp_path_factory.mktemp("public")) as public:
        for name, content in (
            *(
                wheel("acme-widgets", "99.0", EVIL),
                wheel("acme-future", "99.0", EVIL),
                wheel("acme-other", "1.0", EVIL),
            ),
            *(wheel("left-pad", "1.0", PUBLIC), wheel("unheld", "1.0", PUBLIC)),
        ):
            public.add(name, content)
        yield public


def published(bench: Bench) -> Bench:
    """With a wheel and a newer sdist of a project, each published through the broker."""
    folder = bench.playground.folder / "made"
    (folder / "dist").mkdir(parents=True)
    for name, content in (wheel("acme-widgets", "1.0"), sdist("acme-widgets", "2.0")):
        (folder / "dist" / name).write_bytes(content)
    release = Release(folder=folder, version="", files={})
    outcome = bench.run("uv", ["publish"], release, {"UV_PUBLISH_TOKEN": bench.mint()})
    assert outcome.status == 0, outcome.output
    return bench


@pytest.fixture(name="bench", scope="module")
def _bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with WithDevpi(tmp_path_factory.mktemp("playground"), {"BROKER_READS": "scoped"}) as playground:
        bench = published(Bench(playground=playground, uv=Uv.find(playground.folder / "home")))
        # In the registry, and an organization's, but not alice's to read; and nobody's.
        for name, content in (wheel("acme-other", "1.0"), wheel("unheld", "1.0")):
            (playground.registry.packages / name).write_bytes(content)
        yield bench


@pytest.fixture(name="devpi_bench", scope="module")
def _devpi_bench(tmp_path_factory: pytest.TempPathFactory, devpi: Devpi) -> Iterator[Bench]:
    index = devpi.index()
    settings = {
        "BROKER_REGISTRY_URL": index.url,
        "BROKER_REGISTRY_INDEX_URL": f"{index.url}+simple/",
        "BROKER_REGISTRY_USERNAME": index.username,
        "BROKER_REGISTRY_PASSWORD": index.password,
        "BROKER_READS": "scoped",
    }
    with WithDevpi(tmp_path_factory.mktemp("playground"), settings) as playground:
        yield published(Bench(playground=playground, uv=Uv.find(playground.folder / "home")))


@pytest.fixture(name="sending_on", scope="module")
def _sending_on(tmp_path_factory: pytest.TempPathFactory, public: PublicIndex) -> Iterator[Bench]:
    """A broker that sends installers on to the public index."""
    settings = {"BROKER_READS": "scoped", "BROKER_FALLBACK_INDEX_URL": public.url}
    with WithDevpi(tmp_path_factory.mktemp("playground"), settings) as playground:
        yield published(Bench(playground=playground, uv=Uv.find(playground.folder / "home")))


# --- Installing ------------------------------------------------------------------------------------------------------


def index_url(bench: Bench, token: str = "") -> str:
    """The index, with a token in it where there is one."""
    where = urlsplit(bench.playground.url)
    return f"https://{f'__token__:{token}@' if token else ''}{where.netloc}/simple/"


def install(bench: Bench, installer: str, target: Path, *arguments: str, **environment: str) -> Outcome:
    """Installs into a folder."""
    begin = ["install"] if installer == "pip" else ["pip", "install"]
    return run(bench, installer, target.parent, *begin, "--target", str(target), *arguments, **environment)


def run(bench: Bench, program: str, folder: Path, *arguments: str, **environment: str) -> Outcome:
    """Runs an installer, or a shell that finds them: without the user's configuration, and nothing from a cache."""
    path = os.pathsep.join((str(bench.uv.program.parent), os.environ.get("PATH", os.defpath)))
    told = {
        **bench.playground.client_environment,
        "PATH": path,
        "UV_NO_CACHE": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_CERT": str(bench.playground.certificates.trusted),
        "PIP_NO_INPUT": "1",
        "PIP_RETRIES": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        **environment,
    }
    folder.mkdir(parents=True, exist_ok=True)
    found = shutil.which(program, path=path)
    assert found is not None
    return Uv(program=Path(found), home=bench.uv.home).run(arguments, folder, told)


def whose(target: Path, project: str) -> str:
    """Whose package was installed; '' for none."""
    module = target / f"{project.replace('-', '_')}.py"
    return module.read_text(encoding="utf-8").partition("= ")[2].strip("'\n") if module.exists() else ""


def downloads(records: list[dict[str, Any]]) -> list[str]:
    """The files that were recorded as read."""
    return [str(one["filename"]) for one in records if one["kind"] == "download" and one["decision"] == "allowed"]


@pytest.mark.parametrize("installer", INSTALLERS)
@pytest.mark.parametrize("registry", ["bench", "devpi_bench"])
def test_a_wheel_and_an_sdist_are_installed(
    registry: str, installer: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bench: Bench = request.getfixturevalue(registry)
    url = index_url(bench, bench.mint(scope="read"))
    for version, file in (
        ("1.0", "acme_widgets-1.0-py3-none-any.whl"),
        ("2.0", "acme_widgets-2.0.tar.gz"),
    ):
        before, target = bench.playground.records(), tmp_path / version
        outcome = install(bench, installer, target, "--index-url", url, f"acme-widgets=={version}")
        assert outcome.status == 0, outcome.output
        assert whose(target, "acme-widgets") == OURS
        assert (target / f"acme_widgets-{version}.dist-info").is_dir()
        assert file in downloads(bench.new_records(before))


@pytest.mark.parametrize("installer", INSTALLERS)
def test_hashes_are_required_and_compared(bench: Bench, installer: str, tmp_path: Path) -> None:
    url, requirements = index_url(bench, bench.mint(scope="read")), tmp_path / "requirements.txt"
    arguments = ("--index-url", url, "--require-hashes", "-r", str(requirements))
    digest = hashlib.sha256(wheel("acme-widgets", "1.0")[1]).hexdigest()
    for told, status in ((digest, 0), ("0" * 64, 1)):
        requirements.write_text(f"acme-widgets==1.0 --hash=sha256:{told}\n", encoding="utf-8")
        outcome = install(bench, installer, tmp_path / told, *arguments)
        assert outcome.status == status, outcome.output
        assert whose(tmp_path / told, "acme-widgets") == (OURS if status == 0 else "")


@pytest.mark.parametrize("installer", INSTALLERS)
def test_the_how_to_s_lines_install(bench: Bench, installer: str, tmp_path: Path) -> None:
    """pip has the token from a netrc file, uv from variables: it stands in no URL."""
    blocks = re.findall(r"```bash\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)
    [lines] = [one for one in blocks if {"pip": "NETRC=", "uv": "UV_INDEX_ACME_PASSWORD="}[installer] in one]
    where = urlsplit(bench.playground.url)
    lines = lines.replace("https://upload.acme.example", bench.playground.url)
    lines = lines.replace("upload.acme.example", str(where.hostname)).replace(" install ", " install --target it ")
    token = {"token": bench.mint(scope="read")}
    outcome = run(bench, "bash", tmp_path, "-euc", lines, **token)
    assert outcome.status == 0, outcome.output
    assert whose(tmp_path / "it", "acme-widgets") == OURS


def test_metadata_is_read_beside_the_file_where_the_registry_has_it(devpi_bench: Bench, tmp_path: Path) -> None:
    """devpi has it where it is told to: then nothing but the metadata is read to resolve."""
    bench, before = devpi_bench, devpi_bench.playground.records()
    url = index_url(bench, bench.mint(scope="read"))
    for installer in INSTALLERS:
        target = tmp_path / installer
        outcome = install(bench, installer, target, "--index-url", url, "--dry-run", "acme-widgets==1.0")
        assert outcome.status == 0, outcome.output
    assert set(downloads(bench.new_records(before))) == {"acme_widgets-1.0-py3-none-any.whl.metadata"}


@pytest.mark.parametrize("installer", INSTALLERS)
def test_what_is_out_of_scope_is_not_found_and_another_index_is_asked(
    bench: Bench, public: PublicIndex, installer: str, tmp_path: Path
) -> None:
    url = index_url(bench, bench.mint(scope="read"))
    for project in ("acme-other", "unheld"):
        target = tmp_path / project
        outcome = install(bench, installer, target, "--index-url", url, project)
        assert outcome.status != 0
        assert whose(target, project) == ""
    outcome = install(bench, installer, target, "--index-url", url, "--extra-index-url", public.url, "unheld")
    assert outcome.status == 0, outcome.output
    assert whose(target, "unheld") == PUBLIC
    assert url not in "".join(public.asked())


@pytest.mark.parametrize("installer", INSTALLERS)
@pytest.mark.parametrize("why", ["burned", "nonsense", "absent", "uploads"])
def test_a_token_that_is_not_good_installs_nothing(bench: Bench, installer: str, why: str, tmp_path: Path) -> None:
    token = {"nonsense": "pypi-x", "absent": ""}.get(why) or bench.mint(scope="upload" if why == "uploads" else "read")
    with bench.playground.client() as client:
        if why == "burned":
            client.post("/_/oidc/burn-token", json={"token": token})
    url = index_url(bench, "" if why == "absent" else token)
    verbose = ["-vv"] if installer == "pip" else []
    outcome = install(bench, installer, tmp_path / "it", *verbose, "--index-url", url, "acme-widgets")
    assert outcome.status != 0
    assert whose(tmp_path / "it", "acme-widgets") == ""
    assert ("401" if why == "absent" else "403") in outcome.output


# --- Dependency confusion --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("installer", INSTALLERS)
def test_behind_the_broker_ours_is_ours_and_the_public_is_found(
    sending_on: Bench, public: PublicIndex, installer: str, tmp_path: Path
) -> None:
    bench, target = sending_on, tmp_path / "it"
    token, asked = sending_on.mint(scope="read"), len(public.asked())
    outcome = install(bench, installer, target, "--index-url", index_url(bench, token), "acme-widgets", "left-pad")
    assert outcome.status == 0, outcome.output
    assert (whose(target, "acme-widgets"), whose(target, "left-pad")) == (OURS, PUBLIC)
    told = public.asked()[asked:]
    assert any("/simple/left-pad/" in one for one in told)
    assert all(word not in one for one in told for word in ("HTTP_AUTHORIZATION", "HTTP_COOKIE", token, "acme")), (
        "neither the token nor a name of ours is told there"
    )


@pytest.mark.parametrize("installer", INSTALLERS)
@pytest.mark.parametrize("held", ["acme-future", "acme-other"])
def test_a_held_name_that_is_not_there_yet_is_taken_from_nowhere(
    sending_on: Bench, public: PublicIndex, installer: str, held: str, tmp_path: Path
) -> None:
    url, asked = index_url(sending_on, sending_on.mint(scope="read")), len(public.asked())
    outcome = install(sending_on, installer, tmp_path / "it", "--index-url", url, held)
    assert outcome.status != 0
    assert whose(tmp_path / "it", held) == ""
    assert public.asked()[asked:] == []


@pytest.mark.parametrize("held", ["acme-widgets", "acme-future"])
def test_pip_with_an_extra_index_takes_what_is_newest_wherever_it_is(
    sending_on: Bench, public: PublicIndex, held: str, tmp_path: Path
) -> None:
    """Nothing that the broker says can mend that: the how-to says not to."""
    url = index_url(sending_on, sending_on.mint(scope="read"))
    outcome = install(sending_on, "pip", tmp_path / "it", "--index-url", url, "--extra-index-url", public.url, held)
    assert outcome.status == 0, outcome.output
    assert whose(tmp_path / "it", held) == EVIL


def test_with_a_token_that_is_not_good_pip_goes_on_to_the_next_index_and_uv_does_not(
    bench: Bench, public: PublicIndex, tmp_path: Path
) -> None:
    url = index_url(bench, "pypi-expired")
    both = ("--index-url", url, "--extra-index-url", public.url, "acme-widgets")
    outcome = install(bench, "pip", tmp_path / "pip", *both)
    assert (outcome.status, whose(tmp_path / "pip", "acme-widgets")) == (0, EVIL)
    assert "403" not in outcome.output, "it says nothing of it"
    outcome = install(bench, "uv", tmp_path / "uv", "--index", url, "--default-index", public.url, "acme-widgets")
    assert (outcome.status != 0, whose(tmp_path / "uv", "acme-widgets")) == (True, "")
    assert "403" in outcome.output


def test_uv_takes_from_the_first_index_that_has_the_name(bench: Bench, public: PublicIndex, tmp_path: Path) -> None:
    target, acme = tmp_path / "it", f"acme={index_url(bench)}"
    token = {"UV_INDEX_ACME_USERNAME": "__token__", "UV_INDEX_ACME_PASSWORD": bench.mint(scope="read")}
    both = ("--index", acme, "--default-index", public.url)
    outcome = install(bench, "uv", target, *both, "acme-widgets", "left-pad", **token)
    assert outcome.status == 0, outcome.output
    assert (whose(target, "acme-widgets"), whose(target, "left-pad")) == (OURS, PUBLIC)
    # But a name that is not there yet, and is on the other index: hence `explicit`, or the broker alone.
    assert install(bench, "uv", tmp_path / "future", *both, "acme-future", **token).status == 0
    assert whose(tmp_path / "future", "acme-future") == EVIL


PROJECT = """\
[project]
name = "app"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["{project}", "left-pad"]

[[tool.uv.index]]
name = "acme"
url = "{ours}"
explicit = true

[[tool.uv.index]]
name = "public"
url = "{public}"
default = true

[tool.uv.sources]
{project} = {{ index = "acme" }}
"""


@pytest.mark.parametrize("project", ["acme-widgets", "acme-future"])
def test_uv_with_an_explicit_index_takes_ours_from_it_alone(
    bench: Bench, public: PublicIndex, project: str, tmp_path: Path
) -> None:
    told = PROJECT.format(ours=index_url(bench), public=public.url, project=project)
    (tmp_path / "pyproject.toml").write_text(told, encoding="utf-8")
    asked = len(public.asked())
    token = {"UV_INDEX_ACME_USERNAME": "__token__", "UV_INDEX_ACME_PASSWORD": bench.mint(scope="read")}
    outcome = run(bench, "uv", tmp_path, "sync", UV_NO_CONFIG="false", **token)
    assert all("acme" not in one for one in public.asked()[asked:])
    if project == "acme-future":
        assert outcome.status != 0
        return
    assert outcome.status == 0, outcome.output
    (installed,) = tmp_path.glob(".venv/lib/*/site-packages")
    assert (whose(installed, "acme-widgets"), whose(installed, "left-pad")) == (OURS, PUBLIC)
