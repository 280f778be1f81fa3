"""The reactor: the epoll, its one task, and the order of a tick (see the package's docstring)."""

import errno
import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from select import EPOLLIN

import trio

from coord import eventlog
from coord.clock import SYSTEM_CLOCK, Clock
from coord.reactor.connection import (
    OUTPUT_BYTES_MAX,
    READ_BYTES_MAX,
    Address,
    Connection,
    Service,
    plain_address,
)
from coord.reactor.handshakes import HANDSHAKE_MS_MAX, HANDSHAKES_MAX, Handshakes
from coord.reactor.host import current_host
from coord.reactor.peek import PeekedConnection
from coord.reactor.secure import TLS_HANDSHAKE, PlainName, SecureConnection
from coord.reactor.wakeup import Wakeup

CONNECTIONS_MAX = 10_000
"""Connections at once, those that are being closed included; one more is accepted and closed."""

BACKLOG = 1024
"""Connections the kernel holds for us until we accept them."""

EVENTS_PER_TICK_MAX = 1024
ACCEPTS_PER_TICK_MAX = 64

FLUSH_MS_MAX = 5_000
"""Time a closed connection has to take what it is owed and to end."""

STOP_MS_MAX = 1_000
"""The same when the reactor stops."""

HOUSEKEEPING_MS = 250

_OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

log = eventlog.get("coord.reactor")


@dataclass(frozen=True, slots=True)
class ReactorStatistics:
    """What the reactor has done since it began."""

    ticks: int
    events: int
    connections: int
    accepted: int
    refused: int
    handshakes: int
    handshakes_waiting: int
    handshakes_failed: int
    handshakes_exceeded: int
    bytes_in: int
    bytes_out: int
    pending_output: int


TlsContext = ssl.SSLContext | Callable[[], ssl.SSLContext]
"""What a TLS port presents; a function is asked for each connection, so that certificates can be renewed."""


class _Listener:
    __slots__ = ("_on_due", "allows_plain", "context", "fd", "name_plain", "service", "socket")

    def __init__(
        self,
        bound: socket.socket,
        service: Service,
        context: Callable[[], ssl.SSLContext] | None,
        allows_plain: bool,
        name_plain: PlainName,
        on_due: Callable[["_Listener"], None],
    ) -> None:
        self.socket = bound
        self.fd = bound.fileno()
        self.service = service
        self.context = context
        self.allows_plain = allows_plain
        self.name_plain = name_plain
        self._on_due = on_due

    def on_event(self, mask: int) -> None:
        self._on_due(self)


