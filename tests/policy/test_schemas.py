"""The JSON Schemas: every file that loads is valid, a mistake is told where it stands, every field is described."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli import schema as verb
from broker.policy import document
from broker.policy.errors import Findings
from broker.policy.schemas import SCHEMAS
from broker.providers import PROVIDERS, Kind
from tests.fakes import CLAIMS, trust
from tests.json_schema import as_json, mistakes
from tests.policy.example import ACME, GLOBEX, INDEX
from tests.policy.test_how_to import POLICY

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(ROOT.glob("policies/**/*.yaml"))
KINDS = {"policies": "index", "organizations": "organization", "tests": "cases"}


def told(kind: str, text: str) -> list[str]:
    findings = Findings(file="f.yaml")
    values = document.read(text.encode(), findings)
    assert findings.errors == []
    schema = SCHEMAS[kind]()
    return sorted(mistakes(as_json(values), schema, schema))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.relative_to(ROOT)))
def test_each_example_is_valid_and_names_its_schema(file: Path) -> None:
    text, kind = file.read_text(), KINDS[file.parent.name]
    assert told(kind, text) == []
    first, named = text.split("\n", 1)[0].split("$schema=")
    assert first == "# yaml-language-server: "
    assert (file.parent / named).resolve() == ROOT / f"docs/reference/schemas/{kind}.schema.json"


@pytest.mark.parametrize(("kind", "text"), [("index", INDEX), ("organization", ACME), ("organization", GLOBEX)])
def test_the_design_s_example_is_valid(kind: str, text: str) -> None:
    assert told(kind, text) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('{upload: ["team:core"]}', "{download: [bob]}"),
        ('{upload: ["team:core"]}', '{upload: [], download: ["team:core", bob]}'),
        ("projects: [acme-widgets]", "downloads: [acme-widgets]"),
        ("projects: [acme-widgets]", "projects: [acme-widgets]\n    downloads: [acme-*]"),
    ],
)
def test_what_reads_is_valid(old: str, new: str) -> None:
    assert ACME.count(old) == 1
    assert told("organization", ACME.replace(old, new)) == []


def test_the_how_to_s_policy_is_valid() -> None:
    assert told("organization", POLICY) == []


def test_cases_are_valid() -> None:
    assert told("cases", CASES) == []


def test_an_issuer_may_be_called_anything() -> None:
    """So a publisher's kind cannot be told by its issuer's name."""
    text = ACME.replace("issuer: github", "issuer: gitlab").replace("github:", "enterprise:")
    assert told("organization", text) == []


INDEX_MISTAKES = [
    ("gitlab: {provider: gitlab}", "gitlab: {provider: gitlub}", "issuers.gitlab.provider: enum"),
    ("gitlab: {provider: gitlab}", "gitlab: {url: https://x.example}", "issuers.gitlab: required"),
    ("gitlab: {provider: gitlab}", "gitlab: {provider: gitlab, replay: loose}", "issuers.gitlab.replay: enum"),
    ("gitlab: {provider: gitlab}", "gitlab: {provider: gitlab, disabled: 1}", "issuers.gitlab.disabled: type"),
    ("gitlab: {provider: gitlab}", "gitlab: {provider: gitlab, lon: 1h}", "issuers.gitlab.lon: unknown"),
    ("gitlab: {provider: gitlab}", "Git_Lab: {provider: gitlab}", "issuers.Git_Lab: unknown"),
    (
        "gitlab: {provider: gitlab}",
        "ci: {provider: generic, url: https://ci.example, claims: {name: repository, idz: [x], actor: a}}",
        "issuers.ci.claims.idz: unknown",
    ),
    ("default: 15m", "default: 15 m", "lifetime.default: pattern"),
    ("default: 15m", "defaults: 15m", "lifetime.defaults: unknown"),
    ("projects: [widgets]", "project: [widgets]", "organizations.acme.project: unknown"),
    ("organizations:\n  acme", "organisations:\n  acme", "organisations: unknown"),
]
CASES = """\
templates:
  widgets: {issuer: github, changes: {ref: [1, {any: thing}]}}
cases:
  "one": {template: widgets, at: 2027-01-31, allow: [acme-widgets]}
  "two": {claims: {iss: x}, pins: {acme/a: {repository_id: "1"}}, without: [x], scope: read, refuse: no-publisher}
