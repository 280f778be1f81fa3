"""Counters that cost an addition, and their exposition.

A hot path holds the object and counts in plain ints (`requests.value += 1`, `latency_us.record(n)`); names,
help and labels are only looked at when somebody asks. Everything is touched by the loop's thread alone.

    registry = Registry()
    requests = registry.counter("requests_total", "Requests answered")
    latency_us = registry.summary("request_us", "Time from read to reply")
    registry.gauge("connections", "Open connections", lambda: reactor.statistics().connections)
    text = registry.exposition()
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric

QUANTILES = (0.5, 0.99, 0.999)

WINDOW_MS = 60_000
"""Quantiles are over the last one to two of these; counts and sums are since the start."""

SUB_BUCKET_BITS = 5
"""2 to this power buckets for each doubling: a quantile is at most 1/32, about 3 %, above the truth."""

VALUE_BITS_MAX = 48
"""Larger values are counted as the largest: 2^48 microseconds are nine years."""

_SUB_BUCKETS = 1 << SUB_BUCKET_BITS
_VALUE_MAX = (1 << VALUE_BITS_MAX) - 1
_BUCKETS = (VALUE_BITS_MAX - SUB_BUCKET_BITS + 1) << SUB_BUCKET_BITS

Labels = Mapping[str, str]

NO_LABELS: Labels = MappingProxyType({})


class Counter:
    """Only grows: `counter.value += n`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Gauge:
    """Goes up and down: `gauge.value = n`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Summary:
    """The distribution of many whole numbers of at least 0, in bounded memory (11 KB a window).

    Buckets grow with the value, as in an HDR histogram: exact below 32, then 32 buckets for each doubling.
    """

    __slots__ = ("_least", "_now", "_past", "count", "max", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.max = 0
        self._least = _VALUE_MAX
        self._now = [0] * _BUCKETS
        self._past = [0] * _BUCKETS

    def record(self, value: int) -> None:
        """Count one value. Below 0 counts as 0, above 2^48 as that."""
        if value < _SUB_BUCKETS:
            index = value if value > 0 else 0
        else:
            if value > _VALUE_MAX:
                value = _VALUE_MAX
            shift = value.bit_length() - SUB_BUCKET_BITS - 1
            index = (shift << SUB_BUCKET_BITS) + (value >> shift)
        self._now[index] += 1
        self.count += 1
        self.total += value
        if value > self.max:
            self.max = value
        if value < self._least:
            self._least = value if value > 0 else 0

    @property
    def min(self) -> int:
        """The smallest value since the start; 0 if there were none."""
        return self._least if self.count else 0

    def record_many(self, value: int, times: int) -> None:
        """Count one value `times` times: a batch whose members all took as long."""
        if times > 0:
            self.record(value)
            value = min(max(value, 0), _VALUE_MAX)
            self._now[_bucket(value)] += times - 1
            self.count += times - 1
            self.total += value * (times - 1)

    def quantile(self, fraction: float) -> int:
        """The least value that `fraction` of the last one to two windows did not exceed; 0 if there were
        none."""
        return self.quantiles((fraction,))[0]

    def quantiles(self, fractions: tuple[float, ...] = QUANTILES) -> tuple[int, ...]:
        """`quantile` for several ascending fractions in one pass."""
        counts = list(map(int.__add__, self._now, self._past))
        population = sum(counts)
        if not population:
            return (0,) * len(fractions)
        found: list[int] = []
        seen = 0
        buckets = enumerate(counts)
        index = 0
        for fraction in fractions:
            rank = max(1, min(population, -int(-population * fraction // 1)))
            while seen < rank:
                index, count = next(buckets)
                seen += count
            found.append(min(_upper(index), self.max))
        return tuple(found)

    def rotate(self) -> None:
        """Begin a window; the one before the last is forgotten."""
        self._now, self._past = self._past, self._now
        self._now[:] = [0] * _BUCKETS


def _bucket(value: int) -> int:
    if value < _SUB_BUCKETS:
        return value
    shift = value.bit_length() - SUB_BUCKET_BITS - 1
    return (shift << SUB_BUCKET_BITS) + (value >> shift)


def _upper(index: int) -> int:
    """The largest value of a bucket."""
    if index < 2 * _SUB_BUCKETS:
        return index
    shift = (index >> SUB_BUCKET_BITS) - 1
    return (((index & (_SUB_BUCKETS - 1)) + _SUB_BUCKETS + 1) << shift) - 1


class _Entry:
    """A metric's name, help, labels and where its value is."""

    __slots__ = ("help", "labels", "name", "read", "source")

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Labels,
        source: "Counter | Gauge | Summary",
        read: Callable[[], float] | None = None,
    ) -> None:
        self.name = name
        self.help = help_text
        self.labels = dict(labels)
        self.source = source
        self.read = read


