"""One delivery: what is signed and sent, what counts as taken, and what hostile texts and receivers can do."""

from __future__ import annotations

import json
import ssl
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from broker.alerts import webhooks
from broker.alerts.receivers import Receiver, signing_key
from broker.alerts.webhooks import DeliveryError, Webhooks, signed_headers, slack_text
from broker.gateway.credential import SecretFile
from broker.state import AlertToSend
from tests.alerts.hook import KEY, SECRET, Answer, Hook, hooked

pytestmark = pytest.mark.anyio

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without the system's certificates, which take long to load: receivers are plain http here."""

HOSTILE = "<!channel> <https://evil.example|click> & `end` *bold*\n*new-actor* forged\u202e\ud800\0 @here"


def receiver(url: str, *secrets: str, kind: str = "standard") -> Receiver:
    """A receiver of acme's."""
    texts = tuple(map(SecretStr, secrets or (SECRET,)))
    return Receiver(
        name="acme",
        kind="slack" if kind == "slack" else "standard",
        url=SecretStr(url),
        secrets=() if kind == "slack" else texts,
        organizations=frozenset({"acme"}),
        allow_loopback=True,
    )


def alert(**data: object) -> AlertToSend:
    """An alert with that data."""
    body = {"type": "new-actor", "timestamp": "2027-01-15T08:00:00.000Z", "data": {"message": "Somebody.", **data}}
    return AlertToSend(receiver="acme", id="alert_1", at=time.time(), body=json.dumps(body))


async def send(to: Receiver, what: AlertToSend) -> None:
    async with httpx.AsyncHTTPTransport(verify=PLAIN) as transport:
        await Webhooks(transport=transport, clock=time.time, user_agent="broker").send(to, what)


def test_a_signature_is_the_one_of_the_specification_s_own_example() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers((key,), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_an_alert_is_posted_as_it_is_and_signed_with_each_secret() -> None:
    other = b"o" * 24
    with hooked() as hook:
        await send(receiver(hook.url, "whsec_b29vb29vb29vb29vb29vb29vb29vb29v", SECRET), alert(subject="x"))
    (got,) = hook.got
    assert got.payload() == json.loads(alert(subject="x").body)
    assert got.is_signed(KEY)
    assert got.is_signed(other)
    assert not got.is_signed(b"x" * 24)
    assert (got.headers["content-type"], got.headers["webhook-id"]) == ("application/json", "alert_1")


async def test_a_secret_that_is_rotated_counts_from_the_next_alert(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    with hooked() as hook:
        to = receiver(hook.url)
        to = Receiver(**{**{name: getattr(to, name) for name in to.__slots__}, "secrets": (SecretFile(file),)})
        await send(to, alert())
        file.write_text("whsec_b29vb29vb29vb29vb29vb29vb29vb29v")
        await send(to, alert())
        file.write_text("no secret, s3cret")
        with pytest.raises(DeliveryError, match="a secret is whsec_") as error:
            await send(to, alert())
    assert [one.is_signed(KEY) for one in hook.got] == [True, False]
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("status", [300, 302, 307, 400, 404, 410, 429, 500, 503])
async def test_anything_but_a_success_is_a_failure_and_no_redirect_is_followed(status: int) -> None:
    with hooked(lambda _: status) as hook, pytest.raises(DeliveryError, match=f"^answered {status}$"):
        await send(receiver(hook.url), alert())
    assert [one.path for one in hook.got] == ["/hook"]


def says_later(text: str) -> Answer:
    """Answers 503, with a Retry-After."""

    def answer(handler: BaseHTTPRequestHandler) -> int:
        head = f"HTTP/1.1 503 Later\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n"
        handler.wfile.write(head.encode())
        handler.close_connection = True
        return 503

    return answer


@pytest.mark.parametrize(("told", "seconds"), [("120", 120), ("soon", 0), ("-1", 0), ("9" * 40, 0), ("1.5", 0)])
async def test_a_receiver_may_say_when_to_come_again(told: str, seconds: int) -> None:
    with hooked(says_later(told)) as hook, pytest.raises(DeliveryError) as error:
        await send(receiver(hook.url), alert())
    assert error.value.retry_after_seconds == seconds


async def test_a_receiver_that_is_down_is_a_failure_that_does_not_tell_its_url() -> None:
    with pytest.raises(DeliveryError, match=r"^ConnectError: Connection refused$") as error:
        await send(receiver(Hook().url, kind="slack"), alert())
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


async def test_a_receiver_that_does_not_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "SEND_SECONDS", 0.3)

    def sleeps(_: BaseHTTPRequestHandler) -> int:
        time.sleep(1.5)
        return 204

    with hooked(sleeps) as hook, pytest.raises(DeliveryError, match=r"^no answer within"):
        await send(receiver(hook.url), alert())


async def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "DRAIN_SECONDS", 0.5)

    def endless(handler: BaseHTTPRequestHandler) -> int:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 200_000)
        handler.close_connection = True
        return 200

    def dripping(handler: BaseHTTPRequestHandler) -> int:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        time.sleep(1.5)
        handler.close_connection = True
        return 200

    for answer in (endless, dripping):
        began = time.monotonic()
        with hooked(answer) as hook:
            await send(receiver(hook.url), alert())
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "url", ["http://hooks.example/x", "https://user:s3cret@h.example/", "https://h.example/#s3cret"]
)
async def test_a_url_that_became_unusable_is_not_used_and_not_told(url: str) -> None:
    with pytest.raises(DeliveryError) as error:
        await send(receiver(url), alert())
    assert "s3cret" not in str(error.value)


