"""The links between the servers of an ensemble: one authenticated TCP connection for each pair.

The server with the higher number dials, the other listens on its quorum port; a link that breaks is dialled
again. Both directions carry frames in order, so what one server tells another arrives in the order it was
told, and is lost only from some point on, together with the link: `on_disconnected` says so exactly once for
each `on_connected`. Sending never waits: frames queue up to `LINK_BYTES_MAX`, beyond which the link is given
up (its peer does not read, and will synchronize afresh when it is back).

A frame: u32-BE length of the rest | u16-BE message code | u32-BE header length | header (CBOR) | body.
"""

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from struct import Struct
from typing import Final, Protocol

import trio

from coord import eventlog
from coord.framing import FrameCutter, FrameTooLargeError
from coord.message import MessageError
from coord.server.greeting import LinkIdentity, hear_introduction, introduce
from coord.server.introduction import (
    NONCE_BYTES,
    PURPOSE_MESSAGES,
    PURPOSE_SNAPSHOT,
    IntroductionError,
)

LINK_BYTES_MAX: Final = 256 << 20
"""Bytes queued for one peer."""
LINK_FRAME_BYTES_MAX: Final = 128 << 20
"""One frame; batches are cut far below this."""
INTRODUCTIONS_MAX: Final = 64
"""Connections at once that have not proven themselves."""
DIAL_SECONDS_MAX: Final = 1.0
REDIAL_SECONDS: Final = 0.05
REDIAL_SECONDS_MAX: Final = 0.5
READ_BYTES: Final = 1 << 18

_pack_head = Struct(">IHI").pack
_unpack_head = Struct(">HI").unpack_from

log = eventlog.get("coord.server.links")


class LinkUser(Protocol):
    """What the links report to: all calls are synchronous, from the links' tasks."""

    def on_connected(self, sid: int) -> None: ...

    def on_disconnected(self, sid: int) -> None: ...

    def on_frame(self, sid: int, code: int, header: bytes, body: memoryview) -> None:
        """One message of a peer. A `MessageError` out of here costs the peer its link."""

    def on_frames_end(self) -> None:
        """All that one read brought has been delivered: the moment to act on it."""


def encode_frame(code: int, header: bytes, *body: bytes | memoryview) -> bytes:
    """One frame; encode once, send to everybody."""
    size = 6 + len(header) + sum(map(len, body))
    return b"".join((_pack_head(size, code, len(header)), header, *body))


class _Link:
    """An open link and its queue.

    What a round of work has queued leaves in one system call at its end (`flush`), without waking a task;
    only what the kernel does not take at once is left to the link's writer.
    """

    __slots__ = ("closing", "fd", "queue", "queued_bytes", "scope", "sid", "stream", "wake", "writing")

    def __init__(self, sid: int, stream: trio.SocketStream) -> None:
        self.sid = sid
        self.stream = stream
        self.queue: list[bytes] = []
        self.queued_bytes = 0
        self.wake = trio.Event()
        self.scope = trio.CancelScope()
        self.closing = ""
        self.fd = stream.socket.fileno()
        self.writing = False

    def send(self, frame: bytes) -> None:
        if self.closing:
            return
        self.queue.append(frame)
        self.queued_bytes += len(frame)
        if self.queued_bytes > LINK_BYTES_MAX:
            self.close(f"more than {LINK_BYTES_MAX} bytes wait for it")

    def flush(self) -> None:
        if self.writing or self.closing:
            return
        data = self.queue[0] if len(self.queue) == 1 else b"".join(self.queue)
        self.queue.clear()
        try:
            sent = os.write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.close(f"write failed: {error}")
            return
        self.queued_bytes -= sent
        if sent < len(data):
            self.queue.append(data[sent:])
            self.writing = True
            self.wake.set()

    def close(self, reason: str) -> None:
        if not self.closing:
            self.closing = reason
            self.scope.cancel()


