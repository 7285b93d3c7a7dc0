"""The fake CI signs as the real ones do, with and without a network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
import uvicorn

from broker import refusals, tokens
from broker.playground.ci import FakeCI, IssuerName, token_variable
from broker.playground.ci_server import serving_ci
from broker.playground.claims import GITHUB_URL, MALLORY

ISSUERS: tuple[IssuerName, ...] = ("github", "gitlab", "google")


@pytest.fixture(scope="module", name="ci")
def _ci() -> Iterator[FakeCI]:
    with serving_ci() as ci:
        yield ci


def fetch(client: httpx.Client, url: str) -> dict[str, Any]:
    answer = client.get(url)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert isinstance(document, dict)
    return document


def key_of(client: httpx.Client, issuer_url: str) -> jwt.PyJWK:
    """The issuer's only key, found as the broker finds it."""
    discovery = fetch(client, f"{issuer_url}/.well-known/openid-configuration")
    assert discovery["issuer"] == issuer_url
    [key] = fetch(client, discovery["jwks_uri"])["keys"]
    return jwt.PyJWK(key)


def verified(token: str, key: jwt.PyJWK, issuer_url: str) -> tokens.Claims:
    return tokens.verify(
        tokens.peek(token),
        key,
        issuer=issuer_url,
        audience="acme-index",
        algorithms=("RS256",),
        longest_seconds=3600,
        now=time.time(),
    )


@pytest.mark.parametrize("issuer", ISSUERS)
def test_a_token_verifies_with_the_key_that_its_issuer_publishes(ci: FakeCI, issuer: IssuerName) -> None:
    with httpx.Client(trust_env=False) as client:
        key = key_of(client, ci.urls[issuer])
    claims = verified(ci.token(issuer), key, ci.urls[issuer])
    assert claims.values["iss"] == ci.urls[issuer]


@pytest.mark.parametrize("issuer", ISSUERS)
def test_without_a_network_the_public_issuers_answer_the_same(issuer: IssuerName) -> None:
    ci = FakeCI()
    with httpx.Client(transport=ci.transport()) as client:
        key = key_of(client, ci.urls[issuer])
        assert client.get(f"{ci.urls[issuer]}/elsewhere").status_code == 404
        assert client.post(f"{ci.urls[issuer]}/.well-known/openid-configuration").status_code == 404
    assert verified(ci.token(issuer), key, ci.urls[issuer]).text("iss") == ci.urls[issuer]


def test_no_issuer_signs_for_another() -> None:
    ci = FakeCI()
    with httpx.Client(transport=ci.transport()) as client:
        key = key_of(client, GITHUB_URL)
    with pytest.raises(refusals.InvalidSignature):
        verified(ci.sign(ci.claims("github"), issuer="gitlab"), key, GITHUB_URL)


def test_the_header_says_what_a_test_wants_it_to() -> None:
    ci = FakeCI()
    header = jwt.get_unverified_header(ci.sign({}, typ=..., alg="none", x5t="x"))
    assert header == {"alg": "none", "kid": ci.key_id("github"), "x5t": "x"}


# --- A run's token request -------------------------------------------------------------------------------------------


def ask(environment: dict[str, str], audience: str = "acme-index") -> httpx.Response:
    return httpx.get(
        f"{environment['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience={audience}",
        headers={"Authorization": f"bearer {environment['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"},
        trust_env=False,
    )


def payload(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def test_a_run_gets_a_token_of_its_own_claims_for_the_audience_it_asks_for(ci: FakeCI) -> None:
    run = ci.start_run(**MALLORY.on_github, workflow_file="tests.yml")
    answer = ask(dict(run.environment), "somewhere").json()
    claims = payload(answer["value"])
    assert answer["count"] == len(answer["value"])
    assert (claims["iss"], claims["aud"], claims["actor"]) == (ci.urls["github"], "somewhere", "mallory")
    assert claims["workflow_ref"].endswith("/tests.yml@refs/tags/v1.0.0")


def test_every_request_of_a_run_gets_a_fresh_token(ci: FakeCI) -> None:
    environment = dict(ci.start_run().environment)
    first, second = (payload(ask(environment).json()["value"]) for _ in range(2))
    assert first["jti"] != second["jti"]
    assert first["run_id"] == second["run_id"]


@pytest.mark.parametrize("authorization", ["bearer wrong", "basic wrong", ""])
def test_without_a_run_s_request_token_there_is_no_identity_token(ci: FakeCI, authorization: str) -> None:
    url = ci.start_run().environment["ACTIONS_ID_TOKEN_REQUEST_URL"]
    answer = httpx.get(url, headers={"Authorization": authorization}, trust_env=False)
    assert answer.status_code == 401
    assert "value" not in answer.json()


def test_a_run_s_request_token_is_not_shown() -> None:
    run = FakeCI().start_run()
    assert run.environment["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] not in repr(run)


def test_a_gitlab_job_has_one_token_in_the_variable_of_its_audience() -> None:
    environment = FakeCI().start_job("https://acme.example/index")
    assert environment.keys() == {"CI", "GITLAB_CI", "HTTPS___ACME_EXAMPLE_INDEX_ID_TOKEN"}
    assert payload(environment["HTTPS___ACME_EXAMPLE_INDEX_ID_TOKEN"])["aud"] == "https://acme.example/index"


def test_the_variable_of_the_playground_s_audience() -> None:
    assert token_variable("acme-index") == "ACME_INDEX_ID_TOKEN"


def test_a_server_that_does_not_start_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="did not start"), serving_ci():
        pytest.fail("it is not serving")


def test_the_server_ends_with_its_context() -> None:
    with serving_ci() as ci:
        url = f"{ci.urls['github']}/.well-known/openid-configuration"
        assert json.loads(httpx.get(url, trust_env=False).content)["issuer"] == ci.urls["github"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)
