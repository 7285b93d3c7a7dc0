"""`broker probe` tells a broker that works from one that does not, and leaves no upload token behind."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from broker.cli import main, probe, probe_checks
from broker.cli.probe_checks import break_signature, is_identity_token
from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from broker.playground.processes import free_port
from tests import servers
from tests.metrics.reading import value

UPLOAD_TOKEN = "pypi-eyJhbGciOiJFZERTQSJ9.an-upload-token.that-must-not-be-seen"


@pytest.fixture(name="token_file")
def _token_file(tmp_path: Path) -> Path:
    path = tmp_path / "identity-token"
    path.write_text(FakeCI().token() + "\n", encoding="ascii")
    return path


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """The exit status, the results by check, and all that was printed."""
    status = main(["probe", *arguments])
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    return status, {line["check"]: line for line in lines}, printed.out + printed.err


# --- A real broker ---------------------------------------------------------------------------------------------------


@pytest.fixture(name="served", scope="module")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeCI, servers.Served]]:
    with serving_ci() as ci, servers.broker(tmp_path_factory.mktemp("broker"), ci, metrics="open") as served:
        yield ci, served


def records(served: servers.Served) -> list[Any]:
    return [line["record"] for line in served.logged() if line["event"] == "attempt"]


def test_a_broker_that_works_passes_and_its_token_is_burned(
    served: tuple[FakeCI, servers.Served], token_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ci, broker = served
    token_file.write_text(ci.token() + "\n", encoding="ascii")
    file = tmp_path / "broker.prom"
    before = len(records(broker))
    status, results, printed = asked(
        capsys, "--once", "--url", broker.url, "--token-file", str(token_file), "--metrics-file", str(file)
    )
    assert status == 0, printed
    passed, refused = results["must-pass"], results["must-fail"]
    assert (passed["ok"], passed["status"]) == (refused["ok"], 200) == (True, 200)
    assert (refused["status"], refused["code"]) == (422, "invalid-signature")
    failed, minted, burned = records(broker)[before:]
    assert (failed["attempt"], minted["attempt"]) == (refused["attempt"], passed["attempt"])
    assert (burned["kind"], burned["token_id"]) == ("revocation", minted["token_id"])
    assert minted["narrowed_to"] == {"uses": 1}
    assert token_file.read_text().strip() not in printed
    assert "pypi-" not in printed
    text = file.read_text(encoding="ascii")
    assert value(text, "broker_probe_success", check="must-pass") == 1
    assert value(text, "broker_probe_success", check="must-fail") == 1
    assert value(text, "broker_probe_token_left") == 0
    assert 0 < value(text, "broker_probe_seconds", check="must-pass") < 60
    assert abs(value(text, "broker_probe_last_run_timestamp_seconds") - time.time()) < 60
    assert [path.name for path in tmp_path.iterdir() if "prom" in path.name] == ["broker.prom"]


def test_a_token_that_may_nothing_does_not_pass(
    served: tuple[FakeCI, servers.Served], token_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ci, broker = served
    token_file.write_text(ci.token(repository="mallory/widgets"), encoding="ascii")
    status, results, _ = asked(capsys, "--once", "--url", broker.url, "--token-file", str(token_file))
    assert status == 1
    assert results["must-fail"]["ok"] is True
    assert (results["must-pass"]["ok"], results["must-pass"]["code"]) == (False, "no-publisher")
    assert results["must-pass"]["problem"] == "no upload token was granted"


def test_it_goes_on_until_a_signal_and_ends_between_rounds(
    served: tuple[FakeCI, servers.Served], tmp_path: Path
) -> None:
    ci, broker = served
    job = tmp_path / "job.py"
    job.write_text(
        "import json, os, urllib.request\n"
        "url, token = (os.environ['ACTIONS_ID_TOKEN_REQUEST_' + name] for name in ('URL', 'TOKEN'))\n"
        "request = urllib.request.Request(url + '&audience=acme-index', headers={'Authorization': 'Bearer ' + token})\n"
        "print(json.load(urllib.request.urlopen(request))['value'])\n"
    )
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(job))}"
    environment = {**os.environ, **ci.start_run().environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [*servers.cli("probe", "--url", broker.url, "--token-command", command, "--every", "0.1")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(4)]
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
        lines += map(json.loads, rest.splitlines())
    assert process.returncode == 0
    assert len(lines) % 2 == 0
    assert all(line["ok"] for line in lines), lines
    told = records(broker)
    minted = {one["token_id"] for one in told if one["kind"] == "mint" and one["decision"] == "allowed"}
    assert minted == {one["token_id"] for one in told if one["kind"] == "revocation"}


def test_a_broker_that_is_down_is_told(token_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broker.prom"
    url = f"http://127.0.0.1:{free_port()}"
    status, results, _ = asked(
        capsys, "--once", "--url", url, "--token-file", str(token_file), "--metrics-file", str(file)
    )
    assert status == 1
    assert [results[check]["problem"] for check in ("must-fail", "must-pass")] == [
        "no answer: ConnectError: Connection refused"
    ] * 2
    assert value(file.read_text(), "broker_probe_success", check="must-pass") == 0


# --- Brokers that are wrong ------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Fake:
    """A server that answers as it is told, and remembers what it was asked."""

    status: int = 200
    mint: bytes = json.dumps({"success": True, "token": UPLOAD_TOKEN, "attempt": "x"}).encode()
    delay_seconds: float = 0.0
    burn_statuses: tuple[int, ...] = (202,)
    """Of one after another; the last one stays."""
    location: str = ""
    url: str = ""
    minted: list[str] = field(default_factory=list)
    burned: list[str] = field(default_factory=list)


@contextlib.contextmanager
def faking(fake: Fake) -> Iterator[Fake]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = b"{}"
            if self.path == "/_/oidc/burn-token":
                status = fake.burn_statuses[min(len(fake.burned), len(fake.burn_statuses) - 1)]
                fake.burned.append(told["token"])
            else:
                fake.minted.append(told["token"])
                status, body = fake.status, fake.mint
                time.sleep(fake.delay_seconds)
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Attempt-Id", UPLOAD_TOKEN)
            if fake.location:
                self.send_header("Location", fake.location)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield fake
        finally:
            server.shutdown()


def against(
    fake: Fake, token_file: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, dict[str, Any]]]:
    with faking(fake):
        status, results, printed = asked(capsys, "--once", "--url", fake.url, "--token-file", str(token_file), *more)
    assert UPLOAD_TOKEN not in printed
    assert token_file.read_text().strip() not in printed
    return status, results


def test_a_broker_that_grants_what_it_must_not_is_told_and_its_token_burned(
    token_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, results = against(fake := Fake(), token_file, capsys)
    assert status == 1
    assert results["must-pass"]["ok"] is True
    assert "broken signature was granted" in results["must-fail"]["problem"]
    assert fake.burned == [UPLOAD_TOKEN] * 2
    good = token_file.read_text().strip()
    assert fake.minted == [break_signature(good), good]


def test_a_token_in_an_answer_that_refuses_is_burned_too(token_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake(status=422, mint=json.dumps({"token": UPLOAD_TOKEN, "errors": [{"code": UPLOAD_TOKEN}]}).encode())
    status, results = against(fake, token_file, capsys)
    assert status == 1
    assert (results["must-fail"]["ok"], results["must-pass"]["ok"]) == (False, False)
    assert results["must-pass"]["code"] == "unknown"
    assert fake.burned == [UPLOAD_TOKEN] * 2


def test_a_slow_broker_is_told_and_its_late_token_burned(token_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, results = against(fake := Fake(delay_seconds=0.5), token_file, capsys, "--patience", "0.3")
    assert status == 1
    assert results["must-pass"]["problem"] == "the answer came too late"
    assert fake.burned == [UPLOAD_TOKEN] * 2


def test_a_broker_that_never_answers_is_given_up(
    token_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_checks, "LATE_SECONDS", 0.1)
    status, results = against(Fake(delay_seconds=1.0), token_file, capsys, "--patience", "0.1")
    assert status == 1
    assert results["must-pass"]["problem"] in {"no answer: TimeoutError", "no answer: ReadTimeout"}


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"token": 1}', b'{"token": ""}', b'{"errors": [], "token": null}', b"[" * 100_000],
)
def test_an_answer_without_a_token_does_not_pass(
    token_file: Path, capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    status, results = against(fake := Fake(mint=body), token_file, capsys)
    assert status == 1
    assert results["must-pass"]["problem"] == "no upload token was granted"
    assert results["must-fail"]["problem"] == "refused otherwise than with invalid-signature"
    assert fake.burned == []


def test_an_answer_without_an_end_does_not_pass(token_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, results = against(Fake(mint=b" " * (probe_checks.MOST_BYTES + 1)), token_file, capsys)
    assert status == 1
    assert results["must-pass"]["problem"] == "no answer: ValueError"


def test_a_token_is_not_sent_to_where_a_broker_points(token_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with faking(Fake()) as other:
        status, _ = against(Fake(status=307, mint=b"{}", location=f"{other.url}/_/oidc/mint-token"), token_file, capsys)
    assert (status, other.minted) == (1, [])


@pytest.mark.parametrize(("statuses", "left"), [((503, 0, 202), False), ((503,), True), ((0,), True)])
def test_burning_is_tried_again_and_a_token_that_is_left_is_told(
    token_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    statuses: tuple[int, ...],
    *,
    left: bool,
) -> None:
    monkeypatch.setattr(probe_checks, "BURN_PAUSE_SECONDS", 0.01)
    file = tmp_path / "x.prom"
    status, results = against(Fake(burn_statuses=statuses), token_file, capsys, "--metrics-file", str(file))
    assert status == 1  # that the broken signature was granted
    assert results["must-fail"].get("token_left", False) is left
    assert ("usable until its end" in results["must-fail"]["problem"]) is left
    assert results["must-pass"]["ok"] is not left
    assert value(file.read_text(), "broker_probe_token_left") == left


# --- What it is given ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--token-command", "exit 3"], "the token command ended with status 3"),
        (["--token-command", "echo nonsense"], "has not the form of one"),
        (["--token-command", "echo a.b.c"], "has not the form of one"),
        (["--token-command", "printf '\\377'"], "has not the form of one"),
        (["--token-command", "sleep 60 | sleep 60"], "did not end within"),
        (["--token-file", "/nowhere/at-all"], "the token file cannot be read: FileNotFoundError"),
    ],
)
def test_without_an_identity_token_both_checks_fail_and_nobody_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
) -> None:
    monkeypatch.setattr(probe, "COMMAND_SECONDS", 0.5)
    with faking(Fake()) as fake:
        status, results, _ = asked(capsys, "--once", "--url", fake.url, *arguments)
    assert status == 1
    assert problem in results["must-pass"]["problem"]
    assert results["must-pass"]["problem"] == results["must-fail"]["problem"]
    assert fake.minted == []


@pytest.mark.parametrize(
    "url",
    [
        *("http://upload.acme.example", "upload.acme.example", "https://", "ftp://127.0.0.1", "https://x/legacy/"),
        *("https://user:pass@x", "https://x?y", "https://[::1", "https://x#y"),
    ],
)
def test_an_identity_token_is_sent_to_https_or_this_machine_alone(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["probe", "--once", "--url", url, "--token-file", "x"])
    assert ended.value.code == 2
    assert "--url" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "soon"])
def test_a_time_is_some_seconds(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["probe", "--url", "https://x", "--token-file", "x", "--every", text])
    assert ended.value.code == 2
    assert "--every" in capsys.readouterr().err


def test_metrics_that_cannot_be_written_are_told(
    token_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nowhere" / "broker.prom"
    arguments = ["--url", f"http://127.0.0.1:{free_port()}", "--token-file", str(token_file)]
    assert main(["probe", "--once", *arguments, "--metrics-file", str(file)]) == 1
    assert "cannot be written (No such file or directory)" in capsys.readouterr().err


def test_a_broken_signature_differs_in_a_bit_and_in_nothing_else() -> None:
    token = FakeCI().token()
    broken = break_signature(token)
    assert broken.rpartition(".")[0] == token.rpartition(".")[0]
    assert broken != token
    assert break_signature(broken) == token
    assert is_identity_token(broken)
    assert not is_identity_token("a.b.c")  # a signature of no bytes cannot be broken


def test_metrics_are_for_everybody_to_read_as_the_umask_has_it(
    token_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.prom"
    against(Fake(), token_file, capsys, "--metrics-file", str(file))
    assert stat.S_IMODE(file.stat().st_mode) & 0o400
