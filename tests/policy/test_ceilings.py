"""`ceilings` in `index.yaml`: an organization's file narrows them, and goes nowhere beyond."""

# ruff: noqa: E501 (sentences of mistakes stay in one piece)

from __future__ import annotations

from pathlib import Path

import pytest

from broker.policy.errors import PolicyError, PolicyErrors
from broker.policy.files import load
from broker.policy.model import Policies
from broker.policy.shapes import REQUIRABLE, TRIGGERS
from tests.policy.example import ACME, FILES, GLOBEX, INDEX, line_of, write

LIFETIME = "lifetime: {default: 15m, longest: 1h}\n"
RELEASE, ENGINE = "publishers.widgets-release", "publishers.engine-release"

GOOGLE = """\
  nightly:
    issuer: google
    email: release-bot@acme.example
    account_id: "112233445566778899"
    projects: [acme-nightly]
"""


def ceilings(*lines: str) -> str:
    return "ceilings:\n" + "".join(f"  {line}\n" for line in lines)


def loaded(folder: Path, index: str, *, acme: str = ACME, globex: str = GLOBEX) -> Policies:
    files = {"index.yaml": index, "organizations/acme.yaml": acme, "organizations/globex.yaml": globex}
    return load(write(folder, files))


def told(folder: Path, index: str, *, acme: str = ACME, globex: str = GLOBEX) -> list[PolicyError]:
    with pytest.raises(PolicyErrors) as caught:
        loaded(folder, index, acme=acme, globex=globex)
    assert all(error.remedy for error in caught.value.errors)
    return list(caught.value.errors)


def only(folder: Path, index: str, *, acme: str = ACME, globex: str = GLOBEX) -> str:
    """The one mistake: place, what, remedy."""
    (error,) = told(folder, index, acme=acme, globex=globex)
    return f"{error} | {error.remedy}"


# --- Lifetime --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "own", "seconds"),
    [
        ("", "", 3600),
        (LIFETIME, "", 3600),
        ("lifetime: {default: 30m, longest: 2h}\n", "", 7200),
        ("lifetime: {default: 30m, longest: 2h}\n", "lifetime: 15m\n", 900),
        ("lifetime: {default: 30m, longest: 2h}\n", "lifetime: 30m\n", 1800),
        ("lifetime: {default: 30m, longest: 2h}\n" + ceilings("lifetime: 20m"), "", 1200),
        ("lifetime: {default: 30m, longest: 2h}\n" + ceilings("lifetime: 20m"), "lifetime: 1200s\n", 1200),
        ("lifetime: {default: 30m, longest: 2h}\n" + ceilings("lifetime: 1h"), "", 3600),
        (ceilings("lifetime: 1h", "organizations: {acme: {lifetime: 15m}}"), "", 900),
        (ceilings("lifetime: 1h", "organizations: {acme: {lifetime: 1h}, globex: {lifetime: 15m}}"), "", 3600),
        (ceilings("lifetime: 30m", "organizations: {acme: {issuers: [github]}}"), "", 1800),
    ],
)
def test_the_narrowest_lifetime_is_the_organization_s(tmp_path: Path, index: str, own: str, seconds: int) -> None:
    policies = loaded(tmp_path, INDEX.replace(LIFETIME, "") + index, acme=ACME + own)
    assert policies.organizations["acme"].lifetime_seconds == seconds


@pytest.mark.parametrize(
    ("index", "own", "what"),
    [
        (LIFETIME, "20m", "is 1200 seconds, and index.yaml:12 allows 900"),
        ("", "20m", "is 1200 seconds, and index.yaml allows 900"),
        ("lifetime: {longest: 1h}\n", "20m", "is 1200 seconds, and index.yaml allows 900"),
        (
            "lifetime: {default: 1h}\n" + ceilings("lifetime: 20m"),
            "21m",
            "is 1260 seconds, and index.yaml:14 allows 1200",
        ),
        (
            "lifetime: {default: 1h}\n" + ceilings("organizations:", "  acme: {lifetime: 15m}"),
            "20m",
            "is 1200 seconds, and index.yaml:15 allows 900",
        ),
        ("lifetime: {default: 1h}\n", "899s", "is 899 seconds, and an upload token lives 15m to 6h"),
        ("lifetime: {default: 1h}\n", "7h", "is 25200 seconds, and an upload token lives 15m to 6h"),
        ("lifetime: {default: 1h}\n", "15", "has not the right form: a number (15)"),
    ],
)
def test_a_lifetime_that_is_not_narrower_is_a_mistake(tmp_path: Path, index: str, own: str, what: str) -> None:
    """It names the line above it: 15 minutes that were meant to be 20 would otherwise go unnoticed."""
    (error,) = told(tmp_path, INDEX.replace(LIFETIME, "") + index, acme=f"{ACME}lifetime: {own}\n")
    assert (error.file, error.line, error.path) == ("organizations/acme.yaml", ACME.count("\n") + 1, "lifetime")
    assert error.what == what


