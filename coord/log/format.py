"""Segments and frames as bytes. All integers little-endian; everything starts at a multiple of 512.

    segment      := header-block frame* zeros?
    header-block := magic "zoologS2" | file-id 16 | number u64 | follows-segment u64 | follows-offset u64
                    | group u64 | previous u32 | tag-length u32 | tag | zeros | crc u32        512 bytes
                    magic           = or "zoologS1": the frames end with zeros only, without seals
                    group, previous = of the last frame before this segment
                    crc             = CRC32C(the 508 bytes before it)
    frame        := frame-header | lengths u32[records] | records run together | zeros | seal
                    seal            = the same 32 bytes as frame-header; they end at a multiple of 512
    frame-header := magic "zLgF" or "zLgZ" | payload-length u32 | records u32 | previous u32
                    | group u64 | payload-crc u32 | header-crc u32                             32 bytes
                    payload         = lengths and records
                    previous        = header-crc of the frame before, also across segments; 0 for the first
                    group           = 1, 2, 3...: a frame is a group, fsynced before the next is begun
                    payload-crc     = CRC32C(payload)
                    header-crc      = CRC32C(file-id | position u64 | the 28 bytes before header-crc)

File id and position under the checksum: a frame copied, misdirected or left over from another life of the
disk block is not a frame here. The header's checksum covers the payload's, so one valid header at its own
place proves that this group was written to this file, and therefore that every group before it had been
fsynced. That is what tells damage from a torn tail (`coord.log.scan`).

A frame with a seal that has a sector of nothing but zeros has the magic "zLgZ". In any other such frame a
sector of zeros is one that was never written, by which a torn group is told from a damaged one.

The seal proves as much, to whoever finds it where a header says that it must be: with the header destroyed
it still tells how much was in the frame, which for the last frame nothing else could (`coord.log.salvage`).
Earlier releases do not know it: segments have seals (and another magic) once the log's owner says that none
of those will read them (`SegmentedLog.seal`).

One thing it cannot see: a CRC32C over data that ends in its own CRC32C depends on the data's length only.
So a record should not end in a CRC32C of all of itself; it may begin with one.
"""

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from sys import byteorder

from google_crc32c import extend
from google_crc32c import value as crc32c

from coord.disk.api import SECTOR_BYTES

__all__ = [
    "FILE_ID_BYTES",
    "FRAME_HEADER_BYTES",
    "FRAME_MAGIC",
    "HEADER_BLOCK_BYTES",
    "TAG_BYTES_MAX",
    "FrameHeader",
    "LogDamagedError",
    "LogTailDamagedError",
    "SegmentHeader",
    "decode_frame_header",
    "decode_lengths",
    "decode_segment_header",
    "encode_frame",
    "encode_segment_header",
    "frame_bytes",
    "has_zero_sector",
    "padded",
    "segment_name",
    "segment_number",
]

HEADER_BLOCK_BYTES = SECTOR_BYTES
FRAME_HEADER_BYTES = 32
FRAME_MAGIC = b"zLg"
"""What a frame header begins with; the fourth byte tells the two kinds."""
_FULL_MAGIC = FRAME_MAGIC + b"F"
_ZERO_SECTOR_MAGIC = FRAME_MAGIC + b"Z"
FILE_ID_BYTES = 16
TAG_BYTES_MAX = 64
_SEGMENT_MAGIC = b"zoologS2"
_SEGMENT_MAGIC_UNSEALED = b"zoologS1"
_SEGMENT_HEADER = struct.Struct("<8s16sQQQQII")
_FRAME_HEADER = struct.Struct("<4sIIIQII")
_FRAME_FIELDS = struct.Struct("<4sIIIQI")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_ZEROS = bytes(SECTOR_BYTES)
#: Parts of a payload that are written as they are; more are joined, which then costs less than a checksum's
#: call for each.
_PARTS_MAX = 8


class LogDamagedError(Exception):
    """The log is not what was written, at `path` and `offset`. Nothing was cut; nothing from there on was
    served.
    """

    def __init__(self, path: str, offset: int, what: str) -> None:
        super().__init__(f"{path} is damaged at offset {offset}: {what}")
        self.path = path
        self.offset = offset


class LogTailDamagedError(LogDamagedError):
    """It is the last group, which was written in full."""


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself.

    Attributes:
        follows_segment: number of the segment before it, 0 for the first of a log.
        follows_offset: where the valid part of that segment ends. Longer: a cut was not finished. Shorter:
            frames are lost.
        group: number of the last group before this segment, 0 if there was none.
        previous: checksum of that group's frame header, 0 if there was none.
        tag: the log owner's own identification, such as the generation of the state.
        sealed: its frames end with a copy of their header.
    """

    file_id: bytes
    number: int
    follows_segment: int
    follows_offset: int
    group: int
    previous: int
    tag: bytes
    sealed: bool = True


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """A frame header whose checksum is right for its file and position.

    Attributes:
        has_zero_sector: it was written with a sector of nothing but zeros; always False without a seal.
    """

    payload_length: int
    records: int
    previous: int
    group: int
    payload_crc: int
    header_crc: int
    has_zero_sector: bool


def segment_name(prefix: str, number: int) -> str:
    return f"{prefix}.{number:016x}"


def segment_number(prefix: str, name: str) -> int | None:
    """The number in a segment's file name, or None if the name is not one."""
    digits = name.removeprefix(prefix + ".")
    if len(digits) != 16 or len(name) != len(prefix) + 17 or not set(digits) <= set("0123456789abcdef"):
        return None
    return int(digits, 16)


