"""The real uv, unmodified: trusted publishing on GitHub and GitLab, and what it does with its token after."""

from __future__ import annotations

import gzip

import pytest

from tests.clients.conftest import Bench

PUBLISH = ["publish", "--trusted-publishing", "always"]


def kinds(records: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(record["kind"], record["decision"]) for record in records]


def test_a_wheel_and_an_sdist_arrive_byte_for_byte(bench: Bench) -> None:
    release, before = bench.release(), bench.playground.records()
    run = bench.playground.ci.start_run()
    outcome = bench.run("uv", PUBLISH, release, dict(run.environment))
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == release.files
    assert bench.playground.registry.listing("acme-widgets").items() >= release.files.items()
    assert kinds(bench.new_records(before)) == [
        ("mint", "allowed"),
        ("upload", "allowed"),
        ("upload", "allowed"),
        ("revocation", "allowed"),
    ]


def test_the_same_release_again_succeeds_and_one_of_other_bytes_is_told_that_it_exists(bench: Bench) -> None:
    release = bench.release()
    for _ in range(2):
        before = bench.playground.records()
        outcome = bench.run("uv", PUBLISH, release, dict(bench.playground.ci.start_run().environment))
        assert outcome.status == 0, outcome.output
    again = [record for record in bench.new_records(before) if record["kind"] == "upload"]
    assert [record["already_stored"] for record in again] == [True, True]
    (sdist,) = release.folder.rglob("*.tar.gz")
    sdist.write_bytes(gzip.compress(gzip.decompress(sdist.read_bytes()), mtime=1))
    outcome = bench.run("uv", PUBLISH, release, dict(bench.playground.ci.start_run().environment))
    assert outcome.status != 0
    assert "already exists" in outcome.output
    assert bench.stored(release) == release.files


def test_a_dry_run_uploads_nothing_and_burns_its_token(bench: Bench) -> None:
    release, before = bench.release(), bench.playground.records()
    run = bench.playground.ci.start_run()
    outcome = bench.run("uv", [*PUBLISH, "--dry-run"], release, dict(run.environment))
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == {}
    minted, burned = bench.new_records(before)
    assert (minted["kind"], burned["kind"]) == ("mint", "revocation")
    assert minted["token_id"] == burned["token_id"]
    [token] = outcome.masked
    refused = bench.run("uv", ["publish"], release, {"UV_PUBLISH_TOKEN": token})
    assert refused.status != 0
    assert refused.refusal_code == "revoked-token", refused.output
    assert bench.stored(release) == {}


def test_a_gitlab_job_publishes_with_the_token_in_its_variable(bench: Bench) -> None:
    release, before = bench.release(), bench.playground.records()
    outcome = bench.run("uv", PUBLISH, release, bench.playground.ci.start_job())
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == release.files
    assert {record["issuer"] for record in bench.new_records(before)} == {"gitlab"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"actor": "mallory", "actor_id": "6666"}, "unknown-actor"),
        ({"workflow_file": "tests.yml"}, "no-publisher"),
        ({"event_name": "pull_request_target"}, "forbidden-trigger"),
        ({"repository_id": "1"}, "identity-changed"),
    ],
)
def test_a_refusal_reaches_the_job_s_log_with_its_code(bench: Bench, changes: dict[str, str], code: str) -> None:
    release = bench.release()
    run = bench.playground.ci.start_run(**changes)
    outcome = bench.run("uv", PUBLISH, release, dict(run.environment))
    assert outcome.status != 0
    assert outcome.refusal_code == code, outcome.output
    assert bench.stored(release) == {}


def test_no_token_is_written_to_the_broker_s_log(bench: Bench) -> None:
    release, token = bench.release(), bench.mint()
    outcome = bench.run("uv", ["publish"], release, {"UV_PUBLISH_TOKEN": token})
    assert outcome.status == 0, outcome.output
    log = (bench.playground.folder / "broker.log").read_text(encoding="utf-8")
    assert release.version in log, "the upload is there"
    for secret in (token, token.rpartition(".")[2], bench.playground.registry.password):
        assert secret not in log
