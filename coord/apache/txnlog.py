"""ZooKeeper's transaction logs.

    file   := "ZKLG" | version i32 = 2 | database id i64 | record* | zeros
    record := Adler-32 of the transaction i64 | length i32 | transaction | "B"
    transaction := session id i64 | cxid i32 | zxid i64 | time ms i64 | type i32 | body
                   | (digest version i32 | digest of the tree i64)?                   since 3.6

The file is filled with zeros before it is written to, so zeros are the end. A record that does not end in
"B", or that the file is too short for, was being written when the server stopped: the end too, unless a whole
record follows. That, and a whole record without its checksum, is damage.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from coord.apache.errors import DamagedApacheFileError

MAGIC: Final = 0x5A4B4C47
VERSION: Final = 2

_FILE_HEADER = struct.Struct(">iiq")
_RECORD = struct.Struct(">qi")
_HEADER = struct.Struct(">qiqqi")
_END_OF_RECORD: Final = 0x42


@dataclass(frozen=True, slots=True)
class Transaction:
    """One record of a log, its body undecoded (with the digest behind it)."""

    offset: int
    session_id: int
    zxid: int
    time_ms: int
    type: int
    body: bytes


@dataclass(frozen=True, slots=True)
class TornEnd:
    """The last record was not written to its end; what is there was never acknowledged."""

    offset: int


def read_transactions(path: str, data: bytes) -> Iterator[Transaction | TornEnd]:
    """The transactions of a file in order; at most one `TornEnd`, as the last.

    Raises:
        DamagedApacheFileError: a whole record that is not what was written, or no log at all.
    """
    if len(data) < _FILE_HEADER.size:
        # The header itself was being written.
        yield TornEnd(0)
        return
    magic, version, _ = _FILE_HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise DamagedApacheFileError(path, 0, f"no transaction log of version {VERSION}")
    at, written = _FILE_HEADER.size, len(data.rstrip(b"\0"))
    while at < written:
        record = _record(data, at)
        if record is None:
            behind = next((place for place in range(at + 1, written) if _is_whole(data, place)), None)
            if behind is not None:
                raise DamagedApacheFileError(path, at, f"no whole record, and one follows at {behind}")
            yield TornEnd(at)
            return
        checksum, body = record
        if zlib.adler32(body) != checksum:
            raise DamagedApacheFileError(
                path, at, f"expected checksum {checksum:#x}, got {zlib.adler32(body):#x}"
            )
        session_id, _, zxid, time_ms, kind = _HEADER.unpack_from(body)
        yield Transaction(at, session_id, zxid, time_ms, kind, body[_HEADER.size :])
        at += _RECORD.size + len(body) + 1


def _record(data: bytes, at: int) -> tuple[int, bytes] | None:
    """Checksum and content of the record at a place; None where none ends as it should."""
    start = at + _RECORD.size
    if start > len(data):
        return None
    checksum, length = _RECORD.unpack_from(data, at)
    end = start + length
    if length < _HEADER.size or end >= len(data) or data[end] != _END_OF_RECORD:
        return None
    return checksum, data[start:end]


def _is_whole(data: bytes, at: int) -> bool:
    record = _record(data, at)
    return record is not None and zlib.adler32(record[1]) == record[0]


def encode_transaction(session_id: int, zxid: int, time_ms: int, kind: int, body: bytes) -> bytes:
    """A record as ZooKeeper writes it (for tests)."""
    record = _HEADER.pack(session_id, 0, zxid, time_ms, kind) + body
    return _RECORD.pack(zlib.adler32(record), len(record)) + record + bytes([_END_OF_RECORD])
