"""The real hatch, which asks for the project's page first, and shows nothing of a refusal but its status."""

from __future__ import annotations

from tests.clients.conftest import Bench


def settings(bench: Bench) -> dict[str, str]:
    return {"HATCH_INTERACTIVE": "false", "HATCH_INDEX_CA_CERT": str(bench.playground.certificates.trusted)}


def test_an_already_minted_token_uploads_a_wheel_and_an_sdist(bench: Bench) -> None:
    release, before = bench.release(), bench.playground.records()
    outcome = bench.follow("hatch", release, bench.mint(), **settings(bench))
    assert outcome.status == 0, outcome.output
    assert bench.stored(release) == release.files
    minted, *uploads = bench.new_records(before)
    assert [upload["token_id"] for upload in uploads] == [minted["token_id"]] * 2
    assert {upload["filename"]: upload["sha256"] for upload in uploads} == release.files


def test_a_refusal_is_shown_as_its_status_and_recorded_with_its_code(bench: Bench) -> None:
    release, before, token = bench.release("acme-gadgets"), bench.playground.records(), bench.mint()
    outcome = bench.follow("hatch", release, token, HATCH_VERBOSE="2", **settings(bench))
    assert outcome.status != 0
    assert "403 Forbidden" in outcome.output
    assert outcome.refusal_code == "", "now it shows more: say so in the how-to"
    assert token not in outcome.output
    assert bench.stored(release) == {}
    _, refused = bench.new_records(before)
    assert (refused["kind"], refused["code"]) == ("upload", "project-not-granted")
