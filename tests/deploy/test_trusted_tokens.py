"""Upload tokens, verified by a registry itself: the broker's own pass, and nothing that looks like them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker import refusals
from broker.minting import Narrowing
from broker.patterns import Projects
from broker.patterns import normalise as broker_normalise
from broker.signing import SigningKey, SigningKeys, key_set
from tests.deploy.key_server import KeyServer, serving_keys
from tests.test_minting import INDEX, ISSUER, KEY, STRANGER, forged, minted, minter, new_key, parts
from trusted_tokens import (
    CLAIMS,
    NARROWING,
    Introspection,
    Keys,
    Refused,
    TrustedTokens,
    UploadToken,
    covers,
    normalise,
)

FILES = Path(__file__).parent.parent.parent / "deploy" / "verify"


class Clock:
    """Moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="server")
def _server() -> Iterator[KeyServer]:
    with serving_keys() as server:
        yield server


def trusted(server: KeyServer, **changes: Any) -> TrustedTokens:
    told: dict[str, Any] = {"issuer": ISSUER, "audience": INDEX, "keys": Keys(server.url), **changes}
    return TrustedTokens(**told)


def fresh(**changes: Any) -> str:
    """An upload token of this moment, as the broker mints it."""
    by = changes.pop("by", None)
    return minted(by or minter(KEY), now=changes.pop("now", time.time()), **changes).text


