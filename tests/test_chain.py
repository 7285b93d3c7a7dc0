"""Whatever is done to a chain of records is found and named, and nothing is found in one that nobody touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from broker.chain import Head, Kept, Verification, digest, genesis, link

Change = Callable[[list[Kept]], None]


def chain(organization: str = "acme", length: int = 6, *, first: int = 1) -> list[Kept]:
    """Records of one organization; their positions are as far apart as others' may be."""
    kept, at = [], genesis(organization)
    for sequence in range(1, length + 1):
        body = f'{{"organization":"{organization}","number":{sequence}}}'
        at = link(at, digest(body.encode()))
        kept.append(Kept(position=str(10 * sequence), organization=organization, sequence=sequence, link=at, body=body))
    return kept[first - 1 :]


def head(records: list[Kept], swept: int = 0) -> Head:
    """As a store has it that swept so many."""
    at = genesis(records[0].organization) if swept == 0 else records[swept - 1].link
    return Head(sequence=records[-1].sequence, link=records[-1].link, swept_sequence=swept, swept_link=at)


def verify(
    records: list[Kept], heads: Mapping[str, Head] | None = None, noted: Mapping[str, tuple[int, str]] | None = None
) -> list[str]:
    """What is found."""
    verification = Verification(heads, noted)
    for one in records:
        verification.follow([one])
    verification.finish(heads)
    return [str(finding) for finding in verification.findings]


def test_the_formula_is_the_one_that_is_documented() -> None:
    """Whoever verifies an export with another program computes this."""
    assert genesis("acme") == "7fa53797624b582891541154d9163eb2b9863dcb32300ba420fd5d74ae979c2b"
    (first,) = chain(length=1)
    assert first.link == "610436c165e569c295dca2e5ab840415cf8e441d9334f16eea00803e52eeca01"


def test_nothing_is_found_where_nobody_did_anything() -> None:
    mixed = [record for pair in zip(chain("acme"), chain("bolt"), chain(""), strict=True) for record in pair]
    assert verify(mixed, {name: head(chain(name)) for name in ("acme", "bolt", "")}) == []
    assert verify(mixed) == []
    assert verify([], {}) == []


def remove(records: list[Kept]) -> None:
    del records[2]


def remove_two(records: list[Kept]) -> None:
    del records[2:4]


def remove_the_first(records: list[Kept]) -> None:
    del records[0]


def remove_the_last(records: list[Kept]) -> None:
    del records[-2:]


def remove_all(records: list[Kept]) -> None:
    del records[:]


def edit(records: list[Kept]) -> None:
    records[2] = replace(records[2], body=records[2].body.replace("3", "4"))


def edit_the_first(records: list[Kept]) -> None:
    records[0] = replace(records[0], body="{}")


def edit_and_link_anew(records: list[Kept]) -> None:
    records[2] = replace(records[2], body="{}", link=link(records[1].link, digest(b"{}")))


def edit_the_last_and_link_it_anew(records: list[Kept]) -> None:
    records[-1] = replace(records[-1], body="{}", link=link(records[-2].link, digest(b"{}")))


def put_in_behind_the_last(records: list[Kept]) -> None:
    last = records[-1]
    records.append(replace(last, sequence=7, body="{}", link=link(last.link, digest(b"{}"))))


def put_in_for_somebody_new(records: list[Kept]) -> None:
    records.extend(chain("bolt", 2))


def swap_bodies(records: list[Kept]) -> None:
    records[2], records[3] = replace(records[2], body=records[3].body), replace(records[3], body=records[2].body)


def swap_places(records: list[Kept]) -> None:
    records[2], records[3] = records[3], records[2]


def put_in(records: list[Kept]) -> None:
    records.insert(3, replace(records[2], body="{}"))


def spoil_a_link(records: list[Kept]) -> None:
    records[2] = replace(records[2], link="not a number")


def give_to_another(records: list[Kept]) -> None:
    records[2] = replace(records[2], organization="bolt")


def say_it_is_older_than_the_chain(records: list[Kept]) -> None:
    records[2] = replace(records[2], sequence=0)


