"""Opening a log: what is on disk is first read and judged as a whole, and only then repaired.

So damage is reported with nothing changed, and an operator finds the files as the crash left them.

What is read need not be durable: a process that was killed within a write, or stopped because a sync had
failed, leaves its last group in the system's cache, where it looks as any other, and after a failed sync
another one would succeed and write nothing. So the last group is written again, with the same bytes, before
anything is built on it. Those before it were durable before it was begun.
"""

import os
import secrets
from collections.abc import Callable

from coord.disk import Disk
from coord.log.format import HEADER_BLOCK_BYTES, LogDamagedError, LogTailDamagedError, segment_number
from coord.log.scan import FrameScan, find_later_frame, is_torn, is_zero_from, read_segment_header
from coord.log.segments import (
    TEMPORARY_SUFFIX,
    FoundLog,
    LogConfig,
    Position,
    Segment,
    SegmentedLog,
    TornTail,
)

__all__ = ["find_log", "open_log"]


def open_log(
    disk: Disk,
    directory: str,
    prefix: str,
    *,
    tag: bytes = b"",
    config: LogConfig | None = None,
    judges_tail: bool = False,
    new_file_id: Callable[[], bytes] = lambda: secrets.token_bytes(16),
) -> SegmentedLog:
    """Open a log for writing, making it if needed: finishes an interrupted cut, cuts a torn tail, begins a
    new segment.

    The last segment is verified here; older ones by `SegmentedLog.scan`, from where the caller needs them.

    Args:
        prefix: segments are named `<prefix>.<16 hex digits>`.
        tag: identification of the owner's state, at most 64 bytes; a segment with another tag is refused.
        judges_tail: a bad last group that was written in full is damage; else it is cut as a torn one is.
        new_file_id: 16 random bytes; from the seed in simulation.

    Raises:
        LogTailDamagedError: that it is.
        LogDamagedError: with file and offset; nothing was changed.
        OSError: the disk failed or is full.
    """
    config = config or LogConfig()
    disk.make_directory(directory)
    found = find_log(disk, directory, prefix, tag=tag, contiguous=config.contiguous, judges_tail=judges_tail)
    if found.last_group is not None:
        _write_again(disk, found.segments[found.number_max].path, *found.last_group)
    for name in disk.list(directory):
        if name.startswith(prefix + ".") and name.endswith(TEMPORARY_SUFFIX):
            disk.unlink(os.path.join(directory, name))
    return SegmentedLog(disk, directory, prefix, tag=tag, config=config, new_file_id=new_file_id, found=found)


def find_log(
    disk: Disk, directory: str, prefix: str, *, tag: bytes, contiguous: bool, judges_tail: bool
) -> FoundLog:
    """Judge what is there, without changing anything.

    Raises:
        LogDamagedError: a header or the last segment is not what was written, or a segment is missing.
    """
    found = FoundLog()
    for name in disk.list(directory):
        number = segment_number(prefix, name)
        if number is not None:
            found.segments[number] = _read_segment(disk, os.path.join(directory, name), number, tag)
    if not found.segments:
        return found
    found.number_max = max(found.segments)
    _bound_segments(found, contiguous)
    _find_end(disk, found, found.segments[max(found.segments)], judges_tail)
    return found


def _write_again(disk: Disk, path: str, start: int, end: int) -> None:
    file = disk.open(path)
    try:
        file.pwrite_durable((file.pread(end - start, start),), start)
    finally:
        file.close()


def _read_segment(disk: Disk, path: str, number: int, tag: bytes) -> Segment:
    file = disk.open(path, writable=False)
    try:
        header = read_segment_header(file)
        if header.number != number:
            raise LogDamagedError(
                path, 0, f"expected segment {number}, got {header.number}: the file was renamed"
            )
        if header.tag != tag:
            raise LogDamagedError(path, 0, f"expected a segment of {tag!r}, got one of {header.tag!r}")
        return Segment(path, header, file.size())
    finally:
        file.close()


def _bound_segments(found: FoundLog, contiguous: bool) -> None:
    """Set each segment's end from its follower's header, and set aside those that a cut had left behind.

    Numbers rise with time, so a segment numbered between another and the one it follows was made before the
    cut that skipped it.
    """
    segments = found.segments
    follower = max(segments)
    while True:
        header = segments[follower].header
        before = sorted(number for number in segments if number < follower)
        if header.follows_segment in segments:
            segment = segments[header.follows_segment]
            if segment.end < header.follows_offset:
                what = f"expected {header.follows_offset} bytes, got {segment.end}: durable records are lost"
                raise LogDamagedError(segment.path, segment.end, what)
            if segment.end > header.follows_offset:
                found.untrimmed.append(segment.header.number)
            segment.end = header.follows_offset
            skipped = [number for number in before if number > header.follows_segment]
        elif header.follows_segment == 0:
            skipped = before
        elif before and contiguous:
            what = f"segment {header.follows_segment} before it is missing"
            raise LogDamagedError(segments[follower].path, 0, what)
        else:
            skipped = []
        for number in skipped:
            found.leftovers[number] = segments.pop(number)
        remaining = [number for number in before if number in segments]
        if not remaining:
            return
        # Where the predecessor was removed, the one before it keeps its file's size: it was trimmed when it
        # was followed.
        follower = remaining[-1]


def _find_end(disk: Disk, found: FoundLog, last: Segment, judges_tail: bool) -> None:
    """The end of the last segment's valid frames; a torn tail is noted, damage raised."""
    file = disk.open(last.path, writable=False)
    try:
        frames = FrameScan(file, last.header)
        for frame in frames:
            found.last_group = frame.offset, frame.end
        if frames.problem is not None and not is_zero_from(file, frames.end):
            later = find_later_frame(file, last.header.file_id, frames.end)
            if later is not None:
                what = f"{frames.problem}, but a frame was written behind it at {later}"
                raise LogDamagedError(last.path, frames.end, what)
            if judges_tail and not is_torn(file, last.header, frames.end):
                what = f"{frames.problem}, and no sector of the last group is missing: it was written in full"
                raise LogTailDamagedError(last.path, frames.end, what)
            found.torn_tail = TornTail(last.path, frames.end, file.size() - frames.end, frames.problem)
    finally:
        file.close()
    last.end = frames.end
    found.group, found.previous = frames.group or 0, frames.previous
    found.end = Position(last.header.number, frames.end)
    if frames.end == HEADER_BLOCK_BYTES:
        # Nothing was written to it: the new segment takes its place, else every restart would leave one more.
        found.end = Position(last.header.follows_segment, last.header.follows_offset)
