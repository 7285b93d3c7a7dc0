"""The how-to on any issuer says what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.policy.files import load
from broker.policy.rehearsal import rehearse
from tests.policy.example import write

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "trust-any-issuer.md").read_text(encoding="utf-8")
NOW = 1_800_000_000

RUN = {
    "iss": "https://jenkins.initech.example/oidc",
    "sub": "run",
    "job": "initech/reports",
    "job_uuid": "9c3b2a10-7e6d-4c5b",
    "branch": "main",
    "cause": "tag",
    "user_id": "u-1001",
    "user": "alice",
}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"job_uuid": "other"}, "identity-changed"),
        ({"cause": "pull-request"}, "no-publisher"),
        ({"branch": "Main"}, "no-publisher"),
        ({"cause": 7}, "invalid-claim"),
        ({"user_id": "u-9"}, "unknown-actor"),
    ],
    ids=str,
)
def test_its_policies_load_and_decide_as_it_says(tmp_path: Path, changes: dict[str, object], code: str | None) -> None:
    index, organization = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    policies = load(write(tmp_path, {"index.yaml": index, "organizations/initech.yaml": organization}))
    found = rehearse(policies, {**RUN, **changes}, now=NOW)
    assert (None if found.refusal is None else found.refusal.code) == code
