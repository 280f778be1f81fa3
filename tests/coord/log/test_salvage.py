"""What is left of a damaged log is read, what is missing is said, and a torn end is neither."""

import random

import pytest

from coord.disk import FaultyDisk, PowerLossError
from coord.log import (
    Hole,
    LogConfig,
    LogTailDamagedError,
    Record,
    SegmentedLog,
    inspect_segment,
    open_log,
    salvage_log,
)
from coord.log.format import (
    FRAME_HEADER_BYTES,
    SegmentHeader,
    encode_frame,
    encode_segment_header,
    segment_name,
)

DIRECTORY = "/log"


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


def opened(disk: FaultyDisk, seed: int = 1, *, judges_tail: bool = False, **config: int) -> SegmentedLog:
    source = random.Random(seed)
    return open_log(
        disk,
        DIRECTORY,
        "txn",
        tag=b"t",
        config=LogConfig(zero_ahead_bytes=0, **config),  # type: ignore[arg-type]
        judges_tail=judges_tail,
        new_file_id=lambda: source.randbytes(16),
    )


def write(log: SegmentedLog, *groups: list[bytes]) -> None:
    for group in groups:
        log.write_group([len(record) for record in group], group)


def found(disk: FaultyDisk) -> list[bytes | Hole]:
    items = salvage_log(disk, DIRECTORY, "txn", tag=b"t")
    return [item.payload if isinstance(item, Record) else item for item in items]


def test_a_good_log_has_no_holes(disk: FaultyDisk) -> None:
    log = opened(disk, segment_bytes_max=1500)
    write(log, [b"a"], [b"b", b"c"], [b"d"], [b"e"])
    log.close()
    assert found(disk) == [b"a", b"b", b"c", b"d", b"e"]


def test_a_bad_payload_is_a_hole_of_a_known_size(disk: FaultyDisk) -> None:
    log = opened(disk)
    write(log, [b"a"], [b"b" * 700, b"c"], [b"d"])
    path = log.path(1)
    log.close()
    disk.flip_bit(path, 8 * (1024 + FRAME_HEADER_BYTES + 600))
    assert found(disk) == [b"a", Hole(path, 1024, 2, 709), b"d"]


def test_behind_a_bad_header_what_follows_is_found(disk: FaultyDisk) -> None:
    log = opened(disk)
    write(log, [b"a"], [b"b"], [b"c"], [b"d"])
    path = log.path(1)
    log.close()
    for offset in (1024, 1536):
        flip_header_and_seal(disk, path, offset, offset + 512)
    assert found(disk) == [b"a", Hole(path, 1024), b"d"]


def flip_header_and_seal(disk: FaultyDisk, path: str, start: int, end: int) -> None:
    for offset in (start, end - FRAME_HEADER_BYTES):
        disk.flip_bit(path, 8 * (offset + 5))


def test_a_seal_stands_in_for_a_destroyed_header(disk: FaultyDisk) -> None:
    """The records are good: nothing is lost, be they the last or not."""
    log = opened(disk)
    write(log, [b"a"], [b"b", b"c" * 700], [b"d" * 3000])
    path = log.path(1)
    log.close()
    for offset in (1024, 2048):
        overwrite(disk, path, offset, FRAME_HEADER_BYTES)
    assert found(disk) == [b"a", b"b", b"c" * 700, b"d" * 3000]


@pytest.mark.parametrize("followed", [False, True])
def test_a_seal_tells_what_was_in_a_frame_whose_begin_is_destroyed(disk: FaultyDisk, followed: bool) -> None:
    log = opened(disk)
    write(log, [b"a"], [b"b", b"c" * 700], *[[b"d"]] * followed)
    path = log.path(1)
    log.close()
    overwrite(disk, path, 1024, 512)
    assert found(disk) == [b"a", Hole(path, 1024, 2, 709)] + [b"d"] * followed


def test_a_hole_at_the_begin_of_a_log_says_so(disk: FaultyDisk) -> None:
    """Also where the first segment was never written to; not where older ones were removed."""
    opened(disk).close()
    log = opened(disk, 2, segment_bytes_max=1024)
    write(log, [b"a"], [b"b"], [b"c"])
    first, second = log.path(2), log.path(3)
    log.close()
    for path in (first, second):
        disk.flip_bit(path, 8 * (512 + FRAME_HEADER_BYTES + 1))
    assert found(disk) == [Hole(first, 512, 1, 5, begins_log=True), Hole(second, 512, 1, 5), b"c"]
    disk.unlink(first)
    assert found(disk) == [Hole(second, 512, 1, 5), b"c"]


def test_a_seal_is_believed_for_the_place_where_it_was_written_only(disk: FaultyDisk) -> None:
    """A whole frame that was copied behind another one."""
    log = opened(disk)
    write(log, [b"a"], [b"b"], [b"c"])
    path = log.path(1)
    log.close()
    content = disk.content(path)
    disk.replace_content(path, content[:1536] + content[1024:1536])
    assert found(disk) == [b"a", b"b", Hole(path, 1536)]


