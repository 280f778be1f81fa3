"""Lengths that no frame of the client port can have: what they mean, said in the log (specification 1.4)."""

from struct import Struct

from coord.server.complaints import Complaints
from coord.server.connection import ClientConnection
from coord.server.statistics import LimitStatistics
from coord.server.strangers import spoken_by

_unpack_head = Struct(">iii").unpack_from


class BadFrames:
    """Explains and counts them.

    Args:
        bytes_max: `jute.maxbuffer`.
    """

    def __init__(self, bytes_max: int, statistics: LimitStatistics, complaints: Complaints) -> None:
        self._bytes_max = bytes_max
        self._statistics = statistics
        self._complaints = complaints

    def explain(self, client: ClientConnection, head: bytes) -> str:
        """Why the connection is closed.

        Args:
            head: the first 12 bytes of the frame, or the 4 or more that have arrived.
        """
        length = int.from_bytes(head[:4], "big", signed=True)
        stranger = None if client.session_id else spoken_by(head[:4])
        if stranger is not None:
            self._statistics.unknown_protocol_connections += 1
            what, do = stranger
            event = f"somebody speaks {what} to a port for clients"
            self._complaints.warn(event, do=do, peer=client.conn.peer_address)
            return event
        if length > self._bytes_max:
            self._statistics.oversized_requests_rejected += 1
            self._complaints.warn(
                "a request is too large",
                do="make it smaller, or raise jute.maxbuffer on every server",
                session=hex(client.session_id),
                op=_unpack_head(head)[2] if len(head) >= 12 else "unknown",
                request_bytes=length,
                most=self._bytes_max,
                peer=client.conn.peer_address,
            )
        return f"a frame of {length} bytes, expected 1 to {self._bytes_max}"
