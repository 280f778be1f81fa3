"""What can still be read of a damaged log, and where something is missing.

Each frame proves itself (its header's checksum holds the file's random id and the position), so frames behind
a bad one are as good as those before it. Opening a log for writing refuses damage (`coord.log.opening`); this
reads on: `Record`s that are what was written, and between them `Hole`s. Where a frame's header is destroyed
its seal stands in for it: then its records may still be good, and if not it is known how many there were.

What a crash has left of the group that was being written is no hole: nobody was told that it was durable
(`coord.log.scan.is_torn`).
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from google_crc32c import value as crc32c

from coord.disk import Disk, DiskFile
from coord.log.format import (
    FRAME_HEADER_BYTES,
    HEADER_BLOCK_BYTES,
    FrameHeader,
    LogDamagedError,
    SegmentHeader,
    decode_frame_header,
    decode_lengths,
    frame_bytes,
    segment_number,
)
from coord.log.scan import find_later_frame, find_seal, is_torn, is_zero_from, read_segment_header
from coord.log.segments import Position, Record

__all__ = ["Hole", "salvage_log"]


class Hole(NamedTuple):
    """Something that was written and cannot be read.

    Attributes:
        records: in the one frame that is bad, if its header or its seal is right; None: nothing is known of
            what was here, not even how many frames.
        payload_length: of that frame; 0 where `records` is None.
        begins_log: nothing was ever before it in this log.
    """

    path: str
    offset: int
    records: int | None = None
    payload_length: int = 0
    begins_log: bool = False


def salvage_log(disk: Disk, directory: str, prefix: str, *, tag: bytes) -> Iterator[Record | Hole]:
    """Everything that is left of a log, in its order. Records of a segment that a later cut has replaced may
    be among it, where the one that says so is damaged.

    Raises:
        OSError: the disk failed.
    """
    names = {segment_number(prefix, name): name for name in disk.list(directory)}
    numbers = sorted(number for number in names if number is not None)
    headers: dict[int, SegmentHeader] = {}
    for number in numbers:
        header = _read_header(disk, os.path.join(directory, names[number]), number, tag)
        if header is not None:
            headers[number] = header
    ends, replaced = _bounds(numbers, headers)
    for number in numbers:
        if number in replaced:
            continue
        path = os.path.join(directory, names[number])
        if number not in headers:
            yield Hole(path, 0)
            continue
        file = disk.open(path, writable=False)
        try:
            yield from _salvage_segment(file, headers[number], ends.get(number))
        finally:
            file.close()


def _read_header(disk: Disk, path: str, number: int, tag: bytes) -> SegmentHeader | None:
    file = disk.open(path, writable=False)
    try:
        header = read_segment_header(file)
    except LogDamagedError:
        return None
    finally:
        file.close()
    return header if header.number == number and header.tag == tag else None


def _bounds(numbers: list[int], headers: dict[int, SegmentHeader]) -> tuple[dict[int, int], set[int]]:
    """Where segments end, as far as their followers say so; and which ones a cut has replaced."""
    ends: dict[int, int] = {}
    replaced: set[int] = set()
    for number in reversed(numbers):
        if number in headers and number not in replaced:
            before = headers[number].follows_segment
            ends.setdefault(before, headers[number].follows_offset)
            replaced |= {other for other in numbers if before < other < number}
    return ends, replaced


def _salvage_segment(file: DiskFile, header: SegmentHeader, end: int | None) -> Iterator[Record | Hole]:
    """`end`: None for the last segment, and for one whose follower is damaged."""
    limit = file.size() if end is None else end
    offset = HEADER_BLOCK_BYTES
    while offset < limit:
        head = file.pread(FRAME_HEADER_BYTES, offset)
        frame = decode_frame_header(head, 0, header.file_id, offset)
        if frame is None:
            if end is None and is_zero_from(file, offset):
                return
            later = find_later_frame(file, header.file_id, offset)
            is_last = later is None or later >= limit
            if is_last and end is None and is_torn(file, header, offset):
                return
            frame = find_seal(file, header, offset, limit if later is None else min(later, limit))
            if frame is None:
                yield Hole(file.path, offset)
                if later is None or is_last:
                    return
                offset = later
                continue
        records = _records(file, header, frame, offset, limit)
        if records is not None:
            yield from records
        else:
            is_last = end is None and find_later_frame(file, header.file_id, offset) is None
            if is_last and is_torn(file, header, offset):
                return
            is_first = header.follows_segment == 0 and offset == HEADER_BLOCK_BYTES
            yield Hole(file.path, offset, frame.records, frame.payload_length, is_first)
        offset += frame_bytes(frame.payload_length, sealed=header.sealed)


def _records(
    file: DiskFile, header: SegmentHeader, frame: FrameHeader, offset: int, limit: int
) -> list[Record] | None:
    """Those of a frame; None if it is not what was written."""
    number = header.number
    start = offset + FRAME_HEADER_BYTES
    end = offset + frame_bytes(frame.payload_length, sealed=header.sealed)
    payload = file.pread(frame.payload_length, start) if start + frame.payload_length <= limit else b""
    if len(payload) != frame.payload_length or crc32c(payload) != frame.payload_crc:
        return None
    lengths = decode_lengths(payload, frame.records)
    if lengths is None:
        return None
    found = []
    at = 4 * len(lengths)
    bounds = Position(number, offset), Position(number, end)
    for length in lengths:
        found.append(Record(number, start + at, payload[at : at + length], frame.group, *bounds))
        at += length
    return found
