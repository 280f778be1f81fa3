"""A small HTTP/1.1 server for operators' pages: h11 knows the protocol, this waits on trio's streams.

    server = HttpServer(handle)
    nursery.start_soon(server.serve, await open_listeners("127.0.0.1", 8080))

Not for hot paths: a task for each connection. Bounded are connections, the head of a request, and the time
in which anything has to happen; the body of a request is handed to the handler piece by piece.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import trio

from coord import eventlog

HEAD_BYTES_MAX: Final = 16 << 10
"""Request line and headers."""
RECEIVE_BYTES: Final = 64 << 10
CONNECTIONS_MAX: Final = 64
IDLE_SECONDS: Final = 30.0
DISCARD_BYTES_MAX: Final = 64 << 10
"""What is read of a body that the handler did not want, to keep the connection."""
TLS_RECORD: Final = 0x16
"""The first byte of a TLS handshake; no HTTP request begins with it."""

log = eventlog.get("coord.http")


class _Peeked(trio.abc.Stream):
    """A socket's stream whose first bytes have been looked at."""

    def __init__(self, stream: trio.SocketStream, first: bytes) -> None:
        self._stream = stream
        self._first = first

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._first:
            await trio.lowlevel.checkpoint()
            first, self._first = self._first, b""
            return first
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose head has arrived.

    Attributes:
        path: without the query, percent signs decoded.
        headers: names in small letters; of one given twice the last.
        receive: the next piece of the body; empty at its end. Raises `ClientGoneError`.
    """

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    peer_host: str
    is_secure: bool
    receive: Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; a body that comes in pieces is sent in chunks, and its `aclose` is called, if it has one.

    Attributes:
        then: called when the answer has been sent, or could not be.
    """

    status: int
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    then: Callable[[], None] | None = None


class ClientGoneError(Exception):
    """The client broke the connection, or the protocol, within a request's body."""


Handler = Callable[[Request], Awaitable[Response]]


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listeners of one address; port 0 lets the system choose.

    Raises:
        OSError: the address is in use, not ours, or unknown.
    """
    return await trio.open_tcp_listeners(port, host=host)


class HttpServer:
    """Answers requests with what `handle` returns.

    Args:
        context: what TLS connections are shown.
        plain: whether connections without TLS are served.
    """

    def __init__(
        self,
        handle: Handler,
        *,
        context: ssl.SSLContext | None = None,
        plain: bool = True,
        connections_max: int = CONNECTIONS_MAX,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._handle = handle
        self._context = context
        self._plain = plain
        self._connections_max = connections_max
        self._idle_seconds = idle_seconds
        self._connections = 0

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves until cancelled; closes the listeners."""
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(trio.serve_listeners, self._accept, [listener])
            task_status.started()

    async def _accept(self, stream: trio.SocketStream) -> None:
        if self._connections >= self._connections_max:
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            await self._serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, ClientGoneError):
            pass  # the client's affair
        except Exception as error:  # the boundary: what one connection does must not cost the others
            log.error("a connection of the HTTP server failed", do="report this", trace=error)
        finally:
            self._connections -= 1
            await trio.aclose_forcefully(stream)

    async def _serve(self, plain: trio.SocketStream) -> None:
        host = str(plain.socket.getpeername()[0]).removeprefix("::ffff:")
        stream: trio.abc.Stream | None = None
        is_secure = False
        with trio.move_on_after(self._idle_seconds):
            first = bytes(await plain.receive_some(RECEIVE_BYTES))
            if not first:
                return
            is_secure = first[0] == TLS_RECORD and self._context is not None
            if is_secure:
                assert self._context is not None
                secure = trio.SSLStream(
                    _Peeked(plain, first), self._context, server_side=True, https_compatible=True
                )
                await secure.do_handshake()
                stream = secure
            elif self._plain:
                stream = _Peeked(plain, first)
        if stream is not None:
            await _Conversation(self._handle, stream, host, is_secure, self._idle_seconds).run()


class _Conversation:
    """The requests of one connection, one after the other."""

    def __init__(
        self, handle: Handler, stream: trio.abc.Stream, host: str, is_secure: bool, idle_seconds: float
    ) -> None:
        self._handle = handle
        self._stream = stream
        self._host = host
        self._is_secure = is_secure
        self._idle_seconds = idle_seconds
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)

    async def run(self) -> None:
        connection = self._connection
        while True:
            try:
                with trio.move_on_after(
                    self._idle_seconds
                ) as scope:  # all of the head, however slowly it comes
                    event = await self._next_event()
                if scope.cancelled_caught:
                    return
            except h11.RemoteProtocolError as error:
                if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    await self._answer(Response(error.error_status_hint, str(error).encode()), "GET")
                return
            if not isinstance(event, h11.Request):
                return  # it has ended
            method = event.method.decode("ascii")
            await self._answer(await self._respond(event, method), method)
            await self._drop_body()
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _respond(self, head: h11.Request, method: str) -> Response:
        target = urlsplit(head.target.decode("ascii", "replace"))
        request = Request(
            method=method,
            path=unquote(target.path),
            query=parse_qs(target.query, keep_blank_values=True),
            headers={name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
            peer_host=self._host,
            is_secure=self._is_secure,
            receive=self._receive_body,
        )
        try:
            return await self._handle(request)
        except ClientGoneError:
            raise
        except Exception as error:  # the boundary of one request
            log.error("a request failed", do="report this", path=request.path, trace=error)
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error\n")

    async def _answer(self, response: Response, method: str) -> None:
        body = response.body
        try:
            await self._send_response(response, method)
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                with trio.CancelScope(shield=True):
                    await close()
            if response.then is not None:
                response.then()

    async def _send_response(self, response: Response, method: str) -> None:
        headers = [("Content-Type", response.content_type), *response.headers.items()]
        if isinstance(response.body, bytes):
            headers.append(("Content-Length", str(len(response.body))))
        connection = self._connection
        await self._send(connection.send(h11.Response(status_code=int(response.status), headers=headers)))
        if isinstance(response.body, bytes):
            if response.body and method != "HEAD":
                await self._send(connection.send(h11.Data(data=response.body)))
        else:
            async for piece in response.body:
                if piece and method != "HEAD":
                    await self._send(connection.send(h11.Data(data=piece)))
        await self._send(connection.send(h11.EndOfMessage()))

    async def _send(self, data: bytes | None) -> None:
        if data:
            with trio.move_on_after(self._idle_seconds) as scope:
                await self._stream.send_all(data)
            if scope.cancelled_caught:
                raise ClientGoneError("nothing was taken in time")

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._connection.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            if self._connection.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._send(self._connection.send(go_on))
            with trio.move_on_after(self._idle_seconds) as scope:
                self._connection.receive_data(bytes(await self._stream.receive_some(RECEIVE_BYTES)))
            if scope.cancelled_caught:
                raise ClientGoneError("nothing came in time")

    async def _receive_body(self) -> bytes:
        try:
            event = await self._next_event()
        except h11.RemoteProtocolError as error:
            raise ClientGoneError(str(error)) from error
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _drop_body(self) -> None:
        """What the handler left of a small body is read away; behind a large one the connection ends."""
        dropped = 0
        while self._connection.their_state is h11.SEND_BODY and dropped < DISCARD_BYTES_MAX:
            if self._connection.they_are_waiting_for_100_continue:
                return
            dropped += len(await self._receive_body())
