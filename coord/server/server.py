"""A coordination server: its sides, put together, and its life.

    clients       service -> handshake, answers           what clients ask, in ticks of the reactor
    member        relay -> peer (Zab)                     how it is agreed on
    replica       state (tree, watches)                   how it is executed, and answered in order
    persistence   log, epochs, checkpoints                how it becomes durable
    peers         links, roster, snapshots                how it reaches the others
    operators     words, admin server, metrics            what can be seen of it
    housekeeping                                          beside the loop, by the clock

Everything between two waits happens in `Server.settle`: it hands over what came in, lets the member carry
out what is owed, and queues the answers. The reactor runs it at the end of each tick; other tasks run it,
and flush the reactor, after they have changed something.
"""

from typing import Final

import trio

from coord import eventlog
from coord.clock import Clock
from coord.server.admin.snapshots import Rates
from coord.server.audit import open_audit
from coord.server.authority import Authority
from coord.server.client_ports import ClientPorts
from coord.server.clients import Clients
from coord.server.config import ServerConfig
from coord.server.housekeeping import Housekeeping
from coord.server.member import Member
from coord.server.meters import Meters
from coord.server.operators import Operators
from coord.server.peers import NoPeers
from coord.server.persistence import Persistence
from coord.server.policy import policy_word, reaper_settings
from coord.server.reaper import Reaper
from coord.server.replica import Replica
from coord.server.startup import make_changes
from coord.server.statistics import ServerStatistics
from coord.server.surroundings import REAL, OtherServers, Surroundings
from coord.server.tls import ClientTls
from coord.storage import DataDirectory, Environments
from coord.zab import Role, Status

log = eventlog.get("coord.server")

HAND_OVER_SECONDS_MAX: Final = 1.0
"""How long a leader that stops waits for a follower to take over."""


