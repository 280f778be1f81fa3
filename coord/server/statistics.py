"""What a server counts about its clients, in plain integers: the source of `srvr`, `stat`, `mntr` and the
metrics page.

Latencies are noted per block of writes that were answered together, not per request: the count is exact, the
time is that of the block. So is that of the reads that stood behind those writes; any other took no time.
"""

from typing import Final

from coord.server.quota_warnings import QuotaWarnings

TRACE_MASK_DEFAULT: Final = 306


class LimitStatistics:
    """How often each limit was hit (specification 15), by its name of specification 18.2 if there is one."""

    __slots__ = (
        "connection_drop_count",
        "connection_throttled",
        "large_requests_rejected",
        "oversized_requests_rejected",
        "request_throttle_wait_count",
        "stale_requests",
        "stale_requests_dropped",
        "throttled_ops",
        "unfinished_requests_rejected",
        "unknown_protocol_connections",
    )

    def __init__(self) -> None:
        self.connection_drop_count = 0
        """Connections whose clients went without closing their session."""
        self.connection_throttled = 0
        """Handshakes refused for their rate."""
        self.unfinished_requests_rejected = 0
        """Connections ended because all of them together had sent too many unfinished bytes."""
        self.large_requests_rejected = 0
        self.oversized_requests_rejected = 0
        self.request_throttle_wait_count = 0
        self.stale_requests = 0
        self.stale_requests_dropped = 0
        self.throttled_ops = 0
        self.unknown_protocol_connections = 0
        """Connections that began with something else than the protocol, HTTP or TLS perhaps."""


class ServerStatistics:
    """Counters since the start of the process."""

    __slots__ = (
        "auth_failed_count",
        "bytes_received",
        "bytes_sent",
        "connections_opened",
        "connections_refused",
        "connections_sessionless",
        "damaged_log_reads",
        "digest_mismatches",
        "ensemble_auth_fail",
        "ensemble_auth_skip",
        "ensemble_auth_success",
        "handshakes",
        "insecure_admin",
        "latency_count",
        "latency_ms_least",
        "latency_ms_max",
        "latency_ms_sum",
        "limits",
        "looked",
        "loop_stalls",
        "non_mtls_local_conn_count",
        "non_mtls_remote_conn_count",
        "packets_received",
        "packets_sent",
        "proposal_bytes_last",
        "proposal_bytes_max",
        "proposal_bytes_min",
        "proposals",
        "quotas",
        "reads",
        "reads_at_reset",
        "repaired_batches",
        "restore_errors",
        "restores_too_soon",
        "sessions_expired",
        "snapshot_errors",
        "snapshots_sent",
        "snapshots_too_soon",
        "trace_mask",
        "watch_bytes",
        "writes_executed",
    )

    def __init__(self) -> None:
        self.limits = LimitStatistics()
        self.bytes_received = 0
        self.bytes_sent = 0
        self.damaged_log_reads = 0
        """Times that this server's own log, read while it runs, was not what was written."""
        self.digest_mismatches = 0
        """States that were found to differ: this server's own, and while it leads those of others."""
        self.trace_mask = TRACE_MASK_DEFAULT
        self.connections_opened = 0
        self.handshakes = 0
        self.connections_sessionless = 0
        self.insecure_admin = 0
        self.looked = 0
        self.proposals = 0
        self.repaired_batches = 0
        self.restore_errors = 0
        self.restores_too_soon = 0
        self.snapshot_errors = 0
        self.snapshots_too_soon = 0
        self.reads = 0
        """Requests that were answered at once, or stood behind a write of their connection; what is cheap
        enough for the hot loop."""
        self.snapshots_sent = 0
        self.watch_bytes = 0
        self.connections_refused = 0
        self.quotas = QuotaWarnings()
        self.sessions_expired = 0
        self.loop_stalls = 0
        self.writes_executed = 0
        self.auth_failed_count = 0
        self.ensemble_auth_success = 0
        self.ensemble_auth_fail = 0
        self.ensemble_auth_skip = 0
        self.non_mtls_local_conn_count = 0
        self.non_mtls_remote_conn_count = 0
        self.reset()

    def reset(self) -> None:
        """What `srst` sets back. Packets are counted by open connections, and here once they are closed: who
        resets has to subtract those of the open ones.
        """
        self.packets_received = 0
        self.packets_sent = 0
        self.reads_at_reset = self.reads
        self.latency_count = 0
        self.latency_ms_sum = 0
        self.latency_ms_least = 0
        self.latency_ms_max = 0
        self.proposal_bytes_last = -1
        self.proposal_bytes_min = -1
        self.proposal_bytes_max = -1

    def note_latency(self, count: int, latency_ms: int) -> None:
        """`count` writes were answered `latency_ms` after they had been received."""
        if not count:
            return
        if not self.latency_count or latency_ms < self.latency_ms_least:
            self.latency_ms_least = latency_ms
        if latency_ms > self.latency_ms_max:
            self.latency_ms_max = latency_ms
        self.latency_count += count
        self.latency_ms_sum += count * latency_ms

    def note_reads_behind(self, count: int, latency_ms: int) -> None:
        """So many of `reads` were answered with a block of writes that took so long."""
        self.latency_ms_max = max(self.latency_ms_max, latency_ms)
        self.latency_ms_sum += count * latency_ms

    def note_proposal(self, size: int, count: int) -> None:
        self.proposals += count
        self.proposal_bytes_last = size
        if self.proposal_bytes_min < 0 or size < self.proposal_bytes_min:
            self.proposal_bytes_min = size
        if size > self.proposal_bytes_max:
            self.proposal_bytes_max = size

    @property
    def latency_ms_min(self) -> int:
        return 0 if self.reads > self.reads_at_reset else self.latency_ms_least

    @property
    def latency_ms_average(self) -> float:
        count = self.latency_count + self.reads - self.reads_at_reset
        return self.latency_ms_sum / count if count else 0.0
