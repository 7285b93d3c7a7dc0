"""The file of several registries: each mistake at its line, and what a right one means."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from pydantic import ValidationError

from broker import registries, settings
from broker.registries import RegistrySettings
from broker.settings import Settings, SettingsError
from tests.environment import environment
from tests.harness import Setup

TWO = """\
registries:
  main:
    path: /legacy/
    audience: acme-index
    url: http://127.0.0.1:8080/
    username: broker
    password_file: main-password
  team-a:
    path: /team-a/legacy/
    audience: acme-team-a
    url: https://devpi.internal/team-a/prod/
    bearer_file: team-token
    timeout: 30s
    upload_limit_bytes: 1000000
    release_days: 14
    drop_fields: [attestations]
    pass_user_agent: true
    organizations: [team-a]
"""


def read(folder: Path, text: str, **variables: str) -> tuple[RegistrySettings, ...]:
    """The registries of a file with this text, beside whose secrets stand."""
    (folder / "main-password").write_text("s3cret\n")
    (folder / "team-token").write_text("t0ken\n")
    (folder / "registries.yaml").write_text(text)
    needed = {"BROKER_PUBLIC_URL": "https://upload.acme.example", "BROKER_SIGNING_KEYS": "keys"}
    with environment(**needed, BROKER_REGISTRIES=str(folder / "registries.yaml"), **variables):
        return registries.of(settings.load())


def test_each_registry_is_what_its_entry_says(tmp_path: Path) -> None:
    main, team = read(tmp_path, TWO)
    assert (main.name, main.upload_url, main.base) == ("main", "https://upload.acme.example/legacy/", "/_")
    assert (main.index_url, main.timeout_seconds) == ("http://127.0.0.1:8080/simple/", 120)
    assert (main.upload_limit_bytes, main.release_days, main.organizations) == (1024**3, None, None)
    assert (main.credential.username, main.credential.secret.get_secret_value()) == ("broker", "s3cret")
    assert (main.drop, main.pass_user_agent) == (frozenset(), False)
    assert (team.audience, team.url) == ("acme-team-a", "https://devpi.internal/team-a/prod/")
    assert (team.upload_url, team.base) == (
        "https://upload.acme.example/team-a/legacy/",
        "/_/registries/team-a",
    )
    assert team.credential.show().header == "Bearer t0ken"
    assert (team.timeout_seconds, team.upload_limit_bytes, team.release_days) == (30, 1_000_000, 14)
    assert (team.drop, team.pass_user_agent) == (frozenset({"attestations"}), True)
    assert team.organizations == frozenset({"team-a"})


def test_the_first_of_each_host_is_its_default(tmp_path: Path) -> None:
    text = TWO.replace("    bearer_file", "    public_url: https://team-a.acme.example\n    bearer_file") + (
        "  more: {path: /more/, audience: more, url: 'http://127.0.0.1:1/', public_url: 'https://team-a.acme.example'}\n"
    )
    assert [(one.name, one.public_url, one.base) for one in read(tmp_path, text)] == [
        ("main", "https://upload.acme.example", "/_"),
        ("team-a", "https://team-a.acme.example", "/_"),
        ("more", "https://team-a.acme.example", "/_/registries/more"),
    ]


def test_a_registry_without_a_credential_is_sent_an_empty_one(tmp_path: Path) -> None:
    (main,) = read(tmp_path, "registries: {main: {path: /legacy/, audience: a, url: 'http://127.0.0.1:1/'}}")
    assert (main.credential.username, main.credential.secret.get_secret_value()) == ("", "")


def test_a_secret_that_comes_after_its_file_is_used(tmp_path: Path) -> None:
    (tmp_path / "later").touch()
    _, team = read(tmp_path, TWO.replace("team-token", "later"))
    (tmp_path / "later").write_text("t0ken\n")
    assert team.credential.show().header == "Bearer t0ken"


def test_the_page_s_own_example_is_read(tmp_path: Path) -> None:
    page = Path(__file__).parent.parent / "docs" / "how-to" / "several-registries.md"
    (block,) = re.findall(r"^   ```yaml\n(.*?)^   ```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (tmp_path / "team-a-token").write_text("t")
    (tmp_path / "vendor").write_text("v")
    text = textwrap.dedent(block).replace("/run/secrets/vendor", "vendor")
    found = read(tmp_path, text)
    assert [(one.name, one.is_default, one.reads) for one in found] == [
        ("main", True, "scoped"),
        ("team-a", False, "off"),
        ("vendor", True, "off"),
    ]


def test_reads_are_beside_a_legacy_path_or_below_another(tmp_path: Path) -> None:
    main, team = read(tmp_path, TWO.replace("/legacy/", "/", 1))
    assert (main.simple_path, main.files_path) == ("/simple/", "/files/")
    assert (team.simple_path, team.files_path, team.fallback_index) == ("/team-a/simple/", "/team-a/files/", None)
    text = TWO.replace(
        "path: /team-a/legacy/", "path: /up/\n    reads: public\n    fallback_index: https://pypi.example/simple"
    )
    _, other = read(tmp_path, text)
    assert (other.simple_path, other.reads, other.fallback_index) == (
        "/up/simple/",
        "public",
        "https://pypi.example/simple/",
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("registries:", "registries: {}\nregistry:", "registry: is no field here. Did you mean 'registries'?"),
        (TWO, "registries: {}\n", "registries.yaml:1: registries: must not be empty"),
        (TWO, "registries: [\n", "is not YAML"),
        ("path: /legacy/", "path: legacy", "registries.yaml:3: registries.main.path: has not the right form"),
        ("path: /legacy/", "path: /_/x/", "Write a path such as /legacy/"),
        ("    path: /legacy/\n", "", "registries.yaml:2: registries.main.path: is missing. Add it."),
        ("audience: acme-index", "audience: 1acme", "begin with a letter"),
        ("url: http://127.0.0.1:8080/", "url: ftp://x/", "Write a URL such as"),
        ("timeout: 30s", "timeout: 30", "write a whole number of seconds".replace("write", "Write")),
        ("upload_limit_bytes: 1000000", "upload_limit_bytes: 0", "Write a whole number, 1 or more"),
        ("upload_limit_bytes: 1000000", "upload_limit_bytes: true", "Write a whole number, 1 or more"),
        ("release_days: 14", "release_days: 999", "has more `release_days` than BROKER_AUDIT_DAYS"),
        ("[attestations]", "[name]", "registries.team-a.drop_fields: 'name' cannot be dropped"),
        ("[attestations]", "[sha256_digest]", "'sha256_digest' cannot be dropped"),
        ("[attestations]", "[attestation]", "'attestation' cannot be dropped"),
        ("pass_user_agent: true", "pass_user_agent: yes", "must be true or false"),
        ("    timeout: 30s", "    forward_auth: nginx", "registries.team-a.forward_auth: decides by tokens for reads"),
        ("organizations: [team-a]", "organizations: []", "organizations: must not be empty"),
        ("username: broker\n", "user: broker\n", "Did you mean 'username'?"),
        ("    username: broker\n", "", "has one of `username` and `password_file`. Write both, or none."),
        ("bearer_file", "username: x\n    bearer_file", "has a bearer token, and a user or a password"),
        ("bearer_file: team-token", "bearer_file: nowhere", "bearer_file: names a file that cannot be read"),
        ("bearer_file: team-token", "bearer_file: registries.d", "bearer_file: names a file that cannot be read"),
        ("pass_user_agent: true", "upload_tokens: devpi", "has one of `upload_tokens: devpi` and `devpi_token_file`"),
        ("pass_user_agent: true", "devpi_token_file: team-token", "has one of `upload_tokens: devpi`"),
        ("pass_user_agent: true", "fallback_index: https://p.example/", "is for those who read here, and nobody does"),
        ("acme-team-a", "acme-index", "registries.yaml:8: registries.team-a: has the audience of 'main'"),
        ("/team-a/legacy/", "/legacy/", "registries.team-a: has the path of 'main'"),
        ("/team-a/legacy/", "/simple/x/", "registries.team-a: serves '/simple/x/' as 'main' does"),
        ("path: /legacy/", "path: /team-a/simple/a/", "registries.team-a: serves '/team-a/simple/a/' as 'main' does"),
        (
            "bearer_file",
            "public_url: https://upload.acme.example:8443\n    bearer_file",
            "registries.team-a: has the host of 'main' with another scheme or port",
        ),
        ("bearer_file", "public_url: https://a.example/x\n    bearer_file", "no path here"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in TWO
    text = TWO if "serves" not in told else TWO.replace("    audience:", "    reads: scoped\n    audience:")
    (tmp_path / "registries.d").mkdir()
    with pytest.raises(SettingsError) as error:
        read(tmp_path, text.replace(old, new, 1))
    line = str(error.value).splitlines()[-1]
    assert line.startswith(f"BROKER_REGISTRIES: {tmp_path}/registries.yaml")
    assert told in line
    assert not {"s3cret", "t0ken"} & set(line.split())


def test_there_is_space_for_the_largest_upload_of_all(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="main: takes larger uploads than BROKER_SPOOL_LIMIT_BYTES"):
        read(tmp_path, TWO, BROKER_SPOOL_LIMIT_BYTES="1000000")
    with environment(BROKER_PUBLIC_URL="https://a.example", BROKER_SIGNING_KEYS="k", BROKER_REGISTRIES="unread"):
        assert registries.spool_bytes(settings.load(), read(tmp_path, TWO)) == 16 << 30


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        read(tmp_path, TWO.replace("/legacy/", "legacy").replace("14", "'14'"))
    assert len(str(error.value).splitlines()) == 3


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    needed = {"BROKER_PUBLIC_URL": "https://upload.acme.example", "BROKER_SIGNING_KEYS": "keys"}
    with environment(**needed, BROKER_REGISTRIES=str(tmp_path / "no.yaml")):
        chosen = settings.load()
    with pytest.raises(SettingsError, match=r"^BROKER_REGISTRIES: .*no\.yaml cannot be read"):
        registries.of(chosen)


def test_settings_of_one_registry_do_not_stand_beside_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        read(tmp_path, TWO, BROKER_RELEASE_DAYS="3", BROKER_REGISTRY_PASSWORD="x")
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == [
        "BROKER_RELEASE_DAYS",
        "BROKER_REGISTRY_PASSWORD",
    ]


def test_settings_that_were_made_by_hand_are_asked_too(tmp_path: Path) -> None:
    made = Setup(folder=tmp_path).write()
    for name in ("audience", "registry_url"):
        with pytest.raises(ValidationError, match="is not set"):
            Settings(**{**made.model_dump(), name: None})


def test_a_bearer_token_stands_in_for_user_and_password(tmp_path: Path) -> None:
    (one,) = registries.of(Setup(folder=tmp_path, settings={"registry_bearer_token": "t"}).write())
    assert one.credential.show().header == "Bearer t"
