"""How many client connections a server has, in all and of each host, and which are too many (specification
15, 22.14). They are accepted and closed: a four-letter word costs a connection as well.
"""

from coord.reactor import Connection
from coord.server.complaints import Complaints
from coord.server.connection import host_of
from coord.server.statistics import ServerStatistics


class Admission:
    """Counts connections from the first to the last moment that the client port knows of them.

    Args:
        per_host_max: connections of one host, 0 is unlimited.
        connections_max: connections in all, 0 is unlimited.
    """

    def __init__(
        self,
        per_host_max: int,
        connections_max: int,
        statistics: ServerStatistics,
        complaints: Complaints,
    ) -> None:
        self._per_host_max = per_host_max
        self._connections_max = connections_max
        self._statistics = statistics
        self._complaints = complaints
        self._hosts: dict[str, int] = {}
        self._count = 0

    def on_open(self, conn: Connection) -> str:
        """One more; why it has to be closed, empty where it may stay."""
        host = host_of(conn)
        of_host = self._hosts[host] = self._hosts.get(host, 0) + 1
        self._count += 1
        self._statistics.connections_opened += 1
        if 0 < self._per_host_max < of_host:
            return self._refuse(conn, "of one host", "maxClientCnxns", self._per_host_max)
        if 0 < self._connections_max < self._count:
            return self._refuse(conn, "at once", "maxCnxns", self._connections_max)
        return ""

    def on_close(self, conn: Connection) -> None:
        host = host_of(conn)
        self._count -= 1
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]

    def _refuse(self, conn: Connection, what: str, setting: str, most: int) -> str:
        self._statistics.connections_refused += 1
        event = f"too many connections {what}"
        self._complaints.warn(event, do=f"see {setting}", peer=conn.peer_address, most=most)
        return event
