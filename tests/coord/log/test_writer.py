"""Group commit: order, grouping, what is reported when, the end after a failed sync (R-J1, R-J2, R-J3)."""

import errno
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from coord.disk import DiskFault, FaultyDisk, PowerLossError, RealDisk
from coord.log import (
    Appended,
    DiskFullError,
    Finished,
    LogConfig,
    LogFailedError,
    LogQueueFullError,
    LogWriter,
    SegmentedLog,
    open_log,
)


def nobody() -> None:
    """A notify that nobody listens to."""


def stepped(
    disk: FaultyDisk, notify: Callable[[], None] = nobody, **config: int
) -> tuple[SegmentedLog, LogWriter]:
    source = random.Random(7)
    log = open_log(disk, "/log", "txn", config=LogConfig(**config), new_file_id=lambda: source.randbytes(16))
    return log, LogWriter(log, notify, threaded=False)


def tokens(items: list[Appended | Finished]) -> list[object]:
    return [item.token for item in items]


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


def test_what_waits_leaves_as_one_group_and_is_reported_after_it(disk: FaultyDisk) -> None:
    notified: list[int] = []
    log, writer = stepped(disk, lambda: notified.append(1))
    for number in range(3):
        writer.append((b"%d" % number, b"!"), number)
    assert writer.take_durable() == []
    assert writer.step()
    assert not writer.step()
    assert notified == [1]
    done = writer.take_durable()
    assert tokens(done) == [0, 1, 2]
    assert writer.groups == 1
    assert [log.read(*item[1:]) for item in done] == [b"0!", b"1!", b"2!"]


def test_groups_are_bounded_and_in_order(disk: FaultyDisk) -> None:
    log, writer = stepped(disk, group_bytes_max=1000)
    for number in range(10):
        writer.append((b"x" * 400,), number)
    reported = []
    while writer.step():
        group = tokens(writer.take_durable())
        assert len(group) == 2
        reported += group
    assert reported == list(range(10))
    writer.append((b"y" * 5000,), "larger than a group")
    assert writer.step()
    assert tokens(writer.take_durable()) == ["larger than a group"]
    assert len(list(log.scan())) == 11


def test_queued_bytes_count_until_taken_and_are_bounded(disk: FaultyDisk) -> None:
    log, _ = stepped(disk)
    writer = LogWriter(log, nobody, threaded=False, queue_bytes_max=100)
    writer.append((b"x" * 90,), 0)
    with pytest.raises(LogQueueFullError, match="90 bytes wait"):
        writer.append((b"x" * 20,), 1)
    writer.step()
    assert writer.queued_bytes == 90
    writer.take_durable()
    assert writer.queued_bytes == 0
    writer.append((b"x" * 20,), 2)
    writer.close()
    assert tokens(writer.take_durable()) == [2]


def test_a_record_above_the_limit_is_refused(disk: FaultyDisk) -> None:
    _, writer = stepped(disk, record_bytes_max=10)
    with pytest.raises(ValueError, match="a record of 11 bytes"):
        writer.append((b"x" * 11,), 0)


def test_an_operation_runs_between_what_was_appended_before_and_after(disk: FaultyDisk) -> None:
    log, writer = stepped(disk)
    writer.append((b"a",), "a")
    writer.submit(log.rotate, "rotated")
    writer.append((b"b",), "b")
    while writer.step():
        pass
    first, rotated, last = writer.take_durable()
    assert isinstance(first, Appended)
    assert rotated == Finished("rotated", 2)
    assert isinstance(last, Appended)
    assert (first.segment, last.segment) == (1, 2)


