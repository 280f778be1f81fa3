"""`zoolog inspect segment FILE`: a segment as rows, for people; damage becomes a row instead of an error."""

from collections.abc import Iterator
from dataclasses import dataclass

from coord.disk import Disk, DiskFile
from coord.log.format import FRAME_HEADER_BYTES, LogDamagedError, SegmentHeader, decode_lengths
from coord.log.scan import (
    FrameScan,
    find_later_frame,
    find_seal,
    is_torn,
    is_zero_from,
    read_segment_header,
)

__all__ = ["SegmentRow", "inspect_segment"]


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """One line about a segment.

    Attributes:
        kind: "segment" (its header), "record", "zeros", "torn", "full" or "damage". A bad last group is
            "torn" where a crash may have left it, and "full" where it was written in full.
        offset: in the file.
        facts: name and value pairs, ready to print.
        payload: a record's bytes, for the owner of their format.
    """

    kind: str
    offset: int
    length: int
    facts: dict[str, str]
    payload: bytes = b""


def inspect_segment(disk: Disk, path: str) -> Iterator[SegmentRow]:
    """Rows of a segment's file, without changing it. A "torn" row in a segment that has a follower is damage
    too.

    Raises:
        OSError: the file cannot be read.
    """
    file = disk.open(path, writable=False)
    try:
        try:
            header = read_segment_header(file)
        except LogDamagedError as damage:
            yield SegmentRow("damage", damage.offset, 0, {"problem": str(damage)})
            return
        facts = {
            "number": str(header.number),
            "file_id": header.file_id.hex(),
            "follows": f"{header.follows_segment}:{header.follows_offset}",
            "group": str(header.group),
            "tag": header.tag.decode("ascii", "backslashreplace"),
        }
        yield SegmentRow("segment", 0, file.size(), facts)
        frames = FrameScan(file, header)
        try:
            for frame in frames:
                lengths = decode_lengths(frame.payload, frame.header.records)
                if lengths is None:
                    raise LogDamagedError(path, frame.offset, "the records' lengths do not fill the frame")
                at = 4 * len(lengths)
                for length in lengths:
                    place = frame.offset + FRAME_HEADER_BYTES + at
                    facts = {"group": str(frame.header.group)}
                    yield SegmentRow("record", place, length, facts, frame.payload[at : at + length])
                    at += length
        except LogDamagedError as damage:
            yield SegmentRow("damage", damage.offset, 0, {"problem": str(damage)})
            return
        rest = file.size() - frames.end
        if rest <= 0:
            return
        if is_zero_from(file, frames.end):
            yield SegmentRow("zeros", frames.end, rest, {})
        elif (later := find_later_frame(file, header.file_id, frames.end)) is not None:
            problem = f"{frames.problem}, but a frame was written behind it at {later}"
            facts = {"problem": problem, **_seal_facts(file, header, frames.end, later)}
            yield SegmentRow("damage", frames.end, rest, facts)
        else:
            kind = "torn" if is_torn(file, header, frames.end) else "full"
            facts = {"problem": str(frames.problem), **_seal_facts(file, header, frames.end, file.size())}
            yield SegmentRow(kind, frames.end, rest, facts)
    finally:
        file.close()


def _seal_facts(file: DiskFile, header: SegmentHeader, offset: int, limit: int) -> dict[str, str]:
    """What was in a bad frame, where its seal is good."""
    seal = find_seal(file, header, offset, limit)
    return {} if seal is None else {"sealed": f"{seal.records} records in {seal.payload_length} bytes"}
