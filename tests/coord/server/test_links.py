"""Peer links over real loopback sockets."""

import os
import socket
from functools import partial

import pytest
import trio
import trio.testing

from coord.listening import ListenError
from coord.reactor import Reactor
from coord.server.greeting import LinkIdentity
from coord.server.introduction import IntroductionError
from coord.server.link import encode_frame
from coord.server.links import PeerLinks
from coord.server.repetitions import INTERVAL_MS, KINDS_MAX, Repetitions
from tests.coord.server.test_slowness import SetClock
from tests.coord_servers import free_ports

SECRET = b"0123456789abcdef"


class User:
    """Records what the links report."""

    def __init__(self) -> None:
        self.connected: list[int] = []
        self.lost: list[int] = []
        self.frames: list[tuple[int, int, bytes, bytes]] = []
        self.changed = trio.Event()

    def on_connected(self, sid: int) -> None:
        self.connected.append(sid)
        self.changed.set()

    def on_disconnected(self, sid: int) -> None:
        self.lost.append(sid)
        self.changed.set()

    def on_frame(self, sid: int, code: int, header: bytes, body: memoryview) -> None:
        self.frames.append((sid, code, header, bytes(body)))
        self.changed.set()

    def on_frames_end(self) -> None:
        self.changed.set()

    async def wait(self, condition: object) -> None:
        with trio.fail_after(60):
            while not condition():  # type: ignore[operator]
                await self.changed.wait()
                self.changed = trio.Event()


async def serve_bytes(content: bytes, sid: int, stream: trio.SocketStream) -> None:
    await stream.send_all(content)


class TickedLinks(PeerLinks):
    """Links with a reactor of their own."""

    def __init__(
        self, identity: LinkIdentity, addresses: list[tuple[str, int]], user: User, content: bytes = b""
    ) -> None:
        self._reactor = Reactor()
        serve = partial(serve_bytes, content), partial(serve_bytes, content[::-1])
        super().__init__(identity, addresses, self._reactor, user, *serve, os.urandom)

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reactor.run)
            await super().run(task_status=task_status)


def make_links(sid: int, addresses: dict[int, tuple[str, int]], user: User, **changes: object) -> PeerLinks:
    several = {other: (address,) for other, address in addresses.items()}
    identity = {"ensemble": "e", "secret": SECRET, "sid": sid, "addresses": several} | changes
    return TickedLinks(
        LinkIdentity(**identity),  # type: ignore[arg-type]
        [("127.0.0.1", 0)],
        user,
        b"state " * 1000,
    )


async def test_two_members_find_each_other_and_frames_arrive_in_order(nursery: trio.Nursery) -> None:
    one, two = User(), User()
    first = make_links(1, {2: ("127.0.0.1", 1)}, one)
    port = await nursery.start(first.run)
    second = make_links(2, {1: ("127.0.0.1", port)}, two)
    await nursery.start(second.run)
    await one.wait(lambda: one.connected == [2])
    await two.wait(lambda: two.connected == [1])
    for number in range(100):
        second.send(1, encode_frame(7, b"h%d" % number, b"x" * number * 100))
    first.send(2, encode_frame(8, b"", b""))
    first.flush()
    second.flush()
    await one.wait(lambda: len(one.frames) == 100)
    await two.wait(lambda: two.frames == [(1, 8, b"", b"")])
    assert one.frames == [(2, 7, b"h%d" % number, b"x" * number * 100) for number in range(100)]


async def test_a_quorum_port_that_is_taken_is_called_by_the_members_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        identity = LinkIdentity("e", SECRET, 3, {})
        links = TickedLinks(identity, [address], User())
        with trio.fail_after(60), pytest.raises(BaseExceptionGroup) as caught:
            await links.run()
    assert caught.group_contains(
        ListenError,
        match=rf"^server\.3: cannot listen at 127\.0\.0\.1:{address[1]}: Address already in use: stop",
    )


