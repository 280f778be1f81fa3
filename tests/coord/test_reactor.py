"""The reactor of DESIGN 3 "Listener": ticks, output, pauses, ends, and no idle wake-ups.

Most tests drive the ticks by hand, over real sockets on the loopback.
"""

import resource
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import trio
import trio.testing

from coord.reactor import Connection, Reactor
from coord.reactor import loop as reactor_loop
from tests.coord.waiting import WAIT_S, until

BIG = 8 * 1024 * 1024


class ManualClock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now_ms = 1_000

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return self.now_ms


class Recorder:
    """A service that notes what happens; `react` is called with what was read."""

    def __init__(self) -> None:
        self.opened: list[Connection] = []
        self.received: dict[Connection, bytes] = {}
        self.closed: list[tuple[Connection, str]] = []
        self.calls: list[str] = []
        self.react: Callable[[Connection, bytes], None] = lambda conn, data: None

    def on_open(self, conn: Connection) -> None:
        self.calls.append("open")
        self.opened.append(conn)
        self.received[conn] = b""

    def on_bytes(self, conn: Connection, data: bytes) -> None:
        self.calls.append("bytes")
        self.received[conn] += data
        self.react(conn, data)

    def on_close(self, conn: Connection, reason: str) -> None:
        self.calls.append("close")
        self.closed.append((conn, reason))

    def on_tick_end(self) -> None:
        self.calls.append("tick end")


class Stage:
    """A reactor with one listener, and the clients of a test."""

    def __init__(self, **options: int) -> None:
        self.clock = ManualClock()
        self.reactor = Reactor(self.clock, **options)
        self.service = Recorder()
        self.address = self.reactor.listen("127.0.0.1", 0, self.service)
        self.clients: list[socket.socket] = []

    def turn(self, until: Callable[[], object]) -> None:
        """Tick whenever something is ready, until `until`."""
        while not until():
            ready, _, _ = select.select([self.reactor], [], [], WAIT_S)
            assert ready, "nothing became ready"
            self.reactor.tick()

    def wait_readable(self, *conns: Connection, newcomer: bool = False) -> None:
        """Until all these have something to be read, and the listener somebody to be accepted."""
        waiting = {conn.fd for conn in conns}
        if newcomer:
            waiting.add(self.reactor._listeners[0].fd)
        for fd in waiting:
            ready, _, _ = select.select([fd], [], [], WAIT_S)
            assert ready, "nothing has arrived"

    def idle(self) -> bool:
        """Nothing is ready: the reactor's task would sleep."""
        return not select.select([self.reactor], [], [], 0.02)[0]

    def connect(self, **socket_options: int) -> tuple[socket.socket, Connection]:
        client = socket.socket()
        for name, value in socket_options.items():
            client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        client.settimeout(WAIT_S)
        client.connect(self.address)
        self.clients.append(client)
        known = len(self.service.opened)
        self.turn(lambda: len(self.service.opened) > known)
        return client, self.service.opened[-1]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.reactor.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with closing(Stage()) as made:
        yield made


