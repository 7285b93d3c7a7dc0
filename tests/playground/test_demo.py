"""The demo shows the main job, and fails where anything went otherwise than it must."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator

import pytest

from broker.playground.claims import MALLORY
from broker.playground.demo import Demo, SurpriseError
from broker.playground.packages import Uv
from broker.playground.page import Page
from broker.playground.processes import CHECKOUT
from broker.playground.session import Playground


@pytest.fixture(name="demo")
def _demo() -> Iterator[Demo]:
    with Playground() as playground:
        yield Demo(playground=playground, page=Page(io.StringIO()), uv=Uv.find(playground.folder / "home"))


def test_the_demo_passes_and_shows_each_refusal_with_its_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "broker", "playground", "--demo"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    refused = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("no ")]
    assert [line.rpartition(": ")[2] for line in refused] == ["unknown-actor", "no-publisher", "unknown-actor"]
    assert "All went as it must" in done.stdout
    assert len(done.stdout.splitlines()) <= 45, "short"
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert "\033" not in done.stdout
    assert "pypi-" not in done.stdout, "no token is shown"


def test_a_publication_that_fails_fails_the_demo_without_showing_the_token(demo: Demo) -> None:
    demo.playground.set_members(["bob", "carol"])
    with pytest.raises(SurpriseError, match="uv could not publish") as surprise:
        demo.run()
    assert "unknown-actor" in str(surprise.value)


def test_a_file_that_the_registry_has_otherwise_fails_the_demo(demo: Demo) -> None:
    (demo.playground.registry.packages / "acme_widgets-0.9.0-py3-none-any.whl").write_bytes(b"other")
    with pytest.raises(SurpriseError, match="the registry lists"):
        demo.run()


def test_a_file_that_the_registry_does_not_list_fails_the_demo(demo: Demo) -> None:
    (demo.playground.registry.packages / "unlisted").write_bytes(b"other")
    with pytest.raises(SurpriseError, match="the registry stores"):
        demo.run()


def test_a_record_too_many_fails_the_demo(demo: Demo) -> None:
    with demo.playground.client() as client:
        client.post("/_/oidc/mint-token", json={"token": demo.playground.ci.token("github", **MALLORY.on_github)})
    with pytest.raises(SurpriseError, match="the audit records are"):
        demo.run()


def test_another_refusal_than_the_expected_one_fails_the_demo(demo: Demo) -> None:
    release = demo._build("1.0.0")
    outcome = demo._as_run(release, MALLORY, "release.yml")
    with pytest.raises(SurpriseError, match="does not show the code no-publisher"):
        demo._must_refuse(outcome, "no-publisher", "mallory")
    with pytest.raises(SurpriseError, match="mallory got no upload token"):
        demo._mint(MALLORY)
