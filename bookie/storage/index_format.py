"""Keys and values of the extent index, an LMDB environment. `bookie.storage.index` reads and writes them.

LMDB checks nothing it reads, so every value ends in a CRC32C over its key and itself. Keys are big-endian, so
that they sort by number; values are little-endian.

    table ledgers     key = ledger id u64
                      value = version u8 (1) | flags u8 | key bytes u8 | 0 u8 | LAC i64 | last entry i64 |
                      runs u64
                              | master key | CRC                       flags: 1 fenced, 2 being deleted
    table runs        key = ledger id u64 | last entry id u64
                      value = first entry id u64 | previous i64 | segment u64 | offset u64 | record bytes u32
                              | live bytes u32 | CRC
    table segments    key = segment u64      value = runs u64 | live bytes u64 | CRC
    table tombstones  key = last ledger id of a range u64              value = first ledger id u64 | CRC
    table meta        key = "format"         value = version u64 (1) | CRC
                      key = "identity"       value = incarnation u64 (R-I2), also every segment's tag | CRC
                      key = "mark"           value = segment u64 | offset u64 | CRC
                      key = "ledgers"        value = count u64 | digest u64 | CRC

A negative answer must be as certain as a positive one (R-B9), and a key that bit rot has moved would look
like an entry that never came. So a run names the last id of the run before it (`previous`, -1 for the first),
a ledger the last id of all (-1: none), and "ledgers" the number of ledger records and the sum of their CRCs
modulo 2**64: a gap is believed only where a value under checksum says that there is one.
"""

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from google_crc32c import value as crc32c

FORMAT_VERSION: Final = 1
TABLES: Final = (b"ledgers", b"runs", b"segments", b"tombstones", b"meta")

_ID: Final = struct.Struct(">Q")
_RUN_KEY: Final = struct.Struct(">QQ")
_LEDGER: Final = struct.Struct("<BBBBqqQ")
_RUN: Final = struct.Struct("<QqQQII")
_PAIR: Final = struct.Struct("<QQ")
_FENCED: Final = 1
_DELETING: Final = 2
_LEDGER_VERSION: Final = 1


class IndexDamagedError(Exception):
    """The index holds something that was not written to it, or lacks something that was."""


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """What the index knows of one ledger.

    Attributes:
        lac: highest LAC received, piggybacked or explicit; -1 when none.
        last_entry_id: highest id in the table of runs, -1 when there is none.
        runs: number of runs in the table.
        deleting: its tombstone is written and its runs are being removed.
    """

    master_key: bytes
    fenced: bool = False
    deleting: bool = False
    lac: int = -1
    last_entry_id: int = -1
    runs: int = 0


class RunRecord(NamedTuple):
    """Entries `first`..`last` and their record's place; nothing from `previous` + 1 to `first` - 1."""

    first: int
    last: int
    segment: int
    offset: int
    length: int
    live_bytes: int
    previous: int = -1


def id_key(number: int) -> bytes:
    return _ID.pack(number)


def key_id(key: bytes) -> int:
    """The number of a ledger, segment or tombstone key."""
    if len(key) != 8:
        raise IndexDamagedError(f"index key {key.hex()} has {len(key)} bytes, expected 8")
    number: int = _ID.unpack(key)[0]
    return number


def run_key(ledger_id: int, last: int) -> bytes:
    return _RUN_KEY.pack(ledger_id, last)


def encode_ledger(key: bytes, record: LedgerRecord) -> bytes:
    flags = _FENCED * record.fenced | _DELETING * record.deleting
    fields = _LEDGER.pack(
        _LEDGER_VERSION, flags, len(record.master_key), 0, record.lac, record.last_entry_id, record.runs
    )
    return seal(key, fields + record.master_key)


def decode_ledger(key: bytes, value: bytes) -> LedgerRecord:
    body = unseal(key, value)
    if len(body) < _LEDGER.size:
        raise IndexDamagedError(f"ledger record {key.hex()} has {len(body)} bytes")
    version, flags, key_bytes, _, lac, last, runs = _LEDGER.unpack_from(body)
    if version != _LEDGER_VERSION or len(body) != _LEDGER.size + key_bytes or flags & ~(_FENCED | _DELETING):
        raise IndexDamagedError(
            f"ledger record {key.hex()}: version {version}, flags {flags:#x}, {len(body)} bytes"
        )
    return LedgerRecord(body[_LEDGER.size :], bool(flags & _FENCED), bool(flags & _DELETING), lac, last, runs)


def encode_run(key: bytes, run: RunRecord) -> bytes:
    fields = _RUN.pack(run.first, run.previous, run.segment, run.offset, run.length, run.live_bytes)
    return seal(key, fields)


def decode_run(key: bytes, value: bytes) -> tuple[int, RunRecord]:
    """The ledger id of a run's key, and the run."""
    body = unseal(key, value)
    if len(body) != _RUN.size or len(key) != _RUN_KEY.size:
        raise IndexDamagedError(f"run {key.hex()} has {len(body)} bytes")
    ledger_id, last = _RUN_KEY.unpack(key)
    first, previous, segment, offset, length, live_bytes = _RUN.unpack(body)
    return ledger_id, RunRecord(first, last, segment, offset, length, live_bytes, previous)


def encode_pair(key: bytes, first: int, second: int) -> bytes:
    return seal(key, _PAIR.pack(first, second))


def decode_pair(key: bytes, value: bytes) -> tuple[int, int]:
    body = unseal(key, value)
    if len(body) != _PAIR.size:
        raise IndexDamagedError(f"value of {key!r} has {len(body)} bytes, expected {_PAIR.size}")
    first, second = _PAIR.unpack(body)
    return first, second


def encode_number(key: bytes, number: int) -> bytes:
    return seal(key, number.to_bytes(8, "little"))


def decode_number(key: bytes, value: bytes) -> int:
    body = unseal(key, value)
    if len(body) != 8:
        raise IndexDamagedError(f"value of {key.hex()} has {len(body)} bytes, expected 8")
    return int.from_bytes(body, "little")


def seal(key: bytes, body: bytes) -> bytes:
    """`body` with the checksum that binds it to its key."""
    checksum: int = crc32c(key + body)
    return body + checksum.to_bytes(4, "little")


def unseal(key: bytes, value: bytes) -> bytes:
    """The body of a value.

    Raises:
        IndexDamagedError: it is not what was written under this key.
    """
    body = value[:-4]
    if len(value) < 4 or crc32c(key + body) != int.from_bytes(value[-4:], "little"):
        raise IndexDamagedError(f"index value under {key.hex()} does not match its checksum")
    return body
