"""The file of receivers: each mistake at its line, and what a right one means."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

from broker.alerts.kinds import BY_CODE, Alert
from broker.alerts.receivers import Receiver, read
from broker.settings import SettingsError
from tests.alerts.hook import KEY, SECRET
from tests.harness import Setup

TWO = """\
receivers:
  acme-owners:
    kind: standard
    url: https://hooks.acme.example/broker?x=1
    secret_files: [acme-hook]
    secret_environment: [ACME_HOOK]
    organizations: [acme]
    kinds: [new-actor, replayed-token]
    longest_pause: 10m
  operators:
    kind: slack
    url_file: slack-url
    index: true
"""
SLACK = "https://hooks.slack.example/services/T0/B0/s3cret"


def receivers(folder: Path, text: str = TWO, *, loopback: bool = False) -> tuple[Receiver, ...]:
    """The receivers of a file with this text, beside whose secrets stand."""
    (folder / "acme-hook").write_text(SECRET + "\n")
    (folder / "slack-url").write_text(SLACK + "\n")
    (folder / "nonsense").write_text("whsec_s3cret")
    (folder / "alerts.yaml").write_text(text)
    return read(folder / "alerts.yaml", allow_loopback=loopback)


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_HOOK", "whsec_" + "b29v" * 8)
    monkeypatch.setenv("HOOK_URL", "https://hooks.acme.example/from-a-variable")


def alert(kind: str, organization: str = "acme") -> Alert:
    return Alert(kind=BY_CODE[kind], organization=organization, subject="s", at=0, cause="c", data={})


def test_each_receiver_is_what_its_entry_says(tmp_path: Path) -> None:
    acme, operators = receivers(tmp_path)
    assert (acme.name, acme.kind, acme.address()) == (
        "acme-owners",
        "standard",
        "https://hooks.acme.example/broker?x=1",
    )
    assert acme.keys() == (KEY, b"ooo" * 8)
    assert (acme.kinds, acme.longest_pause_seconds) == (frozenset({"new-actor", "replayed-token"}), 600)
    assert (operators.kind, operators.address(), operators.keys()) == ("slack", SLACK, ())
    assert (operators.kinds, operators.longest_pause_seconds) == (frozenset(BY_CODE), 1800)
    assert "s3cret" not in repr((acme, operators))
    assert SECRET not in repr((acme, operators))


def test_a_receiver_is_told_of_its_organizations_and_kinds_alone(tmp_path: Path) -> None:
    acme, operators = receivers(tmp_path)
    assert acme.wants(alert("new-actor"))
    assert not acme.wants(alert("new-actor", "beta"))
    assert not acme.wants(alert("new-actor", ""))
    assert not acme.wants(alert("member-refused"))
    assert not operators.wants(alert("new-actor"))
    assert operators.wants(alert("refusal-burst", ""))
    assert operators.wants(alert("revocation"))
    assert operators.wants(alert("policies-stale", ""))


def test_what_stands_in_a_file_or_a_variable_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acme, operators = receivers(
        tmp_path, TWO.replace("url: https://hooks.acme.example/broker?x=1", "url_environment: HOOK_URL")
    )
    (tmp_path / "slack-url").write_text("https://hooks.slack.example/new")
    monkeypatch.setenv("HOOK_URL", "https://hooks.acme.example/other")
    assert (acme.address(), operators.address()) == (
        "https://hooks.acme.example/other",
        "https://hooks.slack.example/new",
    )
    monkeypatch.delenv("ACME_HOOK")
    with pytest.raises(ValueError, match="a secret is whsec_"):
        acme.keys()


def test_plain_http_is_for_loopback_in_development(tmp_path: Path) -> None:
    text = TWO.replace("https://hooks.acme.example/broker?x=1", "http://127.0.0.1:9000/x")
    assert receivers(tmp_path, text, loopback=True)[0].address() == "http://127.0.0.1:9000/x"
    with pytest.raises(SettingsError, match=r"receivers\.acme-owners\.url: is no receiver's URL\. Write https://"):
        receivers(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("receivers:", "receiver:", "alerts.yaml:1: receivers: is missing. Add it. Who is told, by name."),
        (TWO, "receivers: {}\n", "alerts.yaml:1: receivers: must not be empty"),
        (TWO, "receivers: [\n", "is not YAML"),
        ("kind: standard", "kind: email", "alerts.yaml:3: receivers.acme-owners.kind: must be 'standard' or 'slack'"),
        ("    url: https://hooks.acme.example/broker?x=1\n", "", "has none of url, url_file, url_environment"),
        ("url_file", "url: https://a.example/\n    url_file", "has 2 of url, url_file, url_environment. Write one"),
        ("https://hooks.acme", "https://user:s3cret@hooks", "url: is no receiver's URL. Write a URL such as"),
        ("broker?x=1", "broker#x", "acme-owners.url: is no receiver's URL"),
        ("https://hooks.acme.example", "http://hooks.acme.example", "Write https://"),
        ("url_file: slack-url", "url_file: acme-hook", "operators.url_file: is no receiver's URL"),
        ("url_file: slack-url", "url_file: nowhere", "operators.url_file: names a file that cannot be read"),
        ("url_file: slack-url", "url_environment: NOWHERE", "url_environment: names a variable that is not set"),
        ("url_file: slack-url", "url_environment: BROKER_X", "those of BROKER_* are the broker's own settings"),
        ("secret_files: [acme-hook]", "secret_files: [nowhere]", "acme-owners.secret_files[0]: names a file that"),
        ("secret_files: [acme-hook]", "secret_files: [nonsense]", "secret_files[0]: names no secret: a secret is"),
        ("secret_files: [acme-hook]", "secret_files: [slack-url]", "Make one with: openssl rand -base64 32."),
        ("[ACME_HOOK]", "[HOOK_URL]", "secret_environment[0]: names no secret"),
        ("[ACME_HOOK]", "[NOWHERE]", "secret_environment[0]: names a variable that is not set"),
        ("[ACME_HOOK]", "[acme-hook]", "Write a variable's name, such as ACME_HOOK"),
        ("[acme-hook]", "[acme-hook, acme-hook, acme-hook, acme-hook, acme-hook]", "has more than 5 secrets"),
        ("    secret_files: [acme-hook]\n    secret_environment: [ACME_HOOK]\n", "", "acme-owners: has no secret"),
        ("index: true", "index: true\n    secret_files: [acme-hook]", "operators: has secrets, and nothing in a chat"),
        ("    index: true\n", "", "alerts.yaml:10: receivers.operators: is told of nothing"),
        ("[acme]", "[Acme]", "has a name that is none here"),
        ("[new-actor,", "[newactor,", "'newactor' is no kind of alert. Write some of outside-publisher,"),
        ("longest_pause: 10m", "longest_pause: 10", "longest_pause"),
        ("index: true", "index: yes", "must be true or false"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in TWO
    with pytest.raises(SettingsError) as error:
        receivers(tmp_path, TWO.replace(old, new, 1))
    (line,) = str(error.value).splitlines()[-1:]
    assert line.startswith(f"BROKER_ALERTS: {tmp_path}/alerts.yaml")
    assert told in line
    assert "s3cret" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^BROKER_ALERTS: .*no\.yaml cannot be read"):
        read(tmp_path / "no.yaml", allow_loopback=False)


def test_the_page_s_own_example_is_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "alerts.md"
    (block,) = re.findall(r"^   ```yaml\n(.*?)^   ```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    text = textwrap.dedent(block).replace("/run/secrets/", "")
    assert [(one.name, one.kind, one.index) for one in receivers(tmp_path, text)] == [
        ("acme-owners", "standard", False),
        ("operators", "slack", True),
    ]


@pytest.mark.anyio
async def test_who_starts_the_broker_is_told_of_organizations_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alerts.yaml").write_text(
        "receivers:\n"
        "  index: {kind: slack, url: 'https://hooks.acme.example/1', index: true}\n"
        "  owners: {kind: slack, url: 'https://hooks.acme.example/2', organizations: [acmee]}\n"
    )
    warned = {}
    for organizations in ("[acmee]", "[acme]"):
        text = (tmp_path / "alerts.yaml").read_text().replace("[acmee]", organizations)
        (tmp_path / "alerts.yaml").write_text(text)
        async with Setup(folder=tmp_path, settings={"alerts": tmp_path / "alerts.yaml"}).running():
            lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        warned[organizations] = [
            (line["event"], line.get("receiver"), line["organizations"])
            for line in lines
            if "receiver" in line["event"]
        ]
    assert warned == {
        "[acmee]": [
            ("a receiver of alerts is for organizations that the policies do not have", "owners", ["acmee"]),
            ("no receiver of alerts is for organizations that the policies have", None, ["acme"]),
        ],
        "[acme]": [],
    }
