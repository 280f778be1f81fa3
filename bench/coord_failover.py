"""How long does no write complete when the leader of three servers is killed?

    python -m bench.coord_failover [--rounds N] [--clients C] [--tick MS]

Unit: milliseconds without a completed write, over all clients, around a kill -9 of the leader under load (1
KB setData, fsync on, each client one write at a time, reconnecting to the next server as soon as its
connection ends). The killed server is started again before the next round. Bar: median of five at most 500
ms. Reported beside it: the time until every server serves again. The result goes to
bench/results/coord_failover.json.
"""

import argparse
import json
import statistics
import struct
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

from bench.coord_load import Client, buffer, node_path, prepare
from tests.coord_servers import CoordServers

RESULTS = Path(__file__).parent / "results"
BAR_MS = 500
SET_DATA = 5
RECONNECT_SECONDS = 0.005


class Writer(threading.Thread):
    """One client; `done` are the times at which its writes completed."""

    def __init__(self, number: int, ports: list[int], size: int) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.ports = ports
        self.body = buffer(node_path(number)) + buffer(b"z" * size) + struct.pack(">i", -1)
        self.done: list[float] = []
        self.stopping = False

    def run(self) -> None:
        turn = self.number
        while not self.stopping:
            turn += 1
            try:
                client = Client("127.0.0.1", self.ports[turn % len(self.ports)])
            except OSError:
                time.sleep(RECONNECT_SECONDS)
                continue
            try:
                while not self.stopping:
                    if client.call(1, SET_DATA, self.body) == 0:
                        self.done.append(time.perf_counter())
            except OSError:
                pass
            finally:
                client.socket.close()


def longest_gap_ms(writers: list[Writer], start: float, end: float) -> float:
    times = sorted([start, end, *(t for writer in writers for t in writer.done if start < t < end)])
    return max(after - before for before, after in pairwise(times)) * 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--tick", type=int, default=2000)
    options = parser.parse_args()
    gaps: list[float] = []
    recoveries: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="coord-failover-") as directory,
        CoordServers(Path(directory), 3, tick_ms=options.tick) as servers,
    ):
        ports = [server.port for server in servers.servers]
        setup = Client("127.0.0.1", ports[0])
        prepare(setup, 1024, options.clients)
        setup.socket.close()
        writers = [Writer(number, ports, 1024) for number in range(options.clients)]
        for writer in writers:
            writer.start()
        for _ in range(options.rounds):
            time.sleep(1.0)
            leader = servers.leader()
            killed = time.perf_counter()
            leader.kill()
            time.sleep(2.0)
            gaps.append(round(longest_gap_ms(writers, killed, time.perf_counter()), 1))
            started = time.perf_counter()
            leader.start()
            servers.wait_serving()
            recoveries.append(round((time.perf_counter() - started) * 1000, 1))
            print(
                f"no write completed for {gaps[-1]} ms; the killed server was back after {recoveries[-1]} ms"
            )
        for writer in writers:
            writer.stopping = True
        for writer in writers:
            writer.join(5)
    median = statistics.median(gaps)
    print(f"median {median} ms (bar {BAR_MS}{'' if median <= BAR_MS else ', MISSED'})")
    result = {"gaps_ms": gaps, "median_ms": median, "bar_ms": BAR_MS, "rejoin_ms": recoveries}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "coord_failover.json").write_text(json.dumps(result | vars(options), indent=1) + "\n")


if __name__ == "__main__":
    main()
