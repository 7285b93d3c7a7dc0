"""The real pdm, which finds CI and audience with other libraries than uv, and posts other forms."""

from __future__ import annotations

from tests.clients.conftest import Bench

QUIET = {"PDM_USE_VENV": "false", "PDM_CHECK_UPDATE": "false"}
"""pdm makes no virtual environment for a project it only uploads, and does not ask the network for its own updates."""


def test_a_wheel_and_an_sdist_arrive_byte_for_byte(bench: Bench) -> None:
    release, before = bench.release(), bench.playground.records()
    run = bench.playground.ci.start_run()
    outcome = bench.run("pdm", ["publish", "--no-build"], release, {**QUIET, **run.environment})
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == release.files
    records = bench.new_records(before)
    assert [record["kind"] for record in records] == ["mint", "upload", "upload"]


def test_a_job_that_is_not_trusted_uploads_nothing(bench: Bench) -> None:
    release, before = bench.release(), bench.playground.records()
    run = bench.playground.ci.start_run(workflow_file="tests.yml")
    outcome = bench.run("pdm", ["publish", "--no-build"], release, {**QUIET, **run.environment})
    assert outcome.status != 0
    assert bench.stored(release) == {}
    assert [record.get("code") for record in bench.new_records(before)] == ["no-publisher"]
