"""Which publishers count at an index that is for some organizations alone."""

from __future__ import annotations

from broker.policy.matching import admit
from tests.fakes import considered, identity, member, organization, policies, publisher, refused, trust

BOTH = policies(
    organization(members=(member(),), publishers=(publisher("a"), publisher("b", trusts=trust(environment="prod")))),
)
SEEN = considered(BOTH, identity())
NO_MATCH = considered(BOTH, identity(workflow_file="ci.yml"))


def test_an_index_for_all_asks_nothing() -> None:
    assert admit(SEEN, None) == SEEN
    assert admit(NO_MATCH, None) == NO_MATCH


def test_what_its_organizations_declared_counts() -> None:
    assert admit(SEEN, frozenset({"acme", "bolt"})) == SEEN


def test_a_run_that_another_organization_bound_is_told_so() -> None:
    for organizations in (frozenset({"bolt"}), frozenset[str]()):
        with refused("organization-not-admitted"):
            admit(SEEN, organizations)


def test_a_run_that_nobody_bound_is_told_nothing_of_it() -> None:
    assert admit(NO_MATCH, frozenset({"bolt"})) == ()
    assert admit((), frozenset({"bolt"})) == ()


def test_the_one_that_counts_hides_the_one_that_does_not() -> None:
    other = policies(
        organization("bolt", members=(member(),), publishers=(publisher(organization="bolt", to=("bolt-nuts",)),))
    )
    both = SEEN + considered(other, identity())
    assert [str(one) for one in admit(both, frozenset({"bolt"}))] == ["bolt/widgets-release: matches"]