ALTERED = "it does not follow from the one before: one of the two was altered"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (remove, ["organization 'acme', record 3: it is missing"]),
        (remove_two, ["organization 'acme', record 3: it and all up to 4 are missing"]),
        (remove_the_first, ["organization 'acme', record 1: it is missing"]),
        (remove_the_last, ["organization 'acme', record 5: it and all up to 6 are missing"]),
        (remove_all, ["organization 'acme', record 1: it and all up to 6 are missing"]),
        (edit, [f"organization 'acme', record 3: {ALTERED}"]),
        (edit_the_first, [f"organization 'acme', record 1: {ALTERED}"]),
        (edit_and_link_anew, [f"organization 'acme', record 4: {ALTERED}"]),
        (
            edit_the_last_and_link_it_anew,
            ["organization 'acme', record 6: it is not the last that was written: it was altered, and linked anew"],
        ),
        (
            put_in_behind_the_last,
            ["organization 'acme', record 7: it stands behind the last that was written: put in"],
        ),
        (
            put_in_for_somebody_new,
            ["organization 'bolt', record 1: it stands behind the last that was written: put in"],
        ),
        (swap_bodies, [f"organization 'acme', record {number}: {ALTERED}" for number in (3, 4)]),
        (
            swap_places,
            [
                "organization 'acme', record 3: it is missing",
                "organization 'acme', record 3: it stands after record 4: swapped, or put in",
            ],
        ),
        (put_in, ["organization 'acme', record 3: it stands after record 3: swapped, or put in"]),
        (spoil_a_link, [f"organization 'acme', record {number}: {ALTERED}" for number in (3, 4)]),
        (
            give_to_another,
            [
                "organization 'acme', record 3: it is missing",
                "organization 'bolt', record 1: it and all up to 2 are missing",
                "organization 'bolt', record 1: it stands behind the last that was written: put in",
            ],
        ),
        (
            say_it_is_older_than_the_chain,
            [
                "organization 'acme', record 0: it stands after record 2: swapped, or put in",
                "organization 'acme', record 3: it is missing",
            ],
        ),
    ],
)
def test_what_was_done_to_a_chain_is_named(change: Change, found: list[str]) -> None:
    records = chain()
    heads = {"acme": head(records)}
    change(records)
    assert verify(records, heads) == found


def test_records_of_no_organization_are_called_so() -> None:
    records = chain("")
    heads = {"": head(records)}
    edit(records)
    assert verify(records, heads) == [f"no organization, record 3: {ALTERED}"]


# --- What is swept, and what comes meanwhile -------------------------------------------------------------------------


def test_what_was_swept_is_not_missing() -> None:
    records = chain()
    assert verify(records[2:], {"acme": head(records, swept=2)}) == []
    assert verify([], {"acme": head(records, swept=6)}) == []


def test_the_first_that_is_kept_follows_the_last_that_was_swept() -> None:
    records = chain()
    heads = {"acme": head(records, swept=2)}
    edit(records)
    assert verify(records[2:], heads) == [f"organization 'acme', record 3: {ALTERED}"]


def test_more_is_missing_than_was_swept() -> None:
    records = chain()
    assert verify(records[3:], {"acme": head(records, swept=2)}) == ["organization 'acme', record 3: it is missing"]
    assert verify([], {"acme": head(records, swept=2)}) == [
        "organization 'acme', record 3: it and all up to 6 are missing"
    ]


@pytest.mark.parametrize("read_from", [2, 3, 4, 6])
def test_what_is_swept_while_it_is_read_is_not_missing(read_from: int) -> None:
    records = chain()
    verification = Verification({"acme": head(records, swept=1)})
    verification.follow(records[read_from:])
    verification.finish({"acme": head(records, swept=max(read_from, 4))})
    assert verification.findings == []


def test_what_comes_while_it_is_read_is_followed_too() -> None:
    records, others = chain(), chain("bolt")
    verification = Verification({"acme": head(records[:4])})
    verification.follow([*records, *others])
    verification.finish({"acme": head(records), "bolt": head(others)})
    assert verification.findings == []


