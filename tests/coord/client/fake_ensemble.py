"""An ensemble in memory for the client's tests: the real tree behind memory streams, and faults on request.

Requests are executed and answered inside the client's own `send_all`, so a test decides every order; time is
trio's, which the autojump clock moves.
"""

import random
import struct
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import trio
import trio.testing

import coord
from coord.protocol import opcodes
from coord.protocol.records import decode_connect_request, encode_connect_response, encode_expired_response
from coord.tree import Context, DataTree, Session, WatchTable, execute, read

HOSTS = "a:1,b:2,c:3"


class TrioClock:
    """The client's clock on trio's time."""

    def monotonic_ms(self) -> int:
        return int(trio.current_time() * 1000)

    def wall_ms(self) -> int:
        return self.monotonic_ms()


class FakeConnection:
    """One connection as the server sees it."""

    def __init__(self, ensemble: "FakeEnsemble", port: int) -> None:
        self.port = port
        self.session_id = 0
        self.alive = True
        self._ensemble = ensemble
        self._received = b""
        self._to_server = trio.testing.MemorySendStream()
        self._to_client = trio.testing.MemoryReceiveStream()
        self._to_server.send_all_hook = self._take
        self._to_server.close_hook = self._on_close
        self.client_end = trio.StapledStream(self._to_server, self._to_client)

    def send(self, data: bytes) -> None:
        if self.alive and not self._ensemble.holding:
            self._to_client.put_data(data)
        elif self.alive:
            self._ensemble.held.append((self, data))

    def deliver(self, data: bytes) -> None:
        if self.alive:
            self._to_client.put_data(data)

    def cut(self) -> None:
        """The connection breaks; what was delivered before can still be read."""
        if self.alive:
            self.alive = False
            self._ensemble.forget(self)
            self._to_client.put_eof()

    def _on_close(self) -> None:
        if self.alive:
            self.alive = False
            self._ensemble.forget(self)

    async def _take(self) -> None:
        if not self.alive:
            raise trio.BrokenResourceError
        self._received += self._to_server.get_data_nowait()
        while len(self._received) >= 4 and self.alive:
            end = 4 + struct.unpack_from(">i", self._received)[0]
            if len(self._received) < end:
                return
            frame, self._received = self._received[4:end], self._received[end:]
            self._ensemble.serve(self, frame)


class FakeEnsemble:
    """Servers that share one tree.

    Attributes:
        refusing: ports at which nobody listens; `deaf` ones take connections and say nothing.
        lost_answers: operation → whether it is executed (True) or not (False) before the connection breaks,
            once each.
        served: how often each operation arrived.
        holding: answers and events are kept in `held` until `release`.
    """

    def __init__(self) -> None:
        self.tree = DataTree.fresh()
        self.watches = WatchTable()
        self.connections: list[FakeConnection] = []
        self.dialled: list[int] = []
        self.refusing: set[int] = set()
        self.deaf: set[int] = set()
        self.lost_answers: dict[int, bool] = {}
        self.served: Counter[int] = Counter()
        self.holding = False
        self.held: deque[tuple[FakeConnection, bytes]] = deque()
        self.granted_ms: int | None = None
        self._zxid = 0
        self._next_session = 0x1000

    # What tests use.

    def connect(
        self, hosts: str = HOSTS, *, session_timeout_ms: int = 9000, **options: object
    ) -> AbstractAsyncContextManager[coord.Client]:
        return coord.connect(
            hosts,
            session_timeout_ms=session_timeout_ms,
            dial=self.dial,
            clock=TrioClock(),
            rng=random.Random(1),
            **options,  # type: ignore[arg-type]
        )

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dialled.append(port)
        if port in self.refusing:
            raise ConnectionRefusedError(f"nobody listens at {host}:{port}")
        connection = FakeConnection(self, port)
        self.connections.append(connection)
        return connection.client_end

    def change(self, op: int, body: bytes, session_id: int = 1) -> tuple[int, bytes]:
        """A write by somebody else."""
        self.tree.sessions.setdefault(1, Session(10_000, bytes(16)))
        self._zxid += 1
        context = Context(self._zxid, 0, session_id)
        err, reply = execute(self.tree, context, op, body)
        for connection, frame in self.watches.fire(context.events, self._zxid):
            assert isinstance(connection, FakeConnection)
            connection.send(frame)
        return err, reply

    def cut_all(self) -> None:
        for connection in list(self.connections):
            connection.cut()

    def expire(self, session_id: int) -> None:
        """The leader ends a session; its connection breaks."""
        self.change(opcodes.CLOSE_SESSION, b"", session_id)
        for connection in [one for one in self.connections if one.session_id == session_id]:
            connection.cut()

    def release(self) -> None:
        self.holding = False
        while self.held:
            connection, data = self.held.popleft()
            connection.deliver(data)

    def children(self, path: str) -> Sequence[str]:
        prefix = path.rstrip("/").encode() + b"/"
        return sorted(
            node[len(prefix) :].decode()
            for node in self.tree.nodes
            if node.startswith(prefix) and b"/" not in node[len(prefix) :] and node != b"/"
        )

    # What connections use.

    def forget(self, connection: FakeConnection) -> None:
        self.connections.remove(connection)
        self.watches.remove_connection(connection)

    def serve(self, connection: FakeConnection, frame: bytes) -> None:
        if connection.port in self.deaf:
            return
        if connection.session_id == 0:
            self._shake_hands(connection, frame)
            return
        xid, op = struct.unpack_from(">ii", frame)
        self.served[op] += 1
        executed = self.lost_answers.pop(op, None)
        if executed is False:
            connection.cut()
            return
        err, body = self._execute(connection, op, frame[8:])
        if executed:
            connection.cut()
            return
        connection.send(struct.pack(">iiqi", 16 + len(body), xid, self._zxid, err) + body)
        if op == opcodes.CLOSE_SESSION:
            connection.cut()

    def _execute(self, connection: FakeConnection, op: int, body: bytes) -> tuple[int, bytes]:
        if op == opcodes.PING:
            return 0, b""
        if op == opcodes.SYNC:
            return 0, body
        if op in opcodes.WRITES:
            return self.change(op, body, connection.session_id)
        err, reply, watch = read(self.tree, op, body, (), connection.session_id)
        if watch is not None:
            self.watches.add(connection, *watch)
        return err, reply

    def _shake_hands(self, connection: FakeConnection, frame: bytes) -> None:
        request = decode_connect_request(frame)
        session_id, password = request.session_id, request.password
        if session_id == 0:
            self._next_session += 1
            session_id, password = self._next_session, self._next_session.to_bytes(16, "big")
            granted = self.granted_ms or request.timeout_ms
            self.tree.add_session(session_id, Session(granted, password))
        session = self.tree.sessions.get(session_id)
        if session is None or session.password != password:
            connection.send(encode_expired_response(False))
            connection.cut()
            return
        for other in [one for one in self.connections if one.session_id == session_id]:
            other.cut()
        connection.session_id = session_id
        connection.send(encode_connect_response(session.timeout_ms, session_id, password, flag=False))
