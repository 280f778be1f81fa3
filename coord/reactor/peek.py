"""A connection whose first byte decides what it is: 0x16 begins a TLS handshake, anything else is plain.

It is looked at without being taken, so that whatever the connection becomes reads it again; until it comes
the service does not know of the connection, and its time is limited like a handshake's.
"""

import socket
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP

from coord.reactor.connection import Address


class PeekedConnection:
    """An accepted connection that has not sent anything yet.

    Args:
        on_known: takes the first byte.
        on_lost: the peer has gone, or broken the connection.
    """

    __slots__ = ("_on_known", "_on_lost", "deadline_ms", "peer_address", "socket")

    def __init__(
        self,
        accepted: socket.socket,
        peer_address: Address,
        deadline_ms: int,
        on_known: Callable[["PeekedConnection", int], None],
        on_lost: Callable[["PeekedConnection"], None],
    ) -> None:
        self.socket = accepted
        self.peer_address = peer_address
        self.deadline_ms = deadline_ms
        self._on_known = on_known
        self._on_lost = on_lost

    def on_event(self, mask: int) -> None:
        """The epoll's word."""
        try:
            first = b"" if mask & (EPOLLERR | EPOLLHUP) else self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            first = b""
        if first:
            self._on_known(self, first[0])
        else:
            self._on_lost(self)
