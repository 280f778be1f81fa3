"""The TLS handshakes under way: how many there may be, whose turn it is, whose time is over.

A handshake costs the loop up to a millisecond, and a peer that never ends one costs a descriptor. So a tick
spends a budget on them, there are at most so many at once, and each has its time. So that no single host can
take all places, each has a limit of its own for connections that have not become clients yet.
"""

from collections import deque
from collections.abc import Callable

from coord import eventlog
from coord.clock import Clock
from coord.reactor.connection import Address
from coord.reactor.secure import SecureConnection

HANDSHAKE_MS_PER_TICK = 2
"""A thousand clients that reconnect at once must not keep a leader from its followers."""

HANDSHAKE_MS_MAX = 10_000
"""Time a client has for its handshake."""

HANDSHAKES_MAX = 2_000
"""Handshakes under way at once; one more connection is closed, so that plain clients still find room."""

FAILURE_LOG_MS = 1_000
"""At most one line about failed handshakes in this time."""

log = eventlog.get("coord.reactor")


class Handshakes:
    """Those of one reactor.

    Attributes:
        done, failed: handshakes that have ended, so or so.
        exceeded: connections that were closed because there were too many.
        due: those that can go on at once.
    """

    def __init__(self, clock: Clock, count_max: int, per_host_max: int, time_ms_max: int) -> None:
        self._clock = clock
        self._count_max = count_max
        self._per_host_max = per_host_max
        self._hosts: dict[str, int] = {}
        self._time_ms_max = time_ms_max
        self._under_way: dict[SecureConnection, None] = {}
        self.due: deque[SecureConnection] = deque()
        self._logged_ms = 0
        self.on_due: Callable[[SecureConnection], None] = self.due.append
        self.done = self.failed = self.exceeded = 0

    def __len__(self) -> int:
        return len(self._under_way)

    def enter(self, peer: Address) -> bool:
        """Whether one more connection of this host may be kept before it is a client; counts where not."""
        host = _host_of(peer)
        count = self._hosts.get(host, 0)
        if 0 < self._per_host_max <= count:
            self.exceeded += 1
            return False
        self._hosts[host] = count + 1
        return True

    def leave(self, peer: Address) -> None:
        """One that had entered is a client now, or gone."""
        host = _host_of(peer)
        if self._hosts[host] == 1:
            del self._hosts[host]
        else:
            self._hosts[host] -= 1

    def have_room(self) -> bool:
        """Whether one more handshake may begin; counts where not."""
        if len(self._under_way) < self._count_max:
            return True
        self.exceeded += 1
        return False

    def begin(self, conn: SecureConnection, now_ms: int) -> None:
        """A connection that has entered begins its handshake."""
        conn.deadline_ms = now_ms + self._time_ms_max
        self._under_way[conn] = None

    def go_on(self, announce: Callable[[SecureConnection], None]) -> None:
        """Steps of those that are due, within the budget of a tick; calls back for each that is done."""
        until_ms = self._clock.monotonic_ms() + HANDSHAKE_MS_PER_TICK
        due = self.due
        while due:
            conn = due.popleft()
            if conn.handshake():
                self.done += 1
                del self._under_way[conn]
                self.leave(conn.peer_address)
                announce(conn)
            if self._clock.monotonic_ms() >= until_ms:
                return

    def on_gone(self, conn: SecureConnection) -> None:
        """The connection has ended. A failure is named in the log, unless there are many."""
        if conn not in self._under_way:
            return
        del self._under_way[conn]
        self.leave(conn.peer_address)
        self.failed += 1
        now_ms = self._clock.monotonic_ms()
        if self.failed == 1 or now_ms - self._logged_ms >= FAILURE_LOG_MS:
            self._logged_ms = now_ms
            peer, reason = conn.peer_address, conn.close_reason
            log.warning("a TLS handshake failed", peer=peer, why=reason, failed=self.failed)

    def end_late(self, now_ms: int) -> None:
        for conn in list(self._under_way):
            if conn.deadline_ms > now_ms:
                break  # they stand in the order of their deadlines
            conn.close(flush=False, reason="TLS handshake took too long")


def _host_of(peer: Address) -> str:
    return peer if isinstance(peer, str) else peer[0]
