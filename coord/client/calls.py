"""One connection's requests and replies, without the connection: numbering, order, matching.

Requests leave in the order they were handed in and are answered in that order (spec 5.3), so the requests in
flight are a queue, and a reply that names another xid means that the stream is broken. Three kinds have xids
of their own (spec 5.2): pings, credentials (whose answers may overtake others) and the setting of watches.
"""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import trio

from coord.errors import ProtocolError
from coord.protocol import opcodes

#: Largest reply accepted, in bytes: children lists may exceed what the server takes as a request.
REPLY_BYTES_MAX = 64 * 1024 * 1024
REPLY_HEADER_BYTES = 16

_REQUEST = struct.Struct(">iii")
_REPLY = struct.Struct(">iqi")
_LENGTH = struct.Struct(">i")
_SPECIAL = frozenset({opcodes.PING, opcodes.AUTH, opcodes.SET_WATCHES, opcodes.SET_WATCHES2})
_PING = _REQUEST.pack(8, opcodes.XID_PING, opcodes.PING)


@dataclass(slots=True, eq=False)
class Call:
    """One request: what to send, and who waits.

    Attributes:
        waiter: whoever is told of the reply; None once nobody wants it.
        sync: the body of a sync that leaves right before the request, in the same send; if it fails, so does
            the request. None once it has left.
        guarded: of such a sync, the request behind it.
    """

    op: int
    body: bytes
    waiter: trio.lowlevel.Task | None
    sync: bytes | None = None
    guarded: "Call | None" = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to `call`: a wire error code (0 for success) and the body behind the header."""

    call: Call
    err: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """A watch event as it came: the body is a WatcherEvent record, the zxid that of the change where the
    server tells it (Apache's before 3.9 say -1)."""

    body: bytes
    zxid: int = -1


class Exchange:
    """Encodes requests and matches what comes back, for one connection.

    Attributes:
        last_zxid: the newest state that a reply has shown.
        in_flight: (xid, call) of what was encoded and not answered; credentials are not among them.
        heard: whether the server has said anything.
    """

    def __init__(self, last_zxid: int) -> None:
        self.last_zxid = last_zxid
        self.in_flight: deque[tuple[int, Call]] = deque()
        self.heard = False
        self._credentials: deque[Call] = deque()
        self._next_xid = 1
        self._rest = bytearray()
        self._needed = 4

    def encode(self, call: Call) -> bytes:
        """Numbers a request and returns its frame; it counts as in flight from here on. Pings are not
        numbered."""
        if call.op in _SPECIAL:
            return self._encode_special(call)
        if call.sync is not None:
            sync = Call(opcodes.SYNC, call.sync, None, guarded=call)
            call.sync = None
            return self.encode(sync) + self.encode(call)
        xid = self._next_xid
        self._next_xid = xid % 0x7FFFFFFF + 1
        self.in_flight.append((xid, call))
        return _REQUEST.pack(len(call.body) + 8, xid, call.op) + call.body

    def _encode_special(self, call: Call) -> bytes:
        """The frame of a request with an xid of its own."""
        if call.op == opcodes.PING:
            return _PING
        if call.op == opcodes.AUTH:
            self._credentials.append(call)
            xid = opcodes.XID_AUTH
        else:
            self.in_flight.append((opcodes.XID_SET_WATCHES, call))
            xid = opcodes.XID_SET_WATCHES
        return _REQUEST.pack(len(call.body) + 8, xid, call.op) + call.body

    def receive(self, data: bytes | bytearray) -> Iterator[Reply | Event]:
        """Takes what was read and yields each complete reply and event in order.

        Raises:
            ProtocolError: the stream is not ZooKeeper's protocol, or a reply is out of order.
        """
        self.heard = self.heard or bool(data)
        if self._rest:
            # A long reply comes in many pieces: they are joined once, when the last of them is there.
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = self._rest
        buffer = bytes(data)
        offset, end = 0, len(buffer)
        needed = 4
        while end - offset >= 4:
            (length,) = _LENGTH.unpack_from(buffer, offset)
            if not REPLY_HEADER_BYTES <= length <= REPLY_BYTES_MAX:
                raise ProtocolError(
                    f"expected a frame of {REPLY_HEADER_BYTES} to {REPLY_BYTES_MAX} bytes, got {length}"
                )
            needed = 4 + length
            if end - offset < needed:
                break
            xid, zxid, err = _REPLY.unpack_from(buffer, offset + 4)
            body = buffer[offset + 20 : offset + needed]
            offset += needed
            needed = 4
            if xid == opcodes.XID_EVENT:
                yield Event(body, zxid)
                continue
            if zxid > self.last_zxid:
                self.last_zxid = zxid
            if xid == opcodes.XID_PING:
                continue
            if xid == opcodes.XID_AUTH and self._credentials:
                yield Reply(self._credentials.popleft(), err, body)
                continue
            if not self.in_flight or self.in_flight[0][0] != xid:
                expected = self.in_flight[0][0] if self.in_flight else "none"
                raise ProtocolError(f"expected the reply to request {expected}, got one to {xid}")
            yield Reply(self.in_flight.popleft()[1], err, body)
        self._rest = bytearray(buffer[offset:])
        self._needed = needed
