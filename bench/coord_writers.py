"""Clients for benchmarks of failures: each one request at a time, at the next server as soon as a connection
ends. Part of `coord_failover` and `coord_timeline`.
"""

import random
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise

from bench.coord_load import Client, buffer, node_path

GET_DATA = 4
SET_DATA = 5
RECONNECT_SECONDS = 0.005
CONNECT_SECONDS_MAX = 0.3
"""A stopped server's kernel still takes connections: nobody waits there for long."""
ANSWER_SECONDS_MAX = 10.0


class Writer(threading.Thread):
    """One client; `done` are the times at which its requests completed, `lost` those at which it lost its
    server.
    """

    def __init__(
        self,
        number: int,
        ports: Sequence[int],
        size: int,
        *,
        read_share: float = 0.0,
        interval_seconds: float = 0.0,
    ) -> None:
        super().__init__(daemon=True)
        self.ports = ports
        self.number = number
        self.goes_home = True
        """Set it to bring the client back to the server it begins with: failures gather all at a few."""
        self.port = 0
        """Of the server that it is connected to."""
        self.done: list[float] = []
        self.lost: list[float] = []
        self.stopping = False
        path = buffer(node_path(number))
        self._write = path + buffer(b"z" * size) + struct.pack(">i", -1)
        self._read = path + b"\0"
        self._read_share = read_share
        self._chance = random.Random(number)
        self._interval = interval_seconds
        """From the begin of one request to that of the next, at least."""

    def run(self) -> None:
        turn = self.number
        while not self.stopping:
            if self.goes_home:
                turn, self.goes_home = self.number, False
            self.port = self.ports[turn % len(self.ports)]
            turn += 1
            try:
                client = Client("127.0.0.1", self.port, connect_seconds_max=CONNECT_SECONDS_MAX)
            except OSError:
                time.sleep(RECONNECT_SECONDS)
                continue
            client.socket.settimeout(ANSWER_SECONDS_MAX)
            try:
                self._work(client)
            except OSError:
                self.lost.append(time.perf_counter())
            finally:
                client.socket.close()

    def _work(self, client: Client) -> None:
        due = time.perf_counter()
        while not (self.stopping or self.goes_home):
            now = time.perf_counter()
            if now < due:
                time.sleep(due - now)
            # What was missed is not made up for: a failure is to show as a gap, and nothing behind it.
            due = max(due, now) + self._interval
            if self._chance.random() < self._read_share:
                error = client.call(1, GET_DATA, self._read)
            else:
                error = client.call(1, SET_DATA, self._write)
            if error == 0:
                self.done.append(time.perf_counter())


def stop(writers: Iterable[Writer]) -> None:
    for writer in writers:
        writer.stopping = True
    for writer in writers:
        writer.join(ANSWER_SECONDS_MAX + 1)


def longest_gap_ms(writers: Iterable[Writer], start: float, end: float) -> float:
    """The longest time in which none of them completed anything."""
    times = sorted([start, end, *(t for writer in writers for t in writer.done if start < t < end)])
    return round(max(after - before for before, after in pairwise(times)) * 1000, 1)


def wait_resumed(writers: Sequence[Writer], seconds_min: float, seconds_max: float) -> float:
    """Until something has been completed lately, and some time has passed; what time it is then."""
    begun = time.perf_counter()
    while True:
        time.sleep(0.1)
        now = time.perf_counter()
        latest = max((writer.done[-1] for writer in writers if writer.done), default=0.0)
        if now - begun >= seconds_min and (latest > max(begun, now - 0.1) or now - begun > seconds_max):
            return now
