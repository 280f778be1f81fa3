"""The segmented log: what was durable is there, a torn tail is cut, damage is reported (R-J2, R-J4)."""

import errno
import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from coord.disk import DiskFault, DiskFile, FaultyDisk, PowerLossError
from coord.log import LogConfig, LogDamagedError, Position, Record, SegmentedLog, open_log
from coord.log.format import encode_frame
from coord.log.scan import FrameScan, read_segment_header


def file_ids() -> Callable[[], bytes]:
    source = random.Random(7)
    return lambda: source.randbytes(16)


def reopen(disk: FaultyDisk, **config: int | bool) -> SegmentedLog:
    return open_log(disk, "/log", "txn", config=LogConfig(**config), new_file_id=file_ids())


def append(log: SegmentedLog, *records: bytes) -> tuple[int, int]:
    return log.write_group([len(record) for record in records], records)


def payloads(log: SegmentedLog, start: Position | None = None) -> list[bytes]:
    return [record.payload for record in log.scan(start)]


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


def test_scan_gives_back_the_records_in_order_with_their_places(disk: FaultyDisk) -> None:
    log = reopen(disk)
    segment, offset = append(log, b"one", b"", b"three")
    append(log, b"four")
    records = list(log.scan())
    assert [record.payload for record in records] == [b"one", b"", b"three", b"four"]
    assert (records[0].segment, records[0].offset) == (segment, offset)
    assert [log.read(r.segment, r.offset, len(r.payload)) for r in records] == [r.payload for r in records]
    assert [record.group for record in records] == [1, 1, 1, 2]


def test_a_reopened_log_continues_in_a_new_segment(disk: FaultyDisk) -> None:
    log = reopen(disk)
    append(log, b"a")
    log.close()
    log = reopen(disk)
    append(log, b"b")
    assert payloads(log) == [b"a", b"b"]
    assert [number for number, _ in log.segments()] == [1, 2]
    assert log.torn_tail is None


def magics(disk: FaultyDisk, log: SegmentedLog) -> list[bytes]:
    """Of the segments' files."""
    return [disk.content(log.path(number))[:8] for number, _ in log.segments()]


def test_a_log_that_is_sealed_goes_on_with_seals_in_a_new_segment_and_for_ever(disk: FaultyDisk) -> None:
    """What is before it stays as an earlier release can read it."""
    log = reopen(disk, sealed=False)
    append(log, b"x" * 512)
    append(log, b"a")
    log.seal()
    append(log, b"b")
    append(log, b"y" * 512)
    assert magics(disk, log) == [b"zoologS1", b"zoologS2"]
    log.close()
    log = reopen(disk, sealed=False)
    assert append(log, b"c")[0] == 3
    assert magics(disk, log) == [b"zoologS1", b"zoologS2", b"zoologS2"]
    assert payloads(log) == [b"x" * 512, b"a", b"b", b"y" * 512, b"c"]
    log.cut(Position(1, log.segments()[0][1]), [b"carried"])
    assert payloads(log) == [b"x" * 512, b"a", b"carried"]


def test_reopening_an_unused_log_leaves_one_segment(disk: FaultyDisk) -> None:
    for _ in range(4):
        reopen(disk).close()
    assert len(disk.list("/log")) == 1
    log = reopen(disk)
    append(log, b"a")
    for _ in range(3):
        log.close()
        log = reopen(disk)
    assert len(disk.list("/log")) == 2
    assert payloads(log) == [b"a"]


def test_segments_rotate_at_their_size_and_scan_runs_across(disk: FaultyDisk) -> None:
    log = reopen(disk, segment_bytes_max=4096)
    expected = [b"%d" % number * 100 for number in range(40)]
    for record in expected:
        append(log, record)
    assert len(log.segments()) > 3
    assert payloads(log) == expected
    log.close()
    assert payloads(reopen(disk)) == expected


def test_scan_can_start_at_any_frame(disk: FaultyDisk) -> None:
    log = reopen(disk, segment_bytes_max=2048)
    for number in range(10):
        append(log, b"%d" % number)
    starts = [record.frame_start for record in log.scan()]
    for number, start in enumerate(starts):
        assert payloads(log, start) == [b"%d" % n for n in range(number, 10)]


