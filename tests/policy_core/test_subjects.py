"""Whose tokens are revoked, and what is switched: the names of it, and how far each reaches."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broker.policy.subjects import (
    FORMS,
    counted,
    ids_of,
    kind_of,
    left_of,
    organization_of,
    subject_of,
    subjects_of,
    switch_of,
    switches_of,
    unknown_in,
)
from tests.fakes import granted, identity, member, policies, refused
from tests.fakes import organization as an_organization

BOTH = ("acme/release", "acme/nightly", "bolt/release")


def test_a_token_is_its_run_s_and_of_whatever_earned_it() -> None:
    who = identity()
    assert subjects_of("t1", who, BOTH) == (
        "everything",
        "issuer github",
        "organization acme",
        "organization bolt",
        "publisher acme/release",
        "publisher acme/nightly",
        "publisher bolt/release",
        f"actor github {who.actor_id}",
        f"run github {who.run}",
        f"member acme/github/{who.actor_id}",
        f"member bolt/github/{who.actor_id}",
        "token acme/t1",
        "token bolt/t1",
    )
    assert switches_of("github", BOTH) == subjects_of("t1", who, BOTH)[:7]


@pytest.mark.parametrize(
    ("revoked", "left"),
    [
        ([], BOTH),
        (["organization acme"], ("bolt/release",)),
        (["publisher acme/nightly"], ("bolt/release",)),
        (["member bolt/github/1001"], ("acme/release", "acme/nightly")),
        (["token bolt/t1"], ("acme/release", "acme/nightly")),
        (["token bolt/t1", "organization acme"], ()),
        (["everything"], ()),
        (["issuer github"], ()),
        (["actor github 1001"], ()),
        (["run github acme/1"], ()),
        (["organization acme", "run github 1"], ()),
    ],
)
def test_a_revocation_takes_one_organization_s_part_or_the_whole(revoked: Sequence[str], left: Sequence[str]) -> None:
    assert left_of(BOTH, revoked) == tuple(left)


def test_a_subject_is_an_organization_s_where_it_bears_its_name() -> None:
    named = {
        "organization acme": "acme",
        "publisher acme/x": "acme",
        "member acme/alice": "acme",
        "member acme/alice smith": "acme",
        "token acme/t1": "acme",
        "token t1": "",
        "issuer acme": "",
        "actor acme 1": "",
        "run github acme/1": "",
        "everything": "",
    }
    assert {subject: organization_of(subject) for subject in named} == named


def test_a_kind_says_how_its_names_are_written() -> None:
    told = {}
    for kind in FORMS:
        with pytest.raises(ValueError, match="write ") as caught:
            subject_of(kind, ["a"] * 3)
        told[kind] = str(caught.value)
    assert told == {
        "everything": "write 'everything'",
        "organization": "write 'organization NAME'",
        "publisher": "write 'publisher ORGANIZATION/NAME'",
        "member": "write 'member ORGANIZATION/NAME'",
        "actor": "write 'actor ISSUER ID'",
        "issuer": "write 'issuer NAME'",
        "run": "write 'run ISSUER RUN'",
        "token": "write 'token ID'",
    }


@pytest.mark.parametrize("kind", FORMS)
def test_each_kind_wants_as_many_names_as_its_form(kind: str) -> None:
    names = ["a/b" if "/" in form else "a" for form in FORMS[kind].split()]
    assert subject_of(kind, names) == " ".join((kind, *names))
    for wrong in ([*names, "x"], names[:-1], ["", *names[1:]], ["x" * 256, *names[1:]], ["a/b/c", *names[1:], "x"]):
        if wrong != names:
            with pytest.raises(ValueError):
                subject_of(kind, wrong)


@pytest.mark.parametrize("kind", ["publisher", "member"])
@pytest.mark.parametrize("name", ["release", "acme/release/x"])
def test_what_is_an_organization_s_bears_its_name(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match="write ORGANIZATION/NAME"):
        subject_of(kind, [name])


def test_the_longest_name_is_a_name() -> None:
    assert subject_of("organization", ["x" * 255]) == "organization " + "x" * 255


def test_what_policies_can_name_is_switched() -> None:
    names = {"everything": [], "issuer": ["github"], "organization": ["acme"], "publisher": ["acme/widgets-release"]}
    subjects = [switch_of(kind, told) for kind, told in names.items()]
    assert subjects == ["everything", "issuer github", "organization acme", "publisher acme/widgets-release"]
    assert [kind_of(subject) for subject in [*subjects, "publisher a b"]] == [*names, "publisher"]


def test_the_switched_off_are_counted_by_kind_once_each() -> None:
    off = ["issuer github", "publisher acme/x", "publisher acme/x", "publisher acme/y", "member acme/alice"]
    assert counted(off) == {"everything": 0, "issuer": 1, "organization": 0, "publisher": 2}
    assert counted(["everything", "organization acme"]) == {
        "everything": 1,
        "issuer": 0,
        "organization": 1,
        "publisher": 0,
    }


@pytest.mark.parametrize("name", ["Acme", "acme_x", "acme.x", "", "-acme", "acme corp", "acme\n"])
def test_what_no_policy_can_name_is_not_switched(name: str) -> None:
    with pytest.raises(ValueError):
        switch_of("organization", [name])
    with pytest.raises(ValueError):
        switch_of("publisher", [f"acme/{name}"])


@pytest.mark.parametrize(
    ("off", "detail"),
    [
        ("everything", "the whole index is switched off"),
        ("issuer github", "the issuer 'github' is switched off"),
        ("organization acme", "the organization 'acme' is switched off"),
        ("publisher acme/widgets-release", "the publisher 'acme/widgets-release' is switched off"),
    ],
)
def test_a_grant_whose_publishers_are_all_off_is_none(off: str, detail: str) -> None:
    with refused("switched-off") as caught:
        granted(policies(), identity(), off=frozenset({off, "issuer gitlab"}))
    assert caught.value.detail == detail


def test_of_a_grant_what_is_on_is_left_with_its_member_and_its_lifetime() -> None:
    both = policies(an_organization("acme"), an_organization("bolt"))
    left = granted(both, identity(), off=frozenset({"organization acme", "publisher bolt/other", "issuer gitlab"}))
    assert [one.id for one in left.publishers] == ["bolt/widgets-release"]
    assert (left.members, left.organizations) == (("bolt/alice",), ("bolt",))
    assert len(granted(both, identity(), off=frozenset({"organization cosi"})).publishers) == 2


def test_a_member_has_the_ids_that_the_policies_know() -> None:
    folder = policies(an_organization("acme"), an_organization("a/b"))
    assert [*ids_of(folder, "acme/alice").items()] == [
        ("github", "1001"),
        ("gitlab", "77"),
        ("google", "112233445566778899"),
    ]
    assert [*ids_of(policies(an_organization(members=(member(ids={"x": "2", "a": "1"}),))), "acme/alice")] == ["a", "x"]
    for nobody in ("acme/bob", "bolt/alice", "acme", "a/b/alice", ""):
        with pytest.raises(
            ValueError, match=r"no member .* operator revokes `actor ISSUER ID`, .* an owner `token ID`"
        ):
            ids_of(folder, nobody)


def test_a_member_without_ids_has_no_tokens() -> None:
    with pytest.raises(ValueError, match="no id at any issuer"):
        ids_of(policies(an_organization(members=(member(ids={}),))), "acme/alice")


@pytest.mark.parametrize(
    ("kind", "names", "unknown"),
    [
        ("everything", [], ""),
        ("issuer", ["github"], ""),
        ("issuer", ["hubgit"], "issuer 'hubgit'"),
        ("actor", ["github", "1001"], ""),
        ("actor", ["hubgit", "1001"], "issuer 'hubgit'"),
        ("actor", ["github", "alice"], "member with the id 'alice' at 'github' (a login is none)"),
        ("actor", ["gitlab", "1001"], "member with the id '1001' at 'gitlab' (a login is none)"),
        ("run", ["github", "17"], ""),
        ("run", ["hubgit", "17"], "issuer 'hubgit'"),
        ("organization", ["acme"], ""),
        ("organization", ["bolt"], "organization 'bolt'"),
        ("publisher", ["acme/widgets-release"], ""),
        ("publisher", ["acme/other"], "publisher 'acme/other'"),
        ("publisher", ["bolt/widgets-release"], "organization 'bolt'"),
        ("member", ["bolt/alice"], ""),
        ("token", ["t1"], ""),
    ],
)
def test_what_the_policies_do_not_have_is_told(kind: str, names: Sequence[str], unknown: str) -> None:
    assert unknown_in(policies(), kind, names) == unknown
