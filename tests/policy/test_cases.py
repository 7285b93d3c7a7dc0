"""Test cases: read strictly, tried as a mint would decide, and told how they differ."""

# ruff: noqa: E501 (tables: one mistake, one line)

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker import refusals
from broker.policy.case_shapes import CaseShape, TemplateShape
from broker.policy.cases import read_cases
from broker.policy.errors import PolicyError
from broker.policy.files import load
from broker.policy.trials import Failure, try_case
from tests.fakes import CLAIMS, NOW, issuer
from tests.policy.example import FILES, line_of, write

FILE = "tests/acme.yaml"
HEAD = """\
templates:
  widgets: {issuer: github, changes: {environment: pypi}}
cases:
"""
GOOD = '  "good": {template: widgets, allow: [acme-widgets]}\n'


def read(folder: Path, text: str, file: str = FILE) -> tuple[tuple[object, ...], list[PolicyError]]:
    write(folder, {**FILES, file: text})
    cases, errors = read_cases(folder, load(folder))
    return cases, list(errors)


def tried(folder: Path, *cases: str, head: str = HEAD) -> list[Failure | None]:
    write(folder, {**FILES, FILE: head + "".join(f'  "case {at}": {case}\n' for at, case in enumerate(cases))})
    policies = load(folder)
    found, errors = read_cases(folder, policies)
    assert errors == ()
    return [try_case(policies, case, NOW) for case in found]


PASSING = [
    "{template: widgets, allow: [acme-widgets]}",
    "{template: github, allow: [Acme_Widgets]}",
    "{template: widgets, scope: read, allow: [acme-widgets]}",
    "{template: widgets, scope: upload, allow: [acme-widgets]}",
    '{template: widgets, scope: read, changes: {actor_id: "1003"}, refuse: member-not-permitted}',
    "{template: widgets, changes: {environment: staging}, refuse: no-publisher}",
    "{template: widgets, without: [environment], refuse: no-publisher}",
    "{template: widgets, without: [actor_id], refuse: missing-claim}",
    "{template: widgets, changes: {actor_id: 1001}, refuse: invalid-claim}",
    "{template: widgets, changes: {repository_id: [a, {b: true}]}, refuse: invalid-claim}",
    "{template: widgets, changes: {iss: 'https://[ci.example'}, refuse: unknown-issuer}",
    "{template: gitlab-acme, refuse: no-publisher}",
    '{template: widgets, changes: {actor_id: "1002"}, at: 2027-01-31, allow: [acme-widgets]}',
    '{template: widgets, changes: {actor_id: "1002"}, at: 2027-02-01T00:00:00Z, refuse: member-expired}',
    '{claims: {iss: "https://token.actions.githubusercontent.com", event_name: push}, refuse: missing-claim}',
    "{claims: {iss: [x]}, changes: {iss: https://ci.example}, refuse: unknown-issuer}",
    '{template: gitlab, changes: {project_path: globex/engine, project_id: "1"}, allow: [globex-engine]}',
    '{template: gitlab, changes: {project_path: globex/engine, project_id: "1"}, pins: {globex/engine-release: {project_id: "2"}}, refuse: identity-changed}',
]


def test_a_case_that_reads_is_decided_as_a_read(tmp_path: Path) -> None:
    acme = FILES["organizations/acme.yaml"].replace('{upload: ["team:core"]}', "{upload: [alice], download: [bob]}")
    cases = (
        "scope: read, allow: [acme-widgets]",
        "scope: upload, refuse: member-not-permitted",
        "refuse: member-not-permitted",
    )
    bob = '  "{at}": {{template: widgets, changes: {{actor_id: "1002"}}, {case}}}\n'
    text = HEAD + "".join(bob.format(at=at, case=case) for at, case in enumerate(cases))
    write(tmp_path, {**FILES, "organizations/acme.yaml": acme, FILE: text})
    policies = load(tmp_path)
    found, errors = read_cases(tmp_path, policies)
    assert errors == ()
    assert [case.scope for case in found] == ["read", "upload", "upload"]
    assert [try_case(policies, case, NOW) for case in found] == [None] * 3


