"""Snapshots may be compressed (`snapshot.compression.method`): `snapshot.ZXID.gz`, `snapshot.ZXID.snappy`.

The second is the stream of Java's snappy library, which is not the framing of Snappy's own specification:

    stream := "\\x82SNAPPY\\0" | version i32 | compatible i32 | block*                            big-endian
    block  := length i32 | one raw Snappy block of so many bytes
    raw    := bytes when decompressed (varint) | (literal | copy)*                           little-endian
"""

import gzip
import struct
import zlib
from typing import Final

from coord.apache.errors import DamagedApacheFileError

GZIP_SUFFIX: Final = ".gz"
SNAPPY_SUFFIX: Final = ".snappy"
SUFFIXES: Final = ("", GZIP_SUFFIX, SNAPPY_SUFFIX)

_SNAPPY_MAGIC: Final = b"\x82SNAPPY\x00"
_SNAPPY_HEADER: Final = struct.Struct(">8sii")
_LENGTH: Final = struct.Struct(">i")
_BLOCK_BYTES_MAX: Final = 512 << 20


def decompress(path: str, data: bytes) -> bytes:
    """The bytes of a file whose name says how it is compressed.

    Raises:
        DamagedApacheFileError: it is not what its name says, or ends early.
    """
    if path.endswith(GZIP_SUFFIX):
        try:
            return gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DamagedApacheFileError(path, 0, f"cannot be decompressed: {error}") from error
    if path.endswith(SNAPPY_SUFFIX):
        return _decompress_snappy(path, data)
    return data


def _decompress_snappy(path: str, data: bytes) -> bytes:
    if len(data) < _SNAPPY_HEADER.size or _SNAPPY_HEADER.unpack_from(data)[0] != _SNAPPY_MAGIC:
        raise DamagedApacheFileError(path, 0, "no Snappy stream as Java writes it")
    at = _SNAPPY_HEADER.size
    parts = []
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise DamagedApacheFileError(path, at, "a Snappy block ends early")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if not 0 < length <= len(data) - at:
            raise DamagedApacheFileError(path, at - 4, f"a Snappy block of {length} bytes")
        try:
            parts.append(decompress_block(data[at : at + length]))
        except (ValueError, IndexError) as error:
            raise DamagedApacheFileError(path, at, f"a bad Snappy block: {error}") from error
        at += length
    return b"".join(parts)


def decompress_block(block: bytes) -> bytes:
    """One raw Snappy block.

    Raises:
        ValueError, IndexError: the bytes are none.
    """
    size, at = _varint(block)
    if size > _BLOCK_BYTES_MAX:
        raise ValueError(f"{size} bytes when decompressed")
    out = bytearray()
    end = len(block)
    while at < end:
        tag = block[at]
        at += 1
        kind, upper = tag & 3, tag >> 2
        if kind == 0:
            length = upper + 1
            if upper >= 60:
                width = upper - 59
                length = int.from_bytes(block[at : at + width], "little") + 1
                at += width
            if at + length > end:
                raise ValueError("a literal runs past the end")
            out += block[at : at + length]
            at += length
            continue
        if kind == 1:
            length, offset = (upper & 7) + 4, (tag >> 5) << 8 | block[at]
            at += 1
        else:
            width = 2 if kind == 2 else 4
            length, offset = upper + 1, int.from_bytes(block[at : at + width], "little")
            at += width
        _copy(out, offset, length)
        if len(out) > size:
            raise ValueError(f"more than {size} bytes")
    if len(out) != size:
        raise ValueError(f"expected {size} bytes, got {len(out)}")
    return bytes(out)


def _copy(out: bytearray, offset: int, length: int) -> None:
    """Repeats what was decompressed `offset` bytes ago; the copy may overlap what it makes."""
    start = len(out) - offset
    if offset == 0 or start < 0:
        raise ValueError("a copy from before the beginning")
    if offset >= length:
        out += out[start : start + length]
        return
    pattern = bytes(out[start:])
    out += (pattern * (length // offset + 1))[:length]


def _varint(block: bytes) -> tuple[int, int]:
    value = 0
    for at in range(5):
        value |= (block[at] & 0x7F) << 7 * at
        if block[at] < 0x80:
            return value, at + 1
    raise ValueError("a length of more than five bytes")