@pytest.mark.parametrize(
    ("lines", "path", "what"),
    [
        (["lifetime: 2h"], "ceilings.lifetime", "is 7200 seconds, and index.yaml:9 allows 3600"),
        (["lifetime: 5m"], "ceilings.lifetime", "is 300 seconds, and an upload token lives 15m to 6h"),
        (
            ["lifetime: 30m", "organizations: {acme: {lifetime: 31m}}"],
            "ceilings.organizations.acme.lifetime",
            "is 1860 seconds, and index.yaml:14 allows 1800",
        ),
    ],
)
def test_a_ceiling_above_another_is_a_mistake(tmp_path: Path, lines: list[str], path: str, what: str) -> None:
    (error,) = told(tmp_path, INDEX + ceilings(*lines))
    assert (error.file, error.path, error.what) == ("index.yaml", path, what)


def test_of_a_lifetime_that_cannot_be_read_nothing_follows(tmp_path: Path) -> None:
    for lifetime in ("lifetime: {default: 5m}\n", "lifetime: 15m\n", "lifetime: {longest: 9h}\n"):
        index = INDEX.replace(LIFETIME, lifetime) + ceilings("lifetime: 1h", "organizations: {acme: {lifetime: 2h}}")
        errors = told(tmp_path, index, acme=ACME + "lifetime: 45m\n")
        assert [error.path.split(".")[0] for error in errors if "acme" not in error.path] == ["lifetime"]


# --- Issuers ---------------------------------------------------------------------------------------------------------


def test_publishers_bind_to_allowed_issuers_alone(tmp_path: Path) -> None:
    index = INDEX + ceilings("issuers: [google, github]")
    said = only(tmp_path, index)
    assert said == (
        f"organizations/globex.yaml:{line_of(GLOBEX, 'issuer:')}: {ENGINE}.issuer: is 'gitlab', and index.yaml:14 allows "
        "google, github | Use one of these, or ask the index operator to raise the ceiling."
    )
    assert set(loaded(tmp_path, INDEX + ceilings("issuers: [gitlab, github]")).organizations) == {"acme", "globex"}


def test_one_organization_may_be_held_narrower_than_all(tmp_path: Path) -> None:
    index = INDEX + ceilings("issuers: [github, gitlab]", "organizations:", "  globex: {issuers: [github]}")
    assert f"{ENGINE}.issuer: is 'gitlab', and index.yaml:16 allows github" in only(tmp_path, index)


def test_members_keep_their_ids_at_any_issuer(tmp_path: Path) -> None:
    """An id alone lets nobody publish."""
    index = INDEX + ceilings("organizations: {acme: {issuers: [github]}}")
    assert loaded(tmp_path, index).organizations["acme"].members["alice"].ids == {"github": "1001", "gitlab": "77"}


# --- Triggers --------------------------------------------------------------------------------------------------------


def events(policies: Policies) -> object:
    return policies.organizations["acme"].publishers["widgets-release"].trust.model_dump()["events"]


WITHOUT_EVENTS = ACME.replace("    events: [push, release, workflow_dispatch]\n", "")


def test_a_publisher_lists_allowed_events_alone(tmp_path: Path) -> None:
    said = only(tmp_path, INDEX + ceilings("events: [push, schedule]"), acme=ACME.replace(", workflow_dispatch", ""))
    assert said == (
        f"organizations/acme.yaml:{line_of(ACME, 'events:')}: {RELEASE}.events[1]: goes beyond index.yaml:14, which "
        "allows push, schedule: 'release' | Remove it, or ask the index operator to raise the ceiling."
    )


def test_where_a_publisher_lists_none_its_default_is_narrowed(tmp_path: Path) -> None:
    assert events(loaded(tmp_path, INDEX, acme=WITHOUT_EVENTS)) == ("push", "release", "workflow_dispatch")
    narrow = INDEX + ceilings("events: [schedule, workflow_dispatch, push]")
    assert events(loaded(tmp_path, narrow, acme=WITHOUT_EVENTS)) == ("push", "workflow_dispatch")


def test_a_list_that_fits_stays_as_it_is_written(tmp_path: Path) -> None:
    fits = ACME.replace("[push, release, workflow_dispatch]", "[release]")
    assert events(loaded(tmp_path, INDEX + ceilings("events: [push, release]"), acme=fits)) == ("release",)


