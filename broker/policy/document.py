"""From bytes to plain values: the small, unsurprising part of YAML that policies are written in.

Laws, each of which a file that breaks it is told with its line:

- UTF-8 without a byte order mark, tabs, or characters that are not seen; at most `LONGEST_FILE_BYTES`;
- one document, a mapping, nested at most `DEEPEST` levels, of at most `MOST_VALUES` values;
- no anchors, aliases, tags, merge keys or directives: what is read is what stands there;
- a key is text and stands once; a value is never empty: `until:` with nothing behind it would mean "for ever";
- scalars are text but for `true` and `false`, whole numbers, and days (2027-01-31). YAML 1.1's other readings (`no`,
  `0o17`, `1_000`, `12:30`) stay text, so that strict models refuse them where text is not meant.

PyYAML gives events (libyaml's, where it was built in), and the values are built here: no object is ever made of a tag,
and nothing is nested or repeated before the bounds are asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any, Final

import yaml

from broker.policy.errors import Findings, Place, shown

LONGEST_FILE_BYTES: Final = 1024 * 1024
DEEPEST: Final = 16
"""Levels. Policies need five."""
MOST_VALUES: Final = 100_000
"""In one file. Of lists of single letters, a file within its size could hold five times as many."""
LONGEST_KEY: Final = 200

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNSEEN = re.compile(
    r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]"  # controls, tabs, the byte order mark, no characters
    r"|\r(?!\n)|[\u2028\u2029]"  # line ends that editors do not count
    r"|[\u200b-\u200f\u202a-\u202e\u2060-\u2069]"  # what hides or turns text before a reviewer's eyes
)
_WHOLE = re.compile(r"[-+]?[0-9]{1,40}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMERIC: Final = tuple("+-0123456789")
_NOTHING: Final = frozenset({"", "~", "null", "Null", "NULL"})
_YAML_1_1: Final = frozenset({"true", "false", "y", "n", "yes", "no", "on", "off"})
"""As keys, many readers of YAML take these for booleans, so an editor and the broker would see different files."""


class _UnusableError(Exception):
    """The file is not worth reading on; what is wrong is already noted."""


def read(content: bytes, findings: Findings) -> dict[str, Any] | None:
    """Reads one file into dicts, tuples, text, booleans, whole numbers and days.

    Args:
        findings: Takes the mistakes, and the line of every place.

    Returns:
        What can be read, also beside mistakes; None where that is nothing.
    """
    text = _text(content, findings)
    if text is None:
        return None
    parser = _LOADER(text)
    try:
        return _Reader(_events(parser), findings).document()
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML without libyaml: chr() of "\UFFFFFFFF"
        _note_syntax(error, text, findings)
    except _UnusableError:
        pass
    finally:
        parser.dispose()
    return None


def _text(content: bytes, findings: Findings) -> str | None:
    if len(content) > LONGEST_FILE_BYTES:
        findings.add((), f"is larger than {LONGEST_FILE_BYTES} bytes", "Split the organization, or its projects.")
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        findings.add((), "is not UTF-8 text", "Save the file as UTF-8.", line=line)
        return None
    unseen = _UNSEEN.search(text)
    if unseen is None:
        return text
    line = text.count("\n", 0, unseen.start()) + 1
    if unseen[0] == "\t":
        findings.add((), "has a tab", "Write spaces: two for each level.", line=line)
    else:
        findings.add((), f"has a character that is not seen: {shown(unseen[0])}", "Remove it.", line=line)
    return None


def _events(parser: Any) -> Iterator[Any]:
    while parser.check_event():
        yield parser.get_event()


def _note_syntax(error: Exception, text: str, findings: Findings) -> None:
    last = text.count("\n") + 1
    marks = (getattr(error, "problem_mark", None), getattr(error, "context_mark", None))
    lines = [min(mark.line + 1, last) for mark in marks if mark is not None]
    began = f" (in what began on line {lines[1]})" if lines[1:] and lines[1] != lines[0] else ""
    findings.add(
        (),
        f"is not YAML: {shown(getattr(error, 'problem', error))[1:-1]}{began}",
        "Check the indentation, the colons and the quotes on this line and the one before it.",
        line=lines[0] if lines else 1,
    )


class _Reader:
    """Builds values from events. It calls itself, and no deeper than `DEEPEST`."""

    def __init__(self, events: Iterator[Any], findings: Findings) -> None:
        self._events = events
        self._findings = findings
        self._values = 0

    def document(self) -> dict[str, Any] | None:
        next(self._events)  # the stream's start
        start = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            self._refuse((), "is empty", "Write the policy, or remove the file.")
        if start.version is not None or start.tags:
            self._findings.add((), "has a YAML directive", "Remove the line that begins with `%`.", line=_line(start))
        first = next(self._events)
        if isinstance(first, yaml.ScalarEvent) and first.implicit[0] and first.value in _NOTHING:
            self._refuse((), "is empty", "Write the policy, or remove the file.")
        if not isinstance(first, yaml.MappingStartEvent):
            self._refuse((), "must be a mapping of fields", "Begin with `name: value` lines.", _line(first))
        value: dict[str, Any] = self._value(first, ())
        next(self._events)  # the document's end
        more = next(self._events)
        if not isinstance(more, yaml.StreamEndEvent):
            remedy = "Remove what follows the line `---`; a file is one document."
            self._refuse((), "has a second document", remedy, _line(more))
        return value

    def _refuse(self, place: Place, what: str, remedy: str, line: int | None = None) -> None:
        self._findings.add(place, what, remedy, line=line)
        raise _UnusableError

    def _value(self, event: Any, place: Place) -> Any:
        self._values += 1
        if self._values > MOST_VALUES:
            self._refuse((), f"has more than {MOST_VALUES} values", "Split the organization.", _line(event))
        if isinstance(event, yaml.AliasEvent):
            self._findings.add_broken(place, f"is an alias (*{shown(event.anchor)[1:-1]})", "Write the value itself.")
            return ""
        if event.anchor is not None or event.tag is not None:
            self._decorated(event, place)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, place)
        if len(place) >= DEEPEST:
            self._refuse_depth(place, event)
        return self._mapping(place) if isinstance(event, yaml.MappingStartEvent) else self._sequence(place)

    def _decorated(self, event: Any, place: Place) -> None:
        if event.anchor is not None:
            what, remedy = f"has an anchor (&{shown(event.anchor)[1:-1]})", "Remove it: nothing can refer to it."
        else:
            what, remedy = f"has a tag ({shown(event.tag)[1:-1]})", "Remove it; write text in quotes."
        self._findings.add(place, what, remedy, line=_line(event))

    def _scalar(self, event: Any, place: Place) -> Any:
        text: str = event.value
        if event.implicit[0]:
            if text in _NOTHING:
                self._findings.add_broken(place, "has no value", "Write one, or remove the line.")
                return ""
            value = _plain(text)
            if not isinstance(value, str):
                return value
        if not text.isprintable():
            what = f"has a line break or a character that is not seen: {shown(text)}"
            self._findings.add_broken(place, what, "Write it in one line of plain text.")
        return text

    def _sequence(self, place: Place) -> tuple[Any, ...]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            item = (*place, len(items))
            self._findings.lines[item] = _line(event)
            items.append(self._value(event, item))
        return tuple(items)

    def _mapping(self, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, place)
            if key is None:
                self._skip(next(self._events), place)
            elif key in values:
                inner = (*place, key)
                what = f"stands twice; first on line {self._findings.line_of(inner)}"
                self._findings.add_always(inner, what, "Remove one of the two.", line=_line(event))
                self._skip(next(self._events), place)
            else:
                inner = (*place, key)
                self._findings.lines[inner] = _line(event)
                values[key] = self._value(next(self._events), inner)
        return values

    def _key(self, event: Any, place: Place) -> str | None:
        """The key, or None where it cannot be taken for one; what is wrong with it is noted either way."""
        line = _line(event)
        if not isinstance(event, yaml.ScalarEvent):
            self._skip(event, place)
            self._findings.add(place, "has a key that is not text", "Write a name.", line=line)
            return None
        key: str = event.value
        if not key or len(key) > LONGEST_KEY or not key.isprintable():
            what = f"has a key that is empty, longer than {LONGEST_KEY} characters, or not seen"
            self._findings.add(place, what, "Write a name.", line=line)
            return None
        if event.implicit[0] and key == "<<":
            self._findings.add(place, "has a merge key (<<)", "Write the fields themselves.", line=line)
            return None
        if event.anchor is not None or event.tag is not None:
            self._findings.add((*place, key), "has an anchor or a tag on its name", "Remove it.", line=line)
        elif event.implicit[0] and not _is_text(key):
            what = "has a name that not all readers of YAML take for text"
            self._findings.add((*place, key), what, f'Quote it: "{key}".', line=line)
        return key

    def _skip(self, event: Any, place: Place) -> None:
        """Passes over a value without keeping any of it. Nesting is bounded here too: libyaml's cost is its square."""
        depth = 0
        while True:
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth == 0:
                return
            if depth > DEEPEST:
                self._refuse_depth(place, event)
            event = next(self._events)

    def _refuse_depth(self, place: Place, event: Any) -> None:
        self._refuse(place[:3], f"is nested deeper than {DEEPEST} levels", "Remove the nesting.", _line(event))


def _plain(text: str) -> str | bool | int | date:
    if text in {"true", "false"}:
        return text == "true"
    if not text.startswith(_NUMERIC):
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DAY.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            return text
    return text


def _is_text(text: str) -> bool:
    return text not in _NOTHING and text.lower() not in _YAML_1_1 and isinstance(_plain(text), str)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
