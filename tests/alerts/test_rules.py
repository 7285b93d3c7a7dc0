"""Which records are worth an alert, and which are not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from broker import refusals
from broker.alerts import rules
from broker.alerts.kinds import BY_CODE, KINDS, Alert
from broker.alerts.rules import BURST_REFUSALS, BURST_REFUSALS_OF_THE_INDEX, Memory, ref_shape, signs
from broker.audit import Attempt, Kind
from broker.refusals import Refusal
from tests.fakes import NOW, considered, granted, identity, organization, policies, publisher, trust

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Watcher:
    """Looks at records one after the other, and remembers."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def look(self, *bodies: str) -> list[Alert]:
        """The alerts of these records."""
        found: list[Alert] = []
        for body in bodies:
            _, shown = signs(body)
            asked = {key for sign in shown for key in sign.keys}
            memory = Memory({key: text for key, text in self.kept.items() if key in asked})
            for sign in shown:
                found += sign.judge(memory)
            assert set(memory.changes) <= asked, "a sign asks what it said that it would"
            self.kept |= {key: one.text for key, one in memory.changes.items()}
        return found


def codes(alerts: Iterable[Alert]) -> list[str]:
    return [alert.kind.code for alert in alerts]


def bodies(attempt: Attempt) -> list[str]:
    """Of each record that it leaves; there are several."""
    first = attempt.record()
    assert first.others
    return [first.body, *(one.body for one in first.others)]


def minted(at: float = NOW, kind: Kind = "mint", **changes: Any) -> str:
    """The record of an exchange that was allowed, with changes to the claims."""
    rules = policies()
    who = identity(**changes)
    attempt = Attempt(kind=kind, id=f"attempt-{at}-{changes}", started_at=at, issuer="github", identity=who)
    attempt.considered = considered(rules, who)
    attempt.grant = granted(rules, identity())
    return attempt.record().body


def refused(refusal: Refusal, at: float = NOW, *, known: bool = True, kind: Kind = "mint", **changes: Any) -> str:
    """The record of an attempt that was refused."""
    who = identity(**changes)
    attempt = Attempt(kind=kind, id=f"refused-{at}-{refusal.code}", started_at=at, issuer="github", identity=who)
    attempt.refusal = refusal
    if known:
        attempt.considered = considered(policies(), who)
    return attempt.record().body


# --- Who uses a publisher --------------------------------------------------------------------------------------------


def test_the_first_use_of_a_publisher_is_one_alert_and_the_second_none() -> None:
    watcher = Watcher()
    (first,) = watcher.look(minted())
    assert (first.kind.code, first.organization, first.subject) == ("first-use", "acme", "acme/widgets-release")
    assert watcher.look(minted(NOW + 5)) == []


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("new-actor", {"actor_id": "1002"}),
        ("new-ref", {"ref": "refs/heads/main", "ref_type": "branch"}),
        ("new-workflow", {"workflow_file": "other.yml"}),
        ("new-runner", {"runner_environment": "self-hosted"}),
    ],
)
def test_each_circumstance_that_is_new_is_an_alert_once(code: str, changes: dict[str, Any]) -> None:
    watcher = Watcher()
    watcher.look(minted())
    (alert,) = watcher.look(minted(NOW + 1, **changes))
    assert alert.kind.code == code
    assert alert.data["identity"]["actor_id"]
    assert watcher.look(minted(NOW + 2, **changes), minted(NOW + 3)) == []


def test_a_release_s_own_tag_and_commit_are_nothing_new() -> None:
    watcher = Watcher()
    watcher.look(minted())
    assert watcher.look(minted(NOW + 1, ref="refs/tags/v2.0.1rc3", sha="f" * 40)) == []


def test_what_is_new_in_one_use_is_told_one_by_one() -> None:
    watcher = Watcher()
    watcher.look(minted())
    news = watcher.look(minted(NOW + 1, actor_id="7", runner_environment="self-hosted"))
    assert codes(news) == ["new-actor", "new-runner"]
    assert len({alert.id for alert in news}) == 2


def test_what_a_provider_does_not_tell_is_no_news() -> None:
    watcher = Watcher()
    watcher.look(minted())
    assert watcher.look(minted(NOW + 1, runner_environment=...)) == []


@pytest.mark.parametrize(
    ("ref", "shape"),
    [
        ("refs/tags/v1.2.3", "refs/tags/v*"),
        ("refs/tags/2026.1", "refs/tags/*"),
        ("refs/heads/main", "refs/heads/main"),
        ("refs/heads/release/3.x", "refs/heads/release/*"),
        (COMMIT, "commit"),
        ("a" * 64, "commit"),
        ("refs/tags/v\n1", "refs/tags/v\n*"),
        ("", ""),
    ],
)
def test_the_shape_of_a_ref_is_what_releases_have_in_common(ref: str, shape: str) -> None:
    assert ref_shape(ref) == shape


