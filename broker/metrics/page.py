"""A sheet as text, in the format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from broker.metrics.catalogue import BOUNDS_SECONDS, Metric
from broker.metrics.sheets import Sheet

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
"""The one that every Prometheus reads; nothing is negotiated."""

_BOUNDS: Final = (*(str(bound) for bound in BOUNDS_SECONDS), "+Inf")


def page(sheet: Sheet, metrics: Iterable[Metric]) -> bytes:
    """The figures of these metrics, with their meanings."""
    registry = CollectorRegistry()
    registry.register(_Families([_family(metric, sheet) for metric in metrics]))
    return generate_latest(registry)


class _Families(Collector):
    """What prometheus-client is given, in the place of its own counters (ADR 32)."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        yield from self._families


def _family(metric: Metric, sheet: Sheet) -> Family:
    if metric.type == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for (name, *labels), (total, *counts) in sheet.spreads.items():
            if name == metric.name:
                histogram.add_metric(labels, [*_cumulative(counts)], total)
        return histogram
    kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    for (name, *labels), value in sheet.values.items():
        if name == metric.name:
            family.add_metric(labels, value)
    return family


def _cumulative(counts: Iterable[float]) -> Iterator[tuple[str, float]]:
    so_far = 0.0
    for bound, count in zip(_BOUNDS, counts, strict=True):
        so_far += count
        yield bound, so_far
