"""Writes the reference pages that come from the code, or with `--check` says which are not current.

python docs/generate.py [--check]
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from broker import refusals
from broker.alerts.kinds import KINDS as ALERTS
from broker.alerts.receivers import ReceiverShape
from broker.alerts.rules import BURST_REFUSALS, BURST_REFUSALS_OF_THE_INDEX, BURST_SECONDS, OF_CODES
from broker.metrics.catalogue import BOUNDS_SECONDS, LABELS, METRICS, PROBE_METRICS, Metric
from broker.policy.schemas import SCHEMAS, Schema
from broker.policy.warnings import WEAKNESSES
from broker.providers import PROVIDERS, Kind, Provider
from broker.providers.base import NumberedMember, UuidMember
from broker.registries import RegistryShape
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
        "unknown `BROKER_*` name is an error, and nothing starts. The verbs that work beside a broker (`tokens`,",
        "`disable`, `revoke`, `audit` ...) find its state, policies and files by the same settings, and leave others.",
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
    lines += [
        "",
        f"Secrets can also be read from files: {files}.",
        "",
        "Of the environment's other variables, `SSL_CERT_FILE` counts: authorities, in place of the system's, by which",
        "issuers, registries and alerts' receivers are verified. `HTTPS_PROXY`, `ALL_PROXY` and `.netrc` are ignored",
        "([how to reach them](../how-to/run-in-front-of-a-registry.md#reach-issuers-and-the-registry)).",
        "",
    ]
    return "\n".join(lines)


SETTINGS_OF_ONE = {
    "path": "upload_path",
    "url": "registry_url",
    "index_url": "registry_index_url",
    "username": "registry_username",
    "password_file": "registry_password_file",
    "bearer_file": "registry_bearer_token_file",
    "timeout": "registry_timeout_seconds",
    "fallback_index": "fallback_index_url",
}
"""Fields of the file -> the setting of a single registry, where it has another name."""


def registries_file_page() -> str:
    """One row a field of a registry in the file."""
    lines = [
        "# The file of several registries",
        "",
        "Generated from `broker/registries.py` by `make docs`. What a registry may say in the file that",
        "`BROKER_REGISTRIES` names ([how to](../how-to/several-registries.md)), below `registries:` and its name; and",
        "the setting that says the same where there is one registry alone. Files are found from this file's folder. A",
        "duration is written `90s`, `15m` or `1h`.",
        "",
        "| field | default | meaning | setting |",
        "|---|---|---|---|",
    ]
    settings = {*Settings.model_fields, *(f"{name}_file" for name in secret_names())}
    for name, field in RegistryShape.model_fields.items():
        default = f"`{field.default}s`" if name == "timeout" else _default(field)
        setting = SETTINGS_OF_ONE.get(name, name)
        shown = f"`{PREFIX}{setting.upper()}`" if setting in settings and name != "public_url" else ""
        lines.append(f"| `{name}` | {default} | {_meaning(field)} | {shown} |")
    return "\n".join([*lines, ""])


MEMBER_IDS = {NumberedMember: "numbers, in quotes", UuidMember: "UUIDs, in lower case"}
KINDS = {Kind.NAME: "name", Kind.ID: "id", Kind.CONDITION: "condition"}


def providers_page() -> str:
    """One section a provider: where its tokens come from, and what a publisher may say of them."""
    lines = [
        "# Providers",
        "",
        "Generated from `broker/providers/` by `make docs`. What `provider` may be for an issuer in `index.yaml`,",
        "and what publishers say beside `issuer`, `projects`, `downloads` and `until`, which all have. A *name* must",
        "be stated. Each *id* must be stated too, unless `pin: first-use` records it. A *condition* that is left out",
        "asks nothing, but for its default.",
        "",
    ]
    for provider in PROVIDERS.values():
        lines += _provider_section(provider)
    return "\n".join(lines)


def _provider_section(provider: Provider) -> Iterator[str]:
    module = inspect.getmodule(provider.trust)
    title, _, about = (inspect.getdoc(module) or "").partition("\n")
    form = None if provider.url_form is None else provider.url_form.example
    url = f"`{provider.issuer}`" if provider.issuer else f"each operator's own, as `{form}`" if form else "any"
    yield from (f"## `{provider.name}`", "", title, "")
    if about.strip():
        yield from (about.strip(), "")
    yield f"- `url`: {url}"
    yield f"- members' ids: {MEMBER_IDS.get(provider.member_id, 'what the declared claim says, in quotes')}"
    yield f"- `replay`: `{provider.replay}`; `longest_token`: {provider.longest_token_seconds} s"
    yield ""
    if provider.declaration is not None:
        yield from ("What `claims` in `index.yaml` declares:", "", "| field | default | meaning |", "|---|---|---|")
        for name, field in provider.declaration.model_fields.items():
            yield f"| `{name}` | {_default(field)} | {_meaning(field)} |"
        yield from ("", "What a publisher says:", "")
    kinds = {rule.field: KINDS[rule.kind] for rule in provider.trust.rules}
    yield from ("| field | is a | default | meaning |", "|---|---|---|---|")
    for name, field in provider.trust.model_fields.items():
        if name not in {"issuer", "pin"}:
            default = "**needed**, or `pin`" if kinds.get(name) == "id" else _default(field)
            yield f"| `{name}` | {kinds.get(name, 'mapping')} | {default} | {_meaning(field)} |"
    yield ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    plain: Any = list(field.default) if isinstance(field.default, tuple) else field.default
    shown = str(plain).lower() if isinstance(plain, bool) else str(plain).replace("'", "")
    return "" if plain in (None, []) else f"`{shown}`"


def _meaning(field: FieldInfo) -> str:
    """A field's own description, or its type's."""
    parts = (notes for part in get_args(field.annotation) for notes in getattr(part, "__metadata__", ()))
    told = (one.description for one in (field, *parts) if isinstance(one, FieldInfo))
    return next(filter(None, told), "")


def warnings_page() -> str:
    """One paragraph a kind of weakness."""
    lines = [
        "# Warnings",
        "",
        "Generated from `broker/policy/warnings.py` by `make docs`. `broker check` tells what loads and is weak: the",
        "policies are in force all the same. With `--strict` a warning fails; `--allow CODE` passes over a kind.",
        "",
    ]
    for one in WEAKNESSES:
        lines += [f"## `{one.code}`", "", f"{one.about} {one.remedy}", ""]
    return "\n".join(lines)


WORKERS = {"sum": "their sum", "largest": "the largest", "smallest": "the smallest"}


def metrics_page() -> str:
    """One row a metric, and one a label with all that it can be."""
    lines = [
        "# Metrics",
        "",
        "Generated from `broker/metrics/catalogue.py` by `make docs`. `/metrics` tells them, in Prometheus's text",
        "format, to whoever may read them ([how to](../how-to/watch-it.md)). Of several workers, it tells what the",
        "third column says; of several replicas, each tells its own.",
        "",
        "| metric | type | of workers | labels | meaning |",
        "|---|---|---|---|---|",
        *map(_metric_row, METRICS),
        "",
        f"The histograms' bounds, in seconds: {', '.join(f'{bound:g}' for bound in BOUNDS_SECONDS)}.",
        "",
        "## Labels",
        "",
        "No label's value is ever taken from a token or a request: each is one of these, or a name of the operator's.",
        "None names an organization, a publisher, a project or a person; audit records do.",
        "",
        "| label | values |",
        "|---|---|",
    ]
    lines += [f"| `{label}` | {', '.join(map(_label_value, values))} |" for label, values in LABELS.items()]
    lines += [
        "",
        "`code` is one of the [refusals](refusals.md).",
        "",
        "## Of `broker probe`",
        "",
        "What `broker probe --metrics-file` writes, for node_exporter's textfile collector.",
        "",
        "| metric | type | of workers | labels | meaning |",
        "|---|---|---|---|---|",
        *map(_metric_row, PROBE_METRICS),
        "",
    ]
    return "\n".join(lines)


def _metric_row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    workers = "" if metric in PROBE_METRICS else WORKERS[metric.of_workers]
    return f"| `{metric.name}` | {metric.type} | {workers} | {labels} | {metric.meaning} |"


def _label_value(value: str) -> str:
    return value if " " in value or "'" in value else f"`{value}`"


WHOSE = {"organization": "the organization", "operator": "the operator", "both": "both"}


def alerts_page() -> str:
    """One row a kind of alert, and one a field of a receiver in the file."""
    lines = [
        "# Alerts",
        "",
        "Generated from `broker/alerts/` by `make docs`. What receivers are told ([how to](../how-to/alerts.md)), by",
        "the alert's `type`. Repeats with the same subject within the quiet time are counted, and the next alert tells",
        "how many in `held_back`.",
        "",
        "| type | to | what it says | repeats are of | quiet |",
        "|---|---|---|---|---|",
    ]
    for kind in ALERTS:
        quiet = f"{kind.quiet_seconds // 3600} h" if kind.quiet_seconds else ""
        lines.append(f"| `{kind.code}` | {WHOSE[kind.to]} | {kind.message} | {kind.subject} | {quiet} |")
    lines += [
        "",
        "What is the organization's goes to the receivers that name it in `organizations`; what is the operator's, to",
        "those with `index: true`. These [refusals](refusals.md) are alerts by themselves, where an organization is",
        "known (`registry-credential` always):",
        "",
        "| type | codes |",
        "|---|---|",
    ]
    for kind in ALERTS:
        if codes := [f"`{code}`" for code, of in OF_CODES.items() if of == kind.code]:
            lines.append(f"| `{kind.code}` | {', '.join(codes)} |")
    lines += [
        "",
        f"A burst is {BURST_REFUSALS} refusals, whatever their codes, of one organization or of one publisher within",
        f"{BURST_SECONDS // 60} minutes; or {BURST_REFUSALS_OF_THE_INDEX} of attempts at which no organization was",
        "found.",
        "",
        "## What counts as new",
        "",
        "The first token that a publisher earns is one `first-use`, whatever is new with it. Later, each of these is",
        "compared with all that the publisher was used with in the last 400 days:",
        "",
        "- `new-actor`: the issuer's name and the actor's immutable id.",
        "- `new-ref`: the ref up to its first digit. `refs/tags/v1.2.3` is `refs/tags/v*`, `refs/heads/main` is",
        "  itself, and any bare commit is `commit`: tags and commits differ at each release.",
        "- `new-workflow`: the workflow's file (GitLab: `ci_config`), and a reusable workflow with its ref, shortened",
        "  likewise; where that is pinned by commit, the commit. The commit of a workflow in the source's own",
        "  repository is the release's own, and is not compared.",
        "- `new-runner`: the kind of runner, such as `self-hosted`, where the provider tells it.",
        "",
        "Records from before alerts were first configured teach what is known, and alert nobody.",
        "",
        "## A receiver in the file",
        "",
        "Below `receivers:` and its name. Files are found from this file's folder. A duration is written `90s`, `15m`",
        "or `1h`.",
        "",
        "| field | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in ReceiverShape.model_fields.items():
        default = "`30m`" if name == "longest_pause" else _default(field)
        lines.append(f"| `{name}` | {default} | {_meaning(field)} |")
    return "\n".join([*lines, ""])


def schema_file(make: Callable[[], Schema]) -> str:
    """What `broker schema` prints."""
    return json.dumps(make(), indent=2) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "alerts.md": alerts_page,
    "metrics.md": metrics_page,
    "providers.md": providers_page,
    "refusals.md": refusals_page,
    "registries-file.md": registries_file_page,
    "settings.md": settings_page,
    "warnings.md": warnings_page,
    **{f"schemas/{kind}.schema.json": partial(schema_file, make) for kind, make in SCHEMAS.items()},
}


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
