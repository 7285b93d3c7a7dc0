"""Which files of a folder are policies, and their bytes.

Laws:

- A policy is a regular file inside the folder. Symbolic links may lead around in it (as a ConfigMap's do), never out.
- What looks like a policy and is not read is a mistake: it grants nothing, and its author thinks that it does.
- `tests/` (read by `broker check` alone), names that begin with a dot, and what is not YAML are left alone.
- All files count as they stood at one moment: where one changes while they are read, none does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from broker.policy.document import LONGEST_FILE_BYTES
from broker.policy.errors import Findings, PolicyError, shown_path
from broker.policy.shapes import is_name

INDEX: Final = "index.yaml"
ORGANIZATIONS: Final = "organizations"
TESTS: Final = "tests"


def list_files(folder: Path) -> tuple[list[str], list[PolicyError]]:
    """The files to read, `index.yaml` first, then those of organizations by name; and what is wrong with the folder."""
    files: list[str] = []
    errors: list[PolicyError] = []
    inside = ""
    try:
        if not folder.is_dir():
            return [], [_wrong("", "is no folder", "Name the folder that holds index.yaml and organizations/.")]
        files.append(INDEX)
        errors += _strangers(_names(folder))
        inside = ORGANIZATIONS
        if (folder / inside).is_dir():
            _list_organizations(folder / inside, files, errors)
        else:
            errors.append(_wrong(inside, "is no folder", "Create it, with a file for each organization."))
    except OSError as error:
        errors.append(_wrong(inside, f"cannot be listed: {error.strerror}", "Mend the folder's permissions."))
    return files, errors


def _strangers(names: list[str]) -> list[PolicyError]:
    remedy = "Call it index.yaml, or move it into organizations/ where it is an organization's."
    what = "is not read: policies are index.yaml and organizations/*.yaml"
    return [_wrong(name, what, remedy) for name in names if _looks_read(name) and name != INDEX]


def _list_organizations(folder: Path, files: list[str], errors: list[PolicyError]) -> None:
    for name in _names(folder):
        file = f"{ORGANIZATIONS}/{name}"
        if name.endswith(".yaml"):
            files.append(file)
            if not is_name(name.removesuffix(".yaml")):
                remedy = "Use lower-case letters, digits and `-`, beginning with a letter or digit; at most 63."
                errors.append(_wrong(file, "is not called as an organization can be", remedy))
        elif _looks_read(name):
            errors.append(_wrong(file, "is not read: its name does not end in .yaml", "Rename it, or remove it."))
        elif (folder / name).is_dir():
            remedy = "Move the organizations' files directly into organizations/."
            errors.append(_wrong(file, "is a folder, and nothing in it is read", remedy))


def list_cases(folder: Path) -> tuple[list[str], list[PolicyError]]:
    """The files of test cases by name, and what there looks like one and is not; none where there is no `tests/`."""
    files: list[str] = []
    errors: list[PolicyError] = []
    try:
        for name in _names(folder / TESTS) if (folder / TESTS).is_dir() else ():
            file = f"{TESTS}/{name}"
            if name.endswith(".yaml"):
                files.append(file)
            elif _looks_read(name):
                errors.append(_wrong(file, "is not read: its name does not end in .yaml", "Rename it, or remove it."))
            elif (folder / file).is_dir():
                errors.append(_wrong(file, "is a folder, and nothing in it is read", "Move the files into tests/."))
    except OSError as error:
        errors.append(_wrong(TESTS, f"cannot be listed: {error.strerror}", "Mend the folder's permissions."))
    return files, errors


def read_bytes(folder: Path, file: str, findings: Findings) -> bytes | None:
    """The content of a file, or None where it must not or cannot be read, which is then noted."""
    try:
        path = (folder / file).resolve(strict=True)
        if not path.is_relative_to(folder.resolve(strict=True)):
            findings.add((), "leads out of the folder of policies", "Put the file itself there.", line=0)
            return None
        if not path.is_file():
            findings.add((), "is no regular file", "Put a file there.", line=0)
            return None
        with path.open("rb") as stream:
            return stream.read(LONGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        findings.add((), "is not there", "Create the file; the how-to on running the broker shows it.", line=0)
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "its links lead in a circle"
        findings.add((), f"cannot be read: {reason}", "Mend the file, or its permissions.", line=0)
    return None


Stamps = Mapping[str, tuple[int, ...] | None]
"""File -> what changes with its content, or with where a link leads; None where it is not there to be asked."""


def stamps(folder: Path, files: Iterable[str]) -> Stamps:
    """To be taken before the files are read; `changes` takes them again."""
    return {file: _stamp(folder / file) for file in files}


def changes(folder: Path, before: Stamps) -> list[PolicyError]:
    """The files that are not what they were: written to, removed, or led elsewhere, as when a ConfigMap is swapped."""
    remedy = "Load the policies again once nothing writes to them; replace files whole, by renaming."
    return [
        _wrong(file, "changed while the policies were read", remedy)
        for file, stamp in before.items()
        if stamp is not None and _stamp(folder / file) != stamp
    ]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except (OSError, RuntimeError):  # told by whoever reads it
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _names(folder: Path) -> list[str]:
    return sorted([name for entry in folder.iterdir() if (name := entry.name)[0] != "."])


def _looks_read(name: str) -> bool:
    return name.lower().endswith((".yaml", ".yml"))


def _wrong(file: str, what: str, remedy: str) -> PolicyError:
    return PolicyError(file=shown_path(file), line=0, path="", what=what, remedy=remedy)
