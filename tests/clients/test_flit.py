"""The real flit, which builds what it uploads: so what it built is compared."""

from __future__ import annotations

import hashlib

from tests.clients.conftest import Bench, Release

PYPROJECT = """\
[project]
name = "{name}"
version = "{version}"
description = "A small package that is published through the broker."
requires-python = ">=3.11"

[build-system]
requires = ["flit_core"]
build-backend = "flit_core.buildapi"
"""


def flit_release(bench: Bench, project: str = "acme-widgets") -> Release:
    """A release that flit can build, and nothing of it built."""
    release = bench.release(project)
    for name in release.files:
        (release.folder / "dist" / name).unlink()
    pyproject = PYPROJECT.format(name=project, version=release.version)
    (release.folder / "pyproject.toml").write_text(pyproject, encoding="utf-8")
    return release


def built(release: Release) -> dict[str, str]:
    """What flit built: filename -> sha256."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((release.folder / "dist").iterdir())
    }


def test_an_already_minted_token_uploads_a_wheel_and_an_sdist(bench: Bench) -> None:
    release, before = flit_release(bench), bench.playground.records()
    outcome = bench.follow("flit", release, bench.mint())
    assert outcome.status == 0, outcome.output
    files = built(release)
    assert len(files) == 2
    assert bench.playground.registry.stored().items() >= files.items()
    minted, *uploads = bench.new_records(before)
    assert [upload["token_id"] for upload in uploads] == [minted["token_id"]] * 2
    assert {upload["filename"]: upload["sha256"] for upload in uploads} == files


def test_other_bytes_under_a_published_name_are_told_that_it_exists(bench: Bench) -> None:
    release = flit_release(bench)
    assert bench.follow("flit", release, bench.mint()).status == 0
    files = built(release)
    (module,) = release.folder.rglob("__init__.py")
    module.write_text(f"{module.read_text(encoding='utf-8')}CHANGED = True\n", encoding="utf-8")
    outcome = bench.follow("flit", release, bench.mint())
    assert outcome.status != 0
    assert "already exists" in outcome.output
    assert bench.playground.registry.stored().items() >= files.items()


def test_a_refusal_is_shown_as_its_status_and_recorded_with_its_code(bench: Bench) -> None:
    release, before, token = flit_release(bench, "acme-gadgets"), bench.playground.records(), bench.mint()
    outcome = bench.follow("flit", release, token)
    assert outcome.status != 0
    assert "403 Client Error: Forbidden" in outcome.output
    assert token not in outcome.output
    assert not bench.playground.registry.stored().keys() & built(release).keys()
    _, refused = bench.new_records(before)
    assert (refused["kind"], refused["code"]) == ("upload", "project-not-granted")
