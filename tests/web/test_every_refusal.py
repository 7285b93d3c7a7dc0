"""No refusal without a request that provokes it."""

from __future__ import annotations

from broker import refusals
from tests import test_leaving
from tests.web import (
    test_api,
    test_api_audit,
    test_forward,
    test_many_uploads,
    test_mint_refusals,
    test_oauth,
    test_protocol,
    test_reads,
    test_recalls,
    test_several_registries,
    test_upload_refusals,
    test_written_once,
)


def test_every_refusal_has_its_row() -> None:
    provoked = {row.code for row in test_mint_refusals.ROWS} | {row.code for row in test_upload_refusals.ROWS}
    provoked |= {code for code, _, _ in test_mint_refusals.UNROUTED} | {test_protocol.MALFORMED} | test_oauth.PROVOKED
    provoked |= {row.code for row in test_written_once.ROWS} | {test_written_once.IN_PROGRESS}
    provoked |= {test_several_registries.NOT_ADMITTED} | test_reads.PROVOKED
    provoked |= test_many_uploads.PROVOKED | test_forward.PROVOKED | test_api.PROVOKED | test_api_audit.PROVOKED
    provoked |= test_recalls.PROVOKED
    provoked |= {test_leaving.CUT_OFF}
    assert provoked == {refusal.code for refusal in refusals.every()}
