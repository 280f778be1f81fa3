"""The values of all metrics with ZooKeeper's names, taken when somebody asks: `mntr`, the admin server's
`monitor`, and the page for Prometheus are three ways to print them (specification 16.10, 18).
"""

import os
import resource
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.metrics_core import UnknownMetricFamily

from coord.metrics import Summary
from coord.server.metricnames import ADVANCED, COUNTER, METRICS

NODE_COUNT_OFFSET: Final = 1
"""ZooKeeper counts the root twice (specification 13)."""
PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}
QUANTILES: Final = (0.5, 0.9, 0.99)
"""Those of the Prometheus provider of 3.9; a basic summary has the first."""

Values = Mapping[str, int | float | Summary]
"""By the names in `METRICS`; what a server does not have is missing."""


def descriptor_figures() -> dict[str, int]:
    return {
        "open_file_descriptor_count": len(os.listdir("/proc/self/fd")),
        "max_file_descriptor_count": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def spread(values: Values) -> dict[str, int | float]:
    """As `mntr` prints them: each summary in five or nine lines, everything in the order of `METRICS`."""
    lines: dict[str, int | float] = {}
    for metric in METRICS:
        value = values.get(metric.name)
        if value is None:
            continue
        if not isinstance(value, Summary):
            lines[metric.name] = value
            continue
        average = value.total / value.count if value.count else 0.0
        lines |= {
            f"avg_{metric.name}": round(average, 4),
            f"min_{metric.name}": value.min,
            f"max_{metric.name}": value.max,
            f"cnt_{metric.name}": value.count,
            f"sum_{metric.name}": value.total,
        }
        if metric.kind == ADVANCED:
            found = value.quantiles(tuple(PERCENTILES.values()))
            lines |= {f"{name}_{metric.name}": one for name, one in zip(PERCENTILES, found, strict=True)}
    return lines


def families(values: Values) -> Iterator[Family]:
    """As the Prometheus provider has them: names without a prefix, counters without a `_total`."""
    for metric in METRICS:
        value = values.get(metric.name)
        if value is None:
            continue
        if isinstance(value, Summary):
            family = SummaryMetricFamily(metric.name, metric.meaning)
            fractions = QUANTILES if metric.kind == ADVANCED else QUANTILES[:1]
            for fraction, one in zip(fractions, value.quantiles(fractions), strict=True):
                family.add_sample(metric.name, {"quantile": str(fraction)}, one)
            family.add_metric([], value.count, value.total)
            yield family
        elif metric.kind == COUNTER:
            yield UnknownMetricFamily(metric.name, metric.meaning, value)
        else:
            yield GaugeMetricFamily(metric.name, metric.meaning, value)


def selected(found: Iterable[Family], names: frozenset[str]) -> Iterator[Family]:
    """Only families that have a sample of one of these names; all without any (`?name[]=x`)."""
    for family in found:
        if not names or family.name in names or any(sample.name in names for sample in family.samples):
            yield family
