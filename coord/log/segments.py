"""The segmented log: opening with repair, scanning, writing groups, rotating, cutting, removing.

A segment's header says where its predecessor's valid part ends. That one fact makes every change of the set
of segments atomic: a new segment is written and fsynced under a temporary name, and its rename is the moment
at which the log continues there. Whatever the predecessors hold behind that place (a torn tail, records above
a truncation, zeros written ahead) is no longer part of the log; cutting it off is clean-up, repeated by
`open_log` if a crash came between. Bytes are never overwritten, and a segment's name and header are durable
before its first frame is.

`coord.log.opening` reads that story back.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coord.disk import Disk, DiskFile
from coord.log.format import (
    FRAME_HEADER_BYTES,
    HEADER_BLOCK_BYTES,
    LogDamagedError,
    SegmentHeader,
    decode_lengths,
    encode_frame,
    encode_segment_header,
    frame_bytes,
    segment_name,
)
from coord.log.scan import FrameScan

__all__ = [
    "TEMPORARY_SUFFIX",
    "FoundLog",
    "LogConfig",
    "Position",
    "Record",
    "Segment",
    "SegmentedLog",
    "TornTail",
]

TEMPORARY_SUFFIX = ".new"
_OPEN_READERS_MAX = 128


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Sizes of a log, in bytes.

    Attributes:
        segment_bytes_max: a segment that has reached it is followed by a new one before the next group.
        group_bytes_max: a group takes no further record beyond it (one record may be larger).
        record_bytes_max: a larger record is refused.
        zero_ahead_bytes: an idle log with small groups writes this many zeros ahead, so that a sync need not
            touch the file's metadata (a third less time per sync on ext4); 0: never.
        free_bytes_min: with less free space on the device nothing is taken (reads go on).
        cached: what was written stays in memory for who reads it soon. False for a log that is only read at
            the next start.
        contiguous: every segment but the first must follow its predecessor. False for a store that removes
            segments in the middle.
        sealed: frames have seals (`coord.log.format`), which earlier releases cannot read; a log that has had
            them goes on with them in any case.
    """

    segment_bytes_max: int = 256 << 20
    group_bytes_max: int = 1 << 20
    record_bytes_max: int = 64 << 20
    zero_ahead_bytes: int = 256 << 10
    free_bytes_min: int = 64 << 20
    cached: bool = True
    contiguous: bool = True
    sealed: bool = True


class Position(NamedTuple):
    """A place between two frames: everything before it is in the log. Positions compare in log order; (0, 0)
    is the beginning.
    """

    segment: int
    offset: int


BEGINNING = Position(0, 0)


class Record(NamedTuple):
    """One append as found on disk.

    Attributes:
        offset: of the payload in the segment's file.
        group: number of its group; `frame_start` and `frame_end` are the group's bounds, where the log may be
            cut.
    """

    segment: int
    offset: int
    payload: bytes
    group: int
    frame_start: Position
    frame_end: Position


@dataclass(frozen=True, slots=True)
class TornTail:
    """What `open_log` cut off the end: a group that was being written when the process or the machine
    stopped, never reported durable.
    """

    path: str
    offset: int
    length: int
    problem: str


@dataclass(slots=True)
class Segment:
    """A segment's file; `end` is where its valid frames end."""

    path: str
    header: SegmentHeader
    end: int


@dataclass(slots=True)
class FoundLog:
    """What is on disk, before anything is changed.

    Attributes:
        segments: those that belong to the log, by number.
        leftovers: segments that an interrupted cut had left behind.
        untrimmed: numbers of segments whose files are longer than their valid part, which their followers
            name.
        end: where the log ends.
        group, previous: number and header checksum of the last frame before `end`.
        last_group: where the last frame of the last segment starts and ends; None if it has none.
        number_max: highest number in use; numbers are never used twice.
    """

    segments: dict[int, Segment] = field(default_factory=dict)
    leftovers: dict[int, Segment] = field(default_factory=dict)
    untrimmed: list[int] = field(default_factory=list)
    end: Position = BEGINNING
    group: int = 0
    previous: int = 0
    last_group: tuple[int, int] | None = None
    number_max: int = 0
    torn_tail: TornTail | None = None


