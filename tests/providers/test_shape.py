"""What holds for every provider, so that a new one is held to it by standing in the list."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from broker import providers
from broker.patterns import RefGlob
from broker.playground.ci import IssuerName
from broker.providers import PROVIDERS, Kind, Provider
from broker.providers.base import Rule, any_ref, exact, fold, folded, same
from broker.providers.github import GitHubTrust
from tests.fakes import CI, CLAIMS, KINDS, MADE, NOW, identity, outcome, read, trust, trusted

every_kind = pytest.mark.parametrize("kind", KINDS)


def test_every_file_is_in_the_list() -> None:
    folder = Path(providers.__file__).parent
    assert (
        {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "examples"} == set(PROVIDERS) == set(KINDS)
    )


def test_public_issuers_are_those_that_the_providers_name() -> None:
    assert {name: provider.issuer for name, provider in PROVIDERS.items()} == {
        "github": "https://token.actions.githubusercontent.com",
        "gitlab": "https://gitlab.com",
        "google": "https://accounts.google.com",
        "activestate": "https://platform.activestate.com/api/v1/oauth/oidc",
        "buildkite": "https://agent.buildkite.com",
        "circleci": None,
        "forgejo": None,
        "generic": None,
    }


def test_how_long_tokens_live_and_what_a_second_exchange_gets() -> None:
    """GitLab gives a job one token only, for as long as the job may run."""
    assert {name: (one.longest_token_seconds, one.replay) for name, one in PROVIDERS.items()} == {
        "github": (3600, "strict"),
        "gitlab": (86400, "same-token"),
        "google": (3660, "strict"),
        "activestate": (3600, "strict"),
        "buildkite": (3600, "strict"),
        "circleci": (3660, "strict"),
        "forgejo": (3600, "strict"),
        "generic": (3600, "strict"),
    }


def test_where_each_operator_has_a_url_of_their_own_its_form_is_known_or_free() -> None:
    """An issuer's URL is compared to the letter, and the form tells a wrong one before a token comes."""
    assert {name: one.url_form.example for name, one in PROVIDERS.items() if one.url_form is not None} == {
        "circleci": "https://oidc.circleci.com/org/<organization id>",
        "forgejo": "https://codeberg.org/api/actions",
    }
    for name, one in PROVIDERS.items():
        if one.url_form is not None:
            assert one.issuer is None
            assert re.fullmatch(one.url_form.pattern, one.example({})["iss"]), name


@every_kind
def test_a_trust_that_was_made_of_a_run_admits_it(kind: IssuerName) -> None:
    assert trust(kind).compare(identity(kind), {}) is None


@every_kind
def test_the_example_is_a_valid_run_and_the_same_each_time(kind: IssuerName) -> None:
    provider = MADE[kind]
    assert provider.example({}) == provider.example({})
    assert provider.issuer in {None, provider.example({})["iss"]}
    assert provider.example({"aud": "ours"})["aud"] == "ours"
    assert trust(kind).compare(read(kind, provider.example({})), {}) is None


@every_kind
def test_an_example_leaves_out_what_it_is_told_to(kind: IssuerName) -> None:
    for name, value in MADE[kind].example({}).items():
        assert name not in MADE[kind].example({name: ...})
        assert MADE[kind].example({name: value}) == MADE[kind].example({})
        assert MADE[kind].example({name: ["odd"]})[name] == ["odd"]


@every_kind
def test_a_key_of_the_list_is_the_name_of_the_provider(kind: IssuerName) -> None:
    assert MADE[kind].name == kind


@every_kind
def test_names_are_asked_first_then_ids_then_conditions(kind: IssuerName) -> None:
    """A wrong id under the right name must be seen as such, whatever else differs."""
    kinds = [rule.kind for rule in MADE[kind].trust.rules]
    assert kinds == sorted(kinds, key=[Kind.NAME, Kind.ID, Kind.CONDITION].index)
    assert {Kind.NAME, Kind.ID} <= set(kinds)


@every_kind
def test_every_rule_compares_fields_that_exist(kind: IssuerName) -> None:
    provider = MADE[kind]
    told = {item.name for item in dataclasses.fields(provider.trust.identity)}
    assert {rule.of for rule in provider.trust.rules if not rule.of.startswith("claims.")} <= told
    stated = {rule.field.partition(".")[0] for rule in provider.trust.rules} - {"declaration"}
    assert stated == set(provider.trust.model_fields) - {"issuer", "pin"}


