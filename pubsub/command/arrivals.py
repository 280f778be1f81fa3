"""What a file or standard input brings, as it arrives and without holding up the event loop.

Whoever pipes `tail -f` into a command wants each line sent when it is written, a session must be kept alive
while the next line is a minute away, and Ctrl-C must end the waiting: so pipes and terminals are waited for
by the event loop, not read in a thread, which nothing can interrupt.
"""

import contextlib
import fcntl
import os
import select
from typing import BinaryIO

import trio

#: What is read at once, and what a pipe is asked to hold while the cluster works.
READ_BYTES = 1 << 20


class TooLongError(Exception):
    """A line is longer than anything that could take it."""


class Arrivals:
    """Reads a file in the pieces in which it comes."""

    def __init__(self, file: BinaryIO) -> None:
        self._fd = file.fileno()
        self._waits = _can_wait(self._fd)
        with contextlib.suppress(OSError):  # it is no pipe, or may not be so large
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, READ_BYTES)

    async def read(self) -> bytes:
        """At most READ_BYTES; b"" at the end. Cancelled, it has read nothing."""
        while True:
            if self._waits:
                await trio.lowlevel.wait_readable(self._fd)
            else:
                await trio.lowlevel.checkpoint()
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:  # another process shares the pipe and was faster
                continue


class Lines:
    """Lists of lines without their newlines; the last line may have none.

    Args:
        file: what to read; nothing may have been read from its buffer.
        line_bytes_max: the longest line that is taken, which bounds what is held in memory.
    """

    def __init__(self, file: BinaryIO, line_bytes_max: int) -> None:
        self._arrivals = Arrivals(file)
        self._line_bytes_max = line_bytes_max
        self._begun: list[bytes] = []
        self._begun_bytes = 0

    async def take(self) -> list[bytes]:
        """The lines that have arrived, at least one; [] at the end.

        Raises:
            TooLongError: the line after those taken is longer than `line_bytes_max`.
        """
        while True:
            if self._begun_bytes > self._line_bytes_max:
                raise TooLongError(f"the input has a line of more than {self._line_bytes_max} bytes")
            data = await self._arrivals.read()
            complete, newline, rest = data.rpartition(b"\n")
            if newline:
                lines = b"".join((*self._begun, complete)).split(b"\n")
                self._begun = [rest] if rest else []
                self._begun_bytes = len(rest)
                return lines
            if data:
                self._begun.append(data)
                self._begun_bytes += len(data)
                continue
            last = b"".join(self._begun)
            self._begun, self._begun_bytes = [], 0
            return [last] if last else []


class Chunks:
    """Lists of pieces of exactly `size` bytes; the last piece may be shorter."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._arrivals = Arrivals(file)
        self._size = size
        self._begun = bytearray()

    async def take(self) -> list[bytes]:
        """The pieces that have arrived, at least one; [] at the end."""
        size, begun = self._size, self._begun
        while data := await self._arrivals.read():
            begun += data
            end = len(begun) - len(begun) % size
            if end:
                pieces = [bytes(begun[at : at + size]) for at in range(0, end, size)]
                del begun[:end]
                return pieces
        last = bytes(begun)
        begun.clear()
        return [last] if last else []


def _can_wait(fd: int) -> bool:
    """Whether the event loop can wait for it: for pipes, sockets and terminals it can; regular files and
    /dev/null are always ready, and epoll refuses them.
    """
    with select.epoll() as probe:
        try:
            probe.register(fd)
        except PermissionError:
            return False
    return True
