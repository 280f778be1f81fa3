"""One open link: frames out through a queue, frames in to the user, on a connected and proven socket.

A link is read in the ticks of the reactor that serves the clients, so that one tick acts on what both have
brought, and no task is woken for it. What a tick has queued leaves in one system call at its end (`flush`);
what the kernel does not take at once waits until it does. Reading takes all there is, up to
`READ_ROUND_BYTES`: batches are larger than one read.

A frame: u32-BE length of the rest | u16-BE message code | u32-BE header length | header (CBOR) | body.
"""

import os
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from struct import Struct
from typing import Final, Protocol

import trio

from coord.framing import FrameCutter, FrameTooLargeError
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

_read_buffer = bytearray(READ_BYTES)
"""Of all links of a process: most reads bring little, and each new buffer of this size is a new mapping."""
_read_view = memoryview(_read_buffer)
_pack_head = Struct(">IHI").pack
_unpack_head = Struct(">HI").unpack_from


class LinkUser(Protocol):
    """What the links report to: all calls are synchronous, those of frames from the reactor's tick."""

    def on_connected(self, sid: int) -> None: ...

    def on_disconnected(self, sid: int) -> None: ...

    def on_frame(self, sid: int, code: int, header: bytes, body: memoryview) -> None:
        """One message of a peer. A `MessageError` out of here costs the peer its link."""

    def on_frames_end(self) -> None:
        """Frames were delivered outside a tick, whose end would have acted on them."""


Frame = tuple[bytes, ...]
"""One frame in pieces, so that a batch is not copied once more for its few bytes of header."""


def encode_frame(code: int, header: bytes, body: bytes = b"") -> Frame:
    """One frame; encode once, send to everybody."""
    size = 6 + len(header) + len(body)
    head = _pack_head(size, code, len(header)) + header
    return (head, body) if body else (head,)


class Watcher(Protocol):
    """What a link needs of the reactor."""

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None: ...

    def modify(self, fd: int, events: int) -> None: ...

    def unwatch(self, fd: int) -> None: ...


class Link:
    """A link to one peer, read and written in the reactor's ticks from `run` to its end; `closing` then says
    why.

    Args:
        is_busy: the peer is not read while this holds.
    """

    __slots__ = (
        "_cutter",
        "_error",
        "_events",
        "_fd",
        "_is_busy",
        "_is_watched",
        "_parts",
        "_paused",
        "_scope",
        "_tls",
        "_user",
        "_watcher",
        "closing",
        "queued_bytes",
        "sid",
    )

    def __init__(
        self, sid: int, stream: LinkStream, watcher: Watcher, user: LinkUser, is_busy: Callable[[], bool]
    ) -> None:
        self.sid = sid
        self.queued_bytes = 0
        self.closing = ""
        self._fd = stream.socket.fileno()
        self._tls = stream if isinstance(stream, TlsStream) else None
        self._watcher = watcher
        self._user = user
        self._is_busy = is_busy
        self._parts: list[bytes | memoryview] = []
        self._cutter = FrameCutter(LINK_FRAME_BYTES_MAX)
        self._events = EPOLLIN
        self._is_watched = False
        self._paused = trio.Event()
        self._scope = trio.CancelScope()
        self._error: MessageError | FrameTooLargeError | None = None

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
        """Sends what the kernel takes; the rest when it takes more."""
        parts = self._parts
        while parts and not self.closing:
            chunk = parts if len(parts) <= WRITE_PARTS_MAX else parts[:WRITE_PARTS_MAX]
            try:
                sent = os.writev(self._fd, chunk)
            except BlockingIOError:
                self._want(self._events | EPOLLOUT)
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

    async def run(self) -> None:
        """Until the link ends.

        Raises:
            MessageError, FrameTooLargeError: the peer sent what is no frame, or the user refused it.
        """
        with self._scope:
            self._take(self._decrypt(b""))  # what came together with the end of the introduction
            self._user.on_frames_end()
            self._watcher.watch(self._fd, self._events, self._on_event)
            self._is_watched = True
            try:
                while True:
                    await self._paused.wait()
                    while self._is_busy():  # noqa: ASYNC110 (a thread's progress ends it)
                        await trio.sleep(BUSY_SECONDS)
                    self._paused = trio.Event()
                    self._want(self._events | EPOLLIN)
            finally:
                self._is_watched = False
                self._watcher.unwatch(self._fd)
        if self._error is not None:
            raise self._error

    def _on_event(self, events: int) -> None:
        if events & EPOLLOUT:
            self._want(self._events & ~EPOLLOUT)
            self.flush()
        if events & ~EPOLLOUT and not self.closing:
            if not self._is_busy():
                self._read()
            elif events & (EPOLLERR | EPOLLHUP):
                self.close("broken while it was not read")  # what nobody reads would be told for ever
            else:
                self._want(self._events & ~EPOLLIN)
                self._paused.set()

    def _want(self, events: int) -> None:
        """What the reactor watches for, at once or from `run` on."""
        if events != self._events:
            self._events = events
            if self._is_watched:
                self._watcher.modify(self._fd, events)

    def _read(self) -> None:
        taken = 0
        while taken < READ_ROUND_BYTES and not self.closing:
            try:
                size = os.readv(self._fd, (_read_buffer,))
            except BlockingIOError:
                return
            except OSError as error:
                self.close(f"read failed: {error.strerror}")
                return
            if not size:
                self.close("closed by the peer")
                return
            self._take(self._decrypt(_read_view[:size].tobytes()))
            taken += size
            if size < READ_BYTES:
                return

    def _take(self, data: bytes) -> None:
        """Delivers the frames that `data` completes."""
        if not data:
            return
        try:
            buffer, frames = self._cutter.cut(data)
            view = memoryview(buffer)
            for start, end in frames:
                self._user.on_frame(self.sid, *split_frame(view, start, end))
        except (MessageError, FrameTooLargeError) as error:
            self._error = error
            self.close(f"not understood: {error}")

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


def split_frame(view: memoryview, start: int, end: int) -> tuple[int, bytes, memoryview]:
    """Code, header and body of the frame whose length field ends at `start`.

    Raises:
        MessageError: it is too short.
    """
    if end - start < 6:
        raise MessageError(f"expected a frame of 6 bytes or more, got {end - start}")
    code, header_bytes = _unpack_head(view, start)
    body = start + 6 + header_bytes
    if body > end:
        raise MessageError(f"a header of {header_bytes} bytes in a frame of {end - start}")
    return code, bytes(view[start + 6 : body]), view[body:end]
