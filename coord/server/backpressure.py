"""Which connections are not read for a while, and what becomes of the requests that waited meanwhile
(specification 15).

A connection is suspended when too much of it waits here: requests in its queue, bytes of parked requests,
answers that its client does not take; and when it has writes under way while the server as a whole has too
many. What had arrived by then is kept and goes on later; nothing is dropped, but where a setting says that
requests which have waited for too long are not worth executing.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

from coord.clock import Clock
from coord.protocol.opcodes import AUTH, CLOSE_SESSION, PING, SASL
from coord.server.config.limits import LimitsConfig
from coord.server.connection import PARKED_BYTES_MAX, QUEUE_MAX, ClientConnection
from coord.server.statistics import LimitStatistics

OUTPUT_PAUSE_BYTES: Final = 4 << 20
"""Output that a client has not taken at which its connection is not read."""
PARKED_COST_MAX: Final = 256 << 20
"""Bytes of reads that wait behind writes, of all connections together; beyond, a connection that has requests
waiting is not read. A read of each connection (256 KB) may come on top.
"""
NOT_THROTTLED_OPS: Final = frozenset({PING, CLOSE_SESSION, AUTH, SASL})

_unpack_head = Struct(">iii").unpack_from


class Backpressure:
    """The suspended connections of a server.

    Args:
        under_way: requests that have been received and wait to be executed: writes, and reads behind them.
        parked_cost: bytes that the reads among them take, of all connections together.

    Attributes:
        outstanding_max: requests under way, where one of the settings says so; 0 otherwise.
        judges_waits: whether a setting asks how long requests have waited.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        clock: Clock,
        statistics: LimitStatistics,
        under_way: Callable[[], int],
        parked_cost: Callable[[], int],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._statistics = statistics
        self._under_way = under_way
        self._parked_cost = parked_cost
        self.outstanding_max = min(
            (bound for bound in (limits.outstanding_max, limits.throttled_requests_max) if bound), default=0
        )
        self.judges_waits = bool(limits.throttled_op_wait_ms or limits.stale_by_latency)
        self.suspended: dict[ClientConnection, None] = {}

    def queue_max(self, client: ClientConnection) -> int:
        """How long the connection's queue may get: one request of each connection is always taken."""
        length = len(client.queue)
        if self._parked_cost() > PARKED_COST_MAX:
            return max(1, length)
        if not self.outstanding_max:
            return QUEUE_MAX
        room = self.outstanding_max - self._under_way()
        return max(1, min(QUEUE_MAX, length + room))

    def suspend(self, client: ClientConnection, *, by_client: bool) -> None:
        """The connection is not read until `take_resumable` names it.

        Args:
            by_client: its client does not take its answers; what it asks then waits for the client alone.
        """
        self.suspended[client] = None
        client.conn.pause()
        if self.outstanding_max and self._under_way() >= self.outstanding_max:
            self._statistics.request_throttle_wait_count += 1
        if self.judges_waits and client.held and not by_client and not client.waiting_since_ms:
            client.waiting_since_ms = self._clock.monotonic_ms()

    def take_resumable(self) -> list[ClientConnection]:
        """Those that may go on, and are no longer suspended."""
        is_full = self._parked_cost() > PARKED_COST_MAX or (
            self.outstanding_max and self._under_way() >= self.outstanding_max
        )
        resumable = [
            client
            for client in self.suspended
            if len(client.queue) <= QUEUE_MAX // 2
            and client.parked_bytes <= PARKED_BYTES_MAX // 2
            and client.conn.pending_output <= OUTPUT_PAUSE_BYTES // 2
            and not (is_full and client.queue)
        ]
        for client in resumable:
            del self.suspended[client]
        return resumable

    def forget(self, client: ClientConnection) -> None:
        """The connection has ended; what it had sent and was not executed is stale."""
        if client not in self.suspended:
            return
        del self.suspended[client]
        if self._limits.throttled_requests_max and self._limits.stale_by_connection:
            self._note_stale(client, dropped=True)

    # -- what waited ---------------------------------------------------------------------------------------

    def take_wait_ms(self, client: ClientConnection) -> int:
        """For how long the connection's bytes have waited; they do so no longer."""
        if not client.waiting_since_ms:
            return 0
        waited_ms = self._clock.monotonic_ms() - client.waiting_since_ms
        client.waiting_since_ms = 0
        return waited_ms

    def is_stale(self, client: ClientConnection, waited_ms: int) -> bool:
        """Whether its requests are not worth executing any more, and are to be dropped with it."""
        if not self._limits.stale_by_latency or waited_ms <= client.timeout_ms:
            return False
        self._note_stale(client, dropped=self._limits.drops_stale)
        return self._limits.drops_stale

    def is_throttled(self, waited_ms: int) -> bool:
        return 0 < self._limits.throttled_op_wait_ms < waited_ms

    def _note_stale(self, client: ClientConnection, *, dropped: bool) -> None:
        count = sum(1 for _ in whole_frames(b"".join(client.held)))
        self._statistics.stale_requests += count
        if dropped:
            self._statistics.stale_requests_dropped += count


def whole_frames(data: bytes) -> list[tuple[int, int, int, int]]:
    """Of each complete request: where it begins and ends, xid and operation."""
    frames: list[tuple[int, int, int, int]] = []
    offset, end = 0, len(data)
    while end - offset >= 12:
        length, xid, op = _unpack_head(data, offset)
        following = offset + 4 + length
        if length < 8 or following > end:
            break
        frames.append((offset, following, xid, op))
        offset = following
    return frames
