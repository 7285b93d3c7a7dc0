"""One record an attempt: what was known by then, and never a credential."""

from __future__ import annotations

import json
import re
from typing import Any

from broker import refusals
from broker.audit import MOST_CONSIDERED, RECORD_VERSION, Attempt, new_attempt_id
from tests.fakes import CI, NOW, considered, granted, identity, organization, policies, publisher, trust

AT = NOW + 0.1239


def attempt(**known: Any) -> Attempt:
    return Attempt(**{"kind": "mint", "id": "019aa1c2f3d4-8f2c61d0a9", "started_at": AT, **known})


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
    common = {"version", "attempt", "at", "kind", "decision", "generation", "issuer"}
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
    both = policies(organization("aaa", publishers=(first,)), organization("acme"))
    grant = granted(both, identity())
    assert grant.organizations == ("aaa", "acme")
    assert attempt(grant=grant, kind="upload", project="acme-widgets").record().organization == "acme"
    assert attempt(grant=grant, kind="upload", project="aaa-egg").record().organization == "aaa"
    assert attempt(grant=grant, kind="upload", project="nobody-s").record().organization == "aaa"


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
    assert told == others
    assert (told["shared_with"], told["token_id"]) == (1, "jti-1")
    assert told["publishers"] == ["acme/widgets-release", "zenith/widgets-release"]


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
