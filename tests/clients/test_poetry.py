"""The real poetry. It knows nothing of trusted publishing, so its token is minted in a step before."""

from __future__ import annotations

from tests.clients.conftest import Bench

QUIET = {"POETRY_KEYRING_ENABLED": "false", "POETRY_NO_INTERACTION": "1"}


def test_an_already_minted_token_uploads_a_wheel_and_an_sdist(bench: Bench) -> None:
    release, before = bench.release(), bench.playground.records()
    outcome = bench.follow("poetry", release, bench.mint(), **QUIET)
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == release.files
    minted, *uploads = bench.new_records(before)
    assert [upload["token_id"] for upload in uploads] == [minted["token_id"]] * 2
    assert {upload["filename"]: upload["sha256"] for upload in uploads} == release.files


def test_a_refusal_is_shown_with_its_code_and_what_to_compare(bench: Bench) -> None:
    release = bench.release("acme-gadgets")
    outcome = bench.follow("poetry", release, bench.mint(), **QUIET)
    assert outcome.status != 0
    assert "HTTP Error 403: Forbidden" in outcome.output
    assert outcome.refusal_code == "project-not-granted"
    assert "Compare the project" in outcome.output
    assert bench.stored(release) == {}
