"""Requests and replies of our own protocols: pipelined, many to a send, payload bytes left alone.

A frame (all integers big-endian; see docs/formats.md, "RPC frames")::

    u32 length of what follows | u8 kind | u8 version | u16 message code | u32 request id | u32 header length
    | header: the message as CBOR array (coord.message) | body: raw bytes, perhaps none

The server's side is a `Service` of the reactor and all synchronous: `RpcService` cuts frames, decodes
messages and calls a `Handler`, which answers through `Peer`, at once or later. The client's side is a `Link`
over a trio
stream: `link.request(message, *body, on_reply=...)` queues and returns, `await link.call(message, *body)`
waits.

Both ends bound what they hold. The server stops reading from a peer that has too many requests open, or that
does not take its replies; the client refuses (`request`) or waits (`call`) at its own limits.
"""

from coord.rpc.dial import connect, open_link
from coord.rpc.errors import (
    ConnectError,
    LinkClosedError,
    LinkFullError,
    RemoteError,
    RpcError,
)
from coord.rpc.link import Link, Reply
from coord.rpc.server import Handler, Peer, RpcService
from coord.rpc.wire import FRAME_BYTES_MAX, WireError

__all__ = [
    "FRAME_BYTES_MAX",
    "ConnectError",
    "Handler",
    "Link",
    "LinkClosedError",
    "LinkFullError",
    "Peer",
    "RemoteError",
    "Reply",
    "RpcError",
    "RpcService",
    "WireError",
    "connect",
    "open_link",
]
