"""What `broker check` found, for people, for programs, and for GitHub's pull requests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from broker.policy.errors import PolicyError, PolicyErrors, counted, shown, shown_path
from broker.policy.model import Policies
from broker.policy.trials import Failure
from broker.policy.warnings import PolicyWarning

JSON_VERSION: Final = 1
"""Of the JSON format: a new field leaves it, and a field that goes or changes its meaning counts it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was found."""

    folder: Path
    policies: Policies | None
    """None where they do not load."""
    errors: tuple[PolicyError, ...] = ()
    """Why they do not load."""
    case_errors: tuple[PolicyError, ...] = ()
    """Mistakes in files of test cases."""
    registry_errors: tuple[PolicyError, ...] = ()
    """Mistakes in the registries' file."""
    warnings: tuple[PolicyWarning, ...] = ()
    tried: int = 0
    failures: tuple[Failure, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether anything is wrong, warnings apart."""
        return bool(self.mistakes or self.failures)

    @property
    def mistakes(self) -> tuple[PolicyError, ...]:
        """In all files."""
        return (*self.errors, *self.case_errors, *self.registry_errors)

    @property
    def publishers(self) -> int:
        """How many the policies have."""
        organizations = self.policies.organizations if self.policies else {}
        return sum(len(organization.publishers) for organization in organizations.values())

    def summary(self) -> list[str]:
        """How it went, in a line each for the policies, the cases and the warnings."""
        lines = []
        if self.policies is not None:
            organizations = counted(len(self.policies.organizations), "organization")
            generation = self.policies.generation
            lines.append(
                f"policies OK: {organizations}, {counted(self.publishers, 'publisher')}, generation {generation}"
            )
        if self.case_errors and not self.errors:
            files = counted(len({error.file for error in self.case_errors}), "file")
            lines.append(f"{counted(len(self.case_errors), 'mistake')} in {files} of test cases: not tried.")
        if self.registry_errors:
            lines.append(f"{counted(len(self.registry_errors), 'mistake')} in the registries' file.")
        if self.failures:
            lines.append(f"cases FAILED: {len(self.failures)} of {self.tried}")
        elif self.tried:
            lines.append(f"cases OK: {self.tried}")
        return [*lines, counted(len(self.warnings), "warning")] if self.warnings else lines


class _Found(Protocol):
    """What stands on a line: a mistake, a weakness, or a case that failed."""

    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def path(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def remedy(self) -> str: ...


def as_text(report: Report, *, ok: bool) -> str:
    """For people: each finding with how to mend it, and how it went."""
    del ok
    folder = shown_path(report.folder)
    lines = [f"{folder}/{one.file}:{one.line}: {one.path}: {one.what}\n    {one.remedy}" for one in report.failures]
    found: tuple[_Found, ...] = (*report.warnings, *report.registry_errors)
    for one in found:
        # From the folder, the registries' file is `../registries.yaml`; people are told where it is.
        elsewhere = one.file.startswith("..")
        where = shown_path(os.path.normpath(report.folder / one.file)) if elsewhere else f"{folder}/{one.file}"
        lines.append(f"{where}{str(one).removeprefix(one.file)}\n    {one.remedy}")
    mistakes = PolicyErrors(report.folder, (*report.errors, *report.case_errors))
    if report.errors:
        lines.append(mistakes.explained())
    else:
        lines += [f"{mistakes.located(one)}\n    {one.remedy}" for one in mistakes.errors]
    return "\n".join([*lines, *report.summary()])


def as_json(report: Report, *, ok: bool) -> str:
    """For programs; its fields are in docs/reference/check.md."""

    def listed(found: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [{**asdict(one), "file": _path(report.folder, one.file)} for one in found]

    return json.dumps(
        {
            "version": JSON_VERSION,
            "ok": ok,
            "folder": _path(report.folder, ""),
            "generation": None if report.policies is None else report.policies.generation,
            "organizations": 0 if report.policies is None else len(report.policies.organizations),
            "publishers": report.publishers,
            "errors": listed(report.mistakes),
            "warnings": listed(report.warnings),
            "cases": {"passed": report.tried - len(report.failures), "failed": listed(report.failures)},
        },
        indent=2,
    )


def as_github(report: Report, *, ok: bool) -> str:
    """Workflow commands, that GitHub shows at the files of a pull request; and how it went, for the log.

    Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands (read 2026-11); what is
    escaped, as actions/toolkit does.
    """
    del ok
    lines = [_annotation("error", report.folder, one, "Policy mistake") for one in report.mistakes]
    lines += [_annotation("error", report.folder, one, f"Test case: {shown(one.case)}") for one in report.failures]
    lines += [_annotation("warning", report.folder, one, f"Weak policy: {one.code}") for one in report.warnings]
    if report.errors:
        lines.append(f"{counted(len(report.mistakes), 'mistake')}: the policies do not load.")
    return "\n".join([*lines, *report.summary()])


FORMATS: Final[Mapping[str, Callable[..., str]]] = {"text": as_text, "json": as_json, "github": as_github}


def _annotation(level: str, folder: Path, found: _Found, title: str) -> str:
    properties = {"file": _path(folder, found.file), "line": str(found.line or 1), "title": title}
    told = ",".join(f"{name}={_escaped(value, ',', ':')}" for name, value in properties.items())
    what = f"{found.path}: {found.what}" if found.path else found.what
    return f"::{level} {told}::{_escaped(f'{what}. {found.remedy}')}"


def _escaped(text: str, *also: str) -> str:
    for sign in ("%", "\r", "\n", *also):
        text = text.replace(sign, f"%{ord(sign):02X}")
    return text


def _path(folder: Path, file: str) -> str:
    """From the working directory, with `/`: so a program or a pull request finds it."""
    return shown_path(Path(os.path.relpath(folder / file)).as_posix())
