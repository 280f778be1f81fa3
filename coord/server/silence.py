"""Which client connections are silent for too long (specification 4.3)."""

from collections.abc import Collection, Iterable

from coord.server.connection import CLOSED, SERVING, ClientConnection
from coord.server.statistics import ServerStatistics


class Silence:
    """Ends connections that never got a session, or are silent for longer than their session's timeout.

    Args:
        sessionless_ms_max: what a connection has for its handshake.
        suspended: connections that are not read, it may be by our own fault.
    """

    def __init__(
        self,
        sessionless_ms_max: int,
        statistics: ServerStatistics,
        suspended: Collection[ClientConnection],
    ) -> None:
        self._sessionless_ms_max = sessionless_ms_max
        self._statistics = statistics
        self._suspended = suspended

    def end(self, clients: Iterable[ClientConnection], touched: set[int], now_ms: int) -> None:
        """Call it every half tick.

        Args:
            touched: sessions heard of since the last call; those of connections with requests under way are
                added, for it may be we who do not read them.
        """
        for client in clients:
            if client.state == SERVING:
                if client.queue or (client in self._suspended and _takes_output(client)):
                    touched.add(client.session_id)
                if client.session_id in touched:
                    client.heard_ms = now_ms
                elif now_ms - client.heard_ms > client.timeout_ms:
                    client.conn.close(reason="silent for longer than its session's timeout")
            elif client.state != CLOSED and now_ms - client.heard_ms > self._sessionless_ms_max:
                self._statistics.connections_sessionless += 1
                client.conn.close(reason="no session was established in time")


def _takes_output(client: ClientConnection) -> bool:
    """Whether a connection that is not read until it has taken its answers has taken some since the last
    look: a slow client lives, one that is gone does not keep its session.
    """
    taken, client.taken_bytes = client.taken_bytes, client.conn.bytes_out
    return client.taken_bytes > taken
