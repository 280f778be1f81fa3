"""Load on coordination servers: raw connections in a closed loop, cheap enough not to be what is measured.

Requests are encoded before the run into a ring that is sent in slices; each connection keeps `outstanding`
of them under way. Of every reply the length and the error code are looked at. Latency counts from the send of
the slice that held the request to the read that brought its reply; one number for all requests of a slice
that were answered by the same read.
"""

import random
import secrets
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from coord import parse_hosts
from pubsub.command.load.latency import Latencies, LoadResult

CREATE, DELETE, GET_DATA, SET_DATA, GET_CHILDREN, CLOSE_SESSION = 1, 2, 4, 5, 8, -11
SEQUENTIAL = 2
SEQUENCE_DIGITS = 10
ACL = struct.pack(">iii5si6s", 1, 31, 5, b"world", 6, b"anyone")
ROOT = "/zoolog-bench"
ERROR_NODE_EXISTS = -110
RECEIVE_BYTES = 1 << 18
SESSION_TIMEOUT_MS = 30_000
CONNECT_SECONDS_MAX = 5.0
CLOSE_SECONDS_MAX = 1.0
#: Requests in the ring of a mixed load; the order of reads and writes repeats after so many.
RING_REQUESTS = 4000
#: Requests of the preparation that are under way at once.
PREPARE_WINDOW = 200
RECONNECT_S = 0.1
#: Without any connection for so long the run has failed.
ALONE_SECONDS_MAX = 15.0
REPORT_S = 0.2

_REPLY = struct.Struct(">iiqi")
REPLY_BYTES_MIN = _REPLY.size
STAT_BYTES = 68

OnProgress = Callable[[int, int], None]


class LoadError(Exception):
    """The run cannot go on; the text says why."""


@dataclass(frozen=True, slots=True)
class CoordLoad:
    """What to send: `read_ratio` of the requests are getData, the others setData; or all are creates, of
    numbered children under each of the nodes.
    """

    hosts: str
    read_ratio: float = 0.5
    clients: int = 20
    outstanding: int = 100
    seconds: float = 10.0
    warm_up_s: float = 1.0
    size: int = 1024
    nodes: int = 1000
    creates: bool = False


def buffer(data: bytes) -> bytes:
    """A buffer or string as the protocol has it."""
    return struct.pack(">i", len(data)) + data


def frame(xid: int, op: int, body: bytes) -> bytes:
    return struct.pack(">iii", 8 + len(body), xid, op) + body


class Connection:
    """One connection with its session, its place in the ring, and what it has under way."""

    def __init__(
        self,
        host: str,
        port: int,
        timeout_ms: int = SESSION_TIMEOUT_MS,
        connect_seconds_max: float = CONNECT_SECONDS_MAX,
    ) -> None:
        self.socket = socket.create_connection((host, port), timeout=connect_seconds_max)
        request = struct.pack(">iqiqi16s?", 0, 0, timeout_ms, 0, 16, bytes(16), False)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.sendall(struct.pack(">i", len(request)) + request)
            self.receive_frame()
        except OSError:
            self.socket.close()
            raise
        self.next = 0
        self.partial = b""
        self.unsent = memoryview(b"")
        self.under_way: deque[tuple[float, int]] = deque()

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
        """One request, waited for; its error code."""
        self.socket.sendall(frame(xid, op, body))
        _, _, error = struct.unpack_from(">iqi", self.receive_frame())
        return int(error)

    def call_many(self, op: int, bodies: list[bytes]) -> None:
        """Many requests, pipelined.

        Raises:
            LoadError: one was refused.
        """
        for start in range(0, len(bodies), PREPARE_WINDOW):
            window = bodies[start : start + PREPARE_WINDOW]
            self.socket.sendall(b"".join(frame(1, op, body) for body in window))
            for _ in window:
                _, _, error = struct.unpack_from(">iqi", self.receive_frame())
                if error not in (0, ERROR_NODE_EXISTS):
                    raise LoadError(f"the server refused to prepare the run: error {error}")

    def close(self) -> None:
        """Ends the session, so that it does not linger until its timeout."""
        try:
            self.socket.settimeout(CLOSE_SECONDS_MAX)
            self.socket.sendall(bytes(self.unsent) + frame(1, CLOSE_SESSION, b""))
            while self.socket.recv(RECEIVE_BYTES):
                pass
        except OSError:
            pass
        self.socket.close()