class Server:
    """One server on an open data directory; `run` serves until cancelled.

    It is `Standing` for the member.

    Args:
        rates: how often snapshots may be taken and restored; they outlive a server that begins again.
        restored: whether it begins again, with a state that was restored from a snapshot.
        surroundings: everything else that it stands on.
        repaired_batches: how many batches of the log this process has got back from peers.
    """

    def __init__(
        self,
        config: ServerConfig,
        directory: DataDirectory,
        environments: Environments,
        clock: Clock,
        rates: Rates,
        *,
        restored: bool = False,
        surroundings: Surroundings = REAL,
        repaired_batches: int = 0,
    ) -> None:
        self._config = config
        self._clock = clock
        self._is_restored = restored
        self._surroundings = surroundings
        self.begins_again = False
        """Set once something else has taken the place of what this server began with: make a new server for
        it.
        """
        self.leaves_restored = False
        """It is a state that was restored from a snapshot."""
        self._nursery: trio.Nursery | None = None
        self._status_changed = trio.Event()
        security = config.security
        self._audit = open_audit(security.audit_file, clock) if security.audit_enabled else None
        self._tls = ClientTls(config.tls) if config.tls.is_wanted else None
        self._reactor = surroundings.make_reactor(config, clock)
        self._statistics = ServerStatistics()
        self._statistics.repaired_batches = repaired_batches
        self._meters = Meters()
        self._persistence = Persistence(
            config,
            directory,
            environments,
            clock,
            self._reactor,
            self._meters,
            log_options=surroundings.log_options,
        )
        state = self._persistence.state
        self._authority = Authority(config.tick_ms, state.find_password, state.count_ephemerals)
        self._clients = Clients(
            config,
            self._persistence,
            clock,
            self._statistics,
            self._meters,
            authority=self._authority,
            member=lambda: self._member,
            answer_word=lambda conn, word, argument: self._operators.words.answer(conn, word, argument),
            settle=self.settle,
            make_random=surroundings.make_random,
        )
        self._service, self._answers = self._clients.service, self._clients.answers
        self._ports = ClientPorts(config, self._reactor, self._service, state, self._tls)
        self._peers = NoPeers() if config.standalone else self._make_peers()
        self._member = self._make_member()
        self._operators = Operators(
            config,
            self._persistence,
            clock,
            self._reactor,
            self._statistics,
            self._meters,
            authority=self._authority,
            clients=self._clients,
            member=self._member,
            rates=rates,
            retire=self._retire,
            restart=self._begin_restored,
        )
        self._housekeeping = self._make_housekeeping()

    # -- parts ---------------------------------------------------------------------------------------------

    def _make_peers(self) -> OtherServers:
        return self._surroundings.make_peers(
            self._config,
            self._persistence,
            self._clock,
            self._reactor,
            self._statistics,
            self._meters,
            user=_LinkEvents(self),
            settle=self._settle_and_flush,
            close_clients=self._service.close_all,
            serve_at=self._ports.serve_at,
            begin_again=self._begin_repaired,
        )

    def _make_member(self) -> Member:
        config, persistence = self._config, self._persistence
        state, peer = persistence.state, persistence.peer
        replica = Replica(
            sid=config.sid,
            state=state,
            answers=self._answers,
            attached=self._clients.handshake.attached,
            statistics=self._statistics,
            meters=self._meters,
            audience=self._clients,
            skip_acl=config.security.skip_acl,
            audit=self._audit,
        )
        return Member(
            sid=config.sid,
            clock=self._clock,
            peer=peer,
            replica=replica,
            authority=self._authority,
            sessions=state.session_timeouts,
            disk=persistence,
            network=self._peers,
            standing=self,
            hand_in=self._hand_in,
            policy=policy_word(config),
            meters=self._meters,
            changes=make_changes(config, state, peer, persistence.checkpoints.reaches),
        )

    def _make_housekeeping(self) -> Housekeeping:
        return Housekeeping(
            clock=self._clock,
            tick_ms=self._config.tick_ms,
            persistence=self._persistence,
            clients=self._clients,
            member=self._member,
            authority=self._authority,
            statistics=self._statistics,
            meters=self._meters,
            reaper=Reaper(reaper_settings(self._config.nodes)),
            settle=self._settle_and_flush,
            drain=self._reactor.drain,
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
        if self._nursery is None or not self._member.peer.hand_over(self._clock.monotonic_ms()):
            return
        log.info("hands leadership over before it stops")
        with trio.move_on_after(HAND_OVER_SECONDS_MAX):
            while self._member.relay.is_leading:
                self._status_changed = trio.Event()
                self._settle_and_flush()
                if self._member.relay.is_leading:
                    await self._status_changed.wait()

    async def _live(
        self,
        life: trio.CancelScope,
        all_else: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[tuple[str, int] | None],
    ) -> None:
        """All tasks of this server, until `life` is cancelled; ends `all_else` with it."""
        ports = self._ports
        try:
            ports.listen()
            with life:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self._peers.start_in(nursery)
                    await nursery.start(self._reactor.run)
                    await self._operators.start_in(nursery)
                    nursery.start_soon(self._housekeeping.keep_time)
                    nursery.start_soon(self._housekeeping.keep_house)
                    nursery.start_soon(self._persistence.checkpoints.run)
                    if self._tls is not None and self._config.tls.cert_reload:
                        nursery.start_soon(self._tls.watch)
                    log.info(
                        "listening",
                        address=ports.plain_address or "",
                        tls=ports.tls_address or "",
                        sid=self._config.sid,
                        zxid=hex(self._persistence.state.zxid),
                    )
                    if self._audit is not None:
                        self._audit.note_server("serverStart")
                    task_status.started(ports.plain_address or ports.tls_address)
                    self._settle_and_flush()
        finally:
            self._nursery = None
            all_else.cancel()
            self._close()

    @property
    def repaired_batches(self) -> int:
        """For a server in this one's place."""
        return self._statistics.repaired_batches

    def config_with_ports(self) -> ServerConfig:
        """The configuration with the ports that the system gave, for a server in this one's place."""
        return self._ports.config_with_ports()

    def _close(self) -> None:
        """Writes what the log was given and lets go of everything."""
        self._reactor.close()
        self._persistence.close()
        if self._audit is not None:
            self._audit.close()

    # -- the centre ----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Hands over what came in, carries out what is owed, queues the answers; until nothing is left."""
        self._service.let_go_on()
        while True:
            self._member.pump()
            self._peers.flush()  # they work while this disk does
            if not self._persistence.write_log():
                break
        self._answers.send_owed()
        self._housekeeping.on_settled()

    def _hand_in(self) -> None:
        service = self._service
        if service.has_intake and not self._member.relay.should_gather(service.intake_bytes):
            self._clients.submit_intakes()

    def _settle_and_flush(self) -> None:
        """For tasks outside the reactor's tick."""
        self.settle()
        self._reactor.flush()

    # -- Standing, for the member --------------------------------------------------------------------------

    def on_status(self, status: Status) -> None:
        self._status_changed.set()
        self._clients.on_status(status)

    def on_serving(self, status: Status) -> None:
        """From now on the handshake lets clients in."""
        orders = self._member.relay.orders
        if status.role is Role.LEADING:
            self._persistence.disk_watch.on_leading(self._clock.monotonic_ms())
            orders.propose_members_of_file()
        if self._is_restored and self._member.relay.is_leading:
            # A transaction of the new epoch: zxids that clients have seen of the old state are below it.
            self._is_restored = False
            orders.close_sessions([0])
        self._clients.on_serving()

    def on_resting(self) -> None:
        self._clients.on_resting()

    def on_members_changed(self) -> None:
        self._peers.refresh()

    # -- another server in this one's place ----------------------------------------------------------------

    def _retire(self) -> None:
        self._clients.retire()
        self._settle_and_flush()

    def _begin_restored(self) -> None:
        self.leaves_restored = True
        self._begin_again()

    def _begin_repaired(self, batches: int) -> None:
        self._statistics.repaired_batches += batches
        self._begin_again()

    def _begin_again(self) -> None:
        self.begins_again = True
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()


class _LinkEvents:
    """What the links report, for the member; each round ends with a settled server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def on_connected(self, sid: int) -> None:
        self._server._member.on_connected(sid)
        self._server._settle_and_flush()

    def on_disconnected(self, sid: int) -> None:
        self._server._member.on_disconnected(sid)
        self._server._settle_and_flush()

    def on_frame(self, sid: int, code: int, header: bytes, body: memoryview) -> None:
        self._server._member.on_frame(sid, code, header, body)

    def on_frames_end(self) -> None:
        self._server._settle_and_flush()
