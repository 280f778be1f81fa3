"""The client port: frames in, answers out, in ticks (`coord.reactor`).

What happens to a request when its frame has arrived:

* a read of a session with nothing under way is answered from the tree at once;
* a write joins this tick's `Intake`, which leaves as one block at the tick's end, and puts its xid into the
  connection's queue: nothing is executed here (DESIGN 4);
* anything that arrives behind such a mark is parked until `coord.server.replica` has executed the write.

Back-pressure is per connection and means not reading: a connection with too much in its queue or too much
output that its client does not take, and every connection while too many bytes wait for the log, is paused;
the bytes behind the point where it stopped are kept and parsed later. No single request is ever dropped.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

from coord import eventlog
from coord.clock import Clock
from coord.protocol.jute import DecodeError
from coord.protocol.opcodes import AUTH, CREATE_SESSION, RECONFIG, SASL, THROTTLED_OP
from coord.protocol.records import Identity
from coord.reactor import CLOSED_BY_PEER, Connection
from coord.server.admission import Admission
from coord.server.answers import READ_OPS, Answers
from coord.server.authentication import Authentication, CredentialError
from coord.server.backpressure import NOT_THROTTLED_OPS, OUTPUT_PAUSE_BYTES, Backpressure, whole_frames
from coord.server.bad_frames import BadFrames
from coord.server.complaints import Complaints
from coord.server.config.limits import LimitsConfig
from coord.server.connection import (
    ATTACHING,
    CLOSED,
    NEW,
    PARKED_BYTES_MAX,
    QUEUE_MAX,
    SERVING,
    ClientConnection,
    host_of,
    is_loopback,
)
from coord.server.handshake import Handshake
from coord.server.intake import Intake
from coord.server.large_requests import LargeRequests
from coord.server.local_sessions import LocalSessions
from coord.server.restrictions import Restrictions
from coord.server.silence import Silence
from coord.server.statistics import ServerStatistics
from coord.server.words import SET_MASK, SET_MASK_BYTES, WORD_NAMES
from coord.tree.execute import encode_create_session

HELD_BYTES_MAX: Final = 512 << 20
"""Bytes of unfinished frames of all connections together; one that sends more of them is closed."""

log = eventlog.get("coord.server")

READ_REQUESTS_MAX: Final = 4_000
"""Requests of one read; a connection that sends more is given `FLOOD_READ_BYTES` a tick from then on, so that
a flood of tiny requests (21 000 in a read of 256 KB, 30 ms) lets the others have their turn.
"""
FLOOD_READ_BYTES: Final = 16 << 10

_unpack_head = Struct(">iii").unpack_from
_unpack_int = Struct(">i").unpack_from
_pack_header = Struct(">iiqi").pack
_GET_DATA: Final = 4
_EMPTY: Final = b""


class ClientService:
    """A reactor service for ZooKeeper's client protocol.

    Args:
        answer_word: answers a connection's four-letter word (and what stood behind it), and ends it.
        local: the sessions of this server alone; None when all sessions are global.
        settle: called at the end of each tick; takes the intake.
        is_busy: whether too much waits for the log: connections that write are then not read.
        authentication: who clients are, and whether they must say so before anything else.
        limits: the settings that bound what clients may ask.
        in_flight: writes handed over and not executed, and the bytes of large ones among them.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        answers: Answers,
        handshake: Handshake,
        statistics: ServerStatistics,
        frame_bytes_max: int,
        connections_per_host_max: int,
        answer_word: Callable[[Connection, bytes, bytes], None],
        settle: Callable[[], None],
        is_busy: Callable[[], bool],
        local: LocalSessions | None = None,
        authentication: Authentication,
        limits: LimitsConfig,
        in_flight: Callable[[], tuple[int, int]],
    ) -> None:
        self._authentication = authentication
        self._is_guarded = bool(authentication.enforced)
        self._clock = clock
        self._answers = answers
        self._handshake = handshake
        self._statistics = statistics
        self._frame_bytes_max = frame_bytes_max
        self._answer_word = answer_word
        self._settle = settle
        self._is_busy = is_busy
        self._limits = limits
        self._complaints = Complaints(log, clock)
        self._admission = Admission(
            connections_per_host_max, limits.connections_max, statistics, self._complaints
        )
        self._bad_frames = BadFrames(frame_bytes_max, statistics.limits, self._complaints)
        self._held_bytes = 0
        self._in_flight = in_flight
        self._pressure = Backpressure(
            limits, clock, statistics.limits, self._count_under_way, lambda: answers.parked_cost
        )
        self._suspended = self._pressure.suspended
        self._silence = Silence(limits.sessionless_ms_max, statistics, self._suspended)
        self._large: LargeRequests | None = None
        if limits.large_request_bytes_min > 0:
            self._large = LargeRequests(
                limits.large_request_bytes_min, limits.large_requests_bytes_max, self._count_large_bytes
            )
        self._intake = Intake()
        self._local_intake = Intake(is_local=True)
        self._local = local
        self._restrictions = Restrictions(answers, local, self._add_write_of, self._upgrade)
        self.connections: dict[ClientConnection, None] = {}
        self.touched: set[int] = set()

    # -- for the reactor -----------------------------------------------------------------------------------

    def on_open(self, conn: Connection) -> None:
        host = host_of(conn)
        certificate = conn.peer_certificate
        client = ClientConnection(conn, (Identity("ip", host),), conn.opened_ms)
        conn.data = client
        self.connections[client] = None
        if certificate is not None:
            self._introduce(client, certificate)
        elif is_loopback(host):
            self._statistics.non_mtls_local_conn_count += 1
        else:
            self._statistics.non_mtls_remote_conn_count += 1
        refusal = self._admission.on_open(conn)
        if refusal:
            conn.close(flush=False, reason=refusal)

    def _introduce(self, client: ClientConnection, certificate: bytes) -> None:
        """The verified certificate says who a client is, unless nobody could carry such a name."""
        try:
            client.identities += self._authentication.certificate_identities(certificate)
        except (CredentialError, DecodeError) as error:
            peer = client.conn.peer_address
            self._complaints.warn(
                "a certificate that is no identity", do="issue another", peer=peer, why=error
            )
            client.conn.close(flush=False, reason="its certificate is no identity")

    def on_bytes(self, conn: Connection, data: bytes) -> None:
        client: ClientConnection = conn.data
        if client.state == SERVING:
            self.touched.add(client.session_id)
            if client.held_bytes:
                self._hold(client, data, client.needed_bytes)
                if client.held_bytes < client.needed_bytes or client in self._suspended:
                    return
                data = self._take_held(client)
            self._parse(client, data)
        elif client.state == NEW:
            self._begin(client, data)
        elif client.state == ATTACHING:
            self._hold(client, data, 0)

    def on_close(self, conn: Connection, reason: str) -> None:
        client: ClientConnection = conn.data
        self._admission.on_close(conn)
        del self.connections[client]
        self._statistics.packets_received += client.received
        self._statistics.packets_sent += client.sent
        if client.state != CLOSED and reason == CLOSED_BY_PEER:
            self._statistics.limits.connection_drop_count += 1
        self._pressure.forget(client)
        if self._large is not None:
            self._large.forget(client)
        client.state = CLOSED
        self._take_held(client)
        client.out.clear()
        self._answers.forget(client)
        self._handshake.forget(client)

    def on_tick_end(self) -> None:
        """The server settles what the tick has brought."""
        self._settle()

    def let_go_on(self) -> None:
        """Reads suspended connections again, if they and the server have room."""
        if self._suspended and not self._is_busy():
            for client in self._pressure.take_resumable():
                self._resume(client)

    @property
    def has_intake(self) -> bool:
        return bool(self._intake.xids or self._local_intake.xids)

    @property
    def intake_bytes(self) -> int:
        return self._intake.body_bytes + self._local_intake.body_bytes

    def take_intakes(self) -> list[Intake]:
        """The writes that have come in since the last call, those of local sessions first: what a session
        asked while it was local comes before what it asks as a global one.
        """
        taken = [intake for intake in (self._local_intake, self._intake) if intake.xids]
        self._drop_intakes()
        return taken

    def _drop_intakes(self) -> None:
        self._intake, self._local_intake = Intake(), Intake(is_local=True)

    # -- connections -----------------------------------------------------------------------------------------

    def serve(self, client: ClientConnection) -> None:
        """The session is established: what the client sent meanwhile is parsed, and reading goes on."""
        client.state = SERVING
        client.established_wall_ms = self._clock.wall_ms()
        client.sent += 1
        client.last_op, client.last_xid = CREATE_SESSION, 0
        self._restrictions.impose(client)
        self.touched.add(client.session_id)
        if client.held:
            self._parse(client, self._take_held(client))
        if client not in self._suspended:
            client.conn.resume()

    def add_write(self, session_id: int, op: int, body: bytes) -> None:
        """A write that no request of a connection stands for: the begin of a session, or its expiry."""
        self._intake.add(session_id, op, body)

    def close_all(self, reason: str) -> None:
        """Ends every client connection (this server no longer leads or follows, or stops)."""
        for client in list(self.connections):
            client.state = CLOSED
            client.conn.close(reason=reason)
        self._drop_intakes()

    def keep_house(self, now_ms: int) -> None:
        """Ends silent connections; call it every half tick, before `touched` is taken."""
        self._silence.end(list(self.connections), self.touched, now_ms)

    def stand_still(self, duration_ms: int) -> None:
        """For this long nobody could be heard: it counts as nobody's silence."""
        for client in self.connections:
            client.heard_ms += duration_ms

    def _begin(self, client: ClientConnection, data: bytes) -> None:
        """The first frame of a connection, or a four-letter word in its place."""
        if client.held_bytes:
            self._hold(client, data, client.needed_bytes)
            if client.held_bytes < client.needed_bytes:
                return
            data = self._take_held(client)
        needed = 4
        if len(data) >= 4:
            (length,) = _unpack_int(data)
            if data[:4] in WORD_NAMES:
                self._take_word(client, data)
                return
            if not 0 < length <= self._frame_bytes_max:
                self._refuse_frame(client, data, 0)
                return
            if len(data) >= 4 + length:
                client.received += 1
                client.state = ATTACHING
                if len(data) > 4 + length:
                    self._hold(client, data[4 + length :], 0)
                client.conn.pause()
                self._statistics.handshakes += 1
                self._handshake.begin(client, data[4 : 4 + length])
                return
            needed = 4 + length
        self._hold(client, data, needed)

    def _take_word(self, client: ClientConnection, data: bytes) -> None:
        """Everything behind the word is ignored, but for the mask of `stmk`."""
        if data[:4] == SET_MASK and len(data) < SET_MASK_BYTES:
            self._hold(client, data, SET_MASK_BYTES)
            return
        client.received += 1
        client.state = CLOSED  # not read, which its own line in the answer shows
        self._answer_word(client.conn, data[:4], data[4:SET_MASK_BYTES])

    def _refuse_frame(self, client: ClientConnection, data: bytes, offset: int) -> None:
        self._end(client, self._bad_frames.explain(client, data[offset : offset + 12]))

    def _end(self, client: ClientConnection, reason: str) -> None:
        client.state = CLOSED
        client.conn.close(reason=reason)

    def _hold(self, client: ClientConnection, data: bytes, needed_bytes: int) -> None:
        """Keeps bytes of a connection, within what all of them may have us keep of unfinished frames."""
        client.hold(data, needed_bytes)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES_MAX and client.held_bytes < needed_bytes:
            self._take_held(client)
            self._statistics.limits.unfinished_requests_rejected += 1
            self._complaints.warn(
                "too many unfinished requests of all clients together",
                do="look for clients that send and do not finish, or have fewer clients a server",
                peer=client.conn.peer_address,
                most=HELD_BYTES_MAX,
            )
            self._end(client, "too many unfinished requests of all clients together")

    def _take_held(self, client: ClientConnection) -> bytes:
        self._held_bytes -= client.held_bytes
        return client.take_held()

    def _count_under_way(self) -> int:
        waiting = len(self._intake) + len(self._local_intake) + self._answers.parked_count
        return self._in_flight()[0] + waiting

    def _count_large_bytes(self) -> int:
        return self._in_flight()[1] + self._intake.large_bytes + self._local_intake.large_bytes

    # -- requests --------------------------------------------------------------------------------------------

    def _parse(self, client: ClientConnection, data: bytes) -> None:
        """All whole frames of `data`. The hot loop: reads of a plain znode are answered in place (8 times
        what the general way does), other requests go through `Answers`.
        """
        if self._is_guarded and not client.is_admitted:
            data = self._guard(client, data)
            if not data:
                return
        if self._large is not None and not self._admits_large(self._large, client, data):
            return
        answers = self._answers
        queue, out = client.queue, client.out
        pressure = self._pressure
        is_bounded = pressure.outstanding_max or answers.parked_count
        queue_max = pressure.queue_max(client) if is_bounded else QUEUE_MAX
        find, zxid = answers.find_node, answers.zxid
        xids: list[int] = []
        ops: list[int] = []
        bodies: list[bytes] = []
        offset, end = 0, len(data)
        room = OUTPUT_PAUSE_BYTES - client.conn.pending_output
        write_ops = client.write_ops
        frame_bytes_max = self._frame_bytes_max
        count = writes = 0
        while end - offset >= 12:
            length, xid, op = _unpack_head(data, offset)
            following = offset + 4 + length
            if following > end or not 8 <= length <= frame_bytes_max:
                break
            if op == _GET_DATA and not queue:
                path_end = offset + 16 + _unpack_int(data, offset + 12)[0] if length > 12 else following
                node = find(data[offset + 16 : path_end]) if offset + 16 <= path_end < following else None
                if node is not None and not node.acl:
                    if data[path_end]:
                        answers.watch_data(client, data[offset + 16 : path_end])
                    value = node.data
                    room -= len(value)
                    out.append(_pack_header(84 + len(value), xid, zxid, 0))
                    out.append(value)
                    out.append(node.stat)
                    client.sent += 1
                else:
                    room -= answers.read(client, xid, op, data[offset + 12 : following])
            elif op in write_ops:
                queue.append(xid)
                xids.append(xid)
                ops.append(op)
                bodies.append(data[offset + 12 : following])
                writes += 1
            elif op in READ_OPS:
                if queue:
                    answers.park(client, xid, op, data[offset + 12 : following])
                else:
                    room -= answers.read(client, xid, op, data[offset + 12 : following])
            else:
                if xids:
                    # An auth packet counts for what follows it only, and so does the end of a restriction.
                    self._add_writes(client, xids, ops, bodies)
                    xids, ops, bodies = [], [], []
                body = data[offset + 12 : following]
                if not self._restrictions.take(client, xid, op, body):
                    answers.take(client, xid, op, body)
                write_ops = client.write_ops
            count += 1
            offset = following
            if (
                room < 0
                or len(queue) >= queue_max
                or client.parked_bytes > PARKED_BYTES_MAX
                or client.state != SERVING
            ):
                break
        client.received += count
        if count:
            if end - offset < 12:  # else `op` is that of the frame behind
                client.last_op = op
                if xid >= 0:
                    client.last_xid = xid
            self._statistics.reads += count - writes
            if count > READ_REQUESTS_MAX:
                client.conn.read_at_most(FLOOD_READ_BYTES)
            if queue and not client.asked_sent:
                client.asked_ms = self._clock.monotonic_ms()
                client.asked_base = client.sent
                client.asked_sent = client.sent + len(queue)
        if xids:
            self._add_writes(client, xids, ops, bodies)
        if out and not client.is_owed:
            answers.owe(client)
        if client.state != SERVING:
            return
        self._keep_rest(client, data, offset, end, room, queue_max)

    def _admits_large(self, large: LargeRequests, client: ClientConnection, data: bytes) -> bool:
        """Ends a connection whose large request is one too many."""
        length = large.admit(client, data)
        if not length:
            return True
        self._statistics.limits.large_requests_rejected += 1
        self._complaints.warn(
            "too many large requests at once",
            do="see largeRequestMaxBytes",
            session=hex(client.session_id),
            request_bytes=length,
            most=self._limits.large_requests_bytes_max,
        )
        self._end(client, "too many large requests at once")
        return False

    def _add_writes(
        self, client: ClientConnection, xids: list[int], ops: list[int], bodies: list[bytes]
    ) -> None:
        intake = self._local_intake if client.is_local else self._intake
        intake.extend(client.session_id, client.identities, xids, ops, bodies)
        if self._large is not None:
            intake.large_bytes += self._large.weigh(bodies)

    def _add_write_of(self, client: ClientConnection, xid: int, op: int, body: bytes) -> None:
        client.queue.append(xid)
        if op == RECONFIG:
            intake = self._local_intake if client.is_local else self._intake
            intake.changes.append(len(intake))
        self._add_writes(client, [xid], [op], [body])

    def _upgrade(self, client: ClientConnection) -> None:
        """From here on the client's session is a global one; its creation goes ahead of what follows."""
        assert self._local is not None
        timeout_ms, password = self._local.find(client.session_id)
        self.add_write(client.session_id, CREATE_SESSION, encode_create_session(timeout_ms, password))
        client.is_local = False
        self._restrictions.impose(client)

    def _guard(self, client: ClientConnection, data: bytes) -> bytes:
        """Lets a connection do no more than authenticate where that is enforced; returns what follows the
        frame that did it.
        """
        offset, end = 0, len(data)
        while not self._authentication.is_sufficient(client.identities):
            length, xid, op = _unpack_head(data, offset) if end - offset >= 12 else (0, 0, 0)
            following = offset + 4 + length
            if following > end or not 8 <= length <= self._frame_bytes_max:
                self._keep_rest(client, data, offset, end, OUTPUT_PAUSE_BYTES - client.conn.pending_output)
                return _EMPTY
            client.received += 1
            if op in (AUTH, SASL):
                self._answers.take(client, xid, op, data[offset + 12 : following])
            else:
                self._answers.refuse_unauthenticated(client, xid)
            if client.state != SERVING:
                return _EMPTY
            offset = following
        client.is_admitted = True
        return data[offset:]

    def _keep_rest(
        self,
        client: ClientConnection,
        data: bytes,
        offset: int,
        end: int,
        room: int,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        """What follows the last whole frame stays; a connection that must wait is paused."""
        left = end - offset
        needed = 12
        if left >= 4:
            (length,) = _unpack_int(data, offset)
            if not 8 <= length <= self._frame_bytes_max:
                self._refuse_frame(client, data, offset)
                return
            needed = 4 + length
        if left:
            self._hold(client, data[offset:] if offset else data, needed)
        queue = client.queue
        if room < 0 or (
            queue and (len(queue) >= queue_max or client.parked_bytes > PARKED_BYTES_MAX or self._is_busy())
        ):
            self._pressure.suspend(client, by_client=room < 0)

    def _resume(self, client: ClientConnection) -> None:
        client.conn.resume()
        if client.held_bytes < client.needed_bytes or not client.held:
            return
        if client.waiting_since_ms:
            waited_ms = self._pressure.take_wait_ms(client)
            if self._pressure.is_stale(client, waited_ms):
                self._end(client, "its requests have waited for longer than its session's timeout")
                return
            if self._pressure.is_throttled(waited_ms):
                self._refuse_waited(client, self._take_held(client))
                return
        self._parse(client, self._take_held(client))

    def _refuse_waited(self, client: ClientConnection, data: bytes) -> None:
        """Requests that have waited for too long are not executed; what keeps or ends a session is."""
        end = 0
        for start, end, xid, op in whole_frames(data):
            if op in NOT_THROTTLED_OPS:
                self._parse(client, data[start:end])
                if client.state != SERVING:
                    return
            else:
                client.received += 1
                self._statistics.limits.throttled_ops += 1
                self._answers.decide(client, xid, THROTTLED_OP)
        self._parse(client, data[end:])
