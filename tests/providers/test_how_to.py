"""The how-to's provider is whole: one file, with which runs are admitted and refused as with any other."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from broker.policy.files import load
from broker.policy.rehearsal import rehearse
from broker.providers import PROVIDERS, Provider
from tests.fakes import NOW
from tests.policy.example import write

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "add-a-provider.md").read_text(encoding="utf-8")

ACME = """\
organization: initech
namespaces: [initech]
members:
  alice: {role: owner, acme-ci: "1001"}
publishers:
  reports:
    issuer: acme-ci
    pipeline: initech/reports
    pipeline_id: "7"
    group_id: "3"
    refs: ["refs/tags/*"]
    projects: [initech-reports]
"""


@pytest.fixture(name="provider")
def _provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    [source] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module = ModuleType("acme_ci")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses and pydantic look names up
    exec(compile(source, "add-a-provider.md", "exec"), module.__dict__)
    provider = module.PROVIDER
    assert isinstance(provider, Provider)
    monkeypatch.setitem(PROVIDERS, provider.name, provider)
    return provider


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"pipeline": "Initech/Reports"}, None),
        ({"trigger": "merge_request"}, "forbidden-trigger"),
        ({"pipeline_id": "8"}, "identity-changed"),
        ({"pipeline_id": 7}, "invalid-claim"),
        ({"group_id": ...}, "missing-claim"),
        ({"ref": "refs/heads/main"}, "no-publisher"),
        ({"user_id": "9"}, "unknown-actor"),
    ],
    ids=str,
)
def test_its_runs_are_decided_as_all_are(
    tmp_path: Path, provider: Provider, changes: dict[str, object], code: str | None
) -> None:
    files = {"index.yaml": "issuers: {acme-ci: {provider: acme-ci}}\n", "organizations/initech.yaml": ACME}
    found = rehearse(load(write(tmp_path, files)), provider.example(changes), now=NOW)
    assert (None if found.refusal is None else found.refusal.code) == code