class Registry:
    """The metrics of one server.

    Args:
        prefix: put before every name, such as "zoolog_coord_".
    """

    def __init__(self, prefix: str = "zoolog_") -> None:
        self._prefix = prefix
        self._entries: dict[tuple[str, tuple[tuple[str, str], ...]], _Entry] = {}
        self._rotated_ms: int | None = None
        self._exposed = CollectorRegistry()
        self._exposed.register(_Collector(self))

    def counter(
        self, name: str, help_text: str, read: Callable[[], int] | None = None, *, labels: Labels = NO_LABELS
    ) -> Counter:
        """A counter; with `read` its value is asked for instead of counted here."""
        counter = Counter()
        self._add(_Entry(name, help_text, labels, counter, read))
        return counter

    def gauge(
        self,
        name: str,
        help_text: str,
        read: Callable[[], float] | None = None,
        *,
        labels: Labels = NO_LABELS,
    ) -> Gauge:
        """A gauge; with `read` its value is asked for instead of set."""
        gauge = Gauge()
        self._add(_Entry(name, help_text, labels, gauge, read))
        return gauge

    def summary(self, name: str, help_text: str, *, labels: Labels = NO_LABELS) -> Summary:
        """A summary; its name ends in the unit (`_us`, `_bytes`)."""
        summary = Summary()
        self._add(_Entry(name, help_text, labels, summary))
        return summary

    def rotate(self, now_ms: int) -> None:
        """Let summaries forget what is older than two windows. Called now and then (`looplag` does)."""
        if self._rotated_ms is None:
            self._rotated_ms = now_ms
        elif now_ms - self._rotated_ms >= WINDOW_MS:
            self._rotated_ms = now_ms
            for entry in self._entries.values():
                if isinstance(entry.source, Summary):
                    entry.source.rotate()

    def snapshot(self) -> dict[str, float]:
        """All values by name (labels as `name{key="value"}`); a summary gives name_count, _sum, _max and
        _p50…"""
        values: dict[str, float] = {}
        for entry in self._entries.values():
            labels = ",".join(f'{key}="{value}"' for key, value in entry.labels.items())
            suffix = f"{{{labels}}}" if labels else ""
            if isinstance(entry.source, Summary):
                summary = entry.source
                values[f"{entry.name}_count{suffix}"] = summary.count
                values[f"{entry.name}_sum{suffix}"] = summary.total
                values[f"{entry.name}_max{suffix}"] = summary.max
                for fraction, value in zip(QUANTILES, summary.quantiles(), strict=True):
                    values[f"{entry.name}_p{f'{fraction * 100:g}'.replace('.', '')}{suffix}"] = value
            else:
                values[entry.name + suffix] = entry.read() if entry.read else entry.source.value
        return values

    def exposition(self) -> bytes:
        """The text format that Prometheus reads."""
        return generate_latest(self._exposed)

    def collect(self) -> Iterator[Metric]:
        """The same as families of the prometheus client, for other expositions of its."""
        families: dict[str, Metric] = {}
        for entry in self._entries.values():
            family = families.get(entry.name)
            if family is None:
                family = families[entry.name] = self._family(entry)
            _add_sample(family, entry)
        yield from families.values()

    def _family(self, entry: _Entry) -> Metric:
        name, names = self._prefix + entry.name, list(entry.labels)
        match entry.source:
            case Counter():
                return CounterMetricFamily(name, entry.help, labels=names)
            case Gauge():
                return GaugeMetricFamily(name, entry.help, labels=names)
            case Summary():
                return SummaryMetricFamily(name, entry.help, labels=names)

    def _add(self, entry: _Entry) -> None:
        key = (entry.name, tuple(sorted(entry.labels.items())))
        if key in self._entries:
            raise ValueError(f"metric {entry.name} with labels {entry.labels} exists already")
        self._entries[key] = entry


class _Collector:
    """What the prometheus client asks; apart from Registry so that registering it asks for nothing."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        return self._registry.collect()


def _add_sample(family: Metric, entry: _Entry) -> None:
    labels = list(entry.labels.values())
    if isinstance(family, SummaryMetricFamily) and isinstance(entry.source, Summary):
        summary = entry.source
        for fraction, value in zip(QUANTILES, summary.quantiles(), strict=True):
            family.add_sample(family.name, {**entry.labels, "quantile": f"{fraction:g}"}, value)
        family.add_metric(labels, summary.count, summary.total)
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily) and not isinstance(
        entry.source, Summary
    ):
        family.add_metric(labels, entry.read() if entry.read else entry.source.value)
