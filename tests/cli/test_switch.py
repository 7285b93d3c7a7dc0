"""`broker disable` and `broker enable`: what is switched off earns nothing and uses nothing, at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from broker.cli import main
from broker.state import Switch, Thrower
from broker.state.opening import open_state
from tests.cli.publishing import before, publish
from tests.devpi import NATIVE
from tests.environment import environment
from tests.harness import ACME, Broker, Setup, state_url
from tests.metrics.reading import value
from tests.registries import PypiServer
from tests.state.examples import record
from tests.web.test_mint_refusals import check_refusal

pytestmark = pytest.mark.anyio

SUBJECTS = [
    ("everything",),
    ("issuer", "github"),
    ("organization", "acme"),
    ("publisher", "acme/widgets-release"),
]
OTHERS = [
    ("issuer", "gitlab"),
    ("organization", "bolt"),
    ("publisher", "acme/widgets-gitlab"),
    ("publisher", "bolt/widgets-release"),
]


async def run(broker: Broker, verb: str, *arguments: str, reason: str = "an incident") -> int:
    """A verb, beside the running broker."""
    more = ["--reason", reason] if verb != "disabled" else []
    where = ["--state", state_url(broker.folder)]
    folder = ["--policies", str(broker.folder / "policies")] if verb == "disable" else []
    return await asyncio.to_thread(main, [verb, *arguments, *more, *where, *folder])


async def throw(folder: Path, subject: str, by: Thrower) -> None:
    """Throws a switch, as the API would for an owner."""
    state = open_state(state_url(folder), retention_days=1)
    await state.switch_off(Switch(subject=subject, by=by, at=int(time.time()), reason="theirs"), record())
    await state.close()


@pytest.mark.parametrize("what", SUBJECTS, ids=" ".join)
async def test_nothing_is_minted_and_nothing_used_until_it_is_on_again(
    tmp_path: Path, registry: PypiServer, capsys: pytest.CaptureFixture[str], what: tuple[str, ...]
) -> None:
    async with before(registry, tmp_path).running() as broker:
        minted, waiting = await broker.minted(), broker.ci.token()
        assert await run(broker, "disable", *what) == 0
        assert f"switched off: {' '.join(what)}" in capsys.readouterr().out
        check_refusal(await broker.mint(waiting), "switched-off", 403)
        check_refusal(await publish(broker, minted), "switched-off", 403)
        assert registry.stored() == {}
        assert await run(broker, "enable", *what) == 0
        assert (await broker.mint(waiting)).status_code == 200, "a refused exchange does not use a token up"
        assert (await publish(broker, minted)).status_code == 200
        records = await broker.records()
    thrown, lifted = (one for one in records if one["kind"] == "switch")
    assert (thrown["switched_off"], thrown["by"], thrown["reason"]) == (" ".join(what), "operator", "an incident")
    assert (lifted["switched_on"], lifted["by"]) == (" ".join(what), "operator")
    assert thrown["organization"] == lifted["organization"] == ("acme" if "acme" in what[-1] else "")
    refused = [one for one in records if one.get("code") == "switched-off"]
    assert [(one["kind"], one["organization"]) for one in refused] == [("mint", "acme"), ("upload", "acme")]
    assert "token_id" not in refused[0], "none was minted"
    assert "an incident" not in str(refused), "why is for the operator and the owners"


async def test_what_is_of_others_goes_on(tmp_path: Path, registry: PypiServer) -> None:
    async with before(registry, tmp_path).running() as broker:
        minted = await broker.minted()
        for what in OTHERS:
            assert await run(broker, "disable", *what) == 0
        assert await broker.minted()
        assert (await publish(broker, minted)).status_code == 200


async def test_a_switch_that_is_thrown_into_100_exchanges_is_the_end_of_them(tmp_path: Path) -> None:
    """At two replicas: nothing that begins when it is thrown earns a token, and nothing is minted behind it."""
    more = {"exchanges_per_minute": 10_000}
    setup = Setup(folder=tmp_path, settings=more)
    async with setup.running() as one, Setup(folder=tmp_path, ci=setup.ci, settings=more).running() as other:
        assert (await one.mint(one.ci.token())).status_code == (await other.mint(one.ci.token())).status_code == 200
        racing = (broker.mint(one.ci.token()) for broker in (one, other) for _ in range(50))
        thrown = asyncio.create_task(run(one, "disable", "organization", "acme"))
        answers = await asyncio.gather(*racing)
        assert await thrown == 0
        for broker in (one, other):
            check_refusal(await broker.mint(one.ci.token()), "switched-off", 403)
        records = await one.records()
    assert {answer.status_code for answer in answers} <= {200, 403}
    at = next(number for number, record in enumerate(records) if record["kind"] == "switch")
    assert {record["decision"] for record in records[:at]} == {"allowed"}
    assert {record["decision"] for record in records[at + 1 :]} == {"refused"}


TWO = (
    ACME
    + """\
  gadgets-gitlab:
    issuer: gitlab
    project_path: acme/tools/widgets
    project_id: "20"
    namespace_id: "72"
    environment: pypi
    projects: [acme-gadgets]