@every_kind
def test_what_is_equal_agrees(kind: IssuerName) -> None:
    """So rules are asked only where the two differ. What lists what may be is never equal to what is."""
    for rule in MADE[kind].trust.rules:
        stated, told = trust(kind).stated(rule.field), identity(kind).told(rule.of)
        assert isinstance(stated, tuple) or rule.agrees(told, told)
        assert not isinstance(told, tuple)


def test_a_kind_with_one_rule_or_ways_of_its_own_is_compared_by_them() -> None:
    class Named(GitHubTrust):
        rules: ClassVar[tuple[Rule, ...]] = (Rule("repository", "repository", Kind.NAME, folded),)

    class Own(GitHubTrust):
        def stated(self, name: str) -> Any:
            """Nobody is meant."""
            return super().stated(name) if name != "workflow" else "another.yml"

    told = trust("github").model_dump(exclude={"refs"})
    assert Named(**told).compare(identity(), {}) is None
    assert str(Named(**{**told, "repository": "acme-corp/x"}).compare(identity(), {})).endswith("'acme-corp/x'")
    assert str(Own(**told).compare(identity(), {})) == "workflow is 'release.yml', expected 'another.yml'"


def test_a_flag_is_no_number() -> None:
    """1 equals True."""
    one: Any = {"ref_protected": 1}
    run = dataclasses.replace(identity(), **one)
    assert str(trust(ref_protected=True).compare(run, {})) == "ref_protected is '1', expected true"


@every_kind
def test_publishers_are_found_by_their_one_name_without_case(kind: IssuerName) -> None:
    (name,) = [rule for rule in MADE[kind].trust.rules if rule.kind is Kind.NAME]
    assert name.of == MADE[kind].trust.identity.lookup
    told = str(trust(kind).stated(name.field))
    assert trust(kind, **{name.field: told.upper()}).lookup() == trust(kind).lookup() == told


@every_kind
def test_owner_and_source_are_immutable_ids(kind: IssuerName) -> None:
    of = {rule.of for rule in MADE[kind].trust.rules if rule.kind is Kind.ID}
    assert {MADE[kind].trust.identity.owner, MADE[kind].trust.identity.source} <= of


@every_kind
def test_without_ids_a_publisher_says_which_are_missing(kind: IssuerName) -> None:
    ids = [rule.field for rule in MADE[kind].trust.rules if rule.kind is Kind.ID]
    assert trust(kind).missing_ids() == ()
    assert trust(kind, **dict.fromkeys(ids, ...)).missing_ids() == tuple(ids)
    for one in ids:
        assert trust(kind, **{one: ...}).missing_ids() == (one,)


@every_kind
def test_an_entry_of_a_file_that_leaves_ids_out_is_told_which(kind: IssuerName) -> None:
    """Asked of the file's own words, before they are a publisher: ids alone, and whatever stands in their place."""
    ids = [rule.field for rule in MADE[kind].trust.rules if rule.kind is Kind.ID]
    bare = [name.removeprefix("claims.") for name in ids]
    nested = bare != ids
    assert MADE[kind].trust.unstated_ids({}) == tuple(ids)
    for one, name in zip(ids, bare, strict=True):
        stated = {name: None}
        left = tuple(other for other in ids if other != one)
        assert MADE[kind].trust.unstated_ids({"claims": stated} if nested else stated) == left


@every_kind
def test_without_ids_and_without_a_pin_a_publisher_fits_nobody(kind: IssuerName) -> None:
    """Such a publisher does not load; the comparison does not lean on that."""
    for rule in MADE[kind].trust.rules:
        if rule.kind is Kind.ID:
            mismatch = trust(kind, **{rule.field: ...}).compare(identity(kind), {})
            assert mismatch is not None
            assert mismatch.rule == rule
            assert mismatch.expected == "absent"


