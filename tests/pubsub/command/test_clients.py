"""The client commands and `zoolog bench` against one small cluster."""

import json
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.coord_servers import ROOT, wait_for
from tests.pubsub.command.clusters import COMMAND, END_SECONDS_MAX, up, zoolog

pytestmark = [pytest.mark.crash, pytest.mark.slow]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = Path(tmp_path_factory.mktemp("clients")) / "c"
    with up(directory, "--coord", "1", "--bookies", "3", "--hubs", "1") as cluster:
        yield cluster.hosts


def test_lines_written_to_a_ledger_come_back(hosts: str, tmp_path: Path) -> None:
    lines = "".join(f"line {number}\n" for number in range(1000))
    file = tmp_path / "lines"
    file.write_text(lines + "no newline at the end")
    ledger = zoolog("ledger", "write", str(file), "--coord", hosts).strip()
    assert zoolog("ledger", "--coord", hosts, "read", ledger) == lines + "no newline at the end\n"
    assert (
        zoolog("ledger", "read", ledger, "--first", "3", "--last", "4", "--coord", hosts)
        == "line 3\nline 4\n"
    )
    info = json.loads(zoolog("ledger", "info", ledger, "--json", "--coord", hosts))
    assert (info["state"], info["last_entry"], info["ack_quorum"]) == ("closed", 1000, 2)
    assert ledger in zoolog("ledger", "list", "--coord", hosts).split()
    assert zoolog("ledger", "recover", ledger, "--coord", hosts) == "1000\n"
    zoolog("ledger", "delete", ledger, "--coord", hosts)
    zoolog("ledger", "read", ledger, "--coord", hosts, status=1)


def test_bytes_written_in_chunks_come_back_as_they_were(hosts: str, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(100_000)
    file = tmp_path / "bytes"
    file.write_bytes(data)
    ledger = zoolog("ledger", "write", str(file), "--chunk", "1000", "--coord", hosts).strip()
    info = json.loads(zoolog("ledger", "info", ledger, "--json", "--coord", hosts))
    assert (info["last_entry"], info["length"]) == (99, 100_000)
    zoolog("ledger", "delete", ledger, "--coord", hosts)


def test_messages_published_are_received_once_and_remembered(hosts: str) -> None:
    zoolog("topic", "create", "lines", "--coord", hosts)
    text = "".join(f"message {number}\n" for number in range(500))
    zoolog("publish", "lines", "--coord", hosts, data=text.encode())
    take = ("subscribe", "lines", "--id", "a", "--from", "earliest", "--coord", hosts)
    assert zoolog(*take, "--count", "200") == "".join(text.splitlines(keepends=True)[:200])
    assert zoolog(*take, "--count", "300") == "".join(text.splitlines(keepends=True)[200:])
    info = json.loads(zoolog("topic", "info", "lines", "--json", "--coord", hosts))
    assert (info["topic"], info["last_seq_id"]) == ("lines", 500)
    (subscription,) = info["subscriptions"]
    assert (subscription["id"], subscription["consumed"], subscription["backlog"]) == ("a", 500, 0)
    assert zoolog("topic", "list", "--coord", hosts) == "lines\n"
    zoolog("topic", "delete", "lines", "--coord", hosts, status=1)
    zoolog("topic", "delete", "lines", "--force", "--coord", hosts)
    assert zoolog("topic", "list", "--coord", hosts) == ""


def test_a_line_is_published_when_it_is_written_and_ctrl_c_ends_the_waiting(hosts: str) -> None:
    zoolog("topic", "create", "slow", "--coord", hosts)
    process = subprocess.Popen(
        [*COMMAND, "publish", "slow", "--coord", hosts],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(b"early\n")
        process.stdin.flush()
        info = ("topic", "info", "slow", "--json", "--coord", hosts)
        wait_for(lambda: json.loads(zoolog(*info))["last_seq_id"] == 1, "the line is published")
        process.send_signal(signal.SIGINT)
        assert process.wait(END_SECONDS_MAX) == 130
    finally:
        process.kill()
        process.communicate()
    zoolog("topic", "delete", "slow", "--coord", hosts)


@pytest.mark.parametrize("command", [["topic", "info", "none"], ["ledger", "info", "123456"]])
def test_what_is_not_there_is_one_line(hosts: str, command: list[str]) -> None:
    zoolog(*command, "--coord", hosts, status=1)


WARM_UP = ("--warm-up", "0.2")
SHORT = (*WARM_UP, "--duration", "0.5")
LONGER = (*WARM_UP, "--duration", "5")


def bench(*arguments: str) -> dict[str, Any]:
    """Its facts. A busy machine may do nothing in a short time: then they are those of a longer one."""
    for times in (SHORT, LONGER):
        facts: dict[str, Any] = json.loads(zoolog("bench", *arguments, *times, "--json"))
        if all(row["completed"] for row in facts["results"]):
            break
    return facts


@pytest.mark.parametrize("ratio", ["0", "0.5", "1"])
def test_bench_coord(hosts: str, ratio: str) -> None:
    options = ("--clients", "3", "--outstanding", "5", "--size", "200", "--read-ratio", ratio)
    facts = bench("coord", "--coord", hosts, *options)
    (row,) = facts["results"]
    assert row["per_second"] > 0
    assert row["errors"] == 0
    assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["p99_9_ms"] <= row["max_ms"]
    assert facts["settings"]["clients"] == 3
    assert "zoolog-bench" not in zoolog("zk", "ls", "/", "--coord", hosts)


def test_bench_ledger(hosts: str) -> None:
    before = zoolog("ledger", "list", "--coord", hosts)
    facts = bench("ledger", "--coord", hosts, "--clients", "2", "--batch", "10")
    (row,) = facts["results"]
    assert row["per_second"] > 0
    assert row["errors"] == 0
    assert zoolog("ledger", "list", "--coord", hosts) == before


def test_bench_pubsub(hosts: str) -> None:
    options = ("--subscribers", "2", "--batch", "50", "--outstanding", "2")
    before = zoolog("topic", "list", "--coord", hosts)
    facts = bench("pubsub", "--coord", hosts, *options)
    assert [row["name"] for row in facts["results"]] == ["published", "delivered", "delivered"]
    assert all(row["per_second"] > 0 and row["errors"] == row["lost"] == 0 for row in facts["results"])
    assert zoolog("topic", "list", "--coord", hosts) == before


def test_bench_prints_a_table(hosts: str) -> None:
    text = zoolog("bench", "coord", "--coord", hosts, *SHORT, "--clients", "1")
    assert "per second" in text
    assert "requests" in text


def test_bench_of_what_cannot_be_is_one_line(hosts: str) -> None:
    zoolog("bench", "ledger", "--coord", hosts, "--ensemble", "9", "--write-quorum", "9", *SHORT, status=1)