def test_a_log_of_segments_without_seals_is_read_and_goes_on_in_one_with_seals(disk: FaultyDisk) -> None:
    header = SegmentHeader(b"f" * 16, 1, 0, 0, 0, 0, b"t", sealed=False)
    record = b"r" * (512 - FRAME_HEADER_BYTES - 4)  # fills a sector: there is no room for a seal
    frame, _ = encode_frame(header.file_id, 512, 1, 0, [len(record)], [record])
    unsealed = b"".join(frame)[:512]
    disk.make_directory(DIRECTORY)
    path = f"{DIRECTORY}/{segment_name('txn', 1)}"
    disk.open(path, create=True).close()
    disk.fsync_directory(DIRECTORY)
    disk.replace_content(path, encode_segment_header(header) + unsealed)
    log = opened(disk)
    write(log, [b"new"])
    assert [item.payload for item in log.scan()] == [record, b"new"]
    log.close()
    assert found(disk) == [record, b"new"]
    assert [row.kind for row in inspect_segment(disk, path)] == ["segment", "record"]


def overwrite(disk: FaultyDisk, path: str, offset: int, length: int) -> None:
    content = disk.content(path)
    disk.replace_content(path, content[:offset] + b"\xa5" * length + content[offset + length :])


def test_a_bad_segment_header_takes_its_segment_only(disk: FaultyDisk) -> None:
    log = opened(disk, segment_bytes_max=1024)
    write(log, [b"a"], [b"b"], [b"c"])
    path = log.path(2)
    log.close()
    disk.flip_bit(path, 100)
    assert found(disk) == [b"a", Hole(path, 0), b"c"]


def test_a_segment_that_is_too_short_ends_in_a_hole(disk: FaultyDisk) -> None:
    log = opened(disk, segment_bytes_max=1500)
    write(log, [b"a"], [b"b"], [b"c"])
    path = log.path(1)
    log.close()
    disk.replace_content(path, disk.content(path)[:1024])
    assert found(disk) == [b"a", Hole(path, 1024), b"c"]


def test_what_a_cut_has_replaced_is_left_out(disk: FaultyDisk) -> None:
    log = opened(disk)
    write(log, [b"a"], [b"b"], [b"c"])
    start = list(log.scan())[1].frame_start
    untrimmed = disk.content(log.path(1))
    log.cut(start)
    write(log, [b"d"])
    path = log.path(1)
    log.close()
    disk.replace_content(path, untrimmed)
    assert found(disk) == [b"a", b"d"]


def test_a_last_group_written_in_full_is_damage_where_that_is_asked_for() -> None:
    for offset in (5, FRAME_HEADER_BYTES + 100):
        disk = FaultyDisk()
        log = opened(disk)
        write(log, [b"a"], [b"b" * 1000])
        path = log.path(1)
        log.close()
        disk.flip_bit(path, 8 * (1024 + offset))
        if offset == 5:
            disk.flip_bit(path, 8 * (1024 + 3 * 512 - 1))
        with pytest.raises(LogTailDamagedError, match="written in full"):
            opened(disk, 2, judges_tail=True)
        assert found(disk) == [b"a", Hole(path, 1024) if offset == 5 else Hole(path, 1024, 1, 1004)]
        assert opened(disk, 3).torn_tail is not None


def test_zeros_that_were_written_are_not_taken_for_missing_ones(disk: FaultyDisk) -> None:
    log = opened(disk)
    last = b"x" * 600 + bytes(1500) + b"y" * 600
    write(log, [b"a"], [last])
    path = log.path(1)
    log.close()
    disk.flip_bit(path, 8 * (1024 + FRAME_HEADER_BYTES + 100))
    with pytest.raises(LogTailDamagedError, match="written in full"):
        opened(disk, 2, judges_tail=True)
    assert found(disk) == [b"a", Hole(path, 1024, 1, 4 + len(last))]


def test_no_power_loss_looks_like_damage() -> None:
    """Whatever sectors of the last group have reached the disk."""
    torn = 0
    for seed in range(300):
        source = random.Random(seed)
        disk = FaultyDisk()
        log = opened(disk)
        last = source.randbytes(source.randrange(1, 4000))
        write(log, [b"a"], [b"b" * 600])
        disk.power_off_after(1)  # the write is done, its sync is not
        with pytest.raises(PowerLossError):
            write(log, [last])
        disk.restart(source)
        kept = found(disk)
        assert kept in ([b"a", b"b" * 600], [b"a", b"b" * 600, last]), seed
        log = opened(disk, 2, judges_tail=True)
        torn += log.torn_tail is not None
    assert torn > 50