def altered(key: SigningKey = KEY, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """One with other claims, under a good signature; `...` leaves a claim out."""
    good, claims = parts(fresh())
    told = {name: value for name, value in {**claims, **changes}.items() if value is not ...}
    return forged({**good, "kid": key.id, **(header or {})}, told, key)


def code_of(ask: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        ask()
    return refused.value.code


def test_nothing_but_pyjwt_is_needed() -> None:
    look = (
        "import sys; before = set(sys.modules); import trusted_asgi, trusted_wsgi; "
        "names = {name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names; "
        "print(sorted(name for name in names if not name.startswith(('trusted_', '_'))))"
    )
    told = subprocess.run([sys.executable, "-c", look], cwd=FILES, capture_output=True, text=True, check=True)
    assert set(json.loads(told.stdout.replace("'", '"'))) <= {"jwt", "cryptography", "cffi"}


# --- What passes -----------------------------------------------------------------------------------------------------


def test_a_token_of_the_broker_passes_and_says_its_projects(server: KeyServer) -> None:
    text = fresh()
    token = trusted(server).verify(text)
    assert token.projects == set(parts(text)[1]["projects"])
    assert (token.id, token.subject) == (parts(text)[1]["jti"], "acme/widgets-release")
    assert (token.version, token.sha256) == ("", frozenset())
    assert text not in repr(token)


def test_a_narrowed_token_says_to_what(server: KeyServer) -> None:
    narrowing = Narrowing(project="acme-widgets", version="1.0", sha256=("0" * 64,))
    token = trusted(server).verify(fresh(narrowing=narrowing))
    assert (token.projects, token.version, token.sha256) == (frozenset({"acme-widgets"}), "1.0", frozenset({"0" * 64}))


def test_the_claims_it_knows_are_those_that_the_broker_writes() -> None:
    """A claim that is added to upload tokens must be understood here, or they are refused."""
    everything = Narrowing(project="acme-widgets", version="1.0", sha256=("0" * 64,), uses=1)
    assert parts(fresh(narrowing=everything))[1].keys() == CLAIMS | NARROWING | {"uses"}


def test_all_keys_of_the_broker_verify_and_the_keys_are_fetched_once(server: KeyServer) -> None:
    old = new_key()
    server.body = json.dumps(key_set(SigningKeys(keys=(old, KEY)), time.time())).encode()
    tokens = trusted(server)
    for _ in range(20):
        tokens.verify(fresh())
        tokens.verify(fresh(by=minter(old)))
    assert server.asked == 1


def test_clocks_that_differ_a_little_delay_no_upload(server: KeyServer) -> None:
    trusted(server).verify(fresh(now=time.time() + 20))
    assert code_of(lambda: trusted(server).verify(fresh(now=time.time() + 60))) == "invalid-upload-token"


@pytest.mark.parametrize("projects", ["acme-widgets", "acme-*", "acme-tools-*", "a"])
def test_names_and_prefixes_mean_what_they_mean_to_the_broker(projects: str) -> None:
    for name in ("acme", "acme-", "acme-widgets", "acme-widgets-x", "acme-tools", "acme-tools-x", "acmewidgets", "a"):
        assert covers(frozenset({projects}), name) == Projects.parse(projects).covers(name), name
    for name in ("Acme._-Widgets", "a", "0"):
        assert normalise(name) == broker_normalise(name)
    for name in ("", "-a", "a.", "a b", "ä", "a\n", "acme-*"):
        assert code_of(lambda name=name: normalise(name)) == "project-not-granted"  # type: ignore[misc]


# --- What does not ---------------------------------------------------------------------------------------------------


def with_public_key_as_secret() -> str:
    """HS256 with the one secret that everybody knows; PyJWT itself does not sign that."""
    header, claims = parts(fresh())
    known = KEY.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    told = ({**header, "alg": "HS256"}, claims)
    signed = ".".join(base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in told)
    mac = base64.urlsafe_b64encode(hmac.digest(known, signed.encode(), hashlib.sha256)).rstrip(b"=").decode()
    return f"pypi-{signed}.{mac}"


def unsigned() -> str:
    good, claims = parts(fresh())
    return "pypi-" + jwt.encode(claims, "", "none", {**good, "alg": "none"})


def with_rsa() -> str:
    good, claims = parts(fresh())
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return "pypi-" + jwt.encode(claims, key, "RS256", {**good, "alg": "RS256"})


NO_TOKENS: dict[str, tuple[str, Callable[[], str]]] = {
    "nothing": ("invalid-upload-token", str),
    "the prefix alone": ("invalid-upload-token", lambda: "pypi-"),
    "another prefix": ("invalid-upload-token", lambda: fresh().removeprefix("pypi-")),
    "an identity token": ("invalid-upload-token", lambda: altered(header={"typ": "JWT"})),
    "no type": ("invalid-upload-token", lambda: altered(header={"typ": ...})),
    "expired": ("expired-upload-token", lambda: fresh(now=time.time() - 901)),
    "expired within what clocks may differ": ("expired-upload-token", lambda: fresh(now=time.time() - 905)),
    "expired long ago": ("expired-upload-token", lambda: fresh(now=time.time() - 9000)),
    "another index": (
        "invalid-upload-token",
        lambda: fresh(by=minter(KEY, audience="https://upload.acme.example/other/")),
    ),
    "one index of several": ("invalid-upload-token", lambda: altered(aud=[INDEX])),
    "no audience": ("invalid-upload-token", lambda: altered(aud=...)),
    "another broker": ("invalid-upload-token", lambda: fresh(by=minter(KEY, issuer="https://evil.example"))),
    "no issuer": ("invalid-upload-token", lambda: altered(iss=...)),
    "no end": ("invalid-upload-token", lambda: altered(exp=...)),
    "an end as text": ("invalid-upload-token", lambda: altered(exp=str(int(time.time()) + 900))),
    "not begun": ("invalid-upload-token", lambda: altered(nbf=int(time.time()) + 300)),
    "no beginning": ("invalid-upload-token", lambda: altered(nbf=...)),
    "no time of issue": ("invalid-upload-token", lambda: altered(iat=...)),
    "no publishers": ("invalid-upload-token", lambda: altered(publishers=...)),
    "another scope": ("invalid-upload-token", lambda: altered(scope="download")),
    "no scope": ("invalid-upload-token", lambda: altered(scope=...)),
    "no projects": ("invalid-upload-token", lambda: altered(projects=...)),
    "projects as text": ("invalid-upload-token", lambda: altered(projects="acme-widgets")),
    "all projects": ("invalid-upload-token", lambda: altered(projects=["*"])),
    "an open prefix": ("invalid-upload-token", lambda: altered(projects=["acme*"])),
    "a project that is no text": ("invalid-upload-token", lambda: altered(projects=[1])),
    "limited uses": ("token-narrowed", lambda: fresh(narrowing=Narrowing(uses=1))),
    "narrowed in a way of tomorrow": ("token-narrowed", lambda: altered(filename="acme_widgets-1.0.tar.gz")),
    "narrowed to a project beside its projects": ("invalid-upload-token", lambda: altered(project="acme-x")),
    "narrowed to no version": ("invalid-upload-token", lambda: altered(version="")),
    "narrowed to a version that is no text": ("invalid-upload-token", lambda: altered(version=1)),
    "narrowed to no files": ("invalid-upload-token", lambda: altered(sha256=[])),
    "narrowed to digests that are none": ("invalid-upload-token", lambda: altered(sha256=["0"])),
    "narrowed to digests that are no list": ("invalid-upload-token", lambda: altered(sha256="0" * 64)),
    "a key of its own": ("invalid-upload-token", lambda: altered(STRANGER)),
    "another key under a known id": ("invalid-upload-token", lambda: altered(STRANGER, header={"kid": KEY.id})),
    "a key in the header": (
        "invalid-upload-token",
        lambda: altered(STRANGER, header={"kid": KEY.id, "jwk": STRANGER.public_jwk()}),
    ),
    "a key from elsewhere": ("invalid-upload-token", lambda: altered(header={"jku": "http://evil.example/keys"})),
    "something critical": ("invalid-upload-token", lambda: altered(header={"crit": ["exp"]})),
    "no key id": ("invalid-upload-token", lambda: altered(header={"kid": ...})),
    "a key id that is no text": ("invalid-upload-token", lambda: altered(header={"kid": [KEY.id]})),
    "the public key as a secret": ("invalid-upload-token", with_public_key_as_secret),
    "no signature": ("invalid-upload-token", unsigned),
    "no signature, said otherwise": ("invalid-upload-token", lambda: fresh().rpartition(".")[0] + "."),
    "RSA": ("invalid-upload-token", with_rsa),
    "Ed25519 by its other name": ("invalid-upload-token", lambda: altered(header={"alg": "Ed25519"})),
    "cut short": ("invalid-upload-token", lambda: fresh()[:-4]),
    "one claim changed": (
        "invalid-upload-token",
        lambda: ".".join([fresh().split(".")[0], altered(projects=["victim"]).split(".")[1], fresh().split(".")[2]]),
    ),
    "letters beyond ASCII": ("invalid-upload-token", lambda: "pypi-ä.ö.ü"),
    "half a letter": ("invalid-upload-token", lambda: "pypi-\ud800.a.b"),
    "too long": ("invalid-upload-token", lambda: altered(identity={"subject": "x" * 32 * 1024})),
    "claims that are no object": ("invalid-upload-token", lambda: forged(parts(fresh())[0], ["acme"])),
    "a nest": ("invalid-upload-token", lambda: forged(parts(fresh())[0], b"[" * 8000)),
}


@pytest.mark.parametrize("name", NO_TOKENS)
def test_what_is_no_good_token_is_refused(server: KeyServer, name: str) -> None:
    code, make = NO_TOKENS[name]
    assert code_of(lambda: trusted(server).verify(make())) == code


@pytest.mark.parametrize("name", ["no key id", "a key from elsewhere", "the public key as a secret", "no signature"])
def test_what_is_no_token_of_ours_at_a_glance_makes_nobody_fetch_keys(server: KeyServer, name: str) -> None:
    assert code_of(lambda: trusted(server).verify(NO_TOKENS[name][1]())) == "invalid-upload-token"
    assert server.asked == 0


def test_the_codes_mean_what_the_broker_means_by_them(server: KeyServer) -> None:
    known = {(one.code, one.status) for one in refusals.every()}
    for code, make in NO_TOKENS.values():
        with pytest.raises(Refused) as refused:
            trusted(server).verify(make())
        assert (code, int(refused.value.status)) in known


def test_without_an_issuer_or_an_audience_nothing_begins(server: KeyServer) -> None:
    for changes in ({"issuer": ""}, {"audience": ""}):
        with pytest.raises(ValueError, match="any token would do"):
            trusted(server, **changes)


@pytest.mark.parametrize("url", ["http://upload.acme.example/keys", "file:///etc/passwd", "ftp://127.0.0.1/", "keys"])
def test_keys_and_secrets_go_over_https_alone(url: str) -> None:
    for begin in (lambda: Keys(url), lambda: Introspection(url=url, client_id="a", client_secret="b")):
        with pytest.raises(ValueError, match="is not https"):
            begin()


# --- Keys ------------------------------------------------------------------------------------------------------------


def test_a_flood_of_unknown_key_ids_makes_one_fetch_in_thirty_seconds(server: KeyServer) -> None:
    clock = Clock()
    tokens = trusted(server, keys=Keys(server.url, clock=clock))
    tokens.verify(fresh())
    for round_ in range(1, 4):
        threads = [
            threading.Thread(target=code_of, args=[lambda n=n: tokens.verify(altered(header={"kid": f"{n}"}))])
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.asked == round_, "and the good token's fetch counts"
        clock.now += 30
        tokens.verify(fresh())


def test_a_flood_while_the_broker_is_down_makes_no_more(server: KeyServer) -> None:
    clock = Clock()
    server.status = 503
    tokens = trusted(server, keys=Keys(server.url, clock=clock))
    for _ in range(20):
        assert code_of(lambda: tokens.verify(fresh())) == "keys-unavailable"
    assert server.asked == 1
    clock.now += 30
    server.status = 200
    tokens.verify(fresh())
    assert server.asked == 2


def test_a_new_key_is_found_at_once_and_a_removed_one_is_gone_after_five_minutes(server: KeyServer) -> None:
    clock, new = Clock(), new_key()
    tokens = trusted(server, keys=Keys(server.url, clock=clock))
    tokens.verify(fresh())
    server.body = json.dumps(key_set(SigningKeys(keys=(new,)), time.time())).encode()
    clock.now += 299
    tokens.verify(fresh())
    assert server.asked == 1
    tokens.verify(fresh(by=minter(new)))
    assert server.asked == 2
    assert code_of(lambda: tokens.verify(fresh())) == "invalid-upload-token"


def test_old_keys_serve_for_an_hour_while_the_broker_is_down_and_then_none_do(server: KeyServer) -> None:
    clock = Clock()
    tokens = trusted(server, keys=Keys(server.url, clock=clock))
    tokens.verify(fresh())
    server.status = 500
    clock.now += 3599
    tokens.verify(fresh())
    assert server.asked == 2
    clock.now += 1
    assert code_of(lambda: tokens.verify(fresh())) == "keys-unavailable"


def test_whoever_has_a_key_does_not_wait_for_a_fetch(server: KeyServer) -> None:
    clock = Clock()
    keys = Keys(server.url, clock=clock)
    keys.find(KEY.id)
    clock.now += 301
    with keys._fetching:
        keys.find(KEY.id)
    assert server.asked == 1


PRIVATE = {**KEY.public_jwk(), "d": "AAAA"}
NO_KEYS = {
    "no JSON": b"<html>",
    "no object": b"[]",
    "no list": b'{"keys": {}}',
    "too much": json.dumps({"keys": [], "more": "x" * 70_000}).encode(),
    "a nest": b"[" * 60_000,
    "a key that is none": json.dumps({"keys": [{**KEY.public_jwk(), "x": "AAAA"}]}).encode(),
}


@pytest.mark.parametrize("name", NO_KEYS)
def test_an_answer_that_is_no_key_set_is_as_none(server: KeyServer, name: str) -> None:
    server.body = NO_KEYS[name]
    assert code_of(lambda: trusted(server).verify(fresh())) == "keys-unavailable"


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": "HS256"},
        {"use": "enc"},
        {"kty": "oct", "k": "AAAA"},
        {"crv": "Ed448"},
        {"kid": 1},
        {"use": ...},
    ],
)
def test_only_keys_as_the_broker_publishes_them_are_taken(server: KeyServer, changes: dict[str, object]) -> None:
    told = {name: value for name, value in {**KEY.public_jwk(), **changes}.items() if value is not ...}
    server.body = json.dumps({"keys": [told, "x"]}).encode()
    assert code_of(lambda: trusted(server).verify(fresh())) == "invalid-upload-token"


def test_keys_are_not_fetched_from_where_a_redirect_leads(server: KeyServer) -> None:
    with serving_keys() as other:
        server.status, server.headers = 302, {"Location": other.url}
        assert code_of(lambda: trusted(server).verify(fresh())) == "keys-unavailable"
        assert other.asked == 0


def test_no_proxy_of_the_environment_is_asked(server: KeyServer) -> None:
    look = f"from trusted_tokens import Keys; Keys({server.url!r}).find({KEY.id!r})"
    with serving_keys() as proxy:
        environment = {"http_proxy": proxy.url, "no_proxy": "elsewhere.example"}
        subprocess.run([sys.executable, "-c", look], cwd=FILES, env=environment, check=True)
        assert (server.asked, proxy.asked) == (1, 0)


# --- The last word ---------------------------------------------------------------------------------------------------


def test_a_token_must_still_be_good_when_the_whole_upload_is_there(server: KeyServer) -> None:
    clock = Clock()
    clock.now = time.time()
    tokens = trusted(server, clock=clock)
    token = tokens.verify(fresh())
    tokens.confirm(token, "acme-widgets")
    assert code_of(lambda: tokens.confirm(token, "victim")) == "project-not-granted"
    clock.now = float(token.expires_at)
    assert code_of(lambda: tokens.confirm(token, "acme-widgets")) == "expired-upload-token"


def asking(server: KeyServer) -> tuple[TrustedTokens, UploadToken]:
    tokens = trusted(server, introspection=Introspection(url=server.url, client_id="a:b", client_secret="s"))
    return tokens, tokens.verify(fresh())


def test_a_registry_that_asks_goes_by_the_answer(server: KeyServer) -> None:
    tokens, token = asking(server)
    for told, code in [
        ({"active": False}, "revoked-token"),
        ({"active": True, "jti": "another", "projects": ["acme-widgets"]}, "revoked-token"),
        ({"active": "yes", "jti": token.id, "projects": ["acme-widgets"]}, "revoked-token"),
        ({"active": True, "jti": token.id, "projects": ["acme-other"]}, "project-not-granted"),
        ({"active": True, "jti": token.id, "projects": []}, "project-not-granted"),
        ({"active": True, "jti": token.id, "projects": ["*"]}, "invalid-upload-token"),
        ([], "revoked-token"),
    ]:
        server.body = json.dumps(told).encode()
        assert code_of(lambda: tokens.confirm(token, "acme-widgets")) == code
    server.body = json.dumps({"active": True, "jti": token.id, "projects": ["acme-*"]}).encode()
    tokens.confirm(token, "acme-widgets")
    assert token.text in server.seen[-1]


def test_a_registry_that_cannot_ask_takes_nothing(server: KeyServer) -> None:
    tokens, token = asking(server)
    server.status = 401
    assert code_of(lambda: tokens.confirm(token, "acme-widgets")) == "introspection-unavailable"
    server.status, server.body = 200, b"<html>"
    assert code_of(lambda: tokens.confirm(token, "acme-widgets")) == "introspection-unavailable"
    assert "'s'" not in repr(tokens._introspection)
