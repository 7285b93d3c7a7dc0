"""An hour of a busy index in a few minutes: does the broker's memory stay as it is?

A broker as a process of its own, with SQLite and a real pypiserver, gets what an hour brings: exchanges of ever new
identity tokens, repeats, hostile tokens (forged, unsigned, of unknown issuers, with random key ids), bodies that are no
requests, uploads, uploads that are cut off, tokens that are burned, questions after readiness and metrics, and policies
that change. Its memory is read twenty times, and the registry is emptied each time: an upload reads its project's page,
which would else be longer with each.

The first half is the warm-up: SQLite's page cache, connections and the threads of the pool, each with an arena of its
own, come to what they have. Ends with 1 where memory grows in the second half by more than the bound, as the median
slope between its readings says (Theil and Sen: no reading alone decides it), or where a good upload or exchange was
refused, or a bad one was not.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from benchmarks.measuring import memory_mb
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from tests.fakes import segment
from tests.gateway.uploads import CONTENT_TYPE, fields_of, join, pack_wheel, parts_of, wheel_entries
from tests.registries import PypiServer, pypi_server
from tests.servers import Served, broker
from tests.web.test_upload_refusals import basic

READINGS: Final = 20
THREADS: Final = 8

HOUR: Final = {
    "mint": 18_000,
    "hostile": 18_000,
    "garbage": 3_600,
    "upload": 900,
    "cut off": 300,
    "burn": 1_800,
    "readyz": 720,
    "metrics": 240,
    "policies": 60,
}
"""What happens in it, how often."""


class Visitor:
    """Whoever asks something of the broker."""

    def __init__(self, served: Served, ci: FakeCI, registry: PypiServer, folder: Path) -> None:
        self._ci, self._registry, self._folder = ci, registry, folder
        self._served = served
        self._client = httpx.Client(
            base_url=served.url, trust_env=False, timeout=60, limits=httpx.Limits(max_connections=THREADS)
        )
        self.answers: Counter[str] = Counter()
        self._number = iter(range(1, 1 << 30))

    def do(self, what: str) -> None:
        """Does it, and counts what was answered."""
        answer = getattr(self, f"_{what.replace(' ', '_')}")()
        self.answers[f"{what}: {answer}"] += 1

    def _post(self, token: str) -> httpx.Response:
        return self._client.post("/_/oidc/mint-token", json={"token": token})

    def _minted(self) -> str:
        answer = self._post(self._ci.token("github", run_id=str(next(self._number))))
        answer.raise_for_status()
        return str(answer.json()["token"])

    def _mint(self) -> int:
        return self._post(self._ci.token("github", run_id=str(next(self._number)))).status_code

    def _hostile(self) -> int:
        number = next(self._number)
        header, payload, signature = self._ci.token("github", run_id=str(number)).split(".")
        token = {
            0: f"{header}.{payload}.{signature[:-8]}AAAAAAAA",
            1: f"{segment({'alg': 'RS256', 'kid': secrets.token_hex(16)})}.{payload}.{signature}",
            2: self._ci.token("github", actor_id=f"9000{number}"),
            3: self._ci.token("github", repository=f"evil-{number}/widgets", repository_id=str(number)),
            4: f"{header}.{segment({'iss': f'https://evil-{number}.example', 'exp': 1})}.{signature}",
        }[number % 5]
        return self._post(token).status_code

    def _garbage(self) -> int:
        return self._client.post("/_/oidc/mint-token", content=secrets.token_bytes(2000)).status_code

    def _upload(self) -> int:
        return self._send(self._minted(), self._body()).status_code

    def _body(self) -> bytes:
        file = pack_wheel(wheel_entries(**{"acme_widgets/noise.bin": secrets.token_bytes(50_000)}))
        return join(parts_of(fields_of(file), file, f"acme_widgets-1.0-{next(self._number)}-py3-none-any.whl"))

    def _send(self, token: str, body: bytes) -> httpx.Response:
        headers = {"Authorization": basic(token), "Content-Type": CONTENT_TYPE}
        return self._client.post("/legacy/", content=body, headers=headers)

    def _cut_off(self) -> str:
        body, token = self._body(), self._minted()

        def some() -> object:
            yield body[: len(body) // 2]
            raise ConnectionAbortedError

        headers = {"Authorization": basic(token), "Content-Type": CONTENT_TYPE, "Content-Length": str(len(body))}
        with contextlib.suppress(ConnectionAbortedError, httpx.HTTPError):
            self._client.post("/legacy/", content=some(), headers=headers)  # type: ignore[arg-type]  # bytes, till then
        return "went away"

    def _burn(self) -> int:
        return self._client.post("/_/oidc/burn-token", json={"token": self._minted()}).status_code

    def _readyz(self) -> int:
        return self._client.get("/readyz").status_code

    def _metrics(self) -> int:
        return self._client.get("/metrics").status_code

    def _policies(self) -> str:
        file = self._folder / "policies" / "organizations" / "acme.yaml"
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# change")]
        file.write_text("\n".join([*lines, f"# change {next(self._number)}", ""]), encoding="utf-8")
        return "written"

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()


def soak(hours: float, bound_mb: float) -> bool:
    """Runs, prints a table on the way; whether memory stayed."""
    plan = {what: max(1, round(times * hours)) for what, times in HOUR.items()}
    print(f"{sum(plan.values())} events: {', '.join(f'{times} {what}' for what, times in plan.items())}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ci = stack.enter_context(serving_ci())
        registry = stack.enter_context(pypi_server(folder / "registry", "waitress"))
        to = {"url": registry.url, "username": registry.username, "password": registry.password}
        settings = {f"registry_{name}": text for name, text in to.items()}
        served = stack.enter_context(broker(folder, ci, metrics="open", **settings))
        visitor = Visitor(served, ci, registry, folder)
        stack.callback(visitor.close)
        readings = [memory_mb(served.pid)]
        print(f"{'':>5} {readings[0]:7.1f} MB before anything ({urlsplit(served.url).netloc})")
        began = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            for part in range(READINGS):
                events = [
                    what
                    for what, times in plan.items()
                    for _ in range(times * (part + 1) // READINGS - times * part // READINGS)
                ]
                # Mixed, and the same in each part: every n-th of each kind.
                list(pool.map(visitor.do, sorted(events, key=lambda _: secrets.randbits(32))))
                readings.append(memory_mb(served.pid))
                for file in registry.packages.iterdir():
                    file.unlink()
                seconds = time.monotonic() - began
                print(f"{(part + 1) * 100 // READINGS:4} % {readings[-1]:7.1f} MB after {seconds:.0f} s", flush=True)
        for answer, times in sorted(visitor.answers.items()):
            print(f"      {times:6} {answer}")
    grown = growth_mb(readings[-READINGS // 2 :])
    print(f"in the second half {grown:+.2f} MB (bound {bound_mb:+.2f})")
    expected = {"mint": 200, "upload": 200, "burn": 202, "readyz": 200, "metrics": 200}
    as_expected = all(visitor.answers[f"{what}: {status}"] == plan[what] for what, status in expected.items())
    as_expected &= not any(visitor.answers[f"{what}: 200"] for what in ("hostile", "garbage"))
    if not as_expected:
        print("something good was refused, or something bad was not")
    return as_expected and grown <= bound_mb


def growth_mb(readings: Sequence[float]) -> float:
    """How much readings at equal distances grow from the first to the last, by the median of the slopes between any
    two.
    """
    pairs = itertools.combinations(enumerate(readings), 2)
    slopes = [(then_mb - mb) / (then - at) for (at, mb), (then, then_mb) in pairs]
    return statistics.median(slopes) * (len(readings) - 1)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0, help="how much of an hour's events (default: 1)")
    parser.add_argument("--bound", type=float, default=1.0, metavar="MB", help="how much memory may grow (default: 1)")
    args = parser.parse_args()
    return 0 if soak(args.hours, args.bound) else 1


if __name__ == "__main__":
    sys.exit(main())
