"""The last character of each rule of `package.py`: what a slip of one sign would let pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.gateway.package import MOST_HEADER_LINES
from tests.fakes import outcome
from tests.gateway.uploads import FOLDER, SDIST, WHEEL, check_upload, metadata, pack_sdist, pack_wheel, upload


@pytest.mark.parametrize("version", [" 1.0", "1.0 ", "1.0\t", "1.0\n", "\u20031.0"])
def test_a_version_has_no_white_space_around_it(version: str, tmp_path: Path) -> None:
    """`packaging` reads it all the same; registries keep or drop it as they please."""
    assert outcome(check_upload, upload(version=version), tmp_path) == "filename-mismatch"


@pytest.mark.parametrize("filename", [f"{WHEEL}+x.whl", f"{WHEEL} .whl", f"x+{WHEEL}"])
def test_a_wheels_name_is_one_to_its_last_letter(filename: str, tmp_path: Path) -> None:
    assert outcome(check_upload, upload(pack_wheel(), filename), tmp_path) == "filename-mismatch"


def test_a_source_distributions_name_is_one_to_its_last_letter(tmp_path: Path) -> None:
    """A project may be called like the file of another: 'acme_widgets-1.0.tar.gz', version 1.0."""
    name = SDIST
    file = pack_sdist({f"{name}-1.0/PKG-INFO": metadata(name)})
    assert outcome(check_upload, upload(file, f"{name}-1.0.tar.gz", name=name), tmp_path) == "filename-mismatch"


def test_the_folder_of_a_source_distribution_may_have_dashes_in_its_name(tmp_path: Path) -> None:
    file = pack_sdist({"acme-widgets-1.0/PKG-INFO": metadata()})
    assert check_upload(upload(file, SDIST), tmp_path).project == "acme-widgets"


@pytest.mark.parametrize(("spare", "code"), [(0, "accepted"), (1, "metadata-mismatch")])
@pytest.mark.parametrize("end", ["\n", "\r"])
def test_the_metadata_has_a_bound_on_its_lines(end: str, spare: int, code: str, tmp_path: Path) -> None:
    head = metadata().partition(b"\n\n")[0].decode().strip().split("\n")
    lines = [*head, *["X: y"] * (MOST_HEADER_LINES - 1 - len(head) + spare)]
    inside = (end.join(lines) + end + end + "Widgets.").encode()
    assert outcome(check_upload, upload(pack_wheel({f"{FOLDER}.dist-info/METADATA": inside})), tmp_path) == code


def test_the_bound_on_lines_is_what_the_documentation_says() -> None:
    assert MOST_HEADER_LINES == 100_000


def test_a_long_description_counts_for_nothing(tmp_path: Path) -> None:
    inside = metadata(description="\n" * (MOST_HEADER_LINES + 1))
    file = pack_wheel({f"{FOLDER}.dist-info/METADATA": inside})
    assert check_upload(upload(file), tmp_path).project == "acme-widgets"