class SegmentedLog:
    """Segments of one log, the last of them written to; made by `open_log`.

    Writing, rotating, cutting and removing belong to one thread at a time (`LogWriter`'s while there is one);
    `scan`, `read`, `segments` and `end` may be called from the loop meanwhile and see only what is durable.

    Attributes:
        torn_tail: what opening cut off, if anything.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        prefix: str,
        *,
        tag: bytes,
        config: LogConfig,
        new_file_id: Callable[[], bytes],
        found: FoundLog,
    ) -> None:
        self._disk = disk
        self._prefix = prefix
        self._tag = tag
        self._new_file_id = new_file_id
        self._segments = found.segments | found.leftovers
        self._readers: dict[int, DiskFile] = {}
        self._file: DiskFile | None = None
        self._active: Segment | None = None
        self._group = found.group
        self._previous = found.previous
        self._zeroed_to = 0
        self._next_number = found.number_max + 1
        last = found.segments.get(found.number_max)
        self._sealed = config.sealed or (last is not None and last.header.sealed)
        self._found_end = found.end
        self.directory = directory
        self.config = config
        self.torn_tail = found.torn_tail
        for number in found.leftovers:
            self._forget(number)
        for number in found.untrimmed:
            self._trim(Position(number, self._segments[number].end))
        self.cut(found.end)

    # Reading: any time, from the loop.

    def scan(self, start: Position | None = None) -> Iterator[Record]:
        """All durable records from `start`, which must be a frame's bound (None: the first there is). Every
        frame is verified.

        From a `start` on no segment may be missing, whether the log is contiguous before it or not.

        Raises:
            LogDamagedError: a frame is not what was written, or a segment is missing; nothing from there on
                is yielded.
        """
        last: tuple[int, int, int] | None = None  # number, end, group of the segment before
        for number in sorted(self._segments):
            segment = self._segments.get(number)
            if segment is None or (start is not None and number < start.segment):
                continue
            first = start.offset if start is not None and number == start.segment else HEADER_BLOCK_BYTES
            self._check_follows(segment, last, contiguous=self.config.contiguous or start is not None)
            limit = segment.end
            file = self._disk.open(segment.path, writable=False)
            try:
                frames = FrameScan(file, segment.header, max(first, HEADER_BLOCK_BYTES), limit=limit)
                for frame in frames:
                    lengths = decode_lengths(frame.payload, frame.header.records)
                    if lengths is None:
                        raise LogDamagedError(
                            segment.path, frame.offset, "the records' lengths do not fill the frame"
                        )
                    frame_start, frame_end = Position(number, frame.offset), Position(number, frame.end)
                    at = 4 * len(lengths)
                    base = frame.offset + FRAME_HEADER_BYTES
                    for length in lengths:
                        payload = frame.payload[at : at + length]
                        yield Record(number, base + at, payload, frame.header.group, frame_start, frame_end)
                        at += length
                if frames.end != limit:
                    problem = frames.problem or f"expected frames up to {limit}"
                    raise LogDamagedError(segment.path, frames.end, problem)
                last = (number, frames.end, frames.group if frames.group is not None else -1)
            finally:
                file.close()

    def _check_follows(
        self, segment: Segment, last: tuple[int, int, int] | None, *, contiguous: bool
    ) -> None:
        if last is None:
            return
        header = segment.header
        number, end, group = last
        if header.follows_segment != number:
            if contiguous:
                raise LogDamagedError(
                    segment.path, 0, f"segment {header.follows_segment} before it is missing"
                )
        elif header.follows_offset != end or (group >= 0 and header.group != group):
            expected = f"segment {number} to end at {header.follows_offset} with group {header.group}"
            raise LogDamagedError(segment.path, 0, f"expected {expected}, got {end} with group {group}")

    def read(self, segment: int, offset: int, length: int) -> bytes:
        """Bytes as written, unverified (records carry their own checksums).

        Raises:
            LogDamagedError: there is no such segment, or it is too short.
        """
        file = self._readers.get(segment)
        if file is None:
            known = self._segments.get(segment)
            if known is None:
                path = self.path(segment)
                raise LogDamagedError(path, offset, "there is no such segment")
            while len(self._readers) >= _OPEN_READERS_MAX:
                self._readers.pop(next(iter(self._readers))).close()
            file = self._readers[segment] = self._disk.open(known.path, writable=False)
        data = file.pread(length, offset)
        if len(data) != length:
            raise LogDamagedError(file.path, offset, f"expected {length} bytes, got {len(data)}")
        return data

    def segments(self) -> list[tuple[int, int]]:
        """(number, bytes used) of every segment, in order."""
        return sorted((number, segment.end) for number, segment in self._segments.items())

    @property
    def last_group(self) -> int:
        """Number of the last group ever written, also where it is gone by now."""
        return self._group

    def path(self, number: int) -> str:
        """A segment's file, whether it is there or not."""
        return os.path.join(self.directory, segment_name(self._prefix, number))

    def free_bytes(self) -> int:
        """Free space on the log's device."""
        return self._disk.free_bytes(self.directory)

    def end(self) -> Position:
        """Where the next frame will start, unless a new segment is begun first."""
        assert self._active is not None
        return Position(self._active.header.number, self._active.end)

    # Writing: one thread.

    def write_group(
        self, lengths: Sequence[int], parts: Sequence[bytes], *, durable: bool = True
    ) -> tuple[int, int]:
        """Write one group and make it durable.

        Args:
            lengths: of each record; `parts` are all their bytes in order, cut anywhere.
            durable: else it is so only after the next `sync`; for a log that nobody relies on before.

        Returns:
            (segment, offset of the first record's bytes); the others follow without gaps.

        Raises:
            OSError: the log must not be written to again.
        """
        active, file = self._active, self._file
        assert active is not None
        assert file is not None
        if active.end >= self.config.segment_bytes_max or active.header.sealed != self._sealed:
            if not durable:
                file.fdatasync()
            self.rotate()
            return self.write_group(lengths, parts, durable=durable)
        offset = active.end
        group = self._group + 1
        sealed = self._sealed
        frame, header_crc = encode_frame(
            active.header.file_id, offset, group, self._previous, lengths, parts, sealed=sealed
        )
        write = file.pwrite_durable if durable else file.pwrite
        write(frame, offset)
        active.end = offset + frame_bytes(4 * len(lengths) + sum(lengths), sealed=sealed)
        self._group = group
        self._previous = header_crc
        return active.header.number, offset + FRAME_HEADER_BYTES + 4 * len(lengths)

    def sync(self) -> None:
        """Make durable what was written without.

        Raises:
            OSError: the log must not be written to again.
        """
        assert self._file is not None
        self._file.fdatasync()

    @property
    def wants_zeros(self) -> bool:
        """Whether `zero_ahead` has something to do."""
        active = self._active
        assert active is not None
        step = self.config.zero_ahead_bytes
        return bool(
            step
            and self._zeroed_to - active.end < step // 4
            and active.end + step < self.config.segment_bytes_max
        )

    def zero_ahead(self) -> None:
        """Write zeros behind the end if few are left there. For idle moments: the next syncs are faster by
        more than this costs.
        """
        active, file = self._active, self._file
        assert active is not None
        assert file is not None
        if self.wants_zeros:
            step = self.config.zero_ahead_bytes
            start = max(self._zeroed_to, active.end)
            file.pwrite_durable((bytes(step),), start)
            self._zeroed_to = start + step

    def seal(self) -> None:
        """From the next group on frames have seals; it goes into a new segment."""
        self._sealed = True

    def rotate(self) -> int:
        """Begin a new segment; returns its number."""
        self.cut(self.end())
        return self.end().segment

    def cut(self, end: Position, carry: Sequence[bytes] = ()) -> list[tuple[int, int, int]]:
        """Make `end` the end of the log, continued by a new segment that starts with the records `carry`;
        atomic against crashes.

        Args:
            end: a frame's bound, or (0, 0).
            carry: records of the frame that is cut through which must stay.

        Returns:
            (segment, offset, length) of each carried record.

        Raises:
            LogDamagedError: `end` is not a frame's bound.
            OSError: the log must not be written to again.
        """
        group, previous = self._chain_at(end)
        segment, file = self._new_segment(end, group, previous, carry)
        # From here on the log ends in the new segment; the rest is clean-up that `open_log` would repeat.
        header = segment.header
        if self._file is not None:
            self._file.close()
        self._segments[header.number] = segment
        self._active, self._file = segment, file
        self._zeroed_to = 0
        for number in sorted(self._segments):
            if end.segment < number < header.number:
                self._forget(number)
        self._trim(end)
        self._disk.fsync_directory(self.directory)
        if not carry:
            return []
        offset = HEADER_BLOCK_BYTES + FRAME_HEADER_BYTES + 4 * len(carry)
        places = []
        for record in carry:
            places.append((header.number, offset, len(record)))
            offset += len(record)
        return places

    def _chain_at(self, end: Position) -> tuple[int, int]:
        """Group number and header checksum of the last frame before `end`."""
        if end == BEGINNING:
            # The group number goes on rising: a later group is told by its number.
            return self._group, 0
        if end == (self._found_end if self._active is None else self.end()):
            return self._group, self._previous
        segment = self._segments.get(end.segment)
        if segment is None:
            # An empty segment that followed one already removed is replaced by the new one.
            followers = [s.header for s in self._segments.values() if s.header.follows_segment == end.segment]
            if not followers:
                raise LogDamagedError(self.directory, end.offset, f"there is no segment {end.segment} to cut")
            return followers[0].group, followers[0].previous
        file = self._disk.open(segment.path, writable=False)
        try:
            frames = FrameScan(file, segment.header, limit=segment.end)
            if end.offset != HEADER_BLOCK_BYTES:
                for frame in frames:
                    if frame.end >= end.offset:
                        break
        finally:
            file.close()
        if frames.end != end.offset or frames.group is None:
            raise LogDamagedError(segment.path, end.offset, "not the end of a frame")
        return frames.group, frames.previous

    def _new_segment(
        self, follows: Position, group: int, previous: int, carry: Sequence[bytes]
    ) -> tuple[Segment, DiskFile]:
        number = self._next_number
        header = SegmentHeader(
            self._new_file_id(),
            number,
            follows.segment,
            follows.offset,
            group,
            previous,
            self._tag,
            self._sealed,
        )
        path = self.path(number)
        parts: list[bytes] = [encode_segment_header(header)]
        if carry:
            lengths = [len(record) for record in carry]
            frame, previous = encode_frame(
                header.file_id, HEADER_BLOCK_BYTES, group + 1, previous, lengths, carry, sealed=self._sealed
            )
            group += 1
            parts += frame
        if self._disk.exists(path + TEMPORARY_SUFFIX):
            self._disk.unlink(path + TEMPORARY_SUFFIX)
        file = self._disk.open(path + TEMPORARY_SUFFIX, create=True)
        if not self.config.cached:
            file.bypass_cache()
        file.pwrite_durable(parts, 0)
        self._disk.rename(path + TEMPORARY_SUFFIX, path)
        self._disk.fsync_directory(self.directory)
        self._next_number = number + 1
        self._group, self._previous = group, previous
        return Segment(path, header, sum(map(len, parts))), file

    def _trim(self, end: Position) -> None:
        """Cut off what lies behind `end` in its segment."""
        segment = self._segments.get(end.segment)
        if segment is None:
            return
        segment.end = end.offset
        file = self._disk.open(segment.path)
        try:
            if file.size() != end.offset:
                file.truncate(end.offset)
                file.fdatasync()
        finally:
            file.close()

    def _forget(self, number: int) -> None:
        segment = self._segments.pop(number)
        reader = self._readers.pop(number, None)
        if reader is not None:
            reader.close()
        self._disk.unlink(segment.path)

    def remove(self, numbers: Sequence[int]) -> None:
        """Unlink segments, never the one written to; if the log is contiguous, only the oldest ones."""
        assert self._active is not None
        doomed = sorted(set(numbers) & self._segments.keys())
        assert self._active.header.number not in doomed
        assert not self.config.contiguous or doomed == sorted(self._segments)[: len(doomed)]
        for number in doomed:
            self._forget(number)
        if doomed:
            self._disk.fsync_directory(self.directory)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
