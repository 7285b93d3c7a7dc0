"""One cause, one refusal, one code, one paragraph."""

from __future__ import annotations

import inspect
import re

import pytest

from broker import refusals
from broker.refusals import Refusal

EVERY = refusals.every()

STATUSES = {400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 422, 429, 502, 503, 507}
"""Never 500: that is ours, and no refusal."""


def test_every_finds_all_that_the_file_defines() -> None:
    defined = [
        value
        for value in vars(refusals).values()
        if inspect.isclass(value) and issubclass(value, Refusal) and value is not Refusal
    ]
    assert [one for one in EVERY if one.__module__ == refusals.__name__] == defined
    assert len(defined) > 40


def test_codes_are_unique() -> None:
    codes = [one.code for one in EVERY]
    assert sorted(set(codes)) == sorted(codes)


@pytest.mark.parametrize("refusal", EVERY, ids=lambda one: one.code)
def test_a_refusal_is_complete(refusal: type[Refusal]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", refusal.code)
    assert refusal.status in STATUSES
    assert refusal.__doc__, "the paragraph in the reference"
    assert refusal.title().endswith(".")
    assert refusal.title()[0].isupper()
    assert refusal.__dict__["remedy"].endswith((".", "`."))


def test_a_refusal_without_a_detail_says_its_title() -> None:
    refusal = refusals.ExpiredToken()
    assert refusal.detail == "The token's time is over." == refusals.ExpiredToken.title()
    assert (refusal.expected, refusal.retry_after_seconds) == ("", None)


def test_a_refusal_keeps_what_it_was_told() -> None:
    refusal = refusals.RateLimited("slower", expected="less", retry_after_seconds=7)
    assert (refusal.detail, refusal.expected, refusal.retry_after_seconds) == ("slower", "less", 7)
    assert str(refusal) == "slower"


def test_the_title_is_the_first_line_of_a_longer_paragraph() -> None:
    assert Refusal.title() == "The base of every refusal."
