"""Apache ZooKeeper from Debian's package as real processes, to measure and to test against."""

from pathlib import Path

from tests.coord_servers import CoordServer, CoordServers

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


def apache_is_installed() -> bool:
    return JAR.exists()
