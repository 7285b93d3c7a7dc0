"""One record an attempt: what was known by then, and never a credential."""

from __future__ import annotations

import json
import re
from time import perf_counter
from typing import Any, get_args

import pytest

from broker import refusals
from broker.addresses import NOWHERE, Source
from broker.api_tokens import ApiToken
from broker.audit import MOST_CONSIDERED, RECORD_VERSION, Attempt, Kind, Step, new_attempt_id
from broker.minting import NOT_NARROWED, Narrowing
from tests.fakes import CI, NOW, considered, granted, identity, organization, policies, publisher, trust

AT = NOW + 0.1239


def attempt(**known: Any) -> Attempt:
    return Attempt(**{"kind": "mint", "id": "019aa1c2f3d4-8f2c61d0a9", "started_at": AT, **known})


@pytest.mark.parametrize(
    ("fraction", "told"),
    [(0.0, "00.000"), (0.0009985, "00.000"), (0.0009998, "00.001"), (0.5, "00.500"), (0.9999998, "01.000")],
)
def test_a_moment_is_told_in_milliseconds(fraction: float, told: str) -> None:
    assert body(started_at=1_800_000_000 + fraction)["at"] == f"2027-01-15T08:00:{told}+00:00"


def body(**known: Any) -> dict[str, Any]:
    told = json.loads(attempt(**known).record().body)
    assert isinstance(told, dict)
    return told


def test_an_attempt_that_learnt_nothing_still_leaves_a_record() -> None:
    record = attempt(refusal=refusals.MalformedRequest()).record()
    assert (record.attempt, record.at, record.organization) == ("019aa1c2f3d4-8f2c61d0a9", AT, "")
    assert json.loads(record.body) == {
        "version": 1,
        "attempt": "019aa1c2f3d4-8f2c61d0a9",
        "at": "2027-01-15T08:00:00.123+00:00",
        "kind": "mint",
        "decision": "refused",
        "organization": "",
        "generation": "",
        "issuer": "",
        "code": "malformed-request",
        "detail": "The body is not a JSON object with a string `token`.",
    }


def test_an_allowed_mint_in_full() -> None:
    who = identity()
    told = body(
        generation="g1",
        issuer="github",
        identity=who,
        considered=considered(policies(), who),
        grant=granted(policies(), who),
        token_id="jti-1",
        expires_at=NOW + 900,
    )
    assert told == {
        "version": RECORD_VERSION,
        "attempt": "019aa1c2f3d4-8f2c61d0a9",
        "at": "2027-01-15T08:00:00.123+00:00",
        "kind": "mint",
        "decision": "allowed",
        "organization": "acme",
        "generation": "g1",
        "issuer": "github",
        "identity": who.as_claims(),
        "publishers": ["acme/widgets-release"],
        "members": ["acme/alice"],
        "projects": ["acme-widgets"],
        "token_id": "jti-1",
        "expires_at": NOW + 900,
    }
    assert told["identity"]["actor_id"] == "1001"


def test_an_upload_in_full() -> None:
    told = body(
        kind="upload",
        publishers=("acme/widgets-release", "zenith/x"),
        token_id="jti-1",
        expires_at=NOW + 900,
        project="acme-widgets",
        version="1.0.0",
        filename="acme_widgets-1.0.0.tar.gz",
        sha256="ab" * 32,
        size_bytes=1234,
        registry_status=200,
    )
    common = {"version", "attempt", "at", "kind", "decision", "generation", "issuer", "nonce"}
    assert {name: value for name, value in told.items() if name not in common} == {
        "organization": "acme",
        "publishers": ["acme/widgets-release", "zenith/x"],
        "token_id": "jti-1",
        "expires_at": NOW + 900,
        "project": "acme-widgets",
        "release": "1.0.0",
        "filename": "acme_widgets-1.0.0.tar.gz",
        "sha256": "ab" * 32,
        "size_bytes": 1234,
        "registry_status": 200,
        "stored": True,
    }
    assert told["version"] == RECORD_VERSION == 1, "of the record, not of the release"


def test_a_token_that_was_given_again_is_said_to_be() -> None:
    assert body(repeated=True)["repeated"] is True
    assert "repeated" not in body()