async def test_a_url_that_only_the_client_refuses_is_a_failure() -> None:
    with pytest.raises(DeliveryError):
        await send(receiver("https://xn--/"), alert())


# --- Chats -----------------------------------------------------------------------------------------------------------


async def test_a_chat_gets_text_alone() -> None:
    with hooked() as hook:
        await send(receiver(hook.url, kind="slack"), alert(subject="acme/widgets-release"))
    (got,) = hook.got
    assert got.payload() == {
        "text": "*new-actor* Somebody.\nsubject: `acme/widgets-release`\nat: `2027-01-15T08:00:00.000Z`"
    }
    assert "webhook-signature" not in got.headers


def test_what_a_token_claims_mentions_nobody_and_begins_no_line_in_a_chat() -> None:
    payload = json.loads(alert(identity={"actor_name": HOSTILE, HOSTILE: "x"}, publishers=[HOSTILE]).body)
    lines = slack_text(payload).split("\n")
    assert len(lines) == 5
    for line in lines[1:4]:
        assert "<" not in line
        assert ">" not in line
        assert line.isprintable()
        assert line.count("`") == 2, "one code span, which ends with its line"
    assert lines[1].startswith("identity.actor_name: `&lt;!channel&gt; &lt;https://evil.example|click&gt; &amp; ")
    assert lines[1].count(r"\n") == lines[1].count(r"\u202e") == lines[1].count(r"\ud800") == 1


def test_a_chat_gets_no_more_than_fits() -> None:
    text = slack_text(json.loads(alert(**{f"field_{n}": "&" * 5000 for n in range(1000)}).body))
    assert len(text) < 60_000
    assert text.count("\n") == webhooks.MOST_FIELDS + 1


def test_what_is_empty_is_not_shown_and_flags_are() -> None:
    text = slack_text(json.loads(alert(a="", b=None, c=[], d=False, e=0).body))
    assert [line.split(":")[0] for line in text.split("\n")[1:-1]] == ["d", "e"]


def test_a_receiver_s_secrets_are_not_in_its_repr() -> None:
    shown = repr(receiver("https://hooks.example/T0/s3cret"))
    assert "s3cret" not in shown
    assert SECRET not in shown