@pytest.mark.parametrize("case", PASSING)
def test_a_case_that_comes_out_as_expected_passes(tmp_path: Path, case: str) -> None:
    assert tried(tmp_path, case) == [None]


def test_a_template_s_moment_and_left_out_claims_are_its_cases_too(tmp_path: Path) -> None:
    head = 'templates: {widgets: {issuer: github, changes: {actor_id: "1002"}, at: 2027-02-01, without: [environment]}}\ncases:\n'
    assert tried(
        tmp_path,
        "{template: widgets, refuse: no-publisher}",
        "{template: widgets, changes: {environment: pypi}, refuse: no-publisher}",
        head=head,
    ) == [None, None]
    assert tried(
        tmp_path,
        "{template: widgets, refuse: member-expired}",
        "{template: widgets, at: 2027-01-31, allow: [acme-widgets]}",
        head=head.replace(", without: [environment]", ""),
    ) == [None, None]


FAILING = [
    (
        "{template: widgets, changes: {environment: staging}, allow: [acme-widgets]}",
        "expected the grant acme-widgets, came no-publisher: no publisher fits repository 'acme-corp/widgets' of issuer 'github'",
        "Nearest is acme/widgets-release: environment is 'staging', expected 'pypi'.",
    ),
    (
        "{template: widgets, refuse: no-publisher}",
        "expected no-publisher, came the grant acme-widgets",
        "Mend the policy; or the case, if what it expects has changed.",
    ),
    (
        "{template: widgets, allow: [acme-widgets, acme-gadgets]}",
        "expected the grant acme-gadgets, acme-widgets, came the grant acme-widgets",
        "Mend the policy; or the case, if what it expects has changed.",
    ),
    (
        '{template: widgets, changes: {actor: "m\u0430llory", actor_id: "6"}, refuse: member-suspended}',
        r"expected member-suspended, came unknown-actor: the actor 'm\u0430llory' (github id 6) is no member of 'acme'",
        "Mend the policy; or the case, if what it expects has changed.",
    ),
]


@pytest.mark.parametrize(("case", "what", "remedy"), FAILING)
def test_a_case_that_does_not_is_told_with_what_came(tmp_path: Path, case: str, what: str, remedy: str) -> None:
    (failure,) = tried(tmp_path, case)
    assert failure is not None
    assert (failure.what, failure.remedy) == (what, remedy)
    assert (failure.file, failure.line, failure.path, failure.case) == (FILE, 4, 'cases."case 0"', "case 0")


def test_the_nearest_publisher_is_the_one_whose_rules_went_furthest(tmp_path: Path) -> None:
    acme = FILES["organizations/acme.yaml"]
    other = acme[acme.index("  widgets-release:") :].replace("widgets-release", "a").replace("release.yml", "a.yml")
    third = other.replace("  a:", "  b:").replace("a.yml", "b.yml")
    text = HEAD + '  "c": {template: widgets, changes: {ref: refs/heads/main}, allow: [acme-widgets]}\n'
    write(tmp_path, {**FILES, "organizations/acme.yaml": acme + other + third, FILE: text})
    policies = load(tmp_path)
    (case,), _ = read_cases(tmp_path, policies)
    failure = try_case(policies, case, NOW)
    assert failure is not None
    assert failure.nearest == "acme/widgets-release: refs is 'refs/heads/main', expected 'refs/tags/v*'"


