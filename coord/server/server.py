"""A coordination server: its parts, put together, and its life.

    client port   service -> handshake, answers          what clients ask, in ticks of the reactor
    member        relay -> peer (Zab) -> durable, links   how it is agreed on
    replica       state (tree, watches)                   how it is executed, and answered in order
    checkpoints, housekeeping                             beside the loop

Everything between two waits happens in `Server.settle`: it hands over what came in, lets the member carry
out what is owed, and queues the answers. The reactor runs it at the end of each tick; other tasks run it,
and flush the reactor, after they have changed something.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import SystemRandom

import trio

from coord import eventlog
from coord.clock import SYSTEM_CLOCK, Clock
from coord.disk import RealDisk
from coord.gc import paused as collections_paused
from coord.gc import tend
from coord.looplag import measure_loop_lag
from coord.metrics import Registry
from coord.protocol.opcodes import CREATE_SESSION
from coord.reactor import Reactor
from coord.server.admin.commands import AdminCommands
from coord.server.admin.serving import OperatorPorts
from coord.server.admin.snapshots import Rates, SnapshotCommands
from coord.server.answers import Answers
from coord.server.audit import open_audit
from coord.server.authentication import Authentication
from coord.server.authority import Authority
from coord.server.changes import Changes
from coord.server.checkpoints import Checkpoints
from coord.server.config import ServerConfig
from coord.server.connection_throttle import ConnectionThrottle
from coord.server.disk_watch import DiskWatch
from coord.server.durable import DurableEpochs, DurableLog, LogReport
from coord.server.greeting import LinkIdentity
from coord.server.handshake import Handshake
from coord.server.housekeeping import Housekeeping
from coord.server.link import Frame
from coord.server.links import PeerLinks
from coord.server.local_sessions import LocalSessions
from coord.server.member import Member
from coord.server.members import Members
from coord.server.meters import Meters
from coord.server.peer_tls import make_peer_contexts
from coord.server.policy import policy_word, reaper_settings
from coord.server.read_only import ReadOnlyMode
from coord.server.reaper import Reaper
from coord.server.replica import Replica
from coord.server.retention import Retention
from coord.server.roster import Roster, addresses_of, client_address, listen_addresses, own_address
from coord.server.service import ClientService
from coord.server.slices import SlicedAnswers
from coord.server.slowness import SlowFsyncs, SlowRequests
from coord.server.snapshots import SnapshotFetcher, SnapshotSender
from coord.server.startup import (
    check_directories_exist,
    connections_max,
    connections_wanted,
    make_peer,
    members_of,
    membership_of,
    report_recovery,
)
from coord.server.state import State
from coord.server.statistics import ServerStatistics
from coord.server.tls import ClientTls
from coord.server.tracker import SessionIds
from coord.server.tree_kind import TreeKind
from coord.server.view import Viewer
from coord.server.wordservice import WordService
from coord.storage import (
    Checkpointer,
    CheckpointSchedule,
    CheckpointStore,
    DataDirectory,
    Environments,
    Installed,
    LmdbEnvironments,
    LogOptions,
    begin_log,
    open_data_directory,
    open_state,
)
from coord.tree import DataTree
from coord.tree.execute import encode_create_session
from coord.zab import Epochs, Proposal, Role, SnapshotOrder, Status

log = eventlog.get("coord.server")

HAND_OVER_SECONDS_MAX = 1.0
"""How long a leader that stops waits for a follower to take over."""
LOG_QUEUE_BUSY_BYTES = 64 << 20
"""Bytes that wait for the disk at which clients that write are not read."""
LOG_QUEUE_LINKS_BYTES = 128 << 20
"""Bytes that wait for the disk at which peers are not read: a follower with a slow disk falls behind, and out
of the ensemble, before its log's queue is full.
"""


class Server:
    """One server on an open data directory; `run` serves until cancelled."""

    def __init__(
        self,
        config: ServerConfig,
        directory: DataDirectory,
        environments: Environments,
        clock: Clock,
        rates: Rates | None = None,
        *,
        restored: bool = False,
    ) -> None:
        self.config = config
        self._clock = clock
        self._directory = directory
        self._is_closed = False
        self._environments = environments
        self._kind = TreeKind()
        tls, security = config.tls, config.security
        self._audit = open_audit(security.audit_file, clock) if security.audit_enabled else None
        self._tls = ClientTls(tls) if tls.is_wanted else None
        self.reactor = Reactor(
            clock,
            connections_max=connections_max(connections_wanted(config)),
            handshakes_max=tls.handshake_count_max,
            handshakes_per_host_max=config.max_client_connections,
            handshake_ms_max=tls.handshake_ms_max,
        )
        log_wakeup = self.reactor.wakeup(lambda: self._log.on_log_report())
        epochs_wakeup = self.reactor.wakeup(lambda: self._epochs.on_epochs_report())
        self._checkpoint_wakeup = self.reactor.wakeup(lambda: self._checkpoints.on_report())
        self._log_options = LogOptions(log_wakeup.set)
        begun_ms = clock.monotonic_ms()
        with collections_paused():
            recovered = open_state(
                directory,
                environments,
                self._kind,
                self._log_options,
                standalone=config.standalone,
                has_peers=len(config.servers) > 1,
            )
        report_recovery(recovered)
        sid = config.sid
        self.statistics = ServerStatistics()
        self.meters = Meters()
        self.meters.note("dbinittime", clock.monotonic_ms() - begun_ms)
        slow = SlowRequests(config.admin.slow_request_ms, clock)
        self._slow_fsyncs = SlowFsyncs(config.storage.fsync_warning_ms, clock)
        self.state = State(recovered.state)
        self._disk_watch = DiskWatch(config.ensemble.slow_disk_ms)
        self._log = DurableLog(recovered.log, self._on_log_reports, self._on_group, directory.forget_log_end)
        self._epochs = DurableEpochs(directory, epochs_wakeup.set, self._on_epochs_saved)
        self.peer = make_peer(config, recovered, directory, clock.monotonic_ms())
        self._authority = Authority(config.tick_ms, self.state.find_password, self.state.count_ephemerals)
        authentication = Authentication(
            security, self.statistics, x509=tls.asks_for_certificates, make_random=os.urandom
        )
        self.answers = Answers(
            self.state,
            self.statistics,
            lambda done: self.member.relay.sync(done),
            clock,
            slow,
            authentication,
            skip_acl=security.skip_acl,
        )
        self._local = self._make_local_sessions()
        self._read_only = ReadOnlyMode(
            enabled=config.sessions.read_only_mode and not config.standalone,
            tick_ms=config.tick_ms,
            now_ms=clock.monotonic_ms(),
        )
        self._throttle = ConnectionThrottle(
            config.limits,
            local_sessions=self._local is not None,
            now_ms=clock.monotonic_ms(),
            chance=SystemRandom().random,
        )
        session_ids = SessionIds(sid, clock.wall_ms(), self.state.tree.sessions)
        self._handshake = Handshake(
            timeout_ms_min=config.session_timeout_ms_min,
            timeout_ms_max=config.session_timeout_ms_max,
            sessions=self,
            session_ids=session_ids,
            make_password=os.urandom,
            executed_zxid=lambda: self.state.zxid,
            exists=lambda session_id: self.state.find_password(session_id) is not None,
            serve=lambda client: self.service.serve(client),
            local=self._local,
            now_ms=clock.monotonic_ms,
            admits=self._admits_handshake if config.limits.connection_tokens else None,
        )
        self._replica = Replica(
            sid=sid,
            state=self.state,
            answers=self.answers,
            attached=self._handshake.attached,
            statistics=self.statistics,
            meters=self.meters,
            audience=self,
            skip_acl=security.skip_acl,
            audit=self._audit,
        )
        self.member = Member(
            sid=sid,
            clock=clock,
            peer=self.peer,
            replica=self._replica,
            authority=self._authority,
            sessions=self.state.session_timeouts,
            world=self,
            policy=policy_word(config),
            meters=self.meters,
            changes=self._make_changes(),
        )
        self.service = ClientService(
            clock=clock,
            answers=self.answers,
            handshake=self._handshake,
            statistics=self.statistics,
            frame_bytes_max=config.frame_bytes_max,
            connections_per_host_max=config.max_client_connections,
            answer_word=lambda conn, word, argument: self._words.answer(conn, word, argument),
            settle=self.settle,
            is_busy=self._is_busy,
            local=self._local,
            authentication=authentication,
            limits=config.limits,
            in_flight=lambda: self.member.relay.in_flight,
        )
        self._viewer = Viewer(
            clock=clock,
            state=self.state,
            statistics=self.statistics,
            member=self.member,
            connections=lambda: list(self.service.connections),
            authority=self._authority,
            config=config,
            read_only=self._read_only,
            local=self._local,
            reactor=self.reactor,
            meters=self.meters,
            slow=slow,
            slow_fsyncs=self._slow_fsyncs,
            throttle=self._throttle,
        )
        self._sliced = SlicedAnswers(clock, self.reactor.flush)
        self._words = WordService(config, self._viewer, self._sliced)
        self._checkpoints = Checkpoints(
            clock=clock,
            state=self.state,
            store=recovered.store,
            durable_log=self._log,
            schedule=CheckpointSchedule(transactions_min=config.snap_count),
            checkpointer=self._make_checkpointer(recovered.store),
            meters=self.meters,
            retention=Retention(
                config.checkpoint_retain_count, config.purge_interval_hours, clock.monotonic_ms()
            ),
        )
        self._sender = SnapshotSender(self._checkpoints, self.statistics, self.meters)
        self._links: PeerLinks | None = None
        self._fetcher: SnapshotFetcher | None = None
        self._roster: Roster | None = None
        if not config.standalone:
            self._links = self._make_links()
            self._roster = Roster(
                config, lambda: self.state.tree, self._links, self._hand_over, self._serve_clients_at
            )
            self._fetcher = self._make_fetcher(self._links)
        self.registry = Registry("zoolog_coord_")
        self._viewer.register(self.registry)
        self._disk_watch.register(self.registry)
        self.registry.gauge(
            "feature_level", "Level of the ensemble's features", lambda: self.state.tree.feature_level
        )
        self._nursery: trio.Nursery | None = None
        self._addresses: tuple[tuple[str, int] | None, tuple[str, int] | None] = (None, None)
        self._is_retired = False
        self._is_restored = restored
        self.begins_again = False
        """Set once another state has taken the place of this server's on disk: make a new server for it."""
        self._status_changed = trio.Event()
        self.operators = OperatorPorts(
            config,
            self._viewer,
            AdminCommands(config, self._viewer, clock, last_checkpoint=self._checkpoints.last),
            SnapshotCommands(
                config=config,
                clock=clock,
                state=self.state,
                checkpoints=self._checkpoints,
                directory=directory,
                environments=environments,
                authentication=authentication,
                statistics=self.statistics,
                meters=self.meters,
                rates=rates or Rates(config),
                is_serving=lambda: self.is_serving,
                retire=self._retire,
                restart=self._begin_again,
            ),
            self.registry,
            self.statistics,
            clock,
        )
        self._housekeeping = Housekeeping(
            clock=clock,
            tick_ms=config.tick_ms,
            member=self.member,
            service=self.service,
            authority=self._authority,
            durable_log=self._log,
            directory=directory,
            statistics=self.statistics,
            state=self.state,
            reaper=Reaper(reaper_settings(config.nodes)),
            settle=self._pump_and_flush,
            drain=self.reactor.drain,
            local=self._local,
            end_session=self._end_local_session,
            read_only=self._read_only,
            meters=self.meters,
            disk_watch=self._disk_watch,
            make_room=self._checkpoints.make_room,
        )

    # -- life ----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[tuple[str, int] | None]) -> None:
        """Serves; reports the address of the client port once it listens (else that of the TLS port, else
        None).

        Cancelled, it stops in order: a leader hands over first, then the client port goes, and the log with
        all it was given.

        Raises:
            OSError: a port cannot be listened on.
            HistoryConflictError: the ensemble's history contradicts this server's.
        """
        life = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            task_status.started(await nursery.start(self._live, life, nursery.cancel_scope))
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await self._hand_over_first()
                life.cancel()

    async def _hand_over_first(self) -> None:
        """A leader that stops hands over first, so that nobody has to find out that it is gone."""
        if self._nursery is None or not self.peer.hand_over(self._clock.monotonic_ms()):
            return
        log.info("hands leadership over before it stops")
        with trio.move_on_after(HAND_OVER_SECONDS_MAX):
            while self.member.relay.is_leading:
                self._status_changed = trio.Event()
                self._pump_and_flush()
                if self.member.relay.is_leading:
                    await self._status_changed.wait()

    async def _live(
        self,
        life: trio.CancelScope,
        all_else: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[tuple[str, int] | None],
    ) -> None:
        """All tasks of this server, until `life` is cancelled; ends `all_else` with it."""
        config = self.config
        try:
            address, tls_address = self._addresses = self._listen()
            with life:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    if self._links is not None:
                        await nursery.start(self._links.run)
                    await nursery.start(self.reactor.run)
                    await nursery.start(self.operators.run)
                    nursery.start_soon(self._housekeeping.keep_time)
                    nursery.start_soon(self._housekeeping.keep_house)
                    nursery.start_soon(self._checkpoints.run)
                    nursery.start_soon(self._sliced.run)
                    if self._tls is not None and config.tls.cert_reload:
                        nursery.start_soon(self._tls.watch)
                    lag = self.registry.summary("loop_lag_us", "How late the loop is")
                    lag_ms = self.meters.summaries["jvm_pause_time_ms"]
                    nursery.start_soon(partial(measure_loop_lag, lag, registry=self.registry, lag_ms=lag_ms))
                    nursery.start_soon(
                        tend, self.registry.summary("gc_pause_us", "Pauses for garbage collection")
                    )
                    zxid = hex(self.state.zxid)
                    log.info(
                        "listening", address=address or "", tls=tls_address or "", sid=config.sid, zxid=zxid
                    )
                    if self._audit is not None:
                        self._audit.note_server("serverStart")
                    task_status.started(address or tls_address)
                    self._pump_and_flush()
        finally:
            self._nursery = None
            all_else.cancel()
            self.close()
            if self._audit is not None:
                self._audit.close()

    def config_with_ports(self) -> ServerConfig:
        """The configuration with the ports that the system gave, for a server in this one's place."""
        address, tls_address = self._addresses
        port = self.config.client_port if address is None else address[1]
        secure = self.config.tls.secure_port if tls_address is None else tls_address[1]
        return replace(self.config, client_port=port, tls=replace(self.config.tls, secure_port=secure))

    def _listen(self) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
        """Opens the client port and the TLS port, as far as there are any; their addresses."""
        config, tls = self.config, self.config.tls
        address = tls_address = None
        host, port = config.client_address, config.client_port
        if not config.standalone:
            host, port = client_address(config, members_of(config, self.state.tree))
        if port is not None:
            address = self._listen_at(host, port, tls=tls.port_unification, plain=True)
        if tls.secure_port is not None:
            tls_address = self._listen_at(tls.secure_address, tls.secure_port, tls=True, plain=False)
        return address, tls_address

    def _serve_clients_at(self, host: str, port: int) -> None:
        """The ensemble has given this server another client port; who is connected stays so."""
        old, tls_address = self._addresses
        if old is None or port == old[1]:
            return
        try:
            address = self._listen_at(host, port, tls=self.config.tls.port_unification, plain=True)
        except OSError as error:
            log.error("cannot serve clients there", do="free the port", host=host, port=port, error=error)
            return
        self.reactor.unlisten(old)
        self._addresses = address, tls_address
        log.info("clients are served at another port", address=address, before=old)

    def _listen_at(self, host: str, port: int, *, tls: bool, plain: bool) -> tuple[str, int]:
        context = self._tls.current if tls and self._tls is not None else None
        return self.reactor.listen(
            "" if host == "0.0.0.0" else host,
            port,
            self.service,
            ssl_context=context,
            allows_plain=plain,
            backlog=self.config.listen_backlog,
        )

    def close(self) -> None:
        """Writes what the log was given and lets go of everything. Idempotent."""
        self.reactor.close()
        self._checkpoints.close()
        self._epochs.close()
        if not self._is_closed:
            self._is_closed = True
            log_end = self._log.close()
            if log_end > 0:
                self._save_log_end(log_end)

    def _save_log_end(self, zxid: int) -> None:
        try:
            self._directory.save_log_end(zxid)
        except OSError as error:  # an older note, or none, is as true
            log.warning("the end of the log is not noted", do="look at the disk", error=str(error))

    # -- the centre ----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Hands over what came in, carries out what is owed, queues the answers; until nothing is left."""
        service, relay = self.service, self.member.relay
        service.let_go_on()
        while True:
            if service.has_intake and not relay.should_gather(service.intake_bytes):
                self._submit_intakes()
            self.member.pump()
            if not service.has_intake or relay.should_gather(service.intake_bytes):
                break
        self.answers.send_owed()
        self.flush_links()
        self._housekeeping.on_settled()

    def _pump_and_flush(self) -> None:
        """For tasks outside the reactor's tick."""
        self.settle()
        self.reactor.flush()

    def _is_busy(self) -> bool:
        return self.member.relay.is_busy or self._log.queued_bytes > LOG_QUEUE_BUSY_BYTES

    # -- Sessions, for the handshake -----------------------------------------------------------------------

    @property
    def is_serving(self) -> bool:
        return self.member.status.serving and not self._is_retired

    @property
    def is_read_only(self) -> bool:
        return self._read_only.is_on

    def _admits_handshake(self, renews: bool) -> bool:
        if self._throttle.admits(renews=renews, now_ms=self._clock.monotonic_ms()):
            self.meters.note("connection_token_deficit", self._throttle.deficit)
            return True
        self.statistics.handshakes -= 1
        self.statistics.connections_refused += 1
        self.statistics.limits.connection_throttled += 1
        return False

    def create_session(self, session_id: int, timeout_ms: int, password: bytes) -> None:
        self.service.add_write(session_id, CREATE_SESSION, encode_create_session(timeout_ms, password))

    def attach_session(
        self, session_id: int, timeout_ms: int, password: bytes, done: Callable[[bool], None]
    ) -> None:
        self._submit_intakes()
        self.member.relay.attach(session_id, timeout_ms, password, done)

    def await_own_writes(self, done: Callable[[], None]) -> None:
        if not self.is_serving:
            done()
            return
        self._submit_intakes()
        self.member.relay.sync(done)

    def _submit_intakes(self) -> None:
        for intake in self.service.take_intakes():
            self.member.relay.submit(intake)

    # -- Audience, for the replica -------------------------------------------------------------------------

    def on_session_created(self, session_id: int, timeout_ms: int, *, own: bool) -> None:
        if self.member.relay.is_leading:
            self._authority.on_created(session_id, timeout_ms, self._clock.monotonic_ms())
        if own:
            if self._local is not None:
                self._local.remove(session_id)
            self._handshake.on_created(session_id)

    def on_session_closed(self, session_id: int) -> None:
        if self.member.relay.is_leading:
            self._authority.on_closed(session_id)

    def on_own_block_executed(self) -> None:
        count, waited_ms = self.member.relay.on_own_block_executed()
        self.statistics.note_latency(count, waited_ms)
        self.meters.note_updates(count, waited_ms)

    # -- World, for the member -----------------------------------------------------------------------------

    def send(self, sid: int, frame: Frame) -> None:
        if self._links is not None:
            self._links.send(sid, frame)

    def flush_links(self) -> None:
        if self._links is not None:
            self._links.flush()

    def append(self, proposal: Proposal, committed_zxid: int) -> None:
        self._log.append(proposal, committed_zxid)

    def truncate_above(self, zxid: int) -> None:
        self._log.truncate_above(zxid)

    def persist_epochs(self, epochs: Epochs) -> None:
        self._epochs.persist(epochs)

    def install_snapshot(self, sid: int) -> None:
        assert self._nursery is not None
        assert self._fetcher is not None
        self._fetcher.start(self._nursery, sid)

    def cancel_install(self) -> None:
        if self._fetcher is not None:
            self._fetcher.cancel()

    def serve_snapshot(self, order: SnapshotOrder) -> None:
        self._sender.order(order)

    def cancel_snapshot(self, sid: int) -> None:
        self._sender.cancel(sid)

    def on_status(self, status: Status) -> None:
        self._status_changed.set()
        if status.role is Role.LOOKING:
            self._read_only.on_looking(self._clock.monotonic_ms())
        elif self._read_only.on_leader():
            log.info("no longer read-only: there is a leader", leader=status.leader)
            self.service.close_all("read-only mode is over")

    def on_members_changed(self) -> None:
        if self._roster is not None:
            self._roster.refresh()

    def _hand_over(self) -> None:
        self.peer.hand_over(self._clock.monotonic_ms())

    def on_serving(self, status: Status) -> None:
        """From now on the handshake lets clients in."""
        if status.role is Role.LEADING:
            self._disk_watch.on_leading(self._clock.monotonic_ms())
            self.member.relay.orders.propose_members_of_file()
        if self._is_restored and self.member.relay.is_leading:
            # A transaction of the new epoch: zxids that clients have seen of the old state are below it.
            self._is_restored = False
            self.member.relay.orders.close_sessions([0])
        if self._local is not None:
            self._local.restart(self._clock.monotonic_ms())

    def _retire(self) -> None:
        """Another state takes this one's place: nobody is acknowledged anything any more."""
        self._is_retired = True
        self.service.close_all("the state is restored from a snapshot")
        self._pump_and_flush()

    def _begin_again(self) -> None:
        self.begins_again = True
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def on_resting(self) -> None:
        self.state.forget_watches()
        self.service.close_all("this server is out of service")

    def _on_group(self, elapsed_ms: int, records: int) -> None:
        self.meters.note_group(elapsed_ms, records)
        self._disk_watch.note(elapsed_ms, self._clock.monotonic_ms())
        self._slow_fsyncs.note(elapsed_ms, records)

    # -- events of the disk --------------------------------------------------------------------------------

    def _on_log_reports(self, reports: list[LogReport]) -> None:
        """In the reactor's tick, whose end settles."""
        logged = 0
        for report in reports:
            if report.is_cut:
                if logged:
                    self.peer.logged(logged)
                self.peer.truncated(report.zxid)
                logged = 0
            else:
                logged = report.zxid
        if logged:
            self.peer.logged(logged)

    def _on_epochs_saved(self, epochs: Epochs) -> None:
        self.peer.epochs_persisted(epochs.accepted, epochs.current, self._clock.monotonic_ms())

    def _on_snapshot_installed(self, installed: Installed[DataTree]) -> None:
        """The new generation is current: its log begins, its tree is in use, and only now Zab is told."""
        self._log.replace(lambda: begin_log(self._directory, installed.zxid, self._log_options))
        store = CheckpointStore(self._directory.disk, self._directory.checkpoint_path(), self._environments)
        store.zxid = installed.zxid
        self._checkpoints.replace(store, self._make_checkpointer(store))
        self.service.close_all("another state is in use")  # those of read-only mode lose their watches
        self.state.replace(installed.state)
        log.info("has a snapshot's state", zxid=hex(installed.zxid), nodes=len(installed.state.nodes))
        self.on_members_changed()
        membership = membership_of(self.config, self.state.tree)
        self.peer.snapshot_installed(installed.zxid, membership, self._clock.monotonic_ms())
        self._pump_and_flush()

    def _on_snapshot_aborted(self) -> None:
        self.peer.snapshot_aborted(self._clock.monotonic_ms())
        self._pump_and_flush()

    # -- parts ---------------------------------------------------------------------------------------------

    def _make_local_sessions(self) -> LocalSessions | None:
        """None where all sessions are global; a standalone server's are (specification 4.7)."""
        settings = self.config.sessions
        if self.config.standalone or not settings.local_sessions:
            return None
        return LocalSessions(self.config.tick_ms, upgrades=settings.local_sessions_upgrade)

    def _end_local_session(self, session_id: int) -> None:
        client = self._handshake.attached.get(session_id)
        if client is not None:
            self.answers.close(client, "its session has expired")

    def _make_checkpointer(self, store: CheckpointStore) -> Checkpointer:
        return Checkpointer(store, self._clock, self._checkpoint_wakeup.set)

    def _has_checkpoint(self, zxid: int) -> bool:
        if self._checkpoints.store.zxid >= zxid:
            return True
        self._checkpoints.want()
        return False

    def _make_changes(self) -> Changes:
        config = self.config
        return Changes(
            tree=lambda: self.state.tree,
            ensemble=self.peer,
            configured=Members.of_config(config),
            standalone=config.standalone,
            checkpoint=self._has_checkpoint,
            enabled=config.ensemble.reconfig_enabled,
            voters_min=2 if config.ensemble.standalone_enabled else 1,
            several_addresses=config.ensemble.several_addresses,
            skip_acl=config.security.skip_acl,
        )

    def _make_links(self) -> PeerLinks:
        config = self.config
        members = members_of(config, self.state.tree)
        mine = own_address(config, members)
        identity = LinkIdentity(
            config.ensemble_id,
            config.ensemble_secret,
            config.sid,
            addresses_of(config, members),
            takes_strangers=config.ensemble.reconfig_enabled,
        )
        return PeerLinks(
            identity,
            listen_addresses(config, members),
            _LinkEvents(self),
            self._sender.serve,
            os.urandom,
            is_busy=lambda: self._log.queued_bytes > LOG_QUEUE_LINKS_BYTES,
            election_port=mine.election_port,
            contexts=make_peer_contexts(config.ensemble),
        )

    def _make_fetcher(self, links: PeerLinks) -> SnapshotFetcher:
        token = self.reactor
        pending: list[Callable[[], None]] = []

        def run_pending() -> None:
            while pending:
                pending.pop(0)()

        wakeup = token.wakeup(run_pending)

        def run_soon(callback: Callable[[], None]) -> None:
            pending.append(callback)
            wakeup.set()

        return SnapshotFetcher(
            links=links,
            directory=self._directory,
            environments=self._environments,
            kind=self._kind,
            run_soon=run_soon,
            on_progress=lambda: self.peer.snapshot_progress(self._clock.monotonic_ms()),
            on_installed=self._on_snapshot_installed,
            on_aborted=self._on_snapshot_aborted,
        )


