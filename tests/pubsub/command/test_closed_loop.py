"""The two loops of the load generator of coordination servers: they ask the same, and count the same."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO, cast

import pytest

from bench.closed_loop import NativeLoad, library
from pubsub.command.load.coord import GET_DATA, Connection, Load, Ring, frame

MakeLoad = Callable[[Sequence[Connection], Ring, int], Load]
WAIT_S = 30
COUNT = 10
OUTSTANDING = 4
ANSWERS = 3000


def make_native(connections: Sequence[Connection], ring: Ring, outstanding: int) -> Load:
    loaded = library()
    if loaded is None:
        pytest.skip("the loop in C needs a C compiler")
    return NativeLoad(loaded, connections, ring, outstanding)


@pytest.fixture(params=[Load, make_native], ids=["python", "c"])
def make_load(request: pytest.FixtureRequest) -> MakeLoad:
    return cast(MakeLoad, request.param)


class Server:
    """Answers the requests of one connection, every seventh with an error; notes their numbers."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.refused = 0
        self.may_end = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as self._listener:
            self._thread = threading.Thread(target=self._serve)
            self._thread.start()
            self.connection = Connection(*self._listener.getsockname())

    def _serve(self) -> None:
        served, _ = self._listener.accept()
        with served, served.makefile("rb") as stream:
            served.settimeout(WAIT_S)
            self._take(stream)
            served.sendall(struct.pack(">i", 0))
            while len(self.asked) < ANSWERS:
                (xid,) = struct.unpack_from(">i", self._take(stream))
                self.asked.append(xid)
                error = -101 if len(self.asked) % 7 == 0 else 0
                self.refused += error != 0
                body = b"" if error else bytes(xid)
                served.sendall(struct.pack(">iiqi", 16 + len(body), xid, 1, error) + body)
            self.may_end.wait(WAIT_S)

    def _take(self, stream: BinaryIO) -> bytes:
        (length,) = struct.unpack(">i", stream.read(4))
        return stream.read(length)

    def end(self) -> None:
        self.may_end.set()
        self._thread.join()


def test_each_connection_asks_in_the_order_of_the_ring_and_every_answer_counts(make_load: MakeLoad) -> None:
    servers = [Server() for _ in range(3)]
    ring = Ring([frame(number, GET_DATA, bytes(number)) for number in range(1, COUNT + 1)], None, OUTSTANDING)
    load = make_load([server.connection for server in servers], ring, OUTSTANDING)
    load.start()
    deadline = time.perf_counter() + WAIT_S
    while load.completed + load.errors < len(servers) * ANSWERS:
        assert time.perf_counter() < deadline
        load.run_until(time.perf_counter() + 0.01)
    for number, server in enumerate(servers):
        first = number * COUNT // len(servers)
        assert server.asked == [(first + i) % COUNT + 1 for i in range(ANSWERS)]
    assert load.errors == sum(server.refused for server in servers)
    assert load.read_latencies().total == len(servers) * ANSWERS
    load.reset()
    assert load.completed == load.errors == load.read_latencies().total == 0
    for server in servers:
        server.end()
    load.close()