def test_scan_sees_only_what_was_durable_when_it_got_there(disk: FaultyDisk) -> None:
    log = reopen(disk, segment_bytes_max=1 << 20)
    append(log, b"a")
    scan = log.scan()
    assert next(scan).payload == b"a"
    append(log, b"b")
    assert list(scan) == []


def test_zeros_written_ahead_are_the_end(disk: FaultyDisk) -> None:
    log = reopen(disk, zero_ahead_bytes=8192)
    append(log, b"a")
    log.zero_ahead()
    append(log, b"b")
    log.zero_ahead()
    assert payloads(log) == [b"a", b"b"]
    log.close()
    log = reopen(disk)
    assert payloads(log) == [b"a", b"b"]
    assert log.torn_tail is None
    assert log.segments()[0][1] == len(disk.content("/log/txn.0000000000000001"))


def test_removes_the_oldest_segments_only(disk: FaultyDisk) -> None:
    log = reopen(disk, segment_bytes_max=1024)
    for number in range(6):
        append(log, b"%d" % number * 400)
    numbers = [number for number, _ in log.segments()]
    log.remove(numbers[:2])
    remaining = payloads(log)
    assert remaining[-1] == b"5" * 400
    assert len(remaining) < 6
    log.close()
    assert payloads(reopen(disk)) == remaining
    log = reopen(disk)
    with pytest.raises(AssertionError):
        log.remove([numbers[3]])


def test_a_store_may_remove_segments_in_the_middle(disk: FaultyDisk) -> None:
    log = reopen(disk, segment_bytes_max=1024, contiguous=False)
    for number in range(6):
        append(log, b"%d" % number * 600)
    numbers = [number for number, _ in log.segments()]
    log.remove([numbers[1], numbers[3]])
    expected = payloads(log)
    log.close()
    log = reopen(disk, contiguous=False)
    assert payloads(log) == expected
    append(log, b"new")
    assert payloads(log) == [*expected, b"new"]


def test_reading_a_segment_that_is_gone_is_an_error_with_its_name(disk: FaultyDisk) -> None:
    log = reopen(disk)
    append(log, b"a")
    with pytest.raises(LogDamagedError, match=r"txn\.00000000000000ff is damaged at offset 512"):
        log.read(255, 512, 1)
    with pytest.raises(LogDamagedError, match="expected 100000 bytes"):
        log.read(1, 512, 100000)


def small_log() -> tuple[FaultyDisk, list[Record]]:
    """Three groups in one segment: 1, 3 and 1 records, the second longer than a sector."""
    disk = FaultyDisk()
    log = reopen(disk)
    append(log, b"first")
    append(log, b"second" * 100, b"", b"third")
    append(log, b"last")
    records = list(log.scan())
    log.close()
    return disk, records


FILE = "/log/txn.0000000000000001"


def test_every_truncation_cuts_the_torn_group_and_keeps_the_rest() -> None:
    disk, records = small_log()
    content = disk.content(FILE)
    for length in range(len(content)):
        disk, _ = small_log()
        disk.replace_content(FILE, content[:length])
        if length < 512:
            with pytest.raises(LogDamagedError, match=f"{FILE} is damaged at offset 0"):
                reopen(disk)
            continue
        log = reopen(disk)
        whole = [r.payload for r in records if end_of_bytes(r, records) <= length]
        assert payloads(log) == whole
        clean = length == 512 or in_padding(length, records)
        assert (log.torn_tail is None) == clean


def end_of_bytes(record: Record, records: list[Record]) -> int:
    return max(r.offset + len(r.payload) for r in records if r.group == record.group)


def in_padding(length: int, records: list[Record]) -> bool:
    return any(end_of_bytes(r, records) <= length <= r.frame_end.offset for r in records)