class Ring:
    """The requests of a run, encoded, in the order in which every connection sends them round and round.

    Attributes:
        data: of all requests, and once more of the first `outstanding`.
        starts: of each request in `data`, and the end.
    """

    def __init__(self, frames: list[bytes], reply_bytes: int | None, outstanding: int) -> None:
        """`reply_bytes` is the size of each reply where all are equal, else None."""
        self.count = len(frames)
        self.reply_bytes = reply_bytes
        # Continued by what one send may hold, so that a slice never has to wrap around.
        longer = [*frames, *(frames[at % len(frames)] for at in range(outstanding))]
        self.data = memoryview(b"".join(longer))
        self.starts = [0]
        for one in longer:
            self.starts.append(self.starts[-1] + len(one))
        if reply_bytes is not None:
            head = _REPLY.pack(reply_bytes - 4, 0, 0, 0)
            self._checked = [(at, head[at]) for at in (0, 1, 2, 3, 16, 17, 18, 19)]

    def take(self, first: int, count: int) -> memoryview:
        return self.data[self.starts[first] : self.starts[first + count]]

    def count_replies(self, data: bytes) -> tuple[int, int, int]:
        """(complete replies, how many of them are refusals, bytes of both)."""
        size = self.reply_bytes
        if size is not None:
            count = len(data) // size
            end = count * size
            # Column by column, in C: all lengths are as expected, all error codes 0.
            if all(data[at:end:size].count(byte) == count for at, byte in self._checked):
                # What is left may be a refusal, which is shorter.
                more, refused, used = count_each(data[end:])
                return count + more, refused, end + used
        return count_each(data)


def count_each(data: bytes) -> tuple[int, int, int]:
    """As `Ring.count_replies`, reply by reply."""
    at, end, count, refused = 0, len(data), 0, 0
    while end - at >= REPLY_BYTES_MIN:
        length, _, _, error = _REPLY.unpack_from(data, at)
        if end - at < 4 + length:
            break
        at += 4 + length
        count += 1
        if error:
            refused += 1
    return count, refused, at