"""
CASES_MISTAKES = [
    ("cases:\n", "case:\n", "case: unknown"),
    ("issuer: github", "provider: github", "templates.widgets: required"),
    ("template: widgets", "templates: widgets", "cases.one.templates: unknown"),
    ("template: widgets, ", "", "cases.one: oneOf"),
    ("template: widgets", "template: widgets, claims: {}", "cases.one: oneOf"),
    ("allow: [acme-widgets]", "allow: acme-widgets", "cases.one.allow: type"),
    (", allow: [acme-widgets]", "", "cases.one: oneOf"),
    ("at: 2027-01-31", "at: noon", "cases.one.at: pattern"),
    ("refuse: no-publisher", "refuse: no", "cases.two.refuse: enum"),
    ("scope: read", "scope: write", "cases.two.scope: enum"),
    ('repository_id: "1"', "repository_id: 1", "cases.two.pins.acme/a.repository_id: type"),
]
WIDGETS = "publishers.widgets-release"
ACME_MISTAKES = [
    ("organization: acme", "organisation: acme", ": required"),
    ("role: owner", "role: boss", "members.alice.role: enum"),
    ("role: owner, ", "", "members.alice: required"),
    ('github: "1001"', "github: 1001", "members.alice.github: type"),
    ("machine: true", "machine: 1", "members.release-bot.machine: type"),
    ("until: 2027-01-31", "until: 31.1.2027", "members.bob.until: format"),
    ("core: [alice, bob]", "core: alice", "teams.core: type"),
    ('acme-widgets: {upload: ["team:core"]}', "acme-widgets: {uploads: [alice]}", "projects.acme-widgets: required"),
    (
        'acme-widgets: {upload: ["team:core"]}',
        "acme-widgets: {download: alice}",
        "projects.acme-widgets.download: type",
    ),
    ("environment: pypi", "enviroment: pypi", f"{WIDGETS}.enviroment: unknown"),
    ("environment: pypi", "environment: 3", f"{WIDGETS}.environment: type"),
    ("environment: pypi", 'environment: ""', f"{WIDGETS}.environment: minLength"),
    ('repository_id: "424242424"', "repository_id: 424242424", f"{WIDGETS}.repository_id: type"),
    ('repository_id: "424242424"', 'repository_id: "x"', f"{WIDGETS}.repository_id: pattern"),
    ('    repository_id: "424242424"\n', "", f"{WIDGETS}: oneOf"),
    ("    workflow: release.yml\n", "", f"{WIDGETS}: required"),
    ("    repository: acme-corp/widgets\n", "", f"{WIDGETS}: required"),
    ("repository: acme-corp/widgets", "project_path: acme/widgets", f"{WIDGETS}.repository_id: unknown"),
    ('refs: ["refs/tags/v*"]', "refs: [main]", f"{WIDGETS}.refs[0]: pattern"),
    ('refs: ["refs/tags/v*"]', "refs: []", f"{WIDGETS}.refs: minItems"),
    ("projects: [acme-widgets]", "projects: []", f"{WIDGETS}.projects: minItems"),
    ("    projects: [acme-widgets]\n", "", f"{WIDGETS}: required"),
    ("projects: [acme-widgets]", "downloads: []", f"{WIDGETS}.downloads: minItems"),
    ("environment: pypi", "pin: first-use", f"{WIDGETS}: oneOf"),
]


@pytest.mark.parametrize(
    ("kind", "text", "old", "new", "mistake"),
    [("index", INDEX, *row) for row in INDEX_MISTAKES]
    + [("organization", ACME, *row) for row in ACME_MISTAKES]
    + [("cases", CASES, *row) for row in CASES_MISTAKES],
)
def test_a_mistake_is_told_where_it_stands(kind: str, text: str, old: str, new: str, mistake: str) -> None:
    assert text.count(old) == 1
    assert mistake in told(kind, text.replace(old, new))


def test_a_mistake_in_a_publisher_is_told_as_one_of_its_own_kind() -> None:
    """Not as all that it is none of."""
    assert told("organization", ACME.replace("workflow: release.yml", "workflow: 5")) == [f"{WIDGETS}.workflow: type"]


def parts(schema: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within a schema, and where."""
    yield place, schema
    for keyword, inner in schema.items():
        if keyword in {"properties", "patternProperties", "$defs"}:
            for name, one in inner.items():
                yield from parts(one, f"{place}/{keyword}/{name}")
        elif isinstance(inner, dict) and keyword != "default":
            yield from parts(inner, f"{place}/{keyword}")
        elif keyword in {"anyOf", "oneOf", "allOf"}:
            for at, one in enumerate(inner):
                yield from parts(one, f"{place}/{keyword}/{at}")


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_field_says_what_it_is_for_and_no_mapping_is_open(kind: str) -> None:
    undescribed, nulls, open_ = [], [], []
    for place, schema in parts(SCHEMAS[kind]()):
        if "/properties/" in place and place.split("/")[-2] == "properties" and not schema.get("description"):
            undescribed.append(place)
        if schema.get("type") == "null":
            nulls.append(place)
        if schema.get("type") == "object" and schema.get("additionalProperties") in (None, True):
            open_.append(place)
    assert (undescribed, nulls) == ([], [])
    # Claims are the provider's to name; and what kind a publisher is of, is told by what it refers to.
    free = ("/claims", "/changes", "/properties/publishers/patternProperties/^[a-z0-9][a-z0-9-]{0,62}$")
    assert [place for place in open_ if not place.endswith(free)] == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_s_publishers_have_a_schema(provider: str) -> None:
    schema = SCHEMAS["organization"]()["$defs"][f"{provider}-publisher"]
    assert schema["properties"].keys() == {*PROVIDERS[provider].trust.model_fields, "projects", "downloads", "until"}
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("kind", CLAIMS)
@pytest.mark.parametrize("pin", [{}, {"pin": "first-use"}])
def test_every_kind_of_publisher_that_loads_is_valid(kind: Any, pin: dict[str, str]) -> None:
    model = trust(kind)
    fields = {name: getattr(model, name) for name in model.model_fields_set} | pin
    for rule in model.rules if pin else ():
        if rule.kind is Kind.ID:
            fields.pop(rule.field, None)
    if "refs" in fields:
        fields["refs"] = list(map(str, fields["refs"]))
    schema = SCHEMAS["organization"]()
    publisher = as_json({**fields, "projects": ["acme-widgets"], "until": "2027-01-31"})
    assert list(mistakes({"organization": "acme", "publishers": {"one": publisher}}, schema, schema)) == []
    publisher["colour"] = "blue"
    assert list(mistakes({"organization": "acme", "publishers": {"one": publisher}}, schema, schema)) == [
        "publishers.one.colour: unknown"
    ]


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_command_prints_the_file_that_is_committed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    verb.register(parser.add_subparsers())
    args = parser.parse_args(["schema", kind])
    assert args.run(args) == 0
    committed = (ROOT / f"docs/reference/schemas/{kind}.schema.json").read_text()
    assert capsys.readouterr().out == committed
    assert json.loads(committed)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
