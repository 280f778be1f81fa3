"""The other servers of the ensemble: links to them, who they are, and whole states that are fetched and sent.

`Peers` is what the member sends with (`coord.server.member.Network`); a standalone server has `NoPeers` in
its place.
"""

import os
from collections.abc import Callable
from typing import Final

import trio

from coord import eventlog
from coord.clock import Clock
from coord.reactor import Reactor
from coord.server.config import ServerConfig
from coord.server.giving import LogGiver
from coord.server.greeting import LinkIdentity
from coord.server.link import Frame, LinkUser
from coord.server.links import PeerLinks
from coord.server.meters import Meters
from coord.server.peer_tls import make_peer_contexts
from coord.server.persistence import Persistence
from coord.server.repairing import LogRepairer
from coord.server.roster import Roster, addresses_of, listen_addresses, own_address
from coord.server.snapshots import SnapshotFetcher, SnapshotSender
from coord.server.startup import members_of, membership_of
from coord.server.statistics import ServerStatistics
from coord.storage import Installed
from coord.tree import DataTree
from coord.zab import SnapshotOrder

LOG_QUEUE_BYTES_MAX: Final = 128 << 20
"""Bytes that wait for the disk at which peers are not read: a follower with a slow disk falls behind, and out
of the ensemble, before its log's queue is full.
"""

log = eventlog.get("coord.server")


class Peers:
    """Those of one server.

    Args:
        user: what the links report to.
        settle: to be called after anything was changed; sends too.
        close_clients: ends all connections of clients, and says why.
        serve_at: called with the (host, port) for clients that this server has got.
        begin_again: ends this server and begins another on the same directory, whose log is repaired; it is
            told how many batches are the peers'.

    Raises:
        ConfigError: the files for TLS between the servers cannot be used.
    """

    def __init__(
        self,
        config: ServerConfig,
        persistence: Persistence,
        clock: Clock,
        reactor: Reactor,
        statistics: ServerStatistics,
        meters: Meters,
        *,
        user: LinkUser,
        settle: Callable[[], None],
        close_clients: Callable[[str], None],
        serve_at: Callable[[str, int], None],
        begin_again: Callable[[int], None],
    ) -> None:
        self._config = config
        self._persistence = persistence
        self._clock = clock
        self._peer = persistence.peer
        self._state = persistence.state
        self._settle = settle
        self._close_clients = close_clients
        self._sender = SnapshotSender(persistence.checkpoints, statistics, meters)
        self._giver = LogGiver(persistence, statistics)
        self._links = self._make_links(reactor, user)
        self._roster = Roster(config, lambda: self._state.tree, self._links, self._hand_over, serve_at)
        self._fetcher = SnapshotFetcher(
            links=self._links,
            directory=persistence.directory,
            environments=persistence.environments,
            kind=persistence.kind,
            run_soon=_caller_from_threads(reactor),
            on_progress=lambda: self._peer.snapshot_progress(clock.monotonic_ms()),
            on_installed=self._on_installed,
            on_aborted=self._on_aborted,
        )
        self._repairer = LogRepairer(config.sid, persistence, self._links, begin_again)
        self._nursery: trio.Nursery | None = None

    def _make_links(self, reactor: Reactor, user: LinkUser) -> PeerLinks:
        config, durable_log = self._config, self._persistence.log
        members = members_of(config, self._state.tree)
        identity = LinkIdentity(
            config.ensemble_id,
            config.ensemble_secret,
            config.sid,
            addresses_of(config, members, self._persistence.peers_seen),
            takes_strangers=config.ensemble.reconfig_enabled,
        )
        return PeerLinks(
            identity,
            listen_addresses(config, members),
            reactor,
            user,
            self._sender.serve,
            self._giver.serve,
            os.urandom,
            is_busy=lambda: durable_log.queued_bytes > LOG_QUEUE_BYTES_MAX,
            election_port=own_address(config, members).election_port,
            contexts=make_peer_contexts(config.ensemble),
            clock=self._clock,
        )

    async def start_in(self, nursery: trio.Nursery) -> None:
        """Listens and dials until the nursery is cancelled.

        Raises:
            ListenError: the quorum port cannot be listened on.
        """
        self._nursery = nursery
        await nursery.start(self._links.run)
        nursery.start_soon(self._repairer.run)

    def refresh(self) -> None:
        """The state may hold other members than before."""
        self._roster.refresh()

    def _hand_over(self) -> None:
        self._peer.hand_over(self._clock.monotonic_ms())

    # -- Network, for the member ---------------------------------------------------------------------------

    def send(self, sid: int, frame: Frame) -> None:
        self._links.send(sid, frame)

    def flush(self) -> None:
        self._links.flush()

    def install_snapshot(self, sid: int) -> None:
        assert self._nursery is not None
        self._fetcher.start(self._nursery, sid)

    def cancel_install(self) -> None:
        self._fetcher.cancel()

    def serve_snapshot(self, order: SnapshotOrder) -> None:
        self._sender.order(order)

    def cancel_snapshot(self, sid: int) -> None:
        self._sender.cancel(sid)

    # -- a snapshot that was fetched -----------------------------------------------------------------------

    def _on_installed(self, installed: Installed[DataTree]) -> None:
        """The new generation is current: its log begins, its tree is in use, and only now Zab is told."""
        self._persistence.replace(installed)
        self._close_clients("another state is in use")  # those of read-only mode lose their watches
        self._state.replace(installed.state)
        log.info("has a snapshot's state", zxid=hex(installed.zxid), nodes=len(installed.state.nodes))
        self.refresh()
        membership = membership_of(self._config, self._state.tree)
        self._peer.snapshot_installed(installed.zxid, membership, self._clock.monotonic_ms())
        self._settle()

    def _on_aborted(self) -> None:
        self._peer.snapshot_aborted(self._clock.monotonic_ms())
        self._settle()


class NoPeers:
    """A standalone server's: nobody is told anything, and nobody has a state to fetch."""

    async def start_in(self, nursery: trio.Nursery) -> None:
        pass

    def refresh(self) -> None:
        pass

    def send(self, sid: int, frame: Frame) -> None:
        pass

    def flush(self) -> None:
        pass

    def install_snapshot(self, sid: int) -> None:
        raise AssertionError(f"a standalone server should fetch a snapshot from {sid}")

    def cancel_install(self) -> None:
        pass

    def serve_snapshot(self, order: SnapshotOrder) -> None:
        raise AssertionError(f"a standalone server should send a snapshot to {order.sid}")

    def cancel_snapshot(self, sid: int) -> None:
        pass


def _caller_from_threads(reactor: Reactor) -> Callable[[Callable[[], None]], None]:
    """A way for threads to have something called in one of the reactor's next ticks."""
    pending: list[Callable[[], None]] = []

    def run_pending() -> None:
        while pending:
            pending.pop(0)()

    wakeup = reactor.wakeup(run_pending)

    def run_soon(callback: Callable[[], None]) -> None:
        pending.append(callback)
        wakeup.set()

    return run_soon
