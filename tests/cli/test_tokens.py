"""`broker tokens` makes, lists and removes API tokens, and says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.api_tokens import ApiToken, ShownToken
from broker.cli import main
from tests.harness import Setup


def run(tmp_path: Path, *arguments: str) -> int:
    return main(["tokens", *arguments, "--state", f"sqlite:///{tmp_path / 'state.db'}"])


def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "new", "devpi at work", "--days", "30") == 0
    shown = capsys.readouterr()
    text = shown.out.strip()
    assert text.startswith("broker_")
    assert shown.err.endswith("it is not shown again.\n")
    token_id, secret = text.split("_", 2)[1:]
    assert run(tmp_path, "list") == 0
    listed = capsys.readouterr().out
    assert token_id in listed
    assert "devpi at work" in listed
    assert all(secret.encode() not in part.read_bytes() for part in tmp_path.iterdir())


def test_a_token_that_is_removed_is_listed_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "new", "devpi")
    token_id = capsys.readouterr().out.split("_")[1]
    assert run(tmp_path, "remove", token_id) == 0
    assert run(tmp_path, "list") == 0
    told = capsys.readouterr()
    assert (told.out, "broker tokens new NAME" in told.err) == ("", True)
    assert run(tmp_path, "remove", token_id) == 1
    assert "`broker tokens list` shows them" in capsys.readouterr().err


def test_one_that_is_over_is_listed_as_such_until_it_is_swept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    run(tmp_path, "new", "devpi", "--days", "1")
    monkeypatch.undo()
    capsys.readouterr()
    assert run(tmp_path, "list") == 0
    assert "(over)" in capsys.readouterr().out


@pytest.mark.parametrize("action", [("list",), ("remove", "0123456789abcdef")])
def test_to_look_where_no_state_is_makes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: tuple[str, ...]
) -> None:
    assert run(tmp_path, *action) == 1
    assert "there is no state at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "new", "a/b") == 2
    assert "a name has letters" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path, "new", "devpi", "--days", "0")
    assert "write a number from 1 to 3660" in capsys.readouterr().err


@pytest.mark.parametrize("action", [("new", "devpi"), ("list",), ("remove", "0123456789abcdef")])
def test_a_state_that_cannot_be_used_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: tuple[str, ...]
) -> None:
    (tmp_path / "state.db").mkdir()
    assert run(tmp_path, *action) == 1
    assert "Name it by --state or BROKER_STATE_URL" in capsys.readouterr().err
    assert main(["tokens", *action, "--state", "mysql://x"]) == 1
    assert "broker tokens: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "values",
    [
        ("", "registry", 1, ""),
        ("x" * 64, "registry", 1, ""),
        ("x", "owner of all", 1, ""),
        ("x", "registry", 0, ""),
        ("x", "owner", 1, ""),
        ("x", "owner", 1, "Acme Corp"),
        ("x", "operator", 1, "acme"),
        ("x", "registry", 1, "acme"),
    ],
)
def test_what_is_no_token_is_not_made(values: tuple[str, str, int, str]) -> None:
    name, role, seconds, organization = values
    with pytest.raises(ValueError, match=r"a (name|role|token) "):
        ApiToken.make(name, role, now=0, seconds=seconds, organization=organization)


def test_an_owners_token_is_for_one_organization(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "new", "exports", "--role", "owner", "--organization", "acme", "--days", "30") == 0
    assert "(owner of acme)" in capsys.readouterr().err
    assert run(tmp_path, "new", "night watch", "--role", "operator") == 0
    assert "(operator)" in capsys.readouterr().err
    assert run(tmp_path, "list") == 0
    listed = capsys.readouterr().out
    assert "  owner of acme  until " in listed
    assert "night watch\n" in listed
    assert run(tmp_path, "new", "exports", "--role", "owner") == 2
    assert "for one organization" in capsys.readouterr().err


def test_an_organization_that_the_policies_do_not_have_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = Setup(folder=tmp_path).write().policies
    for organization, note in (
        ("acmee", f"note: the policies in {policies} have no organization 'acmee'; the token was made all the same\n"),
        ("acme", "not shown again.\n"),
    ):
        more = ["--role", "owner", "--organization", organization, "--policies", str(policies)]
        assert run(tmp_path, "new", "exports", *more) == 0
        told = capsys.readouterr()
        assert told.out.startswith("broker_")
        assert told.err.endswith(note)


def test_a_token_opens_itself_alone_and_in_its_time() -> None:
    text, kept = ApiToken.make("devpi", "registry", now=1000.9, seconds=10)
    shown = ShownToken.parse(text)
    assert shown is not None
    assert kept.is_opened_by(shown)
    assert not kept.is_over(1009.9)
    assert kept.is_over(1010)
    other = ShownToken.parse(ApiToken.make("devpi", "registry", now=1000, seconds=10)[0])
    assert other is not None
    assert not kept.is_opened_by(other)
    assert not kept.is_opened_by(ShownToken(shown.id, other.secret))
    assert not kept.is_opened_by(ShownToken(other.id, shown.secret))


def test_nothing_shows_the_secret() -> None:
    text, kept = ApiToken.make("devpi", "registry", now=0, seconds=10)
    secret = text.split("_", 2)[2]
    assert secret not in repr(kept) + repr(ShownToken.parse(text))


@pytest.mark.parametrize(
    "change", [lambda t: t[1:], lambda t: t + "A", lambda t: t.upper(), lambda t: t + "\n", lambda _: ""]
)
def test_what_has_not_the_form_of_a_token_is_none(change: object) -> None:
    assert callable(change)
    assert ShownToken.parse(change(ApiToken.make("x", "registry", now=0, seconds=1)[0])) is None