C = "cases.good"
MISTAKES = [
    ("colour: blue\n" + HEAD + GOOD, "colour", "colour: is no field here", "The fields here: templates, cases."),
    ("cases: {}\n", "cases", "cases: must not be empty", "Each named by a sentence that says what it promises."),
    ("templates: {}\n", "templates", "cases: is missing", "Add it. Each named by a sentence that says what it promises."),
    ("- a\n", "- a", "must be a mapping of fields", "Begin with `name: value` lines."),
    (HEAD + '  "good": 7\n', '"good"', f"{C}: must be a mapping of names to values, and is a number (7)", "Write `name: value` lines under it, indented."),
    (HEAD + '  "good": {allow: [a]}\n', '"good"', f"{C}: has neither `template` nor `claims`", "Name a template, or write the claims."),
    (HEAD + '  "good": {template: widgets}\n', '"good"', f"{C}: has neither `allow` nor `refuse`", "Add `allow: [projects]`, or `refuse: code`."),
    (HEAD + '  "good": {template: widgets, claims: {iss: x}, allow: [a]}\n', '"good"', f"{C}.claims: stands beside `template`", "Keep one of the two."),
    (HEAD + '  "good": {template: widgets, allow: [a], refuse: no-publisher}\n', '"good"', f"{C}.refuse: stands beside `allow`", "Keep one of the two."),
    (HEAD + '  "good": {template: widgets, allow: []}\n', '"good"', f"{C}.allow: must not be empty", "Allowed, and the grant is exactly these projects."),
    (HEAD + '  "good": {template: widgets, allow: ["*"]}\n', '"good"', f"{C}.allow[0]: '*': a `*` may stand only at the end of a prefix, after a separator, as in 'acme-*'", "Allowed, and the grant is exactly these projects."),
    (HEAD + '  "good": {template: widgets, scope: write, allow: [a]}\n', '"good"', f"{C}.scope: must be 'upload' or 'read', and is the text 'write'", "Write one of these."),
    (HEAD + '  "good": {template: widgets, refuse: no-publsher}\n', '"good"', f"{C}.refuse: is no refusal's code: 'no-publsher'", "Did you mean 'no-publisher'?"),
    (HEAD + '  "good": {template: widget, allow: [a]}\n', '"good"', f"{C}.template: is no template here, and no issuer: 'widget'", "Did you mean 'widgets'?"),
    (HEAD + '  "good": {template: nothing, allow: [a]}\n', '"good"', f"{C}.template: is no template here, and no issuer: 'nothing'", "Correct the name."),
    (HEAD + '  "good": {template: widgets, without: [enviroment], allow: [a]}\n', '"good"', f"{C}.without[0]: is no claim here: 'enviroment'", "Did you mean 'environment'?"),
    (HEAD + '  "good": {claims: {iss: x}, without: [exp], allow: [a]}\n', '"good"', f"{C}.without[0]: is no claim here: 'exp'", "Remove it."),
    (HEAD + '  "good": {template: widgets, pins: {acme/widget-release: {repository_id: "1"}}, allow: [a]}\n', '"good"', f'{C}.pins."acme/widget-release": is no publisher: \'acme/widget-release\'', "Did you mean 'acme/widgets-release'?"),
    (HEAD + '  "good": {template: widgets, changes: {x: [{z: 2027-01-31}]}, allow: [a]}\n', '"good"', f"{C}.changes.x[0].z: is a day, and a claim is none: 2027-01-31", 'Write "2027-01-31" in quotes.'),
    (HEAD + '  "good": {claims: {x: 2027-01-31}, allow: [a]}\n', '"good"', f"{C}.claims.x: is a day, and a claim is none: 2027-01-31", 'Write "2027-01-31" in quotes.'),
    (HEAD + '  "good": {template: widgets, at: noon, allow: [a]}\n', '"good"', f"{C}.at: has not the right form: the text 'noon'", "Write a day, as 2027-01-31, or a moment in UTC, as 2027-01-31T08:00:00Z."),
    (HEAD + '  "good": {template: widgets, at: "2027-01-31T25:00:00Z", allow: [a]}\n', '"good"', f"{C}.at: has not the right form: the text '2027-01-31T25:00:00Z'", "Write a day, as 2027-01-31, or a moment in UTC, as 2027-01-31T08:00:00Z."),
    (HEAD.replace("github", "githubb") + GOOD, "widgets:", "templates.widgets.issuer: is no issuer in index.yaml: 'githubb'", "Did you mean 'github'?"),
    (HEAD.replace("issuer: github, ", "") + GOOD, "widgets:", "templates.widgets.issuer: is missing", "Add it. The name of an issuer in index.yaml: the claims are an example of its provider's, with its URL."),
    (HEAD.replace("environment: pypi", "environment: 2027-01-31") + GOOD, "widgets:", "templates.widgets.changes.environment: is a day, and a claim is none: 2027-01-31", 'Write "2027-01-31" in quotes.'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "marker", "told", "remedy"), MISTAKES)
