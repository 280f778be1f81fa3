"""Apache ZooKeeper 3.9 as real processes, from Maven's jars: what we compare ourselves with.

    with ApacheServers(directory) as servers: ...        # skips the test where Java or Maven are missing

Configured as our servers are in tests: every four-letter word, TTL nodes, super digest `super:test`, SASL
user `wire` with password `wirepw`. It does not fsync, which is faster.
"""

from pathlib import Path

from tests.coord_servers import CoordServer, CoordServers
from tests.interop.tools import fetch_jars

VERSION = "3.9.5"
SUPER_DIGEST = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="
"""The digest of `super:test`."""
OPTIONS = (
    "-Xmx300m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dzookeeper.forceSync=no",
    "-Dzookeeper.admin.enableServer=false",
    "-Dzookeeper.extendedTypesEnabled=true",
    "-Dznode.container.checkIntervalMs=3600000",
    "-Dzookeeper.superUser=super",
    f"-Dzookeeper.DigestAuthenticationProvider.superDigest={SUPER_DIGEST}",
)
LOGBACK = """<configuration>
<appender name="A" class="ch.qos.logback.core.ConsoleAppender">
<encoder><pattern>%d %p %logger{0} %m%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="A"/></root></configuration>
"""
JAAS = """Server {
 org.apache.zookeeper.server.auth.DigestLoginModule required user_super="test" user_wire="wirepw";
};
"""
AUTH_PROVIDER = "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n"


def zookeeper_jars() -> Path:
    """The server, the Java client and zkCli."""
    return fetch_jars(
        f"zookeeper-{VERSION}",
        [
            f"org.apache.zookeeper:zookeeper:{VERSION}",
            "org.xerial.snappy:snappy-java:1.1.10.5",
            "io.dropwizard.metrics:metrics-core:4.1.12.1",
            "commons-cli:commons-cli:1.5.0",
            "ch.qos.logback:logback-classic:1.3.15",
        ],
    )


class ApacheServer(CoordServer):
    """One Java server on the same kind of zoo.cfg."""

    jars: Path

    def command(self) -> list[str]:
        logback, jaas = self.config_path.with_suffix(".xml"), self.config_path.with_suffix(".jaas")
        logback.write_text(LOGBACK)
        jaas.write_text(JAAS)
        files = [f"-Dlogback.configurationFile=file:{logback}", f"-Djava.security.auth.login.config={jaas}"]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return ["java", *OPTIONS, *files, "-cp", f"{self.jars}/*", main, str(self.config_path)]

    def stop(self) -> int:
        super().stop()
        return 0


class ApacheServers(CoordServers):
    """A standalone Apache ZooKeeper or an ensemble of them."""

    def __init__(
        self, directory: Path, count: int = 1, *, tick_ms: int = 500, sync_limit: int = 4, extra: str = ""
    ) -> None:
        self.jars = zookeeper_jars()
        extra = AUTH_PROVIDER + extra
        super().__init__(directory, count, tick_ms=tick_ms, sync_limit=sync_limit, extra=extra)

    def make(self, directory: Path, sid: int, port: int, text: str) -> CoordServer:
        server = ApacheServer(directory, sid, port, text)
        server.jars = self.jars
        return server
