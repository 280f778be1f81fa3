"""Jute, ZooKeeper's encoding: big-endian integers, length-prefixed buffers and strings, no tags (spec 2).

A length of -1 is null, which differs from empty. `Reader` walks one record; every overrun, negative length
and missing byte is a `DecodeError`, whatever the bytes are.
"""

import struct
from collections.abc import Sequence

_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")

#: Elements of one decoded vector; each takes at least four bytes of the frame anyway.
VECTOR_MAX = 1 << 22


class DecodeError(ValueError):
    """Bytes that are not the record they should be; says what was expected and where."""


class Reader:
    """Reads one record from `data`, starting at `offset`; `end` bounds it."""

    __slots__ = ("data", "end", "offset")

    def __init__(self, data: bytes, offset: int = 0, end: int | None = None) -> None:
        self.data = data
        self.offset = offset
        self.end = len(data) if end is None else end

    @property
    def remaining(self) -> int:
        return self.end - self.offset

    def _take(self, size: int) -> int:
        """Moves past `size` bytes and returns where they begin."""
        offset = self.offset
        if size > self.end - offset:
            raise DecodeError(f"expected {size} more bytes at offset {offset}, got {self.end - offset}")
        self.offset = offset + size
        return offset

    def read_int(self) -> int:
        value: int = _INT.unpack_from(self.data, self._take(4))[0]
        return value

    def read_long(self) -> int:
        value: int = _LONG.unpack_from(self.data, self._take(8))[0]
        return value

    def read_bool(self) -> bool:
        return self.data[self._take(1)] != 0

    def read_buffer(self) -> bytes | None:
        """A byte buffer; None where the wire says null."""
        size = self.read_int()
        if size == -1:
            return None
        if size < 0:
            raise DecodeError(f"expected a length of at least -1 at offset {self.offset - 4}, got {size}")
        start = self._take(size)
        return bytes(self.data[start : start + size])

    def read_string(self) -> bytes | None:
        """A string as its bytes: the tree compares paths as they came; None where the wire says null."""
        return self.read_buffer()

    def read_text(self) -> str | None:
        """A string as text, undecodable bytes replaced as Java does (spec 2.3)."""
        value = self.read_buffer()
        return None if value is None else value.decode("utf-8", "replace")

    def read_count(self) -> int | None:
        """A vector's length; None for null (below -1 reads as empty, as in ZooKeeper)."""
        count = self.read_int()
        if count == -1:
            return None
        if count > min(VECTOR_MAX, self.remaining):
            raise DecodeError(f"expected at most {self.remaining} elements at {self.offset - 4}, got {count}")
        return max(count, 0)

    def read_strings(self) -> list[bytes | None] | None:
        count = self.read_count()
        return None if count is None else [self.read_string() for _ in range(count)]


def encode_int(value: int) -> bytes:
    return _INT.pack(value)


def encode_long(value: int) -> bytes:
    return _LONG.pack(value)


def encode_buffer(value: bytes | None) -> bytes:
    """A buffer or string with its length; None is null."""
    return _INT.pack(-1) if value is None else _INT.pack(len(value)) + value


def encode_text(value: str | None) -> bytes:
    return encode_buffer(None if value is None else value.encode())


def encode_strings(values: Sequence[bytes]) -> bytes:
    """A vector of strings given as bytes."""
    parts = [_INT.pack(len(values))]
    for value in values:
        parts.append(_INT.pack(len(value)))
        parts.append(value)
    return b"".join(parts)
