"""One open link: frames out through a queue, frames in to the user, on a connected and proven socket.

What a round of work has queued leaves in one system call at its end (`flush`), without waking a task; only
what the kernel does not take at once waits for the link's writer, or for the next round. Reading takes all
there is, up to `READ_ROUND_BYTES`, before the user acts on it: batches are larger than one read, and between
two turns of this task stands a whole tick of the client port.

A frame: u32-BE length of the rest | u16-BE message code | u32-BE header length | header (CBOR) | body.
"""

import os
from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol

import trio

from coord.framing import FrameCutter
from coord.message import MessageError
from coord.server.peer_tls import LinkStream, TlsStream

LINK_BYTES_MAX: Final = 256 << 20
"""Bytes queued for one peer; with more the link is given up: its peer does not read, and synchronizes afresh
when it is back.
"""
LINK_FRAME_BYTES_MAX: Final = 128 << 20
"""One frame; batches are cut far below this."""
READ_BYTES: Final = 1 << 20
READ_ROUND_BYTES: Final = 8 << 20
BUSY_SECONDS: Final = 0.1
"""How long the disk is given before a busy server looks again whether it may read."""
WRITE_PARTS_MAX: Final = 1000
"""Frames in one system call; the kernel takes 1024."""

_pack_head = Struct(">IHI").pack
_unpack_head = Struct(">HI").unpack_from


class LinkUser(Protocol):
    """What the links report to: all calls are synchronous, from the links' tasks."""

    def on_connected(self, sid: int) -> None: ...

    def on_disconnected(self, sid: int) -> None: ...

    def on_frame(self, sid: int, code: int, header: bytes, body: memoryview) -> None:
        """One message of a peer. A `MessageError` out of here costs the peer its link."""

    def on_frames_end(self) -> None:
        """All that one round of reading brought has been delivered: the moment to act on it."""


Frame = tuple[bytes, ...]
"""One frame in pieces, so that a batch is not copied once more for its few bytes of header."""


def encode_frame(code: int, header: bytes, body: bytes = b"") -> Frame:
    """One frame; encode once, send to everybody."""
    size = 6 + len(header) + len(body)
    head = _pack_head(size, code, len(header)) + header
    return (head, body) if body else (head,)


class Link:
    """A link to one peer. `run` reads and writes until it ends; `closing` then says why."""

    __slots__ = ("_fd", "_parts", "_scope", "_tls", "_wake", "closing", "queued_bytes", "sid")

    def __init__(self, sid: int, stream: LinkStream) -> None:
        self.sid = sid
        self.queued_bytes = 0
        self.closing = ""
        self._fd = stream.socket.fileno()
        self._tls = stream if isinstance(stream, TlsStream) else None
        self._parts: list[bytes | memoryview] = []
        self._wake = trio.Event()
        self._scope = trio.CancelScope()

    def send(self, frame: Frame) -> None:
        """Queues a frame until `flush`."""
        if self.closing:
            return
        if self._tls is not None:
            try:
                frame = (self._tls.encrypt(b"".join(frame)),)
            except OSError as error:
                self.close(f"TLS failed: {error}")
                return
        self._parts += frame
        self.queued_bytes += sum(map(len, frame))
        if self.queued_bytes > LINK_BYTES_MAX:
            self.close(f"more than {LINK_BYTES_MAX} bytes wait for it")

    def flush(self) -> None:
        """Sends what the kernel takes."""
        parts = self._parts
        while parts and not self.closing:
            chunk = parts if len(parts) <= WRITE_PARTS_MAX else parts[:WRITE_PARTS_MAX]
            try:
                sent = os.writev(self._fd, chunk)
            except BlockingIOError:
                self._wake.set()
                return
            except OSError as error:
                self.close(f"write failed: {error.strerror}")
                return
            self.queued_bytes -= sent
            _drop_sent(parts, sent)

    def close(self, reason: str) -> None:
        if not self.closing:
            self.closing = reason
            self._parts.clear()
            self._scope.cancel()

    async def run(self, user: LinkUser, is_busy: Callable[[], bool]) -> None:
        """Until the link ends.

        Args:
            is_busy: the peer is not read while this holds.

        Raises:
            MessageError, FrameTooLargeError: the peer sent what is no frame, or the user refused it.
        """
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                try:
                    await self._read(user, is_busy)
                finally:
                    nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        """For what the kernel did not take at once."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.lowlevel.wait_writable(self._fd)
            self.flush()

    async def _read(self, user: LinkUser, is_busy: Callable[[], bool]) -> None:
        cutter = FrameCutter(LINK_FRAME_BYTES_MAX)
        first = self._decrypt(b"")  # what came together with the end of the introduction
        while not self.closing:
            while is_busy():  # noqa: ASYNC110 (a thread's progress ends it)
                await trio.sleep(BUSY_SECONDS)
            if not first:
                await trio.lowlevel.wait_readable(self._fd)
            taken = count = 0
            while taken < READ_ROUND_BYTES and not self.closing:
                data, first = first or self._receive(), b""
                if not data:
                    break
                taken += len(data)
                buffer, frames = cutter.cut(data)
                view = memoryview(buffer)
                for start, end in frames:
                    user.on_frame(self.sid, *_split_frame(view, start, end))
                count += len(frames)
                if len(data) < READ_BYTES:
                    break
            if count:
                user.on_frames_end()

    def _receive(self) -> bytes:
        """What is there now; empty when nothing is, or the link has ended."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            self.close(f"read failed: {error.strerror}")
            return b""
        if not data:
            self.close("closed by the peer")
        return self._decrypt(data)

    def _decrypt(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        try:
            return self._tls.decrypt(data)
        except OSError as error:  # OpenSSL's errors are OSErrors
            self.close(f"TLS failed: {error}")
            return b""


def _drop_sent(parts: list[bytes | memoryview], sent: int) -> None:
    """Takes the first `sent` bytes off the queue."""
    count = 0
    for part in parts:
        if len(part) > sent:
            break
        sent -= len(part)
        count += 1
    del parts[:count]
    if sent:
        parts[0] = memoryview(parts[0])[sent:]


def _split_frame(view: memoryview, start: int, end: int) -> tuple[int, bytes, memoryview]:
    if end - start < 6:
        raise MessageError(f"expected a frame of 6 bytes or more, got {end - start}")
    code, header_bytes = _unpack_head(view, start)
    body = start + 6 + header_bytes
    if body > end:
        raise MessageError(f"a header of {header_bytes} bytes in a frame of {end - start}")
    return code, bytes(view[start + 6 : body]), view[body:end]