class PeerLinks:
    """All links of this server; `run` keeps them up until cancelled.

    Args:
        serve_snapshot: what a connection opened with `open_snapshot` is served with, on the listener's side;
        the
            stream is closed afterwards.
    """

    def __init__(
        self,
        identity: LinkIdentity,
        listen_host: str,
        listen_port: int,
        user: LinkUser,
        serve_snapshot: Callable[[int, trio.SocketStream], Awaitable[None]],
        make_nonce: Callable[[int], bytes],
    ) -> None:
        self._identity = identity
        self._listen_address = (listen_host, listen_port)
        self._user = user
        self._serve_snapshot = serve_snapshot
        self._make_nonce = make_nonce
        self._links: dict[int, _Link] = {}
        self._introductions = trio.CapacityLimiter(INTRODUCTIONS_MAX)

    @property
    def connected(self) -> frozenset[int]:
        return frozenset(self._links)

    def queued_bytes(self, sid: int) -> int:
        link = self._links.get(sid)
        return link.queued_bytes if link else 0

    def send(self, sid: int, frame: bytes) -> None:
        """Queues a frame of `encode_frame` until `flush`; dropped when there is no link."""
        link = self._links.get(sid)
        if link is not None:
            link.send(frame)

    def flush(self) -> None:
        """Sends what is queued: the end of a round of work."""
        for link in self._links.values():
            if link.queue:
                link.flush()

    def drop(self, sid: int, reason: str) -> None:
        """Breaks a link; it is dialled again."""
        link = self._links.get(sid)
        if link is not None:
            link.close(reason)

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens, dials, and keeps dialling.

        Reports the bound quorum port once listening.

        Raises:
            OSError: the quorum port cannot be listened on.
        """
        async with trio.open_nursery() as nursery:
            listeners = await _listen(*self._listen_address)
            for listener in listeners:
                nursery.start_soon(self._accept, listener)
            for sid in self._identity.addresses:
                if sid < self._identity.sid:
                    nursery.start_soon(self._dial_forever, sid)
            task_status.started(listeners[0].socket.getsockname()[1])

    async def open_snapshot(self, sid: int) -> trio.SocketStream:
        """A connection of its own to a peer, for a snapshot to be read from; the caller closes it.

        Raises:
            OSError, IntroductionError: not reachable, or not who it should be.
        """
        return await self._dial(sid, PURPOSE_SNAPSHOT)

    async def _accept(self, listener: trio.SocketListener) -> None:
        async with listener, trio.open_nursery() as nursery:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        raise
                    log.error("cannot accept peers", do="raise the limit of open files", error=error)
                    await trio.sleep(REDIAL_SECONDS_MAX)
                    continue
                nursery.start_soon(self._receive_peer, stream)

    async def _receive_peer(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                self._introductions.acquire_on_behalf_of_nowait(stream)
            except trio.WouldBlock:
                return
            try:
                hello = await hear_introduction(stream, self._identity, self._make_nonce(NONCE_BYTES))
            except (
                IntroductionError,
                MessageError,
                OSError,
                trio.BrokenResourceError,
                trio.TooSlowError,
            ) as error:
                log.warning(
                    "refused a connection to the quorum port",
                    do="check ensemble.id, the ensemble's secret and myid on both servers",
                    peer=_peer_name(stream),
                    error=error,
                )
                return
            finally:
                self._introductions.release_on_behalf_of(stream)
            if hello.purpose == PURPOSE_SNAPSHOT:
                try:
                    await self._serve_snapshot(hello.sid, stream)
                except (OSError, trio.BrokenResourceError) as error:
                    log.warning("a snapshot was not taken to its end", sid=hello.sid, error=error)
            else:
                await self._run_link(hello.sid, stream)

    async def _dial_forever(self, sid: int) -> None:
        wait, reported = REDIAL_SECONDS, ""
        while True:
            try:
                stream = await self._dial(sid, PURPOSE_MESSAGES)
            except (
                IntroductionError,
                MessageError,
                OSError,
                trio.BrokenResourceError,
                trio.TooSlowError,
            ) as error:
                if str(error) != reported and not isinstance(error, OSError):
                    reported = str(error)
                    log.warning(
                        "a peer cannot be reached", do="check its configuration", sid=sid, error=error
                    )
                await trio.sleep(wait)
                wait = min(2 * wait, REDIAL_SECONDS_MAX)
                continue
            wait, reported = REDIAL_SECONDS, ""
            async with stream:
                await self._run_link(sid, stream)
            await trio.sleep(REDIAL_SECONDS)

    async def _dial(self, sid: int, purpose: str) -> trio.SocketStream:
        host, port = self._identity.addresses[sid]
        with trio.fail_after(DIAL_SECONDS_MAX):
            stream = await trio.open_tcp_stream(host, port)
        try:
            await introduce(stream, self._identity, sid, purpose, self._make_nonce(NONCE_BYTES))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def _run_link(self, sid: int, stream: trio.SocketStream) -> None:
        """One link's life, from the introduction to its end; never raises for what the peer does."""
        old = self._links.get(sid)
        if old is not None:
            # A peer that restarted is back before its old connection was seen to end.
            old.close("replaced by a new connection")
            self._links.pop(sid)
            self._user.on_disconnected(sid)
        link = self._links[sid] = _Link(sid, stream)
        _set_options(stream)
        log.info("connected to a peer", sid=sid)
        self._user.on_connected(sid)
        with link.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, link)
                await self._read(link)
                link.scope.cancel()
        if self._links.get(sid) is link:
            del self._links[sid]
            log.info("lost a peer", sid=sid, reason=link.closing)
            self._user.on_disconnected(sid)
            self._user.on_frames_end()

    async def _write(self, link: _Link) -> None:
        try:
            while True:
                await link.wake.wait()
                link.wake = trio.Event()
                while link.queue:
                    frames = link.queue
                    link.queue = []
                    data = frames[0] if len(frames) == 1 else b"".join(frames)
                    del frames
                    await link.stream.send_all(data)
                    link.queued_bytes -= len(data)
                link.writing = False
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            link.close(f"write failed: {error}")

    async def _read(self, link: _Link) -> None:
        cutter = FrameCutter(LINK_FRAME_BYTES_MAX)
        on_frame = partial(self._user.on_frame, link.sid)
        try:
            while True:
                data = await link.stream.receive_some(READ_BYTES)
                if not data:
                    link.close("closed by the peer")
                    return
                buffer, frames = cutter.cut(bytes(data))
                view = memoryview(buffer)
                for start, end in frames:
                    code, header, body = _split_frame(view, start, end)
                    on_frame(code, header, body)
                if frames:
                    self._user.on_frames_end()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            link.close(f"read failed: {error}")
        except (MessageError, FrameTooLargeError) as error:
            log.error(
                "a peer sent what we do not understand", do="run the same release", sid=link.sid, error=error
            )
            link.close(f"not understood: {error}")


def _split_frame(view: memoryview, start: int, end: int) -> tuple[int, bytes, memoryview]:
    if end - start < 6:
        raise MessageError(f"expected a frame of 6 bytes or more, got {end - start}")
    code, header_bytes = _unpack_head(view, start)
    body = start + 6 + header_bytes
    if body > end:
        raise MessageError(f"a header of {header_bytes} bytes in a frame of {end - start}")
    return code, bytes(view[start + 6 : body]), view[body:end]


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    """Listens on the member's own address, or on all when the name is not one of this machine's (NAT,
    containers).
    """
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise
        return await trio.open_tcp_listeners(port)


def _set_options(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _peer_name(stream: trio.SocketStream) -> str:
    try:
        return str(stream.socket.getpeername())
    except OSError:
        return "gone"
