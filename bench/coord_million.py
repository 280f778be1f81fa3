"""What do a million znodes of 100 bytes cost, in memory, at a restart, and while a checkpoint is written?

    python -m bench.coord_million [--nodes N] [--no-apache]

Units: MB resident (of the server's process, after all nodes were created), seconds from the start of the
process to the first read answered (after an orderly stop and after kill -9), and milliseconds that a ping
takes at most, one every 2 ms on an idle connection, before and while a checkpoint of all nodes is written
and 20 clients read and write. One standalone server, 1000 parents with 1000 children each. Apache ZooKeeper
(Debian's package) gets the same nodes, for its memory and its restart. Bars: 800 MB, 10 s, 50 ms.
The result goes to bench/results/coord_million.json.
"""

import argparse
import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.coord_load import ACL, Client, buffer
from bench.coord_peers import ApacheServers, apache_is_installed
from tests.coord_servers import CoordServer, CoordServers, free_ports
from tests.ending import end_in_order

RESULTS = Path(__file__).parent / "results"
BARS = {"resident_mb": 800, "restart_s": 10, "ping_ms_max": 50}
CHILDREN = 1000
VALUE = b"x" * 100
CONNECTIONS = 10
CREATE, GET_DATA, PING = 1, 4, 11
PING_PAUSE_S = 0.002
QUIET_S = 3.0
CHECKPOINT_S_MAX = 120.0


def fill(port: int, nodes: int) -> float:
    """Creates the nodes, pipelined over some connections; returns creates per second."""
    clients = [Client("127.0.0.1", port) for _ in range(CONNECTIONS)]
    begun = time.perf_counter()
    for first in range(0, nodes // CHILDREN, CONNECTIONS):
        busy = []
        for client, parent in zip(clients, range(first, nodes // CHILDREN), strict=False):
            path = b"/million-%04d" % parent
            paths = [path, *(path + b"/node-%06d" % number for number in range(CHILDREN - 1))]
            bodies = [buffer(one) + buffer(VALUE) + ACL + struct.pack(">i", 0) for one in paths]
            busy.append((client, len(bodies)))
            frames = [struct.pack(">iii", 8 + len(body), 1, CREATE) + body for body in bodies]
            client.socket.settimeout(120)
            client.socket.sendall(b"".join(frames))
        for client, count in busy:
            for _ in range(count):
                _, _, error = struct.unpack_from(">iqi", client.receive_frame())
                if error:
                    raise SystemExit(f"create: error {error}")
    rate = nodes / (time.perf_counter() - begun)
    for client in clients:
        client.close()
    return rate


def resident_mb(server: CoordServer) -> int:
    assert server.process is not None
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024)
    raise SystemExit("the server has no memory")


def restart_s(server: CoordServer, *, kill: bool) -> float:
    """Until a read is answered again."""
    if kill:
        server.kill()
    else:
        server.stop()
    begun = time.perf_counter()
    server.start()
    while True:
        server.check_alive()
        try:
            client = Client("127.0.0.1", server.port)
        except OSError:
            time.sleep(0.02)
            continue
        error = client.call(1, GET_DATA, buffer(b"/million-0000") + b"\0")
        took = time.perf_counter() - begun
        client.close()
        if error:
            raise SystemExit(f"a node is gone: error {error}")
        return took


class Prober(threading.Thread):
    """Pings, one after the other with a pause; `slowest_ms` is the longest since it was last set to 0."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.slowest_ms = 0.0
        self.stopping = False
        self._client = Client("127.0.0.1", port)

    def run(self) -> None:
        while not self.stopping:
            begun = time.perf_counter()
            self._client.call(-2, PING, b"")
            self.slowest_ms = max(self.slowest_ms, (time.perf_counter() - begun) * 1000)
            time.sleep(PING_PAUSE_S)
        self._client.close()

    def take(self) -> float:
        taken, self.slowest_ms = self.slowest_ms, 0.0
        return round(taken, 1)


@contextlib.contextmanager
def load(port: int) -> Iterator[None]:
    """20 clients that read and write, one request each at a time."""
    command = [sys.executable, "-m", "bench.coord_load", f"127.0.0.1:{port}", "mixed", "20", "1"]
    process = subprocess.Popen([*command, "--seconds", str(CHECKPOINT_S_MAX)], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def checkpoint(admin_port: int) -> None:
    """Has the server write a checkpoint, and waits for it."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{admin_port}/commands/snapshot?streaming=false",
        headers={"Authorization": "digest bench:bench"},
    )
    with urllib.request.urlopen(request, timeout=CHECKPOINT_S_MAX) as response:
        response.read()


def probe_checkpoint(port: int, admin_port: int) -> dict[str, float]:
    prober = Prober(port)
    prober.start()
    with load(port):
        time.sleep(QUIET_S)
        prober.take()
        time.sleep(QUIET_S)
        before = prober.take()
        begun = time.perf_counter()
        checkpoint(admin_port)
        took = time.perf_counter() - begun
        during = prober.take()
    prober.stopping = True
    prober.join()
    return {"ping_ms_max_before": before, "ping_ms_max": during, "checkpoint_s": round(took, 1)}


def measure(kind: type[CoordServers], directory: Path, nodes: int, extra: str) -> dict[str, float]:
    with kind(directory, 1, tick_ms=2000, extra=extra) as servers:
        (server,) = servers.servers
        result: dict[str, float] = {"creates_per_s": round(fill(server.port, nodes))}
        result["resident_mb"] = resident_mb(server)
        if kind is CoordServers:
            admin_port = int(extra.rpartition("=")[2])
            result |= probe_checkpoint(server.port, admin_port)
        result["restart_s"] = round(restart_s(server, kill=False), 2)
        result["restart_after_kill_s"] = round(restart_s(server, kill=True), 2)
        result["resident_after_restart_mb"] = resident_mb(server)
        return result


def main() -> None:
    end_in_order()
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--no-apache", action="store_true")
    options = parser.parse_args()
    (admin_port,) = free_ports(1)
    ours = f"admin.enableServer=true\nadmin.snapshot.enabled=true\nadmin.serverPort={admin_port}"
    report: dict[str, object] = {
        "command": " ".join(["python -m bench.coord_million", *sys.argv[1:]]),
        "nodes": options.nodes,
        "value_bytes": len(VALUE),
        "processors": os.cpu_count(),
        "bars": BARS,
    }
    kinds = [("zoolog", CoordServers, ours)]
    if apache_is_installed() and not options.no_apache:
        kinds.append(("apache", ApacheServers, "snapCount=100000000"))
    for name, kind, extra in kinds:
        with tempfile.TemporaryDirectory(prefix=f"coord-million-{name}-") as directory:
            report[name] = measure(kind, Path(directory), options.nodes, extra)
        print(name, report[name], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "coord_million.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
