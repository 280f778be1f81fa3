"""Keys of the HTTP admin server, metrics and four-letter words."""

from dataclasses import dataclass
from typing import Final

from coord.server.config.keys import boolean, count, key, optional_port, port, positive, string

SLOW_REQUEST_MS_DEFAULT: Final = 1000
ADMIN_PORT_DEFAULT: Final = 8080
METRICS_PORT_DEFAULT: Final = 7000
LOCAL_HOST: Final = "127.0.0.1"

_PROVIDERS: Final = {
    "": False,
    "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider": False,
    "org.apache.zookeeper.metrics.impl.NullMetricsProvider": False,
    "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider": True,
    "PrometheusMetricsProvider": True,
}


def optional_boolean(text: str) -> bool | None:
    return boolean(text)


def metrics_provider(text: str) -> bool:
    """Whether Prometheus gets a port of its own: the other classes of ZooKeeper's need none."""
    if text not in _PROVIDERS:
        raise ValueError(f"must be one of {', '.join(name for name in _PROVIDERS if name)}")
    return _PROVIDERS[text]


def path_prefix(text: str) -> str:
    if not text.startswith("/") or text.rstrip("/") in ("", "/metrics"):
        raise ValueError("must be a path such as /commands")
    return text.rstrip("/")


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """The operators' side."""

    enable_server: bool | None = key(
        "admin.enableServer",
        optional_boolean,
        None,
        "the HTTP admin server; nothing is opened where no key asks for it",
        shown="true where `admin.serverPort` or `admin.serverAddress` is set, else false",
    )
    server_address: str | None = key(
        "admin.serverAddress", string, None, "address that it listens on", shown=LOCAL_HOST
    )
    server_port: int | None = key(
        "admin.serverPort", optional_port, None, "its port", shown=str(ADMIN_PORT_DEFAULT)
    )
    command_url: str = key("admin.commandURL", path_prefix, "/commands", "path of its commands")
    idle_ms_max: int = key("admin.idleTimeout", positive, 30_000, "ms in which its clients must do something")
    port_unification: bool = key(
        "admin.portUnification", boolean, False, "it speaks TLS (`ssl.keyStore.location`) and plain HTTP"
    )
    force_https: bool = key("admin.forceHttps", boolean, False, "it speaks TLS only")
    need_client_auth: bool = key(
        "admin.needClientAuth",
        boolean,
        False,
        "its TLS clients must show a certificate that `ssl.trustStore.location` signs",
    )
    enables_snapshot: bool = key(
        "admin.snapshot.enabled", boolean, True, "`/commands/snapshot`, for who has all permissions on `/`"
    )
    snapshot_interval_ms: int = key(
        "admin.snapshot.intervalInMS",
        count,
        300_000,
        "ms between two snapshots over HTTP",
        aliases=("admin.rateLimiterIntervalInMS",),
    )
    enables_restore: bool = key(
        "admin.restore.enabled", boolean, False, "`/commands/restore`, on a standalone server, for the same"
    )
    restore_interval_ms: int = key(
        "admin.restore.intervalInMS",
        count,
        300_000,
        "ms between two restores over HTTP",
        aliases=("admin.rateLimiterIntervalInMS",),
    )
    serves_prometheus: bool = key(
        "metricsProvider.className",
        metrics_provider,
        False,
        "`org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider` opens a port with `/metrics`, "
        "which the admin server has too",
        shown="none",
    )
    metrics_host: str = key("metricsProvider.httpHost", string, LOCAL_HOST, "address of that port")
    metrics_port: int = key("metricsProvider.httpPort", port, METRICS_PORT_DEFAULT, "its number")
    export_process_info: bool = key(
        "metricsProvider.exportJvmInfo", boolean, True, "the page has facts of the process and its Python too"
    )
    slow_request_ms: int = key(
        "slowRequest.thresholdMs",
        count,
        SLOW_REQUEST_MS_DEFAULT,
        "a request that is answered later is named in the server's log, in ms; 0 names none",
    )

    @property
    def is_wanted(self) -> bool:
        """Whether the admin server is opened."""
        if self.enable_server is None:
            return self.server_port is not None or self.server_address is not None
        return self.enable_server

    @property
    def speaks_tls(self) -> bool:
        return self.is_wanted and (self.port_unification or self.force_https)

    @property
    def host(self) -> str:
        return self.server_address or LOCAL_HOST

    @property
    def port(self) -> int:
        return ADMIN_PORT_DEFAULT if self.server_port is None else self.server_port
