"""What do a million watches cost, and how long does it take to fire ten thousand of them?

    python -m bench.coord_watches [--connections N] [--paths N] [--watches N] [--rounds N] [--no-apache]

Units: bytes of a server process per watch (resident memory with the watches less that without them, over
their number), microseconds to set one, milliseconds from the writes that fire FIRED watches to the last of
their events. 1 000 connections watch 10 000 paths, each path 100 times, by getData; then one more connection
writes to FIRED / 100 of the paths in one go, each round to others. Apache ZooKeeper (Debian's package) does
the same in turn; its memory is that of a Java heap, which grows by steps, so it says little. `table` is our
table alone, without a server: bytes as Python's allocator counts them. The result goes to
bench/results/coord_watches.json.
"""

import argparse
import contextlib
import gc
import json
import select
import statistics
import struct
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from bench.coord_load import ACL, buffer
from bench.coord_peers import ApacheServers, apache_is_installed
from coord.tree import WATCH_DATA, WatchTable
from tests.coord_raw import Client
from tests.coord_servers import CoordServer, CoordServers
from tests.ending import end_in_order

RESULTS = Path(__file__).parent / "results"
FIRED = 10_000
CREATE, GET_DATA, SET_DATA, NODE_DATA_CHANGED = 1, 4, 5, 3
EVENT_XID = -1
SECONDS_MAX = 60
TICK_MS = 20_000
SESSION_MS = 20 * TICK_MS
"""Clients send nothing while it is the others' turn."""
Result = dict[str, float | int | str]


def path_of(number: int) -> bytes:
    return b"/watched/node-%06d" % number


def frame(xid: int, op: int, body: bytes) -> bytes:
    return struct.pack(">iii", 8 + len(body), xid, op) + body


def frames(client: Client, count: int) -> Iterator[bytes]:
    """That many frames, read in large pieces."""
    data, at = b"", 0
    while count:
        while count and len(data) - at >= 4:
            length = int.from_bytes(data[at : at + 4])
            if len(data) - at < 4 + length:
                break
            yield data[at + 4 : at + 4 + length]
            at += 4 + length
            count -= 1
        if count:
            part = client.socket.recv(1 << 16)
            if not part:
                raise ConnectionError("closed by the server")
            data, at = data[at:] + part, 0


def resident_bytes(server: CoordServer) -> int:
    assert server.process is not None
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc")


def create_paths(writer: Client, count: int) -> None:
    requests = [frame(0, CREATE, buffer(b"/watched") + buffer(b"") + ACL + bytes(4))]
    requests += [
        frame(n, CREATE, buffer(path_of(n)) + buffer(b"x" * 100) + ACL + bytes(4)) for n in range(count)
    ]
    for start in range(0, len(requests), 500):
        some = requests[start : start + 500]
        writer.socket.sendall(b"".join(some))
        for reply in frames(writer, len(some)):
            (error,) = struct.unpack_from(">i", reply, 12)
            assert not error, error


def set_watches(clients: list[Client], paths: int, watches: int) -> float:
    """Every client watches its share; returns the seconds it took. Path n is watched by as many as path m."""
    share = watches // len(clients)
    began = time.perf_counter()
    for place, client in enumerate(clients):
        numbers = ((place * share + k) % paths for k in range(share))
        client.socket.sendall(b"".join(frame(1, GET_DATA, buffer(path_of(n)) + b"\1") for n in numbers))
        for reply in frames(client, share):
            (error,) = struct.unpack_from(">i", reply, 12)
            assert not error, error
    return time.perf_counter() - began


