"""The real maturin, which does trusted publishing at the older route, and uploads whatever wheel it is given."""

from __future__ import annotations

from tests.clients.conftest import Bench, Release


def upload(bench: Bench, release: Release) -> list[str]:
    files = [f"dist/{name}" for name in release.files]
    return ["upload", "--non-interactive", "--repository-url", bench.playground.upload_url, *files]


def test_a_wheel_and_an_sdist_arrive_byte_for_byte(bench: Bench) -> None:
    release, before = bench.release(), bench.playground.records()
    run = bench.playground.ci.start_run()
    outcome = bench.run("maturin", upload(bench, release), release, dict(run.environment))
    assert outcome.status == 0, outcome.output
    assert "trusted publisher" in outcome.output
    assert bench.stored(release) == release.files
    assert [record["kind"] for record in bench.new_records(before)] == ["mint", "upload", "upload"]


def test_a_job_that_is_not_trusted_uploads_nothing(bench: Bench) -> None:
    release, before = bench.release(), bench.playground.records()
    run = bench.playground.ci.start_run(workflow_file="tests.yml")
    outcome = bench.run("maturin", upload(bench, release), release, dict(run.environment))
    assert outcome.status != 0
    assert "Failed to resolve PyPI token via OIDC" in outcome.output
    assert bench.stored(release) == {}
    assert [record.get("code") for record in bench.new_records(before)] == ["no-publisher"]
