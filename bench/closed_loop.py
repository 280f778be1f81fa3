"""The load generator's loop in C: at one request for each wake-up Python takes longer over a reply than the
servers do, and measured itself (50 x 1 reads: 43 000/s at a busy core, of any server).

`closed_loop.c` is compiled when it is needed; where there is no C compiler the loop stays Python's.
"""

import ctypes
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pubsub.command.load.coord import Connection, Load, Ring
from pubsub.command.load.latency import Latencies
from tests.shared_library import compile_library

SOURCE = Path(__file__).with_suffix(".c")


@cache
def library() -> ctypes.CDLL | None:
    with tempfile.TemporaryDirectory() as directory:
        path = compile_library(SOURCE, Path(directory))
        if path is None:
            return None
        loaded = ctypes.CDLL(str(path))
    loaded.load_new.restype = ctypes.c_void_p
    loaded.load_counts.restype = ctypes.POINTER(ctypes.c_uint64)
    buckets = ctypes.c_uint32.in_dll(loaded, "load_histogram_count").value
    loaded.load_histogram.restype = ctypes.POINTER(ctypes.c_uint32 * buckets)
    return loaded


def make_load(connections: Sequence[Connection], ring: Ring, outstanding: int) -> Load:
    """The loop in C, or where that is not to be had the one in Python."""
    loaded = library()
    if loaded is None:
        return Load(connections, ring, outstanding)
    return NativeLoad(loaded, connections, ring, outstanding)


class NativeLoad(Load):
    """As `Load`, but who was lost cannot join again."""

    def __init__(
        self, loaded: ctypes.CDLL, connections: Sequence[Connection], ring: Ring, outstanding: int
    ) -> None:
        super().__init__(connections, ring, outstanding)
        self._loaded = loaded
        count = len(connections)
        self._ring_bytes = bytes(ring.data)
        self._starts = (ctypes.c_uint64 * len(ring.starts))(*ring.starts)
        self._load = ctypes.c_void_p(
            loaded.load_new(
                (ctypes.c_int * count)(*(connection.socket.fileno() for connection in connections)),
                (ctypes.c_uint32 * count)(*(connection.next for connection in connections)),
                ctypes.c_uint32(count),
                self._ring_bytes,
                self._starts,
                ctypes.c_uint32(ring.count),
                ctypes.c_uint32(outstanding),
            )
        )

    def start(self) -> None:
        self._loaded.load_start(self._load)

    def reset(self) -> None:
        super().reset()
        self._loaded.load_reset(self._load)

    def run_until(self, deadline: float) -> None:
        left = self._loaded.load_run(self._load, ctypes.c_double(deadline - time.perf_counter()))
        completed, refused, lost = self._loaded.load_counts(self._load)[:3]
        self.completed, self.errors = completed, refused + lost
        if left < len(self.connections):
            raise ConnectionError("closed by the server")

    def read_latencies(self) -> Latencies:
        latencies = Latencies()
        for microseconds, count in enumerate(self._loaded.load_histogram(self._load).contents):
            if count:
                latencies.add((microseconds + 0.5) / 1e6, count)
        return latencies

    def close(self) -> None:
        self._loaded.load_free(self._load)
        super().close()