def test_every_bit_flip_is_damage_or_harmless_or_the_last_group() -> None:
    """A flip in the header, or in a group with one behind it, is reported with its place; nothing is cut."""
    disk, records = small_log()
    content = disk.content(FILE)
    last_start = records[-1].frame_start.offset
    everything = [record.payload for record in records]
    for bit in range(len(content) * 8):
        offset = bit // 8
        disk = FaultyDisk()
        disk.make_directory("/log")
        disk.open(FILE, create=True).close()
        flipped = bytearray(content)
        flipped[offset] ^= 1 << bit % 8
        disk.replace_content(FILE, bytes(flipped))
        frame = next((r for r in records if r.frame_start.offset <= offset < r.frame_end.offset), None)
        if frame is not None and offset >= end_of_bytes(frame, records):
            assert payloads(reopen(disk)) == everything  # padding
        elif frame is not None and frame.frame_start.offset == last_start:
            log = reopen(disk)
            assert log.torn_tail is not None
            assert log.torn_tail.offset == last_start
            assert payloads(log) == everything[:-1]
        else:
            with pytest.raises(LogDamagedError) as damage:
                reopen(disk)
            assert damage.value.path == FILE
            assert damage.value.offset == (0 if frame is None else frame.frame_start.offset)
            assert disk.content(FILE) == bytes(flipped)
            assert disk.list("/log") == ["txn.0000000000000001"]


def test_damage_in_an_older_segment_is_found_by_scan_and_never_served(disk: FaultyDisk) -> None:
    log = reopen(disk, segment_bytes_max=1024)
    for number in range(6):
        append(log, b"%d" % number * 600)
    second = list(log.scan())[1]
    log.close()
    path = f"/log/txn.{second.segment:016x}"
    disk.flip_bit(path, 8 * (second.offset + 3))
    log = reopen(disk)
    served = []
    with pytest.raises(LogDamagedError) as damage:
        for record in log.scan():
            served.append(record.payload)
    assert served == [b"0" * 600]
    assert (damage.value.path, damage.value.offset) == (path, second.frame_start.offset)


def test_a_missing_segment_in_the_middle_is_damage(disk: FaultyDisk) -> None:
    log = reopen(disk, segment_bytes_max=1024)
    for number in range(6):
        append(log, b"%d" % number * 600)
    numbers = [number for number, _ in log.segments()]
    log.close()
    disk.unlink(f"/log/txn.{numbers[1]:016x}")
    with pytest.raises(LogDamagedError, match=f"segment {numbers[1]} before it is missing"):
        reopen(disk)


def test_a_shortened_older_segment_is_damage(disk: FaultyDisk) -> None:
    log = reopen(disk)
    append(log, b"a")
    append(log, b"b")
    log.close()
    reopen(disk).close()
    disk.replace_content(FILE, disk.content(FILE)[:-512])
    with pytest.raises(LogDamagedError, match="durable records are lost"):
        reopen(disk)


def test_a_segment_of_another_generation_is_refused(disk: FaultyDisk) -> None:
    open_log(disk, "/log", "txn", tag=b"one").close()
    with pytest.raises(LogDamagedError, match="expected a segment of b'two', got one of b'one'"):
        open_log(disk, "/log", "txn", tag=b"two")


def test_a_renamed_segment_is_refused(disk: FaultyDisk) -> None:
    reopen(disk).close()
    disk.rename(FILE, "/log/txn.0000000000000009")
    with pytest.raises(LogDamagedError, match="the file was renamed"):
        reopen(disk)


def test_a_frame_copied_to_another_place_is_not_a_frame(disk: FaultyDisk) -> None:
    """File id and position are under the checksum: a log stored in a log proves nothing."""
    log = reopen(disk)
    append(log, b"a" * 1000)
    inner = disk.content(FILE)
    append(log, inner[512:] * 3)
    log.close()
    content = disk.content(FILE)
    torn = bytearray(content)
    torn[2048 : 2048 + 512] = bytes(512)
    disk.replace_content(FILE, bytes(torn))
    log = reopen(disk)
    assert payloads(log) == [b"a" * 1000]
    assert log.torn_tail is not None


def test_a_misdirected_write_is_damage_once_something_follows(disk: FaultyDisk) -> None:
    log = reopen(disk)
    append(log, b"a")
    disk.faults.append(DiskFault("pwrite", misdirect=512))
    append(log, b"b")
    append(log, b"c")
    log.close()
    with pytest.raises(LogDamagedError):
        reopen(disk)


