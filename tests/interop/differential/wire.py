"""A connection that sends what it is told and keeps every frame that comes back, in order."""

import socket
import struct

from tests.coord_raw import buffer

CONNECT = struct.Struct(">iqiq")
ANSWER_SECONDS_MAX = 60.0
"""A server that is silent for longer does not answer any more."""


class SilentServerError(Exception):
    """The server neither answered nor closed the connection."""


class Connection:
    """One TCP connection; `frames` are those not taken yet, `is_open` ends with the server's close."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=ANSWER_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_open = True
        self._left = b""

    def close(self) -> None:
        self.is_open = False
        self.socket.close()

    def handshake(
        self, timeout_ms: int, session_id: int, password: bytes, last_zxid: int, flag: bytes
    ) -> bytes | None:
        """The ConnectResponse; None when the server closed instead. `flag` is the read-only byte or empty."""
        request = CONNECT.pack(0, last_zxid, timeout_ms, session_id) + buffer(password) + flag
        self.send(buffer(request))
        return self.receive()

    def send(self, data: bytes) -> None:
        if self.is_open:
            try:
                self.socket.sendall(data)
            except ConnectionError:
                # What the server sent before it closed is still to be read.
                pass

    def receive(self) -> bytes | None:
        """The next frame; None once the server has closed.

        Raises:
            SilentServerError: nothing came.
        """
        head = self._take(4)
        if head is None:
            return None
        return self._take(*struct.unpack(">i", head))

    def _take(self, count: int) -> bytes | None:
        while len(self._left) < count:
            try:
                part = self.socket.recv(65536) if self.is_open else b""
            except TimeoutError:
                raise SilentServerError(f"nothing came for {ANSWER_SECONDS_MAX} s") from None
            except ConnectionError:
                part = b""
            if not part:
                self.close()
                return None
            self._left += part
        taken, self._left = self._left[:count], self._left[count:]
        return taken
