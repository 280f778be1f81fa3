"""The client port in memory: frames in, answers out, and the time, the log and the leader by the test's hand.

stage = Stage(LimitsConfig(outstanding_max=2))
client = stage.session()
client.say(request(1, CREATE, create(b"/a")))
stage.execute()                      # the write is committed and executed
client.replies()                     # [(1, 0)]
"""

import struct

from coord.protocol.batch import FEATURE_LEVEL, Block, Stamp
from coord.protocol.bodies import Bodies
from coord.protocol.opcodes import CREATE_SESSION
from coord.reactor import CLOSED_BY_PEER
from coord.server.answers import Answers
from coord.server.authentication import Authentication
from coord.server.config.limits import LimitsConfig
from coord.server.config.security import SecurityConfig
from coord.server.connection import ClientConnection
from coord.server.handshake import Handshake
from coord.server.intake import Intake
from coord.server.meters import Meters
from coord.server.replica import Replica
from coord.server.service import ClientService
from coord.server.slowness import SlowRequests
from coord.server.state import State
from coord.server.statistics import ServerStatistics
from coord.server.tracker import SessionIds
from coord.tree import DataTree
from coord.tree.execute import encode_create_session
from tests.coord.server.wire_client import connect_request


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1000

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return 1_700_000_000_000


class Conn:
    """As much of the reactor's connection as the port uses."""

    peer_certificate = None
    is_secure = False

    def __init__(self, host: str, now_ms: int) -> None:
        self.peer_address = (host, 40_000)
        self.opened_ms = now_ms
        self.pending_output = 0
        self.bytes_out = 0
        self.is_open = True
        self.is_paused = False
        self.sent = b""
        self.reason = ""
        self.data: ClientConnection | None = None

    def send(self, data: bytes) -> None:
        self.sent += data

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def close(self, *, flush: bool = True, reason: str = "") -> None:
        if self.is_open:
            self.is_open, self.reason = False, reason


class Client:
    """One connection and what came back on it."""

    def __init__(self, stage: "Stage", conn: Conn) -> None:
        self.stage = stage
        self.conn = conn
        stage.service.on_open(conn)  # type: ignore[arg-type]

    @property
    def state(self) -> ClientConnection:
        assert self.conn.data is not None
        return self.conn.data

    def say(self, *parts: bytes) -> None:
        """In one piece, in a tick of its own."""
        assert not self.conn.is_paused
        if self.conn.is_open:
            self.stage.service.on_bytes(self.conn, b"".join(parts))  # type: ignore[arg-type]
        self.stage.end_tick()

    def hang_up(self) -> None:
        """The client's end of the connection is gone."""
        self.conn.close(reason=CLOSED_BY_PEER)
        self.stage.end_tick()

    def take(self) -> bytes:
        sent, self.conn.sent = self.conn.sent, b""
        return sent

    def replies(self) -> list[tuple[int, int]]:
        """Xid and error of each reply since the last call."""
        data, found = self.take(), []
        while data:
            length, xid, _, error = struct.unpack_from(">iiqi", data)
            found.append((xid, error))
            data = data[4 + length :]
        return found


class Stage:
    """A client port that serves, with the tree of a standalone server."""

    is_serving = True
    is_read_only = False

    def __init__(
        self, limits: LimitsConfig | None = None, *, per_host: int = 0, frame_bytes: int = 4096
    ) -> None:
        self.clock = Clock()
        self.state = State(DataTree.fresh())
        self.statistics = ServerStatistics()
        self.handed_over: list[Intake] = []
        self.reads_behind: list[int] = []
        """Of each block that was executed: how many reads were answered with it."""
        self.is_busy = False
        security = Authentication(SecurityConfig(), self.statistics, x509=False, make_random=bytes)
        slow = SlowRequests(1 << 40, self.clock)
        self.answers = Answers(self.state, self.statistics, lambda done: done(), self.clock, slow, security)
        self.handshake = Handshake(
            timeout_ms_min=1000,
            timeout_ms_max=10_000,
            sessions=self,
            session_ids=SessionIds(1, 0),
            make_password=bytes,
            executed_zxid=lambda: self.state.zxid,
            exists=lambda session_id: session_id in self.state.tree.sessions,
            serve=lambda client: self.service.serve(client),
        )
        self.replica = Replica(
            sid=1,
            state=self.state,
            answers=self.answers,
            attached=self.handshake.attached,
            statistics=self.statistics,
            meters=Meters(),
            audience=self,
        )
        self.service = ClientService(
            clock=self.clock,
            answers=self.answers,
            handshake=self.handshake,
            statistics=self.statistics,
            frame_bytes_max=frame_bytes,
            connections_per_host_max=per_host,
            answer_word=lambda conn, word, argument: conn.send(b"word"),
            settle=lambda: None,
            is_busy=lambda: self.is_busy,
            authentication=security,
            limits=limits or LimitsConfig(),
            in_flight=lambda: (
                sum(map(len, self.handed_over)),
                sum(intake.large_bytes for intake in self.handed_over),
            ),
        )

    def connect(self, host: str = "10.0.0.1") -> Client:
        return Client(self, Conn(host, self.clock.now_ms))

    def session(self, timeout_ms: int = 5000) -> Client:
        client = self.connect()
        client.say(connect_request(timeout_ms))
        self.execute()
        client.take()
        return client

    def end_tick(self) -> None:
        self.service.let_go_on()
        self.handed_over += self.service.take_intakes()
        self.answers.send_owed()
        for client in list(self.service.connections):
            conn = client.conn
            if not conn.is_open:
                self.service.on_close(conn, conn.reason)  # type: ignore[attr-defined]

    def execute(self) -> int:
        """All writes handed over so far; returns their number."""
        taken, self.handed_over = self.handed_over, []
        for intake in taken:
            auth = [intake.auth_table[index] for index in intake.auth]
            block = Block(
                1, intake.sessions, intake.xids, intake.ops, auth, Bodies.of(intake.bodies), intake.is_local
            )
            stamp = Stamp(FEATURE_LEVEL, self.clock.wall_ms(), self.state.zxid + 1, len(intake))
            self.replica.execute(stamp, [block])
        self.end_tick()
        return sum(map(len, taken))

    # -- Sessions, for the handshake

    def create_session(self, session_id: int, timeout_ms: int, password: bytes) -> None:
        self.service.add_write(session_id, CREATE_SESSION, encode_create_session(timeout_ms, password))

    def attach_session(self, session_id: int, timeout_ms: int, password: bytes, done: object) -> None:
        raise AssertionError("no session is taken up again on this stage")

    def await_own_writes(self, done: object) -> None:
        raise AssertionError("there are no local sessions on this stage")

    # -- Audience, for the replica

    def on_session_created(self, session_id: int, timeout_ms: int, *, own: bool) -> None:
        self.handshake.on_created(session_id)

    def on_session_closed(self, session_id: int) -> None:
        pass

    def on_own_block_executed(self, reads: int) -> None:
        self.reads_behind.append(reads)