def receive_exactly(client: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        data = client.recv(length - len(received))
        assert data, f"the connection ended after {len(received)} of {length} bytes"
        received += data
    return received


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_bytes_arrive_and_replies_leave_in_the_same_tick(stage: Stage) -> None:
    client, conn = stage.connect()
    stage.service.react = lambda conn, data: conn.send(data.upper())
    client.sendall(b"hello")
    stage.turn(lambda: stage.service.received[conn])
    assert receive_exactly(client, 5) == b"HELLO"
    assert (conn.bytes_in, conn.bytes_out, conn.pending_output) == (5, 5, 0)


def test_a_tick_delivers_all_that_is_readable_before_its_end(stage: Stage) -> None:
    first, one = stage.connect()
    second, other = stage.connect()
    stage.service.calls.clear()
    first.sendall(b"1")
    second.sendall(b"2")
    stage.wait_readable(one, other)
    stage.reactor.tick()
    assert stage.service.calls == ["bytes", "bytes", "tick end"]


def test_what_is_queued_at_the_end_of_a_tick_still_leaves_with_it(stage: Stage) -> None:
    client, conn = stage.connect()
    stage.service.on_tick_end = lambda: conn.send(b"late")  # type: ignore[method-assign]
    stage.reactor._tick_ends[:] = [stage.service.on_tick_end]
    client.sendall(b"x")
    stage.turn(lambda: stage.service.received[conn])
    assert receive_exactly(client, 4) == b"late"


def test_many_sends_of_a_tick_are_one(stage: Stage) -> None:
    client, conn = stage.connect()
    sends = []
    original = conn._send

    def send(data: bytes) -> int:
        sends.append(bytes(data))
        return original(data)

    conn._send = send  # type: ignore[assignment]
    conn.send(b"a")
    conn.send_parts([b"b", memoryview(b"c")])
    conn.send(b"d")
    stage.reactor.flush()
    assert sends == [b"abcd"]
    assert receive_exactly(client, 4) == b"abcd"


def test_output_is_watched_for_only_while_some_is_left(stage: Stage) -> None:
    client, conn = stage.connect(SO_RCVBUF=4096)
    drained = []
    conn.on_drained = drained.append
    data = bytes(range(256)) * (BIG // 256)
    conn.send(data)
    stage.reactor.flush()
    assert conn._events & select.EPOLLOUT
    assert conn.pending_output > 0
    conn.send(b"!")
    received = threading.Thread(target=lambda: results.append(receive_exactly(client, BIG + 1)))
    results: list[bytes] = []
    received.start()
    stage.turn(lambda: conn.pending_output == 0)
    received.join()
    assert results == [data + b"!"]
    assert not conn._events & select.EPOLLOUT
    assert drained == [conn]
    assert stage.idle()


def test_a_paused_connection_is_not_read_and_wakes_nobody(stage: Stage) -> None:
    client, conn = stage.connect()
    conn.pause()
    client.sendall(b"waiting")
    assert stage.idle()
    conn.resume()
    stage.turn(lambda: stage.service.received[conn] == b"waiting")


def test_a_paused_connection_that_is_reset_goes_at_once(stage: Stage) -> None:
    client, conn = stage.connect()
    conn.pause()
    reset(client)
    stage.turn(lambda: stage.service.closed)
    assert "reset" in stage.service.closed[0][1]
    assert stage.idle()
    assert stage.reactor.statistics().connections == 0


def test_a_paused_connection_whose_peer_ended_wakes_nobody_until_resumed(stage: Stage) -> None:
    client, conn = stage.connect()
    conn.pause()
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    assert stage.idle()
    conn.resume()
    stage.turn(lambda: stage.service.closed)
    assert stage.service.received[conn] == b"last words"


async def test_ends_of_every_kind_cost_a_few_ticks_and_then_none() -> None:
    """The count of wake-ups that DESIGN 3 asks for: a socket left behind would make a million a second."""
    reactor, service = Reactor(), Recorder()
    address = reactor.listen("127.0.0.1", 0, service)
    service.react = lambda conn, data: conn.close(flush=False)
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        for end in range(4):
            client = socket.create_connection(address)
            await until(lambda end=end: len(service.opened) == end + 1)  # type: ignore[misc]
            if end == 0:
                client.shutdown(socket.SHUT_WR)
            elif end == 1:
                reset(client)
            elif end == 2:
                client.sendall(b"close me")
            else:
                service.opened[-1].pause()
                reset(client)
            await until(lambda end=end: len(service.closed) == end + 1)  # type: ignore[misc]
            if end != 1:
                client.close()
        await until(lambda: not reactor.statistics().connections)
        ticks = reactor.statistics().ticks
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert reactor.statistics().ticks == ticks
        assert ticks < 30
        assert len(service.closed) == 4
        nursery.cancel_scope.cancel()


def test_close_flushes_then_ends(stage: Stage) -> None:
    client, conn = stage.connect()

    def answer(conn: Connection, data: bytes) -> None:
        conn.send(b"bye")
        conn.close(reason="done")
        conn.send(b"ignored")

    stage.service.react = answer
    client.sendall(b"end, with bytes that are never read")
    stage.turn(lambda: stage.service.closed)
    assert receive_exactly(client, 3) == b"bye"
    assert client.recv(1) == b""
    assert stage.service.closed == [(conn, "done")]
    client.close()
    stage.turn(lambda: stage.reactor.statistics().connections == 0)


def test_unread_input_does_not_destroy_the_last_reply(stage: Stage) -> None:
    """Closing a socket with unread bytes resets it; the reactor reads them away first."""
    client, conn = stage.connect()
    conn.pause()
    client.sendall(b"x" * 100_000)
    conn.send(b"reply")
    conn.close()
    stage.reactor.flush()
    client.sendall(b"y" * 100_000)
    assert receive_exactly(client, 5) == b"reply"
    assert client.recv(1) == b""


def test_a_peer_that_never_ends_is_cut_off_in_time(stage: Stage) -> None:
    _, conn = stage.connect()
    conn.close()
    stage.reactor.flush()
    stage.clock.now_ms += reactor_loop.FLUSH_MS_MAX - 1
    stage.reactor.keep_house()
    assert stage.reactor.statistics().connections == 1
    stage.clock.now_ms += 1
    stage.reactor.keep_house()
    assert stage.reactor.statistics().connections == 0


def test_output_past_the_limit_costs_the_connection(stage: Stage) -> None:
    with closing(Stage(output_bytes_max=1000)) as small:
        client, conn = small.connect()
        conn.send(b"x" * 1001)
        small.reactor.flush()
        assert small.service.closed == [(conn, "output over 1000 bytes")]
        assert client.recv(1) == b""


def test_a_failing_service_costs_only_its_connection(stage: Stage) -> None:
    bad, bad_conn = stage.connect()
    good, _ = stage.connect()

    def react(conn: Connection, data: bytes) -> None:
        if conn is bad_conn:
            raise ValueError("hostile bytes")
        conn.send(data)

    stage.service.react = react
    bad.sendall(b"x")
    good.sendall(b"y")
    stage.turn(lambda: stage.service.closed)
    assert stage.service.closed == [(bad_conn, "service failed: ValueError")]
    assert receive_exactly(good, 1) == b"y"


def test_a_descriptor_closed_in_a_tick_does_not_come_back_in_it(stage: Stage) -> None:
    """Events are per descriptor: one for the old connection must never reach a new one."""
    _, victim = stage.connect()
    killer, killing = stage.connect()
    victim_fd = victim.fd
    stage.service.react = lambda conn, data: victim.close(flush=False)
    killer.sendall(b"x")
    stage.clients[0].sendall(b"stale")
    newcomer = socket.create_connection(stage.address)
    stage.clients.append(newcomer)
    stage.wait_readable(victim, killing, newcomer=True)
    stage.reactor.tick()
    assert stage.service.closed[0][0] is victim
    assert len(stage.service.opened) == 3
    accepted = stage.service.opened[2]
    assert accepted.fd != victim_fd
    assert accepted.generation > victim.generation


def test_one_report_for_one_end_however_often_it_is_closed(stage: Stage) -> None:
    client, conn = stage.connect()

    def close_twice(conn: Connection, data: bytes) -> None:
        conn.close(reason="first")
        conn.close(flush=False, reason="second")

    stage.service.react = close_twice
    client.sendall(b"x")
    stage.turn(lambda: stage.service.closed)
    reset(client)
    stage.turn(lambda: stage.reactor.statistics().connections == 0)
    assert stage.service.closed == [(conn, "first")]


def test_reports_of_an_end_may_send_to_others(stage: Stage) -> None:
    leaver, _ = stage.connect()
    stayer, staying = stage.connect()
    stage.service.on_close = lambda conn, reason: staying.send(b"gone")  # type: ignore[method-assign]
    leaver.close()
    stage.turn(lambda: staying.bytes_out)
    assert receive_exactly(stayer, 4) == b"gone"


def test_connections_over_the_limit_are_closed_at_once() -> None:
    with closing(Stage(connections_max=1)) as small:
        small.connect()
        second = socket.create_connection(small.address)
        second.settimeout(WAIT_S)
        small.turn(lambda: small.reactor.statistics().refused)
        assert second.recv(1) == b""
        second.close()
        assert small.idle()


def test_running_out_of_descriptors_does_not_spin(stage: Stage) -> None:
    waiting = socket.create_connection(stage.address)
    stage.wait_readable(newcomer=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
    try:
        stage.reactor.tick()
        idle = not select.select([stage.reactor.fileno()], [], [], 0.02)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    waiting.close()
    assert idle
    assert stage.service.opened == []
    stage.reactor.keep_house()
    stage.turn(lambda: stage.service.opened)


def test_a_large_input_comes_in_bounded_pieces() -> None:
    with closing(Stage(read_bytes_max=1000)) as small:
        client, conn = small.connect()
        sizes: list[int] = []
        small.service.react = lambda conn, data: sizes.append(len(data))
        client.sendall(b"x" * 10_000)
        small.turn(lambda: len(small.service.received[conn]) == 10_000)
        assert max(sizes) <= 1000


async def test_threads_wake_the_loop_once_for_many_reports() -> None:
    reactor = Reactor()
    reported: list[int] = []
    seen: list[list[int]] = []
    done = trio.Event()

    def on_report() -> None:
        seen.append(reported.copy())
        if len(reported) == 1000:
            done.set()

    wakeup = reactor.wakeup(on_report)

    def work() -> None:
        for number in range(1000):
            reported.append(number)
            wakeup.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        thread = threading.Thread(target=work)
        thread.start()
        with trio.fail_after(WAIT_S):
            await done.wait()
        thread.join()
        assert seen[-1] == list(range(1000))
        assert len(seen) <= 1000
        nursery.cancel_scope.cancel()
    wakeup.set()  # after the reactor's end this does nothing


async def test_stop_lets_connections_take_what_they_are_owed() -> None:
    reactor, service = Reactor(), Recorder()
    address = reactor.listen("127.0.0.1", 0, service)
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        stream = await trio.open_tcp_stream(*address)
        await until(lambda: service.opened)
        service.opened[0].send(b"farewell")
        reactor.stop()
        with trio.fail_after(WAIT_S):
            received = b""
            while data := await stream.receive_some():
                received += data
        await stream.aclose()
    assert received == b"farewell"
    assert service.closed[0][1] == "server stops"


async def test_cancelling_run_closes_everything() -> None:
    reactor, service = Reactor(), Recorder()
    address = reactor.listen("127.0.0.1", 0, service)
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        stream = await trio.open_tcp_stream(*address)
        await until(lambda: service.opened)
        nursery.cancel_scope.cancel()
    with pytest.raises(OSError):
        await trio.open_tcp_stream(*address)
    await trio.aclose_forcefully(stream)


async def test_listens_on_every_interface_and_both_families() -> None:
    reactor, service = Reactor(), Recorder()
    _, port = reactor.listen("", 0, service)
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        async with await trio.open_tcp_stream("127.0.0.1", port):
            await until(lambda: service.opened)
        assert len(service.opened) == 1
        nursery.cancel_scope.cancel()


def test_statistics_count_what_happened(stage: Stage) -> None:
    client, conn = stage.connect()
    stage.service.react = lambda conn, data: conn.send(data * 2)
    client.sendall(b"abc")
    stage.turn(lambda: stage.service.received[conn])
    client.close()
    stage.turn(lambda: stage.service.closed)
    statistics = stage.reactor.statistics()
    assert (statistics.accepted, statistics.connections) == (1, 0)
    assert (statistics.bytes_in, statistics.bytes_out) == (3, 6)