@every_kind
def test_a_first_use_fits_any_id_and_a_later_one_the_recorded(kind: IssuerName) -> None:
    ids = {rule.field: rule.of for rule in MADE[kind].trust.rules if rule.kind is Kind.ID}
    pinned, run = trust(kind, pin="first-use", **dict.fromkeys(ids, ...)), identity(kind)
    assert pinned.compare(run, {}) is None
    pins = pinned.pins_of(run)
    assert pins == {field: run.told(of) for field, of in ids.items()}
    assert pinned.compare(run, pins) is None
    for field in ids:
        mismatch = pinned.compare(run, {**pins, field: "999"})
        assert mismatch is not None
        assert (mismatch.rule.field, mismatch.rule.kind) == (field, Kind.ID)


@every_kind
def test_an_id_that_is_written_is_neither_recorded_nor_overruled(kind: IssuerName) -> None:
    ids = [rule.field for rule in MADE[kind].trust.rules if rule.kind is Kind.ID]
    written, *others = ids
    half = trust(kind, pin="first-use", **dict.fromkeys(others, ...))
    assert set(half.pins_of(identity(kind))) == set(others)
    assert half.compare(identity(kind), {written: "999"}) is None
    assert trust(kind).pins_of(identity(kind)) == {}
    assert trust(kind, **dict.fromkeys(ids, ...)).pins_of(identity(kind)) == {}


@every_kind
def test_pins_count_only_where_a_policy_pins(kind: IssuerName) -> None:
    """What an earlier policy recorded does not stand in for an id that this one owes."""
    (written, *_) = [rule.field for rule in MADE[kind].trust.rules if rule.kind is Kind.ID]
    pins = trust(kind, pin="first-use", **{written: ...}).pins_of(identity(kind))
    assert trust(kind, **{written: ...}).compare(identity(kind), pins) is not None


@every_kind
def test_a_publisher_of_another_issuer_fits_nothing_of_this_one(kind: IssuerName) -> None:
    """Id 20 of one instance is nobody on another, even where everything is called the same."""
    mismatch = trust(kind, issuer="elsewhere").compare(identity(kind), {})
    assert mismatch is not None
    assert (mismatch.rule.field, mismatch.expected, mismatch.actual) == ("issuer", "'elsewhere'", f"'{kind}'")


@every_kind
def test_a_publisher_of_another_kind_fits_nothing_even_under_one_issuers_name(kind: IssuerName) -> None:
    """An issuer's `provider` may change between a mint and the upload."""
    for other in set(KINDS) - {kind}:
        assert trust(other, issuer=kind).compare(identity(kind), {}) is not None


@every_kind
def test_an_identity_survives_the_journey_through_an_upload_token(kind: IssuerName) -> None:
    for changes in ({}, {"environment": ...}, {"ref_protected": "false"}, {"azp": None}):
        run = identity(kind, **changes)
        told = json.loads(json.dumps(run.as_claims()))
        assert None not in told.values()
        assert MADE[kind].trust.identity.from_claims(told) == run


@every_kind
def test_what_no_identity_has_is_no_identity(kind: IssuerName) -> None:
    told = identity(kind).as_claims()
    identities = MADE[kind].trust.identity
    with pytest.raises(TypeError):
        identities.from_claims({**told, "more": "x"})
    for required in ("issuer", "subject", "actor_id", "unattended"):
        with pytest.raises(TypeError):
            identities.from_claims({name: value for name, value in told.items() if name != required})


@every_kind
def test_names_keep_the_form_they_were_signed_in(kind: IssuerName) -> None:
    claim, value, shown = {
        "github": ("repository", "Acme-Corp/Widgets", "Acme-Corp/Widgets"),
        "gitlab": ("project_path", "Acme/Tools/Widgets", "Acme/Tools/Widgets"),
        "google": ("email", *["Release-Bot@acme-builds.iam.gserviceaccount.com"] * 2),
        "activestate": ("project", "Widgets", "acme/Widgets"),
        "buildkite": ("pipeline_slug", "Widgets", "acme/Widgets"),
        "circleci": ("oidc.circleci.com/vcs-origin", *["github.com/Acme-Corp/Widgets"] * 2),
        "forgejo": ("repository", "Acme/Widgets", "Acme/Widgets"),
        "generic": ("repository", "Repository-Example", "Repository-Example"),
    }[kind]
    run = identity(kind, **{claim: value})
    assert getattr(run, run.lookup) == shown
    mismatch = trust(kind).compare(run, {})
    without_case = {"github", "gitlab", "google", "forgejo"}
    assert (mismatch is None) == (kind in without_case)
    assert mismatch is None or mismatch.rule.kind is Kind.NAME


