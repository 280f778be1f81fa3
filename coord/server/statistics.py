"""What a server counts about its clients, in plain integers: the source of `srvr`, `stat`, `mntr` and the
metrics page.

Latencies are noted per group of requests that were answered together (a tick's reads, an executed batch),
not per request: the count is exact, the time is that of the group.
"""

from collections import deque
from typing import Final

DIGESTS_MAX: Final = 1000
DIGEST_INTERVAL: Final = 128
"""Transactions between two digests that are kept for `hash`."""
TRACE_MASK_DEFAULT: Final = 306


class ServerStatistics:
    """Counters since the start of the process."""

    __slots__ = (
        "auth_failed_count",
        "bytes_received",
        "bytes_sent",
        "connections_opened",
        "connections_refused",
        "digests",
        "ensemble_auth_fail",
        "ensemble_auth_skip",
        "ensemble_auth_success",
        "latency_count",
        "latency_ms_max",
        "latency_ms_min",
        "latency_ms_sum",
        "loop_stalls",
        "non_mtls_local_conn_count",
        "non_mtls_remote_conn_count",
        "packets_received",
        "packets_sent",
        "proposal_bytes_last",
        "proposal_bytes_max",
        "proposal_bytes_min",
        "sessions_expired",
        "trace_mask",
        "writes_executed",
    )

    def __init__(self) -> None:
        self.bytes_received = 0
        self.bytes_sent = 0
        self.digests: deque[tuple[int, int]] = deque(maxlen=DIGESTS_MAX)
        """(zxid, digest of the state as of it), of every `DIGEST_INTERVAL`th transaction or the next after
        it."""
        self.trace_mask = TRACE_MASK_DEFAULT
        self.reset()
        self.connections_opened = 0
        self.connections_refused = 0
        self.sessions_expired = 0
        self.loop_stalls = 0
        self.writes_executed = 0

    def reset(self) -> None:
        """What `srst` sets back. Packets are counted by open connections, and here once they are closed: who
        resets has to subtract those of the open ones.
        """
        self.packets_received = 0
        self.packets_sent = 0
        self.latency_count = 0
        self.latency_ms_sum = 0
        self.latency_ms_min = 0
        self.latency_ms_max = 0
        self.proposal_bytes_last = -1
        self.proposal_bytes_min = -1
        self.proposal_bytes_max = -1
        self.connections_opened = 0
        self.connections_refused = 0
        self.sessions_expired = 0
        self.auth_failed_count = 0
        self.ensemble_auth_success = 0
        self.ensemble_auth_fail = 0
        self.ensemble_auth_skip = 0
        self.non_mtls_local_conn_count = 0
        self.non_mtls_remote_conn_count = 0
        self.writes_executed = 0

    def note_latency(self, count: int, latency_ms: int) -> None:
        """`count` requests were answered `latency_ms` after they had been received."""
        if not count:
            return
        if not self.latency_count or latency_ms < self.latency_ms_min:
            self.latency_ms_min = latency_ms
        if latency_ms > self.latency_ms_max:
            self.latency_ms_max = latency_ms
        self.latency_count += count
        self.latency_ms_sum += count * latency_ms

    def note_proposal(self, size: int) -> None:
        self.proposal_bytes_last = size
        if self.proposal_bytes_min < 0 or size < self.proposal_bytes_min:
            self.proposal_bytes_min = size
        if size > self.proposal_bytes_max:
            self.proposal_bytes_max = size

    @property
    def latency_ms_average(self) -> float:
        return self.latency_ms_sum / self.latency_count if self.latency_count else 0.0
