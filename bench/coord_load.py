"""Load generator for ZooKeeper's client protocol: a process of its own, so that it shares nothing with a
server.

    python -m bench.coord_load HOSTS read|write CONNECTIONS OUTSTANDING [--seconds S] [--size BYTES] [--nodes
    N]

Unit: completed requests per second, in a closed loop (each connection keeps OUTSTANDING requests under way).
It must not be the bottleneck, so it does next to nothing per request: requests are encoded before the run
into one ring of equal-sized frames that is sent in slices, and replies, which are then of equal size too,
are counted by length. The first reply of every chunk received is checked (length, error code): a refused
request has a shorter reply, so nothing passes unseen. Latency is measured per slice sent. Prints one JSON
object.
"""

import argparse
import json
import select
import socket
import struct
import sys
import time
from collections import deque

ACL = struct.pack(">ii", 1, 31) + struct.pack(">i5si6s", 5, b"world", 6, b"anyone")
NODE_COUNT = 1000
RECEIVE_BYTES = 1 << 18
ERROR_NODE_EXISTS = -110


class Client:
    """One connection with its session, its place in the ring, and what it has under way."""

    def __init__(self, host: str, port: int, timeout_ms: int = 30_000) -> None:
        self.socket = socket.create_connection((host, port), timeout=5)
        request = struct.pack(">iqiqi16s?", 0, 0, timeout_ms, 0, 16, bytes(16), False)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.sendall(struct.pack(">i", len(request)) + request)
            self.receive_frame()
        except OSError:
            self.socket.close()
            raise
        self.next = 0
        self.partial = 0
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
        self.socket.sendall(struct.pack(">iii", 8 + len(body), xid, op) + body)
        _, _, error = struct.unpack_from(">iqi", self.receive_frame())
        return int(error)


def buffer(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def node_path(number: int) -> bytes:
    return b"/bench/node-%06d" % number


def prepare(client: Client, size: int, nodes: int) -> None:
    """Creates /bench and its nodes with values of `size` bytes; what is there already stays."""
    paths = [b"/bench"] + [node_path(number) for number in range(nodes)]
    for xid, path in enumerate(paths, 1):
        error = client.call(xid, 1, buffer(path) + buffer(b"x" * size) + ACL + struct.pack(">i", 0))
        if error not in (0, ERROR_NODE_EXISTS):
            raise SystemExit(f"create {path!r}: error {error}")
        if error and path != b"/bench":
            client.call(xid, 5, buffer(path) + buffer(b"x" * size) + struct.pack(">i", -1))


def encode_ring(kind: str, size: int, nodes: int) -> tuple[bytes, int, int]:
    """The frames of one round over all nodes; their size and that of a reply."""
    frames = []
    for number in range(nodes):
        if kind == "read":
            body = buffer(node_path(number)) + b"\0"
        else:
            body = buffer(node_path(number)) + buffer(b"y" * size) + struct.pack(">i", -1)
        frames.append(struct.pack(">iii", 8 + len(body), number + 1, 4 if kind == "read" else 5) + body)
    reply = 4 + 16 + 68 + (4 + size if kind == "read" else 0)
    return b"".join(frames), len(frames[0]), reply


class Load:
    """The closed loop over all clients."""

    def __init__(
        self, clients: list[Client], ring: bytes, request: int, reply: int, outstanding: int
    ) -> None:
        self.clients = clients
        self.ring = memoryview(ring + ring[: request * outstanding])
        self.ring_count = len(ring) // request
        self.request = request
        self.reply = reply
        self.outstanding = outstanding
        self.completed = 0
        self.latencies: list[tuple[float, int]] = []
        self.epoll = select.epoll()
        self.by_descriptor = {client.socket.fileno(): client for client in clients}
        for number, client in enumerate(clients):
            client.next = number * self.ring_count // len(clients)
            client.socket.setblocking(False)
            self.epoll.register(client.socket.fileno(), select.EPOLLIN)

    def start(self) -> None:
        now = time.perf_counter()
        for client in self.clients:
            self.send(client, self.outstanding, now)

    def send(self, client: Client, count: int, now: float) -> None:
        start = client.next * self.request
        client.next = (client.next + count) % self.ring_count
        client.under_way.append((now, count))
        data = self.ring[start : start + count * self.request]
        if client.unsent:
            client.unsent = memoryview(bytes(client.unsent) + bytes(data))
            return
        self.flush(client, data)

    def flush(self, client: Client, data: memoryview) -> None:
        try:
            sent = client.socket.send(data)
        except BlockingIOError:
            sent = 0
        wanted = select.EPOLLIN | (select.EPOLLOUT if sent < len(data) else 0)
        if sent < len(data) or client.unsent:
            self.epoll.modify(client.socket.fileno(), wanted)
        client.unsent = data[sent:]

    def run_until(self, deadline: float) -> None:
        while (now := time.perf_counter()) < deadline:
            for descriptor, events in self.epoll.poll(min(1.0, deadline - now)):
                client = self.by_descriptor[descriptor]
                if events & select.EPOLLOUT:
                    self.flush(client, client.unsent)
                if events & ~select.EPOLLOUT:
                    self.receive(client)

    def receive(self, client: Client) -> None:
        try:
            data = client.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise SystemExit("the server closed a connection")
        boundary = (self.reply - client.partial) % self.reply
        if boundary + 20 <= len(data):
            length, _, _, error = struct.unpack_from(">iiqi", data, boundary)
            if error or length != self.reply - 4:
                raise SystemExit(f"unexpected reply: length {length}, error {error}")
        count, client.partial = divmod(client.partial + len(data), self.reply)
        if not count:
            return
        self.completed += count
        now = time.perf_counter()
        left = count
        while left:
            sent_at, slice_count = client.under_way.popleft()
            done = min(left, slice_count)
            self.latencies.append((now - sent_at, done))
            if done < slice_count:
                client.under_way.appendleft((sent_at, slice_count - done))
            left -= done
        self.send(client, count, now)


def quantile_ms(latencies: list[tuple[float, int]], quantile: float) -> float:
    total = sum(count for _, count in latencies)
    seen = 0
    for latency, count in sorted(latencies):
        seen += count
        if seen >= quantile * total:
            return round(latency * 1000, 3)
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("hosts")
    parser.add_argument("kind", choices=["read", "write"])
    parser.add_argument("connections", type=int)
    parser.add_argument("outstanding", type=int)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--nodes", type=int, default=NODE_COUNT)
    options = parser.parse_args()
    hosts = [(host, int(port)) for host, _, port in (h.rpartition(":") for h in options.hosts.split(","))]
    prepare(Client(*hosts[0]), options.size, options.nodes)
    ring, request, reply = encode_ring(options.kind, options.size, options.nodes)
    clients = [Client(*hosts[number % len(hosts)]) for number in range(options.connections)]
    load = Load(clients, ring, request, reply, options.outstanding)
    load.start()
    load.run_until(time.perf_counter() + options.warm)
    load.completed = 0
    load.latencies.clear()
    started, cpu_started = time.perf_counter(), time.process_time()
    load.run_until(started + options.seconds)
    elapsed = time.perf_counter() - started
    result = {
        "kind": options.kind,
        "connections": options.connections,
        "outstanding": options.outstanding,
        "size": options.size,
        "per_second": round(load.completed / elapsed),
        "p50_ms": quantile_ms(load.latencies, 0.5),
        "p99_ms": quantile_ms(load.latencies, 0.99),
        "generator_cpu": round((time.process_time() - cpu_started) / elapsed, 2),
    }
    json.dump(result, sys.stdout)
    print()


if __name__ == "__main__":
    main()