def test_records_from_before_there_was_a_chain_are_counted_and_no_more() -> None:
    old = Kept(position="1", organization="acme", sequence=0, link="", body="{}")
    verification = Verification({"acme": head(chain())})
    verification.follow([old, old, *chain()])
    verification.finish()
    assert (verification.records, verification.unchained, verification.findings) == (8, 2, [])


# --- An export, and heads that were noted ----------------------------------------------------------------------------


def test_an_export_may_begin_anywhere() -> None:
    assert verify(chain(first=3)) == []
    records = chain(first=3)
    records[1] = replace(records[1], body="{}")
    assert verify(records) == [f"organization 'acme', record 4: {ALTERED}"]


def test_an_export_from_the_first_record_on_begins_with_it() -> None:
    records = chain()
    edit_the_first(records)
    assert verify(records) == [f"organization 'acme', record 1: {ALTERED}"]


def test_a_chain_that_was_made_anew_is_not_the_one_that_was_noted() -> None:
    """By somebody who can write the whole store."""
    noted = {"acme": (4, chain()[3].link)}
    assert verify(chain(), {"acme": head(chain())}, noted) == []
    anew = made_anew(chain())
    assert verify(anew, {"acme": head(anew)}) == []
    assert verify(anew, {"acme": head(anew)}, noted) == [
        "organization 'acme', record 4: it is not the one that was noted: the chain was made anew"
    ]


def test_a_head_that_was_noted_and_is_cut_off_is_missed() -> None:
    shorter = chain(length=3)
    assert verify(shorter, {"acme": head(shorter)}, {"acme": (4, chain()[3].link)}) == [
        "organization 'acme', record 4: it was noted earlier, and is not there"
    ]
    assert verify([], {}, {"acme": (4, chain()[3].link)}) == [
        "organization 'acme', record 4: it was noted earlier, and is not there"
    ]


def test_a_noted_head_that_is_older_than_what_is_kept_is_told_apart() -> None:
    records = chain()
    verification = Verification({"acme": head(records, swept=3)}, {"acme": (2, records[1].link)})
    verification.follow(records[3:])
    verification.finish()
    assert (verification.findings, verification.gaps) == ([], {"acme": (2, 4)})
    assert verification.ends == {"acme": (6, records[-1].link)}
    all_gone = Verification({"acme": head(records, swept=6)}, {"acme": (2, records[1].link)})
    all_gone.finish()
    assert (all_gone.findings, all_gone.gaps) == ([], {"acme": (2, 7)})


NOT_FROM_NOTED = "it does not follow from the one that was noted: the chain was made anew"


def test_what_begins_right_behind_a_noted_head_follows_from_it() -> None:
    records = chain()
    noted = {"acme": (3, records[2].link)}
    assert verify(records[3:], noted=noted) == []
    assert verify(records[3:], {"acme": head(records, swept=3)}, noted) == []
    assert verify(made_anew(records)[3:], noted=noted) == [f"organization 'acme', record 4: {NOT_FROM_NOTED}"]
    anew = made_anew(records)
    assert verify(anew[3:], {"acme": head(anew, swept=3)}, noted) == [
        f"organization 'acme', record 4: {NOT_FROM_NOTED}"
    ]


def test_of_an_organization_without_records_the_head_tells_what_followed_the_noted_one() -> None:
    records = chain()
    noted = {"acme": (6, records[-1].link)}
    assert verify([], {"acme": head(records, swept=6)}, noted) == []
    assert verify([], {"acme": head(made_anew(records), swept=6)}, noted) == [
        f"organization 'acme', record 7: {NOT_FROM_NOTED}"
    ]


def made_anew(records: list[Kept]) -> list[Kept]:
    """As somebody links them who altered the second."""
    anew, at = [], genesis("acme")
    for one in records:
        body = one.body.replace("2", "7")
        at = link(at, digest(body.encode()))
        anew.append(replace(one, body=body, link=at))
    return anew
