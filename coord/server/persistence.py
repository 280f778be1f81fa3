"""What a server has on its disk, and what the disk says back: state, log, epochs, checkpoints.

Opening it is how a server comes to its state and to Zab's peer, which begins from what was logged. From then
on the member hands things out to be made durable (`coord.server.member.Disk`), and each completion comes back
as an event in the reactor's tick, for the peer; the tick's end settles the server.
"""

from collections.abc import Callable

from coord import eventlog
from coord.clock import Clock
from coord.gc import paused as collections_paused
from coord.log import LogDamagedError, fail_stop
from coord.protocol.batch import SEALED_LOG_LEVEL
from coord.reactor import Reactor
from coord.server.agreement import Agreement
from coord.server.checkpoints import Checkpoints
from coord.server.config import PeerAddress, ServerConfig
from coord.server.disk_watch import DiskWatch
from coord.server.durable import DurableEpochs, DurableLog, LogReport
from coord.server.members import members_in
from coord.server.meters import Meters
from coord.server.retention import Retention
from coord.server.slowness import SlowFsyncs
from coord.server.startup import check_level, make_peer, membership_of, report_recovery
from coord.server.state import State
from coord.server.tree_kind import TreeKind
from coord.storage import (
    Checkpointer,
    CheckpointSchedule,
    CheckpointStore,
    DataDirectory,
    Divergence,
    Environments,
    Installed,
    LoggedBatch,
    LogOptions,
    LostLog,
    RecoveredState,
    RestoredBatch,
    begin_log,
    forget_divergence,
    note_divergence,
    open_state,
    read_divergence,
    restore,
    salvage,
)
from coord.tree import DataTree
from coord.zab import Epochs, Mismatch, Proposal, Sid

log = eventlog.get("coord.server")


