"""A wrong setting: nothing starts, and one screen says what, where, and how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker import registries, settings
from broker.settings import Settings, SettingsError
from tests.environment import environment

VALID = {
    "BROKER_PUBLIC_URL": "https://upload.acme.example",
    "BROKER_AUDIENCE": "acme-index",
    "BROKER_SIGNING_KEYS": "keys",
    "BROKER_REGISTRY_URL": "http://127.0.0.1:8080/",
}


def test_the_four_needed_settings_are_enough() -> None:
    with environment(**VALID):
        chosen = settings.load()
    (registry,) = registries.of(chosen)
    assert registry.upload_url == "https://upload.acme.example/legacy/"
    assert chosen.state_address() == "sqlite:///state.db"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("BROKER_AUDIENCE", None, "is not set"),
        ("BROKER_AUDIENCE", "1index", "begin with a letter"),
        ("BROKER_AUDIENCE", "", "begin with a letter"),
        ("BROKER_PUBLIC_URL", "upload.acme.example", "https://upload.acme.example"),
        ("BROKER_PUBLIC_URL", "https://upload.acme.example/pypi", "no path here"),
        ("BROKER_PUBLIC_URL", "https://user:pw@upload.acme.example", "without user"),
        ("BROKER_REGISTRY_URL", "ftp://registry", "https://"),
        ("BROKER_PUBLIC_URL", "https://upload.acme.example\n", "white space"),
        ("BROKER_PUBLIC_URL", 'https://upload."acme', "https://upload.acme.example"),
        ("BROKER_REGISTRY_URL", "http://reg istry/", "white space"),
        ("BROKER_REGISTRY_URL", "https://:hunter2@registry/", "without user"),
        ("BROKER_REGISTRY_URL", "http://[", "IPv6"),
        ("BROKER_REGISTRY_URL", "http://registry:99999/", "ort"),
        ("BROKER_REGISTRY_INDEX_URL", "registry/simple", "https://"),
        ("BROKER_RELEASE_DAYS", "0", "greater"),
        ("BROKER_RELEASE_DAYS", "401", "at most BROKER_AUDIT_DAYS"),
        ("BROKER_UPLOAD_PATH", "legacy", "a slash at both ends"),
        ("BROKER_UPLOAD_PATH", "/_/oidc/", "a slash at both ends"),
        ("BROKER_PORT", "http", "integer"),
        ("BROKER_WORKERS", "0", "greater"),
        ("BROKER_TLS_KEY", "key.pem", "set both, or none"),
        ("BROKER_FALLBACK_INDEX_URL", "https://pypi.org/simple/", "set BROKER_READS too"),
        ("BROKER_REGISTRY_URL", None, "is not set"),
        ("BROKER_REGISTRIES", "registries.yaml", "whose file says it for each registry"),
        ("BROKER_DEVPI_TOKEN", "devpi-AgEA", "BROKER_UPLOAD_TOKENS=devpi"),
        ("BROKER_UPLOAD_TOKENS", "macaroons", "'own' or 'devpi'"),
        ("BROKER_FORWARD_AUTH", "nginx", "set BROKER_READS=scoped too"),
        ("BROKER_FORWARD_AUTH", "apache", "'off', 'nginx', 'traefik', 'envoy' or 'caddy'"),
        ("BROKER_SPOOL", "/nowhere/at/all", "is no folder"),
        ("BROKER_SIGNING_KEYS_PEM", "a key", "set one of them"),
        ("BROKER_SPOOL_LIMIT_BYTES", str(1024**3 - 1), "at least BROKER_UPLOAD_LIMIT_BYTES"),
        ("BROKER_UPLOADS_AT_ONCE", "0", "greater"),
        ("BROKER_TRUSTED_PROXIES", "proxy.acme.example", "no address"),
        ("BROKER_TRUSTED_PROXIES", "0.0.0.0/0", "everybody cannot be trusted"),
        ("BROKER_CONNECTIONS", "9", "greater"),
        ("BROKER_UPLOAD_BYTES_PER_SECOND", "0", "greater"),
        ("BROKER_AUDIENC", "x", "Did you mean BROKER_AUDIENCE?"),
        ("BROKER_SOMETHING_ELSE_ENTIRELY", "x", "there is no such setting"),
        ("BROKER_REGISTRY_PASSWORD_FILE", "/nowhere/at/all", "cannot be read"),
        ("BROKER_ENV_FILE", "/nowhere/at/all", "does not exist"),
    ],
)
def test_a_wrong_setting_is_named_and_explained(name: str, value: str | None, words: str) -> None:
    values = {**VALID, name: value}
    with (
        environment(**{key: text for key, text in values.items() if text is not None}),
        pytest.raises(SettingsError) as told,
    ):
        settings.load()
    assert words in str(told.value)
    assert name in str(told.value) or name == "BROKER_ENV_FILE"
    assert len(str(told.value).splitlines()) < 20


@pytest.mark.parametrize(
    ("registry", "index", "expected"),
    [
        ("http://registry:8080/", None, "http://registry:8080/simple/"),
        ("http://registry:8080", None, "http://registry:8080/simple/"),
        (
            "https://gitlab.example/api/v4/projects/1/packages/pypi",
            None,
            "https://gitlab.example/api/v4/projects/1/packages/pypi/simple/",
        ),
        ("https://index.example/legacy/", None, "https://index.example/simple/"),
        ("https://index.example/legacy", None, "https://index.example/simple/"),
        ("https://devpi.example/u/i/", "https://devpi.example/u/i/+simple", "https://devpi.example/u/i/+simple/"),
    ],
)
def test_the_index_is_beside_the_upload_url_unless_it_is_told(registry: str, index: str | None, expected: str) -> None:
    told = {} if index is None else {"BROKER_REGISTRY_INDEX_URL": index}
    with environment(**VALID | {"BROKER_REGISTRY_URL": registry} | told):
        assert registries.of(settings.load())[0].index_url == expected


@pytest.mark.parametrize(("told", "space"), [({}, 16 << 30), ({"BROKER_SPOOL_LIMIT_BYTES": str(1 << 30)}, 1 << 30)])
def test_there_is_space_for_sixteen_of_the_largest_uploads_unless_it_is_told(told: dict[str, str], space: int) -> None:
    def spool_bytes(**variables: str) -> int:
        with environment(**VALID | variables):
            chosen = settings.load()
        return registries.spool_bytes(chosen, registries.of(chosen))

    assert spool_bytes(**told) == space
    assert spool_bytes(BROKER_UPLOAD_LIMIT_BYTES="2048") == 16 * 2048


def test_every_mistake_is_told_at_once() -> None:
    with environment(BROKER_PORT="x", BROKER_WORKERS="-1"), pytest.raises(SettingsError) as told:
        settings.load()
    assert len(str(told.value).splitlines()) == 6


def test_a_secret_can_come_from_a_file_and_not_from_two_places(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    with environment(**VALID, BROKER_REGISTRY_PASSWORD_FILE=str(file)):
        assert settings.load().registry_password.get_secret_value() == "s3cret"
    both = {"BROKER_REGISTRY_PASSWORD_FILE": str(file), "BROKER_REGISTRY_PASSWORD": "x"}
    with environment(**VALID, **both), pytest.raises(SettingsError, match="set one of them"):
        settings.load()
    bearer = {"BROKER_REGISTRY_BEARER_TOKEN": "t", "BROKER_REGISTRY_USERNAME": "broker"}
    with environment(**VALID, **bearer), pytest.raises(SettingsError, match="BEARER_TOKEN: is set, and so is a user"):
        settings.load()
    for content, words in ((b"\xff", "UTF-8"), (b"x" * 70_000, "more than 65536 bytes")):
        file.write_bytes(content)
        with environment(**VALID, BROKER_REGISTRY_PASSWORD_FILE=str(file)), pytest.raises(SettingsError, match=words):
            settings.load()


def test_an_env_file_fills_in_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("BROKER_PORT=1234\nBROKER_AUDIENCE=from-file\n")
    with environment(**VALID, BROKER_ENV_FILE=str(file)):
        chosen = settings.load()
    assert (chosen.port, chosen.audience) == (1234, "acme-index")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"BROKER_PROT=1234\n", "BROKER_PROT: there is no such setting. Did you mean BROKER_PORT?"),
        (b"PATH=/bin\n", "PATH: there is no such setting"),
        (b"BROKER_PORT=http\n", "BROKER_PORT: input should be a valid integer"),
        (b"\xff", "not UTF-8"),
        (b"BROKER_REGISTRY_PASSWORD=x\nBROKER_REGISTRY_PASSWORD_FILE=y\n", "set one of them"),
        (b"BROKER_REGISTRY_PASSWORD_FILE=\n", "cannot be read"),
    ],
)
def test_a_mistake_in_the_env_file_is_named_as_one_in_the_environment_is(
    tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "env"
    file.write_bytes(content)
    with environment(**VALID, BROKER_ENV_FILE=str(file)), pytest.raises(SettingsError) as told:
        settings.load()
    assert words in str(told.value)


def test_the_env_file_may_name_the_files_of_secrets_and_the_environment_wins(tmp_path: Path) -> None:
    file, secret = tmp_path / "env", tmp_path / "password"
    file.write_text(f"BROKER_REGISTRY_PASSWORD_FILE={secret}\n")
    secret.write_text("s3cret\n")
    with environment(**VALID, BROKER_ENV_FILE=str(file)):
        assert settings.load().registry_password.get_secret_value() == "s3cret"
    with environment(**VALID, BROKER_ENV_FILE=str(file), BROKER_REGISTRY_PASSWORD="other"):
        assert settings.load().registry_password.get_secret_value() == "other"


def test_no_secret_is_in_a_message_or_a_repr(tmp_path: Path) -> None:
    secret = "hunter2-hunter2"
    with environment(**VALID, BROKER_REGISTRY_PASSWORD=secret, BROKER_STATE_URL=f"redis://:{secret}@127.0.0.1"):
        assert secret not in repr(settings.load())
        assert secret not in str(settings.load())
    # An unencoded slash makes of the password's beginning a port, which the standard library quotes.
    with (
        environment(**VALID | {"BROKER_REGISTRY_URL": f"https://broker:{secret}/{secret}@registry/"}),
        pytest.raises(SettingsError) as told,
    ):
        settings.load()
    assert secret not in str(told.value)
    with environment(BROKER_REGISTRY_PASSWORD=secret), pytest.raises(SettingsError) as told:
        settings.load()
    assert secret not in str(told.value)
    del tmp_path


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
