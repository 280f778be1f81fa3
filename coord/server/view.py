"""A server's facts for four-letter words and metrics, gathered when somebody asks."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from coord.clock import Clock
from coord.metrics import Registry
from coord.reactor import Reactor
from coord.server.answers import Answers
from coord.server.authority import Authority
from coord.server.config import PeerAddress, ServerConfig
from coord.server.connection import CLOSED, ClientConnection, host_of
from coord.server.connection_throttle import ConnectionThrottle
from coord.server.figures import NODE_COUNT_OFFSET, Value, descriptor_figures, quota_figures, spread
from coord.server.listings import Buckets, SessionFacts
from coord.server.local_sessions import LocalSessions
from coord.server.member import Member
from coord.server.members import Members
from coord.server.meters import Meters
from coord.server.metricnames import METRICS
from coord.server.read_only import ReadOnlyMode
from coord.server.roster import own_address
from coord.server.slowness import SlowFsyncs, SlowRequests
from coord.server.startup import members_of
from coord.server.state import State
from coord.server.statistics import LimitStatistics, ServerStatistics
from coord.server.words import ConnectionLine, ServerView, operation_name
from coord.tree.path import CONFIG
from coord.zab import Role, Status

CONNECTION_BUCKET_MS: Final = 10_000


class Viewer:
    """Looks at one server."""

    def __init__(
        self,
        *,
        clock: Clock,
        state: State,
        statistics: ServerStatistics,
        member: Member,
        authority: Authority,
        connections: Callable[[], list[ClientConnection]],
        config: ServerConfig,
        read_only: ReadOnlyMode,
        local: LocalSessions | None,
        throttle: ConnectionThrottle,
        reactor: Reactor,
        meters: Meters,
        slow: SlowRequests,
        slow_fsyncs: SlowFsyncs,
        answers: Answers,
    ) -> None:
        self._answers = answers
        self._clock = clock
        self._started_ms = clock.monotonic_ms()
        self._state = state
        self._statistics = statistics
        self._member = member
        self._authority = authority
        self._connections = connections
        self._config = config
        self._reactor = reactor
        self._meters = meters
        self._slow = slow
        self._slow_fsyncs = slow_fsyncs
        self._standalone = config.standalone
        self._read_only = read_only
        self._local = local
        self._throttle = throttle

    @property
    def mode(self) -> str | None:
        """None while out of service."""
        status = self._member.status
        if not status.serving:
            return "read-only" if self._read_only.is_on else None
        if self._standalone:
            return "standalone"
        if status.role == Role.LEADING:
            return "leader"
        return "observer" if self._member.peer.observes else "follower"

    def view(self) -> ServerView:
        statistics, tree = self._statistics, self._state.tree
        connections = self._connections()
        proposal_bytes = (
            statistics.proposal_bytes_last,
            statistics.proposal_bytes_min,
            statistics.proposal_bytes_max,
        )
        outstanding = sum(len(client.queue) for client in connections)
        return ServerView(
            mode=self.mode,
            zxid=tree.last_zxid,
            node_count=len(tree.nodes) + NODE_COUNT_OFFSET,
            received=statistics.packets_received + sum(client.received for client in connections),
            sent=statistics.packets_sent + sum(client.sent for client in connections),
            connections=len(connections),
            outstanding=outstanding,
            latency_ms_min=statistics.latency_ms_min,
            latency_ms_average=statistics.latency_ms_average,
            latency_ms_max=statistics.latency_ms_max,
            proposal_bytes=proposal_bytes,
            monitor=lambda: self._monitor(connections),
            lines=lambda: map(line_of, connections),
        )

    @property
    def status(self) -> Status:
        return self._member.status

    @property
    def observers(self) -> Collection[int]:
        """Observers that follow this server."""
        return self._member.peer.observers

    # -- for long answers ----------------------------------------------------------------------------------

    def clients(self) -> list[ClientConnection]:
        return self._connections()

    def lines(self) -> Iterator[ConnectionLine]:
        return map(line_of, self._connections())

    def connection_buckets(self, clients: Sequence[ClientConnection]) -> Buckets:
        """When each of `clients` would be given up if it stayed silent; by places."""
        offset_ms = self._clock.wall_ms() - self._clock.monotonic_ms()
        buckets: dict[int, list[int]] = {}
        for place, client in enumerate(clients):
            timeout_ms = client.timeout_ms if client.session_id else self._config.limits.sessionless_ms_max
            over_ms = client.heard_ms + timeout_ms
            over_ms = (over_ms // CONNECTION_BUCKET_MS + 1) * CONNECTION_BUCKET_MS
            buckets.setdefault(over_ms + offset_ms, []).append(place)
        return sorted(buckets.items())

    def sessions(self) -> SessionFacts:
        offset_ms = self._clock.wall_ms() - self._clock.monotonic_ms()
        local = (
            None
            if self._local is None
            else [(over_ms + offset_ms, members) for over_ms, members in self._local.buckets()]
        )
        timeouts = self._state.session_timeouts()
        if not self._member.relay.is_leading:
            return SessionFacts(None, local, timeouts)
        buckets = [(over_ms + offset_ms, members) for over_ms, members in self._authority.tracker.buckets()]
        return SessionFacts(buckets, local, timeouts)

    @property
    def ephemerals(self) -> Mapping[int, Mapping[int, bytes]]:
        return self._state.tree.ephemerals

    @property
    def data_watches(self) -> Mapping[bytes, Mapping[Hashable, int]]:
        return self._state.watches.data_paths

    def session_of(self, watcher: Hashable) -> int:
        assert isinstance(watcher, ClientConnection)
        return watcher.session_id

    def members(self) -> Members:
        """As the state has them, or as zoo.cfg says."""
        return members_of(self._config, self._state.tree)

    def own_line(self) -> PeerAddress | None:
        """This server among the members; None on a standalone one."""
        return None if self._standalone else own_address(self._config, self.members())

    def membership(self) -> str:
        """The configuration of the ensemble as the tree has it, or as zoo.cfg says."""
        node = self._state.tree.nodes.get(CONFIG)
        data = b"" if node is None else node.data[4:]
        return data.decode("utf-8", "replace") or f"{self._config.canonical_members()}\nversion=0"

    def digests(self) -> list[tuple[int, int]]:
        return list(self._member.digests)

    def date(self, wall_ms: int) -> str:
        """As Java prints a date."""
        return datetime.fromtimestamp(wall_ms / 1000, tz=UTC).strftime("%a %b %d %H:%M:%S UTC %Y")

    # -- what words change ---------------------------------------------------------------------------------

    @property
    def trace_mask(self) -> int:
        """Remembered, and without any effect."""
        return self._statistics.trace_mask

    @trace_mask.setter
    def trace_mask(self, mask: int) -> None:
        self._statistics.trace_mask = mask

    def reset_connections(self) -> None:
        """The server's own counts stay what they are."""
        for client in self._connections():
            self._statistics.packets_received += client.received
            self._statistics.packets_sent += client.sent
            client.reset_statistics()

    def reset_server(self) -> None:
        """What connections have counted stays theirs."""
        self._statistics.reset()
        for client in self._connections():
            self._statistics.packets_received -= client.received
            self._statistics.packets_sent -= client.sent

    def register(self, registry: Registry) -> None:
        """Makes the server's figures metrics; each is looked up when somebody asks."""
        statistics, state, member = self._statistics, self._state, self._member
        figures: dict[str, tuple[str, Callable[[], float]]] = {
            "znodes": ("Znodes, built-in ones included", lambda: len(state.tree.nodes)),
            "data_bytes": ("Bytes of paths and data", lambda: state.tree.data_bytes),
            "ephemerals": ("Ephemeral znodes", lambda: state.tree.ephemeral_count),
            "watches": ("Watches of clients of this server", lambda: state.watches.count),
            "sessions": ("Sessions of the ensemble", lambda: len(state.tree.sessions)),
            "connections": ("Client connections", lambda: len(self._connections())),
            "zxid": ("Last executed transaction", lambda: state.tree.last_zxid),
            "epoch": ("Epoch of the leadership", lambda: member.status.epoch),
            "serving": ("1 while clients are served", lambda: int(member.status.serving)),
            "leading": ("1 while this server leads", lambda: int(member.relay.is_leading)),
        }
        for name, (text, read) in figures.items():
            registry.gauge(name, text, read)
        registry.counter("writes_total", "Writes executed", lambda: statistics.writes_executed)
        registry.counter("connections_opened_total", "Connections", lambda: statistics.connections_opened)
        registry.counter("connections_refused_total", "Over a limit", lambda: statistics.connections_refused)
        registry.counter("sessions_expired_total", "Sessions expired", lambda: statistics.sessions_expired)
        registry.counter(
            "repaired_batches_total", "Batches of a damaged log", lambda: statistics.repaired_batches
        )
        registry.counter(
            "damaged_log_reads_total", "Damage found while running", lambda: statistics.damaged_log_reads
        )

    def figures(self) -> dict[str, Value]:
        """All metrics of ZooKeeper's names that this server has now; in no order."""
        return self._figures(self._connections())

    def _monitor(self, connections: list[ClientConnection]) -> dict[str, int | float | str]:
        """The keys of `mntr` behind version and state (specification 16.10)."""
        values: dict[str, int | float | str] = {}
        status = self._member.status
        if not self._standalone:
            values["peer_state"] = _peer_state(status.role, status.serving, self._member.peer.observes)
        return values | spread(self._figures(connections))

    def _figures(self, connections: list[ClientConnection]) -> dict[str, Value]:
        statistics, state = self._statistics, self._state
        tree, status, reactor = state.tree, self._member.status, self._reactor.statistics()
        now_ms = self._clock.monotonic_ms()
        self._meters.note_reads(statistics.reads - self._answers.parked_count)
        values: dict[str, Value] = {
            "avg_latency": round(statistics.latency_ms_average, 4),
            "max_latency": statistics.latency_ms_max,
            "min_latency": statistics.latency_ms_min,
            "packets_received": statistics.packets_received + sum(client.received for client in connections),
            "packets_sent": statistics.packets_sent + sum(client.sent for client in connections),
            "num_alive_connections": len(connections),
            "outstanding_requests": sum(len(client.queue) for client in connections),
            "znode_count": len(tree.nodes) + NODE_COUNT_OFFSET,
            "watch_count": state.watches.count,
            "ephemerals_count": tree.ephemeral_count,
            "approximate_data_size": tree.data_bytes,
            **descriptor_figures(),
            "uptime": now_ms - self._started_ms,
            "global_sessions": len(tree.sessions),
            "local_sessions": 0 if self._local is None else len(self._local),
            "outstanding_tls_handshake": reactor.handshakes_waiting,
            "auth_failed_count": statistics.auth_failed_count,
            "non_mtls_remote_conn_count": statistics.non_mtls_remote_conn_count,
            "non_mtls_local_conn_count": statistics.non_mtls_local_conn_count,
            "ensemble_auth_success": statistics.ensemble_auth_success,
            "ensemble_auth_fail": statistics.ensemble_auth_fail,
            "ensemble_auth_skip": statistics.ensemble_auth_skip,
            "connection_request_count": statistics.handshakes,
            "connection_rejected": statistics.connections_refused + reactor.refused,
            **{name: getattr(statistics.limits, name) for name in LimitStatistics.__slots__},
            "connection_drop_probability": self._throttle.drop_probability,
            "loop_stalls": statistics.loop_stalls,
            "unsuccessful_handshake": reactor.handshakes_failed,
            "tls_handshake_exceeded": reactor.handshakes_exceeded,
            **quota_figures(tree),
            "stale_sessions_expired": statistics.sessions_expired,
            "sessionless_connections_expired": statistics.connections_sessionless,
            "bytes_received_count": reactor.bytes_in,
            "response_bytes": reactor.bytes_out,
            "watch_bytes": statistics.watch_bytes,
            "proposal_count": statistics.proposals,
            "commit_count": statistics.writes_executed,
            "looking_count": statistics.looked,
            "digest_mismatches_count": statistics.digest_mismatches,
            "snap_count": statistics.snapshots_sent,
            "fsync_threshold_exceed_count": self._slow_fsyncs.count,
            "slow_requests": self._slow.count,
            "insecure_admin_count": statistics.insecure_admin,
            "snapshot_error_count": statistics.snapshot_errors,
            "snapshot_rate_limited_count": statistics.snapshots_too_soon,
            "restore_error_count": statistics.restore_errors,
            "restore_rate_limited_count": statistics.restores_too_soon,
        }
        values |= {
            metric.name: self._meters.summaries[metric.name]
            for metric in METRICS
            if metric.name in self._meters.summaries and metric.where in self._places(status.role)
        }
        if statistics.quotas.exceeded:
            values["quota_exceeded_error_per_namespace"] = statistics.quotas.exceeded
        if not self._standalone:
            peer = self._member.peer
            values["quorum_size"] = len(peer.membership.participants)
            values["diff_count"] = peer.diffs_sent
            values["loop_stood_still_ms"] = peer.stood_still_ms
            values["peer_suspicion"] = {
                str(sid): round(100 * level) for sid, level in peer.suspicions(now_ms).items()
            }
        if "leader" in self._places(status.role):
            values |= self._leader_figures(now_ms)
        return values

    def _places(self, role: Role) -> tuple[str, ...]:
        """What this server is, as `Metric.where` says it."""
        if self._standalone:
            return ("",)
        return ("", "ensemble", "leader") if role == Role.LEADING else ("", "ensemble")

    def _leader_figures(self, now_ms: int) -> dict[str, int]:
        statistics = self._statistics
        followers, observers = len(self._member.peer.followers), len(self._member.peer.observers)
        return {
            "learners": followers + observers,
            "followers": followers,
            "synced_followers": followers,
            "synced_non_voting_followers": 0,
            "synced_observers": observers,
            "pending_syncs": self._member.relay.orders.pending_syncs,
            "leader_uptime": now_ms - self._member.serving_since_ms,
            "last_proposal_size": statistics.proposal_bytes_last,
            "max_proposal_size": statistics.proposal_bytes_max,
            "min_proposal_size": statistics.proposal_bytes_min,
        }


