"""Cuts a byte stream into frames of a 4-byte big-endian length and that many bytes.

ZooKeeper's client protocol, our RPC and our peer links all frame like this. A `FrameCutter` keeps what one
connection has received and not yet used. It never copies a frame that arrived whole: frames are handed out as
(start, end) positions in the buffer they arrived in.
"""

from struct import Struct

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""Bytes one frame may announce unless the protocol says otherwise (length field not counted)."""

_unpack_length = Struct(">I").unpack_from
_EMPTY = b""


class FrameTooLargeError(Exception):
    """A peer announced a frame longer than the limit. Nothing after it can be trusted: close the connection.

    A negative length (ZooKeeper's fields are signed) shows up here as one of more than 2 GiB.
    """

    def __init__(self, announced_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"expected a frame of at most {limit_bytes} bytes, got one of {announced_bytes}")
        self.announced_bytes = announced_bytes
        self.limit_bytes = limit_bytes


def split_frames(buffer: bytes, limit_bytes: int, start: int = 0) -> tuple[list[tuple[int, int]], int]:
    """Find the whole frames in `buffer`, from `start` on.

    Returns:
        The (start, end) of each frame's payload, length field excluded, and the position behind the last of
        them.

    Raises:
        FrameTooLargeError: a length field exceeds `limit_bytes`; also when its frame is not complete yet, so
            that nobody can make us buffer for it.
    """
    frames = []
    position = start
    available = len(buffer)
    while available - position >= 4:
        (length,) = _unpack_length(buffer, position)
        if length > limit_bytes:
            raise FrameTooLargeError(length, limit_bytes)
        end = position + 4 + length
        if end > available:
            break
        frames.append((position + 4, end))
        position = end
    return frames, position


def frame(*parts: bytes | memoryview) -> bytes:
    """One frame around `parts`, joined."""
    return b"".join((sum(map(len, parts)).to_bytes(4, "big"), *parts))


class FrameCutter:
    """One connection's bytes that are not a whole frame yet; at most one frame and one read of them.

    A frame of many reads is gathered in a list and joined once, so a large frame costs linear time.
    """

    __slots__ = ("_gathered", "_gathered_bytes", "_limit_bytes", "_needed_bytes")

    def __init__(self, limit_bytes: int = FRAME_BYTES_MAX) -> None:
        self._limit_bytes = limit_bytes
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._needed_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of an unfinished frame that are kept for the next read."""
        return self._gathered_bytes

    def cut(self, data: bytes) -> tuple[bytes, list[tuple[int, int]]]:
        """Take what was read.

        Returns:
            A buffer and the (start, end) of each whole frame's payload in it. The buffer is `data` itself
            unless an earlier read ended inside a frame.

        Raises:
            FrameTooLargeError: see `split_frames`. The cutter is of no further use.
        """
        if self._gathered_bytes:
            self._gathered.append(data)
            self._gathered_bytes += len(data)
            if self._gathered_bytes < self._needed_bytes:
                return _EMPTY, []
            data = b"".join(self._gathered)
            self._gathered.clear()
            self._gathered_bytes = 0
        frames, used = split_frames(data, self._limit_bytes)
        rest = len(data) - used
        if rest:
            self._gathered.append(data[used:])
            self._gathered_bytes = rest
            self._needed_bytes = 4 if rest < 4 else 4 + _unpack_length(data, used)[0]
        return data, frames
