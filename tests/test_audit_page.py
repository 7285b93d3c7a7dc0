"""The page of the record's format, its schema and the code that writes records tell the same fields."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_args

from broker import refusals
from broker.addresses import Source
from broker.api_tokens import ApiToken
from broker.audit import RECORD_VERSION, Attempt, Kind
from broker.minting import NOT_NARROWED, Narrowing
from tests.fakes import NOW, considered, granted, identity, organization, policies, publisher
from tests.json_schema import mistakes

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
PAGE = (REFERENCE / "audit-records.md").read_text(encoding="utf-8")
SCHEMA = json.loads((REFERENCE / "schemas" / "audit-record.schema.json").read_text(encoding="utf-8"))

SEVERAL = policies(organization(publishers=(publisher("a"), publisher("b"))))
KNOWN: dict[str, Any] = {
    "source": Source("192.0.2.1"),
    "index": "main",
    "generation": "g1",
    "issuer": "github",
    "identity": identity(),
    "considered": considered(SEVERAL, identity()),
    "publishers": ("acme/a",),
    "grant": granted(SEVERAL, identity()),
    "token_id": "jti-1",
    "expires_at": NOW,
    "upstream": "devpi",
    "scope": "read",
    "narrowing": Narrowing(project="acme-widgets", version="1.0", sha256=("ab" * 32,), uses=1),
    "repeated": True,
    "project": "acme-widgets",
    "version": "1.0",
    "filename": "acme_widgets-1.0.tar.gz",
    "sha256": "ab" * 32,
    "size_bytes": 1,
    "registry_status": 200,
    "already_stored": True,
    "confirmed": True,
    "owner": "acme",
    "revoked": "organization acme",
    "minted_until": NOW,
    "switched_off": "organization acme",
    "switched_on": "publisher acme/a",
    "by": "owner",
    "reason": "lost",
    "caller": ApiToken.make("exports", "owner", organization="acme", now=NOW, seconds=1)[1],
    "asked": "GET /api/organizations/acme/audit",
    "key": "kid-1",
    "change": "announced",
    "signs_from": "2026-11-28T02:00:00Z",
    "replica": "broker-1",
    "unrecorded": {"invalid-signature": 7},
    "before": "g0",
    "refusal": refusals.NoPublisher("no", expected="acme/a: ref"),
}
"""Something for each attribute of an attempt that can be left out."""


def written(**changes: Any) -> dict[str, Any]:
    known = {"kind": "upload", "id": "019aa1c2f3d4-8f2c61d0a9", "started_at": NOW, **KNOWN, **changes}
    told = json.loads(Attempt(**known).record().body)
    assert isinstance(told, dict)
    return told


def shared() -> dict[str, Any]:
    """The record of an attempt that concerns several organizations."""
    return written(project="", **of_several())


def excerpt() -> dict[str, Any]:
    """The record that another of them has of it."""
    known = KNOWN | {"project": ""} | of_several()
    record = Attempt(kind="mint", id="019aa1c2f3d4-8f2c61d0a9", started_at=NOW, **known).record()
    told: dict[str, Any] = json.loads(record.others[0].body)
    return told


def of_several() -> dict[str, Any]:
    several = policies(organization(), organization("zenith"))
    return {"grant": granted(several, identity()), "considered": considered(several, identity())}


def section(title: str) -> list[str]:
    """What the first column of a section's table names."""
    text = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([a-z0-9_]+)` \|", text, re.MULTILINE)


def test_there_is_a_value_for_each_attribute() -> None:
    never = {"kind", "id", "started_at", "began", "steps"}
    assert KNOWN.keys() == {one.name for one in dataclasses.fields(Attempt)} - never
    assert NOT_NARROWED.as_claims() == {}


def test_the_page_names_each_field_that_is_written_and_no_other() -> None:
    assert len(section("Fields")) == len(set(section("Fields")))
    assert set(section("Fields")) == written().keys() | shared().keys() | excerpt().keys()
    assert shared().keys() - written().keys() == {"shared_with", "nonce"}
    assert f"`version` is {RECORD_VERSION}." in PAGE


def test_the_page_names_each_kind() -> None:
    assert sorted(section("Kinds")) == sorted(get_args(Kind))


def test_the_schema_knows_each_field_and_holds_for_what_is_written() -> None:
    assert SCHEMA["properties"].keys() == written().keys() | shared().keys() | excerpt().keys()
    assert list(mistakes(shared(), SCHEMA, SCHEMA)) == list(mistakes(excerpt(), SCHEMA, SCHEMA)) == []
    for changes in ({}, {"refusal": None}, dict.fromkeys(("identity", "grant", "refusal", "caller"))):
        assert list(mistakes(written(**changes), SCHEMA, SCHEMA)) == []


def test_what_the_page_says_is_always_there_is_what_the_least_record_has() -> None:
    always = re.findall(r"^\| `([a-z_]+)` \| \w+ \| always \|", PAGE, re.MULTILINE)
    least = Attempt(kind="mint", id="019aa1c2f3d4-8f2c61d0a9", started_at=NOW).record()
    assert set(always) == json.loads(least.body).keys() == set(SCHEMA["required"])
