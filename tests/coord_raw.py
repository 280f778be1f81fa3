"""A blocking client of ZooKeeper's protocol for tests with real processes: one request at a time, no
retries but by `insist`.
"""

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from tests.coord_servers import wait_for

Result = TypeVar("Result")

ACL = struct.pack(">ii", 1, 31) + struct.pack(">i5si6s", 5, b"world", 6, b"anyone")


def buffer(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def insist(ask: Callable[[], Result]) -> Result:
    """The answer to `ask`, asked again while connections end: a busy machine may elect at any moment."""
    found: list[Result] = []

    def try_once() -> bool:
        try:
            found.append(ask())
        except OSError:
            return False
        return True

    wait_for(try_once, "an answer")
    return found[0]


@dataclass(frozen=True, slots=True)
class Reply:
    """To one request: its header, and the body as it came (empty with an error)."""

    zxid: int
    error: int
    body: bytes


class Client:
    """A connection with a session, a new one or `session` taken up again (`timeout_ms` is then 0 and the
    connection about to end when that session is over). `seen` is the last zxid that the session knows of.
    At the end of a `with` it is closed, and the session left to expire.

    Raises:
        OSError: from every method, when the server does not answer or ends the connection.
    """

    def __init__(
        self,
        host: str,
        port: int,
        timeout_ms: int = 30_000,
        session: tuple[int, bytes] = (0, bytes(16)),
        *,
        seen: int = 0,
        patience_seconds: float = 60,
    ) -> None:
        self.socket = socket.create_connection((host, port), timeout=patience_seconds)
        request = struct.pack(">iqiqi16s?", 0, seen, timeout_ms, session[0], 16, session[1], False)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.sendall(buffer(request))
            response = self.receive_frame()
        except OSError:
            self.socket.close()
            raise
        self.timeout_ms, self.session_id = struct.unpack_from(">iq", response, 4)
        self.password = response[20:36]

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

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
        return self.ask(xid, op, body).error

    def ask(self, xid: int, op: int, body: bytes) -> Reply:
        """The reply to one request; events are skipped."""
        self.send(xid, op, body)
        return self.receive_reply()

    def send(self, xid: int, op: int, body: bytes) -> None:
        self.socket.sendall(struct.pack(">iii", 8 + len(body), xid, op) + body)

    def receive_reply(self) -> Reply:
        while True:
            frame = self.receive_frame()
            got, zxid, error = struct.unpack_from(">iqi", frame)
            if got != -1:
                return Reply(zxid, error, frame[16:])
