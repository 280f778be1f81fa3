"""Listeners: every connection of a server in one epoll, owned by one trio task.

Python pays per wake-up, not per byte. A server of ours therefore works in ticks: one wake-up of one trio task
takes what all readable connections have, hands each piece to a synchronous `Service`, runs the callbacks of
helper threads that reported, and then sends each connection what it is owed, in one send. Nothing in a tick
waits.

A tick, in order:

1. every ready connection: `service.on_bytes(conn, data)`, at most one read each (the epoll is
   level-triggered, what is left comes next tick);
2. `service.on_open` for accepted connections; TLS handshakes, at most `HANDSHAKE_MS_PER_TICK` of them;
3. callbacks of wake-ups that were set;
4. `service.on_tick_end()` of every service;
5. one send for every connection that is owed something; `service.on_close` for connections that ended (with
   another `on_tick_end` if there were any); closed descriptors go back to the kernel.

A descriptor is closed only at the very end of a tick, so its number cannot come back as another connection
while events of the same poll are being worked on; `Connection.generation` tells connections apart for good.

Code outside a tick (another trio task) may send, pause and close as well, and calls `Reactor.flush()`
afterwards.
"""

from coord.reactor.connection import CLOSED_BY_PEER, OUTPUT_BYTES_MAX, READ_BYTES_MAX, Connection, Service
from coord.reactor.host import run_hosted
from coord.reactor.loop import CONNECTIONS_MAX, Reactor, ReactorStatistics
from coord.reactor.wakeup import Wakeup

__all__ = [
    "CLOSED_BY_PEER",
    "CONNECTIONS_MAX",
    "OUTPUT_BYTES_MAX",
    "READ_BYTES_MAX",
    "Connection",
    "Reactor",
    "ReactorStatistics",
    "Service",
    "Wakeup",
    "run_hosted",
]
