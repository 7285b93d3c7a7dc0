"""One alert to one receiver: signed as Standard Webhooks, or as the text of a chat, and sent within bounds.

- No redirect is followed, no proxy is taken from the environment, and of an answer its status alone counts.
- Nothing that is raised or logged holds a URL: Slack's are secrets.
- What tokens claim is hostile text. In a chat it stands in code spans, escaped, so that it mentions nobody, links to
  nothing and begins no line.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from broker.alerts.receivers import Receiver
from broker.outgoing import failure
from broker.state import AlertToSend

SEND_SECONDS: Final = 15.0
"""For one delivery as a whole, so that a slow receiver holds up nothing for long."""
DRAIN_SECONDS: Final = 1.0
MOST_DRAINED_BYTES: Final = 64 * 1024
"""Of an answer, to use its connection again; more is not read."""

LONGEST_VALUE: Final = 200
MOST_FIELDS: Final = 40
"""Of an alert in a chat."""

_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "\N{MODIFIER LETTER GRAVE ACCENT}"})
"""Slack's own three (https://docs.slack.dev/messaging/formatting-message-text, read 2026-11), and what ends a span."""


class DeliveryError(Exception):
    """A receiver did not take an alert; the message says why, and holds nothing of its URL or its answer."""

    def __init__(self, why: str, *, retry_after_seconds: int = 0) -> None:
        super().__init__(why)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """Sends alerts."""

    transport: httpx.AsyncBaseTransport
    """Bare: a client would log URLs, and follow what its environment says."""
    clock: Callable[[], float]
    user_agent: str

    async def send(self, receiver: Receiver, alert: AlertToSend) -> None:
        """Sends one alert, once.

        Raises:
            DeliveryError: the receiver did not answer with a success in time.
        """
        request = self._request(receiver, alert)
        answered: httpx.Response | None = None
        try:
            async with asyncio.timeout(SEND_SECONDS):
                answered = await self.transport.handle_async_request(request)
        except TimeoutError:
            raise DeliveryError(f"no answer within {SEND_SECONDS:.0f} s") from None
        except (httpx.HTTPError, OSError, RuntimeError) as error:  # a RuntimeError is uvloop's, of a closed connection
            raise DeliveryError(failure(error)) from None
        try:
            await _drain(answered)
        finally:
            with contextlib.suppress(httpx.HTTPError, OSError, RuntimeError):
                await answered.aclose()
        if not answered.is_success:
            told = answered.headers.get("retry-after", "")
            seconds = int(told) if told.isascii() and told.isdigit() and len(told) < 7 else 0  # noqa: PLR2004 - a week's
            raise DeliveryError(f"answered {answered.status_code}", retry_after_seconds=seconds)

    def _request(self, receiver: Receiver, alert: AlertToSend) -> httpx.Request:
        headers = {"Content-Type": "application/json", "User-Agent": self.user_agent, "Accept": "*/*"}
        try:
            url, keys = receiver.address(), receiver.keys()
        except ValueError as error:
            raise DeliveryError(str(error)) from None
        if receiver.kind == "slack":
            content = json.dumps({"text": slack_text(json.loads(alert.body))}).encode()
        else:
            content = alert.body.encode("ascii")
            headers |= signed_headers(keys, alert.id, int(self.clock()), content)
        try:
            return httpx.Request(
                "POST",
                url,
                headers=headers,
                content=content,
                extensions={"timeout": httpx.Timeout(SEND_SECONDS).as_dict()},
            )
        except (httpx.InvalidURL, ValueError):
            raise DeliveryError("its URL cannot be used") from None


async def _drain(answer: httpx.Response) -> None:
    """Reads what is left of an answer, if that is little, for the connection's sake; its failure says nothing."""
    read = 0
    with contextlib.suppress(TimeoutError, httpx.HTTPError, OSError, RuntimeError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for chunk in answer.aiter_raw():
                read += len(chunk)
                if read > MOST_DRAINED_BYTES:
                    return


def signed_headers(keys: Sequence[bytes], alert_id: str, at: int, content: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks, with one signature for each key."""
    text = f"{alert_id}.{at}.".encode() + content
    signatures = (base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode() for key in keys)
    return {
        "webhook-id": alert_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def slack_text(payload: Mapping[str, Any]) -> str:
    """An alert as a chat shows it: what it is, then a line a field."""
    data = dict(payload["data"])
    lines = [f"*{payload['type']}* {data.pop('message')}"]
    lines += [f"{name}: `{_plain(value)}`" for name, value in [*_fields(data)][:MOST_FIELDS]]
    return "\n".join([*lines, f"at: `{payload['timestamp']}`"])


def _fields(data: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, object]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{within}{_plain(name)}.")
        elif value not in ("", None, []):
            yield f"{within}{_plain(name)}", ", ".join(map(str, value)) if isinstance(value, list) else value


def _plain(value: object) -> str:
    """Any text in one line, within a code span."""
    text = str(value)[: LONGEST_VALUE + 1]
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    if len(shown) > LONGEST_VALUE:
        shown = shown[:LONGEST_VALUE] + "\N{HORIZONTAL ELLIPSIS}"
    return shown.translate(_ESCAPES)
