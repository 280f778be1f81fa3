"""Apache ZooKeeper as real processes, to measure and to test against: Debian's package, or Maven's jars."""

from pathlib import Path

import pytest

from tests.coord_servers import CoordServer, CoordServers
from tests.interop import apache

JAR = Path("/usr/share/java/zookeeper.jar")
"""Debian's libzookeeper-java; its manifest names the other jars."""
HEAP = "-Xmx1g"
LOG4J = """log4j.rootLogger=ERROR, A
log4j.appender.A=org.apache.log4j.ConsoleAppender
log4j.appender.A.layout=org.apache.log4j.PatternLayout
log4j.appender.A.layout.ConversionPattern=%d %p %m%n
"""


class ApacheServer(CoordServer):
    """One Java server on the same kind of zoo.cfg."""

    def command(self) -> list[str]:
        log4j = self.config_path.with_suffix(".log4j")
        log4j.write_text(LOG4J)
        options = [HEAP, f"-Dlog4j.configuration=file:{log4j}", "-Dzookeeper.admin.enableServer=false"]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return ["java", *options, "-cp", str(JAR), main, str(self.config_path)]

    def stop(self) -> int:
        super().stop()
        return 0


class ApacheServers(CoordServers):
    """A standalone Apache ZooKeeper or an ensemble of them."""

    def make(self, directory: Path, sid: int, port: int, text: str) -> CoordServer:
        return ApacheServer(directory, sid, port, text)


class FetchedApacheServer(ApacheServer):
    """The same of a later release, as Maven has it (`tests.interop.apache`); with fsync."""

    jars = Path()

    def command(self) -> list[str]:
        logback = self.config_path.with_suffix(".xml")
        logback.write_text(apache.LOGBACK.replace("WARN", "ERROR"))
        options = [
            HEAP,
            f"-Dlogback.configurationFile=file:{logback}",
            "-Dzookeeper.admin.enableServer=false",
        ]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        return ["java", *options, "-cp", f"{self.jars}/*", main, str(self.config_path)]


class FetchedApacheServers(ApacheServers):
    def make(self, directory: Path, sid: int, port: int, text: str) -> CoordServer:
        server = FetchedApacheServer(directory, sid, port, text)
        server.jars = apache.zookeeper_jars()
        return server


def apache_is_installed() -> bool:
    return JAR.exists()


def find_apache() -> tuple[str, type[CoordServers]] | None:
    """Its name and release, and its servers: Debian's where it is installed, else Maven's; None without
    either, and why is printed.
    """
    if apache_is_installed():
        return "Apache ZooKeeper, Debian's package", ApacheServers
    try:
        apache.zookeeper_jars()
    except pytest.skip.Exception as reason:
        print(f"no Apache ZooKeeper: {JAR} is missing, and {reason}")
        return None
    return f"Apache ZooKeeper {apache.VERSION}", FetchedApacheServers
