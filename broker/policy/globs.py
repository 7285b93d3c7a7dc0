"""Which of some globs can fit one ref together: every combination that a ref can have, each with such a ref.

Two policies are compared by trying refs, and a finite number must stand for all of them. `refs/tags/v*` and
`refs/tags/*rc` make three kinds of refs (one fits, the other, both), `refs/*/v1` and `refs/tags/v1` two. Globs are
automata: a walk through all states that they can be in together finds each combination, with the shortest text that has
it, and proves that there is no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from broker.patterns import RefGlob

MOST_STATES: Final = 20_000
"""Of the globs of one place between slashes, together. A dozen of them in one repository's policies have hundreds."""

_FILLERS: Final = "xyzabcdefghijklmnopqrstuvw0123456789"

_Positions = frozenset[int]
"""Where in a pattern a reader can be: before its first character is 0, behind its last is its length."""


class TooComplexError(Exception):
    """The policies cannot be compared exactly within bounds; the message says what is too much."""


def combinations(globs: Iterable[RefGlob]) -> dict[frozenset[RefGlob], str]:
    """For every set of globs that some ref fits exactly (these, and no other of them): such a ref.

    The empty set is left out: a ref that nothing fits is always there.

    Raises:
        TooComplexError: there are more states than `MOST_STATES`.
    """
    by_length: dict[int, list[RefGlob]] = {}
    for glob in sorted(set(globs), key=str):
        by_length.setdefault(glob.text.count("/"), []).append(glob)
    found: dict[frozenset[RefGlob], str] = {}
    for together in by_length.values():
        found |= _of_one_length(together)
    return found


def _of_one_length(globs: Sequence[RefGlob]) -> dict[frozenset[RefGlob], str]:
    so_far: dict[frozenset[int], str] = {frozenset(range(len(globs))): ""}
    for segments in zip(*(glob.text.split("/") for glob in globs), strict=True):
        following: dict[frozenset[int], str] = {}
        for fitting, text in _segments(segments):
            for before, ref in so_far.items():
                if both := before & fitting:
                    following.setdefault(both, f"{ref}/{text}")
        so_far = following
    return {frozenset(globs[at] for at in fitting): ref[1:] for fitting, ref in so_far.items()}


def _segments(patterns: Sequence[str]) -> Iterator[tuple[frozenset[int], str]]:
    """For every combination of patterns that some text without `/` fits: which, and the shortest such text."""
    letters = sorted({letter for pattern in patterns for letter in pattern} - {"*"})
    filler = next((letter for letter in _FILLERS if letter not in letters), "")
    letters = [filler or next(chr(code) for code in range(0x4E00, 0x9FFF) if chr(code) not in letters), *letters]
    start = tuple(_skip_stars(pattern, {0}) for pattern in patterns)
    texts: dict[tuple[_Positions, ...], str] = {start: ""}
    found: dict[frozenset[int], str] = {_fitting(patterns, start): ""}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        for letter in letters:
            after = tuple(_step(pattern, at, letter) for pattern, at in zip(patterns, state, strict=True))
            text = texts[state] + letter
            fitting = _fitting(patterns, after)
            found[fitting] = found.get(fitting) or text  # also instead of the empty text: it reads better
            if after not in texts and any(after):
                texts[after] = text
                waiting.append(after)
                if len(texts) > MOST_STATES:
                    raise TooComplexError(f"the refs of one repository have too many globs: {len(patterns)}")
    yield from ((fitting, text) for fitting, text in found.items() if fitting)


def _fitting(patterns: Sequence[str], state: tuple[_Positions, ...]) -> frozenset[int]:
    return frozenset(at for at, pattern in enumerate(patterns) if len(pattern) in state[at])


def _step(pattern: str, at: _Positions, letter: str) -> _Positions:
    stays = {position for position in at if pattern[position : position + 1] == "*"}
    moves = {position + 1 for position in at if pattern[position : position + 1] == letter}
    return _skip_stars(pattern, stays | moves)


def _skip_stars(pattern: str, positions: set[int]) -> _Positions:
    """A star may stand for nothing: whoever is before one is behind it, too."""
    return frozenset(positions | {at + 1 for at in positions if pattern[at : at + 1] == "*"})
