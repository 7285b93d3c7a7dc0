"""The examples' test cases hold each publisher from both sides: whatever breaks or widens one field, they tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.patterns import RefGlob
from broker.policy import document
from broker.policy.cases import Case, read_cases
from broker.policy.errors import Findings, PolicyErrors
from broker.policy.files import load
from broker.policy.model import Policies
from broker.policy.trials import try_case
from broker.providers.github import SAFE_EVENTS
from broker.providers.gitlab import SAFE_SOURCES

EXAMPLES = Path(__file__).parents[2] / "policies"
NOW = 1_800_000_000
GONE = object()

MORE = {
    "refs": ("refs/tags/*", "refs/heads/*", "refs/heads/main", "refs/*/v*"),
    "events": SAFE_EVENTS,
    "pipeline_sources": SAFE_SOURCES,
}
"""What a list could have beside what it has."""

GIVEN = ("projects", "downloads")
"""What a publisher gives, where all other fields are what it asks."""

ABSENT = ("x", False, True, ["x"], ["refs/heads/x"], ["push"], "3", "first-use", "2026-12-31")
"""Something for every kind of field that a publisher leaves out."""


@dataclass(frozen=True)
class Mutant:
    """One publisher with one field changed."""

    organization: str
    publisher: str
    field: str
    value: Any

    def __str__(self) -> str:
        return f"{self.organization}/{self.publisher}.{self.field}: {'gone' if self.value is GONE else self.value}"


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def example(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = plain(document.read(file.read_bytes(), Findings(file=file.name)))
    return values


FILES = {file.stem: example(file) for file in sorted(EXAMPLES.glob("organizations/*.yaml"))}
POLICIES = load(EXAMPLES)


def other_texts(field: str, text: str) -> Iterator[str]:
    if field == "issuer":
        yield from (name for name in POLICIES.issuers if name != text)
    elif field in GIVEN:
        yield from (f"{text.removesuffix('-*')}-x", f"{text.split('-', maxsplit=1)[0]}-*")
    elif field == "refs":
        start, _, end = text.rpartition("/")
        yield from (f"{start}/*", f"{start}/{end}x", f"{start}/x{end}", f"refs/*/{end}", f"refs/heads/{end}")
        yield from (f"{text}/*", "refs/tags/v1.0.0")
    elif text.isdigit():
        yield str(int(text) + 1)
    else:
        yield from (f"{text}x", f"x{text}", f"x{text.rpartition('/')[2]}")


def others(field: str, value: Any, organization: str) -> Iterator[Any]:
    if isinstance(value, str):
        yield from other_texts(field, value)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield [*value[:at], *value[at + 1 :]]
            yield from ([*value[:at], other, *value[at + 1 :]] for other in other_texts(field, item))
        more = MORE.get(field, (f"{organization}-x", f"{organization}-*"))
        yield from ([*value, one] for one in more if one not in value)


def mutants() -> Iterator[Mutant]:
    for organization, values in FILES.items():
        for publisher, fields in values["publishers"].items():
            trust = POLICIES.organizations[organization].publishers[publisher].trust
            for field, value in fields.items():
                yield Mutant(organization, publisher, field, GONE)
                for other in others(field, value, organization):
                    yield Mutant(organization, publisher, field, other)
            for field in {*type(trust).model_fields, "until"} - fields.keys():
                for value in ABSENT:
                    yield Mutant(organization, publisher, field, value)
            for field in set(GIVEN) - fields.keys():
                for name in (f"{organization}-x", f"{organization}-*"):
                    yield Mutant(organization, publisher, field, [name])


@pytest.fixture(scope="module", name="cases")
def example_cases() -> tuple[Case, ...]:
    cases, errors = read_cases(EXAMPLES, POLICIES)
    assert errors == ()
    return cases


@pytest.fixture(scope="module", name="folder")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    (folder / "organizations").mkdir()
    (folder / "index.yaml").write_bytes((EXAMPLES / "index.yaml").read_bytes())
    return folder


def mutated(folder: Path, mutant: Mutant) -> Policies | None:
    """The examples with one field changed, or None where they do not load."""
    for name, values in FILES.items():
        told = dict(values)
        if name == mutant.organization:
            fields = {**values["publishers"][mutant.publisher], mutant.field: mutant.value}
            fields = {field: value for field, value in fields.items() if value is not GONE}
            told["publishers"] = {**values["publishers"], mutant.publisher: fields}
        text = yaml.safe_dump(told)
        if mutant.field == "until":
            text = text.replace(f"'{mutant.value}'", str(mutant.value))
        (folder / "organizations" / f"{name}.yaml").write_text(text)
    try:
        return load(folder)
    except PolicyErrors:
        return None


def means_the_same(policies: Policies, mutant: Mutant) -> bool:
    """Whether a field only says what holds without it."""
    publisher = policies.organizations[mutant.organization].publishers[mutant.publisher]
    return publisher == POLICIES.organizations[mutant.organization].publishers[mutant.publisher]


def test_every_case_passes(cases: tuple[Case, ...]) -> None:
    assert [failure for case in cases if (failure := try_case(POLICIES, case, NOW)) is not None] == []


def test_every_publisher_has_cases_on_both_sides(cases: tuple[Case, ...]) -> None:
    """So a new example without any is noticed, though each of its fields were optional."""
    for organization, values in FILES.items():
        granted = {str(one) for case in cases if Path(case.file).stem == organization for one in case.allow}
        given = (fields.get(field, ()) for fields in values["publishers"].values() for field in GIVEN)
        assert granted == {project for some in given for project in some}


def test_a_case_fails_for_every_field_that_is_changed(folder: Path, cases: tuple[Case, ...]) -> None:
    survivors, loaded = [], 0
    for mutant in mutants():
        policies = mutated(folder, mutant)
        if policies is None or (
            mutant.field not in FILES[mutant.organization]["publishers"][mutant.publisher]
            and means_the_same(policies, mutant)
        ):
            continue
        loaded += 1
        if all(try_case(policies, case, NOW) is None for case in cases):
            survivors.append(str(mutant))
    assert survivors == []
    assert loaded > 80


def test_the_mutants_are_wider_and_narrower() -> None:
    """The walk itself: each field of each publisher is left out, and every list is cut, changed and lengthened."""
    everything = [str(mutant) for mutant in mutants()]
    for name, values in FILES.items():
        for publisher, fields in values["publishers"].items():
            assert {f"{name}/{publisher}.{field}: gone" for field in fields} <= set(everything)
    assert "acme/widgets-release.downloads: ['acme-x']" in everything
    assert "acme/widgets-tests.projects: ['acme-*']" in everything
    assert "acme/widgets-release.refs: ['refs/tags/v*', 'refs/heads/*']" in everything
    assert "acme/widgets-release.events: ['push']" in everything
    assert "acme/widgets-release.events: ['push', 'release', 'schedule']" in everything
    assert "globex/nightly.projects: ['globex-*']" in everything
    assert RefGlob.parse("refs/*/v*").matches("refs/heads/v1.0.0")
