"""A log that takes nothing any more ends the process with its own status, whoever notices first."""

from collections.abc import Callable
from typing import NoReturn

import pytest

from coord.disk import FaultyDisk
from coord.log import LogConfig, open_log
from coord.server import durable
from coord.server.durable import DurableLog
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
