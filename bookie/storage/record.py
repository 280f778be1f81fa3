"""The records of a segment: what the bookie appends to its log, and nothing else knows.

A group frame of coord.log holds records run together. All integers are little-endian.

    record = kind u8 | flags u8 | zero u16 | body bytes u32 | body CRC32C u32 | header CRC32C u32 | body

    kind 1 EXTENT     body = an extent as bookie.ledger.extent defines it, byte for byte as it was received
    kind 2 KEY        body = ledger id u64 | master key           the ledger exists here from now on
    kind 3 FENCE      body = ledger id u64                        normal adds are refused from now on
    kind 4 LAC        body = ledger id u64 | LAC i64              explicit LAC, the highest counts
    kind 5 TOMBSTONE  body = ledger id u64                        deleted: data goes, adds stay refused
    kind 6 MOVED      body = segment u64 | offset u64 | extent    a copy by compaction; it replaces the record
                                                                  at that place, where the index still has it
    kind 7 OPENED     body = incarnation u64                      first of every start, so that no segment
                                                                  the index's mark may name is ever empty

The header CRC covers the twelve bytes before it, so a record read alone, at a place the index names, is
verified whole with one pass over its body (R-S2). flags bit 0 (SKIPPABLE) lets an older bookie pass over a
kind it does not know; an unknown kind without it, and any other unknown flag, stops the start-up (spec 9.3).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google_crc32c import value as crc32c

EXTENT: Final = 1
KEY: Final = 2
FENCE: Final = 3
LAC: Final = 4
TOMBSTONE: Final = 5
MOVED: Final = 6
OPENED: Final = 7
KINDS: Final = {
    EXTENT: "extent",
    KEY: "key",
    FENCE: "fence",
    LAC: "lac",
    TOMBSTONE: "tombstone",
    MOVED: "moved",
    OPENED: "opened",
}

SKIPPABLE: Final = 1
HEADER_BYTES: Final = 16
BODY_BYTES_MAX: Final = (1 << 30) - 1
LEDGER_ID_MAX: Final = (1 << 63) - 1

_FIELDS: Final = struct.Struct("<BBHII")
_HEADER: Final = struct.Struct("<BBHIII")
_LEDGER: Final = struct.Struct("<Q")
_LAC: Final = struct.Struct("<Qq")
_PLACE: Final = struct.Struct("<QQ")


class RecordDamagedError(Exception):
    """Bytes that are not the record they should be: bad checksum, wrong length, wrong id."""


class RecordUnknownError(Exception):
    """A well-formed record of a kind this version does not know and must not skip."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record found in a payload: `start` and `length` delimit it there, header included."""

    kind: int
    flags: int
    start: int
    length: int
    body: bytes


def encode_header(kind: int, body: bytes, body_crc: int | None = None, flags: int = 0) -> bytes:
    """Sixteen bytes that make `body` a record; `body_crc` saves a pass where it is known."""
    if body_crc is None:
        body_crc = crc32c(body)
    fields = _FIELDS.pack(kind, flags, 0, len(body), body_crc)
    header_crc: int = crc32c(fields)
    return fields + header_crc.to_bytes(4, "little")


def key_record(ledger_id: int, master_key: bytes) -> bytes:
    body = _LEDGER.pack(ledger_id) + master_key
    return encode_header(KEY, body) + body


def fence_record(ledger_id: int) -> bytes:
    body = _LEDGER.pack(ledger_id)
    return encode_header(FENCE, body) + body


def lac_record(ledger_id: int, lac: int) -> bytes:
    body = _LAC.pack(ledger_id, lac)
    return encode_header(LAC, body) + body


def tombstone_record(ledger_id: int) -> bytes:
    body = _LEDGER.pack(ledger_id)
    return encode_header(TOMBSTONE, body) + body


def opened_record(incarnation: int) -> bytes:
    body = _LEDGER.pack(incarnation)
    return encode_header(OPENED, body) + body


def moved_record(segment: int, offset: int, extent: bytes) -> bytes:
    body = _PLACE.pack(segment, offset) + extent
    return encode_header(MOVED, body) + body


def decode_record(data: bytes, start: int = 0) -> Record:
    """The record at `start` of `data`, verified.

    Raises:
        RecordDamagedError: the bytes there are not a whole, undamaged record.
        RecordUnknownError: its checksums hold, but this version does not know its flags.
    """
    if len(data) - start < HEADER_BYTES:
        raise RecordDamagedError(
            f"record header needs {HEADER_BYTES} bytes, {len(data) - start} left at {start}"
        )
    kind, flags, zero, body_bytes, body_crc, header_crc = _HEADER.unpack_from(data, start)
    if crc32c(data[start : start + 12]) != header_crc:
        raise RecordDamagedError(f"record header checksum does not match at {start}")
    end = start + HEADER_BYTES + body_bytes
    if end > len(data):
        raise RecordDamagedError(f"record at {start} needs {end - start} bytes, {len(data) - start} left")
    body = data[start + HEADER_BYTES : end]
    if crc32c(body) != body_crc:
        raise RecordDamagedError(f"record body checksum does not match at {start}, kind {kind}")
    if zero or flags & ~SKIPPABLE:
        raise RecordUnknownError(f"record at {start} of kind {kind} has unknown flags {flags:#x}, {zero:#x}")
    return Record(kind, flags, start, end - start, body)


def iterate_records(payload: bytes) -> Iterator[Record]:
    """Every record of a group frame's payload in order, records to be skipped left out.

    Raises:
        RecordDamagedError: see `decode_record`; also for bytes left over at the end.
        RecordUnknownError: a kind this version must know and does not.
    """
    start, end = 0, len(payload)
    while start < end:
        record = decode_record(payload, start)
        start += record.length
        if record.kind in KINDS:
            yield record
        elif not record.flags & SKIPPABLE:
            raise RecordUnknownError(
                f"record at {record.start} has unknown kind {record.kind}: written by a newer zoolog?"
            )


def ledger_of(record: Record) -> int:
    """The ledger id of a KEY, FENCE, LAC or TOMBSTONE record.

    Raises:
        RecordDamagedError: the body is too short, or the id is not a ledger id.
    """
    if len(record.body) < 8:
        raise RecordDamagedError(f"{KINDS[record.kind]} record at {record.start} has no ledger id")
    ledger_id: int = _LEDGER.unpack_from(record.body)[0]
    if ledger_id > LEDGER_ID_MAX:
        raise RecordDamagedError(f"{KINDS[record.kind]} record at {record.start} names ledger {ledger_id}")
    return ledger_id


def lac_of(record: Record) -> int:
    """The LAC of a LAC record; raises RecordDamagedError for a short one."""
    if len(record.body) < 16:
        raise RecordDamagedError(f"lac record at {record.start} has {len(record.body)} bytes, needs 16")
    lac: int = _LAC.unpack_from(record.body)[1]
    return lac


def moved_from(record: Record) -> tuple[int, int, bytes]:
    """Segment and offset that a MOVED record replaces, and its extent."""
    if len(record.body) < 16:
        raise RecordDamagedError(f"moved record at {record.start} has {len(record.body)} bytes, needs 16")
    segment, offset = _PLACE.unpack_from(record.body)
    return segment, offset, record.body[16:]