def test_a_flipped_last_group_does_not_hide_the_ones_before(disk: FaultyDisk) -> None:
    log = reopen(disk)
    append(log, b"a")
    _, offset = append(log, b"b")
    log.close()
    disk.flip_bit(FILE, 8 * offset)
    log = reopen(disk)
    assert payloads(log) == [b"a"]
    append(log, b"c")
    log.close()
    log = reopen(disk)
    assert payloads(log) == [b"a", b"c"]


def test_cut_carries_records_of_the_group_that_it_goes_through(disk: FaultyDisk) -> None:
    log = reopen(disk)
    append(log, b"a")
    append(log, b"b", b"c")
    append(log, b"d")
    group = next(record for record in log.scan() if record.payload == b"b")
    places = log.cut(group.frame_start, [b"b"])
    assert [log.read(*place) for place in places] == [b"b"]
    append(log, b"e")
    assert payloads(log) == [b"a", b"b", b"e"]
    log.close()
    assert payloads(reopen(disk)) == [b"a", b"b", b"e"]


def test_cut_over_several_segments_and_to_the_beginning(disk: FaultyDisk) -> None:
    log = reopen(disk, segment_bytes_max=1024)
    for number in range(8):
        append(log, b"%d" % number * 600)
    log.cut(list(log.scan())[2].frame_start)
    append(log, b"new")
    assert payloads(log) == [b"0" * 600, b"1" * 600, b"new"]
    log.cut(Position(0, 0))
    append(log, b"again")
    assert payloads(log) == [b"again"]
    log.close()
    assert payloads(reopen(disk)) == [b"again"]


def test_cut_is_refused_between_frames_bounds(disk: FaultyDisk) -> None:
    log = reopen(disk)
    append(log, b"a" * 2000)
    append(log, b"b")
    with pytest.raises(LogDamagedError, match="not the end of a frame"):
        log.cut(Position(1, 1024))
    assert payloads(log) == [b"a" * 2000, b"b"]


def crashes(work: Callable[[FaultyDisk], None], prepare: Callable[[], FaultyDisk]) -> Iterator[FaultyDisk]:
    """The disk after a power loss at every change that `work` makes, for several choices of what survives."""
    for step in itertools.count():
        for survives in (
            lambda _: False,
            lambda _: True,
            lambda index: index % 2 == 0,
            lambda index: index % 2 == 1,
        ):
            for names_kept in (0, 1, None):
                disk = prepare()
                disk.power_off_after(step)
                finished = True
                try:
                    work(disk)
                except PowerLossError:
                    finished = False
                disk.restart(survives, names_kept=names_kept)
                yield disk
        if finished:
            return


def test_a_crash_at_any_step_of_a_cut_leaves_the_old_or_the_new_log() -> None:
    old = [b"a", b"b", b"c", b"d"]
    new = [b"a", b"b"]

    def prepare() -> FaultyDisk:
        disk = FaultyDisk()
        log = reopen(disk)
        append(log, b"a")
        append(log, b"b", b"c")
        append(log, b"d")
        log.close()
        return disk

    def cut(disk: FaultyDisk) -> None:
        log = reopen(disk)
        start = next(record.frame_start for record in log.scan() if record.payload == b"b")
        log.cut(start, [b"b"])

    outcomes = set()
    for disk in crashes(cut, prepare):
        log = reopen(disk)
        found = payloads(log)
        assert found in (old, new)
        outcomes.add(len(found))
        append(log, b"next")
        log.close()
        assert payloads(reopen(disk)) == [*found, b"next"]
    assert outcomes == {2, 4}


def test_a_crash_at_any_step_of_appending_and_rotating_keeps_what_was_durable() -> None:
    durable: list[bytes] = []

    def work(disk: FaultyDisk) -> None:
        durable.clear()
        log = reopen(disk, segment_bytes_max=1536, zero_ahead_bytes=1024)
        for number in range(5):
            record = b"%d" % number * 700
            append(log, record, record)
            durable.extend((record, record))
            log.zero_ahead()

    for disk in crashes(work, FaultyDisk):
        log = reopen(disk)
        found = payloads(log)
        assert found[: len(durable)] == durable
        assert len(found) in (len(durable), len(durable) + 2)
        append(log, b"next")
        log.close()
        assert payloads(reopen(disk)) == [*found, b"next"]


