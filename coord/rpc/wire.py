"""The RPC frame, both directions; pure.

    u32 length | u8 kind | u8 version | u16 code | u32 request id | u32 header length | header | body

A body is handed out as a view of the buffer it was read into: no copy, but it keeps that read (up to 256 KB,
or the one large frame) alive for as long as somebody holds it.
"""

from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from coord.framing import FrameCutter, FrameTooLargeError

VERSION = 1

REQUEST, REPLY, ERROR, ONE_WAY = 1, 2, 3, 4

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of a frame, unless the protocol says otherwise."""

REQUEST_ID_MAX = 0xFFFF_FFFF

PREFIX = Struct(">IBBHII")
_FIXED = Struct(">BBHII")
_FIXED_BYTES = _FIXED.size

EMPTY = memoryview(b"")


class WireError(Exception):
    """Bytes that are no frame of ours. The sender is at fault: close its connection."""


class Frame(NamedTuple):
    """One frame as read."""

    kind: int
    code: int
    request_id: int
    header: bytes
    body: memoryview
    size: int
    """Bytes it took on the wire, length field excluded."""


@dataclass(frozen=True, slots=True)
class ErrorHeader:
    """The header of an error frame, whose message code is 0 and whose body is empty."""

    code: int
    text: str


def encode_prefix(kind: int, code: int, request_id: int, header_bytes: int, body_bytes: int) -> bytes:
    """What stands before the header."""
    return PREFIX.pack(
        _FIXED_BYTES + header_bytes + body_bytes, kind, VERSION, code, request_id, header_bytes
    )


class FrameReader:
    """Cuts what one side receives into frames.

    Args:
        frame_bytes_max: the longest frame the other side may send.
    """

    __slots__ = ("_cutter",)

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._cutter = FrameCutter(frame_bytes_max)

    @property
    def held_bytes(self) -> int:
        """Bytes of an unfinished frame."""
        return self._cutter.held_bytes

    def read(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes.

        Raises:
            WireError: a length, kind or version is not what it may be; frames before it in `data` are dropped
                with it, and the reader is of no further use.
        """
        try:
            buffer, positions = self._cutter.cut(data)
        except FrameTooLargeError as error:
            raise WireError(str(error)) from error
        if not positions:
            return []
        view = memoryview(buffer)
        unpack = _FIXED.unpack_from
        frames = []
        for start, end in positions:
            if end - start < _FIXED_BYTES:
                raise WireError(f"expected a frame of at least {_FIXED_BYTES} bytes, got {end - start}")
            kind, version, code, request_id, header_bytes = unpack(buffer, start)
            if version != VERSION or not REQUEST <= kind <= ONE_WAY:
                raise WireError(f"expected version {VERSION} and a kind of 1 to 4, got {version} and {kind}")
            header_start = start + _FIXED_BYTES
            header_end = header_start + header_bytes
            if header_end > end:
                raise WireError(f"a header of {header_bytes} bytes in a frame of {end - start}")
            body = view[header_end:end] if header_end < end else EMPTY
            frames.append(Frame(kind, code, request_id, buffer[header_start:header_end], body, end - start))
        return frames
