"""The registry's credential: basic or bearer, read again where it is in a file, and never in a repr."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pydantic import SecretStr

from broker import refusals
from broker.gateway.credential import LONGEST_SECRET, Credential, SecretFile


def test_a_user_and_a_password_are_basic_and_a_token_alone_is_bearer() -> None:
    basic = Credential(username="broker", secret=SecretStr("s3cret")).show()
    assert basic.header == "Basic " + base64.b64encode(b"broker:s3cret").decode()
    assert Credential(secret=SecretStr("s3cret")).show().header == "Bearer s3cret"


def test_a_credential_is_found_in_a_text_in_each_of_its_forms() -> None:
    basic = Credential(username="broker", secret=SecretStr("s3cret")).show()
    assert basic.stands_in("it was s3cret!")
    assert basic.stands_in(f"Authorization: {basic.header}")
    assert not basic.stands_in("nothing here")
    assert Credential(secret=SecretStr("s3cret")).show().stands_in("bearer s3cret")
    empty = Credential(username="", secret=SecretStr("")).show()
    assert not empty.stands_in("an empty password stands in every text, and tells nothing")


def test_neither_secret_nor_header_is_in_a_repr(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    credential = Credential(username="broker", secret=SecretFile(tmp_path / "secret"))
    for shown in (repr(credential), str(credential), repr(credential.show()), repr(credential.secret)):
        assert "s3cret" not in shown
        assert base64.b64encode(b"broker:s3cret").decode() not in shown


def test_a_file_is_read_again_for_each_use(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first\n")
    credential = Credential(secret=SecretFile(file))
    assert credential.show().header == "Bearer first"
    file.write_text("second\r\n")
    assert credential.show().header == "Bearer second"


def test_a_file_that_is_just_being_written_leaves_the_last_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("good")
    secret = SecretFile(file)
    for spoil in (
        lambda: file.write_text(""),
        lambda: file.write_bytes(b"\xff"),
        lambda: file.write_bytes(b"x" * (LONGEST_SECRET + 1)),
        file.unlink,
    ):
        spoil()
        assert secret.get_secret_value() == "good"
    file.write_text("new")
    assert secret.get_secret_value() == "new"


def test_a_file_that_cannot_be_read_at_first_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        SecretFile(tmp_path / "nowhere")


@pytest.mark.parametrize("secret", ["", "s3cret s3cret", "s3cret\ns3cret", "s3cret ", "s3cret\0", "\ufeffs3cret"])
def test_a_bearer_token_that_no_header_holds_is_shown_to_nobody(secret: str) -> None:
    with pytest.raises(refusals.RegistryCredential) as raised:
        Credential(secret=SecretStr(secret)).show()
    assert "s3cret" not in repr(raised.value)
    assert raised.value.__cause__ is None
