"""Tokens, Authorization headers and the registry's credential are never in logs, answers, records, state or reprs."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.gateway.uploads import CONTENT_TYPE, upload
from tests.harness import Broker, Setup
from tests.web.test_upload_refusals import basic

pytestmark = pytest.mark.anyio

PASSWORD = "the-registry-password-73a1"


def secret_parts(token: str) -> list[str]:
    """What of a token must stay secret: its signature, and with that the whole. Claims alone open nothing."""
    return [token, token.rsplit(".", 1)[1]]


async def attempts(broker: Broker) -> tuple[list[str], list[str]]:
    """Exchanges and uploads, good and bad; the secrets they used, and what was answered."""
    identity, other = broker.ci.token(), broker.ci.token(repository_id="1")
    minted = await broker.mint(identity)
    upload_token = minted.json()["token"]
    answers = [
        (await broker.mint(identity)).text,
        (await broker.mint(other)).text,
        (await broker.mint(upload_token)).text,
        (await broker.mint(identity[:-4] + "AAAA")).text,
        (await broker.client.post("/_/oidc/burn-token", json={"token": identity})).text,
    ]
    body, kind = upload(), CONTENT_TYPE
    wrong = "pypi-" + identity
    for password in (upload_token, identity, wrong):
        headers = {"Authorization": basic(password), "Content-Type": kind}
        answers.append((await broker.client.post("/legacy/", content=body, headers=headers)).text)
    answers.append((await broker.client.post("/_/oidc/burn-token", json={"token": upload_token})).text)
    headers = {"Authorization": basic(upload_token), "Content-Type": kind}
    answers.append((await broker.client.post("/legacy/", content=body, headers=headers)).text)
    headers["Authorization"] = f"Bearer {upload_token}"
    answers.append((await broker.client.post("/legacy/", content=body, headers=headers)).text)
    secrets = [part for token in (identity, other, upload_token) for part in secret_parts(token)]
    return [*secrets, basic(upload_token).split()[1]], answers


def read_all(folder: Path) -> str:
    """The state's files, byte for byte."""
    return b"".join(path.read_bytes() for path in folder.glob("state.db*")).decode("latin-1")


async def test_no_secret_is_anywhere_but_in_the_answer_to_its_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = Setup(folder=tmp_path, settings={"registry_username": "broker", "registry_password": PASSWORD})
    async with setup.running() as broker:
        secrets, answers = await attempts(broker)
        records = [str(record) for record in await broker.records()]
        reprs = [repr(value) for value in vars(broker.app.state).values()] + [repr(setup.write())]
    output = capsys.readouterr()
    secrets += [PASSWORD, base64.b64encode(f"broker:{PASSWORD}".encode()).decode()]
    stored = read_all(tmp_path)
    places = {
        "answers": answers,
        "records": records,
        "reprs": reprs,
        "log": [output.out, output.err],
        "state": [stored],
    }
    assert len(records) == 11
    for place, texts in places.items():
        for secret in secrets:
            assert not any(secret in text for text in texts), place