@pytest.mark.parametrize(
    ("field", "value", "called"),
    [
        ("index", "team-a", "index"),
        ("token_id", "jti-1", "token_id"),
        ("expires_at", NOW, "expires_at"),
        ("upstream", "devpi", "upstream"),
        ("repeated", True, "repeated"),
        ("project", "acme-widgets", "project"),
        ("filename", "acme_widgets-1.0.tar.gz", "filename"),
        ("sha256", "ab" * 32, "sha256"),
        ("size_bytes", 1, "size_bytes"),
        ("version", "1.0", "release"),
        ("already_stored", True, "already_stored"),
        ("revoked", "organization acme", "revoked"),
        ("minted_until", NOW, "minted_until"),
        ("switched_off", "organization acme", "switched_off"),
        ("switched_on", "organization acme", "switched_on"),
        ("by", "operator", "by"),
        ("reason", "a laptop was lost", "reason"),
        ("asked", "POST /api/v1/revocations", "asked"),
        ("unrecorded", {"rate-limited": 3}, "unrecorded"),
        ("key", "kid-1", "key"),
        ("change", "signing", "change"),
        ("before", "g0", "before"),
        ("signs_from", "2027-01-15T08:00:00Z", "signs_from"),
        ("replica", "broker-1", "replica"),
        ("scope", "read", "scope"),
        ("narrowing", Narrowing(project="acme-widgets", uses=1), "narrowed_to"),
        ("source", Source("192.0.2.1"), "source"),
    ],
)
def test_what_is_known_has_its_name_in_a_record_and_what_is_not_has_none(field: str, value: Any, called: str) -> None:
    told = body(**{field: value})
    shown = {"narrowing": {"project": "acme-widgets", "uses": 1}, "source": "192.0.2.1"}.get(field, value)
    assert {name: told[name] for name in told.keys() - body().keys()} == {called: shown}
    assert {name: told[name] for name in body()} == body()


def test_a_call_of_the_api_says_by_which_token_and_never_its_digest() -> None:
    _, token = ApiToken.make("index", "registry", now=NOW, seconds=60)
    assert body(caller=token)["caller"] == {"token": token.id, "name": "index", "role": "registry"}
    assert token.digest not in attempt(caller=token).record().body


def test_an_attempt_knows_nothing_at_first() -> None:
    new = attempt()
    assert (new.source, new.scope, new.narrowing) == (NOWHERE, "upload", NOT_NARROWED)
    assert (new.identity, new.grant, new.caller, new.refusal) == (None, None, None, None)
    assert (new.considered, new.publishers, new.unrecorded, new.steps) == ((), (), {}, [])
    assert (new.expires_at, new.size_bytes, new.registry_status, new.minted_until) == (0, 0, 0, 0)
    assert (new.repeated, new.already_stored, new.confirmed) == (False, False, False)
    texts = "index generation issuer token_id upstream project version filename sha256 owner revoked switched_off"
    texts += " switched_on by reason asked key change before signs_from replica"
    assert {name: getattr(new, name) for name in texts.split()} == dict.fromkeys(texts.split(), "")


def test_the_words_of_records() -> None:
    assert get_args(Kind) == (
        "mint",
        "upload",
        "download",
        "revocation",
        "switch",
        "api",
        "limit",
        "keys",
        "policies",
    )
    assert get_args(Step) == ("body", "keys", "verify", "gates", "mint", "package", "registry", "state")


def test_how_long_an_attempt_and_its_steps_took_is_measured_and_is_none_of_what_it_is() -> None:
    one = attempt(began=perf_counter() - 100)
    assert 100 <= one.seconds() < 190
    before = perf_counter()
    one.passed("body")
    one.passed("keys")
    (first, at), (second, later) = one.steps
    assert (first, second) == ("body", "keys")
    assert before <= at <= later <= perf_counter()
    assert one == attempt()
    assert "began" not in repr(one)
    assert "steps" not in repr(one)


def test_projects_are_sorted() -> None:
    rules = policies(organization(publishers=(publisher(to=("acme-c", "acme-*", "acme-a", "acme-b")),)))
    assert body(grant=granted(rules, identity()))["projects"] == ["acme-*", "acme-a", "acme-b", "acme-c"]


def test_a_refusal_keeps_what_the_policy_expected() -> None:
    told = body(refusal=refusals.NoPublisher("no", expected="acme/x: ref"))
    assert (told["decision"], told["code"], told["detail"], told["expected"]) == (
        "refused",
        "no-publisher",
        "no",
        "acme/x: ref",
    )
    assert "expected" not in body(refusal=refusals.NoPublisher("no"))


