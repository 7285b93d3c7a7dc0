"""The playground's policies load, and a member who is left out is out."""

from __future__ import annotations

from pathlib import Path

from broker.playground.ci import FakeCI
from broker.playground.policies import MEMBERS, write_policies
from broker.policy.files import load

CI = FakeCI.at("http://127.0.0.1:8123")


def test_they_load_and_trust_the_fake_ci_alone(tmp_path: Path) -> None:
    write_policies(tmp_path, CI)
    policies = load(tmp_path, allow_loopback_issuers=True)
    assert {issuer.url for issuer in policies.issuers.values()} == set(CI.urls.values())
    assert policies.organizations["acme"].publishers.keys() == {"widgets-release", "widgets-gitlab", "nightly-builds"}


def test_who_is_left_out_is_no_member(tmp_path: Path) -> None:
    write_policies(tmp_path, CI)
    write_policies(tmp_path, CI, [login for login in MEMBERS if login != "carol"])
    organization = load(tmp_path, allow_loopback_issuers=True).organizations["acme"]
    assert organization.members.keys() == {"alice", "bob", "release-bot"}
    assert ("github", "1003") not in organization.member_by_id
