"""Requests that were answered late: a line in the log for some of them, and a count of all that were seen.

What is seen are the samples of `coord.server.connection`: of each connection one group of requests at a time,
so a request that waits behind another one of its connection may pass unseen, but a server that is slow does
not.
"""

from typing import Final

from coord import eventlog
from coord.clock import Clock
from coord.server.connection import ClientConnection, host_of
from coord.server.words import operation_name

LINES_INTERVAL_MS: Final = 1000
"""At most one line in so many milliseconds; it says how many were left out since the last."""

log = eventlog.get("coord.server")


class SlowRequests:
    """Names requests that took at least `threshold_ms`, whatever kept them: log, network or load.

    Attributes:
        count: how many were seen.
    """

    def __init__(self, threshold_ms: int, clock: Clock) -> None:
        self.threshold_ms = threshold_ms
        self.count = 0
        self._clock = clock
        self._untold = 0
        self._told_ms: int | None = None

    def note(self, client: ClientConnection, latency_ms: int) -> None:
        """A group of requests of `client` has been answered `latency_ms` after it had been received."""
        self.count += 1
        now_ms = self._clock.monotonic_ms()
        if self._told_ms is not None and now_ms - self._told_ms < LINES_INTERVAL_MS:
            self._untold += 1
            return
        log.warning(
            "slow request",
            op=operation_name(client.last_op),
            session=f"0x{client.session_id:x}",
            client=host_of(client.conn),
            xid=client.last_xid,
            elapsed_ms=latency_ms,
            left_out=self._untold,
        )
        self._untold, self._told_ms = 0, now_ms