class Load:
    """The closed loop over all connections.

    Attributes:
        completed, errors: since the last `reset`.
    """

    def __init__(self, connections: Sequence[Connection], ring: Ring, outstanding: int) -> None:
        self.completed = 0
        self.errors = 0
        self._latencies = Latencies()
        self.connections = {connection.socket.fileno(): connection for connection in connections}
        self._ring = ring
        self._outstanding = outstanding
        self._epoll = select.epoll()
        for number, connection in enumerate(connections):
            self._add(connection, number * ring.count // len(connections))

    def _add(self, connection: Connection, first: int) -> None:
        connection.next = first
        connection.socket.setblocking(False)
        self.connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket.fileno(), select.EPOLLIN)

    def start(self) -> None:
        now = time.perf_counter()
        for connection in list(self.connections.values()):
            self._send(connection, self._outstanding, now)

    def join(self, connection: Connection) -> None:
        """One more connection, while the loop runs."""
        self._add(connection, 0)
        self._send(connection, self._outstanding, time.perf_counter())

    def reset(self) -> None:
        self.completed = self.errors = 0
        self._latencies = Latencies()

    def read_latencies(self) -> Latencies:
        """Since the last `reset`."""
        return self._latencies

    def run_until(self, deadline: float) -> None:
        while (now := time.perf_counter()) < deadline:
            for descriptor, events in self._epoll.poll(min(0.1, deadline - now)):
                connection = self.connections.get(descriptor)
                if connection is None:
                    continue
                try:
                    if events & select.EPOLLOUT:
                        self._flush(connection, connection.unsent)
                    if events & ~select.EPOLLOUT:
                        self._receive(connection)
                except OSError:
                    self._lose(connection)

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()
        self._epoll.close()

    def _send(self, connection: Connection, count: int, now: float) -> None:
        data = self._ring.take(connection.next, count)
        connection.next = (connection.next + count) % self._ring.count
        connection.under_way.append((now, count))
        if connection.unsent:
            connection.unsent = memoryview(bytes(connection.unsent) + bytes(data))
            return
        try:
            self._flush(connection, data)
        except OSError:
            self._lose(connection)

    def _flush(self, connection: Connection, data: memoryview) -> None:
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data) or connection.unsent:
            wanted = select.EPOLLIN | (select.EPOLLOUT if sent < len(data) else 0)
            self._epoll.modify(connection.socket.fileno(), wanted)
        connection.unsent = data[sent:]

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("closed by the server")
        if connection.partial:
            data = connection.partial + data
        count, refused, used = self._ring.count_replies(data)
        connection.partial = data[used:]
        if not count:
            return
        self.completed += count - refused
        self.errors += refused
        now = time.perf_counter()
        left = count
        while left:
            sent_at, slice_count = connection.under_way.popleft()
            done = min(left, slice_count)
            self._latencies.add(now - sent_at, done)
            if done < slice_count:
                connection.under_way.appendleft((sent_at, slice_count - done))
            left -= done
        self._send(connection, count, now)

    def _lose(self, connection: Connection) -> None:
        """A broken connection: what it had under way counts as errors."""
        self.errors += sum(count for _, count in connection.under_way)
        descriptor = connection.socket.fileno()
        self.connections.pop(descriptor, None)
        self._epoll.unregister(descriptor)
        connection.socket.close()


MakeLoad = Callable[[list[Connection], Ring, int], Load]


def run(
    spec: CoordLoad, on_ready: Callable[[], None], on_progress: OnProgress, make_load: MakeLoad = Load
) -> LoadResult:
    """Prepares the nodes, warms up, measures, and removes the nodes.

    Args:
        make_load: another loop than this module's, for benchmarks.

    Raises:
        LoadError: no server can be reached, or it refuses the preparation.
    """
    hosts = parse_hosts(spec.hosts)
    first = _connect(hosts.servers, 0)
    base = f"{hosts.chroot}{ROOT}-{secrets.token_hex(4)}"
    paths = [f"{base}/{number:06d}".encode() for number in range(spec.nodes)]
    created = [base.encode(), *paths]
    try:
        size = 0 if spec.creates else spec.size
        first.call_many(CREATE, [_create_body(path, size) for path in created])
        connections = [_connect(hosts.servers, number) for number in range(spec.clients)]
        load = make_load(connections, make_ring(paths, spec), spec.outstanding)
        try:
            on_ready()
            return _measure(load, spec, hosts.servers, on_progress)
        finally:
            load.close()
    except OSError as error:
        raise LoadError(f"the connection to a server was lost: {error}") from error
    finally:
        _remove(first, hosts.servers, created, spec.creates)


def _measure(
    load: Load, spec: CoordLoad, servers: tuple[tuple[str, int], ...], on_progress: OnProgress
) -> LoadResult:
    load.start()
    begun = time.perf_counter()
    for _ in _ticks(load, spec, servers, begun + spec.warm_up_s):
        on_progress(load.completed, load.errors)
    load.reset()
    begun, cpu_begun = time.perf_counter(), time.process_time()
    for _ in _ticks(load, spec, servers, begun + spec.seconds):
        on_progress(load.completed, load.errors)
    took = time.perf_counter() - begun
    return LoadResult(
        seconds=took,
        completed=load.completed,
        errors=load.errors,
        generator_cpu=(time.process_time() - cpu_begun) / took,
        latencies=load.read_latencies().counts,
    )