def _peer_state(role: Role, serving: bool, observes: bool) -> str:
    if role == Role.LOOKING:
        return "looking"
    name = "leading" if role == Role.LEADING else "observing" if observes else "following"
    return f"{name} - {'broadcast' if serving else 'synchronization'}"


def line_of(client: ClientConnection) -> ConnectionLine:
    """What `cons` tells of a connection."""
    address = client.conn.peer_address
    port = address[1] if isinstance(address, tuple) else 0
    count, weight = client.sent, client.latency_weight
    return ConnectionLine(
        host=host_of(client.conn),
        port=port,
        interest=0 if client.conn.is_paused or client.state == CLOSED else 1,
        queued=len(client.queue),
        received=client.received,
        sent=client.sent,
        session_id=client.session_id,
        last_operation=operation_name(client.last_op),
        established_ms=client.established_wall_ms,
        timeout_ms=client.timeout_ms,
        last_xid=client.last_xid,
        last_zxid=client.last_zxid,
        last_response_ms=client.answered_ms,
        latency_ms_last=client.latency_ms_last,
        latency_ms_min=client.latency_ms_min if 0 < count <= weight else 0,
        latency_ms_average=client.latency_ms_sum // count if count else 0,
        latency_ms_max=client.latency_ms_max,
        is_secure=client.conn.is_secure,
    )