def test_a_failed_sync_is_final_and_nothing_of_its_group_is_reported(disk: FaultyDisk) -> None:
    """R-J1, R-J3."""
    notified: list[int] = []
    _, writer = stepped(disk, lambda: notified.append(1), group_bytes_max=1)
    writer.append((b"a",), "a")
    writer.step()
    disk.faults.append(DiskFault("fdatasync", errno.EIO))
    writer.append((b"b",), "b")
    writer.append((b"c",), "c")
    assert not writer.step()
    assert not writer.step()
    assert tokens(writer.take_durable()) == ["a"]
    assert isinstance(writer.failure, OSError)
    assert writer.failure.errno == errno.EIO
    assert len(notified) == 2
    with pytest.raises(LogFailedError, match="has failed"):
        writer.append((b"d",), "d")
    with pytest.raises(LogFailedError):
        writer.submit(nobody, "e")


def test_no_space_is_a_failure_with_a_clear_error(disk: FaultyDisk) -> None:
    _, writer = stepped(disk, free_bytes_min=0)
    disk.capacity_bytes = 2000
    writer.append((b"x" * 4000,), 0)
    assert not writer.step()
    assert "No space left on device" in str(writer.failure)


def test_a_nearly_full_disk_refuses_appends_and_takes_them_again_later(disk: FaultyDisk) -> None:
    log, writer = stepped(disk, free_bytes_min=1 << 20)
    writer.append((b"a",), "a")
    writer.step()
    writer.append((b"x" * (20 << 20),), "b")
    disk.capacity_bytes = 21 << 20
    writer.step()
    with pytest.raises(DiskFullError, match="less than 1048576 bytes are free"):
        writer.append((b"c",), "c")
    assert writer.disk_is_full()
    assert [len(record.payload) for record in log.scan()] == [1, 20 << 20]
    disk.capacity_bytes = 1 << 30
    writer.append((b"d",), "d")
    assert writer.step()
    assert tokens(writer.take_durable()) == ["a", "b", "d"]


def test_a_power_loss_at_any_change_loses_nothing_reported(disk: FaultyDisk) -> None:
    for seed in range(150):
        source = random.Random(seed)
        disk = FaultyDisk()
        reported: list[object] = []
        appended = 0
        disk.power_off_after(source.randrange(60))
        try:
            log, writer = stepped(disk, segment_bytes_max=3000, group_bytes_max=900, zero_ahead_bytes=1024)
        except PowerLossError:
            continue
        while writer.failure is None and appended < 60:
            for _ in range(source.randrange(5)):
                writer.append((b"%06d" % appended * source.randrange(1, 80),), appended)
                appended += 1
            writer.step()
            reported += tokens(writer.take_durable())
        disk.restart(source)
        log, _ = stepped(disk)
        found = [int(record.payload[:6]) for record in log.scan()]
        assert found == list(range(len(found))), f"seed {seed}"
        assert len(found) >= len(reported), f"seed {seed}"


def test_the_thread_reports_in_order_and_closes_after_the_last(tmp_path: Path) -> None:
    notified = threading.Semaphore(0)
    log = open_log(RealDisk(), str(tmp_path), "txn", config=LogConfig(segment_bytes_max=20_000))
    writer = LogWriter(log, notified.release)
    count = 500
    for number in range(count):
        writer.append((b"%d" % number, b"-" * 100), number)
    done: list[Appended | Finished] = []
    while len(done) < count:
        assert notified.acquire(timeout=60)
        done += writer.take_durable()
    assert tokens(done) == list(range(count))
    assert all(log.read(*item[1:]) == b"%d" % item.token + b"-" * 100 for item in done)
    writer.append((b"last",), "last")
    writer.submit(log.rotate, "rotated")
    writer.close()
    writer.close()
    assert tokens(writer.take_durable()) == ["last", "rotated"]
    assert len(list(log.scan())) == count + 1
    log.close()


def test_the_thread_reports_a_failure_and_ends() -> None:
    disk = FaultyDisk()
    log = open_log(disk, "/log", "txn")
    notified = threading.Semaphore(0)
    writer = LogWriter(log, notified.release)
    disk.faults.append(DiskFault("fdatasync", errno.EIO))
    writer.append((b"a",), "a")
    assert notified.acquire(timeout=60)
    assert writer.failure is not None
    assert writer.take_durable() == []
    writer.close()


