"""Every metric that carries ZooKeeper's name (specification 18.2), in the order in which `mntr` prints them:
the classical ones first, as some tools read 2048 bytes only. `docs/metrics.md` has its table from here. Pure.
"""

from dataclasses import dataclass
from typing import Final

GAUGE: Final = "gauge"
COUNTER: Final = "counter"
BASIC: Final = "summary"
ADVANCED: Final = "summary with percentiles"
KEYED_GAUGE: Final = "gauge by namespace"
PEER_GAUGE: Final = "gauge by server"
KEYED_COUNTER: Final = "counter by namespace"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name without `zk_`, its kind, what it means, and which servers have it (empty: all)."""

    name: str
    kind: str
    meaning: str
    where: str = ""


METRICS: Final = (
    Metric("avg_latency", GAUGE, "ms between a request and its answer, average since the last `srst`"),
    Metric("max_latency", GAUGE, "the largest of them"),
    Metric("min_latency", GAUGE, "the smallest of them"),
    Metric("packets_received", GAUGE, "requests received since the last `srst`"),
    Metric("packets_sent", GAUGE, "answers sent since the last `srst`"),
    Metric("num_alive_connections", GAUGE, "client connections"),
    Metric("outstanding_requests", GAUGE, "requests received and not answered yet"),
    Metric("znode_count", GAUGE, "znodes, counted as ZooKeeper counts them (the root twice)"),
    Metric("watch_count", GAUGE, "watches of this server's clients"),
    Metric("ephemerals_count", GAUGE, "ephemeral znodes"),
    Metric("approximate_data_size", GAUGE, "bytes of all paths and data"),
    Metric("open_file_descriptor_count", GAUGE, "descriptors in use"),
    Metric("max_file_descriptor_count", GAUGE, "descriptors that the process may have"),
    Metric("learners", GAUGE, "servers that follow this leader", "leader"),
    Metric("followers", GAUGE, "those of them that vote (older name)", "leader"),
    Metric("synced_followers", GAUGE, "those of them that are in step", "leader"),
    Metric("synced_non_voting_followers", GAUGE, "followers in step that do not vote", "leader"),
    Metric("synced_observers", GAUGE, "observers in step", "leader"),
    Metric("pending_syncs", GAUGE, "syncs that wait for a quorum", "leader"),
    Metric("leader_uptime", GAUGE, "ms since this server leads", "leader"),
    Metric("last_proposal_size", GAUGE, "bytes of the last batch proposed, -1: none yet", "leader"),
    Metric("max_proposal_size", GAUGE, "bytes of the largest", "leader"),
    Metric("min_proposal_size", GAUGE, "bytes of the smallest", "leader"),
    Metric("uptime", GAUGE, "ms since the process serves"),
    Metric("global_sessions", GAUGE, "sessions of the ensemble"),
    Metric("local_sessions", GAUGE, "sessions that only this server knows"),
    Metric("quorum_size", GAUGE, "voting members of the ensemble", "ensemble"),
    Metric("outstanding_tls_handshake", GAUGE, "TLS handshakes under way"),
    Metric("auth_failed_count", GAUGE, "auth packets with wrong credentials"),
    Metric("non_mtls_remote_conn_count", GAUGE, "connections without a client certificate, other machines"),
    Metric("non_mtls_local_conn_count", GAUGE, "connections without a client certificate, this machine"),
    Metric("ensemble_auth_success", COUNTER, "auth packets of scheme `ensemble` that named this ensemble"),
    Metric("ensemble_auth_fail", COUNTER, "auth packets of scheme `ensemble` that named another one"),
    Metric("ensemble_auth_skip", COUNTER, "auth packets of scheme `ensemble` while no name is set"),
    Metric("connection_request_count", COUNTER, "handshakes that were not refused for their rate"),
    Metric("connection_rejected", COUNTER, "connections refused for a limit"),
    Metric("stale_sessions_expired", COUNTER, "sessions expired by this server"),
    Metric("sessionless_connections_expired", COUNTER, "connections closed that got no session in time"),
    Metric("connection_drop_count", COUNTER, "connections whose clients went without closing their session"),
    Metric("connection_throttled", COUNTER, "handshakes refused for their rate (`connectionMaxTokens`)"),
    Metric("connection_drop_probability", GAUGE, "chance that a handshake is refused while tokens are left"),
    Metric("request_throttle_wait_count", COUNTER, "times a client was not read for `requestThrottleLimit`"),
    Metric("stale_requests", COUNTER, "requests that waited until they were stale"),
    Metric("stale_requests_dropped", COUNTER, "those of them that were not executed"),
    Metric("throttled_ops", COUNTER, "requests refused for their waiting (`throttledOpWaitTime`)"),
    Metric("large_requests_rejected", COUNTER, "requests beyond `largeRequestMaxBytes`"),
    Metric("oversized_requests_rejected", COUNTER, "requests beyond `jute.maxbuffer`"),
    Metric("unfinished_requests_rejected", COUNTER, "connections closed as too much of all was unfinished"),
    Metric("unknown_protocol_connections", COUNTER, "connections that began with HTTP or TLS"),
    Metric("bytes_received_count", COUNTER, "bytes read from clients"),
    Metric("response_bytes", COUNTER, "bytes written to clients"),
    Metric("watch_bytes", COUNTER, "bytes of watch events"),
    Metric("proposal_count", COUNTER, "transactions proposed by this server"),
    Metric("commit_count", COUNTER, "transactions executed since the start"),
    Metric("looking_count", COUNTER, "times this server began to look for a leader"),
    Metric("digest_mismatches_count", COUNTER, "comparisons in which servers had different states"),
    Metric("snap_count", COUNTER, "snapshots sent to learners"),
    Metric("diff_count", COUNTER, "learners that were sent what they lacked instead", "ensemble"),
    Metric("fsync_threshold_exceed_count", COUNTER, "log writes slower than `fsync.warningthresholdms`"),
    Metric("slow_requests", COUNTER, "samples of requests slower than `slowRequest.thresholdMs`"),
    Metric("insecure_admin_count", COUNTER, "HTTP requests to the admin server without TLS"),
    Metric("snapshot_error_count", COUNTER, "snapshots over HTTP that failed"),
    Metric("snapshot_rate_limited_count", COUNTER, "snapshots over HTTP refused as too soon"),
    Metric("restore_error_count", COUNTER, "restores over HTTP that failed"),
    Metric("restore_rate_limited_count", COUNTER, "restores over HTTP refused as too soon"),
    Metric("loop_stalls", COUNTER, "times the loop stood still and clients were heard before judged"),
    Metric(
        "peer_suspicion",
        PEER_GAUGE,
        "how sure this server is that a peer it watches is gone; from 100 on it acts",
        "ensemble",
    ),
    Metric(
        "loop_stood_still_ms",
        COUNTER,
        "ms by which this server woke late; nobody is suspected for them",
        "ensemble",
    ),
    Metric("unsuccessful_handshake", COUNTER, "TLS handshakes that failed"),
    Metric("tls_handshake_exceeded", COUNTER, "TLS handshakes refused for their number"),
    Metric("readlatency", ADVANCED, "ms of a read: 0, or behind a write that of the write's block"),
    Metric(
        "updatelatency",
        ADVANCED,
        "ms from a write's receipt to its execution here, one figure for each block",
    ),
    Metric("connection_token_deficit", BASIC, "tokens that were missing after a handshake"),
    Metric("fsynctime", BASIC, "ms of a write to the log with its fsync"),
    Metric("sync_processor_batch_size", BASIC, "batches and marks in one write of the log"),
    Metric("snapshottime", BASIC, "ms from the begin of a checkpoint until it is durable"),
    Metric("dbinittime", BASIC, "ms of loading checkpoint and log at start-up"),
    Metric("election_time", BASIC, "ms from looking for a leader to serving", "ensemble"),
    Metric("leader_unavailable_time", BASIC, "ms without a leader", "ensemble"),
    Metric("unavailable_time", BASIC, "ms out of service", "ensemble"),
    Metric("proposal_latency", ADVANCED, "ms from proposing a batch to executing it", "leader"),
    Metric(
        "quorum_ack_latency",
        ADVANCED,
        "the same, for a quorum's having logged it is when that begins",
        "leader",
    ),
    Metric("propagation_latency", ADVANCED, "ms from the leader's stamp on a batch to its execution here"),
    Metric("write_batch_size", BASIC, "transactions of a batch"),
    Metric("snapshot_send_time", BASIC, "ms of sending a snapshot to a learner", "leader"),
    Metric("node_created_watch_count", BASIC, "clients told of one creation"),
    Metric("node_deleted_watch_count", BASIC, "clients told of one deletion"),
    Metric("node_changed_watch_count", BASIC, "clients told of one change of data"),
    Metric("node_children_watch_count", BASIC, "clients told of one change among children"),
    Metric("restore_time", BASIC, "ms of a restore over HTTP"),
    Metric("jvm_pause_time_ms", ADVANCED, "ms that the loop was late, every 100 ms"),
    Metric("quota_count_limit_per_namespace", KEYED_GAUGE, "znodes that hard quotas allow"),
    Metric("quota_count_usage_per_namespace", KEYED_GAUGE, "znodes under quotas"),
    Metric("quota_bytes_limit_per_namespace", KEYED_GAUGE, "bytes that hard quotas allow"),
    Metric("quota_bytes_usage_per_namespace", KEYED_GAUGE, "bytes under quotas"),
    Metric("quota_exceeded_error_per_namespace", KEYED_COUNTER, "writes beyond a quota, refused or not"),
)
"""Where ours mean something else than ZooKeeper's, `docs/metrics.md` says so."""
