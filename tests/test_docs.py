"""The pages are true: generated ones are current, links lead somewhere, and each code and setting they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from broker import refusals
from broker.settings import PREFIX, Settings, secret_names

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
NAMED = sorted([*PAGES, *filter(Path.is_file, ROOT.glob("deploy/*")), ROOT / "Dockerfile"])

SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields} | {"BROKER_ENV_FILE"}
SETTINGS |= {f"{PREFIX}{name.upper()}_FILE" for name in secret_names()}


def test_generated_pages_are_current() -> None:
    told = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)]
    missing = [target for target in targets if target and "://" not in target and not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", NAMED, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_are_named_exist(page: Path) -> None:
    named = set(re.findall(r"\bBROKER_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
    assert named - SETTINGS == set()


def test_the_changelog_names_the_version_or_what_is_unreleased() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## Unreleased$", text, re.MULTILINE)


def test_the_compose_file_keeps_the_registry_and_the_state_to_the_broker() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    services, networks = compose["services"], compose["networks"]
    for name, network in (("pypiserver", "registry"), ("redis", "state")):
        assert services[name]["networks"] == [network]
        assert networks[network]["internal"] is True
        assert "ports" not in services[name]
        others = [other for other, service in services.items() if network in service["networks"]]
        assert sorted(others) == sorted(["broker", name])
    assert services["broker"]["read_only"] is True
    assert "password" not in str(services["broker"]["environment"]["BROKER_REGISTRY_PASSWORD_FILE"]).replace(
        "/run/secrets/registry_password", ""
    )


def test_every_refusal_s_remedy_and_paragraph_are_sentences() -> None:
    for refusal in refusals.every():
        assert refusal.title().endswith("."), refusal
        assert refusal.remedy.endswith((".", "...`.")), refusal
