"""One client's connection as the server sees it: its session, and the order in which its requests are
answered.

`queue` is that order (specification 5.3). An `int` is a write under way, the xid it is answered with;
whatever else stands in the queue waits behind the write before it: a `Parked` request, a finished `Reply`
that may not overtake, a `SyncWait`, or a `Verdict`. While the queue is empty reads are answered at once; it
is empty whenever its head is no write and no sync, which `coord.server.answers.drain` keeps true.
"""

from collections import deque
from typing import Final, NamedTuple

from coord.protocol.digest_md5 import DigestMd5Server
from coord.protocol.records import Identity
from coord.reactor import Connection

NEW: Final = 0
"""Connected; nothing understood yet."""
ATTACHING: Final = 1
"""A ConnectRequest has arrived; what follows it is kept, not parsed."""
SERVING: Final = 2
"""The session is established here."""
CLOSED: Final = 3
"""No request is taken any more; the connection is closed or about to be."""

QUEUE_MAX: Final = 10_000
"""Requests of one connection that wait for their answers; at this many the connection is not read."""


PARKED_BYTES_MAX: Final = 1 << 20
"""Bytes of parked requests of one connection, likewise."""

HELD_PIECES_MAX: Final = 1000
"""Pieces in which an unfinished frame is kept: each costs fifty bytes, so one sent byte by byte is joined."""


class Parked(NamedTuple):
    """A request that waits until the writes before it have been executed; judged by the identities at
    receipt.
    """

    xid: int
    op: int
    body: bytes
    identities: tuple[Identity, ...]


class Reply(NamedTuple):
    """An answer that was decided at receipt and keeps its place in the order."""

    data: bytes
    close_reason: str | None = None


class SyncWait:
    """A sync under way to the leader and back; `done` once this server has executed what the leader named."""

    __slots__ = ("done", "reply", "xid")

    def __init__(self, xid: int, reply: bytes) -> None:
        self.xid = xid
        self.reply = reply
        self.done = False


class Verdict(NamedTuple):
    """An answer without a body to a request that this server decided at receipt: its place, and its zxid, are
    those of its turn.
    """

    xid: int
    error: int
    close_reason: str | None = None


Waiting = int | Parked | Reply | SyncWait | Verdict


class ClientConnection:
    """The state of one client connection; also the token its watches are registered under.

    What `cons` tells of it costs a few stores per connection and tick: latencies are those of samples, one
    at a time. A sample begins with the first write or wait behind which the connection's requests queue up,
    and ends once as many answers have been sent as were due then (`asked_sent`; 0: no sample is under way).
    Whatever else was answered took no millisecond.
    """

    __slots__ = (
        "answered_ms",
        "asked_base",
        "asked_ms",
        "asked_sent",
        "conn",
        "established_wall_ms",
        "heard_ms",
        "held",
        "held_bytes",
        "identities",
        "is_admitted",
        "is_local",
        "is_owed",
        "is_read_only",
        "last_op",
        "last_xid",
        "last_zxid",
        "latency_ms_last",
        "latency_ms_max",
        "latency_ms_min",
        "latency_ms_sum",
        "latency_weight",
        "needed_bytes",
        "out",
        "parked_bytes",
        "password",
        "queue",
        "read_only_flag",
        "received",
        "sasl",
        "sent",
        "session_id",
        "state",
        "taken_bytes",
        "timeout_ms",
        "waiting_since_ms",
        "write_ops",
    )

    def __init__(self, conn: Connection, identities: tuple[Identity, ...], now_ms: int) -> None:
        self.conn = conn
        self.state = NEW
        self.session_id = 0
        self.is_local = False
        self.is_read_only = False
        self.write_ops: frozenset[int] = frozenset()
        self.timeout_ms = 0
        self.password = b""
        self.read_only_flag: bool | None = None
        self.identities = identities
        self.is_admitted = False
        """Whether it has what an enforced authentication asks for; unused where none is enforced."""
        self.sasl: DigestMd5Server | None = None
        """The exchange under way, or done."""
        self.queue: deque[Waiting] = deque()
        self.parked_bytes = 0
        self.out: list[bytes] = []
        self.is_owed = False
        self.held: list[bytes] = []
        self.held_bytes = 0
        self.needed_bytes = 0
        self.heard_ms = now_ms
        self.taken_bytes = 0
        self.waiting_since_ms = 0
        self.established_wall_ms = 0
        self.reset_statistics()

    def reset_statistics(self) -> None:
        """As a connection that has done nothing yet (`crst`); who it is and what it waits for stays."""
        self.received = self.sent = 0
        self.last_op: int | None = None
        self.last_xid = self.last_zxid = -1
        self.answered_ms = 0
        self.asked_sent = self.asked_base = self.asked_ms = 0
        self.latency_ms_last = self.latency_ms_max = self.latency_ms_sum = 0
        self.latency_ms_min = -1
        self.latency_weight = 0

    def note_latency(self, latency_ms: int) -> None:
        """All that waited when the sample began is answered, after so many milliseconds, at least one."""
        weight = self.sent - self.asked_base
        self.latency_weight += weight
        self.latency_ms_last = latency_ms
        self.latency_ms_sum += latency_ms * weight
        if latency_ms > self.latency_ms_max:
            self.latency_ms_max = latency_ms
        if self.latency_ms_min < 0 or latency_ms < self.latency_ms_min:
            self.latency_ms_min = latency_ms

    def hold(self, data: bytes, needed_bytes: int) -> None:
        """Keeps bytes that cannot be used before `needed_bytes` of them are here."""
        if data:
            self.held.append(data)
            if len(self.held) > HELD_PIECES_MAX:
                self.held = [b"".join(self.held)]
        self.held_bytes += len(data)
        self.needed_bytes = needed_bytes

    def take_held(self) -> bytes:
        """All kept bytes, joined once however many reads they came in."""
        data = b"".join(self.held)
        self.held.clear()
        self.held_bytes = 0
        self.needed_bytes = 0
        return data


def host_of(conn: Connection) -> str:
    """The client's address as text, IPv4 as such also where it came over a socket for both."""
    address = conn.peer_address
    host = address if isinstance(address, str) else address[0]
    return host.removeprefix("::ffff:")


def is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"
