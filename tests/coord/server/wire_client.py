"""A raw client of ZooKeeper's protocol for tests: it says exactly what it is told and shows exactly what
comes.
"""

import struct
from types import TracebackType

import trio

ACL = struct.pack(">ii", 1, 31) + struct.pack(">i5si6s", 5, b"world", 6, b"anyone")
CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_CHILDREN, SYNC, PING = 1, 2, 3, 4, 5, 8, 9, 11
CLOSE = -11
SECONDS_MAX = 60


def buffer(data: bytes | None) -> bytes:
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def create(path: bytes, data: bytes = b"", flags: int = 0) -> bytes:
    return buffer(path) + buffer(data) + ACL + struct.pack(">i", flags)


def set_data(path: bytes, data: bytes, version: int = -1) -> bytes:
    return buffer(path) + buffer(data) + struct.pack(">i", version)


def watched(path: bytes, watch: bool = False) -> bytes:
    return buffer(path) + bytes([watch])


def connect_request(
    timeout_ms: int = 5000,
    session_id: int = 0,
    password: bytes = bytes(16),
    last_zxid: int = 0,
    flag: bytes = b"\0",
) -> bytes:
    body = struct.pack(">iqiq", 0, last_zxid, timeout_ms, session_id) + buffer(password) + flag
    return buffer(body)


def request(xid: int, op: int, body: bytes = b"") -> bytes:
    return struct.pack(">iii", 8 + len(body), xid, op) + body


class Wire:
    """One TCP connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = b""
        self.session_id = 0
        self.password = b""
        self.timeout_ms = 0

    @classmethod
    async def open(cls, port: int) -> "Wire":
        return cls(await trio.open_tcp_stream("127.0.0.1", port))

    @classmethod
    async def session(cls, port: int, **options: object) -> "Wire":
        """A connection with an established session."""
        wire = await cls.open(port)
        await wire.send(connect_request(**options))  # type: ignore[arg-type]
        response = await wire.frame()
        _, wire.timeout_ms, wire.session_id = struct.unpack_from(">iiq", response)
        wire.password = response[20:36]
        return wire

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stream.aclose()

    async def send(self, *parts: bytes) -> None:
        await self.stream.send_all(b"".join(parts))

    async def exactly(self, count: int) -> bytes:
        with trio.fail_after(SECONDS_MAX):
            while len(self.received) < count:
                part = await self.stream.receive_some()
                if not part:
                    raise EOFError(f"expected {count} bytes, the connection ended after {self.received!r}")
                self.received += part
        data, self.received = self.received[:count], self.received[count:]
        return data

    async def frame(self) -> bytes:
        (length,) = struct.unpack(">i", await self.exactly(4))
        return await self.exactly(length)

    async def reply(self) -> tuple[int, int, int, bytes]:
        """xid, zxid, error, body."""
        data = await self.frame()
        xid, zxid, error = struct.unpack_from(">iqi", data)
        return xid, zxid, error, data[16:]

    async def call(self, xid: int, op: int, body: bytes = b"") -> tuple[int, bytes]:
        """Error and body of the reply to one request, whose xid must come back."""
        await self.send(request(xid, op, body))
        got, _, error, answer = await self.reply()
        assert got == xid
        return error, answer

    async def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        data = self.received
        with trio.fail_after(SECONDS_MAX):
            try:
                while part := await self.stream.receive_some():
                    data += part
            except trio.BrokenResourceError:
                pass
        return data
