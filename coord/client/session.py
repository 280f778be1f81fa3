"""A client's session: one connection at a time, re-attached to the next server when it is lost.

The tasks here wait; they decide nothing about the tree. `Session.run` connects, shakes hands and serves one
connection until it breaks, then fails what was in flight (its outcome is unknown), keeps what was not yet
sent, and connects to the next server. Each connection begins with what the server has to know first: our
credentials, then our watches. It ends when the session has expired or was closed.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Protocol

import trio

from coord import eventlog
from coord.client.calls import Call, Event, Exchange, Reply
from coord.client.dial import Dial
from coord.client.handshake import Granted, Login, encode_connect, log_in, receive_granted
from coord.client.hosts import format_address
from coord.client.probing import find_writable
from coord.client.requests import Requests, answer, wait_answer, wake
from coord.client.servers import Address, ServerList
from coord.client.states import OVER, SERVED, Standing, State
from coord.clock import Clock
from coord.errors import (
    AuthFailedError,
    ConnectionLossError,
    CoordError,
    NotConnectedError,
    ProtocolError,
    SessionExpiredError,
)
from coord.protocol import opcodes

READ_BYTES = 256 * 1024
#: Bytes of requests that one send may carry.
SEND_BYTES_MAX = 1024 * 1024
#: After every server has refused once: wait from the first to the second, doubling, with jitter.
BACKOFF_MS = (20, 1000)
CONNECT_TIMEOUT_MS = (250, 5000)
#: How long closing may take: with a connection, and between two of them.
CLOSE_DEADLINE_S = 2.0
CLOSE_DEADLINE_AWAY_S = 1.0
NO_IDENTITY = (0, bytes(16))

#: Requests whose answers the session itself has to see.
_SPECIAL = frozenset({opcodes.CLOSE_SESSION, opcodes.AUTH})

log = eventlog.get("coord.client")


class Watches(Protocol):
    """What the session needs of the client's watches."""

    def on_event(self, body: bytes, zxid: int) -> None:
        """An event as it came; a ProtocolError of it ends the connection."""
        ...

    def on_break(self) -> None:
        """A connection was lost, and its requests were failed."""
        ...

    def wake_all(self) -> None:
        """The session is over, or what was set may not be."""
        ...

    def take_up(self, last_zxid: int) -> Iterator[tuple[int, bytes]]:
        """Requests that set all watches again, on a new connection."""
        ...


