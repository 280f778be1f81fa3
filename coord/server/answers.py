"""Answers to clients: reads from the executed state, and everything in the order of its requests.

Replies and events of a connection are collected in its `out` and leave in one piece per tick (`send_owed`).
What waits behind a write stands in the connection's queue; `drain` answers it as soon as nothing is before
it.
"""

from collections.abc import Callable
from functools import partial
from struct import Struct
from typing import Final

from coord import eventlog
from coord.clock import Clock
from coord.protocol import opcodes
from coord.protocol.digest_md5 import SaslError
from coord.protocol.jute import DecodeError, Reader, encode_buffer
from coord.protocol.records import Identity
from coord.reactor import OUTPUT_BYTES_MAX
from coord.server.authentication import Authentication, CredentialError, WrongEnsembleError, extend
from coord.server.complaints import Complaints
from coord.server.connection import CLOSED, ClientConnection, Parked, Reply, SyncWait, Verdict
from coord.server.slowness import SlowRequests
from coord.server.state import State
from coord.server.statistics import ServerStatistics
from coord.tree import WATCH_DATA, WATCH_OPS, Node, answer_watch_request, read
from coord.tree.acl import encode_who_am_i
from coord.tree.watches import WATCH_BYTES_MAX

MANY_PARTS: Final = 60
"""Fewer parts than these cannot be too many bytes: each is at most a frame, or a znode's data."""

PARKED_COST: Final = 200
"""Bytes of memory for a parked read beside its body."""
NODE_BYTES: Final = 40
"""What counting one node of a subtree costs, in bytes that could be sent meanwhile."""
DRAIN_BYTES_MAX: Final = 4 << 20
"""Bytes of answers to parked reads that are collected before the connection is asked to take them."""
READ_OPS: Final = frozenset(
    {
        opcodes.EXISTS,
        opcodes.GET_DATA,
        opcodes.GET_ACL,
        opcodes.GET_CHILDREN,
        opcodes.GET_CHILDREN2,
        opcodes.PING,
        opcodes.MULTI_READ,
        opcodes.GET_EPHEMERALS,
        opcodes.GET_ALL_CHILDREN_NUMBER,
        opcodes.WHO_AM_I,
        *WATCH_OPS,
    }
)
"""Answered from the executed state, in the order of the connection's requests."""
WRITE_OPS: Final = frozenset(
    {
        opcodes.CREATE,
        opcodes.DELETE,
        opcodes.SET_DATA,
        opcodes.SET_ACL,
        opcodes.MULTI,
        opcodes.CREATE2,
        opcodes.CREATE_CONTAINER,
        opcodes.CREATE_TTL,
        opcodes.RECONFIG,
        opcodes.CLOSE_SESSION,
    }
)
"""Replicated, and answered from this server's own execution."""

_NULL: Final = encode_buffer(None)
log = eventlog.get("coord.server")

_pack_header = Struct(">iiqi").pack
_unpack_int = Struct(">i").unpack_from