@every_kind
def test_claims_of_no_kind_are_refused_and_never_crash(kind: IssuerName) -> None:
    every = CLAIMS[kind](iat=NOW)
    odd: list[dict[str, Any]] = [{}, {"sub": {}}, dict.fromkeys(every), {name: [] for name in every}]
    for claims in odd:
        got = outcome(read, kind, claims)
        assert got in {"missing-claim", "invalid-claim"}


@every_kind
def test_a_claim_of_a_megabyte_is_refused(kind: IssuerName) -> None:
    claims = {**CLAIMS[kind](iat=NOW), "sub": "1" * 1_000_000}
    assert outcome(read, kind, claims) == "invalid-claim"


@every_kind
def test_the_issuers_name_is_ours_and_not_the_tokens(kind: IssuerName) -> None:
    provider: Provider = MADE[kind]
    claims = {**CLAIMS[kind](iat=NOW), "issuer": "evil"}
    assert provider.read(trusted(claims), "ours", CI.urls[kind]).issuer == "ours"


# --- What policies may say -------------------------------------------------------------------------------------------


@every_kind
def test_a_trust_is_strict_and_frozen(kind: IssuerName) -> None:
    (name,) = [rule.field for rule in MADE[kind].trust.rules if rule.kind is Kind.NAME]
    for changes in ({"more": "x"}, {"issuer": ""}, {"issuer": 7}, {"pin": "always"}, {name: ...}, {"issuer": ...}):
        with pytest.raises(ValidationError):
            trust(kind, **changes)
    with pytest.raises(ValidationError):
        setattr(trust(kind), "issuer", "evil")  # noqa: B010 - mypy knows that it cannot be done


@pytest.mark.parametrize("kind", ["github", "gitlab", "google", "forgejo"])
def test_ids_in_policies_are_quoted_digits(kind: IssuerName) -> None:
    for rule in MADE[kind].trust.rules:
        if rule.kind is Kind.ID:
            for value in (1001, 1001.0, True, "", "x", "1 ", "1\n", "-1", "١", "1" * 31, ["1"]):
                with pytest.raises(ValidationError):
                    trust(kind, **{rule.field: value})
            assert trust(kind, **{rule.field: "1" * 30}).missing_ids() == ()


@pytest.mark.parametrize("kind", ["activestate", "buildkite", "circleci"])
def test_ids_in_policies_are_uuids_of_one_spelling(kind: IssuerName) -> None:
    good = "0184990a-477b-4fa8-9968-496074483ce1"
    for rule in MADE[kind].trust.rules:
        if rule.kind is Kind.ID:
            for value in (
                1,
                "",
                "1001",
                good.upper(),
                good[:-1],
                f"{good}0",
                f"{good}\n",
                good.replace("-", ""),
                [good],
            ):
                with pytest.raises(ValidationError):
                    trust(kind, **{rule.field: value})
            assert trust(kind, **{rule.field: good}).missing_ids() == ()


@pytest.mark.parametrize("kind", ["github", "gitlab", "buildkite", "circleci", "forgejo"])
def test_refs_in_policies_are_globs(kind: IssuerName) -> None:
    for value in ([], ["v*"], ["refs/heads/**"], ["refs/tags/v*", "main"], [7], "refs/tags/v*", {"refs": 1}):
        with pytest.raises(ValidationError):
            trust(kind, refs=value)
    assert trust(kind, refs=["refs/tags/v*", "refs/heads/main"]).compare(identity(kind), {}) is None
    assert trust(kind, refs=("refs/tags/v*",)) == trust(kind, refs=["refs/tags/v*"])
    assert trust(kind, refs=["refs/heads/main", "refs/heads/x"]).compare(identity(kind), {}) is not None


def test_text_in_policies_has_a_length() -> None:
    assert trust(environment="x" * 500).issuer == "github"
    for value in ("", "x" * 501, 7, ["pypi"]):
        with pytest.raises(ValidationError):
            trust(environment=value)


