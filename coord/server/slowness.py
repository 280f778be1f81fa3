"""Requests that were answered late, and a disk that is: a line in the log for some, and a count of all seen.

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
NEVER_MS: Final = 1 << 62

log = eventlog.get("coord.server")


class Seldom:
    """Lets one line in `interval_ms` through and counts the others."""

    def __init__(self, clock: Clock, interval_ms: int = LINES_INTERVAL_MS) -> None:
        self._clock = clock
        self._interval_ms = interval_ms
        self._untold = 0
        self._told_ms: int | None = None

    def take(self) -> int | None:
        """How many lines were left out before this one; None: leave out this one too."""
        now_ms = self._clock.monotonic_ms()
        if self._told_ms is not None and now_ms - self._told_ms < self._interval_ms:
            self._untold += 1
            return None
        untold, self._untold, self._told_ms = self._untold, 0, now_ms
        return untold


class SlowRequests:
    """Names requests that took at least `threshold_ms`, whatever kept them: log, network or load.

    Attributes:
        count: how many were seen.
    """

    def __init__(self, threshold_ms: int, clock: Clock) -> None:
        self.threshold_ms = threshold_ms or NEVER_MS
        self.count = 0
        self._seldom = Seldom(clock)

    def note(self, client: ClientConnection, latency_ms: int) -> None:
        """A group of requests of `client` has been answered `latency_ms` after it had been received."""
        self.count += 1
        left_out = self._seldom.take()
        if left_out is not None:
            log.warning(
                "slow request",
                op=operation_name(client.last_op),
                session=f"0x{client.session_id:x}",
                client=host_of(client.conn),
                xid=client.last_xid,
                elapsed_ms=latency_ms,
                left_out=left_out,
            )


class SlowFsyncs:
    """Names writes of the transaction log that took at least `threshold_ms`.

    Attributes:
        count: how many did.
    """

    def __init__(self, threshold_ms: int, clock: Clock) -> None:
        self._threshold_ms = threshold_ms
        self.count = 0
        self._seldom = Seldom(clock)

    def note(self, elapsed_ms: int, records: int) -> None:
        """A group has been written."""
        if elapsed_ms < self._threshold_ms:
            return
        self.count += 1
        left_out = self._seldom.take()
        if left_out is not None:
            log.warning(
                "the log's disk is slow",
                do="give dataLogDir a disk of its own",
                elapsed_ms=elapsed_ms,
                batches=records,
                left_out=left_out,
            )
