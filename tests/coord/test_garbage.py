"""Hot objects make no cycles (DESIGN 3): with collection off and survivors frozen, a cycle is a leak.

Each test runs something hot with the collector off and asks afterwards what only the collector could free.
"""

import gc
import select
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager

import trio
import trio.testing

from coord import rpc
from coord.reactor import Connection, Reactor
from coord.rpc import Peer, RpcService
from tests.coord.test_rpc import PROTOCOL, Say
from tests.coord.waiting import WAIT_S

ROUNDS = 20


@contextmanager
def no_cycles() -> Iterator[None]:
    """What the block leaves behind must be freed by reference counts alone."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        leaked = Counter(type(thing).__name__ for thing in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not leaked


class Echo:
    """A service whose connections refer to state that refers back to them."""

    def on_open(self, conn: Connection) -> None:
        conn.data = {"connection": conn}
        conn.on_drained = lambda conn: None

    def on_bytes(self, conn: Connection, data: bytes) -> None:
        conn.send_parts([data, b"!"])

    def on_close(self, conn: Connection, reason: str) -> None:
        pass

    def on_tick_end(self) -> None:
        pass


class Answer:
    """A handler that answers, and hangs itself into each peer."""

    def on_connected(self, peer: Peer) -> None:
        peer.data = [peer]
        peer.on_drained = lambda: peer

    def on_request(self, peer: Peer, request_id: int, message: Say, body: memoryview) -> None:
        peer.reply(request_id, message, body)

    def on_one_way(self, peer: Peer, message: Say, body: memoryview) -> None:
        peer.send(message, body)

    def on_disconnected(self, peer: Peer, reason: str) -> None:
        pass

    def on_tick_end(self) -> None:
        pass


def test_connections_and_their_ticks() -> None:
    reactor = Reactor()
    address = reactor.listen("127.0.0.1", 0, Echo())
    with closing(reactor):

        def tick() -> None:
            ready, _, _ = select.select([reactor], [], [], WAIT_S)
            assert ready, "nothing became ready"
            reactor.tick()

        def come_and_go() -> None:
            with socket.create_connection(address, timeout=WAIT_S) as client:
                tick()
                client.sendall(b"hello")
                tick()
                assert client.recv(6) == b"hello!"
            while reactor.statistics().connections:
                tick()

        come_and_go()
        with no_cycles():
            for _ in range(ROUNDS):
                come_and_go()


async def _serve_and(client: Callable[[Reactor, str, int], Awaitable[None]]) -> None:
    reactor = Reactor()
    host, port = reactor.listen("127.0.0.1", 0, RpcService(PROTOCOL, Answer()))
    async with trio.open_nursery() as nursery:
        await nursery.start(reactor.run)
        with trio.fail_after(WAIT_S):
            await client(reactor, host, port)
        nursery.cancel_scope.cancel()


async def test_peers_that_come_and_go() -> None:
    async def client(reactor: Reactor, host: str, port: int) -> None:
        async def come_and_go() -> None:
            stream = socket.create_connection((host, port))
            while not reactor.statistics().connections:
                await trio.testing.wait_all_tasks_blocked(0.001)
            stream.close()
            while reactor.statistics().connections:
                await trio.testing.wait_all_tasks_blocked(0.001)

        await come_and_go()
        with no_cycles():
            for _ in range(3):
                await come_and_go()

    await _serve_and(client)


async def test_requests_and_replies() -> None:
    async def client(_: Reactor, host: str, port: int) -> None:
        async with rpc.connect(host, port, PROTOCOL) as link:
            await link.call(Say("first"), b"body")
            with no_cycles():
                for _ in range(ROUNDS):
                    await link.call(Say("call"), b"body")
                    link.request(Say("request"), b"body", on_reply=lambda reply: None)
                    link.send(Say("one way"), b"body")
                await link.call(Say("last"))

    await _serve_and(client)
