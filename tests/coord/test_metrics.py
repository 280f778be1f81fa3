"""Counters, the log-bucket summary, and what Prometheus reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from coord import metrics
from coord.metrics import Registry, Summary


def samples(registry: Registry) -> dict[str, float]:
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(registry.exposition().decode())
        for sample in family.samples
    }


@given(
    st.lists(st.integers(0, 1 << 40), min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.999, 1])
)
def test_a_quantile_is_exact_to_a_thirty_second(values: list[int], fraction: float) -> None:
    summary = Summary()
    for value in values:
        summary.record(value)
    ordered = sorted(values)
    truth = ordered[max(1, -int(-len(values) * fraction // 1)) - 1]
    assert truth <= summary.quantile(fraction) <= truth + truth // 32 + 1


def test_small_values_are_exact() -> None:
    summary = Summary()
    for value in range(1, 11):
        summary.record(value)
    assert summary.quantiles((0.1, 0.5, 1.0)) == (1, 5, 10)


def test_an_empty_summary_has_zeros() -> None:
    assert Summary().quantiles() == (0, 0, 0)


def test_values_out_of_range_are_taken_for_the_nearest_one() -> None:
    summary = Summary()
    summary.record(-5)
    summary.record(1 << 60)
    assert summary.quantile(0.5) == 0
    assert summary.quantile(1.0) == (1 << metrics.VALUE_BITS_MAX) - 1


def test_many_of_a_value_count_as_so_many() -> None:
    one_by_one, at_once = Summary(), Summary()
    for _ in range(7):
        one_by_one.record(1000)
    at_once.record_many(1000, 7)
    at_once.record_many(1000, 0)
    assert (one_by_one.count, one_by_one.total) == (at_once.count, at_once.total)
    assert one_by_one.quantiles() == at_once.quantiles()


def test_memory_does_not_grow_with_values() -> None:
    summary = Summary()
    buckets = len(summary._now)
    for value in range(10_000):
        summary.record(value * value)
    assert len(summary._now) == buckets


def test_quantiles_forget_after_two_windows_and_counts_never() -> None:
    registry = Registry()
    summary = registry.summary("request_us", "Time of a request")
    registry.rotate(0)
    summary.record(100)
    registry.rotate(metrics.WINDOW_MS - 1)
    registry.rotate(metrics.WINDOW_MS)
    assert summary.quantile(0.5) > 0
    registry.rotate(2 * metrics.WINDOW_MS)
    assert summary.quantile(0.5) == 0
    assert (summary.count, summary.total) == (1, 100)


def test_the_exposition_parses_and_says_what_was_counted() -> None:
    registry = Registry("zoolog_test_")
    registry.counter("requests_total", "Requests").value += 3
    registry.gauge("connections", "Connections", lambda: 5)
    registry.gauge("free_bytes", "Free bytes").value = 1.5
    summary = registry.summary("request_us", "Time of a request")
    for value in (10, 10, 30):
        summary.record(value)
    assert samples(registry) == {
        "zoolog_test_requests_total": 3,
        "zoolog_test_connections": 5,
        "zoolog_test_free_bytes": 1.5,
        "zoolog_test_request_us quantile=0.5": 10,
        "zoolog_test_request_us quantile=0.99": 30,
        "zoolog_test_request_us quantile=0.999": 30,
        "zoolog_test_request_us_count": 3,
        "zoolog_test_request_us_sum": 50,
    }


def test_labels_make_one_family_of_several_metrics() -> None:
    registry = Registry("")
    registry.counter("ops_total", "Operations", labels={"op": "read"}).value = 1
    registry.counter("ops_total", "Operations", labels={"op": "write"}).value = 2
    assert samples(registry) == {"ops_total op=read": 1, "ops_total op=write": 2}
    assert registry.exposition().count(b"# TYPE ops_total counter") == 1


def test_a_metric_exists_once() -> None:
    registry = Registry()
    registry.counter("ops_total", "Operations")
    with pytest.raises(ValueError, match="exists already"):
        registry.counter("ops_total", "Operations")


def test_a_snapshot_is_flat() -> None:
    registry = Registry()
    registry.counter("ops_total", "Operations", labels={"op": "read"}).value = 4
    registry.summary("request_us", "Time of a request").record(7)
    assert registry.snapshot() == {
        'ops_total{op="read"}': 4,
        "request_us_count": 1,
        "request_us_sum": 7,
        "request_us_max": 7,
        "request_us_p50": 7,
        "request_us_p99": 7,
        "request_us_p999": 7,
    }
