"""Writes the reference pages that come from the code, or with `--check` says which are not current.

python docs/generate.py [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pydantic import SecretStr

from broker import refusals
from broker.settings import PREFIX, Settings, secret_names

REFERENCE = Path(__file__).parent / "reference"

FLAGS = {"policies": "--policies", "state_url": "--state", "host": "--host", "port": "--port", "workers": "--workers"}


def refusals_page() -> str:
    """One paragraph a refusal, under the headings of `broker/refusals.py`."""
    source = Path(refusals.__file__).read_text(encoding="utf-8")
    lines = [
        "# Refusals",
        "",
        "Generated from `broker/refusals.py` by `make docs`. Each way to say no has one code; the answer carries it in",
        "`errors[].code`, with the attempt's id in `attempt` and in the header `Attempt-Id`.",
        "",
    ]
    by_name = {one.__name__: one for one in refusals.every()}
    for heading, name in re.findall(r"^# --- (.+?) -+$|^class (\w+)\(Refusal\)", source, re.MULTILINE):
        if heading:
            lines += [f"## {heading}", ""]
        else:
            one = by_name[name]
            lines += [f"### `{one.code}` ({one.status})", "", f"{one.title()} {one.remedy}", ""]
    return "\n".join(lines)


def settings_page() -> str:
    """One row a setting."""
    lines = [
        "# Settings",
        "",
        "Generated from `broker/settings.py` by `make docs`. `broker serve` reads them from the environment, or from",
        "the file that `--env-file` or `BROKER_ENV_FILE` names; flags override the environment, and that the file. An",
        "unknown `BROKER_*` name is an error, and nothing starts.",
        "",
        "| setting | flag | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = "**needed**" if field.is_required() else f"`{default}`" if default not in {None, ""} else ""
        flag = f"`{FLAGS[name]}`" if name in FLAGS else ""
        lines.append(f"| `{PREFIX}{name.upper()}` | {flag} | {shown} | {field.description} |")
    files = ", ".join(f"`{PREFIX}{name.upper()}_FILE`" for name in secret_names())
    lines += ["", f"Secrets can also be read from files: {files}.", ""]
    return "\n".join(lines)


PAGES = {"refusals.md": refusals_page, "settings.md": settings_page}


def main() -> int:
    """Writes the pages, or compares them."""
    stale = []
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"not current: {', '.join(stale)}; run: make docs")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
