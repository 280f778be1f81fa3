"""The client's side: one connection, many requests in flight, over a trio stream.

Two tasks serve a link. The writer sleeps until something is queued and then sends all of it at once: requests
of a burst leave together. A request that finds a plain link with nothing in flight is sent on the spot, which
saves that wake-up where it is half of the round trip. The reader hands each reply to its callback; what those
callbacks request in turn is one send as well, made by the reader itself.

A link lives once: when it ends, every open request fails, `closed` is set, and the user makes another one
(`coord.rpc.dial`).
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import outcome
import trio

from coord import message as messages
from coord.rpc import wire
from coord.rpc.errors import LinkClosedError, LinkFullError, RemoteError, RpcError
from coord.rpc.wire import FRAME_BYTES_MAX, REQUEST_ID_MAX, FrameReader, WireError, encode_prefix

INFLIGHT_MAX = 4096
"""Requests of one link that wait for their replies; about what a server of ours admits."""

OUTGOING_BYTES_MAX = 32 * 1024 * 1024
"""Bytes queued and not yet taken by the kernel."""

READ_BYTES_MAX = 256 * 1024

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `body` keeps the whole read it came in alive: copy what is kept for long."""

    message: Any
    body: memoryview


OnReply = Callable[[Reply | RpcError], None]


