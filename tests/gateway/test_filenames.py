"""Which filenames mean one file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.gateway.filenames import FileName, read_filename


@pytest.mark.parametrize(
    "spellings",
    [
        ["acme_widgets-1.0.tar.gz", "Acme.Widgets-1.0.0.tar.gz", "acme--widgets-v1.tar.gz", "acme-widgets-1.0.tar.gz"],
        ["acme-1.0.zip"],
        ["acme-1.0-py3-none-any.whl", "ACME-1-PY3-none-any.whl"],
        ["acme-1.0-py2.py3-none-any.whl", "acme-1.0-py3.py2-none-any.whl", "acme-1.0-py3.py3.py2-none-any.whl"],
        ["acme-1.0-1-py3-none-any.whl", "acme-1.0-01-py3-none-any.whl"],
        ["acme-1.0-1b-py3-none-any.whl", "acme-1.0-1B-py3-none-any.whl"],
        ["acme-1.0-0-py3-none-any.whl", "acme-1.0-00-py3-none-any.whl"],
        ["acme-1.0+local.1-py3-none-any.whl", "acme-1.0+local_1-py3-none-any.whl"],
        ["acme-1.0rc1.tar.gz", "acme-1.0.c1.tar.gz"],
        ["acme-1.0-py3-none-any-and-more.whl"],
        ["acme-py3-any.whl"],
        ["-1.0.tar.gz"],
        ["acme-1.0.tar.gz.asc"],
        [""],
    ],
)
def test_spellings_of_one_file_are_one_and_no_other(spellings: list[str]) -> None:
    assert len({str(read_filename(spelling)) for spelling in spellings}) == 1
    others = {"acme_widgets-1.0.1.tar.gz", "acmewidgets-1.0.tar.gz", "acme-1.0-2-py3-none-any.whl", "acme-1.0-py3.whl"}
    assert not {str(read_filename(one)) for one in others} & {str(read_filename(one)) for one in spellings}


def test_a_filename_says_project_version_and_kind() -> None:
    assert read_filename("Acme.Widgets-1.0-02a-py3.py2-none-any.whl") == FileName(
        "acme-widgets", "1", "2a-py2.py3-none-any.whl"
    )
    assert read_filename("acme_widgets-1.10.tar.gz") == FileName("acme-widgets", "1.10", ".tar.gz")
    assert read_filename("README") == FileName("", "", "README")


@given(st.text(max_size=60), st.sampled_from(["", ".whl", ".tar.gz", ".zip"]))
def test_any_text_is_some_name(text: str, suffix: str) -> None:
    filename = read_filename(text + suffix)
    assert filename.project or filename == FileName("", "", text + suffix)
