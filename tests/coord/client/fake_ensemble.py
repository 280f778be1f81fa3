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
from coord.protocol.digest_md5 import DigestMd5Server, SaslError
from coord.protocol.jute import Reader, encode_buffer, encode_int, encode_text
from coord.protocol.records import (
    Identity,
    decode_connect_request,
    encode_connect_response,
    encode_expired_response,
)
from coord.tree import (
    WATCH_OPS,
    Context,
    DataTree,
    Session,
    WatchTable,
    answer_watch_request,
    execute,
    read,
)

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
        self.identities: tuple[Identity, ...] = ()
        self.login: DigestMd5Server | None = None
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
        if self.session_id == 0 and self._received == b"isro":
            self.send(b"ro" if self.port in self._ensemble.without_quorum else b"rw")
            self.cut()
            return
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
        break_at: (operation, number): that one breaks the connection unseen.
        served: how often each operation arrived; `frames` has them all, with their bodies.
        holding: answers and events are kept in `held` until `release`.
        wrong: credentials that are rejected; the others make an identity (scheme, credentials).
        users: who may log in by SASL DIGEST-MD5; without users nobody is asked to.
        without_quorum: ports whose servers serve reads, to those who ask for it.
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
        self.frames: list[tuple[int, bytes]] = []
        self.holding = False
        self.held: deque[tuple[FakeConnection, bytes]] = deque()
        self.granted_ms: int | None = None
        self.break_at: tuple[int, int] | None = None
        self.wrong: set[bytes] = set()
        self.users: dict[str, str] = {}
        self.without_quorum: set[int] = set()
        self._zxid = 0
        self._next_session = 0x1000

    # What tests use.

    def connect(
        self, hosts: str = HOSTS, *, session_timeout_ms: int = 60_000, **options: object
    ) -> AbstractAsyncContextManager[coord.Client]:
        """A client. Its session is so long that it pings nobody where time is real, though this process may
        stand still for a while.
        """
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

    def change(
        self, op: int, body: bytes, session_id: int = 1, identities: tuple[Identity, ...] = ()
    ) -> tuple[int, bytes]:
        """A write by somebody else."""
        self.tree.sessions.setdefault(1, Session(10_000, bytes(16)))
        self._zxid += 1
        context = Context(self._zxid, 0, session_id, identities)
        err, reply = execute(self.tree, context, op, body)
        for connection, frame in self.watches.fire(context.events, self._zxid):
            assert isinstance(connection, FakeConnection)
            connection.send(frame)
        return err, reply

    def cut_all(self) -> None:
        for connection in list(self.connections):
            connection.cut()

    async def cut_and_return(self) -> None:
        """Every connection breaks; returns when the clients have found another server, or cannot."""
        self.cut_all()
        await trio.testing.wait_all_tasks_blocked()

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
        self.frames.append((op, frame[8:]))
        if self.break_at == (op, self.served[op]):
            connection.cut()
            return
        executed = self.lost_answers.pop(op, None)
        if executed is False:
            connection.cut()
            return
        err, body = self._execute(connection, op, frame[8:])
        if executed:
            connection.cut()
            return
        connection.send(struct.pack(">iiqi", 16 + len(body), xid, self._zxid, err) + body)
        if op == opcodes.CLOSE_SESSION or (op in (opcodes.AUTH, opcodes.SASL) and err):
            connection.cut()

    def _execute(self, connection: FakeConnection, op: int, body: bytes) -> tuple[int, bytes]:
        if op == opcodes.PING:
            return 0, b""
        if connection.port in self.without_quorum and (op in opcodes.WRITES or op == opcodes.SYNC):
            return opcodes.NOT_READ_ONLY, b""
        if op == opcodes.SYNC:
            return 0, body
        if op in opcodes.WRITES:
            return self.change(op, body, connection.session_id, connection.identities)
        if op in WATCH_OPS:
            err, reply, frames = answer_watch_request(self.watches, self.tree, connection, op, body)
            for frame in frames:
                connection.send(frame)
            return err, reply
        match op:
            case opcodes.SASL:
                return self._log_in(connection, body)
            case opcodes.AUTH:
                return self._authenticate(connection, Reader(body, 4))
            case opcodes.WHO_AM_I:
                known = (Identity("ip", "127.0.0.1"), *connection.identities)
                parts = [encode_text(scheme) + encode_text(name) for scheme, name in known]
                return 0, encode_int(len(parts)) + b"".join(parts)
        err, reply, watch = read(self.tree, op, body, connection.identities, connection.session_id)
        if watch is not None:
            self.watches.add(connection, *watch)
        return err, reply

    def _log_in(self, connection: FakeConnection, body: bytes) -> tuple[int, bytes]:
        token = Reader(body).read_buffer()
        assert token is not None
        if not self.users:
            return 0, encode_buffer(None)
        if connection.login is None:
            connection.login = DigestMd5Server(self.users.get, f"nonce{len(self.dialled)}")
        try:
            return 0, encode_buffer(connection.login.step(token))
        except SaslError:
            return opcodes.AUTH_FAILED, encode_buffer(None)

    def _authenticate(self, connection: FakeConnection, reader: Reader) -> tuple[int, bytes]:
        scheme, credentials = reader.read_text() or "", reader.read_buffer() or b""
        if credentials in self.wrong:
            return opcodes.AUTH_FAILED, b""
        connection.identities += (Identity(scheme, credentials.decode()),)
        return 0, b""

    def _shake_hands(self, connection: FakeConnection, frame: bytes) -> None:
        request = decode_connect_request(frame)
        session_id, password = request.session_id, request.password
        read_only = connection.port in self.without_quorum
        if read_only and not request.read_only:
            connection.cut()
            return
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
        connection.send(
            encode_connect_response(session.timeout_ms, session_id, password, flag=False, read_only=read_only)
        )