async def test_what_the_kernel_does_not_take_at_once_is_sent_all_the_same(nursery: trio.Nursery) -> None:
    one, two = User(), User()
    first = make_links(1, {2: ("127.0.0.1", 1)}, one)
    port = await nursery.start(first.run)
    second = make_links(2, {1: ("127.0.0.1", port)}, two)
    await nursery.start(second.run)
    await two.wait(lambda: two.connected == [1])
    body = bytes(range(256)) * 4096
    for number in range(40):
        second.send(1, encode_frame(7, b"%d" % number, body))
        second.flush()
    await one.wait(lambda: len(one.frames) == 40)
    assert one.frames == [(2, 7, b"%d" % number, body) for number in range(40)]


async def test_a_broken_link_is_reported_once_on_each_side_and_dialled_again(nursery: trio.Nursery) -> None:
    one, two = User(), User()
    first = make_links(1, {2: ("127.0.0.1", 1)}, one)
    port = await nursery.start(first.run)
    second = make_links(2, {1: ("127.0.0.1", port)}, two)
    await nursery.start(second.run)
    await one.wait(lambda: one.connected == [2])
    first.drop(2, "test")
    await one.wait(lambda: one.connected == [2, 2])
    await two.wait(lambda: two.connected == [1, 1])
    assert (one.lost, two.lost) == ([2], [1])


async def test_a_peer_without_the_secret_never_gets_a_link(nursery: trio.Nursery) -> None:
    one, two = User(), User()
    first = make_links(1, {2: ("127.0.0.1", 1)}, one)
    port = await nursery.start(first.run)
    stranger = make_links(2, {1: ("127.0.0.1", port)}, two, secret=b"another secret of 16")
    with pytest.raises(IntroductionError, match="secret"):
        await stranger.open_snapshot(1)
    assert one.connected == two.connected == []