def test_a_reusable_workflow_counts_by_its_commit_or_without_its_number() -> None:
    at = "acme-corp/ci/.github/workflows/build.yml@"
    assert rules._pinned(f"{at}refs/tags/v4.1") == f"{at}refs/tags/v*"
    assert rules._pinned(f"{at}{COMMIT}") == f"{at}{COMMIT}"
    assert rules._pinned("") == ""


def test_uses_are_of_mints_alone() -> None:
    assert Watcher().look(minted(kind="upload"), minted(kind="download")) == []


def test_a_use_that_goes_on_is_noted_anew_once_a_day() -> None:
    watcher = Watcher()
    watcher.look(minted())
    before = dict(watcher.kept)
    watcher.look(minted(NOW + 3600))
    assert watcher.kept == before
    watcher.look(minted(NOW + 90_000))
    assert watcher.kept["used acme/widgets-release"] == str(float(NOW + 90_000))


# --- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(rules.OF_CODES))
def test_each_refusal_that_somebody_must_hear_of_is_an_alert(code: str) -> None:
    (refusal,) = [one for one in refusals.every() if one.code == code]
    (alert,) = Watcher().look(refused(refusal("a detail")))
    assert alert.kind.code == rules.OF_CODES[code]
    assert alert.organization == ("" if alert.kind.to == "operator" else "acme")
    assert alert.data["code"] == code
    assert "detail" not in alert.data


def test_a_refusal_of_nobody_s_is_none_but_of_the_broker_s_own_credential() -> None:
    watcher = Watcher()
    assert watcher.look(refused(refusals.NoPublisher(), known=False)) == []
    assert codes(watcher.look(refused(refusals.RegistryCredential(), known=False))) == ["registry-credential"]


def test_every_kind_that_rules_name_is_there() -> None:
    assert {*rules.OF_CODES.values(), *rules.OF_RECORDS.values()} <= set(BY_CODE)
    assert len(BY_CODE) == len(KINDS)


def test_repeats_are_counted_and_told_with_the_next_alert() -> None:
    watcher, again = Watcher(), refusals.UnknownActor
    first = watcher.look(refused(again(), NOW))
    assert watcher.look(*(refused(again(), NOW + n) for n in range(1, 5))) == []
    (other,) = watcher.look(refused(again(), NOW + 5, actor_id="31337"))
    (later,) = watcher.look(refused(again(), NOW + 3600))
    assert [alert.held_back for alert in (*first, other, later)] == [0, 0, 4]
    assert json.loads(later.body())["data"]["held_back"] == 4


def test_many_refusals_in_a_short_time_are_a_burst_of_the_organization_and_of_the_publisher() -> None:
    watcher = Watcher()
    alerts = watcher.look(*(refused(refusals.RateLimited(), NOW + n) for n in range(BURST_REFUSALS)))
    assert [(alert.kind.code, alert.subject) for alert in alerts] == [
        ("refusal-burst", "acme"),
        ("refusal-burst", "acme/widgets-release"),
    ]
    assert alerts[0].data["refusals"] == BURST_REFUSALS
    more = watcher.look(*(refused(refusals.RateLimited(), NOW + 100 + n) for n in range(BURST_REFUSALS)))
    assert more == [], "the second within the hour is counted"


def test_refusals_that_are_far_apart_are_no_burst() -> None:
    watcher = Watcher()
    assert watcher.look(*(refused(refusals.RateLimited(), NOW + 60 * n) for n in range(BURST_REFUSALS * 3))) == []


def test_a_burst_of_what_is_nobody_s_is_the_index_s() -> None:
    bad = [refused(refusals.InvalidSignature(), NOW + n, known=False) for n in range(BURST_REFUSALS_OF_THE_INDEX)]
    (alert,) = Watcher().look(*bad)
    assert (alert.organization, alert.subject) == ("", "index")
    assert alert.is_for(frozenset(), index=True)
    assert not alert.is_for(frozenset({"acme"}), index=False)


def test_refusals_that_left_no_record_of_their_own_are_a_burst() -> None:
    limit = {"kind": "limit", "decision": "refused", "code": "rate-limited", "unrecorded": {"no-publisher": 900}}
    told = json.loads(operator_s("limit", "acme", issuer="")) | limit
    (alert,) = Watcher().look(json.dumps(told))
    assert (alert.kind.code, alert.subject) == ("refusal-burst", "acme")
    assert alert.data["last"]["unrecorded"] == {"no-publisher": 900}


def test_a_switch_that_is_thrown_is_told_with_what_it_switches() -> None:
    attempt = Attempt(kind="switch", id="s1", started_at=NOW, owner="acme", switched_off="organization acme")
    (alert,) = Watcher().look(attempt.record().body)
    assert (alert.kind.code, alert.organization) == ("switch", "acme")
    assert alert.data["switched_off"] == "organization acme"


# --- What operators do -----------------------------------------------------------------------------------------------


def operator_s(kind: str, organization: str = "", **more: object) -> str:
    """The record of something that was done by an operator."""
    at = datetime.fromtimestamp(NOW, UTC).isoformat()
    told = {"version": 1, "attempt": "a1", "at": at, "kind": kind, "decision": "allowed", "organization": organization}
    return json.dumps({**told, **more})