def _ticks(
    load: Load, spec: CoordLoad, servers: tuple[tuple[str, int], ...], deadline: float
) -> Iterator[None]:
    """Runs the loop until `deadline` with a pause for reports and reconnects now and then."""
    alone_since: float | None = None
    turn = 0
    while (now := time.perf_counter()) < deadline:
        load.run_until(min(deadline, now + REPORT_S))
        while len(load.connections) < spec.clients:
            turn += 1
            host, port = servers[turn % len(servers)]
            try:
                load.join(Connection(host, port))
            except OSError:
                break
        if load.connections:
            alone_since = None
        else:
            alone_since = alone_since or now
            if now - alone_since > ALONE_SECONDS_MAX:
                raise LoadError(f"no server has answered for {ALONE_SECONDS_MAX:.0f} s")
            time.sleep(RECONNECT_S)
        yield


def make_ring(paths: list[bytes], spec: CoordLoad) -> Ring:
    """The requests of a run: all nodes in turn, reads and writes mixed by a fixed chance.

    `paths` have one length.
    """
    if spec.creates:
        bodies = [_create_body(path + b"/c-", spec.size, SEQUENTIAL) for path in paths]
        frames = [frame(number, CREATE, body) for number, body in enumerate(bodies, 1)]
        reply = REPLY_BYTES_MIN + 4 + len(paths[0]) + len(b"/c-") + SEQUENCE_DIGITS
        return Ring(frames, reply, spec.outstanding)
    chance = random.Random(1)
    value = buffer(b"y" * spec.size) + struct.pack(">i", -1)
    frames = []
    mixed = 0 < spec.read_ratio < 1
    for number in range(max(len(paths), RING_REQUESTS if mixed else 0)):
        path = buffer(paths[number % len(paths)])
        if spec.read_ratio == 1 or (mixed and chance.random() < spec.read_ratio):
            frames.append(frame(number + 1, GET_DATA, path + b"\0"))
        else:
            frames.append(frame(number + 1, SET_DATA, path + value))
    reply = REPLY_BYTES_MIN + STAT_BYTES + (4 + spec.size if spec.read_ratio == 1 else 0)
    return Ring(frames, None if mixed else reply, spec.outstanding)


def _create_body(path: bytes, size: int, flags: int = 0) -> bytes:
    return buffer(path) + buffer(b"x" * size) + ACL + struct.pack(">i", flags)


def _children(connection: Connection, path: bytes) -> list[bytes]:
    """Paths of a node's children; none of one that is not there."""
    connection.socket.sendall(frame(1, GET_CHILDREN, buffer(path) + b"\0"))
    reply = connection.receive_frame()
    found: list[bytes] = []
    at = REPLY_BYTES_MIN
    while at < len(reply):
        (size,) = struct.unpack_from(">i", reply, at)
        found.append(path + b"/" + reply[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _connect(servers: tuple[tuple[str, int], ...], number: int) -> Connection:
    """A connection to the server whose turn it is, or to the next that takes it."""
    failure: OSError | None = None
    for step in range(len(servers)):
        host, port = servers[(number + step) % len(servers)]
        try:
            return Connection(host, port)
        except OSError as error:
            failure = error
    raise LoadError(f"cannot connect to {servers[number % len(servers)]}: {failure}") from failure


def _remove(
    connection: Connection, servers: tuple[tuple[str, int], ...], created: list[bytes], has_children: bool
) -> None:
    """Deletes what the run created, as far as a server can be reached."""
    for last in (False, True):
        try:
            if has_children:
                created = created + [child for path in created[1:] for child in _children(connection, path)]
                has_children = False
            bodies = [buffer(path) + struct.pack(">i", -1) for path in reversed(created)]
            for start in range(0, len(bodies), PREPARE_WINDOW):
                window = bodies[start : start + PREPARE_WINDOW]
                connection.socket.sendall(b"".join(frame(1, DELETE, body) for body in window))
                for _ in window:
                    connection.receive_frame()
            break
        except OSError:
            if last:
                break
            connection.socket.close()
            try:
                connection = _connect(servers, 1)
            except LoadError:
                return
    connection.close()
