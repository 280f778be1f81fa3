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

from coord.clock import Clock
from coord.protocol.opcodes import AUTH, CREATE_SESSION, SASL
from coord.protocol.records import Identity
from coord.reactor import Connection
from coord.server.answers import READ_OPS, Answers
from coord.server.authentication import Authentication
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
from coord.server.local_sessions import LocalSessions
from coord.server.restrictions import Restrictions
from coord.server.statistics import ServerStatistics
from coord.server.words import SET_MASK, SET_MASK_BYTES, WORD_NAMES
from coord.tree.execute import encode_create_session

OUTPUT_PAUSE_BYTES: Final = 4 << 20
"""Output that a client has not taken at which its connection is not read."""
SESSIONLESS_MS_MAX: Final = 10_000
"""A connection without a session is closed after this time (specification 4.3)."""
HELD_BYTES_MAX: Final = 1 << 20
"""Bytes kept of a connection whose session is being established, before it is not read either."""

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
    ) -> None:
        self._authentication = authentication
        self._is_guarded = bool(authentication.enforced)
        self._clock = clock
        self._answers = answers
        self._handshake = handshake
        self._statistics = statistics
        self._frame_bytes_max = frame_bytes_max
        self._per_host_max = connections_per_host_max
        self._answer_word = answer_word
        self._settle = settle
        self._is_busy = is_busy
        self._hosts: dict[str, int] = {}
        self._suspended: dict[ClientConnection, None] = {}
        self._intake = Intake()
        self._local_intake = Intake(is_local=True)
        self._local = local
        self._restrictions = Restrictions(answers, local, self._add_write_of, self._upgrade)
        self.connections: dict[ClientConnection, None] = {}
        self.touched: set[int] = set()

    # -- for the reactor -----------------------------------------------------------------------------------

    def on_open(self, conn: Connection) -> None:
        host = host_of(conn)
        count = self._hosts.get(host, 0) + 1
        self._hosts[host] = count
        certificate = conn.peer_certificate
        client = ClientConnection(conn, (Identity("ip", host),), conn.opened_ms)
        conn.data = client
        self.connections[client] = None
        self._statistics.connections_opened += 1
        if certificate is not None:
            client.identities += self._authentication.certificate_identities(certificate)
        elif is_loopback(host):
            self._statistics.non_mtls_local_conn_count += 1
        else:
            self._statistics.non_mtls_remote_conn_count += 1
        if 0 < self._per_host_max < count:
            self._statistics.connections_refused += 1
            conn.close(flush=False, reason=f"more than {self._per_host_max} connections of {host}")

    def on_bytes(self, conn: Connection, data: bytes) -> None:
        client: ClientConnection = conn.data
        if client.state == SERVING:
            self.touched.add(client.session_id)
            if client.held_bytes:
                client.hold(data, client.needed_bytes)
                if client.held_bytes < client.needed_bytes or client in self._suspended:
                    return
                data = client.take_held()
            self._parse(client, data)
        elif client.state == NEW:
            self._begin(client, data)
        elif client.state == ATTACHING:
            client.hold(data, 0)

    def on_close(self, conn: Connection, reason: str) -> None:
        client: ClientConnection = conn.data
        host = host_of(conn)
        count = self._hosts[host] - 1
        if count:
            self._hosts[host] = count
        else:
            del self._hosts[host]
        del self.connections[client]
        self._statistics.packets_received += client.received
        self._statistics.packets_sent += client.sent
        self._suspended.pop(client, None)
        client.state = CLOSED
        client.take_held()
        client.out.clear()
        self._answers.forget(client)
        self._handshake.forget(client)

    def on_tick_end(self) -> None:
        """The server settles what the tick has brought."""
        self._settle()

    def let_go_on(self) -> None:
        # -- connections
        # ---------------------------------------------------------------------------------------
        if self._suspended and not self._is_busy():
            self._resume()

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
            self._parse(client, client.take_held())
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
        """Ends connections that never got a session, or are silent for longer than their session's timeout.

        Call it every half tick, before `touched` is taken: a connection with requests under way counts as
        heard of, for it may be we who do not read it.
        """
        touched = self.touched
        for client in list(self.connections):
            if client.state == SERVING:
                if client.queue or (client in self._suspended and self._takes_output(client)):
                    touched.add(client.session_id)
                if client.session_id in touched:
                    client.heard_ms = now_ms
                elif now_ms - client.heard_ms > client.timeout_ms:
                    client.conn.close(reason="silent for longer than its session's timeout")
            elif client.state != CLOSED and now_ms - client.heard_ms > SESSIONLESS_MS_MAX:
                self._statistics.connections_sessionless += 1
                client.conn.close(reason="no session was established in time")

    def stand_still(self, duration_ms: int) -> None:
        """For this long nobody could be heard: it counts as nobody's silence."""
        for client in self.connections:
            client.heard_ms += duration_ms

    def _takes_output(self, client: ClientConnection) -> bool:
        """Whether a connection that is not read until it has taken its answers has taken some since the last
        look: a slow client lives, one that is gone does not keep its session.
        """
        taken, client.taken_bytes = client.taken_bytes, client.conn.bytes_out
        return client.taken_bytes > taken

    def _begin(self, client: ClientConnection, data: bytes) -> None:
        """The first frame of a connection, or a four-letter word in its place."""
        if client.held_bytes:
            client.hold(data, client.needed_bytes)
            if client.held_bytes < client.needed_bytes:
                return
            data = client.take_held()
        needed = 4
        if len(data) >= 4:
            (length,) = _unpack_int(data)
            if data[:4] in WORD_NAMES:
                self._take_word(client, data)
                return
            if not 0 < length <= self._frame_bytes_max:
                self._refuse_frame(client, length)
                return
            if len(data) >= 4 + length:
                client.received += 1
                client.state = ATTACHING
                if len(data) > 4 + length:
                    client.hold(data[4 + length :], 0)
                client.conn.pause()
                self._handshake.begin(client, data[4 : 4 + length])
                return
            needed = 4 + length
        client.hold(data, needed)

    def _take_word(self, client: ClientConnection, data: bytes) -> None:
        """Everything behind the word is ignored, but for the mask of `stmk`."""
        if data[:4] == SET_MASK and len(data) < SET_MASK_BYTES:
            client.hold(data, SET_MASK_BYTES)
            return
        client.received += 1
        client.state = CLOSED  # not read, which its own line in the answer shows
        self._answer_word(client.conn, data[:4], data[4:SET_MASK_BYTES])

    def _refuse_frame(self, client: ClientConnection, length: int) -> None:
        client.state = CLOSED
        expected = f"expected 1 to {self._frame_bytes_max}"
        client.conn.close(reason=f"frame of {length} bytes, {expected} (session 0x{client.session_id:x})")

    # -- requests --------------------------------------------------------------------------------------------

    def _parse(self, client: ClientConnection, data: bytes) -> None:
        """All whole frames of `data`. The hot loop: reads of a plain znode are answered in place (8 times
        what the general way does), other requests go through `Answers`.
        """
        if self._is_guarded and not client.is_admitted:
            data = self._guard(client, data)
            if not data:
                return
        answers = self._answers
        queue, out = client.queue, client.out
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
                or len(queue) >= QUEUE_MAX
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
        self._keep_rest(client, data, offset, end, room)

    def _add_writes(
        self, client: ClientConnection, xids: list[int], ops: list[int], bodies: list[bytes]
    ) -> None:
        intake = self._local_intake if client.is_local else self._intake
        intake.extend(client.session_id, client.identities, xids, ops, bodies)

    def _add_write_of(self, client: ClientConnection, xid: int, op: int, body: bytes) -> None:
        client.queue.append(xid)
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

    def _keep_rest(self, client: ClientConnection, data: bytes, offset: int, end: int, room: int) -> None:
        """What follows the last whole frame stays; a connection that must wait is paused."""
        left = end - offset
        needed = 12
        if left >= 4:
            (length,) = _unpack_int(data, offset)
            if not 8 <= length <= self._frame_bytes_max:
                self._refuse_frame(client, length)
                return
            needed = 4 + length
        if left:
            client.hold(data[offset:] if offset else data, needed)
        queue = client.queue
        if room < 0 or (
            queue and (len(queue) >= QUEUE_MAX or client.parked_bytes > PARKED_BYTES_MAX or self._is_busy())
        ):
            self._suspended[client] = None
            client.conn.pause()

    def _resume(self) -> None:
        for client in list(self._suspended):
            if (
                len(client.queue) > QUEUE_MAX // 2
                or client.parked_bytes > PARKED_BYTES_MAX // 2
                or client.conn.pending_output > OUTPUT_PAUSE_BYTES // 2
            ):
                continue
            del self._suspended[client]
            client.conn.resume()
            if client.held_bytes >= client.needed_bytes and client.held:
                self._parse(client, client.take_held())
