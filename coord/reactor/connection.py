"""One accepted connection: what it has read, what it is owed, and how it ends.

The life of a connection (`_state`)::

    OPEN ──close()──► FLUSHING ──output gone──► FINISHED ──peer's end, or time──► GONE
      └──error, HUP, reset, output over the limit, close(flush=False)───────────►──┘

* OPEN: bytes go to the service. EPOLLIN unless paused; EPOLLOUT only while the socket did not take
  everything.
* FLUSHING: the service is done with it (`on_close` has been or is about to be called); what it had queued is
  sent.
* FINISHED: our FIN is sent and what the peer still sends is read and dropped: closing a socket with unread
  bytes sends a reset, which can destroy a last reply on its way.
* GONE: out of the epoll at once, descriptor closed at the end of the tick.

FLUSHING and FINISHED are bounded in time by the reactor's housekeeping.
"""

import os
import socket
from collections.abc import Callable, Sequence
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from coord.reactor.loop import Reactor

READ_BYTES_MAX = 256 * 1024
"""Bytes taken from one connection in one tick."""

OUTPUT_BYTES_MAX = 64 * 1024 * 1024
"""Bytes a connection may be owed before it is given up."""

DISCARD_BYTES_MAX = 16 * 1024 * 1024
"""Bytes read and dropped behind our FIN before the peer is cut off."""

CLOSED_BY_PEER = "closed by peer"
"""The reason that `on_close` is told where the peer has ended the connection."""

OPEN, FLUSHING, FINISHED, GONE = range(4)

_TROUBLE = EPOLLERR | EPOLLHUP

Address = tuple[str, int] | str
Bytes = bytes | bytearray | memoryview


class Service(Protocol):
    """What a listener does. All calls are synchronous and come from the reactor's task.

    An exception out of `on_open`, `on_bytes` or `on_close` costs that connection; one out of `on_tick_end` or
    of a wake-up's callback ends the reactor.
    """

    def on_open(self, conn: "Connection") -> None:
        """A connection was accepted (and its TLS handshake is done). It may be refused with `conn.close`."""

    def on_bytes(self, conn: "Connection", data: bytes) -> None:
        """`data` was read: what there was, cut anywhere. Keep a partial frame in `conn.data`."""

    def on_close(self, conn: "Connection", reason: str) -> None:
        """The connection ended, or `conn.close` was called. Comes once for each `on_open`, never from within
        a call of ours on the connection; `conn.data` is dropped right after it."""

    def on_tick_end(self) -> None:
        """Everything readable was delivered. What is queued here still leaves in this tick's sends."""