class Persistence:
    """Opens the data directory's state.

    Args:
        log_options: given what to call when the log has something to report. Without a thread for the log
            there are none for epochs and checkpoints either, as a simulation wants it.

    Raises:
        RecoveryError, LogDamagedError: it must not start from what is on disk.
        FeatureLevelError: the state is of a later release.
    """

    def __init__(
        self,
        config: ServerConfig,
        directory: DataDirectory,
        environments: Environments,
        clock: Clock,
        reactor: Reactor,
        meters: Meters,
        *,
        log_options: Callable[[Callable[[], None]], LogOptions] = LogOptions,
    ) -> None:
        check_level(directory, directory.level)  # before anything there is taken for damaged
        self.directory = directory
        self.environments = environments
        self.kind = TreeKind()
        self._clock = clock
        self._meters = meters
        self._log_options = log_options(reactor.wakeup(lambda: self.log.on_log_report()).set)
        epochs_wakeup = reactor.wakeup(lambda: self._epochs.on_epochs_report())
        self._checkpoint_wakeup = reactor.wakeup(lambda: self.checkpoints.on_report())
        begun_ms = clock.monotonic_ms()
        with collections_paused():
            recovered = open_state(
                directory,
                environments,
                self.kind,
                self._log_options,
                standalone=config.standalone,
                has_peers=len(config.servers) > 1,
            )
        report_recovery(recovered)
        meters.note("dbinittime", clock.monotonic_ms() - begun_ms)
        self._restored: list[RestoredBatch] | None = None
        self.lost_log: LostLog | None = None
        """What is left of the log that was lost; of use while `directory.loss` says so."""
        self.voters_seen: frozenset[Sid] = frozenset()
        """All that had a vote at some time, by the state and by what is left of the log."""
        self.peers_seen: tuple[PeerAddress, ...] = ()
        """Members by what is left of the log, each with its last address: they may have what is missing."""
        if recovered.history_lost:
            self._salvage(config, recovered)
        self.state = State(recovered.state)
        self.disk_watch = DiskWatch(config.ensemble.slow_disk_ms)
        self.slow_fsyncs = SlowFsyncs(config.storage.fsync_warning_ms, clock)
        self._log_generation = directory.log_generation
        self.log = DurableLog(recovered.log, self._on_log_reports, self._on_group, directory.forget_log_end)
        self._epochs = DurableEpochs(
            directory, epochs_wakeup.set, self._on_epochs_saved, threaded=self._log_options.threaded
        )
        self.peer = make_peer(
            config, recovered, directory, clock.monotonic_ms(), diverged=self._read_divergence(config)
        )
        self.checkpoints = Checkpoints(
            clock=clock,
            state=self.state,
            store=recovered.store,
            durable_log=self.log,
            schedule=CheckpointSchedule(transactions_min=config.snap_count),
            checkpointer=self._make_checkpointer(recovered.store),
            meters=meters,
            retention=Retention(
                config.checkpoint_retain_count, config.purge_interval_hours, clock.monotonic_ms()
            ),
            agreement=Agreement(self.peer),
        )

    def _read_divergence(self, config: ServerConfig) -> Mismatch | None:
        found = read_divergence(self.directory)
        if found is None or config.standalone:
            return None
        log.error(
            "this server's state differed from a majority's: out of service until it has another",
            do="nothing: it fetches the state from its leader",
            zxid=hex(found.zxid),
            digest=f"{found.digest:016x}",
            majority=f"{found.agreed:016x}",
        )
        return Mismatch(Sid(config.sid), found.zxid, found.digest, found.agreed)

    def _salvage(self, config: ServerConfig, recovered: RecoveredState[DataTree]) -> None:
        voters = set(membership_of(config, recovered.state).participants)
        peers: dict[int, PeerAddress] = {}

        def see(batch: LoggedBatch) -> None:
            members = members_in(batch.payload)
            if members is not None:
                voters.update(members.membership().participants)
                peers.update({peer.sid: peer for peer in members.servers})

        self.lost_log = salvage(self.directory, recovered.store.zxid, see)
        self.voters_seen = frozenset(voters)
        self.peers_seen = tuple(peers.values())

    def write_log(self) -> bool:
        """`DurableLog.write`. Beside a checkpoint a disk that was quick may stand still for a moment; the
        loop does not wait for it then.
        """
        return self.log.owes and self.log.write(in_loop=not self.checkpoints.is_under_way)

    def close(self) -> None:
        """Writes what the log was given, notes where it ends, and lets go of everything. A log that was
        repaired takes the place of the one in use.
        """
        self.checkpoints.close()
        self._epochs.close()
        log_end = self.log.close()
        is_in_use = self.directory.log_generation == self._log_generation  # not so when a state is restored
        if log_end > 0 and is_in_use:
            self._save_log_end(log_end)
        if self._restored is not None and self.directory.lost_log_path() is not None:
            self._restore(self._restored)

    def restore_when_closed(self, history: list[RestoredBatch]) -> None:
        """The log that was lost is whole with this: the next server begins with it."""
        self._restored = history

    def _restore(self, history: list[RestoredBatch]) -> None:
        assert self.lost_log is not None
        try:
            restore(self.directory, self.lost_log, history, self._log_options)
        except LogDamagedError as error:  # the next server will find what is missing now
            log.error("the repaired log is not written", do="look at the disk of dataLogDir", error=error)

    def _save_log_end(self, zxid: int) -> None:
        try:
            self.directory.save_log_end(zxid)
        except OSError as error:  # an older note, or none, is as true
            log.warning("the end of the log is not noted", do="look at the disk", error=str(error))

    # -- Disk, for the member ------------------------------------------------------------------------------

    def append(self, proposal: Proposal, committed_zxid: int) -> None:
        level = self.state.tree.feature_level
        if level >= SEALED_LOG_LEVEL:
            if self.directory.level < level:
                self._raise_level(level)
            self.log.seal()
        self.log.append(proposal, committed_zxid)

    def _raise_level(self, level: int) -> None:
        """Two syncs in the loop, once in the life of a directory."""
        try:
            self.directory.raise_level(level)
        except OSError as error:
            fail_stop(error, "the data directory")

    def truncate_above(self, zxid: int) -> None:
        self.log.truncate_above(zxid)

    def persist_epochs(self, epochs: Epochs) -> None:
        self._epochs.persist(epochs)

    def note_divergence(self, found: Mismatch) -> None:
        """Stands in the loop until it is durable: nobody is served any more."""
        try:
            note_divergence(self.directory, Divergence(found.zxid, found.digest, found.agreed))
        except OSError as error:  # it is out of service all the same, until it restarts
            log.error("that its state is wrong is not noted", do="do not restart this server", error=error)

    # -- another state in this one's place -----------------------------------------------------------------

    def replace(self, installed: Installed[DataTree]) -> None:
        """The snapshot's generation is current on disk: its log begins, and checkpoints go there. The state
        in use stays what it is.
        """
        self.log.replace(lambda: begin_log(self.directory, installed.zxid, self._log_options))
        self._log_generation = self.directory.log_generation
        self._forget_divergence()
        store = CheckpointStore(self.directory.disk, self.directory.checkpoint_path(), self.environments)
        store.zxid = installed.zxid
        self.checkpoints.replace(store, self._make_checkpointer(store))

    def _forget_divergence(self) -> None:
        try:
            forget_divergence(self.directory)
        except OSError as error:  # it names another generation, and the next start removes it
            log.warning("a note on an older state is left", do="look at the disk", error=error)

    def _make_checkpointer(self, store: CheckpointStore) -> Checkpointer:
        return Checkpointer(
            store, self._clock, self._checkpoint_wakeup.set, threaded=self._log_options.threaded
        )

    # -- events of the disk --------------------------------------------------------------------------------

    def _on_log_reports(self, reports: list[LogReport]) -> None:
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

    def _on_group(self, elapsed_ms: int, records: int) -> None:
        self._meters.note_group(elapsed_ms, records)
        self.disk_watch.note(elapsed_ms, self._clock.monotonic_ms())
        self.slow_fsyncs.note(elapsed_ms, records)

    def _on_epochs_saved(self, epochs: Epochs) -> None:
        self.peer.epochs_persisted(epochs.accepted, epochs.current, self._clock.monotonic_ms())
