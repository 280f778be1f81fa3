"""The transaction log: batches whole and in order, marks, truncation, removal, and every kind of crash."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord.disk import FaultyDisk
from coord.log import LogDamagedError, open_log
from coord.storage import LoggedBatch, TxnLogGapError
from coord.storage.txnlog import KIND_BATCH, KIND_MARK, decode_record, encode_record_header

U64 = st.integers(0, (1 << 64) - 1)
EPOCH = 1 << 32


def zxids(batches: object) -> list[tuple[int, int]]:
    return [(batch.first, batch.last) for batch in batches]  # type: ignore[attr-defined]


@given(U64, U64, U64, U64, st.binary(max_size=20))
def test_records_survive_both_directions_or_are_refused(
    committed: int, previous: int, first: int, last: int, payload: bytes
) -> None:
    data = encode_record_header(KIND_BATCH, committed, previous, first, last) + payload
    if previous < first <= last:
        expected = LoggedBatch(KIND_BATCH, committed, previous, first, last, payload)
        assert decode_record(data, "f", 0) == expected
    else:
        with pytest.raises(LogDamagedError, match="not a transaction record"):
            decode_record(data, "f", 0)


def test_bytes_that_are_no_record_are_damage_at_their_place() -> None:
    mark = encode_record_header(KIND_MARK, 9, 5, 5, 5)
    assert decode_record(mark, "f", 7).kind == KIND_MARK
    for bad in (b"", mark[:39], mark + b"x", b"\3" + mark[1:], mark[:1] + b"\1" + mark[2:]):
        with pytest.raises(LogDamagedError) as damage:
            decode_record(bad, "f", 7)
        assert (damage.value.path, damage.value.offset) == ("f", 7)


def test_batches_become_durable_in_order_and_are_read_back(
    disk: FaultyDisk, server: Callable[..., object]
) -> None:
    log = server(disk).log
    log.append(1, 3, (b"a", b"b"), 0, "one")
    log.append(4, 4, (b"c",), 3, "two")
    log.append(EPOCH + 1, EPOCH + 2, (b"d",), 4, "three")
    assert (log.last_zxid, log.durable_zxid) == (EPOCH + 2, 0)
    log.writer.step()
    assert log.take_durable() == ["one", "two", "three"]
    assert log.durable_zxid == EPOCH + 2
    batches = list(log.batches_above(0))
    assert [batch.payload for batch in batches] == [b"ab", b"c", b"d"]
    assert [batch.committed for batch in batches] == [0, 3, 4]
    assert zxids(log.batches_above(3)) == [(4, 4), (EPOCH + 1, EPOCH + 2)]
    assert log.appended_bytes == 4


@pytest.mark.parametrize(("first", "last"), [(3, 4), (5, 4), (2, 2)])
def test_zxids_only_rise(disk: FaultyDisk, server: Callable[..., object], first: int, last: int) -> None:
    log = server(disk).log
    log.append(1, 3, (b"a",), 0, None)
    with pytest.raises(ValueError, match="expected zxids above 0x3"):
        log.append(first, last, (b"b",), 0, None)


def test_truncation_drops_what_is_above_also_within_a_group(
    disk: FaultyDisk, server: Callable[..., object]
) -> None:
    running = server(disk)
    for zxid in range(1, 6):
        running.append(zxid)
    running.step()
    running.append(6)
    running.step()
    running.log.truncate_above(3, "cut")
    running.step()
    assert running.log.take_durable()[-1] == "cut"
    assert (running.log.last_zxid, running.log.durable_zxid) == (3, 3)
    running.append(EPOCH + 1)
    running.step()
    running.log.take_durable()
    assert zxids(running.log.batches_above(0)) == [(1, 1), (2, 2), (3, 3), (EPOCH + 1, EPOCH + 1)]
    running.close()
    found = server(disk, 2).found
    assert zxids(found.batches) == [(1, 1), (2, 2), (3, 3), (EPOCH + 1, EPOCH + 1)]


def test_truncation_above_the_end_changes_nothing(disk: FaultyDisk, server: Callable[..., object]) -> None:
    running = server(disk)
    running.write(1, 2)
    running.log.truncate_above(9, "cut")
    running.step()
    assert running.log.take_durable() == ["cut"]
    assert running.log.last_zxid == 2
    running.write(3)
    assert zxids(running.log.batches_above(0)) == [(1, 1), (2, 2), (3, 3)]


def test_truncation_to_nothing_leaves_a_log_that_goes_on(
    disk: FaultyDisk, server: Callable[..., object]
) -> None:
    running = server(disk)
    running.append(1)
    running.append(2)
    running.log.truncate_above(0, "cut")
    running.step()
    running.log.take_durable()
    assert running.log.last_zxid == 0
    running.append(EPOCH + 1)
    running.step()
    running.log.take_durable()
    assert zxids(running.log.batches_above(0)) == [(EPOCH + 1, EPOCH + 1)]


def test_truncation_through_a_batch_is_a_failure_that_stops_the_server(
    disk: FaultyDisk, server: Callable[..., object]
) -> None:
    running = server(disk)
    running.append(1, 5)
    running.log.truncate_above(3, "cut")
    running.step()
    assert isinstance(running.log.failure, ValueError)
    assert "within the batch" in str(running.log.failure)


def test_a_crash_at_any_step_of_a_truncation_keeps_all_below_it(server: Callable[..., object]) -> None:
    for step in range(40):
        disk = FaultyDisk()
        running = server(disk)
        for zxid in range(1, 5):
            running.append(zxid)
        running.step()
        running.log.take_durable()
        disk.power_off_after(step)
        running.log.truncate_above(2, "cut")
        running.step()
        done = running.log.take_durable() == ["cut"]
        disk.restart(random.Random(step))
        found = zxids(server(disk, 2).found.batches)
        assert found[:2] == [(1, 1), (2, 2)]
        assert (
            found == [(1, 1), (2, 2)] if done else found in ([(1, 1), (2, 2)], [(n, n) for n in range(1, 5)])
        )


def test_segments_below_a_checkpoint_go_but_not_what_a_snapshot_pins(
    disk: FaultyDisk, server: Callable[..., object]
) -> None:
    running = server(disk, segment_bytes_max=1024)
    for zxid in range(1, 21):
        running.write(zxid)
    count = len(disk.list(running.directory.log_path()))
    assert count > 8
    running.log.pin(5)
    running.log.remove_below(15, keep_bytes=0)
    running.step()
    running.log.take_durable()
    assert 0 < running.log.oldest_zxid <= 5
    assert zxids(running.log.batches_above(5))[0] == (6, 6)
    running.log.unpin(5)
    running.log.remove_below(15, keep_bytes=0)
    running.step()
    running.log.take_durable()
    assert 5 < running.log.oldest_zxid <= 15
    assert zxids(running.log.batches_above(15)) == [(n, n) for n in range(16, 21)]
    with pytest.raises(TxnLogGapError, match="the log begins above"):
        list(running.log.batches_above(5))


def test_removal_keeps_some_bytes_for_learners_that_lag(
    disk: FaultyDisk, server: Callable[..., object]
) -> None:
    running = server(disk, segment_bytes_max=1024)
    for zxid in range(1, 21):
        running.write(zxid)
    running.log.remove_below(20, keep_bytes=1 << 20)
    running.step()
    assert running.log.oldest_zxid == 0


def test_reopened_after_removal_it_knows_where_it_begins(
    disk: FaultyDisk, server: Callable[..., object]
) -> None:
    running = server(disk, segment_bytes_max=1024, standalone=False)
    for zxid in range(1, 21):
        running.write(zxid)
    running.log.remove_below(10, keep_bytes=0)
    running.step()
    running.log.take_durable()
    oldest = running.log.oldest_zxid
    running.close()
    found = server(disk, 2, standalone=False).found
    assert 0 < oldest <= 10
    assert found.history_lost  # there is no checkpoint: what is left of the log leads on from nothing


def test_a_power_loss_anywhere_loses_nothing_reported(server: Callable[..., object]) -> None:
    for seed in range(60):
        source = random.Random(seed)
        disk = FaultyDisk()
        running = server(disk, segment_bytes_max=2048)
        disk.power_off_after(source.randrange(40))
        zxid = 0
        while running.log.failure is None and zxid < 60:
            for _ in range(source.randrange(4)):
                first, zxid = zxid + 1, zxid + source.randrange(1, 4)
                running.log.append(first, zxid, (b"x" * source.randrange(600),), 0, zxid)
            running.log.writer.step()
            running.log.take_durable()
        disk.restart(source)
        directory = running.directory
        log = open_log(disk, directory.log_path(), "txn", tag=directory.generation.encode())
        last = 0
        for record in log.scan():
            batch = decode_record(record.payload, "f", 0)
            assert batch.previous == last
            last = batch.last
        assert last >= running.log.durable_zxid, f"seed {seed}"