class Answers:
    """Makes the answers of a server's connections.

    Args:
        sync: hands a sync to the leader; calls back when this server has executed what the leader named.
        skip_acl: whether everybody may read everything.
    """

    def __init__(
        self,
        state: State,
        statistics: ServerStatistics,
        sync: Callable[[Callable[[], None]], None],
        clock: Clock,
        slow: SlowRequests,
        authentication: Authentication,
        *,
        skip_acl: bool = False,
    ) -> None:
        self._clock = clock
        self._slow = slow
        self._authentication = authentication
        self._complaints = Complaints(log, clock)
        self._read = partial(read, skip_acl=True) if skip_acl else read
        self._state = state
        self._statistics = statistics
        self._sync = sync
        self._owing: list[ClientConnection] = []
        self.parked_count = 0
        """Reads of all connections that wait behind writes."""
        self.parked_bytes = 0

    @property
    def parked_cost(self) -> int:
        """Bytes of memory that they take, roughly."""
        return self.parked_bytes + self.parked_count * PARKED_COST

    # -- for the hot loop of the client port
    # ------------------------------------------------------------------

    @property
    def zxid(self) -> int:
        return self._state.tree.last_zxid

    @property
    def find_node(self) -> Callable[[bytes], Node | None]:
        return self._state.tree.nodes.get

    def watch_data(self, client: ClientConnection, path: bytes) -> None:
        self._state.watches.add(client, WATCH_DATA, path)
        if self._state.watches.overfull is not None:
            self._end_overfull()

    def owe(self, client: ClientConnection) -> None:
        """`client.out` has something; it leaves with the next `send_owed`."""
        if not client.is_owed:
            client.is_owed = True
            self._owing.append(client)

    # -- requests
    # ----------------------------------------------------------------------------------------------

    def take(self, client: ClientConnection, xid: int, op: int, body: bytes) -> None:
        """A request that is neither a write nor a read."""
        if op == opcodes.SYNC:
            self._take_sync(client, xid, body)
        elif op == opcodes.AUTH:
            self._take_auth(client, xid, body)
        elif op == opcodes.SASL:
            self._take_sasl(client, xid, body)
        else:
            client.state = CLOSED
            reply = _pack_header(16, xid, -1, opcodes.UNIMPLEMENTED)
            self._put(client, Reply(reply, f"unknown operation {op}"))

    def decide(self, client: ClientConnection, xid: int, error: int, close_reason: str | None = None) -> None:
        """Answers a request in its place without executing anything; with a reason, as the last one."""
        if close_reason is not None:
            client.state = CLOSED
        self._put(client, Verdict(xid, error, close_reason))

    def park(self, client: ClientConnection, xid: int, op: int, body: bytes) -> None:
        """A read that has to wait for what stands in the queue."""
        client.queue.append(Parked(xid, op, body, client.identities))
        client.parked_bytes += len(body)
        self.parked_count += 1
        self.parked_bytes += len(body)

    def read(
        self,
        client: ClientConnection,
        xid: int,
        op: int,
        body: bytes,
        identities: tuple[Identity, ...] | None = None,
    ) -> int:
        """Answers a read now; returns the bytes of its answer, headers not counted, or more where finding it
        has taken longer than sending it will: so much of the connection's share of this tick is used up.

        What most of those behind a write are, a getData of a znode open to the world that sets no watch,
        takes a third as long as in the general way.

        Args:
            identities: those at receipt, where they may have changed since.
        """
        out = client.out
        tree = self._state.tree
        if (
            op == opcodes.GET_DATA
            and len(body) > 4
            and body.endswith(b"\0")
            and _unpack_int(body)[0] == len(body) - 5
        ):
            node = tree.nodes.get(body[4:-1])
            if node is not None and not node.acl:
                value = node.data
                out += (_pack_header(84 + len(value), xid, tree.last_zxid, 0), value, node.stat)
                client.sent += 1
                if not client.is_owed:
                    self.owe(client)
                return len(value)
        size = 0
        if op == opcodes.PING:
            out.append(_pack_header(16, opcodes.XID_PING, tree.last_zxid, 0))
        elif op in WATCH_OPS:
            err, answer, events = answer_watch_request(self._state.watches, tree, client, op, body)
            out += events
            out.append(_pack_header(16 + len(answer), xid, tree.last_zxid, err) + answer)
            size = sum(map(len, events))
        elif op == opcodes.WHO_AM_I:
            answer = encode_who_am_i(identities or client.identities)
            out.append(_pack_header(16 + len(answer), xid, tree.last_zxid, 0) + answer)
        else:
            err, answer, watch = self._read(
                tree, op, body, identities or client.identities, client.session_id
            )
            size = len(answer)
            if watch is not None:
                self._state.watches.add(client, *watch)
            out.append(_pack_header(16 + size, xid, tree.last_zxid, err))
            if answer:
                out.append(answer)
                if op == opcodes.GET_ALL_CHILDREN_NUMBER:
                    size += NODE_BYTES * int.from_bytes(answer)
        client.sent += 1
        if not client.is_owed:
            self.owe(client)
        if self._state.watches.overfull is not None:
            self._end_overfull()
        return size

    def _end_overfull(self) -> None:
        """A client watches more than memory is set aside for it."""
        watches = self._state.watches
        client, watches.overfull = watches.overfull, None
        assert isinstance(client, ClientConnection)
        self.close(client, f"watches of more than {WATCH_BYTES_MAX} bytes")

    def drain(self, client: ClientConnection) -> None:
        """Answers what stands at the head of the queue, up to the next write or unfinished sync."""
        queue = client.queue
        size = 0
        while queue:
            head = queue[0]
            if type(head) is int:
                return
            if type(head) is Parked:
                queue.popleft()
                client.parked_bytes -= len(head.body)
                self.parked_count -= 1
                self.parked_bytes -= len(head.body)
                size += self.read(client, *head)
                if size > DRAIN_BYTES_MAX:
                    size = 0
                    self._send(client)  # the connection's bound holds before all is in memory
                    if not client.conn.is_open:
                        client.state = CLOSED
                        self._clear_queue(client)
                        return
            elif isinstance(head, SyncWait):
                if not head.done:
                    return
                queue.popleft()
                client.out.append(_pack_header(16 + len(head.reply), head.xid, self.zxid, 0))
                client.out.append(head.reply)
                client.sent += 1
                self.owe(client)
            else:
                assert isinstance(head, Reply | Verdict)
                queue.popleft()
                client.out.append(
                    head.data
                    if isinstance(head, Reply)
                    else _pack_header(16, head.xid, self.zxid, head.error)
                )
                client.sent += 1
                self.owe(client)
                if head.close_reason is not None:
                    self.close(client, head.close_reason)
                    return

    def _clear_queue(self, client: ClientConnection) -> None:
        self.parked_count -= sum(1 for waiting in client.queue if type(waiting) is Parked)
        self.parked_bytes -= client.parked_bytes
        client.parked_bytes = 0
        client.queue.clear()

    def finish_syncs(self, client: ClientConnection) -> None:
        """Answers all that stands before the next write, which is about to be executed, syncs included.

        That the write is committed says all that a sync waits for: it was proposed after the sync had
        arrived here, so everything that was complete by then has a smaller zxid and is executed; and a
        quorum has followed its leader since.
        """
        for waiting in client.queue:
            if isinstance(waiting, int):
                break
            if isinstance(waiting, SyncWait):
                waiting.done = True
        self.drain(client)

    def close(self, client: ClientConnection, reason: str) -> None:
        """Ends a connection once what it is owed has been sent; what is in its queue is not answered."""
        client.state = CLOSED
        self._clear_queue(client)
        self._send(client)
        client.conn.close(reason=reason)

    def send_owed(self) -> None:
        """Hands each connection's answers to the reactor in one piece."""
        if self._owing:
            owing, self._owing = self._owing, []
            now_ms, zxid = self._clock.monotonic_ms(), self._state.tree.last_zxid
            for client in owing:
                client.answered_ms = now_ms
                client.last_zxid = zxid
                if client.asked_sent and client.sent >= client.asked_sent:
                    latency_ms = now_ms - client.asked_ms
                    client.asked_sent = 0
                    if latency_ms:
                        client.note_latency(latency_ms)
                        if latency_ms >= self._slow.threshold_ms:
                            self._slow.note(client, latency_ms)
                self._send(client)

    def forget(self, client: ClientConnection) -> None:
        """The connection is gone."""
        self._clear_queue(client)
        client.out.clear()
        self._state.watches.remove_connection(client)

    def _send(self, client: ClientConnection) -> None:
        client.is_owed = False
        out = client.out
        if out:
            if len(out) > MANY_PARTS and sum(map(len, out)) > OUTPUT_BYTES_MAX:
                # Answers to reads behind one write: they were due all at once. Joined they would be copied.
                client.conn.close(
                    flush=False, reason=f"answers of more than {OUTPUT_BYTES_MAX} bytes at once"
                )
            else:
                client.conn.send(out[0] if len(out) == 1 else b"".join(out))
            out.clear()

    def _put(self, client: ClientConnection, entry: Parked | Reply | SyncWait | Verdict) -> None:
        client.queue.append(entry)
        self.drain(client)

    def _take_sync(self, client: ClientConnection, xid: int, body: bytes) -> None:
        try:
            reply = encode_buffer(Reader(body).read_buffer())
        except DecodeError:
            # Parked like a read, so that its reply's zxid is the one of the moment when it is sent.
            self._put(client, Parked(xid, opcodes.SYNC, body, client.identities))
            return
        wait = SyncWait(xid, reply)
        client.queue.append(wait)

        def done() -> None:
            wait.done = True
            self.drain(client)

        self._sync(done)

    def _take_auth(self, client: ClientConnection, xid: int, body: bytes) -> None:
        """Counts for all requests received later; the reply keeps its place (specification 5.3)."""
        try:
            client.identities = self._authentication.read_auth_packet(body, client.identities)
        except CredentialError as error:
            self._refuse_login(client, xid, opcodes.AUTH_FAILED, b"", str(error))
        except WrongEnsembleError as error:
            self._cut_off(client, str(error))
        except DecodeError:
            self._cut_off(client, "an auth packet that cannot be read")
        else:
            self._put(client, Reply(_pack_header(16, xid, 0, 0)))

    def _take_sasl(self, client: ClientConnection, xid: int, body: bytes) -> None:
        """One step of a login; its reply keeps its place as well (specification 11.5)."""
        try:
            token = Reader(body).read_buffer()
        except DecodeError:
            token = None
        if token is None:
            self._cut_off(client, "a SASL packet without a token")
            return
        authentication = self._authentication
        if client.sasl is None:
            client.sasl = authentication.begin_sasl()
        try:
            # A server without users answers a null token, and the client goes on without a name.
            answer = _NULL if client.sasl is None else encode_buffer(client.sasl.step(token))
            if client.sasl is not None and client.sasl.user is not None:
                added = authentication.sasl_identities(client.sasl.user)
                client.identities = extend(client.identities, added)
        except (SaslError, CredentialError) as error:
            if not authentication.is_sasl_failure_allowed:
                required = authentication.is_sasl_required
                code = opcodes.SESSION_CLOSED_REQUIRE_SASL_AUTH if required else opcodes.AUTH_FAILED
                self._refuse_login(client, xid, code, _NULL, f"SASL login failed: {error}")
                return
            self._note_failed(client, f"SASL login failed: {error}")
            client.sasl = None
            answer = _NULL
        self._put(client, Reply(_pack_header(16 + len(answer), xid, 0, 0) + answer))

    def refuse_unauthenticated(self, client: ClientConnection, xid: int) -> None:
        """The request of a connection that lacks an enforced identity (specification 5.6)."""
        reason = f"it has not authenticated by {', '.join(sorted(self._authentication.enforced))}"
        self._refuse_login(client, xid, opcodes.SESSION_CLOSED_REQUIRE_SASL_AUTH, b"", reason)

    def _refuse_login(
        self, client: ClientConnection, xid: int, code: int, answer: bytes, reason: str
    ) -> None:
        self._note_failed(client, reason)
        client.state = CLOSED
        self._put(client, Reply(_pack_header(16 + len(answer), xid, 0, code) + answer, reason))

    def _cut_off(self, client: ClientConnection, reason: str) -> None:
        """Ends a connection without a reply to its request, behind the replies to those before."""
        self._note_failed(client, reason)
        client.state = CLOSED
        self._put(client, Reply(b"", reason))

    def _note_failed(self, client: ClientConnection, reason: str) -> None:
        self._statistics.auth_failed_count += 1
        peer, session = client.conn.peer_address, f"0x{client.session_id:x}"
        self._complaints.warn(
            "a client failed to authenticate", do="", peer=peer, session=session, why=reason
        )