@pytest.mark.parametrize(
    ("kinds", "good", "bad"),
    [
        (
            ("github", "gitlab", "google", "forgejo"),
            ["0", "1001", "1" * 30],
            ["", "01", "-1", "1 ", "1\n", "x", "1" * 31, "١", 1001, True, None],
        ),
        (
            ("activestate", "buildkite", "circleci"),
            ["0184990a-477b-4fa8-9968-496074483ce1"],
            ["", "1001", "0184990A-477B-4FA8-9968-496074483CE1", "0184990a-477b-4fa8-9968-496074483ce1\n", 7],
        ),
        (("generic",), ["x", "1001", "release-bot@acme.example", "ä b", "x" * 500], ["", "x" * 501, 7, None, ["x"]]),
    ],
)
def test_a_members_id_has_the_form_of_the_providers_actors(
    kinds: tuple[IssuerName, ...], good: list[str], bad: list[object]
) -> None:
    """What the valid run's actor is called can be written for a member."""
    for kind in kinds:
        form = MADE[kind].member_id
        assert form.model_validate(identity(kind).actor_id).root == identity(kind).actor_id
        for text in good:
            assert form.model_validate(text).root == text
        for value in [*bad, good[0].encode()]:
            with pytest.raises(ValidationError):
                form.model_validate(value)
        with pytest.raises(ValidationError):
            setattr(form.model_validate(good[0]), "root", "evil")  # noqa: B010 - mypy knows that it cannot be done


# --- How things compare ----------------------------------------------------------------------------------------------


def test_only_ascii_folds() -> None:
    """U+212A KELVIN SIGN lowers to 'k', and is another name to every provider."""
    assert fold("ACME-Widgets/ÄZ[@`{") == "acme-widgets/Äz[@`{"
    assert folded("widgets", "WIDGETS")
    assert not folded("kit", "\u212ait")
    assert not folded("straße", "STRASSE")
    assert not folded("none", None)
    assert not folded("true", True)


def test_exact_and_same_do_not_coerce() -> None:
    assert exact("1", "1")
    assert not exact("1", 1)
    assert not exact("a", "A")
    assert same(expected=True, actual=True)
    assert same(expected=False, actual=False)
    assert not same(expected=True, actual=None)
    assert not same(expected=False, actual=None)
    assert not same(expected=True, actual="true")
    assert not same(expected=True, actual=1)
    assert any_ref((RefGlob.parse("refs/*"),), "refs/x")
    assert not any_ref((RefGlob.parse("refs/*"),), None)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"repository_id": "1"}, "repository_id is '424242424', expected '1'"),
        ({"ref_protected": False}, "ref_protected is true, expected false"),
        (
            {"refs": ["refs/heads/a", "refs/heads/b"]},
            "refs is 'refs/tags/v1.0.0', expected 'refs/heads/a' or 'refs/heads/b'",
        ),
        (
            {"job_workflow": "acme-corp/ci/.github/workflows/a.yml@refs/heads/main"},
            "job_workflow is absent, expected 'acme-corp/ci/.github/workflows/a.yml@refs/heads/main'",
        ),
    ],
)
def test_a_mismatch_says_what_was_found_and_what_was_wanted(changes: dict[str, Any], shown: str) -> None:
    assert str(trust(**changes).compare(identity(), {})) == shown


def test_a_rule_asks_nothing_of_what_a_policy_leaves_out_unless_it_must() -> None:
    assert not Rule("x", "x", Kind.CONDITION, exact).always
    assert [rule.field for rule in GitHubTrust.rules if rule.always] == ["job_workflow"]


@every_kind
def test_a_list_of_triggers_has_a_default_and_no_trigger_that_is_not_known_for_safe(kind: IssuerName) -> None:
    """What the index operator's ceilings narrow, by the name that publishers give it."""
    told, triggers = PROVIDERS[kind].trust, PROVIDERS[kind].trust.triggers
    if triggers is None:
        assert not {"events", "pipeline_sources"} & set(told.model_fields)
        return
    default = told.model_fields[triggers.field].default
    assert default
    assert set(default) <= set(triggers.safe)
    assert getattr(trust(kind, **{triggers.field: triggers.safe}), triggers.field) == triggers.safe
    with pytest.raises(ValidationError):
        trust(kind, **{triggers.field: (*triggers.safe, "pull_request")})