class Connection:
    """A plain connection. The service owns the slots `data` and `on_drained`; all else is read-only to it."""

    __slots__ = (
        "_deliver",
        "_events",
        "_head",
        "_output_max",
        "_owe",
        "_parts",
        "_paused",
        "_reactor",
        "_read_max",
        "_receive",
        "_send",
        "_socket",
        "_state",
        "bytes_in",
        "bytes_out",
        "close_reason",
        "data",
        "deadline_ms",
        "discarded_bytes",
        "fd",
        "generation",
        "is_announced",
        "local_address",
        "on_drained",
        "opened_ms",
        "peer_address",
        "pending_output",
        "service",
    )

    def __init__(
        self,
        reactor: "Reactor",
        service: Service,
        accepted: socket.socket,
        peer_address: Address,
        generation: int,
        opened_ms: int,
    ) -> None:
        self.fd = accepted.fileno()
        self.generation = generation
        self.service = service
        self.peer_address: Address = peer_address
        self.local_address: Address = plain_address(accepted.getsockname())
        self.opened_ms = opened_ms
        self.bytes_in = 0
        self.bytes_out = 0
        self.pending_output = 0
        """Bytes queued and not yet taken by the kernel."""
        self.data: Any = None
        """The service's own; dropped after `on_close`, so that no cycle through it outlives the
        connection."""
        self.on_drained: Callable[[Connection], None] | None = None
        """Called when everything queued is sent, if the kernel had refused some of it or reading is
        paused."""
        self.close_reason = ""
        self.deadline_ms = 0
        self.discarded_bytes = 0
        self.is_announced = False
        self._reactor = reactor
        self._socket = accepted
        self._receive = accepted.recv
        self._send = accepted.send
        self._deliver = service.on_bytes
        self._read_max = reactor.read_bytes_max
        self._output_max = reactor.output_bytes_max
        self._owe = reactor.owe
        self._parts: list[Bytes] = []
        self._head: memoryview | None = None
        self._events = EPOLLIN
        self._paused = False
        self._state = OPEN

    @property
    def is_open(self) -> bool:
        return self._state == OPEN

    @property
    def is_secure(self) -> bool:
        return False

    @property
    def peer_certificate(self) -> bytes | None:
        """The verified certificate that the peer has shown, in DER."""
        return None

    # -- for the service -----------------------------------------------------------------------------------

    def send(self, data: Bytes) -> None:
        """Queue `data`; it leaves with the tick's one send. Do not change it afterwards. Ignored once
        closed."""
        if self._state:
            return
        parts = self._parts
        if not parts and self._head is None:
            self._owe(self)
        parts.append(data)
        pending = self.pending_output = self.pending_output + len(data)
        if pending > self._output_max:
            self.close(flush=False, reason=f"output over {self._output_max} bytes")

    def send_parts(self, parts: Sequence[Bytes]) -> None:
        """`send` for each of `parts`, cheaper."""
        if self._state:
            return
        queued = self._parts
        if not queued and self._head is None:
            self._owe(self)
        queued.extend(parts)
        pending = self.pending_output = self.pending_output + sum(map(len, parts))
        if pending > self._output_max:
            self.close(flush=False, reason=f"output over {self._output_max} bytes")

    def pause(self) -> None:
        """Read nothing more until `resume`; the kernel's buffers and then the peer's will fill."""
        if not self._paused and self._state == OPEN:
            self._paused = True
            self._watch(self._events & ~EPOLLIN)

    def resume(self) -> None:
        if self._paused and self._state == OPEN:
            self._paused = False
            self._watch(self._events | EPOLLIN)

    def read_at_most(self, count: int) -> None:
        """Take no more than so many bytes in one tick, from now on."""
        self._read_max = min(self._read_max, count)

    @property
    def is_paused(self) -> bool:
        return self._paused

    def close(self, *, flush: bool = True, reason: str = "") -> None:
        """End the connection; `on_close` follows at the end of this tick (or of `Reactor.flush`).

        Args:
            flush: send what is queued first, then FIN. Else drop it.
            reason: for `on_close` and the logs.
        """
        if self._state:
            return
        self._state = FLUSHING
        self.close_reason = reason or "closed by us"
        self._reactor.on_ended(self)
        if not flush:
            self._leave()

    # -- for the reactor -----------------------------------------------------------------------------------

    def on_event(self, mask: int) -> None:
        """The epoll's word, for this fd. This is the hot path: one read, and the service."""
        if (self._state or mask != EPOLLIN) and not self._on_rare_event(mask):
            return
        try:
            data = self._receive(self._read_max)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"read failed: {error.strerror}")
            return
        if not data:
            self.close(flush=self.pending_output > 0, reason=CLOSED_BY_PEER)
            return
        self.bytes_in += len(data)
        try:
            self._deliver(self, data)
        except Exception as error:  # the boundary: whatever one peer's bytes do must not cost the others
            self._reactor.blame(self, error)

    def _on_rare_event(self, mask: int) -> bool:
        """All but "readable" alone. Returns whether to read as well."""
        if self._state:
            self._on_event_closing(mask)
            return False
        if mask & _TROUBLE:
            self._lose(self._socket_error())
            return False
        if mask & EPOLLOUT:
            self.flush()
        return mask & EPOLLIN != 0 and self._state == OPEN

    def flush(self) -> None:
        """One send of everything owed; what the kernel does not take waits for EPOLLOUT."""
        chunk: Bytes | None = self._head
        if chunk is None:
            parts = self._parts
            if not parts:
                return
            chunk = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        try:
            sent = self._send(chunk)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(f"write failed: {error.strerror}")
            return
        self.bytes_out += sent
        self.pending_output -= sent
        if sent < len(chunk):
            self._head = memoryview(chunk)[sent:]
            if not self._events & EPOLLOUT:
                self._watch(self._events | EPOLLOUT)
            return
        self._head = None
        if self._events != EPOLLIN:
            self._on_drained()

    def _on_drained(self) -> None:
        """All that was in the last chunk is sent: go on with what was queued since, or tell the service."""
        if self._parts:
            self.flush()
            return
        self._watch(self._events & ~EPOLLOUT)
        if self._state == OPEN and self.on_drained is not None:
            try:
                self.on_drained(self)
            except Exception as error:  # the same boundary as in on_event
                self._reactor.blame(self, error)

    def finish(self) -> None:
        """Once FLUSHING has nothing left: send FIN and read the peer's rest away."""
        if self._state != FLUSHING or self.pending_output:
            return
        self._state = FINISHED
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._leave()  # the peer is gone already: nobody is left to wait for
            return
        self._watch(EPOLLIN)

    def _on_event_closing(self, mask: int) -> None:
        if self._state == GONE:
            return
        if mask & _TROUBLE:
            self._leave()
            return
        if mask & EPOLLOUT:
            self.flush()
            self.finish()
        if mask & EPOLLIN and self._state != GONE:
            self._discard()

    def _discard(self) -> None:
        try:
            data = self._receive(self._read_max)
        except BlockingIOError:
            return
        except OSError:
            self._leave()
            return
        self.discarded_bytes += len(data)
        if not data and self._state == FLUSHING:
            self._watch(self._events & ~EPOLLIN)  # an end of input stays readable for ever
        elif not data or self.discarded_bytes > DISCARD_BYTES_MAX:
            self._leave()

    def _lose(self, reason: str) -> None:
        """The connection is broken: nothing more can be sent or read."""
        self.close(flush=False, reason=reason)
        self._leave()

    def _leave(self) -> None:
        """Out of the epoll, at once: a reset socket left in it would wake us a million times a second."""
        if self._state == GONE:
            return
        self._state = GONE
        self._parts.clear()
        self._head = None
        self.pending_output = 0
        self._reactor.on_gone(self, self._socket)

    def abandon(self) -> None:
        """For housekeeping: time is up."""
        self._leave()

    def _watch(self, events: int) -> None:
        if events != self._events and self._state != GONE:
            self._events = events
            self._reactor.modify(self.fd, events)

    def _socket_error(self) -> str:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return f"lost: {os.strerror(code)}" if code else CLOSED_BY_PEER


def plain_address(address: Any) -> Address:
    """(host, port) of whatever the socket module calls an address."""
    if isinstance(address, tuple):
        return (str(address[0]), int(address[1]))
    return str(address)
