"""The dashboard and the alert rules ask for metrics, labels and values that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.metrics.catalogue import BY_NAME, LABELS

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))

RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]

WORDS = {"sum", "max", "count", "by", "on", "and", "or", "vector", "time", "rate", "increase", "histogram_quantile"}
"""Of PromQL, those that are used here."""
OTHERS = {"up"}
"""What Prometheus itself records."""
OF_PROMETHEUS = {"instance", "job", "le"}
"""Labels that are not the broker's."""


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", [])


EXPRESSIONS = [
    *(rule["expr"] for rule in RULES),
    *(target["expr"] for panel in panels() for target in panel.get("targets", [])),
]


def plain(expression: str) -> str:
    """Without what stands in braces, brackets, quotes, and after `by` and `on`."""
    return re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|on) *\([^)]*\)|\"[^\"]*\"", " ", expression)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_that_is_asked_for_exists(expression: str) -> None:
    named = set(re.findall(r"\b[a-z_][a-z0-9_]*", plain(expression))) - WORDS
    assert named
    for name in named - OTHERS:
        series = re.fullmatch(r"(.*)_(bucket|sum|count)", name)
        if series is not None and series[1] in BY_NAME:
            assert BY_NAME[series[1]].type == "histogram"
        else:
            assert BY_NAME[name].type != "histogram"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_label_is_the_metric_s_and_every_value_one_that_it_can_have(expression: str) -> None:
    for name, matchers in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
        metric = BY_NAME.get(name) or BY_NAME.get(name.rpartition("_")[0])
        for label, values in re.findall(r"(\w+)=~?\"([^\"]*)\"", matchers):
            if label in OF_PROMETHEUS:
                continue
            assert metric is not None
            assert label in metric.labels
            assert set(values.split("|")) <= set(LABELS[label])
    for labels in re.findall(r"\b(?:by|on) *\(([^)]*)\)", expression):
        assert {one.strip() for one in labels.split(",")} <= {*LABELS, *OF_PROMETHEUS}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "action"}


def test_alerts_that_the_how_to_names_exist() -> None:
    text = (DEPLOY.parent / "docs" / "how-to" / "watch-it.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(Broker\w+)`", text)) <= {rule["alert"] for rule in RULES}


def test_the_dashboard_s_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
