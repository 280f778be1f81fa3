"""The values of all metrics with ZooKeeper's names, taken when somebody asks: `mntr`, the admin server's
`monitor`, and the page for Prometheus are three ways to print them (specification 16.10, 18).
"""

import os
import resource
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.metrics_core import UnknownMetricFamily

from coord.metrics import Summary
from coord.server.metricnames import ADVANCED, COUNTER, KEYED_COUNTER, METRICS, Metric
from coord.tree import DataTree

NODE_COUNT_OFFSET: Final = 1
"""ZooKeeper counts the root twice (specification 13)."""
PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}
QUANTILES: Final = (0.5, 0.9, 0.99)
"""Those of the Prometheus provider of 3.9; a basic summary has the first."""

Value = int | float | Summary | Mapping[str, int]
Values = Mapping[str, Value]
"""By the names in `METRICS`; what a server does not have is missing. Values of a metric by namespace have its
names as keys.
"""
NAMESPACES_MAX: Final = 1000
"""Quotas that are looked at for metrics by namespace."""


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
        if isinstance(value, Mapping):
            lines |= {f"{key}_{metric.name}": one for key, one in value.items()}
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
        elif isinstance(value, Mapping):
            yield _keyed(metric, value)
        elif metric.kind == COUNTER:
            yield UnknownMetricFamily(metric.name, metric.meaning, value)
        else:
            yield GaugeMetricFamily(metric.name, metric.meaning, value)


def _keyed(metric: Metric, values: Mapping[str, int]) -> Family:
    make = UnknownMetricFamily if metric.kind == KEYED_COUNTER else GaugeMetricFamily
    family = make(metric.name, metric.meaning, labels=["key"])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def quota_figures(tree: DataTree) -> dict[str, dict[str, int]]:
    """What hard quotas allow and what is used, by the first name of their paths (specification 12, 18.1)."""
    found: dict[str, dict[str, int]] = {}
    for quota in islice(tree.quotas.values(), NAMESPACES_MAX):
        limits_node, stats_node = tree.nodes.get(quota.limits_path), tree.nodes.get(quota.stats_path)
        limits = None if limits_node is None else quota.limits(limits_node.data)
        usage = None if stats_node is None else quota.usage(stats_node.data)
        if limits is None or usage is None:
            continue
        namespace = quota.path.split(b"/", 2)[1].decode("utf-8", "replace")
        for what, limit, used in (
            ("count", limits.count_hard, usage.count),
            ("bytes", limits.size_hard, usage.size),
        ):
            if limit >= 0:
                for kind, value in (("limit", limit), ("usage", used)):
                    values = found.setdefault(f"quota_{what}_{kind}_per_namespace", {})
                    values[namespace] = values.get(namespace, 0) + value
    return found


def selected(found: Iterable[Family], names: frozenset[str]) -> Iterator[Family]:
    """Only families that have a sample of one of these names; all without any (`?name[]=x`)."""
    for family in found:
        if not names or family.name in names or any(sample.name in names for sample in family.samples):
            yield family