class Link:
    """A connected client. Made by `connect` or `open_link`.

    `on_message` and `on_closed` are the user's to set: the first gets what the server pushes, the second the
    reason when the link has ended (after every open request has failed).
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        protocol: messages.Protocol,
        *,
        direct: socket.socket | None = None,
        address: str = "",
        frame_bytes_max: int = FRAME_BYTES_MAX,
        inflight_max: int = INFLIGHT_MAX,
        outgoing_bytes_max: int = OUTGOING_BYTES_MAX,
    ) -> None:
        """For tests and other transports.

        Args:
            stream: connected; the link closes it.
            protocol: the messages both sides know.
            direct: the non-blocking socket under `stream`, if plain bytes may be sent on it past the stream.
            address: for error texts.
            frame_bytes_max: see `open_link`.
            inflight_max: see `open_link`.
            outgoing_bytes_max: see `open_link`.
        """
        self.address = address
        self.closed = trio.Event()
        self.close_reason = ""
        self.on_message: Callable[[Any, memoryview], None] | None = None
        self.on_closed: Callable[[str], None] | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self._stream = stream
        self._protocol = protocol
        self._direct = direct
        self._reader = FrameReader(frame_bytes_max)
        self._inflight_max = inflight_max
        self._outgoing_bytes_max = outgoing_bytes_max
        self._open: dict[int, OnReply] = {}
        self._next_id = 1
        self._queue: list[Bytes] = []
        self._queue_bytes = 0
        self._queue_requests = 0
        self._sending_bytes = 0
        self._is_reading = False
        self._writer = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()

    # -- requests ------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set()

    @property
    def inflight(self) -> int:
        """Requests without a reply yet."""
        return len(self._open)

    @property
    def outgoing_bytes(self) -> int:
        """Bytes queued that the kernel has not taken."""
        return self._queue_bytes + self._sending_bytes

    @property
    def is_writable(self) -> bool:
        """Whether `request` would be accepted."""
        return (
            len(self._open) < self._inflight_max
            and self._queue_bytes + self._sending_bytes < self._outgoing_bytes_max
            and not self.closed.is_set()
        )

    def request(self, message: object, *body: Bytes, on_reply: OnReply) -> int:
        """Queue a request; it leaves with whatever else is queued until the writer runs.

        Args:
            message: one of the protocol's.
            body: parts of the raw body, which must not change until sent.
            on_reply: called exactly once, by the reader's task, with the `Reply`, or the `RpcError`. It must
                not raise. It is never called from within `request`.

        Returns:
            The request's id.

        Raises:
            LinkFullError: a limit is reached; see `wait_writable`.
            LinkClosedError: the link has ended.
        """
        if not self.is_writable:
            self._refuse()
        leaves_now = not self._open and not self._is_reading
        request_id = self._next_id
        while request_id in self._open:  # after 2^32 requests, an old one may still be open
            request_id = request_id + 1 if request_id < REQUEST_ID_MAX else 1
        self._next_id = request_id + 1 if request_id < REQUEST_ID_MAX else 1
        code, header = self._protocol.encode(message)
        self._open[request_id] = on_reply
        self._queue_requests += 1
        self._enqueue(wire.REQUEST, code, request_id, header, body)
        if leaves_now:
            self._send_directly()
        elif not self._is_reading:
            self._writer.unpark()
        return request_id

    async def call(self, message: object, *body: Bytes) -> Reply:
        """Send a request and wait for its reply, first for room on the link.

        Cancelled while waiting for room, nothing was sent; later, the request may happen and its reply is
        dropped.

        Raises:
            RemoteError: the server refused.
            LinkClosedError: the link ended first; `happened` says what is known.
        """
        if not self.is_writable:
            await self.wait_writable()
        waiting: trio.lowlevel.Task | None = trio.lowlevel.current_task()

        def on_reply(answer: Reply | RpcError) -> None:
            if waiting is not None:
                trio.lowlevel.reschedule(
                    waiting,
                    outcome.Error(answer) if isinstance(answer, RpcError) else outcome.Value(answer),
                )

        def abort(raise_cancel: object) -> trio.lowlevel.Abort:
            nonlocal waiting
            waiting = None
            return trio.lowlevel.Abort.SUCCEEDED

        self.request(message, *body, on_reply=on_reply)
        return await trio.lowlevel.wait_task_rescheduled(abort)  # type: ignore[no-any-return]

    def send(self, message: object, *body: Bytes) -> None:
        """Queue a message that gets no reply. Raises as `request` does."""
        if not self.is_writable:
            self._refuse()
        code, header = self._protocol.encode(message)
        self._enqueue(wire.ONE_WAY, code, 0, header, body)
        if not self._is_reading:
            self._writer.unpark()

    async def wait_writable(self) -> None:
        """Wait until `request` would be accepted.

        Raises:
            LinkClosedError: the link has ended; nothing was sent.
        """
        await trio.lowlevel.checkpoint()
        while not self.is_writable:
            if self.closed.is_set():
                raise LinkClosedError(self.close_reason, was_sent=False)
            await self._room.park()

    def close(self, reason: str = "closed") -> None:
        """End the link now: open requests fail, queued bytes are dropped."""
        if self.closed.is_set():
            return
        self.close_reason = reason
        self.closed.set()
        self._scope.cancel()
        waiting, unsent = list(self._open.values()), self._queue_requests
        self._open.clear()
        self._queue.clear()
        self._queue_bytes = self._queue_requests = 0
        first_unsent = len(waiting) - unsent  # requests stand in the order in which they were made
        mistakes: list[Exception] = []
        for index, on_reply in enumerate(waiting):
            try:
                on_reply(LinkClosedError(reason, was_sent=index < first_unsent))
            except Exception as error:  # one that breaks its promise must not keep the rest from being told
                mistakes.append(error)
        self._room.unpark_all()
        if self.on_closed is not None:
            self.on_closed(reason)
        if mistakes:
            raise ExceptionGroup("callbacks of replies raised", mistakes)

    def _refuse(self) -> None:
        if self.closed.is_set():
            raise LinkClosedError(self.close_reason, was_sent=False)
        raise LinkFullError(
            f"{self.address}: {len(self._open)} requests and {self.outgoing_bytes} bytes are outstanding"
        )

    # -- sending -------------------------------------------------------------------------------------------

    def _enqueue(self, kind: int, code: int, request_id: int, header: bytes, body: tuple[Bytes, ...]) -> None:
        body_bytes = sum(map(len, body)) if body else 0
        start = encode_prefix(kind, code, request_id, len(header), body_bytes) + header
        self._queue.append(start)
        self._queue.extend(body)
        self._queue_bytes += len(start) + body_bytes

    def _take_queue(self) -> Bytes:
        queue = self._queue
        chunk = queue[0] if len(queue) == 1 else b"".join(queue)
        queue.clear()
        self._queue_bytes = self._queue_requests = 0
        return chunk

    def _send_directly(self) -> None:
        """One send without a task's wake-up, if the socket is ours and free; else, or for a rest, the
        writer."""
        if self._direct is None or self._sending_bytes:
            self._writer.unpark()
            return
        chunk = self._take_queue()
        try:
            sent = self._direct.send(chunk)
        except OSError:
            sent = 0  # full; or broken, which the writer's try and the reader find out
        self.bytes_out += sent
        if sent < len(chunk):
            self._queue.append(memoryview(chunk)[sent:])
            self._queue_bytes = len(chunk) - sent
            self._writer.unpark()

    async def _write(self) -> None:
        while True:
            while not self._queue:
                await self._writer.park()
            chunk = self._take_queue()
            self._sending_bytes = len(chunk)
            await self._stream.send_all(chunk)
            self.bytes_out += len(chunk)
            self._sending_bytes = 0
            self._room.unpark_all()

    # -- receiving -----------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """The link's own tasks, until it ends. `open_link` starts this."""
        try:
            async with trio.open_nursery() as nursery:
                with self._scope:
                    nursery.start_soon(self._write_until_broken)
                    await self._read_until_broken()
                nursery.cancel_scope.cancel()
        finally:
            self.close("cancelled")
            await trio.aclose_forcefully(self._stream)

    async def _write_until_broken(self) -> None:
        try:
            await self._write()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.close(f"write failed: {error.__cause__ or error}")

    async def _read_until_broken(self) -> None:
        receive = self._stream.receive_some if self._direct is None else self._receive_directly
        read = self._reader.read
        try:
            while True:
                data = await receive(READ_BYTES_MAX)
                if not data:
                    self.close("closed by the server")
                    return
                self.bytes_in += len(data)
                self._is_reading = True  # what callbacks queue is sent below, not by the writer
                self._deliver(read(bytes(data)))
                self._is_reading = False
                if self._queue:
                    self._send_directly()
                if self._room:
                    self._room.unpark_all()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.close(f"read failed: {error.__cause__ or error}")
        except (WireError, messages.MessageError) as error:
            self.close(f"protocol error: {error}")

    async def _receive_directly(self, bytes_max: int) -> bytes:
        """As the stream's `receive_some`, without its first try: between replies there is nothing to read."""
        assert self._direct is not None
        while True:
            await trio.lowlevel.wait_readable(self._direct)
            try:
                return self._direct.recv(bytes_max)
            except BlockingIOError:
                continue

    def _deliver(self, frames: list[wire.Frame]) -> None:
        decode, opened = self._protocol.decode, self._open
        for kind, code, request_id, header, body, _ in frames:
            if kind == wire.ONE_WAY:
                message = decode(code, header)
                if self.on_message is not None:
                    self.on_message(message, body)
            elif kind == wire.REQUEST or request_id not in opened:
                raise WireError(f"a server sent a frame of kind {kind} for request {request_id}")
            else:
                answer = Reply(decode(code, header), body) if kind == wire.REPLY else _remote_error(header)
                opened.pop(request_id)(answer)
            if self.closed.is_set():
                return


def _remote_error(header: bytes) -> RemoteError:
    error = messages.decode_message(wire.ErrorHeader, header)
    return RemoteError(error.code, error.text)