def test_what_was_considered_is_kept_where_it_explains_something() -> None:
    one = considered(policies(), identity())
    two = considered(policies(organization(publishers=(publisher("a"), publisher("b")))), identity())
    assert body(considered=two)["considered"] == ["acme/a: matches", "acme/b: matches"]
    assert "considered" not in body(considered=one), "one that matched is the grant's"
    assert body(considered=one, refusal=refusals.UnknownActor())["considered"] == ["acme/widgets-release: matches"]
    assert "considered" not in body(refusal=refusals.UnknownActor())


def test_a_repository_of_thousand_publishers_makes_no_endless_record() -> None:
    many = tuple(publisher(f"p{number}") for number in range(1000))
    told = body(considered=considered(policies(organization(publishers=many)), identity()))
    assert len(told["considered"]) == MOST_CONSIDERED == 20
    assert told["considered"][0] == "acme/p0: matches"


def test_a_record_belongs_to_the_organization_that_was_found() -> None:
    who = identity()
    zenith = policies(organization("zenith"))
    assert attempt(grant=granted(zenith, who)).record().organization == "zenith"
    assert attempt(considered=considered(zenith, who)).record().organization == "zenith"
    assert attempt(publishers=("acme/a", "zenith/b")).record().organization == "acme"
    assert attempt(publishers=("acme/a",), considered=considered(zenith, who)).record().organization == "acme"
    assert attempt(grant=granted(zenith, who), publishers=("acme/a",)).record().organization == "zenith"
    assert attempt(considered=considered(zenith, who), owner="acme").record().organization == "zenith"
    assert attempt(owner="acme").record().organization == "acme"
    assert attempt().record().organization == ""


def test_of_several_organizations_a_record_belongs_to_the_first() -> None:
    who, both = identity(), policies(organization("acme"), organization("zenith"))
    told = attempt(grant=granted(both, who)).record()
    assert told.organization == "acme"
    assert json.loads(told.body)["publishers"] == ["acme/widgets-release", "zenith/widgets-release"]
    assert attempt(considered=considered(both, who)).record().organization == "acme"


def test_of_several_organizations_a_record_belongs_to_the_one_whose_project_it_is() -> None:
    """Else whoever binds another's repository, and comes first by name, would have the records of its uploads."""
    first = publisher("cuckoo", organization="aaa", to=("aaa-egg",))
    ours = publisher(to=("acme-widgets", "acme-gadgets"))
    both = policies(organization("aaa", publishers=(first,)), organization("acme", publishers=(ours,)))
    grant = granted(both, identity())
    assert grant.organizations == ("aaa", "acme")
    assert attempt(grant=grant, kind="upload", project="acme-widgets").record().organization == "acme"
    assert attempt(grant=grant, kind="upload", project="aaa-egg").record().organization == "aaa"
    assert attempt(grant=grant, kind="upload", project="nobody-s").record().organization == "aaa"


def test_a_read_belongs_to_the_organization_whose_project_is_read() -> None:
    first = publisher("cuckoo", organization="aaa", to=(), downloads=("aaa-egg",))
    reads = publisher(to=(), downloads=("acme-lib",))
    both = policies(organization("aaa", publishers=(first,)), organization("acme", publishers=(reads,)))
    grant = granted(both, identity(), scope="read")
    for project, whose in (("acme-lib", "acme"), ("aaa-egg", "aaa")):
        assert attempt(grant=grant, kind="download", project=project).record().organization == whose


