"""The server's side: a reactor `Service` that cuts frames, decodes messages and calls a handler."""

from typing import Any, Protocol

from coord import eventlog
from coord import message as messages
from coord.reactor import Connection
from coord.reactor.connection import Address, Bytes
from coord.rpc import wire
from coord.rpc.wire import FRAME_BYTES_MAX, FrameReader, WireError, encode_prefix

INFLIGHT_MAX = 4096
"""Unanswered requests of one peer at which we stop reading from it."""

INFLIGHT_BYTES_MAX = 32 * 1024 * 1024
"""The same in bytes of their frames. One read (256 KB) more may arrive before it takes effect."""

OUTGOING_BYTES_MAX = 8 * 1024 * 1024
"""Unsent bytes owed to one peer at which we stop reading from it."""

ERROR_UNKNOWN_MESSAGE = 0xFFFF
"""The error code for a request this server does not know; protocols must not use it otherwise."""

ERROR_TEXT_CHARACTERS_MAX = 1000

log = eventlog.get("coord.rpc")


class Handler(Protocol):
    """What a server does with requests. All calls are synchronous and come from the reactor's task.

    An exception out of them costs the peer its connection. `body` is a view that keeps its whole read alive:
    copy what is kept for long.
    """

    def on_connected(self, peer: "Peer") -> None: ...

    def on_request(self, peer: "Peer", request_id: int, message: Any, body: memoryview) -> None:
        """Answer with `peer.reply` or `peer.fail`, now or later, exactly once."""

    def on_one_way(self, peer: "Peer", message: Any, body: memoryview) -> None: ...

    def on_disconnected(self, peer: "Peer", reason: str) -> None:
        """Once for each `on_connected`; answers to what is still open are ignored from here on."""

    def on_tick_end(self) -> None:
        """All that was readable was delivered; what is queued here leaves with this tick."""


class Peer:
    """One connected client. `data` is the handler's own slot."""

    __slots__ = (
        "_conn",
        "_inflight_bytes",
        "_is_full",
        "_open",
        "_reader",
        "_service",
        "data",
        "on_drained",
        "peer_address",
    )

    def __init__(self, service: "RpcService", conn: Connection) -> None:
        self.data: Any = None
        self.on_drained: Any = None
        """A callable of no arguments: all is sent of output that the kernel had refused or that was too
        much."""
        self.peer_address: Address = conn.peer_address
        self._service = service
        self._conn: Connection | None = conn
        self._reader = FrameReader(service.frame_bytes_max)
        self._open: dict[int, int] = {}
        self._inflight_bytes = 0
        self._is_full = False

    @property
    def is_connected(self) -> bool:
        return self._conn is not None

    @property
    def inflight(self) -> int:
        """Requests not answered yet."""
        return len(self._open)

    @property
    def inflight_bytes(self) -> int:
        return self._inflight_bytes

    @property
    def outgoing_bytes(self) -> int:
        """Bytes queued that the kernel has not taken."""
        return 0 if self._conn is None else self._conn.pending_output

    def reply(self, request_id: int, message: object, *body: Bytes) -> None:
        """Answer an open request. Ignored once the peer is gone; otherwise the id must be open."""
        self._close_request(request_id)
        self._send(wire.REPLY, request_id, message, body)

    def fail(self, request_id: int, code: int, text: str = "") -> None:
        """Refuse an open request: the client gets `RemoteError(code, text)`, and takes it as not done."""
        self._close_request(request_id)
        conn = self._conn
        if conn is not None:
            header = messages.encode_message(wire.ErrorHeader(code, text[:ERROR_TEXT_CHARACTERS_MAX]))
            conn.send(encode_prefix(wire.ERROR, 0, request_id, len(header), 0) + header)

    def send(self, message: object, *body: Bytes) -> None:
        """Push a message nobody asked for."""
        self._send(wire.ONE_WAY, 0, message, body)

    def close(self, reason: str = "") -> None:
        """End the connection once what is queued is sent."""
        if self._conn is not None:
            self._conn.close(reason=reason)

    def _send(self, kind: int, request_id: int, message: object, body: tuple[Bytes, ...]) -> None:
        conn = self._conn
        if conn is None:
            return
        code, header = self._service.encode(message)
        if body:
            prefix = encode_prefix(kind, code, request_id, len(header), sum(map(len, body)))
            conn.send_parts((prefix + header, *body))
        else:
            conn.send(encode_prefix(kind, code, request_id, len(header), 0) + header)
        if conn.pending_output > self._service.outgoing_bytes_max and not self._is_full:
            self._reconsider()

    def _close_request(self, request_id: int) -> None:
        size = self._open.pop(request_id, None)
        if size is None:
            assert self._conn is None, f"request {request_id} is not open: was it answered twice?"
            return
        self._inflight_bytes -= size
        if self._is_full:
            self._reconsider()

    def _reconsider(self) -> None:
        """Full is where a limit is passed; no longer full is below half of each, lest we flap."""
        conn, service = self._conn, self._service
        if conn is None:
            return
        inflight, queued = len(self._open), conn.pending_output
        if not self._is_full:
            if (
                inflight >= service.inflight_max
                or self._inflight_bytes >= service.inflight_bytes_max
                or queued > service.outgoing_bytes_max
            ):
                self._is_full = True
                conn.pause()
        elif (
            inflight <= service.inflight_max // 2
            and self._inflight_bytes <= service.inflight_bytes_max // 2
            and queued <= service.outgoing_bytes_max // 2
        ):
            self._is_full = False
            conn.resume()

    # For RpcService, whose other half this is.

    def on_bytes(self, data: bytes) -> None:
        service = self._service
        handler, decode, opened = service.handler, service.protocol.decode, self._open
        for kind, code, request_id, header, body, size in self._reader.read(data):
            if kind == wire.REQUEST:
                if request_id in opened:
                    raise WireError(f"request id {request_id} is open already")
                opened[request_id] = size
                self._inflight_bytes += size
                try:
                    message = decode(code, header)
                except messages.UnknownMessageError as error:
                    self.fail(request_id, ERROR_UNKNOWN_MESSAGE, str(error))
                    continue
                handler.on_request(self, request_id, message, body)
            elif kind == wire.ONE_WAY:
                handler.on_one_way(self, decode(code, header), body)
            else:
                raise WireError(f"a client sent a frame of kind {kind}")
            if self._conn is None or not self._conn.is_open:
                return
        self._reconsider()

    def on_output_drained(self) -> None:
        if self._is_full:
            self._reconsider()
        if self.on_drained is not None:
            self.on_drained()

    def on_end(self) -> None:
        self._conn = None
        self._open.clear()
        self._inflight_bytes = 0
        self.on_drained = None


