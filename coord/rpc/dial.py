"""Making links: connect, shake hands, start the link's tasks."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from coord import message as messages
from coord.rpc.errors import ConnectError
from coord.rpc.link import INFLIGHT_MAX, OUTGOING_BYTES_MAX, Link
from coord.rpc.wire import FRAME_BYTES_MAX

CONNECT_MS_MAX = 10_000
"""Time for all addresses of a name and the TLS handshake together."""


@asynccontextmanager
async def connect(
    host: str,
    port: int,
    protocol: messages.Protocol,
    *,
    ssl_context: ssl.SSLContext | None = None,
    frame_bytes_max: int = FRAME_BYTES_MAX,
    inflight_max: int = INFLIGHT_MAX,
    outgoing_bytes_max: int = OUTGOING_BYTES_MAX,
) -> AsyncIterator[Link]:
    """A link for the length of the block; arguments and errors as for `open_link`. What the block raises
    comes out as it is, not in a group."""
    link = await _open(host, port, protocol, ssl_context, frame_bytes_max, inflight_max, outgoing_bytes_max)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.serve)
        try:
            yield link
        except Exception as error:
            failure = error
        finally:
            link.close("closed by its user")
            nursery.cancel_scope.cancel()
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None  # it refers to this frame


async def open_link(
    nursery: trio.Nursery,
    host: str,
    port: int,
    protocol: messages.Protocol,
    *,
    ssl_context: ssl.SSLContext | None = None,
    frame_bytes_max: int = FRAME_BYTES_MAX,
    inflight_max: int = INFLIGHT_MAX,
    outgoing_bytes_max: int = OUTGOING_BYTES_MAX,
) -> Link:
    """Connect, and serve the link in `nursery` until it ends.

    Args:
        nursery: where the link's two tasks run. Its cancellation ends the link; the link's end is no error
            there.
        host: a name or address.
        port: its port.
        protocol: the messages both sides know.
        ssl_context: speak TLS (`coord.tls.client_context`).
        frame_bytes_max: the longest frame the server may send.
        inflight_max: requests that may wait for replies.
        outgoing_bytes_max: bytes that may wait to be sent.

    Raises:
        ConnectError: no connection within `CONNECT_MS_MAX`, or the TLS handshake failed.
    """
    link = await _open(host, port, protocol, ssl_context, frame_bytes_max, inflight_max, outgoing_bytes_max)
    nursery.start_soon(link.serve)
    return link


async def _open(
    host: str,
    port: int,
    protocol: messages.Protocol,
    ssl_context: ssl.SSLContext | None,
    frame_bytes_max: int,
    inflight_max: int,
    outgoing_bytes_max: int,
) -> Link:
    """A link that nobody serves yet."""
    try:
        with trio.fail_after(CONNECT_MS_MAX / 1000):
            connected = await _connect_socket(host, port)
            stream: trio.abc.Stream = trio.SocketStream(trio.socket.from_stdlib_socket(connected))
            if ssl_context is not None:
                stream = await _secure(stream, ssl_context, host)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
        text = "it took too long" if isinstance(error, trio.TooSlowError) else str(cause)
        raise ConnectError(f"cannot connect to {host}:{port}: {text}") from error
    return Link(
        stream,
        protocol,
        direct=connected if ssl_context is None else None,
        address=f"{host}:{port}",
        frame_bytes_max=frame_bytes_max,
        inflight_max=inflight_max,
        outgoing_bytes_max=outgoing_bytes_max,
    )


async def _secure(stream: trio.abc.Stream, context: ssl.SSLContext, host: str) -> trio.abc.Stream:
    secure = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(secure)
        raise
    return secure


async def _connect_socket(host: str, port: int) -> socket.socket:
    """A connected non-blocking socket; the addresses of a name are tried in turn."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in await trio.socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await trio.socket.from_stdlib_socket(made).connect(address)
            return made
        except OSError as error:
            made.close()
            failure = error
        except BaseException:
            made.close()
            raise
    raise failure or OSError(f"{host} has no address")
