"""Clients that use a real ensemble and record what they were told: one blocking session per thread, kept
over reconnections to any server, and the history that all of them write.
"""

import contextlib
import random
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from tests.coord_raw import ACL, Client, Reply, buffer
from tests.histories.checker import Operation
from tests.histories.sessions import Seen

CREATE, DELETE, GET_DATA, SET_DATA, GET_CHILDREN, SYNC, PING = 1, 2, 4, 5, 8, 9, 11
MULTI, MULTI_READ = 14, 22
LOCAL = (GET_DATA, GET_CHILDREN, MULTI_READ, PING)
"""Answered by a server alone, also by one that was stopped, and asked before it knows that all went on."""
PATIENCE_SECONDS = 1.0
"""How long a client waits for an answer before it turns to another server."""
RETRY_SECONDS = 0.01
Via = Callable[[int], contextlib.AbstractContextManager[None]]


class EndedError(Exception):
    """The run is over: the thread that gets this ends."""


@dataclass(slots=True)
class History:
    """Written by many threads, each by whole appends."""

    operations: dict[str, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    """By object."""
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    """By session."""
    lost_sessions: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    answered: int = 0
    """Operations, about (threads count without a lock): for those who wait for progress."""
    stopping: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Node:
    """What a reply shows of a node."""

    data: bytes
    mzxid: int
    version: int


class LiveSession:
    """A session that goes from server to server; the thread that uses it is its heartbeat.

    Operations whose answer is lost are recorded when the session is taken up again: from then on no request
    of the connections before can be executed (specification 4.4).
    """

    def __init__(
        self,
        name: str,
        ports: Sequence[int],
        history: History,
        timeout_ms: int,
        chance: random.Random,
        patience_seconds: float = PATIENCE_SECONDS,
        via: Via | None = None,
        root: str = "",
    ) -> None:
        self.name = name
        self.ports = ports
        self.history = history
        self.timeout_ms = timeout_ms
        self.chance = chance
        self.patience_seconds = patience_seconds
        self.via = via
        """Entered to connect to a port, where its network is not ours."""
        self.root = root
        """Before all paths on the wire, and nowhere else."""
        self.client: Client | None = None
        self.identity = (0, bytes(16))
        self.granted_ms = 0
        self.zxid = 0
        self.xid = 0
        self.heard_of_ns = time.monotonic_ns()
        """When the last request that the leader has seen was sent: the session lives a timeout longer."""
        self.unanswered: list[tuple[str, Hashable, int]] = []
        self.sessions = 0
        self.seen: list[Seen] = []

    def attach(self) -> Client:
        """The connection, or a new one to any server; the session is a new one only if it was over.

        Raises:
            EndedError: the run is over.
        """
        while self.client is None:
            if self.history.stopping.is_set():
                raise EndedError
            sent = time.monotonic_ns()
            port = self.chance.choice(self.ports)
            try:
                with contextlib.nullcontext() if self.via is None else self.via(port):
                    client = Client(
                        "127.0.0.1",
                        port,
                        self.timeout_ms,
                        self.identity,
                        seen=self.zxid,
                        patience_seconds=PATIENCE_SECONDS,
                    )
            except OSError:
                self.history.stopping.wait(RETRY_SECONDS)
                continue
            if client.timeout_ms <= 0:
                client.socket.close()
                self.lose_session()
                continue
            if self.identity[0] == 0:
                self.sessions += 1
                self.seen = self.history.seen.setdefault(f"{self.name}#{self.sessions}", [])
            self.identity = (client.session_id, client.password)
            self.granted_ms = client.timeout_ms
            self.heard_of_ns = sent
            client.socket.settimeout(self.patience_seconds)
            self.client = client
            self.settle()
        return self.client

    def lose_session(self) -> None:
        lived_ms = (time.monotonic_ns() - self.heard_of_ns) // 1_000_000
        self.history.lost_sessions.append(f"{self.name}#{self.sessions} after {lived_ms} ms of silence")
        if lived_ms < self.granted_ms:
            self.history.errors.append(
                f"{self.name}: expired after {lived_ms} ms, granted were {self.granted_ms} ms"
            )
        self.identity = (0, bytes(16))
        self.zxid = 0

    def settle(self) -> None:
        now = time.monotonic_ns()
        for key, call, invoked in self.unanswered:
            self.history.operations[key].append(Operation(self.name, call, invoked, now, None))
        self.unanswered.clear()

    def path(self, path: str) -> bytes:
        return buffer((self.root + path).encode())

    def ask(self, op: int, body: bytes) -> Reply:
        """One request.

        Raises:
            OSError: the answer was lost.
            EndedError: the run is over; nothing was sent.
        """
        client = self.attach()
        self.xid += 1
        sent = time.monotonic_ns()
        try:
            reply = client.ask(self.xid, op, body)
        except OSError:
            client.socket.close()
            self.client = None
            raise
        if op not in LOCAL:
            self.heard_of_ns = sent
        if reply.zxid < self.zxid:
            self.history.errors.append(f"{self.name}: zxid {reply.zxid:#x} after {self.zxid:#x}")
        self.zxid = max(self.zxid, reply.zxid)
        self.history.answered += 1
        return reply

    def record(self, key: str, call: Hashable, invoked: int, answer: Hashable) -> None:
        operation = Operation(self.name, call, invoked, time.monotonic_ns(), answer)
        self.history.operations[key].append(operation)

    def close(self) -> None:
        """Ends the connection; the session is left to expire. What is unanswered may happen at any time."""
        if self.client is not None:
            self.client.socket.close()
            self.client = None
        for key, call, invoked in self.unanswered:
            self.history.operations[key].append(Operation(self.name, call, invoked, None, None))
        self.unanswered.clear()

    # Requests

    def sync(self) -> None:
        self.expect(0, self.ask(SYNC, buffer(b"/")))

    def get(self, path: str) -> Node:
        """A plain read: of the state of the server that has the session."""
        reply = self.ask(GET_DATA, self.path(path) + b"\0")
        self.expect(0, reply)
        node, _ = read_node(reply.body, 0)
        self.saw(reply, path, node)
        return node

    def get_both(self, paths: Sequence[str]) -> list[Node]:
        """By one multiRead."""
        body = b"".join(MULTI_ITEM.pack(GET_DATA, False, -1) + self.path(path) + b"\0" for path in paths)
        reply = self.ask(MULTI_READ, body + MULTI_END)
        self.expect(0, reply)
        nodes, at = [], 0
        for path in paths:
            node, at = read_node(reply.body, at + MULTI_ITEM.size)
            self.saw(reply, path, node)
            nodes.append(node)
        return nodes

    def set(self, path: str, data: bytes, version: int) -> Node | None:
        """None: another version was there."""
        reply = self.ask(SET_DATA, self.path(path) + buffer(data) + struct.pack(">i", version))
        if reply.error == BAD_VERSION_CODE:
            return None
        self.expect(0, reply)
        node = stat_of(reply.body, 0, data)
        self.wrote(path, node)
        return node

    def set_both(self, paths: Sequence[str], data: bytes, version: int) -> list[Node] | None:
        """By one multi, on condition of the first one's version; None: another version was there."""
        body = b""
        for path in paths:
            body += MULTI_ITEM.pack(SET_DATA, False, -1) + self.path(path) + buffer(data)
            body += struct.pack(">i", version)
            version = -1
        reply = self.ask(MULTI, body + MULTI_END)
        self.expect(0, reply)
        nodes, at = [], 0
        for path in paths:
            kind, _, error = MULTI_ITEM.unpack_from(reply.body, at)
            if kind == -1:
                if error != BAD_VERSION_CODE:
                    self.history.errors.append(f"{self.name}: multi: error {error}")
                return None
            node = stat_of(reply.body, at + MULTI_ITEM.size, data)
            at += MULTI_ITEM.size + STAT.size
            self.wrote(path, node)
            nodes.append(node)
        return nodes

    def create(self, path: str, data: bytes, flags: int = 0) -> str:
        """The path that it got; NodeExists counts as done, since it may be the second attempt."""
        reply = self.ask(CREATE, self.path(path) + buffer(data) + ACL + struct.pack(">i", flags))
        if reply.error == NODE_EXISTS_CODE:
            return path
        self.expect(0, reply)
        return reply.body[4:].decode()

    def delete(self, path: str) -> None:
        reply = self.ask(DELETE, self.path(path) + struct.pack(">i", -1))
        if reply.error != NO_NODE_CODE:
            self.expect(0, reply)

    def children(self, path: str) -> list[str]:
        reply = self.ask(GET_CHILDREN, self.path(path) + b"\0")
        self.expect(0, reply)
        (count,) = struct.unpack_from(">i", reply.body)
        names, at = [], 4
        for _ in range(count):
            (length,) = struct.unpack_from(">i", reply.body, at)
            names.append(reply.body[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return names

    def ping(self) -> None:
        self.expect(0, self.ask(PING, b""))

    def expect(self, error: int, reply: Reply) -> None:
        assert reply.error == error, f"{self.name}: error {reply.error}, expected {error}"

    def saw(self, reply: Reply, path: str, node: Node) -> None:
        self.seen.append(Seen(reply.zxid, path, node.mzxid, node.version, node.data))

    def wrote(self, path: str, node: Node) -> None:
        """The Stat is that of the write itself, whatever the header's zxid says was executed since."""
        self.seen.append(Seen(node.mzxid, path, node.mzxid, node.version, node.data))


BAD_VERSION_CODE, NODE_EXISTS_CODE, NO_NODE_CODE = -103, -110, -101
MULTI_ITEM = struct.Struct(">i?i")
MULTI_END = MULTI_ITEM.pack(-1, True, -1)
STAT = struct.Struct(">qqqqiiiqiiq")


def stat_of(body: bytes, at: int, data: bytes) -> Node:
    _, mzxid, _, _, version, *_ = STAT.unpack_from(body, at)
    return Node(data, mzxid, version)


def read_node(body: bytes, at: int) -> tuple[Node, int]:
    """Data and Stat, and where they end."""
    (length,) = struct.unpack_from(">i", body, at)
    data = body[at + 4 : at + 4 + length]
    return stat_of(body, at + 4 + length, data), at + 4 + length + STAT.size
