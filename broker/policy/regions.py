"""Boxes in a space of a few finite dimensions, and what is in one of them and in none of some others.

A dimension's values are the bits of a whole number, so a set of them is a mask, and a box is a mask for each dimension:
all points whose value in each dimension is in its mask. What a publisher and a member give together is such a box.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from broker.policy.globs import TooComplexError

Box = tuple[int, ...]

MOST_PIECES: Final = 20_000
"""That one box may fall into."""


def outside(box: Box, others: Iterable[Box], *, void: Iterable[Box] = ()) -> list[Box]:
    """What of a box is in no other, as boxes that are as large as can be and may overlap; none where all of it is.

    Args:
        void: Boxes of points that are not there. They make no piece by themselves, and a piece may reach over them.

    Raises:
        TooComplexError: it falls into more than `MOST_PIECES`.
    """
    near, void = [other for other in others if _meet(box, other)], [one for one in void if _meet(box, one)]
    return _largest([_grown(piece, box, near, void) for piece in _pieces(box, [*near, *void])])


def _pieces(box: Box, others: Iterable[Box]) -> list[Box]:
    pieces = [box]
    for other in others:
        pieces = [rest for piece in pieces for rest in _without(piece, other)]
        if len(pieces) > MOST_PIECES:
            raise TooComplexError("the publishers of one repository overlap in too many ways")
    return pieces


def _meet(one: Box, other: Box) -> bool:
    return all(mine & its for mine, its in zip(one, other, strict=True))


def _without(piece: Box, other: Box) -> list[Box]:
    """The piece without the other, as disjoint boxes: one for each dimension in which it reaches further."""
    if not _meet(piece, other):
        return [piece]
    common = tuple(mine & its for mine, its in zip(piece, other, strict=True))
    return [(*common[:at], mine & ~common[at], *piece[at + 1 :]) for at, mine in enumerate(piece) if mine & ~common[at]]


def _grown(piece: Box, whole: Box, others: Sequence[Box], void: Sequence[Box]) -> Box:
    """The piece, as wide as the whole in each dimension in which that adds a point, and none of the others."""
    for at, mask in enumerate(whole):
        wider = (*piece[:at], mask, *piece[at + 1 :])
        added = (*piece[:at], mask & ~piece[at], *piece[at + 1 :])
        if all(added) and not any(_meet(wider, other) for other in others) and _pieces(added, void):
            piece = wider
    return piece


def _largest(boxes: Iterable[Box]) -> list[Box]:
    """Those that are in no other."""
    distinct = list(dict.fromkeys(boxes))
    return [one for one in distinct if not any(one != other and _within(one, other) for other in distinct)]


def _within(one: Box, other: Box) -> bool:
    return all(mine & ~its == 0 for mine, its in zip(one, other, strict=True))