class Session:
    """The session's identity, the requests waiting for a connection, and the loop that keeps one.

    Args:
        servers: the servers to be tried.
        timeout_ms: the session timeout to ask for; `timeout_ms` then holds the one granted.
        identity: (session id, password) of a session to re-attach to; (0, zeroes) asks for a new one.
        read_only: whether a server without a quorum will do.
        make_login: makes the SASL login for a connection; None where there is none.
        dial: opens a stream to a server.
    """

    def __init__(
        self,
        servers: ServerList,
        timeout_ms: int,
        identity: tuple[int, bytes],
        *,
        read_only: bool = False,
        make_login: Callable[[], Login] | None = None,
        clock: Clock,
        rng: random.Random,
        dial: Dial,
        watches: Watches,
    ) -> None:
        self.session_id, self.password = identity
        self.timeout_ms = timeout_ms
        self.standing = Standing()
        self.expired = trio.Event()
        self.server: Address | None = None
        self._last_zxid = 0
        self.last_failure = "no server was tried yet"
        self.connections = 0
        self.requests_sent = 0
        self.servers = servers
        self._identity = identity
        self._read_only = read_only
        self._make_login = make_login
        self._clock = clock
        self._rng = rng
        self._dial = dial
        self._watches = watches
        self._credentials: list[Call] = []
        self._requests = Requests(self._over)
        self._serving: tuple[Exchange, trio.CancelScope] | None = None
        self._leaving = False
        #: Watches are set again relative to this state: the newest seen while all of them were set.
        self._watched_zxid = 0
        #: setWatches requests that are not answered, and one more while not all are sent.
        self._unset = 0
        self._heard_ms = 0
        self._sent_ms = 0
        self._lost_ms = clock.monotonic_ms()
        self._confirmed = False

    @property
    def last_zxid(self) -> int:
        """The newest state that a server has shown."""
        return self._serving[0].last_zxid if self._serving is not None else self._last_zxid

    @property
    def state(self) -> State:
        return self.standing.state

    # What callers use.

    async def call(self, op: int, body: bytes, sync: bytes | None = None) -> tuple[int, bytes]:
        """Sends one request and returns (error code, reply body).

        Cancelled while waiting, the request may still be carried out.

        Args:
            sync: the body of a sync to go right before it: the reply then shows all that was written before.

        Raises:
            ConnectionLossError: the connection broke after the request was sent: outcome unknown.
            NotConnectedError: no server was reached for a whole session timeout; the request was not sent.
            SessionExpiredError: the session is over.
            AuthFailedError: a server rejected our credentials.
        """
        return await self._requests.call(op, body, sync)

    def post(self, op: int, body: bytes) -> None:
        """Sends one request whose reply nobody waits for; without a connection it is dropped."""
        if self.state in SERVED:
            self._requests.put(Call(op, body, None))

    async def add_credentials(self, body: bytes) -> None:
        """Shows credentials (an AuthPacket) to this server, and to each that the session moves to.

        Cancelled, they are shown all the same.

        Raises:
            AuthFailedError: a server rejected them; the session is over.
            NotConnectedError: no server was reached for a whole session timeout; the next will be shown them.
            SessionExpiredError: the session is over.
        """
        self.check_alive()
        call = self._credentials_of(body)
        call.waiter = trio.lowlevel.current_task()
        if self._serving is not None:
            self._requests.put(call)
        await wait_answer(call)

    def begin_with(self, body: bytes) -> None:
        """Credentials (an AuthPacket) to be shown from the first connection on."""
        self._credentials_of(body)

    def _credentials_of(self, body: bytes) -> Call:
        """Credentials as they are shown to each server; the same ones again are no more than once."""
        for call in self._credentials:
            if call.body == body and call.waiter is None:
                return call
        call = Call(opcodes.AUTH, body, None)
        self._credentials.append(call)
        return call

    def leave(self, reason: str) -> None:
        """Leaves the present server for the next one as soon as what is in flight has been answered."""
        if self._serving is not None:
            self.last_failure = reason
            self._leaving = True
            self._leave_when_answered()

    async def close(self) -> bool:
        """Closes the session; it is over for this client in any case.

        Between two connections it waits for the next, so that the session's ephemerals go now and not with
        its timeout.

        Returns:
            Whether a server has confirmed that the session is over.
        """
        if self.state in OVER:
            return self._confirmed
        deadline_s = CLOSE_DEADLINE_S if self.state in SERVED else CLOSE_DEADLINE_AWAY_S
        if self.session_id != 0:
            with (
                trio.move_on_after(deadline_s),
                contextlib.suppress(SessionExpiredError, NotConnectedError, AuthFailedError),
            ):
                while not self._confirmed:
                    with contextlib.suppress(ConnectionLossError):
                        await self.call(opcodes.CLOSE_SESSION, b"")
                        break
        self.standing.become(State.CLOSED)
        self._end()
        return self._confirmed

    def check_alive(self) -> None:
        """Raises what a request would, where the session is over."""
        error = self._over()
        if error is not None:
            raise error

    def _why_over(self) -> CoordError:
        error = self._over()
        assert error is not None
        return error

    def _over(self) -> CoordError | None:
        """Why nothing can be sent any more; None while the session lives."""
        match self.state:
            case State.EXPIRED:
                return SessionExpiredError(f"session 0x{self.session_id:x} has expired")
            case State.CLOSED:
                return SessionExpiredError(f"session 0x{self.session_id:x} was closed")
            case State.AUTH_FAILED:
                return AuthFailedError(self.last_failure)
        return None

    # The loop.

    async def run(self) -> None:
        """Keeps a connection until the session has expired or was closed.

        Every server is tried once without a pause, also behind a connection that broke; a server that takes
        us and leaves before it has answered anything counts as one that refused.
        """
        refusals = 0
        while self.state not in OVER:
            address = self.servers.next()
            attached = await self._attach(address)
            if attached is not None and await self._serve(*attached):
                refusals = 0
                continue
            if attached is None:
                self._fail_unsent_when_late()
            refusals += 1
            count = len(self.servers)
            if refusals % count == 0 and self.state not in OVER:
                low, high = BACKOFF_MS
                delay = min(high, low * 2 ** min(refusals // count - 1, 10))
                await trio.sleep(delay * self._rng.uniform(0.5, 1.0) / 1000)

    def _fail_unsent_when_late(self) -> None:
        """Without any server for a whole session timeout, waiting callers are told; nothing of theirs was
        sent."""
        if self._clock.monotonic_ms() - self._lost_ms < self.timeout_ms:
            return
        text = f"no server could be reached: {self.last_failure}"
        self._requests.fail_unsent(lambda: NotConnectedError(text))
        for call in self._credentials:
            wake(call, NotConnectedError(text))

    async def _attach(self, address: Address) -> tuple[trio.abc.Stream, bytes] | None:
        """Connects, shakes hands and logs in.

        Returns:
            The stream and what came behind the answer, or None if that server does not serve us (or the
            session is over).
        """
        low, high = CONNECT_TIMEOUT_MS
        patience_ms = min(high, max(low, self.timeout_ms // max(1, len(self.servers))))
        stream: trio.abc.Stream | None = None
        attached = False
        rest = b""
        try:
            with trio.fail_after(patience_ms / 1000):
                stream = await self._dial(*address)
                await stream.send_all(
                    encode_connect(
                        self._last_zxid, self.timeout_ms, self._identity, read_only=self._read_only
                    )
                )
                granted, rest = await receive_granted(stream)
                if self._make_login is not None and granted.timeout_ms > 0:
                    rest = await log_in(stream, self._make_login(), rest)
            self._accept(address, granted)
            attached = self.state in SERVED
        except AuthFailedError as error:
            self.last_failure = f"{format_address(*address)}: {error}"
            self.standing.become(State.AUTH_FAILED)
            self._end()
        except (OSError, UnicodeError, trio.TooSlowError, trio.BrokenResourceError, ProtocolError) as error:
            self.last_failure = f"{format_address(*address)}: {_reason(error)}"
        finally:
            if stream is not None and not attached:
                await trio.aclose_forcefully(stream)
        return (stream, rest) if attached and stream is not None else None

    def _accept(self, address: Address, granted: Granted) -> None:
        """Takes over what the server granted, or learns that the session has expired."""
        if self.state in OVER:
            return
        if granted.timeout_ms <= 0:
            self._confirmed = True
            self.standing.become(State.EXPIRED)
            self._end()
            return
        self.session_id, self.password = granted.session_id, granted.password
        self.timeout_ms = granted.timeout_ms
        if not granted.read_only:
            # A session that a server without a quorum made is known to that server alone (spec 14.4).
            self._identity = (granted.session_id, granted.password)
        self.server = address
        self.connections += 1
        self.servers.on_connected(address)
        self.standing.become(State.READ_ONLY if granted.read_only else State.CONNECTED)

    async def _serve(self, stream: trio.abc.Stream, rest: bytes) -> bool:
        """Runs one connection until it breaks, then settles what it owed.

        Returns:
            Whether the server has said anything.
        """
        exchange = Exchange(self._last_zxid)
        first = self._preamble()
        self._heard_ms = self._sent_ms = self._clock.monotonic_ms()
        self._leaving = False
        try:
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                self._serving = (exchange, scope)
                nursery.start_soon(self._read, stream, rest, exchange, scope)
                nursery.start_soon(self._write, stream, exchange, scope, first)
                nursery.start_soon(self._watch_silence, scope)
                if self.state is State.READ_ONLY:
                    nursery.start_soon(self._seek_quorum)
        finally:
            self._serving = None
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            self._settle(exchange)
        return exchange.heard

    def _preamble(self) -> Iterator[Call]:
        """What a connection begins with: credentials, without which nothing may be read, then watches."""
        credentials = list(self._credentials)
        watches = self._watches.take_up(self._watched_zxid)
        self._unset = 1

        def generate() -> Iterator[Call]:
            yield from credentials
            for op, body in watches:
                self._unset += 1
                yield Call(op, body, None)
            self._unset -= 1

        return generate()

    async def _read(
        self, stream: trio.abc.Stream, data: bytes | bytearray, exchange: Exchange, scope: trio.CancelScope
    ) -> None:
        """Takes in what the server says, beginning with `data`."""
        try:
            while True:
                for item in exchange.receive(data):
                    if isinstance(item, Event):
                        self._watches.on_event(item.body, item.zxid)
                    elif item.call.waiter is None or item.call.op in _SPECIAL:
                        self._on_special(item)
                    else:
                        answer(item.call, item.err, item.body)
                if self.state in OVER:
                    break
                if self._leaving:
                    self._leave_when_answered()
                data = await stream.receive_some(READ_BYTES)
                if not data:
                    break
                self._heard_ms = self._clock.monotonic_ms()
            if not self._leaving and self.state not in OVER:
                self.last_failure = f"{self._server_name()} closed the connection"
        except (OSError, trio.BrokenResourceError, ProtocolError) as error:
            self.last_failure = f"{self._server_name()}: {error}"
        scope.cancel()

    def _on_special(self, reply: Reply) -> None:
        """An answer that is the session's business, or that nobody waits for."""
        call = reply.call
        match call.op:
            case opcodes.CLOSE_SESSION if reply.err == 0:
                self._confirmed = True
                self.standing.become(State.CLOSED)
            case opcodes.AUTH if reply.err:
                self.last_failure = f"{self._server_name()} rejected our credentials"
                self.standing.become(State.AUTH_FAILED)
                self._end()
            case opcodes.SET_WATCHES | opcodes.SET_WATCHES2:
                self._unset -= 1
                if reply.err:
                    log.warning("a server refused to set watches again", error=reply.err)
                    self._watches.wake_all()
            case opcodes.SYNC if reply.err and call.guarded is not None:
                answer(call.guarded, reply.err, b"")
        answer(call, reply.err, reply.body)

    def _leave_when_answered(self) -> None:
        if self._serving is not None and not self._serving[0].in_flight:
            self._serving[1].cancel()

    async def _write(
        self, stream: trio.abc.Stream, exchange: Exchange, scope: trio.CancelScope, first: Iterator[Call]
    ) -> None:
        requests = self._requests
        try:
            for call in first:
                self.requests_sent += 1
                self._sent_ms = self._clock.monotonic_ms()
                await stream.send_all(exchange.encode(call))
            while True:
                while not requests.unsent or self._leaving:
                    requests.work = trio.Event()
                    await requests.work.wait()
                parts: list[bytes] = []
                size = 0
                while requests.unsent and size < SEND_BYTES_MAX:
                    parts.append(exchange.encode(requests.unsent.popleft()))
                    size += len(parts[-1])
                self.requests_sent += len(parts)
                self._sent_ms = self._clock.monotonic_ms()
                await stream.send_all(b"".join(parts))
        except (OSError, trio.BrokenResourceError) as error:
            if not self._leaving:
                self.last_failure = f"{self._server_name()}: {error}"
        scope.cancel()

    async def _seek_quorum(self) -> None:
        """At a server without a quorum: goes to the first that has one."""
        assert self.server is not None
        address = await find_writable(self._dial, self.servers, self.server, self._rng)
        self.servers.prefer(address)
        self.leave(f"left for {format_address(*address)}, which has a quorum")

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
                self._requests.put(Call(opcodes.PING, b"", None))
                self._sent_ms = now
            due = min(self._sent_ms + third_ms, self._heard_ms + 2 * third_ms)
            await trio.sleep(max(1, due - now) / 1000)
        scope.cancel()

    def _settle(self, exchange: Exchange) -> None:
        """The connection is gone: nobody can know the outcome of what was in flight."""
        self._last_zxid = max(self._last_zxid, exchange.last_zxid)
        if self._unset == 0:
            self._watched_zxid = self._last_zxid
        self._lost_ms = self._clock.monotonic_ms()
        self.standing.become(State.SUSPENDED)
        for _, call in exchange.in_flight:
            wake(call, ConnectionLossError(f"connection lost: {self.last_failure}"))
        exchange.in_flight.clear()
        self._requests.on_break()
        if self.state in OVER:
            self._end()
        self._watches.on_break()

    def _end(self) -> None:
        """Nothing will be sent any more."""
        self.expired.set()
        self._requests.fail_unsent(self._why_over)
        for call in self._credentials:
            wake(call, self._why_over())
        self._watches.wake_all()

    def _server_name(self) -> str:
        return format_address(*self.server) if self.server else "server"


def _reason(error: BaseException) -> str:
    """What went wrong in words; a host with several addresses has failed in as many ways, one will do."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return (isinstance(cause, OSError) and cause.strerror) or str(cause) or "no answer"
