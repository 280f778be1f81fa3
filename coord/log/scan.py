"""Reading a segment frame by frame, and the one decision of start-up: torn tail or damage?

A frame is one group, and a group is written only after the one before it was fsynced. So at most the last
frame of the last segment can be incomplete after a crash, and nothing in it was ever reported durable:
cutting it loses nothing anybody was told. A bad frame with anything valid behind it had been fsynced; it is
damage, is reported with file and offset, and is never cut (ledger specification R-J4).

A bad frame with nothing behind it is torn for certain only if some of it is missing: sectors go to the disk
whole or not at all, and where one did not there are zeros, or the file ends (`is_torn`). One all of whose
sectors are there was written in full, and has changed since. Who must not believe that nothing was in it
calls that damage too.

What is looked for behind a bad frame is a frame *header* that is right for its file and position: payloads
cannot forge one without knowing the file's random id, and a header proves that its group was written even if
its own payload is bad too.
"""

from collections.abc import Iterator
from typing import NamedTuple

from google_crc32c import value as crc32c

from coord.disk.api import SECTOR_BYTES, DiskFile
from coord.log.format import (
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    HEADER_BLOCK_BYTES,
    FrameHeader,
    LogDamagedError,
    SegmentHeader,
    decode_frame_header,
    decode_segment_header,
    frame_bytes,
    has_zero_sector,
)

__all__ = [
    "Frame",
    "FrameScan",
    "find_later_frame",
    "find_seal",
    "is_torn",
    "is_zero_from",
    "read_segment_header",
]

_READ_BYTES = 1 << 20


class Frame(NamedTuple):
    """A verified frame. `end` is where the next one starts."""

    offset: int
    header: FrameHeader
    payload: bytes
    end: int


def read_segment_header(file: DiskFile) -> SegmentHeader:
    """Raises: LogDamagedError."""
    return decode_segment_header(file.pread(HEADER_BLOCK_BYTES, 0), file.path)


class FrameScan:
    """Iterates the frames of one segment, verifying each; stops at the first that is not there or not right.

    Attributes:
        end: offset after the last valid frame so far.
        problem: after the iteration, what is wrong with the frame at `end`; None if there is none.
        group, previous: of the last valid frame; what the next one must follow.
    """

    def __init__(
        self,
        file: DiskFile,
        header: SegmentHeader,
        start: int = HEADER_BLOCK_BYTES,
        *,
        limit: int | None = None,
    ) -> None:
        self._file = file
        self._file_id = header.file_id
        self._sealed = header.sealed
        self._limit = file.size() if limit is None else limit
        self._buffer = b""
        self._buffer_offset = 0
        self.end = start
        self.problem: str | None = None
        self.group: int | None = header.group if start == HEADER_BLOCK_BYTES else None
        self.previous = header.previous

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._next()) is not None:
            self.end = frame.end
            self.group = frame.header.group
            self.previous = frame.header.header_crc
            yield frame

    def _bytes(self, offset: int, length: int) -> int:
        """Have `length` bytes at `offset` in the buffer, if the file has them; returns their index."""
        index = offset - self._buffer_offset
        if index < 0 or index + length > len(self._buffer):
            self._buffer = self._file.pread(min(max(length, _READ_BYTES), self._limit - offset), offset)
            self._buffer_offset = offset
            return 0
        return index

    def _next(self) -> Frame | None:
        offset = self.end
        if offset + FRAME_HEADER_BYTES > self._limit:
            if offset < self._limit:
                self.problem = "the file ends within a frame header"
            return None
        at = self._bytes(offset, FRAME_HEADER_BYTES)
        header = decode_frame_header(self._buffer, at, self._file_id, offset)
        if header is None:
            self.problem = "no valid frame header"
            return None
        # The checksum proves that this header was written here, so a wrong chain is always damage.
        if self.group is not None and (header.group != self.group + 1 or header.previous != self.previous):
            expected = f"group {self.group + 1} after {self.previous:08x}"
            what = f"expected {expected}, got group {header.group} after {header.previous:08x}"
            raise LogDamagedError(self._file.path, offset, what)
        end = offset + frame_bytes(header.payload_length, sealed=self._sealed)
        if offset + FRAME_HEADER_BYTES + header.payload_length > self._limit:
            self.problem = "the file ends within a frame"
            return None
        at = self._bytes(offset, FRAME_HEADER_BYTES + header.payload_length) + FRAME_HEADER_BYTES
        payload = self._buffer[at : at + header.payload_length]
        if crc32c(payload) != header.payload_crc:
            self.problem = "the payload's checksum does not match"
            return None
        return Frame(offset, header, payload, end)


def find_later_frame(file: DiskFile, file_id: bytes, after: int) -> int | None:
    """Offset of a frame header that was written here, at its place, behind the bad frame at `after`."""
    size = file.size()
    offset = after + SECTOR_BYTES
    while offset < size:
        data = file.pread(_READ_BYTES, offset)
        at = data.find(FRAME_MAGIC)
        while at >= 0:
            if at % SECTOR_BYTES == 0 and decode_frame_header(data, at, file_id, offset + at) is not None:
                return offset + at
            at = data.find(FRAME_MAGIC, at + 1)
        # Chunks are whole sectors and a header lies within one sector, so none spans two chunks.
        offset += _READ_BYTES
    return None


def find_seal(file: DiskFile, header: SegmentHeader, offset: int, limit: int) -> FrameHeader | None:
    """What the header of the frame at `offset` was, by the copy of it at the frame's end; None if there is
    none before `limit`.
    """
    if not header.sealed:
        return None
    start = offset
    while start < limit:
        data = file.pread(min(_READ_BYTES, limit - start), start)
        at = data.find(FRAME_MAGIC)
        while at >= 0:
            end = start + at + FRAME_HEADER_BYTES
            if end % SECTOR_BYTES == 0:
                found = decode_frame_header(data, at, header.file_id, offset)
                if found is not None and offset + frame_bytes(found.payload_length) == end:
                    return found
            at = data.find(FRAME_MAGIC, at + 1)
        # As above: chunks are whole sectors, and a seal lies within one.
        start += _READ_BYTES
    return None


def is_torn(file: DiskFile, header: SegmentHeader, offset: int) -> bool:
    """Can a crash have left the bad frame at `offset`, the last one there is? Without a right header only its
    first sector is known to be its own; one that says that sectors of zeros belong there is taken for damaged
    where it is all there.
    """
    head = decode_frame_header(file.pread(FRAME_HEADER_BYTES, offset), 0, header.file_id, offset)
    length = SECTOR_BYTES if head is None else frame_bytes(head.payload_length, sealed=header.sealed)
    data = file.pread(length, offset)
    if len(data) < length:
        return True
    return (head is None or not head.has_zero_sector) and has_zero_sector(data)


def is_zero_from(file: DiskFile, offset: int) -> bool:
    """Whether nothing but zeros (space written ahead) follows."""
    size = file.size()
    while offset < size:
        data = file.pread(_READ_BYTES, offset)
        if data.count(0) != len(data):
            return False
        offset += _READ_BYTES
    return True
