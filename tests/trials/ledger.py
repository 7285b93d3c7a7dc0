"""A load of exchanges and uploads that is written down: which identity token was offered, and all that came back.

What a client holds at the end is what the broker is measured by, not what the broker says of itself.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from broker.chain import Finding, Verification
from broker.playground.ci import FakeCI, IssuerName
from broker.refusals import StateUnavailable
from broker.state import State
from broker.state.opening import open_state
from tests.gateway.uploads import CONTENT_TYPE, metadata, pack_sdist, upload
from tests.state.examples import is_revoked
from tests.web.test_upload_refusals import basic

AGAIN = 0.5
"""How often an old identity token is offered again: once for every two new ones."""

PAUSE_SECONDS = 0.05
"""Of a client, between two identity tokens: they are all offered once more in the end."""

RECENT = 60
"""Of those that are offered again, half are among the last so many: what a fault can have lost."""


@dataclass(slots=True)
class Offer:
    """An identity token, and every upload token that it earned."""

    identity_token: str = field(repr=False)
    earned: set[str] = field(default_factory=set, repr=False)
    answers: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Ledger:
    """All that was offered, and answered."""

    ci: FakeCI
    offers: list[Offer] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """By what they said: "granted", a refusal's code, or "no answer"."""
    granted_at: list[float] = field(default_factory=list)
    """When an upload token came back, by `time.monotonic`."""
    burned: set[str] = field(default_factory=set, repr=False)
    """Upload tokens whose revocation was answered with success."""
    uploads: Counter[str] = field(default_factory=Counter)
    """By what the answers said."""
    uploaded: set[str] = field(default_factory=set)
    """Files whose upload was answered with success."""
    shared: int = 0
    """Attempts of which several organizations have a record, as the state was found in the end."""

    def new(self) -> Offer:
        """An identity token that nobody has seen; GitLab's may be exchanged again, for the same upload token."""
        issuer: IssuerName = "gitlab" if len(self.offers) % 4 == 0 else "github"
        self.offers.append(Offer(self.ci.token(issuer)))
        return self.offers[-1]

    def old(self) -> Offer:
        """One that was offered before."""
        return random.choice(self.offers[-RECENT:] if random.random() < 0.5 else self.offers)

    async def offer(self, client: httpx.AsyncClient, url: str, one: Offer) -> str:
        """Offers an identity token; the upload token that came back, or nothing."""
        said, body = await answered(client.post(f"{url}/_/oidc/mint-token", json={"token": one.identity_token}))
        self.answers[said] += 1
        one.answers[said] += 1
        if said != "granted":
            return ""
        self.granted_at.append(time.monotonic())
        one.earned.add(str(body["token"]))
        return str(body["token"])

    async def burn(self, client: httpx.AsyncClient, url: str, upload_token: str) -> None:
        """Revokes an upload token."""
        said, _ = await answered(client.post(f"{url}/_/oidc/burn-token", json={"token": upload_token}))
        if said == "granted":
            self.burned.add(upload_token)

    async def upload(self, client: httpx.AsyncClient, url: str, upload_token: str, number: int) -> None:
        """Uploads a file of a version of its own."""
        version = f"1.{number}"
        folder = f"acme_widgets-{version}"
        file = pack_sdist({f"{folder}/PKG-INFO": metadata(version=version)})
        headers = {"Authorization": basic(upload_token), "Content-Type": CONTENT_TYPE}
        body = upload(file, f"{folder}.tar.gz", version=version)
        said, _ = await answered(client.post(f"{url}/legacy/", content=body, headers=headers))
        self.uploads[said] += 1
        if said == "granted":
            self.uploaded.add(f"{folder}.tar.gz")

    async def load(
        self, urls: Sequence[str], ended: Callable[[], bool], *, burns: bool = False, uploads: bool = False
    ) -> None:
        """Offers without pause, each new token at all brokers at once, and old ones at any, until told to end."""
        limits = httpx.Limits(max_keepalive_connections=0)  # a connection to a broker that was killed tells nothing
        async with httpx.AsyncClient(limits=limits, timeout=8, trust_env=False) as client:
            while not ended():
                one = self.new()
                tokens = await asyncio.gather(*(self.offer(client, url, one) for url in urls))
                token = next(filter(None, tokens), "")
                if token and uploads and len(self.offers) % 10 == 0:
                    await self.upload(client, random.choice(urls), token, len(self.offers))
                elif token and burns and len(self.offers) % 3 == 0:
                    await self.burn(client, random.choice(urls), token)
                if random.random() < AGAIN:
                    await self.offer(client, random.choice(urls), self.old())
                await asyncio.sleep(PAUSE_SECONDS)

    async def offer_all_again(self, urls: Sequence[str], at_once: int = 8) -> None:
        """Offers each token once more, everywhere: what is forgotten is found then at the latest."""
        async with httpx.AsyncClient(timeout=8, trust_env=False) as client:
            turns = asyncio.Semaphore(at_once)

            async def offer(one: Offer, url: str) -> None:
                async with turns:
                    await self.offer(client, url, one)

            await asyncio.gather(*(offer(one, url) for one in list(self.offers) for url in urls))

    @property
    def minted(self) -> set[str]:
        """Ids of all upload tokens that anybody was given."""
        return {token_id(token) for one in self.offers for token in one.earned}

    def minted_twice(self) -> list[Offer]:
        """Identity tokens that earned more than one upload token. There must be none."""
        return [one for one in self.offers if len(one.earned) > 1]

    async def judge(self, state_url: str) -> list[str]:
        """What is wrong, by what clients hold and what the state kept."""
        state = open_state(state_url, retention_days=400)
        try:
            wrong = [f"an identity token was minted twice: {dict(one.answers)}" for one in self.minted_twice()]
            kept = await patiently(partial(follow, state))
            self.shared = kept.shared
            wrong += [f"the chain is broken: {finding}" for finding in kept.findings]
            missing = len(self.minted - kept.minted), len(self.uploaded - kept.uploaded)
            wrong += [f"without their record: {missing[0]} upload tokens, {missing[1]} uploads"] * any(missing)
            wrong += [f"{kept.halves} attempts with some of their organizations alone"] * (kept.halves > 0)
            for token in self.burned:
                if not await patiently(partial(is_revoked, state, token_id(token), (), issued_at(token))):
                    wrong.append("a revocation that was answered is lost")
        finally:
            await state.close()
        return wrong

    def longest_pause(self, after: float) -> float:
        """The longest time without an upload token that ended after a moment."""
        later = [moment for moment in self.granted_at if moment > after]
        earlier = [moment for moment in self.granted_at if moment <= after]
        moments = [*earlier[-1:], *later]
        return max((second - first for first, second in itertools.pairwise(moments)), default=float("inf"))


