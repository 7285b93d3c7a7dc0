"""The real twine. It knows trusted publishing for PyPI alone, so its token is minted in a step before."""

from __future__ import annotations

from tests.clients.conftest import Bench, Release

UPLOAD = ["upload", "--non-interactive", "--disable-progress-bar", "--verbose"]


def credentials(token: str) -> dict[str, str]:
    return {"TWINE_USERNAME": "__token__", "TWINE_PASSWORD": token}


def files(release: Release) -> list[str]:
    return [f"dist/{name}" for name in release.files]


def test_an_already_minted_token_uploads_a_wheel_and_an_sdist(bench: Bench) -> None:
    release, before = bench.release(), bench.playground.records()
    outcome = bench.run("twine", [*UPLOAD, *files(release)], release, credentials(bench.mint()))
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == release.files
    minted, *uploads = bench.new_records(before)
    assert [upload["token_id"] for upload in uploads] == [minted["token_id"]] * 2
    assert {upload["filename"]: upload["sha256"] for upload in uploads} == release.files


def test_a_token_for_one_project_does_not_upload_another(bench: Bench) -> None:
    release = bench.release("acme-gadgets")
    outcome = bench.run("twine", [*UPLOAD, *files(release)], release, credentials(bench.mint()))
    assert outcome.status != 0
    assert "project-not-granted" in outcome.output
    assert bench.stored(release) == {}


def test_a_google_service_account_uploads_what_its_prefix_covers(bench: Bench) -> None:
    release = bench.release("acme-nightly")
    outcome = bench.run("twine", [*UPLOAD, *files(release)], release, credentials(bench.mint("google")))
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == release.files


def test_the_registry_s_own_password_is_no_upload_token(bench: Bench) -> None:
    registry, release = bench.playground.registry, bench.release()
    environment = {"TWINE_USERNAME": registry.username, "TWINE_PASSWORD": registry.password}
    outcome = bench.run("twine", [*UPLOAD, *files(release)], release, environment)
    assert outcome.status != 0
    assert bench.stored(release) == {}
    assert registry.password not in (bench.playground.folder / "broker.log").read_text(encoding="utf-8")
