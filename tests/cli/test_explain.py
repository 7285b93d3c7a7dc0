"""`broker explain`: whatever it is asked about, the decision is the exchange's own, and no token is ever shown."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from broker.audit import Record
from broker.cli import main
from broker.cli.explain_inputs import LARGEST_INPUT
from broker.playground.claims import BOB, MALLORY, github_claims
from broker.policy.explanation import MOST_NEAR
from broker.refusals import NoPublisher
from broker.state import Limit, Pin, Settlement
from broker.state.opening import open_state
from tests.fakes import sign
from tests.harness import ACME, AUDIENCE, INDEX, Setup

Explained = Callable[..., tuple[int, str]]


@pytest.fixture
def explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Explained:
    """Runs the verb on policies, with some of their text replaced; the exit status, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, acme: Mapping[str, str] | None = None, index: str = INDEX) -> tuple[int, str]:
        text = ACME
        for old, new in (acme or {}).items():
            assert old in text
            text = text.replace(old, new)
        Setup(folder=tmp_path, acme=text, index=index).write()
        status = main(["explain", *arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def asked(explained: Explained, folder: Path, acme: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """What is said of claims, as JSON."""
    (folder / "claims.json").write_text(json.dumps(github_claims(**changes)), encoding="utf-8")
    status, out = explained("--claims", "claims.json", "--format", "json", acme=acme)
    told: dict[str, Any] = json.loads(out)
    assert status == (told["decision"] == "refused")
    return told


# --- Claims and tokens -----------------------------------------------------------------------------------------------


def test_a_run_that_is_allowed_is_told_with_its_grant(explained: Explained, tmp_path: Path) -> None:
    told = asked(explained, tmp_path)
    assert (told["version"], told["decision"], told["issuer"], told["refusal"]) == (1, "allowed", "github", None)
    assert told["grant"] == {
        "projects": ["acme-gadgets", "acme-widgets"],
        "publishers": ["acme/widgets-release"],
        "members": ["acme/alice"],
        "lifetime_seconds": 900,
    }
    assert told["publishers"] == [
        {"id": "acme/widgets-release", "why": "has this name", "passed": 10, "until": None, "mismatch": None}
    ]
    assert told["identity"]["repository"] == "acme-corp/widgets"
    assert told["notes"][0] == "The signature is NOT verified: anybody can write these claims."
    assert (told["record"], told["assumed"], told["first_uses"]) == (None, [], [])


def test_a_person_reads_the_decision_first(explained: Explained, tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text(json.dumps(github_claims(environment="staging", **BOB.on_github)))
    status, out = explained("--claims", "claims.json", acme={"member, github": "member, until: 9000-01-01, github"})
    lines = out.splitlines()
    assert status == 1
    assert lines[:3] == [
        "REFUSED     no-publisher",
        "            no publisher fits repository 'acme-corp/widgets' of issuer 'github'",
        f"            {NoPublisher.remedy}",
    ]
    assert "publishers  acme/widgets-release: environment is 'staging', expected 'pypi'" in lines
    assert "actor       acme: bob, member, until 9000-01-01, may upload to acme-widgets" in lines
    assert "            repository acme-corp/widgets" in lines
    assert "            unattended false" in lines
    assert all(line == line.rstrip() for line in lines)


def test_a_person_reads_who_may_have_been_meant(explained: Explained) -> None:
    run = ("--github", "acme-corp/widgets", "--actor-id", "9", "--actor")
    assert "actor       acme: no member: unknown-actor\n" in explained(*run, "zzz")[1]
    closest = "actor       acme: no member; closest is bob, whose github id is 1002: unknown-actor\n"
    assert closest in explained(*run, "bob")[1]


def test_a_person_reads_the_grant(explained: Explained, tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text(json.dumps(github_claims()))
    status, out = explained("--claims", "claims.json", acme={"    refs: [": "    until: 9000-01-01\n    refs: ["})
    assert status == 0
    assert out.startswith("ALLOWED     to publish acme-gadgets, acme-widgets\n")
    assert "publishers  acme/widgets-release, until 9000-01-01: matches\n" in out
    assert "            by acme/widgets-release for acme/alice\n            an upload token lives 900 s\n" in out


READS = {
    'acme-widgets: {upload: ["team:core"]}': "acme-widgets: {upload: [alice], download: [bob]}",
    "    projects: [acme-widgets, acme-gadgets]\n": "    projects: [acme-widgets]\n    downloads: [acme-gadgets]\n",
}


def test_a_read_is_explained_as_one(explained: Explained, tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text(json.dumps(github_claims(**BOB.on_github)))
    status, out = explained("--claims", "claims.json", acme=READS)
    assert (status, out.splitlines()[0]) == (1, "REFUSED     member-not-permitted")
    assert "may upload to nothing, may read acme-widgets: member-not-permitted\n" in out
    status, out = explained("--claims", "claims.json", "--scope", "read", acme=READS)
    assert (status, out.splitlines()[0]) == (0, "ALLOWED     to read acme-widgets")
    assert "may upload to nothing, may read acme-widgets\n" in out
    assert "            a read token lives 900 s\n" in out


def test_what_was_asked_for_is_in_the_json(explained: Explained, tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text(json.dumps(github_claims()))
    (tmp_path / "token").write_text(sign(github_claims()))
    for source in (("--claims", "claims.json"), ("--token", "token"), ("--github", "acme-corp/widgets")):
        for scope, projects in (("upload", ["acme-widgets"]), ("read", ["acme-gadgets", "acme-widgets"])):
            _, out = explained(*source, "--format", "json", "--scope", scope, acme=READS)
            told = json.loads(out)
            assert (told["scope"], told["grant"]["projects"]) == (scope, projects)
            assert (told["actor"][0]["member"]["uploads"], told["actor"][0]["member"]["downloads"]) == (
                ["acme-widgets"],
                [],
            )


@pytest.mark.parametrize(
    ("changes", "acme", "standing"),
    [
        ({}, {}, {"member": "alice", "refusal": None, "closest": ""}),
        (MALLORY.on_github, {}, {"member": None, "refusal": "unknown-actor", "closest": ""}),
        (
            {"actor": "Bob", "actor_id": "9"},
            {},
            {"member": None, "refusal": "unknown-actor", "closest": "bob, whose github id is 1002"},
        ),
        (
            {"actor": "release-bot", "actor_id": "9"},
            {},
            {"member": None, "refusal": "unknown-actor", "closest": "release-bot, who has no github id"},
        ),
        (
            {"actor": "x", "actor_id": "77"},
            {},
            {"member": None, "refusal": "unknown-actor", "closest": "alice, whose id this is at gitlab"},
        ),
        ({"actor": "alicia", "actor_id": "9"}, {}, {"member": None, "refusal": "unknown-actor", "closest": "alice"}),
        ({"actor_id": "1003"}, {}, {"member": "carol", "refusal": "member-not-permitted", "closest": ""}),
        ({}, {"{role: owner": "{suspended: true, role: owner"}, {"member": "alice", "refusal": "member-suspended"}),
        ({}, {"{role: owner": "{until: 2020-01-01, role: owner"}, {"member": "alice", "refusal": "member-expired"}),
        ({}, {"organization: acme": "organization: acme\nsuspended: true"}, {"refusal": "organization-suspended"}),
        ({"environment": "else"}, {}, {"member": "alice", "refusal": None}),
    ],
)
def test_who_the_actor_is(
    changes: dict[str, Any], acme: dict[str, str], standing: dict[str, Any], explained: Explained, tmp_path: Path
) -> None:
    (told,) = asked(explained, tmp_path, acme, **changes)["actor"]
    told["member"] = told["member"] and told["member"]["name"]
    assert {name: told[name] for name in standing} == standing


@pytest.mark.parametrize(
    ("acme", "line"),
    [
        ({}, "alice, owner"),
        (
            {"{role: owner": "{suspended: true, machine: true, role: owner"},
            "alice, owner, machine, suspended: member-susp",
        ),
        (
            {"{role: owner": "{role: member", "[bob]": "[bob]", "[release-bot]": "[bob]"},
            "alice, member, may upload to noth",
        ),
        ({"organization: acme": "organization: acme\nsuspended: true"}, "alice, owner: organization-suspended"),
    ],
)
def test_a_standing_is_a_line(acme: dict[str, str], line: str, explained: Explained, tmp_path: Path) -> None:
    (tmp_path / "claims.json").write_text(json.dumps(github_claims()))
    _, out = explained("--claims", "claims.json", acme=acme)
    suspended = " (suspended)" if "organization-" in line else ""
    assert f"actor       acme{suspended}: {line}" in out


MORE = """\
  other:
    issuer: github
    repository: acme-corp/else
    repository_id: "1"
    repository_owner_id: "65600975"
    workflow: release.yml
    projects: [acme-widgets]
  workflow-first:
    issuer: github
    repository: acme-corp/widgets
    repository_id: "424242424"
    repository_owner_id: "65600975"
    workflow: a.yml
    projects: [acme-widgets]
  changed-hands:
    issuer: github
    repository: acme-corp/widgets
    repository_id: "5"
    repository_owner_id: "65600975"
    workflow: release.yml
    projects: [acme-widgets]
  elsewhere:
    issuer: github-acme
    repository: acme-corp/zebra
    repository_id: "5"
    repository_owner_id: "65600975"
    workflow: release.yml
    projects: [acme-widgets]
"""


def told_more(explained: Explained, folder: Path, **changes: Any) -> dict[str, Any]:
    (folder / "claims.json").write_text(json.dumps(github_claims(**changes)))
    index = INDEX + "  github-acme: {provider: github, url: https://github.acme.example/_services/token}\n"
    _, out = explained(
        "--claims", "claims.json", "--format", "json", acme={"publishers:\n": "publishers:\n" + MORE}, index=index
    )
    told: dict[str, Any] = json.loads(out)
    return told


def test_the_nearest_publishers_come_first(explained: Explained, tmp_path: Path) -> None:
    told = told_more(explained, tmp_path, environment="staging")
    assert [(one["id"], one["passed"], one["mismatch"]["field"]) for one in told["publishers"]] == [
        ("acme/widgets-release", 5, "environment"),
        ("acme/workflow-first", 3, "workflow"),
        ("acme/changed-hands", 1, "repository_id"),
    ]


@pytest.mark.parametrize(
    ("repository", "first"),
    [
        ("acme-corp/zebra", [("acme/elsewhere", "has this name at another issuer")]),
        ("Acme-corp/wigets", [("acme/changed-hands", "has a name like it")]),
        ("zzz/qqq", [("acme/changed-hands", "is of the same owner"), ("acme/other", "is of the same owner")]),
    ],
)
def test_where_none_has_the_name_others_are_near(
    repository: str, first: list[tuple[str, str]], explained: Explained, tmp_path: Path
) -> None:
    told = told_more(explained, tmp_path, repository=repository)
    found = [(one["id"], one["why"]) for one in told["publishers"]]
    assert told["refusal"]["code"] == "no-publisher"
    assert set(first) <= set(found)
    assert len(found) <= MOST_NEAR
    assert all(one["passed"] == 0 and one["mismatch"] for one in told["publishers"])


def test_no_more_than_a_few_are_near(explained: Explained, tmp_path: Path) -> None:
    many = "".join(
        MORE[MORE.index("  other:") : MORE.index("  workflow-first:")].replace("other", f"w{at}") for at in range(9)
    )
    (tmp_path / "claims.json").write_text(json.dumps(github_claims(repository="acme-corp/elsa")))
    _, out = explained("--claims", "claims.json", "--format", "json", acme={"publishers:\n": "publishers:\n" + many})
    assert len(json.loads(out)["publishers"]) == MOST_NEAR


def test_where_nobody_is_near_it_is_said_so(explained: Explained, tmp_path: Path) -> None:
    stranger = github_claims(repository="zzz/qqq", repository_owner_id="4")
    (tmp_path / "claims.json").write_text(json.dumps(stranger))
    status, out = explained("--claims", "claims.json")
    assert status == 1
    assert "publishers  none has this name, nor one like it\n" in out
    assert "actor" not in out.split("publishers")[1]


def test_what_ends_before_an_identity_is_told_without_one(explained: Explained, tmp_path: Path) -> None:
    told = asked(explained, tmp_path, event_name="pull_request_target")
    assert (told["identity"], told["issuer"], told["refusal"]["code"]) == (None, "github", "forbidden-trigger")
    assert (told["publishers"], told["actor"]) == ([], [])
    assert asked(explained, tmp_path, iss="https://ci.example")["issuer"] is None
    (tmp_path / "claims.json").write_text("{}")
    status, out = explained("--claims", "claims.json")
    assert status == 1
    assert out.startswith("REFUSED     missing-claim\n")
    assert "publishers" not in out


def test_a_pin_is_not_known_without_state(explained: Explained, tmp_path: Path) -> None:
    acme = {'    repository_id: "424242424"\n': "    pin: first-use\n"}
    told = asked(explained, tmp_path, acme, repository_id="5")
    assert (told["decision"], told["first_uses"]) == ("allowed", ["acme/widgets-release"])
    _, out = explained("--claims", "claims.json", acme=acme)
    assert "            acme/widgets-release: pins on first use; what it recorded is not known here" in out


NOW = int(time.time())


@pytest.mark.parametrize(
    ("changes", "audience", "note"),
    [
        ({}, AUDIENCE, f"aud is '{AUDIENCE}', as it must be."),
        ({"aud": "other"}, AUDIENCE, f"aud is 'other', not '{AUDIENCE}': a mint refuses."),
        ({"aud": [AUDIENCE]}, AUDIENCE, f"aud is ['{AUDIENCE}'], not '{AUDIENCE}': a mint refuses."),
        ({"aud": ...}, AUDIENCE, "aud is absent: a mint refuses."),
        ({}, None, f"aud is '{AUDIENCE}'; name the broker's by --audience to have it compared."),
        ({"exp": 1_800_000_000_000}, None, "exp is 1800000000000: a mint refuses."),
        ({"exp": 4_102_444_800}, None, "exp is 2100-01-01T00:00:00Z, still to come, as it must be."),
        ({"exp": 1_000_000_000}, None, "exp is 2001-09-09T01:46:40Z, past: a mint refuses."),
        ({"exp": ...}, None, "exp is absent: a mint refuses."),
        ({"iat": True}, None, "iat is True: a mint refuses."),
        ({"iat": "soon"}, None, "iat is 'soon': a mint refuses."),
        ({"iat": 1_000_000_000}, None, "iat is 2001-09-09T01:46:40Z, past, as it must be."),
        ({"iat": 4_102_444_800}, None, "iat is 2100-01-01T00:00:00Z, in the future: a mint refuses."),
    ],
)
def test_what_a_mint_would_find_in_registered_claims_is_told(
    changes: dict[str, Any], audience: str | None, note: str, explained: Explained, tmp_path: Path
) -> None:
    (tmp_path / "claims.json").write_text(json.dumps(github_claims(**changes)))
    given = [] if audience is None else ["--audience", audience]
    status, out = explained("--claims", "claims.json", "--format", "json", *given)
    assert note in json.loads(out)["notes"]
    assert status == 0


def test_the_audience_may_come_from_the_brokers_own_setting(
    explained: Explained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_AUDIENCE", "other")
    assert f"aud is '{AUDIENCE}', not 'other': a mint refuses." in asked(explained, tmp_path)["notes"]


def test_a_token_is_read_and_never_shown(explained: Explained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = sign(github_claims(repository="acme-corp/widget"))
    (tmp_path / "token").write_text(token + "\n")
    for arguments in (["--token", "token"], ["--token", "token", "--format", "json"], ["--token", "-"]):
        monkeypatch.setattr("sys.stdin", io.StringIO(token))
        status, out = explained(*arguments)
        assert status == 1
        assert "acme-corp/widget" in out
        assert "NOT verified" in out
        assert not any(part in out for part in token.split("."))


@pytest.mark.parametrize("place", [[], ["--token"], ["--claims"], ["--claims", "claims.json"], ["--token", "x"]])
def test_a_token_on_the_command_line_is_not_repeated(
    place: list[str], explained: Explained, capsys: pytest.CaptureFixture[str]
) -> None:
    token = sign(github_claims())
    try:
        status, out = explained(*place, token)
    except SystemExit as ended:
        status, out = ended.code, capsys.readouterr().err  # type: ignore[assignment]
    assert status == 2
    assert token not in out
    assert not any(part in out for part in token.split("."))
    assert "--token" in out or "shell's history" in out


@pytest.mark.parametrize(
    ("arguments", "content", "why"),
    [
        (["--token", "x"], b"nonsense", "malformed-token: a token is three base64url segments with dots between them."),
        (["--claims", "x"], b"nonsense", "the claims are not JSON."),
        (["--claims", "x"], b"[" * 60_000, "the claims are not JSON."),
        (["--claims", "x"], b"[]", "the claims must be a JSON object."),
        (["--claims", "x"], b"\xff", "x is not UTF-8 text."),
        (["--claims", "x"], b"{" + b" " * LARGEST_INPUT, f"x is longer than {LARGEST_INPUT} characters."),
        (["--claims", "y"], b"", "y cannot be read: No such file or directory."),
        (["--github", "a/b", "--issuer", "gitlab"], b"", "index.yaml has no issuer of GitHub's kind named 'gitlab'."),
    ],
)
def test_what_cannot_be_read_is_explained(
    arguments: list[str], content: bytes, why: str, explained: Explained, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(content)
    assert explained(*arguments) == (2, f"broker explain: {why}\n")


def test_policies_that_do_not_load_explain_nothing(explained: Explained) -> None:
    status, out = explained("--github", "acme-corp/widgets", acme={"    workflow: release.yml\n": ""})
    assert status == 2
    assert "publishers.widgets-release.workflow: is missing" in out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--github", "a/b", "--claims", "x"],
        ["--claims", "x", "--workflow", "a.yml"],
        ["--claims", "x", "--actor-id", "1"],
        ["--attempt", "x", "--issuer", "github"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], explained: Explained, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        explained(*arguments)
    assert caught.value.code == 2
    assert "usage: broker explain" in capsys.readouterr().err


# --- A run of which a few things are known ---------------------------------------------------------------------------


def run_of(explained: Explained, *arguments: str, acme: Mapping[str, str] | None = None) -> dict[str, Any]:
    _, out = explained("--github", *arguments, "--format", "json", acme=acme)
    told: dict[str, Any] = json.loads(out)
    return told


def test_what_is_not_given_is_assumed_and_said_so(explained: Explained) -> None:
    told = run_of(explained, "ACME-corp/widgets", "--workflow", "release.yml")
    assert told["decision"] == "allowed"
    assert told["assumed"] == [
        "environment 'pypi' (as acme/widgets-release asks)",
        "ref 'refs/tags/v1' (as acme/widgets-release asks)",
        "event 'push' (as acme/widgets-release asks)",
        "actor_id '1001' (the owner alice)",
        "actor 'alice' (the member with that id)",
        "repository_id '424242424' (as acme/widgets-release asks)",
        "repository_owner_id '65600975' (as acme/widgets-release asks)",
        "ref_protected 'true' (any will do)",
        "runner_environment 'github-hosted' (any will do)",
    ]
    assert told["notes"] == ["There is no token: what is given here, a token would have to say."]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--environment", "staging"], "no-publisher"),
        (["--environment", ""], "no-publisher"),
        (["--ref", "refs/heads/main"], "no-publisher"),
        (["--event", "pull_request"], "forbidden-trigger"),
        (["--event", "schedule"], "no-publisher"),
        (["--repository-id", "5"], "identity-changed"),
        (["--actor-id", "1003"], "member-not-permitted"),
        (["--actor-id", "5"], "unknown-actor"),
        (["--job-workflow", "x/y/.github/workflows/a.yml@refs/heads/main"], "no-publisher"),
        (["--ref-protected", "maybe"], "invalid-claim"),
        (["--issuer", "github"], None),
    ],
)
def test_what_is_given_is_asked(arguments: list[str], code: str | None, explained: Explained) -> None:
    told = run_of(explained, "acme-corp/widgets", *arguments)
    assert (told["refusal"] and told["refusal"]["code"]) == code
    name = arguments[0].removeprefix("--").replace("-", "_")
    assert not any(one.startswith(f"{name} ") for one in told["assumed"])


def test_the_publisher_that_fits_best_is_what_is_assumed(explained: Explained) -> None:
    more = {"publishers:\n": "publishers:\n" + MORE[: MORE.index("  elsewhere:")]}
    assert (
        "environment none (any will do)"
        in run_of(explained, "acme-corp/widgets", "--workflow", "a.yml", acme=more)["assumed"]
    )
    flags = {"    environment: pypi\n    refs": "    environment: pypi\n    ref_protected: false\n    refs"}
    assert (
        "ref_protected 'false' (as acme/widgets-release asks)"
        in run_of(explained, "acme-corp/widgets", acme=flags)["assumed"]
    )


def test_without_a_publisher_or_a_member_that_is_said(explained: Explained) -> None:
    told = run_of(explained, "acme-corp/widgetz")
    assert told["assumed"][0] == "workflow 'release.yml' (no publisher has this name)"
    assert told["publishers"][0]["id"] == "acme/widgets-release"
    nobody = {', github: "1001"': "", ', github: "1002"': "", 'github: "1003"': 'gitlab: "79"'}
    told = run_of(explained, "acme-corp/widgets", acme=nobody)
    assert "actor_id '0' (acme has no member with an id at github)" in told["assumed"]
    assert "actor 'somebody' (no member has that id)" in told["assumed"]
    assert told["refusal"]["code"] == "unknown-actor"


def test_assumptions_are_read_below_each_other(explained: Explained) -> None:
    status, out = explained("--github", "acme-corp/widgets")
    assert status == 0
    assert "assumed     workflow 'release.yml' (as acme/widgets-release asks)\n            environment 'pypi'" in out


# --- Attempts --------------------------------------------------------------------------------------------------------


def record(folder: Path, *bodies: Mapping[str, Any], pin: str = "") -> str:
    """Keeps records in a state, and a first use; where it is."""
    url = f"sqlite:///{folder / 'state.db'}"

    async def keep() -> None:
        state = open_state(url, retention_days=400)
        for body in bodies:
            one = Record(attempt=body["attempt"], at=time.time(), organization="acme", body=json.dumps(body))
            await state.append(one)
        if pin:
            now = time.time()
            settlement = Settlement(
                now=now,
                limits=(Limit(key="x", burst=1, per_seconds=1),),
                spend="x",
                spend_until=int(now) + 100,
                issued_at=now,
                receipt="{}",
                pins=(Pin(publisher="acme/widgets-release", field="repository_id", value=pin),),
                record=Record(attempt="other", at=now, organization="acme", body="{}"),
            )
            await state.settle(settlement)
        await state.close()

    asyncio.run(keep())
    return url


IDENTITY = {
    "issuer": "github",
    "subject": "repo:acme-corp/widgets",
    "actor_id": "1001",
    "actor_name": "alice",
    "unattended": False,
    "run": "7",
    "repository": "acme-corp/widgets",
    "repository_id": "424242424",
    "repository_owner_id": "65600975",
    "workflow": "release.yml",
    "ref": "refs/tags/v1",
    "event": "push",
    "environment": "pypi",
    "sha": "f00",
}
REFUSED = {
    "version": 1,
    "attempt": "019-a",
    "at": "2026-01-01T00:00:00.000+00:00",
    "kind": "mint",
    "decision": "refused",
    "generation": "older",
    "issuer": "github",
    "code": "unknown-actor",
    "detail": "who?",
    "considered": ["acme/widgets-release: matches"],
    "identity": IDENTITY,
}


def test_an_attempt_is_told_as_it_was_and_as_it_is_decided_today(
    explained: Explained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = record(tmp_path, {**REFUSED, "attempt": "019-ab"}, REFUSED)
    status, out = explained("--attempt", "019-a", "--state", url)
    assert status == 0
    assert out.startswith("ALLOWED     to publish acme-gadgets, acme-widgets\n")
    assert (
        "recorded    019-a at 2026-01-01T00:00:00.000+00:00: mint refused\n            by generation older (today's"
        in out
    )
    assert "            unknown-actor: who?\n            acme/widgets-release: matches\n" in out
    monkeypatch.setenv("BROKER_STATE_URL", url)
    _, out = explained("--attempt", "019-a", "--format", "json")
    assert json.loads(out)["record"] == REFUSED
    assert json.loads(out)["notes"] == []


def test_what_was_allowed_may_be_refused_today(explained: Explained, tmp_path: Path) -> None:
    generation = json.loads(explained("--github", "a/b", "--format", "json")[1])["generation"]
    before = {**REFUSED, "decision": "allowed", "projects": ["acme-widgets"], "generation": generation}
    url = record(tmp_path, {**{name: told for name, told in before.items() if name not in {"code", "considered"}}})
    gone = {"alice: {role: owner": "alice: {role: billing-manager"}
    for scope in ("upload", "read"):
        _, out = explained("--attempt", "019-a", "--format", "json", "--scope", scope)
        assert json.loads(out)["scope"] == scope
    status, out = explained("--attempt", "019-a", "--state", url, acme=gone)
    assert status == 1
    assert out.startswith("REFUSED     member-not-permitted\n")
    assert "            projects acme-widgets\n" in out
    assert "(today's are " in out
    assert "(the policies of today)" in explained("--attempt", "019-a", "--state", url)[1]


def test_an_attempt_to_read_is_decided_as_one(explained: Explained, tmp_path: Path) -> None:
    early = {**REFUSED, "attempt": "020-b", "code": "wrong-audience", "identity": None, "scope": "read"}
    url = record(tmp_path, {**REFUSED, "scope": "read"}, early)
    assert explained("--attempt", "019-a", "--state", url)[1].startswith(
        "ALLOWED     to read acme-gadgets, acme-widgets\n"
    )
    for attempt, asked, scope in (
        ("019-a", (), "read"),
        ("020-b", (), "read"),
        ("019-a", ("--scope", "upload"), "upload"),
    ):
        _, out = explained("--attempt", attempt, "--state", url, "--format", "json", *asked)
        assert json.loads(out)["scope"] == scope


def test_what_first_uses_recorded_is_asked(explained: Explained, tmp_path: Path) -> None:
    url = record(tmp_path, REFUSED, pin="5")
    acme = {'    repository_id: "424242424"\n': "    pin: first-use\n"}
    status, out = explained("--attempt", "019-a", "--state", url, acme=acme)
    assert status == 1
    assert out.startswith("REFUSED     identity-changed\n")
    assert "            acme/widgets-release: pins on first use; asked as recorded\n" in out


def test_an_attempt_without_identity_is_told_as_it_was(explained: Explained, tmp_path: Path) -> None:
    early = {**REFUSED, "code": "wrong-audience", "detail": "the audience", "identity": None}
    url = record(tmp_path, early, {**early, "attempt": "020-b", "code": "retired", "detail": "it was"})
    status, out = explained("--attempt", "019-a", "--state", url)
    assert status == 1
    assert out.startswith("REFUSED     wrong-audience\n            the audience\n            Ask the CI provider")
    assert "note        No identity was recorded" in out
    assert explained("--attempt", "020-b", "--state", url)[1].startswith(
        "REFUSED     malformed-token\n            it was\n"
    )


def test_an_issuer_that_is_off_today_refuses_today(explained: Explained, tmp_path: Path) -> None:
    url = record(tmp_path, REFUSED)
    index = INDEX.replace("provider: github", "provider: github, disabled: true")
    _, out = explained("--attempt", "019-a", "--state", url, "--format", "json", index=index)
    assert json.loads(out)["refusal"]["code"] == "issuer-disabled"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": "jenkins"}, "today's policies have no issuer 'jenkins', whose run this was"),
        ({"more": "x"}, "the record is of another version of the broker, or the issuer of another kind now"),
    ],
)
def test_a_record_that_todays_policies_cannot_read_is_explained(
    changes: dict[str, str], why: str, explained: Explained, tmp_path: Path
) -> None:
    url = record(tmp_path, {**REFUSED, "identity": {**IDENTITY, **changes}})
    assert explained("--attempt", "019-a", "--state", url) == (2, f"broker explain: {why}.\n")


def test_state_that_cannot_be_read_is_explained(explained: Explained, tmp_path: Path) -> None:
    status, out = explained("--attempt", "x", "--state", "sqlite:///nowhere.db")
    assert (status, out) == (
        2,
        "broker explain: there is no state at nowhere.db: name it by --state or BROKER_STATE_URL.\n",
    )
    assert not (tmp_path / "nowhere.db").exists()
    url = record(tmp_path, REFUSED)
    assert explained("--attempt", "x", "--state", url)[1] == (
        "broker explain: there is no attempt 'x' among the newest 100000 records.\n"
    )
    (tmp_path / "broken.db").write_bytes(b"no database, and longer than a page's header " * 100)
    status, out = explained("--attempt", "x", "--state", "sqlite:///broken.db")
    assert status == 2
    assert "state cannot be read" in out
    assert explained("--attempt", "x", "--state", "ftp://x")[0] == 2
