"""A client's session: one connection at a time, re-attached to the next server when it is lost.

The tasks here wait; they decide nothing about the tree. `Session.run` connects, shakes hands and serves one
connection until it breaks, then fails what was in flight (its outcome is unknown), keeps what was not yet
sent, and connects to the next server. It ends when the session has expired or was closed.
"""

import contextlib
import enum
import random
import ssl
import struct
from collections import deque
from collections.abc import Callable, Sequence

import outcome
import trio

from coord import eventlog
from coord.client.calls import OP_PING, Call, Event, Exchange, Reply
from coord.client.hosts import format_address
from coord.clock import Clock
from coord.errors import (
    ConnectionLossError,
    CoordError,
    NotConnectedError,
    ProtocolError,
    SessionExpiredError,
)

READ_BYTES = 256 * 1024
#: Requests handed in and not answered; the next caller waits.
OUTSTANDING_MAX = 10_000
#: Bytes of requests that one send may carry.
SEND_BYTES_MAX = 1024 * 1024
#: After every server has refused once: wait from the first to the second, doubling, with jitter.
BACKOFF_MS = (20, 1000)
CONNECT_TIMEOUT_MS = (250, 5000)
OP_CLOSE_SESSION = -11
CLOSE_DEADLINE_S = 2.0

_CONNECT = struct.Struct(">iqiqi16s?")
_CONNECTED = struct.Struct(">iiqi16s")
_LENGTH = struct.Struct(">i")

log = eventlog.get("coord.client")


