"""How many multis a second does a coordination server answer, and Apache ZooKeeper beside it?

    python -m bench.coord_multi [--rounds N] [--seconds S] [--no-apache]

Unit: operations inside completed multis per second (multis times their operations), fsync on, standalone,
20 connections with 10 multis under way each, all from this process, which shares the machine with the
servers. Workloads: 10 and 100 setData of 100 bytes; and one multi of check, create, setData, delete that
leaves nothing behind. Each round measures every workload on both servers in turn, the other one idle; each
side's best round counts. The result goes to bench/results/coord_multi.json.
"""

import argparse
import contextlib
import json
import select
import struct
import tempfile
import time
from pathlib import Path

from bench.coord_load import ACL, buffer
from bench.coord_peers import ApacheServers, apache_is_installed
from coord.protocol.records import encode_multi
from tests.coord_raw import Client
from tests.coord_servers import CoordServers
from tests.ending import end_in_order

RESULTS = Path(__file__).parent / "results"
CREATE, DELETE, SET_DATA, CHECK, MULTI = 1, 2, 5, 13, 14
CONNECTIONS, OUTSTANDING = 20, 10
NODES = 100
DATA = b"x" * 100
ANY_VERSION = b"\xff" * 4
ERROR_NODE_EXISTS = -110
ERROR_RESULT = -1
SECONDS_MAX = 30
Result = dict[str, float | int | str]


def node(place: int, number: int) -> bytes:
    return b"/multi/c%02d-%03d" % (place, number)


def create(path: bytes) -> tuple[int, bytes]:
    return CREATE, buffer(path) + buffer(DATA) + ACL + bytes(4)


def sets(place: int, count: int) -> list[tuple[int, bytes]]:
    return [(SET_DATA, buffer(node(place, n)) + buffer(DATA) + ANY_VERSION) for n in range(count)]


def mixed(place: int) -> list[tuple[int, bytes]]:
    path = node(place, 0) + b"/made"
    return [
        (CHECK, buffer(node(place, 0)) + ANY_VERSION),
        create(path),
        (SET_DATA, buffer(path) + buffer(DATA) + bytes(4)),
        (DELETE, buffer(path) + struct.pack(">i", 1)),
    ]


WORKLOADS = {
    "10 setData": lambda place: sets(place, 10),
    "100 setData": lambda place: sets(place, 100),
    "check create setData delete": mixed,
}


def prepare(client: Client) -> None:
    paths = [b"/multi"] + [node(place, n) for place in range(CONNECTIONS) for n in range(NODES)]
    for xid, path in enumerate(paths, 1):
        assert client.call(xid, *create(path)) in (0, ERROR_NODE_EXISTS)


def measure(port: int, name: str, seconds: float) -> Result:
    """One workload, a second of warming first."""
    with contextlib.ExitStack() as stack:
        clients = [Client("127.0.0.1", port) for _ in range(CONNECTIONS)]
        for client in clients:
            stack.callback(client.socket.close)
        poll = stack.enter_context(contextlib.closing(select.epoll()))
        requests: dict[int, bytes] = {}
        sockets = {client.socket.fileno(): client.socket for client in clients}
        operations = 0
        for place, client in enumerate(clients):
            items = WORKLOADS[name](place)
            operations = len(items)
            body = encode_multi(items)
            requests[client.socket.fileno()] = struct.pack(">iii", 8 + len(body), 1, MULTI) + body
            poll.register(client.socket.fileno(), select.EPOLLIN)
        rest = dict.fromkeys(sockets, b"")
        for fd, socket in sockets.items():
            socket.sendall(requests[fd] * OUTSTANDING)
        began = time.perf_counter() + 1.0
        ends = began + seconds
        count = 0
        while (now := time.perf_counter()) < ends:
            ready = poll.poll(SECONDS_MAX)
            assert ready, f"no reply in {SECONDS_MAX} s"
            for fd, _ in ready:
                data = rest[fd] + sockets[fd].recv(1 << 18)
                at = done = 0
                while len(data) - at >= 24 and len(data) - at >= 4 + (
                    size := int.from_bytes(data[at : at + 4])
                ):
                    error, kind = struct.unpack_from(">ii", data, at + 16)
                    assert error == 0, error
                    assert kind != ERROR_RESULT, f"{name}: a multi was refused"
                    at += 4 + size
                    done += 1
                rest[fd] = data[at:]
                sockets[fd].sendall(requests[fd] * done)
                if now >= began:
                    count += done
        spent = time.perf_counter() - began
    return {
        "operations": operations,
        "multis_per_second": round(count / spent),
        "per_second": round(count * operations / spent),
    }


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3, help="the first one warms Apache's compiler")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--no-apache", action="store_true")
    options = parser.parse_args()
    kinds: dict[str, type[CoordServers]] = {"zoolog": CoordServers}
    if apache_is_installed() and not options.no_apache:
        kinds["apache"] = ApacheServers
    report: dict[str, dict[str, Result]] = {side: {} for side in kinds}
    with contextlib.ExitStack() as stack:
        ports: dict[str, int] = {}
        for side, kind in kinds.items():
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"coord-multi-{side}-"))
            ports[side] = stack.enter_context(kind(Path(directory), 1, tick_ms=2000)).servers[0].port
            client = Client("127.0.0.1", ports[side])
            prepare(client)
            client.socket.close()
        for _ in range(options.rounds):
            for name in WORKLOADS:
                for side, port in ports.items():
                    result = measure(port, name, options.seconds)
                    best = report[side].get(name)
                    if best is None or float(result["per_second"]) > float(best["per_second"]):
                        report[side][name] = result
    for name, ours in report["zoolog"].items():
        line = f"{name:30} {ours['per_second']:>9,} operations/s  {ours['multis_per_second']:>7,} multis/s"
        if "apache" in report:
            peer = report["apache"][name]
            ours["ratio"] = round(float(ours["per_second"]) / max(1.0, float(peer["per_second"])), 2)
            line += f"  apache {peer['per_second']:>9,}  ratio {ours['ratio']}"
        print(line)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "coord_multi.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