class Reactor:
    """All listeners of one server. Made, given listeners and wake-ups, and run by one trio task.

    Args:
        clock: for ages and time limits.
        read_bytes_max: bytes taken from one connection in one tick.
        output_bytes_max: bytes one connection may be owed; it is closed past that.
        connections_max: connections at once.
        handshakes_max: TLS handshakes at once, in `handshake_ms_max` each.
        handshakes_per_host_max: the same for each host; 0 is no limit of its own.
    """

    def __init__(
        self,
        clock: Clock = SYSTEM_CLOCK,
        *,
        read_bytes_max: int = READ_BYTES_MAX,
        output_bytes_max: int = OUTPUT_BYTES_MAX,
        connections_max: int = CONNECTIONS_MAX,
        handshakes_max: int = HANDSHAKES_MAX,
        handshakes_per_host_max: int = 0,
        handshake_ms_max: int = HANDSHAKE_MS_MAX,
    ) -> None:
        self.clock = clock
        self.handshakes = Handshakes(clock, handshakes_max, handshakes_per_host_max, handshake_ms_max)
        self.peek_ms_max = handshake_ms_max
        self.read_bytes_max = read_bytes_max
        self.output_bytes_max = output_bytes_max
        self.connections_max = connections_max
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._listeners: list[_Listener] = []
        self._suspended: list[_Listener] = []
        self._wakeups: list[Wakeup] = []
        self._tick_ends: list[Callable[[], None]] = []
        self._connections: dict[int, Connection] = {}
        self._closing: set[Connection] = set()
        self._peeking: dict[PeekedConnection, None] = {}
        self._postponed: list[SecureConnection] = []
        # What a tick leaves to its later steps.
        self._owing: list[Connection] = []
        self._ended: list[Connection] = []
        self._to_close: list[socket.socket] = []
        self._accepting: list[_Listener] = []
        self._due: list[Callable[[], None]] = []
        self.owe: Callable[[Connection], None] = self._owing.append
        self.on_ended: Callable[[Connection], None] = self._ended.append
        self._is_working = False
        self._is_stopping = False
        self._driving = trio.CancelScope()
        self._is_closed = False
        self._generation = 0
        self._ticks = self._events = self._accepted = self._refused = 0
        self._bytes_in = self._bytes_out = 0
        self._stop_wakeup = self.wakeup(lambda: None)

    # -- for the server ------------------------------------------------------------------------------------

    def listen(
        self,
        host: str,
        port: int,
        service: Service,
        *,
        ssl_context: TlsContext | None = None,
        allows_plain: bool = False,
        name_plain: PlainName = lambda first: "no TLS",
        backlog: int = BACKLOG,
    ) -> tuple[str, int]:
        """Accept connections for `service`, from the first tick on.

        Args:
            host: a name or address; "" for all interfaces.
            port: 0 lets the system choose.
            ssl_context: makes it a TLS port (`coord.tls.server_context`).
            allows_plain: whether a TLS port takes plain connections as well, told apart by their first byte.
            name_plain: what they speak where it does not.

        Returns:
            The bound (host, port).

        Raises:
            OSError: the address is in use, not ours, or unknown.
        """
        bound = _bind(host, port, backlog)
        context = (lambda: ssl_context) if isinstance(ssl_context, ssl.SSLContext) else ssl_context
        listener = _Listener(bound, service, context, allows_plain, name_plain, self._accepting.append)
        self._listeners.append(listener)
        self._register(listener.fd, EPOLLIN, listener.on_event)
        if service.on_tick_end not in self._tick_ends:
            self._tick_ends.append(service.on_tick_end)
        name = bound.getsockname()
        return str(name[0]), int(name[1])

    def unlisten(self, address: tuple[str, int]) -> None:
        """Accept nobody there any more; who was accepted stays. `address` is what `listen` has returned."""
        for listener in self._listeners:
            if listener.socket.getsockname()[:2] == address:
                if listener in self._suspended:
                    self._suspended.remove(listener)
                    self._handlers.pop(listener.fd, None)
                else:
                    self._unregister(listener.fd)
                if listener in self._accepting:
                    self._accepting.remove(listener)
                self._listeners.remove(listener)
                self._to_close.append(listener.socket)
                return

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Has `handler` called with the events of a descriptor that is not the reactor's own, ahead of the
        tick's end; `modify` changes the events. `unwatch` it before it is closed, and not within a tick's
        handlers other than its own.
        """
        self._register(fd, events, handler)

    def unwatch(self, fd: int) -> None:
        """After the reactor has ended this does nothing."""
        if not self._is_closed:
            self._unregister(fd)

    def wakeup(self, callback: Callable[[], None]) -> Wakeup:
        """A way for threads to have `callback` run in the next tick. It lasts as long as the reactor."""
        made = Wakeup(callback, self._due.append)
        self._wakeups.append(made)
        self._register(made.fd, EPOLLIN, made.on_event)
        return made

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`, or until cancelled. Either way everything is closed afterwards; after `stop`,
        connections had `STOP_MS_MAX` to take what they were owed."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_house)
                task_status.started()
                await self._loop()
                with trio.move_on_after(STOP_MS_MAX / 1000):
                    await self._wind_up()
                nursery.cancel_scope.cancel()
        finally:
            self.close()

    def stop(self) -> None:
        """Have `run` return. Safe from any thread."""
        self._is_stopping = True
        self._stop_wakeup.set()

    def flush(self) -> None:
        """Send what connections are owed, now. For code outside a tick; within one it does nothing, as the
        tick's end does it."""
        if not self._is_working:
            self._is_working = True
            self._settle()
            self._is_working = False

    def fileno(self) -> int:
        """The epoll's descriptor: readable when `tick` has something to do."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Drop everything, services are not told. `run` does it; only a reactor that never ran needs it."""
        if self._is_closed:
            return
        self._is_closed = True
        for conn in list(self._connections.values()):
            conn.abandon()
        for peeked in list(self._peeking):
            self._drop_peeked(peeked)
        for listener in self._listeners:
            listener.socket.close()
        for wakeup in self._wakeups:
            wakeup.close()
        self._close_sockets()
        self._handlers.clear()
        self._tick_ends.clear()
        self._epoll.close()

    def statistics(self) -> ReactorStatistics:
        live = self._connections.values()
        return ReactorStatistics(
            ticks=self._ticks,
            events=self._events,
            connections=len(self._connections),
            accepted=self._accepted,
            refused=self._refused,
            handshakes=self.handshakes.done,
            handshakes_waiting=len(self.handshakes),
            handshakes_failed=self.handshakes.failed,
            handshakes_exceeded=self.handshakes.exceeded,
            bytes_in=self._bytes_in + sum(conn.bytes_in for conn in live),
            bytes_out=self._bytes_out + sum(conn.bytes_out for conn in live),
            pending_output=sum(conn.pending_output for conn in live),
        )

    # -- the tick ------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        host = current_host()
        if host is not None:
            with self._driving:
                await host.drive(self._epoll.fileno(), self._turn)
            return
        epoll_fd = self._epoll.fileno()
        while not self._is_stopping:
            if self._has_work_left:
                await trio.lowlevel.checkpoint()  # only let the others run
            else:
                await trio.lowlevel.wait_readable(epoll_fd)
            self.tick()

    @property
    def _has_work_left(self) -> bool:
        """Whether the next tick has something to do even when nothing is readable."""
        return bool(self.handshakes.due or self._postponed)

    def _turn(self) -> bool:
        """A tick for a host."""
        self.tick()
        if self._is_stopping:
            self._driving.cancel()
        return self._has_work_left

    def tick(self) -> None:
        """One round of all that is ready. `run` calls it; so may a test, in place of `run`."""
        self._is_working = True
        handlers = self._handlers
        due_now, self._postponed = self._postponed, []
        events = self._epoll.poll(0, EVENTS_PER_TICK_MAX)
        self._ticks += 1
        self._events += len(events)
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is not None:
                handler(mask)
        if self._accepting:
            self._accept()
        if self.handshakes.due:
            self.handshakes.go_on(self._announce_secure)
        if due_now:
            self._go_on(due_now)
        if self._due:
            for callback in self._due:
                callback()
            self._due.clear()
        for tick_end in self._tick_ends:
            tick_end()
        self._settle()
        self._is_working = False

    def drain(self) -> None:
        """Reads, once, all that is readable at this moment. For code outside a tick, after the loop stood
        still: what peers have sent meanwhile is then delivered before anything is concluded from silence.
        """
        for _ in range(len(self._handlers) // EVENTS_PER_TICK_MAX + 1):
            self.tick()

    def _settle(self) -> None:
        """Send, report what ended, and again if the reports queued something; then close descriptors."""
        owing, ended = self._owing, self._ended
        while True:
            for conn in owing:
                conn.flush()
            owing.clear()
            if not ended:
                break
            for conn in ended:
                self._bury(conn)
            ended.clear()
            for tick_end in self._tick_ends:
                tick_end()
        if self._to_close:
            self._close_sockets()

    def _bury(self, conn: Connection) -> None:
        conn.finish()
        if conn.fd in self._connections and self._connections[conn.fd] is conn:
            conn.deadline_ms = self.clock.monotonic_ms() + FLUSH_MS_MAX
            self._closing.add(conn)
        if conn.is_announced:
            try:
                conn.service.on_close(conn, conn.close_reason)
            except Exception as error:  # the boundary of one connection; it is closed already
                log.error("a connection's end failed", peer=conn.peer_address, error=error)
        conn.data = None
        conn.on_drained = None

    def _accept(self) -> None:
        now_ms = self.clock.monotonic_ms()
        for listener in self._accepting:
            for _ in range(ACCEPTS_PER_TICK_MAX):
                try:
                    accepted, address = listener.socket.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _OUT_OF_RESOURCES:
                        self._suspend(listener, error)
                        break
                    continue  # that client is gone again
                if len(self._connections) + len(self._peeking) >= self.connections_max:
                    self._refused += 1
                    accepted.close()
                    continue
                self._admit(listener, accepted, plain_address(address), now_ms)
        self._accepting.clear()

    def _admit(self, listener: _Listener, accepted: socket.socket, peer: Address, now_ms: int) -> None:
        accepted.setblocking(False)
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            accepted.close()  # it was reset between connect and accept
            return
        self._accepted += 1
        if listener.context is None:
            self._connect(listener.service, accepted, peer, now_ms)
        elif not self.handshakes.enter(peer):
            self._to_close.append(accepted)
        elif listener.allows_plain:
            self._peek(listener, listener.context, accepted, peer, now_ms)
        else:
            self._secure(listener, listener.context, accepted, peer, now_ms)

    def _connect(self, service: Service, accepted: socket.socket, peer: Address, now_ms: int) -> None:
        """A plain connection."""
        self._generation += 1
        conn = Connection(self, service, accepted, peer, self._generation, now_ms)
        self._connections[conn.fd] = conn
        self._register(conn.fd, EPOLLIN, conn.on_event)
        self._announce(conn)

    def _secure(
        self,
        listener: _Listener,
        context: Callable[[], ssl.SSLContext],
        accepted: socket.socket,
        peer: Address,
        now_ms: int,
    ) -> None:
        """A TLS connection, which its service hears of after the handshake."""
        if not self.handshakes.have_room():
            self.handshakes.leave(peer)
            self._to_close.append(accepted)
            return
        self._generation += 1
        conn = SecureConnection(
            self, listener.service, accepted, peer, self._generation, now_ms, context(), listener.name_plain
        )
        self.handshakes.begin(conn, now_ms)
        self._connections[conn.fd] = conn
        self._register(conn.fd, EPOLLIN, conn.on_event)

    def _peek(
        self,
        listener: _Listener,
        context: Callable[[], ssl.SSLContext],
        accepted: socket.socket,
        peer: Address,
        now_ms: int,
    ) -> None:
        """A connection that its first byte makes a plain or a TLS one."""

        def on_known(peeked: PeekedConnection, first: int) -> None:
            del self._peeking[peeked]
            self._unregister(accepted.fileno())
            now_ms = self.clock.monotonic_ms()
            if first == TLS_HANDSHAKE:
                self._secure(listener, context, accepted, peer, now_ms)
            else:
                self.handshakes.leave(peer)
                self._connect(listener.service, accepted, peer, now_ms)

        peeked = PeekedConnection(accepted, peer, now_ms + self.peek_ms_max, on_known, self._drop_peeked)
        self._peeking[peeked] = None
        self._register(accepted.fileno(), EPOLLIN, peeked.on_event)

    def _drop_peeked(self, peeked: PeekedConnection) -> None:
        del self._peeking[peeked]
        self.handshakes.leave(peeked.peer_address)
        self._unregister(peeked.socket.fileno())
        self._to_close.append(peeked.socket)

    def _announce(self, conn: Connection) -> None:
        conn.is_announced = True
        try:
            conn.service.on_open(conn)
        except Exception as error:  # the boundary of one connection
            self.blame(conn, error)

    def _announce_secure(self, conn: SecureConnection) -> None:
        self._announce(conn)
        try:
            conn.on_announced()
        except Exception as error:  # the boundary of one connection
            self.blame(conn, error)

    def _go_on(self, postponed: list[SecureConnection]) -> None:
        for conn in postponed:
            try:
                conn.go_on()
            except Exception as error:  # the boundary of one connection
                self.blame(conn, error)

    # -- for connections -----------------------------------------------------------------------------------

    def postpone(self, conn: SecureConnection) -> None:
        """`conn` has work for the next tick."""
        self._postponed.append(conn)

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def blame(self, conn: Connection, error: Exception) -> None:
        """The service failed on this connection's account."""
        log.error(
            "a connection failed in its service",
            do="report this with the trace",
            peer=conn.peer_address,
            error=error,
            trace=error,
        )
        conn.close(flush=False, reason=f"service failed: {type(error).__name__}")

    def on_gone(self, conn: Connection, its_socket: socket.socket) -> None:
        """Unregister at once; the descriptor is closed when the tick's events are all worked off."""
        self._unregister(conn.fd)
        self._connections.pop(conn.fd, None)
        self._closing.discard(conn)
        if isinstance(conn, SecureConnection):
            self.handshakes.on_gone(conn)
        self._bytes_in += conn.bytes_in
        self._bytes_out += conn.bytes_out
        self._to_close.append(its_socket)

    # -- the rest ------------------------------------------------------------------------------------------

    def _register(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def _unregister(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self._handlers.pop(fd, None)

    def _close_sockets(self) -> None:
        for closing in self._to_close:
            closing.close()
        self._to_close.clear()

    def _suspend(self, listener: _Listener, error: OSError) -> None:
        """Out of descriptors or memory: a backlog that stays readable must not keep us busy."""
        log.error(
            "cannot accept connections", do="raise the limit of open files", fd=listener.fd, error=error
        )
        self._epoll.unregister(listener.fd)
        self._suspended.append(listener)

    async def _keep_house(self) -> None:
        while True:
            await trio.sleep(HOUSEKEEPING_MS / 1000)
            self.keep_house()

    def keep_house(self) -> None:
        """Cut off who is late, and try again what was out of resources. `run` does it four times a second."""
        now_ms = self.clock.monotonic_ms()
        for conn in [conn for conn in self._closing if conn.deadline_ms <= now_ms]:
            conn.abandon()
        self.handshakes.end_late(now_ms)
        for peeked in list(self._peeking):
            if peeked.deadline_ms > now_ms:
                break
            self._drop_peeked(peeked)
        for listener in self._suspended:
            self._epoll.register(listener.fd, EPOLLIN)
        self._suspended.clear()
        self.flush()

    async def _wind_up(self) -> None:
        for listener in self._listeners:
            if listener not in self._suspended:
                self._epoll.unregister(listener.fd)
            self._handlers.pop(listener.fd, None)
        self._suspended.clear()
        self._listeners, closed = [], self._listeners
        for listener in closed:
            listener.socket.close()
        for peeked in list(self._peeking):
            self._drop_peeked(peeked)
        for conn in list(self._connections.values()):
            conn.close(reason="server stops")
        self.flush()
        while self._connections:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self.tick()


def _bind(host: str, port: int, backlog: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        bound = socket.create_server(("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
    else:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.create_server(address[:2], family=family, backlog=backlog)
    bound.setblocking(False)
    return bound