def fire(writer: Client, clients: list[Client], numbers: range, expected: int) -> float:
    """Writes to these paths at once; returns the seconds until the last of their events has come."""
    poll = select.epoll()
    for client in clients:
        poll.register(client.socket.fileno(), select.EPOLLIN)
    by_fd = {client.socket.fileno(): client for client in clients}
    rest = dict.fromkeys(by_fd, b"")
    requests = [frame(n, SET_DATA, buffer(path_of(n)) + buffer(b"y" * 100) + b"\xff" * 4) for n in numbers]
    began = time.perf_counter()
    writer.socket.sendall(b"".join(requests))
    last = began
    while expected:
        ready = poll.poll(SECONDS_MAX)
        assert ready, f"{expected} events did not come in {SECONDS_MAX} s"
        for fd, _ in ready:
            data = rest[fd] + by_fd[fd].socket.recv(1 << 16)
            at = 0
            while len(data) - at >= 24 and len(data) - at >= 4 + (size := int.from_bytes(data[at : at + 4])):
                xid, _, _, kind = struct.unpack_from(">iqii", data, at + 4)
                assert (xid, kind) == (EVENT_XID, NODE_DATA_CHANGED)
                at += 4 + size
                expected -= 1
            rest[fd] = data[at:]
        last = time.perf_counter()
    poll.close()
    for reply in frames(writer, len(requests)):
        assert struct.unpack_from(">i", reply, 12) == (0,)
    return last - began


def measure_server(server: CoordServer, options: argparse.Namespace) -> Result:
    with contextlib.ExitStack() as stack:
        writer = Client("127.0.0.1", server.port, SESSION_MS)
        stack.callback(writer.socket.close)
        create_paths(writer, options.paths)
        clients = [Client("127.0.0.1", server.port, SESSION_MS) for _ in range(options.connections)]
        for client in clients:
            stack.callback(client.socket.close)
        before = resident_bytes(server)
        seconds = set_watches(clients, options.paths, options.watches)
        after = resident_bytes(server)
        per_path = options.watches // options.paths
        at_once = FIRED // per_path
        times = [
            fire(writer, clients, range(turn * at_once, (turn + 1) * at_once), at_once * per_path)
            for turn in range(options.rounds)
        ]
        return {
            "watches": options.watches,
            "connections": options.connections,
            "paths": options.paths,
            "bytes_per_watch": round((after - before) / options.watches, 1),
            "resident_mb": round(after / 1e6, 1),
            "us_per_watch_set": round(seconds / options.watches * 1e6, 2),
            f"ms_to_fire_{FIRED}": round(statistics.median(times) * 1e3, 1),
            "rounds_ms": str([round(one * 1e3, 1) for one in times]),
        }


def measure_table(options: argparse.Namespace) -> Result:
    """The table itself: every watch with path bytes of its own, as requests bring them."""
    gc.collect()
    tracemalloc.start()
    table = WatchTable()
    connections = [object() for _ in range(options.connections)]
    share = options.watches // options.connections
    start = tracemalloc.get_traced_memory()[0]
    for place, connection in enumerate(connections):
        for k in range(share):
            table.add(connection, WATCH_DATA, path_of((place * share + k) % options.paths))
    used = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert table.count == options.watches
    at_once = FIRED * options.paths // options.watches
    times: list[float] = []
    for turn in range(options.rounds):
        events = [(NODE_DATA_CHANGED, path_of(turn * at_once + n), 0) for n in range(at_once)]
        began = time.perf_counter()
        told = table.fire(events, 1)
        times.append(time.perf_counter() - began)
        assert len(told) == FIRED
    return {
        "bytes_per_watch": round(used / options.watches, 1),
        f"ms_to_fire_{FIRED}": round(statistics.median(times) * 1e3, 2),
    }


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--paths", type=int, default=10_000)
    parser.add_argument("--watches", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-apache", action="store_true")
    options = parser.parse_args()
    kinds: dict[str, type[CoordServers]] = {"zoolog": CoordServers}
    if apache_is_installed() and not options.no_apache:
        kinds["apache"] = ApacheServers
    report: dict[str, Result] = {"table": measure_table(options)}
    for side, kind in kinds.items():
        with (
            tempfile.TemporaryDirectory(prefix=f"coord-watches-{side}-") as directory,
            kind(Path(directory), 1, tick_ms=TICK_MS) as servers,
        ):
            report[side] = measure_server(servers.servers[0], options)
    for side, result in report.items():
        print(f"{side:8}", "  ".join(f"{name} {value}" for name, value in result.items()))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "coord_watches.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