class _LinkEvents:
    """What the links report, for the member; each round ends with a settled server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.on_frame = server.member.on_frame

    def on_connected(self, sid: int) -> None:
        self._server.member.on_connected(sid)
        self._server._pump_and_flush()

    def on_disconnected(self, sid: int) -> None:
        self._server.member.on_disconnected(sid)
        self._server._pump_and_flush()

    def on_frames_end(self) -> None:
        self._server._pump_and_flush()


async def serve(
    config: ServerConfig,
    *,
    clock: Clock = SYSTEM_CLOCK,
    task_status: trio.TaskStatus[tuple[str, int] | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs a coordination server until cancelled; what it acknowledged is durable whatever happens.

    Args:
        config: from `load_config`.
        task_status: gets the (host, port) of the client port once it listens; without one that of the TLS
            port, without either None.

    Raises:
        DataDirectoryError, RecoveryError, LogDamagedError: it must not start from what is on disk.
        DiskLockedError: another server runs on the directory.
        ConfigError: a file that the configuration names cannot be used.
        OSError: a port is taken, or the disk failed.
        HistoryConflictError: the ensemble's history contradicts this server's.
    """
    if config.unknown_keys or config.keys_without_effect:
        log.warning(
            "keys that mean nothing here",
            do="remove them",
            unknown=" ".join(config.unknown_keys),
            without_effect=" ".join(config.keys_without_effect),
        )
    for warning in config.warnings:
        log.warning("configuration", what=warning)
    check_directories_exist(config)
    directory = open_data_directory(RealDisk(), config.data_dir, config.data_log_dir)
    rates = Rates(config)
    try:
        server = Server(config, directory, LmdbEnvironments(), clock, rates)
        await server.run(task_status=task_status)
    finally:
        directory.close()
    while server.begins_again:
        config = server.config_with_ports()
        directory = open_data_directory(RealDisk(), config.data_dir, config.data_log_dir)
        try:
            server = Server(config, directory, LmdbEnvironments(), clock, rates, restored=True)
            await server.run(task_status=trio.TASK_STATUS_IGNORED)
        finally:
            directory.close()