class RpcService:
    """Give it to `Reactor.listen`.

    Args:
        protocol: the messages both sides know.
        handler: see `Handler`.
        frame_bytes_max: the longest frame a client may send.
        inflight_max: see `INFLIGHT_MAX`.
        inflight_bytes_max: see `INFLIGHT_BYTES_MAX`.
        outgoing_bytes_max: see `OUTGOING_BYTES_MAX`.
    """

    def __init__(
        self,
        protocol: messages.Protocol,
        handler: Handler,
        *,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        inflight_max: int = INFLIGHT_MAX,
        inflight_bytes_max: int = INFLIGHT_BYTES_MAX,
        outgoing_bytes_max: int = OUTGOING_BYTES_MAX,
    ) -> None:
        self.protocol = protocol
        self.handler = handler
        self.frame_bytes_max = frame_bytes_max
        self.inflight_max = inflight_max
        self.inflight_bytes_max = inflight_bytes_max
        self.outgoing_bytes_max = outgoing_bytes_max
        self.encode = protocol.encode
        self.protocol_errors = 0

    def on_open(self, conn: Connection) -> None:
        peer = conn.data = Peer(self, conn)
        conn.on_drained = _on_drained
        self.handler.on_connected(peer)

    def on_bytes(self, conn: Connection, data: bytes) -> None:
        try:
            conn.data.on_bytes(data)
        except (WireError, messages.MessageError) as error:
            self.protocol_errors += 1
            log.info("closing a connection that broke the protocol", peer=conn.peer_address, error=error)
            conn.close(flush=False, reason=f"protocol error: {error}")

    def on_close(self, conn: Connection, reason: str) -> None:
        peer: Peer = conn.data
        peer.on_end()
        self.handler.on_disconnected(peer, reason)
        peer.data = None  # a cycle through it would never be collected

    def on_tick_end(self) -> None:
        self.handler.on_tick_end()


def _on_drained(conn: Connection) -> None:
    conn.data.on_output_drained()
