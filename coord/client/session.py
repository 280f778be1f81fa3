"""A client's session: one connection at a time, re-attached to the next server when it is lost.

The tasks here wait; they decide nothing about the tree. `Session.run` connects, shakes hands and serves one
connection until it breaks, then fails what was in flight (its outcome is unknown), keeps what was not yet
sent, and connects to the next server. It ends when the session has expired or was closed.
"""

import contextlib
import enum
import random
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import outcome
import trio

from coord import eventlog
from coord.client.calls import OP_CLOSE_SESSION, OP_PING, Call, Event, Exchange, Reply
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
#: How long closing may take: with a connection, and between two of them.
CLOSE_DEADLINE_S = 2.0
CLOSE_DEADLINE_AWAY_S = 1.0
#: What a ConnectResponse may measure; the longest known has 41 bytes.
CONNECT_RESPONSE_BYTES_MAX = 4096

Dial = Callable[[str, int], Awaitable[trio.abc.Stream]]

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


#: States that do not end.
OVER = (State.EXPIRED, State.CLOSED)


class Session:
    """The session's identity, the requests waiting for a connection, and the loop that keeps one.

    Args:
        servers: addresses in the order to be tried.
        timeout_ms: the session timeout to ask for; `timeout_ms` then holds the one granted.
        identity: (session id, password) of a session to re-attach to; (0, zeroes) asks for a new one.
        dial: opens a stream to a server.
        on_event: called with each watch event's record; a ProtocolError of it ends the connection.
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
        dial: Dial,
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
        self._dial = dial
        self._on_event = on_event
        self._on_break = on_break
        self._unsent: deque[Call] = deque()
        self._outstanding = 0
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.Event()
        self._heard_ms = 0
        self._sent_ms = 0
        self._lost_ms = clock.monotonic_ms()
        self._confirmed = False

    # What callers use.

    async def call(self, op: int, body: bytes) -> tuple[int, bytes]:
        """Sends one request and returns (error code, reply body).

        Cancelled while waiting, the request may still be carried out.

        Raises:
            ConnectionLossError: the connection broke after the request was sent: outcome unknown.
            NotConnectedError: no server was reached for a whole session timeout; the request was not sent.
            SessionExpiredError: the session is over.
        """
        while self._outstanding >= OUTSTANDING_MAX and self.state not in OVER:
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

    async def close(self) -> bool:
        """Closes the session; it is over for this client in any case.

        Between two connections it waits for the next, so that the session's ephemerals go now and not with
        its timeout.

        Returns:
            Whether a server has confirmed that the session is over.
        """
        if self.state in OVER:
            return self._confirmed
        deadline_s = CLOSE_DEADLINE_S if self.state is State.CONNECTED else CLOSE_DEADLINE_AWAY_S
        if self.session_id != 0:
            with trio.move_on_after(deadline_s), contextlib.suppress(SessionExpiredError, NotConnectedError):
                while not self._confirmed:
                    with contextlib.suppress(ConnectionLossError):
                        await self.call(OP_CLOSE_SESSION, b"")
                        break
        if self.state not in OVER:
            self.state = State.CLOSED
        if self.state is State.CLOSED:
            self._end(self._closed_error())
        return self._confirmed

    def _check_alive(self) -> None:
        if self.state is State.EXPIRED:
            raise SessionExpiredError(f"session 0x{self.session_id:x} has expired")
        if self.state is State.CLOSED:
            raise self._closed_error()

    def _closed_error(self) -> SessionExpiredError:
        return SessionExpiredError(f"session 0x{self.session_id:x} was closed")

    # The loop.

    async def run(self) -> None:
        """Keeps a connection until the session has expired or was closed.

        Every server is tried once without a pause, also behind a connection that broke; a server that takes
        us and leaves before it has answered anything counts as one that refused.
        """
        count, position, refusals = len(self._servers), 0, 0
        while self.state not in OVER:
            address = self._servers[position % count]
            position += 1
            attached = await self._attach(address)
            if attached is not None and await self._serve(*attached):
                refusals = 0
                continue
            if attached is None:
                self._fail_unsent_when_late()
            refusals += 1
            if refusals % count == 0 and self.state not in OVER:
                low, high = BACKOFF_MS
                delay = min(high, low * 2 ** min(refusals // count - 1, 10))
                await trio.sleep(delay * self._rng.uniform(0.5, 1.0) / 1000)

    def _fail_unsent_when_late(self) -> None:
        """Without any server for a whole session timeout, waiting callers are told; nothing of theirs was
        sent."""
        if self._clock.monotonic_ms() - self._lost_ms < self.timeout_ms:
            return
        while self._unsent:
            text = f"no server could be reached: {self.last_failure}"
            _wake(self._unsent.popleft(), text, NotConnectedError)

    async def _attach(self, address: tuple[str, int]) -> tuple[trio.abc.Stream, bytes] | None:
        """Connects and shakes hands.

        Returns:
            The stream and what came behind the answer, or None if that server does not serve us (or the
            session has expired).
        """
        low, high = CONNECT_TIMEOUT_MS
        patience_ms = min(high, max(low, self.timeout_ms // max(1, len(self._servers))))
        stream: trio.abc.Stream | None = None
        attached = False
        rest = b""
        try:
            with trio.fail_after(patience_ms / 1000):
                stream = await self._dial(*address)
                await stream.send_all(self._connect_request())
                frame, rest = await _receive_frame(stream)
            self._accept(address, frame)
            attached = self.state is State.CONNECTED
        except (OSError, UnicodeError, trio.TooSlowError, trio.BrokenResourceError, ProtocolError) as error:
            self.last_failure = f"{format_address(*address)}: {_reason(error)}"
        finally:
            if stream is not None and not attached:
                await trio.aclose_forcefully(stream)
        return (stream, rest) if attached and stream is not None else None

    def _connect_request(self) -> bytes:
        body = _CONNECT.pack(0, self.last_zxid, self.timeout_ms, self.session_id, 16, self.password, False)
        return _LENGTH.pack(len(body)) + body

    def _accept(self, address: tuple[str, int], frame: bytes) -> None:
        """Takes over what the server granted, or learns that the session has expired.

        Raises:
            ProtocolError: the frame is no ConnectResponse.
        """
        if len(frame) < _CONNECTED.size:
            raise ProtocolError(f"expected a ConnectResponse of {_CONNECTED.size} bytes, got {len(frame)}")
        _, timeout_ms, session_id, password_bytes, password = _CONNECTED.unpack_from(frame)
        if password_bytes != 16:
            raise ProtocolError(f"expected a session password of 16 bytes, got {password_bytes}")
        if self.state is State.CLOSED:
            return
        if timeout_ms <= 0:
            self.state = State.EXPIRED
            self._confirmed = True
            self._end(SessionExpiredError(f"session 0x{self.session_id:x} has expired"))
            return
        self.session_id, self.password, self.timeout_ms = session_id, password, timeout_ms
        self.server = address
        self.state = State.CONNECTED
        self.connected.set()

    async def _serve(self, stream: trio.abc.Stream, rest: bytes) -> bool:
        """Runs one connection until it breaks, then settles what it owed.

        Returns:
            Whether the server has said anything.
        """
        exchange = Exchange(self.last_zxid)
        self._heard_ms = self._sent_ms = self._clock.monotonic_ms()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, stream, rest, exchange, nursery.cancel_scope)
                nursery.start_soon(self._write, stream, exchange, nursery.cancel_scope)
                nursery.start_soon(self._watch_silence, nursery.cancel_scope)
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            self._settle(exchange)
        return exchange.heard

    async def _read(
        self, stream: trio.abc.Stream, data: bytes | bytearray, exchange: Exchange, scope: trio.CancelScope
    ) -> None:
        """Takes in what the server says, beginning with `data`."""
        try:
            while True:
                for item in exchange.receive(data):
                    if isinstance(item, Event):
                        self._on_event(item.body)
                        continue
                    if item.call.op == OP_CLOSE_SESSION and item.err == 0:
                        self.state = State.CLOSED
                        self._confirmed = True
                    _answer(item)
                data = await stream.receive_some(READ_BYTES)
                if not data:
                    break
                self._heard_ms = self._clock.monotonic_ms()
            self.last_failure = f"{self._server_name()} closed the connection"
        except (OSError, trio.BrokenResourceError, ProtocolError) as error:
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
        except (OSError, trio.BrokenResourceError) as error:
            self.last_failure = f"{self._server_name()}: {error}"
        scope.cancel()

    async def _watch_silence(self, scope: trio.CancelScope) -> None:
        """Pings an idle server after a third of the timeout; leaves one that is silent for two thirds."""
        third_ms = max(1, self.timeout_ms // 3)
        while True:
            now = self._clock.monotonic_ms()
            if now - self._heard_ms >= 2 * third_ms:
                # Where it was this process that stood still, the answer waits to be read: that first.
                await trio.lowlevel.checkpoint()
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
        """The connection is gone: nobody can know the outcome of what was in flight."""
        self.last_zxid = max(self.last_zxid, exchange.last_zxid)
        self._lost_ms = self._clock.monotonic_ms()
        if self.state is State.CONNECTED:
            self.state = State.CONNECTING
        self.connected = trio.Event()
        for _, call in exchange.in_flight:
            _wake(call, f"connection lost: {self.last_failure}", ConnectionLossError)
        exchange.in_flight.clear()
        if self.state is State.CLOSED:
            self._end(self._closed_error())
        self._on_break()

    def _end(self, error: SessionExpiredError) -> None:
        """Nothing will be sent any more."""
        self.expired.set()
        self.connected.set()
        while self._unsent:
            _wake(self._unsent.popleft(), str(error), SessionExpiredError)
        self._room.unpark_all()
        self._on_break()

    def _server_name(self) -> str:
        return format_address(*self.server) if self.server else "server"


def _reason(error: BaseException) -> str:
    """What went wrong in words; a host with several addresses has failed in as many ways, one will do."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return (isinstance(cause, OSError) and cause.strerror) or str(cause) or "no answer"


