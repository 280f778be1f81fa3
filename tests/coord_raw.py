"""A blocking client of ZooKeeper's protocol for tests with real processes: one request at a time, no
retries.
"""

import socket
import struct

ACL = struct.pack(">ii", 1, 31) + struct.pack(">i5si6s", 5, b"world", 6, b"anyone")


def buffer(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


class Client:
    """A connection with a session, a new one or `session` taken up again.

    Raises:
        OSError: from every method, when the server does not answer or ends the connection.
    """

    def __init__(
        self, host: str, port: int, timeout_ms: int = 30_000, session: tuple[int, bytes] = (0, bytes(16))
    ) -> None:
        self.socket = socket.create_connection((host, port), timeout=5)
        request = struct.pack(">iqiqi16s?", 0, 0, timeout_ms, session[0], 16, session[1], False)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.sendall(buffer(request))
            response = self.receive_frame()
        except OSError:
            self.socket.close()
            raise
        (self.session_id,) = struct.unpack_from(">q", response, 8)
        self.password = response[20:36]

    def receive_frame(self) -> bytes:
        (length,) = struct.unpack(">i", self.receive_exactly(4))
        return self.receive_exactly(length)

    def receive_exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self.socket.recv(count)
            if not part:
                raise ConnectionError("closed by the server")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def call(self, xid: int, op: int, body: bytes) -> int:
        """The error of the reply to one request; events are skipped."""
        self.socket.sendall(struct.pack(">iii", 8 + len(body), xid, op) + body)
        while True:
            got, _, error = struct.unpack_from(">iqi", self.receive_frame())
            if got != -1:
                return int(error)