def test_what_was_allowed_is_told_to_each_organization_that_earned_it() -> None:
    who = identity()
    zenith = organization("zenith", publishers=(publisher(organization="zenith", to=("zenith-x", "zenith-a")),))
    rules = policies(organization("acme"), zenith)
    first = attempt(grant=granted(rules, who), considered=considered(rules, who), token_id="jti-1").record()
    (other,) = first.others
    assert (first.organization, other.organization, other.others) == ("acme", "zenith", ())
    assert (other.attempt, other.at) == (first.attempt, first.at)
    told, others = json.loads(first.body), json.loads(other.body)
    assert (told.pop("organization"), others.pop("organization")) == ("acme", "zenith")
    assert (told.pop("projects"), others.pop("projects")) == (["acme-widgets"], ["zenith-a", "zenith-x"])
    of_all = {name: told.pop(name) for name in ("publishers", "members", "considered", "nonce")}
    own = {name: others.pop(name) for name in ("publishers", "members", "considered", "excerpt")}
    assert told == others
    assert (told["shared_with"], told["token_id"]) == (1, "jti-1")
    assert (of_all["publishers"], of_all["members"]) == (
        ["acme/widgets-release", "zenith/widgets-release"],
        ["acme/alice", "zenith/alice"],
    )
    assert own == {
        "publishers": ["zenith/widgets-release"],
        "members": ["zenith/alice"],
        "considered": ["zenith/widgets-release: matches"],
        "excerpt": True,
    }


def test_an_excerpt_has_nothing_that_can_be_about_another_organization() -> None:
    who = identity()
    rules = policies(organization("acme"), organization("zenith"), organization("zulu"))
    no = refusals.NoPublisher("acme/secret", expected="acme/secret")
    narrowed = Narrowing(project="acme-secret")
    first = attempt(considered=considered(rules, who)[:2], refusal=no, narrowing=narrowed).record()
    (other,) = first.others
    assert "acme/secret" in first.body
    assert "acme/" not in other.body
    assert "secret" not in other.body
    told = json.loads(other.body)
    assert (told["code"], told["considered"]) == ("no-publisher", ["zenith/widgets-release: matches"])
    assert not told.keys() & {"publishers", "members", "projects"}, "nothing was earned"
    spared = attempt(
        grant=granted(policies(organization("zenith")), who), considered=considered(rules, who), refusal=no
    )
    assert "projects" not in json.loads(spared.record().others[0].body), "acme's publisher gave nothing"


def test_what_is_withheld_cannot_be_guessed_by_its_digest() -> None:
    who = identity()
    rules = policies(organization("acme"), organization("zenith"))
    shared = {"grant": granted(rules, who), "considered": considered(rules, who)}
    nonces = {body(project="acme-widgets", kind="upload", **shared)["nonce"] for _ in range(2)}
    nonces |= {body(**shared)["nonce"] for _ in range(2)}
    assert [len(nonce) for nonce in nonces] == [32] * 4
    assert "nonce" not in body(grant=granted(policies(), who), considered=considered(policies(), who))


def whose(**known: Any) -> list[str]:
    first = attempt(**known).record()
    return [first.organization, *(one.organization for one in first.others)]


def test_whose_an_attempt_is() -> None:
    who, no = identity(), refusals.ReplayedToken()
    both = policies(organization("acme"), organization("zenith"))
    looked_at, grant = considered(both, who), granted(both, who)
    alone = granted(policies(organization("zenith")), who)
    assert whose(grant=grant) == ["acme", "zenith"]
    assert whose(grant=alone, considered=looked_at) == ["zenith"], "what was looked at earned nothing"
    assert whose(grant=alone, considered=looked_at, refusal=no) == ["zenith", "acme"]
    assert whose(considered=looked_at, refusal=no) == ["acme", "zenith"]
    assert whose(publishers=("bolt/a", "acme/b", "bolt/c")) == ["bolt", "acme"], "a token that is revoked"
    assert whose(grant=grant, refusal=no, project="acme-widgets") == ["acme"]
    assert whose(grant=grant, project="zenith-widgets") == ["acme"], "nobody's project"
    assert whose(owner="acme", refusal=no) == ["acme"]
    assert whose(refusal=no) == [""]


def test_who_earned_nothing_of_what_was_refused_is_told_no_projects() -> None:
    who, both = identity(), policies(organization("acme"), organization("zenith"))
    grant = granted(policies(organization("acme")), who)
    (other,) = attempt(grant=grant, considered=considered(both, who), refusal=refusals.StateForgot()).record().others
    assert other.organization == "zenith"
    assert "projects" not in json.loads(other.body)


def test_of_very_many_organizations_so_many_have_a_record_and_each_of_these_says_how_many_there_are() -> None:
    who = identity()
    many = policies(*(organization(f"o{number:02}") for number in range(MOST_CONSIDERED + 5)))
    for known in (
        {"grant": granted(many, who)},
        {"considered": considered(many, who), "refusal": refusals.StateForgot()},
    ):
        names = [f"o{number:02}" for number in range(MOST_CONSIDERED)]
        assert whose(**known) == names
        record = attempt(**known).record()
        assert {json.loads(one.body)["shared_with"] for one in (record, *record.others)} == {MOST_CONSIDERED + 4}