async def answered(asking: Any) -> tuple[str, dict[str, Any]]:
    """What an answer says, and its body."""
    try:
        answer = await asking
    except httpx.TransportError:
        return "no answer", {}
    if answer.status_code < httpx.codes.MULTIPLE_CHOICES:
        return "granted", answer.json() if answer.content[:1] == b"{" else {}
    return str(answer.json()["errors"][0]["code"]), {}


async def patiently(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Asks a state until it answers, for it may still come back from a fault."""
    until = time.monotonic() + 30
    while True:
        try:
            return await ask()
        except StateUnavailable:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a state's records say."""

    minted: set[str]
    """Ids of upload tokens."""
    uploaded: set[str]
    """Names of files."""
    findings: Sequence[Finding]
    """Of a chain that is not whole."""
    shared: int
    """Attempts that left a record with several organizations."""
    halves: int
    """Of these, those of which one has none."""


async def follow(state: State) -> Kept:
    """Reads all records, and follows their chains."""
    verification, minted, uploaded, position = Verification(await state.heads()), set(), set(), ""
    left, told = Counter[str](), Counter[str]()
    while page := await state.records_after(position, 1000):
        position = page[-1].position
        verification.follow(page)
        for record in (json.loads(one.body) for one in page):
            if "shared_with" in record:
                left[record["attempt"]] += 1
                told[record["attempt"]] = 1 + record["shared_with"]
            if record["decision"] == "allowed" and record["kind"] == "mint":
                minted.add(record["token_id"])
            elif record["decision"] == "allowed" and record["kind"] == "upload":
                uploaded.add(record["filename"])
    verification.finish(await state.heads())
    halves = sum(left[attempt] != count for attempt, count in told.items())
    return Kept(minted=minted, uploaded=uploaded, findings=verification.findings, shared=len(told), halves=halves)


def claims_of(upload_token: str) -> dict[str, Any]:
    """What an upload token says."""
    payload = upload_token.removeprefix("pypi-").split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def token_id(upload_token: str) -> str:
    """Its `jti`."""
    return str(claims_of(upload_token)["jti"])


def issued_at(upload_token: str) -> int:
    """Its `iat`."""
    return int(claims_of(upload_token)["iat"])
