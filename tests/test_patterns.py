"""Names and patterns: what is meant, to the letter, and what is no pattern at all."""

from __future__ import annotations

import pytest

from broker.patterns import Projects, RefGlob, intersect, normalise


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("acme-widgets", "acme-widgets"),
        ("Acme._-Widgets", "acme-widgets"),
        ("A", "a"),
        ("0", "0"),
        ("a.b_c-d", "a-b-c-d"),
    ],
)
def test_names_are_normalised_as_registries_do(text: str, name: str) -> None:
    assert normalise(text) == name


@pytest.mark.parametrize(
    "text",
    ["", "-", "-acme", "acme-", ".acme", "acme_", "ac me", "acme\n", "acmé", "acme/widgets", "acme*", "\u212aiwi", "٣"],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="project name"):
        normalise(text)


@pytest.mark.parametrize(
    ("text", "projects"),
    [
        ("acme-widgets", Projects("acme-widgets")),
        ("Acme.Widgets", Projects("acme-widgets")),
        ("acme-*", Projects("acme-", is_prefix=True)),
        ("Acme_.*", Projects("acme-", is_prefix=True)),
        ("acme-build.*", Projects("acme-build-", is_prefix=True)),
        ("acmeX-*", Projects("acmex-", is_prefix=True)),
    ],
)
def test_projects_are_read(text: str, projects: Projects) -> None:
    assert Projects.parse(text) == projects
    assert Projects.parse(str(projects)) == projects


@pytest.mark.parametrize("text", ["*", "acme*", "-*", "--*", "ac*me", "acme-*-*", "*-acme", "acme-**", "acme-*\n", ""])
def test_a_star_stands_only_at_the_end_of_a_prefix(text: str) -> None:
    with pytest.raises(ValueError, match=r"project name|after a separator"):
        Projects.parse(text)


def test_projects_are_written_as_they_are_read() -> None:
    assert [str(Projects.parse(text)) for text in ("acme-widgets", "acme-*")] == ["acme-widgets", "acme-*"]


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("acme-widgets", "acme-widgets", True),
        ("acme-widgets", "acme-widgets-2", False),
        ("acme-widgets", "acme-widget", False),
        ("acme-*", "acme-widgets", True),
        ("acme-*", "acme-a", True),
        ("acme-*", "acme-", False),
        ("acme-*", "acme", False),
        ("acme-*", "acmeevil", False),
        ("acme-*", "evil-acme-widgets", False),
    ],
)
def test_coverage(pattern: str, name: str, covered: bool) -> None:
    assert Projects.parse(pattern).covers(name) is covered


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("acme-a", "acme-a", "acme-a"),
        ("acme-a", "acme-b", None),
        ("acme-*", "acme-*", "acme-*"),
        ("acme-*", "acme-a", "acme-a"),
        ("acme-*", "acme-build-*", "acme-build-*"),
        ("acme-*", "other-*", None),
        ("acme-*", "abc", None),
        ("acme-*", "acmes", None),
        ("acme-a", "acme-a-*", None),
        ("acme-*", "acme", None),
        ("acme-a-*", "acme-a", None),
    ],
)
def test_what_both_mean(one: str, other: str, both: str | None) -> None:
    expected = None if both is None else Projects.parse(both)
    assert Projects.parse(one).intersect(Projects.parse(other)) == expected
    assert Projects.parse(other).intersect(Projects.parse(one)) == expected


def test_a_prefix_does_not_mean_its_bare_stem() -> None:
    """No policy can write such a name, and none is taken in all the same."""
    prefix, bare = Projects("acme-", is_prefix=True), Projects("acme-")
    assert prefix.intersect(bare) is None
    assert bare.intersect(prefix) is None


@pytest.mark.parametrize(
    ("inner", "outer", "within"),
    [
        ("acme-a", "acme-*", True),
        ("acme-*", "acme-*", True),
        ("acme-b-*", "acme-*", True),
        ("acme-*", "acme-a", False),
        ("acme-*", "acme-b-*", False),
        ("other", "acme-*", False),
    ],
)
def test_within(inner: str, outer: str, within: bool) -> None:
    assert Projects.parse(inner).within(Projects.parse(outer)) is within


