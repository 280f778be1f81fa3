"""The ports of the operators' side: the admin server's and that of the page for Prometheus."""

import ssl
from collections.abc import Iterator

import trio
from prometheus_client import PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric as Family

from coord import eventlog
from coord.clock import Clock
from coord.http import HttpServer, open_listeners
from coord.listening import ListenError, named_listener
from coord.metrics import Registry
from coord.server.admin.commands import AdminCommands
from coord.server.admin.pages import AdminPages, MetricsPage
from coord.server.admin.snapshots import SnapshotCommands
from coord.server.config import ConfigError, ServerConfig
from coord.server.figures import families
from coord.server.statistics import ServerStatistics
from coord.server.view import Viewer
from coord.tls import server_context

log = eventlog.get("coord.server")


class OperatorPorts:
    """Opens what the configuration asks for.

    Args:
        registry: metrics beside those with ZooKeeper's names.

    Raises:
        ConfigError: the files for TLS cannot be used.
    """

    def __init__(
        self,
        config: ServerConfig,
        viewer: Viewer,
        commands: AdminCommands,
        snapshots: SnapshotCommands,
        registry: Registry,
        statistics: ServerStatistics,
        clock: Clock,
    ) -> None:
        self._config = config.admin
        self._viewer = viewer
        self._registry = registry
        self._metrics = MetricsPage(self._families)
        self._pages = AdminPages(
            commands, self._metrics, snapshots, statistics, clock, root=config.admin.command_url
        )
        self._context = _context(config) if config.admin.speaks_tls else None
        self.admin_address: tuple[str, int] | None = None
        """Where the admin server listens, once it does."""
        self.metrics_address: tuple[str, int] | None = None

    async def run(self, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled; reports once everything listens.

        A port that the admin server cannot have costs its service only, as in ZooKeeper.

        Raises:
            ListenError: the port for Prometheus cannot be had.
        """
        config = self._config
        async with trio.open_nursery() as nursery:
            if config.serves_prometheus:
                host, port = config.metrics_host, config.metrics_port
                with named_listener("metricsProvider.httpPort", "metricsProvider.httpHost", host, port):
                    listeners = await open_listeners(host, port)
                self.metrics_address = listeners[0].socket.getsockname()[:2]
                log.info("metrics for Prometheus", address=self.metrics_address)
                await nursery.start(HttpServer(self._metrics.handle).serve, listeners)
            if config.is_wanted and (listeners := await self._open_admin()):
                self.admin_address = listeners[0].socket.getsockname()[:2]
                log.info("admin server", address=self.admin_address, tls=self._context is not None)
                server = HttpServer(
                    self._pages.handle,
                    context=self._context,
                    plain=not config.force_https,
                    idle_seconds=config.idle_ms_max / 1000,
                )
                await nursery.start(server.serve, listeners)
            task_status.started()

    async def _open_admin(self) -> list[trio.SocketListener]:
        config = self._config
        try:
            with named_listener("admin.serverPort", "admin.serverAddress", config.host, config.port):
                return await open_listeners(config.host, config.port)
        except ListenError as error:
            log.warning(
                "no admin server; clients are served",
                do=f"{error.advice}, or set admin.enableServer=false",
                error=error.what,
            )
            return []

    def _families(self) -> Iterator[Family]:
        yield from families(self._viewer.figures())
        yield from self._registry.collect()
        if self._config.export_process_info:
            yield from ProcessCollector(registry=None).collect()
            yield from PlatformCollector(registry=None).collect()


def _context(config: ServerConfig) -> ssl.SSLContext:
    tls = config.tls
    authorities = tls.trust_store if config.admin.need_client_auth else None
    try:
        return server_context(tls.key_store, tls.key_store, client_ca_path=authorities)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ssl.keyStore.location={tls.key_store} for the admin server: {error}") from error
