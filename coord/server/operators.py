"""The operators' side of a server: what it shows of itself, and the commands it takes over HTTP.

Four-letter words come in on the clients' ports and are answered by `words`; the admin server and the page for
Prometheus have ports of their own.
"""

from collections.abc import Callable
from functools import partial

import trio

from coord.clock import Clock
from coord.gc import tend
from coord.looplag import measure_loop_lag
from coord.metrics import Registry
from coord.reactor import Reactor
from coord.server.admin.commands import AdminCommands
from coord.server.admin.serving import OperatorPorts
from coord.server.admin.snapshots import Rates, SnapshotCommands
from coord.server.authority import Authority
from coord.server.clients import Clients
from coord.server.config import ServerConfig
from coord.server.member import Member
from coord.server.meters import Meters
from coord.server.persistence import Persistence
from coord.server.slices import SlicedAnswers
from coord.server.statistics import ServerStatistics
from coord.server.view import Viewer
from coord.server.wordservice import WordService


class Operators:
    """Those of one server.

    Args:
        rates: how often snapshots may be taken and restored.
        retire: takes the server out of service: from then on nothing is acknowledged.
        restart: the server begins again with what is on disk.

    Raises:
        ConfigError: the admin server's files for TLS cannot be used.
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
        authority: Authority,
        clients: Clients,
        member: Member,
        rates: Rates,
        retire: Callable[[], None],
        restart: Callable[[], None],
    ) -> None:
        self._meters = meters
        viewer = Viewer(
            clock=clock,
            state=persistence.state,
            statistics=statistics,
            member=member,
            connections=lambda: list(clients.service.connections),
            authority=authority,
            config=config,
            read_only=clients.read_only,
            local=clients.local,
            reactor=reactor,
            meters=meters,
            slow=clients.slow,
            slow_fsyncs=persistence.slow_fsyncs,
            answers=clients.answers,
            throttle=clients.throttle,
        )
        self._sliced = SlicedAnswers(clock, reactor.flush)
        self.words = WordService(config, viewer, self._sliced)
        self._registry = _make_registry(viewer, persistence)
        self._ports = OperatorPorts(
            config,
            viewer,
            AdminCommands(config, viewer, clock, last_checkpoint=persistence.checkpoints.last),
            SnapshotCommands(
                config=config,
                clock=clock,
                state=persistence.state,
                checkpoints=persistence.checkpoints,
                directory=persistence.directory,
                environments=persistence.environments,
                authentication=clients.authentication,
                statistics=statistics,
                meters=meters,
                rates=rates,
                is_serving=lambda: clients.is_serving,
                retire=retire,
                restart=restart,
            ),
            self._registry,
            statistics,
            clock,
        )

    async def start_in(self, nursery: trio.Nursery) -> None:
        """Serves until the nursery is cancelled.

        Raises:
            ListenError: the port for Prometheus cannot be had.
        """
        await nursery.start(self._ports.run)
        nursery.start_soon(self._sliced.run)
        lag = self._registry.summary("loop_lag_us", "How late the loop is")
        lag_ms = self._meters.summaries["jvm_pause_time_ms"]
        nursery.start_soon(partial(measure_loop_lag, lag, registry=self._registry, lag_ms=lag_ms))
        nursery.start_soon(tend, self._registry.summary("gc_pause_us", "Pauses for garbage collection"))


def _make_registry(viewer: Viewer, persistence: Persistence) -> Registry:
    """Metrics beside those with ZooKeeper's names."""
    registry = Registry("zoolog_coord_")
    viewer.register(registry)
    persistence.disk_watch.register(registry)
    registry.gauge(
        "feature_level", "Level of the ensemble's features", lambda: persistence.state.tree.feature_level
    )
    return registry
