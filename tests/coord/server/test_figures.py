"""Metrics with ZooKeeper's names: how they are printed, and that they move (specification 18, 22.9 J96)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from coord.metrics import WINDOW_MS, Summary
from coord.server.figures import families, quota_figures, selected, spread
from coord.server.meters import Meters
from coord.server.metricnames import ADVANCED, BASIC, KEYED_COUNTER, KEYED_GAUGE, METRICS
from coord.server.metrictable import page_with_table
from coord.server.statistics import ServerStatistics
from tests.coord.server.operated import ask, operated
from tests.coord.server.stage import Stage
from tests.coord.server.wire_client import (
    CREATE,
    GET_DATA,
    SET_DATA,
    Wire,
    create,
    request,
    set_data,
    watched,
)
from tests.coord.tree.machine import Machine

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    async with operated(tmp_path) as port:
        yield port


def summary(*values: int) -> Summary:
    made = Summary()
    for value in values:
        made.record(value)
    return made


class Page:
    """What `generate_latest` wants of a registry."""

    def __init__(self, found: list[Family]) -> None:
        self.found = found

    def collect(self) -> list[Family]:
        return self.found


def samples(found: list[Family]) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(Page(found))  # type: ignore[arg-type]
    return {
        sample.name + "".join(f"|{key}={value}" for key, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


async def monitored(port: int) -> dict[str, str]:
    pairs = (line.split("\t") for line in (await ask(port, b"mntr")).decode().splitlines())
    return {name.removeprefix("zk_"): value for name, value in pairs}


def test_a_summary_is_five_lines_of_mntr_and_nine_with_percentiles_18_1() -> None:
    lines = spread({"fsynctime": summary(1, 2, 4), "readlatency": summary(7)})
    assert lines == {
        "avg_readlatency": 7.0,
        "min_readlatency": 7,
        "max_readlatency": 7,
        "cnt_readlatency": 1,
        "sum_readlatency": 7,
        "p50_readlatency": 7,
        "p95_readlatency": 7,
        "p99_readlatency": 7,
        "p999_readlatency": 7,
        "avg_fsynctime": 2.3333,
        "min_fsynctime": 1,
        "max_fsynctime": 4,
        "cnt_fsynctime": 3,
        "sum_fsynctime": 7,
    }


def test_prometheus_gets_names_without_prefix_and_suffix_18_1() -> None:
    found = samples(list(families({"znode_count": 5, "commit_count": 9, "fsynctime": summary(3)})))
    assert found == {
        "znode_count": 5,
        "commit_count": 9,
        "fsynctime|quantile=0.5": 3,
        "fsynctime_count": 1,
        "fsynctime_sum": 3,
    }


def test_an_advanced_summary_has_the_quantiles_of_39_18_1() -> None:
    found = samples(list(families({"readlatency": summary(3)})))
    assert [name for name in found if "quantile" in name] == (
        [f"readlatency|quantile={fraction}" for fraction in (0.5, 0.9, 0.99)]
    )


def test_a_page_can_be_of_some_names_only_18_1() -> None:
    values = {"znode_count": 5, "commit_count": 9, "fsynctime": summary(3)}
    found = selected(families(values), frozenset({"commit_count", "fsynctime_sum"}))
    assert [family.name for family in found] == ["commit_count", "fsynctime"]
    assert len(list(selected(families(values), frozenset()))) == 3


def test_every_summary_has_a_meter_and_no_name_stands_twice() -> None:
    assert list(Meters().summaries) == [one.name for one in METRICS if one.kind in (BASIC, ADVANCED)]
    assert len({one.name for one in METRICS}) == len(METRICS)


def test_the_page_about_metrics_has_the_table() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert page == page_with_table(page), "run python -m coord.server.metrictable docs/metrics.md"


def test_a_figure_by_namespace_has_the_name_in_front_or_as_a_label_18_1() -> None:
    values = {"quota_count_limit_per_namespace": {"app": 10}, "quota_exceeded_error_per_namespace": {"b": 2}}
    lines = {"app_quota_count_limit_per_namespace": 10, "b_quota_exceeded_error_per_namespace": 2}
    assert spread(values) == lines
    assert samples(list(families(values))) == {
        "quota_count_limit_per_namespace|key=app": 10,
        "quota_exceeded_error_per_namespace|key=b": 2,
    }


def test_hard_quotas_are_figures_by_the_first_name_of_their_paths_18_1() -> None:
    machine = Machine()
    limits = b"count=-1,bytes=-1=;byteHardLimit=1000;countHardLimit=10"
    codes = [machine.create(path) for path in ("/app", "/app/a", "/other", "/zookeeper/quota/app")]
    codes += [machine.create(f"/zookeeper/quota/{path}") for path in ("app/a", "other")]
    codes += [
        machine.create(f"/zookeeper/quota/{path}/zookeeper_limits", data)
        for path, data in (("app/a", limits), ("other", b"count=5,bytes=-1"))
    ]
    codes.append(machine.create("/zookeeper/quota/app/a/zookeeper_stats", b"count=1,bytes=0"))
    codes += [machine.create("/app/a/b", b"1234"), machine.create("/app/a/c")]
    assert codes == [0] * len(codes)
    found = quota_figures(machine.tree)
    assert found["quota_count_limit_per_namespace"] == {"app": 10}
    assert found["quota_bytes_limit_per_namespace"] == {"app": 1000}
    assert found["quota_count_usage_per_namespace"] == {"app": 3}
    assert found["quota_bytes_usage_per_namespace"] == {"app": 4}


def test_reads_behind_a_write_take_as_long_as_its_block_and_others_no_time() -> None:
    meters, statistics = Meters(), ServerStatistics()
    statistics.reads = 10
    statistics.note_latency(5, 40)
    statistics.note_reads_behind(2, 40)
    meters.note_reads_behind(2, 40)
    for _ in range(2):
        meters.note_reads(statistics.reads - 1)  # one still waits
    found = meters.summaries["readlatency"]
    assert (found.count, found.total, found.min, found.max) == (9, 80, 0, 40)
    assert found.quantiles((0.5, 0.99)) == (0, 40)
    assert statistics.latency_ms_average == (5 + 2) * 40 / 15
    assert statistics.latency_ms_max == 40


def test_reads_are_noted_with_the_block_that_they_stood_behind() -> None:
    stage = Stage()
    client = stage.session()
    stage.reads_behind.clear()
    read = request(4, GET_DATA, watched(b"/"))
    client.say(request(1, CREATE, create(b"/a")), read, read, request(2, CREATE, create(b"/b")), read)
    client.say(read)
    assert stage.reads_behind == []
    stage.execute()
    client.say(read)
    client.say(request(3, CREATE, create(b"/c")))
    stage.execute()
    assert sum(stage.reads_behind) == 4
    assert stage.reads_behind[-1] == 0
    assert stage.statistics.reads == 5


def test_windows_of_metrics_are_rotated_once() -> None:
    """`quorum_ack_latency` and `proposal_latency` are one."""
    meters = Meters()
    meters.note_executed(1, 7, proposed_here=True)
    meters.rotate(0)
    meters.rotate(WINDOW_MS)
    for name in ("proposal_latency", "quorum_ack_latency", "propagation_latency"):
        assert meters.summaries[name].quantile(0.5) == 7


async def test_a_standalone_server_has_every_metric_that_is_not_of_ensembles(port: int) -> None:
    found = await monitored(port)
    for metric in METRICS:
        if metric.kind in (KEYED_GAUGE, KEYED_COUNTER):
            continue  # there while there are quotas
        name = f"cnt_{metric.name}" if metric.kind in (BASIC, ADVANCED) else metric.name
        assert (name in found) == (not metric.where), metric


async def test_metrics_move_with_traffic(port: int) -> None:
    async with await Wire.session(port) as wire:
        await wire.call(1, CREATE, create(b"/a", b"x"))
        await wire.call(2, GET_DATA, watched(b"/a", watch=True))
        before = await monitored(port)
        await wire.call(3, GET_DATA, watched(b"/a"))
        async with await Wire.session(port) as other:
            await other.call(1, SET_DATA, set_data(b"/a", b"y"))
        after = await monitored(port)
    assert int(after["cnt_readlatency"]) == int(before["cnt_readlatency"]) + 1
    for name in (
        *("cnt_updatelatency", "cnt_fsynctime", "bytes_received_count", "response_bytes", "watch_bytes"),
        *(
            "cnt_node_changed_watch_count",
            "commit_count",
            "proposal_count",
            "cnt_propagation_latency",
            "connection_request_count",
        ),
    ):
        assert int(after[name]) > int(before[name]), name