class State(enum.Enum):
    """Where a client stands; CONNECTING is also the state between two servers."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    EXPIRED = "expired"
    CLOSED = "closed"


class Session:
    """The session's identity, the requests waiting for a connection, and the loop that keeps one.

    Args:
        servers: addresses in the order to be tried.
        timeout_ms: the session timeout to ask for; `timeout_ms` then holds the one granted.
        identity: (session id, password) of a session to re-attach to; (0, zeroes) asks for a new one.
        on_event: called with each watch event's record.
        on_break: called when a connection was lost, after its requests were failed.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        timeout_ms: int,
        identity: tuple[int, bytes],
        *,
        clock: Clock,
        rng: random.Random,
        ssl_context: ssl.SSLContext | None,
        on_event: Callable[[bytes], None],
        on_break: Callable[[], None],
    ) -> None:
        self.session_id, self.password = identity
        self.timeout_ms = timeout_ms
        self.state = State.CONNECTING
        self.connected = trio.Event()
        self.expired = trio.Event()
        self.server: tuple[str, int] | None = None
        self.last_zxid = 0
        self.last_failure = "no server was tried yet"
        self._servers = servers
        self._clock = clock
        self._rng = rng
        self._ssl_context = ssl_context
        self._on_event = on_event
        self._on_break = on_break
        self._unsent: deque[Call] = deque()
        self._outstanding = 0
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.Event()
        self._exchange: Exchange | None = None
        self._heard_ms = 0
        self._sent_ms = 0
        self._lost_ms = clock.monotonic_ms()

    # What callers use.

    async def call(self, op: int, body: bytes) -> tuple[int, bytes]:
        """Sends one request and returns (error code, reply body).

        Cancelled while waiting, the request may still be carried out.

        Raises:
            ConnectionLossError: the connection broke after the request was sent: outcome unknown.
            NotConnectedError: no server was reached for a whole session timeout; the request was not sent.
            SessionExpiredError: the session is over.
        """
        while self._outstanding >= OUTSTANDING_MAX:
            await self._room.park()
        self._check_alive()
        self._outstanding += 1
        try:
            call = Call(op, body, trio.lowlevel.current_task())
            self._unsent.append(call)
            self._work.set()

            def abandon(_: object) -> trio.lowlevel.Abort:
                call.waiter = None
                with contextlib.suppress(ValueError):
                    self._unsent.remove(call)
                return trio.lowlevel.Abort.SUCCEEDED

            answer: tuple[int, bytes] = await trio.lowlevel.wait_task_rescheduled(abandon)
            return answer
        finally:
            self._outstanding -= 1
            self._room.unpark()

    async def close(self) -> None:
        """Closes the session at the server, within CLOSE_DEADLINE_S; the session is over in any case."""
        if self.state is State.CONNECTED:
            with trio.move_on_after(CLOSE_DEADLINE_S), contextlib.suppress(CoordError):
                await self.call(OP_CLOSE_SESSION, b"")
        if self.state is not State.EXPIRED:
            self.state = State.CLOSED

    def _check_alive(self) -> None:
        if self.state is State.EXPIRED:
            raise SessionExpiredError(f"session 0x{self.session_id:x} has expired")
        if self.state is State.CLOSED:
            raise SessionExpiredError(f"session 0x{self.session_id:x} was closed")

    # The loop.

    async def run(self) -> None:
        """Keeps a connection until the session has expired or was closed."""
        attempt = 0
        while self.state not in (State.EXPIRED, State.CLOSED):
            address = self._servers[attempt % len(self._servers)]
            attempt += 1
            stream = await self._attach(address)
            if stream is not None:
                attempt = 0 if self.server == self._servers[0] else self._servers.index(address)
                await self._serve(stream)
                attempt += 1
                continue
            self._fail_unsent_when_late()
            if attempt % len(self._servers) == 0:
                low, high = BACKOFF_MS
                delay = min(high, low * 2 ** min(attempt // len(self._servers), 10))
                await trio.sleep(delay * self._rng.uniform(0.5, 1.0) / 1000)

    def _fail_unsent_when_late(self) -> None:
        """Without any server for a whole session timeout, waiting callers are told; nothing of theirs was
        sent."""
        if self._clock.monotonic_ms() - self._lost_ms < self.timeout_ms:
            return
        while self._unsent:
            _wake(
                self._unsent.popleft(), NotConnectedError(f"no server could be reached: {self.last_failure}")
            )

    async def _attach(self, address: tuple[str, int]) -> trio.abc.Stream | None:
        """Connects and shakes hands; None if that server does not serve us (or the session has expired)."""
        low, high = CONNECT_TIMEOUT_MS
        patience_ms = min(high, max(low, self.timeout_ms // max(1, len(self._servers))))
        stream: trio.abc.Stream | None = None
        try:
            with trio.fail_after(patience_ms / 1000):
                stream = await self._open(address)
                await stream.send_all(self._connect_request())
                frame = await _receive_frame(stream)
            self._accept(address, frame)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError, ProtocolError, ssl.SSLError) as error:
            cause = error.__cause__ or error
            self.last_failure = f"{format_address(*address)}: {str(cause) or 'no answer'}"
        else:
            if self.state is State.CONNECTED:
                return stream
        if stream is not None:
            await trio.aclose_forcefully(stream)
        return None

    async def _open(self, address: tuple[str, int]) -> trio.abc.Stream:
        stream: trio.abc.Stream = await trio.open_tcp_stream(*address)
        if self._ssl_context is not None:
            stream = trio.SSLStream(stream, self._ssl_context, server_hostname=address[0])
        return stream

    def _connect_request(self) -> bytes:
        body = _CONNECT.pack(0, self.last_zxid, self.timeout_ms, self.session_id, 16, self.password, False)
        return _LENGTH.pack(len(body)) + body

    def _accept(self, address: tuple[str, int], frame: bytes) -> None:
        """Takes over what the server granted, or learns that the session has expired."""
        if len(frame) < _CONNECTED.size:
            raise ProtocolError(f"expected a ConnectResponse of {_CONNECTED.size} bytes, got {len(frame)}")
        _, timeout_ms, session_id, _, password = _CONNECTED.unpack_from(frame)
        if timeout_ms <= 0:
            self.state = State.EXPIRED
            self._end(SessionExpiredError(f"session 0x{self.session_id:x} has expired"))
            return
        self.session_id, self.password, self.timeout_ms = session_id, password, timeout_ms
        self.server = address
        self.state = State.CONNECTED
        self.connected.set()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        """Runs one connection until it breaks, then settles what it owed."""
        exchange = self._exchange = Exchange(self.last_zxid)
        self._heard_ms = self._sent_ms = self._clock.monotonic_ms()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, stream, exchange, nursery.cancel_scope)
                nursery.start_soon(self._write, stream, exchange, nursery.cancel_scope)
                nursery.start_soon(self._watch_silence, exchange, nursery.cancel_scope)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            self._settle(exchange)

    async def _read(self, stream: trio.abc.Stream, exchange: Exchange, scope: trio.CancelScope) -> None:
        try:
            while data := await stream.receive_some(READ_BYTES):
                self._heard_ms = self._clock.monotonic_ms()
                for item in exchange.receive(bytes(data)):
                    if isinstance(item, Event):
                        self._on_event(item.body)
                    else:
                        _answer(item)
            self.last_failure = f"{self._server_name()} closed the connection"
        except (trio.BrokenResourceError, ProtocolError, ssl.SSLError) as error:
            self.last_failure = f"{self._server_name()}: {error}"
        scope.cancel()

    async def _write(self, stream: trio.abc.Stream, exchange: Exchange, scope: trio.CancelScope) -> None:
        try:
            while True:
                while not self._unsent:
                    self._work = trio.Event()
                    await self._work.wait()
                parts: list[bytes] = []
                size = 0
                while self._unsent and size < SEND_BYTES_MAX:
                    parts.append(exchange.encode(self._unsent.popleft()))
                    size += len(parts[-1])
                self._sent_ms = self._clock.monotonic_ms()
                await stream.send_all(b"".join(parts))
        except trio.BrokenResourceError as error:
            self.last_failure = f"{self._server_name()}: {error}"
        scope.cancel()

    async def _watch_silence(self, exchange: Exchange, scope: trio.CancelScope) -> None:
        """Pings an idle server after a third of the timeout; leaves one that is silent for two thirds."""
        third_ms = max(1, self.timeout_ms // 3)
        while True:
            now = self._clock.monotonic_ms()
            if now - self._heard_ms >= 2 * third_ms:
                self.last_failure = f"{self._server_name()} is silent"
                break
            if now - self._sent_ms >= third_ms or now - self._heard_ms >= third_ms:
                # A ping is a request in the writer's queue, so that it never cuts into a frame being sent.
                self._unsent.append(Call(OP_PING, b"", None))
                self._sent_ms = now
                self._work.set()
            due = min(self._sent_ms + third_ms, self._heard_ms + 2 * third_ms)
            await trio.sleep(max(1, due - now) / 1000)
        scope.cancel()

    def _settle(self, exchange: Exchange) -> None:
        self.last_zxid = max(self.last_zxid, exchange.last_zxid)
        self._exchange = None
        self._lost_ms = self._clock.monotonic_ms()
        if self.state is State.CONNECTED:
            self.state = State.CONNECTING
        self.connected = trio.Event()
        for _, call in exchange.in_flight:
            _wake(call, ConnectionLossError(f"connection lost: {self.last_failure}"))
        exchange.in_flight.clear()
        if self.state is State.CLOSED:
            self._end(SessionExpiredError(f"session 0x{self.session_id:x} was closed"))
        self._on_break()

    def _end(self, error: SessionExpiredError) -> None:
        """Nothing will be sent any more."""
        self.expired.set()
        self.connected.set()
        while self._unsent:
            _wake(self._unsent.popleft(), error)
        self._on_break()

    def _server_name(self) -> str:
        return format_address(*self.server) if self.server else "server"


def _answer(reply: Reply) -> None:
    task = reply.call.waiter
    if task is not None:
        reply.call.waiter = None
        trio.lowlevel.reschedule(task, outcome.Value((reply.err, reply.body)))


def _wake(call: Call, error: CoordError) -> None:
    task = call.waiter
    if task is not None:
        call.waiter = None
        trio.lowlevel.reschedule(task, outcome.Error(error))


async def _receive_frame(stream: trio.abc.Stream) -> bytes:
    """The first frame of a connection.

    Raises:
        ProtocolError: the server closed the connection (it does not serve now), or what it sent is no frame.
    """
    buffer = b""
    while len(buffer) < 4 or len(buffer) < 4 + _LENGTH.unpack_from(buffer)[0]:
        data = await stream.receive_some(4096)
        if not data:
            raise ProtocolError("the server closed the connection: it is not in service")
        buffer += data
        if len(buffer) > 4096:
            raise ProtocolError("expected a ConnectResponse, got something longer")
    return buffer[4:]