def padded(length: int) -> int:
    """`length` rounded up to whole sectors."""
    return -(-length // SECTOR_BYTES) * SECTOR_BYTES


def frame_bytes(payload_length: int, *, sealed: bool = True) -> int:
    """From the begin of a frame to the begin of the next."""
    return padded((2 if sealed else 1) * FRAME_HEADER_BYTES + payload_length)


def encode_segment_header(header: SegmentHeader) -> bytes:
    assert len(header.file_id) == FILE_ID_BYTES
    assert len(header.tag) <= TAG_BYTES_MAX
    fields = _SEGMENT_HEADER.pack(
        _SEGMENT_MAGIC if header.sealed else _SEGMENT_MAGIC_UNSEALED,
        header.file_id,
        header.number,
        header.follows_segment,
        header.follows_offset,
        header.group,
        header.previous,
        len(header.tag),
    )
    block = (fields + header.tag).ljust(HEADER_BLOCK_BYTES - 4, b"\0")
    return block + _U32.pack(crc32c(block))


def decode_segment_header(block: bytes, path: str) -> SegmentHeader:
    """Raises: LogDamagedError."""
    if len(block) != HEADER_BLOCK_BYTES:
        raise LogDamagedError(path, 0, f"expected a header of {HEADER_BLOCK_BYTES} bytes, got {len(block)}")
    if not block.startswith((_SEGMENT_MAGIC, _SEGMENT_MAGIC_UNSEALED)):
        raise LogDamagedError(path, 0, f"expected a log segment ({_SEGMENT_MAGIC!r}), got {block[:8]!r}")
    (expected,) = _U32.unpack_from(block, HEADER_BLOCK_BYTES - 4)
    if crc32c(block[:-4]) != expected:
        raise LogDamagedError(path, 0, "the checksum of the segment's header does not match")
    _, file_id, number, after, after_offset, group, previous, tag_length = _SEGMENT_HEADER.unpack_from(block)
    if tag_length > TAG_BYTES_MAX:
        raise LogDamagedError(path, 0, f"a tag of {tag_length} bytes, at most {TAG_BYTES_MAX} expected")
    start = _SEGMENT_HEADER.size
    tag = block[start : start + tag_length]
    sealed = block.startswith(_SEGMENT_MAGIC)
    return SegmentHeader(file_id, number, after, after_offset, group, previous, tag, sealed)


def encode_frame(
    file_id: bytes,
    position: int,
    group: int,
    previous: int,
    lengths: Sequence[int],
    parts: Sequence[bytes],
    *,
    sealed: bool = True,
) -> tuple[tuple[bytes, ...], int]:
    """One group as a frame.

    Args:
        lengths: of each record.
        parts: all records' bytes in order, cut anywhere.
        sealed: with the seal.

    Returns:
        The frame's bytes, in parts, and its header's checksum (the next frame's `previous`).
    """
    vector = array("I", lengths)
    if byteorder == "big":
        vector.byteswap()
    payload = (vector.tobytes(), *parts)
    if len(payload) > _PARTS_MAX:
        payload = (b"".join(payload),)
    payload_crc = 0
    for part in payload:
        payload_crc = extend(payload_crc, part)
    size = sum(map(len, payload))
    zeros = _ZEROS[: -(FRAME_HEADER_BYTES * (2 if sealed else 1) + size) % SECTOR_BYTES]
    has_zeros = sealed and _will_have_zero_sector(payload, zeros)
    magic = _ZERO_SECTOR_MAGIC if has_zeros else _FULL_MAGIC
    fields = _FRAME_FIELDS.pack(magic, size, len(lengths), previous, group, payload_crc)
    header_crc = crc32c(file_id + _U64.pack(position) + fields)
    header = fields + _U32.pack(header_crc)
    return (header, *payload, zeros + header if sealed else zeros), header_crc


def has_zero_sector(data: bytes) -> bool:
    """Whether one of the sectors of `data` is nothing but zeros."""
    return _ZEROS in data and any(data.startswith(_ZEROS, at) for at in range(0, len(data), SECTOR_BYTES))


def _will_have_zero_sector(payload: Sequence[bytes], padding: bytes) -> bool:
    """The same of a frame with a seal. Seldom more than a quick look: before the seal a sector has few bytes
    of padding, so in one part of the payload must be a good part of its zeros.
    """
    needle = _ZEROS[FRAME_HEADER_BYTES - 1 :]
    needle = needle[: len(needle) // len(payload)]
    if not any(needle in part for part in payload):
        return False
    header = FRAME_MAGIC.ljust(FRAME_HEADER_BYTES)
    return has_zero_sector(b"".join((header, *payload, padding, header)))


def decode_frame_header(data: bytes, at: int, file_id: bytes, position: int) -> FrameHeader | None:
    """The frame header in `data` at `at`, or None unless it was written for this file and position."""
    if not data.startswith(FRAME_MAGIC, at) or len(data) - at < FRAME_HEADER_BYTES:
        return None
    fields = _FRAME_HEADER.unpack_from(data, at)
    magic, payload_length, records, previous, group, payload_crc, header_crc = fields
    if magic not in (_FULL_MAGIC, _ZERO_SECTOR_MAGIC):
        return None
    if crc32c(file_id + _U64.pack(position) + data[at : at + FRAME_HEADER_BYTES - 4]) != header_crc:
        return None
    has_zero_sector = magic == _ZERO_SECTOR_MAGIC
    return FrameHeader(payload_length, records, previous, group, payload_crc, header_crc, has_zero_sector)


def decode_lengths(payload: bytes, records: int) -> "array[int] | None":
    """The records' lengths, or None unless they fill the payload exactly."""
    if records * 4 > len(payload):
        return None
    vector = array("I", payload[: records * 4])
    if byteorder == "big":
        vector.byteswap()
    return vector if records * 4 + sum(vector) == len(payload) else None