"""
)


async def test_of_several_publishers_the_others_still_earn(tmp_path: Path) -> None:
    async with Setup(folder=tmp_path, acme=TWO).running() as broker:
        assert (await broker.mint(broker.ci.token("gitlab"))).status_code == 200
        assert await run(broker, "disable", "publisher", "acme/gadgets-gitlab") == 0
        token = broker.ci.token("gitlab")
        first, again = await broker.mint(token), await broker.mint(token)
        assert first.json()["token"] == again.json()["token"]
        both, one = [record for record in await broker.records() if record["kind"] == "mint"][:2]
        assert await run(broker, "disable", "publisher", "acme/widgets-gitlab") == 0
        check_refusal(await broker.mint(broker.ci.token("gitlab")), "switched-off", 403)
    assert both["projects"] == ["acme-gadgets", "acme-widgets"]
    assert (one["projects"], one["publishers"]) == (["acme-widgets"], ["acme/widgets-gitlab"])


async def test_a_token_of_devpi_s_that_is_good_for_what_is_off_is_not_given_again(tmp_path: Path) -> None:
    """devpi judges it: no gate of the broker's is asked when it is used."""
    async with Setup(folder=tmp_path, acme=TWO, settings=dict(NATIVE)).running() as broker:
        token = broker.ci.token("gitlab")
        assert (await broker.mint(token)).status_code == 200
        assert await run(broker, "disable", "publisher", "acme/gadgets-gitlab") == 0
        check_refusal(await broker.mint(token), "switched-off", 403)


async def test_an_owner_s_switch_stays_unless_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Setup(folder=tmp_path).running() as broker:
        await throw(tmp_path, "organization acme", "owner")
        assert await run(broker, "disable", "organization", "acme") == 0
        assert await run(broker, "enable", "organization", "acme") == 1
        told = capsys.readouterr()
        assert "lifted: the operator's switch of organization acme" in told.out
        assert "still switched off: organization acme, by the owner since" in told.err
        check_refusal(await broker.mint(broker.ci.token()), "switched-off", 403)
        assert await run(broker, "enable", "organization", "acme", "--owners-too") == 0
        assert await broker.minted()
        assert await run(broker, "enable", "organization", "acme") == 1
        assert "the operator has not switched off organization acme" in capsys.readouterr().err


async def test_what_is_off_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Setup(folder=tmp_path, settings={"metrics": "open"}).running() as broker:

        async def shown() -> list[str]:
            capsys.readouterr()
            assert await run(broker, "disabled") == 0
            told = capsys.readouterr()
            return [*told.out.splitlines(), *told.err.splitlines()]

        await broker.minted()
        assert await shown() == ["broker disabled: nothing is switched off."]
        everything, metrics = (await broker.client.get("/readyz")).json()["switched_off"], "broker_switched_off"
        assert everything == {"everything": False, "issuers": [], "organizations": 0, "publishers": 0}
        await run(broker, "disable", "publisher", "acme/widgets-release", reason="why not")
        await run(broker, "disable", "issuer", "gitlab")
        await run(broker, "disable", "organization", "acme")
        await throw(tmp_path, "organization acme", "owner")
        lines = await shown()
        assert [line.split(" since")[0] for line in lines] == [
            "issuer gitlab, by the operator",
            "organization acme, by the operator",
            "organization acme, by the owner",
            "publisher acme/widgets-release, by the operator",
        ]
        assert lines[-1].endswith("UTC: why not")
        off = {"everything": False, "issuers": ["gitlab"], "organizations": 1, "publishers": 1}
        # What it says may be a second old.
        while (ready := await broker.client.get("/readyz")).json()["switched_off"] != off:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.1)
        assert "acme" not in ready.text, "anybody may ask"
        text = (await broker.client.get("/metrics")).text
        counted = {what: value(text, metrics, what=what) for what in ("everything", "issuer", "organization")}
        assert counted == {"everything": 0, "issuer": 1, "organization": 1}
        await run(broker, "disable", "everything")
        while not (await broker.client.get("/readyz")).json()["switched_off"]["everything"]:  # noqa: ASYNC110 - no more
            await asyncio.sleep(0.1)
        assert value((await broker.client.get("/metrics")).text, metrics, what="everything") == 1


async def test_without_state_nobody_says_that_all_is_on(tmp_path: Path) -> None:
    async with Setup(
        folder=tmp_path, settings={"state_url": f"sqlite:///{tmp_path}/none/state.db"}
    ).running() as broker:
        assert (await broker.client.get("/readyz")).json()["switched_off"] is None


@pytest.mark.parametrize(
    ("what", "note"),
    [
        (("issuer", "githbu"), "no issuer 'githbu'"),
        (("organization", "acm"), "no organization 'acm'"),
        (("publisher", "acme/x"), "no publisher 'acme/x'"),
        (("publisher", "acme/widgets-release"), ""),
        (("everything",), ""),
    ],
)
def test_a_name_that_the_policies_do_not_have_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: tuple[str, ...], note: str
) -> None:
    policies = Setup(folder=tmp_path).write().policies
    asyncio.run(throw(tmp_path, "issuer x", "operator"))
    with environment(BROKER_POLICIES=str(policies), BROKER_STATE_URL=state_url(tmp_path)):
        assert main(["disable", *what, "--reason", "x"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("switched off: ")
    assert (note in told.err, bool(told.err)) == (True, bool(note))


@pytest.mark.parametrize("verb", ["disable", "enable"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["organization"], "write 'organization NAME'"),
        (["everything", "acme"], "write 'everything'"),
        (["publisher", "acme"], "write ORGANIZATION/NAME"),
        (["organization", "Acme"], "'Acme' is no name"),
        (["publisher", "acme/"], "'' is no name"),
        (["issuer", "https://gitlab.com"], "is no name"),
    ],
)
def test_what_can_be_nothing_is_explained(
    capsys: pytest.CaptureFixture[str], verb: str, arguments: list[str], words: str
) -> None:
    assert main([verb, *arguments, "--reason", "x"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["disable", "everything", "--reason", "x"], ["enable", "everything"], ["disabled"]]
)
def test_a_missing_state_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main([*arguments, "--state", state_url(tmp_path)]) == 1
    assert "there is no state at" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["everything"], ["everything", "--reason", " "], ["actor", "x", "1"]])
def test_a_wrong_flag_is_explained(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["disable", *arguments])
    assert ended.value.code == 2