def test_a_revocation_is_the_organization_s_and_the_operator_s_and_a_burned_token_nobody_s() -> None:
    watcher = Watcher()
    (alert,) = watcher.look(operator_s("revocation", "acme", revoked="organization acme", reason="stolen laptop"))
    assert alert.data["reason"] == "stolen laptop"
    assert alert.is_for(frozenset({"acme"}), index=False)
    assert alert.is_for(frozenset(), index=True)
    assert not alert.is_for(frozenset({"beta"}), index=False)
    assert watcher.look(operator_s("revocation", "acme", token_id="x")) == []
    assert watcher.look(operator_s("switch", decision="refused", code="invalid-client", issuer="")) == []


def test_switches_and_keys_are_alerts() -> None:
    assert codes(Watcher().look(operator_s("switch", "acme"), operator_s("keys", "acme"))) == ["switch", "signing-keys"]
    (keys,) = Watcher().look(operator_s("keys", "acme"))
    assert keys.organization == ""


# --- Whose it is -----------------------------------------------------------------------------------------------------


def test_an_alert_holds_nothing_of_another_organization() -> None:
    """One repository, bound by two organizations: each hears of its own publisher alone."""
    secret = publisher("secret-release", organization="beta", trusts=trust(), to=("beta-secret",))
    rules = policies(organization(), organization("beta", publishers=(secret,)))
    attempt = Attempt(kind="mint", id="two", started_at=NOW, issuer="github", identity=identity())
    attempt.considered = considered(rules, identity())
    attempt.grant = granted(rules, identity())
    assert attempt.grant.organizations == ("acme", "beta")
    uses = Watcher().look(*bodies(attempt))
    assert [(alert.organization, alert.subject) for alert in uses] == [
        ("acme", "acme/widgets-release"),
        ("beta", "beta/secret-release"),
    ]
    attempt.refusal = refusals.IdentityChanged("the publisher 'beta/secret-release' was first used by another")
    alerts = [*uses, *Watcher().look(*bodies(attempt))]
    for alert in alerts:
        assert ("beta" in alert.body()) == (alert.organization == "beta"), alert
        assert ("acme/widgets-release" in alert.body()) == (alert.organization == "acme")
    assert codes(alerts) == ["first-use", "first-use", "identity-changed", "identity-changed"]
    assert [alert.organization for alert in alerts] == ["acme", "beta", "acme", "beta"]


def test_of_an_attempt_that_several_have_a_record_of_each_hears_once() -> None:
    """The operator too; and a burst is as many attempts as with one organization, not as many records."""
    rules = policies(organization(), organization("beta"))

    def attempts() -> Iterable[Attempt]:
        for number in range(BURST_REFUSALS):
            one = Attempt(kind="mint", id=f"a{number}", started_at=NOW + number, issuer="github", identity=identity())
            one.considered, one.refusal = considered(rules, identity()), refusals.ReplayedToken()
            yield one

    watcher = Watcher()
    told = [watcher.look(*bodies(one)) for one in attempts()]
    assert sorted((one.organization, one.kind.code) for one in told[0]) == [
        ("acme", "replayed-token"),
        ("beta", "replayed-token"),
    ]
    assert not any(one.kind.code == "refusal-burst" for some in told[:-1] for one in some)
    last = [one.organization for one in told[-1] if one.kind.code == "refusal-burst"]
    assert sorted(last) == ["acme", "acme", "beta", "beta"], "of the organization, and of its publisher"


def test_of_several_publishers_the_organization_s_own_is_told() -> None:
    record = json.loads(refused(refusals.ReplayedToken()))
    record["publishers"] = ["beta/secret-release", "acme/widgets-release"]
    own, other = Watcher().look(json.dumps(record))
    assert (own.subject, "beta" in own.body()) == ("acme/widgets-release", False)
    assert (other.subject, "acme/" in other.body()) == ("beta/secret-release", False)
    (alone,) = Watcher().look(json.dumps(record | {"project": "acme-widgets"}))
    assert alone.organization == "acme", "a known project says whose it is"


def test_an_id_is_the_record_s_and_stays_the_same() -> None:
    ids = {alert.id for _ in range(2) for alert in Watcher().look(minted(), minted(NOW + 1, actor_id="7"))}
    assert len(ids) == 2
    assert all(one.startswith("alert_") and len(one) == 38 for one in ids)


def test_a_body_holds_whatever_a_token_claims_in_ascii() -> None:
    hostile = json.loads(minted())
    hostile["identity"]["actor_name"] = "\ud800\0é\u202e\n"
    (alert,) = Watcher().look(json.dumps(hostile))
    assert alert.body().isascii()
    assert json.loads(alert.body())["data"]["identity"]["actor_name"] == "\ud800\0é\u202e\n"
    assert json.loads(alert.body())["timestamp"] == "2027-01-15T08:00:00.000Z"
