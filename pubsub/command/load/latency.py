"""Latencies in bounded memory: a histogram whose buckets are 0.2 % wide.

Every request counts, also with millions of them; generators hand in runs of requests that took equally long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

#: A bucket's number has this many leading bits of the latency in microseconds.
PRECISION_BITS = 9


class Latencies:
    """Counts by latency; merges with those of other processes."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def add(self, seconds: float, count: int = 1) -> None:
        """`count` requests took `seconds` each."""
        us = int(seconds * 1e6)
        shift = max(0, us.bit_length() - PRECISION_BITS)
        bucket = us >> shift << shift
        self.counts[bucket] = self.counts.get(bucket, 0) + count

    def merge(self, other: "Latencies") -> None:
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def quantile_ms(self, quantile: float) -> float | None:
        """The smallest latency that at least `quantile` of all requests kept, in ms; None without any."""
        wanted, seen = quantile * self.total, 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return bucket / 1000
        return None

    def facts(self) -> dict[str, float | None]:
        """p50, p99, p99.9 and the largest, in milliseconds."""
        return {
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "p99_9_ms": self.quantile_ms(0.999),
            "max_ms": max(self.counts) / 1000 if self.counts else None,
        }


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one generator measured.

    Attributes:
        seconds: how long it measured.
        completed, errors: requests, entries or messages within that time; errors are not among `completed`.
        generator_cpu: processor seconds a second of the generator itself; near 1 it was the limit.
        all: completed before, within and after the measurement.
        latencies: microseconds → how many took so long.
    """

    seconds: float
    completed: int
    errors: int
    generator_cpu: float
    all: int = 0
    latencies: dict[int, int] = field(default_factory=dict)