def test_a_default_of_which_nothing_is_left_is_a_mistake(tmp_path: Path) -> None:
    said = only(tmp_path, INDEX + ceilings("pipeline_sources: [schedule, api]"))
    assert said == (
        f"organizations/globex.yaml:{line_of(GLOBEX, 'engine-release:')}: {ENGINE}: does not state pipeline_sources, and "
        "of the default, push, web, index.yaml:14 allows none | Write `pipeline_sources` with some of schedule, api, or "
        "ask the index operator to raise the ceiling."
    )


def test_events_are_nothing_to_other_providers(tmp_path: Path) -> None:
    """A Google service account has no trigger that its token would tell."""
    acme = ACME.replace("[push, release, workflow_dispatch]", "[release]") + GOOGLE
    policies = loaded(tmp_path, INDEX + ceilings("events: [release]"), acme=acme)
    assert set(policies.organizations["acme"].publishers) == {"widgets-release", "nightly"}
    assert policies.organizations["globex"].publishers["engine-release"].trust.model_dump()["pipeline_sources"] == (
        "push",
        "web",
    )


# --- Required fields -------------------------------------------------------------------------------------------------


def test_a_required_field_must_be_stated(tmp_path: Path) -> None:
    said = only(tmp_path, INDEX + ceilings("required:", "  - environment"))
    assert said == (
        f"organizations/globex.yaml:{line_of(GLOBEX, 'engine-release:')}: {ENGINE}: does not state environment, which "
        "index.yaml:15 requires | Add `environment`, or ask the index operator to raise the ceiling."
    )
    stated = GLOBEX.replace("pin: first-use", "pin: first-use\n    environment: production")
    assert set(loaded(tmp_path, INDEX + ceilings("required: [environment]"), globex=stated).organizations) == {
        "acme",
        "globex",
    }


def test_required_ids_are_stated_and_not_pinned(tmp_path: Path) -> None:
    index = INDEX + ceilings("required: [ids]")
    assert only(tmp_path, index) == (
        f"organizations/globex.yaml:{line_of(GLOBEX, 'pin:')}: {ENGINE}.pin: lets the first use decide, and "
        "index.yaml:14 requires the ids | Write project_id and namespace_id in its place, or ask the index operator to "
        "raise the ceiling."
    )
    neither = GLOBEX.replace("    pin: first-use\n", "")
    assert only(tmp_path, index, globex=neither).endswith("can change hands | Add project_id and namespace_id.")
    assert "or `pin: first-use`" in only(tmp_path, INDEX, globex=neither)
    stated = GLOBEX.replace("pin: first-use", 'project_id: "1"\n    namespace_id: "2"')
    assert set(loaded(tmp_path, index, globex=stated).organizations) == {"acme", "globex"}


def test_a_required_flag_must_be_true(tmp_path: Path) -> None:
    """`ref_protected: false` states it, and asks for nothing."""
    index, acme = INDEX + ceilings("required: [ref_protected]"), f"{ACME}    ref_protected: true\n"
    off, on = (f"{GLOBEX}    ref_protected: {value}\n" for value in ("false", "true"))
    said = only(tmp_path, index, acme=acme, globex=off)
    assert f"{ENGINE}.ref_protected: is false, and index.yaml:14 requires it | Write true" in said
    assert set(loaded(tmp_path, index, acme=acme, globex=on).organizations) == {"acme", "globex"}


def test_what_every_publisher_has_may_be_required_too(tmp_path: Path) -> None:
    errors = told(tmp_path, INDEX + ceilings("required: [until]"))
    assert [(error.path, error.what) for error in errors] == [
        (RELEASE, "does not state until, which index.yaml:14 requires"),
        (ENGINE, "does not state until, which index.yaml:14 requires"),
    ]


def test_a_field_that_a_provider_does_not_have_is_not_required_of_it(tmp_path: Path) -> None:
    index = INDEX + ceilings("organizations: {acme: {required: [environment, refs]}}")
    assert "nightly" in loaded(tmp_path, index, acme=ACME + GOOGLE).organizations["acme"].publishers


def test_what_is_required_of_all_is_required_of_each(tmp_path: Path) -> None:
    """What stands below adds to it, and the line of the first is told."""
    index = INDEX + ceilings("required: [environment]", "organizations:", "  globex: {required: [environment, refs]}")
    assert [error.what for error in told(tmp_path, index)] == [
        "does not state environment, which index.yaml:14 requires",
        "does not state refs, which index.yaml:16 requires",
    ]