def test_any_subset_of_a_groups_sectors_loses_nothing_before_it() -> None:
    """Spec 9.5: a power failure may keep any subset of what was written after the last sync."""
    sectors = 4
    for kept in range(1 << sectors):
        disk = FaultyDisk()
        log = reopen(disk)
        append(log, b"durable")
        disk.open(FILE).pwrite(frame_of(disk, b"x" * (sectors * 512 - 100)), log.end().offset)
        assert disk.unsynced_sectors() == sectors
        disk.restart(lambda index, kept=kept: bool(kept >> index & 1))
        log = reopen(disk)
        whole = kept == (1 << sectors) - 1
        assert payloads(log) == [b"durable"] + [b"x" * (sectors * 512 - 100)] * whole
        assert (log.torn_tail is None) == (whole or kept == 0)


def frame_of(disk: FaultyDisk, record: bytes) -> tuple[bytes, ...]:
    """The frame that would come next in the first segment."""
    file = disk.open(FILE, writable=False)
    header = read_segment_header(file)
    frames = FrameScan(file, header)
    for _ in frames:
        pass
    assert frames.group is not None
    frame, _ = encode_frame(
        header.file_id, frames.end, frames.group + 1, frames.previous, [len(record)], [record]
    )
    return frame


def test_a_failed_write_leaves_the_log_as_it_was(disk: FaultyDisk) -> None:
    log = reopen(disk)
    append(log, b"a")
    end = log.end()
    disk.faults.append(DiskFault("pwrite", errno.EIO))
    with pytest.raises(OSError):
        append(log, b"b")
    assert log.end() == end
    assert payloads(log) == [b"a"]


def test_a_full_disk_names_itself_when_a_segment_is_begun(disk: FaultyDisk) -> None:
    log = reopen(disk)
    append(log, b"a")
    disk.capacity_bytes = len(disk.content(FILE))
    with pytest.raises(OSError) as caught:
        log.rotate()
    assert caught.value.errno == errno.ENOSPC
    assert payloads(log) == [b"a"]


@pytest.mark.parametrize("records", [[b"short"], [b"x" * 700, b"y" * 3000], [b"z" * (1 << 20)]])
def test_what_a_log_is_opened_with_survives_a_power_loss(disk: FaultyDisk, records: list[bytes]) -> None:
    """The sync of the last group failed and the process stopped, or it was killed before. The system shows
    the group all the same; who begins with it, and lets others know, must have it for good.
    """
    log = reopen(disk)
    append(log, b"durable")
    disk.faults.append(DiskFault("fdatasync", errno.EIO, path_part="txn"))
    with pytest.raises(OSError, match="Input/output"):
        append(log, *records)
    log.close()
    assert payloads(reopen(disk)) == [b"durable", *records]
    disk.restart(lambda _: False, names_kept=0)
    assert payloads(reopen(disk)) == [b"durable", *records]


class NotedFile:
    """A file that notes whether it was told to bypass the cache."""

    def __init__(self, file: DiskFile, notes: list[str]) -> None:
        self._file = file
        self._notes = notes

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def bypass_cache(self) -> None:
        self._notes.append(self._file.path)


class NotedDisk(FaultyDisk):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def open(self, path: str, *, writable: bool = True, create: bool = False) -> DiskFile:
        return NotedFile(super().open(path, writable=writable, create=create), self.notes)  # type: ignore[return-value]


@pytest.mark.parametrize("cached", [True, False])
def test_only_a_log_that_nobody_reads_bypasses_the_cache(cached: bool) -> None:
    disk = NotedDisk()
    log = reopen(disk, cached=cached)
    append(log, b"first")
    log.rotate()
    append(log, b"second")
    log.close()
    assert payloads(reopen(disk)) == [b"first", b"second"]
    assert len(disk.notes) == (0 if cached else 2)