def test_a_mistake_is_told_at_its_line_and_no_case_of_the_file_is_tried(
    tmp_path: Path, text: str, marker: str, told: str, remedy: str
) -> None:
    cases, errors = read(tmp_path, text)
    line = line_of(text, marker)
    assert [(str(one), one.remedy) for one in errors] == [(f"{FILE}:{line}: {told}", remedy)]
    assert cases == ()


def test_cases_of_other_files_are_tried_all_the_same(tmp_path: Path) -> None:
    write(tmp_path, {"tests/good.yaml": HEAD + GOOD})
    cases, errors = read(tmp_path, "cases: {}\n")
    assert (len(cases), len(errors)) == (1, 1)


def test_without_policies_only_references_are_not_asked(tmp_path: Path) -> None:
    text = HEAD + '  "a": {template: who, pins: {a/b: {c: d}}, allow: [a]}\n  "b": {template: widgets, refuse: no}\n'
    write(tmp_path, {FILE: text})
    _, errors = read_cases(tmp_path, None)
    assert [str(one) for one in errors] == [f"{FILE}:5: cases.b.refuse: is no refusal's code: 'no'"]


def test_what_looks_like_a_file_of_cases_and_is_not_read_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"tests/a.yml": "", "tests/more/b.yaml": "", "tests/notes.md": "", "tests/.hidden.yaml": ""})
    (tmp_path / "tests" / "gone.yaml").symlink_to("nowhere")
    cases, errors = read(tmp_path, HEAD + GOOD)
    assert [str(one) for one in errors] == [
        "tests/a.yml: is not read: its name does not end in .yaml",
        "tests/more: is a folder, and nothing in it is read",
        "tests/gone.yaml: is not there",
    ]
    assert len(cases) == 1


def test_a_folder_of_cases_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {**FILES, FILE: HEAD + GOOD})
    policies = load(tmp_path)

    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    cases, (error,) = read_cases(tmp_path, policies)
    assert (cases, str(error)) == ((), "tests: cannot be listed: Permission denied")


def test_the_server_does_not_read_them(tmp_path: Path) -> None:
    before = load(write(tmp_path)).generation
    assert load(write(tmp_path, {FILE: "nonsense"})).generation == before


PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "test-cases.md").read_text()


def test_the_reference_s_example_passes_and_its_fields_are_all(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    write(tmp_path, {**FILES, FILE: example})
    policies = load(tmp_path)
    cases, errors = read_cases(tmp_path, policies)
    assert errors == ()
    assert len(cases) == 4
    assert [try_case(policies, case, NOW) for case in cases] == [None] * 4
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(CaseShape.model_fields)
    assert all(f"`{field}`" in PAGE for field in TemplateShape.model_fields)


@pytest.mark.parametrize("kind", CLAIMS)
def test_any_value_may_stand_for_any_claim(tmp_path: Path, kind: Any) -> None:
    """A claim's type is a thing to test: whatever it is, the case is decided."""
    told = issuer(kind)
    policies = replace(load(write(tmp_path)), issuers={kind: told}, issuer_by_url={told.url: told})
    values = ("7", "true", "[]", "{a: b}", "''", "' '", "'[x'")
    cases = [
        f'  "{name} {value}": {{template: {kind}, changes: {{"{name}": {value}}}, refuse: not-found}}\n'
        for name in told.provider.example({})
        for value in values
    ]
    write(tmp_path, {FILE: "cases:\n" + "".join(cases)})
    found, errors = read_cases(tmp_path, policies)
    assert (len(found), errors) == (len(cases), ())
    codes = {refusal.code for refusal in refusals.every()}
    for case in found:
        failure = try_case(policies, case, NOW)
        assert failure is not None
        assert failure.came in codes or failure.came.startswith("the grant ")