def _answer(reply: Reply) -> None:
    task = reply.call.waiter
    if task is not None:
        reply.call.waiter = None
        trio.lowlevel.reschedule(task, outcome.Value((reply.err, reply.body)))


def _wake(call: Call, text: str, kind: type[CoordError]) -> None:
    """Fails a call; each waiter gets an exception of its own, as raising changes it."""
    task = call.waiter
    if task is not None:
        call.waiter = None
        trio.lowlevel.reschedule(task, outcome.Error(kind(text)))


async def _receive_frame(stream: trio.abc.Stream) -> tuple[bytes, bytes]:
    """The first frame of a connection, and what has come behind it.

    Raises:
        ProtocolError: the server closed the connection (it does not serve now), or what it sent is no frame.
    """
    buffer = b""
    while len(buffer) < 4 or len(buffer) < 4 + _LENGTH.unpack_from(buffer)[0]:
        if len(buffer) >= 4 and _LENGTH.unpack_from(buffer)[0] > CONNECT_RESPONSE_BYTES_MAX:
            raise ProtocolError(f"expected a ConnectResponse, got something that begins with {buffer[:4]!r}")
        data = await stream.receive_some(CONNECT_RESPONSE_BYTES_MAX)
        if not data:
            raise ProtocolError("the server closed the connection: it is not in service")
        buffer += data
    end = 4 + max(0, _LENGTH.unpack_from(buffer)[0])
    return buffer[4:end], buffer[end:]