def test_of_many_publishers_one_of_each_organization_is_listed() -> None:
    many = tuple(publisher(f"p{number}", organization="aaa", to=("aaa-egg",)) for number in range(30))
    both = policies(organization("aaa", publishers=many), organization("acme"))
    told = body(considered=considered(both, identity()))["considered"]
    assert (len(told), told[:3]) == (
        MOST_CONSIDERED,
        ["aaa/p0: matches", "acme/widgets-release: matches", "aaa/p1: matches"],
    )


def test_where_all_fit_they_stand_as_they_were_looked_at() -> None:
    for last in (MOST_CONSIDERED - 1, MOST_CONSIDERED):
        many = tuple(publisher(f"p{number}", organization="aaa", to=("aaa-egg",)) for number in range(last))
        both = policies(organization("aaa", publishers=many), organization("acme"))
        told = body(considered=considered(both, identity()))["considered"]
        assert told[0] == "aaa/p0: matches"
        assert told.index("acme/widgets-release: matches") == (last if last < MOST_CONSIDERED else 1)
        assert len(told) == MOST_CONSIDERED


def test_a_record_is_one_line_of_ascii_whatever_a_caller_sent() -> None:
    """An issuer's name is a caller's until it is found, and may be anything that JSON can hold."""
    who = identity(environment="prüf-🚀", repository="acme-corp/widgets")
    for issuer in ("https://evil.example/\n{}", "\ud800", "\u2028", "\x1b[31m", "\x7f", "é"):
        record = attempt(issuer=issuer, identity=who).record()
        assert record.body.isascii()
        assert record.body.isprintable()
        assert json.loads(record.body)["issuer"] == issuer
        assert json.loads(record.body)["identity"]["environment"] == "prüf-🚀"
        alone = attempt(issuer=issuer).record().body
        assert (alone.isascii(), alone.isprintable(), json.loads(alone)["issuer"]) == (True, True, issuer)


def test_a_record_says_whose_token_it_is_where_that_is_not_the_broker_s() -> None:
    assert json.loads(attempt(upstream="devpi").record().body)["upstream"] == "devpi"
    assert "upstream" not in json.loads(attempt().record().body)


def test_no_part_of_a_token_is_in_a_record() -> None:
    text = CI.token("github", iat=NOW)
    who = identity()
    record = attempt(identity=who, grant=granted(policies(), who), considered=considered(policies(), who)).record()
    assert not any(part in record.body for part in text.split("."))
    assert "jti" not in json.loads(record.body)["identity"]


def test_attempts_are_named_by_time_and_unlike_any_other() -> None:
    names = [new_attempt_id(NOW + second / 10) for second in range(100)]
    assert names == sorted(names)
    assert all(re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]{10}", name) for name in names)
    assert int(names[0].split("-")[0], 16) == NOW * 1000
    assert len({new_attempt_id(NOW) for _ in range(1000)}) == 1000


def test_pinned_publishers_are_recorded_as_the_others() -> None:
    pinned = publisher(trusts=trust(pin="first-use", repository_id=..., repository_owner_id=...))
    rules = policies(organization(publishers=(pinned,)))
    assert body(grant=granted(rules, identity()))["publishers"] == ["acme/widgets-release"]


def test_a_registry_stored_what_it_answered_with_success() -> None:
    told = {
        status: body(kind="upload", registry_status=status)["stored"] for status in (200, 201, 299, 300, 302, 400, 500)
    }
    assert told == {200: True, 201: True, 299: True, 300: False, 302: False, 400: False, 500: False}
    assert "stored" not in body(kind="upload")


def test_a_file_that_the_index_has_is_stored_whatever_the_registry_answered() -> None:
    told = body(kind="upload", registry_status=500, confirmed=True)
    assert (told["registry_status"], told["confirmed"], told["stored"]) == (500, True, True)
    told = body(kind="upload", confirmed=True)
    assert (told["stored"], "registry_status" in told) == (True, False)
    told = body(kind="upload", already_stored=True)
    assert (told["already_stored"], "stored" in told, "confirmed" in told) == (True, False, False)
