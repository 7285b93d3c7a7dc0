"""The claims are whole, have the providers' JSON types, and stay consistent when one of them is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broker.playground.ci import IssuerName
from broker.playground.claims import BOB, github_claims, gitlab_claims, google_claims
from broker.providers import PROVIDERS
from broker.tokens import Claims

MAKERS: dict[IssuerName, Callable[..., dict[str, Any]]] = {
    "github": github_claims,
    "gitlab": gitlab_claims,
    "google": google_claims,
}

GITHUB_NAMES = """
    actor actor_id aud base_ref check_run_id enterprise enterprise_id environment environment_node_id event_name exp
    head_ref iat iss job_workflow_ref job_workflow_sha jti nbf ref ref_protected ref_type repository repository_id
    repository_owner repository_owner_id repository_visibility run_attempt run_id run_number runner_environment sha sub
    workflow workflow_ref workflow_sha
"""
GITLAB_NAMES = """
    aud ci_config_ref_uri ci_config_sha deployment_tier environment environment_action environment_protected exp
    groups_direct iat iss job_id job_namespace_id job_namespace_path job_project_id job_project_path job_source jti
    namespace_id namespace_path nbf pipeline_id pipeline_source project_id project_path project_visibility ref ref_path
    ref_protected ref_type runner_environment runner_id sha sub user_access_level user_email user_id user_identities
    user_login
"""
DOCUMENTED: dict[IssuerName, set[str]] = {
    "github": set(GITHUB_NAMES.split()),
    "gitlab": set(GITLAB_NAMES.split()),
    "google": {"aud", "azp", "email", "email_verified", "exp", "iat", "iss", "sub"},
}
"""From the providers' pages, which the module's docstring names."""

NOT_TEXT: dict[IssuerName, dict[str, type]] = {
    "github": {"iat": int, "nbf": int, "exp": int},
    "gitlab": {"iat": int, "nbf": int, "exp": int, "runner_id": int, "groups_direct": list, "user_identities": list},
    "google": {"iat": int, "exp": int, "email_verified": bool},
}


@pytest.mark.parametrize("issuer", MAKERS)
def test_claims_are_those_that_the_provider_documents(issuer: IssuerName) -> None:
    assert set(MAKERS[issuer]()) == DOCUMENTED[issuer]


@pytest.mark.parametrize("issuer", MAKERS)
def test_every_claim_has_the_json_type_that_the_provider_sends(issuer: IssuerName) -> None:
    types = {name: type(value) for name, value in MAKERS[issuer]().items()}
    assert types == {**dict.fromkeys(types, str), **NOT_TEXT[issuer]}


@pytest.mark.parametrize("issuer", MAKERS)
def test_the_provider_reads_an_identity_from_them(issuer: IssuerName) -> None:
    provider = PROVIDERS[issuer]
    claims = Claims(values=MAKERS[issuer](), issued_at=0, expires_at=0, fingerprint="")
    identity = provider.read(claims, issuer, provider.issuer or "")
    assert identity.issuer == issuer
    assert identity.actor_id == {"github": "1001", "gitlab": "77", "google": "112233445566778899"}[issuer]


@pytest.mark.parametrize("issuer", MAKERS)
def test_a_claim_given_as_ellipsis_is_left_out_and_nothing_else(issuer: IssuerName) -> None:
    whole = MAKERS[issuer](iat=1_800_000_000, jti="1")
    for name in whole.keys() - {"iat", "jti", "environment"}:
        assert MAKERS[issuer](iat=1_800_000_000, jti="1", **{name: ...}).keys() == whole.keys() - {name}


def test_a_changed_repository_ref_and_file_are_in_all_that_follows_from_them() -> None:
    claims = github_claims(repository="acme-corp/gadgets", ref="refs/heads/main", workflow_file="ship.yml")
    assert claims["repository_owner"] == "acme-corp"
    assert claims["ref_type"] == "branch"
    assert claims["workflow_ref"] == "acme-corp/gadgets/.github/workflows/ship.yml@refs/heads/main"
    assert claims["job_workflow_ref"] == claims["workflow_ref"]
    assert claims["sub"] == "repo:acme-corp@65600975/gadgets@424242424:environment:pypi"


def test_without_an_environment_the_subject_names_the_ref() -> None:
    claims = github_claims(environment=...)
    assert claims["sub"].endswith(":ref:refs/tags/v1.0.0")
    assert "environment_node_id" not in claims


def test_what_is_given_itself_does_not_follow() -> None:
    claims = github_claims(repository="acme-corp/gadgets", sub="own", exp=5)
    assert (claims["sub"], claims["exp"]) == ("own", 5)


def test_where_a_bare_commit_is_deployed_references_end_in_the_commit() -> None:
    claims = github_claims(ref="")
    assert claims["workflow_ref"].endswith(f"/release.yml@{claims['sha']}")


def test_a_changed_gitlab_project_and_branch_are_in_all_that_follows_from_them() -> None:
    claims = gitlab_claims(project_path="acme/gadgets", ref="main", ref_type="branch")
    assert claims["namespace_path"] == claims["job_namespace_path"] == "acme"
    assert claims["ref_path"] == "refs/heads/main"
    assert claims["ci_config_ref_uri"] == "gitlab.com/acme/gadgets//.gitlab-ci.yml@refs/heads/main"
    assert claims["sub"] == "project_path:acme/gadgets:ref_type:branch:ref:main"


def test_times_follow_the_moment_of_issue() -> None:
    claims = github_claims(iat=1000)
    assert (claims["nbf"], claims["exp"]) == (400, 1300)
    assert github_claims(iat=True)["exp"] > 1_000_000, "true is no moment"


def test_a_claim_of_another_type_has_no_followers() -> None:
    claims = github_claims(repository=["acme-corp/widgets"])
    assert claims["repository"] == ["acme-corp/widgets"]
    assert claims["workflow_ref"].startswith("acme-corp/widgets/")


def test_every_token_has_a_name_of_its_own() -> None:
    assert github_claims()["jti"] != github_claims()["jti"]


def test_a_person_is_another_number_with_each_provider() -> None:
    assert github_claims(**BOB.on_github)["actor_id"] == "1002"
    assert gitlab_claims(**BOB.on_gitlab)["user_id"] == "78"
