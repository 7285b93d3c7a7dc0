"""What is shown is plain text, and coloured on a terminal only."""

from __future__ import annotations

import io

import pytest

from broker.playground.page import Page, audit_line, audit_table


class Terminal(io.StringIO):
    """A stream that is one."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO) -> str:
    page = Page(stream)
    page.heading("head")
    page.refused("no-publisher", "bob")
    return stream.getvalue()


def test_a_file_gets_plain_text() -> None:
    assert shown(io.StringIO()) == "\nhead\n  no   bob: no-publisher\n"


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shown(Terminal()) == "\n\033[1mhead\033[0m\n  \033[31mno\033[0m   bob: \033[1mno-publisher\033[0m\n"


def test_a_terminal_whose_user_wants_none_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in shown(Terminal())


def test_a_record_is_a_line_with_who_what_and_why() -> None:
    record = {"at": "2026-11-20T12:00:00.000+00:00", "kind": "mint", "decision": "refused", "code": "unknown-actor"}
    head, line = audit_table([{**record, "identity": {"actor_name": "mallory"}}])
    assert head.split() == ["at", "what", "who", "of", "decision"]
    assert line.split()[1:] == ["mint", "mallory", "refused:", "unknown-actor"]


def test_an_upload_that_the_registry_did_not_take_is_not_shown_as_stored() -> None:
    record = {"at": "2026-11-20T12:00:00.000+00:00", "kind": "upload", "decision": "allowed", "registry_status": 409}
    assert audit_line(record).endswith("  allowed, and the registry answered 409")
    assert audit_line({**record, "registry_status": 200}).endswith("  allowed")