def test_sets_meet_pairwise_even_when_they_are_generators() -> None:
    some = (Projects.parse(text) for text in ("acme-*", "tools-x"))
    others = (Projects.parse(text) for text in ("acme-a", "acme-b", "tools-*", "else"))
    assert intersect(some, others) == {Projects.parse(text) for text in ("acme-a", "acme-b", "tools-x")}


@pytest.mark.parametrize(
    ("glob", "ref", "fits"),
    [
        ("refs/tags/v1.0", "refs/tags/v1.0", True),
        ("refs/tags/v1.0", "refs/tags/v1x0", False),
        ("refs/tags/v*", "refs/tags/v1.0", True),
        ("refs/tags/v*", "refs/tags/v", True),
        ("refs/tags/v*", "refs/tags/v1/evil", False),
        ("refs/tags/v*", "refs/tags/V1", False),
        ("refs/tags/X*", "refs/tags/X1", True),
        ("refs/tags/v*", "refs/tags/xv1", False),
        ("refs/tags/v*", "refs/heads/v1", False),
        ("refs/tags/v*", "refs/tags/v1\nrefs/heads/main", False),
        ("refs/tags/v*", "xrefs/tags/v1", False),
        ("refs/heads/*", "refs/heads/feature/x", False),
        ("refs/heads/*/x", "refs/heads/feature/x", True),
        ("refs/heads/*/x", "refs/heads/x", False),
        ("refs/tags/v*.*", "refs/tags/v1.2", True),
        ("refs/tags/v*.*", "refs/tags/v12", False),
        ("refs/tags/*-rc*", "refs/tags/1.0-rc1", True),
        ("refs/tags/*-rc*-x", "refs/tags/1.0-rc-x", True),
        ("refs/tags/a*ba", "refs/tags/aba", True),
        ("refs/tags/a*aa", "refs/tags/aa", False),
        ("refs/tags/ab*ba", "refs/tags/aba", False),
        ("refs/tags/a*b*b", "refs/tags/ab", False),
        ("refs/tags/a*b*b", "refs/tags/abb", True),
        ("refs/tags/a*bc*c", "refs/tags/abc", False),
        ("refs/tags/*b*c", "refs/tags/cb", False),
        ("refs/tags/*b*b*c", "refs/tags/abc", False),
        ("refs/tags/main|release", "refs/tags/mainframe", False),
        ("refs/tags/v.", "refs/tags/v1", False),
        ("refs/tags/*a*a*", "refs/tags/a", False),
        ("refs/tags/*a*a*", "refs/tags/aa", True),
        ("refs/heads/main", "714a629c0b401fdce83e847fc9589983fc6f46bc", False),
        ("refs/heads/main", "", False),
    ],
)
def test_refs_fit_whole_or_not_at_all(glob: str, ref: str, fits: bool) -> None:
    assert RefGlob.parse(glob).matches(ref) is fits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "main",
        "refs",
        "*",
        "tags/v*",
        "xrefs/tags/v1",
        "refs/heads/**",
        "refs/**/x",
        "refs/tags/v?",
        "refs/tags/[v]",
        "refs/tags/v]",
        "refs/tags/{a",
        "refs/tags/a}",
        "refs/tags/\\d",
    ],
)
def test_other_wildcards_and_short_refs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"full ref|wildcard"):
        RefGlob.parse(text)


def test_a_glob_is_written_as_it_is_read() -> None:
    assert str(RefGlob.parse("refs/tags/v*")) == "refs/tags/v*"


def test_many_stars_take_no_exponential_time() -> None:
    """A matcher that goes back and tries again would not end in a lifetime."""
    assert not RefGlob.parse("refs/tags/" + "a*" * 60 + "b").matches("refs/tags/" + "a" * 1000)
