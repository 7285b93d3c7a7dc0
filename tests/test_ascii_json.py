"""What is written of any value is one line of ASCII, and reads back as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from broker.ascii_json import encode
from tests.property.strategies import json_values


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, True, None, "x y"]}, '{"a":[1,2.5,true,null,"x y"]}'),
        ({"b": "é"}, '{"b":"\\u00e9"}'),
        ([1, "😀", 2], '[1,"\\ud83d\\ude00",2]'),
        ({"a": "\ud800", "b": 1}, '{"a":"\\ud800","b":1}'),
        ({"line": "a\nb", "quoted": '"\\'}, '{"line":"a\\nb","quoted":"\\"\\\\"}'),
        ({"delete": "\x7f é"}, '{"delete":"\\u007f \\u00e9"}'),
        ("\x7f", '"\\u007f"'),
    ],
)
def test_it_is_short_and_ascii(value: Any, text: str) -> None:
    assert encode(value) == text


@given(json_values.filter(lambda value: bool(json.loads(json.dumps(value)) == value)))
def test_any_value_is_one_line_that_reads_back(value: Any) -> None:
    """All but what holds a NaN, which equals nothing."""
    text = encode(value)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == value