# --- Mistakes in ceilings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "path", "what", "remedy"),
    [
        ("issuers: [github, gitlab, gogle]", "issuers[2]", "allows what is not there: 'gogle'", "'google'"),
        ("issuers: []", "issuers", "must not be empty", "only issuers"),
        ("issuers: github", "issuers", "must be a list", "["),
        ("events: [push, relaese]", "events[1]", "allows what is not there: 'relaese'", "'release'"),
        ("events: [pull_request]", "events[0]", "allows what is not there: 'pull_request'", "may name push, "),
        ("events: []", "events", "must not be empty", "only ones"),
        ("pipeline_sources: [merge_request_event]", "pipeline_sources[0]", "not there", "may name push, web"),
        ("pipeline_source: [push]", "pipeline_source", "is no field here", "'pipeline_sources'"),
        ("required: [enviroment]", "required[0]", "nothing that can be required: 'enviroment'", "'environment'"),
        ("required: [pin]", "required[0]", "nothing that can be required: 'pin'", "may name ids, until"),
        ("required: [repository_id]", "required[0]", "nothing that can be required", ""),
        ("required: [7]", "required[0]", "must be text", '"7"'),
        ("lifetimes: 15m", "lifetimes", "is no field here", "'lifetime'"),
        ("organizations: {acmee: {lifetime: 15m}}", "organizations.acmee", "is not there: 'acmee'", "'acme'"),
        ("organizations: {initech: {lifetime: 15m}}", "organizations.initech", "is not there", "Add its file"),
        ("organizations: {acme: 15m}", "organizations.acme", "must be a mapping", "indented"),
        ("organizations: {acme: {organizations: {}}}", "organizations.acme.organizations", "no field", "events"),
        ("organizations: {acme: {events: push}}", "organizations.acme.events", "must be a list", "["),
    ],
)
def test_a_mistake_in_a_ceiling_is_told_at_its_place_and_once(
    tmp_path: Path, line: str, path: str, what: str, remedy: str
) -> None:
    (error,) = told(tmp_path, INDEX + ceilings(line))
    assert (error.file, error.line, error.path) == ("index.yaml", INDEX.count("\n") + 2, f"ceilings.{path}")
    assert what in error.what
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("lines", "path", "what"),
    [
        (
            ["issuers: [github, gitlab]", "organizations: {acme: {issuers: [github, google]}}"],
            "issuers[1]",
            "goes beyond index.yaml:14, which allows github, gitlab: 'google'",
        ),
        (
            ["events: [push, release, workflow_dispatch]", "organizations: {acme: {events: [schedule]}}"],
            "events[0]",
            "goes beyond index.yaml:14, which allows push, release, workflow_dispatch: 'schedule'",
        ),
    ],
)
def test_what_stands_below_never_widens_what_stands_above(
    tmp_path: Path, lines: list[str], path: str, what: str
) -> None:
    (error,) = told(tmp_path, INDEX + ceilings(*lines))
    assert (error.path, error.what) == (f"ceilings.organizations.acme.{path}", what)


def test_a_mistake_in_one_list_hides_none_in_another_and_is_told_once(tmp_path: Path) -> None:
    index = INDEX + ceilings("events: [push, pushh]", "issuers: [github]")
    assert [error.path for error in told(tmp_path, index)] == ["ceilings.events[1]", f"{ENGINE}.issuer"]
    index = INDEX + ceilings("pipeline_sources: [push]", "organizations: {globex: {pipeline_sources: [pussh]}}")
    said = only(tmp_path, index)
    assert "ceilings.organizations.globex.pipeline_sources[0]: allows what is not there: 'pussh'" in said


@pytest.mark.parametrize("text", ["ceilings: 15m\n", "ceilings: []\n", "ceilings: true\n"])
def test_ceilings_are_a_mapping(tmp_path: Path, text: str) -> None:
    assert "ceilings: must be a mapping" in only(tmp_path, INDEX + text)


def test_ceilings_of_an_index_that_cannot_be_read_are_not_missed(tmp_path: Path) -> None:
    """Its own mistake is told, and nothing of organizations that may have kept to it."""
    said = only(tmp_path, "issuers: [github\n", acme=ACME + "lifetime: 6h\n")
    assert said.startswith("index.yaml:2: is not YAML")
    said = only(tmp_path, "issuers: [github]\n" + ceilings("issuers: [nobody]"))
    assert said.startswith("index.yaml:1: issuers: must be a mapping")


def test_what_can_be_bounded_is_what_the_providers_say() -> None:
    assert set(TRIGGERS) == {"events", "pipeline_sources", "build_sources"}
    assert {"ids", "until", "environment", "refs", "ref_protected"} <= set(REQUIRABLE)
    assert not {"pin", "issuer", "projects", "downloads", "repository", "repository_id"} & set(REQUIRABLE)


def test_without_ceilings_everything_is_as_before(tmp_path: Path) -> None:
    assert loaded(tmp_path / "a", INDEX).organizations == load(write(tmp_path / "b", FILES)).organizations
    assert loaded(tmp_path / "c", INDEX + "ceilings: {}\n").organizations == load(tmp_path / "b").organizations