async def test_what_is_refused_again_and_again_is_told_once_a_minute(
    nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_links(1, {2: ("127.0.0.1", 1)}, User())
    port = await nursery.start(first.run)
    secretless = make_links(2, {1: ("127.0.0.1", port)}, User(), secret=b"another secret of 16")
    stranger = make_links(2, {1: ("127.0.0.1", port)}, User(), ensemble="another")
    for _ in range(10):
        for links in (secretless, stranger):
            with pytest.raises(IntroductionError):
                await links.open_snapshot(1)
    told = [line for line in capsys.readouterr().err.splitlines() if "refused a connection" in line]
    assert len(told) == 2


def test_repetitions_of_each_kind_are_counted_and_kinds_bounded() -> None:
    clock = SetClock()
    repetitions = Repetitions(clock)
    assert [repetitions.take("a", "x"), repetitions.take("b", "x"), repetitions.take("a", "x")] == [
        0,
        0,
        None,
    ]
    assert [repetitions.take("a", str(n)) for n in range(KINDS_MAX)].count(0) == KINDS_MAX - 2 + 1
    clock.now_ms += INTERVAL_MS
    assert [repetitions.take("a", "x"), repetitions.take("b", "x")] == [1, 0]


async def test_garbage_on_the_quorum_port_costs_only_its_connection(nursery: trio.Nursery) -> None:
    one, two = User(), User()
    first = make_links(1, {2: ("127.0.0.1", 1)}, one)
    port = await nursery.start(first.run)
    for garbage in (b"\xff" * 100, b"\0\0\0\x05hello", b"GET / HTTP/1.1\r\n\r\n"):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(garbage)
        with trio.fail_after(60):
            try:
                assert await stream.receive_some() == b""
            except trio.BrokenResourceError:
                pass
        await stream.aclose()
    second = make_links(2, {1: ("127.0.0.1", port)}, two)
    await nursery.start(second.run)
    await one.wait(lambda: one.connected == [2])


async def test_a_snapshot_comes_over_a_connection_of_its_own(nursery: trio.Nursery) -> None:
    one, two = User(), User()
    first = make_links(1, {2: ("127.0.0.1", 1)}, one)
    port = await nursery.start(first.run)
    second = make_links(2, {1: ("127.0.0.1", port)}, two)
    stream = await second.open_snapshot(1)
    received = b""
    with trio.fail_after(60):
        while part := await stream.receive_some():
            received += part
    await stream.aclose()
    assert received == b"state " * 1000


async def test_peers_are_not_read_while_their_words_wait_for_the_disk(nursery: trio.Nursery) -> None:
    one, two = User(), User()
    busy = [True]
    first = make_links(1, {2: ("127.0.0.1", 1)}, one)
    first._is_busy = lambda: busy[0]
    port = await nursery.start(first.run)
    second = make_links(2, {1: ("127.0.0.1", port)}, two)
    await nursery.start(second.run)
    await two.wait(lambda: two.connected == [1])
    body = bytes(1 << 20)
    for number in range(32):
        second.send(1, encode_frame(7, b"%d" % number, body))
        second.flush()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert one.frames == []
    assert second.queued_bytes(1) > 0
    busy.clear()
    busy.append(False)
    await one.wait(lambda: len(one.frames) == 32)


async def test_what_is_sent_as_a_link_begins_need_not_fit_into_the_kernel(nursery: trio.Nursery) -> None:
    body = bytes(1 << 20)

    class Greeter(User):
        links: PeerLinks

        def on_connected(self, sid: int) -> None:
            for number in range(16):
                self.links.send(sid, encode_frame(7, b"%d" % number, body))
            self.links.flush()
            super().on_connected(sid)

    one, two = Greeter(), Greeter()
    one.links = make_links(1, {2: ("127.0.0.1", 1)}, one)
    port = await nursery.start(one.links.run)
    two.links = make_links(2, {1: ("127.0.0.1", port)}, two)
    await nursery.start(two.links.run)
    await one.wait(lambda: len(one.frames) == 16)
    await two.wait(lambda: len(two.frames) == 16)
    assert (one.lost, two.lost) == ([], [])


async def test_a_link_that_breaks_while_it_is_not_read_ends(nursery: trio.Nursery) -> None:
    one, two = User(), User()
    first = make_links(1, {2: ("127.0.0.1", 1)}, one)
    first._is_busy = lambda: True
    port = await nursery.start(first.run)
    async with trio.open_nursery() as other:
        second = make_links(2, {1: ("127.0.0.1", port)}, two)
        second._is_busy = lambda: True
        await other.start(second.run)
        await two.wait(lambda: two.connected == [1])
        await one.wait(lambda: one.connected == [2])
        second.send(1, encode_frame(7, b"", b""))
        second.flush()
        # What `second` has not read makes the end of its socket a reset.
        first.send(2, encode_frame(8, b"", bytes(1 << 16)))
        first.flush()
        await trio.testing.wait_all_tasks_blocked(0.05)
        other.cancel_scope.cancel()
    await one.wait(lambda: one.lost == [2])


async def test_a_member_is_found_at_the_address_that_answers(nursery: trio.Nursery) -> None:
    """19.1: several addresses, tried in order."""
    one, two = User(), User()
    first = make_links(1, {2: ("127.0.0.1", 1)}, one)
    port = await nursery.start(first.run)
    identity = LinkIdentity("e", SECRET, 2, {1: (("127.0.0.1", free_ports(1)[0]), ("127.0.0.1", port))})
    second = TickedLinks(identity, [("127.0.0.1", 0)], two)
    await nursery.start(second.run)
    await two.wait(lambda: two.connected == [1])


async def test_a_member_listens_on_each_of_its_addresses(nursery: trio.Nursery) -> None:
    ports = free_ports(2)
    # The last is no address of this machine's (TEST-NET-1).
    addresses = [*(("127.0.0.1", port) for port in ports), ("192.0.2.1", ports[0])]
    one = User()
    first = TickedLinks(LinkIdentity("e", SECRET, 1, {2: (("127.0.0.1", 1),)}), addresses, one)
    await nursery.start(first.run)
    for port in ports:
        two = User()
        async with trio.open_nursery() as other:
            await other.start(make_links(2, {1: ("127.0.0.1", port)}, two).run)
            await two.wait(lambda two=two: two.connected == [1])  # type: ignore[misc]
            other.cancel_scope.cancel()
