"""A log that takes nothing any more ends the process with its own status, whoever notices first."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from coord.disk import FaultyDisk, RealDisk
from coord.log import LogConfig, open_log
from coord.server import durable
from coord.server.durable import DurableLog, LogReport
from coord.server.persistence import Persistence
from coord.storage import TxnLog
from coord.zab import Proposal


class StoppedError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the process was stopped for."""
    reasons: list[str] = []

    def fail_stop(error: BaseException, what: str) -> NoReturn:
        reasons.append(type(error).__name__)
        raise StoppedError

    monkeypatch.setattr(durable, "fail_stop", fail_stop)
    return reasons


def make_log(disk: FaultyDisk) -> DurableLog:
    disk.make_directory("/log")
    opened = open_log(disk, "/log", "txn", config=LogConfig(free_bytes_min=0))
    txn_log = TxnLog(opened, lambda: None, starts={}, last_zxid=0, threaded=False)
    return DurableLog(txn_log, lambda reports: None)


@pytest.mark.parametrize("is_under_way", [False, True])
def test_beside_a_checkpoint_the_loop_leaves_the_log_to_its_thread(
    tmp_path: Path, is_under_way: bool
) -> None:
    """The disk was quick, but the checkpoint's pages are on their way to it too."""
    reported = threading.Event()
    opened = open_log(RealDisk(), str(tmp_path / "log"), "txn", config=LogConfig(free_bytes_min=0))
    txn_log = TxnLog(opened, reported.set, starts={}, last_zxid=0)
    txn_log.writer._quick_groups = 1000
    reports: list[LogReport] = []
    log = DurableLog(txn_log, reports.extend)
    server = SimpleNamespace(log=log, checkpoints=SimpleNamespace(is_under_way=is_under_way))
    log.append(Proposal(1, 1, b"batch"), 0)
    assert Persistence.write_log(server) is not is_under_way  # type: ignore[arg-type]
    if is_under_way:
        assert reported.wait(60)
        log.on_log_report()
    assert [report.zxid for report in reports] == [1]
    log.close()


@pytest.mark.parametrize(
    "order",
    [
        lambda log: log.append(Proposal(2, 2, b"batch"), 1),
        lambda log: log.truncate_above(1),
        lambda log: log.mark_committed(1),
    ],
)
def test_an_order_behind_an_unreported_failure_stops_the_process(
    stopped: list[str], order: Callable[[DurableLog], None]
) -> None:
    log = make_log(FaultyDisk())
    log.txn_log.writer.failure = OSError(5, "Input/output error")
    with pytest.raises(StoppedError):
        order(log)
    assert stopped == ["LogFailedError"]


def test_so_does_a_batch_that_finds_the_disk_full(stopped: list[str]) -> None:
    """Committed elsewhere it will be, and this server cannot have it: better gone than behind for ever."""
    log = make_log(FaultyDisk(capacity_bytes=1 << 20))
    log.txn_log.writer._disk_is_full = True
    log.txn_log.writer._log.config = LogConfig(free_bytes_min=1 << 30)
    with pytest.raises(StoppedError):
        log.append(Proposal(1, 1, b"batch"), 0)
    assert stopped == ["DiskFullError"]