class Watched:
    """A log whose writes are noted with the thread that made them, and take as long as `group_ns` says."""

    def __init__(self, directory: Path) -> None:
        self.group_ns = 1_000_000
        self._now_ns = 0
        self.threads: list[int] = []
        self.log = open_log(RealDisk(), str(directory), "txn", config=LogConfig())
        write_group = self.log.write_group

        def write(lengths: Sequence[int], parts: Sequence[bytes]) -> tuple[int, int]:
            self.threads.append(threading.get_ident())
            self._now_ns += self.group_ns
            return write_group(lengths, parts)

        self.log.write_group = write  # type: ignore[method-assign]
        self.reported = threading.Event()
        self.writer = LogWriter(self.log, self.reported.set, clock_ns=lambda: self._now_ns)
        self.writer.defer()

    def append(self, token: object, size: int = 10) -> bool:
        """Appends and writes; True when it was written in this thread, else waits until it is written."""
        self.writer.append((b"x" * size,), token)
        self.reported.clear()
        if self.writer.write():
            assert tokens(self.writer.take_durable()) == [token]
            return True
        done: list[object] = []
        while not done:
            assert self.reported.wait(60)
            self.reported.clear()
            done = tokens(self.writer.take_durable())
        assert done == [token]
        return False

    def append_until_here(self) -> None:
        assert any(self.append(f"until {number}") for number in range(10_000))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path / "log")
    yield made
    made.writer.close()
    made.log.close()


def test_deferred_appends_wait_for_write(watched: Watched) -> None:
    watched.writer.append((b"a",), "a")
    watched.writer.append((b"b",), "b")
    assert watched.writer.queued_bytes == 2
    assert watched.threads == []
    watched.writer.close()
    assert tokens(watched.writer.take_durable()) == ["a", "b"]


def test_a_quick_disk_is_written_by_the_loop_and_a_slow_one_by_the_thread(watched: Watched) -> None:
    here = threading.get_ident()
    watched.append_until_here()
    assert len([thread for thread in watched.threads if thread != here]) >= 16
    watched.group_ns = 50_000_000
    slow = 0
    while watched.append(f"slow {slow}"):
        slow += 1  # after the first of them; more only while the thread has not put its work down
    assert slow <= 1
    watched.group_ns = 1_000_000
    for number in range(16):
        assert not watched.append(f"quick again {number}")
    watched.append_until_here()


def test_the_loop_leaves_large_groups_to_the_thread(watched: Watched) -> None:
    watched.append_until_here()
    assert not watched.append("large", size=(64 << 10) + 1)


def test_an_operation_comes_after_what_was_deferred_before_it(watched: Watched) -> None:
    watched.append_until_here()
    watched.writer.append((b"a",), "a")
    watched.writer.submit(watched.log.rotate, "rotated")
    watched.writer.append((b"b",), "b")
    watched.writer.close()
    first, rotated, last = watched.writer.take_durable()
    assert isinstance(first, Appended)
    assert isinstance(rotated, Finished)
    assert isinstance(last, Appended)
    assert (first.token, rotated.token, last.token) == ("a", "rotated", "b")
    assert last.segment == first.segment + 1


def test_a_write_by_the_loop_that_fails_is_final(watched: Watched) -> None:
    """R-J3."""
    watched.append_until_here()

    def fail(lengths: Sequence[int], parts: Sequence[bytes]) -> tuple[int, int]:
        raise OSError(errno.EIO, "injected")

    watched.log.write_group = fail  # type: ignore[method-assign]
    watched.writer.append((b"a",), "a")
    while not watched.writer.write() and watched.writer.failure is None:
        watched.reported.wait(60)  # the thread had not put its work down
    assert isinstance(watched.writer.failure, OSError)
    assert watched.writer.take_durable() == []
    with pytest.raises(LogFailedError):
        watched.writer.append((b"b",), "b")
